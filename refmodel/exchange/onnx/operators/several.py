"""Sum, Mean, Max and Min of any number of operands, each a tensor or a constant."""

from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from refmodel.exchange.onnx.builder import Attributes, NetworkBuilder, shape_text, value_numbers
from refmodel.exchange.onnx.operators.activations import limit
from refmodel.exchange.onnx.operators.arithmetic import affine
from refmodel.exchange.onnx.registry import operator
from refmodel.network.graph import Add, AveragePool, Concat, MaxPool

MOST_OPERANDS = 256
"""Inputs of one node; networks that branch widely have some tens."""


@operator("Sum", batch_last=True)
def import_sum(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a sum as a chain of sums of two; constants come last."""
    names, constants = _operands(net, node, "bias")
    left = len(names) + len(constants) - 1
    if not left:
        net.pass_on(node, names[0])
        return
    name = names[0]
    for other in (*names[1:], *constants):
        left -= 1
        step = net.inner_node(node) if left else node
        if isinstance(other, str):
            net.append(Add(**net.fields(step, (name, other), net.shapes[name])))
        else:
            affine(net, step, name, np.ones(()), other)
        name = net.resolve(step.output[0])


@operator("Mean", batch_last=True)
def import_mean(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import an average of tensors."""
    names, constants = _operands(net, node, "operands")
    if constants:
        net.fail("of tensors that are computed", f"{len(constants)} constants", node)
    if len(names) == 1:
        net.pass_on(node, names[0])
    else:
        _pool_across(net, node, names)


@operator("Max", "Min", batch_last=True)
def import_extreme(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import the largest or least of tensors, and limits, which are constants of one value."""
    names, constants = _operands(net, node, "limits")
    if any(values.size != 1 for values in constants):
        found = f"constants of shapes {[values.shape for values in constants]}"
        net.fail("with limits of one value", found, node)
    limits = [float(values.item()) for values in constants]
    if len(names) == 1 and not limits:
        net.pass_on(node, names[0])
        return
    name = names[0]
    if len(names) > 1:
        step = net.inner_node(node) if limits else node
        if node.op_type == "Min":
            _least_across(net, step, names)
        else:
            _pool_across(net, step, names)
        name = net.resolve(step.output[0])
    if limits and node.op_type == "Max":
        limit(net, node, name, max(limits), np.inf)
    elif limits:
        limit(net, node, name, -np.inf, min(limits))


def _operands(
    net: NetworkBuilder, node: NodeProto, what: str
) -> tuple[list[str], list[NDArray[np.float64]]]:
    """Return the tensors, all of one shape, and the constants among the inputs."""
    names: list[str] = []
    constants: list[NDArray[np.float64]] = []
    if len(node.input) > MOST_OPERANDS:
        net.fail(f"of at most {MOST_OPERANDS} operands", f"{len(node.input)}", node)
    for name in node.input:
        if name in net.constants:
            constants.append(net.numbers(name, node, what).astype(np.float64))
        else:
            names.append(net.activation(name, node)[0])
    shapes = [net.shapes[name] for name in names]
    if any(shape != shapes[0] for shape in shapes):
        found = ", ".join(map(shape_text, shapes))
        net.fail("of tensors of the same shape", found, node)
    return names, constants


def _least_across(net: NetworkBuilder, node: NodeProto, names: list[str]) -> None:
    """Append the least of tensors: the largest of what has the other sign, its sign changed."""
    turned = []
    for name in names:
        step = net.inner_node(node)
        affine(net, step, name, -np.ones(()), np.zeros(()))
        turned.append(net.resolve(step.output[0]))
    step = net.inner_node(node)
    _pool_across(net, step, turned)
    affine(net, node, net.resolve(step.output[0]), -np.ones(()), np.zeros(()))


def _pool_across(net: NetworkBuilder, node: NodeProto, names: list[str]) -> None:
    """Append the pooling of tensors value by value: they are put side by side in its windows."""
    count, shape = len(names), net.shapes[names[0]]
    match shape:
        case (_, _, _):
            image = shape
        case (features,):
            image = (features, 1, 1)
        case _:
            image = (1, 1, prod(shape))
    channels, height, width = image
    joined = net.inner_fields(node, tuple(names), (count * shape[0], *shape[1:]))
    net.append(Concat(**joined, axis=0))
    index = np.moveaxis(value_numbers((count, *image)), 0, -1)
    name = net.rearranged(node, joined["output"], index.reshape(channels, height, width * count))
    fields = (net.fields if image == shape else net.inner_fields)(node, (name,), image)
    window = {"kernel": (1, count), "stride": (1, count), "pads": (0, 0, 0, 0)}
    if node.op_type in ("Max", "Min"):
        net.append(MaxPool(**fields, **window))
    else:
        net.append(AveragePool(**fields, **window, counts=np.full((height, width), count)))
    if image != shape:
        net.rearrange(node, fields["output"], value_numbers(shape))
