"""Shift-and-add: codes of bit columns and digits into signed partial sums."""

import itertools
import random
from typing import Any

import pytest

from prap_hw.common.layouts import Layouts
from prap_hw.engine.shift_add import ShiftAdd
from refmodel.config import EngineConfig
from tests.support.rtl.bench import Agent, Source, Watch, simulate
from tests.support.rtl.ou_vectors import Vector, expected

FIXED: dict[Any, int] = {"slot": 0, "accumulate": 0, "final": 1, "lane": 0, "first": 1}


class Output(Agent):
    """Sums of a stream without ready: (cycle, slot, sum, accumulate, final)."""

    def __init__(self, dut: ShiftAdd):
        self.layout = dut.layouts.psum
        self.several = dut.layouts.columns.ends > 1
        self.signals = (dut.o.valid, dut.o.payload.as_value())
        self.values: list[tuple[int, ...]] = []

    def see(self, cycle, *values):
        if values[0]:
            item = self.layout.from_bits(values[1])
            count = item["count"] if self.several else 1
            self.values += [
                (cycle, item["slot"] + i, item["sums"][i], item["accumulate"], item["final"])
                for i in range(count)
            ]


def weighted(codes, top: bool) -> int:
    """``sum(code[j] << j)`` with the sign column, the last one of a pattern, negative."""
    value = sum(code << j for j, code in enumerate(codes))
    return value - 2 * (codes[-1] << len(codes) - 1) if top else value


def run(dut, answers, *, stalls=(0, 0), seed=0):
    """Send answers as (codes, meaning); returns the output and the two sources."""
    layouts = dut.layouts
    response = Source(
        dut.i_response,
        [layouts.response.const(list(codes)).as_bits() for codes, _ in answers],
        stall=stalls[0],
        seed=seed,
    )
    pending = Source(
        dut.i_pending,
        [layouts.pending.const(meaning).as_bits() for _, meaning in answers],
        stall=stalls[1],
        seed=seed + 1,
    )
    output = Output(dut)
    simulate(dut, response, pending, output)
    return output.values, response, pending


def patterns(cfg: EngineConfig, draw: random.Random, vectors: int, choose) -> tuple[list, list]:
    """Answers of whole vectors, as the OU engine asks for them, and the sums expected.

    Returns
    -------
    Answers as (codes, meaning); (answer with which it ends, slot, sum, accumulate, final) to each
    pattern, in order of slots.
    """
    work = []
    for n in range(vectors):
        rows = [draw.randint(0, 255) for _ in range(draw.randint(1, 4))]
        work.append(Vector(rows, draw.randint(1, 2 * cfg.patterns_per_ou), n % 3 != 1))
        if n % 3 == 2:
            work[n].patterns = work[n - 1].patterns
    work[-1].final = True
    requests, meanings = expected(Layouts(cfg), work, vectors - 1)
    answers = [([choose() for _ in range(cfg.adcs)], meaning) for meaning in meanings]
    sums = []
    at, slot, again = 0, 0, False
    for v in work:
        columns = v.patterns * cfg.columns_per_weight
        start = -cfg.offset * sum(v.rows)
        totals, ends = [start] * v.patterns, [0] * v.patterns
        for first in range(0, columns, cfg.ou_cols):
            for digit in range(cfg.digits):
                for begin in range(first, min(first + cfg.ou_cols, columns), cfg.adcs):
                    for column in range(begin, min(begin + cfg.adcs, first + cfg.ou_cols, columns)):
                        p, j = divmod(column, cfg.columns_per_weight)
                        worth = cfg.column_weights[j] << digit * cfg.dac_bits
                        totals[p] += worth * answers[at][0][column - begin]
                        ends[p] = at
                    at += 1
        for p in range(v.patterns):
            sums.append((ends[p], (slot + p) % cfg.slots, totals[p], int(again), int(v.final)))
        slot += v.patterns if v.final else 0
        again = not v.final
    assert at == len(requests)
    return answers, sums


def test_weights_of_columns_and_digits_by_hand():
    # One code 1 in column 0: 1; in column 7: -128; digit 3 of column 2: 32; digit 7 of column 7:
    # -16384; code 3 in every column: 3 * (127 - 128) = -3.
    dut = ShiftAdd(EngineConfig(slots=16, adc_bits=2))
    cases = [
        ([1, 0, 0, 0, 0, 0, 0, 0], 0, 1),
        ([0, 0, 0, 0, 0, 0, 0, 1], 0, -128),
        ([0, 0, 1, 0, 0, 0, 0, 0], 3, 32),
        ([0, 0, 0, 0, 0, 0, 0, 1], 7, -16384),
        ([3, 3, 3, 3, 3, 3, 3, 3], 0, -3),
        ([3, 3, 3, 3, 3, 3, 3, 0], 7, 3 * 127 * 128),
    ]
    answers = [
        (codes, {"scale": digit, "top": 1, "ended": 1, **FIXED}) for codes, digit, _ in cases
    ]
    values, _, _ = run(dut, answers)
    assert [value[2] for value in values] == [want for _, _, want in cases]


@pytest.mark.parametrize("adcs", [1, 2, 4, 8])
def test_all_codes_of_an_answer_at_every_place(adcs):
    # With 2-bit codes: all 4^adcs answers of up to 4 columns, at each column and digit for up to
    # two and at the ends for four; the 65,536 of eight columns drawn.
    dut = ShiftAdd(EngineConfig(slots=16, adc_bits=2, adcs=adcs))
    draw = random.Random(8)
    if adcs < 8:
        codes = list(itertools.product(range(4), repeat=adcs))
    else:
        codes = [(0,) * 8, (3,) * 8, (0,) * 7 + (3,), (3,) * 7 + (0,)]
        codes += [tuple(draw.randint(0, 3) for _ in range(8)) for _ in range(200)]
    digits = range(8) if adcs < 4 else (0, 7)
    places = list(itertools.product(codes, range(0, 8, adcs), digits))
    answers = [
        (
            code,
            {"scale": digit + column, "top": int(column + adcs == 8), "ended": 1, **FIXED},
        )
        for code, column, digit in places
    ]
    values, _, _ = run(dut, answers)
    assert [value[2] for value in values] == [
        weighted(code, column + adcs == 8) << (digit + column) for code, column, digit in places
    ]


