"""Convolutions and matrix products with constant weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from refmodel.exchange.onnx.builder import Attributes, NetworkBuilder, shape_text, value_numbers
from refmodel.exchange.onnx.operators.einsum import DYNAMIC, contract
from refmodel.exchange.onnx.operators.lines import as_image, is_line
from refmodel.exchange.onnx.registry import operator
from refmodel.exchange.onnx.windows import read_windows
from refmodel.network.graph import Matrix


@dataclass(frozen=True)
class _Weights:
    """Constant weights of a layer.

    Attributes
    ----------
    values
        float32, outputs first.
    gain
        float64, one to an output: what the values are multiplied by.
    exact
        Whether the values are the integers that a quantised network came with.
    """

    values: NDArray[np.float32]
    gain: NDArray[np.float64]
    exact: bool


@operator("Conv")
def import_conv(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a convolution; a border of zeros that Pad puts before it becomes its padding."""
    if is_line(net, node):
        as_image(net, node, attributes, import_conv)
        return
    name, (channels, height, width) = net.image(node)
    weights = _weights(net, node)
    weight = weights.values
    groups = int(attributes.get("group", 1))
    if weight.ndim != 4 or 0 in weight.shape:
        net.fail("with weights (out, in, kh, kw)", f"{weight.shape}", node)
    outputs, inputs, *kernel = weight.shape
    if groups < 1 or inputs * groups != channels or outputs % groups:
        found = f"weights {weight.shape} in {groups} groups on {channels} channels"
        net.fail("with weights (out, channels / groups, kh, kw)", found, node)
    if list(attributes.get("kernel_shape", kernel)) != kernel:
        net.fail(f"with kernel_shape {kernel}", f"{attributes['kernel_shape']}", node)
    windows = read_windows(net, node, attributes, (height, width), kernel)
    out = windows.output(net, node)
    pads = windows.pads
    if name in net.bordered:
        name, border = net.bordered[name]
        top, left, bottom, right = (a + b for a, b in zip(pads, border, strict=True))
        pads = top, left, bottom, right
    net.append(
        Matrix(
            **net.fields(node, (name,), (outputs, *out)),
            weight=np.ascontiguousarray(weight),
            gain=weights.gain,
            exact=weights.exact,
            bias=_bias(net, node, 2, outputs),
            stride=windows.stride,
            pads=pads,
            dilation=windows.dilation,
            groups=groups,
        )
    )


