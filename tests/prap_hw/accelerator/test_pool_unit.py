"""Pool unit: windows of codes, and sums of two operands, into one code each."""

import pytest

from prap_hw.accelerator.pool_unit import PoolUnit
from refmodel.predict.accelerator.prediction import POOL_LATENCY
from tests.support.rtl.bench import Constant, Sink, Source, simulate
from tests.support.rtl.pooling import (
    CONFIG,
    PLAIN,
    check_outputs_match_the_formula_with_and_without_pauses,
    check_products_match_the_formula_with_and_without_pauses,
    check_sums_are_the_same_where_products_can_be_had,
    check_the_widest_product_is_exact,
    check_the_widest_sum_is_exact,
    formula,
    payloads,
    run,
)


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


@pytest.mark.parametrize("seed", range(10))
def test_outputs_match_the_formula_with_and_without_pauses(seed):
    check_outputs_match_the_formula_with_and_without_pauses(seed)


@pytest.mark.parametrize("seed", range(8))
def test_products_match_the_formula_with_and_without_pauses(seed):
    check_products_match_the_formula_with_and_without_pauses(seed)


@pytest.mark.parametrize("seed", range(4))
def test_sums_are_the_same_where_products_can_be_had(seed):
    check_sums_are_the_same_where_products_can_be_had(seed)


def test_the_widest_product_is_exact():
    check_the_widest_product_is_exact()


def test_the_widest_sum_is_exact():
    # 4096 codes of 255 times 32767, at a shift of 31: 34225520640 / 2^31 = 15.9.
    check_the_widest_sum_is_exact()


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
