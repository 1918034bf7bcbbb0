"""Simulate the host shell: build it, and run a cocotb bench on it."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

from prap_hw.deliver.verilog import (
    ACCELERATOR_SHELL,
    SHELL,
    accelerator_shell_verilog,
    shell_verilog,
)
from refmodel.config import EngineConfig
from sim.builds import memories, verilator
from sim.kept import CACHE


def build(
    config: EngineConfig,
    commands: int = 0,
    engines: int = 1,
    *,
    cache: Path | str = CACHE,
) -> Path:
    """Build a simulation of a core in its shell within ``sim/benches/shell.sv``.

    Parameters
    ----------
    config
        Sizes of each engine, without trace.
    commands
        Words of an accelerator's list; 0 for an engine by itself.
    engines
        Engines of the accelerator.
    """
    if commands:
        text, top = accelerator_shell_verilog(config, commands, engines), ACCELERATOR_SHELL[False]
    else:
        text, top = shell_verilog(config), SHELL[False]
    return verilator.build(text, top, widths={}, bench="shell.sv", cache=cache)


def build_with_faults(
    config: EngineConfig, *, open_port: bool = False, cache: Path | str = CACHE
) -> tuple[Path, list[memories.Memory]]:
    """Build a simulation of an engine in its shell in which something can break.

    Parameters
    ----------
    config
        Sizes, without trace.
    open_port
        Whether there is a crossbar port, which never answers.

    Returns
    -------
    The model that :func:`run` takes; the memories of the program, which a bench can write.
    """
    text = shell_verilog(config, open_port=open_port)
    found = memories.program_memories(text)
    model = verilator.build(
        text,
        SHELL[open_port],
        widths={},
        open_port=open_port,
        bench="shell.sv",
        directives=memories.public(found),
        cache=cache,
    )
    return model, found


def run(
    model: Path, folder: Path, module: str, tests: Iterable[str] | None = None
) -> dict[str, str | None]:
    """Run the cocotb tests of a module, which finds its job in the folder ``PRAP_JOB``.

    Parameters
    ----------
    model
        A model that :func:`build` made.
    folder
        Where the job is, and where logs and results go.
    module
        An importable module.
    tests
        Names of those to run; None: all.

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
    if tests is not None:
        names = "|".join(re.escape(name) for name in tests)
        settings["tests"] = rf"\.({names})$"
    log, results = folder / "simulation.log", folder / "results.xml"
    results.unlink(missing_ok=True)
    with (folder / "worker.log").open("wb") as said:
        subprocess.run(
            [sys.executable, "-m", "sim.benches.worker", json.dumps(settings)],
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
