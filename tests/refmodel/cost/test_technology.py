"""Technology files: what is packaged, what is scaled, and what a bad file is told."""

import re

import pytest

from refmodel.cost.scaling import area_factor, energy_factor
from refmodel.cost.technology import CONFIDENCES, SPECS, Technology, technology_names
from refmodel.errors import InputError
from tests.support.technology import ROUND, round_technology, technology_text


def test_scaling_is_that_of_the_design_notes():
    # (0.9559 * 0.64 - 0.7823 * 0.8 + 0.471) / (1.103 * 0.64 - 0.362 * 0.8 + 0.2767)
    assert energy_factor(45, 32, supply=0.8) == pytest.approx(0.659, abs=5e-4)
    # 22 nm lies a sixth of the way from 20 to 32 nm.
    assert energy_factor(45, 22, supply=0.8) == pytest.approx(0.294, abs=5e-4)
    assert area_factor(32, 22) == pytest.approx((3.6 * 10 + 7.8 * 2) / 12 / 7.8)
    assert energy_factor(32, 32, supply=0.9) == area_factor(7, 7) == 1
    with pytest.raises(ValueError, match="node must be 7 to 130 nm, not 180"):
        area_factor(180, 32)


def test_the_packaged_files_say_where_every_value_is_from():
    assert technology_names() == ("isaac-32nm", "modern-22nm", "published-2023")
    for name in technology_names():
        found = Technology.load(name)
        assert found.name == name
        assert found.about
        for constant in found.constants.values():
            assert constant.confidence in CONFIDENCES
            # Nothing is both an assumption and a publication's.
            cited = "doi:" in constant.source or "arXiv:" in constant.source
            if constant.source.startswith("Assumption: "):
                assert constant.confidence == "assumption", constant.name
            else:
                assert cited, constant.name
                assert constant.place != "none", constant.name


def test_values_of_the_packaged_files():
    isaac, modern, published = map(Technology.load, technology_names())
    assert isaac["adc_energy"].at(8) == pytest.approx(1.67e-12)
    assert isaac["adc_energy"].at(4) == pytest.approx(0.79e-12)
    assert isaac["adc_area"].at(8) == pytest.approx(1200e-12)
    # 3.125 fJ at 45 nm, times 0.659.
    assert isaac.number("add_energy") == pytest.approx(3.125e-15 * 0.6593, rel=1e-4)
    assert modern.number("add_energy") == pytest.approx(3.125e-15 * 0.2941, rel=1e-4)
    assert modern["adc_energy"].at(6) == pytest.approx(0.526e-12)
    # 0.6425 mW for (6 + 2) / 1.2 ns.
    assert published["adc_energy"].at(6) == pytest.approx(0.6425e-3 * 8 / 1.2e9, rel=1e-3)
    assert published["drive_energy"].at(1) == pytest.approx(0.0039e-3 * 2.5e-9)
    assert published.number("activation_energy") == pytest.approx(20.7e-3 * 1.2e-9 / 256, rel=1e-3)
    assert published.number("index_energy") == 0
    assert not any(constant.scaled for constant in published.constants.values())
    assert any(line.startswith("cell_energy = 1.83 fJ: ") for line in isaac.assumptions())


def test_memories_grow_with_a_power_of_their_capacity(tmp_path):
    found = round_technology(tmp_path, {"memory_growth": 0.5})
    # 20 fJ at 8 KiB; 32 KiB is four times as much.
    assert found.memory_energy("sram", 32 * 8192) == pytest.approx(40e-15)
    assert found.memory_energy("sram", 2 * 8192) == pytest.approx(10e-15)


def test_a_file_of_ones_own_is_loaded_by_its_path(tmp_path):
    found = round_technology(tmp_path)
    assert found.number("clock") == 1e8
    assert found["adc_energy"].at(5) == 1.25e-12
    assert len(found.assumptions()) == len(SPECS)


