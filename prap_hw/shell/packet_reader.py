"""Packets of the host into the load streams of a core, item by item, each checked before."""

from collections.abc import Mapping

from amaranth import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.layouts import Space
from prap_hw.driver.packets import MAGIC, Kind
from prap_hw.shell.axi_stream import BEAT, BYTES
from prap_hw.shell.core import CoreLimits, FieldRange, MemoryLimits
from prap_hw.shell.register_map import Enumeration, load

HEADER = data.StructLayout({"magic": 16, "kind": 8, "zero": 8, "count": 32})
"""The first beat of a packet: which items follow, and how many."""


def error_codes() -> dict[str, int]:
    """Values of the enumeration ``error_code`` of the register map, by name."""
    codes: Enumeration = next(e for e in load().enumerations if e.name == "error_code")
    return {name: value for name, value, _ in codes.members}


ERROR_BITS = 8
"""Bits of an error code."""

ALL_BYTES = (1 << BYTES) - 1
"""TKEEP of a full beat."""


FINDINGS = ("ITEM_PARITY", "PADDING", "SPACE", "ADDRESS", "VALUE")
"""Errors of an item, by the names of their codes; of several the first counts."""


class State(enum.Enum, shape=unsigned(3)):
    """States of the reader."""

    #: The first beat of a packet.
    HEADER = 0
    #: A beat of an item.
    BEAT = 1
    #: The item is whole.
    CHECK = 2
    #: The item is offered, if it is good.
    ITEM = 3
    #: The same for the activations of a beat, one after the other.
    BYTE = 4
    #: The end of a packet that is not wanted.
    DISCARD = 5


