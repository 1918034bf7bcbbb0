"""A shell around a core that gives outputs at a pace and faults when told, and its host."""

from typing import Any

from amaranth import Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from prap_hw.common.faults import FAULT, Fault
from prap_hw.common.layouts import Space
from prap_hw.deliver.packets import items
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
from prap_hw.shell import host_shell
from prap_hw.shell.core import CoreLimits, FieldRange, MemoryLimits, core_signature

LOAD = data.StructLayout({"space": 4, "addr": 24, "data": 64})
CELLS = unsigned(8)
OUTPUTS = 20
PACE = 4
"""Cycles from one output of the core to the next."""

LIMIT = 5000
"""Cycles of a bench, at most."""

CODES = {
    Fault.PARITY: ErrorCode.MEMORY_PARITY,
    Fault.RANGE: ErrorCode.RANGE,
    Fault.PORT: ErrorCode.PORT,
}


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
    """A shell around such a core in Amaranth's simulator, with a host that takes beats."""

    ctx: Any

    def __init__(self):
        # By the module's name, where a mutant of it may stand.
        self.shell: Any = host_shell.HostShell(
            StandingCore(), kind=Core.ENGINE, limits=LIMITS, configuration=SIZES
        )
        self.ready = True
        self.cycles = 0
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
        """A cycle, in which the host takes a beat if there is one and ``ready`` is True."""
        ctx, out = self.ctx, self.shell.m_axis
        self.cycles += 1
        assert self.cycles < LIMIT, "the shell lets its host wait"
        ctx.set(out.tready, self.ready)
        valid, keep, last = (ctx.get(s) for s in (out.tvalid, out.tkeep, out.tlast))
        word, user = ctx.get(out.tdata), ctx.get(out.tuser)
        await ctx.tick()
        if valid and self.ready:
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

    async def load(self) -> None:
        """Load everything."""
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

    async def begin(self) -> None:
        """Load everything and start."""
        await self.load()
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
