"""The tile: several engines' cores, the sum of their accumulators, one requantiser."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.hdl import ShapeLike
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.crossbar import EmulatedCrossbar, crossbar_port
from prap_hw.common.faults import Fault, ProtectedMemory
from prap_hw.common.layouts import (
    CORE_COUNTERS,
    COUNTER_BITS,
    Layouts,
    Space,
    TileLayouts,
    valid_only,
)
from prap_hw.common.members import pass_through, run_members
from prap_hw.engine.block_reader import positions_ahead
from prap_hw.engine.engine import EngineCore, run_layer
from prap_hw.engine.requantise import Requantise
from refmodel.config import ACTIVE_BITS, EngineConfig


def sums_held(engines: int) -> int:
    """Sums for which a reduction's buffer has room, and positions that may wait in it.

    A word to each read that can be under way: the accumulators, a register to each level of the
    tree, the buffer; and two until the room of a sum that is taken can be used.
    """
    return 4 + (engines - 1).bit_length()


def added(m: Module, terms: Sequence[Value], shape: ShapeLike, name: str) -> tuple[Value, int]:
    """Add up terms in a tree of registered adders, a level a cycle.

    Returns
    -------
    The sum, and the levels, ceil(log2(terms)).
    """
    level = 0
    while len(terms) > 1:
        sums: list[Value] = []
        for n in range(0, len(terms), 2):
            sum_ = Signal(shape, name=f"{name}_{level}_{n // 2}")
            m.d.sync += sum_.eq(sum(terms[n + 1 : n + 2], terms[n]))
            sums.append(sum_)
        terms, level = sums, level + 1
    return terms[0], level


class Reduction(wiring.Component):
    """Read the same accumulator of all engines and add them up, one output a cycle.

    Sums are exact: each fits the width of an accumulator, which the compiler checks for the whole
    layer. An engine counts for the outputs of which its share bit is set; in the others it has
    never written, and counts 0. With ``config.network`` the shares of all layers are resident; the
    layer registers say where those of a layer begin.

    A position is read from the cycle on in which the last engine's ``position_done`` comes, or
    right behind the position before; throughput is one output per cycle. A sum is in the buffer
    :func:`refmodel.predict.tile.reduce_latency` cycles after its read, and ``o_position_done``
    comes when a position's first sum is. From there on the buffer looks like one engine's
    accumulators: sums leave it in order, ``read_acc`` is what the last cycle with ``read_en`` took.
    It is deep enough that reads go on as fast as sums are taken; where they are not taken, reads
    wait for room, never a read for its data. So an accumulator need not stand while the output is
    held up, and a half is free for its engine in the cycle of its last read.

    ``half_read``, ``engine_read_en`` and ``engine_read_half`` depend combinationally on
    ``position_done``; no other output depends on an input within the cycle. Reset empties it; the
    shares stay.

    A share of the wrong parity, and one of an engine that takes no part, is in ``faults`` in the
    cycle after its read, and what it leads to in no sum that can be taken in that cycle. A share
    that is not in the memory has its output's parameters beyond theirs, which
    :class:`~prap_hw.engine.requantise.Requantise` finds.

    Members
    -------
    i_load : ``In(stream.Signature(load, always_ready=True))``
        Program words; those for spaces SHARE and ENGINES are stored.
    registers : ``In(registers)``
        Layer registers.
    active : ``Out(engines)``
        Engines that take part in the layer; the others are not waited for.
    position_done : ``In(engines)``
        Pulse per engine: its next half holds a whole position.
    half_read : ``Out(2)``, one to an engine
        Pulse per half: its last accumulator is read in this cycle.
    engine_read_en, engine_read_half, engine_read_output : ``Out``
        Read ports of the engines' accumulators; the half is one to an engine.
    engine_read_acc : ``In(signed(acc_width))``, one to an engine
        Their accumulators, one cycle later.
    o_position_done : ``Out(1)``
        Pulse: the first sum of the next position can be taken.
    read_en : ``In(1)``; read_acc : ``Out(signed(acc_width))``
        Take the next sum; it is there in the next cycle.
    faults : ``Out``, a bit to each of ``FAULTS``
        A share of the wrong parity; a share of an engine that takes no part.
    """

    FAULTS = ((Fault.PARITY, Space.SHARE), (Fault.RANGE, Space.SHARE))

    i_load: stream.Interface
    registers: data.View
    active: Signal
    position_done: Signal
    half_read: list[Signal]
    engine_read_en: Signal
    engine_read_half: Signal
    engine_read_output: Signal
    engine_read_acc: list[Signal]
    o_position_done: Signal
    read_en: Signal
    read_acc: Signal
    faults: Signal

    def __init__(self, config: EngineConfig, engines: int):
        self.config = config
        self.engines = engines
        self.layouts = layouts = Layouts(config)
        self.shares = ProtectedMemory(engines, config.params)
        acc = signed(config.acc_width)
        super().__init__(
            {
                "i_load": In(stream.Signature(layouts.load, always_ready=True)),
                "registers": In(layouts.registers),
                "active": Out(engines),
                "position_done": In(engines),
                "half_read": Out(2).array(engines),
                "engine_read_en": Out(1),
                "engine_read_half": Out(engines),
                "engine_read_output": Out(layouts.output_bits),
                "engine_read_acc": In(acc).array(engines),
                "o_position_done": Out(1),
                "read_en": In(1),
                "read_acc": Out(acc),
                "faults": Out(len(self.FAULTS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, engines = self.config, self.engines
        acc = signed(config.acc_width)
        load = self.i_load.payload

        # Which engines take part, in the layer and in each output.
        shares = self.shares.ports(m, "shares", load.data)
        share = shares.read
        m.d.comb += [
            shares.write.en.eq(self.i_load.valid & (load.space == Space.SHARE)),
            shares.write.addr.eq(load.addr),
        ]
        with m.If(self.i_load.valid & (load.space == Space.ENGINES)):
            m.d.sync += self.active.eq(load.data)
            if engines > ACTIVE_BITS:
                with m.If(load.addr == 1):
                    m.d.sync += self.active.eq(Cat(self.active[:ACTIVE_BITS], load.data))

        # Positions merged and not read. Halves alternate in each engine: one that is idle stands.
        read = Signal()
        channel = Signal(self.layouts.output_bits)
        last = Signal()
        whole = Signal(engines)
        m.d.comb += last.eq(channel == self.registers.last_output)
        for n in range(engines):
            waiting = Signal(range(positions_ahead(config) + 1), name=f"waiting_{n}")
            half = Signal(name=f"half_{n}")
            gone = Signal(name=f"gone_{n}")
            m.d.comb += [
                gone.eq(read & last & self.active[n]),
                whole[n].eq(~self.active[n] | (waiting != 0) | self.position_done[n]),
                self.engine_read_half[n].eq(half),
                self.half_read[n].eq(Mux(gone, Mux(half, 0b10, 0b01), 0)),
            ]
            m.d.sync += [
                waiting.eq(waiting + self.position_done[n] - gone),
                half.eq(half ^ gone),
            ]

        # Reads: one a cycle while the buffer has room for what is under way.
        depth = sums_held(engines)
        room = Signal(range(depth + 1), init=depth)
        m.d.comb += [
            # Without an engine that takes part nothing is ever whole.
            read.eq(whole.all() & self.active.any() & (room != 0)),
            self.engine_read_en.eq(read),
            self.engine_read_output.eq(channel),
            share.addr.eq(channel + self.registers.first_output if config.network else channel),
            share.en.eq(read),
        ]
        m.d.sync += room.eq(room + self.read_en - read)
        with m.If(read):
            m.d.sync += channel.eq(Mux(last, 0, channel + 1))

        # What arrives, and the tree. Fits: every sum of some engines is one of some words of the
        # layer.
        valid = Signal()
        first = Signal()
        m.d.sync += [valid.eq(read), first.eq(channel == 0)]
        m.d.comb += self.faults.eq(
            Cat(valid & shares.wrong, valid & (shares.word & ~self.active).any())
        )
        total, levels = added(
            m,
            [Mux(shares.word[n], self.engine_read_acc[n], Const(0, acc)) for n in range(engines)],
            acc,
            "sum",
        )
        for level in range(levels):
            level_valid = Signal(name=f"valid_{level}")
            level_first = Signal(name=f"first_{level}")
            m.d.sync += [level_valid.eq(valid), level_first.eq(first)]
            valid, first = level_valid, level_first

        m.submodules.sums = buffer = fifo.SyncFIFO(width=config.acc_width, depth=depth)
        begun = Signal()
        m.d.comb += [
            buffer.w_en.eq(valid),
            buffer.w_data.eq(total),
            buffer.r_en.eq(self.read_en),
            self.o_position_done.eq(begun),
        ]
        m.d.sync += begun.eq(valid & first)
        with m.If(self.read_en):
            m.d.sync += self.read_acc.eq(buffer.r_data.as_signed())
        return m


class TileCore(wiring.Component):
    """Several engines up to the sum of their accumulators: what stands in one engine's place.

    From ``start`` on each engine that takes part runs its part of a layer, position after position;
    ``position_done``, ``read_en`` and ``read_acc`` are the reduction's, so that what reads them
    need not know how many engines there are. Engine 0 must take part in every layer, since its
    layer registers are the tile's; a word, or a beat of cells, for an engine that is not there is
    excluded.

    The loading streams are ready while ``busy`` is low; ``i_cells`` and ``crossbar.program`` are
    connected combinationally, and the readies follow ``busy`` within the cycle. Counters are sums
    over the engines, ceil(log2(N)) cycles late: the last of their events comes with the last merge
    step, and an output is more cycles behind that than there are levels, so they stand when a run
    ends. Reset ends a run and clears the layer registers; the memories keep what was loaded.

    Parameters
    ----------
    config
        Sizes of each engine.
    engines
        N, 1 to 64.

    Members
    -------
    i_load, i_cells : ``In(stream)``
        Program words, each for one engine or for all of them, and rows of cells, each for one.
        Words for spaces SHARE and ENGINES are the reduction's, whatever engine they name.
    i_acts : ``In(stream)``; with ``config.network`` instead i_store : ``In(valid_only(store))``
        Activation bytes, stored by every engine.
    start, busy, clear, halted, faults, registers
        As an :class:`~prap_hw.engine.engine.EngineCore` has them: faults are those of any engine,
        of the reduction, and a start in which engine 0 has no part; registers those of engine 0.
    position_done, read_en, read_acc
        As the :class:`Reduction` has them.
    engine_counters : ``Out(...)``, one to an engine; with ``config.network`` instead counters
        Events of each engine since ``start``, those of an idle engine an earlier layer's; events of
        all engines together since ``clear``.
    trace_psum : ``Out(valid_only(...))``, one to an engine, with ``config.trace``
        Valid-only: each complete slot.
    crossbar : ``Out(crossbar_port(config))``, one to an engine
        The analog boundary.
    """

    FAULTS = (*EngineCore.FAULTS, *Reduction.FAULTS, (Fault.RANGE, Space.ENGINES))

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
    read_en: Signal
    read_acc: Signal
    counters: Any
    engine_counters: list[Any]
    trace_psum: list[Any]
    crossbar: list[Any]

    def __init__(self, config: EngineConfig, engines: int):
        self.config = config
        self.engines = engines
        self.layouts = tile = TileLayouts(config, engines)
        layouts = tile.engine
        events = wiring.Signature({name: Out(COUNTER_BITS) for name in CORE_COUNTERS})
        if config.network:
            kind = {
                "i_store": In(valid_only(layouts.store)),
                "clear": In(1),
                "counters": Out(events),
            }
        else:
            kind = {
                "i_acts": In(stream.Signature(tile.acts)),
                "engine_counters": Out(events).array(engines),
            }
        if config.trace:
            psums = valid_only(layouts.trace_psums, layouts.columns.ends)
            kind["trace_psum"] = Out(psums).array(engines)
        super().__init__(
            {
                "i_load": In(stream.Signature(tile.word)),
                "i_cells": In(stream.Signature(tile.cells)),
                **kind,
                "start": In(1),
                "busy": In(1),
                "halted": In(1),
                "faults": Out(len(self.FAULTS)),
                "registers": Out(layouts.registers),
                "position_done": Out(1),
                "read_en": In(1),
                "read_acc": Out(signed(config.acc_width)),
                "crossbar": Out(crossbar_port(config)).array(engines),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, engines = self.config, self.engines
        layouts = self.layouts.engine

        m.submodules.reduction = reduction = Reduction(config, engines)
        cores = []
        for n in range(engines):
            m.submodules[f"engine_{n}"] = core = EngineCore(config)
            cores.append(core)
        m.d.comb += [
            self.registers.eq(cores[0].registers),
            reduction.registers.eq(cores[0].registers),
            self.position_done.eq(reduction.o_position_done),
            reduction.read_en.eq(self.read_en),
            self.read_acc.eq(reduction.read_acc),
        ]

        # A fault of any engine stops all of them.
        m.d.comb += [
            self.faults.eq(
                Cat(
                    reduce(or_, (core.faults for core in cores)),
                    reduction.faults,
                    self.start & ~reduction.active[0],
                )
            ),
            *(core.halted.eq(self.halted) for core in cores),
        ]

        # Loading, only while nothing runs. An engine's payload is the low bits of the tile's.
        loadable = Signal()
        target = self.i_load.payload
        word = Signal(layouts.load)
        row = Signal(layouts.cells)
        m.d.comb += [
            word.eq(target.as_value()[: word.as_value().shape().width]),
            row.eq(self.i_cells.payload.as_value()[: row.as_value().shape().width]),
            loadable.eq(~self.busy & ~self.halted),
            self.i_load.ready.eq(loadable),
            reduction.i_load.valid.eq(self.i_load.valid & loadable),
            reduction.i_load.payload.eq(word),
        ]
        with m.Switch(self.i_cells.payload.engine):
            for n, core in enumerate(cores):
                with m.Case(n):
                    m.d.comb += self.i_cells.ready.eq(core.i_cells.ready)
        for n, core in enumerate(cores):
            m.d.comb += [
                core.busy.eq(self.busy),
                core.i_load.valid.eq(self.i_load.valid & (target.every | (target.engine == n))),
                core.i_load.payload.eq(word),
                core.i_cells.valid.eq(self.i_cells.valid & (self.i_cells.payload.engine == n)),
                core.i_cells.payload.eq(row),
                core.start.eq(self.start & reduction.active[n]),
            ]
            wiring.connect(m, core.crossbar, wiring.flipped(self.crossbar[n]))
            if config.network:
                m.d.comb += [
                    core.i_store.valid.eq(self.i_store.valid),
                    core.i_store.payload.eq(self.i_store.payload),
                    core.clear.eq(self.clear),
                ]
            else:
                m.d.comb += [
                    core.i_acts.valid.eq(self.i_acts.valid),
                    core.i_acts.payload.eq(self.i_acts.payload),
                ]
        if not config.network:
            m.d.comb += self.i_acts.ready.eq(loadable)

        for n, core in enumerate(cores):
            m.d.comb += [
                reduction.position_done[n].eq(core.position_done),
                core.half_read.eq(reduction.half_read[n]),
                core.read_en.eq(reduction.engine_read_en),
                core.read_half.eq(reduction.engine_read_half[n]),
                core.read_output.eq(reduction.engine_read_output),
                reduction.engine_read_acc[n].eq(core.read_acc),
            ]

        for name in CORE_COUNTERS:
            events = [getattr(core.counters, name) for core in cores]
            if config.network:
                total, _ = added(m, events, COUNTER_BITS, name)
                m.d.comb += getattr(self.counters, name).eq(total)
            else:
                for counters, count in zip(self.engine_counters, events, strict=True):
                    m.d.comb += getattr(counters, name).eq(count)

        if config.trace:
            for core, shown in zip(cores, self.trace_psum, strict=True):
                wiring.connect(m, core.trace_psum, wiring.flipped(shown))
        self._cores, self._reduction = cores, reduction
        return m

    @property
    def memories(self) -> dict[Space, list[ProtectedMemory]]:
        """Memories that hold the program, by space; available once the tile has been elaborated.

        A space lists the memories of the first engine, then those of the second, and so on;
        ``Space.SHARE`` has one memory, which belongs to the tile.
        """
        joined: dict[Space, list[ProtectedMemory]] = {Space.SHARE: [self._reduction.shares]}
        for core in self._cores:
            for space, memories in core.memories.items():
                joined.setdefault(space, []).extend(memories)
        return joined


def tile_members(config: EngineConfig, engines: int) -> dict:
    """Members that a tile has with and without crossbars of its own.

    Raises
    ------
    ValueError
        ``config.network`` is not False.
    """
    if config.network:
        raise ValueError("the engines of a tile must have network False, not True")
    tile = TileLayouts(config, engines)
    layouts = tile.engine
    core = wiring.Signature({name: Out(COUNTER_BITS) for name in CORE_COUNTERS})
    whole = wiring.Signature({"cycles": Out(COUNTER_BITS), "outputs": Out(COUNTER_BITS)})
    members = run_members(layouts, tile.output) | {
        "i_load": In(stream.Signature(tile.load)),
        "i_cells": In(stream.Signature(tile.cells)),
        "counters": Out(whole),
        "engine_counters": Out(core).array(engines),
    }
    if config.trace:
        members["trace_psum"] = members["trace_psum"].array(engines)
    return members


class Tile(wiring.Component):
    """One layer of a network on several engines, over crossbars at open ports.

    As an :class:`~prap_hw.engine.engine.Engine`, with the groups dealt out by
    :func:`refmodel.predict.deal.deal`: every engine runs its part for all output positions, and the
    accumulators are added up. Engines run ahead of each other by the two halves of their
    accumulators and no more. :func:`refmodel.predict.tile.predict_tile` has the cycle count.

    ``start``, ``busy``, ``o`` and reset are as an engine's, and so is what follows what within a
    cycle. Engine 0 must take part in every layer, since the tile's own layer registers are its
    copy; a word, or a beat of cells, for an engine that the tile has not is excluded.

    Members
    -------
    i_load, i_cells : ``In(stream)``
        Program words and rows of cells, each with the engine it is for. Words for spaces OUTPUT,
        SHARE and ENGINES are the tile's, whatever engine they name.
    i_acts : ``In(stream)``
        Activation bytes, stored by every engine.
    start : ``In(1)``; busy : ``Out(1)``
        Begin; running.
    fault : ``Out(FAULT)``
        The first fault since reset of any engine, of the reduction or of requantisation. It stops
        the tile as it stops an engine.
    o : ``Out(stream.Signature(output))``
        Output codes, position after position, channels in order.
    counters, engine_counters : ``Out(...)``, the latter one to an engine
        Events since ``start``: ``cycles`` and ``outputs``; and of each engine the others of
        :data:`prap_hw.common.layouts.COUNTERS`. Those of an idle engine keep an earlier layer's
        events.
    trace_psum : ``Out(valid_only(...))``, one to an engine; trace_acc, with ``config.trace``
        Valid-only: each complete slot; each sum of the engines' accumulators, before its bias.
    crossbar : ``Out(crossbar_port(config))``, one to an engine
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
    engine_counters: list[Any]
    trace_psum: Any
    trace_acc: Any
    crossbar: Any

    def __init__(self, config: EngineConfig, engines: int):
        self.config = config
        self.engines = engines
        self.layouts = TileLayouts(config, engines)
        port = Out(crossbar_port(config)).array(engines)
        super().__init__({**tile_members(config, engines), "crossbar": port})

    def elaborate(self, platform) -> Module:
        m = Module()
        config, engines = self.config, self.engines
        layouts = self.layouts.engine

        m.submodules.core = core = TileCore(config, engines)
        # A position of one output is one sum in the buffer.
        m.submodules.requantise = requantise = Requantise(config, sums_held(engines))
        self._core, self._requantise = core, requantise
        run_layer(m, self, core, requantise)

        # Loading. Words are for one engine each.
        word = Signal(layouts.load)
        width = self.i_load.payload.as_value().shape().width
        m.d.comb += [
            word.eq(self.i_load.payload.as_value()[: word.as_value().shape().width]),
            self.i_load.ready.eq(core.i_load.ready),
            core.i_load.valid.eq(self.i_load.valid),
            core.i_load.payload.as_value()[:width].eq(self.i_load.payload),
            requantise.i_load.valid.eq(self.i_load.valid & self.i_load.ready),
            requantise.i_load.payload.eq(word),
        ]
        wiring.connect(m, wiring.flipped(self.i_cells), core.i_cells)
        wiring.connect(m, wiring.flipped(self.i_acts), core.i_acts)
        for n in range(engines):
            wiring.connect(m, core.crossbar[n], wiring.flipped(self.crossbar[n]))

        for n in range(engines):
            wiring.connect(m, core.engine_counters[n], wiring.flipped(self.engine_counters[n]))

        if config.trace:
            for n in range(engines):
                wiring.connect(m, core.trace_psum[n], wiring.flipped(self.trace_psum[n]))
            wiring.connect(m, requantise.trace, wiring.flipped(self.trace_acc))
        return m

    @property
    def memories(self) -> dict[Space, list[ProtectedMemory]]:
        """Contents of the memories of the program, by space, once it has been elaborated."""
        return {**self._core.memories, Space.OUTPUT: [self._requantise.params]}


class EmulatedTile(wiring.Component):
    """A :class:`Tile` with emulated crossbars at its ports.

    Members, latency and reset are the tile's, without ``crossbar``.
    """

    i_load: stream.Interface
    i_cells: stream.Interface
    i_acts: stream.Interface
    start: Signal
    busy: Signal
    fault: data.View
    o: stream.Interface
    counters: Any
    engine_counters: list[Any]
    trace_psum: Any
    trace_acc: Any

    def __init__(self, config: EngineConfig, engines: int):
        self.config = config
        self.engines = engines
        self.layouts = TileLayouts(config, engines)
        super().__init__(tile_members(config, engines))

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.tile = self.tile = tile = Tile(self.config, self.engines)
        for n in range(self.engines):
            m.submodules[f"crossbar_{n}"] = crossbar = EmulatedCrossbar(self.config)
            wiring.connect(m, tile.crossbar[n], crossbar.port)
        pass_through(m, tile_members(self.config, self.engines), tile, self)
        return m
