"""Predicted cycles: an event model of the engine, from its published latencies alone.

Nothing here comes from the RTL. The model knows what the stages of the engine are, how many cycles
each item occupies them, and the constants below, which are the hardware's contract; it computes
when each item enters and leaves each stage, as the latest of the times that it waits for. Output
positions repeat: once the state of the stages, seen from the present, has occurred before, the rest
follows by multiplication.
"""

from dataclasses import dataclass

import numpy as np

from refmodel.compile import merge_steps
from refmodel.config import EngineConfig
from refmodel.program import LayerProgram

FIRST_READ = 4
"""Cycles from start accepted to the first byte read: two for the index memories, one each for the
segment's address and the segment register."""

GATHER_LATENCY = 2
"""Cycles from a vector's last byte read to its first request: the byte, then the vector's buffer."""

CONVERT_LATENCY = 6
"""Cycles from a pattern's last request to its slot complete, the crossbar's latency not counted: one
for the request register, three of shift-and-add, two of the store."""

MERGE_LATENCY = 3
"""Cycles from a position's last merge step to its first accumulator read: shift, add, hand over."""

OUTPUT_LATENCY = 5
"""Cycles from an accumulator read to its output: read, bias, multiply, shift, clip."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one image of one layer costs.

    Attributes
    ----------
    cycles
        From start accepted to the last output accepted, everything loaded, ports always ready.
    conversion, gather, merge, output
        Least cycles a position of each of the four, as ARCHITECTURE.md's Bounds have them.
    start
        Cycles allowed once: first group's conversion, last group's merge, outputs, crossbar
        latency, 100.
    positions
        Output positions.
    requests, ous, gathered, merged, outputs
        Events of one image: conversion requests (of ``adcs`` columns each), OU activations, bytes
        gathered, reuse words merged, outputs.
    """

    cycles: int
    conversion: int
    gather: int
    merge: int
    output: int
    start: int
    positions: int
    requests: int
    ous: int
    gathered: int
    merged: int
    outputs: int

    @property
    def bound(self) -> int:
        """Least cycles of an image: the largest of the four a position, times the positions."""
        return max(self.conversion, self.gather, self.merge, self.output) * self.positions

    @property
    def limit(self) -> int:
        """What is owed: 1.02 times the bound, plus the start."""
        return int(1.02 * self.bound) + self.start


