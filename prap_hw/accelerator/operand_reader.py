"""Operand reader: what post-processing reads of the activation memory, a byte a cycle."""

from typing import Any

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Layouts, Space, valid_only
from refmodel.config import OPERANDS, EngineConfig


class OperandReader(wiring.Component):
    """Walk an operation's loops and read a window of each operand for every item.

    For every row, column and channel of the loops, in this order, and for every operand: the codes
    of a window, row by row, each at the operand's base + row * row_step + column * column_step +
    channel * channel_step + tap row * tap_row_step + tap column * tap_column_step. A channel
    outside the operand's first to last has the zero point instead. It has a copy of the activation
    memory of its own, so that it never waits for the gather.

    The first code is valid two cycles after ``start``; throughput is one a cycle. ``o.payload`` is
    held until accepted. The memory's read enable depends combinationally on ``o.ready``; no output
    depends on an input within the cycle but ``reading`` and ``faults``. Reset ends the walk; the
    memory keeps its bytes.

    A code whose address is not in the memory is in ``faults`` in the cycle of its read, and is not
    valid. Bases and steps have a sign, so that no step from one address in the memory to another
    can be mistaken for a step beyond it, or the other way round. Those of channels that have the
    zero point instead are not checked, and may wrap around.

    Members
    -------
    registers : ``In(post)``
        Registers of post-processing; they stand still during the walk.
    start : ``In(1)``
        Pulse: begin.
    i_store : ``In(valid_only(store))``
        Bytes to store. A byte that is stored in the cycle in which it is read is read as it was.
    o : ``Out(stream.Signature(read))``
        Codes, which operand each is of, and whether it is the first or last of its item.
    reading : ``Out(1)``
        A byte is read in this cycle.
    faults : ``Out``, a bit to each of ``FAULTS``
        A code that is not in the memory.
    """

    FAULTS = ((Fault.RANGE, Space.POST),)

    registers: data.View
    start: Signal
    i_store: Any
    o: stream.Interface
    reading: Signal
    faults: Signal

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        super().__init__(
            {
                "registers": In(layouts.post),
                "start": In(1),
                "i_store": In(valid_only(layouts.store)),
                "o": Out(stream.Signature(layouts.read)),
                "reading": Out(1),
                "faults": Out(len(self.FAULTS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        # Addresses are modulo twice the memory's, negative ones in the upper half.
        registers, bits = self.registers, self.layouts.address_bits + 1

        m.submodules.bytes = memory = Memory(shape=8, depth=self.config.activation_bytes, init=[])
        store = memory.write_port()
        read = memory.read_port(domain="sync")
        m.d.comb += [
            store.en.eq(self.i_store.valid),
            store.addr.eq(self.i_store.payload.addr),
            store.data.eq(self.i_store.payload.data),
        ]

        # Where the walk is.
        row = Signal.like(registers.last_row)
        column = Signal.like(registers.last_column)
        channel = Signal.like(registers.last_channel)
        operand = Signal()
        tap_row = Signal.like(registers.last_tap_row)
        tap_column = Signal.like(registers.last_tap_column)
        active = Signal()
        last_column = Signal()
        last_channel = Signal()
        row_ends = Signal()
        window_ends = Signal()
        item_ends = Signal()
        read_now = Signal()
        m.d.comb += [
            last_column.eq(column == registers.last_column),
            last_channel.eq(channel == registers.last_channel),
            row_ends.eq(tap_column == registers.last_tap_column),
            window_ends.eq(row_ends & (tap_row == registers.last_tap_row)),
            item_ends.eq(window_ends & (operand == registers.last_operand)),
            read_now.eq(active & (~self.o.valid | self.o.ready)),
        ]

        # To each operand the addresses of its row, column and window; of the present one, those of
        # the row of the window and of the code.
        address = Signal(bits)
        tap_row_address = Signal(bits)
        after_row = Signal(bits)
        windows = []
        present = []
        m.d.comb += after_row.eq(tap_row_address + registers.tap_row_step)
        for number in range(OPERANDS):

            def of(name: str, number: int = number):
                return registers[f"{name}_{number}"]

            row_address = Signal(bits, name=f"row_address_{number}")
            column_address = Signal(bits, name=f"column_address_{number}")
            window = Signal(bits, name=f"window_{number}")
            next_row = Signal(bits, name=f"next_row_{number}")
            next_column = Signal(bits, name=f"next_column_{number}")
            next_window = Signal(bits, name=f"next_window_{number}")
            here = Signal(name=f"present_{number}")
            m.d.comb += [
                next_row.eq(row_address + of("row_step")),
                next_column.eq(Mux(last_column, next_row, column_address + of("column_step"))),
                next_window.eq(Mux(last_channel, next_column, window + of("channel_step"))),
                here.eq((channel >= of("first_channel")) & (channel <= of("last_channel"))),
            ]
            with m.If(read_now & item_ends):
                m.d.sync += window.eq(next_window)
                with m.If(last_channel):
                    m.d.sync += column_address.eq(next_column)
                    with m.If(last_column):
                        m.d.sync += row_address.eq(next_row)
            with m.If(self.start):
                m.d.sync += [
                    row_address.eq(of("base")),
                    column_address.eq(of("base")),
                    window.eq(of("base")),
                ]
            windows.append((window, next_window))
            present.append(here)

        with m.If(read_now):
            m.d.sync += [
                tap_column.eq(tap_column + 1),
                address.eq(address + registers.tap_column_step),
            ]
            with m.If(row_ends):
                m.d.sync += [
                    tap_column.eq(0),
                    tap_row.eq(tap_row + 1),
                    address.eq(after_row),
                    tap_row_address.eq(after_row),
                ]
            with m.If(window_ends):
                # Windows move on with the item, so the second operand's is where the first's was.
                m.d.sync += [
                    tap_row.eq(0),
                    operand.eq(operand + 1),
                    address.eq(windows[1][0]),
                    tap_row_address.eq(windows[1][0]),
                ]
            with m.If(item_ends):
                m.d.sync += [
                    operand.eq(0),
                    address.eq(windows[0][1]),
                    tap_row_address.eq(windows[0][1]),
                    channel.eq(channel + 1),
                ]
                with m.If(last_channel):
                    m.d.sync += [channel.eq(0), column.eq(column + 1)]
                    with m.If(last_column):
                        m.d.sync += [column.eq(0), row.eq(row + 1)]
                        with m.If(row == registers.last_row):
                            m.d.sync += active.eq(0)

        # The memory's own output register is the stream's payload.
        absent = Signal()
        here = Array(present)[operand]
        beyond = Signal()
        zeros = Array(registers[f"zero_{number}"] for number in range(OPERANDS))
        m.d.comb += [
            read.en.eq(read_now),
            self.reading.eq(read_now),
            read.addr.eq(address),
            beyond.eq(here & (address >= self.config.activation_bytes)),
            self.faults.eq(read_now & beyond),
            self.o.payload.code.eq(Mux(absent, zeros[self.o.payload.operand], read.data)),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(read_now):
            m.d.sync += [
                self.o.valid.eq(~beyond),
                self.o.payload.operand.eq(operand),
                self.o.payload.first.eq((operand == 0) & (tap_row == 0) & (tap_column == 0)),
                self.o.payload.last.eq(item_ends),
                absent.eq(~here),
            ]
        with m.If(self.start):
            m.d.sync += [
                active.eq(1),
                self.o.valid.eq(0),
                row.eq(0),
                column.eq(0),
                channel.eq(0),
                operand.eq(0),
                tap_row.eq(0),
                tap_column.eq(0),
                address.eq(registers.base_0),
                tap_row_address.eq(registers.base_0),
            ]
        return m
