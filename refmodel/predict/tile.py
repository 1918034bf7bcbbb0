"""Cycles of a layer on a tile of several engines."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.predict.cycles import (
    MERGE_LATENCY,
    OUTPUT_LATENCY,
    EngineWalk,
    Prediction,
    predict,
    walk_positions,
)
from refmodel.predict.deal import LayerPart, deal
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import accumulator_bits, engine_config_for


def accumulators(parts: Sequence[LayerPart | None], codes: np.ndarray) -> np.ndarray:
    """Add up the accumulators of all engines: those of the layer, int64 [N, OH, OW, O].

    Parameters
    ----------
    codes
        uint8 [N, H, W, C].
    """
    sums = [golden.accumulators(part, codes) for part in parts if part is not None]
    return np.sum(sums, axis=0)


def tile_config_for(
    layers: Sequence[LayerProgram], engines: int, base: EngineConfig | None = None
) -> EngineConfig:
    """Size the engines of a tile that holds each of some layers (one at a time) in one pass.

    As :func:`refmodel.program.sizes.engine_config_for` does for one engine, for the parts that each
    engine has; accumulators are as wide as the whole layers need.

    Raises
    ------
    InputError
        A layer needs more than any engines have.
    """
    base = EngineConfig() if base is None else base
    parts = [part for layer in layers for part in deal(layer, engines, base) if part is not None]
    config = engine_config_for(parts, base)
    widths = [accumulator_bits(layer, config) for layer in layers]
    try:
        return dataclasses.replace(config, acc_width=max(config.acc_width, *widths))
    except ValueError as error:
        names = ", ".join(layer.name for layer in layers)
        raise InputError(f"expected layers that a tile holds, found {error} ({names})") from None


def reduce_latency(engines: int) -> int:
    """Cycles from an accumulator's read in N engines to its sum, ready for requantisation.

    One for the accumulators, one for each level of a tree of registered adders, one for the buffer
    behind it: 2 + ceil(log2(N)).
    """
    return 2 + (engines - 1).bit_length()


@dataclass(frozen=True, kw_only=True)
class TilePrediction:
    """Cycles of one image of one layer in a tile.

    Attributes
    ----------
    cycles
        From start accepted to the last output accepted, everything loaded, ports always ready.
    engines
        To each engine the events of its part, None where it is idle. ``cycles`` is the tile's;
        stalls are those in the tile, where a half waits for all engines; ``output`` and ``outputs``
        are 0, since requantisation is the tile's.
    positions, outputs
        Output positions, and outputs of one position.
    start
        Cycles allowed once: the largest of the engines', and the reduction's latency.
    """

    cycles: int
    engines: tuple[Prediction | None, ...]
    positions: int
    outputs: int
    start: int

    @property
    def bound(self) -> int:
        """Least cycles of an image: those of the most loaded engine, or of the outputs."""
        busy = [item for item in self.engines if item is not None]
        each = [max(item.conversion, item.gather) for item in busy]
        merges = [item.merge * item.blocks for item in busy]
        return max(max(self.outputs, *each) * self.positions, *merges)

    @property
    def limit(self) -> int:
        """The cycles that are allowed: 1.02 times the bound, plus the start."""
        return int(1.02 * self.bound) + self.start


def predict_tile(parts: Sequence[LayerProgram | None], config: EngineConfig) -> TilePrediction:
    """Predict the cycles and events of one image of a layer that is dealt out to a tile.

    Each engine goes by :mod:`refmodel.predict.cycles`, and the engines meet in the accumulators
    alone: a block of positions is read, one output a cycle, when all engines have merged it and the
    one before has been read; an engine's half is free when it has been read.

    Parameters
    ----------
    parts
        Each engine's part of the layer, as :func:`deal` gives them; None: the engine has none.
    config
        Each engine; ``crossbar_latency`` is the fixed latency of its crossbars.
    """
    busy = [part for part in parts if part is not None]
    if not busy:
        raise ValueError("parts must have one that is not None")
    walk = _TileWalk(busy, config)
    total = walk.run() + reduce_latency(len(parts)) + OUTPUT_LATENCY
    found, walks = [], iter(walk.walks)
    for part in parts:
        if part is None:
            found.append(None)
            continue
        one, alone = next(walks), predict(part, config)
        found.append(
            dataclasses.replace(
                alone,
                cycles=total,
                output=0,
                outputs=0,
                stall_gather=one.stall_gather,
                stall_slots=one.stall_slots,
            )
        )
    return TilePrediction(
        cycles=total,
        engines=tuple(found),
        positions=busy[0].positions,
        outputs=busy[0].out_shape[2],
        start=max(item.start for item in found if item is not None) + reduce_latency(len(parts)),
    )


class _TileWalk:
    """Engines side by side while blocks go by, and the reads that all of them wait for."""

    def __init__(self, parts: Sequence[LayerProgram], config: EngineConfig):
        self.lanes = config.position_lanes
        self.walks = [EngineWalk(part, config) for part in parts]
        self.positions, self.outputs = parts[0].positions, parts[0].out_shape[2]
        self.read_ends = [-1, -1]

    def run(self) -> int:
        """Walk the positions; returns the cycle in which the last accumulator is read."""
        walk_positions(self, self.positions, self.lanes)
        return self.read_ends[-1]

    @property
    def now(self) -> int:
        """The cycle of the first engine's last request."""
        return self.walks[0].now

    @property
    def stalls(self) -> tuple[int, ...]:
        """Stalls of all engines, one behind the other."""
        return tuple(count for walk in self.walks for count in walk.stalls)

    def state(self) -> tuple:
        """Every engine's state, each seen from its own last request, and how far these are off."""
        states = [(walk.now - self.now, *walk.state()) for walk in self.walks]
        return (*states, *(time - self.now for time in self.read_ends))

    def advance(self, cycles: int, stalls: Sequence[int]) -> None:
        """Let whole periods go by in every engine."""
        self.read_ends = [time + cycles for time in self.read_ends]
        for n, walk in enumerate(self.walks):
            walk.advance(cycles, stalls[2 * n : 2 * n + 2])

    def block(self, positions: int) -> None:
        """One block of output positions in every engine, and its reads."""
        for walk in self.walks:
            walk.block(positions)
        begin = max(walk.merge_end for walk in self.walks) + MERGE_LATENCY
        begin = max(begin, self.read_ends[1] + 1)
        self.read_ends = [self.read_ends[1], begin + positions * self.outputs - 1]
        for walk in self.walks:
            walk.output_ends = list(self.read_ends)
