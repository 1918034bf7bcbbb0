"""Turn a network in floating point into one of 8-bit codes.

A real value v is carried as the code ``clip(floor(v / scale + 1/2) + zero, 0, 255)``: halves go
up. Tensors that cannot be negative (behind a ReLU, and what pooling and addition make of such) have
zero point 0 and ``scale = max / 255``; other tensors have zero point 128 and
``scale = max |v| / 127``; the network's input has the least scale and the zero point that reach
from its smallest to its largest calibration value with 0 exact. A tensor that is 0 throughout has
scale 1.

Codes lie as (N, H, W, C), vectors as (N, 1, 1, F). Weights stay as they are in the file: what the
hardware makes of them is decided when the network is mapped and compiled, which gives a layer one
scale, ``max |W| / 127``. Scales to an output are had by dividing the weights of each output by
their largest magnitude here, and multiplying its gain with it.

A function of single values becomes a table of 256 codes. Its output, a product, and a tensor that
tables alone read have a range of their own, from the smallest to the largest calibration value,
with whatever zero point that gives; 0 is always a code. The last is cut off where its functions are
flat.

A tensor that the network quantises itself keeps the scale and zero point that it has there, and
weights that it has as 8-bit integers stay these integers. Where nothing computes such a tensor anew
(the maximum of differently quantised tensors, say), a ``concat`` of one input requantises it.

A ReLU becomes the output limits of the layer or addition before it, also across max pooling and
rearrangement, which it commutes with; it is a step of its own only where something else reads the
values from before it.

Ranges of activations come from calibration images in one of three ways, :data:`ACTIVATIONS`; see
:mod:`refmodel.compression.ranges`. The network's input always keeps its whole range.

A residual addition is a step of its own, or fused into the layer that computes one of its operands,
:data:`RESIDUALS`:

``separate``
    Layer and addition round, each; the layer's sum has a scale and codes of its own.
``fused``
    A convolution or fully connected layer computes the addition as well: the other operand is its
    residual, and there is one rounding. The layer must compute its operand for the addition alone,
    unlimited and not quantised by the network itself; where both operands are such, the last one's
    layer is taken. Without such an operand the addition stays a step.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.fractions import fixed_point
from refmodel.compression.pointwise import (
    affine_scale,
    changing_range,
    function_tables,
    product_params,
)
from refmodel.compression.ranges import (
    COMPUTED,
    least_error_scale,
    percentile_range,
    value_histograms,
    value_ranges,
)
from refmodel.errors import InputError
from refmodel.network.graph import (
    Add,
    AveragePool,
    Clip,
    Concat,
    FakeQuant,
    FloatNetwork,
    Floats,
    Function,
    Matrix,
    MaxPool,
    Node,
    Product,
    Rearrange,
    Shape,
)
from refmodel.network.images import Preprocess
from refmodel.program.step import Step
from refmodel.program.tensors import MAX_CODE, SIGNED_ZERO, TensorInfo, memory_shape, to_memory

Activations = Literal["minmax", "percentile", "mse"]

Weights = Literal["layer", "channel"]

Residual = Literal["separate", "fused"]

ACTIVATIONS: tuple[Activations, ...] = get_args(Activations)
"""Ways to choose the ranges of activations."""

WEIGHTS: tuple[Weights, ...] = get_args(Weights)
"""Granularities of weight scales: one to a layer, or one to each output channel."""

RESIDUALS: tuple[Residual, ...] = get_args(Residual)
"""Ways to carry out residual additions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixLayer:
    """A convolution or fully connected layer before it is mapped.

    Its real output is ``gain * (weight . x) + bias``, then limited to the codes ``clip``.

    Attributes
    ----------
    name
        Unique in the network.
    weight
        float32 [out, in / groups, kh, kw]; fully connected: kh = kw = 1. Or int8: weights of a
        network that was quantised already, used as they are; the gain then holds their scale.
    gain
        float64 [out], from BatchNormalization, Gemm's alpha and weight scales to an output; not
        folded into the weights. May be negative or 0.
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
    residual
        The tensor that is added before the limits, of the output's shape; None where there is none.
    """

    name: str
    weight: Floats | NDArray[np.int8]
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
    residual: TensorInfo | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantNetwork:
    """A network of 8-bit codes.

    Attributes
    ----------
    layers
        The matrix layers, in the order of the network's nodes.
    steps
        All operations in an order in which they can be computed; ``layer`` steps refer to
        ``layers`` by index, and have a second input where the layer has a residual. Those that are
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
            Code i of the output is code ``index[i]`` of the input, both in memory order; where
            index is -1 it is ``fill``.
        ``concat``
            Inputs one behind the other along ``axis`` of (H, W, C), each requantised:
            ``clip(floor((a - zero) * M / 2**shift + 1/2) + zero_out, lo, hi)``.
        ``multiply``
            ``clip(floor((a - za) * (b - zb) * M / 2**shift + 1/2) + zero_out, lo, hi)``, b repeated
            along axes where it has a size of 1.
        ``table``
            ``tables[k][a]``, k being the channel, or 0 where there is one table.
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


def quantize(
    network: FloatNetwork,
    images: Floats,
    *,
    activations: Activations = "minmax",
    percentile: float = 99.99,
    weights: Weights = "layer",
    residual: Residual = "separate",
    preprocess: Preprocess | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    node_of: Callable[[Node], Node] | None = None,
    workers: int = 1,
) -> QuantNetwork:
    """Choose scales and zero points from calibration images.

    Parameters
    ----------
    network
        As :func:`refmodel.exchange.onnx.load.load_onnx` gives it.
    images
        Calibration images as network inputs, (N, *input_shape), N at least 1: what
        :meth:`refmodel.network.images.Preprocess.apply` returns.
    activations
        How a tensor's range is chosen, one of :data:`ACTIVATIONS`.
    percentile
        For ``percentile``: above 50 and at most 100.
    weights
        ``layer``: one scale to a layer; ``channel``: one to each output.
    residual
        Treatment of residual additions, one of :data:`RESIDUALS`.
    preprocess
        How the images were made, its scale settled; kept with the result. None: they are taken as
        they are.
    ranges
        Smallest and largest value of each tensor on the images, where they are known.
    node_of
        Gives the node that computes in a node's place, where histograms are counted.
    workers
        Images that go through a layer at a time then.

    Raises
    ------
    InputError
        There are no images, their shape is not the network's, or a value is NaN or infinite.
    """
    if activations not in ACTIVATIONS:
        raise ValueError(
            f"activations must be one of {', '.join(ACTIVATIONS)}, not {activations!r}"
        )
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    if residual not in RESIDUALS:
        raise ValueError(f"residual must be one of {', '.join(RESIDUALS)}, not {residual!r}")
    if not 50 < percentile <= 100:
        raise ValueError(f"percentile must be above 50 and at most 100, not {percentile!r}")
    if not len(images):
        raise InputError(f"expected calibration images, found none, for {network.source}")
    if preprocess is not None and preprocess.scale is None:
        raise InputError("expected a settled scale of the images, found None in preprocess")
    if ranges is None:
        ranges = value_ranges(network, images)
    histograms = {}
    if activations != "minmax":
        histograms = value_histograms(network, images, ranges, node_of=node_of, workers=workers)
    if activations == "percentile":
        ranges = dict(ranges)
        for name, counts in histograms.items():
            ranges[name] = percentile_range(counts, ranges[name], percentile)
        histograms = {}
    quantizer = _Quantizer(network, dict(ranges), histograms, weights, residual)
    return quantizer.run(preprocess or Preprocess(scale=1.0))


class _Quantizer:
    """One pass over the nodes that fuses ReLUs, one that writes layers and steps."""

    def __init__(
        self,
        network: FloatNetwork,
        ranges: dict[str, tuple[float, float]],
        histograms: dict[str, NDArray[np.int64]],
        weights: Weights,
        residual: Residual,
    ) -> None:
        self.network = network
        self.ranges = ranges
        self.histograms = histograms
        self.weights = weights
        self.residual = residual
        self.shapes = network.shapes
        self.alias: dict[str, str] = {}
        self.limits: dict[str, tuple[float, float]] = {}
        """Real limits that a tensor's producer applies."""
        self.given: dict[str, tuple[float, int]] = {}
        """Scales and zero points that the network itself has."""
        self.tensors: dict[str, TensorInfo] = {}
        matrices = [node for node in network.nodes if isinstance(node, Matrix)]
        self.number = {node.output: index for index, node in enumerate(matrices)}
        self.layers: dict[int, MatrixLayer] = {}
        self.looked_up: dict[str, list[Function]] = {}
        """Tensors that tables alone read, and the functions in these."""
        self.fused: dict[str, Matrix] = {}
        """Outputs of additions, and the layers that compute them."""
        self.steps: list[Step] = []

    def run(self, preprocess: Preprocess) -> QuantNetwork:
        self._fuse()
        if self.residual == "fused":
            self._fuse_residuals()
        self._find_looked_up()
        network = self.network
        found = affine_scale(*self.ranges[network.input])
        scale, zero = self.given.get(network.input, found)
        self._info(network.input, self.shapes[network.input], scale, zero)
        for node in network.nodes:
            self._emit(node)
        output = self._resolve(network.output)
        return QuantNetwork(
            layers=tuple(self.layers[index] for index in sorted(self.layers)),
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
        """Give limits and given scales to the node that computes the values.

        Only where no one else reads what is between; max pooling and rearrangement in between do
        not matter.
        """
        producers = {node.output: node for node in self.network.nodes}
        readers = Counter(self.network.consumers())
        quantisers = [node for node in self.network.nodes if isinstance(node, FakeQuant)]
        for node in self.network.nodes:
            if not isinstance(node, Clip | FakeQuant):
                continue
            source = self._resolve(node.inputs[0])
            same = 1
            if isinstance(node, FakeQuant):
                same = sum(
                    (each.scale, each.zero) == (node.scale, node.zero)
                    and self._resolve(each.inputs[0]) == source
                    for each in quantisers
                    if each.output not in self.alias
                )
            name = source
            alone = readers[name] == same
            while alone and isinstance(producers.get(name), MaxPool | Rearrange):
                name = self._resolve(producers[name].inputs[0])
                alone = readers[name] == 1
            producer = producers.get(name)
            if isinstance(node, FakeQuant):
                given = node.scale, node.zero
                able = producer is None or isinstance(producer, COMPUTED)
                able &= name not in self.given
                if not (able and alone) and self.given.get(name) != given:
                    continue
                self.given[name] = given
            else:
                relu = (node.lo, node.hi) == (0.0, np.inf)
                able = isinstance(producer, Matrix | Add | Concat | Function | Product) or (
                    isinstance(producer, AveragePool) and relu
                )
                if not (able and alone):
                    continue
                lo, hi = self.limits.get(name, (-np.inf, np.inf))
                self.limits[name] = max(lo, node.lo), min(hi, node.hi)
            self.alias[node.output] = source
            readers[source] += readers[node.output] - 1

    def _fuse_residuals(self) -> None:
        """Choose the layers that take over an addition."""
        matrices = {node.output: node for node in self.network.nodes if isinstance(node, Matrix)}
        readers = Counter([self._resolve(self.network.output)])
        nodes = [node for node in self.network.nodes if node.output not in self.alias]
        for node in nodes:
            readers.update(self._resolve(name) for name in node.inputs)
        for node in nodes:
            if isinstance(node, Add):
                names = [self._resolve(name) for name in node.inputs]
                able = [
                    name
                    for name in names
                    if name in matrices
                    and readers[name] == 1
                    and name not in self.limits
                    and name not in self.given
                ]
                if able:
                    last = max(able, key=self.number.__getitem__)
                    self.fused[node.output] = matrices[last]

    def _find_looked_up(self) -> None:
        """Find the tensors that tables alone read."""
        readers: dict[str, list[Node | None]] = {self._resolve(self.network.output): [None]}
        for node in self.network.nodes:
            for name in node.inputs if node.output not in self.alias else ():
                readers.setdefault(self._resolve(name), []).append(node)
        for name, nodes in readers.items():
            functions = [node for node in nodes if isinstance(node, Function)]
            if len(functions) == len(nodes):
                self.looked_up[name] = functions

    def _info(self, name: str, shape: Shape, scale: float, zero: int) -> TensorInfo:
        info = TensorInfo(shape=memory_shape(shape), scale=scale, zero=zero)
        self.tensors[name] = info
        return info

    def _computed(self, node: Node, inputs: list[TensorInfo]) -> tuple[TensorInfo, tuple[int, int]]:
        """Scale, zero point and limiting codes of what a layer, addition or average computes."""
        least, most = self.limits.get(node.output, (-np.inf, np.inf))
        lo, hi = np.clip(self.ranges[node.output], least, most).tolist()
        moved = not isinstance(node, Matrix) and node.output not in self.fused
        if node.output in self.given:
            scale, zero = self.given[node.output]
        elif node.output in self.looked_up:
            scale, zero = affine_scale(*changing_range(self.looked_up[node.output], lo, hi))
        elif isinstance(node, Function | Product):
            scale, zero = affine_scale(lo, hi)
        elif least == 0 or (moved and all(info.zero == 0 for info in inputs)):
            scale, zero = max(hi, 0.0) / MAX_CODE, 0
        else:
            scale, zero = max(abs(lo), abs(hi)) / (MAX_CODE - SIGNED_ZERO), SIGNED_ZERO
        counts = self.histograms.get(node.output)
        if counts is not None and scale > 0 and node.output not in self.given:
            edges = np.linspace(*self.ranges[node.output], len(counts) + 1)
            values = np.clip((edges[1:] + edges[:-1]) / 2, least, most)
            scale = least_error_scale(values, counts, scale, zero)
        info = self._info(node.output, node.shape, scale or 1.0, zero)
        return info, self._codes(info, least, most)

    @staticmethod
    def _codes(info: TensorInfo, lo: float, hi: float) -> tuple[int, int]:
        """The codes of two real limits."""
        codes = np.floor(np.array([lo, hi]) / info.scale + 0.5) + info.zero
        low, high = np.clip(codes, 0, MAX_CODE).astype(int).tolist()
        return low, high

    def _emit(self, node: Node) -> None:
        if node.output in self.alias or node in self.fused.values():
            return
        names = tuple(self._resolve(name) for name in node.inputs)
        if node.output in self.fused:
            self._emit_fused(node, self.fused[node.output], names)
            return
        inputs = [self.tensors[name] for name in names]
        source = inputs[0]
        match node:
            case Matrix():
                op, params = "layer", {"index": self.number[node.output]}
                self._emit_layer(node, source, *self._computed(node, inputs))
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
                op, params = "add", self._requantise(inputs, info, clip)
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
                if index.min() < 0:
                    params["fill"] = source.zero
                self._info(node.output, node.shape, source.scale, source.zero)
            case Concat():
                info, clip = self._computed(node, inputs)
                # Where (H, W, C) has the axis that ONNX has as (C, H, W), (H, W) or (F,).
                axis = {1: (2,), 2: (0, 1), 3: (2, 0, 1)}[len(node.shape)][node.axis]
                op, params = "concat", self._requantise(inputs, info, clip) | {"axis": axis}
            case Function():
                info, clip = self._computed(node, inputs)
                op, params = "table", {"tables": function_tables(node, source, info, clip)}
            case Product():
                info, clip = self._computed(node, inputs)
                op, params = "multiply", product_params(inputs, info, clip)
            case FakeQuant():
                if (source.scale, source.zero) == (node.scale, node.zero):
                    self.alias[node.output] = names[0]
                    return
                info = self._info(node.output, node.shape, node.scale, node.zero)
                op, params = "concat", self._requantise(inputs, info, (0, MAX_CODE)) | {"axis": 2}
            case _:
                raise TypeError(f"cannot quantise {node!r}")
        self.steps.append(Step(op=op, inputs=names, output=node.output, params=params))

    @staticmethod
    def _requantise(inputs: list[TensorInfo], info: TensorInfo, clip: tuple[int, int]) -> dict:
        """How codes of ``inputs`` become codes of ``info``."""
        multipliers, shift = fixed_point([each.scale / info.scale for each in inputs])
        return {
            "multipliers": multipliers.tolist(),
            "shift": shift,
            "zeros_in": [each.zero for each in inputs],
            "zero_out": info.zero,
            "clip": list(clip),
        }

    @staticmethod
    def _window(node: MaxPool | AveragePool) -> dict:
        window = {"kernel": node.kernel, "stride": node.stride, "pads": node.pads}
        return {key: list(values) for key, values in window.items()}

    def _emit_fused(self, add: Node, matrix: Matrix, names: tuple[str, ...]) -> None:
        """Write an addition as the layer that computes one of its operands."""
        source = self._resolve(matrix.inputs[0])
        (other,) = (name for name in names if name != matrix.output)
        info, clip = self._computed(add, [])
        self._emit_layer(matrix, self.tensors[source], info, clip, self.tensors[other])
        params = {"index": self.number[matrix.output]}
        step = Step(op="layer", inputs=(source, other), output=add.output, params=params)
        self.steps.append(step)

    def _emit_layer(
        self,
        node: Matrix,
        source: TensorInfo,
        info: TensorInfo,
        clip: tuple[int, int],
        residual: TensorInfo | None = None,
    ) -> None:
        weight, gain = node.weight, node.gain
        if node.exact:
            weight = weight.astype(np.int8)
        elif self.weights == "channel":
            largest = np.abs(weight).max(axis=(1, 2, 3))
            largest[largest == 0] = 1
            weight, gain = weight / largest[:, None, None, None], gain * largest
        self.layers[self.number[node.output]] = MatrixLayer(
            name=node.name,
            weight=weight,
            gain=gain,
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
            residual=residual,
        )


def _memory_index(node: Rearrange, in_shape: Shape) -> NDArray[np.int64]:
    """A rearrangement of values in ONNX order as one of codes in memory order."""
    # order[p] is the number in ONNX order of the value at place p in memory.
    order_in, order_out = (
        to_memory(np.arange(prod(shape)).reshape(1, *shape)).reshape(-1)
        for shape in (in_shape, node.shape)
    )
    place, index = np.argsort(order_in), node.index[order_out]
    return np.where(index < 0, -1, place[index])
