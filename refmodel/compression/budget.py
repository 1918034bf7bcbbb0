"""Choose the setting of each layer by a budget, or by a loss that is allowed.

Each scheme's file says which settings can be chosen: K and T for scheme ``dictionary``, the share
that a layer keeps for ``prap``, ``similar``, ``identical``, ``orc`` and ``structured``, and for
``prap`` the size of its groups, too.

How much a layer's error matters is measured on the network, not guessed:

- The **error** of a layer for each candidate is what is wrong with its output: the variance
  of the difference over that of the output, from the covariances of its inputs.
- The **sensitivity** of a layer is how far the network's answers move (Kullback-Leibler divergence
  of the classes' probabilities) when this layer alone is mapped, over its error then.
- The loss of a choice is taken to be the sum over the layers of sensitivity times error. From the
  cheapest candidates on, the step that lessens the loss most for what it costs is taken, again and
  again: along the lower convex hull of each layer's candidates, up to running dense.

A budget stops this path at the last choice that it allows. An allowed loss of accuracy is looked
for on it by halving: each choice tried is mapped, its moments are matched, and its accuracy on the
calibration images is compared with that of the network.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.compile import compile_layer
from refmodel.compression.moments import input_statistics, match_moments
from refmodel.compression.quantize import MatrixLayer, quantize
from refmodel.compression.schemes import (
    SCHEMES,
    InputStatistics,
    LayerMapping,
    LayerSetting,
    map_layer,
    network_settings,
)
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.network.graph import FloatNetwork, Floats
from refmodel.predict import cycles
from refmodel.program.sizes import engine_config_for

BudgetOf = Literal["ous", "cycles", "weighted"]
BUDGET_OF: tuple[BudgetOf, ...] = get_args(BudgetOf)
"""Costs that a budget may be set for."""

PROBE_IMAGES = 512
"""Images on which sensitivities are measured, at most: choices by fewer are noisy."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit that a choice must keep to: one of ``times`` and ``max_loss``.

    Attributes
    ----------
    times
        Factor by which the network shall cost less than dense, above 1.
    of
        The cost that is limited: ``ous``, operation units activated for an image; ``cycles``,
        predicted for an image; ``weighted``, conversions plus ``merge_weight`` times merges.
    max_loss
        Points of accuracy that may be lost on the calibration images, which need labels; 0 to 100.
    merge_weight
        Cost of a merge, in conversions, at least 0.
    """

    times: float | None = None
    of: BudgetOf = "ous"
    max_loss: float | None = None
    merge_weight: float = 0.125

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


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to map a layer: its setting, cost for an image, and error or expected loss."""

    setting: LayerSetting
    cost: float
    loss: float


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
    """

    settings: dict[str, LayerSetting]
    ratio: float
    loss: float | None = None


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


class _Search:
    """Candidates of every layer, and what a choice costs and loses."""

    def __init__(
        self,
        network: FloatNetwork,
        inputs: Floats,
        budget: Budget,
        *,
        scheme: str,
        settings: Mapping[str, LayerSetting],
        ou_rows: int,
        config: EngineConfig | None,
        progress: Progress,
    ) -> None:
        self.network, self.inputs, self.budget = network, inputs, budget
        self.ou_rows = ou_rows
        self.config = dataclasses.replace(config or EngineConfig(), ou_rows=ou_rows)
        self.layers = quantize(network, inputs[:1]).layers
        self.scheme = scheme
        choices = SCHEMES[scheme].choices
        assert choices is not None  # the caller has checked
        self.choices = choices
        self.chosen = network_settings(self.layers, scheme, settings, ou_rows)
        # What the user set by hand stays.
        self.open = [
            layer.name
            for layer in self.layers
            if self.chosen[layer.name].scheme == scheme
            and not any(fnmatchcase(layer.name, key) for key in settings)
        ]
        channels = {
            name: setting.channels
            for name, setting in self.chosen.items()
            if setting.scheme == scheme
        }
        self.statistics = input_statistics(network, inputs, channels)
        self.progress = progress
        self.dense = [
            map_layer(layer.weight, layer.groups, "dense", None, ou_rows) for layer in self.layers
        ]
        self.dense_cost = [self.cost(*pair) for pair in zip(self.layers, self.dense, strict=True)]

    def map(self, layer: MatrixLayer, setting: LayerSetting) -> LayerMapping:
        return map_layer(
            layer.weight,
            layer.groups,
            self.scheme,
            setting,
            self.ou_rows,
            layer.gain,
            self.statistics.get(layer.name),
        )

    def cost(self, layer: MatrixLayer, mapping: LayerMapping) -> float:
        """Return the cost of a mapped layer for one image."""
        program = compile_layer(layer, mapping, self.ou_rows)
        if self.budget.of == "cycles":
            return cycles.predict(program, engine_config_for([program], self.config)).cycles
        config = self.config
        widths = program.gather_patterns.astype(np.int64) * config.columns_per_weight
        if self.budget.of == "ous":
            return float((-(-widths // config.ou_cols)).sum() * program.positions)
        conversions = int(widths.sum()) * config.digits
        merges = int(program.group_outputs.sum(dtype=np.int64)) * program.terms
        return (conversions + self.budget.merge_weight * merges) * program.positions

    def candidates(self, layer: MatrixLayer, index: int) -> list[Candidate]:
        """Candidates of one layer, with errors for losses; the last is dense."""
        outputs = layer.out_shape[2] // layer.groups
        result = []
        for setting in variants(self.chosen[layer.name], outputs, self.budget.of):
            if not self.choices.keeps(setting, layer.weight.shape, layer.groups):
                continue
            try:
                mapping = self.map(layer, self.choices.quick(setting))
                cost = self.cost(layer, mapping)
            except InputError:  # a pattern that takes too many operation units, say
                continue
            if cost < self.dense_cost[index]:
                error = output_error(layer, mapping, self.statistics[layer.name])
                result.append(Candidate(setting=setting, cost=cost, loss=error))
        dense = LayerSetting(scheme="dense")
        result.append(Candidate(setting=dense, cost=self.dense_cost[index], loss=0.0))
        return result

    def sensitivity(self, index: int, probe: Candidate, reference: NDArray[np.float64]) -> float:
        """How far answers move for the error of one layer."""
        if not probe.loss > 0:
            return 0.0
        mappings = list(self.dense)
        mappings[index] = self.map(self.layers[index], probe.setting)
        images = self.inputs[:PROBE_IMAGES]
        mapped = match_moments(self.network, self.layers, mappings, images)
        return divergence(reference, mapped.forward(images)) / probe.loss

    def hulls(self) -> list[list[Candidate]]:
        """Hull of every layer of which something is to be chosen."""
        reference = log_shares(self.network.forward(self.inputs[:PROBE_IMAGES]))
        result = []
        for number, name in enumerate(self.open):
            self.progress("measure sensitivities", number, len(self.open))
            index = [layer.name for layer in self.layers].index(name)
            found = self.candidates(self.layers[index], index)
            probe = min(
                found[:-1] or found,
                key=lambda each: self.choices.distance(each.setting, self.chosen[name]),
            )
            weight = self.sensitivity(index, probe, reference)
            result.append(
                hull([dataclasses.replace(each, loss=each.loss * weight) for each in found])
            )
        self.progress("measure sensitivities", len(self.open), len(self.open))
        return result

    def fixed_cost(self) -> float:
        """Return the cost of the layers that offer no choice."""
        cost = 0.0
        for layer, dense in zip(self.layers, self.dense_cost, strict=True):
            if layer.name not in self.open:
                setting = self.chosen[layer.name]
                own = setting.scheme != "dense"
                cost += self.cost(layer, self.map(layer, setting)) if own else dense
        return cost

    def settings_of(self, hulls: list[list[Candidate]], places: tuple[int, ...]) -> dict:
        """Setting of every layer of which something was chosen."""
        return {
            name: each[place].setting
            for name, each, place in zip(self.open, hulls, places, strict=True)
        }

    def accuracy(self, settings: Mapping[str, LayerSetting], labels: NDArray) -> float:
        """Accuracy of the mapped network, moments matched, on the calibration images."""
        mappings = []
        for layer, dense in zip(self.layers, self.dense, strict=True):
            setting = settings.get(layer.name, self.chosen[layer.name])
            mappings.append(dense if setting.scheme == "dense" else self.map(layer, setting))
        mapped = match_moments(self.network, self.layers, mappings, self.inputs)
        return _accuracy(mapped, self.inputs, labels)


def output_error(layer: MatrixLayer, mapping: LayerMapping, statistics: InputStatistics) -> float:
    """Variance of the error of a layer's outputs over that of the outputs, gains included.

    Blocks of inputs whose covariance is not known count as uncorrelated.
    """
    gain = np.asarray(layer.gain)[:, None, None, None]
    weight = layer.weight * gain
    error = mapping.effective(layer.weight) * gain - weight
    per_group = len(statistics.blocks) // layer.groups
    outputs = len(weight) // layer.groups
    wrong = whole = 0.0
    for number, block in enumerate(statistics.blocks):
        group, place = divmod(number, per_group)
        first = place * statistics.channels
        part = (
            slice(group * outputs, (group + 1) * outputs),
            slice(first, first + statistics.channels),
        )
        for values, wanted in ((error, False), (weight, True)):
            rows = values[part].reshape(outputs, -1)
            variance = float(np.einsum("oi,oi->", rows @ block, rows))
            wrong, whole = (wrong, whole + variance) if wanted else (wrong + variance, whole)
    return wrong / whole if whole > 0 else 0.0


def log_shares(logits: Floats) -> NDArray[np.float64]:
    """Logarithms of the softmax over (N, F)."""
    values = logits.reshape(len(logits), -1).astype(np.float64)
    values = values - values.max(1, keepdims=True)
    return values - np.log(np.exp(values).sum(1, keepdims=True))


def divergence(reference: NDArray[np.float64], logits: Floats) -> float:
    """Mean Kullback-Leibler divergence of answers from a reference of :func:`log_shares`."""
    found = log_shares(logits)
    return float((np.exp(reference) * (reference - found)).sum(1).mean())


def choose(
    network: FloatNetwork,
    inputs: Floats,
    budget: Budget,
    *,
    labels: NDArray | None = None,
    scheme: str = "dictionary",
    settings: Mapping[str, LayerSetting] | None = None,
    ou_rows: int = 8,
    config: EngineConfig | None = None,
    progress: Progress | None = None,
) -> Choice:
    """Choose the setting of every layer.

    Parameters
    ----------
    network
        The network.
    inputs
        Calibration images as network inputs, (N, *input_shape).
    budget
        The budget to keep to.
    labels
        Labels of the images, for ``max_loss``.
    scheme
        One of :func:`choosable`.
    settings
        Layers by name pattern of which nothing is to be chosen.
    ou_rows, config
        R, and the engine for which cycles are predicted.
    progress
        ``progress(stage, done, total)``.

    Raises
    ------
    InputError
        The scheme is another, the budget cannot be kept, or labels are missing.
    """
    (found,) = choose_each(
        network,
        inputs,
        [budget],
        labels=labels,
        scheme=scheme,
        settings=settings,
        ou_rows=ou_rows,
        config=config,
        progress=progress,
    )
    assert found is not None
    return found


def choose_each(
    network: FloatNetwork,
    inputs: Floats,
    budgets: Sequence[Budget],
    *,
    labels: NDArray | None = None,
    scheme: str = "dictionary",
    settings: Mapping[str, LayerSetting] | None = None,
    ou_rows: int = 8,
    config: EngineConfig | None = None,
    progress: Progress | None = None,
    reachable_only: bool = False,
) -> list[Choice | None]:
    """Choose the setting of every layer for several budgets, as :func:`choose` does for one.

    Candidates and sensitivities are measured once; budgets that differ in what they are of cannot
    share them. With ``reachable_only``, a budget that cannot be kept has None in its place.

    Raises
    ------
    InputError
        As :func:`choose`; with ``reachable_only`` not for a budget that cannot be kept.
    ValueError
        There are no budgets, or they are not of the same.
    """
    if len({(budget.of, budget.merge_weight) for budget in budgets}) != 1:
        raise ValueError(f"budgets must be of the same, not {list(budgets)!r}")
    if scheme not in choosable():
        raise InputError(
            f"expected one of the schemes {', '.join(choosable())} with a budget, found {scheme}"
        )
    if labels is None and any(budget.max_loss is not None for budget in budgets):
        raise InputError("expected calibration images with labels for a loss, found none")
    search = _Search(
        network,
        inputs,
        budgets[0],
        scheme=scheme,
        settings=settings or {},
        ou_rows=ou_rows,
        config=config,
        progress=progress or (lambda stage, done, total: None),
    )
    hulls = search.hulls()
    choices = path(hulls)
    total = sum(search.dense_cost)
    fixed = search.fixed_cost()
    costs = [
        fixed + sum(each[place].cost for each, place in zip(hulls, places, strict=True))
        for places in choices
    ]
    result: list[Choice | None] = []
    for budget in budgets:
        if reachable_only and budget.times is not None and costs[0] * budget.times > total:
            result.append(None)
            continue
        if budget.times is not None:
            chosen, loss = _within_times(budget.times, costs, total, budget.of), None
        else:
            chosen, loss = _within_loss(search, hulls, choices, budget.max_loss or 0.0, labels)
        found = search.settings_of(hulls, choices[chosen])
        result.append(
            Choice(
                settings={escape(name): setting for name, setting in found.items()},
                ratio=total / costs[chosen],
                loss=loss,
            )
        )
    return result


def _within_times(times: float, costs: Sequence[float], total: float, of: str) -> int:
    """The dearest choice that costs so many times less than dense."""
    allowed = [index for index, cost in enumerate(costs) if cost * times <= total]
    if not allowed:
        raise InputError(
            f"expected a budget of at most {total / costs[0]:.2f} times fewer {of}, found {times:g}"
        )
    return allowed[-1]


def _within_loss(
    search: _Search,
    hulls: list[list[Candidate]],
    choices: list[tuple[int, ...]],
    max_loss: float,
    labels: NDArray | None,
) -> tuple[int, float]:
    """The cheapest choice that loses no more than allowed, and what it loses, by halving."""
    assert labels is not None
    reference = _accuracy(search.network, search.inputs, labels)

    def lost(place: int) -> float:
        accuracy = search.accuracy(search.settings_of(hulls, choices[place]), labels)
        return 100 * (reference - accuracy)

    low, high, loss = 0, len(choices) - 1, None
    steps = max(1, (high - low).bit_length()) + 1
    step = 0
    while low < high:
        search.progress("look for the loss", step, steps)
        middle = (low + high) // 2
        found = lost(middle)
        # Accuracies are whole numbers of images: 1e-9 is the rounding of the difference.
        if found <= max_loss + 1e-9:
            high, loss = middle, found
        else:
            low = middle + 1
        step = min(step + 1, steps - 1)
    if (
        loss is None
    ):  # no cheaper choice will do; layers set by hand can lose something by themselves
        loss = lost(high)
    search.progress("look for the loss", steps, steps)
    if loss > max_loss + 1e-9:
        raise InputError(
            f"expected settings by hand that lose at most {max_loss:g} points by themselves, found "
            f"{loss:.2f}"
        )
    return high, loss


def _accuracy(network: FloatNetwork, inputs: Floats, labels: NDArray) -> float:
    """Share of the images whose largest output is that of their label."""
    answers = network.forward(inputs).reshape(len(inputs), -1).argmax(1)
    return float(np.mean(answers == np.asarray(labels)))
