"""AXI4-Stream: the ports, and a buffer that keeps READY apart from VALID."""

from typing import Any

from amaranth import Cat, Module
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

BYTES = 8
"""Bytes of a beat. 64 bits carry a program word in two beats and eight activations in one; DMA
engines have this width, and one of another stands before a width converter."""

BEAT = data.StructLayout({"data": 8 * BYTES, "keep": BYTES, "last": 1})
"""A beat as it passes between components."""


def axi_stream(*, user: bool = False) -> wiring.Signature:
    """AXI4-Stream of 64 bits, as its source sees it; ``user`` adds a TUSER of one bit."""
    members: dict[str, Any] = {
        "tdata": Out(8 * BYTES),
        "tkeep": Out(BYTES),
        "tlast": Out(1),
        "tvalid": Out(1),
        "tready": In(1),
    }
    if user:
        members["tuser"] = Out(1)
    return wiring.Signature(members)


class StreamBuffer(wiring.Component):
    """Take beats from AXI4-Stream into a small first-in, first-out buffer.

    A beat passes in two cycles at least; throughput is one a cycle. ``axi.tready`` depends on no
    input within the cycle, and neither does ``o``. Reset empties the buffer.

    Members
    -------
    axi : ``In(axi_stream())``
        The port.
    o : ``Out(stream.Signature(BEAT))``
        Beats, in order.
    """

    axi: Any
    o: stream.Interface

    def __init__(self, depth: int = 4):
        self.depth = depth
        super().__init__({"axi": In(axi_stream()), "o": Out(stream.Signature(BEAT))})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.beats = beats = fifo.SyncFIFOBuffered(width=BEAT.size, depth=self.depth)
        m.d.comb += [
            beats.w_data.eq(Cat(self.axi.tdata, self.axi.tkeep, self.axi.tlast)),
            beats.w_en.eq(self.axi.tvalid & self.axi.tready),
            self.axi.tready.eq(beats.w_rdy),
            self.o.valid.eq(beats.r_rdy),
            self.o.payload.eq(beats.r_data),
            beats.r_en.eq(self.o.ready),
        ]
        return m
