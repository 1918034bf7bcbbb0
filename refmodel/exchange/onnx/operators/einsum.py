"""Einsum, and any product of a tensor and constant weights along some of its axes."""

from itertools import chain
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from refmodel.exchange.onnx.builder import MOST_VALUES, Attributes, NetworkBuilder, value_numbers
from refmodel.exchange.onnx.registry import operator
from refmodel.network.graph import Matrix

DYNAMIC = (
    "crossbars hold constant weights; a product of two computed tensors, as in attention, "
    "has to run elsewhere"
)


@operator("Einsum")
def import_einsum(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a sum of products of one tensor and constant weights."""
    constant = [name in net.constants for name in node.input]
    if sorted(constant) != [False, True]:
        found = f"{constant.count(False)} tensors that are computed and {constant.count(True)} not"
        net.fail(f"of one tensor and constant weights ({DYNAMIC})", found, node)
    at = constant.index(False)
    name, shape = net.activation(node.input[at], node)
    weights = net.numbers(node.input[1 - at], node, "weights")
    equation = attributes["equation"].replace(" ", "")
    terms, arrow, result = equation.partition("->")
    operands = terms.split(",")
    if len(operands) != 2:
        net.fail("with an equation of two operands", repr(equation), node)
    ranks = [0, 0]
    ranks[at], ranks[1 - at] = 1 + len(shape), weights.ndim
    labels = [_labels(each, rank) for each, rank in zip(operands, ranks, strict=True)]
    if any(each is None for each in labels):
        net.fail(f"with an equation for operands of {ranks} axes", repr(equation), node)
    known = [each for each in labels if each is not None]
    if arrow:
        longest = max(len(_dots(each)) for each in known)
        output = _labels(result, len(result.replace("...", "")) + longest * ("..." in result))
    else:
        count = [*chain(*known)]
        once = sorted(each for each in set(count) if count.count(each) == 1 and len(each) == 1)
        output = [*max((_dots(each) for each in known), key=len), *once]
    contract(net, node, name, weights, known[at], known[1 - at], output or [])


def _dots(labels: list[str]) -> list[str]:
    """Labels that stand for an ellipsis."""
    return [each for each in labels if each.startswith(".")]


def _labels(text: str, rank: int) -> list[str] | None:
    """A label for each of ``rank`` axes; those of an ellipsis are numbered from the last one on.

    None where the text has not so many.
    """
    before, dots, after = text.partition("...")
    left = rank - len(before) - len(after)
    plain = before + after
    if left < 0 or (left and not dots) or (plain and not plain.isalpha()):
        return None
    return [*before, *(f".{n}" for n in reversed(range(left))), *after]


def contract(
    net: NetworkBuilder,
    node: NodeProto,
    name: str,
    weights: NDArray[np.float32],
    axes: list[str],
    weight_axes: list[str],
    output: list[str],
) -> None:
    """Let the output of ``node`` be the sum of products of ``name`` and constant weights.

    Parameters
    ----------
    net, node, name
        The network, the node, the tensor.
    weights
        Constants.
    axes, weight_axes, output
        A label to each axis of the tensor, the batch first, of the weights, and of the output.
        Labels that the output has not are summed over.
    """
    shape = net.shapes[name]
    sizes = dict(zip(axes[1:], shape, strict=True))
    batch = axes[0]
    inner = [each for each in output if each != batch]
    bad = (
        batch in weight_axes
        or output[:1] != [batch]
        or len(set(axes)) < len(axes)
        or len(set(weight_axes)) < len(weight_axes)
        or len(set(output)) < len(output)
        or not inner
    )
    if bad:
        text = f"{''.join(axes)},{''.join(weight_axes)}->{''.join(output)}"
        net.fail("that keeps the batch first, with each axis once in an operand", text, node)
    for label, size in zip(weight_axes, weights.shape, strict=True):
        if sizes.setdefault(label, size) != size:
            net.fail(f"with weights of {sizes[label]} values along an axis", f"{size}", node)
    if not set(inner) <= set(sizes) or 0 in sizes.values():
        net.fail("with an output of axes that its operands have", f"{''.join(output)}", node)
    lost = tuple(at for at, each in enumerate(weight_axes) if each not in (*inner, *axes))
    weights = weights.sum(lost)
    weight_axes = [each for each in weight_axes if each in (*inner, *axes)]
    shared = [each for each in axes[1:] if each in weight_axes and each in inner]
    kept = [each for each in axes[1:] if each in inner and each not in shared]
    summed = [each for each in axes[1:] if each not in inner]
    made = [each for each in weight_axes if each not in axes]
    groups, places, inputs, outputs = (
        prod(sizes[each] for each in group) for group in (shared, kept, summed, made)
    )
    if groups * outputs * inputs > MOST_VALUES or groups * outputs * places > MOST_VALUES:
        found = f"{groups} times {outputs} by {inputs}"
        net.fail(f"of at most {MOST_VALUES} weights", found, node)
    # [shared, made, summed]; what the weights have not is the same all over it.
    missing = [each for each in summed if each not in weight_axes]
    full = weights.reshape(*weights.shape, *(1 for _ in missing))
    places_of = {each: at for at, each in enumerate((*weight_axes, *missing))}
    full = full.transpose([places_of[each] for each in (*shared, *made, *summed)])
    full = np.broadcast_to(full, [sizes[each] for each in (*shared, *made, *summed)])
    matrix = np.ascontiguousarray(full.reshape(groups * outputs, inputs, 1, 1), np.float32)
    values = {
        "weight": matrix,
        "gain": np.ones(len(matrix)),
        "bias": np.zeros(len(matrix)),
        "groups": groups,
    }
    numbers = value_numbers(shape)
    index = numbers.transpose([axes[1:].index(each) for each in (*shared, *summed, *kept)])
    vector = not kept and groups == 1
    seen = (inputs,) if vector else (groups * inputs, 1, places)
    result = (outputs,) if vector else (groups * outputs, 1, places)
    index = index.reshape(seen)
    if seen != shape or (index != numbers).any():
        name = net.rearranged(_renamed(node, "inputs"), name, index)
    found = value_numbers(tuple(sizes[each] for each in (*shared, *made, *kept)))
    found = found.transpose([(*shared, *made, *kept).index(each) for each in inner])
    if found.shape == result and (found == value_numbers(result)).all():
        net.append(Matrix(**net.fields(node, (name,), result), **values))
        return
    fields = net.inner_fields(node, (name,), result)
    net.append(Matrix(**fields, **values))
    net.rearrange(_renamed(node, "outputs"), fields["output"], found)


def _renamed(node: NodeProto, what: str) -> NodeProto:
    """Copy a node under a name of its own, so that the layer has the node's name."""
    other = NodeProto()
    other.CopyFrom(node)
    other.name = f"{node.name or node.output[0]}.{what}"
    return other
