"""Each effect: by hand, by its statistics, the same in parts and at once, and nothing when off."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.golden import devices
from refmodel.golden.devices import sums
from refmodel.golden.devices.converters import Converters
from refmodel.golden.devices.device import Device
from refmodel.golden.devices.effects import drift, table
from refmodel.golden.devices.layer_chip import LayerChip
from refmodel.golden.wordlines import packed_digits, unpacked
from tests.support.layers.bad_devices import BAD, EFFECTS, EVERYTHING
from tests.support.layers.chips import (
    ENGINES,
    SEEDS,
    chip,
    sequential_is_vectorised,
)
from tests.support.layers.drawn_layers import draw_layer

EIGHT = EngineConfig()
MANY = np.arange(400)


def cells(device: Device, level: int = 1, config: EngineConfig = EIGHT) -> np.ndarray:
    """Conductances of 25,600 cells of one level on chip 5, in units of G_on."""
    top = (1 << config.cell_bits) - 1
    programmed = np.full((400, config.ou_rows, config.ou_cols), level, np.uint8)
    found = chip(device, config, seed=5).cells(programmed, 0, MANY).astype(np.float64)
    return device.off + found * (1 - device.off) / top


def near(found: float, expected: float, error: float) -> bool:
    """Within five standard errors, and what rounding leaves."""
    return abs(found - expected) < 5 * error + 1e-4


# --- what every effect owes


@pytest.mark.parametrize("name", EFFECTS)
@settings(max_examples=2)
@given(seed=SEEDS, config=ENGINES, pairs=st.booleans())
def test_one_request_at_a_time_gives_the_same_codes(
    name: str, seed: int, config: EngineConfig, pairs: bool
):
    assert sequential_is_vectorised(seed, config, EFFECTS[name], pairs=pairs)


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_changes_codes_the_same_way_twice(name: str):
    layer, codes = draw_layer(3, EIGHT, in_shape=(4, 4, 4), kernel=(3, 3))
    found = [
        golden.run_layer_serial(layer, codes, EIGHT, device=chip(device, seed=7).layer(layer, 0))
        for device in (EFFECTS[name], EFFECTS[name], Device(on_off_ratio=20.0))
    ]
    assert (found[0].codes == found[1].codes).all()
    assert (found[0].codes != found[2].codes).any()


@pytest.mark.parametrize("name", EFFECTS)
def test_chips_differ_where_an_effect_says_so(name: str):
    device = EFFECTS[name]
    layer, _ = draw_layer(3, EIGHT, in_shape=(4, 4, 4), kernel=(3, 3))

    def all_of(seed: int) -> list[Any]:
        drawn = chip(device, seed=seed).layer(layer, 0)
        noise = drawn.noise(slice(0, 8), np.arange(4))
        thresholds = drawn.converters.thresholds
        parts = (drawn.matrix, drawn.offset, noise, thresholds)
        return [None if part is None else part.tolist() for part in parts]

    assert (all_of(1) != all_of(2)) == device.varies


@settings(max_examples=10)
@given(seed=SEEDS, config=ENGINES, pairs=st.booleans())
@example(seed=0, config=EngineConfig(ou_rows=32, cell_bits=4, dac_bits=4), pairs=False)
@example(seed=1, config=EngineConfig(), pairs=True)
def test_all_effects_together_give_the_same_codes(seed: int, config: EngineConfig, pairs: bool):
    if config.code_bits > 7:
        config = dataclasses.replace(config, adc_bits=7)
    assert sequential_is_vectorised(seed, config, EVERYTHING, pairs=pairs)


def wrong_threshold(self, level, columns, right=Converters.convert):
    """Ask the converters one column on, for whole layers alone."""
    if isinstance(columns, slice):
        columns = np.roll(np.arange(columns.start, columns.stop), 1)
    return right(self, level, columns)


@pytest.mark.parametrize("mutant", [wrong_threshold])
def test_converters_of_other_columns_are_noticed(mutant, monkeypatch):
    device = EFFECTS["nonlinearity"]
    assert sequential_is_vectorised(2, EIGHT, device)
    monkeypatch.setattr(Converters, "convert", mutant)
    assert not sequential_is_vectorised(2, EIGHT, device)


# --- tables of codes


def by_tables(seed: int, device: Device, config: EngineConfig, *, pairs: bool) -> bool:
    """Whether tables give the accumulators, conversions and clipped codes of all codes."""
    layer, codes = draw_layer(seed, config)
    chips = [chip(device, config, seed, pairs=pairs) for _ in range(2)]
    fast = golden.serial_accumulators(layer, codes, config, device=chips[0].layer(layer, 1))
    drawn = chips[1].layer(layer, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "worthwhile", lambda rows, lookups: False)
        slow = golden.serial_accumulators(layer, codes, config, device=drawn)
    trace = golden.run_layer_serial(layer, codes, config, device=drawn)
    same = (fast == slow).all() and (fast.reshape(trace.accumulators.shape) == trace.accumulators)
    return bool(np.all(same)) and chips[0].tally == chips[1].tally


TABLED = st.builds(
    EngineConfig,
    ou_rows=st.sampled_from([4, 8]),
    ou_cols=st.sampled_from([8, 12]),
    crossbar_size=st.just(64),
    cell_bits=st.sampled_from([1, 2, 4]),
    adc_bits=st.sampled_from([0, 3]),
)


@settings(max_examples=12)
@given(
    seed=SEEDS,
    config=TABLED,
    name=st.sampled_from([*EFFECTS, "everything", "bad"]),
    pairs=st.booleans(),
)
@example(seed=2, config=EIGHT, name="read_noise", pairs=False)
@example(seed=3, config=EIGHT, name="everything", pairs=True)
def test_tables_give_what_all_codes_give(seed: int, config: EngineConfig, name: str, pairs: bool):
    device = {"everything": EVERYTHING, "bad": BAD}.get(name) or EFFECTS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "_WORTH", 0)
        patch.setattr(sums, "NEAR", 1.0)
        assert by_tables(seed, device, config, pairs=pairs)


def other_digit(chip, table, columns, inputs, places, weights, right=sums._changes):
    return right(chip, table, columns, inputs[::-1], places, weights)


def late(self, places, right=LayerChip.seeds):
    return right(self, places + 1)


def next_column(chip, table, columns, inputs, places, weights, right=sums._changes):
    return right(chip, table, slice(columns.start + 1, columns.stop + 1), inputs, places, weights)


@pytest.mark.parametrize("mutant", [other_digit, late, next_column])
def test_noise_of_another_place_in_tables_is_noticed(mutant, monkeypatch):
    monkeypatch.setattr(sums, "_WORTH", 0)
    monkeypatch.setattr(sums, "NEAR", 1.0)
    assert by_tables(2, BAD, EIGHT, pairs=False)
    if mutant is late:
        monkeypatch.setattr(LayerChip, "seeds", late)
    else:
        monkeypatch.setattr(sums, "_changes", mutant)
    assert not by_tables(2, BAD, EIGHT, pairs=False)


def test_tables_that_do_not_fit_are_made_again(monkeypatch):
    layer, codes = draw_layer(5, EIGHT)
    monkeypatch.setattr(sums, "_WORTH", 0)
    whole, tight = (chip(EVERYTHING, seed=3) for _ in range(2))
    tight._room.left = 0
    found = [
        golden.serial_accumulators(layer, codes, EIGHT, device=each.layer(layer, 0))
        for each in (whole, tight, whole)
    ]
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()
    assert whole.layer(layer, 0).kept.found
    assert not tight.layer(layer, 0).kept.found


def test_digits_are_packed_as_they_lie_on_the_wordlines():
    codes = np.random.default_rng(1).integers(0, 256, (50, 8)).astype(np.uint8)
    words = packed_digits(codes)
    for digit in range(8):
        bits = unpacked(words[:, digit], 8)
        assert (codes >> digit & 1 == bits.T).all()


# --- engines with pairs


@settings(max_examples=8)
@given(seed=SEEDS, config=ENGINES)
def test_an_engine_with_pairs_has_signed_codes_of_the_same_sums(seed: int, config: EngineConfig):
    config = dataclasses.replace(config, pairs=True)
    layer, codes = draw_layer(seed, config)
    ideal = golden.run_layer_serial(layer, codes, config)
    fast = golden.serial_accumulators(layer, codes, config)
    assert (fast == ideal.accumulators.reshape(fast.shape)).all()
    assert np.abs(ideal.codes).max() <= config.max_code
    low, high = config.psum_range
    assert low == -high
    assert np.abs(ideal.psums).max() <= high * config.ous_per_pattern
    drawn = chip(Device(on_off_ratio=9.0), config, seed)
    assert drawn.pairs
    found = golden.run_layer_serial(layer, codes, config, device=drawn.layer(layer, 0))
    assert (found.codes == ideal.codes).all()
    given = golden.cells(layer, config)
    other = drawn.crossbars(given, 0, positions=layer.positions)
    assert (other.matrix == drawn.layer(layer, 0).matrix).all()
    lossless = dataclasses.replace(config, adc_bits=0)
    exact = golden.accumulators(layer, codes)
    assert (golden.serial_accumulators(layer, codes, lossless) == exact).all()
    if config.code_bits <= 7:
        assert sequential_is_vectorised(seed, config, EVERYTHING)


# --- by hand and by statistics


def test_normal_errors_have_their_spreads():
    both = Device(on_off_ratio=4.0, error_proportional=0.05, error_independent=0.02)
    for level, target in ((1, 1.0), (0, 0.25)):
        found = cells(both, level)
        sigma = math.hypot(0.05 * target, 0.02)
        assert near(found.mean(), target, sigma / math.sqrt(found.size))
        assert near(found.std(), sigma, sigma / math.sqrt(2 * found.size))
    wide = cells(Device(on_off_ratio=4.0, error_independent=0.5), 0)
    assert wide.min() == pytest.approx(0, abs=1e-4)
    assert (wide < 1e-4).mean() == pytest.approx(0.5 * math.erfc(0.5 / math.sqrt(2)), abs=0.01)


def test_lognormal_error_has_its_mean_and_spread():
    device = Device(on_off_ratio=4.0, lognormal_independent=0.1)
    for level, target in ((1, 1.0), (0, 0.25)):
        found = cells(device, level)
        assert near(found.mean(), target, 0.1 / math.sqrt(found.size))
        assert found.std() == pytest.approx(0.1, rel=0.05)
        shape = math.sqrt(math.log(1 + (0.1 / target) ** 2))
        assert np.log(found).std() == pytest.approx(shape, rel=0.03)
    assert (cells(Device(lognormal_independent=0.1), 0) == 0).all()


def written(text: str, folder: Path) -> tuple[tuple[float, ...], ...]:
    path = folder / "cells.csv"
    path.write_text(text)
    return table.read_table(path)


def test_a_table_of_moments_has_them(tmp_path: Path):
    rows = written("level,mean,sigma\n0,2,1\n1,40,2\n0.5, 24,4\n", tmp_path)
    assert rows == ((0, 0.05, 0.025), (0.5, 0.6, 0.1), (1, 1, 0.05))
    device = Device(on_off_ratio=20.0, conductance_table=rows)
    config = EngineConfig(cell_bits=2)
    # Level 1 of 3 lies two thirds of the way from 0 to 0.5.
    for level, mean, sigma in ((3, 1.0, 0.05), (1, (0.05 + 2 * 0.6) / 3, (0.025 + 0.2) / 3)):
        found = cells(device, level, config)
        assert near(found.mean(), mean, sigma / math.sqrt(found.size))
        assert near(found.std(), sigma, sigma / math.sqrt(2 * found.size))


def test_a_table_of_samples_has_their_distribution(tmp_path: Path):
    rng = np.random.default_rng(0)
    samples = {0: rng.exponential(2, 500), 1: 30 + 10 * rng.random(500)}
    lines = [f"{level},{value}" for level, each in samples.items() for value in each]
    device = Device(
        on_off_ratio=20.0,
        conductance_table=written("\n".join(["level,sample", *lines]), tmp_path),
    )
    for level, each in samples.items():
        found = cells(device, level)
        wanted = each / samples[1].mean()
        for share in (0.02, 0.25, 0.5, 0.75, 0.98):
            assert np.quantile(found, share) == pytest.approx(
                np.quantile(wanted, share), abs=0.02 * np.ptp(wanted)
            )
        assert found.max() <= wanted.max() + 1e-4
        assert found.min() >= wanted.min() - 1e-4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected level,mean,sigma or level,sample in line 1, found '' in cells.csv"),
        ("level,mean\n0,1\n", "in line 1, found 'level,mean' in cells.csv"),
        ("level,mean,sigma\n0,1\n", "expected 3 numbers of at least 0, found '0,1' in line 2 of"),
        ("level,mean,sigma\n0,a,1\n", "expected numbers, found '0,a,1' in line 2 of cells.csv"),
        ("level,mean,sigma\n0,-1,1\n", "numbers of at least 0, found '0,-1,1' in line 2"),
        ("level,mean,sigma\n0,nan,1\n", "numbers of at least 0, found '0,nan,1' in line 2"),
        ("level,mean,sigma\n0,1,1\n0,2,1\n", "each level once, found 0.0 again in line 3"),
        ("level,mean,sigma\n0,1,1\n2,2,1\n", "levels from 0 to 1, found [0.0, 2.0] in cells.csv"),
        ("level,sample\n0,1\n1,0\n", "a conductance above 0 at level 1, found 0.0 in cells.csv"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(text: str, said: str, tmp_path: Path):
    with pytest.raises(InputError) as caught:
        written(text, tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_device_file_names_its_table(tmp_path: Path):
    text = (devices.FOLDER / "ideal.toml").read_text()
    entry = '\n[conductance_table]\nvalue = {}\nunit = "CSV file"\nsource = "measured"\n'
    (tmp_path / "cells.csv").write_text("level,mean,sigma\n0,1,0.5\n1,20,2\n")
    file = tmp_path / "mine.toml"
    file.write_text(text + entry.format('"cells.csv"'))
    device = Device.load(file)
    assert device.conductance_table == ((0, 0.05, 0.025), (1, 1, 0.1))
    # As cosim hands it on, in JSON.
    assert Device(**json.loads(json.dumps(device.values()))).values() == device.values()
    for value, said in (
        ('"no.csv"', "expected a CSV file of conductances, found none"),
        ("3", "the name of a file"),
    ):
        file.write_text(text + entry.format(value))
        with pytest.raises(InputError, match=said):
            Device.load(file)
    with pytest.raises(ValueError, match="conductance_table must have rows of one length"):
        Device(conductance_table=((0, 1, 1), (1, 1)))
    with pytest.raises(TypeError, match="conductance_table must be rows of numbers"):
        Device(conductance_table=3)


def test_verified_writes_are_within_their_tolerance_or_used_up():
    values = {"on_off_ratio": 10.0, "error_independent": 0.1}
    once = cells(Device(**values))
    loose = Device(**values, verify_writes=4, verify_tolerance=0.1)
    many = Device(**values, verify_writes=1000, verify_tolerance=0.1)
    out = math.erfc(1 / math.sqrt(2))
    for device, left in ((loose, out**4), (many, 0.0)):
        found = cells(device)
        share = (np.abs(found - 1) > 0.1 + 1e-4).mean()
        assert near(share, left, math.sqrt(left / found.size))
        kept = np.abs(once - 1) <= 0.1
        assert (found[kept] == once[kept]).all()
        assert (found[~kept] != once[~kept]).mean() > 0.99
    # The mean number of writes is 1 + p + p^2 + p^3; off cells cannot be too low.
    layer, _ = draw_layer(3, EIGHT, in_shape=(8, 8, 16), kernel=(3, 3))
    drawn = chip(
        Device(
            **values,
            verify_writes=4,
            verify_tolerance=0.1,
            write_energy=2.0,
            write_time=100.0,
            verify_energy=1.0,
            verify_time=20.0,
        )
    )
    drawn.layer(layer, 0)
    drawn.layer(layer, 0)
    writes = drawn.written
    assert writes.cells == golden.cells(layer, EIGHT).size
    on = golden.cells(layer, EIGHT).mean()
    expected = sum(on * out**k + (1 - on) * (out / 2) ** k for k in range(4))
    assert writes.writes / writes.cells == pytest.approx(expected, rel=0.05)
    assert writes.cost(drawn.device) == {
        "energy_nj": pytest.approx(writes.writes * 3.0 / 1e3),
        "time_ms": pytest.approx(writes.writes * 120.0 / 1e6),
    }
    plain = chip(Device(write_energy=2.0, verify_energy=1.0))
    plain.layer(layer, 0)
    assert plain.written.writes == plain.written.cells
    assert plain.written.cost(plain.device)["energy_nj"] == pytest.approx(writes.cells * 2e-3)


def test_each_cell_drifts_by_its_own_exponent_and_the_mean_is_made_up_for():
    values: dict[str, Any] = {
        "on_off_ratio": 4.0,
        "drift_nu": 0.05,
        "drift_nu_spread": 0.02,
        "drift_time": 1e4,
    }
    past = math.log(1e4)
    plain = chip(Device(**values), seed=5)
    on = np.ones((400, 8, 8), np.uint8)
    mean = math.exp(-0.05 * past + (0.02 * past) ** 2 / 2)
    reference = drift.Drift().reference(plain.device)
    assert reference == pytest.approx(mean)
    added = plain.cells(on, 0, MANY).astype(np.float64)
    conductance = added * 0.75 + 0.25 * mean
    assert np.log(conductance).std() == pytest.approx(0.02 * past, rel=0.02)
    assert conductance.mean() == pytest.approx(mean, rel=0.01)
    whole = chip(Device(**values, drift_compensation=1.0), seed=5)
    assert whole.cells(on, 0, MANY) == pytest.approx(added / mean, abs=1e-3)
    assert whole.cells(on, 0, MANY).mean() == pytest.approx(1, abs=0.01)
    # Its noise is amplified with it, its converters' own is not.
    layer, _ = draw_layer(1, EIGHT)
    noisy = Device(**values, drift_compensation=1.0, read_noise=0.3)
    own = Device(**values, drift_compensation=1.0, adc_noise=0.4)
    for device, expected in ((noisy, 0.4 / mean), (own, 0.4)):
        table = chip(device).layer(layer, 0).noise_of
        assert table is not None
        assert float(table.std()) == pytest.approx(expected, rel=1e-3)


def test_temperature_scales_levels_and_reference():
    device = Device(
        on_off_ratio=4.0, temperature=350.0, temperature_on=-0.001, temperature_off=0.002
    )
    # On 0.95, off 0.25 * 1.1, level 1 of 3 0.5 * 1.05; the reference is as an off cell.
    config = EngineConfig(cell_bits=2)
    for level, conductance in ((3, 0.95), (0, 0.275), (1, 0.525)):
        programmed = np.full((1, 8, 8), level, np.uint8)
        found = chip(device, config).cells(programmed, 0, np.array([0]))
        assert found == pytest.approx((conductance - 0.275) / 0.25, abs=1e-4)
    with pytest.raises(ValueError, match="temperature must leave conductances above 0"):
        Device(temperature=500.0, temperature_on=-0.01)


def test_converters_by_hand():
    # Four codes, thresholds 0.5, 1.5 and 2.5; a bow of +0.3 in the middle.
    config = EngineConfig(adc_bits=2)
    layer, _ = draw_layer(1, config)
    drawn = chip(Device(adc_inl=0.3), config).layer(layer, 0)
    thresholds = drawn.converters.thresholds
    assert thresholds is not None
    bow = [0.3 * 4 * u * (1 - u) for u in (1 / 3, 2 / 3, 1)]
    expected = [0.5 + bow[0], 1.5 + bow[1], 2.5 + bow[2]]
    assert thresholds == pytest.approx(np.tile(expected, (len(thresholds), 1)), abs=1e-4)
    level = np.array([[-1.0, 0.6, 0.8, 1.7, 1.8, 2.4, 2.5, 9.0]], np.float32)
    assert drawn.converters.convert(level, slice(0, 1)).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    # Pairs: the negative half mirrors the positive one.
    paired = chip(Device(adc_inl=0.3), config, pairs=True).layer(layer, 0).converters.thresholds
    assert paired is not None
    assert paired[0] == pytest.approx([-each for each in expected[::-1]] + expected, abs=1e-4)


def test_converters_have_their_spreads():
    layer, _ = draw_layer(3, EIGHT, in_shape=(4, 4, 32), outputs=64, kernel=(3, 3), groups=1)
    drawn = chip(Device(adc_dnl=0.1), seed=5).layer(layer, 0).converters.thresholds
    assert drawn is not None
    moved = drawn - (np.arange(1, 16) - 0.5)
    assert (np.diff(drawn, axis=1) >= 0).all()
    assert moved.std() == pytest.approx(0.1, rel=0.1)
    wide = chip(Device(adc_dnl=3.0), seed=5).layer(layer, 0).converters.thresholds
    assert wide is not None
    assert (np.diff(wide, axis=1) >= 0).all()
    gained = chip(Device(adc_gain=0.1), seed=5).cells(
        np.ones((64, 8, 8), np.uint8), 0, np.arange(0, 64)
    )
    # One factor to a column of the crossbar, whichever OU is on it.
    assert (gained == gained[:, :1]).all()
    assert gained[:, 0].std() == pytest.approx(0.1, rel=0.2)
    assert (gained[:16] == gained[16:32]).all()


@pytest.mark.parametrize("steps", [3, 100])
def test_thresholds_are_counted_as_they_are_searched(steps: int):
    rng = np.random.default_rng(steps)
    thresholds = np.sort(rng.random((5, steps)) * steps, axis=1).astype(np.float32)
    own = Converters(
        least=-1, most=steps - 1, below=False, thresholds=thresholds, place=np.arange(5)
    )
    level = (rng.random((5, 40)) * steps).astype(np.float32)
    level[:, 0] = thresholds[:, 1]
    expected = (level[:, :, None] >= thresholds[:, None]).sum(2) - 1
    assert (own.convert(level, slice(0, 5)) == expected).all()
