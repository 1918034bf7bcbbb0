"""Blocks of several output positions: engines, the parts that blocks need, and mutants of these."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from prap_hw.engine.block_reader import BlockReader
from prap_hw.engine.segment_replay import SegmentReplay
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict.cycles import EVENTS, predict
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import engine_config_for
from tests.support.layers.builders import random_codes, random_layer_program
from tests.support.layers.hand import TINY_ENGINE, hand_codes, hand_layer
from tests.support.rtl import hardware
from tests.support.rtl.bench import Agent, Script, Watch, simulate
from tests.support.rtl.mutants import CYCLES, VALUES, Mutant, apply

COUNTERS = "counters"

# Seed, engine, layer: what is not said is drawn.
CASES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "4 positions, 4 terms, a block of one": (
        1,
        {"position_lanes": 4},
        {"identity": False, "terms": 4, "in_shape": (3, 3, 2), "kernel": (1, 1), "outputs": 6},
    ),
    "2 positions, 2 lanes, OUs of 12, multi-OU patterns": (
        2,
        {"position_lanes": 2, "merge_lanes": 2, "ou_cols": 12, "adcs": 5, "crossbar_latency": 7},
        {"identity": False, "long_patterns": True, "in_shape": (3, 3, 6), "outputs": 5},
    ),
    "4 positions, 4 lanes, offset binary, several banks": (
        3,
        {"position_lanes": 4, "merge_lanes": 4, "cell_bits": 4, "dac_bits": 4, "ou_cols": 16,
         "adcs": 16},
        {"identity": False, "long_patterns": True, "in_shape": (3, 4, 6), "outputs": 6},
    ),
    "4 positions, dense, strides, pads and dilation": (
        10,
        {"position_lanes": 4, "adcs": 3},
        {"identity": True, "stride": (2, 1), "dilation": (2, 1), "pads": (2, 1, 0, 1),
         "kernel": (2, 2), "in_shape": (3, 3, 2), "outputs": 3, "groups": 1},
    ),
    "4 positions, depthwise, 2 buffers": (
        5,
        {"position_lanes": 4, "gather_buffers": 2},
        {"identity": False, "groups": 4, "in_shape": (3, 3, 4), "outputs": 4, "max_kept": 2},
    ),
    "2 positions, OUs of 4 columns": (
        6,
        {"position_lanes": 2, "ou_cols": 4, "adcs": 3},
        {"identity": False, "in_shape": (2, 3, 3), "kernel": (1, 1), "outputs": 4},
    ),
    "fewer positions than a block has": (
        12,
        {"position_lanes": 4},
        {"in_shape": (1, 2, 2), "kernel": (1, 1), "outputs": 1, "groups": 1, "pads": (0, 0, 0, 0)},
    ),
}  # fmt: skip


@cache
def case(name: str) -> tuple[LayerProgram, EngineConfig, np.ndarray]:
    seed, sizes, options = CASES[name]
    rng = np.random.default_rng(seed)
    layer = random_layer_program(rng, **options)
    base: dict[str, Any] = {"crossbar_size": 32, "ou_rows": layer.ou_rows} | sizes
    config = engine_config_for([layer], EngineConfig(**base))
    return layer, config, random_codes(rng, layer, 2)


def differences(
    layer: LayerProgram, config: EngineConfig, images: np.ndarray, stall: float = 0.0
) -> set[str]:
    """Run images; what is not as the golden model and the prediction have it."""
    trace = golden.run_layer_serial(layer, images, config)
    order = golden.psum_order(layer, config)
    want = predict(layer, config)
    found = set()
    runs = hardware.run_engine(layer, images, config, stall=stall, seed=1)
    for number, run in enumerate(runs):
        values = trace.psums[number].ravel()[order], trace.accumulators[number].ravel()
        outputs = trace.outputs[number].ravel()
        if [run.psums, run.accumulators, run.outputs] != [each.tolist() for each in
                                                          (*values, outputs)]:  # fmt: skip
            found.add(VALUES)
        names = (*EVENTS, *(() if stall else ("stall_gather", "stall_slots")))
        if any(run.counters[name] != getattr(want, name) for name in names):
            found.add(COUNTERS)
        if run.cycles < want.cycles or (not stall and run.cycles != want.cycles):
            found.add(CYCLES)
    return found


LONG = (
    "2 positions, 2 lanes, OUs of 12, multi-OU patterns",
    "2 positions, OUs of 4 columns",
    "4 positions, dense, strides, pads and dilation",
)
"""Cases that take some seconds."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in CASES]
)
def test_values_cycles_and_events_are_as_predicted(name):
    layer, config, images = case(name)
    # A second image begins with the halves and the ring as the first one left them.
    few = predict(layer, config).cycles < 300 or name in LONG
    assert differences(layer, config, images[: 1 + few]) == set()


