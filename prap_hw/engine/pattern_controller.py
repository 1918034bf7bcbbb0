"""The pattern-index controller: walks the program and feeds gather and merge."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.faults import Fault, ProtectedMemory, protected_bits
from prap_hw.common.index_reader import IndexReader
from prap_hw.common.layouts import Layouts, Space
from prap_hw.engine.segment_replay import SegmentReplay
from refmodel.config import EngineConfig


class PatternController(wiring.Component):
    """Index memories, the walk over output positions, and the two index streams.

    The gather stream (``o_segments``) has one item to a run of consecutive input bytes, with its
    address in the padded input: base of the output position + base of the gather + offset of the
    kernel position + channel. The reuse stream is ``o_headers``, one item to a group, and
    ``o_words``, one item of ``merge_lanes`` reuse words to a step of the merge. Both run ahead of
    what consumes them, each with its own memories. Positions go by in blocks of ``position_lanes``,
    in the order of the walk; the last block may be short. A block's index words are read once: a
    gather's segments are kept, and come again for each of the block's positions before the next
    gather; a header and a word of the reuse stream are for all of them. With ``config.network`` the
    memories hold several layers and the activation memory several tensors: registers say where this
    one's begin.

    The first segment is valid three cycles after ``start``, the first header and words two; then
    throughput is one item per cycle on each stream, without a dead cycle between gathers, groups
    or positions. ``o_segments`` ends after the last position; the reuse stream starts over at
    every block and does not end (``start`` rewinds it). ``index_reads``, ``index_bits`` and
    ``faults`` depend combinationally on the readies of the streams; no other output depends on an
    input within the cycle. Reset empties the streams and clears the layer registers; the memories
    keep what was loaded.

    Errors in the program are reported in ``faults``, and are not sent on: a stream stands at a word
    of the wrong parity, and a segment or a header that leads out of range is not valid. The
    checks are:

    - indices: none begins beyond its last, or ends beyond its memory, and so the last output;
    - the kernel position of a segment: there is such a word in the table;
    - the bytes of a segment: at least one, all of them in the activation memory, without
      wrap-around; those of a gather together: no more than an OU has rows, whatever the number of
      its segments is;
    - the patterns of a gather: 1 to the slots of the ring;
    - the slots of a group: no more than the ring has; its outputs: the first is not beyond the
      last, nor the last beyond that of the layer;
    - the segments of a position end with its gathers, its reuse words with its groups, and the
      groups keep as many slots as the gathers fill: a group that waited for more would wait for
      good. This is known once the first position has been walked; which gathers a group has is not.

    Steps from position to position that are never taken may be anything. ``armed`` is what limits
    the checks to a program that has been started: words that this layer does not read (offsets
    without ``full_offsets``, reuse words of an identity map) may have any contents.

    Members
    -------
    i_load : ``In(stream.Signature(load))``
        Program words; always ready. Words for other spaces are ignored.
    registers : ``Out(registers)``
        The layer registers, as loaded.
    resting : ``In(1)``
        Whether no run is going on; low from the cycle after ``start`` to the run's end.
    start : ``In(1)``
        Pulse, while ``resting``: walk from the first position.
    o_segments : ``Out(stream.Signature(segment))``
        Runs of input bytes.
    o_headers, o_headers_last : ``Out``
        Group headers; ``o_headers_last`` marks the last group of a block of positions.
    o_headers_last_turn : ``Out``, where blocks have several positions
        Number of the last position in the block that the header is for, from 0; known once the
        first gather of all its positions has been at ``o_segments``.
    o_words : ``Out(stream.Signature(ArrayLayout(word, merge_lanes)))``
        Reuse words.
    index_reads, index_bits : ``Out``
        Words taken from the index memories in the cycle before, ``merge_lanes`` reuse words as one;
        their bits, and with a kernel position those of its word in the table.
    faults : ``Out``, a bit to each of ``FAULTS``
        Faults found in this cycle; a segment is checked in the cycle in which it is at
        ``o_segments``.
    """

    FAULTS = (
        (Fault.PARITY, Space.DESCRIPTOR),
        (Fault.PARITY, Space.POSITION),
        (Fault.PARITY, Space.OFFSET),
        (Fault.PARITY, Space.HEADER),
        (Fault.PARITY, Space.WORD),
        (Fault.PARITY, Space.TABLE),
        (Fault.RANGE, Space.REGISTER),
        (Fault.RANGE, Space.POSITION),
        (Fault.RANGE, Space.OFFSET),
        (Fault.RANGE, Space.DESCRIPTOR),
        (Fault.RANGE, Space.HEADER),
        (Fault.RANGE, Space.WORD),
    )

    i_load: stream.Interface
    registers: data.View
    resting: Signal
    start: Signal
    o_segments: stream.Interface
    o_headers: stream.Interface
    o_headers_last: Signal
    o_headers_last_turn: Signal
    o_words: stream.Interface
    index_reads: Signal
    index_bits: Signal
    faults: Signal

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        self.table = ProtectedMemory(layouts.address_bits, config.max_positions)
        self.memories: dict[Space, list[ProtectedMemory]] = {Space.TABLE: [self.table]}
        # What is read with a word of each memory.
        self.bits = {
            Space.DESCRIPTOR: protected_bits(layouts.descriptor),
            Space.POSITION: protected_bits(layouts.position_bits)
            + protected_bits(layouts.address_bits),
            Space.OFFSET: protected_bits(layouts.offset),
            Space.HEADER: protected_bits(layouts.header),
            Space.WORD: config.merge_lanes * protected_bits(layouts.word),
        }
        super().__init__(
            {
                "i_load": In(stream.Signature(layouts.load, always_ready=True)),
                "registers": Out(layouts.registers),
                "resting": In(1),
                "start": In(1),
                "o_segments": Out(stream.Signature(layouts.segment)),
                "o_headers": Out(stream.Signature(layouts.header)),
                "o_headers_last": Out(1),
                **(
                    {"o_headers_last_turn": Out(layouts.turn_bits)}
                    if config.position_lanes > 1
                    else {}
                ),
                "o_words": Out(stream.Signature(layouts.words)),
                "index_reads": Out(3),
                "index_bits": Out(range(sum(self.bits.values()) + 1)),
                "faults": Out(len(self.FAULTS)),
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
            self.memories[space] = [index.words]
            if based:
                m.d.comb += index.first.eq(registers[f"first_{kind}"])
            m.d.comb += [
                index.w_en.eq(self.i_load.valid & (load.space == space)),
                index.w_addr.eq(load.addr),
                index.w_data.eq(load.data),
                index.loading.eq(self.i_load.valid),
                index.resting.eq(self.resting),
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
        header = headers.o.payload
        bad_header = Signal()
        m.d.comb += [
            bad_header.eq(
                (header.kept > config.slots)
                | (header.first_output > header.last_output)
                | (header.last_output > registers.last_output)
            ),
            self.o_headers.valid.eq(headers.o.valid & ~bad_header),
            self.o_headers.payload.eq(header),
            self.o_headers_last.eq(headers.o_last),
            headers.o.ready.eq(self.o_headers.ready & ~bad_header),
        ]

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
                index.loading.eq(self.i_load.valid),
                index.resting.eq(self.resting),
                index.start.eq(self.start),
                index.last.eq(registers.last_step),
                index.o.ready.eq(self.o_words.ready),
                self.o_words.payload[lane].eq(index.o.payload),
            ]
            lanes.append(index)
        self.memories[Space.WORD] = [index.words for index in lanes]
        m.d.comb += self.o_words.valid.eq(Cat(index.o.valid for index in lanes).all())

        # Offsets of the kernel positions: at most 49 words, read within the cycle.
        table = self.table.ports(m, "table", load.data, domain="comb")
        m.d.comb += [
            table.write.en.eq(self.i_load.valid & (load.space == Space.TABLE)),
            table.write.addr.eq(load.addr),
            table.read.addr.eq(positions.o.payload),
        ]

        # The walk over output positions: two counters and two running addresses.
        column = Signal.like(registers.last_column)
        row = Signal.like(registers.last_row)
        # Fits: a step from a position within the memory; the segments of one beyond it are out of
        # range, and so what comes after it does not matter.
        position_base = Signal(layouts.address_bits + 1)
        row_base = Signal(layouts.address_bits)
        walking = Signal()

        # One segment an accepted cycle, registered so that the adders have a cycle of their own.
        segment = Signal(layouts.segment)
        segment_valid = Signal()
        # Fits: less than 2^(n + 1) and three times 2^n.
        address = Signal(layouts.address_bits + 3)
        # Bytes of the gather up to this segment. Fits: those before it are no more than rows.
        gathered = Signal(layouts.row_bits + 1)
        bad_position = Signal()
        bad_table = Signal()
        bad_bytes = Signal()
        bad_patterns = Signal()
        bad_segment = Signal()
        index_in_gather = Signal(range(config.ou_rows))
        descriptor = descriptors.o.payload
        last_of_gather = Signal()
        accept = Signal()
        full = registers.full_offsets
        position = positions.o.payload
        length = Mux(full, offsets.o.payload.length, descriptor.length)
        channel = Mux(full, offsets.o.payload.channel, 0)
        # Of a block of positions, only the first one's segments come from the memories.
        replay = None
        gather_done = last_of_gather
        there = walking & descriptors.o.valid
        place = position_base + descriptor.base + table.word + channel
        if config.position_lanes == 1:
            there = there & positions.o.valid & (~full | offsets.o.valid)
        else:
            m.submodules.replay = replay = SegmentReplay(config)
            m.d.comb += [
                replay.i_segment.offset.eq(table.word + channel),
                replay.i_segment.length.eq(length),
            ]
            there &= ~replay.fresh | (positions.o.valid & (~full | offsets.o.valid))
            gather_done, length = replay.gather_done, replay.segment.length
            place = replay.base + descriptor.base + replay.segment.offset
        fresh = accept if replay is None else accept & replay.fresh
        m.d.comb += [
            bad_bytes.eq(
                (segment.length == 0)
                | (address + segment.length > config.activation_bytes)
                | (gathered > config.ou_rows)
            ),
            bad_patterns.eq((segment.patterns == 0) | (segment.patterns > config.slots)),
            bad_segment.eq(bad_position | bad_table | bad_bytes | bad_patterns),
            self.o_segments.valid.eq(segment_valid & ~bad_segment),
            self.o_segments.payload.eq(segment),
            self.o_segments.payload.address.eq(address),
            last_of_gather.eq(index_in_gather == descriptor.last_segment),
            accept.eq(there & (~segment_valid | self.o_segments.ready)),
            positions.o.ready.eq(fresh),
            offsets.o.ready.eq(fresh & full),
            descriptors.o.ready.eq(accept & gather_done),
        ]
        with m.If(self.o_segments.ready):
            m.d.sync += segment_valid.eq(0)
        with m.If(accept):
            m.d.sync += [
                segment_valid.eq(1),
                bad_position.eq(
                    (position >= config.max_positions)
                    | (positions.o_last != (last_of_gather & descriptors.o_last))
                ),
                bad_table.eq((position < config.max_positions) & table.wrong),
                address.eq(place),
                segment.length.eq(length),
                gathered.eq(Mux(index_in_gather == 0, 0, gathered) + length),
                segment.last.eq(last_of_gather),
                segment.patterns.eq(descriptor.patterns),
                segment.final.eq(descriptor.final),
                index_in_gather.eq(Mux(last_of_gather, 0, index_in_gather + 1)),
            ]
            if replay is not None:
                m.d.sync += [
                    segment.turn.eq(replay.turn),
                    segment.last_turn.eq(replay.last_turn),
                ]
                # What was read before has been checked.
                with m.If(~replay.fresh):
                    m.d.sync += [bad_position.eq(0), bad_table.eq(0)]
            with m.If(last_of_gather & descriptors.o_last if replay is None else replay.step):
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
                    if replay is None:
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
        if replay is not None:
            # Whether the walk has given its last position; blocks whose positions are all known and
            # whose groups are not all merged. Fits: each has a slot of the ring, but for those
            # whose vectors are still to be converted.
            ended = Signal()
            known = Signal(range(config.slots + config.gather_buffers + 8))
            at_end = Signal()
            ends = Signal()
            begun_block = Signal()
            merged_block = Signal()
            m.d.comb += [
                at_end.eq((column == registers.last_column) & (row == registers.last_row)),
                ends.eq(replay.step & at_end),
                begun_block.eq(accept & replay.step & replay.last_turn),
                merged_block.eq(headers.o.valid & headers.o.ready & headers.o_last),
                replay.start.eq(self.start),
                replay.accept.eq(accept),
                replay.index.eq(index_in_gather),
                replay.last_segment.eq(last_of_gather),
                replay.last_gather.eq(descriptors.o_last),
                replay.i_base.eq(position_base),
                replay.i_last_position.eq(at_end),
                self.o_headers_last_turn.eq(
                    Mux(ended & (known == 1), replay.last, config.position_lanes - 1)
                ),
            ]
            m.d.sync += known.eq(known + begun_block - merged_block)
            with m.If(accept & ends):
                m.d.sync += ended.eq(1)
            with m.If(accept & gather_done & descriptors.o_last & (ended | ends)):
                m.d.sync += walking.eq(0)
            with m.If(self.start):
                m.d.sync += [ended.eq(0), known.eq(0)]

        # Slots that a position's gathers fill and its groups keep. Fits: an OU that holds so many
        # patterns is there, or its request is found to go beyond the crossbars.
        slots = range(config.max_ous * config.patterns_per_ou + 1)
        filled_before = Signal(slots)
        filled = Signal(slots)
        filled_known = Signal()
        kept_before = Signal(slots)
        filled_now = filled_before + Mux(descriptor.final, descriptor.patterns, 0)
        kept_now = kept_before + header.kept
        with m.If(accept & gather_done):
            m.d.sync += filled_before.eq(filled_now)
            with m.If(descriptors.o_last):
                m.d.sync += [filled_before.eq(0), filled.eq(filled_now), filled_known.eq(1)]
        with m.If(headers.o.valid & headers.o.ready):
            m.d.sync += kept_before.eq(Mux(headers.o_last, 0, kept_now))
        with m.If(self.start):
            m.d.sync += [filled_before.eq(0), filled_known.eq(0), kept_before.eq(0)]
        uneven = filled_known & ((kept_now > filled) | (headers.o_last & (kept_now != filled)))

        # What is wrong. The registers are checked as a run begins, before the first word is there.
        armed = Signal()
        begun = Signal()
        with m.If(self.i_load.valid):
            m.d.sync += armed.eq(0)
        with m.If(self.start):
            m.d.sync += armed.eq(1)
        m.d.sync += begun.eq(self.start)
        shown = armed & segment_valid
        words_wrong = Cat(index.wrong for index in lanes).any()
        words_taken = self.o_words.valid & self.o_words.ready
        position_merged = headers.o.valid & headers.o.ready & headers.o_last
        m.d.comb += self.faults.eq(
            Cat(
                armed & descriptors.wrong,
                armed & positions.wrong,
                armed & full & offsets.wrong,
                armed & headers.wrong,
                armed & ~registers.identity & words_wrong,
                shown & bad_table,
                begun & self._bad_registers(),
                shown & bad_position,
                shown & full & bad_bytes,
                shown & ((~full & bad_bytes) | bad_patterns),
                armed & headers.o.valid & (bad_header | uneven),
                armed & words_taken & (lanes[0].o_last != position_merged),
            )
        )

        # What is taken, a register to each: words become valid late, and here are sums of them.
        taken = {
            Space.DESCRIPTOR: descriptors.o.valid & descriptors.o.ready,
            Space.POSITION: positions.o.valid & positions.o.ready,
            Space.HEADER: headers.o.valid & headers.o.ready,
            Space.OFFSET: offsets.o.valid & offsets.o.ready,
            Space.WORD: self.o_words.valid & self.o_words.ready,
        }
        reads: Value = Const(0)
        bits: Value = Const(0)
        for space, here in taken.items():
            read = Signal(name=f"read_{space.name.lower()}")
            m.d.sync += read.eq(here)
            reads += read
            bits += Mux(read, self.bits[space], 0)
        m.d.comb += [self.index_reads.eq(reads), self.index_bits.eq(bits)]
        return m

    def _bad_registers(self) -> Value:
        """Whether a layer register names words that the memories have not, or none."""
        registers, config = self.registers, self.config
        walked = ~registers.identity
        depths = {
            "descriptor": config.max_gathers,
            "segment": config.max_segments,
            "header": config.max_groups,
            "step": self.layouts.word_depth,
        }
        bad: Value = registers.last_output >= config.max_outputs
        for kind, depth in depths.items():
            beyond = registers[f"last_{kind}"] >= depth
            if config.network:
                beyond |= registers[f"first_{kind}"] > registers[f"last_{kind}"]
            bad |= beyond & walked if kind == "step" else beyond
        return bad
