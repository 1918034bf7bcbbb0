"""What the shell makes of the fault of a core: of one that faults when told, and of an engine.

The engine's faults are those of sim/benches/shell_faults.py, in Verilator.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from amaranth import Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from prap_hw.common.faults import FAULT, Fault
from prap_hw.common.layouts import Space
from prap_hw.deliver.load import padded_input
from prap_hw.deliver.packets import engine_image, items
from prap_hw.driver.packets import BEAT, Kind, packet
from prap_hw.driver.registers import (
    CONFIGURATION,
    Control,
    Core,
    ErrorCode,
    IrqEnable,
    IrqPending,
    Register,
    Status,
)
from prap_hw.shell.core import (
    CoreLimits,
    FieldRange,
    MemoryLimits,
    configuration_words,
    core_signature,
)
from prap_hw.shell.host_shell import HostShell
from refmodel import golden
from refmodel.predict.cycles import predict
from sim import shell
from tests.support.layers.hand import TINY_ENGINE, hand_codes, hand_layer

LOAD = data.StructLayout({"space": 4, "addr": 24, "data": 64})
CELLS = unsigned(8)
OUTPUTS = 20
PACE = 4
"""Cycles from one output of the core to the next."""

CODES = {
    Fault.PARITY: ErrorCode.MEMORY_PARITY,
    Fault.RANGE: ErrorCode.RANGE,
    Fault.PORT: ErrorCode.PORT,
}
FAULTS = [
    *((Fault.PARITY, space) for space in Space),
    (Fault.RANGE, Space.OFFSET),
    (Fault.PORT, Space.REGISTER),
]


class StandingCore(wiring.Component):
    """A core that gives OUTPUTS outputs, 1, 2, 3, ..., and stands from ``inject`` on."""

    i_load: Any
    i_cells: Any
    i_acts: Any
    start: Signal
    busy: Signal
    fault: Any
    o: Any
    inject: Any

    def __init__(self):
        members = core_signature(
            load=LOAD,
            cells=data.StructLayout({"row": CELLS}),
            acts=data.StructLayout({"data": 8, "last": 1}),
            output=data.StructLayout({"code": 8}),
        ).members
        super().__init__({**members, "inject": In(FAULT)})

    def elaborate(self, platform) -> Module:
        m = Module()
        fault, pace, count = self.fault, Signal(range(PACE)), Signal(8, init=1)
        stands = Signal()
        m.d.comb += stands.eq(fault.kind != Fault.NONE)
        with m.If(~stands):
            m.d.sync += fault.eq(self.inject)
        for port in (self.i_load, self.i_cells, self.i_acts):
            m.d.comb += port.ready.eq(~self.busy & ~stands)
        m.d.comb += [
            self.o.valid.eq(self.busy & ~stands & (pace == PACE - 1)),
            self.o.payload.code.eq(count),
        ]
        with m.If(self.busy & ~stands & (pace != PACE - 1)):
            m.d.sync += pace.eq(pace + 1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [pace.eq(0), count.eq(count + 1)]
            with m.If(count == OUTPUTS):
                m.d.sync += self.busy.eq(0)
        with m.If(self.start & ~stands):
            m.d.sync += [self.busy.eq(1), count.eq(1), pace.eq(0)]
        return m


LIMITS = CoreLimits(
    memories={0: MemoryLimits(depth=4, width=64)},
    cells=(FieldRange(low=0, width=8, most=255),),
    activation_bytes=8,
)
PACKETS = (
    items(Kind.PROGRAM, (1 << 28, 2 << 28), LOAD.size),
    items(Kind.CELLS, (5, 6), 8),
    packet(Kind.ACTIVATIONS, 4, b"abcd"),
)
SIZES = dict.fromkeys(CONFIGURATION, 1)
RIGHT = list(range(1, OUTPUTS + 1))


class Host:
    """A shell around such a core in Amaranth's simulator, with a host that takes every beat."""

    ctx: Any

    def __init__(self):
        self.shell: Any = HostShell(
            StandingCore(), kind=Core.ENGINE, limits=LIMITS, configuration=SIZES
        )
        self.packets: list[tuple[list[int], int]] = []
        self.beats: list[int] = []

    def run(self, bench) -> None:
        simulator = Simulator(self.shell)
        simulator.add_clock(1e-6)

        async def testbench(ctx):
            self.ctx = ctx
            await bench(self)

        simulator.add_testbench(testbench)
        simulator.run()

    async def tick(self) -> None:
        """A cycle, in which the host takes a beat if there is one."""
        ctx, out = self.ctx, self.shell.m_axis
        ctx.set(out.tready, 1)
        valid, keep, last = (ctx.get(s) for s in (out.tvalid, out.tkeep, out.tlast))
        word, user = ctx.get(out.tdata), ctx.get(out.tuser)
        await ctx.tick()
        if valid:
            self.beats += [word >> 8 * byte & 0xFF for byte in range(BEAT) if keep >> byte & 1]
            if last:
                self.packets.append((self.beats, user))
                self.beats = []

    async def inject(self, kind: Fault, space: Space) -> None:
        """Tell the core of a fault, for a cycle: its member shows it in the next."""
        self.ctx.set(self.shell.inject, {"kind": kind, "space": space})
        await self.tick()
        self.ctx.set(self.shell.inject, {"kind": Fault.NONE, "space": Space.REGISTER})

    async def write(self, address: int, value: int) -> None:
        ctx, axi = self.ctx, self.shell.s_axi
        ctx.set(axi.awaddr, address)
        ctx.set(axi.wdata, value)
        ctx.set(axi.wstrb, 15)
        ctx.set(axi.bready, 1)
        ctx.set(axi.awvalid, 1)
        ctx.set(axi.wvalid, 1)
        await self.tick()
        ctx.set(axi.awvalid, 0)
        ctx.set(axi.wvalid, 0)
        while not ctx.get(axi.bvalid):
            await self.tick()
        assert ctx.get(axi.bresp) == 0
        await self.tick()

    async def read(self, address: int) -> int:
        ctx, axi = self.ctx, self.shell.s_axi
        ctx.set(axi.araddr, address)
        ctx.set(axi.rready, 1)
        ctx.set(axi.arvalid, 1)
        await self.tick()
        ctx.set(axi.arvalid, 0)
        while not ctx.get(axi.rvalid):
            await self.tick()
        value = ctx.get(axi.rdata)
        await self.tick()
        return value

    async def send(self, data: bytes) -> None:
        ctx, port = self.ctx, self.shell.s_axis
        for at in range(0, len(data), BEAT):
            chunk = data[at : at + BEAT]
            ctx.set(port.tdata, int.from_bytes(chunk, "little"))
            ctx.set(port.tkeep, (1 << len(chunk)) - 1)
            ctx.set(port.tlast, at + BEAT >= len(data))
            ctx.set(port.tvalid, 1)
            while not ctx.get(port.tready):
                await self.tick()
            await self.tick()
        ctx.set(port.tvalid, 0)

    async def begin(self) -> None:
        """Load everything and start."""
        await self.write(Register.IRQ_ENABLE, IrqEnable.ERROR)
        await self.write(Register.INPUT_BYTES, 4)
        await self.write(Register.OUTPUT_BYTES, OUTPUTS)
        for one in PACKETS:
            await self.send(one)
        for _ in range(30):
            await self.tick()
        assert await self.read(Register.STATUS) == (
            Status.PROGRAM | Status.CELLS | Status.ACTIVATIONS
        )
        await self.write(Register.CONTROL, Control.START)

    async def stopped(self, kind: Fault, space: Space) -> None:
        """The shell says which fault, raises its interrupt and gives no packet that looks good."""
        for _ in range(12):
            await self.tick()
        assert self.ctx.get(self.shell.irq) == 1
        loaded = Status.PROGRAM | Status.CELLS | Status.ACTIVATIONS
        assert await self.read(Register.STATUS) & ~loaded == Status.ERROR
        error = await self.read(Register.ERROR)
        assert (error & 0xFF, error >> 8) == (CODES[kind], space.value)
        assert await self.read(Register.IRQ_PENDING) & IrqPending.ERROR
        assert not self.beats
        # All outputs may have been on their way before.
        assert all(user or beats == RIGHT for beats, user in self.packets)

    async def recover(self) -> None:
        """A soft reset, everything anew, and a run that is right."""
        await self.write(Register.CONTROL, Control.SOFT_RESET)
        await self.write(Register.IRQ_PENDING, IrqPending.ERROR | IrqPending.DONE)
        assert await self.read(Register.ERROR) == 0
        assert not await self.read(Register.STATUS)
        self.packets.clear()
        await self.begin()
        for _ in range(PACE * OUTPUTS + 20):
            await self.tick()
        assert await self.read(Register.STATUS) & Status.DONE
        assert self.packets == [(RIGHT, 0)]


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