class PacketReader(wiring.Component):
    """Take packets apart, check every item, and hand the items to a core.

    A packet is a beat of :data:`HEADER` and the items that it counts, TLAST with the last beat. A
    program word or a row of cells is the payload of the core's stream in the low bits of as many
    beats as it and its parity bit need, the lowest beat first; the top bit of the last beat makes
    the number of ones of the item even, and the other bits are 0. Activations are bytes, eight to a
    beat, the last beat with as many as are left. TKEEP marks all bytes but those beyond the last
    activation.

    Nothing of an item reaches the core before TKEEP and TLAST of its beats, its parity, its
    padding, its memory and its address and fields are found good. The first that is not raises
    ``error`` for one cycle, the one after the finding, with ``code`` and the number of the item;
    what the packet has left is discarded from the finding on. So one bit that is flipped anywhere
    in a packet of program words or cells, its header included, is an error; of the activations only
    the header is covered. A program word takes four cycles, a row of cells two more than its beats,
    an activation one.

    While ``halt`` is high, whole packets are discarded. ``forget`` (one cycle) clears what is
    loaded and goes back to the beginning of a packet, or, if one has begun, to discarding its rest;
    with ``drop`` the rest will not come, and the next beat is a header. What was found in its cycle
    is no error any more. ``i`` is ready whenever a beat can be used or discarded: nothing but the
    core can hold it up, and ``busy``, during which a packet waits before its first beat. No output
    depends on an input within the cycle but ``i.ready``, which follows ``busy``. Reset is a
    ``forget`` with ``drop``.

    Members
    -------
    i : ``In(stream.Signature(BEAT))``
        Beats.
    o_load, o_cells, o_acts : ``Out(stream)``
        Items for the core.
    busy : ``In(1)``
        Whether a run is on, or may begin: no packet is taken then.
    input_bytes : ``In(32)``
        Activations that a packet must have.
    used : ``In(1)``
        Pulse: a run begins and uses up the activations.
    halt, forget, drop : ``In(1)``
        See above.
    program, cells, activations : ``Out(1)``
        Whether each is loaded, whole.
    loading : ``Out(1)``
        Whether a packet has begun and not ended, or an item is on its way.
    error, code, item : ``Out``
        What was found wrong in the cycle before, and the item at which it is.
    """

    i: stream.Interface
    o_load: stream.Interface
    o_cells: stream.Interface
    o_acts: stream.Interface
    busy: Signal
    input_bytes: Signal
    used: Signal
    halt: Signal
    forget: Signal
    drop: Signal
    program: Signal
    cells: Signal
    activations: Signal
    loading: Signal
    error: Signal
    code: Signal
    item: Signal

    def __init__(
        self,
        *,
        load: data.StructLayout,
        cells: data.StructLayout,
        acts: data.StructLayout,
        limits: CoreLimits,
    ):
        self.load = load
        self.row = cells
        self.limits = limits
        super().__init__(
            {
                "i": In(stream.Signature(BEAT)),
                "o_load": Out(stream.Signature(load)),
                "o_cells": Out(stream.Signature(cells)),
                "o_acts": Out(stream.Signature(acts)),
                "busy": In(1),
                "input_bytes": In(32),
                "used": In(1),
                "halt": In(1),
                "forget": In(1),
                "drop": In(1),
                "program": Out(1),
                "cells": Out(1),
                "activations": Out(1),
                "loading": Out(1),
                "error": Out(1),
                "code": Out(ERROR_BITS),
                "item": Out(32),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        codes = error_codes()
        beat = self.i.payload
        taken = Signal()
        m.d.comb += taken.eq(self.i.valid & self.i.ready)

        # Whether a packet has begun and not ended: kept through errors and a soft reset.
        inside = Signal()
        with m.If(taken):
            m.d.sync += inside.eq(~beat.last)

        # The item that is being put together, and what is left of its packet.
        is_cells = Signal()
        is_acts = Signal()
        left = Signal(32)
        number = Signal(32)
        # Whether many items are left. A register: one that goes from 16 to 15 is no less than many
        # to those who look in the cycle behind.
        many = Signal()
        few = left[:4]
        final_item = ~many & (few == 1)
        m.d.sync += many.eq(left[4:].any())
        load_beats = _padded(self.load.size) // (8 * BYTES)
        row_beats = _padded(self.row.size) // (8 * BYTES)
        most_beats = max(load_beats, row_beats)
        words = [Signal(8 * BYTES, name=f"word_{k}") for k in range(most_beats)]
        which = Signal(range(most_beats + 1))
        whole = Cat(*words)

        state = Signal(State)

        def go(following: State) -> None:
            m.d.sync += state.eq(following)

        # What is wrong in this cycle. It stops the reader at once, and others a cycle later.
        failed = Signal()
        failure = Signal(ERROR_BITS)

        def fail(name: str) -> None:
            m.d.comb += [failed.eq(1), failure.eq(codes[name])]

        # What the checks find in an item, all of it. What follows passes a register.
        found = Signal(len(FINDINGS))
        m.d.sync += found.eq(0)

        def find(name: str, wrong: Value) -> None:
            m.d.sync += found[FINDINGS.index(name)].eq(wrong)

        def count() -> None:
            """One item more has reached the core; the last one makes the packet complete."""
            m.d.sync += [left.eq(left - 1), number.eq(number + 1), which.eq(0)]
            with m.If(final_item):
                go(State.HEADER)
                with m.If(is_acts):
                    m.d.sync += self.activations.eq(1)
                with m.Elif(is_cells):
                    m.d.sync += self.cells.eq(1)
                with m.Else():
                    m.d.sync += self.program.eq(1)

        header = data.View(HEADER, beat.data)
        m.d.comb += self.loading.eq((state != State.HEADER) | inside)
        m.d.sync += [
            self.error.eq(failed & ~self.forget),
            self.code.eq(failure),
            self.item.eq(Mux(state == State.HEADER, 0, number)),
        ]
        with m.Switch(state):
            with m.Case(State.HEADER):
                # While the core runs, a packet waits before its first beat.
                m.d.comb += self.i.ready.eq(~self.busy)
                with m.If(taken & ~self.halt):
                    m.d.sync += [
                        is_cells.eq(header.kind == Kind.CELLS),
                        is_acts.eq(header.kind == Kind.ACTIVATIONS),
                        left.eq(header.count),
                        many.eq(header.count[4:].any()),
                        number.eq(0),
                        which.eq(0),
                    ]
                    go(State.BEAT)
                    self._check_header(m, header, fail)
                    # What comes anew is not loaded until it is whole, nor is what depends on it.
                    m.d.sync += self.activations.eq(0)
                    with m.If(header.kind != Kind.ACTIVATIONS):
                        m.d.sync += self.cells.eq(0)
                    with m.If(header.kind == Kind.PROGRAM):
                        m.d.sync += self.program.eq(0)

            with m.Case(State.BEAT):
                m.d.comb += self.i.ready.eq(1)
                keep = Mux(is_acts, Cat(many | (few > byte) for byte in range(BYTES)), ALL_BYTES)
                complete = is_acts | (which == Mux(is_cells, row_beats, load_beats) - 1)
                final = Mux(is_acts, ~many & (few <= BYTES), complete & final_item)
                with m.If(taken):
                    with m.Switch(which):
                        for number_of_beat, register in enumerate(words):
                            with m.Case(number_of_beat):
                                m.d.sync += register.eq(beat.data)
                    m.d.sync += which.eq(which + 1)
                    with m.If(is_acts):
                        go(State.BYTE)
                    with m.Elif(complete):
                        go(State.CHECK)
                    with m.If(beat.keep != keep):
                        fail("KEEP")
                    with m.Elif(beat.last & ~final):
                        fail("SHORT")
                    with m.Elif(final & ~beat.last):
                        fail("LONG")

            with m.Case(State.CHECK):
                go(State.ITEM)
                with m.If(is_cells):
                    self._check_cells(whole, find)
                with m.Else():
                    self._check_program(m, whole, find)

            with m.Case(State.ITEM):
                sound = ~found.any()
                m.d.comb += [
                    self.o_load.valid.eq(sound & ~is_cells),
                    self.o_cells.valid.eq(sound & is_cells),
                ]
                with m.If(sound & Mux(is_cells, self.o_cells.ready, self.o_load.ready)):
                    go(State.BEAT)
                    count()
                # The last assignment counts: the first finding does.
                for number_of_finding, name in reversed(list(enumerate(FINDINGS))):
                    with m.If(found[number_of_finding]):
                        fail(name)

            with m.Case(State.BYTE):
                m.d.comb += self.o_acts.valid.eq(1)
                with m.If(self.o_acts.ready):
                    m.d.sync += words[0].eq(words[0] >> 8)
                    with m.If(number[:3] == BYTES - 1):
                        go(State.BEAT)
                    count()

            with m.Case(State.DISCARD):
                m.d.comb += self.i.ready.eq(1)
                with m.If(taken & beat.last):
                    go(State.HEADER)

        # After an error, or when stopped: the rest of the packet, if it has one.
        ended = Mux(taken, beat.last, ~inside)
        with m.If(failed | self.halt | self.forget):
            go(State.DISCARD)
            with m.If(ended | (self.forget & self.drop)):
                go(State.HEADER)

        m.d.comb += [
            Value.cast(self.o_load.payload).eq(whole[: self.load.size]),
            Value.cast(self.o_cells.payload).eq(whole[: self.row.size]),
            self.o_acts.payload.data.eq(words[0][:8]),
            self.o_acts.payload.last.eq(final_item),
        ]
        # A run uses the activations up; a soft reset forgets everything.
        with m.If(self.used):
            m.d.sync += self.activations.eq(0)
        with m.If(self.forget):
            m.d.sync += [self.program.eq(0), self.cells.eq(0), self.activations.eq(0)]
            with m.If(self.drop):
                m.d.sync += inside.eq(0)
        return m

    def _check_header(self, m: Module, header, fail) -> None:
        beat = self.i.payload
        known = Cat(header.kind == value for value in Kind).any()
        is_acts = header.kind == Kind.ACTIVATIONS
        length_wrong = (header.count != self.input_bytes) | (
            header.count > self.limits.activation_bytes
        )
        with m.If((header.magic != MAGIC) | (header.zero != 0) | ~known | (header.count == 0)):
            fail("HEADER")
        with m.Elif(beat.keep != ALL_BYTES):
            fail("KEEP")
        with m.Elif(beat.last):
            fail("SHORT")
        with m.Elif(((header.kind == Kind.CELLS) & ~self.program) | (is_acts & ~self.cells)):
            fail("ORDER")
        with m.Elif(is_acts & length_wrong):
            fail("LENGTH")

    def _check_cells(self, whole: Value, find) -> None:
        """Row of cells: parity, padding, then place."""
        bits = _padded(self.row.size)
        find("ITEM_PARITY", whole[:bits].xor())
        find("PADDING", whole[self.row.size : bits - 1].any())
        find("ADDRESS", _outside(whole, self.limits.cells))

    def _check_program(self, m: Module, whole: Value, find) -> None:
        """Program word: parity, padding, memory, address, fields."""
        bits = _padded(self.load.size)
        item = data.View(self.load, whole[: self.load.size])
        space = Value.cast(item.space)
        judged = self._judge(m, space, item.addr, item.data, self.limits.memories)
        unknown, beyond, wrong = judged
        if self.limits.command is not None:
            # A word of a list that is no run is a program word, too.
            inner = data.View(self.limits.command, item.data[: self.limits.command.size])
            loads = Signal()
            m.d.comb += loads.eq((space == Space.COMMAND) & ~inner.run)
            judged = self._judge(
                m, Value.cast(inner.space), inner.addr, inner.data, self.limits.listed
            )
            unknown |= loads & judged[0]
            beyond |= loads & judged[1]
            wrong |= loads & judged[2]
        find("ITEM_PARITY", whole[:bits].xor())
        find("PADDING", whole[self.load.size : bits - 1].any())
        find("SPACE", unknown)
        find("ADDRESS", beyond | _outside(whole, self.limits.word))
        find("VALUE", wrong)

    def _judge(
        self,
        m: Module,
        space: Value,
        address: Value,
        value: Value,
        memories: Mapping[int, MemoryLimits],
    ) -> tuple[Value, Value, Value]:
        """Whether a word is for no memory, beyond its end, or has a value out of range."""
        beyond = Signal()
        wrong = Signal()

        def limits(memory: MemoryLimits) -> None:
            if memory.at is None:
                m.d.comb += wrong.eq(_outside(value, memory.fields) | value[memory.width :].any())
                return
            with m.Switch(address):
                for number, register in memory.at.items():
                    with m.Case(number):
                        limits(register)

        m.d.comb += beyond.eq(0)
        with m.Switch(space):
            for number, memory in memories.items():
                with m.Case(number):
                    m.d.comb += beyond.eq(address >= memory.depth)
                    limits(memory)
        return ~Cat(space == number for number in memories).any(), beyond, wrong


def _padded(bits: int) -> int:
    """Bits of the beats of an item with so many bits and a parity bit."""
    return -(-(bits + 1) // (8 * BYTES)) * 8 * BYTES


def _outside(word: Value, ranges: tuple[FieldRange, ...]) -> Value:
    """Whether a field of a word leaves its range."""
    result: Value = Const(0)
    for field in ranges:
        if field.free:
            continue
        value = word[field.low : field.low + field.width]
        result |= value > field.most
        if field.least:
            result |= value < field.least
    return result
