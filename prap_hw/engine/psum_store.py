"""The partial-sum store: a ring of slots, written by shift-and-add and read by the merge."""

from typing import Any

from amaranth import Array, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from prap_hw.common.layouts import Layouts, valid_only
from refmodel.config import EngineConfig, bits_for


class PartialSumStore(wiring.Component):
    """Slots of partial sums, with one read port to a merge lane.

    Where blocks have several positions, each has slots of its own: a bank to each of the block's
    positions, all of which are read at once. A slot is complete when the sums of all the block's
    positions are.

    Sums at ``i``, for consecutive slots, are stored one cycle later, added to what their slots hold
    where ``accumulate`` is set; ``completed`` counts them from the cycle after that. Two sums for
    one slot must be at least two cycles apart, which an OU's digits, two at least, ensure.
    ``o_data[l]`` is the slot ``o_slot[l]`` of the cycle before; reading a slot that is not complete
    is excluded by ``completed``; with several positions that of position p of the block is
    ``o_data[p * merge_lanes + l]``. Where several sums come at once, slots lie in turn in as many
    banks. Reset clears the count and keeps the sums.

    Members
    -------
    i : ``In(stream.Signature(psum, always_ready=True))``
        Sums of one gather each: those for ``count`` slots from ``slot`` on.
    o_slot : ``In``, one to a lane
        Slots to read.
    o_data : ``Out``, one to a lane of each position
        Partial sums, signed.
    completed : ``Out``
        Complete slots that no group has taken yet.
    taken : ``In``
        Slots of the group whose merge issues its last step in this cycle.
    updates : ``Out``
        Sums that are added to what their slots hold in this cycle.
    trace : ``Out(valid_only(trace_psums, columns.ends))``
        Each slot when it becomes complete; a bit of ``valid`` to each that may at once.
    """

    i: stream.Interface
    o_slot: list[Signal]
    o_data: list[Signal]
    completed: Signal
    taken: Signal
    updates: Signal
    trace: Any

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        count = bits_for(config.slots + 1)
        super().__init__(
            {
                "i": In(stream.Signature(layouts.psum, always_ready=True)),
                "o_slot": In(layouts.slot_bits).array(config.merge_lanes),
                "o_data": Out(signed(config.psum_width)).array(
                    config.merge_lanes * config.position_lanes
                ),
                "completed": Out(count),
                "taken": In(count),
                "updates": Out(range(layouts.columns.ends + 1)),
                "trace": Out(valid_only(layouts.trace_psums, layouts.columns.ends)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts = self.config, self.layouts
        shape = signed(config.psum_width)
        ends = layouts.columns.ends
        bank_bits = (ends - 1).bit_length()
        banks = 1 << bank_bits

        # What came, a register to each sum.
        incoming = self.i.payload
        slot = Signal(layouts.slot_bits)
        accumulate = Signal()
        final = Signal()
        valid = [Signal(name=f"valid_{i}") for i in range(ends)]
        sums = [Signal(shape, name=f"sum_{i}") for i in range(ends)]
        m.d.sync += [
            slot.eq(incoming.slot),
            accumulate.eq(incoming.accumulate),
            final.eq(incoming.final),
        ]
        # Which of its block's positions the sums are of, and whether they make slots complete.
        positions = config.position_lanes
        turn = Signal(layouts.turn_bits)
        completing: Value = final
        if positions > 1:
            last_turn = Signal()
            m.d.sync += [turn.eq(incoming.turn), last_turn.eq(incoming.last_turn)]
            completing = final & last_turn
        for i in range(ends):
            here = self.i.valid & (incoming.count > i) if ends > 1 else self.i.valid
            m.d.sync += [valid[i].eq(here), sums[i].eq(incoming.sums[i])]

        def turned(items: list[Signal], by: Value) -> list[Value]:
            """``items[(n - by) % banks]`` for every n, 0 where there is none."""
            if banks == 1:
                return list(items)
            padded = [*items, *[Const(0)] * (banks - len(items))]
            return [Array(padded[(n - k) % banks] for k in range(banks))[by] for n in range(banks)]

        # Sum i goes to bank (slot + i) % banks.
        low = slot[:bank_bits]
        enables = turned(valid, low)
        parts = turned(sums, low)
        totals = [Signal(shape, name=f"total_{bank}") for bank in range(banks)]

        def words(first: Value) -> list[Value]:
            """Address in each bank of the sums for the slots from ``first`` on."""
            if banks == 1:
                return [first]
            high = first[bank_bits:]
            return [high + (first[:bank_bits] > bank) for bank in range(banks)]

        def copy(name: str, position: int, addresses: list[Value]) -> list[Value]:
            """One copy of a position's slots; returns the data read from each bank."""
            found = []
            for bank, word in enumerate(words(slot)):
                label = name if positions == 1 else f"{name}_position_{position}"
                label = label if banks == 1 else f"{label}_bank_{bank}"
                enable: Value = enables[bank]
                if positions > 1:
                    enable = enable & (turn == position)
                m.submodules[label] = memory = Memory(
                    shape=shape, depth=max(2, config.slots // banks), init=[]
                )
                write = memory.write_port()
                read = memory.read_port(domain="sync")
                m.d.comb += [
                    write.en.eq(enable),
                    write.addr.eq(word),
                    write.data.eq(totals[bank]),
                    read.en.eq(1),
                    read.addr.eq(addresses[bank]),
                ]
                found.append(read.data)
            return found

        for lane in range(config.merge_lanes):
            bank = Signal(bank_bits, name=f"bank_{lane}")
            for position in range(positions):
                found = copy(f"lane_{lane}", position, [self.o_slot[lane][bank_bits:]] * banks)
                data = found[0] if banks == 1 else Array(found)[bank]
                m.d.comb += self.o_data[position * config.merge_lanes + lane].eq(data)
            if banks > 1:
                m.d.sync += bank.eq(self.o_slot[lane][:bank_bits])
        before: list[Value] | None = None
        if config.ous_per_pattern > 1:
            each = [
                copy("accumulate", position, words(incoming.slot)) for position in range(positions)
            ]
            before = each[0]
            if positions > 1:
                before = [Array(of_bank)[turn] for of_bank in zip(*each, strict=True)]
        for bank, total in enumerate(totals):
            # Fits: psum_width counts ous_per_pattern sums.
            added = 0 if before is None else Mux(accumulate, before[bank], 0)
            m.d.comb += total.eq(parts[bank] + added)

        complete = Signal(range(ends + 1))
        stored = Signal(range(ends + 1))
        m.d.comb += [
            stored.eq(sum(valid[1:], valid[0])),
            complete.eq(Mux(completing, stored, 0)),
            self.updates.eq(0 if before is None else Mux(accumulate, stored, 0)),
        ]
        m.d.sync += self.completed.eq(self.completed + complete - self.taken)
        shown = totals if banks == 1 else turned(totals, (-low)[:bank_bits])
        for i in range(ends):
            m.d.comb += [
                self.trace.valid[i].eq(valid[i] & final),
                self.trace.payload[i].slot.eq(slot + i),
                self.trace.payload[i].sum.eq(shown[i]),
            ]
        return m
