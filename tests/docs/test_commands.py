"""Every command of the pages, and of the examples in the help, is read by its parser, and runs.

Those that take long run with ``make test-long``; those that never run have their reason here.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.exceptions import Exit

import refmodel
from prap_hw.app.cli import program
from prap_hw.app.sweep.spec import read_spec
from prap_hw.app.workflow import simulation
from tests.support import ROOT, commands, pages, stand_ins
from tests.support.commands import FOREIGN, PAGES, Command, relative
from tests.support.once import once

SLOW = {
    "compare": "compresses under many schemes and budgets",
    "effects": "evaluates as many times as there are chips and effects",
    "finetune": "trains",
    "sweep": "works out many points",
    "verilog": "writes the whole delivery",
}
"""Verbs whose commands run with ``make test-long``."""

ELSEWHERE = {
    "area": "synthesises for minutes: tests/prap_hw/deliver",
    "board": "needs a board, or a simulator of one: tests/prap_hw/board",
    "demo": "builds a simulator: tests/prap_hw/app, and `make demo`",
    "fpga": "places and routes for minutes: tests/prap_hw/board",
}
"""Verbs whose commands are read and not run, with the reason."""

NEVER = {
    "prap sweep sweep.toml -o build/sweep --scheduler tcp://node7:8786": "nobody's cluster",
    "prap golden ../shared/golden": "tests/prap_hw/app/cli/test_verbs.py runs it on cases",
}
"""Commands of ``prap`` that do not run here, with the reason."""

PROGRAMS = FOREIGN | {
    "make": "targets are those of the Makefile, which runs these tests",
    "pip": "tests/packaging installs the wheel with its extras",
    "python": "examples and benchmarks have tests of their own, or take minutes to hours",
}
"""Programs whose commands are read and not run, with the reason."""

NOT_YET = {
    "prap compress net.onnx --calibration train.npz --scheme every --set conv3=step=4 -o build/net"
}
"""Commands that work once a reader has done what the page says."""

FEWER = {"--budget": "1.5", "--workers": "2"}
"""Values that the small stand-in has, in place of those of a real network."""

HELP = "the help"


def commands_of(page: Path | str) -> list[Command]:
    """The commands of a page, or of the help."""
    if isinstance(page, str):
        return list(commands.in_help())
    return list(commands.commands(page.read_text(encoding="utf-8")))


def name_of(page: Path | str) -> str:
    return page if isinstance(page, str) else relative(page)


def wrong(page: Path | str) -> list[str]:
    """What is wrong with the commands of a page, with their lines."""
    found = [(each, commands.check(each)) for each in commands_of(page) if str(each) not in NOT_YET]
    return [f"line {each.line}: {each}: {problem}" for each, problem in found if problem]


TORCH = ROOT / "examples" / "digits" / "README.md"
"""The page with a program that loads PyTorch before it reads its arguments."""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.long] * (page == TORCH)) for page in (*PAGES, HELP)],
    ids=name_of,
)
def test_every_command_is_one_that_its_program_takes(page: Path | str) -> None:
    assert wrong(page) == []


def test_commands_are_found_in_blocks_and_sentences() -> None:
    found = [str(each) for page in PAGES for each in commands_of(page)]
    assert len(found) > 150
    assert sum(each.startswith("prap ") for each in found) > 70
    text = (
        "`prap\ncosim x`\n\n    $prap inspect a \\\n        --adcs 4   # more\n    no = command\n"
    )
    text += "```\nprap price b; prap price c\n```\n```text\nprap price d\n```\n"
    read = [(each.line, str(each), each.whole) for each in commands.commands(text)]
    assert read == [
        (8, "prap price b", True),
        (8, "prap price c", True),
        (5, "prap inspect a --adcs 4", True),
        (1, "prap cosim x", False),
    ]


MUTANTS = {
    "    prap compress net.onnx --calibraton x.npz -o o": "--calibraton",
    "    prap compress net.onnx --calibration x.npz": "--out",
    "    prap cosim d --images x.npz --tier fast": "'--tier'",
    "    prap cosim d --images x.npz --count few": "'--count': Input should be a valid integer",
    "    prap cosim d --images x.npz --images y.npz": "--images once",
    "    prap mend d": "no verb mend",
    "see `prap finetune --device wan-2022`": "--device",
    "see `prap finetune --device`": "no option --device of finetune",
    "see `prap price DIR --engines many`": "'--engines': Input should be a valid integer",
    "    make everything": "no target of make: everything",
    "    make bench JOB=x": "no variable of make: JOB",
    "    pip install '.[everything]'": "no extra everything",
    "    python examples/resnet/export.py x.th": "the following arguments are required",
    "    python examples/resnet/export.py x.th -o y --fused": "unrecognized arguments: --fused",
    "    python examples/resnet/schemes.py x.onnx --calibration y": "--images",
    "    python examples/driver/layers.py x": "arguments that examples/driver/layers.py does not",
    "    python examples/nothing.py": "no program examples/nothing.py",
    "    python -m tests.campaign --engine 4 --layer x": "--layer",
    "    .venv/bin/python -m pytest tests/nothing.py": "no file tests/nothing.py",
}
"""Commands that no program takes, and what is said of them."""


@pytest.mark.parametrize("text", MUTANTS)
def test_a_command_that_no_program_takes_is_found(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    (problem,) = wrong(page)
    assert MUTANTS[text] in problem


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, images for it, and what ``prap compress`` makes of them."""
    return once(tmp_path_factory, "stand-ins", stand_ins.make)


