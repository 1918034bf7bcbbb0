"""Pooling of tensors (N, C, D, H, W) along D alone, as exporters write a mean over channels."""

import numpy as np
from onnx import NodeProto

from refmodel.exchange.onnx.builder import MOST_VALUES, Attributes, NetworkBuilder, value_numbers
from refmodel.network.graph import AveragePool, MaxPool


def is_volume(net: NetworkBuilder, node: NodeProto) -> bool:
    """Whether the first input of a node is a tensor (N, C, D, H, W)."""
    return len(net.shapes.get(net.resolve(node.input[0]), ())) == 4


def pool_volume(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a pooling whose windows are of one pixel.

    Windows are laid side by side, as rows of an image whose channels are C and D.
    """
    name, (channels, depth, height, width) = net.activation(node.input[0], node)
    kernel, stride, dilation = (
        [int(value) for value in attributes.get(key, (1, 1, 1))]
        for key in ("kernel_shape", "strides", "dilations")
    )
    pads = [int(value) for value in attributes.get("pads", (0,) * 6)]
    plain = attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    along = kernel[1:] == [1, 1] and stride[1:] == [1, 1] and len(pads) == 6
    if not along or pads[1:3] + pads[4:] != [0] * 4 or not plain or dilation != [1, 1, 1]:
        found = f"{kernel}, {stride} and {pads}"
        net.fail("of a tensor (N, C, D, H, W) with a kernel, strides and pads along D", found, node)
    include = bool(attributes.get("count_include_pad", 0)) and node.op_type == "AveragePool"
    if (any(pads) and not include) or attributes.get("ceil_mode", 0):
        net.fail("along D without pads that count for nothing", f"{pads}", node)
    places = (depth + pads[0] + pads[3] - kernel[0]) // stride[0] + 1
    size = kernel[0]
    if places < 1 or size < 1 or channels * places * height * width * size > MOST_VALUES:
        net.fail(f"to 1 to {MOST_VALUES} values", f"{places} places of {size}", node)
    at = np.arange(places)[:, None] * stride[0] + np.arange(size) - pads[0]
    inside = (at >= 0) & (at < depth)
    index = value_numbers((channels, depth, height, width))[:, at.clip(0, depth - 1)]
    index = np.where(inside[:, :, None, None], index, -1)
    index = np.moveaxis(index, 2, -1).reshape(channels * places, height, width * size)
    windows = net.rearranged(node, name, index)
    fields = net.inner_fields(node, (windows,), (channels * places, height, width))
    window = {"kernel": (1, size), "stride": (1, size), "pads": (0, 0, 0, 0)}
    if node.op_type == "MaxPool":
        net.append(MaxPool(**fields, **window))
    else:
        net.append(AveragePool(**fields, **window, counts=np.full((height, width), size)))
    net.rearrange(node, fields["output"], value_numbers((channels, places, height, width)))
