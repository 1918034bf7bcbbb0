"""Findings of a co-simulation: differences, cycles of layers, and how progress is told."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Progress = Callable[[str, int, int], None]
"""``progress(stage, done, total)``."""

KINDS = ("requests", "codes", "partial_sums", "accumulators", "outputs")
"""Kinds of values that are compared, in the order in which a value passes."""

RESULTS = ("accumulators", "outputs")
"""The kinds that are always compared."""

PERIOD = 2
"""Nanoseconds of a clock cycle."""

QUIET = 64
"""Cycles, beside the crossbar's latency, in which nothing more may come after a run."""


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody of progress."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value that is not as it should be.

    Attributes
    ----------
    layer, image
        Name of the layer; number of the image.
    kind
        One of :data:`KINDS`, ``cycles``, ``counter ...`` or ``hang``.
    position
        Output row and column; None where there is none.
    where
        Request, slot or output within the position.
    expected, got
        Values; ``nothing`` for one that is missing or too many.
    """

    layer: str
    image: int
    kind: str
    position: tuple[int, int] | None
    where: str
    expected: str
    got: str

    def __str__(self) -> str:
        place = [f"layer {self.layer}", f"image {self.image}"]
        if self.position is not None:
            place.append(f"position {self.position[0]},{self.position[1]}")
        if self.where:
            place.append(self.where)
        kind = self.kind.replace("_", " ")
        return f"{kind}: {', '.join(place)}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """Cycles and counters of a layer.

    Attributes
    ----------
    name
        The layer's name.
    cycles_predicted
        Cycles of one image, predicted before the simulation.
    cycles_simulated
        Cycles of each image, from start accepted to last output accepted, counted outside the
        engine.
    counters
        The engine's counters of the first image.
    """

    name: str
    cycles_predicted: int
    cycles_simulated: tuple[int, ...]
    counters: Mapping[str, int]

    @property
    def cycles(self) -> int:
        """Simulated cycles of an image; the one farthest from the prediction."""
        return max(self.cycles_simulated, key=lambda n: abs(n - self.cycles_predicted), default=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class CosimResult:
    """Findings of a co-simulation.

    Attributes
    ----------
    compared
        Kind of value to ``{"values", "expected", "different"}``: how many were compared, how many
        the program makes, how many differ (missing and extra ones among them).
    layers
        One to a layer that ran.
    logits
        Output codes of the network as the RTL gave them, uint8 [N, H, W, C]; None after a hang.
    difference
        The first difference, or None.
    differences
        The first difference of each kind, layer and image, in order.
    waveform
        Waveform (FST) around the first difference, or None; a save file of GTKWave is beside it.
    window
        The same of the window that was asked for, or None.
    planted
        The planted fault in words, or None.
    simulated_cycles, seconds, build_seconds
        Clock cycles in all; seconds of the simulation (its start and the golden model included) and
        of the build.
    engine_seconds
        Bulk tier: CPU seconds in the simulated engine alone.
    kept
        Images of layers that an earlier run had simulated, of all layers together.
    """

    compared: dict[str, dict[str, int]]
    layers: tuple[LayerResult, ...]
    logits: np.ndarray | None
    difference: Difference | None
    differences: tuple[Difference, ...]
    waveform: Path | None
    planted: str | None
    simulated_cycles: int
    seconds: float
    build_seconds: float
    engine_seconds: float | None = None
    kept: int = 0
    window: Path | None = None

    @property
    def cycles_per_second(self) -> float:
        """Simulated clock cycles a second; of CPU time in the engine where that was taken."""
        return self.simulated_cycles / (self.engine_seconds or self.seconds)


def shown(path: Path) -> Path:
    """A path as it is seen from here, where it is below."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
