"""What is proved of what controls runs."""

from dataclasses import replace

from amaranth import Array, Module, Mux, Signal, Value

from prap_hw.accelerator import sequencer
from prap_hw.engine import block_reader
from refmodel.config import EngineConfig
from tests.formal.specs import Assert, Assume, Spec
from tests.support.layers.hand import TINY_ENGINE

NETWORK = EngineConfig(network=True, activation_bytes=100)


class List(Spec):
    """One operation runs at a time; done once to a start, after the last; loads while nothing runs.

    The operations run as long as they want to, and the host starts, sends and loads as it likes.
    """

    def __init__(self) -> None:
        dut = sequencer.Sequencer(replace(NETWORK, max_outputs=4), commands=4)
        super().__init__(
            dut, [dut.i_load.valid, dut.i_load.payload, dut.offered, dut.start, dut.running]
        )

    def rules(self, m: Module) -> None:
        dut = self.dut
        # An operation runs from the cycle after its start until it says so, and none otherwise.
        ran, began = Signal(), Signal()
        m.d.sync += [began.eq(dut.run), ran.eq(dut.running)]
        m.d.comb += [
            Assume(~began | dut.running),
            Assume(~dut.running | began | ran),
            Assume(~(dut.i_load.valid & ~dut.loadable)),
        ]
        # A start counts where nothing is busy; done answers it.
        asked = Signal()
        with m.If(dut.done):
            m.d.sync += asked.eq(0)
        with m.Elif(dut.start):
            m.d.sync += asked.eq(1)
        with m.If(dut.done & dut.start):
            m.d.sync += asked.eq(1)
        m.d.comb += [
            Assert(~(dut.run & dut.running)),
            Assert(~(dut.o_load.valid & dut.running)),
            Assert(~(dut.done & (dut.running | ~asked))),
            Assert(dut.busy == (asked & ~dut.done)),
            Assert(~(dut.loadable & (dut.busy | dut.running))),
            Assert(dut.silent | ~dut.loadable),
            Assert(~(dut.silent & (dut.run | dut.o_load.valid))),
        ]
        # What is known of its state.
        inner = self.inner
        at, states = inner["at"], dut.State
        m.d.comb += [
            Assert(inner["asked"] == asked),
            Assert((at == states.WAIT) | ~dut.running),
            Assert(Value.cast(at) != 3),
        ]


class Positions(Spec):
    """Positions of blocks have a pulse each, as early as can be, and a half is free with its last.

    Blocks of any length come into the two halves in turn, a half not before it is free; a position
    is read whenever its reader likes, from its pulse on.
    """

    def __init__(self) -> None:
        dut = block_reader.BlockReader(replace(TINY_ENGINE, position_lanes=4))
        super().__init__(dut, [dut.block_done, dut.last_turn, dut.position_read])

    def rules(self, m: Module) -> None:
        dut, inner = self.dut, self.inner
        done, last = dut.block_done, dut.last_turn
        # The halves: which is filled next, which is read, whether they hold a block, of what size.
        fill, half, place = Signal(), Signal(), Signal.like(last)
        full = Array(Signal(name=f"full_{n}") for n in range(2))
        size = Array(Signal.like(last, name=f"size_{n}") for n in range(2))
        # Positions that are whole and have had no pulse; that have had one and are not read.
        owed, ahead = Signal(range(9)), Signal(range(9))
        here = Mux(done & (fill == half), last, size[half])
        free = Signal()
        m.d.comb += [
            Assume(~(done & full[fill])),
            Assume(~dut.position_read | (ahead != 0) | dut.position_done),
            free.eq(dut.position_read & (place == here)),
            Assert(dut.position_done == (done | (owed != 0))),
            Assert((dut.read_half == half) & (dut.read_turn == place)),
            Assert(dut.half_read == Mux(free, Mux(half, 2, 1), 0)),
        ]
        m.d.sync += [
            owed.eq(owed + Mux(done, last + 1, 0) - dut.position_done),
            ahead.eq(ahead + dut.position_done - dut.position_read),
            half.eq(half ^ free),
        ]
        with m.If(dut.position_read):
            m.d.sync += place.eq(Mux(free, 0, place + 1))
        with m.If(done):
            m.d.sync += [full[fill].eq(1), size[fill].eq(last), fill.eq(~fill)]
        with m.If(free):
            m.d.sync += full[half].eq(0)
        # What is known of its state, and of ours.
        left = Mux(full[half], size[half] + 1 - place, 0) + Mux(full[~half], size[~half] + 1, 0)
        m.d.comb += [
            Assert(inner["waiting"] == owed),
            Assert(inner["done_half"] == fill),
            Assert(~full[0] | (inner["lasts"][0] == size[0])),
            Assert(~full[1] | (inner["lasts"][1] == size[1])),
            Assert(owed + ahead == left),
            Assert(full[half] | ((place == 0) & ~full[~half])),
            Assert(~full[half] | (place <= size[half])),
            Assert(fill == half ^ full[half] ^ full[~half]),
        ]
