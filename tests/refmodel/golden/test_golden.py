"""Golden inference against loops written from the specification."""

import dataclasses
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.golden import layer as layer_module
from refmodel.golden import serial as serial_module
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import engine_config_for, ou_count
from refmodel.program.step import Step
from tests.support.layers.builders import ProgramLists, random_codes, random_layer_program
from tests.support.layers.layers_by_hand import single

SEEDS = range(24)


def make(seed: int, **kwargs) -> tuple[LayerProgram, np.ndarray]:
    rng = np.random.default_rng(seed)
    layer = random_layer_program(rng, **kwargs)
    return layer, random_codes(rng, layer, images=2)


def looped(layer: LayerProgram, codes: np.ndarray) -> np.ndarray:
    """Convolution as the textbook has it: accumulators [N, OH, OW, O] in Python integers."""
    weights = layer.effective_weights()
    (height, width, channels), (oh, ow, outputs) = layer.in_shape, layer.out_shape
    result = np.zeros((len(codes), oh, ow, outputs), np.int64)
    for n, y, x, o in np.ndindex(result.shape):
        total = 0
        for ky, kx, c in product(range(layer.kernel[0]), range(layer.kernel[1]), range(channels)):
            row = y * layer.stride[0] + ky * layer.dilation[0] - layer.pads[0]
            col = x * layer.stride[1] + kx * layer.dilation[1] - layer.pads[1]
            inside = 0 <= row < height and 0 <= col < width
            code = int(codes[n, row, col, c]) if inside else layer.zero_in
            total += int(weights[o, ky * layer.kernel[1] + kx, c]) * code
        result[n, y, x, o] = total
    return result


def requantised(layer: LayerProgram, sums: np.ndarray) -> np.ndarray:
    """Outputs in exact rational arithmetic: Python's floor division of integers."""
    result = np.zeros(sums.shape, np.uint8)
    for index in np.ndindex(sums.shape):
        o = index[-1]
        product_ = (int(sums[index]) + int(layer.bias[o])) * int(layer.multiplier[o])
        scaled = (2 * product_ + (1 << int(layer.shift[o]))) // (2 << int(layer.shift[o]))
        result[index] = min(max(scaled + layer.zero_out, layer.clip_lo), layer.clip_hi)
    return result


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_path_is_the_convolution(seed):
    layer, codes = make(seed)
    expected = looped(layer, codes)
    assert (golden.accumulators(layer, codes) == expected).all()
    assert (golden.run_layer(layer, codes) == requantised(layer, expected)).all()


@pytest.mark.parametrize(
    "mutate",
    [
        pytest.param(lambda p: {"shift": p.shift + 1}, id="output-shift"),
        pytest.param(lambda p: {"zero_in": 0}, id="padding-with-0"),
        pytest.param(lambda p: {"word_sign": np.zeros_like(p.word_sign)}, id="sign-lost"),
        pytest.param(
            lambda p: {"word_shift": np.where(p.word_shift < 14, p.word_shift + 1, p.word_shift)},
            id="word-shift",
        ),
        pytest.param(lambda p: {"word_slot": np.zeros_like(p.word_slot)}, id="word-slot"),
        pytest.param(lambda p: {"multiplier": -p.multiplier}, id="multiplier-sign"),
        pytest.param(lambda p: {"clip_lo": 0, "clip_hi": 255}, id="no-clip"),
        pytest.param(lambda p: {"weights": np.roll(p.weights, 1, axis=1)}, id="row-order"),
    ],
)
def test_altered_programs_give_other_outputs(mutate):
    differ = 0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        layer = random_layer_program(
            rng, identity=False, pads=(1, 1, 1, 1), zero_in=100, kernel=(3, 3), groups=1
        )
        layer = dataclasses.replace(layer, clip_lo=20, clip_hi=200)
        codes = random_codes(rng, layer)
        mutant = dataclasses.replace(layer, **mutate(layer))
        differ += bool(
            (golden.run_layer(mutant, codes) != requantised(layer, looped(layer, codes))).any()
        )
    assert differ >= len(SEEDS) // 2


