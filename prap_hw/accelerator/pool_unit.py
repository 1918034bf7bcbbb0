"""Pool unit: pooling, addition and requantisation of codes, a code a cycle."""

from amaranth import Array, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.layouts import Layouts
from prap_hw.engine.requantise import MAX_SHIFT
from refmodel.config import MOST_TAPS, OPERANDS, EngineConfig, bits_for

PRODUCT_BITS = 32
"""Bits of (code - z_0) * M_0 * (code - z_1): below 255 * 32768 * 255."""


class PoolUnit(wiring.Component):
    """Fold the codes of each item into one output.

    With ``maximum`` the output is the largest code; otherwise it is ``floor(sum over codes of
    (code - z_k) * M_k / 2**s + 1/2) + zero_out``, halves towards plus infinity, with z_k and M_k of
    the code's operand. With ``config.products`` there is ``product``, and with it the sum is
    ``(code_0 - z_0) * M_0 * (code_1 - z_1)`` of an item's two codes; M_1 is not used. Each is
    limited to ``clip_lo`` .. ``clip_hi``.

    An output is at ``o`` four cycles after the last code of its item was accepted; throughput is
    one code a cycle. The pipeline moves as one and stands while ``o`` holds an output that is not
    taken: ``i.ready`` depends combinationally on ``o.ready``. Reset empties the pipeline.

    Members
    -------
    registers : ``In(post)``
        Registers of post-processing; they stand still while there is something in the pipeline.
    i : ``In(stream.Signature(read))``
        Codes; ``first`` begins an item, ``last`` ends it.
    o : ``Out(stream.Signature(8))``
        Output codes.
    """

    registers: data.View
    i: stream.Interface
    o: stream.Interface

    def __init__(self, config: EngineConfig):
        self.products = config.products
        layouts = Layouts(config)
        super().__init__(
            {
                "registers": In(layouts.post),
                "i": In(stream.Signature(layouts.read)),
                "o": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        registers, item = self.registers, self.i.payload

        move = Signal()
        valid = Signal()
        first = Signal()
        last = Signal()
        code = Signal(8)
        # Fits: 255 * 32768, and that of as many codes as an item has at most.
        term = Signal(signed(PRODUCT_BITS if self.products else 24))
        above = Signal(signed(9))
        factor = Signal(signed(16))
        total = Signal(signed(24 + bits_for(MOST_TAPS)))
        largest = Signal(8)
        folded = Signal()
        half_unit = Signal(MAX_SHIFT)
        # Fits: a total, or what is below 2^47.
        rounded = Signal(signed(MAX_SHIFT + 2))
        result = Signal(signed(MAX_SHIFT + 2))
        divided = Signal()
        moved = Signal(signed(MAX_SHIFT + 3))
        clipped = Signal(8)
        zeros = Array(registers[f"zero_{number}"] for number in range(OPERANDS))
        multipliers = Array(registers[f"multiplier_{number}"] for number in range(OPERANDS))
        m.d.comb += [
            move.eq(~self.o.valid | self.o.ready),
            self.i.ready.eq(move),
            half_unit.eq(Mux(registers.shift == 0, 0, (1 << registers.shift) >> 1)),
            rounded.eq(total + half_unit),
            moved.eq(result + Mux(registers.maximum, 0, registers.zero_out)),
        ]
        before = Mux(first, 0, total)
        if self.products:
            # The first code's share waits for the second, which multiplies it and is all.
            held = Signal(signed(24))
            second = Signal()
            m.d.comb += [
                second.eq(registers.product & ~first),
                term.eq(above * Mux(second, held, factor)),
            ]
            before = Mux(second, 0, before)
            with m.If(move & valid):
                m.d.sync += held.eq(term)
        else:
            m.d.comb += term.eq(above * factor)
        with m.If(moved < registers.clip_lo):
            m.d.comb += clipped.eq(registers.clip_lo)
        with m.Elif(moved > registers.clip_hi):
            m.d.comb += clipped.eq(registers.clip_hi)
        with m.Else():
            m.d.comb += clipped.eq(moved)
        with m.If(move):
            m.d.sync += [
                valid.eq(self.i.valid),
                first.eq(item.first),
                last.eq(item.last),
                code.eq(item.code),
                above.eq(item.code - zeros[item.operand]),
                factor.eq(multipliers[item.operand]),
                folded.eq(valid & last),
                result.eq(Mux(registers.maximum, largest, rounded >> registers.shift)),
                divided.eq(folded),
                self.o.valid.eq(divided),
                self.o.payload.eq(clipped),
            ]
            with m.If(valid):
                m.d.sync += [
                    total.eq(before + term),
                    largest.eq(Mux(first | (code > largest), code, largest)),
                ]
        return m
