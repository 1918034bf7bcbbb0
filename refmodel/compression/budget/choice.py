"""Choose the settings that a budget, or an allowed loss, leaves."""

import json
from collections.abc import Mapping, Sequence
from glob import escape
from typing import Any

from numpy.typing import NDArray

from refmodel.compression.budget.candidates import Budget, Candidate, Choice, choosable, path
from refmodel.compression.budget.search import Progress, Search, accuracy_of
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
    reachable_only: bool = False,
) -> list[Choice | None]:
    """Choose the setting of every layer for several budgets.

    Candidates and sensitivities are measured once; budgets that differ in what they are of cannot
    share them.

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
        R, and the engine for which cycles are predicted.
    progress
        ``progress(stage, done, total)``.
    workers
        Processes; the choice does not depend on it.
    work
        Where what was measured is kept, and taken from if it is there; None: nowhere.
    reachable_only
        Whether a budget that cannot be kept has None in its place; otherwise it is refused.

    Raises
    ------
    InputError
        The scheme is another, a budget cannot be kept, or labels are missing.
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
    search: Search,
    hulls: list[list[Candidate]],
    choices: list[tuple[int, ...]],
    max_loss: float,
    labels: NDArray | None,
) -> tuple[int, float]:
    """The cheapest choice that loses no more than allowed, and what it loses, by halving."""
    assert labels is not None
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
    return high, loss
