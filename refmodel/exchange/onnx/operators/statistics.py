"""Normalisations by the mean and the variance of what is normalised, and reductions to sums.

Each is put together of averages, sums of two tensors, products and functions: ``(x - mean) *
(variance + epsilon) ^ -1/2`` has a table for the power.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from refmodel.exchange.onnx.builder import Attributes, NetworkBuilder, shape_text
from refmodel.exchange.onnx.operators.arithmetic import affine
from refmodel.exchange.onnx.operators.parts import Parts
from refmodel.exchange.onnx.registry import operator
from refmodel.network.expression import Term, X, term
from refmodel.network.graph import Shape

BATCHES = "(statistics over the batch are those of training)"


@operator("InstanceNormalization")
def import_instance_normalization(
    net: NetworkBuilder, node: NodeProto, attributes: Attributes
) -> None:
    """Import a normalisation of each channel by its own mean and variance."""
    name, shape = net.activation(node.input[0], node)
    if len(shape) < 2:
        net.fail("of a tensor with pixels", shape_text(shape), node)
    parts = Parts(net, node)
    axes = range(2, len(shape) + 1)
    normal = _standardised(parts, name, list(axes), float(attributes.get("epsilon", 1e-5)))
    _scaled(parts, normal, _per_channel(net, node, shape))


@operator("GroupNormalization")
def import_group_normalization(
    net: NetworkBuilder, node: NodeProto, attributes: Attributes
) -> None:
    """Import a normalisation of groups of channels by their means and variances."""
    name, shape = net.activation(node.input[0], node)
    groups = int(attributes.get("num_groups", 0))
    if groups < 1 or shape[0] % groups or len(shape) < 2:
        found = f"{groups} groups of {shape_text(shape)}"
        net.fail("with groups that divide the channels", found, node)
    scaling = _per_channel(net, node, shape)
    parts = Parts(net, node)
    rows = parts.add("Reshape", name, parts.constant(np.array([0, groups, -1])))
    normal = _standardised(parts, rows, [2], float(attributes.get("epsilon", 1e-5)))
    normal = parts.add("Reshape", normal, parts.constant(np.array([0, *shape])))
    _scaled(parts, normal, scaling)


@operator("LayerNormalization", "RMSNormalization")
def import_layer_normalization(
    net: NetworkBuilder, node: NodeProto, attributes: Attributes
) -> None:
    """Import a normalisation over the last axes by the mean and variance, or the mean square."""
    name, shape = net.activation(node.input[0], node)
    first = int(attributes.get("axis", -1))
    first += (len(shape) + 1) * (first < 0)
    if not 1 <= first <= len(shape):
        net.fail(f"over axes behind the batch {BATCHES}", f"axis {first}", node)
    if any(net.uses[extra] for extra in node.output[1:]):
        net.fail("without its statistics", f"{node.output[1]!r}, which is read", node)
    scale = [
        np.broadcast_to(net.numbers(each, node, what).astype(np.float64), shape[first - 1 :])
        for each, what in zip(node.input[1:], ("scale", "bias"), strict=False)
        if each
    ]
    parts = Parts(net, node)
    axes, epsilon = list(range(first, len(shape) + 1)), float(attributes.get("epsilon", 1e-5))
    centred = node.op_type == "LayerNormalization"
    normal = _standardised(parts, name, axes, epsilon, centred=centred)
    _scaled(parts, normal, scale)


def _standardised(
    parts: Parts, x: str, axes: list[int], epsilon: float, *, centred: bool = True
) -> str:
    """Append ``(x - mean) / sqrt(variance + epsilon)`` over axes of ``x``; returns its name."""
    if centred:
        mean = parts.add("ReduceMean", x, axes=axes)
        x = parts.add("Add", x, parts.function(term("Neg", X), mean))
    squares = parts.function(term("Mul", X, X), x)
    variance = parts.add("ReduceMean", squares, axes=axes)
    factor = parts.function(term("Pow", term("Add", X, epsilon), -0.5), variance)
    return parts.add("Mul", x, factor)


def _per_channel(net: NetworkBuilder, node: NodeProto, shape: Shape) -> list[NDArray[np.float64]]:
    """Read scale and bias, one to a channel."""
    found = []
    for each, what in zip(node.input[1:3], ("scale", "bias"), strict=True):
        values = net.numbers(each, node, what).astype(np.float64)
        if values.shape != shape[:1]:
            net.fail(f"with {what} of {shape[0]} values", f"{values.shape}", node)
        found.append(values.reshape(-1, *(1 for _ in shape[1:])))
    return found


def _scaled(parts: Parts, x: str, scaling: list[NDArray[np.float64]]) -> None:
    """Let the output of the node be ``scale * x + bias``."""
    net, name = parts.net, parts.net.resolve(x)
    scale, bias = ([*scaling, np.zeros(())])[:2] if scaling else (np.ones(()), np.zeros(()))
    if (scale == 1).all() and not bias.any():
        net.pass_on(parts.node, name)
    else:
        affine(net, parts.node, name, scale, bias)


SUMS: dict[str, tuple[Term | None, str, Term | None]] = {
    "ReduceL1": (term("Abs", X), "ReduceMean", None),
    "ReduceL2": (term("Mul", X, X), "ReduceMean", term("Sqrt", X)),
    "ReduceMin": (term("Neg", X), "ReduceMax", term("Neg", X)),
    "ReduceSum": (None, "ReduceMean", None),
    "ReduceSumSquare": (term("Mul", X, X), "ReduceMean", None),
}
"""What is done before and behind the average, or the largest value, of a reduction."""


@operator(*SUMS)
def import_sum_over_axes(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import the sum, a norm or the least value over whole axes behind the batch."""
    name, shape = net.activation(node.input[0], node)
    before, reduction, behind = SUMS[node.op_type]
    parts = Parts(net, node)
    x = name if before is None else parts.function(before, name)
    x = parts.add(reduction, x, *node.input[1:], **attributes)
    count = int(np.prod(shape)) // int(np.prod(net.shapes[net.resolve(x)]))
    total = X if reduction == "ReduceMax" else term("Mul", X, count)
    parts.function(total if behind is None else behind.of(total), x, last=True)


SOFT = ("Softmax", "LogSoftmax")
"""Operators that are left out at the end of a network, and computed elsewhere."""


def import_softmax(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a Softmax or LogSoftmax before other nodes, along axes behind the batch."""
    name, shape = net.activation(node.input[0], node)
    rank = len(shape) + 1
    axis = int(attributes.get("axis", -1 if net.opset >= 13 else 1)) % rank
    if not axis:
        net.fail(f"of each image by itself {BATCHES}", "one along axis 0, the batch", node)
    # Before opset 13 all axes from the given one on were one.
    axes = [axis] if net.opset >= 13 else list(range(axis, rank))
    parts = Parts(net, node)
    largest = parts.function(term("Neg", X), parts.add("ReduceMax", name, axes=axes))
    x = parts.add("Add", name, largest)
    powers = parts.function(term("Exp", X), x)
    total = parts.add("ReduceSum", powers, axes=axes)
    if node.op_type == "LogSoftmax":
        parts.add("Add", x, parts.function(term("Neg", term("Log", X)), total), last=True)
    else:
        parts.add("Mul", powers, parts.function(term("Reciprocal", X), total), last=True)
