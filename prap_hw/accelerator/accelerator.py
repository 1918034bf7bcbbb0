"""The accelerator: engines, post-processing, an activation memory, and what runs a network."""

from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.accelerator.lookup import LookupStage
from prap_hw.accelerator.operand_reader import OperandReader
from prap_hw.accelerator.pool_unit import PoolUnit
from prap_hw.accelerator.sequencer import Sequencer
from prap_hw.accelerator.write_back import WriteBack
from prap_hw.common.crossbar import EmulatedCrossbar, crossbar_port
from prap_hw.common.faults import Fault, FirstFault, ProtectedMemory
from prap_hw.common.layouts import CORE_COUNTERS, Layouts, Source, Space, TileLayouts, valid_only
from prap_hw.common.members import pass_through, port_trace_members, run_members, trace_port
from prap_hw.engine.block_reader import positions_ahead
from prap_hw.engine.engine import EngineCore, RunControl, count_run
from prap_hw.engine.requantise import Requantise
from prap_hw.tile.tile import TileCore, sums_held
from refmodel.config import EngineConfig


def accelerator_members(config: EngineConfig, engines: int = 1) -> dict:
    """Members that the accelerator has with and without crossbars of its own.

    Raises
    ------
    TypeError
        ``engines`` is no integer.
    ValueError
        ``config.network`` is not True, or ``engines`` not 1 to 64.
    """
    if not config.network:
        raise ValueError("the engine of an accelerator must have network True, not False")
    tile = TileLayouts(config, engines)
    layouts = tile.engine
    members = {**run_members(layouts, layouts.sent), "done": Out(1)}
    if engines > 1:
        members["i_load"] = In(stream.Signature(tile.load))
        members["i_cells"] = In(stream.Signature(tile.cells))
        if config.trace:
            psums = valid_only(layouts.trace_psums, layouts.columns.ends)
            members["trace_psum"] = Out(psums).array(engines)
    return members


