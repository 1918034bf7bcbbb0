"""The verbs: folders that are whole or not there, and the figures of each."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prap_hw.app import cli, console, workflow
from prap_hw.app.workflow import chips
from refmodel import files
from refmodel.config import PRESETS
from refmodel.errors import InputError
from refmodel.golden import devices
from tests.support.command_line import Prap, one_line


def test_compress_writes_a_whole_folder(prap: Prap, given: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "o", tmp_path / "f" / "figures.json"
    code, text, err = prap(
        "compress", given / "net.onnx", "--calibration", given / "images.npz", "-o", out,
        "--set", "c2*=2,4,0.5", "--json", figures,
    )  # fmt: skip
    assert (code, err) == (0, "")
    names = {workflow.PROGRAM_FILE, workflow.NETWORK_FILE, workflow.SUMMARY_FILE}
    assert {path.name for path in out.iterdir()} == names
    assert json.loads(figures.read_text()) == json.loads((out / "summary.json").read_text())
    summary = json.loads(figures.read_text())
    assert [layer["name"] for layer in summary["layers"]] == [
        layer.name for layer in workflow.load_program(out).layers
    ]
    assert summary["layers"][1]["patterns_kept"] == 3 * 3
    assert "\x1b" not in text
    assert all(len(line) <= 100 for line in text.splitlines())
    assert str(tmp_path) not in (out / "summary.json").read_text()


def test_inspect_counts_what_compress_wrote(prap: Prap, given: Path, tmp_path: Path) -> None:
    code, text, err = prap("inspect", given / "done", "--json", tmp_path / "metrics.json")
    assert (code, err) == (0, "")
    assert all(len(line) <= 100 for line in text.splitlines())
    found = json.loads((tmp_path / "metrics.json").read_text())
    summary = json.loads((given / "done" / "summary.json").read_text())
    engine = found.pop("engine")
    assert (engine, found) == (summary["engine"], summary["metrics"])
    for layer, figures in zip(found["layers"], summary["layers"], strict=True):
        assert layer["cycles"] == figures["cycles_predicted"]
        assert layer["ous"] == figures["ous"]
    assert found["total"]["kept"] == sum(layer["kept"] for layer in found["layers"])
    code, _, err = prap("inspect", given / "done", "--adcs", "64")
    assert code == 2
    assert "adcs must be 1 to 32, not 64" in one_line(err)


def test_large_metrics_are_short(given: Path) -> None:
    total = json.loads((given / "done" / "summary.json").read_text())["metrics"]["total"]
    wide = total | {"name": "a" * 20, "conversions": 10**12, "cycles": 123_456_789, "merges": 10**9}
    screen = console.console()
    with screen.capture() as printed:
        screen.print(console.metrics_table([wide, wide], wide))
    text = printed.get()
    assert "123.46 M" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_compress_twice_gives_the_same_bytes(given: Path, tmp_path: Path) -> None:
    workflow.compress(given / "net.onnx", given / "images.npz", tmp_path / "o", scheme="prap")
    for name in (workflow.PROGRAM_FILE, workflow.SUMMARY_FILE):
        assert (tmp_path / "o" / name).read_bytes() == (given / "done" / name).read_bytes()


def test_compress_replaces_only_its_own_folders_and_only_when_told(
    prap: Prap, given: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    command = ("compress", given / "net.onnx", "--calibration", given / "images.npz", "-o", out)
    assert prap(*command)[0] == 0
    code, _, err = prap(*command)
    assert code == 2
    assert "expected a new folder" in one_line(err)
    (out / "more").touch()
    assert prap(*command, "--force")[0] == 0
    assert not (out / "more").exists()
    (out / workflow.PROGRAM_FILE).unlink()
    code, _, err = prap(*command, "--force")
    assert code == 2
    assert "expected a folder with program.prap to replace" in one_line(err)
    assert (out / workflow.SUMMARY_FILE).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_a_failure_while_writing_leaves_only_what_a_next_run_goes_on_from(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files, "write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        workflow.compress(given / "net.onnx", given / "images.npz", tmp_path / "o")
    assert [path.name for path in tmp_path.iterdir()] == ["o.work"]


def test_evaluate_counts_images_as_the_golden_model_does(
    prap: Prap, given: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    code, text, err = prap(
        "evaluate", given / "done", "--images", given / "images.npz", "--json", path
    )
    assert (code, err) == (0, "")
    figures = json.loads(path.read_text())
    assert figures["images"] == 12
    assert set(figures["accuracy"]) == {"float", "prap"}
    assert f"{100 * figures['accuracy']['float']:.2f} %" in text


def test_evaluate_on_chips_gives_each_their_mean_and_their_spread(
    prap: Prap, given: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    asked = ("evaluate", given / "done", "--images", given / "images.npz", "--json", path)
    asked += ("--limit", "8", "--trials", "3", "--seed", "4")
    code, text, err = prap(*asked, "--device", "wan-2022", "--device", "ideal")
    assert (code, err) == (0, "")
    figures = json.loads(path.read_text())
    wan, ideal = figures["devices"]
    assert (wan["name"], ideal["name"]) == ("wan-2022", "ideal")
    assert wan["values"]["adc_offset"] == 0.1
    for each in (wan, ideal):
        assert each["seeds"] == [4, 5, 6]
        assert each["cells"] == "twos-complement"
        assert each["mean"] == pytest.approx(np.mean(each["accuracy"]))
        assert each["spread"] == pytest.approx(np.std(each["accuracy"], ddof=1))
    # Ideal cells: every chip has the accuracy of the golden model.
    assert ideal["accuracy"] == [figures["accuracy"]["prap"]] * 3
    row = f"{100 * wan['mean']:.2f} %  {100 * max(wan['accuracy']):.2f} %"
    assert "wan-2022  twos-complement  4 bits  4 to 6" in text
    assert row in text
    # t of two degrees of freedom, 95 %, is 4.303.
    assert wan["interval"] == pytest.approx(4.3027 * wan["spread"] / np.sqrt(3), rel=1e-3)
    half = f"± {100 * wan['interval']:.2f} points, 95 % interval of 3 chips"
    assert (half in text) == bool(wan["spread"])


def test_evaluate_on_chips_of_pairs(
    prap: Prap, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    asked = ("evaluate", given / "done", "--images", given / "images.npz", "--json", path)
    asked += ("--limit", "8", "--trials", "1", "--device", "ideal", "--cells", "pairs")
    code, text, _ = prap(*asked)
    figures = json.loads(path.read_text())
    (found,) = figures["devices"]
    assert (code, "ideal   pairs  4 bits and sign  0" in text) == (0, True)
    # One chip has no spread.
    assert found["spread"] is None
    assert found["accuracy"] == [figures["accuracy"]["prap"]]
    monkeypatch.setattr(
        chips, "chip_accuracy", lambda *args, **_: float(args[3].pairs * args[3].config.adc_bits)
    )
    code, text, _ = prap(*asked, "--adc-bits", "3")
    (found,) = json.loads(path.read_text())["devices"]
    assert (code, found["accuracy"]) == (0, [3.0])


def test_evaluate_prices_programming(prap: Prap, given: Path, tmp_path: Path) -> None:
    text = (devices.FOLDER / "ideal.toml").read_text()
    for name, value, unit in (("write_energy", 2.0, "pJ"), ("write_time", 100.0, "ns")):
        text += f'[{name}]\nvalue = {value}\nunit = "{unit}"\nsource = "assumed"\n'
    (tmp_path / "mine.toml").write_text(text)
    asked = ("evaluate", given / "done", "--images", given / "images.npz", "--limit", "2")
    code, text, _ = prap(*asked, "--device", tmp_path / "mine.toml", "--json", tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())["devices"][0]["programming"]
    assert code == 0
    assert found["writes"] == found["cells"] > 0
    assert found["energy_nj"] == pytest.approx(2e-3 * found["cells"])
    assert f"{found['cells']:,} cells, 1.00 writes to each" in text


def test_effects_on_the_same_chips_show_which_decides(
    prap: Prap, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def right(program: Any, codes: Any, labels: Any, chip: Any, **_: Any) -> float:
        # Each chip loses 1 % more, 20 % where cells are stuck, 2 % where offsets are there.
        device = chip.device
        lost = 0.01 * chip.seed + 0.2 * bool(device.stuck_on) + 0.02 * bool(device.adc_offset)
        return 0.9 - lost

    asked = ("effects", given / "done", "--images", given / "images.npz", "--device", "wan-2022")
    asked += ("--trials", "3", "--json", tmp_path / "a.json", "--figure", tmp_path / "a.svg")
    monkeypatch.setattr(chips, "chip_accuracy", right)
    code, text, _ = prap(*asked)
    found = json.loads((tmp_path / "a.json").read_text())
    names = [each["name"] for each in found["effects"]]
    assert (code, names) == (0, ["variation", "stuck", "read_noise", "offset"])
    stuck = found["effects"][1]
    assert stuck["gain"] == pytest.approx({"mean": 0.2, "interval": 0.0}, abs=1e-12)
    # The ideal chip is 0 every time.
    assert stuck["loss"]["mean"] == pytest.approx(0.21)
    assert stuck["without"]["values"]["adc_offset"] == 0.1
    assert stuck["alone"]["values"]["adc_offset"] == 0
    assert found["decides"] == "stuck"
    assert text.rstrip().endswith("stuck decides")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    # Without a difference, nothing decides.
    monkeypatch.setattr(chips, "chip_accuracy", lambda *_, **__: 0.5)
    code, text, _ = prap(*asked)
    assert text.rstrip().endswith("which effect decides, these chips do not show")
    with pytest.raises(InputError, match="expected a device with effects, found none in ideal"):
        workflow.by_effect(given / "done", given / "images.npz", "ideal")


def test_ranges_are_those_of_the_network_and_its_cells(
    prap: Prap, given: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ranges.json"
    code, text, _ = prap(
        "ranges", given / "done", "--images", given / "images.npz", "--bits", "2", "-o", path
    )
    assert code == 0
    assert "Ranges of 2-bit converters" in text
    asked = ("evaluate", given / "done", "--images", given / "images.npz", "--limit", "2")
    code, text, _ = prap(*asked, "--adc-ranges", path)
    assert code == 0
    assert "ideal   twos-complement  2 bits" in text
    for more, said in (
        (("--cells", "pairs"), "ADC ranges for pairs, found some for 'twos-complement'"),
        (("--adc-bits", "2"), "bits of an ADC code or ADC ranges, found both"),
    ):
        code, _, err = prap(*asked, "--adc-ranges", path, *more)
        assert code == 2
        assert said in err
    for text, said in (
        ("{", "expected ADC ranges by layer in JSON"),
        ('{"cells": "twos-complement", "layers": {"x": {}}}', "layers of the network, found 'x'"),
        (path.read_text().replace('"step": ', '"step": -'), "found step must be 1 to 8192"),
    ):
        path.write_text(text)
        code, _, err = prap(*asked, "--adc-ranges", path)
        assert code == 2
        assert said in err


def test_evaluate_refuses_cells_that_there_are_not(given: Path) -> None:
    none: Any = "both"
    with pytest.raises(InputError, match="expected twos-complement or pairs, found 'both' as"):
        workflow.evaluate(given / "done", given / "images.npz", cells=none)


def test_golden_reports_the_last_line_that_was_asked_for(
    prap: Prap, root: Path, tmp_path: Path
) -> None:
    folder = root / "tests/refmodel/compression/golden"
    code, text, err = prap("golden", folder)
    assert (code, err) == (0, "")
    cases = len(json.loads((folder / "index.json").read_text())["cases"])
    assert text.splitlines()[-1] == f"{cases} of {cases} cases reproduced"


def test_golden_ends_with_1_where_a_case_fails(prap: Prap, root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    shutil.copytree(root / "tests/refmodel/compression/golden", folder)
    case = json.loads((folder / "index.json").read_text())["cases"][0]
    file = folder / case["file"]
    arrays = dict(np.load(file))
    name = case["outputs"][0]
    arrays[name] = 1 - arrays[name]
    np.savez(file, **arrays)
    code, text, _ = prap("golden", folder)
    assert code == 1
    assert case["id"] in text


@pytest.mark.long
def test_verilog_is_the_same_text_under_any_hash_seed(tmp_path: Path) -> None:
    texts = []
    for seed in "01":
        out = tmp_path / seed
        command = [sys.executable, "-m", "prap_hw", "verilog", "--preset", "small"]
        command += ["-o", str(out)]
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        paths = [Path(line) for line in done.stdout.split()]
        assert out / "prap_engine.v" in paths
        texts.append({str(path.relative_to(out)): path.read_text() for path in paths})
    assert texts[0] == texts[1]
    assert "module prap_engine(" in texts[0]["prap_engine.v"]
    assert "module prap_shell(" in texts[0]["prap_shell.v"]
    for text in texts[0].values():
        assert str(tmp_path) not in text
        assert str(Path(cli.__file__).parent) not in text


OPTIONS = {
    "--ou-rows": ("ou_rows", 9),
    "--ou-cols": ("ou_cols", 16),
    "--cell-bits": ("cell_bits", 2),
    "--dac-bits": ("dac_bits", 4),
    "--adc-bits": ("adc_bits", 3),
    "--adcs": ("adcs", 3),
    "--merge-lanes": ("merge_lanes", 2),
    "--position-lanes": ("position_lanes", 2),
    "--latency": ("crossbar_latency", 3),
}
"""Options of an engine: the size that each sets, and a value that is not the default."""


@pytest.mark.parametrize("preset", ["default", "paper", "small"])
def test_a_preset_says_the_sizes_that_no_option_sets(
    preset: str, prap: Prap, given: Path, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.json"
    code, _, err = prap("inspect", given / "done", "--preset", preset, "--json", path)
    assert (code, err) == (0, "")
    engine = json.loads(path.read_text())["engine"]
    names = ("ou_rows", "ou_cols", "crossbar_size", "adcs", "cell_bits", "dac_bits", "adc_bits")
    for name in (*names, "requests_in_flight", "gather_buffers"):
        assert engine[name] == getattr(PRESETS[preset], name), name
    prap("inspect", given / "done", "--preset", preset, "--adcs", 2, "--json", path)
    assert json.loads(path.read_text())["engine"]["adcs"] == 2


@pytest.mark.long
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_an_engine_changes_its_verilog(
    option: str, prap: Prap, tmp_path: Path
) -> None:
    texts = set()
    for chosen in ([], [option, OPTIONS[option][1]]):
        options = ["--preset", "small", "--engine-only", *chosen]
        code, out, err = prap("verilog", "-o", tmp_path, *options)
        assert (code, err) == (0, "")
        assert out.split() == [str(tmp_path / "prap_engine.v")]
        texts.add((tmp_path / "prap_engine.v").read_text())
    assert len(texts) == 2


def test_a_network_is_compiled_for_the_engine_that_is_said(
    prap: Prap, given: Path, tmp_path: Path
) -> None:
    out, path = tmp_path / "net", tmp_path / "metrics.json"
    options = [part for option, (_, value) in OPTIONS.items() for part in (option, value)]
    code, _, err = prap(
        "compress", given / "net.onnx", "--calibration", given / "images.npz", "-o", out, *options
    )
    assert (code, err) == (0, "")
    engine = json.loads((out / "summary.json").read_text())["engine"]
    assert {name: engine[name] for name, _ in OPTIONS.values()} == dict(OPTIONS.values())
    assert {layer.ou_rows for layer in workflow.load_program(out).layers} == {9}
    # What reads it has the rows that it was compiled for, and refuses others.
    assert prap("inspect", out, "--json", path)[0] == 0
    assert json.loads(path.read_text())["engine"]["ou_rows"] == 9
    assert prap("evaluate", out, "--images", given / "images.npz", "--device", "ideal")[0] == 0
    code, _, err = prap("inspect", out, "--ou-rows", 8)
    assert code == 2
    assert "expected a program for OUs of 8 rows (ou_rows), found 9" in one_line(err)
