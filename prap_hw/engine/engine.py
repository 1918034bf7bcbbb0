"""The engine: every part of docs/specification/architecture.md, connected."""

from collections.abc import Mapping
from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.crossbar import EmulatedCrossbar, crossbar_port
from prap_hw.common.faults import Fault, FirstFault, ProtectedMemory, Watchdog
from prap_hw.common.layouts import CORE_COUNTERS, COUNTER_BITS, Layouts, Space, valid_only
from prap_hw.common.members import pass_through, port_trace_members, run_members, trace_port
from prap_hw.engine.accumulators import Accumulators
from prap_hw.engine.block_reader import BlockReader, positions_ahead
from prap_hw.engine.input_gather import InputGather
from prap_hw.engine.ou_engine import OUEngine
from prap_hw.engine.pattern_controller import PatternController
from prap_hw.engine.psum_store import PartialSumStore
from prap_hw.engine.requantise import Requantise
from prap_hw.engine.reuse_merge import ReuseMerge
from prap_hw.engine.shift_add import ShiftAdd
from refmodel.config import EngineConfig


def host_members(config: EngineConfig) -> dict:
    """Members that the engine has with and without crossbars of its own.

    Raises
    ------
    ValueError
        ``config.network`` is not False.
    """
    if config.network:
        raise ValueError("an engine by itself must have network False, not True")
    layouts = Layouts(config)
    return run_members(layouts, layouts.output)


