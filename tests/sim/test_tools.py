"""Tools that the machine must have, named before anything is built."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refmodel.errors import InputError
from sim.builds import tools


def test_missing_tools_are_named_with_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tools.missing() == []
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.missing() == [
        "perl (starts Verilator; Debian: apt install perl)",
        "make (builds the simulation; Debian: apt install make)",
        "a C++ compiler (builds the simulation; Debian: apt install g++)",
    ]
    with pytest.raises(InputError, match=r"missing perl .*; make .*; a C\+\+ compiler"):
        tools.require()


def test_make_names_a_missing_tool_before_anything_is_built(root: Path, tmp_path: Path) -> None:
    for name in ("sh", "echo", "make", "c++"):
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    command = ["make", "-C", str(root), f"PYTHON={sys.executable}", "check"]
    env = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 2
    assert "prap: error: missing perl" in done.stderr
    assert "make (" not in done.stderr


def test_an_old_python_is_named(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "-C", str(root), f"PYTHON={old}", "check"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "expected Python 3.11 or newer" in done.stderr
    assert "found Python 3.9.2" in done.stderr