@pytest.mark.long
@pytest.mark.parametrize("name", list(CASES)[:2] + list(CASES)[-1:])
def test_values_are_the_same_with_stalls(name):
    layer, config, images = case(name)
    assert differences(layer, config, images, stall=0.4) == set()


@pytest.mark.parametrize("lanes", [2, 4])
@pytest.mark.parametrize("positions", [5, 8])
def test_outputs_that_are_taken_late_are_right(lanes, positions):
    # One pattern, few conversions: the next block merges as soon as a half is read.
    layer = hand_layer([[(1, 1)]], outputs=3, positions=positions)
    config = replace(TINY_ENGINE, position_lanes=lanes)
    assert differences(layer, config, hand_codes(layer), stall=0.7) == set()


class Blocks(Agent):
    """Fills and reads halves as merge and requantiser do, by chance, and counts beside them.

    Reads begin when a position is whole; a position is one read. ``free`` says how many halves may
    be filled.
    """

    def __init__(self, dut: BlockReader, sizes: list[int], seed: int):
        self.dut = dut
        self.sizes = sizes
        self.chance = random.Random(seed)
        self.free, self.left, self.whole, self.given = 2, list(sizes), 0, 0
        self.reads: list[tuple[int, int, int]] = []
        self.read = False
        self.signals = (
            dut.position_done, dut.half_read, dut.read_half, dut.read_turn
        )  # fmt: skip

    def drive(self, ctx, cycle):
        done = bool(self.left) and self.free > 0 and self.chance.random() < 0.6
        ctx.set(self.dut.block_done, done)
        ctx.set(self.dut.last_turn, self.left[0] - 1 if done else 0)
        if done:
            self.whole += self.left.pop(0)
            self.free -= 1
        # Nothing is read before its pulse, which may come in this cycle.
        self.read = bool(ctx.get(self.dut.position_done)) or self.given > len(self.reads)
        self.read = self.read and self.chance.random() < 0.7
        ctx.set(self.dut.position_read, self.read)

    def see(self, cycle, *values):
        position_done, half_read, half, turn = values
        # As many pulses as positions, each as early as one a cycle allows.
        assert position_done == (self.whole > self.given)
        self.given += position_done
        if self.read:
            self.reads.append((half, turn, half_read))
        else:
            assert half_read == 0
        self.free += half_read != 0

    @property
    def done(self):
        return len(self.reads) == sum(self.sizes)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lanes", [2, 4])
def test_positions_are_read_in_turn_and_a_half_is_free_with_its_last_one(lanes, seed):
    chance = random.Random(seed)
    sizes = [chance.choice([lanes, lanes, *range(1, lanes)]) for _ in range(40)]
    dut = BlockReader(replace(TINY_ENGINE, position_lanes=lanes))
    agent = Blocks(dut, sizes, seed)
    simulate(dut, agent)
    want = [
        (number % 2, turn, 1 << number % 2 if turn == size - 1 else 0)
        for number, size in enumerate(sizes)
        for turn in range(size)
    ]
    assert agent.reads == want


