"""Accumulators: merging into one half, reading the other."""

import random

import pytest

from prap_hw.engine.accumulators import Accumulators
from refmodel.config import EngineConfig
from tests.support.rtl.bench import Script, Watch, simulate


def accumulators(lanes: int, outputs: int = 8) -> Accumulators:
    return Accumulators(EngineConfig(merge_lanes=lanes, max_outputs=outputs))


def scripts(dut: Accumulators, steps: dict[int, tuple], reads: dict[int, tuple]) -> list[Script]:
    """Merge steps as {cycle addressed: (half, block, lanes written, write, contributions)}.

    Reads are {cycle: (half, output)}.
    """
    later = {cycle + 1: step for cycle, step in steps.items()}
    names = ("write_half", "write_block", "write_en", "write_first")
    return [
        Script(dut.merge_en, dict.fromkeys(steps, 1)),
        Script(dut.merge_half, {c: step[0] for c, step in steps.items()}),
        Script(dut.merge_block, {c: step[1] for c, step in steps.items()}),
        *(
            Script(getattr(dut, name), {c: step[k] for c, step in later.items()})
            for k, name in enumerate(names)
        ),
        *(
            Script(dut.contribution[lane], {c: step[4][lane] for c, step in later.items()})
            for lane in range(dut.config.merge_lanes)
        ),
        Script(dut.read_en, dict.fromkeys(reads, 1)),
        Script(dut.read_half, {c: half for c, (half, _) in reads.items()}),
        Script(dut.read_output, {c: output for c, (_, output) in reads.items()}),
    ]


def test_a_block_in_every_cycle_reads_as_written():
    # Four steps on block 2 in consecutive cycles: 5 is written, 7, -20 and 100 are added. Output 2
    # of the half is 92 from the cycle after the last write (cycle 4) on.
    dut = accumulators(1)
    steps = {
        0: (0, 2, 1, 1, [5]),
        1: (0, 2, 1, 0, [7]),
        2: (0, 2, 1, 0, [-20]),
        3: (0, 2, 1, 0, [100]),
    }
    acc = Watch(dut.read_acc)
    simulate(dut, *scripts(dut, steps, {6: (0, 2)}), acc, cycles=9)
    assert acc.values[7:] == [92, 92]


@pytest.mark.parametrize("gap", [1, 2, 3])
def test_a_block_may_return_after_any_number_of_cycles(gap):
    dut = accumulators(2)
    steps = {gap * i: (1, 1, 3, int(i == 0), [i + 1, -10 * i]) for i in range(4)}
    steps |= {c + 1: (1, 3, 1, 1, [99, 0]) for c in list(steps) if gap > 1}
    acc = Watch(dut.read_acc)
    begin = max(steps) + 3
    simulate(dut, *scripts(dut, steps, {begin: (1, 2), begin + 1: (1, 3)}), acc, cycles=begin + 3)
    assert acc.values[begin + 1 :] == [1 + 2 + 3 + 4, -60]


def test_a_read_holds_until_the_next_one():
    dut = accumulators(2)
    steps = {0: (0, 0, 3, 1, [11, 22])}
    acc = Watch(dut.read_acc)
    simulate(dut, *scripts(dut, steps, {3: (0, 1), 6: (0, 0)}), acc, cycles=9)
    assert acc.values[4:] == [22, 22, 22, 11, 11]


def test_a_read_holds_while_its_half_is_merged_into():
    # Output 1 is read in cycle 3; from cycle 4 on its own block is addressed and written.
    dut = accumulators(2)
    steps = {0: (0, 0, 3, 1, [11, 22])} | {4 + i: (0, i, 3, 1, [33, 44]) for i in range(3)}
    acc = Watch(dut.read_acc)
    simulate(dut, *scripts(dut, steps, {3: (0, 1), 9: (0, 1)}), acc, cycles=11)
    assert acc.values[4:] == [22] * 6 + [44]


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("half", [0, 1])
def test_random_steps_and_reads_of_the_other_half_match_a_dictionary(lanes, half):
    # Ten outputs with four lanes: the last block is half empty.
    draw = random.Random(lanes + 10 * half)
    dut = accumulators(lanes, 10)
    blocks = dut.layouts.blocks
    kept = {}
    steps, reads, expected = {}, {}, {}

    def step(cycle, h, block, enable, write):
        values = [draw.randint(-(1 << 30), 1 << 30) for _ in range(lanes)]
        steps[cycle] = h, block, enable, write, values
        for lane in range(lanes):
            if enable >> lane & 1:
                at = h, block * lanes + lane
                kept[at] = values[lane] + (0 if write else kept.get(at, 0))

    for block in range(blocks):
        step(block, 1 - half, block, (1 << lanes) - 1, 1)
    begin = blocks + 2
    for cycle in range(begin, begin + 120):
        if draw.random() < 0.8:
            enable = draw.randint(0, (1 << lanes) - 1)
            step(cycle, half, draw.randint(0, min(1, blocks - 1)), enable, draw.random() < 0.1)
        if draw.random() < 0.8:
            output = draw.randint(0, 9)
            reads[cycle] = 1 - half, output
            expected[cycle + 1] = kept.get((1 - half, output), 0)
    end = begin + 123
    for output in range(2 * lanes):
        reads[end + output] = half, output
        expected[end + output + 1] = kept.get((half, output), 0)
    acc = Watch(dut.read_acc)
    simulate(dut, *scripts(dut, steps, reads), acc, cycles=end + 2 * lanes + 2)
    assert {cycle: acc.values[cycle] for cycle in expected} == expected


def test_reset_keeps_the_contents():
    dut = accumulators(1)
    acc = Watch(dut.read_acc)
    agents = scripts(dut, {0: (0, 3, 1, 1, [-5])}, {6: (0, 3)})
    simulate(dut, *agents, acc, cycles=8, reset={4})
    assert acc.values[7] == -5