class EngineCore(wiring.Component):
    """An engine up to its accumulators: all that a tile has several of.

    From ``start`` on it gathers inputs, runs OUs and merges, output position after output position,
    into one half of its accumulators while the other may be read. It runs ahead of what reads them
    by the two halves and no more; see :class:`~prap_hw.engine.reuse_merge.ReuseMerge` for when a
    position may begin in a half, and :class:`~prap_hw.engine.accumulators.Accumulators` for when
    one may be read.

    The loading streams are ready while ``busy`` is low; ``i_cells`` and ``crossbar.program`` are
    connected combinationally, and the readies follow ``busy`` within the cycle. ``start`` is
    accepted whenever it comes and, without ``config.network``, clears the counters: giving it while
    ``busy`` is high is excluded. Reset ends a run and clears the layer registers; the memories keep
    what was loaded.

    Faults that its parts find are in ``faults``, to which ``halted`` is the answer of a
    :class:`~prap_hw.common.faults.FirstFault` that it shares with what reads the accumulators:
    while that is high, the core offers no request and no row of cells, and takes no load; an offer
    of the cycle before is withdrawn. Answers are still taken. Wrong sums may be in the accumulators
    by then, so that nothing that is read from them may be sent.

    The watchdog of the crossbar port counts cycles in which a request, a row of cells or an answer
    that is due waits, and no request, row or answer passes; it is a fault in the last of
    ``config.port_timeout`` such cycles in a row.

    Members
    -------
    i_load, i_cells, i_acts : ``In(stream)``
        Program words, rows of cells, activation bytes. Words for others' spaces are ignored. With
        ``config.network`` there is no ``i_acts``.
    i_store : ``In(valid_only(store))``, with ``config.network``
        Activation bytes, each with its address; also during a run.
    clear : ``In(1)``, with ``config.network``
        Pulse: the counters begin at 0.
    start : ``In(1)``
        Pulse: begin with the first position.
    busy : ``In(1)``
        Whether a run is going on: no loading, and the counters count.
    halted : ``In(1)``
        Whether a fault was found before.
    faults : ``Out``, a bit to each of ``FAULTS``
        Faults of the port found in this cycle, all others found in the cycle before.
    registers : ``Out(registers)``
        The layer registers, as loaded.
    position_done : ``Out(1)``
        Pulse: with what is written in this cycle, the next half holds a whole position.
    half_read : ``In(2)``
        Pulse per half: its last accumulator is read in this cycle.
    read_en, read_half, read_output : ``In``; read_acc : ``Out(signed(acc_width))``
        Read port of the accumulators, one cycle from address to data. In blocks of several
        positions these are read in turn, whatever half is said; a pulse of either ends one.
    counters : ``Out(...)``, one member to each of :data:`prap_hw.common.layouts.CORE_COUNTERS`
        Events since ``start``, or since ``clear`` where there is one, up to three cycles late: the
        last of them comes with the last merge step, and outputs come later.
    trace_psum : ``Out(valid_only(...))``, with ``config.trace``
        Valid-only: each complete slot.
    crossbar : ``Out(crossbar_port(config))``
        The analog boundary.

    Attributes
    ----------
    memories
        Contents of the memories of the program, by space, once it has been elaborated; for tests.
    """

    FAULTS = (
        *PatternController.FAULTS,
        *OUEngine.FAULTS,
        *ReuseMerge.FAULTS,
        (Fault.PORT, Space.REGISTER),
    )

    i_load: stream.Interface
    i_cells: stream.Interface
    i_acts: stream.Interface
    i_store: Any
    clear: Signal
    start: Signal
    busy: Signal
    halted: Signal
    faults: Signal
    registers: data.View
    position_done: Signal
    half_read: Signal
    read_en: Signal
    read_half: Signal
    read_output: Signal
    read_acc: Signal
    counters: Any
    trace_psum: Any
    crossbar: Any

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = layouts = Layouts(config)
        members = {
            "i_load": In(stream.Signature(layouts.load)),
            "i_cells": In(stream.Signature(layouts.cells)),
            **(
                {"i_store": In(valid_only(layouts.store)), "clear": In(1)}
                if config.network
                else {"i_acts": In(stream.Signature(layouts.acts))}
            ),
            "start": In(1),
            "busy": In(1),
            "halted": In(1),
            "faults": Out(len(self.FAULTS)),
            "registers": Out(layouts.registers),
            "position_done": Out(1),
            "half_read": In(2),
            "read_en": In(1),
            "read_half": In(1),
            "read_output": In(layouts.output_bits),
            "read_acc": Out(signed(config.acc_width)),
            "counters": Out(wiring.Signature({name: Out(COUNTER_BITS) for name in CORE_COUNTERS})),
            "crossbar": Out(crossbar_port(config)),
        }
        if config.trace:
            members["trace_psum"] = Out(valid_only(layouts.trace_psums, layouts.columns.ends))
        super().__init__(members)

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
        m.submodules.watchdog = watchdog = Watchdog(config.port_timeout)
        self.memories = controller.memories

        registers = controller.registers
        m.d.comb += [
            self.registers.eq(registers),
            controller.resting.eq(~self.busy),
            controller.start.eq(self.start),
        ]

        # Loading, only while nothing runs.
        loadable = Signal()
        m.d.comb += [
            loadable.eq(~self.busy & ~self.halted),
            self.i_load.ready.eq(loadable),
            controller.i_load.valid.eq(self.i_load.valid & loadable),
            controller.i_load.payload.eq(self.i_load.payload),
            self.crossbar.program.valid.eq(self.i_cells.valid & loadable),
            self.crossbar.program.payload.eq(self.i_cells.payload),
            self.i_cells.ready.eq(self.crossbar.program.ready & loadable),
        ]

        if config.network:
            m.d.comb += [
                gather.i_store.valid.eq(self.i_store.valid),
                gather.i_store.payload.eq(self.i_store.payload),
            ]
        else:
            m.d.comb += [
                self.i_acts.ready.eq(loadable),
                gather.i_acts.valid.eq(self.i_acts.valid & loadable),
                gather.i_acts.payload.eq(self.i_acts.payload),
            ]

        # Gather and conversion. The OU engine counts a layer's gathers and crossbars from 0.
        wiring.connect(m, controller.o_segments, gather.i_segments)
        wiring.connect(m, gather.o, ou_engine.i)
        request = self.crossbar.request
        m.d.comb += [
            request.valid.eq(ou_engine.o_request.valid & ~self.halted),
            request.payload.eq(ou_engine.o_request.payload),
            ou_engine.o_request.ready.eq(request.ready & ~self.halted),
            ou_engine.last_descriptor.eq(registers.last_descriptor),
        ]
        if config.network:
            m.d.comb += [
                ou_engine.last_descriptor.eq(
                    registers.last_descriptor - registers.first_descriptor
                ),
                ou_engine.first_crossbar.eq(registers.first_crossbar),
            ]

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

        # What is wrong: a register, so that stopping has a cycle of its own.
        found = Signal(len(self.FAULTS) - 1)
        m.d.sync += found.eq(Cat(controller.faults, ou_engine.faults, merge.faults))

        # The port stands, or it moves.
        program, response = self.crossbar.program, self.crossbar.response
        m.d.comb += [
            watchdog.waits.eq(request.valid | program.valid | pending.r_rdy),
            watchdog.moves.eq(
                (request.valid & request.ready)
                | (program.valid & program.ready)
                | (response.valid & response.ready)
            ),
            self.faults.eq(Cat(found, watchdog.late)),
        ]

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
            merge.half_read.eq(self.half_read),
            accumulators.merge_en.eq(merge.read_valid),
            accumulators.merge_half.eq(merge.read_half),
            accumulators.merge_block.eq(merge.read_block),
            accumulators.write_half.eq(merge.write_half),
            accumulators.write_block.eq(merge.write_block),
            accumulators.write_en.eq(merge.write_en),
            accumulators.write_first.eq(merge.write_first),
        ]
        for place, psum in enumerate(merge.psum):
            if place < config.merge_lanes:
                m.d.comb += store.o_slot[place].eq(merge.o_slot[place])
            m.d.comb += psum.eq(store.o_data[place])
            m.d.comb += accumulators.contribution[place].eq(merge.contribution[place])

        m.d.comb += [
            self.position_done.eq(merge.position_done),
            accumulators.read_en.eq(self.read_en),
            accumulators.read_half.eq(self.read_half),
            accumulators.read_output.eq(self.read_output),
            self.read_acc.eq(accumulators.read_acc),
        ]
        if config.position_lanes > 1:
            m.submodules.reader = reader = BlockReader(config)
            m.d.comb += [
                merge.i_headers_last_turn.eq(controller.o_headers_last_turn),
                reader.block_done.eq(merge.position_done),
                reader.last_turn.eq(merge.done_last_turn),
                self.position_done.eq(reader.position_done),
                reader.position_read.eq(self.half_read.any()),
                merge.half_read.eq(reader.half_read),
                accumulators.read_half.eq(reader.read_half),
                accumulators.read_turn.eq(reader.read_turn),
            ]

        # Counters. A pause for want of a vector is counted when the next vector comes, so that the
        # cycles before the first one and after the last one are not taken for a stall.
        idle = Signal(COUNTER_BITS)
        begun = Signal()
        with m.If(self.start):
            m.d.sync += [idle.eq(0), begun.eq(0)]
        with m.Elif(~ou_engine.stall_gather):
            m.d.sync += [idle.eq(0), begun.eq(1)]
        with m.Elif(begun):
            m.d.sync += idle.eq(idle + 1)
        cleared = self.clear if config.network else self.start
        events = {
            "requests": ou_engine.o_request.valid & ou_engine.o_request.ready,
            "ous": ou_engine.ou_done,
            "gathered": gather.reading,
            "index_reads": controller.index_reads,
            "index_bits": controller.index_bits,
            "merged": merge.merged,
            "merge_shifts": merge.shifted,
            "accumulator_updates": merge.updates,
            "psum_updates": store.updates,
            "stall_slots": ou_engine.stall_slots,
            "stall_port": ou_engine.stall_port,
            "wordline_drives": ou_engine.driven,
            "conversions": ou_engine.converted,
        }
        # Nothing comes from an event to the carries of a counter within a cycle.
        amounts: dict[str, Value] = {"stall_gather": Mux(ou_engine.stall_gather, 0, idle)}
        for name, event in events.items():
            amounts[name] = amount = Signal.like(Value.cast(event), name=f"{name}_amount")
            m.d.sync += amount.eq(Mux(self.busy, event, 0))
        amounts["cells_read"] = cells = Signal(range(config.ou_rows * config.adcs + 1))
        m.d.sync += cells.eq(product(amounts["wordline_drives"], amounts["conversions"]))
        for name, amount in amounts.items():
            counter = getattr(self.counters, name)
            running = self.busy if name == "stall_gather" else 1
            with m.If(cleared):
                m.d.sync += counter.eq(0)
            with m.Elif(running):
                m.d.sync += counter.eq(counter + amount)

        if config.trace:
            wiring.connect(m, store.trace, wiring.flipped(self.trace_psum))
        return m


