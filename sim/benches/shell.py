"""The cocotb bench of the host shell: driver, errors, resets, and the rules of AXI.

``PRAP_JOB`` names a folder with ``job.json`` and the packets of one layer, or of one network for an
accelerator: to the shell they are the same. Every test begins with a reset, and ends with a run
that must be right and with no rule of AXI broken. `tests/prap_hw/shell/test_shell.py` writes the
job and reads the results.
"""

import json
import os
import random
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.task import bridge
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiStreamFrame

from prap_hw.driver import (
    BusError,
    ConfigurationError,
    Driver,
    DriverError,
    ErrorCode,
    HardwareError,
    Image,
    Kind,
    Register,
    packet,
)
from prap_hw.driver.registers import CONFIGURATION, Control, Core, IrqPending, Space, Status
from sim.benches.shell_ports import CocotbTransport, Ports

FOLDER = Path(os.environ["PRAP_JOB"])
JOB = json.loads((FOLDER / "job.json").read_text())
IMAGE = Image(
    program=(FOLDER / "program.bin").read_bytes(),
    cells=(FOLDER / "cells.bin").read_bytes(),
    **JOB["image"],
)
INPUTS = [bytes.fromhex(text) for text in JOB["inputs"]]
OUTPUTS = [bytes.fromhex(text) for text in JOB["outputs"]]


class Host:
    """The ports, and the driver, of which the methods are awaited."""

    def __init__(self, dut: Any):
        self.dut = dut
        self.ports = Ports(dut)
        self.driver: Driver | None = None

    async def open(self) -> None:
        """Make the driver, which looks whether the shell is there."""
        timeout = max(2.0, 2 * JOB["cycles"] / CocotbTransport.CYCLES)
        self.driver = await bridge(Driver)(CocotbTransport(self.ports), timeout=timeout)

    async def do(self, name: str, *values: Any, **named: Any) -> Any:
        """Call a method of the driver."""
        return await bridge(getattr(self.driver, name))(*values, **named)

    async def right(self, number: int = 0) -> None:
        """Load, run, and compare."""
        await self.do("load", IMAGE)
        found = await self.do("run", INPUTS[number])
        assert found == OUTPUTS[number], f"expected {OUTPUTS[number]}, found {found}"

    async def fails(self, code: ErrorCode, item: int | None, name: str, *values: Any) -> None:
        """Call a method of the driver that must end in an error of the hardware."""
        error = await self.error(HardwareError, self.do(name, *values))
        assert isinstance(error, HardwareError)
        assert error.code == code, f"expected {code!r}, found {error}"
        assert item is None or error.item == item, f"expected {item}, found {error.item}"

    async def error(self, kind: type[DriverError], action: Awaitable[Any]) -> DriverError:
        """Await something that must end in an error."""
        try:
            await action
        except kind as error:
            return error
        raise AssertionError(f"expected {kind.__name__}, found no error")


def bench(stall: float = 0.0, seed: int = 1, again: bool = True) -> Callable[..., Any]:
    """Make a cocotb test of a function of a Host: reset before, a right run and the rules after.

    Without ``again`` the function itself must be a right run.
    """

    def decorate(function: Callable[[Host], Awaitable[None]]) -> Any:
        @wraps(function)
        async def test(dut: Any) -> None:
            Clock(dut.aclk, 2, unit="ns", impl="gpi").start()
            host = Host(dut)
            await host.ports.reset()
            host.ports.pause(stall, seed)
            await host.open()
            await function(host)
            if again:
                await host.right(len(INPUTS) - 1)
            assert not host.ports.broken(), host.ports.broken()

        return cocotb.test(timeout_time=1, timeout_unit="ms")(test)

    return decorate