class Accelerator(wiring.Component):
    """A whole network, over crossbars at an open port.

    Load the programs of all layers, the sequencer's list and the cells; then, for each image, send
    its codes, raise ``start``, and take the codes of the network's last tensor at ``o``.
    ``docs/accelerator.md`` has the picture, :mod:`refmodel.predict.accelerator` what goes where and
    the cycles, from ``start`` accepted to the last output accepted.

    ``start`` is accepted in a cycle in which ``busy`` is low; it clears the counters. ``i_load``
    and ``i_cells`` are ready while ``busy`` is low and no image is being taken; an image is taken
    while ``busy`` is low, or after a start without one. Program words after an image discard it.
    ``busy`` falls, and ``done`` pulses, in the cycle after the last output was accepted. The
    readies of the loading streams and ``o.valid`` depend combinationally on inputs; ``i_cells`` and
    ``crossbar.program`` are connected, so a start while a beat is offered and not taken is
    excluded. Reset ends a run and clears the registers; the memories keep what was loaded.

    Parameters
    ----------
    config
        Sizes of each engine; ``network`` must be True.
    commands
        Words that the sequencer's list may have.
    engines
        N, 1 to 64. With several, each layer is dealt out to them as
        :class:`~prap_hw.tile.tile.Tile` says, and they stand in the place of the one.

    Members
    -------
    i_load, i_cells : ``In(stream)``
        Program words, rows of cells. With several engines each has ``engine``, the number of the
        one that it is for; words for spaces OUTPUT, SHARE, ENGINES, POST, COMMAND and
        LOOKUP are the accelerator's, whatever engine they name.
    i_acts : ``In(stream)``
        Codes of the image, without border, row by row, channels fastest. ``last`` is high with the
        last code that the list's first operation takes, and with no other: else the image is longer
        or shorter than the network's, and there is a fault.
    start : ``In(1)``; busy : ``Out(1)``; done : ``Out(1)``
        Begin; running; pulse at the end.
    fault : ``Out(FAULT)``
        The first fault since reset. From the cycle in which it is shown nothing is loaded, written
        or offered, no operation begins or ends, and ``busy`` stays as it is.
    o : ``Out(stream.Signature(sent))``
        Codes of the last tensor, row by row, channels fastest; ``last`` marks the last one.
    counters : ``Out(...)``, one member to each of :data:`prap_hw.common.layouts.COUNTERS`
        Events since ``start``, of all layers and engines together. ``outputs`` are those of layers.
        ``activation_writes`` has a byte once, although every engine has a copy of it.
        With several engines those of engines are ceil(log2(N)) cycles late during a run; they stand
        when ``busy`` falls, since outputs come later than the last events.
    trace_psum, trace_acc : ``Out(valid_only(...))``, with ``config.trace``
        As the engine has them, layer after layer; with several engines ``trace_psum`` is an array,
        one to an engine, and ``trace_acc`` shows the sums.
    crossbar : ``Out(crossbar_port(config))``
        The analog boundary; with several engines an array, one to an engine.
    """

    i_load: stream.Interface
    i_cells: stream.Interface
    i_acts: stream.Interface
    start: Signal
    busy: Signal
    done: Signal
    fault: data.View
    o: stream.Interface
    counters: Any
    trace_psum: Any
    trace_acc: Any
    crossbar: Any

    def __init__(self, config: EngineConfig, commands: int, engines: int = 1):
        self.config = config
        self.commands = commands
        self.engines = engines
        members = accelerator_members(config, engines)
        port = Out(crossbar_port(config))
        super().__init__({**members, "crossbar": port if engines == 1 else port.array(engines)})

    def elaborate(self, platform) -> Module:
        m = Module()
        config, engines = self.config, self.engines

        m.submodules.sequencer = sequencer = Sequencer(config, self.commands, engines)
        if engines == 1:
            m.submodules.core = core = EngineCore(config)
            m.submodules.requantise = requantise = Requantise(config, positions_ahead(config))
        else:
            m.submodules.core = core = TileCore(config, engines)
            m.submodules.requantise = requantise = Requantise(config, sums_held(engines))
        m.submodules.control = control = RunControl(config)
        m.submodules.reader = reader = OperandReader(config)
        m.submodules.pool = pool = PoolUnit(config)
        m.submodules.write_back = write_back = WriteBack(config)
        parts = [sequencer, core, requantise, reader, write_back]
        lookup = None
        if config.max_tables:
            m.submodules.lookup = lookup = LookupStage(config)
            parts.append(lookup)
        kinds = [kind for part in parts for kind in part.FAULTS]
        m.submodules.faults = faults = FirstFault([*kinds, (Fault.RANGE, Space.IMAGE)])
        post = sequencer.registers
        going = Signal()
        image_wrong = Signal()
        m.d.comb += [
            faults.found.eq(Cat(*(part.faults for part in parts), image_wrong)),
            self.fault.eq(faults.fault),
            core.halted.eq(faults.halted),
            going.eq(~faults.halted),
        ]

        # Program words come from the host or from the list. With several engines, the low bits of a
        # word are what one would get.
        load = core.i_load
        loadable = Signal()
        m.d.comb += [
            loadable.eq(sequencer.loadable & going),
            self.i_load.ready.eq(loadable),
            sequencer.i_load.valid.eq(self.i_load.valid & loadable),
            load.valid.eq(sequencer.o_load.valid | sequencer.i_load.valid),
            requantise.i_load.valid.eq(load.valid),
        ]
        for name, _ in sequencer.i_load.payload.shape():
            m.d.comb += [
                sequencer.i_load.payload[name].eq(self.i_load.payload[name]),
                requantise.i_load.payload[name].eq(load.payload[name]),
            ]
        for name, _ in self.i_load.payload.shape():
            m.d.comb += load.payload[name].eq(self.i_load.payload[name])
        m.d.comb += [
            core.i_cells.valid.eq(self.i_cells.valid & loadable),
            core.i_cells.payload.eq(self.i_cells.payload),
            self.i_cells.ready.eq(core.i_cells.ready & loadable),
        ]
        with m.If(~sequencer.silent):
            m.d.comb += load.payload.eq(sequencer.o_load.payload)
        if isinstance(core, EngineCore):
            wiring.connect(m, core.crossbar, wiring.flipped(self.crossbar))
        else:
            for within, without in zip(core.crossbar, self.crossbar, strict=True):
                wiring.connect(m, within, wiring.flipped(without))

        # An operation starts what it needs; it ends with what is written.
        layer = Signal()
        accepted = Signal()
        m.d.comb += [
            accepted.eq(self.start & ~self.busy),
            layer.eq(post.source == Source.LAYER),
            sequencer.offered.eq(self.i_acts.valid & going),
            sequencer.start.eq(self.start & going),
            self.busy.eq(sequencer.busy),
            self.done.eq(sequencer.done),
            # With a fault, the operation that runs does not end, nor does another begin.
            sequencer.running.eq(write_back.busy | faults.halted),
            write_back.registers.eq(post),
            write_back.start.eq(sequencer.run),
            reader.registers.eq(post),
            reader.start.eq(
                sequencer.run & ((post.source == Source.POOL) | (layer & core.registers.residual))
            ),
            pool.registers.eq(post),
            control.registers.eq(core.registers),
            control.start.eq(sequencer.run & layer & going),
            core.start.eq(control.started),
            core.busy.eq(control.busy),
            core.clear.eq(accepted),
        ]

        # The engines' accumulators become codes. A tile gives sums in order, and no addresses.
        sent = Signal()
        if isinstance(core, EngineCore):
            m.d.comb += [
                core.half_read.eq(requantise.half_read),
                core.read_half.eq(requantise.read_half),
                core.read_output.eq(requantise.read_output),
            ]
        m.d.comb += [
            requantise.registers.eq(core.registers),
            requantise.position_done.eq(core.position_done),
            core.read_en.eq(requantise.read_en),
            requantise.read_acc.eq(core.read_acc),
            sent.eq(requantise.o.valid & requantise.o.ready),
            control.position_sent.eq(sent & requantise.o.payload.last),
        ]

        # Operands are residuals of a layer, or what the pool unit folds.
        m.d.comb += [
            pool.i.valid.eq(reader.o.valid & ~layer),
            pool.i.payload.eq(reader.o.payload),
            requantise.i_residual.valid.eq(reader.o.valid & layer),
            requantise.i_residual.payload.eq(reader.o.payload.code),
        ]
        with m.If(layer):
            m.d.comb += reader.o.ready.eq(requantise.i_residual.ready)
        with m.Else():
            m.d.comb += reader.o.ready.eq(pool.i.ready)

        # Outputs come from one of three, and go to all copies of the activation memory.
        # None passes behind a fault, so that an operation that has begun does not end.
        outputs = write_back.i
        if lookup is not None:
            outputs = lookup.i
            wiring.connect(m, lookup.o, write_back.i)
            m.d.comb += [
                lookup.registers.eq(post),
                lookup.start.eq(sequencer.run),
                lookup.i_load.valid.eq(load.valid),
            ]
            for name, _ in lookup.i_load.payload.shape():
                m.d.comb += lookup.i_load.payload[name].eq(load.payload[name])
        with m.Switch(post.source):
            with m.Case(Source.LAYER):
                m.d.comb += [
                    outputs.valid.eq(requantise.o.valid & going),
                    outputs.payload.eq(requantise.o.payload.code),
                    requantise.o.ready.eq(outputs.ready & going),
                ]
            with m.Case(Source.POOL):
                m.d.comb += [
                    outputs.valid.eq(pool.o.valid & going),
                    outputs.payload.eq(pool.o.payload),
                    pool.o.ready.eq(outputs.ready & going),
                ]
            with m.Default():
                m.d.comb += [
                    outputs.valid.eq(self.i_acts.valid & going),
                    outputs.payload.eq(self.i_acts.payload.data),
                    self.i_acts.ready.eq(outputs.ready & going),
                ]
        # A shorter image would leave the list waiting, a longer one would begin it again.
        m.d.comb += image_wrong.eq(
            (self.i_acts.valid & self.i_acts.ready)
            & (self.i_acts.payload.last != write_back.o.payload.last)
        )
        for copy in (core.i_store, reader.i_store):
            m.d.comb += [
                copy.valid.eq(write_back.store.valid & going),
                copy.payload.eq(write_back.store.payload),
            ]
        m.d.comb += [
            self.o.valid.eq(write_back.o.valid & going),
            self.o.payload.eq(write_back.o.payload),
            write_back.o.ready.eq(self.o.ready & going),
        ]

        for name in CORE_COUNTERS:
            m.d.comb += getattr(self.counters, name).eq(getattr(core.counters, name))
        loading = Signal()
        m.d.comb += loading.eq(post.source == Source.IMAGE)
        events = {
            "outputs": sent,
            # The image may come before the run or in it, and is not counted.
            "activation_writes": write_back.store.valid & going & ~loading,
            "operand_reads": reader.reading,
        }
        count_run(m, self.counters, begins=accepted, running=self.busy, events=events)

        if config.trace:
            if isinstance(core, EngineCore):
                wiring.connect(m, core.trace_psum, wiring.flipped(self.trace_psum))
            else:
                for within, without in zip(core.trace_psum, self.trace_psum, strict=True):
                    wiring.connect(m, within, wiring.flipped(without))
            wiring.connect(m, requantise.trace, wiring.flipped(self.trace_acc))
        self._parts = core, requantise, sequencer
        self._lookup = lookup
        return m

    @property
    def memories(self) -> dict[Space, list[ProtectedMemory]]:
        """Contents of the memories of the program, by space, once it has been elaborated."""
        core, requantise, sequencer = self._parts
        own = {Space.OUTPUT: [requantise.params], Space.COMMAND: [sequencer.words]}
        if self._lookup is not None:
            own[Space.LOOKUP] = [self._lookup.words]
        return {**core.memories, **own}


