"""Lookup stage: outputs through tables, one cycle later, and what is wrong with a table."""

from typing import Any

import pytest
from amaranth.sim import Simulator

from prap_hw.accelerator.lookup import LookupStage
from refmodel.config import LOOKUPS
from tests.support.rtl.lookups import CONFIG, TABLES, check_codes_are_looked_up_one_cycle_later


@pytest.mark.parametrize("seed", range(6))
def test_codes_are_looked_up_one_cycle_later(seed):
    check_codes_are_looked_up_one_cycle_later(seed)


def faults_of(flips: int, lookup: str, first: int, codes: int) -> list[int]:
    """Faults, cycle by cycle, of codes 0 of a stage of which word 0 has some bits flipped."""
    dut = LookupStage(CONFIG)
    odd = int(TABLES[0, 0]).bit_count() % 2
    whole = ((1 - odd) << 8 | int(TABLES[0, 0])) ^ flips
    good = [{"word": 0, "parity": 1}] * (TABLES.size - 1)
    init: Any = [{"word": whole & 255, "parity": whole >> 8}, *good]
    dut.words.contents.init = init
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    seen = []

    async def bench(ctx):
        ctx.set(dut.registers.lookup, LOOKUPS.index(lookup))
        ctx.set(dut.registers.first_table, first)
        ctx.set(dut.registers.last_channel, 7)
        ctx.set(dut.o.ready, 1)
        for cycle in range(codes + 2):
            ctx.set(dut.i.valid, cycle < codes)
            _, _, faults, valid = await ctx.tick().sample(dut.faults, dut.o.valid)
            assert not (valid and faults & 1)
            seen.append(faults)

    simulator.add_testbench(bench)
    simulator.run()
    return seen


def test_a_word_of_the_wrong_parity_is_found_and_never_valid():
    assert faults_of(0, "one", 0, 1) == [0, 0, 0]
    for bit in range(9):
        assert faults_of(1 << bit, "one", 0, 1) == [0, 1, 1]
    assert faults_of(1, "none", 0, 1) == [0, 0, 0]


def test_a_table_beyond_the_memory_is_found_as_its_code_is_taken():
    assert [each >> 1 for each in faults_of(0, "one", 5, 1)] == [1, 0, 0]
    # Channel 1 is the first that has no table.
    assert [each >> 1 for each in faults_of(0, "channel", 4, 2)] == [0, 1, 0, 0]
