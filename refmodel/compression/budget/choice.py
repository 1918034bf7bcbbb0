"""Choose the settings that a budget, or an allowed loss, leaves."""

import json
from collections.abc import Mapping, Sequence
from glob import escape
from typing import Any

from numpy.typing import NDArray

from refmodel.compression.budget.candidates import Budget, Candidate, Choice, choosable, path
from refmodel.compression.budget.search import Progress, Search, accuracy_of
from refmodel.compression.quantize import Residual
from refmodel.compression.schemes import LayerSetting
from refmodel.compression.store import Work
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.network.graph import FloatNetwork, Floats


def choose(network: FloatNetwork, inputs: Floats, budget: Budget, **options: Any) -> Choice:
    """Choose the setting of every layer for one budget.

    Parameters
    ----------
    network, inputs, options
        As :func:`choose_each` takes them, but for ``reachable_only``.
    budget
        The budget to keep to.

    Raises
    ------
    InputError
        The scheme is another, the budget cannot be kept, or labels are missing.
    """
    (found,) = choose_each(network, inputs, [budget], **options)
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
    residual: Residual = "separate",
    reachable_only: bool = False,
) -> list[Choice | None]:
    """Choose the setting of every layer for several budgets.

    Candidates and sensitivities are measured once; budgets that differ in what they are of cannot
    share them. A choice for cycles or energy is measured on the programs of the whole network, as
    it will be compiled, and keeps to its budget there.

    Parameters
    ----------
    network
        The network.
    inputs
        Calibration images as network inputs, (N, *input_shape).
    budgets
        The budgets to keep to, which differ in their limits alone.
    labels
        Labels of the images, for ``max_loss``.
    scheme
        One of :func:`choosable`.
    settings
        Layers by name pattern of which nothing is to be chosen.
    ou_rows, config
        R, and the engine for which cycles and energy are predicted.
    progress
        ``progress(stage, done, total)``.
    workers
        Processes; the choice does not depend on it.
    work
        Where what was measured is kept, and taken from if it is there; None: nowhere.
    residual
        How residual additions are compiled: :func:`refmodel.compression.quantize.quantize`.
    reachable_only
        Whether a budget that cannot be kept has None in its place; otherwise it is refused.

    Raises
    ------
    InputError
        The scheme is another, a budget cannot be kept, or labels are missing.
    ValueError
        There are no budgets, or they are not of the same.
    """
    if len({(each.of, each.merge_weight, each.technology) for each in budgets}) != 1:
        raise ValueError(f"budgets must be of the same, not {list(budgets)!r}")
    if scheme not in choosable():
        raise InputError(
            f"expected one of the schemes {', '.join(choosable())} with a budget, found {scheme}"
        )
    if labels is None and any(budget.max_loss is not None for budget in budgets):
        raise InputError("expected calibration images with labels for a loss, found none")
    search = Search(
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
        residual=residual,
    )
    hulls = search.hulls()
    result: list[Choice | None] = []
    for budget in budgets:
        try:
            if budget.times is None:
                settings, loss = _within_loss(search, hulls, budget.max_loss or 0.0, labels)
                cost = _cost(search, settings)
            else:
                choose_times = _estimated if search.meter.adds_up else _measured
                (settings, cost), loss = choose_times(search, hulls, budget), None
        except _UnreachableError as problem:
            if not reachable_only:
                raise InputError(str(problem)) from None
            result.append(None)
            continue
        if work is not None and len(budgets) == 1:
            search.keep(settings)
        result.append(
            Choice(
                settings={escape(name): setting for name, setting in settings.items()},
                ratio=search.dense_total / cost,
                loss=loss,
                cost=cost,
            )
        )
    return result


Hulls = list[list[Candidate]]
Settings = dict[str, LayerSetting]

TRIES = 6
"""Choices that are measured for a budget, about, once the prices are those of a near one."""


class _UnreachableError(Exception):
    """A budget that no choice keeps to; the message says which one can be kept."""

    def __init__(self, search: Search, budget: Budget, least: float) -> None:
        what = "less energy" if budget.of == "energy" else f"fewer {budget.of}"
        super().__init__(
            f"expected a budget of at most {search.dense_total / least:.2f} times {what}, found "
            f"{budget.times:g}"
        )


