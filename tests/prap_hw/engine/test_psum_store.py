"""The partial-sum store."""

import random
from typing import Any

import pytest

from prap_hw.engine.psum_store import PartialSumStore
from refmodel.config import EngineConfig
from tests.support.rtl.bench import Constant, Script, Watch, simulate


def store(lanes=1, slots=8, ous=4) -> PartialSumStore:
    return PartialSumStore(
        EngineConfig(slots=slots, merge_lanes=lanes, ous_per_pattern=ous, adcs=8)
    )


def sums(dut: PartialSumStore, items: dict[int, tuple[int, int, int, int]]) -> list[Script]:
    """Agents that present (slot, sum, accumulate, final) in some cycles."""
    several = {
        cycle: (slot, [value], accumulate, final)
        for cycle, (slot, value, accumulate, final) in items.items()
    }
    return several_sums(dut, several)


def several_sums(dut: PartialSumStore, items: dict[int, tuple[int, list[int], int, int]]):
    """Agents that present (slot, sums, accumulate, final) in some cycles."""
    ends = dut.layouts.columns.ends
    bits = {}
    for cycle, (slot, values, accumulate, final) in items.items():
        fields: dict[Any, Any] = {"slot": slot, "accumulate": accumulate, "final": final}
        # Sums beyond the count are anything.
        fields["sums"] = values + [-1] * (ends - len(values))
        if ends > 1:
            fields["count"] = len(values)
        bits[cycle] = dut.layouts.psum.const(fields).as_bits()
    return [Script(dut.i.valid, dict.fromkeys(items, 1)), Script(dut.i.payload.as_value(), bits)]


def test_stored_a_cycle_later_and_counted_and_read_from_the_cycle_after_that():
    dut = store()
    items = {0: (3, -77, 0, 1), 1: (4, 55, 0, 0), 2: (5, 9, 0, 1)}
    counted, data = Watch(dut.completed), Watch(dut.o_data[0])
    trace = Watch(dut.trace.valid)
    # Slot 3 is stored in cycle 1, so a read in cycle 1 gives the old word in cycle 2, and one in
    # cycle 2 the new word in cycle 3.
    slots = Script(dut.o_slot[0], {1: 3, 2: 3, 3: 4, 4: 5})
    simulate(dut, *sums(dut, items), slots, counted, data, trace, cycles=8)
    assert counted.values == [0, 0, 1, 1, 2, 2, 2, 2]
    assert trace.values == [0, 1, 0, 1, 0, 0, 0, 0]
    assert data.values[2:6] == [0, -77, 55, 9]


def test_largest_and_least_sums_of_all_ous_add_up():
    # Four OUs of 255 * (-128 or 127) * 15, as psum_width counts them.
    for part in (255 * 127 * 15, -255 * 128 * 15):
        dut = store(ous=4)
        items = {2 * i: (6, part, int(i > 0), int(i == 3)) for i in range(4)}
        trace, valid = Watch(dut.trace.payload[0].sum), Watch(dut.trace.valid)
        simulate(dut, *sums(dut, items), trace, valid, cycles=10)
        assert valid.values == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
        assert trace.values[7] == 4 * part


def test_sums_two_cycles_apart_add_to_each_other_and_one_that_does_not_add_replaces():
    dut = store()
    items = {
        0: (1, 10, 0, 0),
        1: (2, 100, 0, 0),
        2: (1, 7, 1, 0),
        3: (2, -30, 1, 1),
        4: (1, -4, 1, 1),
        6: (1, 5, 0, 1),
    }
    shown = dut.trace.payload[0]
    valid, slot, total = (Watch(signal) for signal in (dut.trace.valid, shown.slot, shown.sum))
    simulate(dut, *sums(dut, items), valid, slot, total, cycles=10)
    seen = [(c, slot.values[c], total.values[c]) for c, value in enumerate(valid.values) if value]
    assert seen == [(4, 2, 70), (5, 1, 13), (7, 1, 5)]


