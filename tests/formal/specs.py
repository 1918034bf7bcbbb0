"""What is proved, a specification to each component: with any inputs, in any cycle.

Inputs that are streams keep the rule of streams, and a reset may come in any cycle where it is said
so. Each specification has mutants that it rejects, in :data:`tests.formal.table.ROWS`.
"""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from amaranth import Cat, Module, Mux, Signal, hdl
from amaranth.hdl import Elaboratable, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In

from prap_hw.common.faults import FAULT
from prap_hw.common.layouts import Space
from prap_hw.driver.registers import CONFIGURATION, Core
from prap_hw.shell import axi_lite, axi_stream, host_shell, packet_reader, packet_writer
from prap_hw.shell.core import core_signature
from tests.support.rtl.standing_core import LIMITS


def elaborated(component: Any) -> tuple[Module, dict[str, Any]]:
    """Elaborate a component; what its method had in its local variables, by name.

    Induction needs what ties the states of a component to what was seen at its ports, and those
    are signals that the component shows to nobody.
    """
    code = type(component).elaborate.__code__
    found: dict[str, Any] = {}

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            found.update(frame.f_locals)

    component._MustUse__used = True  # Its module is, which Amaranth does not see.
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        module = component.elaborate(None)
    finally:
        sys.setprofile(before)
    return module, found


# Amaranth's types ask for a message, which is optional.
Assert: Any = hdl.Assert
Assume: Any = hdl.Assume


class Spec(Elaboratable):
    """A component with free inputs, and what is asserted of it.

    ``rst`` is an input like the others: the component and what watches it are reset together.
    """

    def __init__(self, dut: Any, inputs: list[Any]):
        self.dut = dut
        self.inputs = [Value.cast(signal) for signal in inputs]

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dut, self.inner = elaborated(self.dut)
        self.rules(m)
        return m

    def rules(self, m: Module) -> None:
        """Add assertions and assumptions."""

    def holds(
        self,
        m: Module,
        name: str,
        valid: Value,
        ready: Value,
        payload: Value,
        *,
        cut: Value | None = None,
        promised: bool = False,
    ) -> None:
        """Say that VALID, once up, stays with its payload until READY.

        Parameters
        ----------
        cut
            High in a cycle behind which nothing is owed.
        promised
            Whether it is an input, and the rule is assumed.
        """
        waits = Signal(name=f"{name}_waits")
        kept = Signal(len(payload), name=f"{name}_kept")
        over = Mux(cut, 0, 1) if cut is not None else 1
        m.d.sync += [waits.eq(valid & ~ready & over), kept.eq(payload)]
        say = Assume if promised else Assert
        with m.If(waits):
            m.d.comb += say(valid & (payload == kept))


def still(m: Module, value: Value, name: str, *, always: bool = False) -> None:
    """Promise that an input does not change, or (``always``) not in a reset either."""
    first = Signal(init=1, name=f"first_{name}", reset_less=always)
    kept = Signal(len(value), name=f"kept_{name}", reset_less=always)
    m.d.sync += [first.eq(0), kept.eq(value)]
    m.d.comb += Assume(first | (value == kept))


class Buffer(Spec):
    """Beats leave the buffer as they came: none is lost, doubled, changed or overtaken."""

    def __init__(self) -> None:
        dut = axi_stream.StreamBuffer(depth=3)
        self.picked = Signal()
        axi = dut.axi
        super().__init__(
            dut,
            [axi.tdata, axi.tkeep, axi.tlast, axi.tvalid, dut.o.ready, self.picked],
        )

    def rules(self, m: Module) -> None:
        dut = self.dut
        axi, out = dut.axi, dut.o
        payload = Cat(axi.tdata, axi.tkeep, axi.tlast)
        self.holds(m, "out", out.valid, out.ready, Value.cast(out.payload))
        came, left = Signal(), Signal()
        m.d.comb += [came.eq(axi.tvalid & axi.tready), left.eq(out.valid & out.ready)]
        inside = Signal(4)
        m.d.sync += inside.eq(inside + came - left)
        # One beat, any, is followed: how many are before it, and what it is.
        kept, ahead = Signal(payload.shape()), Signal(4)
        follows = Signal()
        with m.If(came & self.picked & ~follows):
            m.d.sync += [follows.eq(1), kept.eq(payload), ahead.eq(inside - left)]
        with m.Elif(follows & left):
            m.d.sync += [ahead.eq(ahead - 1), follows.eq(ahead != 0)]
        with m.If(follows & out.valid & (ahead == 0)):
            m.d.comb += Assert(Value.cast(out.payload) == kept)
        m.d.comb += [
            Assert(inside <= dut.depth),
            Assert(~left | (inside != 0)),
            Assert(~follows | (ahead < inside)),
        ]


