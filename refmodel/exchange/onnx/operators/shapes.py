"""Operators that only move values.

Each is run on the numbers of the values of one image, in an array of the image's shape. The result
is the index of a :class:`~refmodel.network.graph.Rearrange`.
"""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from refmodel.exchange.onnx.builder import (
    MOST_VALUES,
    Attributes,
    NetworkBuilder,
    shape_text,
    value_numbers,
)
from refmodel.exchange.onnx.registry import operator
from refmodel.network.graph import Concat

UNTIL_THE_END = 1 << 30
"""Exporters write 2^31 - 1 or 2^63 - 1 for the end of an axis whose size they do not know."""

MOST_AXES = 3
"""Axes of a tensor that is computed, behind the batch; rearrangements alone may have more."""

MOST_PADDED = 1 << 16
"""Values that Pad may add at one end of an axis."""


def _numbered(net: NetworkBuilder, node: NodeProto) -> tuple[str, NDArray[np.int64]]:
    """Return the name of the first input and the numbers of its values."""
    name, shape = net.activation(node.input[0], node)
    return name, value_numbers(shape)


@operator("Flatten")
def import_flatten(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import Flatten: the axes behind the batch become one."""
    name, index = _numbered(net, node)
    axis = int(attributes.get("axis", 1))
    axis += (index.ndim + 1) * (axis < 0)
    if axis < 1 or prod(index.shape[: axis - 1]) != 1:
        net.fail("that keeps the batch apart", f"axis {axis}", node)
    net.rearrange(node, name, index.reshape(-1))


@operator("Reshape")
def import_reshape(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import Reshape, which must keep the batch first."""
    name, index = _numbered(net, node)
    target = net.integers(node, attributes, "shape", 1)
    if target is None:
        net.fail("with a shape", "none", node)
    if attributes.get("allowzero", 0):
        # A size of 0 would leave no values; a batch from Shape is 0 here and no size of the file.
        written = target[1:] if node.input[1] in net.from_shape else target
        if 0 in written:
            net.fail("without sizes of 0 under allowzero = 1", f"{target}", node)
    sizes = [
        index.shape[axis - 1] if size == 0 and 1 <= axis <= index.ndim else size
        for axis, size in enumerate(target)
    ]
    # The first size is the batch where it is copied, free, or what the file fixes.
    inner = sizes[1:]
    known = prod(size for size in inner if size != -1)
    if inner.count(-1) == 1 and sizes[0] != -1 and known > 0:
        inner[inner.index(-1)] = index.size // known
    batch = sizes[:1] in ([0], [-1], [1], [net.batch])
    if not batch or not inner or min(inner) < 1 or prod(inner) != index.size:
        found = f"{target} for {shape_text(index.shape)}"
        net.fail("that keeps the batch first and the number of values", found, node)
    net.rearrange(node, name, index.reshape(inner))


@operator("Transpose")
def import_transpose(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import an exchange of axes. It keeps the batch first, or turns a matrix (N, F) round."""
    source = net.untransposed(node.input[0])
    if source is not None and list(attributes.get("perm", (1, 0))) == [1, 0]:
        net.pass_on(node, source)
        return
    name, shape = net.activation(node.input[0], node)
    if len(shape) == 1 and list(attributes.get("perm", (1, 0))) == [1, 0]:
        net.transposed[node.output[0]] = name
        net.uses[name] += net.uses[node.output[0]] - 1
        return
    name, index = _numbered(net, node)
    order = [int(axis) for axis in attributes.get("perm", range(index.ndim, -1, -1))]
    if sorted(order) != list(range(index.ndim + 1)) or order[0] != 0:
        net.fail("that keeps the batch first", f"perm {order}", node)
    net.rearrange(node, name, index.transpose([axis - 1 for axis in order[1:]]))


@operator("Squeeze", "Unsqueeze")
def import_squeeze(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import the removal or the addition of axes of size 1."""
    name, index = _numbered(net, node)
    axes = net.integers(node, attributes, "axes", 1)
    if axes is None:
        axes = [axis + 1 for axis, size in enumerate(index.shape) if size == 1]
    rank = index.ndim + 1 + (len(axes) if node.op_type == "Unsqueeze" else 0)
    axes = sorted(axis + rank * (axis < 0) for axis in axes)
    if axes and not 1 <= axes[0] <= axes[-1] < rank:
        net.fail("of axes behind the batch", f"axes {axes}", node)
    if node.op_type == "Squeeze":
        index = index.squeeze(tuple(axis - 1 for axis in axes))
    else:
        for axis in axes:
            index = np.expand_dims(index, axis - 1)
    if not index.ndim:
        net.fail("that leaves an axis behind the batch", "none", node)
    net.rearrange(node, name, index)


@operator("Expand", "Tile")
def import_expand(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import values that are repeated along axes behind the batch."""
    name, index = _numbered(net, node)
    key = "shape" if node.op_type == "Expand" else "repeats"
    sizes = net.integers(node, {}, key, 1)
    rank = index.ndim + 1
    tiled = node.op_type == "Tile"
    batch = (1,) if tiled else (0, 1, net.batch)
    if sizes is None or len(sizes) != rank or sizes[0] not in batch:
        net.fail(f"with {key} for {rank} axes, 1 of the batch", f"{sizes}", node)
    inner = sizes[1:] if tiled else [max(1, size) for size in sizes[1:]]
    if min(inner) < 1 or prod(inner) * (index.size if tiled else 1) > MOST_VALUES:
        net.fail(f"to 1 to {MOST_VALUES} values", f"{key} {sizes}", node)
    if tiled:
        net.rearrange(node, name, np.tile(index, inner))
        return
    try:
        shape = np.broadcast_shapes(index.shape, tuple(inner))
    except ValueError:
        net.fail("to a shape that the tensor fits", f"{sizes}", node)
    net.rearrange(node, name, np.broadcast_to(index, shape))


@operator("Slice")
def import_slice(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a slice of axes behind the batch."""
    name, index = _numbered(net, node)
    keys = ("starts", "ends", "axes", "steps")
    values = [net.integers(node, attributes, key, at + 1) for at, key in enumerate(keys)]
    starts, ends, axes, steps = values
    if starts is None or ends is None:
        net.fail("with starts and ends", f"{starts} and {ends}", node)
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    rank = index.ndim + 1
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis += rank * (axis < 0)
        if axis == 0:
            whole = end >= UNTIL_THE_END or (net.batch and end >= net.batch)
            if start != 0 or step != 1 or not whole:
                net.fail("of axes behind the batch", f"{start}:{end}:{step} of it", node)
            continue
        if not 1 <= axis < rank or step == 0:
            found = f"step {step} along axis {axis}"
            net.fail(f"along axes 1 to {rank - 1} with steps other than 0", found, node)
        index = index[(slice(None),) * (axis - 1) + (slice(start, end, step),)]
    if not index.size:
        net.fail("that leaves something", shape_text(index.shape), node)
    net.rearrange(node, name, index)


@operator("Split")
def import_split(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import the parts of a tensor along an axis behind the batch, each an output of the node."""
    name, index = _numbered(net, node)
    axis = int(attributes.get("axis", 0))
    axis += (index.ndim + 1) * (axis < 0)
    if not 1 <= axis <= index.ndim:
        net.fail(f"along one of axes 1 to {index.ndim}", f"axis {axis}", node)
    size, count = index.shape[axis - 1], len(node.output)
    sizes = net.integers(node, attributes, "split", 1)
    if sizes is None:  # equal parts; from opset 18 on the last may be smaller
        part = -(-size // count) if "num_outputs" in attributes else size // count
        sizes = [part] * (count - 1) + [size - part * (count - 1)]
        if "num_outputs" not in attributes and size % count:
            net.fail("into equal parts", f"{size} values into {count}", node)
    if len(sizes) != count or min(sizes) < 1 or sum(sizes) != size:
        net.fail(f"into {count} parts of {size} values", f"{sizes}", node)
    starts = np.cumsum([0, *sizes[:-1]])
    for output, start, part in zip(node.output, starts, sizes, strict=True):
        each = NodeProto()
        each.CopyFrom(node)
        each.output[:] = [output]
        net.rearrange(each, name, index.take(np.arange(start, start + part), axis - 1))


@operator("DepthToSpace")
def import_depth_to_space(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import channels that become blocks of pixels, in either order of ONNX."""
    name, (channels, height, width) = net.image(node)
    size = int(attributes["blocksize"])
    if size < 1 or channels % size**2:
        net.fail("with a square of blocksize that divides the channels", f"{size}", node)
    mode = attributes.get("mode", "DCR")
    if mode == "DCR":
        index = value_numbers((size, size, channels // size**2, height, width))
        index = index.transpose(2, 3, 0, 4, 1)
    elif mode == "CRD":
        index = value_numbers((channels // size**2, size, size, height, width))
        index = index.transpose(0, 3, 1, 4, 2)
    else:
        net.fail("of mode DCR or CRD", repr(mode), node)
    net.rearrange(node, name, index.reshape(-1, height * size, width * size))


@operator("Gather")
def import_gather(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import Gather with constant indices."""
    name, index = _numbered(net, node)
    if node.input[1] not in net.constants:
        net.fail("with constant indices", f"tensor {node.input[1]!r}, computed", node)
    places = net.constants[node.input[1]]
    axis = int(attributes.get("axis", 0))
    axis += (index.ndim + 1) * (axis < 0)
    if not 1 <= axis <= index.ndim:
        net.fail(f"along one of axes 1 to {index.ndim}", f"axis {axis}", node)
    size = index.shape[axis - 1]
    if places.dtype.kind not in "iu" or not places.size:
        found = f"{places.dtype} of shape {places.shape}"
        net.fail("with integer indices, at least one", found, node)
    least, greatest = int(places.min()), int(places.max())
    if least < -size or greatest >= size:
        net.fail(f"with indices -{size} to {size - 1}", f"{least} to {greatest}", node)
    shape = (*index.shape[: axis - 1], *places.shape, *index.shape[axis:])
    if not shape:
        net.fail("that leaves an axis behind the batch", "none", node)
    if prod(shape) > MOST_VALUES:
        net.fail(f"to at most {MOST_VALUES} values", shape_text(shape), node)
    # Places below 0 count from the end, in numpy as in ONNX.
    net.rearrange(node, name, np.take(index, places.astype(np.int64), axis - 1))


@operator("Pad")
def import_pad(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a border of zeros, or of values of the tensor."""
    name, index = _numbered(net, node)
    key = "pads" if net.opset > 1 or "paddings" not in attributes else "paddings"
    pads = net.integers(node, attributes, key, 1)
    mode = attributes.get("mode", "constant")
    value = float(attributes.get("value", 0.0))
    if len(node.input) > 2 and node.input[2]:
        value = float(net.numbers(node.input[2], node, "fill").item())
    rank = index.ndim + 1
    axes = net.integers(node, {}, "axes", 3)
    axes = [axis + rank * (axis < 0) for axis in range(rank)] if axes is None else axes
    axes = [axis + rank * (axis < 0) for axis in axes]
    if pads is None or len(pads) != 2 * len(axes) or not set(axes) <= set(range(rank)):
        net.fail(f"with two pads to each of {rank} axes", f"{pads} on {axes}", node)
    around = [(0, 0)] * rank
    for at, axis in enumerate(axes):
        around[axis] = pads[at], pads[at + len(axes)]
    if around[0] != (0, 0):
        net.fail("of axes behind the batch", f"{around[0]} of it", node)
    if mode == "constant" and value != 0:
        net.fail("with zeros", f"{value:g}", node)
    if mode not in ("constant", "edge", "reflect", "wrap"):
        net.fail("of mode constant, edge, reflect or wrap", repr(mode), node)
    if max(max(pair) for pair in around) > MOST_PADDED:
        net.fail(f"of at most {MOST_PADDED}", f"{around[1:]}", node)
    padded = [size + sum(pair) for size, pair in zip(index.shape, around[1:], strict=True)]
    if prod(max(0, size) for size in padded) > MOST_VALUES:
        net.fail(f"to at most {MOST_VALUES} values", f"{padded}", node)
    # Negative pads cut off; ONNX does so first.
    cut = tuple(
        slice(max(0, -before), size - max(0, -after))
        for (before, after), size in zip(around[1:], index.shape, strict=True)
    )
    index = index[cut]
    if not index.size:
        net.fail("that leaves something", shape_text(index.shape), node)
    grown = [(max(0, before), max(0, after)) for before, after in around[1:]]
    fill: dict[str, Any] = {"constant_values": -1} if mode == "constant" else {}
    index = np.pad(index, grown, mode=mode, **fill)  # pyright: ignore[reportCallIssue]
    net.rearrange(node, name, index)
    spatial = index.ndim == 3 and around[1] == (0, 0) and min(map(min, around)) >= 0
    if mode == "constant" and spatial:
        (top, bottom), (left, right) = around[2:]
        net.bordered[node.output[0]] = name, (top, left, bottom, right)


@operator("Concat")
def import_concat(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a concatenation of tensors, or of one tensor and zeros."""
    tensors = [name for name in node.input if name not in net.constants]
    names = [net.activation(name, node)[0] for name in tensors]
    shapes = [net.shapes[name] for name in names]
    rank = len(shapes[0]) + 1
    axis = int(attributes.get("axis", 1))
    axis += rank * (axis < 0)
    others = [shape[: axis - 1] + shape[axis:] for shape in shapes]
    if not 1 <= axis < rank or any(each != others[0] for each in others):
        found = f"{', '.join(map(shape_text, shapes))} along axis {axis}"
        net.fail("of tensors that differ in one axis behind the batch", found, node)
    if len(names) == len(node.input):
        size = sum(shape[axis - 1] for shape in shapes)
        shape = (*shapes[0][: axis - 1], size, *shapes[0][axis:])
        if len(shape) > MOST_AXES:  # which no tensor has: they meet as vectors
            flat = [
                net.rearranged(node, each, value_numbers(net.shapes[each]).reshape(-1))
                for each in names
            ]
            starts = np.cumsum([0, *(prod(each) for each in shapes)]).tolist()
            fields = net.inner_fields(node, tuple(flat), (starts[-1],))
            net.append(Concat(**fields, axis=0))
            blocks = [
                start + value_numbers(each) for start, each in zip(starts[:-1], shapes, strict=True)
            ]
            net.rearrange(node, fields["output"], np.concatenate(blocks, axis=axis - 1))
            return
        net.append(Concat(**net.fields(node, tuple(names), shape), axis=axis - 1))
        return
    parts = []
    for name in node.input:
        if name in tensors:
            parts.append(value_numbers(shapes[0]))
            continue
        values = net.numbers(name, node, "values")
        if len(names) > 1 or values.any() or values.ndim != rank or values.shape[0] != 1:
            found = f"constants {values.shape} beside {len(names)} tensors"
            net.fail("of tensors, or of one tensor and zeros", found, node)
        parts.append(np.full(values.shape[1:], -1, np.int64))
    net.rearrange(node, names[0], np.concatenate(parts, axis=axis - 1))
