"""Accumulators: one half is merged into while the other is requantised."""

from amaranth import Array, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from prap_hw.common.layouts import Layouts
from refmodel.config import EngineConfig


class Accumulators(wiring.Component):
    """Two halves of ``max_outputs`` accumulators, each in ``merge_lanes`` banks.

    Where blocks have several positions, a half has as many accumulators to each of them, in banks
    of their own: bank ``p * merge_lanes + l`` is that of lane l of the block's position p.

    Merging: ``merge_block`` is addressed in one cycle and written in the next, by adding to what
    was there or, with ``write_first``, without. Reading: ``read_acc`` is the accumulator that was
    addressed in the last cycle with ``read_en``, until there is another, whatever is merged
    meanwhile. A block that is written in the cycle in which it is addressed, for merging or
    reading, reads as written: blocks may repeat in every cycle, and a half may be read from the
    cycle of its last write on. In one cycle, a half must not be addressed for both. Reset keeps the
    contents.

    Members
    -------
    merge_en, merge_half, merge_block : ``In``
        Enable and address for merging.
    write_half, write_block, write_en, write_first, contribution : ``In``
        Address, enables and values of a write, one cycle after the block was addressed.
    read_half, read_output, read_en : ``In``
        Enable and address of a read.
    read_turn : ``In``, where blocks have several positions
        Which of the block's positions is read.
    read_acc : ``Out(signed(acc_width))``
        The accumulator that was read.
    """

    merge_en: Signal
    merge_half: Signal
    merge_block: Signal
    write_half: Signal
    write_block: Signal
    write_en: Signal
    write_first: Signal
    contribution: list[Signal]
    read_half: Signal
    read_output: Signal
    read_en: Signal
    read_turn: Signal
    read_acc: Signal

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        banks = config.merge_lanes * config.position_lanes
        super().__init__(
            {
                "merge_en": In(1),
                "merge_half": In(1),
                "merge_block": In(layouts.block_bits),
                "write_half": In(1),
                "write_block": In(layouts.block_bits),
                "write_en": In(banks),
                "write_first": In(1),
                "contribution": In(signed(config.acc_width)).array(banks),
                "read_half": In(1),
                "read_output": In(layouts.output_bits),
                "read_en": In(1),
                **({"read_turn": In(layouts.turn_bits)} if config.position_lanes > 1 else {}),
                "read_acc": Out(signed(config.acc_width)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts = self.config, self.layouts
        shape = signed(config.acc_width)
        lanes = config.merge_lanes
        lane_bits = (lanes - 1).bit_length()
        banks = lanes * config.position_lanes

        old = []
        for half in range(2):
            for lane in range(banks):
                m.submodules[f"half_{half}_bank_{lane}"] = bank = Memory(
                    shape=shape, depth=max(2, layouts.blocks), init=[]
                )
                write = bank.write_port()
                read = bank.read_port(domain="sync", transparent_for=(write,))
                merging = self.merge_en & (self.merge_half == half)
                reading = self.read_half == half
                if config.position_lanes > 1:
                    reading = reading & (self.read_turn == lane // lanes)
                m.d.comb += [
                    # While a half is read for requantisation, nothing merges into it.
                    read.addr.eq(
                        Mux(
                            reading & self.read_en,
                            self.read_output >> lane_bits,
                            self.merge_block,
                        )
                    ),
                    read.en.eq(merging | (reading & self.read_en)),
                    write.addr.eq(self.write_block),
                    write.en.eq(self.write_en[lane] & (self.write_half == half)),
                    write.data.eq(self.contribution[lane] + Mux(self.write_first, 0, read.data)),
                ]
                old.append(read.data)

        # The next position may be merged into the half from the cycle after its last read on: what
        # was read is kept while the reader stands.
        chosen = Signal(range(2 * banks))
        fresh = Signal()
        kept = Signal(shape)
        m.d.sync += [fresh.eq(self.read_en), kept.eq(self.read_acc)]
        place = (self.read_output & (lanes - 1)) + banks * self.read_half
        if config.position_lanes > 1:
            place += lanes * self.read_turn
        with m.If(self.read_en):
            m.d.sync += chosen.eq(place)
        m.d.comb += self.read_acc.eq(Mux(fresh, Array(old)[chosen], kept))
        return m
