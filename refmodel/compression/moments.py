"""Moment matching: outputs of mapped layers get the mean and variance that the network had.

Mapping changes weights, so what a layer computes has another mean and another variance, and errors
of layer after layer add up. Both moments can be put right for each output channel, without any
training and for nothing in hardware: gain and bias of requantisation are there anyway::

    gain' = gain * sd(dense) / sd(mapped)
    bias' = mean(dense) - mean(mapped) * gain' / gain

Means and deviations are those of the layer's output before its ReLU, over all positions of the
calibration images: of the network as it was trained, and of the mapped one, in which all layers
before are mapped and matched already. Where the network has BatchNormalization, this is what
estimating its statistics anew comes to, since its own mean and deviation are those of the dense
network; where the exporter folded it into the weights, it does the same. Since both networks see
the same images, what is peculiar to the images cancels to a large part.

Layers that run dense are left as they are, and so are those of a fine-tuned network that keep the
mapping they were trained with (:mod:`refmodel.compression.tuned`): their weights are the mapped
ones already.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.quantize import MatrixLayer, QuantNetwork, quantize
from refmodel.compression.schemes import (
    SCHEMES,
    InputStatistics,
    LayerMapping,
    LayerSetting,
    network_settings,
)
from refmodel.network.graph import FloatNetwork, Floats, Matrix, Node, windows

LEAST_SHARE = 1e-6
"""A deviation of less than this share of the dense one is none: the gain stays as it is."""

BLOCK_ROWS = 1152
"""Rows of the largest covariance that is taken, about: 128 channels of a 3x3 kernel."""

SAMPLES = 40_000
"""Positions that a covariance is taken over, about."""

BATCH = 32
"""Images that go through a layer at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Mean and standard deviation of each output channel, float64 [out]."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def moments(values: NDArray) -> Moments:
    """Take moments over images and positions: (N, F) or (N, C, H, W) in, channels second."""
    axes = (0, *range(2, values.ndim))
    mean = values.mean(axes, dtype=np.float64)
    square = np.mean(np.square(values, dtype=np.float32), axes, dtype=np.float64)
    spread = np.square(mean)
    # A channel that does not vary has a difference of rounding errors here.
    variance = np.where(square - spread > 1e-7 * square, square - spread, 0.0)
    return Moments(mean=mean, deviation=np.sqrt(variance))


