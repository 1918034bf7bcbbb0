"""The program: help, one-line errors, exit codes."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prap_hw.app import workflow
from refmodel.errors import InputError
from tests.support.command_line import Prap, one_line
from tests.support.nets.onnx_nets import f32, network, node, save

VERBS = (
    "demo",
    "compress",
    "finetune",
    "inspect",
    "evaluate",
    "report",
    "compare",
    "sweep",
    "cosim",
    "verilog",
    "golden",
    "headline",
    "price",
)


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
    assert "130 interrupted" in " ".join(out.split())


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
        (["compress"], "Missing argument 'NET'"),
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
        (
            ["headline", "--crossbar", "100"],
            "from 32 to 1024 as --crossbar, found 100",
        ),
        (["headline", "--crossbar", "8"], "from 32 to 1024 as --crossbar, found 8"),
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
        nodes = [node("Conv", "x w", "c"), node("Det", "c", "s"), node("Flatten", "s", "y")]
    return save(network(nodes, {"w": weight}), folder)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("text", "ONNX"), ("operator", "Det"), ("nan", "NaN"), ("shape", "(8, 8, 2)")],
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
    folder = root / "tests/refmodel/compression/golden"
    pipe = f"{sys.executable} -m prap_hw golden {folder} | true"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