@given(
    seed=st.integers(0, 2**32 - 1),
    ou_rows=st.sampled_from([4, 8, 9, 16, 32]),
    ou_cols=st.sampled_from([8, 16, 24, 32]),
    adcs=st.sampled_from([1, 2, 4, 8]),
    identity=st.booleans(),
    terms=st.integers(1, 4),
)
def test_serial_path_is_the_exact_path(seed, ou_rows, ou_cols, adcs, identity, terms):
    layer, codes = make(
        seed, ou_rows=ou_rows, identity=identity, terms=terms, long_patterns=ou_rows < 9
    )
    config = EngineConfig(ou_rows=ou_rows, ou_cols=ou_cols, adcs=adcs)
    trace = golden.run_layer_serial(layer, codes, config)
    sums = golden.accumulators(layer, codes)
    assert (trace.accumulators == sums.reshape(trace.accumulators.shape)).all()
    assert (trace.outputs == golden.run_layer(layer, codes).reshape(trace.outputs.shape)).all()


def walk(layer: LayerProgram, codes: np.ndarray, config: EngineConfig, *, top: int = -128):
    """One image through the engine, value by value, in plain loops.

    Yields ("request", ou, digit, chunk, wordlines, codes), ("psum", value) and, last of a
    position, ("sums", values).
    """
    padded = golden.pad(layer, codes[None])[0].astype(int)
    for y, x in np.ndindex(*layer.out_shape[:2]):
        gather = segment = pattern = word = ou = 0
        sums = [0] * layer.out_shape[2]
        for g in range(len(layer.group_kept)):
            slots: list[int] = []
            for _ in range(layer.group_gathers[g]):
                values = []
                for s in range(segment, segment + layer.gather_segments[gather]):
                    ky, kx = divmod(int(layer.segment_position[s]), layer.kernel[1])
                    pixel = padded[
                        y * layer.stride[0] + ky * layer.dilation[0],
                        x * layer.stride[1] + kx * layer.dilation[1],
                    ]
                    first = int(layer.gather_base[gather] + layer.segment_channel[s])
                    values.extend(pixel[first : first + layer.segment_length[s]].tolist())
                values += [0] * (layer.ou_rows - len(values))
                count = int(layer.gather_patterns[gather])
                sums_here = [0] * count
                for start in range(0, count, config.patterns_per_ou):
                    here = range(start, min(start + config.patterns_per_ou, count))
                    for digit in range(8):
                        wordlines = [value >> digit & 1 for value in values]
                        converted = []
                        for p in here:
                            for bit in range(8):
                                cells = [
                                    (int(w) & 255) >> bit & 1 for w in layer.weights[pattern + p]
                                ]
                                code = sum(a * b for a, b in zip(wordlines, cells, strict=True))
                                code = min(code, config.max_code)
                                converted.append(code)
                                weight = top if bit == 7 else 1 << bit
                                sums_here[p] += (code << digit) * weight
                        for chunk in range(0, len(converted), config.adcs):
                            part = converted[chunk : chunk + config.adcs]
                            yield "request", ou, digit, chunk // config.adcs, wordlines, part
                    ou += 1
                if layer.gather_accumulate[gather]:
                    slots[-count:] = [a + b for a, b in zip(slots[-count:], sums_here, strict=True)]
                else:
                    slots += sums_here
                segment += layer.gather_segments[gather]
                pattern += count
                gather += 1
            for value in slots:
                yield "psum", value
            for j in range(layer.group_outputs[g]):
                o = int(layer.group_first_output[g]) + j
                if layer.group_write[g]:
                    sums[o] = 0
                if layer.identity:
                    sums[o] += slots[j] << 8
                    continue
                for _ in range(layer.terms):
                    shift, sign = int(layer.word_shift[word]), int(layer.word_sign[word])
                    if shift != 15:
                        sums[o] += (-1) ** sign * (slots[layer.word_slot[word]] << shift)
                    word += 1
        yield "sums", sums


