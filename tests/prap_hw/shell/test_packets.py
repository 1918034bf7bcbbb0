"""Packets into a core and out of it: what reaches the core, which errors, what the host sees."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from amaranth import Cat

from prap_hw.common.layouts import Layouts, Space, TileLayouts
from prap_hw.deliver.load import command_words, layer_image, network_load
from prap_hw.deliver.packets import accelerator_image, engine_image, items
from prap_hw.driver.packets import BEAT, Kind, packet
from prap_hw.driver.registers import ErrorCode
from prap_hw.shell.core import accelerator_limits, engine_limits
from prap_hw.shell.packet_reader import PacketReader
from prap_hw.shell.packet_writer import PacketWriter
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.sizing import accelerator_config_for, network_needs
from tests.support.layers.hand import TINY_ENGINE, hand_layer
from tests.support.nets import accelerator_nets
from tests.support.rtl.bench import Agent, Constant, Script, Sink, Source, Watch, simulate

LAYOUTS = Layouts(TINY_ENGINE)
FULL = (1 << BEAT) - 1


def reader() -> PacketReader:
    return PacketReader(
        load=LAYOUTS.load,
        cells=LAYOUTS.cells,
        acts=LAYOUTS.acts,
        limits=engine_limits(TINY_ENGINE),
    )


def beats(data: bytes) -> list[int]:
    """Beats of a packet, as payloads of the stream: data, TKEEP, TLAST."""
    result = []
    for at in range(0, len(data), BEAT):
        chunk = data[at : at + BEAT]
        keep = (1 << len(chunk)) - 1
        last = at + BEAT >= len(data)
        result.append(int.from_bytes(chunk, "little") | keep << 64 | last << 72)
    return result


def program(*words: int) -> bytes:
    return items(Kind.PROGRAM, words, LAYOUTS.load.size)


def word(space: int, addr: int, data: int) -> int:
    return space | addr << 4 | data << 28


def cells(*rows: int) -> bytes:
    return items(Kind.CELLS, rows, LAYOUTS.cells.size)


def acts(data: bytes) -> bytes:
    return packet(Kind.ACTIVATIONS, len(data), data)


GOOD_WORD = word(Space.REGISTER.value, 0, 3)


class Stopping(Source):
    """A source that offers nothing from a cycle on, whether what it offered was taken or not."""

    def __init__(self, port, payloads, *, end):
        super().__init__(port, payloads, begin=1)
        self.end = end

    def drive(self, ctx, cycle):
        if cycle == self.end:
            self.payloads = self.payloads[: len(self.sent)]
            self.offering = False
            ctx.set(self.port.valid, 0)
        elif cycle < self.end:
            super().drive(ctx, cycle)


def feed(payloads, *agents, stall=0.0, input_bytes=0, dut=None, cycles=None):
    """Send beats; returns what the core got, the errors (name, item), and what is loaded."""
    dut = reader() if dut is None else dut
    sinks = [
        Sink(port, stall=stall, seed=n, hold=False)
        for n, port in enumerate((dut.o_load, dut.o_cells, dut.o_acts))
    ]
    seen: list[int] = []

    class Errors(Agent):
        signals = (dut.error, Cat(dut.code, dut.item))

        def see(self, cycle, *values):
            if values[0]:
                seen.append(values[1])

    flags = Watch(Cat(dut.program, dut.cells, dut.activations, dut.loading))
    simulate(
        dut,
        Source(dut.i, payloads, stall=stall, seed=9),
        *sinks,
        Errors(),
        flags,
        Constant((dut.input_bytes, input_bytes)),
        *agents,
        cycles=cycles or 60 + (6 if stall else 4) * 8 * len(payloads),
    )
    errors_named = [(ErrorCode(value & 0xFF).name, value >> 8) for value in seen]
    return [sink.payloads for sink in sinks], errors_named, flags.values[-1]


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_a_layers_packets_reach_the_core_item_by_item(stall):
    layer = hand_layer([[(5, 3)], [(2, 2), (3, 1)]], outputs=3)
    image = engine_image(layer, TINY_ENGINE)
    sent = layer_image(layer, TINY_ENGINE)
    inputs = bytes(range(1, 1 + image.input_bytes))
    payloads = beats(image.program) + beats(image.cells) + beats(acts(inputs))
    got, errors, flags = feed(payloads, stall=stall, input_bytes=len(inputs))
    expected_acts = [byte | (n == len(inputs) - 1) << 8 for n, byte in enumerate(inputs)]
    assert got == [sent.words, sent.beats, expected_acts]
    assert not errors
    assert flags == 0b0111


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 17, 64])
def test_activations_of_every_tail_are_taken_whole(length):
    inputs = random.Random(length).randbytes(length)
    payloads = beats(program(GOOD_WORD)) + beats(cells(0)) + beats(acts(inputs))
    got, errors, flags = feed(payloads, input_bytes=length)
    assert [value & 0xFF for value in got[2]] == list(inputs)
    assert [value >> 8 for value in got[2]] == [0] * (length - 1) + [1]
    assert not errors
    assert flags == 0b0111


def header(kind: int = Kind.PROGRAM, count=1, magic=0x5250, zero=0, keep=FULL, last=0) -> int:
    return magic | kind << 16 | zero << 24 | count << 32 | keep << 64 | last << 72


def beat(data, keep=FULL, last=0) -> int:
    return data | keep << 64 | last << 72


W = word
S = Space
LOADED = beats(program(GOOD_WORD)) + beats(cells(0))
ROW = LAYOUTS.cells

BAD = {
    "magic": ([header(magic=0x5251), beat(0, last=1)], "HEADER", 0),
    "kind 0": ([header(kind=0), beat(0, last=1)], "HEADER", 0),
    "kind 4": ([header(kind=4), beat(0, last=1)], "HEADER", 0),
    "unused bits": ([header(zero=1), beat(0, last=1)], "HEADER", 0),
    "no items": ([header(count=0), beat(0, last=1)], "HEADER", 0),
    "header with holes": ([header(keep=0x7F), beat(0, last=1)], "KEEP", 0),
    "header alone": ([header(last=1)], "SHORT", 0),
    "first beat of a word last": ([header(), beat(0, last=1)], "SHORT", 0),
    "a word too few": ([header(count=2), *beats(program(GOOD_WORD))[1:]], "SHORT", 0),
    "a word too many": ([header(), *beats(program(GOOD_WORD, GOOD_WORD))[1:]], "LONG", 0),
    "word with holes": ([header(), beat(0), beat(0, keep=0x0F, last=1)], "KEEP", 0),
    "padding": (beats(program(GOOD_WORD | 1 << 92)), "PADDING", 0),
    "space 8": (beats(program(GOOD_WORD, W(8, 0, 0))), "SPACE", 1),
    "register 15": (beats(program(W(S.REGISTER.value, 15, 0))), "ADDRESS", 0),
    "descriptor 16": (beats(program(W(S.DESCRIPTOR.value, 16, 0))), "ADDRESS", 0),
    "position 32": (beats(program(W(S.POSITION.value, 32, 0))), "ADDRESS", 0),
    "offset 32": (beats(program(W(S.OFFSET.value, 32, 0))), "ADDRESS", 0),
    "header 8": (beats(program(W(S.HEADER.value, 8, 0))), "ADDRESS", 0),
    "word 256": (beats(program(W(S.WORD.value, 256, 0))), "ADDRESS", 0),
    "table 9": (beats(program(W(S.TABLE.value, 9, 0))), "ADDRESS", 0),
    "output 16": (beats(program(W(S.OUTPUT.value, 16, 0))), "ADDRESS", 0),
    "bit beyond a register": (beats(program(W(S.REGISTER.value, 10, 2))), "VALUE", 0),
    "position 9 of 9": (beats(program(W(S.POSITION.value, 0, 9))), "VALUE", 0),
    "descriptor of 9 rows": (beats(program(W(S.DESCRIPTOR.value, 0, 9 << 6))), "VALUE", 0),
    "shift 48": (beats(program(W(S.OUTPUT.value, 0, 48 << 56))), "VALUE", 0),
    "bit beyond a reuse word": (beats(program(W(S.WORD.value, 0, 1 << 9))), "VALUE", 0),
    "cells first": (beats(cells(0)), "ORDER", 0),
    "activations before cells": (beats(program(GOOD_WORD)) + beats(acts(b"12")), "ORDER", 0),
    "row of cells of padding": (LOADED + beats(cells(0, 1 << ROW.size)), "PADDING", 1),
    "too few activations": (LOADED + beats(acts(b"1")), "LENGTH", 0),
    "too many activations": (LOADED + beats(acts(b"123")), "LENGTH", 0),
    "activations with a hole": (
        [*LOADED, header(Kind.ACTIVATIONS, 2), beat(0, keep=2, last=1)], "KEEP", 0,
    ),
    "activations beyond the end": (
        [*LOADED, header(Kind.ACTIVATIONS, 2), beat(0, keep=7, last=1)], "KEEP", 0,
    ),
    "activations that go on": (
        [*LOADED, header(Kind.ACTIVATIONS, 2), beat(0, keep=3), beat(0, last=1)], "LONG", 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_packet_is_named_and_nothing_of_the_bad_item_reaches_the_core(case):
    payloads, name, item = BAD[case]
    good = beats(program(GOOD_WORD))
    # The packet that follows is taken: the reader is at the beginning of a packet again.
    got, errors, flags = feed(payloads + good, input_bytes=2)
    assert errors == [(name, item)]
    loaded = payloads[: len(LOADED)] == LOADED
    first = case == "row of cells of padding"  # the first of its two rows is good
    words = 1 + (loaded or case in ("space 8", "activations before cells"))
    assert got == [[GOOD_WORD] * (words + 0), [0] * (loaded + first), []]
    assert flags == 0b0001


def test_the_parity_bit_by_hand():
    # A word of three ones, and one of two: bit 127 makes both even.
    for payload, top in ((0b1011, 0x80), (0b11, 0)):
        packed = items(Kind.PROGRAM, (payload,), 92)
        assert packed[8:] == bytes([payload]) + bytes(14) + bytes([top])
    # A payload that fills its beats has its parity bit in another one; one bit less has not.
    assert items(Kind.CELLS, (1,), 64)[8:] == b"\x01" + bytes(14) + b"\x80"
    assert items(Kind.CELLS, (1,), 63)[8:] == b"\x01" + bytes(6) + b"\x80"


def flips(payloads: list[int]) -> list[list[int]]:
    """The beats of a packet with each bit of data and TKEEP, and TLAST up and down, flipped once.

    Where the last TLAST is gone, a beat with one follows, as that of the next packet would. Where
    TLAST comes too early, what is left of the packet looks like one of its own.
    """
    result = []
    for at, one in enumerate(payloads):
        for bit in range(73):
            beats_of_it = [*payloads[:at], one ^ 1 << bit, *payloads[at + 1 :]]
            if bit == 72 and at == len(payloads) - 1:
                beats_of_it.append(beat(0, last=1))
            result.append(beats_of_it)
    return result


def errors_of_flips(payloads: list[int], first: list[int], input_bytes: int):
    """Feed every flip of a packet, each after the packets of ``first``.

    Returns
    -------
    To each flip its errors, by name; all program words and all rows that the core got.
    """
    cases = flips(payloads)
    stream: list[int] = []
    ends = []
    for case in cases:
        stream += [*first, *case]
        ends.append(len(stream))
    dut = reader()
    load, rows = Sink(dut.o_load, hold=False), Sink(dut.o_cells, hold=False)
    source = Source(dut.i, stream)
    seen: list[tuple[int, str]] = []

    class Errors(Agent):
        signals = (dut.error, dut.code)

        def see(self, cycle, *values):
            if values[0]:
                seen.append((cycle, ErrorCode(values[1]).name))

    simulate(
        dut,
        source,
        load,
        rows,
        Sink(dut.o_acts, hold=False),
        Errors(),
        Constant((dut.input_bytes, input_bytes)),
        cycles=5 * len(stream) + 60,
    )
    assert len(source.sent) == len(stream)
    result: list[list[str]] = [[] for _ in cases]
    for cycle, name in seen:
        # An error shows in the cycle after the finding, in which the next beat may be taken.
        taken = sum(sent < cycle for sent in source.sent)
        result[next(n for n, end in enumerate(ends) if taken <= end)].append(name)
    return result, load.payloads, rows.payloads


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("kind", ["program", "cells", "activations"])
def test_any_one_bit_of_a_packet_that_is_flipped_is_an_error(kind, loaded):
    row = (1 << LAYOUTS.cells.size) - 2
    payloads, count = {
        "program": (beats(program(GOOD_WORD, word(Space.TABLE.value, 2, 5))), 2),
        "cells": (beats(cells(row, 0)), 2),
        "activations": (beats(acts(b"12")), 2),
    }[kind]
    # Loaded before, and with as many activations as this packet has items: no other error helps.
    first = LOADED if loaded or kind != "program" else []
    found, words, rows = errors_of_flips(payloads, first, count if loaded else 64)
    per_beat = 73
    assert len(found) == per_beat * len(payloads)
    for number, names in enumerate(found):
        at, bit = divmod(number, per_beat)
        data = at and bit < 64
        if kind == "activations" and loaded and data:
            assert not names  # bytes have no parity
            continue
        assert names, (at, bit)
        if data and kind != "activations":
            assert names[0] == "ITEM_PARITY", (at, bit, names)
        if at and 64 <= bit < 72 and kind != "activations":
            assert names[0] == "KEEP", (at, bit, names)
    if kind == "program":
        assert set(words) <= {GOOD_WORD, word(Space.TABLE.value, 2, 5)}
    if kind == "cells":
        assert set(rows) <= {row, 0}


def test_a_row_of_a_crossbar_that_is_not_there_is_an_error():
    # Two bits count to 3, and of three crossbars the last is 2.
    config = replace(TINY_ENGINE, crossbars=3)
    layouts = Layouts(config)
    dut = PacketReader(
        load=layouts.load, cells=layouts.cells, acts=layouts.acts, limits=engine_limits(config)
    )
    program_packet = items(Kind.PROGRAM, (GOOD_WORD,), layouts.load.size)
    at = layouts.cells["crossbar"].offset
    rows = items(Kind.CELLS, (2 << at, 3 << at), layouts.cells.size)
    got, errors, _ = feed(beats(program_packet) + beats(rows), dut=dut)
    assert errors == [("ADDRESS", 1)]
    assert got == [[GOOD_WORD], [2 << at], []]


NETWORK = replace(
    TINY_ENGINE, network=True, crossbars=3, max_gathers=15, max_params=20, activation_bytes=100
)
"""Sizes of an accelerator that are no powers of two, so that addresses can be beyond them."""

COMMANDS = 20
NETWORK_LAYOUTS = Layouts(NETWORK)
REGISTERS = {name: number for number, (name, _) in enumerate(NETWORK_LAYOUTS.registers)}
POST = {name: number for number, (name, _) in enumerate(NETWORK_LAYOUTS.post)}


def network_reader(config=NETWORK, commands=COMMANDS, engines=1) -> PacketReader:
    layouts = Layouts(config) if engines == 1 else TileLayouts(config, engines)
    return PacketReader(
        load=layouts.load,
        cells=layouts.cells,
        acts=layouts.acts,
        limits=accelerator_limits(config, commands, engines),
    )


def listed(space: int, addr: int, data: int, run: int = 0) -> int:
    """A word of the list: low bits first run, last, space (4), addr (8), data (32)."""
    return run | space << 2 | addr << 6 | data << 14


C = listed
GOOD_LISTED = (
    C(S.REGISTER.value, REGISTERS["base"], 99),
    C(S.REGISTER.value, REGISTERS["first_descriptor"], 14),
    C(S.REGISTER.value, REGISTERS["first_output"], 19),
    C(S.REGISTER.value, REGISTERS["first_crossbar"], 2),
    C(S.REGISTER.value, REGISTERS["row_step"], 127),
    C(S.TABLE.value, 8, 99),
    C(S.POST.value, POST["output_base"], 99),
    C(S.POST.value, POST["fill_base"], 99),
    C(S.POST.value, POST["base_0"], 127),
    C(S.POST.value, POST["base_1"], 127),
    C(S.POST.value, POST["source"], 2),
    C(S.POST.value, POST["clip_hi"], 255),
    # A run loads nothing, whatever else its word has.
    C(S.DESCRIPTOR.value, 255, 0xFFFFFFFF, run=1),
    C(S.POST.value, 255, 0, run=3),
)

BAD_LISTED = {
    "descriptor": (C(S.DESCRIPTOR.value, 0, 0), "SPACE"),
    "word of the list": (C(S.COMMAND.value, 0, 0), "SPACE"),
    "register beyond the last": (C(S.REGISTER.value, len(REGISTERS), 0), "ADDRESS"),
    "post register beyond the last": (C(S.POST.value, len(POST), 0), "ADDRESS"),
    "kernel position 9": (C(S.TABLE.value, 9, 0), "ADDRESS"),
    "kernel position outside": (C(S.TABLE.value, 0, 100), "VALUE"),
    "base outside": (C(S.REGISTER.value, REGISTERS["base"], 100), "VALUE"),
    "first descriptor": (C(S.REGISTER.value, REGISTERS["first_descriptor"], 15), "VALUE"),
    "last descriptor": (C(S.REGISTER.value, REGISTERS["last_descriptor"], 15), "VALUE"),
    "first output": (C(S.REGISTER.value, REGISTERS["first_output"], 20), "VALUE"),
    "first crossbar": (C(S.REGISTER.value, REGISTERS["first_crossbar"], 3), "VALUE"),
    "residual shift": (C(S.REGISTER.value, REGISTERS["residual_shift"], 48), "VALUE"),
    "bit beyond a step": (C(S.REGISTER.value, REGISTERS["row_step"], 128), "VALUE"),
    "output outside": (C(S.POST.value, POST["output_base"], 100), "VALUE"),
    "border outside": (C(S.POST.value, POST["fill_base"], 100), "VALUE"),
    "source": (C(S.POST.value, POST["source"], 3), "VALUE"),
    "shift": (C(S.POST.value, POST["shift"], 48), "VALUE"),
    "bit beyond a post register": (C(S.POST.value, POST["clip_hi"], 256), "VALUE"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_LISTED)
def test_a_bad_word_of_the_list_is_named_and_does_not_reach_the_core(case):
    inner, name = BAD_LISTED[case]
    good = word(S.COMMAND.value, COMMANDS - 1, GOOD_LISTED[0])
    bad = word(S.COMMAND.value, 0, inner)
    got, errors, _ = feed(beats(program(good, bad, good)), dut=network_reader())
    assert errors == [(name, 1)]
    assert got == [[good], [], []]


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (word(S.COMMAND.value, COMMANDS, 0), "ADDRESS"),
        (word(S.COMMAND.value, 0, 1 << 46), "VALUE"),
        # The host's own words do not reach the registers of post-processing.
        (word(S.POST.value, 0, 0), "SPACE"),
        (word(S.REGISTER.value, REGISTERS["first_crossbar"], 3), "VALUE"),
        (word(S.OUTPUT.value, 20, 0), "ADDRESS"),
    ],
)
def test_a_bad_word_beside_the_list_is_named(bad, name):
    got, errors, _ = feed(beats(program(bad)), dut=network_reader())
    assert errors == [(name, 0)]
    assert got == [[], [], []]


def test_words_of_the_list_that_are_within_their_limits_are_taken():
    words = [word(S.COMMAND.value, number, inner) for number, inner in enumerate(GOOD_LISTED)]
    got, errors, flags = feed(beats(program(*words)), dut=network_reader())
    assert got == [words, [], []]
    assert not errors
    assert flags == 0b0001


def test_a_word_for_an_engine_that_is_not_there_is_an_error():
    layouts = TileLayouts(NETWORK, 3)
    tile, space = layouts.load.size, S.COMMAND.value

    def for_engine(number: int, engine: int) -> int:
        return number | engine << layouts.load["engine"].offset

    good = for_engine(GOOD_WORD, 2)
    inner = layouts.command["engine"].offset
    listed_good = W(space, 0, GOOD_LISTED[0] | 2 << inner)
    cases = [
        (for_engine(GOOD_WORD, 3), "ADDRESS"),
        (W(space, 0, GOOD_LISTED[0] | 3 << inner), "VALUE"),
        # Three engines: three bits, one word.
        (W(space, 0, C(S.ENGINES.value, 0, 8)), "VALUE"),
        (W(space, 0, C(S.ENGINES.value, 1, 1)), "ADDRESS"),
        (W(S.SHARE.value, 0, 8), "VALUE"),
        (W(S.SHARE.value, 20, 1), "ADDRESS"),
        (W(S.ENGINES.value, 0, 1), "SPACE"),
    ]
    right = [good, listed_good, W(S.SHARE.value, 19, 7), W(space, 1, C(S.ENGINES.value, 0, 7))]
    for bad, name in cases:
        sent = beats(items(Kind.PROGRAM, [*right, bad], tile))
        got, errors, _ = feed(sent, dut=network_reader(engines=3))
        assert errors == [(name, len(right))]
        assert got == [right, [], []]
    at = layouts.cells["engine"].offset
    rows = beats(items(Kind.CELLS, [2 << at, 3 << at], layouts.cells.size))
    loaded = beats(items(Kind.PROGRAM, [good], tile))
    got, errors, _ = feed(loaded + rows, dut=network_reader(engines=3))
    assert errors == [("ADDRESS", 1)]
    assert got == [[good], [2 << at], []]


def test_engines_beyond_those_of_one_word_take_part_by_another():
    limits = accelerator_limits(NETWORK, COMMANDS, 40).listed[S.ENGINES.value]
    assert limits.at is not None
    assert {number: one.width for number, one in limits.at.items()} == {0: 32, 1: 8}


@pytest.mark.parametrize(
    ("name", "engines"), [*((name, 1) for name in accelerator_nets.NETS), ("residual", 3)]
)
def test_a_network_on_an_accelerator_that_it_just_fits_is_taken_whole(name, engines, tmp_path):
    compiled = accelerator_nets.program(name, tmp_path)
    config = accelerator_config_for(compiled, EngineConfig(crossbar_size=32), engines)
    plan = network_image(compiled, config, engines)
    config = replace(config, **network_needs(plan, compiled.layers, config))
    commands = len(command_words(compiled, plan, config))
    image = accelerator_image(compiled, plan, config)
    sent = network_load(compiled, plan, config)
    cells_packet = beats(image.cells)
    payloads = beats(image.program) + cells_packet
    dut = network_reader(config, commands, engines)
    got, errors, flags = feed(payloads, dut=dut, cycles=3 * len(payloads) + 50)
    assert not errors
    assert got == [sent.words, sent.beats, []]
    assert flags == 0b0011


def test_a_list_that_an_accelerator_has_no_room_for_is_refused(tmp_path):
    compiled = accelerator_nets.program("chain", tmp_path)
    config = accelerator_config_for(compiled, EngineConfig(crossbar_size=32))
    plan = network_image(compiled, config)
    commands = len(command_words(compiled, plan, config))
    with pytest.raises(InputError, match=f"expected a list of at most {commands - 1} words"):
        accelerator_image(compiled, plan, config, commands=commands - 1)
    fits = accelerator_image(compiled, plan, config, commands=commands)
    larger = accelerator_image(compiled, plan, config, commands=commands + 1)
    assert fits.config_hash != larger.config_hash
    assert (fits.input_bytes, fits.output_bytes) == (2 * 4 * 5, 8)


def test_a_packet_waits_while_the_core_runs_and_is_taken_afterwards():
    dut = reader()
    got, errors, flags = feed(beats(program(GOOD_WORD)), Constant((dut.busy, 1)), dut=dut)
    assert not errors
    assert got == [[], [], []]
    # Neither loaded nor loading: no beat was taken.
    assert flags == 0
    dut = reader()
    busy = Script(dut.busy, dict.fromkeys(range(60), 1))
    got, errors, flags = feed(beats(program(GOOD_WORD)), busy, dut=dut)
    assert not errors
    assert got[0] == [GOOD_WORD]
    assert flags & 1


def test_while_halted_whole_packets_are_discarded():
    dut = reader()
    payloads = beats(program(GOOD_WORD, GOOD_WORD)) + beats(cells(0)) + beats(program(GOOD_WORD))
    # In the cycles 8 to 12 the first packet is being taken; the second is while it is still on.
    halt = Script(dut.halt, dict.fromkeys(range(6, 40), 1))
    got, errors, flags = feed(payloads, halt, dut=dut)
    assert not errors
    assert got[1] == []
    assert flags & 0b1000 == 0


@pytest.mark.parametrize("cycle", range(24))
@pytest.mark.parametrize("drop", [False, True])
def test_after_a_soft_reset_in_any_cycle_the_next_packet_is_taken(cycle, drop):
    # With `drop` the source stops in that cycle and begins another packet.
    payloads = beats(program(GOOD_WORD, GOOD_WORD, GOOD_WORD))
    other = word(Space.REGISTER.value, 1, 7)
    dut = reader()
    forget = Script(dut.forget, {cycle: 1})
    agents = [forget, Script(dut.drop, {cycle: 1})] if drop else [forget]
    if drop:
        source = Stopping(dut.i, payloads, end=cycle + 1)
        later = Source(dut.i, beats(program(other)), begin=cycle + 2)
    else:
        source = Source(dut.i, payloads, begin=1)
        later = Source(dut.i, beats(program(other)), begin=60)
    got, errors, flags = feed([], source, later, *agents, dut=dut, cycles=90)
    assert not errors
    assert got[0][-1] == other
    assert set(got[0][:-1]) <= {GOOD_WORD}
    assert flags == 0b0001


def deliver(outputs, expected, *, finish=None, abort=None, stall=0.0, begin=(0,), cycles=400):
    """Run the writer; returns the beats (data bytes, TLAST, TUSER) that the host took."""
    dut = PacketWriter()
    axi = dut.axi
    port = SimpleNamespace(
        valid=axi.tvalid,
        ready=axi.tready,
        payload=Cat(axi.tdata, axi.tkeep, axi.tlast, axi.tuser),
    )
    sink = Sink(port, stall=stall, seed=2)
    # A core that was stopped sends nothing more.
    source = Stopping(dut.i, outputs, end=abort[0] + 1 if abort else cycles)
    simulate(
        dut,
        source,
        sink,
        Constant((dut.expected, expected)),
        Script(dut.begin, dict.fromkeys(begin, 1)),
        Script(dut.finish, {} if finish is None else {finish: 1}),
        Script(dut.abort, {} if abort is None else dict.fromkeys(abort, 1)),
        cycles=cycles,
    )
    packets = []
    for value in sink.payloads:
        keep = value >> 64 & 0xFF
        data = bytes(value >> 8 * byte & 0xFF for byte in range(8) if keep >> byte & 1)
        assert keep == (1 << len(data)) - 1
        packets.append((data, value >> 72 & 1, value >> 73))
    return packets, source


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 23, 24])
@pytest.mark.parametrize("stall", [0.0, 0.8])
def test_outputs_make_one_packet_with_its_last_beat_after_the_end_of_the_run(count, stall):
    outputs = list(range(1, count + 1))
    packets, _ = deliver(outputs, count, finish=300, stall=stall)
    assert b"".join(data for data, _, _ in packets) == bytes(outputs)
    assert [last for _, last, _ in packets] == [0] * ((count - 1) // 8) + [1]
    assert not any(user for _, _, user in packets)
    before, _ = deliver(outputs, count, stall=stall)
    assert before == packets[:-1]


def test_outputs_follow_each_other_without_a_pause():
    _, source = deliver(list(range(40)), 41)
    assert source.sent == list(range(1, 41))


@pytest.mark.parametrize("abort", range(1, 40))
@pytest.mark.parametrize("stall", [0.0, 0.8])
def test_a_packet_that_was_begun_and_stopped_ends_with_user(abort, stall):
    # A second abort while the first is on changes nothing.
    packets, _ = deliver(list(range(40)), 20, abort=(abort, abort + 2, abort + 7), stall=stall,
                         cycles=abort + 200)  # fmt: skip
    whole = [p for p in packets if p[1]]
    assert len(whole) == len(packets[-1:])
    assert all(user == last for _, last, user in packets)
    assert all(data == bytes(range(8 * n, 8 * n + 8)) for n, (data, last, _) in
               enumerate(packets) if not last)  # fmt: skip


def test_a_run_after_one_that_was_stopped_has_a_packet_of_its_own():
    dut = PacketWriter()
    axi = dut.axi
    port = SimpleNamespace(
        valid=axi.tvalid, ready=axi.tready, payload=Cat(axi.tdata, axi.tlast, axi.tuser)
    )
    # The host takes nothing until the second run is on.
    sink = Sink(port, ready=lambda cycle: cycle > 40)
    simulate(
        dut,
        Stopping(dut.i, list(range(1, 20)), end=12),
        Source(dut.i, [50, 51, 52], begin=20),
        sink,
        Script(dut.expected, dict.fromkeys(range(15), 19) | dict.fromkeys(range(15, 99), 3)),
        Script(dut.begin, {0: 1, 18: 1}),
        Script(dut.abort, {12: 1}),
        Script(dut.finish, {60: 1}),
        cycles=80,
    )
    first = int.from_bytes(bytes(range(1, 9)), "little")
    new = int.from_bytes(bytes([50, 51, 52]), "little")
    taken = [(word & (1 << 24) - 1 if word >> 64 == 1 else word & (1 << 64) - 1, word >> 64)
             for word in sink.payloads]  # fmt: skip
    assert taken == [(first, 0), (0, 3), (new, 1)]
