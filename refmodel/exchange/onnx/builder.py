"""The network while it is read from an ONNX graph: names, shapes, constants, nodes and errors.

The functions of :mod:`refmodel.exchange.onnx.operators` read their inputs from a
:class:`NetworkBuilder` and append nodes of :mod:`refmodel.network.graph` to it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from refmodel.errors import InputError
from refmodel.network.graph import Node, Pads, Rearrange, Shape

MOST_VALUES = 1 << 24
"""Values of the largest tensor of one image, borders included.

A file of a few hundred bytes can ask for any size; no engine holds a larger tensor.
"""

MOST_MOVED = 1 << 26
"""Values that all rearrangements of a network move together."""

FLOATING = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
"""Types of a tensor that may be computed from the input."""

Attributes = dict[str, Any]
"""The attributes of an ONNX node by name, strings decoded."""


def shape_text(shape: Shape) -> str:
    """Write a shape with the batch before it, as messages have it."""
    return f"(N, {', '.join(map(str, shape))})"


def type_name(number: int) -> str:
    """Return ONNX's name of the type of a tensor."""
    known = TensorProto.DataType.values()
    return TensorProto.DataType.Name(number) if number in known else f"type {number}"


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0].strip(" .") if lines else type(error).__name__


def value_numbers(shape: Shape) -> NDArray[np.int64]:
    """Number the values of one image in ONNX order, in an array of its shape."""
    return np.arange(prod(shape)).reshape(shape)