class EmulatedAccelerator(wiring.Component):
    """An :class:`Accelerator` with emulated crossbars at its ports.

    Parameters, members, latency and reset are the accelerator's, without ``crossbar``. With one
    engine and ``config.trace`` there are two more valid-only ports, as
    :class:`~prap_hw.engine.engine.EmulatedEngine` has them.

    Members
    -------
    trace_request, trace_codes : ``Out(valid_only(...))``
        Each request when the crossbar takes it; each response when the engine takes it.
    """

    i_load: stream.Interface
    i_cells: stream.Interface
    i_acts: stream.Interface
    start: Signal
    busy: Signal
    done: Signal
    fault: data.View
    o: stream.Interface
    counters: Any
    trace_psum: Any
    trace_acc: Any
    trace_request: Any
    trace_codes: Any

    def __init__(self, config: EngineConfig, commands: int, engines: int = 1):
        self.config = config
        self.commands = commands
        self.engines = engines
        members = accelerator_members(config, engines)
        traces = port_trace_members(Layouts(config)) if engines == 1 else {}
        super().__init__({**members, **traces})

    def elaborate(self, platform) -> Module:
        m = Module()
        config, engines = self.config, self.engines
        m.submodules.accelerator = inner = Accelerator(config, self.commands, engines)
        self.accelerator = inner
        if engines == 1:
            m.submodules.crossbar = crossbar = EmulatedCrossbar(config)
            wiring.connect(m, inner.crossbar, crossbar.port)
            if config.trace:
                trace_port(m, self, inner.crossbar)
        else:
            for n in range(engines):
                m.submodules[f"crossbar_{n}"] = crossbar = EmulatedCrossbar(config)
                wiring.connect(m, inner.crossbar[n], crossbar.port)
        pass_through(m, accelerator_members(config, engines), inner, self)
        return m
