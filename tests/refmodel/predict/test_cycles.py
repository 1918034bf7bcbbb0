"""Predicted cycles: worked by hand, against the engine, and the detection of periods.

The hand-worked cases count cycles from `start` in cycle 0. A gather reads a byte a cycle, from
cycle 4 on (FIRST_READ). The first request of a vector is issued 2 cycles after its last byte
(GATHER_LATENCY); with 8 ADCs an OU of one pattern has 8 requests, one a digit. A slot is complete
latency + 6 cycles after its last request (CONVERT_LATENCY), and merged from then on. The first
accumulator is read 2 cycles after the position's last merge step (MERGE_LATENCY), and sent 5 cycles
after that (OUTPUT_LATENCY). A position merges into the half of the last but one from the cycle of
that one's last read on.
"""

import dataclasses
import itertools

import numpy as np
import pytest

from refmodel.config import EngineConfig
from refmodel.predict import cycles
from refmodel.predict.cycles import predict
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import engine_config_for
from tests.support.layers.builders import random_layer_program
from tests.support.layers.hand import TINY_ENGINE, hand_codes, hand_layer
from tests.support.rtl.hardware import run_engine

Case = tuple[LayerProgram, EngineConfig, int]


def one_pattern(positions: int) -> Case:
    """One group of one gather of three rows with one pattern, one output.

    Bytes are read in cycles 4, 5 and 6. Requests: 6 + 2 = 8 to 15. Complete: 15 + 1 + 6 = 22. The
    merge's only step: 22. Accumulator read: 24. Output: 29.
    Position 1: bytes 7 to 9, requests 16 to 23, complete and merged 30, read 32, output 37: every
    further position costs its 8 requests.
    """
    return (
        hand_layer([[(3, 1)]], outputs=1, positions=positions),
        TINY_ENGINE,
        29 + 8 * (positions - 1),
    )


def merge_bound(positions: int) -> Case:
    """Two groups of one pattern on one row, 8 outputs of 4 terms, one lane: 32 steps a group.

    Bytes 4 and 5. Requests 6 to 13 and 14 to 21. Complete 13 + 7 = 20 and 28. Merge 20 to 51, then
    52 to 83. Read from 83 + 2 = 85 to 92. Last output 97.
    Position 1: its first slot is complete at 36, but the merge goes on at 84: 84 to 147, read from
    149 to 156, last output 161: 64 merge steps a position.
    """
    layer = hand_layer([[(1, 1)], [(1, 1)]], outputs=8, positions=positions, terms=4)
    return layer, TINY_ENGINE, 97 + 64 * (positions - 1)


def ring_stalls() -> Case:
    """A ring of 4 slots and 3 patterns, 4 outputs of 4 terms: 16 merge steps; 2 positions.

    Byte 4. Requests 6 to 29 for three OUs, slots 0 to 2. Complete 29 + 7 = 36, merge 36 to 51.
    Position 1: its first OU takes the last free slot, 30 to 37. The second one finds none until the
    three that the merge frees with its step in 51 can be taken, in 52: requests 52 to 59 and 60 to
    67. Complete 74, merge 74 to 89, read 91 to 94, last output 99. Without the wait it would be
    85: position 0's 29 + 24 = 53, complete 60, merge 60 to 75, read 77 to 80, output 85.
    """
    layer = hand_layer([[(1, 3)]], outputs=4, positions=2, terms=4)
    return layer, dataclasses.replace(TINY_ENGINE, slots=4), 99


def half_waits() -> Case:
    """One pattern, 16 outputs, 4 lanes: 8 requests, 4 merge steps, 16 outputs a position.

    Position 0: requests 6 to 13, complete 20, merge 20 to 23, read 25 to 40.
    Position 1: requests 14 to 21, complete 28, merge 28 to 31, read 41 to 56.
    Position 2: requests 22 to 29, complete 36, but its accumulator half is read until 40: merge 40
    to 43, read 57 to 72.
    Position 3: requests 30 to 37, complete 44, half 1 is read until 56: merge 56 to 59, read 73 to
    88, last output 93.
    """
    layer = hand_layer([[(1, 1)]], outputs=16, positions=4)
    return layer, dataclasses.replace(TINY_ENGINE, merge_lanes=4), 93


