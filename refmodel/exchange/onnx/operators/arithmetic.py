"""Sums of tensors, arithmetic with constants, and BatchNormalization."""

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from refmodel.exchange.onnx.builder import Attributes, NetworkBuilder, shape_text, value_numbers
from refmodel.exchange.onnx.registry import operator
from refmodel.network.expression import X, term
from refmodel.network.graph import Add, Function, Matrix, Product, Rearrange, Shape

MOST_SINGLE = 1 << 16
"""Values of a tensor that may each have constants of their own."""


@operator("Add", "Sub", "Mul", "Div", batch_last=True)
def import_arithmetic(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a sum, difference, product or quotient of tensors, or of a tensor and a constant."""
    constant = [name in net.constants for name in node.input]
    if not any(constant):
        _of_two(net, node)
        return
    name, shape = net.activation(node.input[constant.index(False)], node)
    what = "bias" if node.op_type in ("Add", "Sub") else "factors"
    values = net.numbers(node.input[constant.index(True)], node, what).astype(np.float64)
    if "axis" in attributes:  # before opset 7 the constant was aligned with an axis
        values = values.reshape(
            values.shape + (1,) * (1 + len(shape) - attributes["axis"] - values.ndim)
        )
    gain, bias = np.ones(()), np.zeros(())
    match node.op_type, constant[0]:
        case "Add", _:
            bias = values
        case "Sub", False:
            bias = -values
        case "Sub", True:
            gain, bias = -np.ones(()), values
        case "Mul", _:
            gain = values
        case "Div", False if values.all():
            gain = 1 / values
        case _:
            net.fail("by constants other than 0", "a zero or a computed divisor", node)
    affine(net, node, name, gain, bias)


def _of_two(net: NetworkBuilder, node: NodeProto) -> None:
    """Import a sum, difference, product or quotient of two tensors.

    A difference is the sum with a tensor times -1, a quotient the product with a reciprocal.
    """
    (a, first), (b, second) = (net.activation(name, node) for name in node.input)
    pairs = [*zip(first, second, strict=False)]
    if len(first) != len(second) or any(p != q and 1 not in (p, q) for p, q in pairs):
        found = f"{shape_text(first)} and {shape_text(second)}"
        net.fail("of two tensors of one shape, or sizes of 1 in one of them", found, node)
    whole = tuple(max(pair) for pair in pairs)
    if node.op_type in ("Sub", "Div"):
        inner = net.inner_node(node)
        inner.name = f"{node.name or node.output[0]}.second"
        if node.op_type == "Sub":
            affine(net, inner, b, -np.ones(()), np.zeros(()))
        else:
            fields = net.fields(inner, (b,), second)
            net.append(Function(**fields, term=term("Reciprocal", X)))
        b = net.resolve(inner.output[0])
    if node.op_type in ("Mul", "Div"):
        if first != whole:
            (a, first), (b, second) = (b, second), (a, first)
        if first != whole:
            a = _spread(net, node, a, whole)
        if second != whole and len(whole) > 3:  # whose first axes become one
            b = _spread(net, node, b, whole)
        net.append(Product(**net.fields(node, (a, b), whole)))
        return
    a, b = (
        name if shape == whole else _spread(net, node, name, whole)
        for name, shape in ((a, first), (b, second))
    )
    net.append(Add(**net.fields(node, (a, b), whole)))


def _spread(net: NetworkBuilder, node: NodeProto, name: str, shape: Shape) -> str:
    """Repeat the values of a tensor along axes where it has a size of 1; returns its name."""
    apart = NodeProto()
    apart.CopyFrom(node)
    apart.name = f"{node.name or node.output[0]}.spread"
    return net.rearranged(apart, name, np.broadcast_to(value_numbers(net.shapes[name]), shape))


@operator("Neg", batch_last=True)
def import_neg(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a change of sign."""
    name, _ = net.activation(node.input[0], node)
    affine(net, node, name, -np.ones(()), np.zeros(()))


@operator("BatchNormalization")
def import_batch_normalization(
    net: NetworkBuilder, node: NodeProto, attributes: Attributes
) -> None:
    """Import a normalisation by given means and variances."""
    name, shape = net.activation(node.input[0], node)
    if attributes.get("training_mode", 0):
        net.fail("for inference", "training_mode = 1", node)
    whats = ("scale", "bias", "mean", "variance")
    values = [
        net.numbers(each, node, what).astype(np.float64)
        for each, what in zip(node.input[1:5], whats, strict=True)
    ]
    if any(each.shape != shape[:1] for each in values):
        found = f"{[each.shape for each in values]}"
        net.fail(f"with four times {shape[0]} values", found, node)
    scale, bias, mean, variance = values
    variance = variance + float(attributes.get("epsilon", 1e-5))
    if variance.min() <= 0:
        net.fail("with variance + epsilon above 0", f"{variance.min():g}", node)
    gain = scale / np.sqrt(variance)
    axes = (-1,) + (1,) * (len(shape) - 1)
    affine(net, node, name, gain.reshape(axes), (bias - mean * gain).reshape(axes))


def affine(net: NetworkBuilder, node: NodeProto, name: str, gain: NDArray, bias: NDArray) -> None:
    """Let the output of ``node`` be ``gain * name + bias``.

    The constants have the batch as their first axis, or fewer axes than the tensor. Where they
    differ along more than one axis, every value is a channel of its own.
    """
    shape = net.shapes[name]
    try:
        full = [np.broadcast_to(each, (1, *shape))[0] for each in (gain, bias)]
    except ValueError:
        found = f"{max(gain.shape, bias.shape, key=len)} on {shape_text(shape)}"
        net.fail("of one constant to a channel", found, node)
    if absorb(net, node, name, *full):
        return
    index = value_numbers(shape)
    folded = [np.moveaxis(index, axis, 0) for axis in range(len(shape))]
    if len(shape) == 2:  # (H, W) has one channel; otherwise either axis becomes the channels
        folded = [index[None], index[:, None], index.T[:, None]]
    for each in folded:
        values = _by_channel(full, each)
        if values is not None:
            _apart(net, node, name, values, each)
            return
    if index.size <= MOST_SINGLE:
        each = index.reshape(-1, 1, 1)
        _apart(net, node, name, [values.reshape(-1) for values in full], each)
        return
    found = f"{max(gain.shape, bias.shape, key=len)} on {shape_text(shape)}"
    net.fail("of one constant to a channel", found, node)


def _by_channel(full: list[NDArray], index: NDArray) -> list[NDArray] | None:
    """Return the constants of each channel of a tensor whose places have the numbers ``index``.

    None where they differ within a channel.
    """
    flat = [each.reshape(-1)[index.reshape(len(index), -1)] for each in full]
    same = all((each == each[:, :1]).all() for each in flat)
    return [each[:, 0].copy() for each in flat] if same else None


def _apart(
    net: NetworkBuilder, node: NodeProto, name: str, values: list[NDArray], index: NDArray
) -> None:
    """Append a depthwise convolution, to the tensor rearranged so that it has a value a channel."""
    matrix: dict[str, Any] = {
        "weight": np.ones((len(index), 1, 1, 1), np.float32),
        "gain": values[0],
        "bias": values[1],
        "groups": len(index),
    }
    shape = net.shapes[name]
    if index.shape == shape and (index == value_numbers(shape)).all():
        net.append(Matrix(**net.fields(node, (name,), shape), **matrix))
        return
    name = net.rearranged(node, name, index)
    fields = net.inner_fields(node, (name,), index.shape)
    net.append(Matrix(**fields, **matrix))
    net.rearrange(node, fields["output"], np.argsort(index.reshape(-1)).reshape(shape))


def absorb(net: NetworkBuilder, node: NodeProto, name: str, gain: NDArray, bias: NDArray) -> bool:
    """Take arithmetic into the layer that computes ``name`` for ``node`` alone.

    False where no layer can take it.
    """
    before, index = net.nodes.get(name), value_numbers(net.shapes[name])
    if net.uses[name] > 1:
        return False
    moved = isinstance(before, Rearrange)
    if moved:
        # Seen from the layer, if the rearrangement before this keeps every value once.
        index = np.argsort(before.index)
        every = np.arange(prod(net.shapes[before.inputs[0]]))
        if not np.array_equal(before.index[index], every):
            return False
        before = net.nodes.get(before.inputs[0])
    if not isinstance(before, Matrix) or (moved and net.uses[before.output] > 1):
        return False
    values = _by_channel([gain, bias], index.reshape(len(before.bias), -1))
    if values is None:
        return False
    changes = {"gain": before.gain * values[0], "bias": before.bias * values[0] + values[1]}
    if moved:
        net.nodes[before.output] = replace(before, **changes)
        net.pass_on(node, name)
        return True
    del net.nodes[before.output]
    merged = replace(before, output=node.output[0], **changes)
    net.nodes[merged.output] = merged
    net.shapes[merged.output] = merged.shape
    return True
