"""Every option of every verb changes what the verb does, or is refused: none is ignored.

The options are those of the parser: a new one fails until it stands in the table here.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.core import TyperOption

from prap_hw.app import demo, finetuning, workflow
from prap_hw.app.cli import program
from prap_hw.app.compare import folder as compare_folder
from prap_hw.app.compare import measure
from prap_hw.app.sweep import results
from prap_hw.app.workflow import compression, simulation
from refmodel.golden.devices.device import FOLDER as DEVICES
from tests.support.command_line import Prap, simulated
from tests.support.nets.onnx_nets import save, small_cnn
from tests.support.once import once

SEED = 11

IMAGES = "--images images.npz"
CALIBRATION = "--calibration images.npz"

BASES = {
    "demo": "",
    "compress": f"net.onnx {CALIBRATION} -o out",
    "finetune": "net.onnx --data images.npz -o out.onnx",
    "inspect": "done",
    "evaluate": f"done {IMAGES}",
    "effects": f"done {IMAGES} --device mine.toml",
    "ranges": f"done {IMAGES} --bits 2 -o out.json",
    "price": "done",
    "report": "done -o out.html",
    "compare": f"net.onnx {CALIBRATION} -o out",
    "sweep": "sweep.toml -o out",
    "cosim": f"done {IMAGES}",
    "verilog": "-o out",
    "area": "",
    "headline": "",
    "golden": "golden",
    "fpga": "-o out",
    "board": f"board {IMAGES} --simulate netlist",
}
"""A command of each verb, to which options are added."""

ENGINE = {
    "--preset": "small",
    "--adcs": "4",
    "--merge-lanes": "2",
    "--position-lanes": "2",
    "--pairs": "",
    "--latency": "3",
    "--ou-rows": "16",
    "--ou-cols": "16",
    "--cell-bits": "2",
    "--dac-bits": "2",
    "--adc-bits": "2",
}
PIXELS = {
    "--mean": "0.4",
    "--std": "0.3",
    "--scale": "0.1",
    "--layout": "nchw",
    "--resize": "9",
    "--crop": "8",
    "--preprocess": "pixels.toml",
}

VALUES: Mapping[str, Mapping[str, str]] = {
    "demo": {"--out": "elsewhere", "--plant": "shift", "--count": "2"},
    "compress": ENGINE
    | PIXELS
    | {
        "--calibration": "others.npz",
        "--out": "elsewhere",
        "--scheme": "orc",
        "--set": "'*=2,4,0.25'",
        "--limit": "3",
        "--activations": "mse",
        "--percentile": "90",
        "--weights": "channel",
        "--residual": "fused",
        "--no-moments": "",
        "--augment": "flip",
        "--budget": "1.2",
        "--budget-of": "cycles",
        "--technology": "modern-22nm",
        "--max-loss": "50",
        "--force": "",
        "--workers": "2",
    },
    "finetune": ENGINE
    | PIXELS
    | {
        "--data": "others.npz",
        "--out": "elsewhere.onnx",
        "--labels": "marks.idx",
        "--scheme": "orc",
        "--set": "'*=2,4,0.25'",
        "--budget": "1.2",
        "--budget-of": "cycles",
        "--technology": "modern-22nm",
        "--max-loss": "50",
        "--augment": "flip",
        "--method": "published",
        "--epochs": "2",
        "--batch": "4",
        "--rate": "0.5",
        "--teacher": "0.5",
        "--temperature": "2",
        "--seed": "1",
        "--precision": "bfloat16",
        "--on": "cpu",
        "--noise": "wan-2022",
        "--calibration": "3",
        "--images": "images.npz",
        "--fresh": "",
        "--force": "",
    },
    "inspect": ENGINE,
    "evaluate": {
        "--images": "others.npz",
        "--labels": "marks.idx",
        "--limit": "3",
        "--device": "wan-2022",
        "--cells": "pairs",
        "--trials": "2",
        "--seed": "1",
        "--adc-bits": "1",
        "--adc-ranges": "ranges.json",
    },
    "effects": {
        "--images": "others.npz",
        "--labels": "marks.idx",
        "--limit": "3",
        "--device": "wan-2022",
        "--cells": "pairs",
        "--trials": "2",
        "--seed": "1",
        "--figure": "effects.png",
    },
    "ranges": {
        "--images": "others.npz",
        "--bits": "1",
        "--out": "elsewhere.json",
        "--count": "1",
        "--cells": "pairs",
    },
    "price": {"--technology": "isaac-32nm", "--engines": "2"} | ENGINE,
    "report": ENGINE
    | {
        "--out": "elsewhere.html",
        "--images": "images.npz",
        "--labels": "marks.idx",
        "--limit": "3",
        "--device": "ideal",
        "--trials": "2",
        "--accuracy": "accuracy.json",
        "--cosim": "cosim.json",
        "--technology": "modern-22nm",
    },
    "compare": ENGINE
    | PIXELS
    | {
        "--calibration": "others.npz",
        "--out": "elsewhere",
        "--images": "images.npz",
        "--labels": "marks.idx",
        "--limit": "3",
        "--schemes": "dense,orc",
        "--budgets": "2",
        "--of": "cycles",
        "--at": "50",
        "--technology": "modern-22nm",
        "--engines": "2",
        "--calibration-limit": "3",
    },
    "sweep": {"--out": "elsewhere", "--workers": "1", "--scheduler": "tcp://x:1"},
    "cosim": ENGINE
    | {
        "--images": "others.npz",
        "--labels": "marks.idx",
        "--count": "2",
        "--tier": "bulk",
        "--every-value": "",
        "--fresh": "",
        "--waves": "1:9",
        "--device": "wan-2022",
        "--adc-ranges": "ranges.json",
        "--seed": "1",
        "--engines": "2",
        "--layers": "c1*",
        "--positions": "2",
    },
    "verilog": ENGINE
    | {
        "--out": "elsewhere",
        "--open-port": "",
        "--trace": "",
        "--engine-only": "",
        "--engines": "2",
        "--for": "done",
    },
    "area": ENGINE | {"--family": "ice40", "--for": "done"},
    "headline": {"--crossbar": "128"},
    "golden": {},
    "fpga": ENGINE
    | {
        "--out": "elsewhere",
        "--board": "hx8k",
        "--for": "done",
        "--engines": "2",
        "--clock": "30",
        "--baud": "115200",
        "--seeds": "2",
    },
    "board": {
        "--images": "others.npz",
        "--labels": "marks.idx",
        "--count": "2",
        "--port": "/dev/ttyUSB0",
        "--simulate": "verilog",
    },
}
"""A value of each option, other than its default."""

IDX = "--images images.idx"

NEEDS = {
    ("compress", "--percentile"): "--activations percentile",
    ("compress", "--budget-of"): "--budget 1.2 --scheme orc",
    ("compress", "--technology"): "--budget 1.2 --scheme orc --budget-of energy",
    ("finetune", "--budget-of"): "--budget 1.2",
    ("finetune", "--technology"): "--budget 1.2 --budget-of energy",
    **{("finetune", name): "--budget 1.2" for name in ENGINE if name != "--ou-rows"},
    ("finetune", "--calibration"): "--scheme dictionary",
    ("evaluate", "--trials"): "--device wan-2022",
    ("evaluate", "--seed"): "--device wan-2022",
    ("report", "--labels"): "--images images.idx",
    ("report", "--limit"): IMAGES,
    ("report", "--device"): IMAGES,
    ("report", "--trials"): f"{IMAGES} --device ideal",
    ("compare", "--labels"): IMAGES,
    ("compare", "--limit"): IMAGES,
    ("compare", "--at"): IMAGES,
    ("compare", "--of"): "--budgets 2",
    ("cosim", "--seed"): "--device wan-2022",
    ("cosim", "--every-value"): "--tier bulk",
    ("cosim", "--engines"): "--tier network",
    ("cosim", "--layers"): "--tier bulk",
    ("cosim", "--positions"): "--tier bulk",
}
"""Options that say nothing without others, which are these; alone they are refused."""

INSTEAD = {
    ("board", "--labels"): (IMAGES, IDX),
    ("board", "--port"): ("--simulate netlist", ""),
    ("evaluate", "--labels"): (IMAGES, IDX),
    ("effects", "--labels"): (IMAGES, IDX),
    ("cosim", "--labels"): (IMAGES, IDX),
    ("finetune", "--labels"): ("--data images.npz", "--data images.idx"),
    ("compress", "--force"): ("-o out", "-o done"),
    ("compress", "--budget"): ("-o out", "--scheme orc -o out"),
}
"""Words of the base that an option needs others in place of."""

REFUSED = {
    ("price", "--latency"): "the technology decides it",
    ("compare", "--latency"): "the technology decides it",
    ("compress", "--layout"): "found (8, 8, 2) (layout nchw)",
    ("compress", "--resize"): "expected a folder of pictures",
    ("compress", "--crop"): "expected a folder of pictures",
    ("price", "--dac-bits"): "expected drive_energy for 2 bits",
    ("report", "--dac-bits"): "expected drive_energy for 2 bits",
    **{
        (verb, "--ou-rows"): "expected a program for OUs of 16 rows (ou_rows), found 8"
        for verb in ("inspect", "price", "report", "cosim")
    },
}
"""Options that are refused in every case, and what is said."""


TORCH = "PyTorch is not installed: make test installs it"

SAME = {("compress", "--workers"): "processes; what is written does not depend on them"}
"""Options that change how long it takes and nothing else."""


def commands() -> Mapping[str, Any]:
    group: Any = typer.main.get_command(program.app)
    return group.commands


def base_of(verb: str) -> str:
    """The command of a verb, with its figures in a file where it has some."""
    has_figures = "--json" in (parameter.opts[0] for parameter in commands()[verb].params)
    return BASES[verb] + " --json figures.json" * has_figures


def options() -> list[tuple[str, str]]:
    """Every verb with each of its options but those that all have."""
    return [
        (verb, parameter.opts[0])
        for verb, command in commands().items()
        for parameter in command.params
        if isinstance(parameter, TyperOption) and parameter.opts[0] not in ("--debug", "--json")
    ]


def test_every_verb_has_its_command_and_every_option_its_value() -> None:
    assert set(BASES) == set(VALUES) == set(commands())
    listed = [(verb, option) for verb, values in VALUES.items() for option in values]
    assert sorted(listed) == sorted(options())
    assert set(NEEDS) | set(INSTEAD) | set(REFUSED) | set(SAME) <= set(listed)


def make(folder: Path) -> None:
    """Write the files that the commands name."""
    save(small_cnn(SEED), folder)
    rng = np.random.default_rng(SEED)
    x, y = rng.integers(0, 256, (12, 8, 8, 2), np.uint8), rng.integers(0, 5, 12)
    np.savez(folder / "images.npz", x=x, y=y)
    np.savez(folder / "others.npz", x=x[6:], y=y[6:])
    sizes = np.array(x.shape, ">u4").tobytes()
    (folder / "images.idx").write_bytes(b"\0\0\x08\x04" + sizes + x.tobytes())
    (folder / "board").mkdir()
    labels = np.array(len(y), ">u4").tobytes()
    (folder / "marks.idx").write_bytes(b"\0\0\x08\x01" + labels + y.astype(np.uint8).tobytes())
    (folder / "sweep.toml").write_text("", encoding="utf-8")
    (folder / "pixels.toml").write_text("mean = [0.4]\n", encoding="utf-8")
    workflow.compress(folder / "net.onnx", folder / "images.npz", folder / "done", scheme="prap")
    shutil.copyfile(folder / "done" / "program.prap", folder / "board" / "program.prap")
    ideal = (DEVICES / "ideal.toml").read_text(encoding="utf-8")
    few = ideal.replace("[stuck_on]\nvalue = 0.0", "[stuck_on]\nvalue = 0.1")
    (folder / "mine.toml").write_text(few, encoding="utf-8")
    workflow.adc_ranges(folder / "done", folder / "images.npz", folder / "ranges.json", bits=1)
    found = workflow.evaluate(folder / "done", folder / "images.npz", limit=4)
    (folder / "accuracy.json").write_text(json.dumps(found), encoding="utf-8")
    counts = {"values": 3, "expected": 3, "different": 1}
    simulated = {"compared": {"outputs": counts}, "layers": [], "differences": ["x"]}
    (folder / "cosim.json").write_text(json.dumps(simulated), encoding="utf-8")
    (folder / "golden").mkdir()
    (folder / "golden" / "index.json").write_text('{"cases": []}', encoding="utf-8")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "files-of-every-verb", make)


class AskedError(Exception):
    """What is long was asked for."""


LONG: tuple[tuple[Any, str], ...] = (
    (demo, "run_demo"),
    (finetuning, "finetune"),
    (compare_folder, "write_folder"),
    (results, "sweep"),
    (compression, "choose"),
    (simulation, "simulate_network"),
    (simulation, "simulate_sample"),
    (workflow, "area"),
    (workflow, "deliver"),
    (workflow, "fpga"),
    (workflow, "write_verilog"),
)
"""Functions that take long: what they are called with is seen in place of what they do."""


@pytest.fixture
def seen(
    prap: Prap, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Run a command in a new folder with these files: all that can be seen of what it did."""
    asked: list[Any] = []

    def instead(name: str) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            named.pop("report", None)
            asked.append((name, _text(arguments), _text(named)))
            raise AskedError

        return called

    def compared(*arguments: Any, **named: Any) -> Any:
        named.pop("report", None)
        asked.append((_text(arguments), _text(named)))

    def ran(*arguments: Any, **named: Any) -> Any:
        compared(*arguments, **named)
        count = len(arguments[1])
        figures: dict[str, Any] = dict.fromkeys(("outputs", "cycles", "predictions"), [[]] * count)
        return figures | {"cycles": [0] * count, "seconds": 1, "load_seconds": 1, "faults": []}

    def simulate(job: Any, predictions: Any) -> Any:
        compared(job)
        return simulated(job.program, job.codes, job.config, predictions)

    def each(*arguments: Any, **named: Any) -> Any:
        compared(*arguments, **named)
        return [None]

    monkeypatch.setattr(measure, "compare_each", each)
    monkeypatch.setattr(simulation, "simulate", simulate)
    monkeypatch.setattr(workflow, "board", ran)
    for place, name in LONG:
        monkeypatch.setattr(place, name, instead(name))
    monkeypatch.setattr(finetuning, "require_torch", lambda: None)

    def run(number: int, verb: str, words: str) -> tuple[int, Any]:
        asked.clear()
        folder = tmp_path / str(number)
        shutil.copytree(files, folder)
        monkeypatch.chdir(folder)
        before = {path for path in folder.rglob("*") if path.is_file()}
        given = [word.strip("'") for word in words.split()]
        code, out, err = prap(verb, *given)
        new = sorted({path for path in folder.rglob("*") if path.is_file()} - before)
        contents = {path.relative_to(folder).as_posix(): _digest(path) for path in new}
        if asked:  # the exception that ended it is ours
            code, err = 0, ""
        return code, (out, re.sub(r"\d+\.\d s", "", err), contents, tuple(asked))

    return run