def half_is_the_bound(positions: int) -> Case:
    """One pattern, 16 outputs, one lane: 8 requests, 16 merge steps, 16 outputs a position.

    Position 0: requests 6 to 13, complete 20, merge 20 to 35, read 37 to 52.
    Position 1: complete 28, merge 36 to 51, read 53 to 68.
    Position 2: complete 36, but half 0 is read until 52: merge 52 to 67, read 69 to 84.
    Position 3: half 1 is read until 68: merge 68 to 83, read 85 to 100, last output 105.
    So every position costs its 16 outputs, and a dead cycle anywhere between the merge and the
    outputs of a half would show: a half serves every second position, and 16 + 16 cycles of merge
    and outputs are all that two positions have.
    """
    layer = hand_layer([[(1, 1)]], outputs=16, positions=positions)
    return layer, TINY_ENGINE, 57 + 16 * (positions - 1)


def one_step() -> Case:
    """Digits of 4 bits, 4 outputs in 4 lanes: 2 requests, 1 merge step, 4 outputs a position.

    Byte 4. Requests 6 and 7, complete 7 + 7 = 14, merge 14, read 16 to 19.
    Position 1: byte 5, requests 8 and 9, complete 16, merge 16, read 20 to 23.
    Position 2: complete 18, half 0 is read until 19: merge 19, read 24 to 27.
    Position 3: half 1 is read until 23: merge 23, read 28 to 31. So on: a half is taken and used up
    in the cycle in which it is free. Position 5: read 36 to 39, last output 44.
    """
    layer = hand_layer([[(1, 1)]], outputs=4, positions=6)
    return layer, dataclasses.replace(TINY_ENGINE, dac_bits=4, merge_lanes=4), 44


def gather_bound() -> Case:
    """OUs of 16 rows, two gathers of 16 with one pattern each, two buffers.

    Bytes 4 to 19 and 20 to 35. Requests 21 to 28 and 37 to 44: each waits for its vector. A buffer
    is free in the cycle after its vector's last request, 29, well before it is needed.
    Position 1: bytes 36 to 51 (the first buffer is free at 29), 52 to 67 (the second at 45).
    Requests 53 to 60, 69 to 76. Complete 76 + 7 = 83; one output of one word: merge 83, read 85,
    output 90.
    """
    layer = hand_layer([[(16, 1), (16, 1)]], outputs=1, positions=2, ou_rows=16)
    return layer, dataclasses.replace(TINY_ENGINE, ou_rows=16, gather_buffers=2), 90


def buffers_wait() -> Case:
    """Two buffers, latency 5: gathers of (rows, patterns) (1, 4), (1, 1) and (16, 1).

    Bytes 4 and 5. Requests 6 to 37 and 38 to 45. The third vector's first byte is read when the
    first vector's last request has freed a buffer: 38 to 53. Requests 55 to 62. Complete: 62 + 5 +
    6 = 73, merge 73, read 75, last output 80. With a buffer more it would be 71: bytes 6 to 21,
    requests 46 to 53, complete 64, read 66, output 71.
    """
    layer = hand_layer([[(1, 4), (1, 1), (16, 1)]], outputs=1, ou_rows=16)
    config = dataclasses.replace(TINY_ENGINE, ou_rows=16, gather_buffers=2, crossbar_latency=5)
    return layer, config, 80


def single_adc() -> Case:
    """One ADC, two patterns side by side in OUs of 16 columns, three patterns, two outputs.

    The first OU has 2 * 8 columns * 8 digits = 128 requests, the second, of one pattern, 64. Bytes
    4 and 5, requests 7 to 134 and 135 to 198. Complete 205, merge 205 and 206, read 208 and 209,
    last output 214.
    """
    layer = hand_layer([[(2, 3)]], outputs=2)
    return layer, dataclasses.replace(TINY_ENGINE, adcs=1, ou_cols=16), 214


def blocks_of_two() -> Case:
    """One group of two patterns on three rows, 8 outputs of 4 terms; 3 positions, two at a time.

    Position 0: bytes 4 to 6, requests 8 to 23; position 1: bytes 7 to 9, requests 24 to 39. Both
    are complete 39 + 7 = 46, and merged in 32 steps, 46 to 77. Read from 79 to 94, 16 outputs.
    Position 2, by itself: bytes 10 to 12, requests 40 to 55, complete 62, merge 78 to 109, read 111
    to 118, last output 123. Each by itself, the three would have 96 merge steps, from 30 to 125.
    """
    layer = hand_layer([[(3, 2)]], outputs=8, positions=3, terms=4)
    return layer, dataclasses.replace(TINY_ENGINE, position_lanes=2), 123


