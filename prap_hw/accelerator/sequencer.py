"""Sequencer: runs a network's operations from a list in memory."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.faults import Fault
from prap_hw.common.index_reader import IndexReader
from prap_hw.common.layouts import Layouts, Source, Space, TileLayouts
from refmodel.config import EngineConfig


class Sequencer(wiring.Component):
    """Play a list of words: loads of registers, and runs of an operation.

    A word with ``run`` starts the operation that the registers describe; the next word is taken in
    the cycle after its end. Every other word is a word of the load stream, for the engine's
    registers, its table of kernel positions, or the registers of post-processing, which stand here.
    One word is taken a cycle. The list begins with the operation that takes the image, and ends
    with one that has ``last``.

    The list begins when an image is offered while nothing runs; ``busy`` stays low until ``start``,
    and behind the image's operation the list waits for it. Then the first word is taken in the
    cycle after ``start``. ``busy`` falls in the cycle after the end of the last operation, in which
    ``done`` is high. Another image may be sent instead of a start; so may program words, after
    which the image must be sent again. ``run``, ``o_load``, ``loadable`` and ``faults``
    depend on no input within the cycle but ``running``. Reset goes back to the beginning and clears
    the registers.

    A word of the wrong parity is not taken, and is in ``faults`` once it is due. So is the last
    word that the list may have, where it is taken and is not a last run.

    Parameters
    ----------
    config
        Sizes of each engine.
    commands
        Words that the list may have.
    engines
        Engines of the accelerator. With several, a word that is no run has the engine that it is
        for, or is for every engine.

    Members
    -------
    i_load : ``In(stream.Signature(load, always_ready=True))``
        Program words of the host, while ``loadable``; those for space COMMAND are stored.
    offered : ``In(1)``
        Whether the host offers a byte of an image.
    start : ``In(1)``; busy : ``Out(1)``; done : ``Out(1)``
        Begin behind the image; running; pulse at the end.
    loadable : ``Out(1)``
        Whether program words are taken.
    silent : ``Out(1)``
        Whether no word of the list is taken; high where ``loadable`` is. A register decides it.
    o_load : ``Out(stream.Signature(load, always_ready=True))``
        Words of the list that are no runs; with several engines ``word`` instead of ``load``.
    registers : ``Out(post)``
        Registers of post-processing.
    run : ``Out(1)``; running : ``In(1)``
        Pulse: start the operation; high from the cycle after that until the cycle after its end.
    faults : ``Out``, a bit to each of ``FAULTS``
        A word of the wrong parity; a list without an end.
    """

    FAULTS = ((Fault.PARITY, Space.COMMAND), (Fault.RANGE, Space.COMMAND))

    i_load: stream.Interface
    offered: Signal
    start: Signal
    busy: Signal
    done: Signal
    loadable: Signal
    silent: Signal
    o_load: stream.Interface
    registers: data.View
    run: Signal
    running: Signal
    faults: Signal

    class State(enum.Enum, shape=2):
        """States of the sequencer."""

        #: No image is there.
        IDLE = 0
        #: Words are taken.
        PLAY = 1
        #: An operation runs.
        WAIT = 2

    def __init__(self, config: EngineConfig, commands: int, engines: int = 1):
        self.commands = commands
        self.layouts = layouts = Layouts(config)
        self.command, word = layouts.command, layouts.load
        if engines > 1:
            tile = TileLayouts(config, engines)
            self.command, word = tile.command, tile.word
        load = stream.Signature(layouts.load, always_ready=True)
        super().__init__(
            {
                "i_load": In(load),
                "offered": In(1),
                "start": In(1),
                "busy": Out(1),
                "done": Out(1),
                "loadable": Out(1),
                "silent": Out(1),
                "o_load": Out(stream.Signature(word, always_ready=True)),
                "registers": Out(layouts.post),
                "run": Out(1),
                "running": In(1),
                "faults": Out(len(self.FAULTS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        layouts, registers, state = self.layouts, self.registers, self.State

        m.submodules.commands = commands = IndexReader(self.command, self.commands)
        self.words = commands.words
        command = commands.o.payload
        loaded = self.i_load.payload
        m.d.comb += [
            commands.w_en.eq(self.i_load.valid & (loaded.space == Space.COMMAND)),
            commands.w_addr.eq(loaded.addr),
            commands.w_data.eq(loaded.data),
            commands.loading.eq(self.i_load.valid),
            commands.last.eq(self.commands - 1),
        ]

        at = Signal(state)
        last = Signal()
        asked = Signal()
        ended = Signal()
        finished = Signal()
        waiting = Signal()
        idle = Signal()
        rewind = Signal()
        started = Signal()
        taken = Signal()
        m.d.comb += [
            ended.eq((at == state.WAIT) & ~self.running),
            finished.eq(ended & last),
            # The image is there, and nothing asks for more.
            waiting.eq(ended & ~last & (registers.source == Source.IMAGE) & ~asked),
            idle.eq((at == state.IDLE) | waiting),
            rewind.eq(idle & (self.offered | asked)),
            commands.resting.eq((at == state.IDLE) | rewind),
            commands.start.eq(rewind),
            self.busy.eq(asked & ~finished),
            self.done.eq(finished & asked),
            self.loadable.eq(idle & ~asked),
            self.silent.eq(
                (at == state.IDLE)
                | ((at == state.WAIT) & (registers.source == Source.IMAGE) & ~asked)
            ),
            started.eq(self.start & ~self.busy),
            commands.o.ready.eq((at == state.PLAY) | (ended & ~last & ~waiting)),
            taken.eq(commands.o.valid & commands.o.ready),
            self.run.eq(taken & command.run),
            self.faults.eq(
                Cat(
                    commands.wrong & commands.o.ready,
                    taken & commands.o_last & ~(command.run & command.last),
                )
            ),
            self.o_load.valid.eq(taken & ~command.run),
        ]
        for name, _ in self.o_load.payload.shape():
            m.d.comb += self.o_load.payload[name].eq(command[name])
        with m.If(finished):
            m.d.sync += [at.eq(state.IDLE), last.eq(0), asked.eq(0)]
        with m.If(waiting & self.i_load.valid):
            m.d.sync += at.eq(state.IDLE)
        with m.If(rewind):
            m.d.sync += at.eq(state.PLAY)
        with m.If(taken):
            m.d.sync += at.eq(Mux(command.run, state.WAIT, state.PLAY))
        with m.If(self.run):
            m.d.sync += last.eq(command.last)
        with m.If(started):
            m.d.sync += asked.eq(1)

        word = self.o_load.payload
        with m.If(self.o_load.valid & (word.space == Space.POST)), m.Switch(word.addr):
            for number, (name, field) in enumerate(layouts.post):
                with m.Case(number):
                    m.d.sync += registers[name].eq(word.data[: field.width])
        return m
