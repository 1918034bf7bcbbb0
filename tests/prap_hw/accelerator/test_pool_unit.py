"""Pool unit: windows of codes, and sums of two operands, into one code each."""

import random
from typing import Any

import pytest

from prap_hw.accelerator.pool_unit import PoolUnit
from prap_hw.common.layouts import Layouts
from refmodel.config import EngineConfig
from refmodel.predict.accelerator.prediction import POOL_LATENCY
from tests.support.bench import Constant, Sink, Source, simulate

CONFIG = EngineConfig(network=True)
LAYOUTS = Layouts(CONFIG)

Item = list[tuple[int, int]]
"""Codes of an item, each with its operand."""


def formula(item: Item, registers: dict[str, int]) -> int:
    """The output, in Python's integers: halves towards plus infinity."""
    if registers["maximum"]:
        result = max(code for code, _ in item)
    else:
        total = sum(
            (code - registers[f"zero_{k}"]) * registers[f"multiplier_{k}"] for code, k in item
        )
        result = (2 * total + (1 << registers["shift"])) >> (registers["shift"] + 1)
        result += registers["zero_out"]
    return min(max(result, registers["clip_lo"]), registers["clip_hi"])


def payloads(items: list[Item]) -> list[int]:
    words = []
    for item in items:
        for number, (code, operand) in enumerate(item):
            word: dict[Any, int] = {"code": code, "operand": operand}
            word |= {"first": number == 0, "last": number == len(item) - 1}
            words.append(LAYOUTS.read.const(word).as_bits())
    return words


def run(items: list[Item], registers: dict[str, int], **options) -> tuple[Source, Sink]:
    dut = PoolUnit(CONFIG)
    source = Source(dut.i, payloads(items), stall=options.pop("source", 0.0), seed=1)
    sink = Sink(dut.o, len(items), **options)
    constants = Constant(*((dut.registers[name], value) for name, value in registers.items()))
    simulate(dut, constants, source, sink)
    return source, sink


PLAIN = {
    "maximum": 0, "shift": 0, "zero_out": 0, "clip_lo": 0, "clip_hi": 255,
    "zero_0": 0, "zero_1": 0, "multiplier_0": 1, "multiplier_1": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("item", "changes", "expected"),
    [
        ([(3, 0), (9, 0), (7, 0)], {"maximum": 1}, 9),
        # The zero point does not move a maximum; the limits do.
        ([(3, 0), (9, 0)], {"maximum": 1, "zero_out": 50, "clip_hi": 8}, 8),
        ([(3, 0)], {"maximum": 1, "clip_lo": 4}, 4),
        # 5/2 is 3, -5/2 is -2, and a sum is rounded once: 1/2 + 1/2 is 1.
        ([(5, 0)], {"shift": 1}, 3),
        ([(0, 0)], {"shift": 1, "zero_0": 5, "zero_out": 10}, 8),
        ([(1, 0), (1, 1)], {"shift": 1}, 1),
        # (7 - 2) * 3 - (4 - 1) * 2 = 9, over 4: 2.25.
        ([(7, 0), (4, 1)],
         {"shift": 2, "zero_0": 2, "zero_1": 1, "multiplier_0": 3, "multiplier_1": -2}, 2),
        ([(255, 0)] * 9, {"multiplier_0": 32767}, 255),
        ([(0, 0)] * 9, {"multiplier_0": 32767, "zero_0": 255}, 0),
        ([(255, 0)] * 64, {"multiplier_0": 16384, "shift": 20}, 255),
    ],
)  # fmt: skip
def test_outputs_by_hand(item, changes, expected):
    _, sink = run([item], PLAIN | changes)
    assert sink.payloads == [expected]
    assert formula(item, PLAIN | changes) == expected


def drawn(seed: int) -> tuple[list[Item], dict[str, int]]:
    draw = random.Random(seed)
    maximum = draw.randint(0, 1)
    operands = 1 if maximum else draw.randint(1, 2)
    taps = draw.choice([1, 2, 4, 9, 49]) if operands == 1 else 1
    shift = draw.choice([0, draw.randint(8, 20), 47])
    most = 1 << max(1, min(15, shift)) if shift < 47 else 32767
    registers = {"maximum": maximum, "shift": shift, "zero_out": draw.randint(0, 255)}
    for k in range(2):
        registers[f"zero_{k}"] = draw.randint(0, 255)
        registers[f"multiplier_{k}"] = draw.randint(-most + 1, most - 1)
    low, high = sorted(draw.sample(range(256), 2))
    registers |= {"clip_lo": low, "clip_hi": high}
    codes = [0, 255, *range(256)]
    items = [
        [(draw.choice(codes), k) for k in range(operands) for _ in range(taps)] for _ in range(12)
    ]
    return items, registers


@pytest.mark.parametrize("seed", range(10))
def test_outputs_match_the_formula_with_and_without_pauses(seed):
    items, registers = drawn(seed)
    expected = [formula(item, registers) for item in items]
    for stall in (0.0, 0.5):
        _, sink = run(items, registers, source=stall, stall=stall, seed=seed)
        assert sink.payloads == expected


def test_the_widest_sum_is_exact():
    # 4096 codes of 255 times 32767, at a shift of 31: 34225520640 / 2^31 = 15.9.
    item = [(255, 0)] * 4096
    _, sink = run([item], PLAIN | {"multiplier_0": 32767, "shift": 31})
    assert sink.payloads == [16]


def test_an_output_follows_its_last_code_by_four_cycles():
    items = [[(code, 0)] * size for code, size in ((1, 3), (2, 1), (3, 1), (4, 2))]
    source, sink = run(items, PLAIN)
    last = [sum(len(item) for item in items[: number + 1]) - 1 for number in range(4)]
    assert source.sent == list(range(7))
    assert sink.cycles == [cycle + POOL_LATENCY for cycle in last]


def test_reset_empties_the_pipeline():
    dut = PoolUnit(CONFIG)
    source = Source(dut.i, payloads([[(5, 0)]] * 4))
    sink = Sink(dut.o, hold=False)
    constants = Constant((dut.registers.maximum, 1), (dut.registers.clip_hi, 255))
    simulate(dut, constants, source, sink, cycles=20, reset={5})
    assert sink.cycles == [4, 5]
