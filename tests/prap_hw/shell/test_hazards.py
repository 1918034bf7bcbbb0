"""Hazards of rare cycles in the host shell, each with the mutant that its test rejects.

A packet behind two soft resets, the end of a run before its last beat, two errors in one cycle, a
bad packet about a soft reset and before another, and what a sender sees during reset.
"""

from collections.abc import Callable
from typing import Any

import pytest
from amaranth.sim import Simulator

from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Space
from prap_hw.driver.packets import BEAT
from prap_hw.driver.registers import (
    Control,
    ErrorCode,
    IrqEnable,
    IrqPending,
    Register,
    Status,
)
from prap_hw.shell import host_shell
from tests.support.rtl.mutants import Mutant, apply
from tests.support.rtl.standing_core import OUTPUTS, PACE, PACKETS, RIGHT, Host

SOFT, DROP = Control.SOFT_RESET, Control.DROP_PACKET


async def pause(host: Host, cycles: int) -> None:
    for _ in range(cycles):
        await host.tick()


async def put(host: Host, data: bytes) -> None:
    """Send beats of which none is the last of its packet."""
    port = host.shell.s_axis
    for at in range(0, len(data), BEAT):
        host.ctx.set(port.tdata, int.from_bytes(data[at : at + BEAT], "little"))
        host.ctx.set(port.tkeep, 255)
        host.ctx.set(port.tlast, 0)
        host.ctx.set(port.tvalid, 1)
        while not host.ctx.get(port.tready):
            await host.tick()
        await host.tick()
    host.ctx.set(port.tvalid, 0)


