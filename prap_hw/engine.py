"""The engine: every block of ARCHITECTURE.md's picture, connected."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.accumulators import Accumulators
from prap_hw.crossbar import EmulatedCrossbar, crossbar_port
from prap_hw.input_gather import InputGather
from prap_hw.layouts import COUNTER_BITS, COUNTERS, Layouts, valid_only
from prap_hw.ou_engine import OUEngine
from prap_hw.pattern_controller import PatternController
from prap_hw.psum_store import PartialSumStore
from prap_hw.requantise import Requantise
from prap_hw.reuse_merge import ReuseMerge
from prap_hw.shift_add import ShiftAdd
from refmodel.config import EngineConfig


def host_members(config: EngineConfig) -> dict:
    """Members that the engine has with and without crossbars of its own."""
    layouts = Layouts(config)
    members = {
        "i_load": In(stream.Signature(layouts.load)),
        "i_cells": In(stream.Signature(layouts.cells)),
        "i_acts": In(stream.Signature(layouts.acts)),
        "start": In(1),
        "busy": Out(1),
        "o": Out(stream.Signature(layouts.output)),
        "counters": Out(wiring.Signature({name: Out(COUNTER_BITS) for name in COUNTERS})),
    }
    if config.trace:
        members |= {
            "trace_psum": Out(valid_only(layouts.trace_psums, layouts.columns.ends)),
            "trace_acc": Out(valid_only(layouts.trace_acc)),
        }
    return members


class Engine(wiring.Component):
    """One layer of a network, by itself, over crossbars at an open port.

    Load the layer's program, cells and activations through the streams, then raise ``start``: for
    every output position the engine gathers inputs, runs OUs, merges, requantises, and sends one
    code to a channel at ``o``. Conversion, gather, merge and output overlap, within a position and
    across positions. :mod:`refmodel.cycles` has the cycle count, from ``start`` accepted to the
    last output accepted, and says which latencies it is made of.

    ``start`` is accepted in a cycle in which ``busy`` is low; it clears the counters. The loading
    streams are ready while ``busy`` is low. ``busy`` falls in the cycle after the last output was
    accepted. ``i_cells`` and ``crossbar.program`` are connected combinationally, so a start while
    a beat is offered and not taken is excluded: the offer would be withdrawn. ``trace_acc.valid``
    depends combinationally on ``o.ready``; no other output depends on an input within the cycle.
    Reset ends a run and clears the layer registers; the memories keep what was loaded. A program
    whose addresses leave the memories is excluded.

    Members
    -------
    i_load, i_cells, i_acts : ``In(stream)``
        Program words, rows of cells, activation bytes.
    start : ``In(1)``; busy : ``Out(1)``
        Begin; running.
    o : ``Out(stream.Signature(output))``
        Output codes, position after position, channels in order.
    counters : ``Out(...)``, one member to each of :data:`prap_hw.layouts.COUNTERS`
        Events since ``start``. They stand still while ``busy`` is low.
    trace_psum, trace_acc : ``Out(valid_only(...))``, with ``config.trace``
        Valid-only: each complete slot, and each accumulator before its bias.
    crossbar : ``Out(crossbar_port(config))``
        The analog boundary.
    """

    i_load: stream.Interface
    i_cells: stream.Interface
    i_acts: stream.Interface
    start: Signal
    busy: Signal
    o: stream.Interface
    counters: Any
    trace_psum: Any
    trace_acc: Any
    crossbar: Any

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = Layouts(config)
        super().__init__({**host_members(config), "crossbar": Out(crossbar_port(config))})

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts = self.config, self.layouts

        m.submodules.controller = controller = PatternController(config)
        m.submodules.gather = gather = InputGather(config)
        m.submodules.ou_engine = ou_engine = OUEngine(config)
        m.submodules.shift_add = shift_add = ShiftAdd(config)
        m.submodules.store = store = PartialSumStore(config)
        m.submodules.merge = merge = ReuseMerge(config)
        m.submodules.accumulators = accumulators = Accumulators(config)
        m.submodules.requantise = requantise = Requantise(config)

        started = Signal()
        m.d.comb += started.eq(self.start & ~self.busy)
        registers = controller.registers
        m.d.comb += controller.start.eq(started)

        # Loading, only while nothing runs.
        loading = self.i_load.valid & ~self.busy
        m.d.comb += [
            self.i_load.ready.eq(~self.busy),
            controller.i_load.valid.eq(loading),
            controller.i_load.payload.eq(self.i_load.payload),
            requantise.i_load.valid.eq(loading),
            requantise.i_load.payload.eq(self.i_load.payload),
            self.i_acts.ready.eq(~self.busy),
            gather.i_acts.valid.eq(self.i_acts.valid & ~self.busy),
            gather.i_acts.payload.eq(self.i_acts.payload),
            self.crossbar.program.valid.eq(self.i_cells.valid & ~self.busy),
            self.crossbar.program.payload.eq(self.i_cells.payload),
            self.i_cells.ready.eq(self.crossbar.program.ready & ~self.busy),
        ]

        # Gather and conversion.
        wiring.connect(m, controller.o_segments, gather.i_segments)
        wiring.connect(m, gather.o, ou_engine.i)
        m.d.comb += ou_engine.last_descriptor.eq(registers.last_descriptor)
        wiring.connect(m, ou_engine.o_request, wiring.flipped(self.crossbar.request))

        # What the unanswered requests mean, in order.
        m.submodules.pending = pending = fifo.SyncFIFOBuffered(
            width=layouts.pending.size, depth=config.requests_in_flight
        )
        m.d.comb += [
            pending.w_en.eq(ou_engine.o_pending.valid),
            pending.w_data.eq(ou_engine.o_pending.payload),
            ou_engine.o_pending.ready.eq(pending.w_rdy),
            shift_add.i_pending.valid.eq(pending.r_rdy),
            shift_add.i_pending.payload.eq(pending.r_data),
            pending.r_en.eq(shift_add.i_pending.ready),
        ]
        wiring.connect(m, wiring.flipped(self.crossbar.response), shift_add.i_response)
        wiring.connect(m, shift_add.o, store.i)

        # Merge.
        wiring.connect(m, controller.o_headers, merge.i_headers)
        wiring.connect(m, controller.o_words, merge.i_words)
        m.d.comb += [
            merge.i_headers_last.eq(controller.o_headers_last),
            merge.identity.eq(registers.identity),
            merge.last_term.eq(registers.last_term),
            merge.completed.eq(store.completed),
            store.taken.eq(merge.taken),
            ou_engine.released.eq(merge.taken),
            merge.half_read.eq(requantise.half_read),
            accumulators.merge_en.eq(merge.read_valid),
            accumulators.merge_half.eq(merge.read_half),
            accumulators.merge_block.eq(merge.read_block),
            accumulators.write_half.eq(merge.write_half),
            accumulators.write_block.eq(merge.write_block),
            accumulators.write_en.eq(merge.write_en),
            accumulators.write_first.eq(merge.write_first),
        ]
        for lane in range(config.merge_lanes):
            m.d.comb += [
                store.o_slot[lane].eq(merge.o_slot[lane]),
                merge.psum[lane].eq(store.o_data[lane]),
                accumulators.contribution[lane].eq(merge.contribution[lane]),
            ]

        # Output.
        m.d.comb += [
            requantise.registers.eq(registers),
            requantise.position_done.eq(merge.position_done),
            accumulators.read_en.eq(requantise.read_en),
            accumulators.read_half.eq(requantise.read_half),
            accumulators.read_output.eq(requantise.read_output),
            requantise.read_acc.eq(accumulators.read_acc),
        ]
        wiring.connect(m, requantise.o, wiring.flipped(self.o))

        # A run ends with the last channel of the last position.
        column = Signal.like(registers.last_column)
        row = Signal.like(registers.last_row)
        sent = Signal()
        m.d.comb += sent.eq(self.o.valid & self.o.ready)
        with m.If(sent & self.o.payload.last):
            m.d.sync += column.eq(column + 1)
            with m.If(column == registers.last_column):
                m.d.sync += [column.eq(0), row.eq(row + 1)]
                with m.If(row == registers.last_row):
                    m.d.sync += self.busy.eq(0)
        with m.If(started):
            m.d.sync += [self.busy.eq(1), column.eq(0), row.eq(0)]

        # Counters. A pause for want of a vector is counted when the next vector comes, so that the
        # cycles before the first one and after the last one are not taken for a stall.
        idle = Signal(COUNTER_BITS)
        begun = Signal()
        with m.If(started):
            m.d.sync += [idle.eq(0), begun.eq(0)]
        with m.Elif(~ou_engine.stall_gather):
            m.d.sync += [idle.eq(0), begun.eq(1)]
        with m.Elif(begun):
            m.d.sync += idle.eq(idle + 1)
        events = {
            "cycles": 1,
            "requests": ou_engine.o_request.valid & ou_engine.o_request.ready,
            "ous": ou_engine.ou_done,
            "gathered": gather.reading,
            "index_reads": controller.index_reads,
            "merged": merge.merged,
            "outputs": sent,
            "stall_gather": Mux(ou_engine.stall_gather, 0, idle),
            "stall_slots": ou_engine.stall_slots,
            "stall_port": ou_engine.stall_port,
        }
        for name, amount in events.items():
            counter = getattr(self.counters, name)
            with m.If(started):
                m.d.sync += counter.eq(0)
            with m.Elif(self.busy):
                m.d.sync += counter.eq(counter + amount)

        if config.trace:
            wiring.connect(m, store.trace, wiring.flipped(self.trace_psum))
            wiring.connect(m, requantise.trace, wiring.flipped(self.trace_acc))
        return m


class EmulatedEngine(wiring.Component):
    """An :class:`Engine` with an :class:`~prap_hw.crossbar.EmulatedCrossbar` at its port.

    Members, latency and reset are the engine's, without ``crossbar``. With ``config.trace`` there
    are two more valid-only ports, which show what passes the crossbar port:

    Members
    -------
    trace_request : ``Out(valid_only(request))``
        Each request when the crossbar takes it.
    trace_codes : ``Out(valid_only(response))``
        Each response when the engine takes it.
    """

    i_load: stream.Interface
    i_cells: stream.Interface
    i_acts: stream.Interface
    start: Signal
    busy: Signal
    o: stream.Interface
    counters: Any
    trace_psum: Any
    trace_acc: Any
    trace_request: Any
    trace_codes: Any

    def __init__(self, config: EngineConfig):
        self.config = config
        members = host_members(config)
        if config.trace:
            layouts = Layouts(config)
            members |= {
                "trace_request": Out(valid_only(layouts.request)),
                "trace_codes": Out(valid_only(layouts.response)),
            }
        super().__init__(members)

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.engine = engine = Engine(self.config)
        m.submodules.crossbar = crossbar = EmulatedCrossbar(self.config)
        wiring.connect(m, engine.crossbar, crossbar.port)
        if self.config.trace:
            request, response = engine.crossbar.request, engine.crossbar.response
            m.d.comb += [
                self.trace_request.valid.eq(request.valid & request.ready),
                self.trace_request.payload.eq(request.payload),
                self.trace_codes.valid.eq(response.valid & response.ready),
                self.trace_codes.payload.eq(response.payload),
            ]
        for name in host_members(self.config):
            member = self.signature.members[name]
            inner, outer = getattr(engine, name), getattr(self, name)
            if member.is_signature:
                wiring.connect(m, inner, wiring.flipped(outer))
            elif member.flow == In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)
        return m