def product(left: Value, right: Value) -> Value:
    """Multiply two small numbers without a multiplier of the FPGA's."""
    terms = [Mux(right[bit], left << bit, 0) for bit in range(len(right))]
    return sum(terms[1:], terms[0])


class RunControl(wiring.Component):
    """A run: from ``start`` accepted to the last output accepted.

    ``started`` follows ``start`` within the cycle; ``busy`` rises in the cycle after it and falls
    in the cycle after the last output of the last position was accepted. Reset ends a run.

    Members
    -------
    registers : ``In(registers)``
        Layer registers: how many columns and rows of positions there are.
    start : ``In(1)``; started : ``Out(1)``
        Begin; begin, if nothing runs.
    position_sent : ``In(1)``
        Pulse: the last output of a position is accepted in this cycle.
    busy : ``Out(1)``
        Running.
    """

    registers: data.View
    start: Signal
    started: Signal
    position_sent: Signal
    busy: Signal

    def __init__(self, config: EngineConfig):
        super().__init__(
            {
                "registers": In(Layouts(config).registers),
                "start": In(1),
                "started": Out(1),
                "position_sent": In(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        column = Signal.like(self.registers.last_column)
        row = Signal.like(self.registers.last_row)
        m.d.comb += self.started.eq(self.start & ~self.busy)
        with m.If(self.position_sent):
            m.d.sync += column.eq(column + 1)
            with m.If(column == self.registers.last_column):
                m.d.sync += [column.eq(0), row.eq(row + 1)]
                with m.If(row == self.registers.last_row):
                    m.d.sync += self.busy.eq(0)
        with m.If(self.started):
            m.d.sync += [self.busy.eq(1), column.eq(0), row.eq(0)]
        return m


def count_run(
    m: Module, counters: Any, *, begins: Value, running: Value, events: Mapping[str, Value]
) -> None:
    """Drive the counter ``cycles`` of a run, and those of events that are counted there.

    Parameters
    ----------
    counters
        Has these.
    begins
        Pulse: they begin at 0.
    running
        Whether a cycle of the run goes by.
    events
        By name of the counter, how many come in the cycle.
    """
    for name, amount in ("cycles", 1), *events.items():
        counter = getattr(counters, name)
        with m.If(begins):
            m.d.sync += counter.eq(0)
        with m.Elif(running):
            m.d.sync += counter.eq(counter + amount)


def run_layer(m: Module, top: Any, core: Any, requantise: Requantise) -> None:
    """Wire what an engine and a tile have alike: runs, faults, accumulators to outputs, counters.

    Parameters
    ----------
    top
        Has ``start``, ``busy``, ``fault``, ``o``, and of ``counters`` at least cycles and outputs.
    core
        An :class:`EngineCore`, or what has its members but the address of what is read.
    requantise
        Reads its accumulators.
    """
    m.submodules.run = run = RunControl(requantise.config)
    m.submodules.faults = faults = FirstFault((*core.FAULTS, *requantise.FAULTS))
    sent = Signal()
    m.d.comb += [
        faults.found.eq(Cat(core.faults, requantise.faults)),
        top.fault.eq(faults.fault),
        core.halted.eq(faults.halted),
        run.registers.eq(core.registers),
        run.start.eq(top.start & ~faults.halted),
        core.start.eq(run.started),
        core.busy.eq(run.busy),
        top.busy.eq(run.busy),
        requantise.registers.eq(core.registers),
        requantise.position_done.eq(core.position_done),
        core.read_en.eq(requantise.read_en),
        requantise.read_acc.eq(core.read_acc),
        top.o.valid.eq(requantise.o.valid & ~faults.halted),
        top.o.payload.eq(requantise.o.payload),
        requantise.o.ready.eq(top.o.ready & ~faults.halted),
        sent.eq(top.o.valid & top.o.ready),
        run.position_sent.eq(sent & top.o.payload.last),
    ]
    count_run(m, top.counters, begins=run.started, running=run.busy, events={"outputs": sent})


class Engine(wiring.Component):
    """One layer of a network, by itself, over crossbars at an open port.

    Load the layer's program, cells and activations through the streams, then raise ``start``: for
    every output position the engine gathers inputs, runs OUs, merges, requantises, and sends one
    code to a channel at ``o``. Conversion, gather, merge and output overlap, within a position and
    across positions. :mod:`refmodel.predict.cycles` has the cycle count, from ``start`` accepted to
    the last output accepted, and says which latencies it is made of.

    ``start`` is accepted in a cycle in which ``busy`` is low; it clears the counters. The loading
    streams are ready while ``busy`` is low. ``busy`` falls in the cycle after the last output was
    accepted. ``i_cells`` and ``crossbar.program`` are connected combinationally, so a start while
    a beat is offered and not taken is excluded: the offer would be withdrawn. ``trace_acc.valid``
    depends combinationally on ``o.ready``; no other output depends on an input within the cycle.
    Reset ends a run and clears the layer registers; the memories keep what was loaded.

    A fault (see :class:`EngineCore`, :class:`~prap_hw.engine.requantise.Requantise` and their parts
    for what is found) stops the engine: in the cycle in which ``fault`` shows it, and until reset,
    neither a request nor an output is offered, those that were are withdrawn, nothing is loaded,
    ``start`` is ignored and ``busy`` stays as it is. No output that the fault could have changed
    is offered before, but of a program whose groups keep fewer slots than its gathers fill: that
    is known when the first position has been walked. After reset, the program is to be loaded
    again.

    Members
    -------
    i_load, i_cells, i_acts : ``In(stream)``
        Program words, rows of cells, activation bytes.
    start : ``In(1)``; busy : ``Out(1)``
        Begin; running.
    fault : ``Out(FAULT)``
        The first fault since reset.
    o : ``Out(stream.Signature(output))``
        Output codes, position after position, channels in order.
    counters : ``Out(...)``, one member to each of :data:`prap_hw.common.layouts.COUNTERS`
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
    fault: data.View
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
        config = self.config

        m.submodules.core = core = EngineCore(config)
        m.submodules.requantise = requantise = Requantise(config, positions_ahead(config))
        self._core, self._requantise = core, requantise
        run_layer(m, self, core, requantise)

        # Loading: the core takes a word when nothing runs, and so does requantisation.
        wiring.connect(m, wiring.flipped(self.i_load), core.i_load)
        wiring.connect(m, wiring.flipped(self.i_cells), core.i_cells)
        wiring.connect(m, wiring.flipped(self.i_acts), core.i_acts)
        m.d.comb += [
            requantise.i_load.valid.eq(self.i_load.valid & self.i_load.ready),
            requantise.i_load.payload.eq(self.i_load.payload),
        ]
        wiring.connect(m, core.crossbar, wiring.flipped(self.crossbar))

        m.d.comb += [
            core.half_read.eq(requantise.half_read),
            core.read_half.eq(requantise.read_half),
            core.read_output.eq(requantise.read_output),
        ]
        for name in CORE_COUNTERS:
            m.d.comb += getattr(self.counters, name).eq(getattr(core.counters, name))

        if config.trace:
            wiring.connect(m, core.trace_psum, wiring.flipped(self.trace_psum))
            wiring.connect(m, requantise.trace, wiring.flipped(self.trace_acc))
        return m

    @property
    def memories(self) -> dict[Space, list[ProtectedMemory]]:
        """Contents of the memories of the program, by space, once it has been elaborated."""
        return {**self._core.memories, Space.OUTPUT: [self._requantise.params]}


class EmulatedEngine(wiring.Component):
    """An :class:`Engine` with an :class:`~prap_hw.common.crossbar.EmulatedCrossbar` at its port.

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
    fault: data.View
    o: stream.Interface
    counters: Any
    trace_psum: Any
    trace_acc: Any
    trace_request: Any
    trace_codes: Any

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__({**host_members(config), **port_trace_members(Layouts(config))})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.engine = self.engine = engine = Engine(self.config)
        m.submodules.crossbar = crossbar = EmulatedCrossbar(self.config)
        wiring.connect(m, engine.crossbar, crossbar.port)
        if self.config.trace:
            trace_port(m, self, engine.crossbar)
        pass_through(m, host_members(self.config), engine, self)
        return m
