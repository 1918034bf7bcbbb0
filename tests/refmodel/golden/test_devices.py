"""Chips: the same again from the same seed, alone or together, and as their device file says."""

import dataclasses
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.golden import devices
from refmodel.golden.devices.chip import Chip, LayerChip
from refmodel.golden.devices.device import Device
from refmodel.golden.devices.device import _values as device_values
from refmodel.golden.devices.random import draw_words, key_of
from tests.support.layers.bad_devices import BAD
from tests.support.layers.chips import ENGINES, SEEDS, chip, sequential_is_vectorised
from tests.support.layers.drawn_layers import draw_layer
from tests.support.layers.layers_by_hand import single

QUIET = dataclasses.replace(
    BAD, read_noise=0.02, variation_on=0.1, variation_off=0.1, drift_nu=0.0, adc_offset=0.1
)
"""Few codes are changed by read noise, so that most of it need not be drawn."""


def square(rows: int = 200) -> np.ndarray:
    """Levels of ``rows`` OUs of 8 by 8 one-bit cells: the left half on, the right half off."""
    return np.broadcast_to(np.arange(8) < 4, (rows, 8, 8)).astype(np.uint8)


# --- by hand


def test_codes_by_hand():
    # The matrix is given: cells that add 1, 1, 0.5 and 0.125 to a code of column 0.
    config, layer = EngineConfig(), single([[1] * 4])
    matrix = np.zeros((8, 8), np.float32)
    matrix[0, :4] = [1, 1, 0.5, 0.125]
    codes = np.ones((1, 1, 1, 4), np.uint8)

    def trace(*offsets: float) -> golden.LayerTrace:
        offset = np.zeros(8, np.float32)
        offset[: len(offsets)] = offsets
        drawn = dataclasses.replace(
            chip(Device(on_off_ratio=5.0)).layer(layer, 0), matrix=matrix, offset=offset
        )
        return golden.run_layer_serial(layer, codes, config, device=drawn)

    # Digit 0: 2.625 + 0.25 gives 3 in column 0, -0.75 clips to 0 in column 1, 20 to 15 in column
    # 2. The other seven digits drive nothing: 0.25 gives 0, and 15 stays.
    found = trace(0.25, -0.75, 20)
    assert found.codes[0, 0].tolist() == [[3, 0, 15, 0, 0, 0, 0, 0]] + [[0, 0, 15] + [0] * 5] * 7
    assert found.psums.ravel().tolist() == [3 + 15 * 4 * 255]
    # Ties go to even: 2.625 - 0.125 = 2.5 gives 2, 3.5 gives 4.
    assert trace(-0.125).codes[0, 0, 0, 0] == 2
    assert trace(0.875).codes[0, 0, 0, 0] == 4


def test_stuck_cells_and_drift_by_hand():
    # Half the cells stuck off and half stuck on, after a drift to 10^-0.1 = 0.794 of G.
    half = Device(on_off_ratio=5.0, stuck_off=0.5, stuck_on=0.5, drift_nu=0.1, drift_time=10.0)
    found = chip(half).cells(square(), 0, np.arange(200))
    # The reference drifts, stuck cells do not: (0.2 - 0.2 * 0.794) / 0.8 and (1 - 0.1589) / 0.8.
    kept = 10**-0.1
    expected = sorted([(0.2 - 0.2 * kept) / 0.8, (1 - 0.2 * kept) / 0.8])
    assert np.unique(found).tolist() == pytest.approx(expected, abs=2**-15)
    # Without stuck cells, an on cell gives (0.794 - 0.159) / 0.8 = 0.794 and an off cell nothing.
    drifted = chip(dataclasses.replace(half, stuck_off=0.0, stuck_on=0.0))
    found = drifted.cells(square(), 0, np.arange(200))
    assert np.unique(found).tolist() == pytest.approx([0, kept], abs=2**-15)


def test_levels_are_evenly_spaced():
    config = EngineConfig(cell_bits=2)
    levels = np.arange(4, dtype=np.uint8).repeat(16).reshape(1, 8, 8)
    found = chip(Device(on_off_ratio=3.0), config).cells(levels, 0, np.array([0]))
    assert (found == levels).all()


