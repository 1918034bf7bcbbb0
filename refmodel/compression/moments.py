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
from refmodel.compression.ranges import RangeFinder, Ranges, check_ranges
from refmodel.compression.schemes import (
    SCHEMES,
    InputStatistics,
    LayerMapping,
    LayerSetting,
    network_settings,
)
from refmodel.network.graph import FloatNetwork, Floats, Matrix, Node, windows
from refmodel.network.stream import Tensor, drop, put_images, spooled, threads, walk

LEAST_SHARE = 1e-6
"""A deviation of less than this share of the dense one is none: the gain stays as it is."""

BLOCK_ROWS = 1152
"""Rows of the largest covariance that is taken, about: 128 channels of a 3x3 kernel."""

SAMPLES = 40_000
"""Positions that a covariance is taken over, about."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Mean and standard deviation of each output channel, float64 [out]."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def moments(values: NDArray) -> Moments:
    """Take moments over images and positions: (N, F) or (N, C, H, W) in, channels second."""
    sums = Sums()
    sums.add(values)
    return sums.moments()


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Matched:
    """Outcome of matching the moments of a mapped network.

    Attributes
    ----------
    outputs
        Gain and bias of each changed layer by its name, in the units of the layers that were given.
    ranges
        Smallest and largest value of each tensor of the mapped network.
    """

    outputs: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    ranges: Ranges


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
    found = match(network, layers, mappings, inputs, carried=carried, progress=progress)
    mapped_of = {
        layer.name: (layer, mapping) for layer, mapping in zip(layers, mappings, strict=True)
    }
    nodes = []
    for node in network.nodes:
        if node.name in found.outputs and isinstance(node, Matrix):
            gain, bias = found.outputs[node.name]
            node = replace(mapped_node(node, *mapped_of[node.name]), gain=gain, bias=bias)
        nodes.append(node)
    return replace(network, nodes=tuple(nodes), tuned=None)


def match(
    network: FloatNetwork,
    layers: Sequence[MatrixLayer],
    mappings: Sequence[LayerMapping],
    inputs: Floats,
    *,
    carried: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> Matched:
    """Match the moments of a mapped network, layer after layer, in bounded memory.

    Both networks are computed node by node on all images, some at a time; effective weights are
    there while their layer is computed.

    Parameters
    ----------
    network, layers, mappings, inputs, carried, progress
        As :func:`match_moments` takes them.
    workers
        Chunks of images that are computed at a time.
    """
    number = {layer.name: index for index, layer in enumerate(layers)}
    left = network.consumers()
    outputs: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    found = RangeFinder(network)
    done = 0
    with spooled() as spool, threads(workers) as pool:
        dense: dict[str, Tensor] = {network.input: put_images(network, inputs, spool)}
        changed: dict[str, Tensor] = {}
        for kept in dense[network.input]:
            found.add(network.input, kept.get())
        for node in network.nodes:
            new = node
            if isinstance(node, Matrix):
                layer = layers[number[node.name]]
                if node.name not in carried:
                    mapping = mappings[number[node.name]]
                    if changes(layer, mapping):
                        new = mapped_node(node, layer, mapping)
                    del mapping
            before = [dense[name] for name in node.inputs]
            # Up to the first changed layer, both networks are one.
            same = new is node and not any(name in changed for name in node.inputs)
            wanted = Sums()
            dense[node.output] = []
            for values in pool.apply(node, before):
                if same:
                    found.add(node.output, values)
                elif new is not node:
                    wanted.add(values)
                dense[node.output].append(spool.put(values))
            if not same:
                now = [changed.get(name, dense[name]) for name in node.inputs]
                result, sums = [], Sums()
                for values in pool.apply(new, now):
                    if new is node:
                        found.add(node.output, values)
                    else:
                        sums.add(values)
                    result.append(spool.put(values))
                if isinstance(new, Matrix) and new is not node:
                    gain, bias, ratio, shift = _match(new, sums.moments(), wanted.moments())
                    outputs[node.name] = gain, bias
                    for place, kept in enumerate(result):
                        values = _moved(kept.get(), ratio, shift)
                        found.add(node.output, values)
                        kept.drop()
                        result[place] = spool.put(values)
                changed[node.output] = result
            del new
            if isinstance(node, Matrix):
                done += 1
                if progress is not None:
                    progress(done, len(layers))
            for name in node.inputs:
                left[name] -= 1
            for name in (*node.inputs, node.output):
                if not left[name]:
                    drop(dense.pop(name, ()))
                    drop(changed.pop(name, ()))
    return Matched(outputs=outputs, ranges=found.ranges)


def changes(layer: MatrixLayer, mapping: LayerMapping, carried: Collection[str] = ()) -> bool:
    """Whether mapping changes the weights of a layer: not where it runs dense or is carried."""
    return mapping.scheme != "dense" and layer.name not in carried


def input_statistics(
    network: FloatNetwork, images: Floats, channels: Mapping[str, int], *, workers: int = 1
) -> dict[str, InputStatistics]:
    """Take covariances of the inputs of some layers.

    Parameters
    ----------
    network, images
        The network, and its inputs (N, *input_shape).
    channels
        Layer name to the multiple of channels that a block has: as many as come to at most
        :data:`BLOCK_ROWS` rows, and at least that.
    workers
        Chunks of images that are computed at a time.

    Returns
    -------
    dict
        Layer name to statistics, over at most about :data:`SAMPLES` positions, which are drawn from
        a fixed seed.
    """
    result: dict[str, InputStatistics] = {}
    each_statistics(network, images, channels, result.__setitem__, workers=workers)
    return result


def each_statistics(
    network: FloatNetwork,
    images: Floats,
    channels: Mapping[str, int],
    give: Callable[[str, InputStatistics], None],
    *,
    workers: int = 1,
) -> None:
    """As :func:`input_statistics`, but give each layer's as soon as they are there."""
    rng = np.random.default_rng(0)
    nodes = [node for node in network.nodes if isinstance(node, Matrix) and node.name in channels]
    places = {}
    for node in nodes:
        positions = prod(node.shape[1:])
        per_image = min(positions, -(-SAMPLES // len(images)))
        places[node.name] = np.sort(rng.permutation(positions)[:per_image])
    if not nodes:
        return
    last = max(index for index, node in enumerate(network.nodes) if node in nodes)
    shorter = replace(network, nodes=network.nodes[: last + 1], output=network.nodes[last].output)

    def take(node: Node, inputs: list[Tensor]) -> None:
        if isinstance(node, Matrix) and node.name in places:
            step = _block_channels(node, channels[node.name])
            give(node.name, _statistics(node, inputs[0], places[node.name], step))

    walk(shorter, images, before=take, workers=workers)


def _block_channels(node: Matrix, least: int) -> int:
    """Channels in a block of a layer's statistics."""
    height, width = node.weight.shape[2:]
    return max(1, BLOCK_ROWS // (height * width * least)) * least


def _statistics(
    node: Matrix, inputs: Tensor, places: NDArray[np.intp], step: int
) -> InputStatistics:
    """Take the covariances of a layer's inputs at some output positions."""
    sums: dict[int, tuple[Any, Any]] = {}
    count = 0
    for kept in inputs:
        rows = _rows(node, kept.get(), places)
        count += len(rows)
        parts = [
            rows[:, group, first : first + step].reshape(len(rows), -1)
            for group in range(node.groups)
            for first in range(0, rows.shape[2], step)
        ]
        for number, part in enumerate(parts):
            total, square = sums.get(number, (0.0, 0.0))
            total = total + part.sum(0, dtype=np.float64)
            sums[number] = total, square + (part.T @ part).astype(np.float64)
    return InputStatistics(
        channels=step,
        blocks=tuple(
            square / count - np.outer(total, total) / count**2 for total, square in sums.values()
        ),
    )


def learning_channels(
    quant: QuantNetwork, scheme: str, settings: Mapping[str, LayerSetting] | None = None
) -> dict[str, int]:
    """Channels in a group of each layer that a scheme learns from statistics; empty if none."""
    if SCHEMES[scheme].learner is None:
        return {}
    chosen = network_settings(quant.layers, scheme, settings)
    return {name: setting.channels for name, setting in chosen.items() if setting.scheme == scheme}


def learning_statistics(
    network: FloatNetwork,
    images: Floats,
    quant: QuantNetwork,
    scheme: str,
    settings: Mapping[str, LayerSetting] | None = None,
) -> dict[str, InputStatistics]:
    """Take the statistics that a scheme learns from, if it does; by layer name."""
    channels = learning_channels(quant, scheme, settings)
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
    workers: int = 1,
    **options: Any,
) -> QuantNetwork:
    """Quantise a network for given mappings of its layers, with matched moments.

    Ranges of activations are those of the mapped network.

    Parameters
    ----------
    network, layers, mappings, carried, progress, workers
        As :func:`match` takes them.
    images
        Calibration images as network inputs.
    options
        Passed on to :func:`refmodel.compression.quantize.quantize`.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        found = match(
            network, layers, mappings, images, carried=carried, progress=progress, workers=workers
        )
    number = {layer.name: index for index, layer in enumerate(layers)}

    def mapped(node: Node) -> Node:
        if node.name not in found.outputs or not isinstance(node, Matrix):
            return node
        index = number[node.name]
        gain, bias = found.outputs[node.name]
        return replace(mapped_node(node, layers[index], mappings[index]), gain=gain, bias=bias)

    check_ranges(network, found.ranges)
    # Weights are the old ones: the layers keep them, and ranges say what came of the mapped ones.
    nodes = tuple(
        replace(node, exact=False) if node.name in found.outputs else node for node in network.nodes
    )
    quant = quantize(
        replace(network, nodes=nodes, tuned=None), images, ranges=found.ranges, node_of=mapped,
        workers=workers, **options,
    )  # fmt: skip
    result = []
    for new, old in zip(quant.layers, layers, strict=True):
        if old.name in found.outputs:
            gain, bias = found.outputs[old.name]
            new = replace(new, weight=old.weight, gain=gain, bias=bias)
        result.append(new)
    return replace(quant, layers=tuple(result))


class Sums:
    """Sums of values and of their squares, by channel."""

    def __init__(self) -> None:
        self.total: Any = 0.0
        self.square: Any = 0.0
        self.count = 0

    def add(self, values: Floats) -> None:
        """Add values of some images."""
        axes = (0, *range(2, values.ndim))
        self.total = self.total + values.sum(axes, dtype=np.float64)
        squares = np.square(values, dtype=np.float32)
        self.square = self.square + squares.sum(axes, dtype=np.float64)
        self.count += values.size // values.shape[1]

    def moments(self) -> Moments:
        """Moments of all that was added."""
        return _moments(self.total / self.count, self.square / self.count)


def _moments(mean: NDArray[np.float64], square: NDArray[np.float64]) -> Moments:
    spread = np.square(mean)
    # A channel that does not vary has a difference of rounding errors here.
    variance = np.where(square - spread > 1e-7 * square, square - spread, 0.0)
    return Moments(mean=mean, deviation=np.sqrt(variance))


def _match(
    node: Matrix, found: Moments, wanted: Moments
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    """Gain and bias of a layer, and by which factor and shift its outputs change with them."""
    gain, bias = matched(node.gain, node.bias, found, wanted)
    ratio = np.where(node.gain != 0, gain / np.where(node.gain != 0, node.gain, 1.0), 1.0)
    shift = bias - node.bias * ratio
    return gain, bias, ratio.astype(np.float32), shift.astype(np.float32)


def _moved(values: Floats, ratio: NDArray[np.float32], shift: NDArray[np.float32]) -> Floats:
    """Multiply and shift the channels of outputs."""
    shape = (-1, *(1,) * (values.ndim - 2))
    values = values * ratio.reshape(shape)
    values += shift.reshape(shape)
    return values


def mapped_node(node: Matrix, layer: MatrixLayer, mapping: LayerMapping) -> Matrix:
    """Give a layer's node its effective weights."""
    weight = mapping.effective32(layer.weight)
    return replace(node, weight=weight, gain=layer.gain, bias=layer.bias, exact=False)