def runnable(page: Path | str, *, slow: bool) -> list[Command]:
    """Commands of a page that run; the slow ones, or the others."""
    return [
        each
        for each in commands_of(page)
        if each.whole
        and each.words[0] == "prap"
        and str(each) not in NEVER
        and each.words[1] not in ELSEWHERE
        and (each.words[1] in SLOW) == slow
    ]


def test_every_command_runs_or_has_its_reason() -> None:
    whole = [each for page in (*PAGES, HELP) for each in commands_of(page) if each.whole]
    rest = [each for each in whole if each.words[0] != "prap"]
    assert {each.words[0] for each in rest} <= set(PROGRAMS)
    assert set(NEVER) <= {str(each) for each in whole}
    every = [each for page in (*PAGES, HELP) for each in commands_of(page)]
    not_yet = [each for each in every if str(each) in NOT_YET]
    assert {str(each) for each in not_yet if commands.check(each)} == NOT_YET
    assert len(whole) - len(rest) > 60


def specification(given: Path, path: Path, *, fewer: bool = False) -> None:
    """Write the specification of a sweep that the page on sweeps shows, and what it names.

    With ``fewer`` each list of numbers has its first alone.
    """
    text = (ROOT / "docs/sweeps.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    if fewer:
        shown = re.sub(r"\[([\d.]+)(?:, [\d.]+)+\]", r"[\1]", shown).replace(
            "trials = 3", "trials = 1"
        )
    path.write_text(shown, encoding="utf-8")
    stand_ins.network_and_images(given, path.parent)


def test_the_sweep_of_the_page_is_read(given: Path, tmp_path: Path) -> None:
    specification(given, tmp_path / "sweep.toml")
    read_spec(tmp_path / "sweep.toml")


def run(page: Path | str, given: Path, *, slow: bool) -> None:
    """Run the commands of a page in this folder, in their order."""
    for each in runnable(page, slow=slow):
        words = list(each.words[1:])
        for option in FEWER.keys() & set(words):
            words[words.index(option) + 1] = FEWER[option]
        stand_ins.provide(given, commands.read_verb(words).params, words[0])
        if words[0] == "sweep":
            specification(given, Path(words[1]), fewer=True)
        assert program.run(words) == 0, f"{name_of(page)}, line {each.line}: {each}"


@pytest.mark.parametrize(
    "page", [page for page in (*PAGES, HELP) if runnable(page, slow=False)], ids=name_of
)
def test_commands_run_on_files_of_these_names(
    page: Path | str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran(*_: object, **__: object) -> None:
        raise Exit(0)

    # A co-simulation gets as far as the simulator, which other tests run.
    for name in ("simulate", "simulate_network", "simulate_sample"):
        monkeypatch.setattr(simulation, name, ran)
    monkeypatch.chdir(tmp_path)
    run(page, given, slow=False)


@pytest.mark.long
@pytest.mark.parametrize(
    "page", [page for page in (*PAGES, HELP) if runnable(page, slow=True)], ids=name_of
)
def test_slow_commands_run_on_files_of_these_names(
    page: Path | str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(page, given, slow=True)


BLOCKS = {
    "README.md": "cheap",
    "docs/accelerator.md": "cheap",
    "docs/fpga.md": "cheap",
    "docs/schemes.md": "cheap",
    "docs/cli.md": "slow",
    "docs/finetuning.md": "slow",
    "docs/tile.md": "slow",
    "docs/integration.md": "examples/driver/run.py is the same with a transport that is there",
    "docs/costs.md": "tests/docs/test_costs_page.py",
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
    "docs/howto/add-a-device-effect.md": "tests/docs/test_howto_device_effect.py",
    "docs/howto/add-a-scheme.md": "tests/docs/test_howto_scheme.py",
    "docs/howto/add-a-step.md": "tests/docs/test_howto_step.py",
    "docs/howto/add-a-technology.md": "tests/docs/test_howto_technology.py",
    "docs/howto/add-an-operator.md": "tests/docs/test_howto_operator.py",
}
"""Pages with blocks of Python: run here, with ``make test-long``, or where they run instead."""


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_every_page_with_python_runs_or_has_its_reason() -> None:
    assert {relative(page) for page in PAGES if blocks_of(page)} == set(BLOCKS)
    named = [how for how in BLOCKS.values() if how.startswith("tests/")]
    assert [name for name in named if not (ROOT / name).is_file()] == []


def run_blocks(name: str, given: Path) -> None:
    """Run the blocks of a page on stand-ins for the files and names that it takes as given."""
    stand_ins.network_and_images(given, Path())
    for folder in ("net", "fused"):
        stand_ins.copy(given / "done", Path("build", folder))
    names: dict[str, Any] = {"network": refmodel.load("net.onnx")}
    names["x"], names["y"] = refmodel.load_images("train.npz")
    page = ROOT / name
    for code in blocks_of(page):
        pages.run(code, names, page)


@pytest.mark.parametrize("name", [name for name, how in BLOCKS.items() if how == "cheap"])
def test_python_of_a_page_runs(
    name: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(name, given)


@pytest.mark.long
@pytest.mark.cosim
@pytest.mark.parametrize("name", [name for name, how in BLOCKS.items() if how == "slow"])
def test_slow_python_of_a_page_runs(
    name: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(name, given)
