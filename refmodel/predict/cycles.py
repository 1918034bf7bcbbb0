"""Predicted cycles: an event model of the engine, from its published latencies alone.

Nothing here comes from the RTL. The model knows what the stages of the engine are, how many cycles
each item occupies them, and the constants below, which are the hardware's contract; it computes
when each item enters and leaves each stage, as the latest of the times that it waits for. Blocks of
``position_lanes`` output positions repeat: once the state of the stages, seen from the present, has
occurred before, the rest follows by multiplication.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np

from refmodel.config import EngineConfig
from refmodel.predict.events import COUNTED, layer_events, requests_of_gathers
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import merge_steps

FIRST_READ = 4
"""Cycles from start accepted to the first byte read: two for the index memories, one each for the
segment's address and the segment register."""

GATHER_LATENCY = 2
"""Cycles from a vector's last byte read to its first request: the byte, the vector's buffer."""

CONVERT_LATENCY = 6
"""Cycles from a pattern's last request to its slot complete, the crossbar's latency not counted:
one for the request register, three of shift-and-add, two of the store."""

MERGE_LATENCY = 2
"""Cycles from a position's last merge step to its first accumulator read: shift, add. Accumulators
that are written in the cycle in which they are read read as written."""

OUTPUT_LATENCY = 5
"""Cycles from an accumulator read to its output: read, bias, multiply, shift, clip."""

