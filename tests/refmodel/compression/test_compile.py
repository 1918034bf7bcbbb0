"""The compiler: requantisation, programs that decode to their mapping, limits, index bits."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prap_hw.deliver.load import reuse_steps
from refmodel import golden
from refmodel.compression.compile import compile_layer, compile_network, constant_outputs
from refmodel.compression.quantize import MatrixLayer, QuantNetwork
from refmodel.compression.requantise import requantise
from refmodel.compression.schemes import LayerMapping, LayerSetting, PatternGroup, map_layer
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.network.images import Preprocess
from refmodel.predict.cycles import predict
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import (
    accumulator_bits,
    accumulator_range,
    check_fits,
    engine_config_for,
    index_bits,
    ou_count,
)
from refmodel.program.step import Step
from refmodel.program.tensors import TensorInfo
from tests.support.layers.builders import random_codes, random_layer_program
from tests.support.layers.matrix_layers import matrix_layer


def spread(layer: MatrixLayer, weight_q8: np.ndarray) -> np.ndarray:
    """Effective weights of a grouped layer as a program decodes them: all input channels."""
    outputs, inputs, kh, kw = weight_q8.shape
    result = np.zeros((outputs, kh * kw, inputs * layer.groups), np.int64)
    per_group = outputs // layer.groups
    for o in range(outputs):
        first = o // per_group * inputs
        result[o, :, first : first + inputs] = weight_q8[o].reshape(inputs, -1).T
    return result


# Requantisation


def one(scale: float, bias: float = 0.0, weights=(1,), zero_in=0, zero_out=0, clip=(0, 255)):
    found = requantise(
        weight_q8=np.array([weights]), scale=np.array([scale]), bias_codes=np.array([bias]),
        zero_in=zero_in, zero_out=zero_out, clip=clip,
    )  # fmt: skip
    return tuple(int(array[0]) for array in found)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        pytest.param(1.0, (16384, 14), id="one"),
        pytest.param(-0.5, (-16384, 15), id="minus-half"),
        pytest.param(0.3, (19661, 16), id="rounds"),  # 0.3 * 65536 = 19660.8
        # 32767.75 / 2^15 would round to 32768: half of that, one shift less
        pytest.param(32767.75 / 32768, (16384, 14), id="rounds-to-the-next-power"),
        pytest.param(32767.0, (32767, 0), id="largest"),
        pytest.param(2.0**-33, (16384, 47), id="last-of-full-precision"),
        pytest.param(3 * 2.0**-47, (3, 47), id="smaller"),
    ],
)
def test_multiplier_has_all_the_bits_that_fit(scale, expected):
    assert one(scale, weights=[1 << 48])[1:] == expected


@given(scale=st.floats(2.0**-33, 32000), sign=st.sampled_from([1, -1]))
def test_multiplier_is_within_its_rounding(scale, sign):
    _, m, s = one(sign * scale, weights=[1 << 48])
    assert 1 << 14 <= abs(m) < 1 << 15 or s == 0
    assert abs(m / 2**s - sign * scale) <= 2.0 ** -(s + 1)


def test_bias_is_in_accumulator_units_and_has_the_share_of_the_zero_point():
    # 3 codes at 1/4 code to a unit: 12 units; 10 * (300 - 100) for the zero point
    assert one(0.25, 3.0, weights=[300, -100], zero_in=10) == (12 - 2000, 16384, 16)
    assert one(-0.25, 3.0, weights=[300], zero_in=0)[0] == -12


def test_bias_far_outside_the_clip_is_drawn_in_and_clips_the_same():
    bias, m, s = one(0.25, 1e30, weights=[300, -100], zero_in=3, zero_out=7, clip=(7, 200))
    assert abs(bias) < 1 << 20
    for acc in (-100 * 255, 0, 300 * 255):
        assert ((acc + bias) * m >> s) + 7 > 200


@pytest.mark.parametrize(
    ("scale", "bias", "message"),
    [
        (float("nan"), 0.0, "expected a finite scale and bias, found nan, 0.0 in layer layer, out"),
        (1.0, float("inf"), "expected a finite scale and bias, found 1.0, inf"),
        (32768.0, 0.0, "expected a scale of .* found 32768 in layer layer, output 0"),
        (2.0**-49, 0.0, "expected a scale of "),
        (2.0**-44, 200.0, "expected a bias that fits 48 bits, found 200 codes at"),
    ],
)
def test_what_cannot_be_expressed_is_refused(scale, bias, message):
    with pytest.raises(InputError, match=message):
        one(scale, bias, weights=[1 << 50])


@pytest.mark.parametrize("scheme", ["dense", "prap"])
@pytest.mark.parametrize("tiny", [0.0, 1e-30, -1e-12])
def test_output_of_no_gain_is_its_bias(scheme, tiny):
    rng = np.random.default_rng(1)
    gain = np.full(8, 0.3)
    gain[[2, 5]] = tiny
    bias = np.array([0, 0, 1.0, 0, 0, -2.0, 0, 0])
    layer = matrix_layer(rng, gain=gain, bias=bias)
    mapping = map_layer(layer.weight, 1, scheme, LayerSetting(scheme=scheme, keep=0.5), 8)
    program = compile_layer(layer, mapping, 8)
    result = golden.run_layer(program, random_codes(rng, program))
    # 1 / 0.03 = 33.3 and -2 / 0.03 = -66.7 codes from 128
    assert (result[..., 2] == 161).all()
    assert (result[..., 5] == 61).all()
    weights, expected = program.effective_weights(), spread(layer, mapping.weight_q8)
    assert not weights[[2, 5]].any()
    assert (np.delete(weights, [2, 5], 0) == np.delete(expected, [2, 5], 0)).all()


def test_constant_means_never_a_256th_of_a_code():
    weights = np.array([[100, -28], [100, -28]])
    limit = 1 / (256 * 255 * 128)
    found = constant_outputs(weights, np.array([limit, 1.001 * limit]), np.zeros(2))
    assert found.tolist() == [True, False]


def test_constant_means_half_a_code_where_the_bias_would_not_fit():
    # 64 * 2^30 * 255 is a reach of 1/2 code at this scale, where 10 codes are 2^48.3 units
    weights, scale = np.full((4, 1 << 6), 1 << 30), np.full(4, 1 / (510 * (1 << 36)))
    found = constant_outputs(weights, scale * [1, 1, 1.001, -1], np.array([10.0, 0, 10, -1e9]))
    assert found.tolist() == [True, False, False, True]


def test_constant_output_with_weights_is_a_mistake():
    with pytest.raises(ValueError, match="layer layer, output 0 is constant: its weights must be"):
        one(1e-30)


# Programs


SIZES = [
    pytest.param((8, 4, 3, 3), 1, {}, id="3x3"),
    pytest.param((9, 5, 3, 3), 1, {"stride": (2, 1), "pads": (0, 1, 2, 0)}, id="odd-channels"),
    pytest.param((8, 3, 3, 3), 2, {"in_zero": 7}, id="groups"),
    pytest.param((8, 1, 3, 3), 8, {"in_zero": 0}, id="depthwise"),
    pytest.param((6, 21, 1, 1), 1, {"pads": (0, 0, 0, 0)}, id="1x1"),
    pytest.param((4, 2, 5, 5), 1, {"pads": (2, 2, 2, 2), "clip": (128, 255)}, id="5x5"),
    pytest.param((8, 4, 2, 3), 1, {"dilation": (2, 1), "pads": (0, 0, 0, 0)}, id="dilation"),
]


@pytest.mark.parametrize("ou_rows", [4, 8, 9, 16])
@pytest.mark.parametrize(
    ("scheme", "channels", "positions"),
    [
        ("dense", 1, 1),
        ("structured", 1, 1),
        ("orc", 1, 1),
        ("shape", 1, 8),
        ("shape", 4, 2),
        ("identical", 1, 1),
        ("identical", 8, 1),
        ("structured+identical", 1, 1),
        ("structured+identical", 8, 1),
        ("similar", 1, 1),
        ("similar", 2, 1),
        ("prap", 1, 8),
        ("prap", 2, 4),
        ("prap", 4, 2),
        ("prap", 12, 3),
    ],
)
@pytest.mark.parametrize(("size", "groups", "changes"), SIZES)
def test_program_is_its_mapping(size, groups, changes, scheme, channels, positions, ou_rows):
    rng = np.random.default_rng([*size, groups, channels, ou_rows])
    weight = rng.normal(0, 1, size).astype(np.float32)
    layer = matrix_layer(rng, weight=weight, groups=groups, **changes)
    setting = LayerSetting(
        scheme=scheme, channels=channels, positions=positions, keep=0.4, structure_keep=0.7
    )
    mapping = map_layer(weight, groups, scheme, setting, ou_rows)
    program = compile_layer(layer, mapping, ou_rows)
    assert (program.effective_weights() == spread(layer, mapping.weight_q8)).all()
    assert program.kept + program.reused + program.dropped == program.patterns

    codes = random_codes(rng, program)
    result = golden.run_layer(program, codes)
    seen = golden.patches(program, codes).astype(np.int64) - layer.in_zero
    step = max(weight.max(), -weight.min()) / 127 * layer.in_scale / 256
    sums = seen @ spread(layer, mapping.weight_q8).reshape(size[0], -1).T
    real = (sums * step * layer.gain + layer.bias) / layer.out_scale + layer.out_zero
    real = np.clip(real, *layer.clip).reshape(result.shape)
    # Half a code of rounding, and what M of 15 bits is off by at a few thousand codes at most.
    assert np.abs(result - real).max() < 0.6

    config = engine_config_for([program], EngineConfig(ou_rows=ou_rows, ou_cols=16, adcs=4))
    trace = golden.run_layer_serial(program, codes, config, positions=slice(0, 3))
    assert (trace.outputs[0] == result.reshape(-1, size[0])[:3]).all()


def mapping_of(groups: list[PatternGroup], outputs: int, **changes) -> LayerMapping:
    values = {
        "scheme": "prap", "terms": 1, "identity": False, "full_offsets": False,
        "groups": tuple(groups), "weight_q8": np.ones((outputs, 4, 3, 3), np.int64), "kept": 1,
        "reused": 0, "dropped": 0, "ous_dense": 1,
    } | changes  # fmt: skip
    return LayerMapping(**values)


def whole(positions: list[int], channels: int) -> np.ndarray:
    return np.array([(p, c) for p in positions for c in range(channels)], np.int32)


def group_of(shapes, shape_of, rng, *, slot=None, outputs=4, channels=4, first=0) -> PatternGroup:
    kept = len(shape_of)
    slot = np.arange(outputs)[:, None] % max(1, kept) if slot is None else np.array(slot)
    longest = max((len(shape) for shape in shapes), default=0)
    return PatternGroup(
        channel=0, channels=channels, first_output=first, outputs=outputs, shapes=tuple(shapes),
        shape_of=np.array(shape_of, np.int32), slot=slot.astype(np.int32),
        values=rng.integers(-127, 128, (kept, longest)).astype(np.int8),
        shift=rng.integers(-8, 7, slot.shape).astype(np.int8),
        sign=rng.choice([-1, 1], slot.shape).astype(np.int8),
    )  # fmt: skip


def decoded(group: PatternGroup, outputs: int) -> np.ndarray:
    """Weights of one group as its docstring has them, times 256: [outputs, 9, 4]."""
    assert group.slot is not None
    assert group.shift is not None
    assert group.sign is not None
    result = np.zeros((outputs, 9, 4), np.int64)
    for j, t in np.ndindex(group.slot.shape):
        if (s := group.slot[j, t]) >= 0:
            shape = group.shapes[group.shape_of[s]]
            for (position, channel), value in zip(shape, group.values[s], strict=False):
                term = int(value) * 2 ** (8 + int(group.shift[j, t])) * int(group.sign[j, t])
                result[group.first_output + j, position, channel] += term
    return result


def test_patterns_of_one_shape_come_together_and_terms_follow():
    rng = np.random.default_rng(2)
    shapes = [whole([0, 4], 4), whole([3, 8], 4)]
    slot = [[0, 3], [1, -1], [2, 2], [-1, -1]]
    group = group_of(shapes, [1, 0, 1, 0], rng, slot=slot)
    layer = matrix_layer(rng, weight=rng.normal(0, 1, (4, 4, 3, 3)).astype(np.float32))
    program = compile_layer(layer, mapping_of([group], 4, terms=2), 8)
    assert (program.effective_weights() == decoded(group, 4)).all()
    assert program.gather_patterns.tolist() == [2, 2]
    assert program.segment_position.tolist() == [0, 4, 3, 8]
    assert not program.full_offsets
    # Old patterns 1, 3 (shape 0) are slots 0, 1; 0, 2 are 2, 3.
    assert program.word_slot.tolist() == [2, 1, 0, 0, 3, 3, 0, 0]
    assert (program.word_shift == 15).tolist() == [False, False, False, True, False, False] + [
        True
    ] * 2


@pytest.mark.parametrize(
    ("positions", "channels", "ou_rows", "rows", "full"),
    [
        (list(range(9)), 1, 8, [8, 1], False),
        ([0, 4, 8], 4, 8, [8, 4], False),
        ([0, 4, 8], 4, 4, [4, 4, 4], False),
        # three positions of three channels: 9 rows need 2 OUs, whole positions would take them too
        ([0, 4, 8], 3, 8, [6, 3], False),
        # 27 rows fit 4 OUs, two whole positions at a time would take 5
        (list(range(9)), 3, 8, [8, 8, 8, 3], True),
    ],
)
def test_long_patterns_are_cut_into_as_few_ous_as_their_rows_need(
    positions, channels, ou_rows, rows, full
):
    rng = np.random.default_rng(3)
    group = group_of([whole(positions, channels)], [0, 0], rng, channels=channels)
    layer = matrix_layer(rng, weight=rng.normal(0, 1, (4, 4, 3, 3)).astype(np.float32))
    program = compile_layer(layer, mapping_of([group], 4), ou_rows)
    assert program.gather_rows.tolist() == rows
    assert program.gather_accumulate.tolist() == [0] + [1] * (len(rows) - 1)
    assert program.gather_final.tolist() == [0] * (len(rows) - 1) + [1]
    assert program.full_offsets == full
    assert (program.effective_weights() == decoded(group, 4)).all()


def test_more_channels_than_rows_are_cut_by_channel():
    rng = np.random.default_rng(4)
    weight = rng.normal(0, 1, (8, 12, 1, 1)).astype(np.float32)
    layer = matrix_layer(rng, weight=weight, pads=(0, 0, 0, 0))
    group = dataclasses.replace(
        group_of([whole([0], 12)], [0], rng, outputs=8, channels=12),
    )
    program = compile_layer(layer, mapping_of([group], 8, weight_q8=np.ones((8, 12, 1, 1))), 8)
    assert program.gather_base.tolist() == [0, 8]
    assert program.gather_length.tolist() == [8, 4]
    assert not program.full_offsets


def test_outputs_that_nothing_reaches_get_a_zero_pattern():
    rng = np.random.default_rng(5)
    empty = group_of([], [], rng, slot=[[-1]] * 4)
    later = group_of([whole([0], 4)], [0], rng, outputs=2, first=1)
    layer = matrix_layer(rng, weight=rng.normal(0, 1, (4, 4, 3, 3)).astype(np.float32))
    program = compile_layer(layer, mapping_of([empty, later], 4), 8)
    assert program.group_first_output.tolist() == [1, 0, 3]
    assert program.group_write.all()
    assert (program.effective_weights() == decoded(later, 4)).all()
    nothing = mapping_of([], 4, identity=True, weight_q8=np.zeros((4, 4, 3, 3)))
    program = compile_layer(layer, nothing, 8)
    assert program.group_kept.tolist() == [1]
    assert not program.effective_weights().any()
    # An identity map has no other way to write zero than a pattern to each output.
    some = dataclasses.replace(
        group_of([whole([0], 4)], [0] * 3, rng, outputs=3, first=1),
        slot=None,
        shift=None,
        sign=None,
    )
    program = compile_layer(layer, mapping_of([some], 4, identity=True), 8)
    assert program.identity
    assert program.group_kept.tolist() == [3, 1]
    assert not program.effective_weights()[0].any()
    assert program.effective_weights()[1:].any(axis=(1, 2)).all()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "setting",
    [
        LayerSetting(scheme="structured", keep=0.2),
        LayerSetting(scheme="orc", keep=0.02),
        LayerSetting(scheme="structured+identical", keep=0.5, structure_keep=0.2),
    ],
    ids=lambda setting: setting.scheme,
)
def test_a_layer_of_which_nothing_is_kept_costs_one_zero_pattern(setting, groups):
    # int(4 * 0.2) channels or int(36 * 0.02) weights of an output: none.
    rng = np.random.default_rng(14)
    layer = matrix_layer(rng, groups=groups)
    program = compile_layer(layer, map_layer(layer.weight, groups, setting.scheme, setting, 8), 8)
    assert (program.identity, program.full_offsets, program.terms) == (False, False, 1)
    assert program.group_kept.tolist() == [1]
    assert program.gather_rows.tolist() == [1]
    assert program.word_shift.tolist() == [15] * 8
    config = engine_config_for([program])
    found = predict(program, config)
    assert (found.conversion, ou_count(program, config)) == (8, 1)
    assert not program.effective_weights().any()
    # Every position of an output is its bias: rint(bias / out_scale) about the zero point 128.
    codes = golden.run_layer(program, random_codes(rng, program))
    value = np.clip(np.asarray(layer.bias) / 0.03 + 128, 0, 255)
    assert np.ptp(codes, axis=(0, 1, 2)).max() == 0
    assert (np.abs(codes[0, 0, 0] - value) <= 0.5 + 2**-8).all()


def test_groups_that_overlap_in_part_are_refused():
    rng = np.random.default_rng(6)
    groups = [group_of([whole([0], 4)], [0], rng, outputs=n) for n in (2, 4)]
    layer = matrix_layer(rng, weight=rng.normal(0, 1, (4, 4, 3, 3)).astype(np.float32))
    with pytest.raises(ValueError, match="layer conv: a group overlaps another in part"):
        compile_layer(layer, mapping_of(groups, 4), 8)


@pytest.mark.parametrize("seed", range(8))
def test_lost_sign_or_wrong_slot_would_be_noticed(seed):
    rng = np.random.default_rng(seed)
    layer = matrix_layer(rng)
    setting = LayerSetting(scheme="prap", channels=1, keep=0.5)
    mapping = map_layer(layer.weight, 1, "prap", setting, 8)
    program = compile_layer(layer, mapping, 8)
    expected = spread(layer, mapping.weight_q8)
    for change in (
        {"word_sign": 1 - program.word_sign},
        {"word_slot": np.where(program.word_slot > 0, program.word_slot - 1, 0)},
        {"segment_position": np.roll(program.segment_position, 1)},
        {"weights": np.maximum(program.weights, -127) + (program.weights < 0)},
    ):
        mutant = dataclasses.replace(program, **change)
        assert (mutant.effective_weights() != expected).any()


def quant_network(layers: list[MatrixLayer]) -> QuantNetwork:
    names = ["in", *(layer.name for layer in layers)]
    tensors = {"in": TensorInfo(shape=layers[0].in_shape, scale=0.02, zero=128)} | {
        layer.name: TensorInfo(shape=layer.out_shape, scale=layer.out_scale, zero=layer.out_zero)
        for layer in layers
    }
    steps = tuple(
        Step(op="layer", inputs=(names[i],), output=names[i + 1], params={"index": i})
        for i in range(len(layers))
    )
    return QuantNetwork(
        layers=tuple(layers), steps=steps, tensors=tensors, input="in", output=names[-1],
        preprocess=Preprocess(scale=0.5),
    )  # fmt: skip


def test_network_is_compiled_layer_by_layer(tmp_path):
    rng = np.random.default_rng(7)
    first = matrix_layer(rng, name="a")
    second = matrix_layer(rng, name="b", weight=rng.normal(0, 1, (8, 8, 3, 3)).astype(np.float32))
    told = []
    program = compile_network(
        quant_network([first, second]),
        scheme="prap",
        settings={"b": LayerSetting(scheme="prap", channels=2, positions=4, keep=0.25)},
        progress=lambda *args: told.append(args),
    )
    assert told == [("a", 0, 2), ("b", 1, 2)]
    assert [layer.scheme for layer in program.layers] == ["dense", "prap"]
    assert program.about["settings"]["b"]["keep"] == 0.25
    assert program.preprocess["scale"] == 0.5
    assert program.tensors["b"] == {"shape": [6, 5, 8], "scale": 0.03, "zero": 128}
    program.save(tmp_path / "net.prap")
    loaded = Program.load(tmp_path / "net.prap")
    codes = random_codes(rng, program.layers[0])
    assert (golden.run_program(loaded, codes)["b"] == golden.run_program(program, codes)["b"]).all()


def test_settings_for_layers_that_do_not_exist_are_refused():
    network = quant_network([matrix_layer(np.random.default_rng(8))])
    with pytest.raises(InputError, match="expected a layer that matches 'x', found only conv"):
        compile_network(network, scheme="prap", settings={"x": LayerSetting(scheme="prap")})


# Sizes


def small_layer(**kwargs) -> LayerProgram:
    """Two gathers of 2 and 3 patterns in one group, 2 terms."""
    rng = np.random.default_rng(9)
    shapes = [whole([0, 4], 4), whole([3], 4)]
    group = group_of(shapes, [0, 0, 1, 1, 1], rng, slot=[[0, 1], [2, 3], [4, -1], [1, 1]])
    layer = matrix_layer(
        rng, weight=rng.normal(0, 1, (4, 4, 3, 3)).astype(np.float32), bias=np.zeros(4), **kwargs
    )
    return compile_layer(layer, mapping_of([group], 4, terms=2), 8)


def test_index_bits_by_hand():
    config = EngineConfig(slots=16)
    found = index_bits(small_layer(), config)
    # 3 segments of ceil(log2(9)) = 4 bits. Gathers: base 2 (4 channels), length 2 (4), segments
    # 1 (2), patterns 2 (3), two flags. Group: kept 3 (5), first output 2 (4), outputs 2 (4),
    # gathers 1 (2), write 1. Words: slot 4 bits, 5 more.
    assert found == {
        "shapes": 12, "offsets": 0, "headers": 2 * 9 + 9, "words": 8 * 9, "padding": 0,
        "total": 12 + 27 + 72,
    }  # fmt: skip


def test_padding_is_what_the_lanes_of_the_reuse_memory_hold_beside_the_words():
    # Outputs 1 to 3 in a group, 0 alone: of blocks of two outputs, 0-1 and 2-3, the first group
    # touches both, the second one. Of one term each: 2 * 2 and 2 words are held for 3 and 1.
    rng = np.random.default_rng(15)
    groups = [group_of([whole([0], 4)], [0], rng, outputs=3, first=1)]
    groups.append(group_of([whole([0], 4)], [0], rng, outputs=1))
    layer = matrix_layer(rng, weight=rng.normal(0, 1, (4, 4, 3, 3)).astype(np.float32))
    program = compile_layer(layer, mapping_of(groups, 4), 8)
    held = {lanes: EngineConfig(slots=16, merge_lanes=lanes) for lanes in (1, 2, 4)}
    found = {lanes: index_bits(program, config) for lanes, config in held.items()}
    # Words of 4 + 5 bits; four lanes: 4 words in each group.
    assert [bits["words"] for bits in found.values()] == [4 * 9] * 3
    assert [bits["padding"] for bits in found.values()] == [0, 2 * 9, 4 * 9]
    assert found[4]["total"] - found[1]["total"] == 4 * 9
    for lanes, config in held.items():
        words = (found[lanes]["words"] + found[lanes]["padding"]) // config.reuse_word_bits
        assert words == len(reuse_steps(program, lanes)) * lanes
        check_fits(program, dataclasses.replace(config, max_words=words))
        with pytest.raises(InputError, match=f"max_words of at most {words - 1}, found {words}"):
            check_fits(program, dataclasses.replace(config, max_words=words - 1))


def test_index_bits_of_full_offsets_by_hand():
    rng = np.random.default_rng(10)
    weight = rng.normal(0, 1, (2, 5, 1, 3)).astype(np.float32)
    layer = matrix_layer(rng, weight=weight, pads=(0, 0, 0, 0))
    program = compile_layer(layer, map_layer(weight, 1, "dense", None, 8), 8)
    # Rows 0-7: position 0 (5 channels), position 1 (3); rows 8-14: 1 (2 from 3), 2 (5).
    assert program.segment_channel.tolist() == [0, 0, 3, 0]
    assert program.segment_length.tolist() == [5, 3, 2, 5]
    found = index_bits(program, EngineConfig())
    # Position 2 bits; offset 0..3: 2, length 1..5: 3. Gathers: base 3, segments 1, patterns 1,
    # flags 2. Groups: kept 1, first 1, outputs 1, gathers 1, write 1.
    assert found == {
        "shapes": 8, "offsets": 4 * 5, "headers": 2 * 7 + 2 * 5, "words": 0, "padding": 0,
        "total": 52,
    }  # fmt: skip
    assert index_bits(program, EngineConfig(merge_lanes=4)) == found


def test_positions_of_a_1x1_kernel_take_no_index_bits():
    rng = np.random.default_rng(11)
    layer = matrix_layer(rng, weight=rng.normal(0, 1, (2, 5, 1, 1)).astype(np.float32))
    program = compile_layer(layer, map_layer(layer.weight, 1, "dense", None, 8), 8)
    found = index_bits(program, EngineConfig())
    # One segment: offset 0 in one bit, length 5 in 3. Gather: base 3, segments 1, patterns 1,
    # flags 2. Group: kept 1, first 1, outputs 1, gathers 1, write 1.
    assert found == {
        "shapes": 0, "offsets": 4, "headers": 7 + 5, "words": 0, "padding": 0, "total": 16,
    }  # fmt: skip


def test_ous_hold_whole_patterns_of_one_gather():
    layer = small_layer()
    assert [ou_count(layer, EngineConfig(ou_cols=c)) for c in (8, 16, 24, 32)] == [5, 3, 2, 2]


@pytest.mark.parametrize("seed", range(6))
def test_accumulator_range_is_reached_and_not_passed(seed):
    """With every code at its worst, each output reaches one end of its range."""
    rng = np.random.default_rng(seed)
    layer = random_layer_program(rng, identity=bool(seed % 2), in_shape=(3, 3, 4), terms=1)
    config = engine_config_for([layer], EngineConfig(ou_rows=layer.ou_rows))
    low, high = accumulator_range(layer, config)
    codes = random_codes(rng, layer)
    found = []
    for top in (0, 1):
        columns = np.tile([99.0 * (1 - top)] * 7 + [99.0 * top], config.patterns_per_ou)
        trace = golden.run_layer_serial(
            layer,
            codes,
            config,
            device=lambda d, c, o, columns=columns: np.broadcast_to(
                columns, (*d.shape[:3], config.ou_cols)
            ),
        )
        found.append(trace.accumulators[0, 0])
        assert (trace.accumulators >= low).all()
        assert (trace.accumulators <= high).all()
    if layer.identity or not layer.word_sign.any():
        assert (found[1] == low).all()
        assert (found[0] == high).all()


def test_accumulator_bits_by_hand():
    layer = small_layer()
    # One OU of codes up to 15: 255 * 15 * -128 .. 127.
    low, high = accumulator_range(layer, EngineConfig())
    top = 255 * 15
    words = zip(layer.word_shift.tolist(), layer.word_sign.tolist(), strict=True)
    terms = [0 if k == 15 else (-1) ** s << k if not s else -(1 << k) for k, s in words]
    ends = [sorted([-128 * top * f, 127 * top * f]) for f in terms]
    assert low.tolist() == [ends[i][0] + ends[i + 1][0] for i in range(0, 8, 2)]
    assert high.tolist() == [ends[i][1] + ends[i + 1][1] for i in range(0, 8, 2)]
    flat = dataclasses.replace(layer, word_shift=np.full(8, 15), bias=[-128, 0, 127, 0])
    assert accumulator_bits(flat, EngineConfig()) == 8
    assert accumulator_bits(dataclasses.replace(flat, bias=[128, 0, 0, 0]), EngineConfig()) == 9
    assert accumulator_bits(dataclasses.replace(flat, bias=[0, -129, 0, 0]), EngineConfig()) == 9


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("slots", 4),
        ("crossbars", 1),
        ("max_outputs", 3),
        ("max_gathers", 1),
        ("max_segments", 2),
        ("max_words", 7),
        ("max_positions", 8),
        ("activation_bytes", 64),
        ("acc_width", 28),
    ],
)
def test_each_limit_is_named(name, limit):
    layer = small_layer()
    values = {"crossbar_size": 32, "ou_cols": 32, name: limit}
    config = EngineConfig(**values)
    if name == "crossbars":
        rows = np.zeros((40, 4, 3, 3), np.float32)
        rows[:, 0, 0, 0] = 1
        wide = matrix_layer(np.random.default_rng(11), weight=rows)
        layer = compile_layer(wide, map_layer(rows, 1, "dense", None, 8), 8)
    check_fits(layer, engine_config_for([layer], config))
    with pytest.raises(InputError, match=f"^layer conv: expected {name} of at most {limit}, found"):
        check_fits(layer, config)


def test_groups_and_long_patterns_are_limited_too():
    rng = np.random.default_rng(12)
    weight = rng.normal(0, 1, (4, 4, 3, 3)).astype(np.float32)
    layer = matrix_layer(rng, weight=weight)
    long = group_of([whole(list(range(9)), 4)], [0], rng)
    program = compile_layer(layer, mapping_of([long], 4), 8)
    with pytest.raises(InputError, match="expected ous_per_pattern of at most 4, found 5"):
        check_fits(program, EngineConfig())
    assert engine_config_for([program]).ous_per_pattern == 5
    # 15 channels of 9 positions are 135 rows, 17 OUs of 8; 14 are 126, 16 OUs.
    weight = rng.normal(0, 1, (4, 15, 3, 3)).astype(np.float32)
    large = matrix_layer(rng, weight=weight)
    for channels in (15, 14):
        setting = LayerSetting(scheme="identical", channels=channels, keep=0.5)
        mapping = map_layer(weight, 1, "identical", setting, 8)
        program = compile_layer(large, mapping, 8)
        if channels == 14:
            assert engine_config_for([program]).ous_per_pattern == 16
            continue
        message = (
            r"^layer conv: expected weight patterns of at most 16 operation units "
            r"\(ous_per_pattern\), found 17: use a setting of fewer channels, or scheme dense$"
        )
        with pytest.raises(InputError, match=message):
            engine_config_for([program])
    dense = compile_layer(layer, map_layer(layer.weight, 1, "dense", None, 8), 8)
    with pytest.raises(InputError, match="expected max_groups of at most 4, found 5"):
        check_fits(dense, EngineConfig(max_groups=4))
    with pytest.raises(InputError, match=r"OUs of 9 rows \(ou_rows\), found 8"):
        check_fits(dense, EngineConfig(ou_rows=9))


def test_engine_is_sized_for_the_largest_of_each():
    layers = [random_layer_program(np.random.default_rng(seed)) for seed in range(20)]
    base = EngineConfig(adcs=4, crossbar_latency=10, acc_width=24, crossbar_size=32)
    config = engine_config_for(layers, base)
    for layer in layers:
        check_fits(layer, config)
    kept = max(int(layer.group_kept.max()) for layer in layers)
    # (10 + 12) * 4 / 64, rounded up, is 2
    assert config.slots >= 2 * kept + 2 + 2
    assert config.slots & (config.slots - 1) == 0
    assert config.crossbars == -(-max(ou_count(layer, base) for layer in layers) // 16)
    assert config.acc_width == max(24, *(accumulator_bits(layer, config) for layer in layers))
    for name in ("max_gathers", "max_segments", "max_groups", "max_words", "activation_bytes"):
        smaller = dataclasses.replace(config, **{name: getattr(config, name) // 2})
        with pytest.raises(InputError, match=name):
            [check_fits(layer, smaller) for layer in layers]


def test_what_no_engine_holds_is_refused():
    rng = np.random.default_rng(13)
    weight = rng.normal(0, 1, (1, 1, 5, 11)).astype(np.float32)
    layer = matrix_layer(rng, weight=weight, pads=(0, 3, 0, 3))
    program = compile_layer(layer, map_layer(weight, 1, "dense", None, 8), 8)
    with pytest.raises(InputError, match=r"^layer conv: .* at most 49 positions .*, found 5x11"):
        engine_config_for([program])
    with pytest.raises(InputError, match="expected a convolution or fully connected layer, found"):
        engine_config_for([])
    large = dataclasses.replace(layer, bias=np.full(1, np.nan))
    with pytest.raises(InputError, match="expected a finite scale and bias"):
        compile_layer(large, map_layer(weight, 1, "dense", None, 8), 8)


@pytest.mark.parametrize(("cell_bits", "adcs"), [(1, 3), (2, 8), (4, 3), (4, 8), (4, 32)])
def test_the_ring_holds_what_begins_while_a_slow_crossbar_answers(cell_bits, adcs):
    rng = np.random.default_rng(12)
    weight = rng.normal(0, 1, (6, 16, 3, 3)).astype(np.float32)
    layer = matrix_layer(rng, weight=weight)
    program = compile_layer(layer, map_layer(weight, 1, "dense", None, 4), 4)
    base = EngineConfig(
        ou_rows=4, ou_cols=32, cell_bits=cell_bits, dac_bits=2, adcs=adcs, crossbar_latency=40,
        requests_in_flight=44, gather_buffers=4,
    )  # fmt: skip
    config = engine_config_for([program], base)
    found = predict(program, config)
    assert found.cycles <= found.limit
    assert found.cycles == predict(program, dataclasses.replace(config, slots=4096)).cycles


def test_groups_of_a_single_position_are_ordered_by_their_conversions():
    """At 1 x 1 the groups that keep fewest go first; otherwise they are as they were mapped."""
    rng = np.random.default_rng(5)
    weight = rng.normal(0, 1, (24, 32, 1, 1)).astype(np.float32)
    setting = LayerSetting(scheme="identical", channels=8, keep=0.5)
    mapping = map_layer(weight, 1, "identical", setting)
    kept = [group.kept for group in mapping.groups]
    assert kept != sorted(kept)
    programs = []
    for size in (1, 2):
        layer = MatrixLayer(
            name="fc", weight=weight, gain=np.full(24, 0.1), bias=np.zeros(24), stride=(1, 1),
            pads=(0, 0, 0, 0), dilation=(1, 1), groups=1, in_scale=0.02, in_zero=0, out_scale=0.05,
            out_zero=0, clip=(0, 255), in_shape=(size, size, 32), out_shape=(size, size, 24),
        )  # fmt: skip
        programs.append(compile_layer(layer, mapping, 8))
    assert programs[0].group_kept.tolist() == sorted(kept)
    assert programs[1].group_kept.tolist() == kept
    # The first group that touches the outputs writes, whichever it is; the weights are the same.
    for program in programs:
        assert program.group_write.tolist() == [1, 0, 0, 0]
        np.testing.assert_array_equal(
            program.effective_weights(), spread(layer, np.asarray(mapping.weight_q8))
        )