def shown(trace: golden.LayerTrace) -> list[tuple]:
    """What a trace has of its first image, apart from psums and sums, as walk yields it."""
    return [
        (int(ou), int(digit), int(chunk), lines.tolist(), codes.tolist())
        for position in range(trace.codes.shape[1])
        for ou, digit, chunk, lines, codes in zip(
            trace.ou,
            trace.digit,
            trace.chunk,
            trace.digits[0, position],
            trace.codes[0, position],
            strict=True,
        )
    ]


@pytest.mark.parametrize("seed", range(12))
def test_trace_shows_every_value_in_the_order_of_the_engine(seed):
    layer, codes = make(
        seed, ou_rows=(4, 8, 9)[seed % 3], in_shape=(3, 3, 5), pads=(1, 0, 0, 1), kernel=(2, 2),
        dilation=(1, 1), stride=(2, 1),
    )  # fmt: skip
    config = EngineConfig(
        ou_rows=layer.ou_rows, ou_cols=(8, 16)[seed % 2], adcs=(1, 2, 4, 8)[seed % 4],
        adc_bits=(0, 0, 2)[seed % 3],
    )  # fmt: skip
    trace = golden.run_layer_serial(layer, codes[:1], config)
    events = list(walk(layer, codes[0], config))
    assert shown(trace) == [event[1:] for event in events if event[0] == "request"]
    assert trace.psums.ravel().tolist() == [event[1] for event in events if event[0] == "psum"]
    assert trace.accumulators[0].tolist() == [event[1] for event in events if event[0] == "sums"]
    assert (trace.outputs == requantised(layer, trace.accumulators)).all()
    assert len(set(trace.ou.tolist())) == ou_count(layer, config)


def test_top_column_that_counts_plus_128_is_noticed():
    layer, codes = make(3, in_shape=(3, 3, 2), pads=(0, 0, 0, 0))
    config = EngineConfig(ou_rows=layer.ou_rows)
    trace = golden.run_layer_serial(layer, codes[:1], config)
    events = walk(layer, codes[0], config, top=128)
    assert trace.psums.ravel().tolist() != [event[1] for event in events if event[0] == "psum"]


@pytest.mark.parametrize(
    ("total", "multiplier", "shift", "zero", "expected"),
    [
        # 3 and -3 halved, ties upwards: 1.5 -> 2, -1.5 -> -1
        pytest.param(3, 1, 1, 10, 12, id="tie-up"),
        pytest.param(-3, 1, 1, 10, 9, id="tie-up-below-0"),
        # a negative multiplier: -1.5 -> -1, 1.5 -> 2
        pytest.param(3, -1, 1, 10, 9, id="negative-multiplier"),
        pytest.param(-3, -1, 1, 10, 12, id="negative-both"),
        pytest.param(5, 1, 2, 0, 1, id="a-quarter-below-half"),
        pytest.param(7, 3, 0, 0, 21, id="no-shift"),
        pytest.param(-1, 32767, 0, 255, 0, id="clips-low"),
        pytest.param(1, 32767, 0, 0, 255, id="clips-high"),
        # the widest product: 2^46 * 2^14 / 2^47 = 2^13 * ... stays inside 64 bits
        pytest.param(1 << 46, 16384, 47, 0, 255, id="wide"),
        pytest.param(-(1 << 46), -32767, 47, 0, 255, id="wide-negative"),
        # 2^33 * 16384 / 2^47 = 1; one less than half of that rounds to 0
        pytest.param(1 << 33, 16384, 47, 7, 8, id="one"),
        pytest.param((1 << 32) - 1, 16384, 47, 7, 7, id="just-below-half"),
        pytest.param(1 << 32, 16384, 47, 7, 8, id="half"),
    ],
)
def test_requantisation_by_hand(total, multiplier, shift, zero, expected):
    layer = single([[1]], multiplier=[multiplier], shift=[shift], zero_out=zero)
    assert golden.output_codes(layer, np.array([total])).tolist() == [expected]
    with_bias = dataclasses.replace(layer, bias=[total])
    assert golden.output_codes(with_bias, np.array([0])).tolist() == [expected]