def matched(
    gain: NDArray[np.float64], bias: NDArray[np.float64], found: Moments, wanted: Moments
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gain and bias with which an output has the wanted moments.

    An output that does not vary keeps its gain; the bias moves its mean.

    Parameters
    ----------
    gain, bias
        With which the output has the moments ``found``.
    """
    varies = found.deviation > LEAST_SHARE * wanted.deviation
    ratio = np.where(varies, wanted.deviation / np.where(varies, found.deviation, 1.0), 1.0)
    return gain * ratio, wanted.mean - (found.mean - bias) * ratio


def match_moments(
    network: FloatNetwork,
    layers: Sequence[MatrixLayer],
    mappings: Sequence[LayerMapping],
    inputs: Floats,
    *,
    carried: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> FloatNetwork:
    """Put mapped weights into a network, and match the moments of its outputs.

    Parameters
    ----------
    network
        The network as it was trained.
    layers
        Its matrix layers, as :func:`refmodel.compression.quantize.quantize` gives them for any
        images.
    mappings
        One to a layer.
    inputs
        Calibration images as network inputs, (N, *input_shape); distributed as in training.
    carried
        Names of layers whose mapping gives their own weights.
    progress
        Called with the layers done and their number.

    Returns
    -------
    FloatNetwork
        The same nodes, its matrices with effective weights (in the units of ``layers``), gain and
        bias; those of dense and carried layers unchanged.
    """
    mapped_of = {
        layer.name: (layer, mapping)
        for layer, mapping in zip(layers, mappings, strict=True)
        if changes(layer, mapping, carried)
    }
    nodes = [
        _mapped(node, *mapped_of[node.name]) if node.name in mapped_of else node
        for node in network.nodes
    ]
    left = network.consumers()
    dense: dict[str, Floats] = {network.input: np.asarray(inputs, np.float32)}
    changed: dict[str, Floats] = {}
    done = 0
    for index, node in enumerate(network.nodes):
        before = [dense[name] for name in node.inputs]
        # Up to the first changed layer, both networks are one.
        same = nodes[index] is node and not any(name in changed for name in node.inputs)
        dense[node.output] = _apply(node, before)
        if not same:
            now = [changed.get(name, dense[name]) for name in node.inputs]
            values = _apply(nodes[index], now)
            new = nodes[index]
            if isinstance(new, Matrix) and new is not node:
                values, nodes[index] = _match(new, values, dense[node.output])
            changed[node.output] = values
        if isinstance(node, Matrix):
            done += 1
            if progress is not None:
                progress(done, len(layers))
        for name in node.inputs:
            left[name] -= 1
            if not left[name]:
                dense.pop(name, None)
                changed.pop(name, None)
    return replace(network, nodes=tuple(nodes), tuned=None)


def changes(layer: MatrixLayer, mapping: LayerMapping, carried: Collection[str] = ()) -> bool:
    """Whether mapping changes the weights of a layer: not where it runs dense or is carried."""
    return mapping.scheme != "dense" and layer.name not in carried


def input_statistics(
    network: FloatNetwork, images: Floats, channels: Mapping[str, int]
) -> dict[str, InputStatistics]:
    """Take covariances of the inputs of some layers.

    Parameters
    ----------
    network, images
        The network, and its inputs (N, *input_shape).
    channels
        Layer name to the multiple of channels that a block has: as many as come to at most
        :data:`BLOCK_ROWS` rows, and at least that.

    Returns
    -------
    dict
        Layer name to statistics, over at most about :data:`SAMPLES` positions, which are drawn from
        a fixed seed.
    """
    rng = np.random.default_rng(0)
    nodes = [node for node in network.nodes if isinstance(node, Matrix) and node.name in channels]
    sums: dict[str, dict[int, tuple[Any, Any]]] = {}
    steps, places, counts = {}, {}, {}
    for node in nodes:
        height, width = node.weight.shape[2:]
        least = channels[node.name]
        steps[node.name] = max(1, BLOCK_ROWS // (height * width * least)) * least
        positions = prod(node.shape[1:])
        per_image = min(positions, -(-SAMPLES // len(images)))
        places[node.name] = np.sort(rng.permutation(positions)[:per_image])
        counts[node.name] = per_image * len(images)
        sums[node.name] = {}
    for chunk in network.chunks(images):
        tensors = network.trace(chunk)
        for node in nodes:
            rows = _rows(node, tensors[node.inputs[0]], places[node.name])
            step = steps[node.name]
            parts = [
                rows[:, group, first : first + step].reshape(len(rows), -1)
                for group in range(node.groups)
                for first in range(0, rows.shape[2], step)
            ]
            for number, part in enumerate(parts):
                total, square = sums[node.name].get(number, (0.0, 0.0))
                total = total + part.sum(0, dtype=np.float64)
                sums[node.name][number] = total, square + (part.T @ part).astype(np.float64)
    return {
        name: InputStatistics(
            channels=steps[name],
            blocks=tuple(
                square / counts[name] - np.outer(total, total) / counts[name] ** 2
                for total, square in found.values()
            ),
        )
        for name, found in sums.items()
    }


def learning_statistics(
    network: FloatNetwork,
    images: Floats,
    quant: QuantNetwork,
    scheme: str,
    settings: Mapping[str, LayerSetting] | None = None,
) -> dict[str, InputStatistics]:
    """Take the statistics that a scheme learns from, if it does; by layer name."""
    if SCHEMES[scheme].learner is None:
        return {}
    chosen = network_settings(quant.layers, scheme, settings)
    channels = {
        name: setting.channels for name, setting in chosen.items() if setting.scheme == scheme
    }
    with np.errstate(over="ignore", invalid="ignore"):  # quantize refuses what is not finite
        return input_statistics(network, images, channels)


def _rows(node: Matrix, x: Floats, places: NDArray[np.intp]) -> Floats:
    """Sample a layer's inputs at some output positions: [samples, groups, channels, kernel]."""
    _, inputs, height, width = node.weight.shape
    if x.ndim < 4:
        x = x[:, :, None, None] if x.ndim == 2 else x[:, None]
    view = windows(x, (height, width), node.stride, node.pads, node.dilation, 0.0)
    down, across = np.divmod(places, view.shape[3])
    chosen = view.transpose(0, 2, 3, 1, 4, 5)[:, down, across]
    return chosen.reshape(-1, node.groups, inputs, height * width)


def quantize_matched(
    network: FloatNetwork,
    images: Floats,
    *,
    layers: Sequence[MatrixLayer],
    mappings: Sequence[LayerMapping],
    carried: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> QuantNetwork:
    """Quantise a network for given mappings of its layers, with matched moments.

    Ranges of activations are those of the mapped network.

    Parameters
    ----------
    network, layers, mappings, carried, progress
        As :func:`match_moments` takes them.
    images
        Calibration images as network inputs.
    options
        Passed on to :func:`refmodel.compression.quantize.quantize`.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # quantize refuses what is not finite
        mapped = match_moments(
            network, layers, mappings, images, carried=carried, progress=progress
        )
    quant = quantize(mapped, images, **options)
    nodes = {node.name: node for node in mapped.nodes if isinstance(node, Matrix)}
    result = []
    for new, old, mapping in zip(quant.layers, layers, mappings, strict=True):
        if changes(old, mapping, carried):
            # What was mapped are the old weights; the new ones are what came of it.
            node = nodes[old.name]
            new = replace(new, weight=old.weight, gain=node.gain, bias=node.bias)
        result.append(new)
    return replace(quant, layers=tuple(result))


def _match(node: Matrix, values: Floats, wanted: Floats) -> tuple[Floats, Matrix]:
    """Match one layer: its outputs as they become, and the node that computes them."""
    found = moments(values)
    gain, bias = matched(node.gain, node.bias, found, moments(wanted))
    ratio = np.where(node.gain != 0, gain / np.where(node.gain != 0, node.gain, 1.0), 1.0)
    shift = bias - node.bias * ratio
    shape = (-1, *(1,) * (values.ndim - 2))
    values = values * ratio.astype(np.float32).reshape(shape)
    values += shift.astype(np.float32).reshape(shape)
    return values, replace(node, gain=gain, bias=bias)


def _mapped(node: Node, layer: MatrixLayer, mapping: LayerMapping) -> Node:
    """Give a layer's node its effective weights."""
    if not isinstance(node, Matrix):
        return node
    weight = mapping.effective(layer.weight).astype(np.float32)
    return replace(node, weight=weight, gain=layer.gain, bias=layer.bias, exact=False)


def _apply(node: Node, inputs: list[Floats]) -> Floats:
    """Compute one node, some images at a time."""
    parts = [
        node.apply(*(each[start : start + BATCH] for each in inputs))
        for start in range(0, len(inputs[0]), BATCH)
    ]
    return np.concatenate(parts)