@pytest.mark.parametrize("lanes", [2, 4])
@pytest.mark.parametrize("positions", [1, 3, 4, 9])
def test_segments_come_again_for_every_position_of_a_block(lanes, positions):
    """The replay by itself: gathers of 2, 1 and 3 segments, a walk of addresses 100, 101, ..."""
    dut = SegmentReplay(replace(TINY_ENGINE, position_lanes=lanes))
    gathers = [2, 1, 3]
    # What comes, in order: for each segment what the walk and the memories have, and what is due.
    drives: list[dict[str, int]] = []
    want: list[tuple[int, ...]] = []
    width = dut.layouts.address_bits + 1
    for first in range(0, positions, lanes):
        block = range(first, min(first + lanes, positions))
        number = 0
        for gather, segments in enumerate(gathers):
            for place, position in enumerate(block):
                for index in range(segments):
                    segment = number + index + 1 | (index + 1) << width
                    # Behind a block's first gather the walk has moved on.
                    at = position if gather == 0 else min(block.stop, positions - 1)
                    drives.append(
                        {
                            "index": index,
                            "last_segment": index == segments - 1,
                            "last_gather": gather == 2,
                            "i_segment": segment if place == 0 else 0,
                            "i_base": 100 + at,
                            "i_last_position": at == positions - 1,
                        }
                    )
                    last = position == block[-1]
                    ends = index == segments - 1
                    want.append(
                        (
                            place == 0, segment, 100 + position, place, last,
                            gather == 0 and ends, ends and last,
                        )
                    )  # fmt: skip
            number += segments
    names = ("fresh", "segment", "base", "turn", "last_turn", "step", "gather_done")
    watches = [Watch(getattr(dut, name)) for name in names]
    scripts = [
        Script(
            getattr(dut, name), {cycle + 1: int(each[name]) for cycle, each in enumerate(drives)}
        )
        for name in drives[0]
    ]
    scripts += [
        Script(dut.start, {0: 1}),
        Script(dut.accept, dict.fromkeys(range(1, len(drives) + 1), 1)),
    ]
    simulate(dut, *scripts, *watches, cycles=len(drives) + 1)
    found = list(zip(*(watch.values[1:] for watch in watches), strict=True))
    assert found == want


def blocks() -> tuple[LayerProgram, EngineConfig]:
    """Five positions in blocks of two: two groups, the second of two gathers; some words none."""
    layer = hand_layer(
        [[(3, 2)], [(2, 1), (1, 2)]], outputs=3, positions=5, terms=2, none_share=0.2, seed=5
    )
    return layer, replace(TINY_ENGINE, position_lanes=2)


def fours() -> tuple[LayerProgram, EngineConfig]:
    """Six positions in blocks of four, kernels of 2x2: several segments to a gather."""
    layer = random_layer_program(
        np.random.default_rng(3), identity=False, long_patterns=False, groups=1,
        in_shape=(3, 4, 2), outputs=3, kernel=(2, 2), stride=(1, 1), dilation=(1, 1),
        pads=(0, 0, 0, 0), max_kept=3,
    )  # fmt: skip
    return layer, replace(TINY_ENGINE, max_positions=4, position_lanes=4)


def series() -> tuple[LayerProgram, EngineConfig]:
    """Patterns of two OUs, whose sums add into one slot, for three positions at a time."""
    layer = hand_layer([[(8, 2), (3, 2)]], outputs=2, positions=6, series=True)
    return layer, replace(TINY_ENGINE, position_lanes=4)


def split() -> tuple[LayerProgram, EngineConfig]:
    """OUs of 12 columns: every second pattern goes on in the next OU."""
    layer = hand_layer([[(4, 3)], [(2, 4)]], outputs=3, positions=3)
    return layer, replace(TINY_ENGINE, ou_cols=12, position_lanes=2)


def ring() -> tuple[LayerProgram, EngineConfig]:
    """Three patterns in a ring of four slots: it has room for those of one position."""
    layer = hand_layer([[(1, 3)]], outputs=4, positions=4, terms=4)
    return layer, replace(TINY_ENGINE, slots=4, position_lanes=2)


def single() -> tuple[LayerProgram, EngineConfig]:
    """One output and one merge step: a position is read in the cycle in which it is whole."""
    layer = hand_layer([[(1, 1)]], outputs=1, positions=9)
    return layer, replace(TINY_ENGINE, dac_bits=4, position_lanes=4)


def halves() -> tuple[LayerProgram, EngineConfig]:
    """As many merge steps as outputs: two blocks leave a half of accumulators no spare cycle."""
    layer = hand_layer([[(1, 1)]], outputs=4, positions=8, terms=2)
    return layer, replace(TINY_ENGINE, dac_bits=4, position_lanes=2)


def lagging() -> tuple[LayerProgram, EngineConfig]:
    """A merge that is two blocks behind when the walk has given its last position."""
    layer = hand_layer([[(1, 1)]], outputs=4, positions=9, terms=4)
    return layer, replace(TINY_ENGINE, dac_bits=4, position_lanes=4)


LAYERS: dict[str, Callable[[], tuple[LayerProgram, EngineConfig]]] = {
    function.__name__: function
    for function in (blocks, fours, series, split, ring, single, halves, lagging)
}


