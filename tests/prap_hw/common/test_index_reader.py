"""Index memory and prefetch."""

import itertools

import pytest
from amaranth.hdl import Cat, Value

from prap_hw.common.index_reader import IndexReader
from tests.support.rtl.bench import Agent, Constant, Script, Sink, Watch, simulate

DEPTH = 5


class Flip(Agent):
    """Flips a bit of a stored word at the beginning of a cycle."""

    def __init__(self, row, cycle: int, bit: int):
        self.row, self.cycle, self.bit = Value.cast(row), cycle, bit

    def drive(self, ctx, cycle):
        if cycle == self.cycle:
            ctx.set(self.row, ctx.get(self.row) ^ 1 << self.bit)


def loaded(words: list[int]) -> tuple[IndexReader, list, int]:
    """A reader of 8-bit words, the agents that load it, and the cycle in which it may start."""
    dut = IndexReader(8, DEPTH)
    count = len(words)
    agents = [
        Script(dut.w_en, dict.fromkeys(range(count), 1)),
        Script(dut.w_addr, dict(enumerate(range(count)))),
        Script(dut.w_data, dict(enumerate(words))),
        Constant((dut.last, count - 1)),
    ]
    return dut, agents, count


def begin(dut: IndexReader, *cycles: int) -> Script:
    """Starts in these cycles, in which nothing else runs, as an engine has it."""
    return Script(Cat(dut.start, dut.resting), dict.fromkeys(cycles, 0b11))


@pytest.mark.parametrize("count", range(1, DEPTH + 1))
def test_first_word_two_cycles_after_start_then_one_a_cycle_also_at_the_wrap(count):
    words = [17 * i + 3 for i in range(count)]
    dut, agents, start = loaded(words)
    sink, last = Sink(dut.o), Watch(dut.o_last)
    simulate(dut, *agents, begin(dut, start), sink, last, cycles=start + 2 + 3 * count)
    expected = [(start + 2 + i, words[i % count]) for i in range(3 * count)]
    assert sink.taken == expected
    assert last.values[start + 2 :] == [i % count == count - 1 for i in range(3 * count)]


@pytest.mark.parametrize("seed", range(3))
def test_no_word_is_lost_or_repeated_under_back_pressure(seed):
    words = [40, 50, 60, 70]
    dut, agents, start = loaded(words)
    sink = Sink(dut.o, 30, stall=0.5, seed=seed)
    valid = Watch(dut.o.valid)
    simulate(dut, *agents, begin(dut, start), sink, valid)
    assert sink.payloads[:30] == list(itertools.islice(itertools.cycle(words), 30))
    # Never without a word once it has begun, whatever the consumer does.
    assert valid.values[start + 2 :] == [1] * len(valid.values[start + 2 :])


@pytest.mark.parametrize("ready", [False, True])
def test_start_discards_the_word_at_the_output_and_goes_back_to_the_first(ready):
    words = [1, 2, 3, 4, 5]
    dut, agents, start = loaded(words)
    again = start + 4
    sink = Sink(dut.o, ready=lambda cycle: cycle > again or ready, hold=False)
    valid = Watch(dut.o.valid)
    simulate(dut, *agents, begin(dut, start, again), sink, valid, cycles=again + 9)
    assert valid.values[again + 1] == 0
    assert [taken for taken in sink.taken if taken[0] > again] == [
        (again + 2 + i, words[i % 5]) for i in range(7)
    ]


def test_silent_before_start_and_after_reset():
    dut, agents, start = loaded([9, 8])
    reset = start + 6
    sink = Sink(dut.o)
    simulate(dut, *agents, begin(dut, start), sink, cycles=reset + 6, reset={reset})
    assert sink.cycles == list(range(start + 2, reset + 1))


def test_first_to_last_is_read_again_after_reset_and_start():
    dut, agents, start = loaded([9, 8, 7])
    sink = Sink(dut.o)
    again = start + 5
    scripts = begin(dut, start, again)
    simulate(dut, *agents, scripts, sink, cycles=again + 8, reset={again - 1})
    assert [p for c, p in sink.taken if c > again] == [9, 8, 7, 9, 8, 7]


@pytest.mark.parametrize("bit", range(9))
def test_a_word_of_the_wrong_parity_is_never_valid_and_the_stream_stands_at_it(bit):
    dut, agents, start = loaded([9, 8, 7])
    sink = Sink(dut.o)
    flip = Flip(dut.words.contents[1], start, bit)
    wrong = Watch(dut.wrong)
    again = start + 12
    scripts = begin(dut, start + 1, again)
    repair = Flip(dut.words.contents[1], again - 1, bit)
    simulate(dut, *agents, scripts, flip, repair, sink, wrong, cycles=again + 5)
    assert sink.taken == [(start + 3, 9), (again + 2, 9), (again + 3, 8), (again + 4, 7)]
    # From the cycle in which it would be valid until the next start.
    assert [c for c, value in enumerate(wrong.values) if value] == list(range(start + 4, again + 1))


def test_a_word_that_was_never_written_is_wrong_in_a_memory_of_zeros():
    dut, agents, start = loaded([9])
    sink, wrong = Sink(dut.o), Watch(dut.wrong)
    last = Constant((dut.last, 1))
    simulate(dut, *agents, last, begin(dut, start), sink, wrong, cycles=start + 6)
    assert sink.payloads == [9]
    assert wrong.values[-1]


@pytest.mark.parametrize("rest", [0, 3])
def test_what_is_loaded_in_the_cycle_of_start_is_read_a_cycle_later(rest):
    """The last word comes with ``start``: the first one, and where the reading ends."""
    dut = IndexReader(8, DEPTH)
    words, start = [6, 7, 5], 4
    agents = [
        Script(dut.w_en, {1: 1, 2: 1, start: 1}),
        Script(dut.w_addr, {1: 1, 2: 2, start: 0}),
        Script(dut.w_data, {1: 7, 2: 5, start: 6}),
        Script(dut.last, dict.fromkeys(range(start + 1, 40), 2)),
        Script(dut.loading, {1: 1, 2: 1, start: 1}),
        Script(dut.resting, dict.fromkeys(range(start - rest, start + 1), 1)),
        Script(dut.start, {start: 1}),
    ]
    sink = Sink(dut.o)
    simulate(dut, *agents, sink, cycles=start + 3 + 5)
    assert sink.taken == [(start + 3 + i, words[i % 3]) for i in range(5)]