def check_drop() -> None:
    """A packet that is broken off anywhere, two soft resets, and a whole packet behind them.

    STATUS.loading is high with the broken packet, and low behind the first reset, which drops it.
    """

    async def bench(host: Host) -> None:
        for beats in range(1, len(PACKETS[0]) // BEAT):
            for wait in range(4):
                await put(host, PACKETS[0][: BEAT * beats])
                await pause(host, wait)
                assert wait < 3 or await host.read(Register.STATUS) == Status.LOADING
                await host.write(Register.CONTROL, SOFT | DROP)
                assert not await host.read(Register.STATUS)
                await host.write(Register.CONTROL, SOFT)
                assert not await host.read(Register.STATUS)
                await host.send(PACKETS[0])
                await pause(host, 12)
                assert await host.read(Register.STATUS) == Status.PROGRAM, (beats, wait)
                await host.write(Register.CONTROL, SOFT)
        await host.recover()

    Host().run(bench)


def check_discard() -> None:
    """The same without the drop: the rest of the packet is discarded, and it alone."""

    async def bench(host: Host) -> None:
        for beats in range(1, len(PACKETS[0]) // BEAT):
            await put(host, PACKETS[0][: BEAT * beats])
            await pause(host, 4)
            await host.write(Register.CONTROL, SOFT)
            assert await host.read(Register.STATUS) == Status.LOADING
            await host.write(Register.CONTROL, SOFT)
            await host.send(PACKETS[0][BEAT * beats :])
            await pause(host, 12)
            assert not await host.read(Register.STATUS)
            await host.send(PACKETS[0])
            await pause(host, 12)
            assert await host.read(Register.STATUS) == Status.PROGRAM
            await host.write(Register.CONTROL, SOFT)
        await host.recover()

    Host().run(bench)


def check_done() -> None:
    """STATUS.done and the interrupt come with the last beat taken and not before."""

    async def bench(host: Host) -> None:
        for held in range(BEAT // 2):
            await host.begin()
            await host.write(Register.IRQ_ENABLE, IrqEnable.DONE)
            # The host takes all beats but the last, and in the first round all but two of them.
            wanted = OUTPUTS // BEAT - (held == 0)
            while len(host.beats) < BEAT * wanted:
                await host.tick()
            host.ready = False
            for _ in range(PACE * OUTPUTS + 20):
                assert not host.ctx.get(host.shell.irq)
                await host.tick()
            waits = Status.BUSY | Status.OUTPUT_WAITS | Status.PROGRAM | Status.CELLS
            assert await host.read(Register.STATUS) == waits
            assert not await host.read(Register.IRQ_PENDING)
            while not host.packets:
                assert not host.ctx.get(host.shell.irq)
                host.ready = not host.ready or held % 2 == 1
                await host.tick()
            assert host.packets == [(RIGHT, 0)]
            host.ready = True
            await pause(host, 3)
            assert host.ctx.get(host.shell.irq)
            assert await host.read(Register.STATUS) == Status.DONE | Status.PROGRAM | Status.CELLS
            await host.write(Register.CONTROL, SOFT)
            await host.write(Register.IRQ_PENDING, IrqPending.DONE)
            host.packets.clear()

    Host().run(bench)


def fault(host: Host, step: int) -> None:
    kind, space = (Fault.RANGE, Space.WORD) if step == 0 else (Fault.NONE, Space.REGISTER)
    host.ctx.set(host.shell.inject, {"kind": kind, "space": space})


def start(host: Host, step: int) -> None:
    axi, on = host.shell.s_axi, step == 0
    values = (axi.awaddr, Register.CONTROL), (axi.wdata, Control.START), (axi.wstrb, 15)
    for signal, value in (*values, (axi.bready, 1), (axi.awvalid, on), (axi.wvalid, on)):
        host.ctx.set(signal, value)


def bad_packet(host: Host, step: int) -> None:
    """A good word and, in the second one, a beat with a hole: an error of item 1."""
    port, bad = host.shell.s_axis, len(PACKETS[0]) // BEAT - 2
    beat = int.from_bytes(PACKETS[0][BEAT * step : BEAT * (step + 1)], "little")
    values = (port.tdata, beat), (port.tkeep, 255 if step < bad else 15), (port.tlast, step == bad)
    for signal, value in (*values, (port.tvalid, step <= bad)):
        host.ctx.set(signal, value)


Causes = dict[ErrorCode, Callable[[Host, int], None] | dict[Register, int]]
"""Causes of errors, the one first that comes before the others: what is done from a cycle on, or
what is set before a run, which then comes to the error by itself. During a run a packet waits."""

RUNNING: Causes = {
    ErrorCode.RANGE: fault,
    ErrorCode.START_BUSY: start,
    ErrorCode.OUTPUT_LENGTH: {Register.OUTPUT_BYTES: 10},
    ErrorCode.WATCHDOG: {Register.WATCHDOG: 2},
}
IDLE: Causes = {
    ErrorCode.RANGE: fault,
    ErrorCode.START_UNREADY: start,
    ErrorCode.KEEP: bad_packet,
}
"""Those while nothing is loaded."""

LATER = 20
"""Cycle of a cause that does not come by itself, where it comes alone."""


async def let(host: Host, causes: Causes, at: dict[ErrorCode, int]) -> tuple[int, tuple[int, ...]]:
    """Let errors come, each cause in its cycle; a run, if there is one, begins in cycle 0.

    Returns
    -------
    The cycle of the error; its code, space and item.
    """
    settings = {Register.WATCHDOG: 1 << 28}
    for code in at:
        found = causes[code]
        settings |= found if isinstance(found, dict) else {}
    if causes is RUNNING:
        await host.load()
        for register, value in settings.items():
            await host.write(register, value)
    seen = -1
    for cycle in range(80):
        if causes is RUNNING and cycle < 2:
            start(host, cycle)
        for code, begin in at.items():
            act = causes[code]
            if not isinstance(act, dict) and begin <= cycle < begin + 6:
                act(host, cycle - begin)
        await host.tick()
        if seen < 0 and host.ctx.get(host.shell.core_reset):
            seen = cycle
    error = await host.read(Register.ERROR)
    item = await host.read(Register.ERROR_ITEM)
    await host.write(Register.CONTROL, SOFT)
    await pause(host, 3)
    return seen, (error & 0xFF, error >> 8, item)


def check_order(*among: ErrorCode) -> None:
    """Each error alone, and then each two of them in one cycle: the first of the two counts."""

    async def bench(host: Host) -> None:
        pairs = 0
        for causes in (RUNNING, IDLE):
            codes = [code for code in causes if not among or code in among]
            alone = {code: await let(host, causes, {code: LATER}) for code in codes}
            assert [found[0] for _, found in alone.values()] == codes
            for n, first in enumerate(codes):
                for second in codes[n + 1 :]:
                    own = [c for c in (first, second) if isinstance(causes[c], dict)]
                    if len(own) == 2:
                        continue  # Each comes in a cycle of its own.
                    # Where one comes by itself, the other is moved to its cycle.
                    end = alone[own[0]][0] if own else alone[first][0]
                    at = {c: LATER + (c not in own) * (end - alone[c][0]) for c in (first, second)}
                    cycle, (code, space, item) = await let(host, causes, at)
                    assert (cycle, code) == (end, first), (first, second)
                    assert space == alone[first][1][1]
                    # Of a run as many outputs as there were by then, of a packet its item.
                    assert item == (alone[own[0]][1][2] if own else alone[first][1][2])
                    pairs += 1
        assert pairs == 8 or among

    Host().run(bench)


def check_bad_packet_about_a_reset() -> None:
    """A bad packet in any cycle about a soft reset: an error behind it, or none, and never both.

    With the drop, the packet's own rest is the beginning of one that is none, and an error.
    """

    async def bench(host: Host) -> None:
        for command in (SOFT, SOFT | DROP):
            codes = []
            for reset in range(14):
                for cycle in range(20):
                    begin = cycle - 6
                    if 0 <= begin < 5:
                        bad_packet(host, begin)
                    start(host, cycle - reset)
                    host.ctx.set(host.shell.s_axi.wdata, command)
                    await host.tick()
                codes.append((await host.read(Register.ERROR), await host.read(Register.STATUS)))
                await host.write(Register.CONTROL, SOFT)
                await pause(host, 2)
            # The reset comes before the packet, within it, and in or behind the cycle of finding.
            before, within = (4, 3) if command & DROP else (6, 0)
            expected = [ErrorCode.KEEP] * before + [ErrorCode.HEADER] * within
            expected += [ErrorCode.NONE] * (len(codes) - len(expected))
            assert codes == [(code, Status.ERROR if code else 0) for code in expected]
        await host.recover()

    Host().run(bench)


def check_packet_behind_a_bad_one() -> None:
    """Of a packet right behind a bad one nothing is taken: what was loaded stays loaded."""

    async def bench(host: Host) -> None:
        await host.load()
        for pause_between in range(4):
            await host.send(bytes(BEAT))
            await pause(host, pause_between)
            await host.send(PACKETS[0])
            await pause(host, 4)
            # What might be new cells is bad, and the cells before it are gone; the program stays.
            assert await host.read(Register.STATUS) == Status.PROGRAM | Status.ERROR
            assert await host.read(Register.ERROR) == ErrorCode.HEADER
            await host.write(Register.CONTROL, SOFT)
            await host.load()
        await host.recover()

    Host().run(bench)


def check_ready_in_reset() -> None:
    """While ``aresetn`` is low no VALID and no READY is high; every READY is in the cycle after."""
    top: Any = host_shell.ShellTop(Host().shell)
    readies = [top.s_axi_awready, top.s_axi_wready, top.s_axi_arready, top.s_axis_tready]
    valids = [top.s_axi_bvalid, top.s_axi_rvalid, top.m_axis_tvalid]
    simulator = Simulator(top)

    async def testbench(ctx: Any) -> None:
        async def edge() -> None:
            await ctx.delay(1e-6)
            ctx.set(top.aclk, 1)
            await ctx.delay(1e-6)
            ctx.set(top.aclk, 0)

        senders = (top.s_axi_awvalid, top.s_axi_wvalid, top.s_axi_arvalid, top.s_axis_tvalid)
        for sending in (0, 1, 1):
            for valid in senders:
                ctx.set(valid, sending)
            ctx.set(top.aresetn, 0)
            for _ in range(3):
                await ctx.delay(1e-7)
                assert not any(ctx.get(port) for port in (*readies, *valids))
                await edge()
            ctx.set(top.aresetn, 1)
            await ctx.delay(1e-7)
            assert all(ctx.get(port) for port in readies)
            # Answers wait, since nobody takes them, when the next reset comes.
            for _ in range(4):
                await edge()
            assert not sending or (ctx.get(top.s_axi_bvalid) and ctx.get(top.s_axi_rvalid))

    simulator.add_testbench(testbench)
    simulator.run()


CHECKS: dict[str, Callable[[], None]] = {
    "the next packet is taken after two soft resets": check_drop,
    "the rest of a packet alone is discarded": check_discard,
    "a run ends with its last beat taken": check_done,
    "of two errors in one cycle the first of the order counts": check_order,
    "a bad packet about a soft reset": check_bad_packet_about_a_reset,
    "a packet behind a bad one is discarded": check_packet_behind_a_bad_one,
    "no READY during reset": check_ready_in_reset,
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_in_every_cycle(check):
    check()


E = ErrorCode
MUTANTS: list[tuple[str, str, str, str, Callable[[], None]]] = [
    (
        "packet_reader",
        "a drop leaves the reader inside the packet",
        "                m.d.sync += inside.eq(0)\n",
        "                pass\n",
        check_drop,
    ),
    (
        "packet_reader",
        "a drop leaves the reader discarding",
        "with m.If(ended | (self.forget & self.drop)):",
        "with m.If(ended):",
        check_drop,
    ),
    (
        "packet_reader",
        "a soft reset forgets that a packet is on",
        "ended = Mux(taken, beat.last, ~inside)",
        "ended = Mux(taken, beat.last, 1)",
        check_discard,
    ),
    (
        "packet_reader",
        "STATUS.loading is low between the beats of a packet",
        "self.loading.eq((state != State.HEADER) | inside)",
        "self.loading.eq((state != State.HEADER) & ~inside)",
        check_drop,
    ),
    (
        "host_shell",
        "beats that wait outlive the drop",
        "ResetInserter(forget & drop)(buffer := StreamBuffer())",
        "ResetInserter(Signal())(buffer := StreamBuffer())",
        check_drop,
    ),
    (
        "packet_writer",
        "done before the last beat is offered",
        "self.idle.eq(~axi.tvalid & ~aborting & ~finishing)",
        "self.idle.eq(~axi.tvalid & ~aborting)",
        check_done,
    ),
    (
        "packet_writer",
        "done before the last beat is taken",
        "self.idle.eq(~axi.tvalid & ~aborting & ~finishing)",
        "self.idle.eq(~aborting & ~finishing)",
        check_done,
    ),
    (
        "host_shell",
        "done with the end of the core",
        "with m.Case(Phase.DELIVER), m.If(writer.idle):",
        "with m.Case(Phase.DELIVER):",
        check_done,
    ),
    (
        "host_shell",
        "the end of a run ends the next",
        "excess.eq(0), ended.eq(0)]",
        "excess.eq(0)]",
        check_done,
    ),
    (
        "host_shell",
        "a packet's error before a fault",
        "code.eq(Mux(fault, fault_code, reader.code))",
        "code.eq(Mux(reader.error, reader.code, fault_code))",
        lambda: check_order(E.RANGE, E.KEEP),
    ),
    (
        "host_shell",
        "a packet's item with the code of a fault",
        "item.eq(Mux(fault, Mux(running, writer.count, 0), reader.item))",
        "item.eq(Mux(reader.error, reader.item, Mux(running, writer.count, 0)))",
        lambda: check_order(E.RANGE, E.KEEP),
    ),
    (
        "host_shell",
        "a start out of turn before a fault",
        "with m.If(core_fault), m.Switch(core.fault.kind):",
        "with m.If(core_fault & ~file.CONTROL_start), m.Switch(core.fault.kind):",
        lambda: check_order(E.RANGE, E.START_BUSY, E.START_UNREADY),
    ),
    (
        "host_shell",
        "the length of a run before a start out of turn",
        'with m.If(running):\n                fail("START_BUSY")',
        'with m.If(running), m.If(~excess):\n                fail("START_BUSY")',
        lambda: check_order(E.START_BUSY, E.OUTPUT_LENGTH),
    ),
    (
        "packet_reader",
        "a packet's error outlives a soft reset",
        "self.error.eq(failed & ~self.forget)",
        "self.error.eq(failed)",
        check_bad_packet_about_a_reset,
    ),
    (
        "host_shell",
        "a packet behind a bad one is looked at",
        "reader.halt.eq(error | reader.error)",
        "reader.halt.eq(error)",
        check_packet_behind_a_bad_one,
    ),
    (
        "host_shell",
        "READY during reset",
        'name.endswith(("valid", "ready"))',
        'name.endswith("valid")',
        check_ready_in_reset,
    ),
    (
        "host_shell",
        "VALID during reset",
        'name.endswith(("valid", "ready"))',
        'name.endswith("ready")',
        check_ready_in_reset,
    ),
]


@pytest.mark.parametrize(
    ("module", "what", "old", "new", "check"), MUTANTS, ids=[f"{m[0]}-{m[1]}" for m in MUTANTS]
)
def test_the_check_rejects_its_mutant(module, what, old, new, check, monkeypatch):
    apply(monkeypatch, Mutant(module, what, ((old, new),), ""))
    with pytest.raises(AssertionError):
        check()