def predict(layer: LayerProgram, config: EngineConfig) -> Prediction:
    """Predict the cycles and events of one image of a layer.

    Parameters
    ----------
    layer
        The program.
    config
        The engine; ``crossbar_latency`` is the fixed latency of its crossbars.
    """
    per_ou = config.patterns_per_ou
    chunks_per_pattern = config.columns_per_weight // config.adcs
    patterns = layer.gather_patterns.astype(np.int64)
    rows = layer.gather_rows
    full = config.digits * per_ou * chunks_per_pattern
    rest = patterns % per_ou
    whole = patterns // per_ou
    requests = whole * full + rest * config.digits * chunks_per_pattern
    ous = whole + (rest > 0)
    count = layer.group_outputs.astype(np.int64)
    steps = merge_steps(layer, config.merge_lanes)
    least_steps = -(-count * layer.terms // config.merge_lanes)
    group_end = np.cumsum(layer.group_gathers)
    group_requests = np.add.reduceat(requests, group_end - layer.group_gathers)
    outputs = layer.out_shape[2]
    start = (
        int(group_requests[0]) + int(steps[-1]) + outputs + config.crossbar_latency + 100
    )
    return Prediction(
        cycles=_Walk(layer, config).run(rows, patterns, steps),
        conversion=int(requests.sum()),
        gather=int(rows.sum()),
        merge=int(least_steps.sum()),
        output=outputs,
        start=start,
        positions=layer.positions,
        requests=int(requests.sum()) * layer.positions,
        ous=int(ous.sum()) * layer.positions,
        gathered=int(rows.sum()) * layer.positions,
        merged=int(count.sum()) * layer.terms * layer.positions,
        outputs=outputs * layer.positions,
    )


class _Walk:
    """The stages' state while positions go by. Times are cycles since start was accepted."""

    def __init__(self, layer: LayerProgram, config: EngineConfig):
        self.layer = layer
        self.config = config
        self.read_end = FIRST_READ - 1
        self.vectors = [-1] * config.gather_buffers
        self.issue_end = -1
        self.merge_end = -1
        self.output_ends = [-1, -1]
        self.reserved = 0
        self.freed = config.slots
        self.releases: list[tuple[int, int]] = []

    def run(self, rows: np.ndarray, patterns: np.ndarray, steps: np.ndarray) -> int:
        """Walk the positions; returns the cycle in which the last output is accepted."""
        self.rows, self.patterns, self.steps = rows.tolist(), patterns.tolist(), steps.tolist()
        seen: dict[tuple, tuple[int, int]] = {}
        position, total = 0, self.layer.positions
        while position < total:
            self._position()
            position += 1
            now = self.issue_end
            state = self._state(now)
            if state in seen:
                before, then = seen[state]
                periods = (total - position) // (position - before)
                self._advance(periods * (now - then))
                position += periods * (position - before)
                seen.clear()
            else:
                seen[state] = (position, now)
        return self.output_ends[-1] + OUTPUT_LATENCY

    def _state(self, now: int) -> tuple:
        """All times seen from ``now``, and the ring."""
        while self.releases and self.releases[0][0] <= now + 1:
            self.freed += self.releases.pop(0)[1]
        return (
            self.read_end - now,
            *(time - now for time in self.vectors),
            self.merge_end - now,
            *(time - now for time in self.output_ends),
            self.freed - self.reserved,
            *((time - now, slots) for time, slots in self.releases),
        )

    def _advance(self, cycles: int) -> None:
        """Let whole periods go by."""
        self.read_end += cycles
        self.vectors = [time + cycles for time in self.vectors]
        self.issue_end += cycles
        self.merge_end += cycles
        self.output_ends = [time + cycles for time in self.output_ends]
        self.releases = [(time + cycles, slots) for time, slots in self.releases]

    def _position(self) -> None:
        """Gather, convert, merge and send one output position."""
        layer, gather = self.layer, 0
        for group, gathers in enumerate(layer.group_gathers.tolist()):
            for _ in range(gathers):
                self._vector(gather)
                gather += 1
            complete = self.issue_end + self.config.crossbar_latency + CONVERT_LATENCY
            begin = max(self.merge_end + 1, complete)
            if group == 0:
                # The accumulator half is free once its last position but one has been read.
                begin = max(begin, self.output_ends[0] + 1)
            self.merge_end = begin + self.steps[group] - 1
            # Freed slots can be reserved in the cycle after the group's last step.
            self.releases.append((self.merge_end + 1, int(layer.group_kept[group])))
        begin = max(self.output_ends[1] + 1, self.merge_end + MERGE_LATENCY)
        self.output_ends = [self.output_ends[1], begin + layer.out_shape[2] - 1]

    def _vector(self, gather: int) -> None:
        """Read one vector, and issue the requests of the OUs under it."""
        config = self.config
        # A buffer is free in the cycle after its vector's last request.
        begin = max(self.read_end + 1, self.vectors[0] + 1)
        self.read_end = begin + self.rows[gather] - 1
        time = max(self.issue_end + 1, self.read_end + GATHER_LATENCY)
        left = self.patterns[gather]
        chunks = config.columns_per_weight // config.adcs
        opens = not self.layer.gather_accumulate[gather]
        while left:
            here = min(left, config.patterns_per_ou)
            if opens:
                while self.freed - self.reserved < config.patterns_per_ou:
                    at, slots = self.releases.pop(0)
                    time = max(time, at)
                    self.freed += slots
                self.reserved += here
            time += here * chunks * config.digits
            left -= here
        self.issue_end = time - 1
        self.vectors = [*self.vectors[1:], self.issue_end]
