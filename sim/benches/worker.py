"""Run one simulation: what :mod:`sim.simulator` starts as a process of its own.

A process with a session of its own can be ended together with the simulator in it, whoever is
interrupted; and cocotb's runner, which ends by SystemExit, ends nothing else.
"""

import json
import sys
from pathlib import Path

from cocotb_tools.runner import get_runner

from sim.builds import verilator


def main() -> None:
    """Read the settings from the JSON in the first argument and run the test."""
    settings = json.loads(sys.argv[1])
    folder = Path(settings["folder"])
    get_runner("verilator").test(
        test_module=settings.get("module", "sim.benches.engine"),
        hdl_toplevel=verilator.BENCH,
        hdl_toplevel_lang="verilog",
        build_dir=settings["model"],
        test_dir=folder,
        results_xml=str(folder / "results.xml"),
        extra_env={"PRAP_JOB": str(folder), "COCOTB_LOG_LEVEL": "WARNING"},
        plusargs=[f"+record={folder}", *settings["plusargs"]],
        log_file=folder / "simulation.log",
        test_filter=settings.get("tests"),
    )


if __name__ == "__main__":
    main()
