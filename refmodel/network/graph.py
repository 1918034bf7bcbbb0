"""A trained network in floating point: a list of nodes and how to compute them with numpy.

This is what an ONNX file becomes before it is quantised. Tensors carry a batch first and keep the
order of ONNX behind it: ``(N, C, H, W)`` for images, ``(N, F)`` for vectors; the shapes written
here leave the batch out. Everything that only moves values about (Flatten, Reshape, Transpose,
Squeeze, Unsqueeze, Slice, Pad, Gather) is one kind of node, :class:`Rearrange`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from refmodel.errors import InputError
from refmodel.network.expression import Term

CHUNK_ELEMENTS = 1 << 22
"""Values of the largest intermediate array of one chunk of images, about; bounds the memory."""

Floats = NDArray[np.float32]
Shape = tuple[int, ...]
Pads = tuple[int, int, int, int]


def output_size(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Positions of a window of ``kernel`` along ``size`` values with padding; may be below 1."""
    return (size + before + after - kernel) // stride + 1


def ceil_padding(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Values that ONNX's ``ceil_mode`` adds behind the padding, for the last window to be whole.

    Example: a kernel of 3 with a stride of 2 reaches 5 of 6 values, so one more value is added, for
    a third window. A window that would start in the padding behind the values is left out: none is
    added for it.
    """
    padded = size + before + after
    count = -(-(padded - kernel) // stride) + 1
    if (count - 1) * stride >= size + before:
        count -= 1
    return max(0, (count - 1) * stride + kernel - padded)


def pool_counts(
    size: Shape, kernel: Shape, stride: Shape, pads: Pads, extra: Shape, *, padding: bool
) -> NDArray[np.int64]:
    """Values that count in each window of an average, int64 [OH, OW].

    Parameters
    ----------
    size
        (H, W) of the input.
    kernel, stride, pads
        Kernel, stride and padding of the windows; ``pads`` includes ``extra``.
    extra
        Padding that :func:`ceil_padding` gives for each axis; it never counts.
    padding
        Whether the rest of the padding counts.
    """
    axes = []
    for axis in (0, 1):
        around = pads[axis], pads[axis + 2] - extra[axis]
        counted = np.pad(np.ones(size[axis], np.int64), around, constant_values=int(padding))
        counted = np.pad(counted, (0, extra[axis]))
        view = np.lib.stride_tricks.sliding_window_view(counted, kernel[axis])
        axes.append(view[:: stride[axis]].sum(1))
    return np.multiply.outer(*axes)


def windows(x: NDArray, kernel: Shape, stride: Shape, pads: Pads, dilation: Shape, fill: float):
    """Sliding windows over the last two axes.

    Parameters
    ----------
    x
        Any array whose last axes are (H, W).
    kernel, stride, dilation
        (vertical, horizontal), each at least 1.
    pads
        (top, left, bottom, right), filled with ``fill``.

    Returns
    -------
    array
        Shape (..., OH, OW, kh, kw); a view where there is no padding.
    """
    top, left, bottom, right = pads
    if any(pads):
        around = [(0, 0)] * (x.ndim - 2) + [(top, bottom), (left, right)]
        x = np.pad(x, around, constant_values=fill)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(-2, -1))
    return view[..., :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


_FEW = 64
"""Values of a window up to which a pass over the whole image to each is the fastest."""


def _reduce(operation: np.ufunc, view: NDArray) -> NDArray:
    """Reduce windows (..., kh, kw) by a ufunc."""
    kernel = view.shape[-2:]
    if prod(kernel) > _FEW:
        return operation.reduce(view, axis=(-2, -1))
    result = np.array(view[..., 0, 0])
    for i, j in list(np.ndindex(*kernel))[1:]:
        operation(result, view[..., i, j], out=result)
    return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One operation on tensors.

    Attributes
    ----------
    name
        Unique in the network; the ONNX node's name, or its output's where it has none.
    inputs, output
        Names of the tensors read and written.
    shape
        Shape of the output without the batch, in ONNX order.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    shape: Shape

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        raise NotImplementedError

    def work(self) -> int:
        """Values of the largest array that ``apply`` makes for one image."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrix(Node):
    """A convolution or fully connected layer: ``gain * (weight . x) + bias``.

    Attributes
    ----------
    weight
        float32 [out, in / groups, kh, kw]; kh = kw = 1 where the input is a vector.
    gain
        float64 [out], what BatchNormalization multiplies by; 1 where there is none.
    bias
        float64 [out], real-valued, added after the gain.
    stride, dilation
        (vertical, horizontal).
    pads
        (top, left, bottom, right), zeros.
    groups
        Groups of the convolution; divides inputs and outputs.
    exact
        Whether the weights are the 8-bit integers that a quantised network came with, -128 to 127,
        which must be kept as they are; the gain then holds their scale.
    """

    weight: Floats
    gain: NDArray[np.float64]
    bias: NDArray[np.float64]
    stride: tuple[int, int] = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    exact: bool = False

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        (x,) = inputs
        outputs, channels, *kernel = self.weight.shape
        gain, bias = self.gain.astype(np.float32), self.bias.astype(np.float32)
        if x.ndim == 2 and self.groups == 1:
            return (x @ self.weight.reshape(outputs, channels).T) * gain + bias
        if x.ndim < 4:  # a vector is a pixel of F channels, (H, W) an image of one channel
            x = x[:, :, None, None] if x.ndim == 2 else x[:, None]
        top, left, bottom, right = self.pads
        if any(self.pads):
            x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        (sy, sx), (dy, dx) = self.stride, self.dilation
        height = output_size(x.shape[2], (kernel[0] - 1) * dy + 1, sy, 0, 0)
        width = output_size(x.shape[3], (kernel[1] - 1) * dx + 1, sx, 0, 0)
        # im2col with the positions last, so that whole rows are copied and the product is in order.
        if kernel == [1, 1] and self.stride == (1, 1):
            columns = x
        else:
            columns = np.empty((*x.shape[:2], *kernel, height, width), np.float32)
            for i, j in np.ndindex(*kernel):
                rows = slice(i * dy, i * dy + (height - 1) * sy + 1, sy)
                cols = slice(j * dx, j * dx + (width - 1) * sx + 1, sx)
                columns[:, :, i, j] = x[:, :, rows, cols]
        columns = columns.reshape(len(x), self.groups, -1, height * width)
        matrix = self.weight.reshape(self.groups, outputs // self.groups, -1)
        result = np.matmul(matrix, columns).reshape(len(x), outputs, height * width)
        if not (gain == 1).all():
            result *= gain[:, None]
        if bias.any():
            result += bias[:, None]
        return result.reshape(len(x), *self.shape)

    def work(self) -> int:
        """Values of the largest array that ``apply`` makes for one image."""
        outputs, *inputs = self.weight.shape
        return prod(self.shape) // outputs * max(outputs, self.groups * prod(inputs))


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Node):
    """The sum of two tensors of the same shape."""

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        return inputs[0] + inputs[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip(Node):
    """Limit to ``lo .. hi``, which hold 0: Relu is 0 to infinity, Relu6 is 0 to 6."""

    lo: float = 0.0
    hi: float = np.inf

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        return np.clip(inputs[0], np.float32(self.lo), np.float32(self.hi))


@dataclass(frozen=True, kw_only=True, eq=False)
class Function(Node):
    """A function of each value alone, which may have other constants for each channel.

    Attributes
    ----------
    term
        The function. Constants that differ between channels have the axes of the tensor.
    """

    term: Term

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        with np.errstate(all="ignore"):  # what is no number shows in the range of the tensor
            return self.term(inputs[0])

    def work(self) -> int:
        """Values of the largest array that ``apply`` makes for one image."""
        return 2 * prod(self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Product(Node):
    """The product of two tensors; the second may have a size of 1 where the first has more."""

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        return inputs[0] * inputs[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice(Node):
    """One of two values where a condition holds and the other where not, value by value.

    It is there while a file is read alone: :func:`refmodel.network.passes.tidy` makes a
    :class:`Function` of it, and a network in which it cannot is refused.

    Attributes
    ----------
    operands
        Condition, value where it is not 0, value where it is: each the place of a tensor among the
        inputs, or a constant of one value.
    """

    operands: tuple[int | NDArray[np.float64], ...]

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        chosen, yes, no = (
            inputs[each] if isinstance(each, int) else each for each in self.operands
        )
        return np.where(np.asarray(chosen) != 0, yes, no).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool(Node):
    """The largest value of each window; padding never wins."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: Pads

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        view = windows(inputs[0], self.kernel, self.stride, self.pads, (1, 1), -np.inf)
        return _reduce(np.maximum, view)

    def work(self) -> int:
        """Values of the largest array that ``apply`` makes for one image."""
        return prod(self.shape) * prod(self.kernel)


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePool(Node):
    """The sum of each window, padding adding 0, over a count.

    Attributes
    ----------
    counts
        int64 [OH, OW], what the sum is divided by: the size of the kernel, or only the values of
        the window that are counted where ONNX leaves the padding out.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: Pads
    counts: NDArray[np.int64]

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        view = windows(inputs[0], self.kernel, self.stride, self.pads, (1, 1), 0.0)
        result: Floats = _reduce(np.add, view)
        result /= self.counts.astype(np.float32)
        return result

    def work(self) -> int:
        """Values of the largest array that ``apply`` makes for one image."""
        return prod(self.shape) * prod(self.kernel)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rearrange(Node):
    """Move values: output value i of an image is its input value ``index[i]``, in ONNX order.

    An index of -1 is 0: what Pad puts around.
    """

    index: NDArray[np.int64]

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        (x,) = inputs
        flat = x.reshape(len(x), -1)
        if self.index.min() < 0:
            flat = np.concatenate([flat, np.zeros((len(x), 1), flat.dtype)], axis=1)
        return np.take(flat, self.index, axis=1).reshape(len(x), *self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Node):
    """Concatenation of tensors along one axis.

    Attributes
    ----------
    axis
        The axis, not counting the batch: 0 is the channels of (C, H, W).
    """

    axis: int = 0

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        return np.concatenate(inputs, axis=self.axis + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class FakeQuant(Node):
    """The grid that a quantised network puts a tensor on: the values that 8-bit codes can have.

    ``(clip(rint(x / scale) + zero, 0, 255) - zero) * scale``, halves to even as ONNX has it. A
    signed code of the network is this code less 128.

    Attributes
    ----------
    scale
        Real step of one code, above 0.
    zero
        Code of the value 0, 0 to 255.
    """

    scale: float
    zero: int

    def apply(self, *inputs: Floats) -> Floats:
        """Compute the output, batch first, from the inputs."""
        scale, zero = np.float32(self.scale), np.float32(self.zero)
        codes: Floats = np.clip(np.rint(inputs[0] / scale) + zero, np.float32(0), np.float32(255))
        return (codes - zero) * scale


class Carried(Protocol):
    """The mappings that a fine-tuned network carries: :class:`refmodel.compression.tuned.Tuned`."""

    @property
    def scheme(self) -> str:
        """Name of the scheme."""
        ...

    @property
    def ou_rows(self) -> int:
        """Rows of an operation unit that the mappings were made for."""
        ...

    @property
    def mappings(self) -> Mapping[str, Any]:
        """Mapping of each mapped layer by its name."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatNetwork:
    """A network with one input and one output.

    Attributes
    ----------
    nodes
        In an order in which they can be computed.
    input, output
        Names of the two tensors.
    input_shape
        Shape of the input without the batch, as in the ONNX file: (C, H, W) as a rule.
    source
        Where it came from, for messages.
    tuned
        Mappings that its weights were fine-tuned for, where they were.
    """

    nodes: tuple[Node, ...]
    input: str
    output: str
    input_shape: Shape
    source: str = "network"
    tuned: Carried | None = None

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of each tensor without the batch, in ONNX order."""
        return {self.input: self.input_shape} | {node.output: node.shape for node in self.nodes}

    @property
    def output_shape(self) -> Shape:
        """Shape of the output without the batch."""
        return self.shapes[self.output]

    def consumers(self) -> dict[str, int]:
        """How often each tensor is read; being the network's output counts as once."""
        counts = dict.fromkeys(self.shapes, 0)
        counts[self.output] += 1
        for node in self.nodes:
            for name in node.inputs:
                counts[name] += 1
        return counts

    def trace(self, x: Floats) -> dict[str, Floats]:
        """Compute every tensor for the images ``x``, all kept: meant for a few images at a time.

        Parameters
        ----------
        x
            Network inputs, any number N of them: (N, *input_shape), finite.

        Returns
        -------
        dict
            Each tensor by name, float32, batch first.

        Raises
        ------
        InputError
            Where the shape is not the network's.
        """
        tensors = {self.input: self._checked(x)}
        for node in self.nodes:
            tensors[node.output] = node.apply(*(tensors[name] for name in node.inputs))
        return tensors

    def chunks(self, x: Floats) -> Iterator[Floats]:
        """Cut ``x`` along the batch into pieces small enough for :meth:`trace`."""
        x = self._checked(x)
        largest = max([node.work() for node in self.nodes], default=1)
        size = max(1, CHUNK_ELEMENTS // max(1, largest))
        for start in range(0, len(x), size):
            yield x[start : start + size]

    def forward(self, x: Floats) -> Floats:
        """Compute the output for the images ``x``: (N, *input_shape) to (N, *output_shape).

        Raises
        ------
        InputError
            Where the shape is not the network's.
        """
        parts = [self._forward(chunk) for chunk in self.chunks(x)]
        return np.concatenate(parts) if parts else np.zeros((0, *self.output_shape), np.float32)

    def _forward(self, x: Floats) -> Floats:
        return next(values for name, values in self.pass_through(x) if name == self.output)

    def pass_through(self, x: Floats) -> Iterator[tuple[str, Floats]]:
        """Compute tensor after tensor for the images ``x``; each is kept while it is needed.

        Returns
        -------
        Iterator of names, from the input's, and values.
        """
        left = self.consumers()
        tensors = {self.input: self._checked(x)}
        yield self.input, tensors[self.input]
        for node in self.nodes:
            tensors[node.output] = node.apply(*(tensors[name] for name in node.inputs))
            yield node.output, tensors[node.output]
            for name in node.inputs:
                left[name] -= 1
                if not left[name]:
                    tensors.pop(name, None)

    def _checked(self, x: Floats) -> Floats:
        x = np.asarray(x, np.float32)
        if x.shape[1:] != self.input_shape or x.ndim != len(self.input_shape) + 1:
            raise InputError(
                f"expected network inputs of shape (N, {', '.join(map(str, self.input_shape))}), "
                f"found {x.shape}, in {self.source}"
            )
        return x


def simplify(network: FloatNetwork) -> FloatNetwork:
    """Merge chains of rearrangements into one and leave out nodes that nothing reads."""
    producers: dict[str, Node] = {}
    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Rearrange):
            before = producers.get(node.inputs[0])
            if isinstance(before, Rearrange):
                index = np.where(node.index < 0, -1, before.index[node.index])
                node = replace(node, inputs=before.inputs, index=index)
        producers[node.output] = node
        nodes.append(node)

    needed = {network.output}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    return replace(network, nodes=tuple(reversed(kept)))