def test_adc_of_too_few_bits_clips():
    # Weight -1 is eight ones: every column counts 8 driven wordlines, and 2 bits reach 3.
    # Columns add up to -1, digits to 255: 3 * 255 * -1 instead of 8 * 255 * -1.
    layer = single([[-1] * 8])
    codes = np.full((1, 1, 1, 8), 255, np.uint8)
    clipped = golden.run_layer_serial(layer, codes, EngineConfig(adc_bits=2))
    assert clipped.psums.ravel().tolist() == [-765]
    assert (clipped.codes == 3).all()
    whole = golden.run_layer_serial(layer, codes, EngineConfig(adc_bits=4))
    assert whole.psums.ravel().tolist() == [-2040]


def test_device_takes_the_place_of_the_crossbar():
    layer = single([[-1] * 8, [1] * 8])
    codes = np.full((1, 1, 1, 8), 255, np.uint8)
    seen = []

    def device(digits, cells, ous):
        seen.append((digits.shape, cells.shape, ous.tolist()))
        # rint, halves to even: 2.5 gives 2, 3.5 gives 4
        return np.broadcast_to([[[[2.5]]], [[[3.5]]]], (len(ous), digits.shape[1], 8, 8))

    trace = golden.run_layer_serial(layer, codes, EngineConfig(), device=device)
    assert seen == [((2, 1, 8, 8), (2, 8, 8), [0, 1])]
    assert trace.psums.ravel().tolist() == [2 * 255 * -1, 4 * 255 * -1]
    high = golden.run_layer_serial(
        layer, codes, EngineConfig(), device=lambda d, c, o: np.full((2, 1, 8, 8), 99.0)
    )
    assert (high.codes == 15).all()
    highest = golden.run_layer_serial(
        layer,
        codes,
        EngineConfig(adc_bits=8),
        device=lambda d, c, o: np.broadcast_to([0.0] * 7 + [1e9], (2, 1, 8, 8)),
    )
    assert highest.psums.ravel().tolist() == [255 * 255 * -128] * 2


def test_cells_are_twos_complement_low_bit_first():
    layer = single([[-128, 127], [1, -1], [2, 0]])
    cells = golden.cells(layer, EngineConfig(ou_cols=16))
    assert cells.shape == (2, 8, 16)
    assert cells[0, 0].tolist() == [0] * 7 + [1] + [1] + [0] * 7
    assert cells[0, 1].tolist() == [1] * 7 + [0] + [1] * 8
    assert cells[1, 0].tolist() == [0, 1] + [0] * 14
    assert not cells[:, 2:].any()


def test_requests_skip_the_columns_of_absent_patterns():
    layer = single([[1], [2], [3]])
    found = golden.requests(layer, EngineConfig(ou_cols=16, adcs=4))
    # OU 0 has two patterns, 4 chunks to each of 8 digits; OU 1 one, 2 chunks.
    assert np.bincount(found.ou).tolist() == [32, 16]
    assert found.chunk[:8].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert found.digit[:8].tolist() == [0] * 4 + [1] * 4
    assert found.chunk[32:36].tolist() == [0, 1, 0, 1]


def test_parts_of_a_trace_are_the_trace():
    layer, codes = make(5, in_shape=(6, 6, 3))
    config = EngineConfig(ou_rows=layer.ou_rows)
    whole = golden.run_layer_serial(layer, codes, config)
    part = golden.run_layer_serial(layer, codes, config, positions=slice(2, 5))
    for name in ("digits", "codes", "psums", "accumulators", "outputs"):
        assert (getattr(part, name) == getattr(whole, name)[:, 2:5]).all()