def found_in(name: str) -> set[str]:
    """Run an image of a layer, of a short one two; which checks fail, or how it ended."""
    layer, config = LAYERS[name]()
    try:
        return differences(layer, config, hand_codes(layer, 1 + (name == "single")))
    except hardware.StoppedError:
        return {"a fault"}
    except AssertionError:
        return {"a hang"}


# What notices is one of these at least; where it is counters or cycles, it is they alone.
MUTANTS = [
    Mutant(
        "segment_replay", "every kept segment is the first one",
        (("kept.addr.eq(self.index)", "kept.addr.eq(0)"),), "fours",
    ),
    Mutant(
        "segment_replay", "every position has the first one's address",
        (("noted.addr.eq(self.turn)", "noted.addr.eq(0)"),), "blocks",
    ),
    Mutant(
        "segment_replay", "the walk moves on with every gather",
        (("self.step.eq(first_gather & self.last_segment)", "self.step.eq(self.last_segment)"),),
        "blocks",
    ),
    Mutant(
        "segment_replay", "a short block is not seen",
        (("(self.turn == lanes - 1) | self.i_last_position", "(self.turn == lanes - 1)"),),
        "fours",
    ),
    Mutant(
        "pattern_controller", "segments are read anew for every position",
        (("accept & replay.fresh", "accept"),), "blocks",
    ),
    Mutant(
        "pattern_controller", "the merge takes a short block for a whole one",
        (("Mux(ended & (known == 1), replay.last, config.position_lanes - 1)",
          "config.position_lanes - 1"),),
        "blocks",
    ),
    Mutant(
        "pattern_controller", "the merge takes the block before the last for the last",
        (("ended & (known == 1)", "ended"),), "lagging",
    ),
    Mutant(
        "ou_engine", "the next position goes on behind the first one's OUs",
        (("col_block.eq(first_col_block)", "col_block.eq(col_block + 1)"),), "blocks",
    ),
    Mutant(
        "ou_engine", "the next position has slots of its own",
        (("                            slot.eq(series),\n                            col_block",
          "                            col_block"),),
        "blocks",
    ),
    Mutant(
        "ou_engine", "slots are reserved for every position",
        (("held = accumulate | (vector.turn != 0)", "held = accumulate"),), "ring",
    ),
    Mutant(
        "ou_engine", "the second position adds to what the first one left",
        (("gather_done = last_ou & vector.last_turn",
          "gather_done = last_ou & (vector.turn == 0)"),),
        "series",
    ),
    Mutant(
        "psum_store", "a slot is complete with the first position's sum",
        (("completing = final & last_turn", "completing = final & (turn == 0)"),), "blocks",
    ),
    Mutant(
        "psum_store", "all positions have one bank",
        (("enable & (turn == position)", "enable"),), "blocks",
    ),
    Mutant(
        "psum_store", "sums add to those of the first position",
        (("Array(of_bank)[turn]", "of_bank[0]"),), "series",
    ),
    Mutant(
        "reuse_merge", "words are counted once for all positions",
        (("merged, shifted = self._times(merged), self._times(shifted)", "pass"),),
        "blocks", COUNTERS,
    ),
    Mutant(
        "reuse_merge", "positions that are not there are updated",
        (("Mux(self.i_headers_last_turn >= turn, enable, 0)", "enable"),), "blocks", COUNTERS,
    ),
    Mutant(
        "accumulators", "the first position is read for all",
        (("place += lanes * self.read_turn", "place += 0"),), "blocks",
    ),
    Mutant(
        "block_reader", "a half is free before its last position is read",
        (("(self.read_turn == last)", "(self.read_turn == 0)"),), "blocks",
    ),
    Mutant(
        "block_reader", "the last position of a block that comes is not seen",
        (("Mux(here, self.last_turn, Array(lasts)[self.read_half])",
          "Array(lasts)[self.read_half]"),),
        "single",
    ),
    Mutant(
        "block_reader", "positions are whole a cycle late",
        (("self.block_done | (waiting != 0)", "(waiting != 0)"),), "halves", CYCLES,
    ),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
def test_the_rtl_as_it_is_passes(layer):
    assert found_in(layer) == set()


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_mutant_is_caught(monkeypatch, mutant):
    apply(monkeypatch, mutant)
    found = found_in(mutant.layer)
    if mutant.caught == VALUES:
        assert found & {VALUES, "a fault", "a hang"}
    else:
        assert found == {mutant.caught}, mutant
