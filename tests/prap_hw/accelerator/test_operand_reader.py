"""Operand reader: three loops, windows of one or two operands, a byte a cycle."""

import pytest

from prap_hw.accelerator.operand_reader import OperandReader
from refmodel.predict.accelerator.operations import Operation
from refmodel.predict.accelerator.regions import Operand, Walk
from tests.support.rtl.bench import Constant, Script, Sink, simulate
from tests.support.rtl.operand_walks import (
    CONFIG,
    SIZE,
    check_codes_are_those_of_plain_loops_one_a_cycle,
    drawn,
    run,
    walked,
)


@pytest.mark.parametrize("seed", range(12))
def test_codes_are_those_of_plain_loops_one_a_cycle(seed):
    check_codes_are_those_of_plain_loops_one_a_cycle(seed)


@pytest.mark.parametrize("seed", range(12, 16))
def test_nothing_is_lost_when_codes_are_not_taken(seed):
    op, contents = drawn(seed)
    run(op, contents, stall=0.6, seed=seed)


def test_the_shortcut_by_hand():
    # Every second pixel of 4 x 4 x 1 at 0, with one channel of zeros before and one behind.
    walk = Walk(base=-1, row_step=8, column_step=2)
    operand = Operand(walk=walk, first_channel=1, last_channel=1, zero=9)
    op = Operation(
        name="a",
        kind="layer",
        shape=(2, 2, 3),
        output=Walk(base=0, row_step=0, column_step=0),
        operands=(operand,),
    )
    contents = list(range(SIZE))
    assert [code for code, *_ in walked(op, contents)] == [9, 0, 9, 9, 2, 9, 9, 8, 9, 9, 10, 9]
    run(op, contents)


def test_reset_ends_the_walk():
    dut = OperandReader(CONFIG)
    sink = Sink(dut.o, hold=False)
    constants = Constant((dut.registers.last_channel, 99))
    simulate(dut, constants, Script(dut.start, {3: 1}), sink, cycles=30, reset={8})
    assert sink.cycles == [5, 6, 7, 8]
