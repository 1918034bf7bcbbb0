"""Comparisons: fronts, equal accuracy and crossings by hand; the verb on a small network."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prap_hw.app import workflow
from prap_hw.app.compare.analysis import PRICES, at_accuracy, crossings, front, scaled
from prap_hw.app.compare.measure import compare
from prap_hw.app.stages import Subject
from refmodel.cost import PARTS, Technology, price
from refmodel.errors import InputError
from tests.support.command_line import Prap, one_line


def row(scheme: str, budget: float | None, energy: float, accuracy: float) -> dict[str, Any]:
    return {
        "scheme": scheme, "budget": budget, "energy": energy, "seconds": energy / 2,
        "accuracy": accuracy,
    }  # fmt: skip


def parts(scheme: str, adc: float, rest: float) -> dict[str, Any]:
    energies = {"adc": adc, "clock": rest}
    return {
        "scheme": scheme, "budget": None, "energy": adc + rest, "energy_by_part": energies,
    }  # fmt: skip


def test_a_front_has_what_nothing_beats() -> None:
    rows = [row("a", None, 2, 0.8), row("b", None, 1, 0.7), row("c", None, 3, 0.75)]
    assert [each["scheme"] for each in front(rows, "energy")] == ["b", "a"]


def test_costs_at_an_accuracy_are_interpolated_and_never_extrapolated() -> None:
    rows = [
        row("a", 8.0, 1, 0.8),
        row("a", None, 4, 0.9),
        row("b", None, 3, 0.95),
        row("c", None, 1, 0.5),
        row("d", None, 5, 0.85),
    ]
    found = {each["scheme"]: each for each in at_accuracy(rows, 0.85)}
    # Half-way in accuracy is half-way in the logarithm: the geometric mean of 1 and 4.
    assert found["a"]["energy"] == pytest.approx(2)
    assert found["a"]["how"] == "between ÷8 and default settings"
    assert (found["b"]["energy"], found["b"]["how"]) == (3, "upper bound")
    assert (found["c"]["energy"], found["c"]["how"]) == (None, "not reached")
    assert (found["d"]["energy"], found["d"]["how"]) == (5, "measured")


def test_a_crossing_is_where_energies_are_equal() -> None:
    # 4 f + 1 = f + 7 where f is 2; above it the one with fewer conversions takes less.
    one, other = parts("one", 4, 1), parts("other", 1, 7)
    (found,) = crossings([one, other], "adc")
    assert found["factor"] == pytest.approx(2)
    assert found["above"]["scheme"] == "other"
    assert scaled(one, "adc", 2) == scaled(other, "adc", 2) == pytest.approx(9)
    assert crossings([one, other], "merge") == []


def test_a_merge_is_priced_with_its_partial_sums_and_accumulators() -> None:
    every = {"adc": 32.0, "partial sums": 1.0, "merge": 2.0, "accumulators": 4.0, "index": 8.0}
    priced = {"energy": sum(every.values()), "energy_by_part": every}
    assert scaled(priced, "merge", 3) == 47 + 2 * 7
    # Names of the parts are those of the energy model.
    assert {part for parts in PRICES.values() for part in parts} <= {*PARTS}


@pytest.fixture(scope="module")
def subject(given: Path) -> Subject:
    files = (str(given / "images.npz"),)
    return Subject(network=str(given / "net.onnx"), calibration=files, images=files)


def test_rows_have_the_prices_of_the_cost_model(subject: Subject, given: Path) -> None:
    (found,) = compare(subject, ["prap"])["rows"]
    program = workflow.load_program(given / "done")
    expected = price(program, None, Technology.load("isaac-32nm"))
    assert found["energy"] == pytest.approx(expected.joules)
    assert found["seconds"] == pytest.approx(expected.seconds)
    assert found["area"] == pytest.approx(expected.mm2)
    assert sum(found["energy_by_part"].values()) == pytest.approx(expected.joules)
    assert found["cycles"] == expected.cycles


def test_a_budget_out_of_reach_is_a_row_with_its_reason(subject: Subject) -> None:
    rows = compare(subject, ["dense", "orc"], budgets=[1e6])["rows"]
    assert [(each["scheme"], each["budget"]) for each in rows] == [
        ("dense", None),
        ("orc", None),
        ("orc", 1e6),
    ]
    assert "found 1e+06 times fewer ous" in rows[2]["failed"]
    assert "failed" not in rows[1]


def test_unknown_schemes_and_budgets_are_refused(subject: Subject) -> None:
    with pytest.raises(InputError, match="expected schemes of dense"):
        compare(subject, ["prune"])
    with pytest.raises(InputError, match="expected budgets above 1, found"):
        compare(subject, ["dense"], budgets=[0.5])


def test_the_verb_writes_table_json_csv_and_pictures(
    prap: Prap, given: Path, tmp_path: Path
) -> None:
    out = tmp_path / "compare"
    images = given / "images.npz"
    code, text, err = prap(
        "compare", given / "net.onnx", "--calibration", images, "--images", images,
        "--schemes", "dense,prap,dictionary", "--at", "20", "-o", out,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "dictionary" in text
    assert "At 20.00 % accuracy" in text
    figures = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    rows = figures["rows"]
    with (out / "compare.csv").open(encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert [each["scheme"] for each in records] == [each["scheme"] for each in rows]
    for record, each in zip(records, rows, strict=True):
        assert float(record["energy"]) == each["energy"]
        energies = [float(v) for k, v in record.items() if k.startswith("energy_") and v]
        assert np.sum(energies) == pytest.approx(each["energy"])
    pictures = sorted(path.name for path in out.glob("*.svg"))
    assert pictures == [
        "area.svg", "crossbars_layers.svg", "energy.svg", "energy_layers.svg",
        "energy_layers_parts.svg", "front_energy.svg", "front_latency.svg", "sensitivity_adc.svg",
        "sensitivity_merge.svg",
    ]  # fmt: skip
    for name in pictures:
        ElementTree.parse(out / name)
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert "src=" not in page
    assert "link rel" not in page


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--schemes", "prune"], "expected schemes of dense"),
        (["--budgets", "2,x"], "expected numbers with commas"),
        (["--technology", "no"], "expected a technology file or one of"),
        (["--at", "50"], "expected --images with --at"),
        (["--latency", "5"], "expected no --latency, since the technology decides it, found 5"),
    ],
)
def test_bad_options_are_one_line(
    prap: Prap, given: Path, tmp_path: Path, options: list[str], expected: str
) -> None:
    out = tmp_path / "out"
    code, _, err = prap(
        "compare", given / "net.onnx", "--calibration", given / "images.npz", "-o", out, *options
    )
    assert code == 2
    assert expected in one_line(err)
    assert not out.exists()


@pytest.mark.parametrize(
    ("network", "calibration", "expected"),
    [
        ("no.onnx", "images.npz", "expected a readable ONNX file"),
        ("net.onnx", "no.npz", "expected a readable file of images"),
        ("net.onnx", "net.onnx", "expected an .npz, .npy or idx file"),
    ],
)
def test_files_that_cannot_be_read_are_no_fault_of_a_scheme(
    prap: Prap, given: Path, tmp_path: Path, network: str, calibration: str, expected: str
) -> None:
    code, _, err = prap(
        "compare", given / network, "--calibration", given / calibration, "-o", tmp_path / "out"
    )
    assert code == 2
    assert one_line(err).startswith(f"prap: error: {expected}")


def test_several_technologies_are_compiled_once_and_have_a_folder_each(
    prap: Prap, given: Path, tmp_path: Path
) -> None:
    out, file = tmp_path / "compare", tmp_path / "each.json"
    names = ("isaac-32nm", "published-2023")
    asked = [word for name in names for word in ("--technology", name)]
    images = ("--calibration", given / "images.npz", "--schemes", "dense", "-o", out)
    code, text, _ = prap("compare", given / "net.onnx", *images, *asked, "--json", file)
    assert code == 0
    each = json.loads(file.read_text(encoding="utf-8"))["technologies"]
    assert [found["technology"] for found in each] == list(names)
    for name, found in zip(names, each, strict=True):
        assert f"technology {name}" in text
        kept = json.loads((out / name / "compare.json").read_text(encoding="utf-8"))
        assert kept == found
    one = prap("compare", given / "net.onnx", *images[:-1], tmp_path / "o", *asked[2:])
    alone = json.loads((tmp_path / "o" / "compare.json").read_text(encoding="utf-8"))
    assert one[0] == 0
    assert alone["rows"] == each[1]["rows"]
    assert each[0]["rows"][0]["energy"] != each[1]["rows"][0]["energy"]
    code, _, err = prap("compare", given / "net.onnx", *images, *asked[:2], *asked[:2])
    assert code == 2
    assert "expected technologies of different names, found isaac-32nm, isaac-32nm" in err
