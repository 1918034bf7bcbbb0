"""The command line: help, one-line errors, exit codes, and folders that are whole or not there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import pytest

from prap_hw.app import console, demo, workflow
from refmodel.compression.schemes import SCHEMES, LayerSetting
from refmodel.config import PRESETS, EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices.device import Device
from sim import tools
from sim.cosim import LayerResult
from tests.support.nets.onnx_nets import f32, network, node, save, small_cnn

SEED = 11
VERBS = ("demo", "compress", "finetune", "inspect", "evaluate", "cosim", "verilog", "golden")

Prap = Callable[..., tuple[int, str, str]]


@pytest.fixture
def prap(capsys: pytest.CaptureFixture[str]) -> Prap:
    """Run the command line in this process: exit code, stdout, stderr without progress."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = program.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if not line.endswith(" s)")]
        return code, out, "\n".join(lines)

    return call


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network, images for it, and what `prap compress` made of them."""
    folder = tmp_path_factory.mktemp("given")
    save(small_cnn(SEED), folder)
    rng = np.random.default_rng(SEED)
    np.savez(
        folder / "images.npz",
        x=rng.integers(0, 256, (12, 8, 8, 2), np.uint8),
        y=rng.integers(0, 5, 12),
    )
    workflow.compress(folder / "net.onnx", folder / "images.npz", folder / "done", scheme="prap")
    return folder


def one_line(text: str) -> str:
    """The text, if it is one error line."""
    assert text.startswith("prap: error: ")
    assert "\n" not in text.rstrip("\n")
    return text


# --- help


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_a_purpose_and_an_example(verb: str, prap: Prap) -> None:
    code, out, err = prap(verb, "--help")
    assert (code, err) == (0, "")
    purpose = out.split(verb, 1)[1].split("\n\n")[0]
    assert "." in purpose
    assert f"prap {verb} " in out.split("Example", 1)[1] + " "


def test_top_help_lists_every_verb_and_the_exit_codes(prap: Prap) -> None:
    code, out, _ = prap("--help")
    assert code == 0
    assert all(f" {verb} " in out for verb in VERBS)
    assert "Exit codes: 0" in out


def test_version_is_that_of_the_package(prap: Prap) -> None:
    assert prap("--version") == (0, f"prap {workflow.versions()['prap-pim']}\n", "")


def test_help_imports_nothing_heavy() -> None:
    check = (
        "import sys, prap_hw.app.cli.program as program; program.run(['--help']); "
        "heavy = {'amaranth', 'onnx', 'matplotlib', 'cocotb', 'numpy'} & set(sys.modules); "
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["compress"], "Missing argument 'NET.onnx'"),
        (["verilog"], "Missing option '--out'"),
        (["demo", "--plant", "bug"], "'bug' is not one of 'code', 'shift', 'index'"),
        (["verilog", "-o", "x", "--adcs", "three"], "--adcs"),
        (["verilog", "-o", "x", "--adcs", "999"], "found adcs must be"),
        (["verilog", "-o", "x", "--ou-cols", "4"], "adcs of at most ou_cols (4), not 8"),
        (["verilog", "-o", "x", "--preset", "large"], "--preset"),
        (["verilog", "-o", "x", "--cell-bits", "3"], "cell_bits must be one of (1, 2, 4), not 3"),
        (["verilog", "-o", "x", "--ou-rows", "33"], "ou_rows must be 4 to 32, not 33"),
        (["verilog", "-o", "x", "--latency", "41"], "crossbar_latency must be 1 to 40, not 41"),
        (["verilog", "-o", "x", "--engines", "65"], "expected 1 to 64 engines, found 65"),
        (["verilog", "-o", "x", "--engine-only", "--engines", "2"], "--engine-only, found both"),
        (["golden", "not/there"], "index.json"),
        (["evaluate", "not/there", "--images", "x"], "expected a folder"),
        (["evaluate", "x", "--images", "x", "--device", "no"], "ideal, wan-2022, found none at no"),
        (["evaluate", "x", "--images", "x", "--adc-bits", "99"], "found adc_bits must be"),
        (["cosim", "not/there", "--images", "x"], "expected a folder"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, prap: Prap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = prap(*arguments)
    assert (code, out) == (2, "")
    assert said in one_line(err)
    assert list(tmp_path.iterdir()) == []


BAD_OPTIONS = {
    "mean": (["--mean", "a,b"], "expected numbers with commas, found 'a,b' in --mean"),
    "std": (["--std", "0"], "std must not be 0"),
    "set": (["--set", "c1=2,4"], "found 'c1=2,4' in --set"),
    "set4": (["--set", "c1=2,4,0.5,1"], "found 'c1=2,4,0.5,1' in --set"),
    "set key": (["--set", "c1=kept=0.5"], "expected LAYER=C,V,KEEP or LAYER=KEY=VALUE"),
    "set bool": (["--set", "c1=recover=perhaps"], "found 'c1=recover=perhaps' in --set"),
    "keep": (["--set", "c1=2,4,7"], "keep must be 0 to 1, not 7"),
    "layer": (["--set", "none=2,4,0.5"], "none"),
    "layout": (["--layout", "nf"], "layout nf"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_of_compress_write_nothing(
    case: str, prap: Prap, given: Path, tmp_path: Path
) -> None:
    options, said = BAD_OPTIONS[case]
    images = given / "images.npz"
    code, _, err = prap(
        "compress", given / "net.onnx", "--calibration", images, "-o", tmp_path / "o", *options
    )
    assert code == 2
    assert said in one_line(err)
    assert list(tmp_path.iterdir()) == []


def bad_network(kind: str, folder: Path) -> Path:
    """An ONNX file with something wrong."""
    weight = f32(np.ones((3, 2, 3, 3)))
    if kind == "text":
        (folder / "net.onnx").write_text("not a network")
        return folder / "net.onnx"
    if kind == "nan":
        weight[0, 0, 0, 0] = np.nan
    nodes = [node("Conv", "x w", "c"), node("Flatten", "c", "y")]
    if kind == "operator":
        nodes = [node("Conv", "x w", "c"), node("Sin", "c", "s"), node("Flatten", "s", "y")]
    return save(network(nodes, {"w": weight}), folder)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("text", "ONNX"), ("operator", "Sin"), ("nan", "NaN"), ("shape", "(8, 8, 2)")],
)
def test_bad_networks_write_nothing(
    kind: str, said: str, prap: Prap, given: Path, tmp_path: Path
) -> None:
    path = bad_network(kind, tmp_path)
    out = tmp_path / "out"
    code, _, err = prap("compress", path, "--calibration", given / "images.npz", "-o", out)
    assert code == 2
    assert said in one_line(err)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda b: b[: len(b) // 2], "expected a whole program file, found a damaged one"),
        (lambda b: b"", "expected a whole program file, found a damaged one"),
        (lambda b: b.replace(b'"zero_in": ', b'"zero_in":1'), "program"),
    ],
    ids=["truncated", "empty", "altered"],
)
def test_cosim_refuses_a_harmed_program(
    harm: Callable[[bytes], bytes], said: str, prap: Prap, given: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "done"
    shutil.copytree(given / "done", folder)
    program = folder / workflow.PROGRAM_FILE
    whole = program.read_bytes()
    program.write_bytes(harm(whole))
    assert program.read_bytes() != whole
    code, out, err = prap("cosim", folder, "--images", given / "images.npz")
    assert (code, out) == (2, "")
    assert said in one_line(err)


def test_cosim_says_how_many_images_there_are(prap: Prap, given: Path) -> None:
    code, _, err = prap("cosim", given / "done", "--images", given / "images.npz", "--count", 13)
    assert code == 2
    assert "expected at least 13 images, found 12 in images.npz" in one_line(err)


def test_evaluate_needs_labels(prap: Prap, given: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 8, 8, 2), np.uint8))
    code, _, err = prap("evaluate", given / "done", "--images", tmp_path / "x.npz")
    assert code == 2
    assert "expected images with labels, found none in x.npz" in one_line(err)


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (InputError("expected a,\nfound b"), 2, "prap: error: expected a, found b"),
        (KeyboardInterrupt(), 130, "prap: error: interrupted"),
        (
            RuntimeError("boom\nand a long log"),
            3,
            "prap: error: a fault of prap, RuntimeError: boom; --debug shows where",
        ),
    ],
    ids=["input", "interrupt", "fault"],
)
def test_every_end_has_its_exit_code(
    problem: BaseException, code: int, said: str, prap: Prap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise problem

    monkeypatch.setattr(workflow, "check_golden", fail)
    assert prap("golden", "x") == (code, "", said)


@pytest.mark.parametrize("arguments", [["--debug", "golden", "x"], ["golden", "x", "--debug"]])
def test_debug_gives_the_traceback(arguments: list[str], prap: Prap) -> None:
    code, _, err = prap(*arguments)
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("prap: error: expected")
    assert "Traceback" not in prap("golden", "x")[2]


def test_a_reader_that_goes_away_gets_no_traceback(root: Path) -> None:
    folder = root / "tests" / "golden"
    pipe = f"{sys.executable} -m prap_hw golden {folder} | true"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


# --- what the verbs do


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


def test_a_failure_while_writing_leaves_nothing(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(OSError, match="disk full"):
        workflow.compress(given / "net.onnx", given / "images.npz", tmp_path / "o")
    assert list(tmp_path.iterdir()) == []


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
        workflow, "chip_accuracy", lambda *args, **_: float(args[3].pairs * args[3].config.adc_bits)
    )
    code, text, _ = prap(*asked, "--adc-bits", "3")
    (found,) = json.loads(path.read_text())["devices"]
    assert (code, found["accuracy"]) == (0, [3.0])


def test_evaluate_refuses_cells_that_there_are_not(given: Path) -> None:
    none: Any = "both"
    with pytest.raises(InputError, match="expected twos-complement or pairs, found 'both' as"):
        workflow.evaluate(given / "done", given / "images.npz", cells=none)


def test_golden_reports_the_last_line_that_was_asked_for(
    prap: Prap, root: Path, tmp_path: Path
) -> None:
    folder = root / "tests" / "golden"
    code, text, err = prap("golden", folder)
    assert (code, err) == (0, "")
    cases = len(json.loads((folder / "index.json").read_text())["cases"])
    assert text.splitlines()[-1] == f"{cases} of {cases} cases reproduced"


def test_golden_ends_with_1_where_a_case_fails(prap: Prap, root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    shutil.copytree(root / "tests" / "golden", folder)
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


# --- co-simulation, with the simulator left out


def simulated(program: Any, codes: Any, config: Any, predictions: Any) -> dict[str, Any]:
    """Figures of a co-simulation in which nothing differs."""
    layers = []
    for layer, p in zip(program.layers, predictions, strict=True):
        counters = {"requests": p.requests, "stall_gather": 7, "stall_slots": 5, "stall_port": 0}
        result = LayerResult(
            name=layer.name,
            cycles_predicted=p.cycles,
            cycles_simulated=(p.cycles,),
            counters=counters,
        )
        figures = workflow.layer_figures(layer, config, p)
        layers.append(figures | workflow._simulated_figures(result, p))
    return {
        "images": len(codes),
        "layers": layers,
        "total": workflow.cycle_total(layers),
        "compared": {"outputs": {"values": 10, "expected": 10, "different": 0}},
        "differences": [],
        "answers": [0] * len(codes),
        "simulation": {"tier": "bulk", "cycles": 12345, "cycles_per_second": 6000000, "kept": 1},
        "waveforms": [],
    }


def test_cosim_passes_images_as_codes_and_ends_with_0(
    prap: Prap, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def simulate(program, codes, config, predictions, build, *, report=None, **options):
        seen.update(codes=codes, config=config, options=options)
        return simulated(program, codes, config, predictions)

    monkeypatch.setattr(workflow, "simulate", simulate)
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
    assert seen["options"] == {
        "tier": "protocol", "every_value": False, "fresh": False, "waves": None, "device": None,
        "chip": 0,
    }  # fmt: skip
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
        return figures | workflow._simulated_figures(result, cast("Any", prediction))

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

    def simulate(program, codes, config, predictions, build, *, report=None, **options):
        seen.update(options)
        return simulated(program, codes, config, predictions)

    monkeypatch.setattr(workflow, "simulate", simulate)
    command = ("cosim", given / "done", "--images", given / "images.npz", "--tier", "bulk")
    assert prap(*command, "--every-value", "--fresh")[0] == 0
    assert seen == {
        "tier": "bulk", "every_value": True, "fresh": True, "waves": None, "device": None,
        "chip": 0,
    }  # fmt: skip
    code, _, err = prap("cosim", given / "done", "--images", given / "images.npz", "--every-value")
    assert code == 2
    assert "expected tier bulk for every_value, found protocol" in one_line(err)


def test_cosim_passes_a_device_and_says_which_chip_it_was(
    prap: Prap, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def simulate(program, codes, config, predictions, build, *, report=None, **options):
        seen.update(options)
        figures = simulated(program, codes, config, predictions)
        device = {"name": "wan-2022", "chip": options["chip"], "adc_bits": 3, "values": {}}
        return figures | {"device": device}

    monkeypatch.setattr(workflow, "simulate", simulate)
    command = ("cosim", given / "done", "--images", given / "images.npz", "--device")
    code, text, err = prap(*command, "wan-2022", "--seed", 5)
    assert (code, err) == (0, "")
    assert seen["device"] == Device.load("wan-2022")
    assert seen["chip"] == 5
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

    def simulate(program, codes, config, predictions, build, *, report=None, **options):
        seen.update(options)
        return simulated(program, codes, config, predictions) | {"waveforms": ["a/window.fst"]}

    monkeypatch.setattr(workflow, "simulate", simulate)
    command = ("cosim", given / "done", "--images", given / "images.npz", "--tier", tier)
    for text in ("conv:5:60", "difference"):
        code, out, err = prap(*command, "--waves", text)
        assert (code, err) == (0, "")
        assert seen["waves"] == text
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

    def simulate(program, codes, config, predictions, build, *, report=None, **options):
        figures = simulated(program, codes, config, predictions)
        figures["compared"]["outputs"] = counts
        figures["layers"][0]["cycles_simulated"] += bubble
        return figures

    monkeypatch.setattr(workflow, "simulate", simulate)
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

    def simulate(program, codes, config, predictions, build, *, fresh, plant=None, report=None):
        assert fresh
        stored = json.loads((out / "predicted.json").read_text())["layers"]
        assert [layer["cycles_predicted"] for layer in stored] == [p.cycles for p in predictions]
        assert len(codes) == 5
        figures = simulated(program, codes, config, predictions)
        if plant:
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


# --- tools of the machine


def test_missing_tools_are_named_with_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tools.missing() == []
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.missing() == [
        "perl (starts Verilator; Debian: apt install perl)",
        "make (builds the simulation; Debian: apt install make)",
        "a C++ compiler (builds the simulation; Debian: apt install g++)",
    ]
    with pytest.raises(InputError, match=r"missing perl .*; make .*; a C\+\+ compiler"):
        tools.require()


def test_make_names_a_missing_tool_before_anything_is_built(root: Path, tmp_path: Path) -> None:
    for name in ("sh", "echo", "make", "c++"):
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    command = ["make", "-C", str(root), f"PYTHON={sys.executable}", "check"]
    env = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 2
    assert "prap: error: missing perl" in done.stderr
    assert "make (" not in done.stderr


def test_an_old_python_is_named(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "-C", str(root), f"PYTHON={old}", "check"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "expected Python 3.11 or newer" in done.stderr
    assert "found Python 3.9.2" in done.stderr


# --- the console


def test_figures_read_as_numbers() -> None:
    values = [1234567, 0.98765, None, "text", True]
    assert [console.figure(v) for v in values] == ["1,234,567", "0.988", "-", "text", "yes"]


def test_a_choice_is_shown_with_what_it_sets_and_what_it_loses():
    setting = {"channels": 4, "positions": 2, "keep": 0.25, "structure_keep": 0.5}
    setting |= {"patterns": 6, "terms": 3}
    shown = {"prap": "4 2 0.250", "orc": "0.250", "structured": "0.500", "dictionary": "6 3"}
    for scheme, figures in shown.items():
        settings = {"conv": {"scheme": scheme, **setting}}
        budget = {"settings": settings, "ratio": 4.5, "of": "cycles", "loss": 0.25}
        screen = console.console()
        with screen.capture() as capture:
            screen.print(*console.choice_tables(budget), sep="\n")
        lines = [" ".join(line.split()) for line in capture.get().splitlines()]
        assert f"conv {scheme} {figures}" in lines
        assert lines[-1] == (
            "chosen: 4.50 times less than dense (predicted cycles), "
            "0.25 points lost on the calibration images"
        )


def test_progress_without_a_terminal_is_a_line_to_a_stage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with console.progress() as report:
        for done in range(4):
            report("convert", done, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("prap: convert (")
    assert err.count("\n") == 1


def test_engine_options_hide_the_latency() -> None:
    assert workflow.engine({"crossbar_latency": 40}).requests_in_flight >= 44
    assert workflow.engine({"crossbar_latency": 40, "preset": "small"}).requests_in_flight == 44
    assert workflow.engine({"preset": "small"}) == PRESETS["small"]
    config = EngineConfig(adcs=2)
    assert workflow.engine(config) is config
    with pytest.raises(InputError, match="one of default, paper, small, found 'big' as the preset"):
        workflow.engine({"preset": "big"})


def test_every_scheme_can_be_named() -> None:
    assert set(get_args(cli.Scheme)) == set(SCHEMES)


def test_settings_are_read_by_place_and_by_name() -> None:
    expected = LayerSetting(scheme="prap", channels=2, positions=4, keep=0.5)
    assert cli._settings(["a*=2,4,0.5"], "prap") == {"a*": expected}
    assert cli._settings(["a*=channels=2,positions=4,keep=0.5"], "prap") == {"a*": expected}
    chosen = cli._settings(["b=scheme=orc,keep=0.25", "c=recover=false"], "prap")
    assert chosen["b"] == LayerSetting(scheme="orc", keep=0.25)
    assert chosen["c"] == LayerSetting(scheme="prap", recover=False)
