"""The bench that is delivered with a network: it passes, and a changed bit of its data fails.

In Verilator and in Icarus, without cocotb, and without Python in the simulator.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from prap_hw.deliver import bench, delivery
from prap_hw.deliver.packets import accelerator_image
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict.accelerator.plan import network_image
from refmodel.program.program import Program
from sim.builds import verilator
from tests.support.fusesoc import fusesoc
from tests.support.icarus import needs_icarus
from tests.support.nets import accelerator_nets
from tests.support.once import once

ENGINE = EngineConfig(crossbar_size=32, dac_bits=4, merge_lanes=4, trace=False)
FILES = [bench.file_of(what) for what in bench.DATA]


def sources(folder: Path) -> list[str]:
    return [str(folder / name) for name in (f"{bench.NAME}.sv", "prap_accelerator_shell.v")]


def part(verilog: str, given: delivery.Sizes) -> delivery.Part:
    return delivery.Part(
        key="accelerator_shell",
        module="prap_accelerator_shell",
        verilog=verilog,
        config=given.network,
        what="the accelerator",
        box="",
        macro="",
        configuration=given.configurations["accelerator"],
    )


@pytest.fixture(scope="module")
def delivered(tmp_path_factory) -> Path:
    """A folder as `prap verilog --for` writes it; of its Verilog the accelerator's shell alone."""

    def make(folder: Path) -> None:
        compiled = accelerator_nets.program("chain", folder, scheme="dense")
        given = delivery.sizes(ENGINE, program=compiled)
        shell = part(delivery.accelerator_shell_verilog(given.network, given.commands), given)
        (folder / "prap_accelerator_shell.v").write_text(shell.verilog)
        texts = bench.network_bench(
            compiled,
            given.network,
            commands=given.commands,
            engines=1,
            module=shell.module,
            ports=shell.ports,
        )
        for name, text in texts.items():
            (folder / name).write_text(text)

    return once(tmp_path_factory, "network-bench", make)


