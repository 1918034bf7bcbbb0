"""The direction of imports: held, and an arrow up or a circle that is planted is found."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGES = ("refmodel", "prap_hw", "sim")


def check(place: Path) -> str:
    """Run import-linter on a copy of the packages; what it says, or nothing where all is well."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache", "--config", ROOT / "pyproject.toml"],
        cwd=place,
        env={"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            target = tmp_path / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return tmp_path


def plant(place: Path, module: str, line: str) -> None:
    with (place / module).open("a") as file:
        file.write(f"\n\n{line}\n")


def test_imports_go_down_without_a_circle(copy):
    assert check(copy) == ""


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        (
            "refmodel/config.py",
            "def f():\n    from refmodel.golden import layer\n",
            "layers of refmodel",
        ),
        (
            "refmodel/golden/cells.py",
            """from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refmodel.compression.compile import compile_layer
""",
            "layers of refmodel",
        ),
        ("prap_hw/engine/shift_add.py", "import prap_hw.tile.tile\n", "layers of prap_hw"),
        (
            "prap_hw/deliver/verilog.py",
            "def f():\n    import sim.builds.tools\n",
            "application, simulation, delivery, hardware, model",
        ),
        (
            "refmodel/network/graph.py",
            "import prap_hw.common.layouts\n",
            "application, simulation, delivery, hardware, model",
        ),
        (
            "prap_hw/engine/accumulators.py",
            "def f():\n    from prap_hw.engine.engine import Engine\n",
            "no circle",
        ),
        ("refmodel/newcomer.py", '"""A module that no layer names."""', "layers of refmodel"),
    ],
    ids=["function", "type", "hardware", "simulation", "model", "circle", "unnamed"],
)
def test_what_is_planted_is_found(copy, module, line, contract):
    plant(copy, module, line)
    broken = [said for said in check(copy).splitlines() if said.endswith("BROKEN")]
    assert any(said.startswith(contract) for said in broken), broken
