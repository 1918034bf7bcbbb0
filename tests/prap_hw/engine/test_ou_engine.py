"""The OU engine: gathered vectors into conversion requests."""

import random

import pytest

from prap_hw.engine.ou_engine import OUEngine
from tests.support.rtl.bench import Agent, Constant, Script, Sink, Source, Watch, simulate
from tests.support.rtl.ou_vectors import (
    Ring,
    Vector,
    check_requests_follow_the_vectors_one_a_cycle_without_a_dead_cycle,
    config,
    decoded,
    expected,
    payloads,
    random_vectors,
)


@pytest.mark.parametrize(
    ("adcs", "cols", "cell_bits", "dac_bits"),
    [
        (8, 8, 1, 1),
        (4, 8, 1, 1),
        (2, 8, 1, 1),
        (1, 8, 1, 1),
        (8, 16, 1, 1),
        (2, 16, 1, 1),
        (4, 24, 1, 1),
        (8, 16, 1, 2),
        (4, 8, 2, 4),
        (8, 8, 4, 1),
        (3, 8, 2, 2),
        (7, 32, 1, 4),
    ],
    ids=str,
)
def test_requests_follow_the_vectors_one_a_cycle_without_a_dead_cycle(
    adcs, cols, cell_bits, dac_bits
):
    check_requests_follow_the_vectors_one_a_cycle_without_a_dead_cycle(
        adcs, cols, cell_bits, dac_bits
    )


@pytest.mark.parametrize(("adcs", "cols"), [(4, 4), (3, 4), (8, 12), (12, 12), (5, 20)], ids=str)
def test_a_pattern_goes_on_in_the_next_ou(adcs, cols):
    cfg = config(adcs, cols, size=48, slots=32)
    dut = OUEngine(cfg)
    vectors = [Vector([9, 200], 5), Vector([1], 4, final=False), Vector([2], 4), Vector([3], 1)]
    want = expected(dut.layouts, vectors, 3)
    source = Source(dut.i, payloads(dut, vectors))
    requests, meanings = Sink(dut.o_request, len(want[0])), Sink(dut.o_pending, len(want[1]))
    last = Constant((dut.last_descriptor, 3))
    done = Watch(dut.ou_done)
    simulate(dut, source, last, requests, meanings, done)
    assert decoded(dut, requests, meanings) == want
    assert meanings.cycles == list(range(len(want[0])))
    assert sum(done.values) == sum(-(-v.patterns * 8 // cols) for v in vectors)


def test_an_ou_in_which_no_pattern_begins_needs_no_slot():
    # Four bitlines: a pattern takes two OUs of 8 requests, and its slot with the first. With four
    # slots: the fifth pattern waits in cycle 64; its second OU does not.
    cfg = config(4, 4, slots=4)
    dut = OUEngine(cfg)
    vectors = [Vector([3], 5)]
    requests, meanings = Sink(dut.o_request, 80), Sink(dut.o_pending, 80)
    source = Source(dut.i, payloads(dut, vectors))
    release = Script(dut.released, {70: 1})
    simulate(dut, source, Constant((dut.last_descriptor, 0)), release, requests, meanings)
    assert decoded(dut, requests, meanings) == expected(dut.layouts, vectors, 0)
    assert meanings.cycles == [*range(64), *range(71, 87)]


@pytest.mark.parametrize("seed", range(5))
def test_requests_are_the_same_with_stalls_on_all_sides_and_few_slots(seed):
    draw = random.Random(seed)
    adcs, cols, size = ((8, 8, 32), (4, 16, 32), (8, 24, 48), (8, 12, 48), (16, 16, 32))[seed]
    cfg = config(adcs, cols, 16, size, crossbars=2, cell_bits=(1, 1, 1, 1, 4)[seed])
    dut = OUEngine(cfg)
    vectors = random_vectors(draw, 10, 4)
    want = expected(dut.layouts, vectors, 3)
    simulate(
        dut,
        Source(dut.i, payloads(dut, vectors), stall=0.3, seed=seed),
        Constant((dut.last_descriptor, 3)),
        requests := Sink(dut.o_request, len(want[0]), stall=0.3, seed=seed + 1),
        meanings := Sink(dut.o_pending, len(want[1]), stall=0.3, seed=seed + 2),
        Ring(dut, cfg, 0.2, seed + 3),
    )
    assert decoded(dut, requests, meanings) == want


def test_ous_fill_column_blocks_then_row_blocks_then_crossbars_and_start_over():
    # 32 x 32 cells hold 8 x 4 OUs of 4 x 8, so OU 32 is the first of crossbar 1.
    cfg = config(slots=64, crossbars=2)
    dut = OUEngine(cfg)
    vectors = [Vector([1], 33), Vector([1], 1)]
    requests, meanings = Sink(dut.o_request, 34 * 8), Sink(dut.o_pending)
    simulate(
        dut,
        Source(dut.i, payloads(dut, vectors)),
        Constant((dut.last_descriptor, 0)),
        requests,
        meanings,
    )
    places = [place[:3] for place in decoded(dut, requests, meanings)[0]][::8]
    assert places[:5] == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 1, 0)]
    assert places[31:] == [(0, 7, 3), (1, 0, 0), (0, 0, 0)]


