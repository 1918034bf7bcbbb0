"""Commands that the pages give, read from them and checked by the parsers that will read them."""

import argparse
import functools
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from prap_hw.app.cli import program
from refmodel.errors import InputError
from tests.support import ROOT

PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
)

FOREIGN = {
    "gtkwave": "a viewer, which waits for a person",
    "openFPGALoader": "needs a board",
    "fusesoc": "FuseSoC is no dependency; a test of the delivery reads the core file",
    "apt": "packages of the system",
    "cd": "goes with the command behind it",
}
"""Programs that are not ours, and why their commands are not run."""

PROGRAMS = ("prap", "python", "make", "pip", *FOREIGN)

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`((?:prap|make|python)\s[^`]+)`(?!`)")
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
VARIABLE = re.compile(r"\$\((?:if \$\()?([A-Z_]+)\)|^([A-Z_]+) \??:?=", re.MULTILINE)
PLACEHOLDER = re.compile(r"[A-Z][A-Z.]*(\.\w+)?|\.\.\.|…")
"""Words that stand for something else: N, DIR, FILE.npz."""


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes
    ----------
    line
        Where it begins.
    words
        Its words, the name of the program first, without its folder.
    whole
        Whether it stands in a block, and can be run; else it is mentioned in a sentence.
    """

    line: int
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return shlex.join(self.words)


def commands(text: str) -> Iterator[Command]:
    """Give the commands of a page: lines of its blocks, and those that sentences mention."""
    fences = list(FENCED.finditer(text))
    for fence in fences:
        if fence[1] in ("", "sh", "console"):
            yield from _block(text, fence.start(2), fence[2], every=fence[1] != "")
    prose = FENCED.sub(lambda fence: "\n" * fence[0].count("\n"), text)
    lines = prose.splitlines(keepends=True)
    place = 0
    while place < len(lines):
        block = []
        while place < len(lines) and re.match(r" {4}\S| {6,}\S", lines[place]):
            block.append(lines[place])
            place += 1
        if block:
            yield from _lines(place - len(block) + 1, block, every=False)
        place += 1
    for found in INLINE.finditer(prose):
        joined = " ".join(found[1].split())
        yield Command(prose[: found.start()].count("\n") + 1, tuple(shlex.split(joined)), False)


def _block(text: str, start: int, block: str, *, every: bool) -> Iterator[Command]:
    return _lines(text[:start].count("\n") + 1, block.splitlines(), every=every)


def _lines(first: int, lines: list[str], *, every: bool) -> Iterator[Command]:
    joined = ""
    for number, line in enumerate(lines, first):
        joined += line.strip()
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        for part in re.split(r" && |; (?=prap )", joined.removeprefix("$ ")):
            words = _words(part, every=every)
            if words:
                yield Command(number, words, True)
        joined = ""


def _words(text: str, *, every: bool) -> tuple[str, ...]:
    """Words of a line that begins with one of the programs; none of another line."""
    word = text.split(" ", 1)[0]
    first = word.replace("$prap", "prap").rpartition("/")[2]
    if first not in PROGRAMS or "=" in word:
        assert not every or not text or "=" in word, f"a program that no test knows: {text}"
        return ()
    return (first, *shlex.split(text, comments=True)[1:])


def check(command: Command) -> str:
    """Read a command with the parser of its program.

    Returns
    -------
    str
        What is wrong with it; empty where nothing is.
    """
    name, words = command.words[0], list(command.words[1:])
    try:
        if name == "prap":
            return _check_prap(words, whole=command.whole)
        if name == "make":
            return _check_make(words)
        if name == "pip":
            return _check_pip(words)
        if name == "python":
            return _check_python(words, whole=command.whole)
    except TyperException as problem:
        return problem.format_message()
    except InputError as problem:
        return str(problem)
    return ""


@functools.cache
def _verbs() -> Any:
    """The verbs of ``prap`` by name."""
    group: Any = typer.main.get_command(program.app)
    return group.commands


def read_verb(words: list[str]) -> Any:
    """Read a command of ``prap`` without running it: the context of its verb."""
    return _verbs()[words[0]].make_context(words[0], list(words[1:]))


def _check_prap(words: list[str], *, whole: bool) -> str:
    if words[0].startswith(("-", "(")) or PLACEHOLDER.fullmatch(words[0]):
        return ""
    if words[0] not in _verbs():
        return f"no verb {words[0]}"
    if whole:
        read_verb(words)
        return ""
    # A command in a sentence leaves out what is not its subject, and has N for a number.
    verb = _verbs()[words[0]]
    context = verb.make_context(words[0], [], resilient_parsing=True)
    context.resilient_parsing = False
    if any(word.startswith("--") for word in words[-1:]):
        option = words[-1]
        known = {each: each for parameter in verb.params for each in parameter.opts}
        if option != "--help" and option not in known:
            return f"no option {option} of {words[0]}"
        words = words[:-1]
    given, _, _ = verb.make_parser(context).parse_args(args=words[1:])
    for parameter in verb.params:
        value = given.get(parameter.name)
        texts = value if isinstance(value, list) else [value]
        if texts and all(
            isinstance(each, str) and not PLACEHOLDER.fullmatch(each) for each in texts
        ):
            parameter.process_value(context, value)
    return ""


def _check_make(words: list[str]) -> str:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    variables = {name for pair in VARIABLE.findall(text) for name in pair if name}
    for word in words:
        variable, equals, _ = word.partition("=")
        if equals and variable not in variables:
            return f"no variable of make: {variable}"
        if not equals and word not in TARGET.findall(text) and not PLACEHOLDER.fullmatch(word):
            return f"no target of make: {word}"
    return ""


def _check_pip(words: list[str]) -> str:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    known = tomllib.loads(text)["project"]["optional-dependencies"]
    asked = ",".join(re.findall(r"\[([\w,]+)\]", " ".join(words)))
    missing = [extra for extra in asked.split(",") if extra and extra not in known]
    return f"no extra {missing[0]}" if missing else ""


class _ParsedError(Exception):
    """The arguments of a program were read."""


def _check_python(words: list[str], *, whole: bool) -> str:
    """Run a program up to where its parser has read the arguments."""
    module = words[0] == "-m"
    place = words[1] if module else words[0]
    rest = words[2:] if module else words[1:]
    if module and place == "pytest":
        missing = [word for word in rest if "/" in word and not (ROOT / word).exists()]
        return f"no file {missing[0]}" if missing else ""
    source = ROOT.joinpath(*place.split(".")) if module else ROOT / place
    files = (source, source / "__main__.py", source.with_suffix(".py"))
    file = next((each for each in files if each.is_file()), None)
    if file is None:
        return f"no program {place}"
    text = file.read_text(encoding="utf-8")
    if not whole:
        return ""
    if "argparse" not in text and "typer.run" not in text:
        return f"arguments that {place} does not take: {shlex.join(rest)}" if rest else ""
    said: list[str] = []
    read = argparse.ArgumentParser.parse_args

    def parse_args(self: Any, args: Any = None, namespace: Any = None) -> Any:
        read(self, args, namespace)
        raise _ParsedError

    def error(self: Any, message: str) -> Any:
        said.append(message)
        raise _ParsedError

    def run(function: Any) -> None:
        app = typer.Typer(add_completion=False)
        app.command()(function)
        typer.main.get_command(app).make_context(place, rest)
        raise _ParsedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(file), *rest])
        if not module:
            patch.setattr(sys, "path", [str(file.parent), *sys.path])
        patch.setattr(typer, "run", run)
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(argparse.ArgumentParser, "error", error)
        try:
            runpy.run_path(str(file), run_name="__main__")
        except _ParsedError:
            pass
        except ModuleNotFoundError as problem:
            if problem.name != "torch":  # which `make test TRAIN=0` does without
                raise
    return said[0] if said else ""


def in_help() -> Iterator[Command]:
    """The examples of ``prap VERB --help``."""
    for verb in program.VERBS:
        lines = [line for line in verb.epilog.splitlines() if line.startswith("prap ")]
        yield from _lines(1, lines, every=True)


def relative(page: Path) -> str:
    """The name of a page."""
    return page.relative_to(ROOT).as_posix()
