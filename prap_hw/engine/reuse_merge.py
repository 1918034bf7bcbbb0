"""Reuse merge: every output takes its partial sums, shifted, into its accumulator."""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Layouts, Space
from refmodel.config import SHIFT_NONE, EngineConfig, bits_for


def adds_up_to(one: Signal, other: Signal, total: Signal) -> Value:
    """Whether two numbers have a sum, all of as many bits; without a chain of carries.

    The carry that each bit needs for the sum to be right must be the one that the bit below gives,
    if it is right.
    """
    needed = one ^ other ^ total
    given = (one & other) | ((one | other) & ~total)
    return ~(needed ^ (given << 1))[: len(total)].any()


class ReuseMerge(wiring.Component):
    """Merge one group after another: ``merge_lanes`` reuse words a cycle.

    Lane l of block b serves output ``b * merge_lanes + l``; a group walks the blocks that hold its
    outputs, and for each block its terms. Contribution: ``+-(partial sum << stored shift)`` with
    stored shift = 8 + k, or nothing where it is 15. Where blocks have several positions, a word is
    merged for all of them in its cycle, each with a partial sum and an accumulator of its own; of a
    short block those that are not there are neither written nor counted. The terms of an output are
    added up before the accumulator is touched. With ``identity``, slot = output - first output,
    shift 8.

    A group's first step issues when all its partial sums are complete and the accumulator half of
    its position is free, which it is in the cycle of ``half_read`` already: the step's accumulators
    are addressed in the cycle after. Then one step per cycle, without a dead cycle between groups
    or positions. An accumulator is updated two cycles after the issue of its last term, and a
    group's slots are free in the cycle after its last issue. ``i_headers.ready``,
    ``i_words.ready``, ``taken``, ``o_slot``, ``merged``, ``shifted`` and ``faults`` depend
    combinationally on the headers, the words, ``completed``, the layer registers and, but for
    ``o_slot``, on ``half_read``; the outputs to the accumulators are registers. Reset empties the
    pipeline.

    A word, or with ``identity`` an output, whose slot is not one of those that its group keeps is
    in ``faults`` in the cycle of its step, and what it leads to in the accumulators two cycles
    later. Slots of the ring need no other check: they are counted from the group's first one
    modulo the ring's depth.

    Members
    -------
    identity, last_term : ``In``
        Layer registers.
    i_headers, i_headers_last : ``In``
        Groups; the last one of a block of positions is marked.
    i_headers_last_turn : ``In``, where blocks have several positions
        Number of the last position in the block, from 0; it stands from the block's first step on.
    i_words : ``In(stream.Signature(words))``
        Reuse words, one item to a step.
    completed : ``In``
        Complete slots, from the store.
    taken : ``Out``
        Slots freed: the kept count in the cycle of a group's last step, else 0.
    o_slot : ``Out``, one to a lane; psum : ``In``, one to a lane of each position
        Read ports of the store.
    half_read : ``In(2)``
        Pulse per accumulator half: its last accumulator is read in this cycle, another block may
        begin in it.
    read_valid, read_half, read_block : ``Out``
        To the accumulators: the block to address.
    write_half, write_block, write_en, write_first, contribution : ``Out``
        A cycle later: the block to write, the lanes of each position to write, whether to write
        instead of add, and the lanes' sums of terms.
    position_done : ``Out(1)``
        Pulse: with this write, the half holds a whole position, or a whole block of them.
    done_last_turn : ``Out``, where blocks have several positions
        With ``position_done``, the number of the block's last position.
    merged, shifted : ``Out``
        Reuse words (or identity takes) merged in this cycle, once for each position; those of them
        that are not "none".
    updates : ``Out``
        Accumulators that are added to in this cycle.
    faults : ``Out``, a bit to each of ``FAULTS``
        A slot that the group does not keep: by an identity map, by a reuse word.
    """

    FAULTS = ((Fault.RANGE, Space.HEADER), (Fault.RANGE, Space.WORD))

    identity: Signal
    last_term: Signal
    i_headers: stream.Interface
    i_headers_last: Signal
    i_headers_last_turn: Signal
    i_words: stream.Interface
    completed: Signal
    taken: Signal
    o_slot: list[Signal]
    psum: list[Signal]
    half_read: Signal
    read_valid: Signal
    read_half: Signal
    read_block: Signal
    write_half: Signal
    write_block: Signal
    write_en: Signal
    write_first: Signal
    contribution: list[Signal]
    position_done: Signal
    done_last_turn: Signal
    merged: Signal
    shifted: Signal
    updates: Signal
    faults: Signal

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        lanes = config.merge_lanes
        each = lanes * config.position_lanes
        blocked = config.position_lanes > 1
        count = bits_for(config.slots + 1)
        super().__init__(
            {
                "identity": In(1),
                "last_term": In(2),
                "i_headers": In(stream.Signature(layouts.header)),
                "i_headers_last": In(1),
                **({"i_headers_last_turn": In(layouts.turn_bits)} if blocked else {}),
                "i_words": In(stream.Signature(layouts.words)),
                "completed": In(count),
                "taken": Out(count),
                "o_slot": Out(layouts.slot_bits).array(lanes),
                "psum": In(signed(config.psum_width)).array(each),
                "half_read": In(2),
                "read_valid": Out(1),
                "read_half": Out(1),
                "read_block": Out(layouts.block_bits),
                "write_half": Out(1),
                "write_block": Out(layouts.block_bits),
                "write_en": Out(each),
                "write_first": Out(1),
                "contribution": Out(signed(config.acc_width)).array(each),
                "position_done": Out(1),
                **({"done_last_turn": Out(layouts.turn_bits)} if blocked else {}),
                "merged": Out(range(each + 1)),
                "shifted": Out(range(each + 1)),
                "updates": Out(range(each + 1)),
                "faults": Out(len(self.FAULTS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts = self.config, self.layouts
        lanes = config.merge_lanes
        lane_bits = (lanes - 1).bit_length()
        header = self.i_headers.payload

        # Issue: which block and term of the group.
        begun = Signal()
        offset = Signal(layouts.block_bits)
        term = Signal(2)
        base = Signal(layouts.slot_bits)
        block = Signal(layouts.block_bits)
        first, end = Signal(layouts.block_bits), Signal(layouts.block_bits)
        m.d.comb += [
            first.eq(header.first_output >> lane_bits),
            end.eq(header.last_output >> lane_bits),
        ]
        ready = Signal()
        issue = Signal()
        last_step = Signal()
        half = Signal()
        half_used = Signal(2)
        half_is_free = Signal(init=1)
        half_free = Signal()
        done = Signal()
        m.d.comb += [
            block.eq(first + offset),
            half_free.eq(half_is_free | self.half_read.bit_select(half, 1)),
            ready.eq(begun | ((self.completed >= header.kept) & half_free)),
            issue.eq(self.i_headers.valid & ready & (self.identity | self.i_words.valid)),
            last_step.eq(adds_up_to(first, offset, end) & (term == self.last_term)),
            self.i_words.ready.eq(self.i_headers.valid & ready & ~self.identity),
            self.i_headers.ready.eq(issue & last_step),
            self.taken.eq(Mux(issue & last_step, header.kept, 0)),
        ]
        enable = Signal(lanes)
        beyond = Signal(lanes)
        adding = Signal(lanes)
        for lane in range(lanes):
            output = Signal(layouts.output_bits + 1, name=f"output_{lane}")
            word = self.i_words.payload[lane]
            # Where the output is before the group's first one, the lane is not enabled.
            index = Signal(max(layouts.output_bits + 1, layouts.slot_bits), name=f"index_{lane}")
            used = self.identity | (word.shift != SHIFT_NONE)
            m.d.comb += [
                index.eq(Mux(self.identity, output - header.first_output, word.slot)),
                adding[lane].eq(enable[lane] & used),
                beyond[lane].eq(adding[lane] & (index >= header.kept)),
                output.eq((block << lane_bits) + lane),
                enable[lane].eq((output >= header.first_output) & (output <= header.last_output)),
                self.o_slot[lane].eq(base + index),
            ]
        bad = issue & beyond.any()
        m.d.comb += self.faults.eq(Cat(bad & self.identity, bad & ~self.identity))
        merged = Value.cast(sum(enable[lane] for lane in range(lanes)))
        shifted = Value.cast(sum(adding[lane] for lane in range(lanes)))
        # Lanes of the positions that are in the block.
        enabled: Value = enable
        if config.position_lanes > 1:
            others = range(1, config.position_lanes)
            enabled = Cat(
                enable, (Mux(self.i_headers_last_turn >= turn, enable, 0) for turn in others)
            )
            merged, shifted = self._times(merged), self._times(shifted)
        m.d.comb += [
            self.merged.eq(Mux(issue, merged, 0)),
            self.shifted.eq(Mux(issue, shifted, 0)),
        ]
        with m.If(self.half_read[0]):
            m.d.sync += half_used[0].eq(0)
        with m.If(self.half_read[1]):
            m.d.sync += half_used[1].eq(0)
        # Of the half that the next step is for.
        m.d.comb += done.eq(issue & last_step & self.i_headers_last)
        m.d.sync += half_is_free.eq((~half_used | self.half_read).bit_select(half ^ done, 1))
        with m.If(issue):
            m.d.sync += [begun.eq(1), term.eq(term + 1)]
            with m.If(term == self.last_term):
                m.d.sync += [term.eq(0), offset.eq(offset + 1)]
            with m.If(last_step):
                m.d.sync += [begun.eq(0), offset.eq(0), base.eq(base + header.kept)]
                with m.If(self.i_headers_last):
                    m.d.sync += [half.eq(~half), half_used.bit_select(half, 1).eq(1)]

        # Shift: the partial sums arrive; the accumulators are addressed.
        shift_valid = Signal()
        shift_block = Signal(layouts.block_bits)
        shift_half = Signal()
        shift_enable = Signal(len(self.write_en))
        shift_write = Signal()
        shift_first_term = Signal()
        shift_last_term = Signal()
        shift_done = Signal()
        m.d.sync += [
            shift_valid.eq(issue),
            shift_block.eq(block),
            shift_half.eq(half),
            shift_enable.eq(enabled),
            shift_write.eq(header.write),
            shift_first_term.eq(term == 0),
            shift_last_term.eq(term == self.last_term),
            shift_done.eq(done),
        ]
        m.d.comb += [
            self.read_valid.eq(shift_valid),
            self.read_half.eq(shift_half),
            self.read_block.eq(shift_block),
        ]
        add_en = Signal(len(self.write_en))
        m.d.sync += [
            add_en.eq(Mux(shift_valid & shift_last_term, shift_enable, 0)),
            self.write_half.eq(shift_half),
            self.write_block.eq(shift_block),
            self.write_first.eq(shift_write),
            self.position_done.eq(shift_done),
        ]
        if config.position_lanes > 1:
            shift_last_turn = Signal.like(self.i_headers_last_turn)
            m.d.sync += [
                shift_last_turn.eq(self.i_headers_last_turn),
                self.done_last_turn.eq(shift_last_turn),
            ]
        m.d.comb += [
            self.write_en.eq(add_en),
            self.updates.eq(
                Mux(self.write_first, 0, sum(add_en[place] for place in range(len(add_en))))
            ),
        ]
        for lane in range(lanes):
            word = Signal(layouts.word, name=f"word_{lane}")
            m.d.sync += word.eq(self.i_words.payload[lane])
            with m.If(self.identity):
                m.d.sync += [word.shift.eq(8), word.minus.eq(0)]
            for place in range(lane, len(self.psum), lanes):
                # Fits: the compiler checks the worst case of every accumulator, terms included.
                shifted = Signal(signed(config.acc_width), name=f"shifted_{place}")
                scaled = Signal(signed(config.acc_width), name=f"scaled_{place}")
                m.d.comb += [
                    shifted.eq(Mux(word.shift == SHIFT_NONE, 0, self.psum[place] << word.shift)),
                    # A number's complement is 1 less than what it is subtracted as.
                    scaled.eq(Mux(word.minus, ~shifted, shifted)),
                ]
                # Where the words pause between terms, what was added up so far stands. A bit below
                # the lowest carries the 1 in: one chain of carries for both signs.
                before = Mux(shift_first_term, 0, self.contribution[place]).as_signed()
                total = Cat(word.minus, scaled).as_signed() + Cat(word.minus, before).as_signed()
                with m.If(shift_valid):
                    m.d.sync += self.contribution[place].eq(total >> 1)
        return m

    def _times(self, count: Value) -> Value:
        """A small number for each position of the block: in 1 to 4 times, without a multiplier."""
        last = self.i_headers_last_turn
        total: Value = count + Mux(last[0], count, 0)
        if len(last) > 1:
            total += Mux(last[1], count << 1, 0)
        return total
