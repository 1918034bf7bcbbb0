"""The wheel and the sdist build, hold what is needed, and run in an environment of their own."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long]

ASSETS = {
    "prap_hw/app/templates": {".j2"},
    "prap_hw/deliver/templates": {".txt"},
    "prap_hw/shell/registers": {".rdl"},
    "refmodel/assets": {".onnx", ".npz", ".toml"},
    "sim": {".sv", ".cpp", ".vlt"},
}
"""Folders of files that are no Python, and kinds that must be among them."""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of a wheel and an sdist of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return folder


def run(*command: object, cwd: Path) -> str:
    """Run a program, and return what it prints; it must end well."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def wheel_of(folder: Path) -> Path:
    """The wheel in a folder."""
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_has_every_file_of_the_packages_and_nothing_else(built):
    with zipfile.ZipFile(wheel_of(built)) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    here = {
        path.relative_to(ROOT).as_posix()
        for package in ("refmodel", "prap_hw", "sim")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert found == here
    for folder, kinds in ASSETS.items():
        inside = {Path(name).suffix for name in found if name.startswith(f"{folder}/")}
        assert kinds <= inside, folder


def test_sdist_has_what_builds_and_tests_it(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ("pyproject.toml", "constraints.txt", "Makefile", "tests/conftest.py", "docs/cli.md")
    assert set(wanted) <= names
    assert not [name for name in names if name.startswith((".ci/", "build/cache"))]


def test_wheel_runs_in_an_empty_environment(built, tmp_path):
    """First with the base alone, then with what the demo needs: nothing of this tree is seen."""
    venv.create(tmp_path / "env", with_pip=True)
    python, prap = (tmp_path / "env" / "bin" / name for name in ("python", "prap"))
    install = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
    install = (*install, "-c", ROOT / "constraints.txt")
    wheel = wheel_of(built)

    run(*install, wheel, cwd=tmp_path)
    code = (
        "import refmodel; from refmodel import digits; "
        "print(refmodel.load(digits.network_path('prap')).input_shape, refmodel.__file__)"
    )
    said = run(python, "-I", "-c", code, cwd=tmp_path)
    assert said.startswith(f"(1, 8, 8) {tmp_path / 'env'}")
    listed = run(python, "-m", "pip", "list", "--format=freeze", cwd=tmp_path)
    assert {"numpy", "onnx"} <= (have := {line.partition("=")[0] for line in listed.splitlines()})
    assert not {"amaranth", "cocotb", "matplotlib", "torch"} & have

    run(*install, f"{wheel}[sim,report]", cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    run(prap, "demo", "-o", tmp_path / "demo", cwd=tmp_path)
    assert "<svg" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