class Writer(Spec):
    """The packet of outputs: AXI4-Stream, and its marks; abort and begin in any cycle."""

    def __init__(self) -> None:
        dut = packet_writer.PacketWriter()
        super().__init__(
            dut,
            [
                dut.i.valid,
                dut.i.payload,
                dut.expected,
                dut.begin,
                dut.finish,
                dut.abort,
                dut.axi.tready,
            ],
        )

    def rules(self, m: Module) -> None:
        axi, dut = self.dut.axi, self.dut
        payload = Cat(axi.tdata, axi.tkeep, axi.tlast, axi.tuser)
        self.holds(m, "axi", axi.tvalid, axi.tready, payload)
        # A good packet ends only where the run has, and TUSER comes with nothing but TLAST.
        ended = Signal()
        taken = axi.tvalid & axi.tready
        with m.If(axi.tvalid):
            m.d.comb += Assert(~axi.tuser | axi.tlast)
        # The end of a run owes a last beat until it was taken: it is not idle before.
        with m.If(self.dut.finish & ~dut.abort):
            m.d.sync += ended.eq(1)
        with m.Elif(dut.abort | (taken & axi.tlast & ~axi.tuser)):
            m.d.sync += ended.eq(0)
        with m.If(ended):
            m.d.comb += Assert(~dut.idle)
            last_offered = axi.tvalid & axi.tlast & ~axi.tuser
            m.d.comb += Assert(self.inner["finishing"] | last_offered)


class Registers(Spec):
    """AXI4-Lite: answers stay until taken, one to each access, none without."""

    def __init__(self) -> None:
        dut = axi_lite.AxiLiteSlave(12, 9)
        axi, bus = dut.axi, dut.bus
        super().__init__(
            dut,
            [axi.awaddr, axi.awvalid, axi.wdata, axi.wstrb, axi.wvalid, axi.bready, axi.araddr,
             axi.arvalid, axi.rready, bus.read_data, bus.read_error, bus.write_error],
        )  # fmt: skip

    def rules(self, m: Module) -> None:
        axi = self.dut.axi
        self.holds(m, "b", axi.bvalid, axi.bready, axi.bresp)
        self.holds(m, "r", axi.rvalid, axi.rready, Cat(axi.rdata, axi.rresp))
        counts = {}
        for name, event in (
            ("aw", axi.awvalid & axi.awready),
            ("w", axi.wvalid & axi.wready),
            ("b", axi.bvalid & axi.bready),
            ("ar", axi.arvalid & axi.arready),
            ("r", axi.rvalid & axi.rready),
        ):
            counts[name] = count = Signal(8, name=f"count_{name}")
            m.d.sync += count.eq(count + event)
        owed, owed_w, asked = Signal(8), Signal(8), Signal(8)
        m.d.comb += [
            owed.eq(counts["aw"] - counts["b"]),
            owed_w.eq(counts["w"] - counts["b"]),
            asked.eq(counts["ar"] - counts["r"]),
        ]
        # At most two of each are under way, and an answer belongs to an access that was whole.
        m.d.comb += [Assert(owed <= 2), Assert(owed_w <= 2), Assert(asked <= 2)]
        with m.If(axi.bvalid):
            m.d.comb += Assert((owed != 0) & (owed_w != 0))
        with m.If(axi.rvalid):
            m.d.comb += Assert(asked != 0)
        inner = self.inner
        m.d.comb += [
            Assert(owed == inner["address_taken"] + axi.bvalid),
            Assert(owed_w == inner["data_taken"] + axi.bvalid),
            Assert(asked == inner["read_taken"] + axi.rvalid),
        ]


