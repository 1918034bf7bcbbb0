"""The command line in this process, and a co-simulation with the simulator left out."""

from collections.abc import Callable
from typing import Any

from prap_hw.app import workflow
from prap_hw.app.workflow.simulation import simulated_figures
from sim.results import LayerResult

Prap = Callable[..., tuple[int, str, str]]
"""Runs the command line: exit code, stdout, stderr without progress."""


def one_line(text: str) -> str:
    """The text, if it is one error line."""
    assert text.startswith("prap: error: ")
    assert "\n" not in text.rstrip("\n")
    return text


def simulated(program: Any, codes: Any, config: Any, predictions: Any) -> dict[str, Any]:
    """Figures of a co-simulation in which nothing differs."""
    layers = []
    for layer, p in zip(program.layers, predictions, strict=True):
        counters = {"requests": p.requests, "stall_gather": 7, "stall_slots": 5, "stall_port": 0}
        result = LayerResult(
            name=layer.name,
            cycles_predicted=p.cycles,
            cycles_simulated=(p.cycles,),
            counters=counters,
        )
        figures = workflow.layer_figures(layer, config, p)
        layers.append(figures | simulated_figures(result, p))
    return {
        "images": len(codes),
        "layers": layers,
        "total": workflow.cycle_total(layers),
        "compared": {"outputs": {"values": 10, "expected": 10, "different": 0}},
        "differences": [],
        "answers": [0] * len(codes),
        "simulation": {"tier": "bulk", "cycles": 12345, "cycles_per_second": 6000000, "kept": 1},
        "waveforms": [],
    }