def test_chunks_do_not_show(monkeypatch):
    layer, codes = make(6)
    config = engine_config_for([layer])
    whole = golden.run_layer_serial(layer, codes, config)
    fresh = dataclasses.replace(layer)
    monkeypatch.setattr(layer_module, "CHUNK", 1)
    monkeypatch.setattr(serial_module, "CHUNK", 1)
    small = golden.run_layer_serial(fresh, codes, config)
    assert (whole.codes == small.codes).all()
    assert (whole.psums == small.psums).all()
    assert (golden.run_layer(fresh, codes).ravel() == small.outputs.ravel()).all()


def test_wrong_inputs_are_refused():
    layer = single([[1, 2]])
    with pytest.raises(TypeError, match="codes of layer single must be a uint8 array, not ndarray"):
        golden.run_layer(layer, np.zeros((1, 1, 1, 2), np.int64))
    with pytest.raises(ValueError, match=r"must be \[images, \(1, 1, 2\)\], not \(1, 1, 1, 3\)"):
        golden.run_layer(layer, np.zeros((1, 1, 1, 3), np.uint8))
    with pytest.raises(ValueError, match="ou_rows must be 8 for this layer, not 9"):
        golden.cells(layer, EngineConfig(ou_rows=9))


def test_sums_beyond_float64_are_refused(monkeypatch):
    lists = ProgramLists(8)
    lists.gather(0, 8, [(0, 0, 8)], np.full((1, 8), 127))
    lists.group(kept=1, first_output=0, outputs=1, write=True, gathers=1)
    for _ in range(4):
        lists.word(0, 14, 0)
    layer = single([[1] * 8], identity=False, full_offsets=False, terms=4, **lists.arrays())
    assert golden.accumulators(layer, np.full((1, 1, 1, 8), 255, np.uint8)).item() == (
        8 * 127 * 255 << 16
    )
    monkeypatch.setattr(layer_module, "_EXACT", 8 * 127 * 255 << 16)
    with pytest.raises(ValueError, match="layer single: sums exceed"):
        golden.accumulators(dataclasses.replace(layer), np.zeros((1, 1, 1, 8), np.uint8))


def image(rows: list[list[int]]) -> np.ndarray:
    return np.array(rows, np.uint8)[None, :, :, None]


def test_max_pool_takes_the_largest_and_never_the_border():
    x = image([[1, 5, 2], [7, 0, 3], [4, 4, 0]])
    window = {"kernel": [2, 2], "stride": [1, 1], "pads": [0, 0, 0, 0]}
    assert golden.max_pool(x, window)[0, :, :, 0].tolist() == [[7, 5], [7, 4]]
    window = {"kernel": [2, 2], "stride": [2, 2], "pads": [1, 1, 0, 0]}
    assert golden.max_pool(x, window)[0, :, :, 0].tolist() == [[1, 5], [7, 4]]
    assert golden.max_pool(x, window).dtype == np.uint8


def test_average_pool_rounds_halves_up_around_the_zero_point():
    window = {"kernel": [2, 2], "stride": [2, 2], "pads": [0, 0, 0, 0]}
    params = window | {"multiplier": 1, "shift": 2, "zero_in": 10, "zero_out": 20}
    # Sums less 4 * 10: 2, -2, 3, -3; over 4: 0.5 -> 1, -0.5 -> 0, 0.75 -> 1, -0.75 -> -1
    x = image([[10, 11, 10, 9], [10, 11, 10, 9], [13, 10, 7, 10], [10, 10, 10, 10]])
    assert golden.average_pool(x, params)[0, :, :, 0].tolist() == [[21, 20], [21, 19]]


def test_average_pool_border_adds_nothing_and_multipliers_may_differ():
    params = {
        "kernel": [2, 2], "stride": [2, 2], "pads": [1, 1, 1, 1], "shift": 1, "zero_in": 10,
        "zero_out": 0, "multiplier": np.array([[2, 1], [1, 4]]),
    }  # fmt: skip
    x = image([[14, 16], [18, 200]])
    # Each window holds one pixel and border: 4*2/2, 6/2, 8/2, 190*4/2 clipped
    assert golden.average_pool(x, params)[0, :, :, 0].tolist() == [[4, 3], [4, 255]]