SIZES = [
    {"adcs": 1},
    {"adcs": 2, "ou_cols": 16},
    {"adcs": 4},
    {"adcs": 8},
    {"adcs": 8, "ou_cols": 24},
    {"adcs": 4, "ou_cols": 16},
    {"adcs": 3, "ou_cols": 16},
    {"adcs": 4, "ou_cols": 4},
    {"adcs": 5, "ou_cols": 12, "dac_bits": 2},
    {"adcs": 16, "ou_cols": 28, "dac_bits": 4},
    {"adcs": 2, "cell_bits": 2, "dac_bits": 4},
    {"adcs": 8, "cell_bits": 2},
    {"adcs": 3, "ou_cols": 12, "cell_bits": 4, "dac_bits": 2},
    {"adcs": 32, "ou_cols": 32, "cell_bits": 4, "dac_bits": 4},
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sums_of_whole_vectors_three_cycles_after_the_last_answer(sizes):
    cfg = EngineConfig(slots=64, crossbar_size=48, ou_rows=4, **sizes)
    draw = random.Random(str(sizes))
    answers, sums = patterns(cfg, draw, 5, lambda: draw.randint(0, cfg.max_code))
    values, response, _ = run(ShiftAdd(cfg), answers)
    # One answer a cycle from cycle 0 on.
    assert response.sent == list(range(len(answers)))
    assert values == [(end + 3, *rest) for end, *rest in sums]


def test_offset_binary_begins_below_by_hand():
    # Two patterns of two 4-bit columns in one answer, inputs that add up to 10: codes 1 and 2 count
    # 1 + 2 * 16 = 33, less 128 * 10; codes 15 and 0 count 15. Digit 1 of 2 bits: times 4.
    cfg = EngineConfig(slots=16, cell_bits=4, dac_bits=2, ou_cols=4, adcs=4, ou_rows=4)
    low: dict[Any, int] = {**FIXED, "low": 1, "scale": 0, "ended": 0, "inputs": 10}
    high = {**low, "first": 0, "low": 0, "scale": 2, "ended": 2}
    values, _, _ = run(ShiftAdd(cfg), [([1, 2, 15, 0], low), ([1, 0, 0, 1], high)])
    assert [value[1:3] for value in values] == [(0, 33 - 1280 + 4), (1, 15 - 1280 + 64)]


@pytest.mark.parametrize("code", ["least", "largest"])
def test_extreme_sums_fit(code):
    # The extremes of one OU: all codes at their largest in the sign column alone, or without it.
    cfg = EngineConfig(slots=16, adc_bits=8, ous_per_pattern=1)
    row = [0] * 7 + [255] if code == "least" else [255] * 7 + [0]
    answers = [
        (row, {**FIXED, "scale": d, "top": 1, "first": int(d == 0), "ended": int(d == 7)})
        for d in range(8)
    ]
    values, _, _ = run(ShiftAdd(cfg), answers)
    assert values[0][2] == 255 * 255 * (-128 if code == "least" else 127)


@pytest.mark.parametrize("seed", range(3))
def test_answers_and_meanings_meet_whatever_their_pauses(seed):
    cfg = EngineConfig(slots=16, adcs=4, ou_cols=16, ou_rows=4)
    draw = random.Random(seed)
    answers, sums = patterns(cfg, draw, 3, lambda: draw.randint(0, cfg.max_code))
    stalls = ((0.5, 0), (0, 0.5), (0.4, 0.4))[seed]
    values, response, pending = run(ShiftAdd(cfg), answers, stalls=stalls, seed=seed)
    assert [value[1:] for value in values] == [item[1:] for item in sums]
    assert response.sent == pending.sent


def test_ready_follows_the_other_sides_valid():
    dut = ShiftAdd(EngineConfig(slots=16))
    meaning: dict[Any, int] = {"scale": 0, "top": 1, "ended": 1, **FIXED}
    response = Source(dut.i_response, [dut.layouts.response.const([1] * 8).as_bits()], begin=3)
    pending = Source(dut.i_pending, [dut.layouts.pending.const(meaning).as_bits()], begin=6)
    ready = Watch(dut.i_response.ready), Watch(dut.i_pending.ready)
    simulate(dut, response, pending, *ready)
    assert ready[0].values[:8] == [0, 0, 0, 0, 0, 0, 1, 0]
    assert ready[1].values[:8] == [0, 0, 0, 1, 1, 1, 1, 0]


def test_reset_empties_the_pipeline():
    dut = ShiftAdd(EngineConfig(slots=16))
    meaning: dict[Any, int] = {"scale": 0, "top": 1, "ended": 1, **FIXED}
    response = Source(dut.i_response, [dut.layouts.response.const([1] * 8).as_bits()] * 6)
    pending = Source(dut.i_pending, [dut.layouts.pending.const(meaning).as_bits()] * 6)
    output = Output(dut)
    # Answers of cycles 0 to 5; those of 3, 4 and 5 are in the pipeline when reset ends cycle 5.
    simulate(dut, response, pending, output, cycles=12, reset={5})
    assert [value[0] for value in output.values] == [3, 4, 5]
