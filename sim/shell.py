"""Simulate the host shell: build it, and run a cocotb bench on it."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from prap_hw.verilog import SHELL, shell_verilog
from refmodel.config import EngineConfig
from sim import verilator


def build(config: EngineConfig, *, cache: Path | str = verilator.CACHE) -> Path:
    """Build a simulation of an engine in its shell within ``sim/bench_shell.sv``."""
    text = shell_verilog(config)
    return verilator.build(text, SHELL[False], widths={}, bench="bench_shell.sv", cache=cache)


def run(model: Path, folder: Path, module: str) -> dict[str, str | None]:
    """Run the cocotb tests of a module, which finds its job in the folder ``PRAP_JOB``.

    Parameters
    ----------
    model
        What :func:`build` made.
    folder
        Where the job is, and where logs and results go.
    module
        An importable module.

    Returns
    -------
    To each test None, or what was wrong.

    Raises
    ------
    RuntimeError
        The simulation could not run.
    """
    settings = {
        "model": str(model),
        "folder": str(folder),
        "module": module,
        "plusargs": verilator.RANDOM_MEMORIES,
    }
    log, results = folder / "simulation.log", folder / "results.xml"
    results.unlink(missing_ok=True)
    with (folder / "worker.log").open("wb") as said:
        subprocess.run(
            [sys.executable, "-m", "sim.worker", json.dumps(settings)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            check=False,
        )
    if not results.exists():
        tail = log.read_text(errors="replace").splitlines()[-25:] if log.exists() else []
        raise RuntimeError("\n".join([f"the simulation ended by itself, see {log}", *tail]))
    found: dict[str, str | None] = {}
    for case in ElementTree.parse(results).iter("testcase"):
        wrong = [child for child in case if child.tag in ("failure", "error", "skipped")]
        found[case.get("name", "")] = "".join(wrong[0].itertext()) or "failed" if wrong else None
    return found
