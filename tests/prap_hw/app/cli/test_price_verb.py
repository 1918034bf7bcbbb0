"""``prap price``: tables that add up, and bad technology files in one line."""

import json
from pathlib import Path

import pytest

from refmodel.cost.technology import FOLDER
from tests.support.command_line import Prap, one_line
from tests.support.technology import technology_text


def test_price_of_all_packaged_technologies(prap: Prap, given: Path, tmp_path: Path) -> None:
    code, out, err = prap("price", given / "done", "--json", tmp_path / "price.json")
    assert (code, err) == (0, "")
    assert all(len(line) <= 100 for line in out.splitlines())
    figures = json.loads((tmp_path / "price.json").read_text())
    names = [each["technology"] for each in figures["technologies"]]
    assert names == ["isaac-32nm", "modern-22nm", "published-2023"]
    for each in figures["technologies"]:
        assert each["joules"] == pytest.approx(sum(each["parts"].values()))
        assert each["joules"] == pytest.approx(sum(layer["joules"] for layer in each["layers"]))
        assert each["seconds"] == pytest.approx(each["cycles"] / each["clock_hz"])
        assert each["mm2"] == pytest.approx(sum(each["areas_mm2"].values()))
        assert f"{each['joules'] * 1e9:.3f}" in out
    assert figures["technologies"][2]["parts"]["leakage"] == 0


def test_a_file_of_ones_own_on_two_engines(prap: Prap, given: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(technology_text())
    code, out, err = prap(
        "price", given / "done", "--technology", mine, "--engines", 2, "--preset", "small",
        "--json", tmp_path / "price.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    figures = json.loads((tmp_path / "price.json").read_text())
    assert figures["engines"] == 2
    assert figures["technologies"][0]["parts"]["reduction"] > 0
    assert "Layers, round" in out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("doi:", "doi:", ""),
        ('unit = "pJ"', 'unit = "nJ"', "expected unit 'pJ' of adc_energy, found 'nJ' in mine.toml"),
        ("value = 1.83", "value = -1.83", "(fJ) as cell_energy, found -1.83 in mine.toml"),
        ('place = "none"\n', "", "place, confidence of clock, found value, unit, node, source, c"),
        ("[clock]", "[clock", "expected TOML, found "),
    ],
)
def test_a_bad_technology_file_is_one_line_and_exit_code_2(
    old: str, new: str, said: str, prap: Prap, given: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.toml"
    text = (FOLDER / "isaac-32nm.toml").read_text(encoding="utf-8")
    assert old in text
    mine.write_text(text.replace(old, new, 1), encoding="utf-8")
    code, _, err = prap("price", given / "done", "--technology", mine)
    if not said:
        assert (code, err) == (0, "")
        return
    assert code == 2
    assert said in one_line(err)


def test_bits_that_no_converter_has_are_refused(prap: Prap, given: Path) -> None:
    code, _, err = prap("price", given / "done", "--technology", "published-2023", "--adc-bits", 9)
    assert code == 2
    assert "expected adc_energy for 9 bits, found bits 4, 5, 6 in technology" in one_line(err)
    code, _, err = prap("price", given / "done", "--technology", "none")
    assert code == 2
    assert "or one of isaac-32nm, modern-22nm, published-2023, found none at none" in one_line(err)


@pytest.mark.parametrize("chosen", [("--adc-bits", 2), ("--ou-rows", 4)])
def test_codes_of_few_bits_have_the_price_of_the_smallest_converter(
    chosen: tuple[object, ...], prap: Prap, given: Path, tmp_path: Path
) -> None:
    done, path = given / "done", tmp_path / "price.json"
    if "--ou-rows" in chosen:
        done = tmp_path / "net"
        asked = (given / "net.onnx", "--calibration", given / "images.npz", "-o", done, *chosen)
        assert prap("compress", *asked)[0] == 0
        chosen = ()
    found = []
    for bits in ((), ("--adc-bits", 4)):
        more = bits or chosen
        code, out, _ = prap("price", done, "--json", path, "--technology", "isaac-32nm", *more)
        (priced,) = json.loads(path.read_text())["technologies"]
        assert code == 0
        found.append((priced["parts"]["adc"], priced["areas_mm2"]["adc"]))
        said = "priced as those of converters of 4 bits, the smallest of the technology"
        for text in (out, *priced["notes"], priced["assumptions"][-1]):
            assert (said in " ".join(text.split())) == (not bits)
    assert found[0] == found[1]


@pytest.mark.parametrize("engines", [0, 65])
def test_as_many_engines_as_there_can_be(prap: Prap, given: Path, engines: int) -> None:
    code, _, err = prap("price", given / "done", "--engines", engines)
    assert code == 2
    assert "'--engines'" in one_line(err)


def test_the_latency_is_the_technologys(prap: Prap, given: Path) -> None:
    code, _, err = prap("price", given / "done", "--latency", 3)
    assert code == 2
    assert "expected no --latency, since the technology decides it, found 3" in one_line(err)


def test_the_engine_is_the_one_that_the_network_was_compressed_for(
    prap: Prap, given: Path, tmp_path: Path
) -> None:
    done, path = tmp_path / "net", tmp_path / "price.json"
    options = ("--calibration", given / "images.npz", "--adcs", 2, "-o", done)
    assert prap("compress", given / "net.onnx", *options)[0] == 0
    adcs = []
    for chosen in ((), ("--adcs", 4)):
        assert prap("price", done, "--json", path, *chosen)[0] == 0
        adcs.append(json.loads(path.read_text())["technologies"][0]["engine"]["adcs"])
    assert adcs == [2, 4]
    (done / "summary.json").write_text("no")
    code, _, err = prap("price", done)
    assert code == 2
    assert "expected a JSON file, found no JSON at" in one_line(err)