EVENTS = COUNTED
"""Fields of a prediction that count events; the hardware has counters of these names."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Cycles and events of one image of one layer.

    Attributes
    ----------
    cycles
        From start accepted to the last output accepted, everything loaded, ports always ready.
    conversion, gather, merge, output
        Least cycles of each of the four (docs/specification/architecture.md, Bounds): of merge for
        a block of positions, of the others for a position.
    start
        Cycles allowed once: the first group's conversion and the outputs, of a block of positions;
        the last group's merge, or that of all groups where the last block is short; crossbar
        latency, 100.
    positions, blocks
        Output positions, and blocks of ``position_lanes`` of them.
    requests, ous, gathered, index_reads, merged, outputs
    conversions, wordline_drives, cells_read, index_bits
    psum_updates, merge_shifts, accumulator_updates
        Events of one image, as :data:`refmodel.predict.events.COUNTED` has them.
    stall_gather, stall_slots
        Cycles of one image, from the first vector to the last request, in which no request was
        issued: for want of a gathered vector, or of free slots.
    """

    cycles: int
    conversion: int
    gather: int
    merge: int
    output: int
    start: int
    positions: int
    blocks: int
    requests: int
    ous: int
    gathered: int
    index_reads: int
    merged: int
    outputs: int
    conversions: int
    wordline_drives: int
    cells_read: int
    index_bits: int
    psum_updates: int
    merge_shifts: int
    accumulator_updates: int
    stall_gather: int
    stall_slots: int

    @property
    def bound(self) -> int:
        """Least cycles of an image: the largest of what the four take in all."""
        each = max(self.conversion, self.gather, self.output)
        return max(each * self.positions, self.merge * self.blocks)

    @property
    def limit(self) -> int:
        """1.02 times the bound, plus the start; owed where R <= digits * ceil(C / A)."""
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
    rows = layer.gather_rows
    requests = requests_of_gathers(layer, config)
    count = layer.group_outputs.astype(np.int64)
    least_steps = -(-count * layer.terms // config.merge_lanes)
    group_end = np.cumsum(layer.group_gathers)
    group_requests = np.add.reduceat(requests, group_end - layer.group_gathers)
    outputs = layer.out_shape[2]
    events = layer_events(layer, config)
    walk = EngineWalk(layer, config)
    cycles = walk.run()
    lanes = min(config.position_lanes, layer.positions)
    last = least_steps[-1] if layer.positions % lanes == 0 else least_steps.sum()
    start = lanes * (int(group_requests[0]) + outputs) + int(last) + config.crossbar_latency + 100
    return Prediction(
        cycles=cycles,
        conversion=int(requests.sum()),
        gather=int(rows.sum()),
        merge=int(least_steps.sum()),
        output=outputs,
        start=start,
        positions=layer.positions,
        blocks=config.blocks_of(layer.positions),
        **{name: events[name] for name in EVENTS},
        stall_gather=walk.stall_gather,
        stall_slots=walk.stall_slots,
    )


class Walk(Protocol):
    """Stages of one or several engines while blocks of positions go by."""

    @property
    def now(self) -> int:
        """A cycle that moves on with the blocks."""
        ...

    @property
    def stalls(self) -> tuple[int, ...]:
        """The counts so far."""
        ...

    def block(self, positions: int) -> None:
        """Let one block of so many output positions go by."""
        ...

    def state(self) -> tuple:
        """All that the rest depends on, with times as seen from :attr:`now`."""
        ...

    def advance(self, cycles: int, stalls: Sequence[int]) -> None:
        """Move all times on, and what has been counted."""
        ...


def walk_positions(walk: Walk, positions: int, lanes: int) -> None:
    """Let positions go by in blocks of ``lanes``, the last of which may be short.

    Where a state occurs again, whole periods go by at once.
    """
    seen: dict[tuple, tuple[int, int, tuple[int, ...]]] = {}
    blocks, short = divmod(positions, lanes)
    block = 0
    while block < blocks:
        walk.block(lanes)
        block += 1
        now, state, stalls = walk.now, walk.state(), walk.stalls
        if state in seen:
            before, then, old = seen[state]
            periods = (blocks - block) // (block - before)
            counted = [periods * (new - was) for new, was in zip(stalls, old, strict=True)]
            walk.advance(periods * (now - then), counted)
            block += periods * (block - before)
            seen.clear()
        else:
            seen[state] = block, now, stalls
    if short:
        walk.block(short)


class EngineWalk:
    """One engine's stages while blocks of positions go by. Times are cycles since the start.

    Parameters
    ----------
    layer
        The layer that it runs.
    config
        Its sizes.

    Attributes
    ----------
    merge_end
        Cycle of the present block's last merge step.
    output_ends
        Cycles in which the last accumulators of the two blocks before were read. For a tile, the
        walk over all its engines sets them after each block.
    stall_gather, stall_slots
        Cycles without a request: for want of a gathered vector, or of free slots.
    """

    def __init__(self, layer: LayerProgram, config: EngineConfig):
        requests = requests_of_gathers(layer, config)
        self.config = config
        self.positions, self.outputs = layer.positions, layer.out_shape[2]
        vectors = zip(
            layer.gather_rows.tolist(),
            layer.gather_patterns.tolist(),
            requests.tolist(),
            layer.gather_accumulate.tolist(),
            strict=True,
        )
        groups = zip(
            layer.group_gathers.tolist(),
            layer.group_kept.tolist(),
            merge_steps(layer, config.merge_lanes).tolist(),
            strict=True,
        )
        # Per group: its vectors, each (rows, patterns, requests, accumulates); slots; merge steps.
        self.groups = [(list(islice(vectors, count)), *rest) for count, *rest in groups]
        self.read_end = FIRST_READ - 1
        self.vectors = deque([-1] * config.gather_buffers, config.gather_buffers)
        self.issue_end = -1
        self.merge_end = -1
        self.output_ends = [-1, -1]
        self.reserved = 0
        self.freed = config.slots
        self.releases: deque[tuple[int, int]] = deque()
        self.stall_gather = 0
        self.stall_slots = 0

    def run(self) -> int:
        """Walk the positions; returns the cycle in which the last output is accepted."""
        walk_positions(self, self.positions, self.config.position_lanes)
        return self.output_ends[-1] + OUTPUT_LATENCY

    @property
    def now(self) -> int:
        """The cycle of the last request."""
        return self.issue_end

    @property
    def stalls(self) -> tuple[int, ...]:
        """Cycles without a request so far: for want of a vector, and of slots."""
        return self.stall_gather, self.stall_slots

    def state(self) -> tuple:
        """All times seen from the last request, and the ring."""
        now = self.now
        while self.releases and self.releases[0][0] <= now + 1:
            self.freed += self.releases.popleft()[1]
        return (
            self.read_end - now,
            *(time - now for time in self.vectors),
            self.merge_end - now,
            *(time - now for time in self.output_ends),
            self.freed - self.reserved,
            *((time - now, slots) for time, slots in self.releases),
        )

    def advance(self, cycles: int, stalls: Sequence[int]) -> None:
        """Let whole periods go by, of so many cycles and stalls together."""
        self.stall_gather += stalls[0]
        self.stall_slots += stalls[1]
        self.read_end += cycles
        self.vectors = deque((time + cycles for time in self.vectors), self.vectors.maxlen)
        self.issue_end += cycles
        self.merge_end += cycles
        self.output_ends = [time + cycles for time in self.output_ends]
        self.releases = deque((time + cycles, slots) for time, slots in self.releases)

    def block(self, positions: int) -> None:
        """Gather, convert, merge and send one block of output positions.

        A gather's vectors of all positions come one after another; those behind the first have
        their slots in banks of their own, which are free where the first one's are. A group is
        merged when its sums of the last position are there, all positions at once; its outputs are
        those of one position after another.
        """
        latency = self.config.crossbar_latency + CONVERT_LATENCY
        for index, (vectors, kept, steps) in enumerate(self.groups):
            for rows, patterns, requests, accumulates in vectors:
                self._vector(rows, patterns, requests, accumulates)
                for _ in range(positions - 1):
                    self._vector(rows, patterns, requests, 1)
            begin = max(self.merge_end + 1, self.issue_end + latency)
            if index == 0:
                # The half that the last block but one had is free in the cycle of its last read: a
                # step addresses its accumulators in the cycle after. So two blocks of P positions
                # cost a half M steps and P O reads, M + P O <= 2 max(M, P O), and no cycle besides.
                begin = max(begin, self.output_ends[0])
            self.merge_end = begin + steps - 1
            # Freed slots can be reserved in the cycle after the group's last step.
            self.releases.append((self.merge_end + 1, kept))
        begin = max(self.output_ends[1] + 1, self.merge_end + MERGE_LATENCY)
        self.output_ends = [self.output_ends[1], begin + positions * self.outputs - 1]

    def _vector(self, rows: int, patterns: int, requests: int, accumulates: int) -> None:
        """Read one vector, and issue the requests of the OUs under it.

        ``accumulates``: whether its slots are reserved already.
        """
        # A buffer is free in the cycle after its vector's last request.
        self.read_end = max(self.read_end, self.vectors[0]) + rows
        time = max(self.issue_end + 1, self.read_end + GATHER_LATENCY)
        if self.issue_end >= 0:  # Before the first vector nothing is stalled.
            self.stall_gather += time - self.issue_end - 1
        if not accumulates:
            waited = self._wait_for_slots(patterns, time)
            self.stall_slots += waited
            time += waited
        self.issue_end = time + requests - 1
        self.vectors.append(self.issue_end)

    def _wait_for_slots(self, patterns: int, time: int) -> int:
        """Reserve the slots of a vector's patterns; returns how long its OUs wait, from ``time``.

        An OU in which patterns begin waits until as many slots are free as ever begin in one.
        """
        config = self.config
        most, width = config.patterns_per_ou, config.columns_per_weight
        columns, opened, waited = patterns * width, 0, 0
        for first in range(0, columns, config.ou_cols):
            while self.releases and self.releases[0][0] <= time:
                self.freed += self.releases.popleft()[1]
            if self.freed - self.reserved >= patterns - opened + most - 1:
                break  # All OUs that are left find their slots free.
            end = min(first + config.ou_cols, columns)
            opens = -(-end // width) - opened
            if opens:
                while self.freed - self.reserved < most:
                    at, slots = self.releases.popleft()
                    waited += max(0, at - time)
                    time = max(time, at)
                    self.freed += slots
                self.reserved += opens
                opened += opens
            time += -(-(end - first) // config.adcs) * config.digits
        self.reserved += patterns - opened
        return waited
