"""Runs the tests against one mutant, in a copy of the tree."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.mutation.mutants import Edit

Outcome = Literal["killed", "survived", "no change", "no hardware"]

COPIED = ("refmodel", "prap_hw", "sim", "tests", "examples", "pyproject.toml", "README.md")
"""What the tests need of the tree."""

SHELL = ("tests/prap_hw/engine", "tests/prap_hw/tile", "tests/prap_hw/accelerator")
"""Tests of what the hardware of an engine is in."""

TOGETHER = (
    *SHELL,
    "tests/prap_hw/shell",
    "tests/sim/test_cosim.py",
    "tests/sim/test_network_sim.py",
)
"""Tests of the whole hardware but the boards."""

STEMS = {"host_shell": "shell", "members": "boards", "top": "boards", "uart": "serial_line"}
"""Tests of modules whose files have another name than the module."""

LONGEST = 3600.0
"""Seconds that tests may take without a mutant."""

TIMES, MORE = 4.0, 120.0
"""With one they may take so many times as long and so many seconds more; then they hang, which is
noticed as a failure is."""


@dataclass(frozen=True)
class Verdict:
    """What the tests said of a mutant.

    Attributes
    ----------
    outcome
        ``killed``; ``survived`` where all tests pass; ``no change`` where the emitted Verilog is
        that of the original; ``no hardware`` where there is none, which any test would notice and
        which does not count.
    by
        The test that failed, or what else ended it.
    seconds
        How long the tests ran.
    """

    outcome: Outcome
    by: str
    seconds: float


def stages(edit: Edit, root: Path) -> list[tuple[str, ...]]:
    """Return the tests that see a mutant, nearest first: component, its package, all hardware."""
    package, stem = Path(edit.path).parts[1], Path(edit.path).stem
    folder = f"tests/prap_hw/{package}"
    near = sorted(
        path.relative_to(root).as_posix()
        for path in (root / folder).glob(f"test_{STEMS.get(stem, stem)}*.py")
    )
    found = [tuple(near)] if near else []
    found.append((folder,))
    if package != "board":
        found.append(TOGETHER)
    return found


class Tree:
    """A copy of the tree, in which mutants take turns.

    Parameters
    ----------
    root
        The tree.
    folder
        Where the copy is made; what is there is replaced.
    """

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root, folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in COPIED:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / name)
        (folder / "build").mkdir()
        (root / "build" / "cache").mkdir(parents=True, exist_ok=True)
        (folder / "build" / "cache").symlink_to(root / "build" / "cache")
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "CI"},
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PRAP_SHARED": os.environ.get("PRAP_SHARED", str(root.parent / "shared")),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self.plain: dict[str, str] = {}
        self.passing: dict[tuple[str, ...], float] = {}
        self.process: subprocess.Popen[str] | None = None

    def stop(self) -> None:
        """End what runs in the tree."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    @contextlib.contextmanager
    def planted(self, edit: Edit) -> Iterator[None]:
        """The tree with a mutant in it."""
        path = self.folder / edit.path
        text = path.read_text(encoding="utf-8")
        path.write_text(edit.apply(text), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(text, encoding="utf-8")

    def run(self, *command: str, seconds: float = LONGEST) -> tuple[int | None, str]:
        """Run a command of Python in the tree: exit code, None where it hung, and what it said."""
        self.process = process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            said, _ = process.communicate()
            return None, said
        return process.returncode, said

    def emitted(self, edit: Edit) -> str | None:
        """Digest of the Verilog that shows an edit's file; None where there is none."""
        what = "board" if Path(edit.path).parts[1] == "board" else "shell"
        code, said = self.run("-m", "tests.mutation.emitted", what)
        return said.strip().splitlines()[-1] if code == 0 else None

    def judge(self, edit: Edit) -> Verdict:
        """Try a mutant."""
        what = Path(edit.path).parts[1]
        if what not in self.plain:
            plain = self.emitted(edit)
            if plain is None:
                raise RuntimeError(f"no Verilog is made without a mutant: {what}")
            self.plain[what] = plain
        seconds = 0.0
        for tests in stages(edit, self.folder):
            most = TIMES * self.check(tests) + MORE
            began = time.monotonic()
            with self.planted(edit):
                code, said = self.test(tests, most)
                seconds += time.monotonic() - began
                if code == 0:
                    continue
                outcome: Outcome = "killed"
                # Whatever cannot be elaborated is no mutant of the hardware.
                if code is not None and "Error" in said and self.emitted(edit) is None:
                    outcome = "no hardware"
            by = "more than the time a stage may take" if code is None else _first(said)
            return Verdict(outcome, by, seconds)
        with self.planted(edit):
            same = self.emitted(edit) == self.plain[what]
        return Verdict("no change" if same else "survived", "", seconds)

    def check(self, tests: tuple[str, ...]) -> float:
        """Run some tests without a mutant, once: seconds; a RuntimeError where they fail."""
        if tests not in self.passing:
            began = time.monotonic()
            code, said = self.test(tests)
            if code != 0:
                raise RuntimeError(f"tests fail without a mutant: {_first(said)}")
            self.passing[tests] = time.monotonic() - began
        return self.passing[tests]

    def test(self, tests: tuple[str, ...], seconds: float = LONGEST) -> tuple[int | None, str]:
        """Run some tests up to the first that fails."""
        options = ("-x", "-q", "-p", "no:cacheprovider", "-p", "tests.mutation.plugin")
        code, said = self.run("-m", "pytest", *options, "-m", "not long", *tests, seconds=seconds)
        return (0 if code == 5 else code), said


def _first(said: str) -> str:
    """The line of pytest that names the first failure."""
    for line in said.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.partition(" ")[2].partition(" - ")[0]
    return "a run that ended"
