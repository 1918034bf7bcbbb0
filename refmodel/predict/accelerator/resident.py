"""Places of layers in an engine's memories and crossbars."""

from refmodel.config import EngineConfig
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import merge_steps, ou_count

RESIDENT = ("descriptor", "segment", "header", "step", "crossbar")
"""Fields of :class:`Place` that count what an engine holds."""


def resident_needs(layer: LayerProgram, config: EngineConfig) -> dict[str, int]:
    """The share of an engine's memories and crossbars that a layer, or a part of one, takes.

    Returns
    -------
    To each of :data:`RESIDENT` words, or crossbars: a layer begins with one of its own.
    """
    crossbars = -(-ou_count(layer, config) // config.ous_per_crossbar)
    return {**index_needs(layer, config.merge_lanes), "crossbar": crossbars}


def index_needs(layer: LayerProgram, lanes: int) -> dict[str, int]:
    """Words that a layer takes of the index memories."""
    return {
        "descriptor": len(layer.gather_base),
        "segment": len(layer.segment_position),
        "header": len(layer.group_kept),
        "step": 0 if layer.identity else int(merge_steps(layer, lanes).sum()),
    }
