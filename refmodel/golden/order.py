"""The order in which an engine comes by what the golden model has position by position.

With ``position_lanes`` P an engine goes through blocks of P output positions, the last of which may
be short: within a block it runs gather after gather, and each gather for one position after the
other. Values do not depend on P, only their order does: that of requests, with their codes, and of
complete partial sums. Accumulators and outputs come position after position whatever P is.
"""

import numpy as np

from refmodel.config import EngineConfig
from refmodel.golden.serial import requests
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import ous_of_gathers


def request_order(
    layer: LayerProgram, config: EngineConfig, positions: int | None = None
) -> np.ndarray:
    """Where each request of an engine is among those listed position by position.

    Parameters
    ----------
    positions
        Of so many positions, from a block's first one on; all of the layer's where None.

    Returns
    -------
    int64 [positions * requests of a position]: ``listed[order]`` is as the engine has them.
    """
    gather_of_ou = np.repeat(np.arange(len(layer.gather_base)), ous_of_gathers(layer, config))
    counts = np.bincount(gather_of_ou[requests(layer, config).ou])
    return _in_blocks(counts, positions or layer.positions, config)


def psum_order(
    layer: LayerProgram, config: EngineConfig, positions: int | None = None
) -> np.ndarray:
    """As :func:`request_order`, of the partial sums as they become complete."""
    counts = layer.gather_patterns[layer.gather_final == 1]
    return _in_blocks(counts, positions or layer.positions, config)


def _in_blocks(counts: np.ndarray, positions: int, config: EngineConfig) -> np.ndarray:
    """Order of items that come ``counts[i]`` at a time, each time for all positions of a block."""
    each = int(counts.sum())
    item = np.repeat(np.arange(len(counts)), counts)

    def block(first: int, count: int) -> np.ndarray:
        place = np.arange(count * each)
        position, within = np.divmod(place, each)
        return first * each + place[np.lexsort((within, position, item[within]))]

    lanes = config.position_lanes
    blocks, short = divmod(positions, lanes)
    whole = block(0, lanes) + np.arange(blocks)[:, None] * (lanes * each)
    return np.concatenate([whole.reshape(-1), block(blocks * lanes, short)])
