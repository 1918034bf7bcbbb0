"""Requantise: accumulators into output codes."""

import random
from typing import Any

import numpy as np
import pytest

from prap_hw.common.layouts import Space
from prap_hw.engine import requantise
from refmodel import golden
from refmodel.config import EngineConfig
from tests.support.rtl.bench import Constant, Script, Sink, Source, Watch, simulate
from tests.support.rtl.mutants import Mutant, apply
from tests.support.rtl.requantising import Accumulators


def code(*values: int) -> int:
    """The formula, in Python's integers: halves towards plus infinity."""
    acc, bias, multiplier, shift, zero, low, high = values
    rounded = (2 * (acc + bias) * multiplier + (1 << shift)) >> (shift + 1)
    return min(max(rounded + zero, low), high)


def run(cases, *, width=40, zero=0, low=0, high=255, gap=1, **options):
    """Requantise positions of (acc, bias, M, s) tuples, one to a channel; bias, M, s of the first.

    Returns the sink, the accumulators, and the cycle of the first position_done.
    """
    dut = requantise.Requantise(EngineConfig(max_outputs=64, acc_width=width))
    layouts = dut.layouts
    words = []
    for number, (_, bias, multiplier, shift) in enumerate(cases[0]):
        params: dict[Any, int] = {"bias": bias, "multiplier": multiplier, "shift": shift}
        bits = layouts.params.const(params).as_bits()
        words.append({"space": Space.OUTPUT, "addr": number, "data": bits})
        # Words for other spaces are ignored.
        words.append({"space": Space.OFFSET, "addr": number, "data": (1 << 60) - 1})
    registers = {"last_output": len(cases[0]) - 1, "zero_out": zero}
    registers |= {"clip_lo": low, "clip_hi": high}
    begin = len(words) + 1
    sink = Sink(dut.o, sum(map(len, cases)), **options)
    accumulators = Accumulators(dut, [[case[0] for case in position] for position in cases])
    trace = Watch(dut.trace.valid), Watch(dut.trace.payload.output), Watch(dut.trace.payload.acc)
    simulate(
        dut,
        Constant(*((dut.registers[name], value) for name, value in registers.items())),
        Source(dut.i_load, [layouts.load.const(word).as_bits() for word in words]),
        Script(dut.position_done, {begin + gap * p: 1 for p in range(len(cases))}),
        accumulators,
        sink,
        *trace,
    )
    traced = [
        (output, acc)
        for valid, output, acc in zip(*(watch.values for watch in trace), strict=True)
        if valid
    ]
    assert traced == [
        (output, case[0]) for position in cases for output, case in enumerate(position)
    ]
    items = [layouts.output.from_bits(bits) for bits in sink.payloads]
    assert [(item["channel"], item["last"]) for item in items] == [
        (output, int(output == len(position) - 1))
        for position in cases
        for output in range(len(position))
    ]
    return [item["code"] for item in items], sink, accumulators, begin


def test_ties_signs_and_limits_by_hand():
    # (acc + bias) * M / 2^s, rounded half up, plus the zero point 100, within 10 to 200:
    # 3/2 -> 2; -3/2 -> -1; 1/2 -> 1; -1/2 -> 0; 5 * -1 / 2 -> -2; 7 * 3, s = 0: 21; -90 and below
    # are clipped to 10, 100 and above to 200.
    cases = [
        (3, 0, 1, 1),
        (-3, 0, 1, 1),
        (0, 1, 1, 1),
        (-2, 1, 1, 1),
        (4, 1, -1, 1),
        (10, -3, 3, 0),
        (-91, 0, 1, 0),
        (-90, 0, 1, 0),
        (101, 0, 1, 0),
        (99, 0, 1, 0),
    ]
    codes, *_ = run([cases], zero=100, low=10, high=200)
    assert codes == [102, 99, 101, 100, 98, 121, 10, 10, 200, 199]


def extremes(width: int, draw: random.Random) -> list[tuple]:
    """Accumulators, biases, multipliers and shifts at their limits, and some whose result is near.

    ``acc + bias`` is not limited beyond what each of them is.
    """
    top = (1 << width - 1) - 1
    cases = [
        (acc, bias, multiplier, shift)
        for acc in (-top - 1, top)
        for bias in (-top - 1, top)
        for multiplier in (-32768, 32767)
        for shift in (0, 47)
    ]
    while len(cases) < 60:
        shift = draw.randint(0, 47)
        multiplier = draw.choice([draw.randint(-32768, 32767), -1, 1])
        bias = draw.randint(-(1 << 20), 1 << 20)
        # An accumulator whose code is in reach; half of them exactly at a tie.
        want = 2 * draw.randint(-20, 275) + draw.randint(0, 1)
        acc = (want << shift >> 1) // (multiplier or 1) - bias
        cases.append((min(max(acc, -top - 1), top), bias, multiplier, shift))
    return cases