class NetworkBuilder:
    """The part of a network that has been read so far.

    Tensors are known by their names in the file. ``shapes`` leave the batch out, as in
    :mod:`refmodel.network.graph`; axes in the attributes of ONNX nodes count it.

    Parameters
    ----------
    source
        The file, for messages.
    opset
        Version of ONNX's operators that the file uses.

    Attributes
    ----------
    constants
        The constants by name: initialisers, and what was computed from constants alone.
    shapes
        Shapes of the tensors that depend on the input.
    nodes
        The nodes so far by output, in order.
    batch
        Size of the batch that the file fixes; 0 where it is free.
    uses
        Number of reads of each tensor, by its name.
    """

    def __init__(self, source: str, opset: int) -> None:
        self.source = source
        self.opset = opset
        self.batch = 0
        self.uses: Counter[str] = Counter()
        self.constants: dict[str, NDArray] = {}
        self.origin: dict[str, str] = {}
        """The initialiser or Constant that each constant was made from."""
        self.codes: dict[str, tuple[NDArray, NDArray]] = {}
        """Constants that were integers: those less their zero point, and the scale of each."""
        self.from_shape: set[str] = set()
        """Constants that were computed from the result of Shape."""
        self.from_batch: set[str] = set()
        """Those of them that depend on the size of the batch."""
        self.transposed: dict[str, str] = {}
        """Tensors (F, N), and the (N, F) that each is the transpose of."""
        self.bordered: dict[str, tuple[str, Pads]] = {}
        """Tensors that are others with a border of zeros."""
        self.alias: dict[str, str] = {}
        """Tensors that are others under a second name."""
        self.shapes: dict[str, Shape] = {}
        self.nodes: dict[str, Node] = {}
        self._names: dict[str, int] = {}  # of nodes, and how often each was given
        self._values_moved = 0

    # Errors

    def place(self, node: NodeProto) -> str:
        """Name a node and the file that it is in."""
        return f"node {node.name or (node.output[0] if node.output else '')!r} of {self.source}"

    def fail(self, expected: str, found: str, node: NodeProto) -> NoReturn:
        """Refuse a node: ``expected <operator> <expected>, found <found>, in node <name>``."""
        raise InputError(
            f"expected {node.op_type} {expected}, found {found}, in {self.place(node)}"
        )

    # Constants

    def numbers(self, name: str, node: NodeProto, what: str) -> NDArray[np.float32]:
        """Read a constant in floating point as float32; all of its values must be finite."""
        if name not in self.constants:
            self.fail(f"with constant {what}", f"tensor {name!r}, which is computed", node)
        values = self.constants[name]
        if values.dtype.kind != "f":
            self.fail(f"with {what} in floating point", str(values.dtype), node)
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise InputError(
                f"expected finite {what}, found {bad} of {values.size} NaN or infinite, "
                f"in initialiser {self.origin[name]!r} of {self.source}"
            )
        return values

    def integers(
        self, node: NodeProto, attributes: Attributes, key: str, at: int
    ) -> list[int] | None:
        """Read sizes or axes: an attribute in older opsets, input ``at`` in newer ones."""
        if key in attributes:
            return [int(value) for value in attributes[key]]
        if len(node.input) <= at or not node.input[at]:
            return None
        name = node.input[at]
        if name not in self.constants:
            self.fail(f"with constant {key}", f"tensor {name!r}, which is computed", node)
        return [int(value) for value in np.atleast_1d(self.constants[name])]

    # Tensors that depend on the input

    def resolve(self, name: str) -> str:
        """Follow second names to the tensor that they mean."""
        last = name
        while last in self.alias:
            last = self.alias[last]
        while name in self.alias:  # so that long chains are walked once
            self.alias[name], name = last, self.alias[name]
        return last

    def activation(self, name: str, node: NodeProto) -> tuple[str, Shape]:
        """Return the name and the shape of an input that depends on the network's input."""
        resolved = self.resolve(name)
        if resolved in self.transposed:
            self.fail("of a tensor with the batch first", f"{name!r}, its batch last", node)
        if resolved not in self.shapes:
            self.fail("of a tensor that depends on the input", f"{name!r}", node)
        return resolved, self.shapes[resolved]

    def image(self, node: NodeProto) -> tuple[str, tuple[int, int, int]]:
        """Like :meth:`activation`, for a first input that must have channels, height and width."""
        name, shape = self.activation(node.input[0], node)
        if len(shape) != 3:
            self.fail("of an input (N, C, H, W)", shape_text(shape), node)
        return name, shape

    # Nodes

    def append(self, node: Node) -> None:
        """Append a node; a name that another node has gets a number."""
        if isinstance(node, Rearrange):
            self._values_moved += node.index.size
        if prod(node.shape) > MOST_VALUES or self._values_moved > MOST_MOVED:
            raise InputError(
                f"expected tensors of at most {MOST_VALUES} values, and at most {MOST_MOVED} "
                f"moved, found {shape_text(node.shape)} and {self._values_moved}, "
                f"in node {node.name!r} of {self.source}"
            )
        name = node.name
        while name in self._names:
            self._names[node.name] += 1
            name = f"{node.name}_{self._names[node.name]}"
        self._names[name] = 1
        self.nodes[node.output] = replace(node, name=name)
        self.shapes[node.output] = node.shape

    def fields(self, node: NodeProto, inputs: tuple[str, ...], shape: Shape) -> dict[str, Any]:
        """Return the fields that every node of a network has, for the output of ``node``."""
        output = node.output[0]
        return {"name": node.name or output, "inputs": inputs, "output": output, "shape": shape}

    def inner_node(self, node: NodeProto) -> NodeProto:
        """Copy ``node`` for a step on the way to its output, with an output of its own."""
        inner = NodeProto()
        inner.CopyFrom(node)
        name = node.output[0]
        while name == node.output[0] or name in self.shapes or name in self.alias:
            name += "'"
        inner.output[0] = name
        self.uses[name] = 1
        return inner

    def inner_fields(
        self, node: NodeProto, inputs: tuple[str, ...], shape: Shape
    ) -> dict[str, Any]:
        """Like :meth:`fields`, for a tensor on the way to the output of ``node``."""
        return self.fields(self.inner_node(node), inputs, shape)

    def rearrange(self, node: NodeProto, name: str, index: NDArray[np.int64]) -> None:
        """Let the output of ``node`` be values of ``name``: those that ``index`` numbers."""
        fields = self.fields(node, (name,), tuple(int(size) for size in index.shape))
        self.append(Rearrange(**fields, index=np.ascontiguousarray(index).reshape(-1)))

    def rearranged(self, node: NodeProto, name: str, index: NDArray[np.int64]) -> str:
        """Like :meth:`rearrange`, for a tensor on the way to the output; returns its name."""
        fields = self.inner_fields(node, (name,), tuple(int(size) for size in index.shape))
        self.append(Rearrange(**fields, index=np.ascontiguousarray(index).reshape(-1)))
        return fields["output"]

    def pass_on(self, node: NodeProto, name: str) -> None:
        """Let the output of ``node`` be the tensor ``name``."""
        self.alias[node.output[0]] = name
        self.uses[name] += self.uses[node.output[0]] - 1

    # Tensors with their batch last

    def untransposed(self, name: str) -> str | None:
        """Return the tensor (N, F) that ``name`` is the transpose of, if it is one."""
        return self.transposed.get(self.resolve(name))

    def transposed_node(self, node: NodeProto, inputs: Sequence[str] = ()) -> NodeProto:
        """Make a node that computes the transpose of what ``node`` does, from those of ``inputs``.

        Constants among the inputs must have one value to a row.
        """
        inner = NodeProto()
        inner.CopyFrom(node)
        inner.output[0] = f"{node.output[0]}'"
        for at, name in enumerate(inner.input):
            if name not in inputs:
                continue
            if (source := self.untransposed(name)) is not None:
                inner.input[at] = source
            elif name not in self.constants:
                self.fail("of tensors with their batches in one place", repr(name), node)
            elif self.constants[name].size > 1:
                if self.constants[name].ndim != 2 or self.constants[name].shape[1] != 1:
                    found = f"{self.constants[name].shape} on (F, N)"
                    self.fail("of one constant to a row", found, node)
                inner.input[at] = f"{name}'"
                self.constants[inner.input[at]] = self.constants[name].T
                self.origin[inner.input[at]] = self.origin[name]
        self.transposed[node.output[0]] = inner.output[0]
        self.uses[inner.output[0]] = self.uses[node.output[0]]
        return inner
