"""An index memory and the prefetch that turns it into a stream."""

from amaranth import Module, Mux, Signal
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.faults import ProtectedMemory
from refmodel.config import bits_for


class IndexReader(wiring.Component):
    """Memory that is read from its first word to ``last`` over and over, as a stream.

    All outputs are registers: the output register of block RAM is slow, and what a word leads to
    must not wait for it. A word and whether its parity is right pass from that register to the
    stream's.

    The first word is valid two cycles after ``start``, or three where ``loading`` is high in that
    cycle; then throughput is one word per cycle, also from the last word to the first. While
    ``resting``, the memory is read at the first word, so that ``start`` need not reach its address:
    the address depends combinationally on ``resting`` and ``first``, the enable on ``resting`` and
    ``o.ready``. ``start`` discards the words that were read; reset leaves ``o.valid`` low until
    then. Writing while reading is excluded.

    Every word is stored with a parity bit. One that is wrong is never valid: the stream stands at
    it, with ``wrong`` high, until ``start`` or reset.

    Parameters
    ----------
    shape
        Shape of a word.
    depth
        Number of words.
    based
        Whether there is ``first``, the word to begin with instead of word 0.

    Members
    -------
    w_en, w_addr, w_data : ``In``
        Write port for loading.
    loading : ``In(1)``
        Whether the memory, ``first`` or ``last`` may change with this cycle.
    resting : ``In(1)``
        Whether no word is taken: high in the cycle of ``start``, low from the next one on until all
        words are taken that ever will be.
    start : ``In(1)``
        Pulse, while ``resting``: begin at word 0, or ``first``.
    first : ``In(range(depth))``, with ``based``
        Index of the first word.
    last : ``In(range(depth))``
        Index of the last word.
    o : ``Out(stream.Signature(shape))``
        The words.
    o_last : ``Out(1)``
        Whether the word at ``o`` is the last one.
    wrong : ``Out(1)``
        Whether the stream stands at a word with the wrong parity.
    """

    w_en: Signal
    w_addr: Signal
    w_data: Signal
    loading: Signal
    resting: Signal
    start: Signal
    first: Signal
    last: Signal
    o: stream.Interface
    o_last: Signal
    wrong: Signal

    def __init__(self, shape: ShapeLike, depth: int, *, based: bool = False):
        self.shape = shape
        self.based = based
        self.words = ProtectedMemory(shape, depth)
        index = bits_for(depth)
        super().__init__(
            {
                "w_en": In(1),
                "w_addr": In(index),
                "w_data": In(shape),
                "loading": In(1),
                "resting": In(1),
                "start": In(1),
                **({"first": In(index)} if based else {}),
                "last": In(index),
                "o": Out(stream.Signature(shape)),
                "o_last": Out(1),
                "wrong": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        words = self.words.ports(m, "words", self.w_data)
        read = words.read
        m.d.comb += [words.write.en.eq(self.w_en), words.write.addr.eq(self.w_addr)]

        pointer = Signal.like(self.last)
        address = Signal.like(self.last)
        first = self.first if self.based else 0
        running = Signal()
        again = Signal()
        at_first = Signal()
        # A word is in the memory's register, and one in the stream's that is valid or wrong.
        there = Signal()
        there_last = Signal()
        onward = Signal()
        m.d.comb += [
            onward.eq(~(self.o.valid | self.wrong) | (self.o.valid & self.o.ready)),
            at_first.eq(self.resting | again),
            address.eq(Mux(at_first, first, pointer)),
            read.addr.eq(address),
            read.en.eq(at_first | (running & (~there | onward))),
        ]
        with m.If(onward):
            m.d.sync += [
                self.o.valid.eq(there & ~words.wrong),
                self.wrong.eq(there & words.wrong),
                self.o.payload.eq(words.word),
                self.o_last.eq(there_last),
                there.eq(0),
            ]
        m.d.sync += again.eq(0)
        with m.If(read.en):
            m.d.sync += [
                there.eq(running),
                there_last.eq(address == self.last),
                pointer.eq(Mux(address == self.last, first, address + 1)),
            ]
        with m.If(self.start):
            m.d.sync += [
                running.eq(1),
                # What was read as it changed is read once more.
                again.eq(self.loading),
                there.eq(~self.loading),
                self.o.valid.eq(0),
                self.wrong.eq(0),
            ]
        return m
