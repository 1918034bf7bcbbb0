"""An index memory and the prefetch that turns it into a stream."""

from amaranth import Module, Signal
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.faults import ProtectedMemory
from refmodel.config import bits_for


class IndexReader(wiring.Component):
    """Memory that is read from its first word to ``last`` over and over, as a stream.

    The memory's own output register is the stream's payload, so nothing is prefetched twice.

    The first word is valid two cycles after ``start``; then throughput is one word per cycle,
    also from the last word to the first. The memory's read enable depends combinationally on
    ``o.ready``; no output does. ``start`` discards the word at the output and goes back to the
    first; reset leaves ``o.valid`` low until then. Writing while reading is excluded.

    Every word is stored with a parity bit. One that is wrong is never valid: the stream stands at
    it, with ``wrong`` high, until ``start`` or reset. The bit is checked behind the memory's output
    register, within the cycle.

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
    start : ``In(1)``
        Pulse: begin at word 0, or ``first``.
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
        first = self.first if self.based else 0
        running = Signal()
        there = Signal()
        m.d.comb += [
            read.addr.eq(pointer),
            read.en.eq(running & (~there | (self.o.valid & self.o.ready))),
            self.wrong.eq(there & words.wrong),
            self.o.valid.eq(there & ~words.wrong),
            self.o.payload.eq(words.word),
        ]
        with m.If(read.en):
            m.d.sync += [
                there.eq(1),
                self.o_last.eq(pointer == self.last),
                pointer.eq(pointer + 1),
            ]
            with m.If(pointer == self.last):
                m.d.sync += pointer.eq(first)
        with m.If(self.start):
            m.d.sync += [pointer.eq(first), running.eq(1), there.eq(0)]
        return m