def test_add_rescales_both_sides_and_rounds_once():
    params = {"multipliers": [3, -1], "shift": 1, "zeros_in": [1, 2], "zero_out": 5, "clip": [4, 9]}
    a, b = image([[2, 1, 0, 9, 0]]), image([[2, 5, 2, 0, 255]])
    # (3 + 0)/2 = 1.5 -> 2; -3/2 -> -1; -3/2 -> -1; 26/2 = 13 clips; far below clips
    assert golden.add(a, b, params)[0, 0, :, 0].tolist() == [7, 4, 4, 9, 4]


def test_clip_and_rearrange():
    x = image([[1, 2], [3, 4]])
    assert golden.clip(x, {"lo": 2, "hi": 3})[0, :, :, 0].tolist() == [[2, 2], [3, 3]]
    moved = golden.rearrange(x, {"index": np.array([3, 2, 1]), "shape": [1, 1, 3]})
    assert moved.tolist() == [[[[4, 3, 2]]]]


def small_program(**changes) -> Program:
    tensors = {
        name: {"shape": shape, "scale": 0.5, "zero": zero}
        for name, shape, zero in [
            ("x", [2, 2, 1], 10),
            ("flat", [1, 1, 4], 10),
            ("twice", [1, 1, 4], 10),
            ("y", [1, 1, 2], 128),
        ]
    }
    steps = (
        Step(op="rearrange", inputs=("x",), output="flat",
             params={"index": np.array([0, 2, 1, 3]), "shape": [1, 1, 4]}),
        Step(op="add", inputs=("flat", "flat"), output="twice",
             params={"multipliers": [1, 1], "shift": 0, "zeros_in": [10, 10], "zero_out": 10,
                     "clip": [0, 255]}),
        Step(op="layer", inputs=("twice",), output="y", params={"index": 0}),
    )  # fmt: skip
    layer = single(
        [[1, 0, 0, 0], [0, 1, 0, 0]], zero_in=10, zero_out=128, bias=[-10 << 8, -10 << 8]
    )
    values: dict[str, Any] = {
        "layers": (layer,), "steps": steps, "tensors": tensors, "input": "x", "output": "y",
        "preprocess": {},
    }  # fmt: skip
    return Program(**(values | changes))


def test_program_runs_from_images_to_logits():
    program = small_program()
    images = np.array([[[[1.0, 2.0], [0.25, -9.0]]]])
    codes = golden.quantise_input(program, images)
    # 0.25 / 0.5 is half a code: up; -9 is below what codes reach
    assert codes[0, :, :, 0].tolist() == [[12, 14], [11, 0]]
    told = []
    tensors = golden.run_program(program, codes, progress=lambda *a: told.append(a))
    assert told == [("flat", 0, 3), ("twice", 1, 3), ("y", 2, 3)]
    assert tensors["twice"].ravel().tolist() == [14, 12, 18, 0]
    assert tensors["y"].ravel().tolist() == [132, 130]
    done = []
    many = np.repeat(codes, 3, axis=0)
    values = golden.logits(program, many, batch=2, progress=lambda *a: done.append(a))
    assert values.tolist() == [[2.0, 1.0]] * 3
    assert done == [(2, 3), (3, 3)]
    assert golden.accuracy(program, np.repeat(images, 2, axis=0), np.array([0, 1])) == 0.5


def test_program_runs_through_the_serial_path():
    program, config = small_program(), EngineConfig()
    codes = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)

    def serial(layer, x):
        return golden.run_layer_serial(layer, x, config).outputs.reshape(-1, *layer.out_shape)

    exact, through = (golden.run_program(program, codes, layer_fn=f) for f in
                      (golden.run_layer, serial))  # fmt: skip
    assert all((exact[name] == through[name]).all() for name in exact)


def test_unknown_steps_are_refused():
    program = small_program(steps=(Step(op="sigmoid", inputs=("x",), output="y"),))
    with pytest.raises(ValueError, match=r"op must be layer or one of .*, not 'sigmoid'"):
        golden.run_program(program, np.zeros((1, 2, 2, 1), np.uint8))
