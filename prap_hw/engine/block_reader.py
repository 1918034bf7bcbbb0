"""Block reader: what reads accumulators position by position, of blocks of several positions."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.layouts import Layouts
from refmodel.config import EngineConfig


def positions_ahead(config: EngineConfig) -> int:
    """Positions that an engine's accumulators may hold, whole and not read: those of two blocks."""
    return 2 * config.position_lanes


class BlockReader(wiring.Component):
    """Turn blocks that are merged into positions that can be read, and back.

    A half of the accumulators holds a block of ``position_lanes`` positions, or of fewer where it
    is a layer's last one. What reads them goes position by position: it gets a pulse of
    ``position_done`` to each, the first in the cycle of ``block_done``, then one a cycle, and gives
    one of ``position_read`` with the last read of each. The half is free with the last read of the
    block's last position.

    ``position_done`` depends combinationally on ``block_done``, and ``half_read`` on
    ``position_read`` and ``block_done``; the rest are registers. Blocks may be done in consecutive
    cycles, two before the first of them is read. Reset forgets them, and begins with half 0.

    Members
    -------
    block_done, last_turn : ``In``
        Pulse: the next half holds a whole block, with what is written to it in this cycle; the
        number of the block's last position.
    position_done : ``Out(1)``
        Pulse: another position can be read.
    position_read : ``In(1)``
        Pulse: the last accumulator of a position is read in this cycle.
    read_half, read_turn : ``Out``
        Where the position lies that is read now, or next.
    half_read : ``Out(2)``
        Pulse per half: its last accumulator is read in this cycle.
    """

    block_done: Signal
    last_turn: Signal
    position_done: Signal
    position_read: Signal
    read_half: Signal
    read_turn: Signal
    half_read: Signal

    def __init__(self, config: EngineConfig):
        self.config = config
        turn = Layouts(config).turn_bits
        super().__init__(
            {
                "block_done": In(1),
                "last_turn": In(turn),
                "position_done": Out(1),
                "position_read": In(1),
                "read_half": Out(1),
                "read_turn": Out(turn),
                "half_read": Out(2),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()

        # Positions that are whole and have had no pulse yet. Fits: two blocks.
        waiting = Signal(range(positions_ahead(self.config) + 1))
        whole = Mux(self.block_done, self.last_turn + 1, 0)
        m.d.comb += self.position_done.eq(self.block_done | (waiting != 0))
        m.d.sync += waiting.eq(waiting + whole - self.position_done)

        # The last position of each half; of the one that is whole in this cycle, as it comes.
        done_half = Signal()
        lasts = [Signal.like(self.last_turn, name=f"last_{half}") for half in range(2)]
        last = Signal.like(self.last_turn)
        here = self.block_done & (done_half == self.read_half)
        m.d.comb += last.eq(Mux(here, self.last_turn, Array(lasts)[self.read_half]))
        with m.If(self.block_done):
            m.d.sync += [done_half.eq(~done_half), Array(lasts)[done_half].eq(self.last_turn)]

        gone = Signal()
        m.d.comb += [
            gone.eq(self.position_read & (self.read_turn == last)),
            self.half_read.eq(Mux(gone, Cat(~self.read_half, self.read_half), 0)),
        ]
        with m.If(self.position_read):
            m.d.sync += self.read_turn.eq(Mux(gone, 0, self.read_turn + 1))
        m.d.sync += self.read_half.eq(self.read_half ^ gone)
        return m