ITEMS: dict[str, Any] = {
    "load": data.StructLayout({"space": Space, "addr": 24, "data": 64}),
    "cells": data.StructLayout({"row": 8}),
    "acts": data.StructLayout({"data": 8, "last": 1}),
}
"""What a core takes, of few bits."""


class Reader(Spec):
    """Items stay until the core takes them, but for a soft reset, a halt and the reset of all.

    A soft reset with drop brings the reader to the beginning of a packet at once, and nothing is
    loading then; one without does between packets. Nothing is offered on two streams.
    """

    def __init__(self) -> None:
        dut = packet_reader.PacketReader(**ITEMS, limits=LIMITS)
        super().__init__(
            dut,
            [dut.i.valid, dut.i.payload, dut.o_load.ready, dut.o_cells.ready, dut.o_acts.ready,
             dut.busy, dut.input_bytes, dut.used, dut.halt, dut.forget, dut.drop],
        )  # fmt: skip

    def rules(self, m: Module) -> None:
        dut = self.dut
        cut = dut.forget | dut.halt
        for name in ("o_load", "o_cells", "o_acts"):
            port = getattr(dut, name)
            self.holds(m, name, port.valid, port.ready, Value.cast(port.payload), cut=cut)
        offered = dut.o_load.valid + dut.o_cells.valid + dut.o_acts.valid
        m.d.comb += Assert(offered <= 1)
        # Whether a packet is on, as the port shows it.
        taken = dut.i.valid & dut.i.ready
        on = Signal()
        with m.If(taken):
            m.d.sync += on.eq(~dut.i.payload.last)
        with m.If(dut.forget & dut.drop):
            m.d.sync += on.eq(0)
        forgot = Signal()
        m.d.sync += forgot.eq(dut.forget)
        with m.If(forgot):
            m.d.comb += [
                Assert(dut.loading == on),
                Assert(~(dut.program | dut.cells | dut.activations)),
                Assert(offered == 0),
            ]
        with m.If(on):
            m.d.comb += Assert(dut.loading)
        m.d.comb += Assert(self.inner["inside"] == on)


