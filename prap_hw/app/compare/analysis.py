"""Analyses of a comparison of schemes.

- Pareto fronts of accuracy over a cost (:func:`front`);
- costs at one accuracy, interpolated along these fronts (:func:`at_accuracy`);
- the influence of the price of conversions and of merges on the energy (:func:`scaled`,
  :func:`crossings`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

FACTORS = tuple(2.0 ** (step / 4) for step in range(-16, 17))
"""Factors of a price for which ratios are drawn: 1/16 to 16."""

PRICES: Mapping[str, tuple[str, ...]] = {
    "adc": ("adc",),
    "merge": ("partial sums", "merge", "accumulators"),
}
"""Prices whose influence is shown, and the parts of the energy that go with each.

A merge reads a partial sum, of which each lane has a copy, shifts and adds it, and updates an
accumulator. Its index word, and its share of control, clock and leakage, stay as they are.
"""

Row = Mapping[str, Any]


def front(rows: Sequence[Row], cost: str) -> list[Row]:
    """Rows of a Pareto front: none costs less and is as accurate; cheapest first."""
    points = [row for row in rows if row.get("accuracy") is not None and row.get(cost) is not None]
    result: list[Row] = []
    for row in sorted(points, key=lambda each: (each[cost], -each["accuracy"])):
        if not result or row["accuracy"] > result[-1]["accuracy"]:
            result.append(row)
    return result


def at_accuracy(rows: Sequence[Row], accuracy: float) -> list[dict[str, Any]]:
    """Costs of each scheme at one accuracy.

    Along a scheme's front of accuracy over energy, energy and latency are interpolated between the
    two neighbours whose accuracies enclose the one that is asked for: linearly in the accuracy,
    in the logarithm of the cost. Nothing is extrapolated.

    Returns
    -------
    list of dict
        ``scheme``, ``energy``, ``seconds`` (None where they are not known), and ``how``:
        ``between A and B`` (budgets), ``measured``, ``upper bound`` (even the cheapest is more
        accurate, and is given), ``not reached``.
    """
    result = []
    for scheme in dict.fromkeys(row["scheme"] for row in rows):
        points = front([row for row in rows if row["scheme"] == scheme], "energy")
        found: dict[str, Any] = {"scheme": scheme, "energy": None, "seconds": None}
        if not points or points[-1]["accuracy"] < accuracy:
            result.append(found | {"how": "not reached"})
            continue
        upper = next(i for i, row in enumerate(points) if row["accuracy"] >= accuracy)
        best = points[upper]
        if upper == 0 or best["accuracy"] == accuracy:
            how = "measured" if best["accuracy"] == accuracy else "upper bound"
            found |= {"energy": best["energy"], "seconds": best["seconds"], "how": how}
        else:
            low = points[upper - 1]
            share = (accuracy - low["accuracy"]) / (best["accuracy"] - low["accuracy"])
            for name in ("energy", "seconds"):
                ends = math.log(low[name]), math.log(best[name])
                found[name] = math.exp(ends[0] + share * (ends[1] - ends[0]))
            found["how"] = f"between {_budget(low)} and {_budget(best)}"
        result.append(found)
    return result


def _budget(row: Row) -> str:
    return "default settings" if row["budget"] is None else f"÷{row['budget']:g}"


def share_of(row: Row, price: str) -> float:
    """Energy of a row that goes with a price, in joules: the parts that :data:`PRICES` names."""
    return sum(row["energy_by_part"].get(part, 0.0) for part in PRICES[price])


def scaled(row: Row, price: str, factor: float) -> float:
    """Energy of a row if a price were ``factor`` times what it is."""
    return row["energy"] + (factor - 1) * share_of(row, price)


def crossings(rows: Sequence[Row], price: str) -> list[dict[str, Any]]:
    """Where two rows cost the same as a price changes: factors within those of :data:`FACTORS`.

    Energies are linear in a price, so two rows cross once at most.
    """
    result = []
    for i, one in enumerate(rows):
        for other in rows[i + 1 :]:
            slope = share_of(one, price) - share_of(other, price)
            fixed = (one["energy"] - share_of(one, price)) - (
                other["energy"] - share_of(other, price)
            )
            factor = -fixed / slope if slope else math.inf
            if FACTORS[0] <= factor <= FACTORS[-1]:
                # Where the price is high, the one with less of it is the cheaper one.
                cheaper = other if slope > 0 else one
                result.append({"one": one, "other": other, "factor": factor, "above": cheaper})
    return sorted(result, key=lambda each: abs(math.log(each["factor"])))
