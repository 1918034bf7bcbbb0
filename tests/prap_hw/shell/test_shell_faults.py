"""What the shell makes of the fault of a core: of one that faults when told, and of an engine.

The engine's faults are those of sim/benches/shell_faults.py, in Verilator.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Space
from prap_hw.deliver.load import padded_input
from prap_hw.deliver.packets import engine_image
from prap_hw.driver.packets import BEAT
from prap_hw.driver.registers import (
    Control,
    ErrorCode,
    IrqEnable,
    Register,
    Status,
)
from prap_hw.shell.core import (
    configuration_words,
)
from refmodel import golden
from refmodel.predict.cycles import predict
from sim import shell
from tests.support.layers.hand import TINY_ENGINE, hand_codes, hand_layer
from tests.support.rtl.standing_core import OUTPUTS, PACE, PACKETS, RIGHT, Host

FAULTS = [
    *((Fault.PARITY, space) for space in Space),
    (Fault.RANGE, Space.OFFSET),
    (Fault.PORT, Space.REGISTER),
]


@pytest.mark.parametrize(("kind", "space"), FAULTS)
def test_a_fault_in_a_run_has_its_code_and_memory_and_the_next_run_is_right(kind, space):
    async def bench(host: Host) -> None:
        await host.begin()
        while len(host.beats) < 8:
            await host.tick()
        await host.inject(kind, space)
        await host.stopped(kind, space)
        item = await host.read(Register.ERROR_ITEM)
        assert 8 <= item < OUTPUTS
        assert host.packets[0][0][:8] == RIGHT[:8]
        await host.recover()

    Host().run(bench)


@pytest.mark.parametrize("cycle", range(0, PACE * OUTPUTS + 8, 3))
def test_a_fault_in_any_cycle_of_a_run_is_an_error(cycle):
    async def bench(host: Host) -> None:
        await host.begin()
        for _ in range(cycle):
            await host.tick()
        await host.inject(Fault.PARITY, Space.WORD)
        await host.stopped(Fault.PARITY, Space.WORD)
        assert await host.read(Register.ERROR_ITEM) <= OUTPUTS
        for beats, _ in host.packets:
            # The last beat of a packet that is stopped is only there for its TUSER.
            whole = (len(beats) - 1) // BEAT * BEAT
            assert beats[:whole] == RIGHT[:whole]
        await host.recover()

    Host().run(bench)


def test_a_fault_while_nothing_runs_is_an_error():
    async def bench(host: Host) -> None:
        await host.write(Register.IRQ_ENABLE, IrqEnable.ERROR)
        await host.inject(Fault.PORT, Space.REGISTER)
        await host.stopped(Fault.PORT, Space.REGISTER)
        assert await host.read(Register.ERROR_ITEM) == 0
        # Packets are discarded, so that the sender does not hang.
        for one in PACKETS:
            await host.send(one)
        await host.recover()

    Host().run(bench)


def test_a_fault_behind_a_run_has_no_outputs_of_its_own():
    async def bench(host: Host) -> None:
        await host.begin()
        for _ in range(PACE * OUTPUTS + 20):
            await host.tick()
        assert await host.read(Register.STATUS) & Status.DONE
        await host.inject(Fault.PORT, Space.REGISTER)
        await host.stopped(Fault.PORT, Space.REGISTER)
        assert await host.read(Register.ERROR_ITEM) == 0

    Host().run(bench)


def test_the_first_fault_is_kept():
    async def bench(host: Host) -> None:
        await host.begin()
        await host.inject(Fault.RANGE, Space.HEADER)
        for _ in range(3):
            await host.tick()
        await host.inject(Fault.PORT, Space.REGISTER)
        await host.write(Register.CONTROL, Control.START)
        await host.stopped(Fault.RANGE, Space.HEADER)
        await host.recover()

    Host().run(bench)


@pytest.mark.parametrize("offset", range(-3, 6))
def test_a_fault_about_a_soft_reset_is_gone_or_reported_and_never_both(offset):
    async def bench(host: Host) -> None:
        await host.begin()
        if offset < 0:
            await host.inject(Fault.PARITY, Space.TABLE)
            for _ in range(-1 - offset):
                await host.tick()
        axi, ctx = host.shell.s_axi, host.ctx
        for port, value in ((axi.awaddr, Register.CONTROL), (axi.wdata, Control.SOFT_RESET)):
            ctx.set(port, value)
        for port in (axi.wstrb, axi.bready, axi.awvalid, axi.wvalid):
            ctx.set(port, 15)
        await host.tick()
        ctx.set(axi.awvalid, 0)
        ctx.set(axi.wvalid, 0)
        for cycle in range(12):
            if cycle == offset:
                await host.inject(Fault.PARITY, Space.TABLE)
            else:
                await host.tick()
        # The command is there in cycle 1, and the core in reset in cycle 2, at the end of which a
        # fault that it was about to show is gone; one that comes later is a new one.
        error = await host.read(Register.ERROR)
        assert error in (0, ErrorCode.MEMORY_PARITY | Space.TABLE.value << 8)
        assert bool(error) == (offset >= 3), (offset, error)
        await host.recover()

    Host().run(bench)


CONFIG = replace(TINY_ENGINE, trace=False, port_timeout=300)


def ask(folder: Path, bench: str, *, open_port: bool) -> str | None:
    """Give the bench a layer with two groups and reuse words; what was wrong."""
    layer = hand_layer([[(5, 3)], [(3, 2), (2, 1)]], outputs=16, positions=3)
    images = hand_codes(layer, images=2)
    image = engine_image(layer, CONFIG)
    model, found = shell.build_with_faults(CONFIG, open_port=open_port)
    # Word 0 of each is read for the first output; the last parameters only after others.
    used = [m for m in found if not open_port and m.space is not Space.OFFSET]
    assert len(used) == (0 if open_port else 6)
    (folder / "program.bin").write_bytes(image.program)
    (folder / "cells.bin").write_bytes(image.cells)
    job = {
        "config": configuration_words(CONFIG),
        "image": {
            "input_bytes": image.input_bytes,
            "output_bytes": image.output_bytes,
            "config_hash": image.config_hash,
        },
        "inputs": [padded_input(layer, codes).tobytes().hex() for codes in images],
        "outputs": [codes.tobytes().hex() for codes in golden.run_layer(layer, images)],
        "cycles": predict(layer, CONFIG).cycles,
        "resets": 0,
        "memories": [
            (asdict(memory), memory.space.value, 15 if memory.space is Space.OUTPUT else 0)
            for memory in used
            if memory.space is not None
        ],
    }
    (folder / "job.json").write_text(json.dumps(job))
    return shell.run(model, folder, "sim.benches.shell_faults", [bench])[bench]


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.long
def test_a_flipped_bit_of_any_memory_of_an_engine_is_told_to_the_host(tmp_path):
    wrong = ask(tmp_path, "a_flipped_bit_of_any_memory", open_port=False)
    assert wrong is None, wrong


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.long
def test_a_crossbar_port_that_does_not_answer_is_told_to_the_host(tmp_path):
    wrong = ask(tmp_path, "a_crossbar_port_that_does_not_answer", open_port=True)
    assert wrong is None, wrong
