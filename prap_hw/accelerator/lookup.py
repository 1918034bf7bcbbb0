"""Lookup: outputs go through a table of 256 codes on their way to the activation memory."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.faults import Fault, ProtectedMemory
from prap_hw.common.layouts import Layouts, Lookup, Space
from refmodel.config import TABLE_CODES, EngineConfig


class LookupStage(wiring.Component):
    """Replace each output code by the entry of a table, or pass it on.

    With the register ``lookup`` at NONE, ``o`` is ``i`` within the cycle, and the stage is not
    there. With ONE, the output is entry ``code`` of table ``first_table``; with CHANNEL that of
    table ``first_table`` + channel. Outputs come row by row, channels fastest.

    With a table, latency is one cycle and throughput one code a cycle. ``i.ready`` depends
    combinationally on ``o.ready`` in either case, and is low where that is: so no code is taken
    between operations, when write-back takes none. ``start`` begins with channel 0 and empties the
    stage, as reset does; the memory keeps its words.

    A word of the wrong parity is in ``faults`` while it is due, and is never valid; so is a table
    that the memory has not, in the cycle in which its code is taken, and nothing comes out for it.

    Parameters
    ----------
    config
        Sizes of each engine; ``max_tables`` must be above 0.

    Members
    -------
    i_load : ``In(stream.Signature(load, always_ready=True))``
        Program words; those for space LOOKUP are stored: table * 256 + code.
    registers : ``In(post)``
        Registers of post-processing; they stand still during an operation.
    start : ``In(1)``
        Pulse: an operation begins.
    i, o : ``stream.Signature(8)``
        Codes.
    faults : ``Out``, a bit to each of ``FAULTS``
        A word of the wrong parity; a table that is not in the memory.
    """

    FAULTS = ((Fault.PARITY, Space.LOOKUP), (Fault.RANGE, Space.LOOKUP))

    i_load: stream.Interface
    registers: data.View
    start: Signal
    i: stream.Interface
    o: stream.Interface
    faults: Any

    def __init__(self, config: EngineConfig):
        self.config = config
        layouts = Layouts(config)
        self.words = ProtectedMemory(8, config.max_tables * TABLE_CODES)
        super().__init__(
            {
                "i_load": In(stream.Signature(layouts.load, always_ready=True)),
                "registers": In(layouts.post),
                "start": In(1),
                "i": In(stream.Signature(8)),
                "o": Out(stream.Signature(8)),
                "faults": Out(len(self.FAULTS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        registers, loaded = self.registers, self.i_load.payload
        words = self.words.ports(m, "tables", loaded.data)
        read, write = words.read, words.write

        used = Signal()
        there = Signal()
        taken = Signal()
        beyond = Signal()
        channel = Signal.like(registers.last_channel)
        # Fits: a table of the memory and the channel behind it, so that one beyond is seen.
        table = Signal(max(len(registers.first_table), len(channel)) + 1)
        m.d.comb += [
            write.en.eq(self.i_load.valid & (loaded.space == Space.LOOKUP)),
            write.addr.eq(loaded.addr),
            used.eq(registers.lookup != Lookup.NONE),
            table.eq(registers.first_table + Mux(registers.lookup == Lookup.CHANNEL, channel, 0)),
            beyond.eq(table >= self.config.max_tables),
            taken.eq(used & self.i.valid & self.i.ready),
            read.en.eq(taken),
            read.addr.eq(table * TABLE_CODES + self.i.payload),
            self.faults[0].eq(there & words.wrong),
            self.faults[1].eq(taken & beyond),
        ]
        with m.If(used):
            m.d.comb += [
                self.i.ready.eq(self.o.ready & ~(there & words.wrong)),
                self.o.valid.eq(there & ~words.wrong),
                self.o.payload.eq(words.word),
            ]
        with m.Else():
            m.d.comb += [
                self.i.ready.eq(self.o.ready),
                self.o.valid.eq(self.i.valid),
                self.o.payload.eq(self.i.payload),
            ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += there.eq(0)
        with m.If(taken):
            m.d.sync += [
                there.eq(~beyond),
                channel.eq(Mux(channel == registers.last_channel, 0, channel + 1)),
            ]
        with m.If(self.start):
            m.d.sync += [there.eq(0), channel.eq(0)]
        return m