def blocks_with_a_full_ring() -> Case:
    """Three patterns in a ring of four slots, 4 outputs of 4 terms: 2 blocks of 2 positions.

    Byte 4, requests 6 to 29, slots 0 to 2. Position 1: byte 5, requests 30 to 53: its slots are
    reserved already. Complete 60, merge 60 to 75. Position 2: byte 6; its first OU takes the last
    slot, 54 to 61. The second one finds none until the three that the merge frees in 75 can be
    taken, in 76: requests 76 to 91. Position 3: 92 to 115. Complete 122, merge 122 to 137, read 139
    to 146, 8 outputs, last output 151.
    """
    layer = hand_layer([[(1, 3)]], outputs=4, positions=4, terms=4)
    return layer, dataclasses.replace(TINY_ENGINE, slots=4, position_lanes=2), 151


def blocks_of_one_step() -> Case:
    """Digits of 4 bits, one output: 2 requests, 1 merge step for 4 positions, 4 outputs.

    Position 0: byte 4, requests 6 and 7; positions 1 to 3: requests to 13. Complete 20, merge 20,
    read 22 to 25. Positions 4 to 7: requests to 21, complete 28, read 30 to 33. Position 8:
    requests 22 and 23, complete 30, merge 30, read 34 (the outputs before it are read to 33), last
    output 39.
    """
    layer = hand_layer([[(1, 1)]], outputs=1, positions=9)
    return layer, dataclasses.replace(TINY_ENGINE, dac_bits=4, position_lanes=4), 39


HAND = {
    "one pattern, one position": one_pattern(1),
    "one pattern, two positions": one_pattern(2),
    "merge bound, one position": merge_bound(1),
    "merge bound, three positions": merge_bound(3),
    "ring stalls": ring_stalls(),
    "accumulator half waits": half_waits(),
    "accumulator half is the bound, two positions": half_is_the_bound(2),
    "accumulator half is the bound, seven positions": half_is_the_bound(7),
    "one merge step": one_step(),
    "gather bound": gather_bound(),
    "buffers wait": buffers_wait(),
    "single ADC": single_adc(),
    "blocks of two": blocks_of_two(),
    "blocks with a full ring": blocks_with_a_full_ring(),
    "blocks of one step": blocks_of_one_step(),
}


@pytest.mark.parametrize("name", HAND)
def test_prediction_matches_the_case_worked_by_hand(name):
    layer, config, want = HAND[name]
    assert predict(layer, config).cycles == want


@pytest.mark.parametrize("name", HAND)
def test_the_engine_takes_the_cycles_worked_by_hand(name):
    layer, config, want = HAND[name]
    (run,) = run_engine(layer, hand_codes(layer), config)
    assert run.cycles == want
    assert run.counters["cycles"] == want


def test_bounds_and_limit_by_hand():
    # One pattern (8 requests), 1 row, 16 outputs in 4 lanes (4 steps), 16 outputs to send: the
    # output is the bound, 16 * 4 positions = 64. Start: 8 + 4 + 16 + latency 1 + 100 = 129. Limit:
    # 1.02 * 64 = 65.28, so 65 + 129.
    layer, config, _ = half_waits()
    got = predict(layer, config)
    assert (got.conversion, got.gather, got.merge, got.output) == (8, 1, 4, 16)
    assert (got.bound, got.start, got.limit, got.positions) == (64, 129, 194, 4)
    # Events of the 4 positions.
    assert (got.requests, got.ous, got.gathered, got.merged, got.outputs) == (32, 4, 4, 64, 64)


def test_conversion_counts_the_columns_in_use():
    # Three patterns, two to an OU: 128 requests and 64 with one ADC; 2 OUs.
    layer, config, _ = single_adc()
    got = predict(layer, config)
    assert (got.conversion, got.ous, got.bound) == (192, 2, 192)
    # Twelve gathers of 16 rows are not fewer than their bytes.
    layer, config, _ = gather_bound()
    assert predict(layer, config).bound == 2 * 32


def test_merge_bound_counts_words_and_the_steps_count_blocks():
    # Outputs 3 to 6 touch two blocks of four: 2 steps, though the bound of 4 words is 1. What is
    # owed is the bound's business: the start has the last group's merge as 1 as well.
    spans = [(0, 8), (3, 4)]
    layer = hand_layer([[(1, 1)], [(1, 1)]], outputs=8, spans=spans)
    config = dataclasses.replace(TINY_ENGINE, merge_lanes=4)
    got = predict(layer, config)
    assert got.merge == 2 + 1
    assert got.start == 8 + 1 + 8 + 1 + 100
    assert got.merged == 12


