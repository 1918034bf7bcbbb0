"""The serial bridge in Amaranth's simulator, as a line of the driver's transport."""

from collections import deque
from typing import Any

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.sim import Simulator

from prap_hw.board.bridge import SerialBridge
from prap_hw.shell.axi_lite import AxiLiteSlave
from prap_hw.shell.host_shell import ADDRESS_BITS

DIVISOR = 4
BYTE = 10 * DIVISOR
"""Cycles of a byte."""

KHZ = 1000

WORDS = 4
"""Registers that keep what is written to them, from address 0 on; others are refused."""


class Top(wiring.Component):
    """A bridge before a few registers."""

    def __init__(self, bridge: Any):
        self.bridge = bridge
        super().__init__({})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.bridge = bridge = self.bridge
        m.submodules.slave = slave = AxiLiteSlave(ADDRESS_BITS)
        wiring.connect(m, bridge.axi, slave.axi)
        bus = slave.bus
        words = [Signal(32, name=f"word_{n}") for n in range(WORDS)]
        m.d.comb += [
            bus.read_error.eq(bus.read_address >= 4 * WORDS),
            bus.write_error.eq(bus.write_address >= 4 * WORDS),
        ]
        with m.Switch(bus.read_address):
            for number, word in enumerate(words):
                with m.Case(4 * number):
                    m.d.comb += bus.read_data.eq(word)
        with m.If(bus.write), m.Switch(bus.write_address):
            for number, word in enumerate(words):
                with m.Case(4 * number):
                    # Each write counts: register 0 has the number of them in its top byte.
                    m.d.sync += word.eq(bus.write_data + (word[24:] + 1 << 24))
        return m


class BridgeLine:
    """A line with the bridge at its end, in which time is that of the simulation.

    Attributes
    ----------
    beats
        Beats that the shell got: data, TKEEP, TLAST.
    outputs
        Beats for the host, taken from the left: data, TKEEP, TLAST, TUSER.
    takes
        Whether the shell takes beats.
    irq
        The interrupt.
    """

    def __init__(self, bridge: Any = None, **settings: int):
        self.bridge: Any = bridge or SerialBridge(DIVISOR, khz=KHZ, **settings)
        self.beats: list[tuple[int, int, int]] = []
        self.outputs: deque[tuple[int, int, int, int]] = deque()
        self.takes = True
        self.irq = False
        self.timeout: float | None = 0.0
        self.cycle = 0
        self.waiting: deque[int] = deque()
        self.heard = bytearray()
        self.simulator = Simulator(Top(self.bridge))
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self.step)

    async def step(self, ctx: Any) -> None:
        """Drive and watch the ports, cycle by cycle."""
        bridge = self.bridge
        bits: deque[int] = deque()
        phase, byte, left = 0, 0, 0
        into, out = bridge.o_stream, bridge.i_stream
        while True:
            if not bits and self.waiting:
                value = self.waiting.popleft() << 1 | 1 << 9
                bits.extend(value >> n & 1 for n in range(10) for _ in range(DIVISOR))
            ctx.set(bridge.rx, bits.popleft() if bits else 1)
            ctx.set(bridge.irq, self.irq)
            # What is changed from outside during a cycle counts from the next one on.
            takes, offered = self.takes, bool(self.outputs)
            ctx.set(into.tready, takes)
            ctx.set(out.tvalid, offered)
            if offered:
                for port, value in zip(
                    (out.tdata, out.tkeep, out.tlast, out.tuser), self.outputs[0], strict=True
                ):
                    ctx.set(port, value)
            found = await ctx.tick().sample(
                bridge.tx, into.tvalid, into.tdata, into.tkeep, into.tlast, out.tready
            )
            tx, valid, data, keep, last, ready = found[-6:]
            self.cycle += 1
            if valid and takes:
                self.beats.append((data, keep, last))
            if ready and offered:
                self.outputs.popleft()
            if not left and not tx:
                left, phase, byte = BYTE, 0, 0
            if left:
                number = phase // DIVISOR
                if phase % DIVISOR == DIVISOR // 2:
                    if 1 <= number <= 8:
                        byte |= tx << number - 1
                    if number == 9:
                        assert tx, "expected a stop bit, found the line low"
                        self.heard.append(byte)
                        left = 1
                phase, left = phase + 1, left - 1

    def now(self) -> float:
        """Seconds of the simulation."""
        return self.cycle / (1000 * KHZ)

    @property
    def in_waiting(self) -> int:
        """Bytes that came and were not read."""
        return len(self.heard)

    def write(self, data: bytes, /) -> int:
        """Send bytes, in the cycles to come."""
        self.waiting.extend(data)
        return len(data)

    def read(self, size: int = 1, /) -> bytes:
        """Take bytes; the simulation goes on until they are there or the timeout is over."""
        end = self.cycle + int((self.timeout or 0.0) * 1000 * KHZ) + 1
        while len(self.heard) < size and self.cycle < end:
            self.simulator.advance()
        taken = bytes(self.heard[:size])
        del self.heard[:size]
        return taken

    def run(self, cycles: int) -> None:
        """Let cycles go by."""
        end = self.cycle + cycles
        while self.cycle < end:
            self.simulator.advance()
