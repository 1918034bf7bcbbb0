"""Every import is brought by the base or by an extra, and one that is not installed is one line."""

import ast
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from prap_hw.__main__ import check_sim
from refmodel.errors import EXTRAS, InputError, MissingExtraError, missing_extra, require_extra
from tests.support import ROOT

OURS = {"refmodel", "prap_hw", "sim"}


def third_party() -> set[str]:
    """First parts of the names that the packages import, but for Python's own and ours."""
    found: set[str] = set()
    for package in OURS:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(str(node.module).partition(".")[0])
    return found - OURS - set(sys.stdlib_module_names)


def names(requirements: list[str]) -> set[str]:
    """Names of distributions in a list of requirements."""
    return {
        "".join(c if c.isalnum() or c in "-_." else " " for c in text).split()[0].lower()
        for text in requirements
    }


def project() -> dict:
    """The table ``project`` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_import_is_of_the_base_or_of_the_extra_that_brings_it():
    base, extras = names(project()["dependencies"]), project()["optional-dependencies"]
    homes = metadata.packages_distributions()
    # Brought by what brings the package that is named.
    of_others = {"markupsafe": "jinja2", "cocotb_tools": "cocotb"}
    for name in sorted(third_party()):
        homes_of_name = [home.lower() for home in homes.get(name, [name])]
        wanted = {of_others.get(name, home) for home in homes_of_name}
        if name in EXTRAS:
            assert wanted & names(extras[EXTRAS[name]]), name
            assert not wanted & base, name
        else:
            assert wanted & base, f"{name} is in no extra of refmodel.errors.EXTRAS"


def test_an_import_that_nothing_brings_would_be_found():
    assert "amaranth" in third_party()
    assert "amaranth" not in names(project()["dependencies"])


def test_a_missing_package_names_its_extra(monkeypatch):
    problem = missing_extra("cocotb.triggers")
    assert isinstance(problem, InputError | ImportError)
    assert str(problem) == ("expected the package cocotb, found none: pip install 'prap-pim[sim]'")
    assert missing_extra("nothing_of_ours") is None
    monkeypatch.setitem(EXTRAS, "no_such_package", "hw")
    with pytest.raises(MissingExtraError, match=r"no_such_package, found none.*prap-pim\[hw\]"):
        require_extra("hw")


def without(package: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run ``prap`` where a package cannot be imported."""
    code = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from importlib import util\n"
        "find = util.find_spec\n"
        f"util.find_spec = lambda name, *more: None if name == {package!r} else find(name, *more)\n"
        f"sys.argv = ['prap', *{list(command)!r}]\n"
        "from prap_hw.__main__ import main\n"
        "main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        pytest.param("amaranth", "hw", ["verilog", "-o"], id="hardware"),
        pytest.param("jinja2", "report", ["demo", "-o"], id="report"),
    ],
)
def test_a_verb_without_its_packages_ends_in_one_line(package, extra, command, tmp_path):
    done = without(package, *command, str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"prap: error: expected the package {package}, found none: pip install 'prap-pim[{extra}]'"
    )
    assert "Traceback" not in done.stderr


def test_the_golden_model_does_without_the_extras():
    blocked = sorted(EXTRAS)
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import refmodel\nfrom refmodel import digits\n"
        "print(refmodel.load(digits.network_path('prap')).input_shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(1, 8, 8)\n", "")


def test_another_package_of_the_name_sim_is_told(tmp_path, monkeypatch):
    check_sim()
    other = tmp_path / "sim"
    other.mkdir()
    (other / "__init__.py").touch()
    code = (
        f"import sys\nsys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "sys.argv = ['prap', '--version']\n"
        "from prap_hw.__main__ import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"prap: error: expected the package sim of prap-pim at {ROOT / 'sim'}, found "
        f"{Path(other).resolve() / '__init__.py'}: install prap-pim in an environment of its own\n"
    )
