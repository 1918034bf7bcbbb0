"""The ports of the host shell in a cocotb bench, and the driver's way to them.

``cocotbext-axi`` stands at the other side: a master, a source and a sink that somebody else wrote.
"""

import random
from collections.abc import Iterator
from typing import Any

from cocotb.task import resume
from cocotb.triggers import ClockCycles, First, RisingEdge
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from prap_hw.driver import BusError, WaitError

CHANNELS = ("AW", "W", "B", "AR", "R", "load stream", "output stream")
RULES = ("VALID fell before READY", "payload changed before READY", "VALID during reset")


class Ports:
    """The shell's ports, with a master, a source and a sink of ``cocotbext-axi`` at them."""

    def __init__(self, dut: Any):
        self.dut = dut
        self.clock = dut.aclk
        args = (dut.aclk, dut.aresetn, False)
        # Its halves have no types.
        self.registers: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), *args)
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), *args)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), *args)
        dut.tamper.value = 0
        dut.twist.value = 0

    def pause(self, share: float, seed: int) -> None:
        """Pause every channel in a share of the cycles, at random."""

        def chance(channel: int) -> Iterator[bool]:
            draw = random.Random(f"{seed}/{channel}")
            while True:
                yield draw.random() < share

        write, read = self.registers.write_if, self.registers.read_if
        agents = [write.aw_channel, write.w_channel, write.b_channel]
        agents += [read.ar_channel, read.r_channel, self.source, self.sink]
        for channel, agent in enumerate(agents):
            if share:
                agent.set_pause_generator(chance(channel))
            else:
                agent.clear_pause_generator()
                agent.pause = False

    async def reset(self, cycles: int = 3) -> None:
        """Reset the shell."""
        self.dut.aresetn.value = 0
        await ClockCycles(self.clock, cycles)
        self.dut.aresetn.value = 1
        await RisingEdge(self.clock)

    def broken(self) -> list[str]:
        """The rules of AXI that were broken, and where."""
        bits = int(self.dut.broken.value)
        return [
            f"{channel}: {rule}"
            for c, channel in enumerate(CHANNELS)
            for r, rule in enumerate(RULES)
            if bits >> (3 * c + r) & 1
        ]

    async def read(self, address: int) -> int:
        """Read a register; BusError where the answer is an error."""
        answer: Any = await self.registers.read(address, 4)
        if answer.resp != AxiResp.OKAY:
            raise BusError(f"the read of 0x{address:03X} was answered by {answer.resp!r}")
        return int.from_bytes(answer.data, "little")

    async def write(self, address: int, value: int) -> None:
        """Write a register; BusError where the answer is an error."""
        answer: Any = await self.registers.write(address, value.to_bytes(4, "little"))
        if answer.resp != AxiResp.OKAY:
            raise BusError(f"the write of 0x{address:03X} was answered by {answer.resp!r}")

    async def send(self, data: bytes) -> None:
        """Send a packet; returns when its last beat was taken."""
        await self.source.send(AxiStreamFrame(data))
        await self.source.wait()

    async def receive(self, cycles: int) -> tuple[bytes, bool]:
        """Take the packet that comes, or came; WaitError after so many cycles without."""
        for _ in range(cycles):
            if not self.sink.empty():
                break
            await RisingEdge(self.clock)
        else:
            raise WaitError(f"expected a packet of outputs within {cycles} cycles")
        frame = self.sink.recv_nowait()
        user = frame.tuser if isinstance(frame.tuser, list) else [frame.tuser]
        return bytes(frame.tdata), bool(any(user))

    async def interrupt(self, cycles: int) -> bool:
        """Wait until the interrupt line is high; False after so many cycles."""
        if not self.dut.irq.value:
            await First(RisingEdge(self.dut.irq), ClockCycles(self.clock, cycles))
        return bool(self.dut.irq.value)


class CocotbTransport:
    """The driver's way to a shell in a simulation.

    The driver is plain Python that waits; it runs as ``await cocotb.task.bridge(function)()``, and
    the simulation goes on where it waits. A second of a timeout is :data:`CYCLES` clock cycles.
    """

    CYCLES = 10_000

    def __init__(self, ports: Ports):
        self.ports = ports

    def read32(self, address: int) -> int:
        """Read a register."""
        return resume(self.ports.read)(address)

    def write32(self, address: int, value: int) -> None:
        """Write a register."""
        resume(self.ports.write)(address, value)

    def send(self, data: bytes) -> None:
        """Send a packet."""
        resume(self.ports.send)(data)

    def arm(self, length: int) -> None:
        """Forget what came before; the sink has room for any packet."""
        self.ports.sink.clear()

    def receive(self, timeout: float) -> tuple[bytes, bool]:
        """Take a packet."""
        return resume(self.ports.receive)(round(timeout * self.CYCLES))

    def wait_interrupt(self, timeout: float) -> bool:
        """Wait for the interrupt line."""
        return resume(self.ports.interrupt)(round(timeout * self.CYCLES))
