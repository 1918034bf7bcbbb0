"""Choose the setting of each layer by a budget, or by a loss that is allowed.

Each scheme's file says which settings can be chosen: K and T for scheme ``dictionary``, the share
that a layer keeps for ``prap``, ``similar``, ``identical``, ``orc`` and ``structured``, and for
``prap`` the size of its groups, too.

How much a layer's error matters is measured on the network, not guessed:

- The **error** of a layer for each candidate is what is wrong with its output: the variance
  of the difference over that of the output, from the covariances of its inputs.
- The **sensitivity** of a layer is how far the network's answers move (Kullback-Leibler divergence
  of the classes' probabilities) when this layer alone is mapped, over its error then:
  :mod:`refmodel.compression.sensitivity`.
- The loss of a choice is taken to be the sum over the layers of sensitivity times error. From the
  cheapest candidates on, the step that lessens the loss most for what it costs is taken, again and
  again: along the lower convex hull of each layer's candidates, up to running dense.

A budget stops this path at the last choice that it allows. An allowed loss of accuracy is looked
for on it by halving: each choice tried is mapped, its moments are matched, and its accuracy on the
calibration images is compared with that of the network.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from refmodel.compression import sensitivity
from refmodel.compression.compile import compile_layer
from refmodel.compression.moments import input_statistics, match_moments
from refmodel.compression.processes import Tasks
from refmodel.compression.quantize import MatrixLayer, quantize
from refmodel.compression.schemes import (
    SCHEMES,
    InputStatistics,
    LayerMapping,
    LayerSetting,
    map_layer,
    network_settings,
)
from refmodel.compression.schemes.base import CompactMapping
from refmodel.compression.store import Mappings, Work
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.network.graph import FloatNetwork, Floats
from refmodel.predict import cycles
from refmodel.program.sizes import engine_config_for

BudgetOf = Literal["ous", "cycles", "weighted"]
BUDGET_OF: tuple[BudgetOf, ...] = get_args(BudgetOf)
"""Costs that a budget may be set for."""

PROBE_IMAGES = 512
"""Images on which sensitivities are measured, at most."""

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
        workers: int = 1,
        work: Work | None = None,
    ) -> None:
        self.network, self.inputs, self.budget = network, inputs, budget
        self.workers, self.work = workers, work
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
        progress("take covariances", 0, 1)
        self.statistics = input_statistics(network, inputs, channels, workers=workers)
        progress("take covariances", 1, 1)
        self.progress = progress
        self.mapped: dict[tuple[str, LayerSetting], LayerMapping] = {}
        self.dense = [
            map_layer(layer.weight, layer.groups, "dense", None, ou_rows) for layer in self.layers
        ]
        self.dense_cost = [self.cost(*pair) for pair in zip(self.layers, self.dense, strict=True)]

    def map(
        self, layer: MatrixLayer, setting: LayerSetting, *, learnt: bool = True
    ) -> LayerMapping:
        """Map a layer, with the covariances of its inputs or without."""
        return map_layer(
            layer.weight,
            layer.groups,
            self.scheme,
            setting,
            self.ou_rows,
            layer.gain,
            self.statistics.get(layer.name) if learnt else None,
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

    def candidates(self, index: int) -> list[Candidate]:
        """Candidates of one layer, with errors for losses; the last is dense."""
        layer = self.layers[index]
        outputs = layer.out_shape[2] // layer.groups
        found: list[tuple[LayerSetting, float, float]] = []
        settings = [
            setting
            for setting in variants(self.chosen[layer.name], outputs, self.budget.of)
            if self.choices.keeps(setting, layer.weight.shape, layer.groups)
        ]
        learning = self.choices.learnt
        learnt = settings if learning is None else learning(settings)
        times: dict[LayerSetting, float] = {}
        for setting in settings:
            quick = self.choices.quick(setting)
            try:
                mapping = self.map(layer, quick, learnt=learning is None)
                cost = self.cost(layer, mapping)
            except InputError:  # a pattern that takes too many operation units, say
                continue
            if cost >= self.dense_cost[index]:
                continue
            error = output_error(layer, mapping, self.statistics[layer.name])
            found.append((setting, cost, error))
            if learning is not None and setting in learnt:
                exact = output_error(layer, self.map(layer, quick), self.statistics[layer.name])
                times[setting] = exact / error if error > 0 else 1.0
        result = []
        for setting, cost, error in found:
            if times:
                near = min(times, key=lambda each: self.choices.distance(each, setting))
                error *= times[near]
            result.append(Candidate(setting=setting, cost=cost, loss=error))
        dense = LayerSetting(scheme="dense")
        result.append(Candidate(setting=dense, cost=self.dense_cost[index], loss=0.0))
        return result

    def all_candidates(self) -> list[list[Candidate]]:
        """Candidates of every layer of which something is to be chosen, in processes."""
        result: list[list[Candidate]] = [[] for _ in self.open]
        number = {layer.name: index for index, layer in enumerate(self.layers)}
        done = 0

        def take(place: int, found: list[Candidate]) -> None:
            nonlocal done
            result[place] = found
            done += 1
            self.progress("compare settings", done, len(self.open))

        self.progress("compare settings", 0, len(self.open))
        with Tasks(self.workers) as tasks:
            for place, name in enumerate(self.open):
                file = f"candidates{place}.json"
                kept = None if self.work is None else self.work.read(file)
                if kept is not None:
                    take(place, [_candidate(each) for each in json.loads(kept)])
                    continue

                def task(index: int = number[name], file: str = file) -> list[Candidate]:
                    found = self.candidates(index)
                    if self.work is not None:
                        self.work.write(file, json.dumps(list(map(_plain, found))).encode())
                    return found

                tasks.add(task, lambda found, place=place: take(place, found))
        return result

    def sensitivities(self, probes: Mapping[str, Candidate]) -> dict[str, float]:
        """How far answers move for the error of each layer."""
        number = {layer.name: index for index, layer in enumerate(self.layers)}
        names = [name for name, probe in probes.items() if probe.loss > 0]
        kept = None if self.work is None else self.work.part("probe")
        mappings = Mappings(names, kept)
        stage = "map a setting of each layer"
        self.progress(stage, 0, max(1, len(names)))
        done = 0

        def take(place: int, found: CompactMapping) -> None:
            nonlocal done
            if not mappings.kept(place):
                mappings.put(place, found)
            done += 1
            self.progress(stage, done, len(names))

        with Tasks(self.workers) as tasks:
            for place, name in enumerate(names):
                if mappings.kept(place):
                    done += 1
                    continue
                layer, setting = self.layers[number[name]], probes[name].setting

                def task(layer: MatrixLayer = layer, setting: LayerSetting = setting) -> Any:
                    return CompactMapping.of(self.map(layer, setting))

                tasks.add(
                    task, lambda found, place=place: take(place, found), size=layer.weight.size
                )
        self.progress(stage, max(1, len(names)), max(1, len(names)))
        moved = sensitivity.measure(
            self.network,
            self.inputs[:PROBE_IMAGES],
            self.layers,
            {name: mappings[place] for place, name in enumerate(names)},
            workers=self.workers,
            work=self.work,
            progress=lambda done, total: self.progress("measure sensitivities", done, total),
        )
        return {name: moved[name] / probes[name].loss for name in names}

    def hulls(self) -> list[list[Candidate]]:
        """Hull of every layer of which something is to be chosen."""
        candidates = self.all_candidates()
        probes = {
            name: min(
                found[:-1] or found,
                key=lambda each: self.choices.distance(each.setting, self.chosen[name]),
            )
            for name, found in zip(self.open, candidates, strict=True)
        }
        weights = self.sensitivities(probes)
        return [
            hull(
                [
                    dataclasses.replace(each, loss=each.loss * weights.get(name, 0.0))
                    for each in found
                ]
            )
            for name, found in zip(self.open, candidates, strict=True)
        ]

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
        wanted = [settings.get(layer.name, self.chosen[layer.name]) for layer in self.layers]
        missing = [
            (layer, setting)
            for layer, setting in zip(self.layers, wanted, strict=True)
            if setting.scheme != "dense" and (layer.name, setting) not in self.mapped
        ]
        with Tasks(self.workers) as tasks:
            for layer, setting in missing:

                def task(layer: MatrixLayer = layer, setting: LayerSetting = setting) -> Any:
                    return CompactMapping.of(self.map(layer, setting))

                def take(found: LayerMapping, key: Any = (layer.name, setting)) -> None:
                    self.mapped[key] = found

                tasks.add(task, take, size=layer.weight.size)
        mappings = [
            dense if setting.scheme == "dense" else self.mapped[layer.name, setting]
            for layer, dense, setting in zip(self.layers, self.dense, wanted, strict=True)
        ]
        mapped = match_moments(self.network, self.layers, mappings, self.inputs)
        return _accuracy(mapped, self.inputs, labels)


def _plain(candidate: Candidate) -> dict[str, Any]:
    """A candidate as JSON values."""
    setting = dataclasses.asdict(candidate.setting)
    return {"setting": setting, "cost": candidate.cost, "loss": candidate.loss}


def _candidate(kept: Mapping[str, Any]) -> Candidate:
    """Read what :func:`_plain` wrote."""
    setting = LayerSetting(**kept["setting"])
    return Candidate(setting=setting, cost=kept["cost"], loss=kept["loss"])


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
    workers: int = 1,
    work: Work | None = None,
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
    workers
        Processes; the choice does not depend on it.
    work
        Where what was measured is kept, and taken from if it is there; None: nowhere.

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
        workers=workers,
        work=work,
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
    workers: int = 1,
    work: Work | None = None,
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
        workers=workers,
        work=work,
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
        kept = None if search.work is None else search.work.read(f"loss{place}.json")
        if kept is not None:
            return float(json.loads(kept))
        accuracy = search.accuracy(search.settings_of(hulls, choices[place]), labels)
        loss = 100 * (reference - accuracy)
        if search.work is not None:
            search.work.write(f"loss{place}.json", json.dumps(loss).encode())
        return loss

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