@operator("Gemm")
def import_gemm(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a matrix product with a bias."""
    if node.input[0] in net.constants:
        _weights_first(net, node, attributes)
        return
    if attributes.get("transA", 0):
        name = net.untransposed(node.input[0])
        if name is None:
            net.fail("with transA = 0, the batch being its rows", "transA = 1", node)
    else:
        name, _ = net.activation(node.input[0], node)
    weights = _weights(net, node, transpose=not attributes.get("transB", 0))
    bias = _bias(net, node, 2, len(weights.values)) * float(attributes.get("beta", 1.0))
    _fully_connected(net, node, name, weights, float(attributes.get("alpha", 1.0)), bias)


@operator("MatMul")
def import_matmul(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a matrix product with constants on either side, whatever axes the tensor has."""
    if node.input[0] in net.constants:
        name = net.resolve(node.input[1])
        if net.untransposed(name) is None and len(net.shapes.get(name, ())) > 1:
            _batched(net, node, name, net.numbers(node.input[0], node, "weights"), first=True)
            return
        _weights_first(net, node, {})
        return
    name, shape = net.activation(node.input[0], node)
    if node.input[1] not in net.constants:
        net.fail(f"with constant weights ({DYNAMIC})", f"tensor {node.input[1]!r}, computed", node)
    values = net.numbers(node.input[1], node, "weights")
    if len(shape) > 2 or values.ndim > 2:
        _batched(net, node, name, values, first=False)
        return
    weights = _weights(net, node, transpose=True)
    bias = np.zeros(len(np.atleast_1d(weights.values)))
    _fully_connected(net, node, name, weights, 1.0, bias)


def _batched(
    net: NetworkBuilder, node: NodeProto, name: str, weights: NDArray[np.float32], *, first: bool
) -> None:
    """Append a product along the last axis of a tensor, or the last but one, with its batch first.

    Axes of the weights before their last two are the tensor's, as numpy broadcasts them; those of
    one value are the same for all.
    """
    rank = 1 + len(net.shapes[name])
    if not 2 <= weights.ndim <= rank or rank < 3:
        found = f"weights {weights.shape} and {shape_text(net.shapes[name])}"
        net.fail("of a tensor and weights that broadcast", found, node)
    axes = [str(axis) for axis in range(rank)]
    ahead = axes[rank - weights.ndim : rank - 2]
    for axis, (label, size) in reversed([*enumerate(zip(ahead, weights.shape, strict=False))]):
        if size == 1:
            weights = weights.squeeze(axis)
            ahead.remove(label)
    summed = axes[-2] if first else axes[-1]
    output = [*axes[:-2], "made", axes[-1]] if first else [*axes[:-1], "made"]
    last = ["made", summed] if first else [summed, "made"]
    contract(net, node, name, weights, axes, [*ahead, *last], output)


def _weights(
    net: NetworkBuilder, node: NodeProto, *, transpose: bool = False, at: int = 1
) -> _Weights:
    """Read the weights in input ``at``, as integers where a DequantizeLinear made them."""
    name = node.input[at]
    values = net.numbers(name, node, "weights")
    values = values.T if transpose else values
    real = _Weights(values, np.ones(len(np.atleast_1d(values))), exact=False)
    if name not in net.codes or not values.size or values.ndim < 2:
        return real
    codes, scale = (each.T if transpose else each for each in net.codes[name])
    scale = scale.reshape(len(scale), -1)
    fits = codes.min() >= -128 and codes.max() <= 127 and (scale == scale[:, :1]).all()
    if not fits or scale.min() <= 0:
        return real
    return _Weights(codes.astype(np.float32), scale[:, 0].copy(), exact=True)


def _bias(net: NetworkBuilder, node: NodeProto, at: int, outputs: int) -> NDArray[np.float64]:
    """Read the bias in input ``at``, if there is one, as a value for each output."""
    if len(node.input) <= at or not node.input[at]:
        return np.zeros(outputs)
    bias = net.numbers(node.input[at], node, "bias")
    if bias.size not in (1, outputs) or bias.size != max((1, *bias.shape)):
        net.fail(f"with a bias of {outputs} values", f"{bias.shape}", node)
    return np.broadcast_to(bias.reshape(-1), outputs).astype(np.float64)


def _weights_first(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import weights (out, in) times a tensor (in, N), whose batch stays last."""
    name = net.untransposed(node.input[1])
    if attributes.get("transB", 0):
        name, _ = net.activation(node.input[1], node)
    if name is None:
        net.fail("with the weights on the right", "constants on the left", node)
    weights = _weights(net, node, transpose=bool(attributes.get("transA", 0)), at=0)
    inner = net.transposed_node(node, node.input[2:])
    bias = _bias(net, inner, 2, len(weights.values)) * float(attributes.get("beta", 1.0))
    _fully_connected(net, inner, name, weights, float(attributes.get("alpha", 1.0)), bias)


def _fully_connected(
    net: NetworkBuilder,
    node: NodeProto,
    name: str,
    weights: _Weights,
    alpha: float,
    bias: NDArray[np.float64],
) -> None:
    """Append a layer that multiplies the last axis of ``name`` by weights [out, in]."""
    weight = weights.values
    shape = net.shapes[name]
    several = node.op_type == "MatMul" and len(shape) == 2
    fits = weight.ndim == 2 and 0 not in weight.shape and shape[-1] == weight.shape[1]
    if not fits or (len(shape) != 1 and not several):
        found = f"input {shape_text(shape)} and weights of shape {weight.shape[::-1]}"
        net.fail("of an input (N, in) and weights (in, out)", found, node)
    outputs = len(weight)
    values: dict[str, Any] = {
        "weight": np.ascontiguousarray(weight)[:, :, None, None],
        "gain": weights.gain * alpha,
        "bias": bias,
        "exact": weights.exact,
    }
    if not several:
        net.append(Matrix(**net.fields(node, (name,), (outputs,)), **values))
        return
    # Rows are multiplied like the pixels of an image of `in` channels.
    name = net.rearranged(node, name, value_numbers(shape).T[:, None])
    fields = net.inner_fields(node, (name,), (outputs, 1, shape[0]))
    net.append(Matrix(**fields, **values))
    index = value_numbers((outputs, shape[0])).T
    net.rearrange(node, fields["output"], index)
