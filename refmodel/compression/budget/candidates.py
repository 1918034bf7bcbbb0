"""Budgets, the candidates of layers, and the path of choices from the cheapest to the dearest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from refmodel.compression.schemes import SCHEMES, LayerSetting
from refmodel.cost import LayerEvents

BudgetOf = Literal["ous", "cycles", "weighted", "energy"]
BUDGET_OF: tuple[BudgetOf, ...] = get_args(BudgetOf)
"""Costs that a budget may be set for."""

COUNTED_OF: tuple[BudgetOf, ...] = ("ous", "cycles", "weighted")
"""Those that no technology is needed for."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit that a choice must keep to: one of ``times`` and ``max_loss``.

    Attributes
    ----------
    times
        Factor by which the network shall cost less than dense, above 1.
    of
        The cost that is limited: ``ous``, operation units activated for an image; ``cycles``,
        predicted for an image on an engine; ``weighted``, conversions plus ``merge_weight`` times
        merges; ``energy``, joules of an image on an accelerator in a technology.
    max_loss
        Points of accuracy that may be lost on the calibration images, which need labels; 0 to 100.
    merge_weight
        Cost of a merge, in conversions, at least 0.
    technology
        For ``energy``, and only then: a technology file, or the name of a packaged one.
    """

    times: float | None = None
    of: BudgetOf = "ous"
    max_loss: float | None = None
    merge_weight: float = 0.125
    technology: str | None = None

    def __post_init__(self) -> None:
        if (self.times is None) == (self.max_loss is None):
            raise ValueError("one of times and max_loss must be given, not both or neither")
        if self.times is not None and not 1 < self.times < np.inf:
            raise ValueError(f"times must be above 1, not {self.times!r}")
        if self.max_loss is not None and not 0 <= self.max_loss <= 100:
            raise ValueError(f"max_loss must be 0 to 100 points, not {self.max_loss!r}")
        if self.of not in BUDGET_OF:
            raise ValueError(f"of must be one of {', '.join(BUDGET_OF)}, not {self.of!r}")
        if not 0 <= self.merge_weight < np.inf:
            raise ValueError(f"merge_weight must be at least 0, not {self.merge_weight!r}")
        if (self.of == "energy") != (self.technology is not None):
            raise ValueError(
                f"technology must be given for energy, and for nothing else, not "
                f"{self.technology!r} for {self.of}"
            )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to map a layer: its setting, cost for an image, and error or expected loss.

    Attributes
    ----------
    setting, cost, loss
        The three.
    events
        For a budget of energy, what the cost was priced from.
    """

    setting: LayerSetting
    cost: float
    loss: float
    events: LayerEvents | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The settings that were chosen.

    Attributes
    ----------
    settings
        Layer name, as a pattern that matches it alone, to setting.
    ratio
        Cost of the dense network over that of the choice.
    loss
        Points of accuracy lost on the calibration images; None where it was not asked for.
    cost
        What the budget counts, of an image: OU activations, cycles, conversions, joules.
    """

    settings: dict[str, LayerSetting]
    ratio: float
    loss: float | None = None
    cost: float | None = None


def hull(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that are worth their cost: the lower convex hull of loss over cost.

    From the cheapest on, each with less loss than the one before, and each step with less gain for
    its cost than the one before. For candidates (cost, loss) of (1, 10), (2, 9), (3, 2), (4, 3),
    (6, 0) these are (1, 10), (3, 2), (6, 0).
    """
    result: list[Candidate] = []
    for item in sorted(candidates, key=lambda each: (each.cost, each.loss)):
        if result and item.loss >= result[-1].loss:
            continue
        while len(result) > 1 and _slope(result[-2], item) >= _slope(result[-2], result[-1]):
            result.pop()
        if result and item.cost == result[-1].cost:
            continue
        result.append(item)
    return result


def _slope(before: Candidate, after: Candidate) -> float:
    """Loss saved for the cost."""
    return (before.loss - after.loss) / (after.cost - before.cost)


def path(layers: Sequence[Sequence[Candidate]]) -> list[tuple[int, ...]]:
    """Choices from the cheapest to the dearest, as the place in each layer's hull.

    Each differs from the one before in one layer, the one whose next step saves most for its cost;
    of equals the first.
    """
    places = [0] * len(layers)
    result = [tuple(places)]
    while True:
        gains = [
            _slope(hulls[place], hulls[place + 1]) if place + 1 < len(hulls) else -1.0
            for hulls, place in zip(layers, places, strict=True)
        ]
        best = int(np.argmax(gains)) if gains else 0
        if not gains or gains[best] < 0:
            return result
        places[best] += 1
        result.append(tuple(places))


def variants(default: LayerSetting, outputs: int, of: BudgetOf) -> list[LayerSetting]:
    """List the settings that are tried for a layer.

    Parameters
    ----------
    default
        The layer's setting without a budget: its scheme and the values that are not varied.
    outputs
        Outputs of a group of the convolution.
    of
        The cost that the budget limits, one of :data:`BUDGET_OF`.
    """
    choices = SCHEMES[default.scheme].choices
    return [] if choices is None else choices.variants(default, outputs, of != "ous")


def choosable() -> tuple[str, ...]:
    """Names of the schemes with something to choose."""
    return tuple(name for name, scheme in SCHEMES.items() if scheme.choices is not None)
