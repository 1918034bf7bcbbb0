"""Requantise: accumulators become output codes."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.faults import Fault, ProtectedMemory
from prap_hw.common.layouts import Layouts, Space, valid_only
from refmodel.config import EngineConfig

MAX_SHIFT = 47
"""Largest s of an output (docs/specification/architecture.md, Numbers and formats)."""

HALF = Const(1, 1)
"""What is added, in halves of a unit, before the fraction is cut off."""

LOW_BITS = 17
"""Bits of a factor, without a sign, that a multiplier of 18 by 18 bits with signs takes."""


class Requantise(wiring.Component):
    """Bias, multiply, shift with round half up, zero point, clip: one output a cycle.

    ``clip(floor((acc + bias) * M / 2**s + 1/2) + zero_out, clip_lo, clip_hi)``, halves towards
    plus infinity, with bias, M and s, 0 to 47, per output. With ``config.network`` and a layer that
    has a residual, ``(r - z_r) * M_r / 2**s_r`` is added before the rounding.

    Reads of a position begin in the cycle of ``position_done``, or right behind those of the
    position before; the first output is at ``o`` five cycles later; throughput is one output per
    cycle. The pipeline moves as one: it stands from the cycle on after one in which an output came
    and the one at ``o`` was not taken, until that is. So nothing depends on ``o.ready`` within the
    cycle; ``read_en`` and ``half_read`` depend combinationally on ``position_done`` and the
    residual, and ``trace.payload`` shows ``read_acc``.
    Reset empties the pipeline.

    The product is made in two parts, of the accumulator's low bits and of the others, which are
    added in the next cycle, before the shift. The shift leaves half a unit, to which another half
    is added with the zero point: so halves are rounded up.

    Parameters of the wrong parity are in ``faults`` three cycles after their read, an output whose
    parameters are not there a cycle after it. Neither is sent; outputs before them are.

    Parameters
    ----------
    config
        Sizes of the engine.
    ahead
        Positions that may be whole and not read at a time: the two halves of an engine's
        accumulators, or what a tile has room for.

    Members
    -------
    i_load : ``In(stream.Signature(load, always_ready=True))``
        Program words; those for space OUTPUT are stored.
    registers : ``In(registers)``
        Layer registers.
    position_done : ``In(1)``
        Pulse: the next accumulator half holds a whole position, with what is written to it in
        this cycle.
    read_en, read_half, read_output : ``Out``
        Read port of the accumulators.
    read_acc : ``In(signed(acc_width))``
        The accumulator, one cycle later.
    half_read : ``Out(2)``
        Pulse per half: its last accumulator is read in this cycle.
    i_residual : ``In(stream.Signature(8))``, with ``config.network``
        Codes of the residual operand, one to an output of a layer that has one, in their order.
        Taken with the read of the accumulator, which waits for it.
    o : ``Out(stream.Signature(output))``
        Output codes; ``last`` marks the last channel of a position.
    trace : ``Out(valid_only(trace_acc))``
        Each accumulator, before the bias, as it is read.
    faults : ``Out``, a bit to each of ``FAULTS``
        Parameters of the wrong parity; parameters beyond the memory.
    """

    FAULTS = ((Fault.PARITY, Space.OUTPUT), (Fault.RANGE, Space.OUTPUT))

    i_load: stream.Interface
    registers: data.View
    position_done: Signal
    read_en: Signal
    read_half: Signal
    read_output: Signal
    read_acc: Signal
    half_read: Signal
    i_residual: stream.Interface
    o: stream.Interface
    trace: Any
    faults: Signal

    def __init__(self, config: EngineConfig, ahead: int = 2):
        self.config = config
        self.ahead = ahead
        self.layouts = layouts = Layouts(config)
        self.params = ProtectedMemory(layouts.params, config.params)
        super().__init__(
            {
                "i_load": In(stream.Signature(layouts.load, always_ready=True)),
                "registers": In(layouts.registers),
                "position_done": In(1),
                "read_en": Out(1),
                "read_half": Out(1),
                "read_output": Out(layouts.output_bits),
                "read_acc": In(signed(config.acc_width)),
                "half_read": Out(2),
                **({"i_residual": In(stream.Signature(8))} if config.network else {}),
                "o": Out(stream.Signature(layouts.output)),
                "trace": Out(valid_only(layouts.trace_acc)),
                "faults": Out(len(self.FAULTS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts, registers = self.config, self.layouts, self.registers

        load = self.i_load.payload
        memory = self.params.ports(m, "params", load.data)
        params = memory.word
        m.d.comb += [
            memory.write.en.eq(self.i_load.valid & (load.space == Space.OUTPUT)),
            memory.write.addr.eq(load.addr),
        ]

        # Read: positions that are whole wait in a count, but for the cycle in which one becomes so;
        # halves alternate.
        move = Signal()
        spared = Signal()
        waiting = Signal(range(self.ahead + 1))
        half = Signal()
        channel = Signal(layouts.output_bits)
        next_channel = Signal(layouts.output_bits)
        reading = Signal()
        last = Signal()
        # Whether any waits; a register, since what is read here the merge may use in this cycle.
        any_waits = Signal()
        gone = Signal()
        there = any_waits | self.position_done
        param: Value = channel
        if config.network:
            there &= self.i_residual.valid | ~registers.residual
            param = channel + registers.first_output
            m.d.comb += self.i_residual.ready.eq(reading & registers.residual)
        m.d.comb += [
            move.eq(~spared),
            reading.eq(move & there),
            next_channel.eq(Mux(reading, Mux(last, 0, channel + 1), channel)),
            self.read_en.eq(reading),
            self.read_half.eq(half),
            self.read_output.eq(channel),
            gone.eq(reading & last),
            self.half_read.eq(Mux(gone, Cat(~half, half), 0)),
            memory.read.en.eq(reading),
            memory.read.addr.eq(param),
        ]
        m.d.sync += [
            waiting.eq(waiting + self.position_done - gone),
            any_waits.eq(
                (waiting > 1)
                | ((waiting == 1) & (self.position_done | ~gone))
                | (self.position_done & ~gone)
            ),
        ]
        m.d.sync += [
            channel.eq(next_channel),
            last.eq(next_channel == registers.last_output),
        ]
        with m.If(gone):
            m.d.sync += half.eq(~half)

        # Stages: what was read, with bias, parts of the product, shifted sum, clipped at the port.
        valid = [Signal(name=f"valid_{k}") for k in range(4)]
        channels = [Signal(layouts.output_bits, name=f"channel_{k}") for k in range(4)]
        shifts = [Signal(6, name=f"shift_{k}") for k in range(2)]
        multiplier = Signal(signed(16))
        biased = Signal(signed(config.acc_width + 1))
        low, high = biased[:LOW_BITS], biased[LOW_BITS:].as_signed()
        low_product = Signal(signed(LOW_BITS + 16))
        high_product = Signal(signed(len(high) + 16))
        total = low_product + (high_product << LOW_BITS)
        whole: Value | None = None
        if config.network:
            left, whole = self._residual(m, move, shifts[0])
            total += left
        # Fits: a product has acc_width + 17 bits, and of a residual there is less than a unit.
        halves = Signal(signed(config.acc_width + 18))
        clipped = Signal(8)
        # The zero point, and what commutes with the rounding. Where the sum is so large that no
        # offset brings it back among the codes, its sign alone counts, and no carry goes so far.
        offset = Signal(signed(9) if whole is None else signed(25))
        near = len(offset) + 2
        moved = Signal(signed(near))
        above = halves[near - 1 :]
        beyond = Signal()
        m.d.comb += [
            moved.eq((halves[:near].as_signed() + Cat(HALF, offset).as_signed()) >> 1),
            beyond.eq(above.any() & ~above.all()),
        ]
        with m.If(Mux(beyond, halves[-1], moved < registers.clip_lo)):
            m.d.comb += clipped.eq(registers.clip_lo)
        with m.Elif(beyond | (moved > registers.clip_hi)):
            m.d.comb += clipped.eq(registers.clip_hi)
        with m.Else():
            m.d.comb += clipped.eq(moved)
        # The parity of the parameters, in parts, so that what follows from it has a cycle.
        parities = Signal.like(memory.parities)
        unusable = Signal()
        m.d.comb += unusable.eq(valid[1] & ~parities.xor())
        m.d.sync += self.faults.eq(Cat(unusable, reading & (param >= config.params)))
        with m.If(move):
            m.d.sync += [
                valid[0].eq(reading & (param < config.params)),
                channels[0].eq(channel),
                valid[1].eq(valid[0]),
                channels[1].eq(channels[0]),
                biased.eq(self.read_acc + params.bias),
                multiplier.eq(params.multiplier),
                shifts[0].eq(params.shift),
                parities.eq(memory.parities),
                valid[2].eq(valid[1] & ~unusable),
                channels[2].eq(channels[1]),
                low_product.eq(low * multiplier),
                high_product.eq(high * multiplier),
                shifts[1].eq(shifts[0]),
                valid[3].eq(valid[2]),
                channels[3].eq(channels[2]),
                halves.eq((total << 1) >> shifts[1]),
                offset.eq(registers.zero_out if whole is None else registers.zero_out + whole),
            ]

        # At the port; where what is there is not taken, beside it.
        output = Signal(layouts.output)
        spare = Signal(layouts.output)
        m.d.comb += [
            output.channel.eq(channels[3]),
            output.last.eq(channels[3] == registers.last_output),
            output.code.eq(clipped),
        ]
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [
                self.o.valid.eq(spared | valid[3]),
                self.o.payload.eq(Mux(spared, spare, output)),
                spared.eq(0),
            ]
        with m.Elif(move):
            m.d.sync += [spare.eq(output), spared.eq(valid[3])]
        m.d.comb += [
            self.trace.valid.eq(move & valid[0]),
            self.trace.payload.output.eq(channels[0]),
            self.trace.payload.acc.eq(self.read_acc),
        ]
        return m

    def _residual(self, m: Module, move: Value, shift: Value) -> tuple[Value, Value]:
        """Work out the residual, three cycles behind the read, beside the product.

        Parameters
        ----------
        move
            Whether the pipeline moves.
        shift
            s of the output whose accumulator and bias are being added.

        Returns
        -------
        The residual's fraction of a code, times 2^s, and its whole codes. Whole codes commute with
        the rounding, so the sum that is rounded is no wider than without a residual.
        """
        registers = self.registers
        code = Signal(signed(9), name="residual_code")
        # Fits: 255 * 32768.
        worth = Signal(signed(24), name="residual_worth")
        left = Signal(MAX_SHIFT, name="residual_left")
        whole = Signal(signed(24), name="residual_whole")
        fraction = Signal(MAX_SHIFT, name="residual_fraction")
        mask = Signal(MAX_SHIFT, name="residual_mask")
        used = registers.residual
        m.d.comb += [
            mask.eq((1 << registers.residual_shift) - 1),
            fraction.eq(worth & mask),
        ]
        with m.If(move):
            m.d.sync += [
                code.eq(Mux(used, self.i_residual.payload - registers.residual_zero, 0)),
                worth.eq(code * registers.residual_multiplier),
                whole.eq(worth >> registers.residual_shift),
                # Fits: below 2^s, since s is not below the shift of the residual.
                left.eq(fraction << (shift - registers.residual_shift)[:6]),
            ]
        return left, whole
