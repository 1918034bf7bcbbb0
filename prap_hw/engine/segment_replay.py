"""Segment replay: each gather's segments, read once, for every position of a block."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from prap_hw.common.layouts import Layouts
from refmodel.config import EngineConfig


class SegmentReplay(wiring.Component):
    """Keep the segments of a gather, and give them again for the other positions of a block.

    A block is ``position_lanes`` positions, in the order of the walk; the last one of a layer may
    be short. In a gather's first turn its segments come from the index memories (``fresh``), and go
    through to ``segment``; in each other turn they come from here. The positions themselves are
    taken from the walk in the turns of a block's first gather: ``step`` says when it moves on.
    Later gathers have their addresses from here.

    All outputs depend combinationally on the inputs; what is kept is written with ``accept`` and
    can be read in the next cycle. There is no dead cycle between turns, gathers or blocks.
    ``start`` begins with the first turn of a first gather; reset does so, too.

    Members
    -------
    start : ``In(1)``
        Pulse: begin with a layer.
    accept : ``In(1)``
        Whether a segment is taken in this cycle.
    index, last_segment, last_gather : ``In``
        Number of the segment in its gather; whether it is the gather's last one, and its gather the
        position's last.
    i_segment : ``In(replayed)``
        The segment as the index memories have it; looked at where ``fresh``.
    i_base, i_last_position : ``In``
        Address of the position that the walk has come to, and whether it is the layer's last.
    fresh : ``Out(1)``
        Whether the segment comes from the index memories.
    segment, base : ``Out``
        The segment, and the address of the position that it is for.
    turn, last_turn : ``Out``
        Which of its block's that position is, from 0; whether it is the block's last.
    step : ``Out(1)``
        Whether the walk moves on with this segment, if it is taken.
    gather_done : ``Out(1)``
        Whether the gather is done with this segment, if it is taken, for all positions.
    last : ``Out``
        Number of the last position of the block whose first gather was done last.
    """

    start: Signal
    accept: Signal
    index: Signal
    last_segment: Signal
    last_gather: Signal
    i_segment: data.View
    i_base: Signal
    i_last_position: Signal
    fresh: Signal
    segment: data.View
    base: Signal
    turn: Signal
    last_turn: Signal
    step: Signal
    gather_done: Signal
    last: Signal

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        base = layouts.address_bits + 1
        super().__init__(
            {
                "start": In(1),
                "accept": In(1),
                "index": In(range(config.ou_rows)),
                "last_segment": In(1),
                "last_gather": In(1),
                "i_segment": In(layouts.replayed),
                "i_base": In(base),
                "i_last_position": In(1),
                "fresh": Out(1),
                "segment": Out(layouts.replayed),
                "base": Out(base),
                "turn": Out(layouts.turn_bits),
                "last_turn": Out(1),
                "step": Out(1),
                "gather_done": Out(1),
                "last": Out(layouts.turn_bits),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts = self.config, self.layouts
        lanes = config.position_lanes

        # At most 32 segments and 4 addresses, read within the cycle.
        m.submodules.segments = segments = Memory(
            shape=layouts.replayed, depth=config.ou_rows, init=[]
        )
        m.submodules.bases = bases = Memory(shape=self.base.shape(), depth=lanes, init=[])
        keep, kept = segments.write_port(), segments.read_port(domain="comb")
        note, noted = bases.write_port(), bases.read_port(domain="comb")

        # Whether the block's positions are still taken from the walk.
        first_gather = Signal(init=1)
        turn_ends = Signal()
        m.d.comb += [
            turn_ends.eq(self.accept & self.last_segment),
            self.fresh.eq(self.turn == 0),
            keep.en.eq(self.accept & self.fresh),
            keep.addr.eq(self.index),
            keep.data.eq(self.i_segment),
            kept.addr.eq(self.index),
            note.en.eq(turn_ends & first_gather),
            note.addr.eq(self.turn),
            note.data.eq(self.i_base),
            noted.addr.eq(self.turn),
            self.segment.eq(Mux(self.fresh, self.i_segment, kept.data)),
            self.base.eq(Mux(first_gather, self.i_base, noted.data)),
            self.step.eq(first_gather & self.last_segment),
            self.gather_done.eq(self.last_segment & self.last_turn),
        ]
        with m.If(first_gather):
            m.d.comb += self.last_turn.eq((self.turn == lanes - 1) | self.i_last_position)
        with m.Else():
            m.d.comb += self.last_turn.eq(self.turn == self.last)
        with m.If(turn_ends):
            m.d.sync += self.turn.eq(self.turn + 1)
            with m.If(self.last_turn):
                m.d.sync += [self.turn.eq(0), first_gather.eq(self.last_gather)]
                with m.If(first_gather):
                    m.d.sync += self.last.eq(self.turn)
        with m.If(self.start):
            m.d.sync += [self.turn.eq(0), first_gather.eq(1)]
        return m
