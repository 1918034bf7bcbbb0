"""Turn a network in floating point into one of 8-bit codes.

A real value v is carried as the code ``clip(floor(v / scale + 1/2) + zero, 0, 255)``: halves go
up. Tensors that cannot be negative (behind a ReLU, and what pooling and addition make of such) have
zero point 0 and ``scale = max / 255``; other tensors have zero point 128 and
``scale = max |v| / 127``; the network's input has the least scale and the zero point that reach
from its smallest to its largest calibration value with 0 exact. A tensor that is 0 throughout has
scale 1.

Codes lie as (N, H, W, C), vectors as (N, 1, 1, F). Weights stay as they are in the file: what the
hardware makes of them is decided when the network is mapped and compiled.

A ReLU becomes the output limits of the layer or addition before it, also across max pooling and
rearrangement, which it commutes with; it is a step of its own only where something else reads the
values from before it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from refmodel.errors import InputError
from refmodel.graph import (
    Add,
    AveragePool,
    Clip,
    FloatNetwork,
    Floats,
    Matrix,
    MaxPool,
    Node,
    Rearrange,
    Shape,
)
from refmodel.images import Preprocess
from refmodel.program import Step

MAX_CODE = 255
SIGNED_ZERO = 128
"""Zero point of a tensor with negative values."""

MAX_MULTIPLIER = 32767
MAX_SHIFT = 47
"""Limits of M and s in ``M / 2**s``."""

HISTOGRAM_BINS = 4096


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """What the codes of one tensor mean: ``value = (code - zero) * scale``.

    Attributes
    ----------
    shape
        (H, W, C) of one image; a vector is (1, 1, F).
    scale
        Real step of one code, above 0.
    zero
        Code of the value 0, 0 to 255.
    """

    shape: tuple[int, int, int]
    scale: float
    zero: int


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixLayer:
    """A convolution or fully connected layer before it is mapped.

    Its real output is ``gain * (weight . x) + bias``, then limited to the codes ``clip``.

    Attributes
    ----------
    name
        Unique in the network.
    weight
        float32 [out, in / groups, kh, kw]; fully connected: kh = kw = 1.
    gain
        float64 [out], from BatchNormalization and Gemm's alpha; not folded into the weights. May be
        negative or 0.
    bias
        float64 [out], real-valued, added after the gain.
    stride, dilation
        (vertical, horizontal), in pixels.
    pads
        (top, left, bottom, right), in pixels; the border holds ``in_zero``.
    groups
        Groups of the convolution.
    in_scale, in_zero, out_scale, out_zero
        Scales and zero points of input and output.
    clip
        (lo, hi), codes that the output is limited to: a fused ReLU, or (0, 255).
    in_shape, out_shape
        (H, W, C) of input, without padding, and output.
    """

    name: str
    weight: Floats
    gain: NDArray[np.float64]
    bias: NDArray[np.float64]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    in_scale: float
    in_zero: int
    out_scale: float
    out_zero: int
    clip: tuple[int, int]
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantNetwork:
    """A network of 8-bit codes.

    Attributes
    ----------
    layers
        The matrix layers, in the order in which they are computed.
    steps
        All operations in that order; ``layer`` steps refer to ``layers`` by index. Those that are
        no layers compute, on codes a and b:

        ``max_pool``
            The largest code of the window; padding never wins.
        ``average_pool``
            ``clip(floor(sum(a - zero_in) * multiplier / 2**shift + 1/2) + zero_out, 0, 255)``,
            padding adding 0; multiplier is an int, or int64 [OH, OW] where the count of the window
            differs from place to place.
        ``add``
            ``clip(floor(((a - za) * Ma + (b - zb) * Mb) / 2**shift + 1/2) + zero_out, lo, hi)``.
        ``clip``
            ``clip(a, lo, hi)``.
        ``rearrange``
            Code i of the output is code ``index[i]`` of the input, both in memory order.
    tensors
        Scale, zero point and shape of each tensor that a step reads or writes.
    input, output
        Names of the first and last tensor.
    preprocess
        How images become network inputs.
    """

    layers: tuple[MatrixLayer, ...]
    steps: tuple[Step, ...]
    tensors: dict[str, TensorInfo]
    input: str
    output: str
    preprocess: Preprocess


def memory_shape(shape: Shape) -> tuple[int, int, int]:
    """(H, W, C) of the codes of a tensor that ONNX has as (C, H, W), (H, W) or (F,)."""
    if len(shape) == 1:
        return 1, 1, shape[0]
    if len(shape) == 2:
        return shape[0], shape[1], 1
    return shape[1], shape[2], shape[0]


def to_memory(x: NDArray) -> NDArray:
    """Reorder (N, C, H, W), (N, H, W) or (N, F) as codes lie: (N, H, W, C)."""
    if x.ndim == 4:
        return x.transpose(0, 2, 3, 1)
    return x.reshape(len(x), *memory_shape(x.shape[1:]))


def encode(x: NDArray, info: TensorInfo) -> NDArray[np.uint8]:
    """Codes of real values.

    Parameters
    ----------
    x
        Finite, in ONNX order, batch first: (N, C, H, W) or (N, F).
    info
        Scale and zero point.

    Returns
    -------
    uint8 (N, H, W, C), ``clip(floor(x / scale + 1/2) + zero, 0, 255)``.

    Raises
    ------
    ValueError
        The shape is not the tensor's.
    """
    x = to_memory(np.asarray(x, np.float64))
    if x.shape[1:] != info.shape:
        raise ValueError(f"expected values of shape (H, W, C) = {info.shape}, not {x.shape[1:]!r}")
    return np.clip(np.floor(x / info.scale + 0.5) + info.zero, 0, MAX_CODE).astype(np.uint8)


def decode(codes: NDArray[np.uint8], info: TensorInfo) -> NDArray[np.float64]:
    """Real values of codes, in the codes' shape: ``(code - zero) * scale``."""
    return (codes.astype(np.float64) - info.zero) * info.scale


