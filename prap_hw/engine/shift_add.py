"""Shift-and-add: ADC codes of bit columns and input digits become signed partial sums."""

from amaranth import Array, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.layouts import Layouts
from refmodel.config import EngineConfig


class ShiftAdd(wiring.Component):
    """Weigh the codes of each answer by column and digit, and add up each weight pattern.

    An answer has ``adcs`` codes of consecutive columns of one OU: of one pattern, or of several
    that lie side by side. A code of column j of a weight counts ``2**(cell_bits * j)``, with 1-bit
    cells -128 in column 7 (two's complement), times ``2**(dac_bits * digit)``. With offset binary,
    in cells of more bits, a pattern's sum begins at -128 times the sum of the vector's inputs. With
    pairs codes have a sign, and all columns count positively.

    The sums of the patterns that end with an answer are at ``o`` three cycles later, all of them
    at once; throughput is one answer per cycle. ``o`` has no ready: the store always accepts.
    ``i_response.ready`` depends combinationally on ``i_pending.valid``, and ``i_pending.ready`` on
    ``i_response.valid``. Reset empties the pipeline. Codes of converters beyond the columns in use
    are ignored.

    Members
    -------
    i_response : ``In(stream.Signature(response))``
        From the crossbar port: codes, in the order of requests.
    i_pending : ``In(stream.Signature(pending))``
        The request that each answer belongs to, in the same order.
    o : ``Out(stream.Signature(psum, always_ready=True))``
        Sums of one gather each, for consecutive slots, and whether to add to the slots and whether
        they are then complete.
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
        columns = layouts.columns
        cell, width = config.cell_bits, columns.width

        m.d.comb += [
            self.i_response.ready.eq(self.i_pending.valid),
            self.i_pending.ready.eq(self.i_response.valid),
        ]
        code = layouts.response.elem_shape
        codes = [Signal(code, name=f"code_{j}") for j in range(config.adcs)]
        arrived = Signal()
        arrived_as = Signal(layouts.pending)
        m.d.sync += [
            arrived.eq(self.i_response.valid & self.i_pending.valid),
            arrived_as.eq(self.i_pending.payload),
        ]
        for j in range(config.adcs):
            m.d.sync += codes[j].eq(self.i_response.payload[j])

        # Columns of each pattern in one answer. Largest magnitude: a code in every column, and the
        # columns of a pattern count at most 2^(cell * columns) - 1 together.
        used = config.adcs if columns.narrow else width
        shape = signed(config.code_bits + cell * used + 1)
        parts = []
        for piece in range(columns.pieces):
            if columns.narrow:
                taken: list[Value] = list(codes)
                negative = arrived_as.top if config.twos_complement else None
            else:
                # Each column of the pattern has its code from the converter that it has come to.
                taken = [
                    self._column(codes, piece * width + column, arrived_as)
                    for column in range(width)
                ]
                negative = Const(1) if config.twos_complement else None
            top = Signal(signed(config.code_bits + 1), name=f"top_{piece}")
            weighted = Signal(shape, name=f"weighted_{piece}")
            last = taken[-1]
            m.d.comb += [
                top.eq(last if negative is None else Mux(negative, -last, last)),
                weighted.eq(
                    sum((code << cell * j for j, code in enumerate(taken[:-1])), 0)
                    + (top << cell * (used - 1))
                ),
            ]
            part = Signal(shape, name=f"part_{piece}")
            m.d.sync += part.eq(weighted)
            parts.append(part)
        part_valid = Signal()
        part_as = Signal(layouts.pending)
        m.d.sync += [part_valid.eq(arrived), part_as.eq(arrived_as)]

        # Digits: what an OU adds up is within psum_range, so psum_width holds it.
        psum = signed(config.psum_width)
        sums = [Signal(psum, name=f"sum_{q}") for q in range(config.patterns_per_ou)]
        start = Signal(psum)
        if config.offset:
            # Fits: psum_range counts it.
            m.d.comb += start.eq(-(part_as.inputs * config.offset))
        lanes = {columns.lane(p, c) for p in columns.phases for c in range(columns.chunks)}
        for piece, part in enumerate(parts):
            before = Signal(psum, name=f"before_{piece}")
            added = Signal(psum, name=f"added_{piece}")
            here = sums[piece:]
            begins = part_as.first if piece == 0 else part_as.low
            old = here[0] if lanes == {0} else Array(here)[part_as.lane]
            m.d.comb += before.eq(Mux(begins, start, old))
            if piece == 0 and len(columns.phases) > 1:
                # The pattern goes on from the last lane of the OU before.
                with m.If(part_as.carry):
                    m.d.comb += before.eq(sums[-1])
            m.d.comb += added.eq(before + (part << part_as.scale))
            for lane in sorted(lanes):
                if lane + piece < len(sums):
                    with m.If(part_valid & (part_as.lane == lane)):
                        m.d.sync += sums[lane + piece].eq(added)
            if piece < columns.ends:
                done = Signal(psum, name=f"done_{piece}")
                m.d.sync += done.eq(added)
                m.d.comb += self.o.payload.sums[piece].eq(done)
        m.d.sync += [
            self.o.valid.eq(part_valid & (part_as.ended != 0)),
            self.o.payload.slot.eq(part_as.slot),
            self.o.payload.accumulate.eq(part_as.accumulate),
            self.o.payload.final.eq(part_as.final),
        ]
        for name in layouts.turns:
            m.d.sync += self.o.payload[name].eq(part_as[name])
        if columns.ends > 1:
            m.d.sync += self.o.payload.count.eq(part_as.ended)
        return m

    def _column(self, codes: list[Signal], column: int, pending: data.View) -> Value:
        """Code of a column, counted from the first one of the pattern of piece 0."""
        choices = [
            codes[column - align] if 0 <= column - align < counting else Const(0)
            for align, counting in self.layouts.columns.alignments
        ]
        return choices[0] if len(choices) == 1 else Array(choices)[pending.align]