def test_an_ou_waits_until_as_many_slots_are_free_as_an_ou_has_patterns():
    # Four slots, two patterns an OU: two OUs fill the ring, in 32 cycles. The third opens slots,
    # so it begins in the cycle after the second release.
    cfg = config(4, 16, slots=4)
    dut = OUEngine(cfg)
    vectors = [Vector([3, 4], 4), Vector([5], 1)]
    total = 2 * 8 * 4 + 8 * 2
    requests, meanings = Sink(dut.o_request, total), Sink(dut.o_pending, total)
    stall = Watch(dut.stall_slots)

    class Release(Agent):
        def drive(self, ctx, cycle):
            ctx.set(dut.released, cycle in (70, 80))

    source = Source(dut.i, payloads(dut, vectors))
    last = Constant((dut.last_descriptor, 1))
    simulate(dut, source, last, Release(), requests, meanings, stall)
    assert decoded(dut, requests, meanings) == expected(dut.layouts, vectors, 1)
    assert meanings.cycles == [*range(64), *range(81, 97)]
    assert [c for c, value in enumerate(stall.values) if value] == list(range(64, 81))


def test_an_ou_that_adds_to_open_slots_needs_none():
    cfg = config(slots=4)
    dut = OUEngine(cfg)
    vectors = [Vector([3], 4, final=False), Vector([5], 4)]
    requests, meanings = Sink(dut.o_request, 64), Sink(dut.o_pending, 64)
    source = Source(dut.i, payloads(dut, vectors))
    simulate(dut, source, Constant((dut.last_descriptor, 1)), requests, meanings)
    assert decoded(dut, requests, meanings) == expected(dut.layouts, vectors, 1)
    assert meanings.cycles == list(range(64))


def test_causes_of_idle_cycles_are_told_apart():
    cfg = config(slots=4)
    dut = OUEngine(cfg)
    vectors = [Vector([3], 1)]
    requests = Sink(dut.o_request, 8, ready=lambda cycle: cycle not in (8, 9))
    meanings = Sink(dut.o_pending, 8, ready=lambda cycle: cycle != 5)
    watches = [Watch(signal) for signal in (dut.stall_gather, dut.stall_port, dut.stall_slots)]
    source = Source(dut.i, payloads(dut, vectors), begin=3)
    simulate(dut, source, Constant((dut.last_descriptor, 0)), requests, meanings, *watches)
    gather, port, slots = ([c for c, v in enumerate(w.values) if v] for w in watches)
    # The vector comes in cycle 3; issues in 3, 4, 6, 7, 10 to 13: request 7's register is full in
    # 8 and 9, and in 5 the meaning is not taken.
    assert meanings.cycles == [3, 4, 6, 7, 10, 11, 12, 13]
    assert port == [5, 8, 9]
    assert gather[:4] == [0, 1, 2, 14]
    assert slots == []


def test_reset_empties_the_engine_and_frees_all_slots():
    cfg = config(slots=4)
    dut = OUEngine(cfg)
    vectors = [Vector([9, 9], 4)]
    early = Source(dut.i, payloads(dut, vectors))
    late = Source(dut.i, payloads(dut, vectors), begin=41)
    requests, meanings = Sink(dut.o_request, 64, hold=False), Sink(dut.o_pending, hold=False)
    simulate(dut, early, late, Constant((dut.last_descriptor, 0)), requests, meanings, reset={40})
    requests.taken = [item for item in requests.taken if item[0] > 41]
    meanings.taken = [item for item in meanings.taken if item[0] >= 41]
    assert decoded(dut, requests, meanings) == expected(dut.layouts, vectors, 0)
    assert requests.cycles == list(range(42, 74))