def fixed_point(ratios: Iterable[float] | NDArray) -> tuple[NDArray[np.int64], int]:
    """Multipliers M and their common shift s with ``M / 2**s`` close to ``ratios``.

    s is the largest of 0 to 47 at which every ``floor(ratio * 2**s + 1/2)`` is at most 32767, so
    that the largest ratio keeps 15 bits: 1 gives M = 16384, s = 14. A ratio above 32767 is taken as
    32767; a code differs from its zero point by 0 or at least 1, so that either saturates.

    Parameters
    ----------
    ratios
        Any shape, at least 0 and finite.
    """
    values = np.asarray(ratios, np.float64)
    for shift in range(MAX_SHIFT, -1, -1):
        multipliers = np.floor(np.ldexp(values, shift) + 0.5)
        if multipliers.max() <= MAX_MULTIPLIER:
            return multipliers.astype(np.int64), shift
    return np.minimum(np.floor(values + 0.5), MAX_MULTIPLIER).astype(np.int64), 0


def quantize(
    network: FloatNetwork,
    images: Floats,
    *,
    percentile: float | None = None,
    preprocess: Preprocess | None = None,
) -> QuantNetwork:
    """Choose scales and zero points from calibration images.

    Parameters
    ----------
    network
        As :func:`refmodel.onnx_import.load_onnx` gives it.
    images
        Calibration images as network inputs, (N, *input_shape), N at least 1: what
        :meth:`refmodel.images.Preprocess.apply` returns.
    percentile
        None: each tensor's range is from its smallest to its largest value. Otherwise above 50 and
        at most 100: from the (100 - percentile)-th to the percentile-th percentile, what lies
        outside saturates. The network's input keeps its whole range.
    preprocess
        How the images were made; kept with the result.

    Raises
    ------
    InputError
        There are no images, their shape is not the network's, or a value is NaN or infinite.
    """
    if percentile is not None and not 50 < percentile <= 100:
        raise ValueError(f"percentile must be above 50 and at most 100, not {percentile!r}")
    if not len(images):
        raise InputError(f"expected calibration images, found none, for {network.source}")
    ranges = _ranges(network, images, percentile)
    return _Quantizer(network, ranges).run(preprocess or Preprocess())


