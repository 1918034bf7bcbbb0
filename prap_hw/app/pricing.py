"""Costs of a compiled network for pages and tables: energy and area by part, seconds.

The prices are those of :mod:`refmodel.cost`; here they become plain figures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prap_hw.app import stages
from refmodel.config import EngineConfig
from refmodel.cost import Technology, crossbar_latency, price_events
from refmodel.program.program import Program

DEFAULT_TECHNOLOGY = "isaac-32nm"
"""The technology where none is named."""

ENGINE_FIELDS = (
    "ou_rows", "ou_cols", "crossbar_size", "cell_bits", "dac_bits", "adc_bits", "adcs",
    "merge_lanes", "position_lanes",
)  # fmt: skip
"""Sizes of an engine that a table of costs names; the technology decides its latency."""


def load(technology: str | Path) -> Technology:
    """Read a technology file, or the packaged one of that name."""
    return Technology.load(technology)


def price(found: Mapping[str, Any], technology: Technology) -> dict[str, Any]:
    """Price events that were counted before.

    Parameters
    ----------
    found
        Events as :func:`prap_hw.app.stages.events_of` gives them, for the technology's crossbar
        latency.
    technology
        Constants.

    Returns
    -------
    dict
        ``technology``, ``clock_hz``, ``seconds``, ``cycles``; ``energy`` in J and ``area`` in mm²
        by part, parts of nothing left out; ``total_energy``, ``total_area``; ``parts``, all names;
        ``layers``, of each ``name``, ``cycles``, ``seconds`` and ``energy`` by part;
        ``assumptions`` and ``notes``, sentences.
    """
    cost = price_events(stages.restored(found), None, technology)
    energy = {part: joules for part, joules in cost.parts.items() if joules}
    area = {part: 1e6 * value for part, value in cost.areas.items() if value}
    notes = list(cost.notes)
    if found["host"]:
        notes.append(
            "No accelerator runs the whole network, so a host does what is between the layers, "
            f"and is not counted: {found['host']}."
        )
    return {
        "technology": cost.technology,
        "clock_hz": cost.clock,
        "seconds": cost.seconds,
        "cycles": cost.cycles,
        "energy": energy,
        "area": area,
        "total_energy": cost.joules,
        "total_area": cost.mm2,
        "parts": list(dict.fromkeys([*energy, *area])),
        "layers": [
            {
                "name": layer.name,
                "cycles": layer.cycles,
                "seconds": layer.seconds,
                "energy": {part: joules for part, joules in layer.parts.items() if joules},
            }
            for layer in cost.layers
        ],
        "assumptions": list(cost.assumptions),
        "notes": notes,
    }


def cost_figures(
    program: Program,
    config: EngineConfig,
    technology: str | Path = DEFAULT_TECHNOLOGY,
    *,
    engines: int = 1,
) -> dict[str, Any]:
    """Count the events of a program and price them: see :func:`price`."""
    prices = load(technology)
    found = stages.events_of(program, config, latency=crossbar_latency(prices), engines=engines)
    return price(found, prices)
