"""Simulate the host shell: build it, and run a cocotb bench on it."""

import json
import subprocess
import sys
from pathlib import Path

from prap_hw.verilog import SHELL, shell_verilog
from refmodel.config import EngineConfig
from sim import verilator

RANDOM_MEMORIES = ("+verilator+rand+reset+2", "+verilator+seed+2023")
"""What a simulation is started with: memories hold anything at first."""


def build(config: EngineConfig, *, cache: Path | str = verilator.CACHE) -> Path:
    """Build a simulation of an engine in its shell within ``sim/bench_shell.sv``."""
    text = shell_verilog(config)
    return verilator.build(text, SHELL[False], widths={}, bench="bench_shell.sv", cache=cache)


def run(model: Path, folder: Path, module: str) -> None:
    """Run the cocotb tests of a module, which finds its job in the folder ``PRAP_JOB``.

    Raises
    ------
    RuntimeError
        The simulation could not run; failed tests are in ``results.xml`` of the folder.
    """
    settings = {
        "model": str(model),
        "folder": str(folder),
        "module": module,
        "plusargs": RANDOM_MEMORIES,
    }
    subprocess.run(
        [sys.executable, "-m", "sim.worker", json.dumps(settings)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if not (folder / "results.xml").exists():
        log = folder / "simulation.log"
        tail = log.read_text(errors="replace").splitlines()[-25:] if log.exists() else []
        raise RuntimeError("\n".join(["the simulation ended by itself", *tail]))
