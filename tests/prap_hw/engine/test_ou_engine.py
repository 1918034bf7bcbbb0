"""The OU engine: gathered vectors into conversion requests."""

import random
from dataclasses import dataclass

import pytest

from prap_hw.common.layouts import Layouts
from prap_hw.engine.ou_engine import OUEngine
from refmodel.config import EngineConfig
from tests.support.bench import Agent, Constant, Script, Sink, Source, Watch, simulate

ROWS = 4


def config(adcs=8, cols=8, slots=16, size=32, crossbars=1, cell_bits=1, dac_bits=1) -> EngineConfig:
    return EngineConfig(
        ou_rows=ROWS,
        ou_cols=cols,
        adcs=adcs,
        slots=slots,
        crossbar_size=size,
        crossbars=crossbars,
        cell_bits=cell_bits,
        dac_bits=dac_bits,
    )


@dataclass
class Vector:
    """A gathered vector: the rows in use, the patterns under it, whether it ends its series."""

    rows: list[int]
    patterns: int
    final: bool = True


def payloads(dut: OUEngine, vectors: list[Vector]) -> list[int]:
    """Vectors as payloads; the rows that do not count hold leftovers."""
    return [
        dut.layouts.gathered.const(
            {
                "rows": v.rows + [0xFF] * (ROWS - len(v.rows)),
                "count": len(v.rows),
                "patterns": v.patterns,
                "final": v.final,
                **({"inputs": sum(v.rows)} if dut.config.offset else {}),
            }
        ).as_bits()
        for v in vectors
    ]


def expected(layouts: Layouts, vectors: list[Vector], last_descriptor: int):
    """Requests and what they mean, as loops over the words of the docstring."""
    cfg, columns = layouts.config, layouts.columns
    width = 8 // cfg.cell_bits
    digits = 8 // cfg.dac_bits
    requests, meanings = [], []
    ou = gather = slot = series = 0
    accumulate = False
    for v in vectors:
        series = series if accumulate else slot
        for first in range(0, v.patterns * width, cfg.ou_cols):
            end = min(first + cfg.ou_cols, v.patterns * width)
            crossbar, rest = divmod(ou, cfg.ous_per_crossbar)
            row_block, col_block = divmod(rest, cfg.col_blocks)
            for digit in range(digits):
                mask = (1 << cfg.dac_bits) - 1
                driven = [row >> digit * cfg.dac_bits & mask for row in v.rows]
                driven += [0] * (ROWS - len(v.rows))
                for chunk, begin in enumerate(range(first, end, cfg.adcs)):
                    mine = range(begin, min(begin + cfg.adcs, end))
                    ended = sum(column % width == width - 1 for column in mine)
                    bit = begin % width
                    requests.append((crossbar, row_block, col_block, chunk, driven))
                    meaning = {
                        "scale": digit * cfg.dac_bits + (bit * cfg.cell_bits) * columns.narrow,
                        "first": int(digit == 0 and bit == 0),
                        "ended": ended if digit == digits - 1 else 0,
                        "lane": begin // width - first // width,
                        "slot": (series + begin // width) % cfg.slots,
                        "accumulate": int(accumulate),
                        "final": int(v.final),
                        "top": int(bit + cfg.adcs == width),
                        "low": int(digit == 0),
                        "carry": int(digit == 0 and begin == first and bit != 0),
                        "inputs": sum(v.rows),
                    }
                    if not columns.narrow:
                        counting = cfg.adcs
                        if len(columns.phases) > 1:
                            counting = min(cfg.adcs, first + cfg.ou_cols - begin)
                        meaning["align"] = columns.alignments.index((bit, counting))
                    names = [str(name) for name, _ in layouts.pending]
                    meanings.append({name: meaning[name] for name in names})
            ou += 1
        slot = series + v.patterns if v.final else series
        accumulate = not v.final
        gather += 1
        if gather > last_descriptor:
            gather = ou = 0
    return requests, meanings


def decoded(dut: OUEngine, requests: Sink, meanings: Sink):
    fields = [dut.layouts.request.from_bits(bits) for bits in requests.payloads]
    return (
        [
            (f["crossbar"], f["row_block"], f["col_block"], f["select"], [*map(int, f["digits"])])
            for f in fields
        ],
        [
            {name: item[name] for name, _ in dut.layouts.pending}
            for item in map(dut.layouts.pending.from_bits, meanings.payloads)
        ],
    )


class Ring(Agent):
    """Frees slots at random, never more than are in use: those of complete patterns."""

    def __init__(self, dut, cfg, chance: float, seed: int):
        self.dut, self.chance = dut, chance
        self.draw = random.Random(seed)
        self.layout = dut.layouts.pending
        self.held = 0
        pending = dut.o_pending
        self.signals = (pending.valid, pending.ready, pending.payload.as_value())

    def drive(self, ctx, cycle):
        free = int(self.held > 0 and self.draw.random() < self.chance)
        self.held -= free
        ctx.set(self.dut.released, free)

    def see(self, cycle, *values):
        valid, ready, payload = values
        item = self.layout.from_bits(payload)
        self.held += item["ended"] if valid and ready and item["final"] else 0


def random_vectors(draw: random.Random, count: int, most: int) -> list[Vector]:
    vectors, again = [], 0
    for _ in range(count):
        patterns = again or draw.randint(1, most)
        final = draw.random() < 0.7
        again = 0 if final else patterns
        rows = [draw.randint(0, 255) for _ in range(draw.randint(1, ROWS))]
        vectors.append(Vector(rows, patterns, final))
    vectors[-1].final = True
    return vectors


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
    cfg = config(adcs, cols, size=48, slots=64, cell_bits=cell_bits, dac_bits=dac_bits)
    dut = OUEngine(cfg)
    width = 8 // cell_bits
    per_ou = cols // width
    vectors = [
        Vector([0b10110101, 7], per_ou + 1),
        Vector([1, 2, 255, 128], 1, final=False),
        Vector([200], 1),
    ]
    want = expected(dut.layouts, vectors, 1)
    source = Source(dut.i, payloads(dut, vectors))
    requests, meanings = Sink(dut.o_request, len(want[0])), Sink(dut.o_pending, len(want[1]))
    done = Watch(dut.ou_done)
    last = Constant((dut.last_descriptor, 1))
    simulate(dut, source, last, requests, meanings, done)
    assert decoded(dut, requests, meanings) == want
    # The vector is seen in cycle 0: its meaning is told then, its request is out one later.
    assert meanings.cycles == list(range(len(want[0])))
    assert requests.cycles == list(range(1, len(want[0]) + 1))
    assert sum(done.values) == 4
    # A full OU and one of one pattern, and two of one pattern.
    full, single = (-(-used // adcs) * 8 // dac_bits for used in (cols, width))
    assert source.sent == [full + n * single - 1 for n in (1, 2, 3)]


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
