"""Transposed convolutions, as a convolution and a rearrangement of its channels to pixels."""

from math import prod

import numpy as np
from onnx import NodeProto

from refmodel.exchange.onnx.builder import MOST_VALUES, Attributes, NetworkBuilder, value_numbers
from refmodel.exchange.onnx.operators.lines import as_image, is_line
from refmodel.exchange.onnx.registry import operator
from refmodel.exchange.onnx.windows import read_pair
from refmodel.network.graph import Matrix


@operator("ConvTranspose")
def import_conv_transpose(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a transposed convolution.

    Each place in a block of (stride x stride) pixels of the output sees weights of its own. They
    are outputs of one convolution with a stride of 1 over the input, so that no zeros are
    multiplied; the block's places are then put beside one another, as DepthToSpace does.
    """
    if is_line(net, node):
        as_image(net, node, attributes, import_conv_transpose)
        return
    name, (channels, height, width) = net.image(node)
    weight = net.numbers(node.input[1], node, "weights")
    groups = int(attributes.get("group", 1))
    if weight.ndim != 4 or 0 in weight.shape or len(weight) != channels or groups < 1:
        net.fail("with weights (in, out / groups, kh, kw)", f"{weight.shape}", node)
    if channels % groups:
        net.fail(f"with groups that divide {channels} channels", f"{groups}", node)
    each, kernel = weight.shape[1], weight.shape[2:]
    outputs = each * groups
    if tuple(attributes.get("kernel_shape", kernel)) != kernel:
        net.fail(f"with kernel_shape {list(kernel)}", f"{attributes['kernel_shape']}", node)
    stride = read_pair(net, node, attributes, "strides")
    dilation = read_pair(net, node, attributes, "dilations")
    size = (height, width)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    before, out = _pads_and_size(net, node, attributes, size, reach, stride)
    axes = [_phases(kernel[a], stride[a], dilation[a], before[a]) for a in (0, 1)]
    windows = [axis["high"] - axis["low"] + 1 for axis in axes]
    blocks = [-(-out[a] // stride[a]) for a in (0, 1)]
    if outputs * prod(stride) * prod(blocks) > MOST_VALUES or prod(windows) * weight.size > 1 << 27:
        net.fail(f"to at most {MOST_VALUES} values", f"{out} of {outputs} channels", node)
    # [groups, out / groups, phases, in / groups, window]
    grouped = weight.reshape(groups, channels // groups, each, *kernel)
    kernels = np.zeros((groups, each, *stride, channels // groups, *windows), np.float32)
    for (py, ty, ky), (px, tx, kx) in ((y, x) for y in axes[0]["taps"] for x in axes[1]["taps"]):
        at = grouped[:, :, :, ky, kx].transpose(0, 2, 1)
        kernels[:, :, py, px, :, ty - axes[0]["low"], tx - axes[1]["low"]] = at
    matrix = kernels.reshape(outputs * prod(stride), channels // groups, *windows)
    bias = np.zeros(outputs)
    if len(node.input) > 2 and node.input[2]:
        bias = net.numbers(node.input[2], node, "bias").reshape(-1).astype(np.float64)
    if bias.shape != (outputs,):
        net.fail(f"with a bias of {outputs} values", f"{bias.shape}", node)
    # Positions of the convolution may be more than blocks of the output, never fewer.
    lead = [max(0, -axis["low"]) for axis in axes]
    skip = [max(0, axis["low"]) for axis in axes]
    after = [max(0, blocks[a] + skip[a] + windows[a] - 1 - lead[a] - size[a]) for a in (0, 1)]
    positions = [size[a] + lead[a] + after[a] - windows[a] + 1 for a in (0, 1)]
    made = (outputs * prod(stride), *positions)
    plain = stride == (1, 1) and tuple(positions) == tuple(out)
    fields = (net.fields if plain else net.inner_fields)(node, (name,), made)
    net.append(
        Matrix(
            **fields,
            weight=matrix,
            gain=np.ones(len(matrix)),
            bias=np.repeat(bias, prod(stride)),
            pads=(lead[0], lead[1], after[0], after[1]),
            groups=groups,
        )
    )
    if plain:
        return
    index = value_numbers((outputs, *stride, *positions)).transpose(0, 3, 1, 4, 2)
    index = index.reshape(outputs, positions[0] * stride[0], positions[1] * stride[1])
    top, left = (skip[a] * stride[a] for a in (0, 1))
    index = index[:, top : top + out[0], left : left + out[1]]
    net.rearrange(node, fields["output"], index)


def _pads_and_size(
    net: NetworkBuilder,
    node: NodeProto,
    attributes: Attributes,
    size: tuple[int, int],
    reach: list[int],
    stride: tuple[int, int],
) -> tuple[list[int], list[int]]:
    """What is cut off before the first row and column, and the size of the output."""
    extra = [int(value) for value in attributes.get("output_padding", (0, 0))]
    if len(extra) != 2 or min(extra) < 0:
        net.fail("with two output_padding of at least 0", f"{extra}", node)
    auto = attributes.get("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        net.fail("with a known auto_pad", repr(auto), node)
    whole = [stride[a] * (size[a] - 1) + extra[a] + reach[a] for a in (0, 1)]
    wanted = attributes.get("output_shape")
    if wanted is not None or auto.startswith("SAME"):
        out = [int(value) for value in wanted or (size[a] * stride[a] for a in (0, 1))][-2:]
        total = [whole[a] - out[a] for a in (0, 1)]
        upper = auto == "SAME_UPPER"
        before = [each // 2 if upper else each - each // 2 for each in total]
        if min(total) < 0:
            net.fail(f"to an output of at most {whole}", f"{out}", node)
    else:
        pads = [int(value) for value in attributes.get("pads", (0, 0, 0, 0))]
        if auto == "VALID":
            pads = [0, 0, 0, 0]
        if len(pads) != 4 or min(pads) < 0:
            net.fail("with four pads of at least 0", f"{pads}", node)
        before, out = pads[:2], [whole[a] - pads[a] - pads[a + 2] for a in (0, 1)]
    if len(out) != 2 or min(out) < 1:
        net.fail("with an output of at least one pixel", f"{out}", node)
    return before, out


def _phases(kernel: int, stride: int, dilation: int, before: int) -> dict:
    """Which weights each place of a block sees, along an axis.

    Output ``o = stride * q + r`` sees input ``(o + before - k * dilation) / stride`` through weight
    k, where that is whole: ``q + t`` with a t for each r and k.

    Returns
    -------
    ``taps``, of (r, t, k), and the ``low`` and ``high`` of t.
    """
    taps = [
        (r, (r + before - k * dilation) // stride, k)
        for r in range(stride)
        for k in range(kernel)
        if (r + before - k * dilation) % stride == 0
    ]
    return {"taps": taps, "low": min(t for _, t, _ in taps), "high": max(t for _, t, _ in taps)}
