"""Pooling by the formula, and the pool unit held against it."""

import random
from typing import Any

from prap_hw.accelerator.pool_unit import PoolUnit
from prap_hw.common.layouts import Layouts
from refmodel.config import EngineConfig
from tests.support.rtl.bench import Constant, Sink, Source, simulate

CONFIG = EngineConfig(network=True)

PRODUCTS = EngineConfig(network=True, products=True)


LAYOUTS = Layouts(CONFIG)


Item = list[tuple[int, int]]
"""Codes of an item, each with its operand."""


def formula(item: Item, registers: dict[str, int]) -> int:
    """The output, in Python's integers: halves towards plus infinity."""
    if registers["maximum"]:
        result = max(code for code, _ in item)
    elif registers.get("product"):
        total = registers["multiplier_0"]
        for code, k in item:
            total *= code - registers[f"zero_{k}"]
        result = (2 * total + (1 << registers["shift"])) >> (registers["shift"] + 1)
        result += registers["zero_out"]
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
    dut = PoolUnit(PRODUCTS if "product" in registers else CONFIG)
    source = Source(dut.i, payloads(items), stall=options.pop("source", 0.0), seed=1)
    sink = Sink(dut.o, len(items), **options)
    constants = Constant(*((dut.registers[name], value) for name, value in registers.items()))
    simulate(dut, constants, source, sink)
    return source, sink


PLAIN = {
    "maximum": 0, "shift": 0, "zero_out": 0, "clip_lo": 0, "clip_hi": 255,
    "zero_0": 0, "zero_1": 0, "multiplier_0": 1, "multiplier_1": 1,
}  # fmt: skip


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


def check_outputs_match_the_formula_with_and_without_pauses(seed):
    items, registers = drawn(seed)
    expected = [formula(item, registers) for item in items]
    for stall in (0.0, 0.5):
        _, sink = run(items, registers, source=stall, stall=stall, seed=seed)
        assert sink.payloads == expected


def check_products_match_the_formula_with_and_without_pauses(seed):
    draw = random.Random(seed)
    shift = draw.choice([0, 15, draw.randint(20, 32), 47])
    low, high = sorted(draw.sample(range(256), 2))
    registers = {
        "maximum": 0, "product": 1, "shift": shift, "zero_out": draw.randint(0, 255),
        "zero_0": draw.randint(0, 255), "zero_1": draw.randint(0, 255),
        "multiplier_0": draw.choice([32767, draw.randint(1, 32767)]), "multiplier_1": 1,
        "clip_lo": low, "clip_hi": high,
    }  # fmt: skip
    codes = [0, 255, *range(256)]
    items = [[(draw.choice(codes), k) for k in range(2)] for _ in range(12)]
    if seed % 2:  # small products, of which each unit shows
        registers |= {"shift": draw.randint(0, 2), "multiplier_0": draw.randint(1, 3)}
        registers |= {"zero_out": 128, "clip_lo": 0, "clip_hi": 255}
        registers |= {"zero_0": draw.randint(8, 247), "zero_1": draw.randint(8, 247)}
        items = [
            [(registers[f"zero_{k}"] + draw.randint(-8, 8), k) for k in range(2)] for _ in range(12)
        ]
    expected = [formula(item, registers) for item in items]
    for stall in (0.0, 0.5):
        _, sink = run(items, registers, source=stall, stall=stall, seed=seed)
        assert sink.payloads == expected


def check_the_widest_product_is_exact():
    # -255 * 32767 * -255 = 2130674175 and 255 * 32767 * -255, over 2^23: 253.996 and as much below.
    registers = PLAIN | {"product": 1, "shift": 23, "multiplier_0": 32767, "zero_1": 255}
    _, sink = run([[(0, 0), (0, 1)], [(255, 0), (0, 1)]], registers | {"zero_0": 255})
    assert sink.payloads == [254, 0]
    _, sink = run([[(255, 0), (0, 1)]], registers | {"zero_out": 255})
    assert sink.payloads == [1]


def check_sums_are_the_same_where_products_can_be_had(seed):
    items, registers = drawn(seed)
    expected = [formula(item, registers) for item in items]
    _, sink = run(items, registers | {"product": 0}, source=0.5, stall=0.5, seed=seed)
    assert sink.payloads == expected


def check_the_widest_sum_is_exact():
    # 4096 codes of 255 times 32767, at a shift of 31: 34225520640 / 2^31 = 15.9.
    item = [(255, 0)] * 4096
    _, sink = run([item], PLAIN | {"multiplier_0": 32767, "shift": 31})
    assert sink.payloads == [16]
