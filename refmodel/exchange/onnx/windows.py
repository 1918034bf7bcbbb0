"""Windows of convolutions and poolings, as attributes of ONNX give them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from onnx import NodeProto

from refmodel.exchange.onnx.builder import MOST_VALUES, Attributes, NetworkBuilder
from refmodel.network.graph import Pads, ceil_padding, output_size


@dataclass(frozen=True)
class Windows:
    """How a window moves over an image.

    Attributes
    ----------
    size, kernel
        (height, width) of the image and of the window.
    stride, dilation
        (vertical, horizontal).
    pads
        (top, left, bottom, right), ``extra`` included.
    extra
        Padding that ``ceil_mode`` adds at the bottom and on the right, in pixels.
    """

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: Pads
    extra: tuple[int, int]

    def output(self, net: NetworkBuilder, node: NodeProto) -> tuple[int, int]:
        """Return the size of the output; refuses an empty one."""
        out = [
            output_size(
                self.size[axis],
                (self.kernel[axis] - 1) * self.dilation[axis] + 1,
                self.stride[axis],
                self.pads[axis],
                self.pads[axis + 2],
            )
            for axis in (0, 1)
        ]
        if min(out) < 1:
            found = f"{self.size} with pads {self.pads}"
            net.fail(f"with an input as large as its kernel {self.kernel}", found, node)
        return out[0], out[1]


def read_pair(
    net: NetworkBuilder, node: NodeProto, attributes: Attributes, key: str
) -> tuple[int, int]:
    """Read an attribute of a vertical and a horizontal number, both at least 1."""
    pair = [int(value) for value in attributes.get(key, (1, 1))]
    if len(pair) != 2 or min(pair) < 1:
        net.fail(f"with two {key} of at least 1", f"{pair}", node)
    return pair[0], pair[1]


def read_windows(
    net: NetworkBuilder,
    node: NodeProto,
    attributes: Attributes,
    size: tuple[int, int],
    kernel: Sequence[int],
) -> Windows:
    """Read strides, dilations, and the padding in whichever way it is given."""
    stride = read_pair(net, node, attributes, "strides")
    dilation = read_pair(net, node, attributes, "dilations")
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    auto = attributes.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        pads = [int(value) for value in attributes.get("pads", (0, 0, 0, 0))]
        if len(pads) != 4 or min(pads) < 0:
            net.fail("with four pads of at least 0", f"{pads}", node)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = [0, 0, 0, 0]
        for axis in (0, 1):
            reached = (-(-size[axis] // stride[axis]) - 1) * stride[axis] + reach[axis]
            total = max(0, reached - size[axis])
            small, large = total // 2, total - total // 2
            upper = auto == "SAME_UPPER"
            pads[axis], pads[axis + 2] = (small, large) if upper else (large, small)
    elif auto == "VALID":
        pads = [0, 0, 0, 0]
    else:
        net.fail("with a known auto_pad", repr(auto), node)
    extra = [0, 0]
    if attributes.get("ceil_mode", 0) and auto == "NOTSET":
        for axis in (0, 1):
            extra[axis] = ceil_padding(
                size[axis], reach[axis], stride[axis], pads[axis], pads[axis + 2]
            )
            pads[axis + 2] += extra[axis]
    top, left, bottom, right = pads
    padded = (size[0] + top + bottom, size[1] + left + right)
    if prod(padded) > MOST_VALUES:
        net.fail(f"of at most {MOST_VALUES} values with its pads", f"{padded}", node)
    return Windows(
        size=size,
        kernel=(kernel[0], kernel[1]),
        stride=stride,
        dilation=dilation,
        pads=(top, left, bottom, right),
        extra=(extra[0], extra[1]),
    )