BAD = {
    "no source": (
        ('source = "chosen"', 'source = ""', 1),
        r"expected a source of clock, found '' in mine\.toml",
    ),
    "source left out": (
        ('source = "chosen"\n', "", 1),
        r"expected value, .* confidence of clock, found value, unit, node, place, confidence in",
    ),
    "wrong unit": (
        ('unit = "GHz"', 'unit = "MHz"', 1),
        r"expected unit 'GHz' of clock, found 'MHz' in mine\.toml",
    ),
    "negative": (
        ("value = 2.0", "value = -2.0", 1),
        r"expected a number of at least 0 \(fJ\) as cell_energy, found -2\.0 in mine\.toml",
    ),
    "zero clock": (
        ("value = 0.1\n", "value = 0\n", 1),
        r"expected a number above 0 \(GHz\) as clock, found 0 in mine\.toml",
    ),
    "not finite": (
        ("value = 0.5\n", "value = nan\n", 1),
        r"expected a number of at least 0 \(pJ\) as sample_energy, found nan in mine\.toml",
    ),
    "not a number": (
        ("value = 2.0", "value = true", 1),
        r"expected a number of at least 0 \(fJ\) as cell_energy, found True in mine\.toml",
    ),
    "not a table": (
        ("value = { 4 = 1.0, 5 = 1.25 }", "value = 1.0", 1),
        r"expected values by bits of adc_energy, found 1\.0 in mine\.toml",
    ),
    "bits": (
        ("value = { 4 = 1.0,", "value = { 99 = 1.0,", 1),
        r"expected bits 1 to 16 in the table of adc_energy, found '99' in mine\.toml",
    ),
    "negative in a table": (
        ("value = { 4 = 1.0,", "value = { 4 = -1.0,", 1),
        r"expected a number of at least 0 \(pJ\) as adc_energy for 4 bits, found -1\.0 in",
    ),
    "unknown constant": (
        ("[cell_energy]", "[call_energy]", 1),
        r"expected name, about, node and the constants of a technology, found 'call_energy' in",
    ),
    "unknown key": (
        ('unit = "GHz"', 'unit = "GHz"\nsauce = 1', 1),
        r"of clock, found value, unit, sauce, node, source, place, confidence in mine\.toml",
    ),
    "confidence": (
        ('confidence = "assumption"', 'confidence = "sure"', 1),
        r"expected confidence read, secondary, assumption of clock, found 'sure' in mine\.toml",
    ),
    "node": (
        ("node = 32", "node = 180", 1),
        r"expected a node of 7 to 130 \(nm\) as node, found 180 in mine\.toml",
    ),
    "node of a constant": (
        ('unit = "GHz"\nnode = 32', 'unit = "GHz"\nnode = "new"', 1),
        r"expected a node of 7 to 130 \(nm\) as clock\.node, found 'new' in mine\.toml",
    ),
    "not TOML": (
        ("[clock]", "[clock", 1),
        r"expected TOML, found .* in mine\.toml",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_file_is_refused_in_one_line(case, tmp_path):
    (old, new, count), message = BAD[case]
    path = tmp_path / "mine.toml"
    text = technology_text()
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf-8")
    with pytest.raises(InputError, match=message) as problem:
        Technology.load(path)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("name", list(ROUND))
def test_a_constant_that_is_missing_is_named(name, tmp_path):
    lines = technology_text().split("\n[")
    kept = [block for block in lines if not block.startswith(f"{name}]")]
    path = tmp_path / "mine.toml"
    path.write_text("\n[".join(kept), encoding="utf-8")
    message = f"expected {name}, {SPECS[name].meaning}, found none in mine.toml"
    with pytest.raises(InputError, match=re.escape(message)):
        Technology.load(path)


def test_a_file_that_is_not_there_is_refused_with_the_packaged_names(tmp_path):
    message = (
        r"expected a technology file or one of isaac-32nm, modern-22nm, published-2023, found none "
        r"at .*none\.toml"
    )
    with pytest.raises(InputError, match=message):
        Technology.load(tmp_path / "none.toml")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"expected TOML, found .* in x\.toml"):
        Technology.load(tmp_path / "x.toml")