def _costs(search: Search, hulls: Hulls, choices: Sequence[tuple[int, ...]]) -> list[float]:
    """Costs of choices as sums over the layers."""
    fixed = search.fixed_cost()
    return [
        fixed + sum(each[place].cost for each, place in zip(hulls, places, strict=True))
        for places in choices
    ]


def _cost(search: Search, settings: Settings) -> float:
    """Cost of a choice: measured where it is more than a sum over the layers' estimates."""
    if not search.meter.adds_up:
        return search.network_cost(settings)
    own = [
        next(each.cost for each in found if each.setting == settings[name])
        for name, found in zip(search.open, search.measured, strict=True)
    ]
    return search.fixed_cost() + sum(own)


def _estimated(search: Search, hulls: Hulls, budget: Budget) -> tuple[Settings, float]:
    """The dearest choice within a budget of what adds up over the layers, and its cost."""
    assert budget.times is not None
    choices = path(hulls)
    costs = _costs(search, hulls, choices)
    allowed = [
        place for place, cost in enumerate(costs) if cost * budget.times <= search.dense_total
    ]
    if not allowed:
        raise _UnreachableError(search, budget, costs[0])
    return search.settings_of(hulls, choices[allowed[-1]]), costs[allowed[-1]]


def _measured(search: Search, hulls: Hulls, budget: Budget) -> tuple[Settings, float]:
    """The dearest choice within a budget that was found, measured on the whole network.

    The estimates of the layers first take the prices of a network near the budget. They lead to
    the place on the path; each choice that was measured says how far they are off, and the one that
    is taken was measured to be within the budget.
    """
    assert budget.times is not None
    limit = search.dense_total / budget.times
    choices = path(hulls)
    costs = _costs(search, hulls, choices)
    near = search.settings_of(hulls, choices[_last(costs, limit)])
    hulls = search.hulls_at(near)
    choices = path(hulls)
    costs = _costs(search, hulls, choices)
    factor, low, high = 1.0, -1, len(choices)
    least, found = float("inf"), ({}, 0.0)
    tries = 0
    while low + 1 < high:
        guess = min(max(_last([cost * factor for cost in costs], limit), low), high - 1)
        if guess == low:
            break
        # A guess that would be the first one below is no news beyond the tries: halve.
        if tries >= TRIES:
            if low >= 0:
                break
            guess = high // 2
        settings = search.settings_of(hulls, choices[guess])
        cost = search.network_cost(settings)
        search.progress("measure choices", min(tries, TRIES - 1), TRIES)
        tries += 1
        least, factor = min(least, cost), cost / costs[guess]
        if _within(cost, limit):
            low, found = guess, (settings, cost)
        else:
            high = guess
    search.progress("measure choices", TRIES, TRIES)
    if low < 0:
        raise _UnreachableError(search, budget, least)
    return found


def _within(cost: float, limit: float) -> bool:
    """Whether a cost that was measured keeps to a limit."""
    return cost <= limit


def _last(costs: Sequence[float], limit: float) -> int:
    """Place of the last cost within a limit; the first where none is."""
    return max((place for place, cost in enumerate(costs) if cost <= limit), default=0)


def _within_loss(
    search: Search, hulls: Hulls, max_loss: float, labels: NDArray | None
) -> tuple[Settings, float]:
    """The cheapest choice that loses no more than allowed, and what it loses, by halving."""
    assert labels is not None
    choices = path(hulls)
    reference = accuracy_of(search.network, search.inputs, labels)

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
    # Where no cheaper choice will do, layers set by hand can lose something by themselves.
    if loss is None:
        loss = lost(high)
    search.progress("look for the loss", steps, steps)
    if loss > max_loss + 1e-9:
        raise InputError(
            f"expected settings by hand that lose at most {max_loss:g} points by themselves, found "
            f"{loss:.2f}"
        )
    return search.settings_of(hulls, choices[high]), loss
