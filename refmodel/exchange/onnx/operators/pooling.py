"""Poolings, and reductions over whole axes."""

from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto

from refmodel.exchange.onnx.builder import Attributes, NetworkBuilder, value_numbers
from refmodel.exchange.onnx.operators.lines import as_image, is_line
from refmodel.exchange.onnx.operators.volumes import is_volume, pool_volume
from refmodel.exchange.onnx.registry import operator
from refmodel.exchange.onnx.windows import read_pair, read_windows
from refmodel.network.graph import AveragePool, MaxPool, pool_counts


@operator("AveragePool", "MaxPool")
def import_pool(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a pooling of windows."""
    if is_line(net, node):
        as_image(net, node, attributes, import_pool)
        return
    if is_volume(net, node):
        pool_volume(net, node, attributes)
        return
    name, (channels, height, width) = net.image(node)
    kernel = read_pair(net, node, attributes, "kernel_shape")
    size = (height, width)
    windows = read_windows(net, node, attributes, size, kernel)
    stride, pads = windows.stride, windows.pads
    if windows.dilation != (1, 1):
        net.fail("without dilation", f"dilations {windows.dilation}", node)
    out = windows.output(net, node)
    if any(pads[axis] >= kernel[axis % 2] for axis in range(4)):
        net.fail(f"with pads below its kernel {kernel}", f"{pads}", node)
    fields = net.fields(node, (name,), (channels, *out))
    fields |= {"kernel": kernel, "stride": stride, "pads": pads}
    if node.op_type == "MaxPool":
        net.append(MaxPool(**fields))
        return
    padding = bool(attributes.get("count_include_pad", 0))
    counts = pool_counts(size, kernel, stride, pads, windows.extra, padding=padding)
    net.append(AveragePool(**fields, counts=counts))


@operator("GlobalAveragePool", "GlobalMaxPool")
def import_global_pool(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a pooling of whole images."""
    if is_line(net, node):
        as_image(net, node, attributes, import_global_pool)
        return
    name, (channels, height, width) = net.image(node)
    fields = net.fields(node, (name,), (channels, 1, 1))
    fields |= {"kernel": (height, width), "stride": (1, 1), "pads": (0, 0, 0, 0)}
    if node.op_type == "GlobalMaxPool":
        net.append(MaxPool(**fields))
        return
    counts = np.full((1, 1), height * width, np.int64)
    net.append(AveragePool(**fields, counts=counts))


@operator("ReduceMax", "ReduceMean")
def import_reduction(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import the average or the largest value over whole axes behind the batch."""
    name, shape = net.activation(node.input[0], node)
    axes = net.integers(node, attributes, "axes", 1)
    if not axes:
        if attributes.get("noop_with_empty_axes", 0):
            net.pass_on(node, name)
            return
        axes = list(range(len(shape) + 1))
    axes = sorted({axis + (len(shape) + 1) * (axis < 0) for axis in axes})
    if not 1 <= axes[0] <= axes[-1] <= len(shape):
        net.fail("over axes behind the batch", f"axes {axes}", node)
    gone = [axis - 1 for axis in axes]
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    final = tuple(1 if axis in gone else size for axis, size in enumerate(shape))
    if not attributes.get("keepdims", 1):
        final = tuple(shape[axis] for axis in kept)
        if not final:
            net.fail("that leaves an axis behind the batch", "none", node)
    if len(shape) == 3 and gone == [1, 2]:
        kernel, size = shape[1:], shape
    else:
        # Axes that stay become channels, those that go a row.
        count = prod(shape[axis] for axis in gone)
        index = value_numbers(shape).transpose(*kept, *gone).reshape(-1, 1, count)
        name, kernel, size = net.rearranged(node, name, index), (1, count), index.shape
    same = final == (size[0], 1, 1)
    fields = (net.fields if same else net.inner_fields)(node, (name,), (size[0], 1, 1))
    window: dict[str, Any] = {
        "kernel": (int(kernel[0]), int(kernel[1])),
        "stride": (1, 1),
        "pads": (0, 0, 0, 0),
    }
    if node.op_type == "ReduceMax":
        net.append(MaxPool(**fields, **window))
    else:
        counts = np.full((1, 1), prod(kernel), np.int64)
        net.append(AveragePool(**fields, **window, counts=counts))
    if not same:
        net.rearrange(node, fields["output"], value_numbers(final))
