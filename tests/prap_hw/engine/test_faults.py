"""Faults of the engine: what is wrong in a program or at the crossbar port stops it.

A flipped bit is found as PARITY with its memory, a word that leads out of range as RANGE with the
memory that it stands in, and the same word at its limit is no fault; outputs before the fault are
those of the golden model, and none comes after it. Each check has a mutant that these tests reject.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from amaranth.hdl import Cat, Signal

import prap_hw.engine.engine
from prap_hw.common.faults import FAULT, Fault, FirstFault, Watchdog
from prap_hw.common.layouts import Layouts, Space
from prap_hw.engine.ou_engine import OUEngine
from prap_hw.engine.pattern_controller import PatternController
from prap_hw.engine.requantise import Requantise
from refmodel.config import SHIFT_NONE, EngineConfig
from tests.support.layers.hand import TINY_ENGINE, hand_layer
from tests.support.rtl.bench import Constant, Script, Source, Watch, simulate
from tests.support.rtl.faulty import Case, Trial, Words, port_run
from tests.support.rtl.mutants import Mutant, apply

# Sizes of which none is a power of two, so that every limit lies within a field.
ENGINE = replace(
    TINY_ENGINE,
    crossbars=3,
    max_gathers=3,
    max_segments=3,
    max_groups=2,
    max_words=6,
    max_outputs=3,
    activation_bytes=100,
)


def words_case() -> Case:
    """Two groups, the second with two gathers; a reuse word to each of three outputs; 2 pixels."""
    return Case(hand_layer([[(3, 2)], [(2, 1), (1, 2)]], outputs=3, positions=2, seed=5), ENGINE)


def offsets_case() -> Case:
    """An identity map, with a channel and length to each segment."""
    layer = hand_layer([[(3, 3)]], outputs=3, positions=2, identity=True, seed=7)
    return Case(layer, replace(ENGINE, max_words=1))


def lanes_case() -> Case:
    """Two merge lanes, of which the second has no output in the last step."""
    layer = hand_layer([[(3, 2)]], outputs=3, terms=2, seed=8)
    return Case(layer, replace(ENGINE, merge_lanes=2, max_words=8))


def blocks_case() -> Case:
    """Two positions at a time of three: kernel positions and offsets of a block are read once."""
    layer = hand_layer([[(3, 2)], [(2, 1), (1, 2)]], outputs=3, positions=3, seed=5)
    return Case(layer, replace(ENGINE, position_lanes=2))


def full_case() -> Case:
    """Three gathers whose OUs fill three crossbars."""
    groups = [[(1, 16)], [(2, 16)], [(3, 16)]]
    layer = hand_layer(groups, outputs=2, seed=9)
    return Case(layer, replace(ENGINE, max_groups=3, slots=32))


# Which memories a case reads, and the last word of each that it reads.
MEMORIES: list[tuple[Callable[[], Case], Space, int, int]] = [
    (words_case, Space.DESCRIPTOR, 0, 2),
    (words_case, Space.POSITION, 0, 2),
    (words_case, Space.HEADER, 0, 1),
    (words_case, Space.WORD, 0, 5),
    (words_case, Space.TABLE, 0, 0),
    (words_case, Space.OUTPUT, 0, 2),
    (offsets_case, Space.OFFSET, 0, 0),
    (lanes_case, Space.WORD, 0, 3),
    (lanes_case, Space.WORD, 1, 3),
    (blocks_case, Space.DESCRIPTOR, 0, 2),
    (blocks_case, Space.POSITION, 0, 2),
    (blocks_case, Space.WORD, 0, 5),
    (blocks_case, Space.TABLE, 0, 0),
]


def check_parity(place: Callable[[], Case], space: Space, number: int, last: int) -> None:
    case = place()
    layouts = Layouts(case.config)
    widths = {
        Space.DESCRIPTOR: layouts.descriptor.size,
        Space.POSITION: layouts.position_bits,
        Space.OFFSET: layouts.offset.size,
        Space.HEADER: layouts.header.size,
        Space.WORD: layouts.word.size,
        Space.TABLE: layouts.address_bits,
        Space.OUTPUT: layouts.params.size,
    }
    trials = []
    for bit in range(widths[space] + 1):
        trials.append(Trial(flips=((space, number, bit % (last + 1), bit),)))
        # The same program again, loaded anew: the reset has left nothing behind.
        if bit in (0, widths[space]):
            trials.append(Trial())
    for trial, outcome in zip(trials, case.run(trials), strict=True):
        if trial.flips:
            assert outcome.fault == (Fault.PARITY, space), trial
            assert outcome.outputs == case.expected[: len(outcome.outputs)], trial
        else:
            assert outcome.fault is None
            assert outcome.outputs == case.expected


@pytest.mark.parametrize(
    ("place", "space", "number", "last"),
    MEMORIES,
    ids=[f"{place.__name__}-{space.name}-{number}" for place, space, number, _ in MEMORIES],
)
def test_every_flipped_bit_of_a_memory_is_found_and_never_used(place, space, number, last):
    check_parity(place, space, number, last)


def test_words_that_a_layer_does_not_read_may_have_any_parity():
    # Reuse words of an identity map, channel offsets where all segments are alike, the kernel
    # positions that no segment names, parameters of outputs that there are not.
    flips = tuple((Space.WORD, 0, addr, 0) for addr in range(1))
    (outcome,) = offsets_case().run([Trial(flips=(*flips, (Space.TABLE, 0, 3, 1)))])
    assert (outcome.fault, outcome.outputs) == (None, offsets_case().expected)
    flips = tuple((Space.OFFSET, 0, addr, 0) for addr in range(3))
    (outcome,) = words_case().run([Trial(flips=(*flips, (Space.TABLE, 0, 3, 1)))])
    assert (outcome.fault, outcome.outputs) == (None, words_case().expected)


def check_wrong_lane() -> None:
    """A reuse word of lane 1 is wrong: lane 0 of its step is not shown either."""
    config = replace(ENGINE, merge_lanes=2)
    load_layout = Layouts(config).load
    words = []
    for addr in range(2):
        word: dict[Any, Any] = {"space": Space.WORD, "addr": addr, "data": 3}
        words.append(load_layout.const(word).as_bits())
    bit = 1 << PatternController.FAULTS.index((Fault.PARITY, Space.WORD))
    for count, fault in ((2, 0), (1, bit)):
        dut = PatternController(config)
        valid, faults = Watch(dut.o_words.valid), Watch(dut.faults)
        # Of the second trial, lane 1 has a word that was never written.
        load = Source(dut.i_load, words[:count])
        simulate(dut, load, Script(Cat(dut.start, dut.resting), {3: 0b11}), valid, faults, cycles=8)
        assert valid.values[-1] == (not fault)
        assert faults.values[-1] & bit == fault


def test_a_step_with_one_wrong_reuse_word_is_not_taken_in_any_lane():
    check_wrong_lane()


def check_wrong_parameters() -> None:
    """Of three outputs, the second has parameters that were never written."""
    dut = Requantise(ENGINE)
    words = []
    for addr in (0, 2):
        word: dict[Any, Any] = {"space": Space.OUTPUT, "addr": addr, "data": 0}
        words.append(dut.layouts.load.const(word).as_bits())
    faults, valid = Watch(dut.faults), Watch(dut.o.valid)
    channel = Watch(dut.o.payload.channel)
    simulate(
        dut,
        Source(dut.i_load, words),
        Constant((dut.registers.last_output, 2), (dut.o.ready, 1)),
        Script(dut.position_done, {4: 1}),
        faults,
        valid,
        channel,
        cycles=16,
    )
    sent = [number for number, there in zip(channel.values, valid.values, strict=True) if there]
    assert sent == [0, 2]
    assert [value for value in faults.values if value] == [1]


def test_an_output_whose_parameters_have_the_wrong_parity_is_not_sent():
    check_wrong_parameters()


def descriptor(case: Case, at: int, **fields: int) -> Words:
    return case.change((Space.DESCRIPTOR, at), **fields)


def header(case: Case, at: int, **fields: int) -> Words:
    return case.change((Space.HEADER, at), **fields)


def word(case: Case, at: int, **fields: int) -> Words:
    return case.change((Space.WORD, at), **fields)


def offset(case: Case, at: int, **fields: int) -> Words:
    return case.change((Space.OFFSET, at), **fields)


def register(case: Case, **values: int) -> Words:
    return {case.register(name): value for name, value in values.items()}


def table(case: Case, value: int) -> Words:
    return {(Space.TABLE, 0): value}


def both(*changes: Words) -> Words:
    return {key: bits for change in changes for key, bits in change.items()}


def two_segments(case: Case, length: int) -> Words:
    """Only the first group, whose gather has two segments of a length."""
    return both(
        descriptor(case, 0, length=length, last_segment=1),
        register(case, last_descriptor=0, last_segment=1, last_header=0, last_step=2),
    )


# What is checked: the case, a change to a word at its limit, the change beyond it, the space.
Change = Callable[[Case], Words]
RANGES: dict[str, tuple[Callable[[], Case], Change, Change, Space]] = {
    "bytes of a segment, base of a gather": (
        words_case,
        lambda c: descriptor(c, 0, base=94),
        lambda c: descriptor(c, 0, base=95),
        Space.DESCRIPTOR,
    ),
    "bytes of a segment, kernel position": (
        words_case,
        lambda c: table(c, 94),
        lambda c: table(c, 95),
        Space.DESCRIPTOR,
    ),
    "bytes of a segment, no wrap-around of the sum": (
        words_case,
        lambda c: both(descriptor(c, 0, base=94), table(c, 0)),
        lambda c: both(descriptor(c, 0, base=127), table(c, 2)),
        Space.DESCRIPTOR,
    ),
    "bytes of a segment, channel": (
        offsets_case,
        lambda c: offset(c, 0, channel=94),
        lambda c: offset(c, 0, channel=95),
        Space.OFFSET,
    ),
    "step to the next column": (
        words_case,
        lambda c: register(c, column_step=97),
        lambda c: register(c, column_step=98),
        Space.DESCRIPTOR,
    ),
    "steps to columns, no wrap-around": (
        lambda: Case(
            hand_layer([[(3, 2)]], outputs=2, positions=3, seed=5), replace(ENGINE, max_words=3)
        ),
        lambda c: register(c, column_step=48),
        lambda c: register(c, column_step=64),
        Space.DESCRIPTOR,
    ),
    "step to the next row": (
        words_case,
        lambda c: register(c, last_column=0, last_row=1, row_step=97),
        lambda c: register(c, last_column=0, last_row=1, row_step=98),
        Space.DESCRIPTOR,
    ),
    "steps to rows, no wrap-around": (
        lambda: Case(
            hand_layer([[(3, 2)]], outputs=2, positions=3, seed=5), replace(ENGINE, max_words=3)
        ),
        lambda c: register(c, last_column=0, last_row=2, row_step=48),
        lambda c: register(c, last_column=0, last_row=2, row_step=64),
        Space.DESCRIPTOR,
    ),
    "a segment without bytes": (
        words_case,
        lambda c: descriptor(c, 1, length=1),
        lambda c: descriptor(c, 1, length=0),
        Space.DESCRIPTOR,
    ),
    "a segment without bytes, by its offset": (
        offsets_case,
        lambda c: offset(c, 0, length=1),
        lambda c: offset(c, 0, length=0),
        Space.OFFSET,
    ),
    "more bytes than rows": (
        words_case,
        lambda c: descriptor(c, 1, length=8),
        lambda c: descriptor(c, 1, length=9),
        Space.DESCRIPTOR,
    ),
    "more bytes than rows, by an offset": (
        offsets_case,
        lambda c: offset(c, 0, length=8),
        lambda c: offset(c, 0, length=9),
        Space.OFFSET,
    ),
    "more bytes than rows in two segments": (
        words_case,
        lambda c: two_segments(c, 4),
        lambda c: two_segments(c, 5),
        Space.DESCRIPTOR,
    ),
    "a gather without patterns": (
        words_case,
        lambda c: both(descriptor(c, 2, patterns=2)),
        lambda c: descriptor(c, 2, patterns=0),
        Space.DESCRIPTOR,
    ),
    "more patterns than slots": (
        words_case,
        lambda c: both(
            descriptor(c, 0, patterns=16), header(c, 0, kept=16), register(c, last_column=0)
        ),
        lambda c: both(
            descriptor(c, 0, patterns=17), header(c, 0, kept=16), register(c, last_column=0)
        ),
        Space.DESCRIPTOR,
    ),
    "a crossbar too many": (
        full_case,
        lambda c: both(descriptor(c, 2, patterns=16), header(c, 2, kept=16)),
        lambda c: both(descriptor(c, 2, patterns=17), header(c, 2, kept=17)),
        Space.DESCRIPTOR,
    ),
    "a kernel position that is not there": (
        words_case,
        lambda c: {(Space.POSITION, 0): 8, (Space.TABLE, 8): 1},
        lambda c: {(Space.POSITION, 0): 9},
        Space.POSITION,
    ),
    "more segments than gathers have": (
        words_case,
        lambda c: register(c, last_segment=2),
        lambda c: register(c, last_segment=1),
        Space.POSITION,
    ),
    "more slots than the ring has": (
        words_case,
        lambda c: both(
            descriptor(c, 0, patterns=16), header(c, 0, kept=16), register(c, last_column=0)
        ),
        lambda c: both(
            descriptor(c, 0, patterns=16), header(c, 0, kept=17), register(c, last_column=0)
        ),
        Space.HEADER,
    ),
    "more slots than gathers fill, in the last group": (
        words_case,
        lambda c: header(c, 1, kept=3),
        lambda c: header(c, 1, kept=4),
        Space.HEADER,
    ),
    "more slots than all gathers fill, in the first group": (
        words_case,
        lambda c: both(header(c, 0, kept=3), header(c, 1, kept=2)),
        lambda c: header(c, 0, kept=16),
        Space.HEADER,
    ),
    "fewer slots than gathers fill": (
        words_case,
        lambda c: both(header(c, 1, kept=3)),
        lambda c: both(header(c, 1, kept=2), *(word(c, at, slot=0) for at in (3, 4, 5))),
        Space.HEADER,
    ),
    "outputs of a group, the first beyond the last": (
        lambda: Case(
            hand_layer([[(3, 2)], [(1, 1)]], outputs=3, spans=[(0, 3), (2, 1)], seed=5), ENGINE
        ),
        lambda c: header(c, 1, first_output=2, last_output=2),
        lambda c: header(c, 1, first_output=2, last_output=1),
        Space.HEADER,
    ),
    "outputs of a group, the last beyond the layer's": (
        words_case,
        lambda c: header(c, 1, last_output=2),
        lambda c: header(c, 1, last_output=3),
        Space.HEADER,
    ),
    "an output of an identity map without a slot": (
        offsets_case,
        lambda c: header(c, 0, kept=3),
        lambda c: both(descriptor(c, 0, patterns=2), header(c, 0, kept=2)),
        Space.HEADER,
    ),
    "a slot that the group does not keep": (
        words_case,
        lambda c: word(c, 1, slot=1, shift=8),
        lambda c: word(c, 1, slot=2, shift=8),
        Space.WORD,
    ),
    "a slot that a word without a shift does not use": (
        words_case,
        lambda c: word(c, 1, slot=2, shift=SHIFT_NONE),
        lambda c: word(c, 1, slot=2, shift=14),
        Space.WORD,
    ),
    "a slot of the second lane": (
        lanes_case,
        # Lane 1 of the second block has no output.
        lambda c: both(word(c, 1, slot=1, shift=8), word(c, 7, slot=2, shift=8)),
        lambda c: word(c, 1, slot=2, shift=8),
        Space.WORD,
    ),
    "more steps of reuse words than the groups take": (
        words_case,
        lambda c: register(c, last_step=5),
        lambda c: register(c, last_step=4),
        Space.WORD,
    ),
    "gathers beyond the memory": (
        words_case,
        lambda c: register(c, last_descriptor=2),
        lambda c: register(c, last_descriptor=3),
        Space.REGISTER,
    ),
    "segments beyond the memory": (
        words_case,
        lambda c: register(c, last_segment=2),
        lambda c: register(c, last_segment=3),
        Space.REGISTER,
    ),
    "groups beyond the memory": (
        full_case,
        lambda c: register(c, last_header=2),
        lambda c: register(c, last_header=3),
        Space.REGISTER,
    ),
    "steps of reuse words beyond the memory": (
        words_case,
        lambda c: register(c, last_step=5),
        lambda c: register(c, last_step=6),
        Space.REGISTER,
    ),
    "steps of reuse words of an identity map, which are none": (
        offsets_case,
        lambda c: register(c, last_step=1),
        lambda c: register(c, last_step=1, identity=0),
        Space.REGISTER,
    ),
    "outputs beyond the accumulators": (
        words_case,
        lambda c: register(c, last_output=2),
        lambda c: register(c, last_output=3),
        Space.REGISTER,
    ),
    "outputs beyond the parameters": (
        lambda: Case(
            hand_layer([[(3, 2)]], outputs=2, seed=5), replace(ENGINE, max_words=2, max_params=2)
        ),
        lambda c: register(c, last_output=1),
        lambda c: register(c, last_output=2),
        Space.OUTPUT,
    ),
}


def check_range(name: str, lanes: int = 1) -> None:
    place, limit, beyond, space = RANGES[name]
    case = place()
    case = replace(case, config=replace(case.config, position_lanes=lanes))
    within, out, again = case.run(
        [Trial(words=limit(case)), Trial(words=beyond(case)), Trial()],
    )
    assert within.fault is None
    assert out.fault == (Fault.RANGE, space)
    assert (again.fault, again.outputs) == (None, case.expected)


@pytest.mark.parametrize("name", RANGES)
def test_a_word_that_leads_out_of_range_stops_the_engine_and_one_at_its_limit_does_not(name):
    check_range(name)


@pytest.mark.long
@pytest.mark.parametrize("name", RANGES)
def test_limits_are_the_same_where_positions_go_in_blocks(name):
    check_range(name, lanes=2)


# Registers of an accelerator's engine, in its pattern controller.
NETWORK = replace(ENGINE, network=True, trace=False)


def controller_faults(**registers: int) -> int:
    """Faults of a pattern controller in the two cycles from a start on, by layer registers."""
    dut = PatternController(NETWORK)
    names = [name for name, _ in dut.layouts.registers]
    words = []
    for name, value in registers.items():
        word: dict[Any, Any] = {
            "space": Space.REGISTER,
            "addr": names.index(name),
            "data": value,
        }
        words.append(dut.layouts.load.const(word).as_bits())
    start = len(words) + 1
    faults = Watch(dut.faults)
    load = Source(dut.i_load, words)
    simulate(dut, load, Script(dut.start, {start: 1}), faults, cycles=start + 2)
    assert not any(faults.values[: start + 1])
    return faults.values[start + 1]


@pytest.mark.parametrize("kind", ["descriptor", "segment", "header", "step"])
def test_words_of_a_layer_begin_no_later_than_they_end(kind):
    bit = 1 << PatternController.FAULTS.index((Fault.RANGE, Space.REGISTER))
    assert controller_faults(**{f"first_{kind}": 1, f"last_{kind}": 1}) == 0
    assert controller_faults(**{f"first_{kind}": 1, f"last_{kind}": 0}) == bit


def test_steps_of_an_identity_map_may_begin_anywhere():
    assert controller_faults(identity=1, first_step=1, last_step=0) == 0


def check_first_crossbar() -> None:
    """A vector of one pattern is sent to crossbar 2, the last one, and not to crossbar 3."""
    for first, fault in ((2, 0), (3, 1)):
        dut = OUEngine(NETWORK)
        vector: dict[Any, Any] = {"count": 1, "patterns": 1, "final": 1}
        faults, sent = Watch(dut.faults), Watch(dut.o_request.valid)
        simulate(
            dut,
            Constant(
                (dut.first_crossbar, first), (dut.o_request.ready, 1), (dut.o_pending.ready, 1)
            ),
            Source(dut.i, [dut.layouts.gathered.const(vector).as_bits()]),
            faults,
            sent,
            cycles=6,
        )
        assert any(faults.values) == bool(fault)
        assert any(sent.values) == (not fault)


def test_a_layer_that_begins_beyond_the_crossbars_sends_no_request():
    check_first_crossbar()


def check_first_output() -> None:
    """Two outputs from parameter 3 on fit five parameters; from 4 on they do not."""
    for first, fault in ((3, 0), (4, 2)):
        dut = Requantise(replace(NETWORK, max_params=5))
        words = []
        for addr in range(5):
            word: dict[Any, Any] = {"space": Space.OUTPUT, "addr": addr, "data": 0}
            words.append(dut.layouts.load.const(word).as_bits())
        registers = dut.registers
        faults, sent = Watch(dut.faults), Watch(dut.o.valid)
        simulate(
            dut,
            Source(dut.i_load, words),
            Constant((registers.first_output, first), (registers.last_output, 1), (dut.o.ready, 1)),
            Script(dut.position_done, {7: 1}),
            faults,
            sent,
            cycles=20,
        )
        assert [value for value in faults.values if value] == [fault] * bool(fault)
        assert sum(sent.values) == 2 - bool(fault)


def test_outputs_that_begin_too_late_for_their_parameters_are_not_sent():
    check_first_output()


# The crossbar port.
PORT = replace(ENGINE, port_timeout=20, crossbar_latency=3)
HOLDS: dict[str, Callable[[Any], Signal]] = {
    "requests are not taken": lambda dut: dut.hold_request,
    "answers do not come": lambda dut: dut.hold_response,
    "rows of cells are not taken": lambda dut: dut.hold_program,
}


def check_port(name: str) -> None:
    case = Case(words_case().layer, PORT)
    # One cycle less: the port moves in the last one.
    fault, _, outputs = port_run(case, HOLDS[name], 19)
    assert fault == Fault.NONE
    assert outputs == case.expected
    # The fault shows in the cycle after the last of 20.
    fault, after, outputs = port_run(case, HOLDS[name], 1000)
    assert fault == Fault.PORT
    assert after == 20
    assert outputs == []


@pytest.mark.parametrize("name", HOLDS)
def test_a_port_that_stands_for_the_timeout_is_given_up_and_not_a_cycle_earlier(name):
    check_port(name)


def test_reset_ends_a_fault_of_the_port():
    dut = FirstFault(((Fault.PORT, Space.REGISTER),))
    halted = Watch(dut.halted)
    simulate(dut, Script(dut.found, {2: 1}), halted, cycles=9, reset={5})
    assert halted.values == [0, 0, 0, 1, 1, 1, 0, 0, 0]


def test_the_first_fault_stays_and_of_several_the_lowest_bit_counts():
    kinds = (
        (Fault.PARITY, Space.WORD),
        (Fault.RANGE, Space.TABLE),
        (Fault.PORT, Space.REGISTER),
    )
    dut = FirstFault(kinds)
    fault = Watch(dut.fault)
    simulate(dut, Script(dut.found, {1: 0b110, 3: 0b001}), fault, cycles=6)
    shown: dict[Any, Any] = {"kind": Fault.RANGE, "space": Space.TABLE}
    bits = FAULT.const(shown).as_bits()
    assert fault.values == [0, 0, bits, bits, bits, bits]


def test_a_watchdog_counts_anew_whenever_something_moves_or_nothing_waits():
    dut = Watchdog(3)
    late = Watch(dut.late)
    waits = dict.fromkeys([*range(1, 5), *range(6, 9), 10, 11, 12, 13], 1)
    simulate(dut, Script(dut.waits, waits), Script(dut.moves, {3: 1}), late, cycles=15)
    # Cycles 1 and 2, 4, 6 to 8, 10 to 13.
    assert [cycle for cycle, value in enumerate(late.values) if value] == [8, 12, 13]


@pytest.mark.parametrize(("latency", "timeout"), [(1, 15), (1, (1 << 24) + 1), (40, 43), (12, 15)])
def test_a_timeout_that_the_emulated_crossbar_could_exceed_is_refused(latency, timeout):
    least = max(16, latency + 4)
    with pytest.raises(ValueError, match=f"port_timeout must be {least} to 16777216, not"):
        EngineConfig(crossbar_latency=latency, port_timeout=timeout)


@pytest.mark.parametrize("latency", [1, 13, 40])
def test_emulated_crossbars_never_keep_the_port_waiting_for_the_least_timeout(latency):
    config = replace(ENGINE, crossbar_latency=latency, port_timeout=max(16, latency + 4))
    case = Case(words_case().layer, config)
    (outcome,) = case.run([Trial()])
    assert (outcome.fault, outcome.outputs) == (None, case.expected)


def range_check(name: str) -> Callable[[], None]:
    return lambda: check_range(name)


def port_check(name: str) -> Callable[[], None]:
    return lambda: check_port(name)


def parity_check(number: int) -> Callable[[], None]:
    return lambda: check_parity(*MEMORIES[number])


BYTES = "address + segment.length > config.activation_bytes"

# Module, what is wrong, the edit, and the check that rejects it.
MUTANTS: list[tuple[str, str, tuple[str, str], Callable[[], None]]] = [
    ("index_reader", "wrong parity not shown", ("there & words.wrong)", "0)"), parity_check(0)),
    (
        "faults",
        "the parity bit itself not checked",
        ("~Value.cast(read.data).xor()", "~Value.cast(read.data).xor() & read.data.parity"),
        parity_check(1),
    ),
    (
        "pattern_controller",
        "parity of one lane alone",
        ("Cat(index.wrong for index in lanes).any()", "lanes[0].wrong"),
        parity_check(8),
    ),
    (
        "pattern_controller",
        "a lane of the wrong parity is taken with the others",
        ("Cat(index.o.valid for index in lanes).all()", "lanes[0].o.valid"),
        lambda: check_wrong_lane(),
    ),
    (
        "pattern_controller",
        "parity of the table",
        ("& table.wrong)", "& table.wrong & 0)"),
        parity_check(4),
    ),
    ("requantise", "parity of parameters", ("valid[1] & ~parities.xor()", "0"), parity_check(5)),
    (
        "requantise",
        "parameters of the wrong parity are used",
        ("valid[2].eq(valid[1] & ~unusable)", "valid[2].eq(valid[1])"),
        lambda: check_wrong_parameters(),
    ),
    (
        "pattern_controller",
        "a byte beyond the memory",
        (BYTES, BYTES.replace(">", "> 1 +")),
        range_check("bytes of a segment, base of a gather"),
    ),
    (
        "pattern_controller",
        "the last byte refused",
        (BYTES, BYTES.replace(">", ">=")),
        range_check("bytes of a segment, channel"),
    ),
    (
        "pattern_controller",
        "the sum wraps around",
        ("address = Signal(layouts.address_bits + 3)", "address = Signal(layouts.address_bits)"),
        range_check("bytes of a segment, no wrap-around of the sum"),
    ),
    (
        "pattern_controller",
        "columns wrap around",
        (
            "position_base = Signal(layouts.address_bits + 1)",
            "position_base = Signal(layouts.address_bits)",
        ),
        range_check("steps to columns, no wrap-around"),
    ),
    (
        "pattern_controller",
        "a segment without bytes",
        ("(segment.length == 0)", "0"),
        range_check("a segment without bytes"),
    ),
    (
        "pattern_controller",
        "a byte more than rows",
        ("gathered > config.ou_rows", "gathered > config.ou_rows + 1"),
        range_check("more bytes than rows"),
    ),
    (
        "pattern_controller",
        "bytes of a segment alone",
        ("Mux(index_in_gather == 0, 0, gathered) + length", "length"),
        range_check("more bytes than rows in two segments"),
    ),
    (
        "pattern_controller",
        "bytes of all gathers",
        ("Mux(index_in_gather == 0, 0, gathered) + length", "gathered + length"),
        range_check("more bytes than rows"),
    ),
    (
        "pattern_controller",
        "no pattern",
        ("(segment.patterns == 0)", "0"),
        range_check("a gather without patterns"),
    ),
    (
        "pattern_controller",
        "a pattern more than slots",
        ("segment.patterns > config.slots", "segment.patterns > config.slots + 1"),
        range_check("more patterns than slots"),
    ),
    (
        "pattern_controller",
        "position beyond the table",
        ("(position >= config.max_positions)", "(position > config.max_positions)"),
        range_check("a kernel position that is not there"),
    ),
    (
        "pattern_controller",
        "segments out of step",
        ("(positions.o_last != (last_of_gather & descriptors.o_last))", "0"),
        range_check("more segments than gathers have"),
    ),
    (
        "pattern_controller",
        "words out of step",
        ("(lanes[0].o_last != position_merged)", "0"),
        range_check("more steps of reuse words than the groups take"),
    ),
    (
        "pattern_controller",
        "a slot more than the ring",
        ("(header.kept > config.slots)", "(header.kept > config.slots + 1)"),
        range_check("more slots than the ring has"),
    ),
    (
        "pattern_controller",
        "order of outputs",
        ("(header.first_output > header.last_output)", "0"),
        range_check("outputs of a group, the first beyond the last"),
    ),
    (
        "pattern_controller",
        "a group of one output refused",
        (
            "(header.first_output > header.last_output)",
            "(header.first_output >= header.last_output)",
        ),
        range_check("outputs of a group, the first beyond the last"),
    ),
    (
        "pattern_controller",
        "last output",
        ("(header.last_output > registers.last_output)", "0"),
        range_check("outputs of a group, the last beyond the layer's"),
    ),
    (
        "pattern_controller",
        "slots never filled",
        ("(kept_now > filled)", "0"),
        range_check("more slots than all gathers fill, in the first group"),
    ),
    (
        "pattern_controller",
        "slots never taken",
        ("kept_now != filled", "0"),
        range_check("fewer slots than gathers fill"),
    ),
    (
        "pattern_controller",
        "last output of the registers",
        ("registers.last_output >= config.max_outputs", "registers.last_output > 3"),
        range_check("outputs beyond the accumulators"),
    ),
    (
        "pattern_controller",
        "depth of a memory",
        ('registers[f"last_{kind}"] >= depth', 'registers[f"last_{kind}"] > depth'),
        range_check("gathers beyond the memory"),
    ),
    (
        "pattern_controller",
        "steps of an identity map",
        ('beyond & walked if kind == "step" else beyond', "beyond"),
        range_check("steps of reuse words of an identity map, which are none"),
    ),
    (
        "reuse_merge",
        "the slot behind the last one",
        ("index >= header.kept", "index > header.kept"),
        range_check("a slot that the group does not keep"),
    ),
    (
        "reuse_merge",
        "slots of words that say none",
        ("beyond[lane].eq(adding[lane] &", "beyond[lane].eq(enable[lane] &"),
        range_check("a slot that a word without a shift does not use"),
    ),
    (
        "reuse_merge",
        "slots of lanes without an output",
        ("beyond[lane].eq(adding[lane] &", "beyond[lane].eq(used &"),
        range_check("a slot of the second lane"),
    ),
    (
        "reuse_merge",
        "slots of the first lane alone",
        ("bad = issue & beyond.any()", "bad = issue & beyond[0]"),
        range_check("a slot of the second lane"),
    ),
    (
        "reuse_merge",
        "slots of an identity map",
        ("Cat(bad & self.identity,", "Cat(0,"),
        range_check("an output of an identity map without a slot"),
    ),
    (
        "ou_engine",
        "one crossbar too many",
        ("number >= config.crossbars", "number > config.crossbars"),
        range_check("a crossbar too many"),
    ),
    (
        "ou_engine",
        "the request is sent",
        ("self.o_request.valid.eq(~beyond)", "self.o_request.valid.eq(1)"),
        lambda: check_first_crossbar(),
    ),
    (
        "ou_engine",
        "first crossbar",
        ("(self.first_crossbar if config.network else 0)", "0"),
        lambda: check_first_crossbar(),
    ),
    (
        "requantise",
        "first output",
        ("param = channel + registers.first_output", "param = channel"),
        lambda: check_first_output(),
    ),
    (
        "requantise",
        "one parameter too many",
        ("reading & (param >= config.params)", "reading & (param > config.params)"),
        range_check("outputs beyond the parameters"),
    ),
    (
        "engine",
        "requests beside a fault",
        (
            "request.valid.eq(ou_engine.o_request.valid & ~self.halted)",
            "request.valid.eq(ou_engine.o_request.valid)",
        ),
        port_check("requests are not taken"),
    ),
    (
        "engine",
        "outputs beside a fault",
        (
            "top.o.valid.eq(requantise.o.valid & ~faults.halted)",
            "top.o.valid.eq(requantise.o.valid)",
        ),
        parity_check(5),
    ),
    (
        "engine",
        "loading beside a fault",
        ("loadable.eq(~self.busy & ~self.halted)", "loadable.eq(~self.busy)"),
        port_check("rows of cells are not taken"),
    ),
    (
        "engine",
        "a start beside a fault",
        ("run.start.eq(top.start & ~faults.halted)", "run.start.eq(top.start)"),
        port_check("rows of cells are not taken"),
    ),
    (
        "engine",
        "requests that wait",
        (
            "watchdog.waits.eq(request.valid | program.valid | pending.r_rdy)",
            "watchdog.waits.eq(program.valid)",
        ),
        port_check("requests are not taken"),
    ),
    (
        "engine",
        "answers that wait",
        ("| program.valid | pending.r_rdy)", "| program.valid)"),
        port_check("answers do not come"),
    ),
    (
        "engine",
        "rows that wait",
        ("request.valid | program.valid | pending", "request.valid | pending"),
        port_check("rows of cells are not taken"),
    ),
    (
        "faults",
        "a cycle early",
        ("count == self.timeout - 1", "count == self.timeout - 2"),
        port_check("answers do not come"),
    ),
    (
        "faults",
        "a cycle late",
        (
            "count = Signal(range(self.timeout))",
            "self.timeout += 1; count = Signal(range(self.timeout))",
        ),
        port_check("answers do not come"),
    ),
    (
        "faults",
        "the last fault",
        ("with m.If(~self.halted):", "with m.If(1):"),
        lambda: test_the_first_fault_stays_and_of_several_the_lowest_bit_counts(),
    ),
    (
        "faults",
        "the highest bit",
        ("reversed(list(enumerate(self.kinds)))", "enumerate(self.kinds)"),
        lambda: test_the_first_fault_stays_and_of_several_the_lowest_bit_counts(),
    ),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "what", "edit", "check"),
    MUTANTS,
    ids=[f"{module}: {what}" for module, what, _, _ in MUTANTS],
)
def test_the_mutant_is_caught(monkeypatch, module, what, edit, check):
    apply(monkeypatch, Mutant(module, what, (edit,), ""))
    names = ("FirstFault", "OUEngine", "PatternController", "Requantise", "Watchdog")
    for name in names:
        # What this module imported is the mutant's, too.
        home = sys.modules[globals()[name].__module__]
        monkeypatch.setitem(
            globals(), name, getattr(prap_hw.engine.engine, name, getattr(home, name))
        )
    with pytest.raises(AssertionError):
        check()
