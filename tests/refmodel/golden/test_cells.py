"""Golden arithmetic over bits of cells, input digits and codes, and over sizes of the OU."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prap_hw.common.layouts import Layouts
from refmodel import golden
from refmodel.config import PRESETS, EngineConfig
from refmodel.golden import serial as serial_arithmetic
from refmodel.predict.cycles import predict
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import (
    accumulator_range,
    columns_of_ous,
    engine_config_for,
    ou_count,
    ous_of_gathers,
)
from tests.support.layers.builders import random_layer_program
from tests.support.layers.drawn_layers import draw_layer
from tests.support.layers.layers_by_hand import single

ENGINES = st.builds(
    EngineConfig,
    ou_rows=st.sampled_from([4, 8, 9, 16, 32]),
    ou_cols=st.sampled_from(range(4, 33, 4)),
    cell_bits=st.sampled_from([1, 2, 4]),
    dac_bits=st.sampled_from([1, 2, 4]),
    adc_bits=st.sampled_from([0, 0, 13]),
    adcs=st.sampled_from([1, 2, 3, 4, 5, 8, 16, 32]),
)


def serial(layer: LayerProgram, codes: np.ndarray, config: EngineConfig) -> np.ndarray:
    """Accumulators [N, OH, OW, O] through the path that keeps every value."""
    trace = golden.run_layer_serial(layer, codes, config)
    return trace.accumulators.reshape(len(codes), *layer.out_shape)


@given(
    seed=st.integers(0, 2**32 - 1),
    config=ENGINES,
    identity=st.booleans(),
    terms=st.integers(1, 4),
    groups=st.integers(1, 3),
)
@example(seed=0, config=EngineConfig(ou_rows=4, ou_cols=4), identity=True, terms=1, groups=1)
@example(seed=1, config=EngineConfig(ou_rows=9), identity=False, terms=2, groups=2)
@example(
    seed=2, config=EngineConfig(ou_rows=32, ou_cols=32, cell_bits=4, dac_bits=4, adcs=32),
    identity=False, terms=4, groups=1,
)  # fmt: skip
def test_all_paths_agree(seed, config, identity, terms, groups):
    layer, codes = draw_layer(seed, config, identity=identity, terms=terms, groups=groups)
    exact = golden.accumulators(layer, codes)
    trace = golden.run_layer_serial(layer, codes, config)
    assert (trace.accumulators == exact.reshape(trace.accumulators.shape)).all()
    assert (golden.serial_accumulators(layer, codes, config) == exact).all()
    low, high = config.psum_range
    gathers = config.ous_per_pattern
    assert gathers * low <= trace.psums.min()
    assert trace.psums.max() <= gathers * high
    assert trace.digits.max() < 1 << config.dac_bits
    assert trace.codes.max() <= config.max_code


@given(seed=st.integers(0, 2**32 - 1), config=ENGINES, bits=st.integers(1, 4))
def test_both_serial_paths_clip_alike(seed, config, bits):
    layer, codes = draw_layer(seed, config)
    clipping = dataclasses.replace(config, adc_bits=bits)
    assert (
        golden.serial_accumulators(layer, codes, clipping) == serial(layer, codes, clipping)
    ).all()


@given(seed=st.integers(0, 2**32 - 1), config=ENGINES)
def test_both_serial_paths_ask_a_device_alike(seed, config):
    layer, codes = draw_layer(seed, config)

    def device(digits, cells, ous):
        # Not the ideal sum: a share lost, more in OUs of higher number, and halves to round.
        return (
            serial_arithmetic._count(digits, cells, ous) * 0.75 - ous[:, None, None, None] % 3 * 0.5
        )

    fast = golden.serial_accumulators(layer, codes, config, device=device)
    trace = golden.run_layer_serial(layer, codes, config, device=device)
    assert (fast == trace.accumulators.reshape(fast.shape)).all()


CHANGED = [
    pytest.param("offset", lambda c: 0, id="offset-not-subtracted"),
    pytest.param("column_weights", lambda c: (1, 2, 4, 8)[: c.columns_per_weight], id="column"),
    pytest.param("dac_bits", lambda c: 1, id="digits-narrower"),
    pytest.param("max_code", lambda c: 3, id="clipped"),
]


@pytest.mark.parametrize("path", [serial, golden.serial_accumulators], ids=["trace", "fast"])
@pytest.mark.parametrize(("name", "change"), CHANGED)
def test_a_mistake_in_the_arithmetic_is_noticed(monkeypatch, path, name, change):
    """Each property is changed in the arithmetic alone; cells stay as they should be."""
    config = EngineConfig(cell_bits=2, dac_bits=2)
    layer, codes = draw_layer(3, config, in_shape=(4, 4, 4), kernel=(3, 3))
    right = golden.cells(layer, config)
    exact = golden.accumulators(layer, codes)
    assert (path(layer, codes, config) == exact).all()

    class Mistaken(EngineConfig):
        @property
        def lossless(self) -> bool:
            return False

    wrong = change(config)
    if name == "dac_bits":
        mistaken = Mistaken(cell_bits=2)
        monkeypatch.setattr(Mistaken, "digits", property(lambda self: 4))
    else:
        mistaken = Mistaken(cell_bits=2, dac_bits=2)
        monkeypatch.setattr(Mistaken, name, property(lambda self: wrong))
    monkeypatch.setattr(golden, "cells", lambda *_: right)
    assert (path(layer, codes, mistaken) != exact).any()


def test_offset_binary_by_hand():
    # Weights 5 and -3 are stored as 133 = 2 0 1 1 (base 4, high first) and 125 = 1 3 3 1.
    layer = single([[5, -3]])
    config = EngineConfig(cell_bits=2, dac_bits=4, ou_cols=4, adcs=4)
    cells = golden.cells(layer, config)
    assert cells.shape == (1, 8, 4)
    assert cells[0, :2].tolist() == [[1, 1, 0, 2], [1, 3, 3, 1]]
    assert not cells[0, 2:].any()
    # Inputs 0x21 and 0x43: digits 1, 3 and 2, 4. Codes: low 1+3 1+9 0+9 2+3, high 2+4 2+12 12 4+4.
    codes = np.array([0x21, 0x43], np.uint8).reshape(1, 1, 1, 2)
    trace = golden.run_layer_serial(layer, codes, config)
    assert trace.digits[0, 0, :, :2].tolist() == [[1, 3], [2, 4]]
    assert trace.codes[0, 0].tolist() == [[4, 10, 9, 5], [6, 14, 12, 8]]
    # 4 + 40 + 144 + 320 = 508; 6 + 56 + 192 + 512 = 766; 508 + 16 * 766 - 128 * (33 + 67) = -36
    assert trace.psums.ravel().tolist() == [508 + 16 * 766 - 12800]
    assert 508 + 16 * 766 - 12800 == 5 * 0x21 - 3 * 0x43


def test_a_pattern_goes_on_in_the_next_ou():
    layer = single([[1], [2], [-1]])
    # 8 columns a pattern: OUs of 12 hold 0-11, 12-23; OUs of 4 half a pattern each.
    wide, narrow = EngineConfig(ou_cols=12, adcs=5), EngineConfig(ou_cols=4)
    assert ou_count(layer, wide) == 2
    assert ou_count(layer, narrow) == 6
    assert golden.cells(layer, wide)[0, 0].tolist() == [1] + [0] * 8 + [1] + [0] * 2
    assert golden.cells(layer, wide)[1, 0].tolist() == [0] * 4 + [1] * 8
    assert columns_of_ous(layer, wide).tolist() == [12, 12]
    four = single([[1], [2], [-1], [3]])
    assert columns_of_ous(four, wide).tolist() == [12, 12, 8]
    # 5 converters: chunks of 5, 5, 2 columns of each full OU, 5 and 3 of the last
    found = golden.requests(four, wide)
    assert np.bincount(found.ou).tolist() == [24, 24, 16]
    assert found.chunk[:6].tolist() == [0, 1, 2, 0, 1, 2]
    codes = np.full((1, 1, 1, 1), 255, np.uint8)
    trace = golden.run_layer_serial(four, codes, wide)
    assert trace.codes[0, 0, 0].tolist() == [1, 0, 0, 0, 0]
    # columns 10 and 11, and three converters that have none
    assert trace.codes[0, 0, 2].tolist() == [0, 0, 0, 0, 0]
    assert trace.psums.ravel().tolist() == [255, 510, -255, 765]


@pytest.mark.parametrize("seed", range(6))
def test_ous_and_requests_are_as_the_bounds_have_them(seed):
    """ceil(patterns * S / C) OUs, ceil(B / D) digits, ceil(columns in use / A) requests a digit."""
    rng = np.random.default_rng(seed)
    for cols, cell, dac, adcs in itertools.product((4, 12, 32), (1, 2, 4), (1, 2, 4), (1, 6, 8)):
        base = EngineConfig(ou_cols=cols, cell_bits=cell, dac_bits=dac, adcs=adcs)
        layer = random_layer_program(rng, in_shape=(3, 3, 4))
        config = engine_config_for([layer], base)
        ous, total = [], 0
        for patterns in layer.gather_patterns.tolist():
            columns = patterns * 8 // cell
            ous.append(-(-columns // cols))
            for first in range(0, columns, cols):
                total += 8 // dac * -(-min(cols, columns - first) // adcs)
        assert ous_of_gathers(layer, config).tolist() == ous
        found = predict(layer, config)
        assert found.conversion == total == len(golden.requests(layer, config).ou)
        assert found.ous == sum(ous) * layer.positions
        assert found.bound <= found.cycles <= found.bound * 2 + found.start + 100 * layer.positions


@pytest.mark.parametrize("cell_bits", [1, 2, 4])
@pytest.mark.parametrize("dac_bits", [1, 2, 4])
@pytest.mark.parametrize("adc_bits", [0, 3, 9])
def test_partial_sums_reach_their_range_and_not_beyond(cell_bits, dac_bits, adc_bits):
    """With every code at its worst, and inputs that make the subtracted share large or small."""
    config = EngineConfig(cell_bits=cell_bits, dac_bits=dac_bits, adc_bits=adc_bits)
    layer = single([[1] * 8, [-2] * 8])
    low, high = config.psum_range
    found = []
    for top in (0, 1):
        bad = np.array([w < 0 for w in config.column_weights])
        level = np.where(bad, 1e9 * (1 - top), 1e9 * top)
        inputs = 0 if top else 255
        trace = golden.run_layer_serial(
            layer,
            np.full((1, 1, 1, 8), inputs, np.uint8),
            config,
            device=lambda d, c, o, level=level: np.broadcast_to(
                np.tile(level, config.ou_cols // len(level)), (*d.shape[:3], config.ou_cols)
            ),
        )
        found += set(trace.psums.ravel().tolist())
    assert found == [low, high]
    width = config.psum_width
    assert -(1 << width - 1) <= 4 * low
    assert 4 * high < 1 << width - 1
    # ... and the accumulator's range follows from it.
    ends = accumulator_range(layer, config)
    assert (ends[0] == low << 8).all()
    assert (ends[1] == high << 8).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ou_cols": 6}, "ou_cols must be a multiple of 4, not 6"),
        ({"ou_cols": 0}, "ou_cols must be 4 to 32, not 0"),
        ({"cell_bits": 3}, r"cell_bits must be one of \(1, 2, 4\), not 3"),
        ({"dac_bits": 8}, r"dac_bits must be one of \(1, 2, 4\), not 8"),
        ({"adc_bits": 14}, "adc_bits must be 0 to 13, not 14"),
        ({"adcs": 33}, "adcs must be 1 to 32, not 33"),
        (
            {"ou_cols": 32, "cell_bits": 4, "slots": 8},
            "slots must be at least the patterns that begin in one operation unit, 16, not 8",
        ),
    ],
)
def test_sizes_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EngineConfig(**changes)


def test_what_the_hardware_lacks_is_said():
    message = r"^the RTL supports adcs of at most ou_cols \(4\), not 8$"
    with pytest.raises(ValueError, match=message):
        Layouts(EngineConfig(ou_cols=4))
    Layouts(EngineConfig(ou_cols=4, adcs=4))


def test_presets():
    found = {
        name: (config.ou_rows, config.ou_cols, config.crossbar_size, config.adcs)
        for name, config in PRESETS.items()
    }
    assert found == {
        "default": (8, 8, 128, 8),
        "paper": (8, 8, 256, 1),
        "small": (8, 8, 64, 4),
    }
    assert PRESETS["default"] == EngineConfig()
    for config in PRESETS.values():
        Layouts(config)


def test_codes_are_wide_enough():
    # 32 rows of 15 * 15: 7200, 13 bits
    config = EngineConfig(ou_rows=32, cell_bits=4, dac_bits=4)
    assert config.code_bits == 13
    assert EngineConfig(ou_rows=8).code_bits == 4
    assert EngineConfig(ou_rows=16).code_bits == 5
    assert EngineConfig(dac_bits=2, cell_bits=2).code_bits == 7  # 8 * 3 * 3 = 72
    layer, codes = draw_layer(1, config)
    assert golden.run_layer_serial(layer, codes, config).codes.dtype == np.uint16