async def images(host: Host) -> None:
    """All images, one after the other; loaded once."""
    await host.do("load", IMAGE)
    for number, inputs in enumerate(INPUTS):
        assert await host.do("run", inputs) == OUTPUTS[number]
        counts = await host.do("counters")
        assert counts["cycles"] >= JOB["cycles"]
        assert {name: counts[name] for name in JOB["events"]} == JOB["events"]


@bench()
async def it_runs(host: Host) -> None:
    """Nothing paused: the cycles are those that were predicted, once the core has its input."""
    await images(host)
    await host.do("load_activations", INPUTS[0])
    await ClockCycles(host.dut.aclk, JOB["settle"])
    await host.do("start")
    await host.do("wait")
    assert await host.do("read") == OUTPUTS[0]
    found = (await host.do("counters"))["cycles"]
    assert found == JOB["cycles"], f"expected {JOB['cycles']}, found {found}"


@bench(stall=0.3)
async def it_runs_with_pauses(host: Host) -> None:
    """Every channel paused in 3 of 10 cycles."""
    await images(host)


@bench(stall=0.3, again=False)
async def it_runs_with_pauses_after_one_load(host: Host) -> None:
    """The same, and no more than that: for a network that takes long to load and run."""
    await images(host)


@bench(stall=0.8, seed=2)
async def it_runs_with_many_pauses(host: Host) -> None:
    """Every channel paused in 8 of 10 cycles."""
    await images(host)


@bench(stall=0.3)
async def registers_tell_the_configuration(host: Host) -> None:
    """Read-out, and the hash that a program must have been made for."""
    assert await host.do("configuration") == JOB["config"]
    assert await host.ports.read(Register.CORE) == JOB["core"]
    assert host.driver is not None
    assert host.driver.version == (2, 3)
    other = Image(**{**IMAGE.__dict__, "config_hash": IMAGE.config_hash ^ 1})
    await host.error(ConfigurationError, host.do("load", other))


@bench(stall=0.3)
async def refused_accesses(host: Host) -> None:
    """Unmapped addresses, read-only registers: an error on the bus, and nothing else happens."""
    for address in [0x34, 0x7C, 0xF4, 0x198, 0x200, 0x800, 0xFFC]:
        for access in (host.ports.read(address), host.ports.write(address, 1)):
            await host.error(BusError, access)
    for name in [*CONFIGURATION][:3]:
        before = await host.ports.read(CONFIGURATION[name])
        await host.error(BusError, host.ports.write(CONFIGURATION[name], 99))
        assert await host.ports.read(CONFIGURATION[name]) == before
    assert not await host.do("status") & Status.ERROR


@bench()
async def unaligned_accesses(host: Host) -> None:
    """Addresses that are no multiple of 4, which a master of cocotbext-axi would align: by hand."""
    dut = host.dut
    await host.ports.write(Register.INPUT_BYTES, 0x1234)
    for offset in (1, 2, 3):
        dut.s_axi_araddr.value = Register.IDENTITY + offset
        dut.s_axi_arvalid.value = 1
        dut.s_axi_rready.value = 1
        await RisingEdge(dut.aclk)
        while not dut.s_axi_arready.value:
            await RisingEdge(dut.aclk)
        dut.s_axi_arvalid.value = 0
        while not dut.s_axi_rvalid.value:
            await RisingEdge(dut.aclk)
        assert (int(dut.s_axi_rresp.value), int(dut.s_axi_rdata.value)) == (2, 0)
        dut.s_axi_awaddr.value = Register.INPUT_BYTES + offset
        dut.s_axi_wdata.value = 0xFFFFFFFF
        dut.s_axi_wstrb.value = 15
        dut.s_axi_awvalid.value = 1
        dut.s_axi_wvalid.value = 1
        dut.s_axi_bready.value = 1
        await RisingEdge(dut.aclk)
        dut.s_axi_awvalid.value = 0
        dut.s_axi_wvalid.value = 0
        while not dut.s_axi_bvalid.value:
            await RisingEdge(dut.aclk)
        assert int(dut.s_axi_bresp.value) == 2
        await RisingEdge(dut.aclk)
    dut.s_axi_rready.value = 0
    dut.s_axi_bready.value = 0
    await ClockCycles(dut.aclk, 5)
    # The agents were not told of these transactions.
    await host.ports.reset()
    await host.open()
    await host.ports.write(Register.INPUT_BYTES, 0x1234)
    assert await host.ports.read(Register.INPUT_BYTES) == 0x1234


