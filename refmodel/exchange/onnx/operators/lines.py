"""Tensors (N, C, L), of signals: convolved and pooled as images of one row."""

from collections.abc import Callable

from onnx import NodeProto

from refmodel.exchange.onnx.builder import Attributes, NetworkBuilder, value_numbers

_BEFORE = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 0, "output_shape": 1}
"""Attributes of one number to an axis, and what they are along the rows of an image."""


def is_line(net: NetworkBuilder, node: NodeProto) -> bool:
    """Whether the first input of a node is a tensor (N, C, L)."""
    return len(net.shapes.get(net.resolve(node.input[0]), ())) == 2


def as_image(
    net: NetworkBuilder,
    node: NodeProto,
    attributes: Attributes,
    handler: Callable[[NetworkBuilder, NodeProto, Attributes], None],
) -> None:
    """Import a node of a tensor (N, C, L) as the same of an image (N, C, 1, L).

    Rearrangements that this puts between layers meet, and go with
    :func:`refmodel.network.passes.tidy`.
    """
    name, (channels, length) = net.activation(node.input[0], node)
    before, after = NodeProto(), NodeProto()
    for each, what in ((before, "line"), (after, "image")):
        each.CopyFrom(node)
        each.name = f"{node.name or node.output[0]}.{what}"
    image = net.rearranged(before, name, value_numbers((channels, 1, length)))
    inner = net.inner_node(node)
    inner.name = node.name or node.output[0]
    inner.input[0] = image
    if len(inner.input) > 1 and inner.input[1] in net.constants:
        weights = inner.input[1]
        values = net.constants[weights]
        if values.ndim != 3:
            net.fail("with weights of three axes", f"{values.shape}", node)
        inner.input[1] = f"{weights}'"
        net.constants[inner.input[1]] = values[:, :, None]
        net.origin[inner.input[1]] = net.origin[weights]
        if weights in net.codes:
            codes, scale = net.codes[weights]
            net.codes[inner.input[1]] = codes[:, :, None], scale[:, :, None]
    wide = dict(attributes)
    for key, first in _BEFORE.items():
        if key in attributes:
            wide[key] = [first, *attributes[key]]
    if "pads" in attributes:
        pads = list(attributes["pads"])
        if len(pads) != 2:
            net.fail("with two pads", f"{pads}", node)
        wide["pads"] = [0, pads[0], 0, pads[1]]
    handler(net, inner, wide)
    image = net.resolve(inner.output[0])
    outputs, _, places = net.shapes[image]
    net.rearrange(after, image, value_numbers((outputs, places)))