def test_taken_slots_leave_the_count_also_in_the_cycle_of_a_completion():
    dut = store()
    items = {c: (c, c, 0, 1) for c in range(6)}
    counted = Watch(dut.completed)
    simulate(dut, *sums(dut, items), Script(dut.taken, {4: 2, 6: 3}), counted, cycles=10)
    # Completions are counted in cycles 2 to 7; 2 leave after cycle 4 and 3 after cycle 6.
    assert counted.values == [0, 0, 1, 2, 3, 2, 3, 1, 1, 1]


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("ous", [1, 3])
def test_random_sums_and_reads_match_a_dictionary(lanes, ous):
    draw = random.Random(lanes + 10 * ous)
    dut = store(lanes, 16, ous)
    limit = 255 * 127 * 15
    items, kept, reads = {}, {}, [{} for _ in range(lanes)]
    expected: list[dict[int, int]] = [{} for _ in range(lanes)]
    recent: list[int] = []
    count: dict[int, int] = {}
    for cycle in range(150):
        slot = draw.choice([s for s in range(16) if s not in recent[-1:]])
        adds = int(ous > 1 and 0 < count.get(slot, 0) < ous and draw.random() < 0.6)
        count[slot] = count[slot] + 1 if adds else 1
        items[cycle] = slot, draw.randint(-limit, limit), adds, draw.randint(0, 1)
        recent.append(slot)
    # A sum presented in cycle c can be read from c + 2 on, and seen from c + 3.
    for cycle in range(152):
        for lane in range(lanes):
            slot = draw.randint(0, 15)
            reads[lane][cycle] = slot
            expected[lane][cycle + 1] = kept.get(slot, 0)
        before = items.get(cycle - 1)
        if before:
            slot, value, adds, _ = before
            kept[slot] = value + (kept.get(slot, 0) if adds else 0)
    watches = [Watch(dut.o_data[lane]) for lane in range(lanes)]
    scripts = [Script(dut.o_slot[lane], reads[lane]) for lane in range(lanes)]
    simulate(dut, *sums(dut, items), *scripts, *watches, cycles=153)
    for lane in range(lanes):
        assert watches[lane].values[1:] == [expected[lane][c] for c in range(1, 153)], lane


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("sizes", [(24, 4, 24), (32, 4, 32), (16, 2, 8), (12, 2, 12)], ids=str)
def test_several_sums_at_once_match_a_dictionary(sizes, lanes):
    # Up to 12, 16, 2 and 3 sums at once: in 16, 16, 2 and 4 banks.
    cols, cell_bits, adcs = sizes
    draw = random.Random(cols)
    dut = PartialSumStore(
        EngineConfig(ou_cols=cols, cell_bits=cell_bits, adcs=adcs, slots=32, merge_lanes=lanes)
    )
    ends = dut.layouts.columns.ends
    items, kept = {}, {}
    reads: list[dict[int, int]] = [{} for _ in range(lanes)]
    expected: list[dict[int, int]] = [{} for _ in range(lanes)]
    traced, count, counts = [], 0, []
    last: list[int] = []
    for cycle in range(120):
        size = draw.randint(1, ends)
        slot = draw.randrange(32)
        mine = [(slot + i) % 32 for i in range(size)]
        if not set(mine) & set(last) and draw.random() < 0.8:
            values = [draw.randint(-100_000, 100_000) for _ in mine]
            items[cycle] = slot, values, draw.randint(0, 1), draw.randint(0, 1)
        last = mine if cycle in items else []
    for cycle in range(122):
        for lane in range(lanes):
            reads[lane][cycle] = draw.randrange(32)
            expected[lane][cycle + 1] = kept.get(reads[lane][cycle], 0)
        counts.append(count)
        if cycle - 1 in items:
            slot, values, adds, final = items[cycle - 1]
            for i, value in enumerate(values):
                at = (slot + i) % 32
                kept[at] = value + (kept.get(at, 0) if adds else 0)
                if final:
                    traced.append((cycle, at, kept[at]))
            count += len(values) * final
    watches = [Watch(dut.o_data[lane]) for lane in range(lanes)]
    scripts = [Script(dut.o_slot[lane], reads[lane]) for lane in range(lanes)]
    counted, valid = Watch(dut.completed), Watch(dut.trace.valid)
    shown = [
        [Watch(dut.trace.payload[i].slot), Watch(dut.trace.payload[i].sum)] for i in range(ends)
    ]
    agents = [*several_sums(dut, items), *scripts, *watches, counted, valid]
    simulate(dut, *agents, *(watch for pair in shown for watch in pair), cycles=122)
    for lane in range(lanes):
        assert watches[lane].values[1:] == [expected[lane][c] for c in range(1, 122)], lane
    assert counted.values == [n % 64 for n in counts]
    found = [
        (cycle, shown[i][0].values[cycle], shown[i][1].values[cycle])
        for cycle, bits in enumerate(valid.values)
        for i in range(ends)
        if bits >> i & 1
    ]
    assert found == traced


def test_reset_clears_the_count_and_keeps_the_sums():
    dut = store()
    counted, data = Watch(dut.completed), Watch(dut.o_data[0])
    items = {0: (1, 11, 0, 1), 1: (2, 22, 0, 1)}
    simulate(
        dut,
        *sums(dut, items),
        Script(dut.o_slot[0], {6: 1, 7: 2}),
        Constant((dut.taken, 0)),
        counted,
        data,
        cycles=9,
        reset={4},
    )
    assert counted.values == [0, 0, 1, 2, 2, 0, 0, 0, 0]
    assert data.values[7:] == [11, 22]
