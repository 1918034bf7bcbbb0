"""The reuse merge, between a model of the store and a model of the accumulators."""

import random
from dataclasses import dataclass, field
from itertools import product

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from prap_hw.engine.reuse_merge import ReuseMerge, adds_up_to
from refmodel.config import SHIFT_NONE, EngineConfig
from tests.support.rtl.bench import Agent, Constant, Source, simulate

SLOTS = 16


@dataclass
class Group:
    """A group: its partial sums and, to each output, its (slot, stored shift, minus) words."""

    first: int
    psums: list[int]
    words: list[list[tuple[int, int, int]]]
    write: bool = True
    identity: bool = False

    @property
    def last(self) -> int:
        return self.first + len(self.words) - 1

    def contribution(self, output: int) -> int:
        if self.identity:
            return self.psums[output - self.first] << 8
        return sum(
            (-self.psums[slot] if minus else self.psums[slot]) << shift
            for slot, shift, minus in self.words[output - self.first]
            if shift != SHIFT_NONE
        )

    def steps(self, lanes: int) -> list[list[tuple[int, int, int]]]:
        """Words as the merge takes them: blocks of aligned outputs, term after term."""
        result = []
        for block in range(self.first // lanes, self.last // lanes + 1):
            for term in range(len(self.words[0])):
                result.append(
                    [
                        self.words[output - self.first][term]
                        if self.first <= output <= self.last
                        else (0, SHIFT_NONE, 0)
                        for output in range(block * lanes, (block + 1) * lanes)
                    ]
                )
        return result


def identity_group(first: int, psums: list[int], write: bool = True) -> Group:
    return Group(first, psums, [[(0, 0, 0)]] * len(psums), write, identity=True)


@dataclass
class World(Agent):
    """The store with all partial sums in its ring, and the accumulators.

    Group g of the walk is complete from cycle ``complete[g]`` on, from cycle 0 where there is none.
    ``read_after[p]`` is the cycle in which half p % 2 is handed back after position p.
    """

    dut: ReuseMerge
    groups: list[Group]
    complete: dict[int, int] = field(default_factory=dict)
    read_after: dict[int, int] = field(default_factory=dict)

    def __post_init__(self):
        self.ring: list[int] = []
        self.when: list[int] = []
        for number, group in enumerate(self.groups):
            self.when += [self.complete.get(number, 0)] * len(group.psums)
            self.ring += group.psums
        self.freed = 0
        self.slots = [0] * self.dut.config.merge_lanes
        self.acc: dict[tuple[int, int], int] = {}
        self.updates: list[tuple[int, int, int]] = []
        self.takes: list[tuple[int, int]] = []
        self.merged = 0
        self.merging: list[int] = []
        self.done_cycles: list[int] = []
        self.positions: list[dict[int, int]] = []
        dut, lanes = self.dut, self.dut.config.merge_lanes
        self.signals = (
            dut.taken,
            dut.merged,
            dut.write_half,
            dut.write_block,
            dut.write_en,
            dut.write_first,
            dut.position_done,
            dut.read_valid,
            dut.read_half,
            dut.read_block,
            *(dut.o_slot[lane] for lane in range(lanes)),
            *(dut.contribution[lane] for lane in range(lanes)),
        )
        self.addressed = None

    def drive(self, ctx, cycle):
        lanes = self.dut.config.merge_lanes
        for lane in range(lanes):
            ctx.set(self.dut.psum[lane], self.slots[lane])
        # Groups become complete in order.
        complete = 0
        for when in self.when:
            if when > cycle:
                break
            complete += 1
        ctx.set(self.dut.completed, min(complete - self.freed, SLOTS))
        halves = 0
        for position, at in self.read_after.items():
            halves |= (at == cycle) << position % 2
        ctx.set(self.dut.half_read, halves)

    def see(self, cycle, *values):
        lanes = self.dut.config.merge_lanes
        taken, merged, half, block, enable, first, done, read, read_half, read_block = values[:10]
        slots, contributions = values[10 : 10 + lanes], values[10 + lanes :]
        # Ring index to sum: the slots of the groups that are not yet freed.
        self.slots = [self._read(slot) for slot in slots]
        if taken:
            self.takes.append((cycle, taken))
            self.freed += taken
        self.merged += merged
        if merged:
            self.merging.append(cycle)
        for lane in range(lanes):
            if enable >> lane & 1:
                # A write follows its address by one cycle.
                assert self.addressed == (1, half, block), f"cycle {cycle}"
                output = block * lanes + lane
                before = 0 if first else self.acc[half, output]
                self.acc[half, output] = before + contributions[lane]
                self.updates.append((cycle, half, output))
        self.addressed = (read, read_half, read_block)
        if done:
            half = len(self.positions) % 2
            self.positions.append({o: v for (h, o), v in self.acc.items() if h == half})
            self.done_cycles.append(cycle)

    def _read(self, slot: int) -> int:
        """What the ring holds at a slot, seen from the first one in use."""
        at = self.freed + (slot - self.freed) % SLOTS
        return self.ring[at] if at < len(self.ring) else 0xBAD


class Headers(Source):
    """Headers, with the mark of a position's last one."""

    def __init__(self, dut, groups, of_position, **options):
        payloads = [
            dut.layouts.header.const(
                {
                    "kept": len(group.psums),
                    "first_output": group.first,
                    "last_output": group.last,
                    "write": group.write,
                }
            ).as_bits()
            for group in groups
        ]
        super().__init__(dut.i_headers, payloads, **options)
        self.dut, self.of_position = dut, of_position

    def drive(self, ctx, cycle):
        super().drive(ctx, cycle)
        last = len(self.sent) % self.of_position == self.of_position - 1
        ctx.set(self.dut.i_headers_last, last)


def run(groups, of_position, *, lanes=1, terms=1, stalls=(0, 0), seed=0, outputs=16, **world):
    """Merge positions of ``of_position`` groups each; returns the world."""
    dut = ReuseMerge(EngineConfig(merge_lanes=lanes, slots=SLOTS, max_outputs=outputs))
    identity = groups[0].identity
    words = [
        dut.layouts.words.const(
            [{"slot": slot, "shift": shift, "minus": minus} for slot, shift, minus in step]
        ).as_bits()
        for group in groups
        for step in group.steps(lanes)
    ]
    model = World(dut, groups, **world)
    total = len(groups) // of_position

    class Done(Agent):
        @property
        def done(self):
            return len(model.positions) == total

    simulate(
        dut,
        Constant((dut.identity, identity), (dut.last_term, terms - 1)),
        Headers(dut, groups, of_position, stall=stalls[0], seed=seed),
        Source(dut.i_words, [] if identity else words, stall=stalls[1], seed=seed + 1),
        model,
        Done(),
        limit=3000,
    )
    return model


def check(model: World, groups, of_position) -> None:
    """Every position's accumulators, and what was counted and freed."""
    for p, got in enumerate(model.positions):
        want: dict[int, int] = {}
        for group in groups[p * of_position : (p + 1) * of_position]:
            for output in range(group.first, group.last + 1):
                before = 0 if group.write else want[output]
                want[output] = before + group.contribution(output)
        assert {o: got[o] for o in want} == want, f"position {p}"
    assert [count for _, count in model.takes] == [len(group.psums) for group in groups]
    assert model.merged == sum(len(group.words) * len(group.words[0]) for group in groups)


def random_groups(draw, count, *, terms, identity=False, outputs=16, positions=1, kept=12):
    """Groups of one position whose first one writes all outputs; the others touch some."""
    groups = []
    for _ in range(positions):
        for number in range(count):
            first = 0 if number == 0 else draw.randint(0, outputs - 1)
            size = outputs if number == 0 else draw.randint(1, min(outputs - first, kept))
            sums = size if identity else draw.randint(1, kept)
            psums = [draw.randint(-(1 << 20), 1 << 20) for _ in range(sums)]
            if identity:
                groups.append(identity_group(first, psums, number == 0))
                continue
            words = [
                [
                    (
                        draw.randrange(sums),
                        draw.choice([SHIFT_NONE, *range(15)]),
                        draw.randint(0, 1),
                    )
                    for _ in range(terms)
                ]
                for _ in range(size)
            ]
            groups.append(Group(first, psums, words, number == 0))
    return groups


@pytest.mark.parametrize("shift", [*range(15), SHIFT_NONE])
@pytest.mark.parametrize("minus", [0, 1])
def test_every_shift_and_sign_of_one_word(shift, minus):
    group = Group(0, [1003, -77], [[(1, shift, minus)]])
    model = run([group], 1)
    k = shift - 8
    want = 0 if shift == SHIFT_NONE else int((77 if minus else -77) * 2.0**k * 256)
    assert model.positions == [{0: want}]


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("terms", [1, 2, 3, 4])
def test_groups_at_any_output_with_any_terms_match_their_sums(lanes, terms):
    draw = random.Random(10 * lanes + terms)
    groups = random_groups(draw, 4, terms=terms, outputs=11, positions=2)
    model = run(groups, 4, lanes=lanes, terms=terms, outputs=11)
    check(model, groups, 4)


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_identity_takes_the_slots_in_order(lanes):
    draw = random.Random(lanes)
    groups = random_groups(draw, 4, terms=1, identity=True, outputs=7, positions=2)
    model = run(groups, 4, lanes=lanes, outputs=7)
    check(model, groups, 4)


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_single_block_groups_back_to_back_touch_one_block_in_every_cycle(lanes):
    # Ten groups of one step each on outputs of block 0: read-modify-write in every cycle.
    draw = random.Random(lanes)
    groups = [
        Group(lanes - 1, [draw.randint(-500, 500)], [[(0, draw.randint(0, 14), 0)]], g == 0)
        for g in range(10)
    ]
    model = run(groups, 10, lanes=lanes)
    check(model, groups, 10)
    assert [cycle for cycle, _, _ in model.updates] == list(range(2, 12))
    assert model.done_cycles == [11]


@pytest.mark.parametrize(("lanes", "terms"), [(1, 1), (2, 3), (4, 2)], ids=str)
def test_a_step_every_cycle_without_a_dead_cycle_between_groups_and_positions(lanes, terms):
    # The words are there from cycle 0 on, so step n issues in cycle n; the accumulator of a block
    # is written two cycles after its last term.
    draw = random.Random(terms)
    groups = random_groups(draw, 3, terms=terms, outputs=9, positions=2)
    model = run(groups, 3, lanes=lanes, terms=terms)
    check(model, groups, 3)
    steps = [len(group.steps(lanes)) for group in groups]
    ends = [sum(steps[: g + 1]) - 1 for g in range(6)]
    assert model.merging == list(range(sum(steps)))
    assert [cycle for cycle, _ in model.takes] == ends
    assert model.done_cycles == [ends[2] + 2, ends[5] + 2]
    assert sorted({cycle for cycle, _, _ in model.updates}) == [
        cycle + 2 for cycle in range(terms - 1, sum(steps), terms)
    ]


def test_a_group_begins_when_all_its_sums_are_complete():
    groups = [
        Group(0, [5, 6, 7], [[(2, 8, 0)], [(0, 8, 0)]]),
        Group(0, [9], [[(0, 8, 1)], [(0, 9, 0)]], write=False),
    ]
    model = run(groups, 2, complete={0: 12, 1: 30})
    check(model, groups, 2)
    assert model.merging == [12, 13, 30, 31]


def test_a_position_waits_for_its_accumulator_half():
    groups = [Group(0, [p + 1], [[(0, 8, 0)], [(0, 9, 1)]]) for p in range(4)]
    model = run(groups, 1, read_after={0: 20, 1: 33})
    check(model, groups, 1)
    # Both halves are free at first; half 0 again in cycle 20, half 1 in cycle 33.
    assert model.merging == [0, 1, 2, 3, 20, 21, 33, 34]


def test_a_half_that_is_taken_for_one_step_in_the_cycle_in_which_it_is_free_is_used():
    groups = [Group(0, [p + 1], [[(0, 8, 0)]]) for p in range(5)]
    model = run(groups, 1, read_after={0: 20, 1: 33, 2: 40})
    check(model, groups, 1)
    assert model.merging == [0, 1, 20, 33, 40]


@pytest.mark.parametrize("seed", range(4))
def test_pauses_of_headers_words_and_sums_change_nothing(seed):
    draw = random.Random(seed)
    lanes, terms = (1, 2, 4, 4)[seed], (2, 1, 3, 1)[seed]
    groups = random_groups(draw, 4, terms=terms, outputs=10, positions=3)
    complete, at = {}, 0
    for number in range(len(groups)):
        at += draw.randint(0, 12)
        complete[number] = at
    model = run(
        groups,
        4,
        lanes=lanes,
        terms=terms,
        stalls=((0.5, 0), (0, 0.5), (0.4, 0.4), (0.3, 0.3))[seed],
        seed=seed,
        complete=complete,
        read_after={0: 250, 1: 260},
    )
    check(model, groups, 4)


def test_words_may_pause_between_the_terms_of_an_output():
    words = [[(0, 8, 0), (1, 8, 0), (0, 9, 0)]] * 2
    groups = [Group(0, [100, 3], words)]
    for seed in range(3):
        model = run(groups, 1, terms=3, stalls=(0, 0.7), seed=seed)
        assert model.positions == [{0: 303 << 8, 1: 303 << 8}]


def test_a_sum_is_known_without_adding():
    bits, m = 3, Module()
    numbers = [Signal(bits, name=f"number_{n}") for n in range(3)]
    found = Signal()
    m.d.comb += found.eq(adds_up_to(*numbers))
    simulator = Simulator(m)

    async def testbench(ctx):
        for values in product(range(1 << bits), repeat=3):
            for number, value in zip(numbers, values, strict=True):
                ctx.set(number, value)
            one, other, total = values
            assert ctx.get(found) == ((one + other) % (1 << bits) == total), values

    simulator.add_testbench(testbench)
    simulator.run()
