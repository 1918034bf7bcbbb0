"""``prap cosim`` and ``prap demo``, with the simulator left out."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from prap_hw.app import console, demo, workflow
from prap_hw.app.workflow import simulation
from refmodel.golden.devices.device import Device
from sim.job import OPTIONS, Window
from sim.results import LayerResult
from tests.support.command_line import Prap, one_line, simulated


def test_cosim_passes_images_as_codes_and_ends_with_0(
    prap: Prap, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def simulate(job, predictions):
        seen.update(vars(job))
        return simulated(job.program, job.codes, job.config, predictions)

    monkeypatch.setattr(simulation, "simulate", simulate)
    path = tmp_path / "c.json"
    code, text, err = prap(
        "cosim", given / "done", "--images", given / "images.npz", "--count", 2, "--adcs", 4,
        "--cell-bits", 2, "--dac-bits", 4, "--ou-cols", 12, "--adc-bits", 5, "--preset", "paper",
        "--json", path,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert seen["codes"].shape == (2, 8, 8, 2)
    assert seen["codes"].dtype == np.uint8
    names = ("adcs", "cell_bits", "dac_bits", "ou_cols", "adc_bits", "crossbar_size")
    assert [getattr(seen["config"], name) for name in names] == [4, 2, 4, 12, 5, 256]
    assert seen["tier"] == "protocol"
    assert {name: seen[name] for name in OPTIONS} == OPTIONS
    assert "Hardware against golden model" in text
    assert text.endswith(
        "simulated: 12,345 cycles, 6,000,000 a second of CPU time; 1 of 6 images of layers kept "
        "from earlier runs\n"
    )
    figures = json.loads(path.read_text())
    assert figures["compared"]["outputs"]["values"] == 10
    # Cycles: those of the JSON file are those of the table.
    tables = text[: text.index("simulated: ")].splitlines()
    assert all(len(line) <= 100 for line in tables)
    for layer in (*figures["layers"], figures["total"] | {"name": "all"}):
        over = layer["cycles_simulated"] - layer["cycles_start"]
        assert layer["cycles_ratio"] == over / layer["cycles_bound"]
        (line,) = [
            line.split()
            for line in text[text.index("Cycles of one image") :].splitlines()
            if line.strip().startswith(layer["name"] + " ")
        ]
        keys = ("cycles_bound", "cycles_simulated")
        shown = [*(f"{layer[key]:,}" for key in keys), "0", f"{layer['cycles_ratio']:.3f}"]
        assert line[-8:] == shown + [f"{n:,}" for n in layer["stalls"].values()]


def test_cycles_of_layers_and_of_all_by_hand() -> None:
    # Start and bound of two layers: 10 and 100, 5 and 50. The first takes 112 cycles, its ratio is
    # (112 - 10) / 100 = 1.02; of these, 90 were requests, 3 + 4 + 1 stalls, so 14 are start and
    # end. The second takes 45: 0.8. Together: (157 - 15) / 150.
    def layer(cycles: int, start: int, bound: int, counters: dict[str, int]) -> dict[str, Any]:
        result = LayerResult(
            name="a", cycles_predicted=cycles, cycles_simulated=(cycles,), counters=counters
        )
        prediction = SimpleNamespace(start=start, bound=bound)
        figures = {"cycles_bound": bound, "cycles_start": start, "cycles_predicted": cycles}
        return figures | simulation.simulated_figures(result, cast("Any", prediction))

    counters = {"requests": 90, "stall_gather": 3, "stall_slots": 4, "stall_port": 1}
    first = layer(112, 10, 100, counters)
    second = layer(45, 5, 50, counters | {"requests": 20})
    assert first["cycles_ratio"] == 1.02
    assert second["cycles_ratio"] == 0.8
    assert list(first["stalls"].values()) == [3, 4, 1, 14]
    hung = {"cycles_bound": 7, "cycles_start": 1, "cycles_predicted": 9}
    assert workflow.cycle_total([first, second, hung]) == {
        "cycles_bound": 150,
        "cycles_start": 15,
        "cycles_predicted": 157,
        "cycles_simulated": 157,
        "cycles_ratio": 142 / 150,
        "stalls": {
            "waiting for inputs": 6,
            "partial-sum ring full": 8,
            "crossbar port busy": 2,
            "start and end": 14 + 17,
        },
    }
    nothing = workflow.cycle_total([hung])
    assert (nothing["cycles_ratio"], nothing["cycles_simulated"]) == (None, 0)


def test_the_table_of_cycles_fits_and_has_dashes_for_what_did_not_run() -> None:
    bounds = {"conversion": 1, "gather": 0, "merge": 9_359_296, "output": 2}
    hung = {"name": "layer3.0.conv1", "bounds": bounds, "cycles_bound": 9_359_296}
    ran = hung | {
        "cycles_predicted": 9_359_384, "cycles_simulated": 9_359_385, "cycles_start": 9,
        "cycles_ratio": 1.0, "stalls": dict.fromkeys(console.STALL_COLUMNS, 1_234_567),
    }  # fmt: skip
    screen = console.console()
    with screen.capture() as printed:
        screen.print(console.cycle_table([ran, hung], workflow.cycle_total([ran])))
    lines = printed.get().splitlines()
    assert all(len(line.rstrip()) <= 100 for line in lines)
    rows = [line.split() for line in lines if line.strip().startswith(("layer3", "all"))]
    assert rows[0][:6] == ["layer3.0.conv1", "merge", "9,359,296", "9,359,385", "1", "1.000"]
    assert rows[1] == ["layer3.0.conv1", "merge", "9,359,296", *["-"] * 7]
    assert rows[2][:5] == ["all", "9,359,296", "9,359,385", "1", "1.000"]


def test_cosim_passes_the_options_of_the_bulk_tier(
    prap: Prap, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def simulate(job, predictions):
        seen.update(vars(job))
        return simulated(job.program, job.codes, job.config, predictions)

    monkeypatch.setattr(simulation, "simulate", simulate)
    command = ("cosim", given / "done", "--images", given / "images.npz", "--tier", "bulk")
    assert prap(*command, "--every-value", "--fresh")[0] == 0
    assert seen["tier"] == "bulk"
    assert {name: seen[name] for name in OPTIONS} == OPTIONS | {"every_value": True, "fresh": True}
    code, _, err = prap("cosim", given / "done", "--images", given / "images.npz", "--every-value")
    assert code == 2
    assert "expected tier bulk for every_value, found protocol" in one_line(err)


def test_cosim_passes_a_device_and_says_which_chip_it_was(
    prap: Prap, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def simulate(job, predictions):
        seen.update(vars(job))
        figures = simulated(job.program, job.codes, job.config, predictions)
        device = {"name": "wan-2022", "chip": job.chip_seed, "adc_bits": 3, "values": {}}
        return figures | {"device": device}

    monkeypatch.setattr(simulation, "simulate", simulate)
    command = ("cosim", given / "done", "--images", given / "images.npz", "--device")
    code, text, err = prap(*command, "wan-2022", "--seed", 5)
    assert (code, err) == (0, "")
    assert seen["device"] == Device.load("wan-2022")
    assert seen["chip_seed"] == 5
    last = "crossbars: chip 5 of wan-2022, in Python at the open port, 3-bit codes\n"
    assert text.endswith(last)
    code, _, err = prap(*command, tmp_path / "none.toml")
    assert code == 2
    assert "expected a device file or one of" in one_line(err)
    code, _, err = prap(*command, "ideal", "--tier", "bulk")
    assert code == 2
    assert "expected tier protocol for device, found bulk" in one_line(err)


@pytest.mark.parametrize("tier", ["protocol", "bulk"])
def test_cosim_passes_the_window_of_a_waveform_and_names_the_file(
    tier: str, prap: Prap, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def simulate(job, predictions):
        seen.update(vars(job))
        return simulated(job.program, job.codes, job.config, predictions) | {
            "waveforms": ["a/window.fst"]
        }

    monkeypatch.setattr(simulation, "simulate", simulate)
    command = ("cosim", given / "done", "--images", given / "images.npz", "--tier", tier)
    for text in ("conv:5:60", "difference"):
        code, out, err = prap(*command, "--waves", text)
        assert (code, err) == (0, "")
        window = Window(first=5, last=60, layer="conv") if text != "difference" else None
        assert (seen["window"], seen["record_difference"]) == (window, window is None or None)
        assert out.endswith("waveform: a/window.fst; shown by: gtkwave a/window.gtkw\n")
    seen.clear()
    code, _, err = prap(*command, "--waves", "5")
    assert code == 2
    assert "FIRST:LAST or LAYER:FIRST:LAST in cycles, found '5'" in one_line(err)
    assert not seen


FAULTS = {
    "different": ({"values": 10, "expected": 10, "different": 3}, 0, "found 3 of 10 different"),
    "missing": (
        {"values": 9, "expected": 10, "different": 0},
        0,
        "expected 10 outputs, compared 9",
    ),
    "bubble": ({"values": 10, "expected": 10, "different": 0}, 1, "cycles as predicted, simulated"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_cosim_ends_with_1_where_something_is_wrong(
    case: str, prap: Prap, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, bubble, said = FAULTS[case]

    def simulate(job, predictions):
        figures = simulated(job.program, job.codes, job.config, predictions)
        figures["compared"]["outputs"] = counts
        figures["layers"][0]["cycles_simulated"] += bubble
        return figures

    monkeypatch.setattr(simulation, "simulate", simulate)
    code, _, err = prap("cosim", given / "done", "--images", given / "images.npz")
    assert code == 1
    assert said in one_line(err)


def test_no_comparison_at_all_is_a_fault() -> None:
    assert workflow.faults({"compared": {}, "layers": []}) == [
        "expected values to compare, found none"
    ]


def test_demo_stores_its_predictions_before_it_simulates(
    prap: Prap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"

    def simulate(job, predictions):
        assert job.fresh
        stored = json.loads((out / "predicted.json").read_text())["layers"]
        assert [layer["cycles_predicted"] for layer in stored] == [p.cycles for p in predictions]
        assert len(job.codes) == 5
        figures = simulated(job.program, job.codes, job.config, predictions)
        if job.plant:
            figures["compared"]["outputs"]["different"] = 1
            figures["differences"] = ["layer conv2, position 7, output 3: expected 1, got 2"]
        return figures

    monkeypatch.setattr(workflow, "simulate", simulate)
    code, text, err = prap("demo", "-o", out)
    assert (code, err) == (0, "")
    figures = json.loads((out / "demo.json").read_text())
    assert figures["images"] == 500
    assert figures["accuracy"]["prap"] >= figures["accuracy"]["float"] - 0.015
    assert "report:" in text
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    code, _, err = prap("demo", "-o", out, "--plant", "shift")
    assert code == 1
    assert "layer conv2, position 7, output 3: expected 1, got 2" in err


def test_the_seed_of_the_demo_is_that_of_the_training_log(root: Path) -> None:
    log = (root / "examples/digits/train.log").read_text(encoding="utf-8")
    assert f"seed {demo.TRAINING_SEED};" in log
