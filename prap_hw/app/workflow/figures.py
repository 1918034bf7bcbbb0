"""Figures of layers for tables and JSON, and what is wrong with those of a co-simulation."""

from collections.abc import Mapping, Sequence
from typing import Any

from prap_hw.app import console
from refmodel.config import EngineConfig
from refmodel.predict import cycles
from refmodel.program import sizes
from refmodel.program.layer import LayerProgram


def layer_figures(
    layer: LayerProgram, config: EngineConfig, prediction: cycles.Prediction
) -> dict[str, Any]:
    """Give the figures of one layer, for tables and JSON.

    Returns
    -------
    dict
        ``name``; ``patterns_kept``, ``patterns_reused``, ``patterns_dropped``; ``ous_dense`` and
        ``ous``, activations for one output position; ``index_bits``; ``cycles_predicted``,
        ``cycles_bound``, ``cycles_start`` and ``cycles_limit`` for one image; ``bounds``, the work
        of each resource for one image, in cycles.
    """
    positions = prediction.positions
    return {
        "name": layer.name,
        "patterns_kept": layer.kept,
        "patterns_reused": layer.reused,
        "patterns_dropped": layer.dropped,
        "ous_dense": layer.ous_dense,
        "ous": sizes.ou_count(layer, config),
        "index_bits": sizes.index_bits(layer, config)["total"],
        "cycles_predicted": prediction.cycles,
        "cycles_bound": prediction.bound,
        "cycles_start": prediction.start,
        "cycles_limit": prediction.limit,
        "bounds": {
            "conversion": prediction.conversion * positions,
            "gather": prediction.gather * positions,
            "merge": prediction.merge * prediction.blocks,
            "output": prediction.output * positions,
        },
    }


def cycle_total(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the cycles of layers that ran, for one image.

    Returns
    -------
    dict
        ``cycles_bound``, ``cycles_start``, ``cycles_predicted``, ``cycles_simulated``, ``stalls``:
        sums; ``cycles_ratio`` of the sums, None where no layer ran.
    """
    ran = [layer for layer in layers if "cycles_simulated" in layer]
    names = ("cycles_bound", "cycles_start", "cycles_predicted", "cycles_simulated")
    total: dict[str, Any] = {name: sum(layer[name] for layer in ran) for name in names}
    over = total["cycles_simulated"] - total["cycles_start"]
    total["cycles_ratio"] = over / total["cycles_bound"] if ran else None
    causes = dict.fromkeys(cause for layer in ran for cause in layer["stalls"])
    total["stalls"] = {cause: sum(layer["stalls"][cause] for layer in ran) for cause in causes}
    return total


def faults(figures: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the figures of a co-simulation; nothing where all is well.

    Wrong is: a value that differs, fewer values than expected, nothing to compare, and a layer
    whose simulated cycles are not the predicted ones.
    """
    found = list(figures.get("differences", []))
    if not any(counts["expected"] for counts in figures["compared"].values()):
        found.append("expected values to compare, found none")
    for name, counts in figures["compared"].items():
        kind = console.KINDS.get(name, name)
        if counts["different"]:
            found.append(
                f"expected {kind} as in the golden model, found {counts['different']} of "
                f"{counts['values']} different"
            )
        if counts["values"] != counts["expected"]:
            found.append(f"expected {counts['expected']} {kind}, compared {counts['values']}")
    for layer in figures["layers"]:
        simulated, predicted = layer.get("cycles_simulated"), layer["cycles_predicted"]
        if simulated != predicted:
            found.append(
                f"expected {predicted} cycles as predicted, simulated {simulated} in layer "
                f"{layer['name']}"
            )
    return found
