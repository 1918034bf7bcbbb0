"""Outputs of a core into a packet for the host."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.shell.axi_stream import BYTES, axi_stream


class PacketWriter(wiring.Component):
    """Put the outputs of a run into one packet, eight to a beat, the first in the low bits.

    The beat with the last of the ``expected`` outputs is held until ``finish``, so that a run that
    goes wrong to the end never looks right: TUSER of the last beat is 0 for a good packet only. On
    ``abort`` a packet of which a beat was offered ends with one more beat of one byte, TLAST and
    TUSER; of one that was not, nothing is seen. Once VALID is up, it and the beat stay until READY.

    An output is taken in one cycle, and eight follow each other without a pause as long as the host
    takes a beat within eight cycles. ``i.ready`` and the port depend on no input within the cycle.

    Members
    -------
    i : ``In(stream.Signature(8))``
        Outputs.
    expected : ``In(32)``
        Outputs of a run; it stands still from the cycle before ``begin`` on.
    begin : ``In(1)``
        Pulse: a run begins.
    finish : ``In(1)``
        Pulse: the run has ended with the right number of outputs.
    abort : ``In(1)``
        Pulse: the run was stopped.
    count : ``Out(32)``
        Outputs taken since ``begin``.
    complete : ``Out(1)``
        Whether these are as many as expected.
    idle : ``Out(1)``
        Whether the host has all there is.
    axi : ``Out(axi_stream(user=True))``
        The port.
    """

    i: stream.Interface
    expected: Signal
    begin: Signal
    finish: Signal
    abort: Signal
    count: Signal
    complete: Signal
    idle: Signal
    axi: Any

    def __init__(self):
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                "expected": In(32),
                "begin": In(1),
                "finish": In(1),
                "abort": In(1),
                "count": Out(32),
                "complete": Out(1),
                "idle": Out(1),
                "axi": Out(axi_stream(user=True)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        axi = self.axi
        filling = [Signal(8, name=f"byte_{k}") for k in range(BYTES)]
        filled = Signal(range(BYTES + 1))
        # A beat of the packet was offered and its last one was not.
        opened = Signal()
        finishing = Signal()
        aborting = Signal()
        move = Signal()
        more = Signal()
        full = Signal()
        closing = Signal()
        start = Signal(range(BYTES))
        took = Signal()
        m.d.comb += [
            full.eq(filled == BYTES),
            self.complete.eq(~more),
            move.eq(~axi.tvalid & ~aborting & (finishing | (full & more))),
            closing.eq(~axi.tvalid & aborting),
            # A beat that is full moves on, or is held as the last: then there is no output to come.
            self.i.ready.eq(~full | move),
            took.eq(self.i.valid & self.i.ready),
            start.eq(Mux(move, 0, filled)),
            self.idle.eq(~axi.tvalid & ~aborting & ~finishing),
        ]
        with m.If(axi.tready):
            m.d.sync += axi.tvalid.eq(0)
        with m.If(move | closing):
            m.d.sync += [
                axi.tvalid.eq(1),
                axi.tdata.eq(Mux(closing, 0, Cat(*filling))),
                axi.tkeep.eq(Mux(closing, 1, Cat(filled > byte for byte in range(BYTES)))),
                axi.tlast.eq(closing | finishing),
                axi.tuser.eq(closing),
            ]
        with m.If(closing):
            m.d.sync += aborting.eq(0)
        with m.If(move):
            m.d.sync += [filled.eq(0), finishing.eq(0), opened.eq(~finishing)]
        with m.If(took):
            m.d.sync += [filled.eq(start + 1), self.count.eq(self.count + 1)]
            with m.Switch(start):
                for byte in range(BYTES):
                    with m.Case(byte):
                        m.d.sync += filling[byte].eq(self.i.payload)
        with m.If(self.finish):
            m.d.sync += finishing.eq(1)
        with m.If(self.abort):
            still_open = Mux(move, ~finishing, opened)
            m.d.sync += [
                finishing.eq(0),
                aborting.eq(still_open | (aborting & ~closing)),
                opened.eq(0),
                filled.eq(0),
            ]
        # Known a cycle before it is asked for: so wide a comparison must not hold up what comes.
        m.d.sync += more.eq(Mux(took, self.count + 1 != self.expected, self.count != self.expected))
        with m.If(self.begin):
            m.d.sync += [filled.eq(0), self.count.eq(0), more.eq(self.expected != 0)]
        return m
