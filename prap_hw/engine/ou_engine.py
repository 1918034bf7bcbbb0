"""The OU engine: turns gathered vectors into conversion requests."""

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Layouts, Space
from refmodel.config import EngineConfig, bits_for


class OUEngine(wiring.Component):
    """Run the OUs of each gathered vector: digit after digit, column group after column group.

    For every OU under a vector: for every digit of the inputs, low digits first, one request for
    each ``adcs`` columns in use. OUs are numbered consecutively from the start of the position's
    program: column block fastest, then row block, then crossbar, from crossbar 0 or, with
    ``config.network``, ``first_crossbar`` on; behind a position's last gather comes OU 0 again.
    The patterns of a vector lie side by side from its first OU on, so that one may go on in the
    next OU; it has its slot in the OU in which it begins. Where blocks have several positions, a
    gather has a vector of each, one after another: every one goes through the gather's OUs, and its
    sums to slots of the same numbers, in a bank of its own.

    A request is at ``o_request`` one cycle after the vector was seen at ``i``; throughput is one
    request per cycle, without a dead cycle between OUs or vectors. The data that go with the answer
    are at ``o_pending`` in the cycle of issue. An OU in which patterns begin, and that adds to no
    open slots, waits until as many slots are free as ever begin in one. ``o_pending`` depends
    combinationally on ``i`` and ``o_request.ready``, and ``i.ready``, ``faults`` and the events on
    these and ``o_pending.ready``; ``o_request`` is a register. ``i.ready`` is high in the cycle of
    a vector's last issue. Reset empties the engine and frees all slots.

    A request to a crossbar that is not there is in ``faults`` in the cycle of its issue, and is not
    sent. Row and column blocks are counted, and need no check.

    Members
    -------
    i : ``In(stream.Signature(gathered))``
        Vectors.
    last_descriptor : ``In``
        Index of the last gather of a position.
    first_crossbar : ``In``, with ``config.network``
        Number of the crossbar at which the layer's OUs begin.
    released : ``In``
        Slots freed in this cycle.
    o_request : ``Out(stream.Signature(request))``
        To the crossbar port.
    o_pending : ``Out(stream.Signature(pending))``
        For each request, in order, the data that its answer is to be combined with.
    ou_done, stall_gather, stall_slots, stall_port : ``Out(1)``
        Events of this cycle: an OU's last request; no request because there was no vector, no
        free slot, or no room in the port or among the unanswered.
    driven, converted : ``Out``
        Rows and columns in use of the request that is issued in this cycle, else 0.
    faults : ``Out``, a bit to each of ``FAULTS``
        A request to a crossbar that is not there.
    """

    FAULTS = ((Fault.RANGE, Space.DESCRIPTOR),)

    i: stream.Interface
    last_descriptor: Signal
    first_crossbar: Signal
    released: Signal
    o_request: stream.Interface
    o_pending: stream.Interface
    ou_done: Signal
    stall_gather: Signal
    stall_slots: Signal
    stall_port: Signal
    driven: Signal
    converted: Signal
    faults: Signal

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        super().__init__(
            {
                "i": In(stream.Signature(layouts.gathered)),
                "last_descriptor": In(layouts.registers["last_descriptor"].shape),
                **(
                    {"first_crossbar": In(layouts.registers["first_crossbar"].shape)}
                    if config.network
                    else {}
                ),
                "released": In(bits_for(config.slots + 1)),
                "o_request": Out(stream.Signature(layouts.request)),
                "o_pending": Out(stream.Signature(layouts.pending)),
                "ou_done": Out(1),
                "stall_gather": Out(1),
                "stall_slots": Out(1),
                "stall_port": Out(1),
                "driven": Out(layouts.row_bits),
                "converted": Out(range(config.adcs + 1)),
                "faults": Out(len(self.FAULTS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts = self.config, self.layouts
        vector = self.i.payload
        columns = layouts.columns
        per_ou = config.patterns_per_ou

        # Where we are in the vector: patterns that have ended, digit, column group.
        done = Signal.like(vector.patterns)
        digit = Signal(range(config.digits))
        chunk = Signal(bits_for(columns.chunks))
        phase = Signal()
        left = Signal.like(vector.patterns)
        in_ou = Signal(range(per_ou + 1))
        begun = Signal(range(per_ou + 1))
        ended = Signal(range(per_ou + 1))
        last_chunk = Signal(bits_for(columns.chunks))
        first_request = Signal()
        last_request = Signal()
        last_ou = Signal()
        last_chunks = [
            [columns.last_chunk(first, count) for count in range(per_ou + 1)]
            for first in columns.phases
        ]
        last_columns = [
            [columns.last_columns(first, count) for count in range(per_ou + 1)]
            for first in columns.phases
        ]
        m.d.comb += [
            left.eq(vector.patterns - done),
            # A vector has a pattern or more.
            in_ou.eq(1 if per_ou == 1 else Mux(left < per_ou, left, per_ou)),
            last_chunk.eq(columns.table(last_chunks, phase, in_ou)),
            first_request.eq((digit == 0) & (chunk == 0)),
            last_request.eq((digit == config.digits - 1) & (chunk == last_chunk)),
        ]
        # Whether the OU ends within a pattern, which goes on in the next one: where OUs differ in
        # phase, a full one that begins with a pattern has half of another at its end.
        split: Value = Const(0)
        if len(columns.phases) > 1:
            split = Signal()
            m.d.comb += [
                split.eq(~phase & (left >= per_ou)),
                begun.eq(in_ou - phase),
                ended.eq(in_ou - split),
                last_ou.eq((left <= per_ou) & ~split),
            ]
        else:
            m.d.comb += [begun.eq(in_ou), ended.eq(in_ou), last_ou.eq(left <= per_ou)]

        # The ring: slots are reserved by an OU's first request unless it adds to open ones. `slot`
        # is that of lane 0, which may have begun in the OU before.
        free = Signal(range(config.slots + 1), init=config.slots)
        slot = Signal(layouts.slot_bits)
        series = Signal(layouts.slot_bits)
        accumulate = Signal()
        reserve = Signal()
        reserved = Signal(range(per_ou + 1))
        slots_ok = Signal()
        issue = Signal()
        # The slots of a block's other positions are reserved with the first one's.
        held: Value = accumulate
        if config.position_lanes > 1:
            held = accumulate | (vector.turn != 0)
        # Where OUs do not differ in phase, a pattern begins in each.
        none_begins: Value = begun == 0 if len(columns.phases) > 1 else Const(0)
        m.d.comb += [
            slots_ok.eq(~first_request | held | (free >= per_ou) | none_begins),
            issue.eq(self.i.valid & slots_ok & self.o_pending.ready & request_ready(self)),
            reserve.eq(issue & first_request & ~held),
            reserved.eq(Mux(reserve, begun, 0)),
        ]
        m.d.sync += free.eq(free + self.released - reserved)

        # Where the OU lies.
        col_block = Signal.like(self.o_request.payload.col_block)
        row_block = Signal.like(self.o_request.payload.row_block)
        # Fits: the first crossbar too many is as far as it comes; a number from a register more.
        crossbar = Signal(bits_for(config.crossbars) + 1)
        number = Signal(bits_for(config.crossbars) + 2)
        beyond = Signal()
        m.d.comb += [
            number.eq(crossbar + (self.first_crossbar if config.network else 0)),
            beyond.eq(number >= config.crossbars),
            self.faults.eq(issue & beyond),
        ]
        gather = Signal.like(self.last_descriptor)
        # Where the gather's first OU lies.
        first_col_block = Signal.like(col_block)
        first_row_block = Signal.like(row_block)
        first_in = Signal.like(crossbar)

        # What an answer means follows from the OU's phase and the column group alone.
        lane = Signal(bits_for(per_ou))
        align = Signal(bits_for(columns.width))
        ends = Signal(bits_for(columns.ends + 1))
        low_digit = Signal()
        high_digit = Signal()
        pending = self.o_pending.payload
        m.d.comb += [
            lane.eq(columns.select(columns.lane, phase, chunk)),
            align.eq(columns.select(columns.align, phase, chunk)),
            ends.eq(columns.select(columns.ended, phase, chunk)),
            low_digit.eq(digit == 0),
            high_digit.eq(digit == config.digits - 1),
            self.o_pending.valid.eq(self.i.valid & slots_ok & request_ready(self)),
            pending.scale.eq(
                (align * config.cell_bits if columns.narrow else 0) + digit * config.dac_bits
            ),
            pending.first.eq(low_digit & (align == 0)),
            pending.lane.eq(lane),
            pending.slot.eq(slot + lane),
            pending.accumulate.eq(accumulate),
            pending.final.eq(vector.final),
            self.i.ready.eq(issue & last_request & last_ou),
            self.ou_done.eq(issue & last_request),
            self.driven.eq(Mux(issue, vector.count, 0)),
            self.stall_gather.eq(~self.i.valid),
            self.stall_slots.eq(self.i.valid & ~slots_ok),
            self.stall_port.eq(self.i.valid & slots_ok & ~issue),
        ]
        # All answers of an OU but the last have as many columns as there are converters.
        with m.If(issue):
            m.d.comb += self.converted.eq(
                Mux(
                    chunk == last_chunk,
                    columns.table(last_columns, phase, in_ou),
                    config.adcs,
                )
            )
        for name in layouts.turns:
            m.d.comb += pending[name].eq(vector[name])
        if columns.ends > 1:
            # The last patterns of an answer may be beyond those of the vector.
            here = Signal(range(per_ou + 1))
            m.d.comb += [
                here.eq(in_ou - lane),
                pending.ended.eq(Mux(high_digit, Mux(ends < here, ends, here), 0)),
            ]
        else:
            m.d.comb += pending.ended.eq(high_digit & ends)
        if columns.pieces > 1:
            m.d.comb += pending.low.eq(low_digit)
        if len(columns.phases) > 1:
            m.d.comb += pending.carry.eq(low_digit & phase & (chunk == 0))
        if not columns.narrow:
            which = columns.alignments.index
            m.d.comb += pending.align.eq(
                columns.select(lambda *place: which(columns.alignment(*place)), phase, chunk)
            )
        elif config.twos_complement:
            m.d.comb += pending.top.eq(align == columns.width - config.adcs)
        if config.offset:
            m.d.comb += pending.inputs.eq(vector.inputs)
        with m.If(self.o_request.ready):
            m.d.sync += self.o_request.valid.eq(0)
        with m.If(issue):
            request = self.o_request.payload
            m.d.sync += [
                self.o_request.valid.eq(~beyond),
                request.crossbar.eq(number),
                request.row_block.eq(row_block),
                request.col_block.eq(col_block),
                request.select.eq(chunk),
            ]
            for r in range(config.ou_rows):
                # Wordlines beyond the vector's rows are driven 0.
                m.d.sync += request.digits[r].eq(
                    Mux(
                        r < vector.count,
                        vector.rows[r].word_select(digit, config.dac_bits),
                        0,
                    )
                )
            if config.position_lanes > 1:
                # A second OU begins with a pattern, or behind one.
                with m.If(first_request & (done == 0) & ~phase):
                    m.d.sync += [
                        first_col_block.eq(col_block),
                        first_row_block.eq(row_block),
                        first_in.eq(crossbar),
                    ]
            m.d.sync += chunk.eq(chunk + 1)
            with m.If(chunk == last_chunk):
                m.d.sync += [chunk.eq(0), digit.eq(digit + 1)]
            with m.If(last_request):
                m.d.sync += [
                    digit.eq(0),
                    done.eq(done + ended),
                    slot.eq(slot + ended),
                    col_block.eq(col_block + 1),
                ]
                if len(columns.phases) > 1:
                    m.d.sync += phase.eq(split)
                with m.If(col_block == config.col_blocks - 1):
                    m.d.sync += [col_block.eq(0), row_block.eq(row_block + 1)]
                    with m.If(row_block == config.row_blocks - 1):
                        m.d.sync += [row_block.eq(0), crossbar.eq(crossbar + 1)]
                gather_done: Value = last_ou
                if config.position_lanes > 1:
                    gather_done = last_ou & vector.last_turn
                    # The block's next position goes through the same OUs.
                    with m.If(last_ou & ~vector.last_turn):
                        m.d.sync += [
                            done.eq(0),
                            slot.eq(series),
                            col_block.eq(first_col_block),
                            row_block.eq(first_row_block),
                            crossbar.eq(first_in),
                        ]
                with m.If(gather_done):
                    m.d.sync += [done.eq(0), accumulate.eq(~vector.final), gather.eq(gather + 1)]
                    with m.If(vector.final):
                        m.d.sync += series.eq(slot + ended)
                    with m.Else():
                        m.d.sync += slot.eq(series)
                    with m.If(gather == self.last_descriptor):
                        m.d.sync += [
                            gather.eq(0),
                            col_block.eq(0),
                            row_block.eq(0),
                            crossbar.eq(0),
                        ]
        return m


def request_ready(engine: OUEngine):
    """Whether the register in front of the crossbar port can take a request."""
    return ~engine.o_request.valid | engine.o_request.ready