def test_multi_level_noise_counts_in_levels():
    # An on current is 1 / (1 - 1/5) = 1.25 codes of a 1-bit cell, 3.75 of a 2-bit one.
    noisy = Device(on_off_ratio=5.0, read_noise=0.1)
    for bits, expected in ((1, 0.125), (2, 0.375)):
        config = EngineConfig(cell_bits=bits)
        drawn = chip(noisy, config).layer(single([[1]]), 0)
        assert drawn.noise_of is not None
        assert float(drawn.noise_of.std()) == pytest.approx(expected, rel=1e-3)


def test_pairs_by_hand():
    # Weights of three outputs; inputs 1, 3, 0, 1. Of each, the digits of |w| in plus or minus.
    config = EngineConfig()
    layer = single([[-1, 3, 5, 0], [-128, -3, 0, 127], [0, 0, 0, 1]])
    programmed = golden.pair_cells(layer, config)
    # OU 0, rows by columns, low digits first.
    assert programmed[0, :4, :3].tolist() == [[-1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert programmed[1, 0].tolist() == [0] * 7 + [-1]
    assert programmed[1, 1].tolist() == [-1, -1] + [0] * 6
    assert programmed[1, 3].tolist() == [1] * 7 + [0]
    codes = np.array([1, 3, 0, 1], np.uint8).reshape(1, 1, 1, 4)
    drawn = Chip(device=Device(), config=config, seed=0, pairs=True).layer(layer, 0)
    trace = golden.run_layer_serial(layer, codes, config, device=drawn)
    # Input digit 0 drives rows 0, 1 and 3, digit 1 row 1 alone. Output 1: 1 - 1 = 0 in columns 0
    # and 1, then 1, and -1 in column 7.
    assert trace.codes[0, 0, 8:10].tolist() == [[0, 0, 1, 1, 1, 1, 1, -1], [-1, -1] + [0] * 6]
    # -1 + 3 * 3; -128 - 3 * 3 + 127; 1.
    assert trace.psums.ravel().tolist() == [8, -10, 1]
    # Two bits hold -3 to 3 of the -4 of four minus cells, and offsets are added before.
    four = single([[-1] * 4])
    few = dataclasses.replace(config, adc_bits=2)
    drawn = Chip(device=Device(), config=few, seed=0, pairs=True).layer(four, 0)
    ones = np.ones((1, 1, 1, 4), np.uint8)
    for offset, expected in ((0.0, -3), (1.625, -2), (20.0, 3)):
        moved = dataclasses.replace(drawn, offset=np.full(8, offset, np.float32))
        trace = golden.run_layer_serial(four, ones, few, device=moved)
        assert trace.codes[0, 0, 0, 0] == expected
        assert (
            golden.serial_accumulators(four, ones, few, device=moved)
            == trace.accumulators.reshape(1, 1, 1, 1)
        ).all()


def test_columns_of_pairs_that_no_weight_needs_count_nothing():
    # Every column has a code of 1 of its offset, in all eight digits: 255 times its weight.
    config = EngineConfig()
    codes = np.zeros((1, 1, 1, 2), np.uint8)
    for weights, columns in (([-128, 0], 255), ([127, -64], 127), ([0, 3], 3), ([0, 0], 0)):
        layer = single([weights])
        drawn = Chip(device=Device(), config=config, seed=0, pairs=True).layer(layer, 0)
        drawn = dataclasses.replace(drawn, offset=np.ones(8, np.float32))
        trace = golden.run_layer_serial(layer, codes, config, device=drawn)
        assert trace.psums.ravel().tolist() == [255 * columns]
        found = golden.serial_accumulators(layer, codes, config, device=drawn)
        assert (found == trace.accumulators.reshape(found.shape)).all()


def test_pairs_of_multi_level_cells_by_hand():
    # 2-bit cells: 128 = 2 * 64, 27 = 3 + 2 * 4 + 1 * 16; 4-bit: 27 = 11 + 1 * 16.
    layer = single([[-128, 27]])
    two = golden.pair_cells(layer, EngineConfig(cell_bits=2))
    assert two[0, :2, :4].tolist() == [[0, 0, 0, -2], [3, 2, 1, 0]]
    four = golden.pair_cells(layer, EngineConfig(cell_bits=4))
    assert four[0, :2, :2].tolist() == [[0, -8], [11, 1]]


def test_minus_cells_are_other_cells_and_noise_is_that_of_two_bitlines():
    # One weight of 1 and one of -1: the plus cell is that of the chip without pairs.
    config, device = EngineConfig(), Device(on_off_ratio=10.0, variation_on=0.3, read_noise=0.1)
    layer = single([[1, -1]])
    plain = Chip(device=device, config=config, seed=4)
    paired = Chip(device=device, config=config, seed=4, pairs=True)
    one, pair = plain.layer(layer, 0), paired.layer(layer, 0)
    # The off cell of a pair adds nothing: variation_off is 0.
    key = words(words(words(0, 4), 4), 0)
    assert pair.matrix[0, 0] == one.matrix[0, 0]
    word = words(key, (0 * config.crossbar_size + 1) * config.crossbar_size)
    radius, angle = ((word >> 32) + 0.5) / 2**32, ((word & 0xFFFFFFFF) + 0.5) / 2**32
    z = math.sqrt(-2 * math.log(radius)) * math.cos(2 * math.pi * angle)
    assert pair.matrix[0, 1] == pytest.approx(-(math.exp(0.3 * z) - 0.1) / 0.9, abs=2**-14)
    assert one.noise_of is not None
    assert pair.noise_of is not None
    assert pair.noise_of.std() == pytest.approx(math.sqrt(2) * one.noise_of.std(), rel=1e-3)


def test_stuck_minus_cells_are_not_those_of_the_plus_cells():
    stuck = Device(stuck_on=0.3)
    levels = np.zeros((200, 8, 8), np.uint8)
    drawn = chip(stuck)
    plus = drawn.cells(levels, 0, np.arange(200))
    minus = drawn.cells(levels, 0, np.arange(200), minus=True)
    assert abs(np.corrcoef(plus.ravel(), minus.ravel())[0, 1]) < 5 / math.sqrt(plus.size)
    assert abs(minus.mean() - 0.3) < 5 * math.sqrt(0.21 / minus.size)


def words(key: int, index: int) -> int:
    """SplitMix64 in Python integers, from the formula of the docstring."""
    most = (1 << 64) - 1
    z = (key + 0x9E3779B97F4A7C15 * (index + 1)) & most
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & most
    z = (z ^ z >> 27) * 0x94D049BB133111EB & most
    return z ^ z >> 31


def test_words_are_those_of_the_documented_generator():
    # The first outputs of SplitMix64 from state 0, as published with its reference code.
    assert words(0, 0) == 0xE220A8397B1DCDAF
    assert words(0, 1) == 0x6E789E6AA1B965F4
    found = draw_words(12345, np.arange(50))
    assert found.tolist() == [words(12345, i) for i in range(50)]
    assert key_of(3, 1, 7) == words(words(words(0, 3), 1), 7)


def test_a_draw_is_where_the_docstring_says():
    """One cell's variation, one column's offset and one activation's noise, from the formulas."""
    config = EngineConfig(crossbar_size=64, ou_cols=16)
    device = Device(variation_on=0.3, adc_offset=0.5, read_noise=0.2)
    drawn = chip(device, config, seed=9)
    # 8 row blocks of 4 OUs: OU 45 is in crossbar 1, at row block 3 and column block 1.
    found = drawn.cells(np.ones((1, 8, 16), np.uint8), 2, np.array([45]))
    key = words(words(words(0, 9), 0), 2)

    def normal(word: int) -> float:
        radius = ((word >> 32) + 0.5) / 2**32
        angle = ((word & 0xFFFFFFFF) + 0.5) / 2**32
        return math.sqrt(-2 * math.log(radius)) * math.cos(2 * math.pi * angle)

    z = normal(words(key, (1 * 64 + 3 * 8 + 5) * 64 + 16 + 7))
    assert found[0, 5, 7] == pytest.approx(math.exp(0.3 * z), abs=2**-15)
    z = normal(words(words(words(words(0, 9), 2), 2), 64 + 16 + 7))
    assert drawn.offsets(2, np.array([45]))[0, 7] == pytest.approx(0.5 * z, abs=2**-15)
    layer = single([[1] * 8] * 6)
    crossbars = dataclasses.replace(drawn.layer(layer, 2, first_image=4), positions=10)
    got = crossbars.noise(slice(16, 32), np.array([9, 16]))
    assert got is not None
    # Image 5, position 6, OU 1, column 6, digit 3: the second of three words, its third lane.
    key = words(words(words(words(0, 9), 3), 2), 5)
    part = words(key, ((1 * 16 + 6) * 8 + 3) * 3 + 1) >> 32 & 0xFFFF
    expected = pytest.approx(0.2 * NormalDist().inv_cdf((part + 0.5) / 65536), abs=2**-15)
    assert got[6, 3 * 2 + 1] == expected
    assert crossbars.request(1, 3, 16, np.zeros(8, np.uint8))[6] == pytest.approx(
        crossbars.offset[22] + got[6, 3 * 2 + 1]
    )


# --- the same chip, in any order


@settings(max_examples=10)
@given(seed=SEEDS, config=ENGINES)
def test_crossbars_of_the_same_cells_are_those_of_the_layer(seed: int, config: EngineConfig):
    layer, _ = draw_layer(seed, config)
    drawn = chip(config=config, seed=seed)
    one = drawn.layer(layer, 2, first_image=3)
    programmed = golden.cells(layer, config)
    other = drawn.crossbars(programmed, 2, positions=layer.positions, first_image=3)
    assert (one.matrix == other.matrix).all()
    assert (one.offset == other.offset).all()
    places = np.arange(layer.positions)
    noise = [each.noise(slice(0, 4), places) for each in (one, other)]
    assert noise[0] is not None
    assert noise[1] is not None
    assert (noise[0] == noise[1]).all()


def test_only_near_currents_are_rounded_otherwise_with_noise():
    layer, _ = draw_layer(6, EngineConfig())
    rng = np.random.default_rng(5)
    wordlines = rng.integers(0, 2, (200, 8)).astype(np.uint8)
    mild = dataclasses.replace(QUIET, read_noise=0.06)
    for device in (BAD, mild, Device()):
        drawn = chip(device).layer(layer, 1)
        still = np.array([drawn.still(0, each) for each in wordlines])
        near = drawn.near(still.T, np.arange(8)).T
        # Every value that the noise can have.
        noise = np.zeros(1, np.float32) if drawn.noise_of is None else drawn.noise_of
        ends = noise[[0, -1], None, None]
        changed = (np.rint(still + ends) != np.rint(still)).any(0)
        assert not (changed & ~near).any()
        assert changed.any() == bool(device.read_noise)
        assert near.all() == (device is BAD)
        read = still[0]
        if drawn.noise_of is not None:
            read = read + drawn.noise_in(0, np.arange(8), 2, layer.positions - 1)
        assert (read == drawn.request(0, 2, layer.positions - 1, wordlines[0])).all()


def test_crossbars_of_given_cells_have_no_pairs():
    with pytest.raises(ValueError, match="pairs must be False where cells are given"):
        chip(pairs=True).crossbars(square(), 0, positions=1)


@settings(max_examples=25)
@given(seed=SEEDS, config=ENGINES)
@example(seed=0, config=EngineConfig(ou_rows=32, cell_bits=4, dac_bits=4))
def test_an_ideal_device_gives_the_ideal_codes(seed: int, config: EngineConfig):
    layer, codes = draw_layer(seed, config)
    for device in (Device(), Device(on_off_ratio=7.3), Device.load("ideal")):
        drawn = chip(device, config, seed).layer(layer, 0)
        found = golden.run_layer_serial(layer, codes, config, device=drawn)
        ideal = golden.run_layer_serial(layer, codes, config)
        assert (found.codes == ideal.codes).all()
        fast = golden.serial_accumulators(layer, codes, config, device=drawn)
        assert (fast == golden.serial_accumulators(layer, codes, config)).all()


@settings(max_examples=25)
@given(seed=SEEDS, config=ENGINES)
@example(seed=0, config=EngineConfig(ou_rows=32, cell_bits=4, dac_bits=4))
@example(seed=1, config=EngineConfig(ou_rows=4, ou_cols=4, cell_bits=2))
def test_ideal_pairs_give_the_exact_accumulators(seed: int, config: EngineConfig):
    config = dataclasses.replace(config, adc_bits=0)
    layer, codes = draw_layer(seed, config)
    exact = golden.accumulators(layer, codes)
    for device in (Device(), Device(on_off_ratio=7.3)):
        drawn = chip(device, config, seed, pairs=True).layer(layer, 0)
        assert (golden.serial_accumulators(layer, codes, config, device=drawn) == exact).all()
        trace = golden.run_layer_serial(layer, codes, config, device=drawn)
        assert (trace.accumulators.reshape(exact.shape) == exact).all()
        assert np.abs(trace.codes).max() <= config.max_code


@settings(max_examples=10)
@given(seed=SEEDS, pairs=st.booleans())
def test_what_clips_is_counted(seed: int, pairs: bool):
    layer, codes = draw_layer(seed, EngineConfig())
    counted = []
    for bits in (0, 1):
        config = EngineConfig(adc_bits=bits)
        drawn = chip(Device(), config, seed, pairs=pairs)
        golden.serial_accumulators(layer, codes, config, device=drawn.layer(layer, 0))
        counted.append(drawn.tally)
    whole = golden.run_layer_serial(
        layer, codes, EngineConfig(), device=chip(Device(), pairs=pairs).layer(layer, 0)
    )
    assert counted[0].clipped == 0
    assert counted[1].clipped == (np.abs(whole.codes) > 1).sum()
    assert counted[0].conversions == counted[1].conversions >= counted[1].clipped


@settings(max_examples=10)
@given(seed=SEEDS, config=ENGINES, device=st.sampled_from([BAD, QUIET]), pairs=st.booleans())
@example(seed=0, config=EngineConfig(ou_rows=32, cell_bits=4, dac_bits=4), device=BAD, pairs=False)
@example(seed=0, config=EngineConfig(), device=QUIET, pairs=False)
@example(seed=0, config=EngineConfig(), device=BAD, pairs=True)
@example(seed=0, config=EngineConfig(ou_rows=32, cell_bits=4, dac_bits=4), device=BAD, pairs=True)
def test_one_request_at_a_time_gives_the_same_codes(
    seed: int, config: EngineConfig, device: Device, pairs: bool
):
    assert sequential_is_vectorised(seed, config, device, pairs=pairs)


def late(self, level, columns, places, right=LayerChip._add_noise):
    right(self, level, columns, places + 1)


def other_digit(self, level, columns, places, right=LayerChip._add_noise):
    found = np.zeros_like(level)
    right(self, found, columns, places)
    level += found.reshape(len(found), -1, len(places))[:, ::-1].reshape(len(found), -1)


def other_column(self, level, columns, places, right=LayerChip._add_noise):
    right(self, level[::-1], columns, places)


@pytest.mark.parametrize("mutant", [late, other_digit, other_column])
def test_noise_of_another_place_is_noticed(mutant, monkeypatch):
    assert sequential_is_vectorised(2, EngineConfig())
    monkeypatch.setattr(LayerChip, "_add_noise", mutant)
    assert not sequential_is_vectorised(2, EngineConfig())


@pytest.mark.parametrize("device", [BAD, QUIET], ids=["bad", "quiet"])
def test_noise_that_changes_no_code_is_not_drawn(device: Device, monkeypatch):
    """Codes are those of all currents with all noise; whether all is drawn is a matter of speed."""
    layer, _ = draw_layer(1, EngineConfig(), in_shape=(6, 6, 8), kernel=(3, 3))
    drawn = chip(device).layer(layer, 0)
    lines = np.random.default_rng(0).integers(0, 2, (8, 8 * 30)).astype(np.float32)
    columns, places = slice(24, len(drawn.offset)), np.arange(5, 35)
    noise = drawn.noise(columns, places)
    assert noise is not None
    level = drawn.matrix[columns] @ lines + drawn.offset[columns, None]
    expected = np.clip(np.rint(level + noise), 0, 15)
    changed = (np.rint(level + noise) != np.rint(level)).mean()
    assert changed > 5e-4
    if device is QUIET:
        monkeypatch.setattr(LayerChip, "_add_noise", None)
    assert (drawn.codes(columns, lines, places) == expected).all()


def test_a_current_that_noise_brings_to_a_tie_is_rounded_with_it():
    # 1.25 + 0.25 is a tie, and gives 2; 1.25 - 0.25 gives 1. 0.75 gives 1 and 0.
    drawn = dataclasses.replace(
        chip(Device(read_noise=0.1)).layer(single([[1]] * 64), 0),
        noise_of=np.repeat(np.array([-0.25, 0.25], np.float32), 32768),
        offset=np.zeros(512, np.float32),
    )
    drawn.offset[:2] = 1.25, 0.75
    found = drawn.codes(slice(0, 512), np.zeros((1, 8), np.float32), np.arange(1))
    assert np.unique(found[0]).tolist() == [1, 2]
    assert np.unique(found[1]).tolist() == [0, 1]
    assert (found[2:] == 0).all()


def test_images_one_by_one_draw_what_they_draw_together():
    layer, codes = draw_layer(3, EngineConfig(), in_shape=(4, 4, 4), kernel=(3, 3))
    drawn = chip()
    together = golden.serial_accumulators(
        layer, codes, EngineConfig(), device=drawn.layer(layer, 0)
    )
    for first in range(len(codes)):
        alone = golden.serial_accumulators(
            layer,
            codes[first : first + 1],
            EngineConfig(),
            device=drawn.layer(layer, 0, first_image=first),
        )
        assert (alone[0] == together[first]).all()
    again = golden.serial_accumulators(
        layer, codes[1:], EngineConfig(), device=drawn.layer(layer, 0)
    )
    assert (again[0] != together[1]).any()


def test_part_of_the_positions_draws_what_it_draws_in_all():
    layer, codes = draw_layer(4, EngineConfig(), in_shape=(4, 4, 4), kernel=(3, 3))
    drawn = chip().layer(layer, 0)
    whole = golden.run_layer_serial(layer, codes, EngineConfig(), device=drawn)
    count = layer.out_shape[0] * layer.out_shape[1]
    part = slice(count // 2, count)
    some = golden.run_layer_serial(layer, codes, EngineConfig(), device=drawn, positions=part)
    assert (some.codes == whole.codes[:, part]).all()


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_a_chip_drawn_twice_or_in_parts_is_the_same(seed: int):
    programmed, ous = square(40), np.arange(40) * 7
    whole = chip(seed=seed).cells(programmed, 2, ous)
    assert (chip(seed=seed).cells(programmed, 2, ous) == whole).all()
    for part in ([3], [39, 0, 17]):
        assert (chip(seed=seed).cells(programmed[part], 2, ous[part]) == whole[part]).all()
        offsets = chip(seed=seed).offsets(2, ous)[part]
        assert (chip(seed=seed).offsets(2, ous[part]) == offsets).all()


def test_a_chip_of_pairs_drawn_twice_is_the_same():
    layer, codes = draw_layer(3, EngineConfig(), in_shape=(4, 4, 4), kernel=(3, 3))
    found = [
        golden.serial_accumulators(
            layer, codes, EngineConfig(), device=chip(seed=seed, pairs=True).layer(layer, 0)
        )
        for seed in (7, 7, 8)
    ]
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()


@pytest.mark.parametrize("change", [{"seed": 2}, {"layer": 3}])
def test_another_seed_or_layer_is_another_chip(change: dict[str, int]):
    place = {"seed": 1, "layer": 2} | change
    one = chip(seed=1).cells(square(), 2, np.arange(200))
    other = chip(seed=place["seed"]).cells(square(), place["layer"], np.arange(200))
    assert (one != other).mean() > 0.9
    offsets = chip(seed=1).offsets(2, np.arange(9))
    assert (offsets != chip(seed=place["seed"]).offsets(place["layer"], np.arange(9))).all()
    # Neither are they related: the correlation of n values is below 5 / sqrt(n).
    assert abs(np.corrcoef(one[:, :, 0].ravel(), other[:, :, 0].ravel())[0, 1]) < 5 / 40


# --- statistics: seed 5 throughout, bounds of five standard errors


def test_variation_has_its_sigma_and_median():
    device = Device(on_off_ratio=10.0, variation_on=0.1, variation_off=0.4)
    found = chip(device, seed=5).cells(square(2000), 0, np.arange(2000)).astype(np.float64)
    conductance = 0.1 + found * 0.9
    for part, sigma, target in ((slice(0, 4), 0.1, 1.0), (slice(4, 8), 0.4, 0.1)):
        values = np.log(conductance[:, :, part].ravel() / target)
        error = 5 * sigma / math.sqrt(len(values))
        assert abs(values.mean()) < error
        # The error of a standard deviation is sigma / sqrt(2 n); 0.3 % for the rounded currents.
        assert abs(values.std() - sigma) < error / math.sqrt(2) + 0.003 * sigma


def test_stuck_cells_have_their_rates():
    device = Device(stuck_off=0.03, stuck_on=0.01)
    found = chip(device, seed=5).cells(square(2000), 0, np.arange(2000))
    on, off = found[:, :, :4], found[:, :, 4:]
    for share, rate in ((np.mean(on == 0), 0.03), (np.mean(off == 1), 0.01)):
        assert abs(share - rate) < 5 * math.sqrt(rate / on.size)
    assert set(np.unique(found)) == {0.0, 1.0}


def test_offset_has_its_sigma():
    config = EngineConfig(crossbar_size=512)
    ous = np.arange(0, 64)
    found = chip(Device(adc_offset=0.7), config, 5).offsets(0, ous)
    assert abs(found.std() - 0.7) < 5 * 0.7 / math.sqrt(2 * found.size)
    # A bitline has one, whichever OU is on it.
    below = chip(Device(adc_offset=0.7), config, 5).offsets(0, ous + 64)
    assert (below == found).all()


def test_read_noise_has_its_sigma_and_no_memory():
    layer = single([[1] * 8] * 16)
    drawn = chip(Device(read_noise=0.25), seed=5).layer(layer, 0)
    drawn = dataclasses.replace(drawn, positions=50)
    found = drawn.noise(slice(0, 128), np.arange(400))
    assert found is not None
    assert found.shape == (128, 3200)
    assert abs(found.mean()) < 5 * 0.25 / math.sqrt(found.size)
    assert abs(found.std() - 0.25) < 5 * 0.25 / math.sqrt(2 * found.size) + 1e-4
    for a, b in ((found[1:], found[:-1]), (found[:, 1:], found[:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / math.sqrt(a.size)
    # Kurtosis 3 of a normal distribution, a little less for its 65,536 parts.
    assert float(np.mean((found / found.std()) ** 4)) == pytest.approx(3, abs=0.03)


@pytest.mark.parametrize("name", ["variation_on", "variation_off", "stuck_off", "stuck_on"])
def test_statistics_notice_twice_the_value(name: str):
    """The bounds above are narrow enough: twice each value would not pass."""
    values: dict[str, Any] = {"on_off_ratio": 10.0, name: 0.02}
    changed: dict[str, Any] = values | {name: 0.04}
    small, twice = Device(**values), Device(**changed)
    one, two = (
        chip(device, seed=5).cells(square(2000), 0, np.arange(2000)) for device in (small, twice)
    )
    target = square(2000)
    ratio = np.mean((two - target) ** 2) / np.mean((one - target) ** 2)
    assert ratio == pytest.approx(2 if name.startswith("stuck") else 4, rel=0.1)


# --- files


def test_packaged_files_say_where_every_value_is_from():
    assert devices.device_names() == ("falcone-2025", "ideal", "wan-2022")
    for name in devices.device_names():
        device = Device.load(name)
        assert device.name == name
        required = {name for name, value in device_values.items() if value.required}
        assert set(device.sources) == required < set(devices.UNITS)
        assert device.about.endswith(".")
    assert Device.load("ideal").values() == Device().values()
    found = Device.load("wan-2022")
    assert found.off == 1 / 40
    assert "10.1038/s41586-022-04992-8" in found.sources["variation_on"]


def test_sums_of_the_falcone_file():
    """The value of each fit, as the sources of the file spell them out."""
    device = Device.load("falcone-2025")
    relaxed = 0.04201137 * math.log(86400) + 0.41183342

    def sigma(target: float) -> float:
        return math.hypot(0.01129027418 * target + 0.0112185391, relaxed) / target

    assert device.on_off_ratio == 90 / 8
    assert device.variation_on == pytest.approx(sigma(90), rel=0.01)
    assert device.variation_off == pytest.approx(sigma(8), rel=0.01)
    read = 0.0277316483 * math.log10(90) * math.sqrt(math.log(86400 / 2e-6))
    assert device.read_noise == pytest.approx(read / 90 * math.sqrt(8), rel=0.01)
    assert device.drift_nu == pytest.approx(0.089 / 50, rel=0.01)


def test_sums_of_the_wan_file():
    """Fits at a day, in uS of 40 uS; the lognormal distribution has their standard deviation."""
    device = Device.load("wan-2022")

    def fit(share: float) -> float:
        terms = [0.701, 22.086, -50.773, 47.095, -16.458]
        return sum(term * share**power for power, term in enumerate(terms))

    assert device.variation_on == pytest.approx(fit(1) / 40, rel=0.01)
    y = math.exp(device.variation_off**2)
    assert math.sqrt((y - 1) * y) == pytest.approx(fit(1 / 40), rel=0.02)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("value = inf", "value = 0.5", "found on_off_ratio must be above 1, not 0.5 in x.toml"),
        ("value = inf", "value = true", "found on_off_ratio must be a number, not True in x.toml"),
        ("value = inf", "value = nan", "found on_off_ratio must be above 1, not nan"),
        (
            'unit = "ln G"',
            'unit = "%"',
            "expected unit 'ln G' of variation_on, found '%' in x.toml",
        ),
        ("[stuck_on]", "[stuck]", "found 'stuck' in x.toml"),
        ("ideal by definition", " ", "expected a source of on_off_ratio, found ' ' in x.toml"),
        ("value = inf\n", "", "expected value, unit and source of on_off_ratio, found {"),
        ("[stuck_on]", "[stuck_on", "expected TOML, found"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(old: str, new: str, said: str, tmp_path: Path):
    text = (devices.FOLDER / "ideal.toml").read_text()
    assert old in text
    (tmp_path / "x.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        Device.load(tmp_path / "x.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_names_those_that_are():
    with pytest.raises(InputError, match=r"one of falcone-2025, ideal, wan-2022, found none at no"):
        Device.load("no")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"variation_on": -0.1}, "variation_on must be 0 to 2, not -0.1"),
        ({"stuck_off": 0.6, "stuck_on": 0.6}, "must be 1 at most, not 1.2"),
        ({"drift_time": 0.5}, "drift_time must be at least drift_start, above 0, not 0.5"),
        ({"read_noise": 11}, "read_noise must be 0 to 10, not 11"),
    ],
)
def test_a_device_refuses(values: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        Device(**values)


def test_a_chip_refuses_a_negative_seed():
    with pytest.raises(ValueError, match="seed must be 0 to 2\\^63 - 1, not -1"):
        chip(seed=-1)


def test_chips_without_anything_drawn_are_the_same():
    assert not Device(on_off_ratio=10.0, drift_nu=0.1, drift_time=10.0).varies
    for name in ("variation_on", "variation_off", "stuck_off", "stuck_on", "read_noise"):
        values: dict[str, Any] = {name: 0.1}
        assert Device(**values).varies
    assert Device(adc_offset=0.1).varies
