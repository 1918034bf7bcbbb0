"""Write-back: outputs and the border around them go into the activation memory."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Layouts, Space, valid_only
from refmodel.config import EngineConfig


class WriteBack(wiring.Component):
    """Write the outputs of an operation with the pitch of their region, and its border.

    Outputs come row by row, channels fastest; each is written where ``output_base``,
    ``output_row_step`` and ``output_column_step`` say, in the cycle in which it is accepted. In the
    other cycles of the operation a byte of the border is written, run after run, until it is done:
    :class:`refmodel.predict.accelerator.regions.Fill`. So an operation ends with its last output
    or, if that is later, after as many cycles as outputs and border have bytes.

    ``busy`` rises in the cycle after ``start`` and falls in the cycle after the last byte. An
    output is accepted from the cycle after ``start`` on, one a cycle; with the register ``send`` it
    goes to ``o`` in the same cycle, and where it is not taken there, the next one is accepted when
    it is gone. ``busy`` waits for it. ``o``, ``store`` and ``faults`` depend combinationally on
    ``i``, nothing on ``o.ready``. Reset ends an operation.

    A byte whose address is not in the memory is in ``faults``, and is not written. Steps that are
    never taken may be anything.

    Members
    -------
    registers : ``In(post)``
        Registers of post-processing; they stand still while ``busy`` is high.
    start : ``In(1)``; busy : ``Out(1)``
        Begin; writing.
    i : ``In(stream.Signature(8))``
        Output codes.
    o : ``Out(stream.Signature(sent))``
        The same, with ``send``; ``last`` marks the operation's last.
    store : ``Out(valid_only(store))``
        Codes to write to the activation memory, with their addresses.
    faults : ``Out``, a bit to each of ``FAULTS``
        A byte whose address is not in the memory.
    """

    FAULTS = ((Fault.RANGE, Space.POST),)

    registers: data.View
    start: Signal
    busy: Signal
    i: stream.Interface
    o: stream.Interface
    store: Any
    faults: Signal

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        super().__init__(
            {
                "registers": In(layouts.post),
                "start": In(1),
                "busy": Out(1),
                "i": In(stream.Signature(8)),
                "o": Out(stream.Signature(layouts.sent)),
                "store": Out(valid_only(layouts.store)),
                "faults": Out(len(self.FAULTS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        registers = self.registers

        # Outputs: three counters, the address, and those of the column and the row that it is in.
        row = Signal.like(registers.last_row)
        column = Signal.like(registers.last_column)
        channel = Signal.like(registers.last_channel)
        # Fits: a step from a byte of the memory; beyond that, nothing is written.
        address = Signal(self.layouts.address_bits + 1)
        column_address = Signal.like(address)
        row_address = Signal.like(address)
        next_column = Signal.like(address)
        next_row = Signal.like(address)
        open_ = Signal()
        taken = Signal()
        last = Signal()
        # A code that is sent and not taken waits here: what gives codes sees nothing of the host.
        coming = Signal(self.layouts.sent)
        spare = Signal(self.layouts.sent)
        spared = Signal()
        held = Signal()
        m.d.comb += [
            next_column.eq(column_address + registers.output_column_step),
            next_row.eq(row_address + registers.output_row_step),
            last.eq(
                (row == registers.last_row)
                & (column == registers.last_column)
                & (channel == registers.last_channel)
            ),
            self.i.ready.eq(open_ & ~spared),
            taken.eq(self.i.valid & self.i.ready),
            coming.code.eq(self.i.payload),
            coming.last.eq(last),
            self.o.valid.eq(spared | (taken & registers.send)),
            self.o.payload.eq(Mux(spared, spare, coming)),
            held.eq(self.o.valid & ~self.o.ready),
        ]
        m.d.sync += spared.eq(held)
        with m.If(~spared):
            m.d.sync += spare.eq(coming)
        with m.If(taken):
            m.d.sync += [address.eq(address + 1), channel.eq(channel + 1)]
            with m.If(channel == registers.last_channel):
                m.d.sync += [
                    channel.eq(0),
                    column.eq(column + 1),
                    address.eq(next_column),
                    column_address.eq(next_column),
                ]
                with m.If(column == registers.last_column):
                    m.d.sync += [
                        column.eq(0),
                        row.eq(row + 1),
                        address.eq(next_row),
                        column_address.eq(next_row),
                        row_address.eq(next_row),
                    ]
            with m.If(last):
                m.d.sync += open_.eq(0)

        # The border: a byte in each cycle that has no output.
        filling = Signal()
        fill = Signal()
        run_ends = Signal()
        fill_ends = Signal()
        fill_address = Signal.like(address)
        left = Signal.like(registers.fill_first)
        more = Signal.like(registers.fill_more)
        m.d.comb += [
            fill.eq(filling & ~taken),
            run_ends.eq(fill & (left == 1)),
            fill_ends.eq(run_ends & (more == 0)),
        ]
        with m.If(fill):
            m.d.sync += [fill_address.eq(fill_address + 1), left.eq(left - 1)]
        with m.If(run_ends):
            m.d.sync += [
                fill_address.eq(fill_address + 1 + registers.fill_gap),
                left.eq(Mux(more == 1, registers.fill_last, registers.fill_between)),
                more.eq(more - 1),
            ]
        with m.If(fill_ends):
            m.d.sync += filling.eq(0)

        written = Signal.like(address)
        beyond = Signal()
        m.d.comb += [
            written.eq(Mux(taken, address, fill_address)),
            beyond.eq(written >= self.config.activation_bytes),
            self.faults.eq((taken | fill) & beyond),
            self.store.valid.eq((taken | fill) & ~beyond),
            self.store.payload.addr.eq(written),
            self.store.payload.data.eq(Mux(taken, self.i.payload, registers.fill_code)),
        ]
        with m.If((~open_ | (taken & last)) & (~filling | fill_ends) & ~held):
            m.d.sync += self.busy.eq(0)
        with m.If(self.start):
            m.d.sync += [
                self.busy.eq(1),
                open_.eq(1),
                row.eq(0),
                column.eq(0),
                channel.eq(0),
                address.eq(registers.output_base),
                column_address.eq(registers.output_base),
                row_address.eq(registers.output_base),
                filling.eq(registers.fill),
                fill_address.eq(registers.fill_base),
                left.eq(registers.fill_first),
                more.eq(registers.fill_more),
            ]
        return m
