"""Input gather: the activation buffer, and the vectors that OUs take from it."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from prap_hw.common.layouts import Layouts, valid_only
from refmodel.config import EngineConfig


class InputGather(wiring.Component):
    """Read the bytes of each gather, one a cycle, into one of ``gather_buffers`` vectors.

    A segment is a run of consecutive bytes; the segments up to one with ``last`` make a vector.
    The first byte of a vector is read as soon as a vector buffer is free; a vector is valid at
    ``o`` two cycles after its last byte was read, with the sum of its bytes where the cells hold
    offset binary. Throughput is one byte per cycle, without a dead
    cycle between segments or vectors. ``o.payload`` is held until accepted; its rows from
    ``count`` on are leftovers that the consumer must not drive. A buffer is free in the cycle
    after ``o`` was accepted. No output depends combinationally on an input. Reset empties the
    buffers; the activation buffer keeps its bytes.

    Members
    -------
    i_acts : ``In(stream.Signature(acts))``
        Bytes to store, from address 0 on; after one with ``last`` the address is 0 again. Always
        ready; storing while gathering is excluded. Not with ``config.network``.
    i_store : ``In(valid_only(store))``, with ``config.network``
        Bytes to store, each with its address, also while others are gathered.
    i_segments : ``In(stream.Signature(segment))``
        Runs of input bytes.
    o : ``Out(stream.Signature(gathered))``
        Vectors: ``rows``, how many of them count, and the patterns to run under them, for which
        position of its block, as the segments have it; with offset binary also ``inputs``, the sum
        of the rows that count.
    reading : ``Out(1)``
        Whether a byte is read in this cycle.
    """

    i_acts: stream.Interface
    i_store: Any
    i_segments: stream.Interface
    o: stream.Interface
    reading: Signal

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        super().__init__(
            {
                **(
                    {"i_store": In(valid_only(layouts.store))}
                    if config.network
                    else {"i_acts": In(stream.Signature(layouts.acts, always_ready=True))}
                ),
                "i_segments": In(stream.Signature(layouts.segment)),
                "o": Out(stream.Signature(layouts.gathered)),
                "reading": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts = self.config, self.layouts
        rows, depth = config.ou_rows, config.gather_buffers

        # Activation buffer.
        m.submodules.bytes = buffer = Memory(shape=8, depth=config.activation_bytes, init=[])
        store = buffer.write_port()
        read = buffer.read_port(domain="sync")
        if config.network:
            m.d.comb += [
                store.en.eq(self.i_store.valid),
                store.addr.eq(self.i_store.payload.addr),
                store.data.eq(self.i_store.payload.data),
            ]
        else:
            pointer = Signal(layouts.address_bits)
            m.d.comb += [
                store.en.eq(self.i_acts.valid),
                store.addr.eq(pointer),
                store.data.eq(self.i_acts.payload.data),
            ]
            with m.If(self.i_acts.valid):
                m.d.sync += pointer.eq(Mux(self.i_acts.payload.last, 0, pointer + 1))

        # The segment being read: one byte a cycle.
        segment = Signal(layouts.segment)
        active = Signal()
        left = Signal(layouts.row_bits)
        address = Signal(layouts.address_bits)
        row = Signal(layouts.row_bits)
        # Registers say whether there are credits, the row is not the first, one byte is left: what
        # is issued decides within the cycle what the controller does.
        credits = Signal(range(depth + 1), init=depth)
        credit = Signal(init=1)
        within = Signal()
        one_left = Signal()
        issue = Signal()
        last_byte = Signal()
        last_of_vector = Signal()
        released = Signal()
        taken = Signal()
        m.d.comb += [
            # The first byte of a vector needs a free buffer; the others have it.
            issue.eq(active & (within | credit)),
            last_byte.eq(issue & one_left),
            last_of_vector.eq(last_byte & segment.last),
            taken.eq(issue & ~within),
            released.eq(self.o.valid & self.o.ready),
            read.en.eq(issue),
            read.addr.eq(address),
            self.reading.eq(issue),
            self.i_segments.ready.eq(~active | last_byte),
        ]
        with m.If(issue):
            m.d.sync += [
                address.eq(address + 1),
                left.eq(left - 1),
                one_left.eq(left == 2),
                row.eq(Mux(last_of_vector, 0, row + 1)),
                within.eq(~last_of_vector),
            ]
        with m.If(last_byte):
            m.d.sync += active.eq(0)
        with m.If(self.i_segments.valid & self.i_segments.ready):
            m.d.sync += [
                segment.eq(self.i_segments.payload),
                active.eq(1),
                address.eq(self.i_segments.payload.address),
                left.eq(self.i_segments.payload.length),
                one_left.eq(self.i_segments.payload.length == 1),
            ]
        m.d.sync += [
            credits.eq(credits + released - taken),
            credit.eq(released | (credits > 1) | ((credits == 1) & ~taken)),
        ]

        # The byte that was read goes to its row of the buffer in turn, one memory to a row.
        write_buffer = Signal(range(depth))
        arrived = Signal()
        arrived_row = Signal(layouts.row_bits)
        arrived_last = Signal()
        arrived_task = Signal(layouts.segment)
        m.d.sync += [
            arrived.eq(issue),
            arrived_row.eq(row),
            arrived_last.eq(last_of_vector),
            arrived_task.eq(segment),
        ]
        read_buffer = Signal(range(depth))
        filled = Signal(range(depth + 1))
        for r in range(rows):
            m.submodules[f"row_{r}"] = memory = Memory(shape=8, depth=depth, init=[])
            row_write = memory.write_port()
            row_read = memory.read_port(domain="comb")
            m.d.comb += [
                row_write.en.eq(arrived & (arrived_row == r)),
                row_write.addr.eq(write_buffer),
                row_write.data.eq(read.data),
                row_read.addr.eq(read_buffer),
                self.o.payload.rows[r].eq(row_read.data),
            ]

        # What is to be done under the vector is written with its last byte.
        task = data.StructLayout(
            {
                "count": layouts.row_bits,
                "patterns": layouts.gathered["patterns"].shape,
                "final": 1,
                **{name: layouts.gathered[name].shape for name in layouts.turns},
                **({"inputs": layouts.gathered["inputs"].shape} if config.offset else {}),
            }
        )
        m.submodules.tasks = tasks = Memory(shape=task, depth=depth, init=[])
        task_write = tasks.write_port()
        task_read = tasks.read_port(domain="comb")
        complete = Signal()
        m.d.comb += [
            complete.eq(arrived & arrived_last),
            task_write.en.eq(complete),
            task_write.addr.eq(write_buffer),
            task_write.data.count.eq(arrived_row + 1),
            task_write.data.patterns.eq(arrived_task.patterns),
            task_write.data.final.eq(arrived_task.final),
            task_read.addr.eq(read_buffer),
            self.o.valid.eq(filled != 0),
            self.o.payload.count.eq(task_read.data.count),
            self.o.payload.patterns.eq(task_read.data.patterns),
            self.o.payload.final.eq(task_read.data.final),
        ]
        for name in layouts.turns:
            m.d.comb += [
                task_write.data[name].eq(arrived_task[name]),
                self.o.payload[name].eq(task_read.data[name]),
            ]
        if config.offset:
            # Fits: at most 255 times the rows of an OU.
            before = Signal(layouts.gathered["inputs"].shape)
            total = Signal(layouts.gathered["inputs"].shape)
            m.d.comb += [
                total.eq(Mux(arrived_row == 0, 0, before) + read.data),
                task_write.data.inputs.eq(total),
                self.o.payload.inputs.eq(task_read.data.inputs),
            ]
            with m.If(arrived):
                m.d.sync += before.eq(total)

        def after(index):
            return Mux(index == depth - 1, 0, index + 1)

        with m.If(complete):
            m.d.sync += write_buffer.eq(after(write_buffer))
        with m.If(released):
            m.d.sync += read_buffer.eq(after(read_buffer))
        m.d.sync += filled.eq(filled + complete - released)

        return m