def _text(values: object) -> str:
    """The values without the addresses of functions and objects, which are never the same."""
    return re.sub(r"0x[0-9a-f]{6,}", "", repr(values))


def _digest(path: Path) -> str:
    text = re.sub(rb"\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d", b"", path.read_bytes())
    return hashlib.sha256(text).hexdigest()


_seen: dict[tuple[str, str], Any] = {}
"""What commands without an option did, by verb and words."""


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        pytest.param(*each, marks=[pytest.mark.long] * (each[0] in ("report", "finetune")))
        for each in options()
    ],
)
def test_every_option_changes_something_or_is_refused(
    verb: str, option: str, seen: Callable[..., Any]
) -> None:
    if verb == "finetune":
        pytest.importorskip("torch", reason=TORCH)
    base = base_of(verb).replace(*INSTEAD.get((verb, option), ("", "")))
    value = VALUES[verb][option]
    if f"{option} " in f"{base} ":
        words = re.sub(rf"{option} \S+", f"{option} {value}", base)
    elif option == "--out" and " -o " in f" {base}":
        words = re.sub(r"-o \S+", f"-o {value}", base)
    else:
        words = f"{base} {option} {value}"
    if (verb, option) in REFUSED:
        code, (_, err, contents, _) = seen(0, verb, words)
        assert (code, contents) == (2, {})
        assert REFUSED[verb, option] in err
        return
    if (verb, option) in NEEDS:
        code, (_, err, contents, _) = seen(0, verb, words)
        assert (code, contents) == (2, {}), "it says nothing alone, and was not refused"
        assert "expected" in err
        assert option.lstrip("-") in err.replace("_", "-")
        base, words = f"{base} {NEEDS[verb, option]}", f"{words} {NEEDS[verb, option]}"
    if (verb, option) in SAME:
        assert seen(1, verb, base) == seen(2, verb, words)
        return
    if (verb, base) not in _seen:
        _seen[verb, base] = seen(1, verb, base)
    without, found = _seen[verb, base], seen(2, verb, words)
    assert found[0] in (0, 1), found
    assert found != without, "it was ignored in silence"


