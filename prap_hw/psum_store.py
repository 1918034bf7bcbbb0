"""The partial-sum store: a ring of slots, written by shift-and-add and read by the merge."""

from typing import Any

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from prap_hw.layouts import Layouts, valid_only
from refmodel.config import EngineConfig, bits_for


class PartialSumStore(wiring.Component):
    """Slots of partial sums, with one read port to a merge lane.

    A sum at ``i`` is stored one cycle later, added to what its slot holds where ``accumulate`` is
    set; ``completed`` counts it from the cycle after that. Two sums for one slot must be at least
    two cycles apart, which an OU's eight digits ensure. ``o_data[l]`` is the slot ``o_slot[l]`` of
    the cycle before; reading a slot that is not complete is excluded by ``completed``. Reset
    clears the count and keeps the sums.

    Members
    -------
    i : ``In(stream.Signature(psum, always_ready=True))``
        Sums of one OU each.
    o_slot : ``In``, one to a lane
        Slots to read.
    o_data : ``Out``, one to a lane
        Partial sums, signed.
    completed : ``Out``
        Complete slots that no group has taken yet.
    taken : ``In``
        Slots of the group whose merge issues its last step in this cycle.
    trace : ``Out(valid_only(trace_psum))``
        Each slot when it becomes complete.
    """

    i: stream.Interface
    o_slot: list[Signal]
    o_data: list[Signal]
    completed: Signal
    taken: Signal
    trace: Any

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        count = bits_for(config.slots + 1)
        super().__init__(
            {
                "i": In(stream.Signature(layouts.psum, always_ready=True)),
                "o_slot": In(layouts.slot_bits).array(config.merge_lanes),
                "o_data": Out(signed(config.psum_width)).array(config.merge_lanes),
                "completed": Out(count),
                "taken": In(count),
                "trace": Out(valid_only(layouts.trace_psum)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts = self.config, self.layouts
        shape = signed(config.psum_width)

        stored = Signal(layouts.psum)
        stored_valid = Signal()
        m.d.sync += [stored.eq(self.i.payload), stored_valid.eq(self.i.valid)]
        total = Signal(shape)
        m.d.comb += total.eq(stored.sum)

        def copy(name: str, address):
            """One copy of the slots, all written alike; returns its read data."""
            m.submodules[name] = memory = Memory(shape=shape, depth=config.slots, init=[])
            write = memory.write_port()
            read = memory.read_port(domain="sync")
            m.d.comb += [
                write.en.eq(stored_valid),
                write.addr.eq(stored.slot),
                write.data.eq(total),
                read.en.eq(1),
                read.addr.eq(address),
            ]
            return read.data

        for lane in range(config.merge_lanes):
            m.d.comb += self.o_data[lane].eq(copy(f"lane_{lane}", self.o_slot[lane]))
        if config.ous_per_pattern > 1:
            before = copy("accumulate", self.i.payload.slot)
            # Fits: psum_width counts ous_per_pattern sums.
            m.d.comb += total.eq(stored.sum + Mux(stored.accumulate, before, 0))

        complete = Signal()
        m.d.comb += complete.eq(stored_valid & stored.final)
        m.d.sync += self.completed.eq(self.completed + complete - self.taken)
        m.d.comb += [
            self.trace.valid.eq(complete),
            self.trace.payload.slot.eq(stored.slot),
            self.trace.payload.sum.eq(total),
        ]
        return m
