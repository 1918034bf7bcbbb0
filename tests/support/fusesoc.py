"""FuseSoC on a delivered folder, with nothing of the user's read or written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sim.builds import verilator


def fusesoc(folder: Path, target: str, work: Path) -> subprocess.CompletedProcess[str]:
    """Run a target of the delivered core with the Verilator of this Python."""
    found = verilator.find()
    program = shutil.which("fusesoc", path=str(Path(sys.executable).parent))
    assert program is not None, "fusesoc is not beside this Python: make setup"
    path = [str(found.program.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | dict(found.environment) | {
        "PATH": os.pathsep.join(path),
        # FuseSoC reads and writes what is its user's: none of it here.
        "HOME": str(work),
        "XDG_CONFIG_HOME": str(work / "config"),
        "XDG_CACHE_HOME": str(work / "cache"),
        "XDG_DATA_HOME": str(work / "data"),
    }  # fmt: skip
    return subprocess.run(
        [program, "--cores-root", str(folder), "run", "--work-root", str(work / "run"),
         "--target", target, "prap-pim:ip:prap_pim"],
        cwd=work, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
