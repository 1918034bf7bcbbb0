"""The report of a compressed folder: what it takes up, refuses, and how it grows with layers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from prap_hw.app import workflow
from prap_hw.app.report.network import report_folder
from prap_hw.app.report.page import quantity, render_report
from refmodel.cost import Technology, price
from refmodel.errors import InputError
from refmodel.predict.cycles import predict
from refmodel.program.sizes import engine_config_for
from tests.support.command_line import Prap, one_line
from tests.support.layers.builders import random_layer_program


def test_quantities_have_three_digits_and_a_prefix() -> None:
    assert quantity(0.00123, "J") == "1.23 mJ"
    assert quantity(4.56e-5, "s") == "45.6 µs"
    assert quantity(789e-9, "J") == "789 nJ"
    assert quantity(0.9996, "J") == "1.00 J"
    assert quantity(0.0, "J") == "0 J"
    assert quantity(None, "J") == "–"


def test_the_page_has_accuracy_and_costs(given: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    figures = report_folder(given / "done", out, images=given / "images.npz")
    expected = price(workflow.load_program(given / "done"), None, Technology.load("isaac-32nm"))
    assert figures["costs"]["total_energy"] == pytest.approx(expected.joules)
    page = out.read_text(encoding="utf-8")
    assert f"{quantity(expected.joules, 'J')}</b><span>energy of an image" in page
    assert f"of {figures['images']} images right" in page
    assert "Hardware against golden model" not in page
    assert "prefers-color-scheme: dark" in page
    outside = [x for x in re.findall(r'(?:src|href)="([^"]*)"', page) if x[:5] != "data:"]
    assert [x for x in outside if not x.startswith("#")] == []


def cosim_figures(given: Path) -> dict:
    summary = json.loads((given / "done" / "summary.json").read_text(encoding="utf-8"))
    layers = [
        layer | {"cycles_simulated": layer["cycles_predicted"], "stalls": {"start and end": 1}}
        for layer in summary["layers"]
    ]
    return {
        "layers": layers,
        "compared": {"codes": {"values": 7, "expected": 7, "different": 0}},
        "differences": [],
    }


def test_a_co_simulation_beside_the_program_is_shown(
    prap: Prap, given: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / "cosim.json", tmp_path / "page.html"
    path.write_text(json.dumps(cosim_figures(given)), encoding="utf-8")
    code, text, err = prap("report", given / "done", "-o", out, "--cosim", path)
    assert (code, err) == (0, "")
    assert text == f"report: {out}\n"
    page = out.read_text(encoding="utf-8")
    assert "7 values compared" in page
    assert "predicted = simulated, every layer" in page


def test_a_co_simulation_of_another_engine_is_refused(given: Path, tmp_path: Path) -> None:
    figures = cosim_figures(given)
    figures["layers"][0]["cycles_predicted"] += 1
    path = tmp_path / "cosim.json"
    path.write_text(json.dumps(figures), encoding="utf-8")
    with pytest.raises(InputError, match="expected a co-simulation of this network and engine"):
        report_folder(given / "done", tmp_path / "page.html", cosim=path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--cosim", "no.json"], "expected a JSON file, found No such file"),
        (["--technology", "no"], "expected a technology file or one of"),
        (["--device", "ideal"], "expected --images with --device"),
        (["--accuracy", __file__], "expected a JSON file, found no JSON"),
    ],
)
def test_bad_options_are_one_line(
    prap: Prap, given: Path, tmp_path: Path, options: list[str], expected: str
) -> None:
    out = tmp_path / "page.html"
    code, _, err = prap("report", given / "done", "-o", out, *options)
    assert code == 2
    assert expected in one_line(err)
    assert not out.exists()


def test_a_page_of_fifty_layers_is_small_and_can_be_searched() -> None:
    rng = np.random.default_rng(3)
    layers = [
        random_layer_program(rng, groups=16, identity=False, in_shape=(6, 6, 32), outputs=64)
        for _ in range(50)
    ]
    config = engine_config_for(layers)
    figures = {
        "layers": [workflow.layer_figures(each, config, predict(each, config)) for each in layers]
    }
    page = render_report(figures, layers, config)
    assert page.count('<details class="layer"') == 50
    assert '<input type="search"' in page
    assert len(page) < 2_500_000