def damaged() -> list[tuple[ErrorCode, int | None, bytes, list[int] | None]]:
    """Packets that are wrong: the error, the item, the bytes, and TKEEP by byte if not all."""
    items = IMAGE.program[8:]
    count = len(items) // 16
    wide = b"\xa0" + bytes(6) + b"\xff" + bytes(8)
    held = [1] * (8 + 16) + [0] * 4 + [1] * 4
    flipped = bytes([IMAGE.program[-16] ^ 1]) + IMAGE.program[-15:]
    return [
        (ErrorCode.HEADER, 0, b"XX" + IMAGE.program[2:], None),
        (ErrorCode.HEADER, 0, packet(7, count, items), None),
        (ErrorCode.SHORT, count - 2, IMAGE.program[:-16], None),
        (ErrorCode.SHORT, count - 1, IMAGE.program[:-8], None),
        (ErrorCode.SHORT, 0, IMAGE.program[:8], None),
        (ErrorCode.LONG, count - 1, IMAGE.program + bytes(8), None),
        (ErrorCode.LONG, count - 2, packet(Kind.PROGRAM, count - 1, items), None),
        (ErrorCode.KEEP, 1, packet(Kind.PROGRAM, 2, items[:24]), held),
        (ErrorCode.ORDER, 0, IMAGE.cells, None),
        (ErrorCode.SPACE, 0, packet(Kind.PROGRAM, 1, b"\x0f" + bytes(15)), None),
        (ErrorCode.ADDRESS, 0, packet(Kind.PROGRAM, 1, b"\x01\xff\x7f" + bytes(13)), None),
        (ErrorCode.VALUE, 0, packet(Kind.PROGRAM, 1, wide), None),
        (ErrorCode.PADDING, 0, packet(Kind.PROGRAM, 1, bytes(15) + b"\xc0"), None),
        (ErrorCode.ITEM_PARITY, 0, packet(Kind.PROGRAM, 1, bytes(15) + b"\x80"), None),
        (ErrorCode.ITEM_PARITY, count - 1, IMAGE.program[:-16] + flipped, None),
    ]  # fmt: skip


@bench(stall=0.3, seed=3)
async def damaged_packets(host: Host) -> None:
    """Each is named, what follows is discarded, a reset recovers, and the next run is right."""
    for number, (code, item, data, keep) in enumerate(damaged()):
        await host.ports.source.send(AxiStreamFrame(data, tkeep=keep))
        # A whole good packet after it does not make it good.
        await host.ports.source.send(AxiStreamFrame(IMAGE.program))
        await host.ports.source.wait()
        await ClockCycles(host.dut.aclk, 100)
        await host.fails(code, item, "check")
        assert await host.ports.read(Register.IRQ_PENDING) & IrqPending.ERROR
        assert not await host.do("status") & (Status.PROGRAM | Status.LOADING)
        await host.do("reset")
        assert await host.ports.read(Register.ERROR) == ErrorCode.NONE
        if number % 4 == 0:
            await host.right()
            await host.do("reset")
    await host.do("load", IMAGE)
    await host.fails(ErrorCode.LENGTH, 0, "load_activations", INPUTS[0][:-1])
    await host.do("reset")
    await host.do("load", IMAGE)
    await host.fails(ErrorCode.LENGTH, 0, "load_activations", INPUTS[0] + b"\0")
    await host.do("reset")


