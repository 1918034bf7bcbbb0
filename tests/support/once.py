"""Expensive results that all workers of a test run share: made by the first that needs them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Give the folder ``name`` of this run, filled by ``make`` once for all its workers.

    Others wait until it is whole. Where ``make`` fails, so does the test that asked, and the next
    one tries again in a new folder.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    done = root / f"{name}.done"
    with FileLock(root / f"{name}.lock"):
        if not done.exists():
            attempt = sum(1 for _ in root.glob(f"{name}-*"))
            folder = root / f"{name}-{attempt}"
            folder.mkdir()
            make(folder)
            done.write_text(folder.name, encoding="utf-8")
    return root / done.read_text(encoding="utf-8")