def run_icarus(folder: Path, work: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Compile the bench once, and run it in the folder of its data."""
    program = work / "network.vvp"
    if not program.exists():
        built = subprocess.run(
            ["iverilog", "-g2012", "-s", bench.NAME, "-o", program, *sources(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (built.returncode, built.stdout + built.stderr) == (0, "")
    command = ["vvp", "-n", program, *options]
    return subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)


def run_verilator(folder: Path, work: Path, *options: str) -> subprocess.CompletedProcess[str]:
    program = work / "obj_dir" / f"V{bench.NAME}"
    found = verilator.find()
    environment = os.environ | dict(found.environment)
    if not program.exists():
        waivers = work / "prap_pim.vlt"
        waivers.write_text(delivery._template("amaranth.vlt"))
        built = subprocess.run(
            [found.program, "--binary", "--timing", "-CFLAGS", "-fcoroutines -O0", "--top-module",
             bench.NAME, waivers, *sources(folder)],
            cwd=work, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        text = built.stdout + built.stderr
        assert built.returncode == 0, text
        assert "%Warning" not in text
    return subprocess.run(
        [program, *options], cwd=work, capture_output=True, text=True, check=False
    )


SIMULATORS = [
    pytest.param(run_icarus, id="icarus", marks=[needs_icarus, pytest.mark.long]),
    pytest.param(run_verilator, id="verilator", marks=[pytest.mark.cosim, pytest.mark.long]),
]
"""Both are long: Icarus since machines need not have it, Verilator since its build takes long."""


def flipped(text: str, line: int, bit: int) -> str:
    """The text of a memory file with one bit of a line changed."""
    lines = text.splitlines()
    width = len(lines[line])
    lines[line] = f"{int(lines[line], 16) ^ 1 << bit:0{width}x}"
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("run", SIMULATORS)
def test_the_bench_passes_and_a_changed_bit_of_its_data_fails(run, delivered, tmp_path):
    for name in FILES:
        shutil.copy(delivered / name, tmp_path)
    done = run(delivered, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{bench.NAME}: passed: 2 images, 16 outputs" in done.stdout
    # What a changed bit is without the checksums: of what the hardware guards the item of a packet,
    # of the rest a difference of outputs. Bit 7 of a code: one that a network does not overlook.
    expected = {
        "program": r"failed: ERROR is 000000(10|01) at",
        "cells": r"failed: ERROR is 00000010 at",
        "images": r"failed: \d+ differences",
        "outputs": r"failed: 1 differences",
    }
    for what, pattern in expected.items():
        name = bench.file_of(what)
        text = (delivered / name).read_text()
        for line, bit in ((3, 7), (len(text.splitlines()) - 1, 6)):
            (tmp_path / name).write_text(flipped(text, line, bit))
            done = run(delivered, tmp_path)
            assert done.returncode != 0
            assert f"{name} is not as it was written" in done.stdout + done.stderr
            if bit == 7:
                done = run(delivered, tmp_path, "+unchecked")
                assert done.returncode != 0
                assert re.search(pattern, done.stdout + done.stderr), (what, line, bit, done)
        (tmp_path / name).write_text(text)
    assert run(delivered, tmp_path).returncode == 0


@needs_icarus
@pytest.mark.long
def test_a_shell_that_stands_ends_the_bench(delivered, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(delivered, changed)
    text = (changed / f"{bench.NAME}.sv").read_text()
    assert text.count("m_axis_tready = 1;") == 1
    (changed / f"{bench.NAME}.sv").write_text(text.replace("m_axis_tready = 1;", ""))
    done = run_icarus(changed, changed)
    assert done.returncode != 0
    assert re.search(r"failed: no end after \d+ cycles", done.stdout + done.stderr)


@pytest.mark.long
@pytest.mark.cosim
def test_verilator_reads_the_bench_without_a_warning(delivered, tmp_path):
    found = verilator.find()
    waivers = tmp_path / "prap_pim.vlt"
    waivers.write_text(delivery._template("amaranth.vlt"))
    done = subprocess.run(
        [found.program, "--lint-only", "--timing", "--top-module", bench.NAME, waivers,
         *sources(delivered)],
        cwd=tmp_path, env=os.environ | dict(found.environment), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "%Warning" not in done.stdout + done.stderr


def test_the_data_are_the_packets_the_images_and_the_golden_models_outputs(delivered, tmp_path):
    compiled = accelerator_nets.program("chain", tmp_path, scheme="dense")
    given = delivery.sizes(ENGINE, program=compiled)
    plan = network_image(compiled, given.network)
    image = accelerator_image(compiled, plan, given.network, commands=given.commands)
    found = {}
    for what, size in zip(bench.DATA, (8, 8, 1, 1), strict=True):
        lines = (delivered / bench.file_of(what)).read_text().splitlines()
        assert all(len(line) == 2 * size for line in lines)
        found[what] = b"".join(int(line, 16).to_bytes(size, "little") for line in lines)
    assert found["program"] == image.program
    assert found["cells"] == image.cells
    shape = compiled.tensors[compiled.input]["shape"]
    codes = np.frombuffer(found["images"], "uint8").reshape(bench.IMAGES, *shape)
    assert codes[0].tobytes() != codes[1].tobytes()
    outputs = golden.run_program(compiled, codes)[compiled.output]
    assert found["outputs"] == outputs.astype("uint8").tobytes()
    text = (delivered / f"{bench.NAME}.sv").read_text()
    assert not re.search(r"\$\{", text)
    for what in bench.DATA:
        assert f"32'h{bench.checksum(found[what]):08X}" in text


def test_the_checksum_by_hand():
    # FNV-1a, 32 bits, as its authors give it: of nothing, and of the letter a.
    assert bench.checksum(b"") == 0x811C9DC5
    assert bench.checksum(b"a") == 0xE40C292C


def files_of(given: delivery.Sizes, compiled: Program | None, *, open_port: bool = False) -> None:
    files = delivery.delivered_files(given, program=compiled, open_port=open_port)
    written = compiled is not None and not open_port
    assert all((name in files) == written for name in (f"{bench.NAME}.sv", *FILES))
    assert ("sim_network_icarus" in files[delivery.CORE]) == written
    assert ("+unchecked" in files["README.md"]) == written
    assert ("prap verilog --for DIR" in files["README.md"]) != written
    assert not re.search(r"\$\{?\w", files["README.md"])


def test_the_bench_is_delivered_with_a_network(delivered, tmp_path, monkeypatch):
    compiled = accelerator_nets.program("chain", tmp_path, scheme="dense")
    given = delivery.sizes(ENGINE, program=compiled)
    shell = part((delivered / "prap_accelerator_shell.v").read_text(), given)
    monkeypatch.setattr(delivery, "parts", lambda *_, **__: [shell, shell])
    files_of(given, compiled)
    files_of(given, None)


@pytest.mark.long
def test_the_bench_is_not_delivered_with_open_ports(tmp_path):
    compiled = accelerator_nets.program("chain", tmp_path, scheme="dense")
    files_of(delivery.sizes(ENGINE, program=compiled), compiled, open_port=True)


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    "target", ["sim_network", pytest.param("sim_network_icarus", marks=needs_icarus)]
)
def test_fusesoc_runs_the_bench_on_two_engines(target, tmp_path):
    compiled = accelerator_nets.program("chain", tmp_path, scheme="dense")
    given = delivery.sizes(ENGINE, program=compiled, engines=2)
    for name, text in delivery.delivered_files(given, program=compiled).items():
        place = tmp_path / "folder" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    done = fusesoc(tmp_path / "folder", target, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{bench.NAME}: passed" in done.stdout + done.stderr