@bench(stall=0.2, seed=4)
async def starts_out_of_turn(host: Host) -> None:
    """A start or a load out of turn ends in its error, and a reset recovers.

    Starts are tried with nothing or not all of an image loaded, twice on one input, with an output
    length of 0, and while the core runs; loads, and writes of the geometry, while it runs.
    """
    assert host.driver is not None
    steps = ["nothing", "program", "cells", "twice", "length"]
    for step in steps:
        host.driver.image = IMAGE
        await host.ports.write(Register.INPUT_BYTES, IMAGE.input_bytes)
        await host.ports.write(Register.OUTPUT_BYTES, IMAGE.output_bytes)
        if step == "program":
            await host.ports.send(IMAGE.program)
        if step in ("cells", "twice", "length"):
            await host.do("load", IMAGE)
        if step == "twice":
            assert await host.do("run", INPUTS[0]) == OUTPUTS[0]
        if step == "length":
            await host.do("load_activations", INPUTS[0])
            await host.ports.write(Register.OUTPUT_BYTES, 0)
        await ClockCycles(host.dut.aclk, 300)
        await host.fails(ErrorCode.START_UNREADY, None, "start")
        await host.do("reset")
    for step in ("start", "geometry"):
        await host.do("load", IMAGE)
        await host.do("load_activations", INPUTS[0])
        # The host takes nothing, so that the core cannot end.
        host.ports.sink.clear_pause_generator()
        host.ports.sink.pause = True
        await host.do("start")
        assert await host.do("status") & Status.BUSY
        if step == "start":
            await host.fails(ErrorCode.START_BUSY, None, "start")
        else:
            for register in (Register.INPUT_BYTES, Register.OUTPUT_BYTES, Register.WATCHDOG):
                await host.error(BusError, host.ports.write(register, 1))
        host.ports.sink.pause = False
        if step == "geometry":
            await host.do("wait")
            assert await host.do("read") == OUTPUTS[0]
        await host.do("reset")


@bench(stall=0.2, seed=12)
async def a_packet_waits_for_the_end_of_a_run(host: Host) -> None:
    """The next input comes while a run stands, waits, and is what the next run takes."""
    await host.do("load", IMAGE)
    await host.do("load_activations", INPUTS[0])
    host.ports.sink.clear_pause_generator()
    host.ports.sink.pause = True
    await host.do("start")
    following = packet(Kind.ACTIVATIONS, IMAGE.input_bytes, INPUTS[-1])
    sending = cocotb.start_soon(host.ports.send(following))
    await ClockCycles(host.dut.aclk, 4 * IMAGE.input_bytes)
    status = await host.do("check")
    assert status & Status.BUSY
    assert not status & (Status.ACTIVATIONS | Status.LOADING)
    host.ports.sink.pause = False
    await host.do("wait")
    assert await host.do("read") == OUTPUTS[0]
    await sending
    await ClockCycles(host.dut.aclk, 16 * IMAGE.input_bytes)
    assert await host.do("check") & Status.ACTIVATIONS
    await host.do("start")
    await host.do("wait")
    assert await host.do("read") == OUTPUTS[-1]


@bench(stall=0.2, seed=5)
async def runs_of_another_length(host: Host) -> None:
    """OUTPUT_BYTES too small or too large: an error, and no packet that looks good."""
    seen = 0
    for wrong in (1, IMAGE.output_bytes - 1, IMAGE.output_bytes + 1, IMAGE.output_bytes + 16):
        await host.do("load", IMAGE)
        await host.ports.write(Register.OUTPUT_BYTES, wrong)
        await host.do("load_activations", INPUTS[0])
        await host.ports.write(Register.CONTROL, Control.START)
        assert await host.ports.interrupt(20_000)
        await host.fails(ErrorCode.OUTPUT_LENGTH, min(wrong, IMAGE.output_bytes), "wait")
        await ClockCycles(host.dut.aclk, 300)
        while not host.ports.sink.empty():
            assert (await host.ports.receive(1))[1], "expected TUSER on the packet"
            seen += 1
        await host.do("reset")
    assert seen, "expected a packet with TUSER"