class FreeCore(wiring.Component):
    """A core that does anything: what it shows are inputs."""

    i_load: Any
    i_cells: Any
    i_acts: Any
    start: Signal
    busy: Signal
    fault: Any
    o: Any
    counters: Any
    free: Any

    def __init__(self) -> None:
        members = core_signature(**ITEMS, output=data.StructLayout({"code": 8})).members
        shape = data.StructLayout({"ready": 3, "busy": 1, "fault": FAULT, "valid": 1, "code": 8})
        super().__init__({**members, "free": In(shape)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        free = self.free
        m.d.comb += [
            Cat(self.i_load.ready, self.i_cells.ready, self.i_acts.ready).eq(free.ready),
            self.busy.eq(free.busy),
            self.fault.eq(free.fault),
            self.o.valid.eq(free.valid),
            self.o.payload.code.eq(free.code),
        ]
        return m


class Shell(Spec):
    """The whole shell around a core that does anything, with soft resets in any cycle.

    AXI4-Lite and AXI4-Stream at its ports; an error holds the core in reset and no run goes on;
    STATUS.done rises only where the writer has nothing left, the interrupt of done with it, and a
    packet that ends without TUSER is offered for no run that was stopped before.
    """

    def __init__(self) -> None:
        sizes = dict.fromkeys(CONFIGURATION, 1)
        dut: Any = host_shell.HostShell(
            FreeCore(),
            kind=Core.ENGINE,
            limits=LIMITS,
            configuration=sizes,
        )
        axi, beats = dut.s_axi, dut.s_axis
        super().__init__(
            dut,
            [axi.awaddr, axi.awvalid, axi.wdata, axi.wstrb, axi.wvalid, axi.bready, axi.araddr,
             axi.arvalid, axi.rready, beats.tdata, beats.tkeep, beats.tlast, beats.tvalid,
             dut.m_axis.tready, dut.free],
        )  # fmt: skip

    def rules(self, m: Module) -> None:
        axi, out, inner = self.dut.s_axi, self.dut.m_axis, self.inner
        self.holds(m, "b", axi.bvalid, axi.bready, axi.bresp)
        self.holds(m, "r", axi.rvalid, axi.rready, Cat(axi.rdata, axi.rresp))
        payload = Cat(out.tdata, out.tkeep, out.tlast, out.tuser)
        self.holds(m, "m", out.tvalid, out.tready, payload)
        done, error, writer = inner["done"], inner["error"], inner["writer"]
        was_done, was_idle, was_error, offered = (Signal(name=f"was_{n}") for n in range(4))
        good = out.tvalid & out.tlast & ~out.tuser
        m.d.sync += [
            was_done.eq(done),
            was_idle.eq(writer.idle),
            was_error.eq(error),
            offered.eq(out.tvalid & ~out.tready),
        ]
        with m.If(done & ~was_done):
            m.d.comb += Assert(was_idle)
        with m.If(error):
            m.d.comb += [Assert(~inner["running"]), Assert(self.dut.core_reset), Assert(~done)]
        with m.If(was_error & ~offered):
            m.d.comb += Assert(~good)
        # What ties the writer to the run.
        module, within = elaborated(writer)
        writer.elaborate = lambda platform: module
        with m.If(within["finishing"]):
            m.d.comb += [Assert(inner["phase"] == host_shell.Phase.DELIVER), Assert(~error)]


Rule = Callable[[Any, dict[str, Any]], Value]


def streams(signature: Any, interface: Any) -> Iterator[tuple[str, bool, Any]]:
    """Name, whether it is an input, and interface of each stream, within ports of several too."""
    for name, member in signature.members.items():
        if member.is_port or member.dimensions:
            continue
        within = getattr(interface, name)
        if isinstance(member.signature, stream.Signature):
            yield name, member.flow == In, within
        else:
            yield from streams(member.signature, within)


class Ports(Spec):
    """Every stream that a component sends holds its payload; those that it takes are promised to.

    Parameters
    ----------
    dut
        The component.
    still
        Inputs that do not change, as registers of a layer during a run.
    cut
        An input that begins anew; nothing is owed behind it.
    environment
        What those who use the component keep to, from its members and local variables.
    invariant
        What holds within it, from the same: asserted, for the induction.
    """

    def __init__(
        self,
        dut: Any,
        *still: str,
        cut: str | None = None,
        environment: Rule | None = None,
        invariant: Rule | None = None,
    ):
        self.cut = None if cut is None else getattr(dut, cut)
        self.environment, self.invariant = environment, invariant
        self.still = [Value.cast(getattr(dut, name)) for name in still]
        self.streams = list(streams(dut.signature, dut))
        inputs = [value for _, member, value in dut.signature.flatten(dut) if member.flow == In]
        super().__init__(dut, inputs)

    def rules(self, m: Module) -> None:
        for name, into, port in self.streams:
            if not port.signature.always_ready:
                payload = Value.cast(port.payload)
                over = None if into else self.cut
                self.holds(m, name, port.valid, port.ready, payload, promised=into, cut=over)
        if self.environment is not None:
            m.d.comb += Assume(self.environment(self.dut, self.inner))
        if self.invariant is not None:
            m.d.comb += Assert(self.invariant(self.dut, self.inner))
        for number, value in enumerate(self.still):
            still(m, value, str(number))


class Moves(Ports):
    """Where all that a component gives is taken, all that it is given is taken within some cycles.

    Parameters
    ----------
    dut, still, cut, environment, invariant
        As for :class:`Ports`.
    within
        Cycles for which a payload waits, at most.
    """

    def __init__(self, dut: Any, *still: str, within: int, **more: Any):
        self.within = within
        super().__init__(dut, *still, **more)

    def rules(self, m: Module) -> None:
        super().rules(m)
        for name, into, port in self.streams:
            if port.signature.always_ready:
                continue
            if into:
                waits = Signal(range(self.within + 2), name=f"{name}_waited")
                m.d.sync += waits.eq(Mux(port.valid & ~port.ready, waits + 1, 0))
                m.d.comb += Assert(waits <= self.within)
            else:
                m.d.comb += Assume(port.ready)
