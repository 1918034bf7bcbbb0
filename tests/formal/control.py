"""What is proved of what controls runs."""

from dataclasses import replace

from amaranth import Module, Signal, Value

from prap_hw.accelerator import sequencer
from refmodel.config import EngineConfig
from tests.formal.specs import Assert, Assume, Spec

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
