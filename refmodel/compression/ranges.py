"""Ranges of activations on calibration images, and the scales that follow from them.

There are three ways to choose a range:

``minmax``
    From the smallest to the largest value.
``percentile``
    From the (100 - p)-th to the p-th percentile: few extreme values saturate, the others are finer.
``mse``
    The range with the least mean squared error of the codes among min-max * k / 128, k from 16 to
    128.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from refmodel.errors import InputError
from refmodel.network.graph import (
    Add,
    AveragePool,
    Concat,
    FloatNetwork,
    Floats,
    Function,
    Matrix,
    Node,
    Product,
)
from refmodel.network.stream import walk
from refmodel.program.tensors import MAX_CODE

COMPUTED = (Matrix, Add, AveragePool, Concat, Function, Product)
"""Nodes whose output has a scale of its own."""

HISTOGRAM_BINS = 4096

MSE_STEPS = range(128, 15, -1)
"""Ranges tried for the least error, in 128ths of min-max; of equals the widest."""


Ranges = dict[str, tuple[float, float]]


def value_ranges(network: FloatNetwork, images: Floats) -> Ranges:
    """Smallest and largest value of each tensor.

    Raises
    ------
    InputError
        A value is NaN or infinite.
    """
    found = RangeFinder(network)
    with np.errstate(over="ignore", invalid="ignore"):
        for chunk in network.chunks(images):
            for name, values in network.pass_through(chunk):
                found.add(name, values)
                check_ranges(network, {name: found.ranges[name]})
    return found.ranges


class RangeFinder:
    """Collects the smallest and the largest value of each tensor of a network."""

    def __init__(self, network: FloatNetwork) -> None:
        self.ranges: Ranges = dict.fromkeys(network.shapes, (np.inf, -np.inf))

    def add(self, name: str, values: Floats) -> None:
        """Take values of a tensor; one that is not finite makes its range so."""
        lo, hi = float(values.min()), float(values.max())
        before = self.ranges[name]
        if not np.isfinite([lo, hi]).all():
            lo, hi = -np.inf, np.inf
        self.ranges[name] = min(before[0], lo), max(before[1], hi)


def check_ranges(network: FloatNetwork, ranges: Ranges) -> None:
    """Raise InputError where a range of a tensor is not finite."""
    for name, limits in ranges.items():
        if not np.isfinite(limits).all():
            raise InputError(
                f"expected finite values on the calibration images, found NaN or "
                f"infinity, in tensor {name!r} of {network.source}"
            )


def value_histograms(
    network: FloatNetwork,
    images: Floats,
    ranges: Mapping[str, tuple[float, float]],
    *,
    node_of: Callable[[Node], Node] | None = None,
    workers: int = 1,
) -> dict[str, NDArray[np.int64]]:
    """Count values in bins of equal width over each tensor's range; not of those that do not vary.

    Only tensors whose range is asked for: what nodes of :data:`COMPUTED` compute. ``node_of`` and
    ``workers`` are those of :func:`refmodel.network.stream.walk`.
    """
    counts = {
        node.output: np.zeros(HISTOGRAM_BINS, np.int64)
        for node in network.nodes
        if isinstance(node, COMPUTED) and ranges[node.output][0] < ranges[node.output][1]
    }

    def count(name: str, values: Floats) -> None:
        if name not in counts:
            return
        lo, hi = ranges[name]
        places = (values.reshape(-1) - np.float32(lo)) * np.float32(HISTOGRAM_BINS / (hi - lo))
        places = np.clip(places, 0, HISTOGRAM_BINS - 1).astype(np.int32)
        counts[name] += np.bincount(places, minlength=HISTOGRAM_BINS)

    walk(network, images, after=count, node_of=node_of, workers=workers)
    return counts


def percentile_range(
    counts: NDArray[np.int64], limits: tuple[float, float], percentile: float
) -> tuple[float, float]:
    """Outer edges of the bins that hold the two percentiles."""
    edges = np.linspace(*limits, len(counts) + 1)
    below, total = np.cumsum(counts), counts.sum()
    upper = int(np.searchsorted(below, total * percentile / 100))
    lower = int(np.searchsorted(below, total * (1 - percentile / 100), side="right"))
    return float(edges[min(lower, len(counts) - 1)]), float(edges[min(upper, len(counts) - 1) + 1])


def least_error_scale(
    values: NDArray[np.float64], counts: NDArray[np.int64], scale: float, zero: int
) -> float:
    """Choose the scale of :data:`MSE_STEPS` times ``scale`` with the least mean squared error.

    Parameters
    ----------
    values, counts
        Real values and how often each occurs.
    scale, zero
        The widest scale, and the zero point.
    """
    best, least = scale, np.inf
    for step in MSE_STEPS:
        tried = scale * step / 128
        codes = np.clip(np.floor(values / tried + 0.5), -zero, MAX_CODE - zero)
        error = float(counts @ np.square(codes * tried - values))
        if error < least:
            best, least = tried, error
    return best
