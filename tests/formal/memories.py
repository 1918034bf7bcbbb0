"""What is proved of memories: any one word is followed from where it is written to its reading.

A memory keeps its words in a reset, so what follows one does, too. Induction would begin with words
that nobody has written; these proofs are bounded, from memories of zeros.
"""

from dataclasses import replace

from amaranth import Module, Mux, Signal

from prap_hw.common import index_reader
from prap_hw.engine import accumulators, psum_store
from refmodel.config import EngineConfig
from tests.formal.specs import Assert, Assume, Spec, still
from tests.support.layers.hand import TINY_ENGINE

SMALL = replace(TINY_ENGINE, trace=False, slots=8, max_outputs=4)


class Walk(Spec):
    """Words of an index memory come in turn, each once, from the first to the last, and again."""

    def __init__(self) -> None:
        dut = index_reader.IndexReader(2, 4, based=True)
        self.followed = Signal(2)
        super().__init__(
            dut,
            [dut.w_en, dut.w_addr, dut.w_data, dut.loading, dut.resting, dut.start, dut.first,
             dut.last, dut.o.ready, self.followed],
        )  # fmt: skip

    def rules(self, m: Module) -> None:
        dut, followed = self.dut, self.followed
        still(m, followed, "followed", always=True)
        taken = dut.o.valid & dut.o.ready
        # What may change, and when; nothing is taken by who rests.
        first, last, changed = Signal(2), Signal(2), Signal(init=1)
        m.d.sync += [first.eq(dut.first), last.eq(dut.last), changed.eq(dut.loading)]
        m.d.comb += [
            Assume(~(dut.w_en & ~dut.loading)),
            Assume(~(dut.loading & ~dut.resting)),
            Assume(~(dut.start & ~dut.resting)),
            Assume(~(dut.resting & taken)),
            Assume(changed | ((dut.first == first) & (dut.last == last))),
            Assume(dut.first <= dut.last),
        ]
        # A run begins with a start, and nothing else ends the rest.
        running, started = Signal(), Signal()
        m.d.sync += started.eq(dut.start)
        m.d.sync += running.eq(dut.start | ~dut.resting)
        m.d.comb += [Assume(dut.resting | running), Assume(~(dut.resting & started))]
        word, written = Signal(2, reset_less=True), Signal(reset_less=True)
        with m.If(dut.w_en & (dut.w_addr == followed)):
            m.d.sync += [word.eq(dut.w_data), written.eq(1)]
        # What changes with the start counts.
        due = Signal(2)
        with m.If(started):
            m.d.sync += due.eq(dut.first)
        with m.Elif(taken):
            m.d.sync += due.eq(Mux(due == dut.last, dut.first, due + 1))
        m.d.comb += Assert(~(started & (dut.o.valid | dut.wrong)))
        with m.If(~dut.resting & ~started & dut.o.valid):
            m.d.comb += Assert(dut.o_last == (due == dut.last))
        with m.If(~dut.resting & ~started & written & (due == followed)):
            m.d.comb += Assert(~dut.wrong)
            with m.If(dut.o.valid):
                m.d.comb += Assert(dut.o.payload == word)


class Sums(Spec):
    """A slot holds what came for it since a sum that did not add; each is counted once."""

    def __init__(self) -> None:
        self.config = replace(SMALL, ous_per_pattern=2)
        dut = psum_store.PartialSumStore(self.config)
        self.followed = Signal(range(self.config.slots))
        super().__init__(
            dut,
            [dut.i.valid, dut.i.payload, *dut.o_slot, dut.taken, self.followed],
        )

    def rules(self, m: Module) -> None:
        dut, followed = self.dut, self.followed
        still(m, followed, "followed", always=True)
        given = dut.i.payload
        came, before = Signal(), Signal()
        m.d.comb += came.eq(dut.i.valid & (given.slot == followed))
        m.d.sync += before.eq(came)
        m.d.comb += Assume(~(came & before))
        stored, known = Signal.like(given.sums[0], reset_less=True), Signal(reset_less=True)
        added, value, final = Signal(), Signal.like(given.sums[0]), Signal()
        m.d.sync += [added.eq(given.accumulate), value.eq(given.sums[0])]
        with m.If(before):
            m.d.sync += [stored.eq(value + Mux(added, stored, 0)), known.eq(1)]
        read, then = Signal(), Signal.like(stored, reset_less=True)
        m.d.sync += then.eq(stored)
        m.d.sync += read.eq((dut.o_slot[0] == followed) & known & ~before)
        with m.If(read):
            # What is stored in the cycle of the read is not read, nor is there any.
            m.d.comb += Assert(dut.o_data[0] == then)
        count = Signal(range(2 * self.config.slots))
        valid = Signal()
        m.d.sync += [valid.eq(dut.i.valid), final.eq(given.final)]
        m.d.sync += count.eq(count + (valid & final) - dut.taken)
        m.d.comb += [
            Assume(dut.taken <= count),
            Assume(count + (valid & final) - dut.taken <= self.config.slots),
            Assert(dut.completed == count),
        ]


class Additions(Spec):
    """An accumulator holds what was added since one wrote; what is read is what it held."""

    def __init__(self, config: EngineConfig = SMALL) -> None:
        self.config = config
        dut = accumulators.Accumulators(config)
        self.half, self.output = Signal(), Signal(range(config.max_outputs))
        super().__init__(
            dut,
            [dut.merge_en, dut.merge_half, dut.merge_block, dut.write_half, dut.write_block,
             dut.write_en, dut.write_first, *dut.contribution, dut.read_half, dut.read_output,
             dut.read_en, self.half, self.output],
        )  # fmt: skip

    def rules(self, m: Module) -> None:
        dut = self.dut
        lanes = self.config.merge_lanes
        still(m, self.half, "half", always=True)
        still(m, self.output, "output", always=True)
        # A block is written in the cycle after it was addressed, or not at all.
        addressed, half, block = (
            Signal(),
            Signal.like(dut.merge_half, name="was_half"),
            Signal.like(dut.merge_block, name="was_block"),
        )
        m.d.sync += [
            addressed.eq(dut.merge_en),
            half.eq(dut.merge_half),
            block.eq(dut.merge_block),
        ]
        m.d.comb += [
            Assume(~dut.write_en.any() | addressed),
            Assume((dut.write_half == half) & (dut.write_block == block)),
            Assume(~(dut.merge_en & dut.read_en & (dut.merge_half == dut.read_half))),
        ]
        # Few bits are enough to tell sums apart, and solvers are slow at long ones.
        m.d.comb += [
            Assume(value[2:] == value[1].replicate(len(value) - 2)) for value in dut.contribution
        ]
        held = Signal.like(dut.read_acc, name="held", reset_less=True)
        for lane in range(lanes):
            here = (dut.write_half == self.half) & (dut.write_block * lanes + lane == self.output)
            with m.If(dut.write_en[lane] & here):
                m.d.sync += held.eq(dut.contribution[lane] + Mux(dut.write_first, 0, held))
        # It is there from the cycle behind the read on, until there is another.
        read, fresh, expected = Signal(), Signal(), Signal.like(dut.read_acc, name="expected")
        with m.If(dut.read_en):
            m.d.sync += read.eq((dut.read_half == self.half) & (dut.read_output == self.output))
        m.d.sync += fresh.eq(dut.read_en)
        with m.If(fresh):
            m.d.sync += expected.eq(held)
        with m.If(read):
            m.d.comb += Assert(dut.read_acc == Mux(fresh, held, expected))