@pytest.mark.parametrize(
    "constant",
    ["FIRST_READ", "GATHER_LATENCY", "CONVERT_LATENCY", "MERGE_LATENCY", "OUTPUT_LATENCY"],
)
@pytest.mark.parametrize("by", [-1, 1])
def test_no_constant_can_change_unseen(monkeypatch, constant, by):
    monkeypatch.setattr(cycles, constant, getattr(cycles, constant) + by)
    different = [
        n for n, (layer, config, want) in HAND.items() if predict(layer, config).cycles != want
    ]
    assert different == list(HAND)


@pytest.mark.parametrize("name", ["buffers wait", "ring stalls", "accumulator half waits"])
def test_no_wait_can_be_forgotten(monkeypatch, name):
    """A model without buffers, ring or halves predicts fewer cycles in the case that shows it."""
    layer, config, want = HAND[name]
    if name == "buffers wait":
        forgetful = dataclasses.replace(config, gather_buffers=16)
        assert predict(layer, forgetful).cycles == 71 < want
        return
    if name == "ring stalls":
        forgetful = dataclasses.replace(config, slots=256)
        assert predict(layer, forgetful).cycles == 85 < want
        return
    block, ends = cycles.EngineWalk.block, []

    def free_halves(self, positions):
        self.output_ends = [-1, self.output_ends[1]]
        block(self, positions)
        ends.append(self.merge_end)

    monkeypatch.setattr(cycles.EngineWalk, "block", free_halves)
    # The outputs, one a cycle, take as long: only the merges are earlier, the last one at 44 to 47.
    assert predict(layer, config).cycles == want
    assert ends[-1] == 47 < 59


_state = cycles.EngineWalk.state
_numbers = itertools.count()


def never(self):
    """A state that never returns, so that there is no period."""
    return (*_state(self), next(_numbers))


def many_positions(seed: int) -> tuple[LayerProgram, EngineConfig]:
    rng = np.random.default_rng(seed)
    layer = random_layer_program(
        rng, in_shape=(12, 14, int(rng.integers(1, 7))), stride=(1, 1), dilation=(1, 1)
    )
    latency = int(rng.choice([1, 5, 40]))
    base = EngineConfig(
        adcs=int(rng.choice([1, 2, 4, 8])),
        merge_lanes=int(rng.choice([1, 2, 4])),
        crossbar_latency=latency,
        gather_buffers=int(rng.choice([2, 3, 4, 16])),
        requests_in_flight=latency + 40,
        position_lanes=(1, 1, 2, 4)[seed % 4],
    )
    config = engine_config_for([layer], base)
    kept = int(layer.group_kept.max())
    slots = max(4, 1 << (kept - 1).bit_length())
    return layer, dataclasses.replace(config, slots=slots if rng.random() < 0.5 else config.slots)


@pytest.mark.parametrize("seed", range(40))
def test_detected_periods_change_nothing(monkeypatch, seed):
    layer, config = many_positions(seed)
    short = predict(layer, config)
    monkeypatch.setattr(cycles.EngineWalk, "state", never)
    assert predict(layer, config) == short


def test_a_period_is_found_early(monkeypatch):
    walked = []
    block = cycles.EngineWalk.block

    def counted(self, positions):
        walked.append(1)
        block(self, positions)

    monkeypatch.setattr(cycles.EngineWalk, "block", counted)
    for seed in range(40):
        walked.clear()
        layer, config = many_positions(seed)
        predict(layer, config)
        assert len(walked) < config.blocks_of(layer.positions), f"seed {seed}"


@pytest.mark.parametrize(
    ("left_out", "fields"), [("everything", 0), ("merge and all after it", 5)], ids=str
)
def test_a_state_that_leaves_something_out_is_found_out(monkeypatch, left_out, fields):
    """Mutants of the property above; the merge falls behind until the ring is full."""
    layer, config, want = merge_bound(40)
    assert predict(layer, config).cycles == want, left_out
    monkeypatch.setattr(cycles.EngineWalk, "state", lambda self: _state(self)[:fields])
    assert predict(layer, config).cycles != want, left_out