@pytest.mark.parametrize("width", [24, 40, 42])
@pytest.mark.parametrize(
    "limits",
    # With the first, nothing that is near the zero point is clipped, on either side of it.
    [(128, 0, 255), (0, 0, 255), (128, 128, 255), (255, 3, 7), (0, 0, 0)],
    ids=str,
)
def test_codes_match_the_formula_and_the_golden_model(width, limits):
    draw = random.Random(width)
    top = (1 << width - 1) - 1
    first = extremes(width, draw)
    first = [(a, min(max(b, -top - 1), top), m, s) for a, b, m, s in first]
    second = [(draw.randint(-(1 << 23), 1 << 23), *case[1:]) for case in first]
    codes, *_ = run(
        [first, second], width=width, zero=limits[0], low=limits[1], high=limits[2], gap=70
    )
    both = first + second
    assert codes == [code(*case, *limits) for case in both]
    acc, bias, multiplier, shift = np.array(both, np.int64).T
    near = np.abs(acc + bias) < 1 << 46
    golden_codes = golden.divide((acc + bias) * multiplier, shift) + limits[0]
    assert near.all()
    assert codes == np.clip(golden_codes, limits[1], limits[2]).tolist()


def position(channels: int, seed: int) -> list[tuple]:
    draw = random.Random(seed)
    return [(draw.randint(0, 255 << 8), 0, 1, 8) for _ in range(channels)]


def test_reads_begin_with_position_done_and_an_output_follows_its_read_by_five_cycles():
    # Two positions are done at once, so the second is read right behind the first.
    cases = [position(5, 1), position(5, 2)]
    codes, sink, accumulators, begin = run(cases)
    assert codes == [code(*case, 0, 0, 255) for case in cases[0] + cases[1]]
    assert [cycle for cycle, _, _ in accumulators.reads] == [begin + i for i in range(10)]
    assert sink.cycles == [begin + 5 + i for i in range(10)]
    assert accumulators.halves == [1, 2]


def test_positions_wait_for_each_other_and_halves_alternate():
    cases = [position(3, seed) for seed in range(4)]
    codes, sink, accumulators, begin = run(cases, gap=8)
    assert codes == [code(*case, 0, 0, 255) for one in cases for case in one]
    assert sink.cycles == [begin + 5 + 8 * p + i for p in range(4) for i in range(3)]
    assert accumulators.halves == [1, 2, 1, 2]
    assert [half for _, half, _ in accumulators.reads] == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]


def test_one_channel_a_position():
    cases = [position(1, seed) for seed in range(3)]
    codes, sink, _, begin = run(cases)
    assert codes == [code(*case, 0, 0, 255) for one in cases for case in one]
    assert sink.cycles == [begin + 5, begin + 6, begin + 7]


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_when_outputs_are_not_taken(seed):
    cases = [position(7, 10 * seed + p) for p in range(3)]
    # At most two whole positions wait, as the accumulators have two halves.
    codes, *_ = run(cases, gap=40, stall=0.7, seed=seed)
    assert codes == [code(*case, 0, 0, 255) for one in cases for case in one]


def test_the_pipeline_stands_while_an_output_is_not_taken():
    cases = [position(8, 3)]
    begin = 17
    _, sink, accumulators, at = run(cases, ready=lambda cycle: cycle >= begin + 20)
    assert at == begin
    # Five stages fill, with the output in the last, and the place beside it.
    reads = [cycle for cycle, _, _ in accumulators.reads]
    assert reads == [*range(begin, begin + 6), *range(begin + 21, begin + 23)]
    assert sink.cycles == list(range(begin + 20, begin + 28))


def test_reset_empties_the_pipeline():
    dut = requantise.Requantise(EngineConfig(max_outputs=64))
    sink = Sink(dut.o, hold=False)
    words: list[dict[Any, Any]] = [
        {"space": Space.OUTPUT, "addr": number, "data": 0} for number in range(10)
    ]
    load = Source(dut.i_load, [dut.layouts.load.const(word).as_bits() for word in words])
    done = Script(dut.position_done, {11: 1})
    last = Constant((dut.registers.last_output, 9))
    simulate(dut, load, done, last, sink, cycles=40, reset={19})
    assert sink.cycles == [16, 17, 18, 19]


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("a sum far beyond the codes wraps", "above.any() & ~above.all()", "0"),
        ("a sum far below the codes is the highest", "halves[-1], moved", "0, moved"),
        ("a residual's room for what is near", "near = len(offset) + 2", "near = len(offset)"),
        ("low bits with a sign", "biased[:LOW_BITS],", "biased[:LOW_BITS].as_signed(),"),
        ("the half of a unit is cut off", "(total << 1) >> shifts[1]", "total >> shifts[1] << 1"),
    ],
)
def test_a_mutant_is_found(monkeypatch, what, old, new):
    apply(monkeypatch, Mutant("requantise", what, ((old, new),), ""))
    with pytest.raises(AssertionError):
        test_codes_match_the_formula_and_the_golden_model(40, (128, 0, 255))
