"""Shift-and-add: ADC codes of bit columns and input digits become signed partial sums."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.layouts import Layouts
from refmodel.config import EngineConfig


class ShiftAdd(wiring.Component):
    """Weigh the codes of each answer by bit and digit, and add up each weight pattern.

    An answer has ``adcs`` codes of consecutive bit columns of one pattern. Their weighted sum,
    ``sum(code[j] << j)`` with the sign column negative, is shifted by the first column's bit plus
    the digit and added to the pattern's sum. Two's complement: column 7 counts -128.

    A pattern's sum is at ``o`` three cycles after its last answer; throughput is one answer per
    cycle. ``o`` has no ready: the store always accepts. ``i_response.ready`` depends
    combinationally on ``i_pending.valid``, and ``i_pending.ready`` on ``i_response.valid``. Reset
    empties the pipeline.

    Members
    -------
    i_response : ``In(stream.Signature(response))``
        From the crossbar port: codes, in the order of requests.
    i_pending : ``In(stream.Signature(pending))``
        What each answer means.
    o : ``Out(stream.Signature(psum, always_ready=True))``
        Sums of one OU each: the slot, and whether to add to it and whether it is then complete.
    """

    i_response: stream.Interface
    i_pending: stream.Interface
    o: stream.Interface

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        super().__init__(
            {
                "i_response": In(stream.Signature(layouts.response)),
                "i_pending": In(stream.Signature(layouts.pending)),
                "o": Out(stream.Signature(layouts.psum, always_ready=True)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts = self.config, self.layouts
        adcs = config.adcs

        m.d.comb += [
            self.i_response.ready.eq(self.i_pending.valid),
            self.i_pending.ready.eq(self.i_response.valid),
        ]
        codes = [Signal(config.code_bits, name=f"code_{j}") for j in range(adcs)]
        arrived = Signal()
        arrived_as = Signal(layouts.pending)
        m.d.sync += [
            arrived.eq(self.i_response.valid & self.i_pending.valid),
            arrived_as.eq(self.i_pending.payload),
        ]
        for j in range(adcs):
            m.d.sync += codes[j].eq(self.i_response.payload[j])

        # Columns of one answer. Largest magnitude: max_code * 128 < 2^(code_bits + 7).
        top = Signal(signed(config.code_bits + 1))
        weighted = Signal(signed(config.code_bits + adcs + 1))
        low = sum((codes[j] << j for j in range(adcs - 1)), 0)
        m.d.comb += [
            top.eq(Mux(arrived_as.top, -codes[adcs - 1], codes[adcs - 1])),
            weighted.eq(low + (top << (adcs - 1))),
        ]
        part = Signal(signed(config.code_bits + adcs + 1))
        part_valid = Signal()
        part_as = Signal(layouts.pending)
        m.d.sync += [part.eq(weighted), part_valid.eq(arrived), part_as.eq(arrived_as)]

        # Digits: an OU's sum is within 255 * (-128 .. 127) * max_code, as psum_width has it.
        sums = [
            Signal(signed(config.psum_width), name=f"sum_{q}")
            for q in range(config.patterns_per_ou)
        ]
        shifted = Signal(signed(config.psum_width))
        m.d.comb += shifted.eq(part << part_as.scale)
        m.d.sync += self.o.valid.eq(part_valid & part_as.last)
        for q, total in enumerate(sums):
            with m.If(part_valid & (part_as.lane == q)):
                added = Signal(signed(config.psum_width), name=f"added_{q}")
                m.d.comb += added.eq(Mux(part_as.first, 0, total) + shifted)
                m.d.sync += [total.eq(added), self.o.payload.sum.eq(added)]
        m.d.sync += [
            self.o.payload.slot.eq(part_as.slot),
            self.o.payload.accumulate.eq(part_as.accumulate),
            self.o.payload.final.eq(part_as.final),
        ]
        return m