@bench(stall=0.2, seed=11)
async def images_of_another_length(host: Host) -> None:
    """INPUT_BYTES wrong and a packet as long: an error of an accelerator, before any start.

    An engine's program has no size of its input: it takes what INPUT_BYTES says.
    """
    length = IMAGE.input_bytes
    for wrong in (1, length - 1, length + 1, 2 * length):
        await host.do("load", IMAGE)
        await host.ports.write(Register.INPUT_BYTES, wrong)
        data = packet(Kind.ACTIVATIONS, wrong, (2 * INPUTS[0])[:wrong])
        await host.ports.send(data)
        await ClockCycles(host.dut.aclk, 2 * length + 50)
        if JOB["core"] == Core.ACCELERATOR:
            await host.fails(ErrorCode.RANGE, 0, "check")
            assert await host.ports.read(Register.ERROR) >> 8 == Space.IMAGE
        else:
            assert await host.do("status") & Status.ACTIVATIONS
        await host.do("reset")


@bench(seed=6)
async def a_core_that_hangs_is_found(host: Host) -> None:
    """The watchdog: a limit that is too small for the layer stops it; a slow host does not."""
    await host.ports.write(Register.WATCHDOG, JOB["first_output"] // 2)
    await host.do("load", IMAGE)
    await host.do("load_activations", INPUTS[0])
    await host.do("start")
    await host.fails(ErrorCode.WATCHDOG, 0, "wait")
    await host.do("reset")
    await host.ports.write(Register.WATCHDOG, JOB["first_output"] + 100)
    await host.do("load", IMAGE)
    await host.do("load_activations", INPUTS[0])
    host.ports.sink.pause = True
    await host.do("start")
    await ClockCycles(host.dut.aclk, 10 * JOB["cycles"])
    host.ports.sink.pause = False
    await host.do("wait")
    assert await host.do("read") == OUTPUTS[0]


async def work(host: Host) -> None:
    """Do a host's work without end, for a reset to come in between."""
    while True:
        await host.ports.write(Register.INPUT_BYTES, IMAGE.input_bytes)
        await host.ports.write(Register.OUTPUT_BYTES, IMAGE.output_bytes)
        await host.ports.send(IMAGE.program)
        await host.ports.send(IMAGE.cells)
        await host.ports.send(packet(Kind.ACTIVATIONS, IMAGE.input_bytes, INPUTS[0]))
        await ClockCycles(host.dut.aclk, 20)
        await host.ports.write(Register.CONTROL, Control.START)
        while not await host.ports.read(Register.STATUS) & Status.DONE:
            await ClockCycles(host.dut.aclk, 5)


RESETS = JOB["resets"]
"""Resets of each kind, at cycles drawn from a load and a run."""


async def interrupted(host: Host, draw: random.Random) -> None:
    """Work until some cycle; leaves the source in the middle of whatever it sends."""
    # Cells of the layer are few: half of the draws are of the run.
    span = JOB["load_cycles"] + JOB["cycles"]
    task = cocotb.start_soon(work(host))
    await ClockCycles(host.dut.aclk, draw.randrange(1, 3 * span))
    task.cancel()
    # Accesses that were begun end by themselves.
    await host.ports.registers.wait()


@bench(stall=0.2, seed=7)
async def a_soft_reset_in_any_cycle(host: Host) -> None:
    """The source goes on to the end of its packet, which the shell discards."""
    draw = random.Random(7)
    for _ in range(RESETS):
        await interrupted(host, draw)
        await host.do("reset")
        await host.ports.source.wait()
        await ClockCycles(host.dut.aclk, 20)
        await host.do("reset")
        await host.right(draw.randrange(len(INPUTS)))


@bench(stall=0.2, seed=8)
async def a_soft_reset_with_the_packet_dropped(host: Host) -> None:
    """The source stops where it is, as a DMA engine that is reset, and begins another packet."""
    draw = random.Random(8)
    source = host.ports.source
    for _ in range(RESETS):
        await interrupted(host, draw)
        source.clear_pause_generator()
        source.pause = True
        while host.dut.s_axis_tvalid.value:
            await RisingEdge(host.dut.aclk)
        source.assert_reset(True)
        source.clear()
        source.assert_reset(False)
        source.pause = False
        await host.do("reset", drop_packet=True)
        await host.right(draw.randrange(len(INPUTS)))


@bench(stall=0.2, seed=9)
async def a_reset_in_any_cycle(host: Host) -> None:
    """The reset of the whole shell, and of the agents at its ports."""
    draw = random.Random(9)
    for _ in range(RESETS):
        task = cocotb.start_soon(work(host))
        await ClockCycles(host.dut.aclk, draw.randrange(1, 3 * JOB["cycles"]))
        task.cancel()
        host.ports.source.clear()
        await host.ports.reset(draw.randrange(1, 4))
        host.ports.sink.clear()
        await host.open()
        await host.right(draw.randrange(len(INPUTS)))


@bench()
async def the_driver_says_what_is_wrong(host: Host) -> None:
    """Use of the driver out of turn, and hardware that does not end."""
    error = await host.error(DriverError, host.do("start"))
    assert "to be loaded before" in str(error)
    await host.do("load", IMAGE)
    await host.do("load_activations", INPUTS[0])
    host.ports.sink.pause = True
    await host.do("start")
    assert host.driver is not None
    host.driver.timeout = 0.02
    error = await host.error(DriverError, host.do("wait"))
    assert "to end within" in str(error)
    host.driver.timeout = 2.0
    host.ports.sink.pause = False
    await host.do("wait")
    assert await host.do("read") == OUTPUTS[0]


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def the_rules_of_axi_can_be_broken(dut: Any) -> None:
    """The checkers find a VALID that falls, one in reset, and a payload that changes."""
    Clock(dut.aclk, 2, unit="ns", impl="gpi").start()
    ports = Ports(dut)
    await ports.reset()
    assert not ports.broken()
    for channel in range(7):
        # Seen as VALID without READY for a cycle, or, where READY is up, in reset.
        dut.tamper.value = 1 << channel
        dut.aresetn.value = 0
        await ClockCycles(dut.aclk, 2)
        dut.tamper.value = 0
        dut.aresetn.value = 1
        await ClockCycles(dut.aclk, 2)
    found = ports.broken()
    for channel in ("AW", "W", "B", "AR", "R", "load stream", "output stream"):
        assert f"{channel}: VALID during reset" in found, found
    sinks = (ports.registers.write_if.b_channel, ports.registers.read_if.r_channel, ports.sink)
    for sink in sinks:
        sink.pause = True
    await ClockCycles(dut.aclk, 4)
    for channel, name in ((2, "B"), (4, "R"), (6, "output stream")):
        dut.tamper.value = 1 << channel
        await ClockCycles(dut.aclk, 2)
        dut.tamper.value = 0
        await ClockCycles(dut.aclk, 2)
        assert f"{name}: VALID fell before READY" in ports.broken(), ports.broken()
        # VALID for three cycles, with another payload in the second.
        dut.tamper.value = 1 << channel
        await ClockCycles(dut.aclk, 2)
        assert f"{name}: payload changed before READY" not in ports.broken()
        dut.twist.value = 1 << channel
        await ClockCycles(dut.aclk, 1)
        dut.twist.value = 0
        await ClockCycles(dut.aclk, 1)
        dut.tamper.value = 0
        await ClockCycles(dut.aclk, 2)
        assert f"{name}: payload changed before READY" in ports.broken(), ports.broken()
