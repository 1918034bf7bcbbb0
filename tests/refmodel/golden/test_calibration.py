"""Ranges of converters, chosen on counted sums: by hand, against all ranges, and in an order."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices import calibration
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.converters import AdcRange
from refmodel.golden.devices.device import Device
from tests.support.layers.bad_devices import EVERYTHING
from tests.support.layers.chips import ENGINES, SEEDS, chip, sequential_is_vectorised
from tests.support.layers.drawn_layers import draw_layer
from tests.support.layers.layers_by_hand import single
from tests.support.nets.cosim_nets import EMULATED, inputs, random_network

EIGHT = EngineConfig()


def test_sums_are_counted_with_the_squares_of_their_weights():
    # Two rows, weights 1 and 3: column 0 has two on cells, column 1 one. Inputs 1 and 3: digit 0
    # drives both rows, digit 1 the second alone; the other six digits and columns give 0.
    layer = single([[1, 3]])
    found = calibration.counted(layer, np.array([1, 3], np.uint8).reshape(1, 1, 1, 2), EIGHT)
    squares = sum(4**j for j in range(8))
    assert len(found) == 9
    # Sums that are not 0: column 0 digit 0 (2), column 1 digit 0 (1), both digit 1 (1).
    assert found[2] == 1
    assert found[1] == 4 + 4 + 16
    assert found[0] == squares**2 - 1 - 4 - 4 - 16
    assert (found[3:] == 0).all()
    # Pairs: their differences, without the sign, in columns that a weight needs.
    minus = single([[1, -3]])
    found = calibration.counted(
        minus, np.array([1, 3], np.uint8).reshape(1, 1, 1, 2), EIGHT, pairs=True
    )
    # Column 0 digit 0: 1 - 1 = 0; column 1 digit 0: -1; digit 1: -1 in both.
    assert found[1] == 4 + 4 + 16
    assert (found[2:] == 0).all()


def test_positions_are_counted_as_the_golden_model_has_them():
    layer, codes = draw_layer(4, EIGHT, in_shape=(4, 4, 8), kernel=(3, 3))
    trace = golden.run_layer_serial(layer, codes, EIGHT)
    weights = np.array(EIGHT.column_weights, float) ** 2
    found = calibration.counted(layer, codes, EIGHT)
    expected = np.zeros(9)
    for request, digit in enumerate(trace.digit):
        for column in range(8):
            values = trace.codes[:, :, request, column].ravel()
            expected += weights[column] * 4.0**digit * np.bincount(values, minlength=9)
    # Columns of OUs that no pattern has are not counted; here there are none.
    assert found == pytest.approx(expected)


def error(counts: np.ndarray, each: AdcRange) -> float:
    sums = np.arange(len(counts))
    code = np.clip(np.rint((sums - each.low) / each.step), 0, each.most)
    return float(counts @ (np.clip(np.rint(each.low + each.step * code), 0, 15) - sums) ** 2)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_no_other_range_is_better(bits: int):
    rng = np.random.default_rng(bits)
    counts = rng.random(9) ** 4
    found = calibration.best(counts, bits, EIGHT)
    least = error(counts, found)
    for step in np.arange(4, 34) / 4:
        for low in range(9):
            other = error(counts, AdcRange(bits=bits, low=float(low), step=float(step)))
            assert other >= least - 1e-12
    # What the counts say matters: small sums alone, or large ones alone, have other ranges.
    small, large = np.zeros(9), np.zeros(9)
    small[:2], large[7:] = 1, 1
    assert error(small, calibration.best(small, 1, EIGHT)) == 0
    assert error(large, calibration.best(large, 1, EIGHT)) == 0
    assert calibration.best(large, 1, EIGHT).low > calibration.best(small, 1, EIGHT).low
    assert calibration.best(counts, 4, EIGHT) == AdcRange(bits=4)
    assert calibration.best(large, bits, EIGHT, pairs=True).low == 0


def test_ranges_of_a_network_come_back_from_their_file(tmp_path: Path):
    program = random_network(101, 4, EMULATED)
    codes = inputs(program, 2, 102)
    found = calibration.calibrate(program, codes, EMULATED, 1)
    assert sorted(found) == list(range(len(program.layers)))
    file = tmp_path / "ranges.json"
    calibration.save(found, program, file, cells="twos-complement")
    assert calibration.load(file, program, cells="twos-complement") == found
    with pytest.raises(InputError, match="expected a file of ADC ranges, found none at"):
        calibration.load(tmp_path / "no.json", program, cells="twos-complement")
    content = json.loads(file.read_text())
    content["layers"]["more"] = {}
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="expected layers of the network, found 'more' in ranges"):
        calibration.load(file, program, cells="twos-complement")


# --- ranges of converters


def test_a_range_stands_for_numbers_of_cells():
    # Two bits, low 1 and step 2.5: codes stand for 1, 4 (3.5, to even), 6 and 8 (8.5, to even).
    layer, codes = draw_layer(2, EIGHT)
    wide = AdcRange(bits=2, low=1.0, step=2.5)
    ideal = golden.run_layer_serial(layer, codes, EIGHT)
    drawn = chip(Device(), ranges={0: wide}).layer(layer, 0)
    found = golden.run_layer_serial(layer, codes, EIGHT, device=drawn).codes
    values = np.array([1, 4, 6, 8])
    expected = values[np.clip(np.rint((ideal.codes - 1.0) / 2.5), 0, 3).astype(int)]
    # Converters beyond an OU's last column give 0; here there are none.
    assert (found == expected).all()
    assert set(np.unique(found)) <= {1, 4, 6, 8}
    # Without a fault, a range of a step of 1 from 0 and all bits is none at all.
    same = chip(Device(), ranges={0: AdcRange(bits=4)}).layer(layer, 0)
    assert (golden.run_layer_serial(layer, codes, EIGHT, device=same).codes == ideal.codes).all()
    assert same.converters.plain


@settings(max_examples=6)
@given(
    seed=SEEDS,
    config=ENGINES,
    bits=st.integers(1, 4),
    step=st.sampled_from([1.0, 1.25, 2.0, 3.7]),
    low=st.sampled_from([0.0, 1.5]),
    pairs=st.booleans(),
)
def test_ranges_give_the_same_codes_one_request_at_a_time(
    seed: int, config: EngineConfig, bits: int, step: float, low: float, pairs: bool
):
    ranges = {3: AdcRange(bits=bits, step=step, low=0.0 if pairs else low)}
    assert sequential_is_vectorised(seed, config, EVERYTHING, pairs=pairs, ranges=ranges)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bits": 0}, "bits must be 1 to 13, not 0"),
        ({"bits": 2, "step": 0.5}, "step must be 1 to 8192, not 0.5"),
        ({"bits": 2, "low": -1.0}, "low must be 0 to 8192, not -1.0"),
    ],
)
def test_a_range_refuses(values: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        AdcRange(**values)


def test_pairs_have_ranges_about_0():
    with pytest.raises(ValueError, match="low must be 0 in the ranges of pairs"):
        Chip(device=Device(), config=EIGHT, seed=0, pairs=True, ranges={0: AdcRange(bits=2, low=1)})