@pytest.mark.parametrize("verb", BASES)
def test_debug_and_json_of_every_verb(verb: str, seen: Callable[..., Any]) -> None:
    names = {parameter.opts[0] for parameter in commands()[verb].params}
    assert "--debug" in names
    if "--json" in names and verb in ("inspect", "evaluate", "price", "headline", "golden"):
        code, (_, _, contents, _) = seen(0, verb, f"{BASES[verb]} --json figures.json")
        assert code == 0
        assert "figures.json" in contents


def test_a_temperature_without_a_teacher_is_refused(seen: Callable[..., Any]) -> None:
    pytest.importorskip("torch", reason=TORCH)
    words = f"{BASES['finetune']} --method published --temperature 4"
    code, (_, err, _, asked) = seen(0, "finetune", words)
    assert (code, asked) == (2, ())
    assert "expected --teacher above 0 with --temperature, found none" in err
    assert seen(1, "finetune", f"{words} --teacher 0.5")[0] == 0


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(each, marks=[pytest.mark.long] * (each in ("report", "finetune")))
        for each in BASES
    ],
)
def test_a_command_without_an_option_succeeds_and_does_the_same_twice(
    verb: str, seen: Callable[..., Any]
) -> None:
    if verb == "finetune":
        pytest.importorskip("torch", reason=TORCH)
    first = seen(1, verb, base_of(verb))
    assert first[0] == 0, first
    assert seen(2, verb, base_of(verb)) == first