def _ranges(
    network: FloatNetwork, images: Floats, percentile: float | None
) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each tensor, or the percentiles instead."""
    ranges = dict.fromkeys(network.shapes, (np.inf, -np.inf))
    with np.errstate(over="ignore", invalid="ignore"):
        for chunk in network.chunks(images):
            for name, values in network.trace(chunk).items():
                lo, hi = float(values.min()), float(values.max())
                if not np.isfinite([lo, hi]).all():
                    raise InputError(
                        f"expected finite values on the calibration images, found NaN or "
                        f"infinity, in tensor {name!r} of {network.source}"
                    )
                ranges[name] = min(ranges[name][0], lo), max(ranges[name][1], hi)
    if percentile is None:
        return ranges
    counts = {name: np.zeros(HISTOGRAM_BINS, np.int64) for name in ranges}
    for chunk in network.chunks(images):
        for name, values in network.trace(chunk).items():
            if ranges[name][0] < ranges[name][1]:
                counts[name] += np.histogram(values, HISTOGRAM_BINS, ranges[name])[0]
    return {
        name: ranges[name]
        if name == network.input or not counts[name].any()
        else _percentiles(counts[name], ranges[name], percentile)
        for name in ranges
    }


def _percentiles(
    counts: NDArray[np.int64], limits: tuple[float, float], percentile: float
) -> tuple[float, float]:
    """Outer edges of the bins that hold the two percentiles."""
    edges = np.linspace(*limits, len(counts) + 1)
    below, total = np.cumsum(counts), counts.sum()
    upper = int(np.searchsorted(below, total * percentile / 100))
    lower = int(np.searchsorted(below, total * (1 - percentile / 100), side="right"))
    return float(edges[min(lower, len(counts) - 1)]), float(edges[min(upper, len(counts) - 1) + 1])


class _Quantizer:
    """One pass over the nodes that fuses ReLUs, one that writes layers and steps."""

    def __init__(self, network: FloatNetwork, ranges: dict[str, tuple[float, float]]) -> None:
        self.network = network
        self.ranges = ranges
        self.shapes = network.shapes
        self.alias: dict[str, str] = {}
        self.limits: dict[str, tuple[float, float]] = {}
        """Real limits that a tensor's producer applies."""
        self.tensors: dict[str, TensorInfo] = {}
        self.layers: list[MatrixLayer] = []
        self.steps: list[Step] = []

    def run(self, preprocess: Preprocess) -> QuantNetwork:
        self._fuse()
        network = self.network
        lo, hi = self.ranges[network.input]
        lo, hi = min(lo, 0.0), max(hi, 0.0)
        scale = (hi - lo) / MAX_CODE or 1.0
        zero = int(np.clip(np.floor(-lo / scale + 0.5), 0, MAX_CODE))
        self._info(network.input, self.shapes[network.input], scale, zero)
        for node in network.nodes:
            self._emit(node)
        output = self._resolve(network.output)
        return QuantNetwork(
            layers=tuple(self.layers),
            steps=tuple(self.steps),
            tensors=self.tensors,
            input=network.input,
            output=output,
            preprocess=preprocess,
        )

    def _resolve(self, name: str) -> str:
        while name in self.alias:
            name = self.alias[name]
        return name

    def _fuse(self) -> None:
        """Give each Clip to the node that computes its input, where no one else reads between."""
        producers = {node.output: node for node in self.network.nodes}
        readers = Counter(self.network.consumers())
        for node in self.network.nodes:
            if not isinstance(node, Clip):
                continue
            source = self._resolve(node.inputs[0])
            name = source
            while readers[name] == 1 and isinstance(producers.get(name), MaxPool | Rearrange):
                name = self._resolve(producers[name].inputs[0])
            producer = producers.get(name)
            relu = (node.lo, node.hi) == (0.0, np.inf)
            able = isinstance(producer, Matrix | Add) or (
                isinstance(producer, AveragePool) and relu
            )
            if readers[name] == 1 and able:
                lo, hi = self.limits.get(name, (-np.inf, np.inf))
                self.limits[name] = max(lo, node.lo), min(hi, node.hi)
                self.alias[node.output] = source
                readers[source] = readers[node.output]

    def _info(self, name: str, shape: Shape, scale: float, zero: int) -> TensorInfo:
        info = TensorInfo(shape=memory_shape(shape), scale=scale, zero=zero)
        self.tensors[name] = info
        return info

    def _computed(self, node: Node, inputs: list[TensorInfo]) -> tuple[TensorInfo, tuple[int, int]]:
        """Scale, zero point and limiting codes of what a layer, addition or average computes."""
        least, most = self.limits.get(node.output, (-np.inf, np.inf))
        lo, hi = np.clip(self.ranges[node.output], least, most).tolist()
        moved = not isinstance(node, Matrix)
        if least == 0 or (moved and all(info.zero == 0 for info in inputs)):
            scale, zero = max(hi, 0.0) / MAX_CODE, 0
        else:
            scale, zero = max(abs(lo), abs(hi)) / (MAX_CODE - SIGNED_ZERO), SIGNED_ZERO
        info = self._info(node.output, node.shape, scale or 1.0, zero)
        return info, self._codes(info, least, most)

    @staticmethod
    def _codes(info: TensorInfo, lo: float, hi: float) -> tuple[int, int]:
        """The codes of two real limits."""
        codes = np.floor(np.array([lo, hi]) / info.scale + 0.5) + info.zero
        low, high = np.clip(codes, 0, MAX_CODE).astype(int).tolist()
        return low, high

    def _emit(self, node: Node) -> None:
        if node.output in self.alias:
            return
        names = tuple(self._resolve(name) for name in node.inputs)
        inputs = [self.tensors[name] for name in names]
        source = inputs[0]
        match node:
            case Matrix():
                op, params = "layer", {"index": len(self.layers)}
                self._emit_layer(node, source)
            case MaxPool():
                op, params = "max_pool", self._window(node)
                self._info(node.output, node.shape, source.scale, source.zero)
            case AveragePool():
                info, _ = self._computed(node, inputs)
                multipliers, shift = fixed_point(source.scale / (info.scale * node.counts))
                same = (multipliers == multipliers[0, 0]).all()
                op, params = "average_pool", self._window(node)
                params["multiplier"] = int(multipliers[0, 0]) if same else multipliers
                params |= {"shift": shift, "zero_in": source.zero, "zero_out": info.zero}
            case Add():
                info, clip = self._computed(node, inputs)
                multipliers, shift = fixed_point([each.scale / info.scale for each in inputs])
                op, params = "add", {"multipliers": multipliers.tolist(), "shift": shift}
                params |= {"zeros_in": [each.zero for each in inputs]}
                params |= {"zero_out": info.zero, "clip": list(clip)}
            case Clip():
                lo, hi = self._codes(source, node.lo, node.hi)
                if (lo, hi) == (0, MAX_CODE):
                    self.alias[node.output] = names[0]
                    return
                op, params = "clip", {"lo": lo, "hi": hi}
                self._info(node.output, node.shape, source.scale, source.zero)
            case Rearrange():
                index = _memory_index(node, self.shapes[node.inputs[0]])
                shape = memory_shape(node.shape)
                if shape == source.shape and (index == np.arange(len(index))).all():
                    self.alias[node.output] = names[0]
                    return
                op, params = "rearrange", {"index": index, "shape": list(shape)}
                self._info(node.output, node.shape, source.scale, source.zero)
            case _:
                raise TypeError(f"cannot quantise {node!r}")
        self.steps.append(Step(op=op, inputs=names, output=node.output, params=params))

    @staticmethod
    def _window(node: MaxPool | AveragePool) -> dict:
        window = {"kernel": node.kernel, "stride": node.stride, "pads": node.pads}
        return {key: list(values) for key, values in window.items()}

    def _emit_layer(self, node: Matrix, source: TensorInfo) -> None:
        info, clip = self._computed(node, [source])
        self.layers.append(
            MatrixLayer(
                name=node.name,
                weight=node.weight,
                gain=node.gain,
                bias=node.bias,
                stride=node.stride,
                pads=node.pads,
                dilation=node.dilation,
                groups=node.groups,
                in_scale=source.scale,
                in_zero=source.zero,
                out_scale=info.scale,
                out_zero=info.zero,
                clip=clip,
                in_shape=source.shape,
                out_shape=info.shape,
            )
        )


def _memory_index(node: Rearrange, in_shape: Shape) -> NDArray[np.int64]:
    """A rearrangement of values in ONNX order as one of codes in memory order."""
    # order[p] is the number in ONNX order of the value at place p in memory.
    order_in, order_out = (
        to_memory(np.arange(prod(shape)).reshape(1, *shape)).reshape(-1)
        for shape in (in_shape, node.shape)
    )
    return np.argsort(order_in)[node.index[order_out]]
