"""The pattern-index controller: walks the program and feeds gather and merge."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from prap_hw.index_reader import IndexReader
from prap_hw.layouts import Layouts, Space
from refmodel.config import EngineConfig


class PatternController(wiring.Component):
    """Index memories, the walk over output positions, and the two index streams.

    The gather stream (``o_segments``) has one item to a run of consecutive input bytes, with its
    address in the padded input: base of the output position + base of the gather + offset of the
    kernel position + channel. The reuse stream is ``o_headers``, one item to a group, and
    ``o_words``, one item of ``merge_lanes`` reuse words to a step of the merge. Both run ahead of
    what consumes them, each with its own memories. With ``config.network`` the memories hold
    several layers and the activation memory several tensors: registers say where this one's begin.

    The first segment is valid three cycles after ``start``, the first header and words two; then
    throughput is one item per cycle on each stream, without a dead cycle between gathers, groups
    or positions. ``o_segments`` ends after the last position; the reuse stream starts over at
    every position and does not end (``start`` rewinds it). ``index_reads`` depends
    combinationally on the readies of the streams; no other output depends on an input within the
    cycle. Reset empties the streams and clears the layer registers; the memories keep what was
    loaded.

    Members
    -------
    i_load : ``In(stream.Signature(load))``
        Program words; always ready. Words for other spaces are ignored.
    registers : ``Out(registers)``
        The layer registers, as loaded.
    start : ``In(1)``
        Pulse: walk from the first position.
    o_segments : ``Out(stream.Signature(segment))``
        Runs of input bytes.
    o_headers, o_headers_last : ``Out``
        Group headers; ``o_headers_last`` marks the last group of a position.
    o_words : ``Out(stream.Signature(ArrayLayout(word, merge_lanes)))``
        Reuse words.
    index_reads : ``Out(3)``
        Words taken from the index memories in this cycle.
    """

    i_load: stream.Interface
    registers: data.View
    start: Signal
    o_segments: stream.Interface
    o_headers: stream.Interface
    o_headers_last: Signal
    o_words: stream.Interface
    index_reads: Signal

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        super().__init__(
            {
                "i_load": In(stream.Signature(layouts.load, always_ready=True)),
                "registers": Out(layouts.registers),
                "start": In(1),
                "o_segments": Out(stream.Signature(layouts.segment)),
                "o_headers": Out(stream.Signature(layouts.header)),
                "o_headers_last": Out(1),
                "o_words": Out(stream.Signature(layouts.words)),
                "index_reads": Out(3),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts = self.config, self.layouts
        load, registers = self.i_load.payload, self.registers

        # Layer registers: one load word each, in the order of the layout.
        with m.If(self.i_load.valid & (load.space == Space.REGISTER)), m.Switch(load.addr):
            for number, (name, field) in enumerate(layouts.registers):
                with m.Case(number):
                    m.d.sync += registers[name].eq(load.data[: field.width])

        based = config.network

        def reader(name: str, space: Space, shape, depth: int, kind: str) -> IndexReader:
            m.submodules[name] = index = IndexReader(shape, depth, based=based)
            if based:
                m.d.comb += index.first.eq(registers[f"first_{kind}"])
            m.d.comb += [
                index.w_en.eq(self.i_load.valid & (load.space == space)),
                index.w_addr.eq(load.addr),
                index.w_data.eq(load.data),
                index.start.eq(self.start),
                index.last.eq(registers[f"last_{kind}"]),
            ]
            return index

        descriptors = reader(
            "descriptors",
            Space.DESCRIPTOR,
            layouts.descriptor,
            config.max_gathers,
            "descriptor",
        )
        positions = reader(
            "positions",
            Space.POSITION,
            layouts.position_bits,
            config.max_segments,
            "segment",
        )
        offsets = reader("offsets", Space.OFFSET, layouts.offset, config.max_segments, "segment")
        headers = reader("headers", Space.HEADER, layouts.header, config.max_groups, "header")
        wiring.connect(m, headers.o, wiring.flipped(self.o_headers))
        m.d.comb += self.o_headers_last.eq(headers.o_last)

        # Reuse words: one memory to a lane, read in step.
        lanes = []
        for lane in range(config.merge_lanes):
            m.submodules[f"words_{lane}"] = index = IndexReader(
                layouts.word, layouts.word_depth, based=based
            )
            if based:
                m.d.comb += index.first.eq(registers.first_step)
            lane_bits = (config.merge_lanes - 1).bit_length()
            m.d.comb += [
                index.w_en.eq(
                    self.i_load.valid
                    & (load.space == Space.WORD)
                    & (load.addr[:lane_bits] == lane if lane_bits else 1)
                ),
                index.w_addr.eq(load.addr >> lane_bits),
                index.w_data.eq(load.data),
                index.start.eq(self.start),
                index.last.eq(registers.last_step),
                index.o.ready.eq(self.o_words.ready),
                self.o_words.payload[lane].eq(index.o.payload),
            ]
            lanes.append(index)
        m.d.comb += self.o_words.valid.eq(lanes[0].o.valid)

        # Offsets of the kernel positions: at most 49 words, read within the cycle.
        m.submodules.table = table = Memory(
            shape=layouts.address_bits, depth=max(2, config.max_positions), init=[]
        )
        table_write = table.write_port()
        table_read = table.read_port(domain="comb")
        m.d.comb += [
            table_write.en.eq(self.i_load.valid & (load.space == Space.TABLE)),
            table_write.addr.eq(load.addr),
            table_write.data.eq(load.data),
            table_read.addr.eq(positions.o.payload),
        ]

        # The walk over output positions: two counters and two running addresses.
        column = Signal.like(registers.last_column)
        row = Signal.like(registers.last_row)
        position_base = Signal(layouts.address_bits)
        row_base = Signal(layouts.address_bits)
        walking = Signal()

        # One segment an accepted cycle, registered so that the adders have a cycle of their own.
        segment = Signal(layouts.segment)
        segment_valid = Signal()
        index_in_gather = Signal(range(config.ou_rows))
        descriptor = descriptors.o.payload
        last_of_gather = Signal()
        accept = Signal()
        full = registers.full_offsets
        m.d.comb += [
            self.o_segments.valid.eq(segment_valid),
            self.o_segments.payload.eq(segment),
            last_of_gather.eq(index_in_gather == descriptor.last_segment),
            accept.eq(
                walking
                & descriptors.o.valid
                & positions.o.valid
                & (~full | offsets.o.valid)
                & (~segment_valid | self.o_segments.ready)
            ),
            positions.o.ready.eq(accept),
            offsets.o.ready.eq(accept & full),
            descriptors.o.ready.eq(accept & last_of_gather),
        ]
        with m.If(self.o_segments.ready):
            m.d.sync += segment_valid.eq(0)
        with m.If(accept):
            m.d.sync += [
                segment_valid.eq(1),
                segment.address.eq(
                    position_base
                    + descriptor.base
                    + table_read.data
                    + Mux(full, offsets.o.payload.channel, 0)
                ),
                segment.length.eq(Mux(full, offsets.o.payload.length, descriptor.length)),
                segment.last.eq(last_of_gather),
                segment.patterns.eq(descriptor.patterns),
                segment.final.eq(descriptor.final),
                index_in_gather.eq(Mux(last_of_gather, 0, index_in_gather + 1)),
            ]
            with m.If(last_of_gather & descriptors.o_last):
                m.d.sync += [
                    column.eq(column + 1),
                    position_base.eq(position_base + registers.column_step),
                ]
                with m.If(column == registers.last_column):
                    m.d.sync += [
                        column.eq(0),
                        row.eq(row + 1),
                        row_base.eq(row_base + registers.row_step),
                        position_base.eq(row_base + registers.row_step),
                    ]
                    with m.If(row == registers.last_row):
                        m.d.sync += walking.eq(0)
        with m.If(self.start):
            m.d.sync += [
                column.eq(0),
                row.eq(0),
                position_base.eq(registers.base if based else 0),
                row_base.eq(registers.base if based else 0),
                index_in_gather.eq(0),
                segment_valid.eq(0),
                walking.eq(1),
            ]

        taken = [index.o.valid & index.o.ready for index in (descriptors, positions, headers)]
        taken += [offsets.o.valid & offsets.o.ready, self.o_words.valid & self.o_words.ready]
        m.d.comb += self.index_reads.eq(sum(taken[1:], taken[0]))
        return m
