"""Read a trained network from an ONNX file.

The operators are those of feed-forward image classifiers: Conv, Gemm, MatMul, BatchNormalization,
Add, arithmetic with constants, Relu, Clip, Concat, the poolings, ReduceMean, what only moves values
(Flatten, Reshape, Transpose, Squeeze, Unsqueeze, Slice, Pad, and Gather with constant indices),
Identity and Dropout, and Softmax or LogSoftmax as the last step, which is left out: it does not
change which class is largest. What computes only with constants is worked out while reading, so the
chains that exporters write around Reshape are no obstacle.

Normalisation and arithmetic with constants go into the gain and bias of the convolution or matrix
product before them. Where there is none, or something else reads its output too, they become a
convolution of their own: depthwise, 1x1, every weight 1.

In quantised networks, QuantizeLinear becomes a :class:`FakeQuant`, whose scale and zero point the
integer network then has; weights behind a DequantizeLinear stay the integers that they are, as long
as they less their zero point fit signed 8 bits and have one scale, or one to an output. Other
weights are taken as the real numbers that they stand for.

The first axis of the network's input is the batch and stays free, also where the file fixes it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from refmodel.compression import tuned, tuned_file
from refmodel.errors import InputError
from refmodel.network.graph import (
    Add,
    AveragePool,
    Clip,
    Concat,
    FakeQuant,
    FloatNetwork,
    Matrix,
    MaxPool,
    Node,
    Pads,
    Rearrange,
    Shape,
    ceil_padding,
    output_size,
    pool_counts,
    simplify,
)

DROPPED = ("Identity", "Dropout")
"""Operators that pass their first input on during inference."""

LAST = ("Softmax", "LogSoftmax")
"""Operators that may end the network and are left out."""

QUANTISERS = ("QuantizeLinear", "DequantizeLinear")

TURNABLE = ("Add", "Clip", "Div", "Mul", "Relu", "Sub")
"""Operators that a tensor with its batch last may go through."""

UNTIL_THE_END = 1 << 30
"""Exporters write 2^31 - 1 or 2^63 - 1 for the end of an axis whose size they do not know."""

FOLDED = frozenset(
    (
        "Add",
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "DequantizeLinear",
        "Div",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MatMul",
        "Mul",
        "Neg",
        "QuantizeLinear",
        "Range",
        "ReduceProd",
        "Reshape",
        "Shape",
        "Slice",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
    )
)
"""Operators that are worked out where all their inputs are constants."""

BATCH = 0
"""The batch in the result of Shape: in Reshape, 0 copies the size of the input."""

MOST_VALUES = 1 << 24
"""Values of the largest tensor of one image, borders included.

A file of a few hundred bytes can ask for any size; no engine holds a larger tensor.
"""

MOST_MADE = 160_000_000
"""Values of all constants larger than what they are made from: VGG19 has 144 million weights."""

MOST_MOVED = 1 << 26
"""Values that all rearrangements of a network move together."""

MOST_NODES = 10_000
"""Nodes of a network: the deepest that are published have a few thousand."""

FLOATING = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def load_onnx(path: str | Path) -> FloatNetwork:
    """Read the network in an ONNX file.

    Parameters
    ----------
    path
        The file; weights kept in files beside it are read too.

    Returns
    -------
    FloatNetwork
        Weights as float32; BatchNormalization apart from them, as gain and bias of its layer. The
        mappings of a fine-tuned network, if the file has them (:mod:`refmodel.compression.tuned`).

    Raises
    ------
    InputError
        The file cannot be read, is not ONNX, or holds an operator, a shape or a weight that is
        not supported, or mappings that are damaged or do not give its weights. The message names
        the node or initialiser.
    """
    source = str(path)
    model = _parse(path, source)
    importer = _Importer(model, source)
    importer.refuse_unknown_operators()
    _check(model, source)
    network = importer.network()
    carried = [each.value for each in model.metadata_props if each.key == tuned.KEY]
    if not carried:
        return network
    return replace(network, tuned=tuned_file.decode(carried[0], network))


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip(" .") if lines else type(error).__name__


def _parse(path: str | Path, source: str) -> onnx.ModelProto:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise InputError(f"expected a readable ONNX file, found: {found}, in {source}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # the class of protobuf's error depends on its implementation
        raise InputError(
            f"expected an ONNX file, found {len(content)} bytes that are none, in {source}"
        ) from error
    if not model.graph.node:
        raise InputError(
            f"expected an ONNX file, found {len(content)} bytes without a network, in {source}"
        )
    try:
        onnx.load_external_data_for_model(model, str(Path(path).resolve().parent))
    except Exception as error:  # a missing file, one too short, or a path that leaves the folder
        raise InputError(
            f"expected the network's external data, found: {_one_line(error)}, in {source}"
        ) from error
    return model


def _check(model: onnx.ModelProto, source: str) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, but also whatever the C++ side throws
        raise InputError(
            f"expected a valid ONNX network, found: {_one_line(error)}, in {source}"
        ) from error


def _type_name(number: int) -> str:
    known = TensorProto.DataType.values()
    return TensorProto.DataType.Name(number) if number in known else f"type {number}"


def _folded_size(node: NodeProto, values: list[NDArray]) -> int:
    """Values that come of constants, about and never too few, where they can be many."""
    first: NDArray = values[0] if values else np.zeros(())
    match node.op_type:
        case "ConstantOfShape":
            return prod(max(0, int(size)) for size in first.reshape(-1))
        case "Expand" if len(values) > 1:
            return max(first.size, 1) * prod(max(1, int(size)) for size in values[1].reshape(-1))
        case "Range" if len(values) == 3:
            start, limit, delta = (float(value.item()) for value in values)
            return 0 if delta == 0 else max(0, int(min((limit - start) / delta, 1e18)))
        case "Gather" if len(values) > 1:
            return values[1].size * first.size
        case "MatMul" if len(values) > 1 and first.ndim and values[1].ndim:
            rows = first.size // max(1, first.shape[-1])
            return rows * (values[1].size // max(1, values[1].shape[-2:][0]))
        case "Add" | "Sub" | "Mul" | "Div" if len(values) > 1:
            return prod(np.broadcast_shapes(*(value.shape for value in values)))
        case "Concat":
            return sum(value.size for value in values)
        case _:
            return 0


class _Importer:
    """Turns one ONNX graph into nodes of :mod:`refmodel.network.graph`."""

    def __init__(self, model: onnx.ModelProto, source: str) -> None:
        self.model = model
        self.graph = model.graph
        self.source = source
        self.constants: dict[str, NDArray] = {}
        self.origin: dict[str, str] = {}
        """Which initialiser or Constant a constant was made from."""
        self.codes: dict[str, tuple[NDArray, NDArray]] = {}
        """Constants that were integers: those less their zero point, and the scale of each."""
        self.turned: dict[str, str] = {}
        """Tensors (F, N), and the (N, F) that each is the transpose of."""
        self.bordered: dict[str, tuple[str, Pads]] = {}
        """Tensors that are others with a border of zeros."""
        self.alias: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        self.nodes: dict[str, Node] = {}
        """By output, in order."""
        self.names: dict[str, int] = {}
        """Names of nodes, and how often each was given."""
        self.made = 0
        """Values of constants made so far that are larger than what they are made from."""
        self.moved = 0
        """Values that the rearrangements so far move."""
        self.opset = max((o.version for o in model.opset_import if not o.domain), default=1)
        self.batch = 0
        self.skipped: set[str] = set()
        """Tensors behind the end of the network."""
        self.handlers: dict[str, Callable[[NodeProto, dict[str, Any]], None]] = {
            "Add": self._arithmetic,
            "AveragePool": self._pool,
            "BatchNormalization": self._batch_normalization,
            "Cast": self._cast,
            "Clip": self._clip,
            "Concat": self._concat,
            "Conv": self._conv,
            "DequantizeLinear": self._dequantize,
            "Div": self._arithmetic,
            "Flatten": self._flatten,
            "Gather": self._gather,
            "Gemm": self._gemm,
            "GlobalAveragePool": self._global_pool,
            "GlobalMaxPool": self._global_pool,
            "MatMul": self._matmul,
            "MaxPool": self._pool,
            "Mul": self._arithmetic,
            "Pad": self._pad,
            "QuantizeLinear": self._quantize,
            "ReduceMean": self._reduce_mean,
            "Relu": self._clip,
            "Reshape": self._reshape,
            "Slice": self._slice,
            "Squeeze": self._squeeze,
            "Sub": self._arithmetic,
            "Transpose": self._transpose,
            "Unsqueeze": self._squeeze,
        }
        self.live = self._live_nodes()

    # Before anything is computed

    def _live_nodes(self) -> list[NodeProto]:
        """The nodes that the outputs depend on, in the order of the file."""
        needed = {output.name for output in self.graph.output}
        live = []
        for node in reversed(self.graph.node):
            if needed.intersection(node.output):
                needed.update(node.input)
                live.append(node)
        return live[::-1]

    def refuse_unknown_operators(self) -> None:
        """Name the first operator that cannot be imported, before the checker sees the file."""
        if len(self.graph.node) > MOST_NODES:
            raise InputError(
                f"expected a network of at most {MOST_NODES} nodes, found "
                f"{len(self.graph.node)}, in {self.source}"
            )
        constant = {tensor.name for tensor in self.graph.initializer} | {""}
        supported = {*self.handlers, *DROPPED, *LAST, "Shape"}
        for node in self.live:
            standard = node.domain in ("", "ai.onnx")
            folded = standard and node.op_type in FOLDED and constant.issuperset(node.input)
            if folded or (standard and node.op_type == "Shape"):
                constant.update(node.output)
            elif not standard or node.op_type not in supported:
                operator = node.op_type if standard else f"{node.domain}.{node.op_type}"
                raise InputError(
                    f"expected supported operators ({', '.join(sorted(supported))}), "
                    f"found {operator!r}, in {self._place(node)}"
                )

    # The walk

    def network(self) -> FloatNetwork:
        for tensor in self.graph.initializer:
            self.constants[tensor.name] = self._array(tensor)
            self.origin[tensor.name] = tensor.name
        input_name, input_shape = self._input()
        output = self._output()
        self.uses = self._count_uses(output)
        self.shapes[input_name] = input_shape
        for node in self.live:
            self._import(node)
        output = self._resolve(output)
        if output in self.turned:
            raise InputError(
                f"expected an output with the batch first, found it last in {output!r}, "
                f"in {self.source}"
            )
        if output not in self.nodes:
            raise InputError(
                f"expected a network that computes its output from its input, "
                f"found output {output!r} that does not depend on it, in {self.source}"
            )
        network = FloatNetwork(
            nodes=tuple(self.nodes.values()),
            input=input_name,
            output=output,
            input_shape=input_shape,
            source=self.source,
        )
        network = simplify(network)
        if not any(isinstance(node, Matrix) for node in network.nodes):
            raise InputError(
                f"expected a network with a convolution or fully connected layer, found none, "
                f"in {self.source}"
            )
        for node in network.nodes:
            if len(node.shape) > 3:
                raise InputError(
                    f"expected tensors of at most three axes behind the batch, found "
                    f"{node.shape}, in tensor {node.output!r} of {self.source}"
                )
        return network

    def _array(self, tensor: TensorProto) -> NDArray:
        try:
            return numpy_helper.to_array(tensor)
        except Exception as error:  # sizes that do not fit the data, unknown types
            raise InputError(
                f"expected a well-formed tensor, found: {_one_line(error)}, "
                f"in initialiser {tensor.name!r} of {self.source}"
            ) from error

    def _input(self) -> tuple[str, Shape]:
        inputs = [i for i in self.graph.input if i.name not in self.constants]
        if len(inputs) != 1:
            raise InputError(
                f"expected a network with one input, found {len(inputs)}, in {self.source}"
            )
        (value,) = inputs
        place = f"in input {value.name!r} of {self.source}"
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            raise InputError(f"expected an input with a shape, found none, {place}")
        if tensor.elem_type not in FLOATING:
            found = _type_name(tensor.elem_type)
            raise InputError(f"expected an input of floating point, found {found}, {place}")
        dims = [
            d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
        ]
        text = f"({', '.join(map(str, dims))})"
        if not 2 <= len(dims) <= 4:
            raise InputError(
                f"expected an input of 2 to 4 axes, the batch first, found {text}, {place}"
            )
        if not all(isinstance(d, int) and d >= 1 for d in dims[1:]):
            raise InputError(
                f"expected an input with fixed sizes behind the batch, found {text}, {place}"
            )
        if prod(int(d) for d in dims[1:]) > MOST_VALUES:
            raise InputError(
                f"expected an input of at most {MOST_VALUES} values, found {text}, {place}"
            )
        self.batch = dims[0] if isinstance(dims[0], int) else 0
        return value.name, tuple(int(d) for d in dims[1:])

    def _output(self) -> str:
        """The network's output, before a Softmax that ends it."""
        if len(self.graph.output) != 1:
            raise InputError(
                f"expected a network with one output, found {len(self.graph.output)}, "
                f"in {self.source}"
            )
        makers = {name: node for node in self.live for name in node.output}
        name = self.graph.output[0].name
        # A Softmax may itself be quantised: what follows it goes with it.
        before = name
        while before in makers and makers[before].op_type in (*DROPPED, *LAST, *QUANTISERS):
            last = makers[before].op_type in LAST
            before = makers[before].input[0]
            name = before if last else name
        while name in makers and makers[name].op_type in DROPPED:
            name = makers[name].input[0]
        self.ending = name
        for node in self.live:  # what is left out behind it
            ends = node.op_type in LAST and node.input[0] == name
            if ends or self.skipped.intersection(node.input):
                self.skipped.update(node.output)
        return name

    def _count_uses(self, output: str) -> Counter[str]:
        """How often each tensor is read, seen through the operators that are dropped."""
        for node in self.live:
            if node.op_type in DROPPED and node.input[0] not in self.constants:
                self.alias[node.output[0]] = node.input[0]
        uses: Counter[str] = Counter([self._resolve(output)])
        for node in self.live:
            if node.op_type not in (*DROPPED, *LAST, "Shape"):
                uses.update(self._resolve(name) for name in node.input if name)
        return uses

    def _resolve(self, name: str) -> str:
        last = name
        while last in self.alias:
            last = self.alias[last]
        while name in self.alias:  # so that long chains are walked once
            self.alias[name], name = last, self.alias[name]
        return last

    def _import(self, node: NodeProto) -> None:
        try:
            attributes = {
                a.name: v.decode() if isinstance(v := helper.get_attribute_value(a), bytes) else v
                for a in node.attribute
            }
            inputs = [name for name in node.input if name]
            if node.op_type == "Shape" and self._resolve(node.input[0]) in self.shapes:
                self._shape(node, attributes)
            elif all(name in self.constants for name in inputs) and node.op_type in FOLDED:
                self._fold(node)
            elif node.op_type in DROPPED or self.skipped.intersection(node.input):
                pass
            elif node.op_type in LAST:
                if self._resolve(node.input[0]) != self._resolve(self.ending):
                    self._fail("at the end of the network alone", "one before other nodes", node)
            elif node.op_type in TURNABLE and any(map(self._turned, inputs)):
                inner = self._turn(node, inputs)
                self.handlers[node.op_type](inner, attributes)
            else:
                self.handlers[node.op_type](node, attributes)
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            raise InputError(
                f"expected a well-formed {node.op_type}, found: {_one_line(error)}, "
                f"in {self._place(node)}"
            ) from error

    def _place(self, node: NodeProto) -> str:
        return f"node {node.name or (node.output[0] if node.output else '')!r} of {self.source}"

    def _fail(self, expected: str, found: str, node: NodeProto) -> NoReturn:
        raise InputError(
            f"expected {node.op_type} {expected}, found {found}, in {self._place(node)}"
        )

    # Constants

    def _fold(self, node: NodeProto) -> None:
        names = [name for name in node.input if name]
        if node.op_type in QUANTISERS and self._fold_quantiser(node):
            self.origin[node.output[0]] = self.origin[names[0]]
            return
        values = {name: self.constants[name] for name in names}
        size = _folded_size(node, [self.constants[name] for name in names])
        if size > sum(value.size for value in values.values()):
            self.made += size
        if self.made > MOST_MADE:
            self._fail(f"to constants of at most {MOST_MADE} values together", f"{size}", node)
        infos = [
            helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in values
        ]
        outs = [helper.make_tensor_value_info(node.output[0], TensorProto.UNDEFINED, None)]
        graph = helper.make_graph([node], "constants", infos, outs)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets)
        try:
            (result,) = ReferenceEvaluator(model).run(None, values)
        except Exception as error:  # the evaluator raises whatever numpy does
            raise ValueError(_one_line(error)) from error
        self.constants[node.output[0]] = np.asarray(result)
        self.origin[node.output[0]] = self.origin[names[0]] if names else node.output[0]
        if node.op_type in ("Identity", "Transpose") and node.input[0] in self.codes:
            codes, scale = self.codes[node.input[0]]
            if node.op_type == "Transpose":
                (order,) = [list(a.ints) for a in node.attribute] or [None]
                codes, scale = codes.transpose(order), scale.transpose(order)
            self.codes[node.output[0]] = codes, scale

    def _fold_quantiser(self, node: NodeProto) -> bool:
        """Quantise or dequantise a constant, which onnx's evaluator does from opset 19 on alone.

        Remembers which integers a constant in floating point stands for. False where the scale is
        given in blocks or the codes are no integers.
        """
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        values, scale, *zeros = (self.constants[name] for name in node.input if name)
        zero = zeros[0] if zeros else np.zeros((), np.uint8)
        stored = values if node.op_type == "DequantizeLinear" else zero
        if attributes.get("block_size", 0) or attributes.get("output_dtype", 0):
            return False
        if stored.dtype not in (np.int8, np.uint8, np.int16, np.uint16, np.int32):
            return False
        shape = [1] * values.ndim
        if scale.size > 1:
            shape[int(attributes.get("axis", 1))] = scale.size
        scale = scale.astype(np.float64).reshape(shape)
        zero = zero.astype(np.int64).reshape(shape if zero.size > 1 else [1] * values.ndim)
        if node.op_type == "DequantizeLinear":
            codes = values.astype(np.int64) - zero
            self.codes[node.output[0]] = codes, np.broadcast_to(scale, codes.shape)
            self.constants[node.output[0]] = (codes * scale).astype(np.float32)
        else:
            codes = np.rint(values / scale.astype(np.float32)).astype(np.int64) + zero
            limits = np.iinfo(stored.dtype)
            self.constants[node.output[0]] = codes.clip(limits.min, limits.max).astype(stored.dtype)
        return True

    def _shape(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        shape = (BATCH, *self.shapes[self._resolve(node.input[0])])
        part = shape[attributes.get("start", 0) : attributes.get("end")]
        self.constants[node.output[0]] = np.array(part, np.int64)
        self.origin[node.output[0]] = node.output[0]

    def _numbers(self, name: str, node: NodeProto, what: str) -> NDArray[np.float32]:
        """A constant of floating point, as float32, finite."""
        if name not in self.constants:
            self._fail(f"with constant {what}", f"tensor {name!r}, which is computed", node)
        values = self.constants[name]
        if values.dtype.kind != "f":
            self._fail(f"with {what} in floating point", str(values.dtype), node)
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise InputError(
                f"expected finite {what}, found {bad} of {values.size} NaN or infinite, "
                f"in initialiser {self.origin[name]!r} of {self.source}"
            )
        return values

    def _integers(self, node: NodeProto, attributes: dict[str, Any], key: str, at: int):
        """Sizes or axes: an attribute in older opsets, an input in newer ones; None if absent."""
        if key in attributes:
            return [int(value) for value in attributes[key]]
        if len(node.input) <= at or not node.input[at]:
            return None
        name = node.input[at]
        if name not in self.constants:
            self._fail(f"with constant {key}", f"tensor {name!r}, which is computed", node)
        return [int(value) for value in np.atleast_1d(self.constants[name])]

    # Activations

    def _activation(self, name: str, node: NodeProto) -> tuple[str, Shape]:
        resolved = self._resolve(name)
        if resolved in self.turned:
            self._fail("of a tensor with the batch first", f"{name!r}, its batch last", node)
        if resolved not in self.shapes:
            self._fail("of a tensor that depends on the input", f"{name!r}", node)
        return resolved, self.shapes[resolved]

    def _image(self, node: NodeProto) -> tuple[str, Shape]:
        name, shape = self._activation(node.input[0], node)
        if len(shape) != 3:
            self._fail("of an input (N, C, H, W)", self._text(shape), node)
        return name, shape

    @staticmethod
    def _text(shape: Shape) -> str:
        return f"(N, {', '.join(map(str, shape))})"

    def _append(self, node: Node) -> None:
        if isinstance(node, Rearrange):
            self.moved += node.index.size
        if prod(node.shape) > MOST_VALUES or self.moved > MOST_MOVED:
            raise InputError(
                f"expected tensors of at most {MOST_VALUES} values, and at most {MOST_MOVED} "
                f"moved, found {self._text(node.shape)} and {self.moved}, in node {node.name!r} "
                f"of {self.source}"
            )
        name = node.name
        while name in self.names:
            self.names[node.name] += 1
            name = f"{node.name}_{self.names[node.name]}"
        self.names[name] = 1
        self.nodes[node.output] = replace(node, name=name)
        self.shapes[node.output] = node.shape

    def _common(self, node: NodeProto, inputs: tuple[str, ...], shape: Shape) -> dict[str, Any]:
        output = node.output[0]
        return {"name": node.name or output, "inputs": inputs, "output": output, "shape": shape}

    def _weights(
        self, node: NodeProto, transpose: bool = False, at: int = 1
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], bool]:
        """Weights, outputs first, the gain that they come with, and whether they are integers."""
        name = node.input[at]
        weight = self._numbers(name, node, "weights")
        weight = weight.T if transpose else weight
        ones = np.ones(len(np.atleast_1d(weight)))
        if name not in self.codes or not weight.size or weight.ndim < 2:
            return weight, ones, False
        codes, scale = (each.T if transpose else each for each in self.codes[name])
        scale = scale.reshape(len(scale), -1)
        fits = codes.min() >= -128 and codes.max() <= 127 and (scale == scale[:, :1]).all()
        if not fits or scale.min() <= 0:
            return weight, ones, False
        return codes.astype(np.float32), scale[:, 0].copy(), True

    # Operators

    def _conv(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, (channels, height, width) = self._image(node)
        weight, gain, exact = self._weights(node)
        groups = int(attributes.get("group", 1))
        if weight.ndim != 4 or 0 in weight.shape:
            self._fail("with weights (out, in, kh, kw)", f"{weight.shape}", node)
        outputs, inputs, *kernel = weight.shape
        if groups < 1 or inputs * groups != channels or outputs % groups:
            found = f"weights {weight.shape} in {groups} groups on {channels} channels"
            self._fail("with weights (out, channels / groups, kh, kw)", found, node)
        if list(attributes.get("kernel_shape", kernel)) != kernel:
            self._fail(f"with kernel_shape {kernel}", f"{attributes['kernel_shape']}", node)
        stride, dilation, pads, _ = self._geometry(node, attributes, (height, width), kernel)
        out = self._window(node, (height, width), kernel, stride, pads, dilation)
        if name in self.bordered:
            name, border = self.bordered[name]
            top, left, bottom, right = (a + b for a, b in zip(pads, border, strict=True))
            pads = top, left, bottom, right
        self._append(
            Matrix(
                **self._common(node, (name,), (outputs, *out)),
                weight=np.ascontiguousarray(weight),
                gain=gain,
                exact=exact,
                bias=self._bias(node, 2, outputs),
                stride=stride,
                pads=pads,
                dilation=dilation,
                groups=groups,
            )
        )

    def _bias(self, node: NodeProto, at: int, outputs: int) -> NDArray[np.float64]:
        if len(node.input) <= at or not node.input[at]:
            return np.zeros(outputs)
        bias = self._numbers(node.input[at], node, "bias")
        if bias.size not in (1, outputs) or bias.size != max((1, *bias.shape)):
            self._fail(f"with a bias of {outputs} values", f"{bias.shape}", node)
        return np.broadcast_to(bias.reshape(-1), outputs).astype(np.float64)

    def _pair(self, node: NodeProto, attributes: dict[str, Any], key: str) -> tuple[int, int]:
        pair = [int(value) for value in attributes.get(key, (1, 1))]
        if len(pair) != 2 or min(pair) < 1:
            self._fail(f"with two {key} of at least 1", f"{pair}", node)
        return pair[0], pair[1]

    def _geometry(self, node: NodeProto, attributes: dict[str, Any], size, kernel):
        """Stride, dilation, padding, and the part of the padding that ceil_mode adds."""
        stride = self._pair(node, attributes, "strides")
        dilation = self._pair(node, attributes, "dilations")
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        auto = attributes.get("auto_pad", "NOTSET")
        if auto == "NOTSET":
            pads = [int(value) for value in attributes.get("pads", (0, 0, 0, 0))]
            if len(pads) != 4 or min(pads) < 0:
                self._fail("with four pads of at least 0", f"{pads}", node)
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
            self._fail("with a known auto_pad", repr(auto), node)
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
            self._fail(f"of at most {MOST_VALUES} values with its pads", f"{padded}", node)
        return stride, dilation, (top, left, bottom, right), (extra[0], extra[1])

    def _window(self, node, size, kernel, stride, pads: Pads, dilation) -> tuple[int, int]:
        """Size of the output of a window; refuses an empty one."""
        out = [
            output_size(
                size[axis],
                (kernel[axis] - 1) * dilation[axis] + 1,
                stride[axis],
                pads[axis],
                pads[axis + 2],
            )
            for axis in (0, 1)
        ]
        if min(out) < 1:
            found = f"{tuple(size)} with pads {pads}"
            self._fail(f"with an input as large as its kernel {tuple(kernel)}", found, node)
        return out[0], out[1]

    def _fully_connected(self, node: NodeProto, name: str, weights, alpha: float, bias) -> None:
        """``weights`` as :meth:`_weights` gives them, [out, in]; the last axis is multiplied."""
        weight, gain, exact = weights
        shape = self.shapes[name]
        several = node.op_type == "MatMul" and len(shape) == 2
        fits = weight.ndim == 2 and 0 not in weight.shape and shape[-1] == weight.shape[1]
        if not fits or (len(shape) != 1 and not several):
            found = f"input {self._text(shape)} and weights of shape {weight.shape[::-1]}"
            self._fail("of an input (N, in) and weights (in, out)", found, node)
        outputs = len(weight)
        values = {
            "weight": np.ascontiguousarray(weight)[:, :, None, None],
            "gain": gain * alpha,
            "bias": bias,
            "exact": exact,
        }
        if not several:
            self._append(Matrix(**self._common(node, (name,), (outputs,)), **values))
            return
        # Rows are multiplied like the pixels of an image of `in` channels.
        name = self._moved(node, name, self._numbers_of(shape).T[:, None])
        inner = self._inner(node, (name,), (outputs, 1, shape[0]))
        self._append(Matrix(**inner, **values))
        index = self._numbers_of((outputs, shape[0])).T
        self._rearrange(node, inner["output"], index)

    def _turned(self, name: str) -> str | None:
        """The tensor (N, F) that ``name`` is the transpose of, if it is one."""
        return self.turned.get(self._resolve(name))

    def _turn(self, node: NodeProto, inputs: list[str] | tuple[str, ...] = ()) -> NodeProto:
        """Make a node that computes the transpose of what ``node`` does, from those of ``inputs``.

        Constants among them must be one to a row.
        """
        inner = NodeProto()
        inner.CopyFrom(node)
        inner.output[0] = f"{node.output[0]}'"
        for at, name in enumerate(inner.input):
            if name not in inputs:
                continue
            if (source := self._turned(name)) is not None:
                inner.input[at] = source
            elif name not in self.constants:
                self._fail("of tensors with their batches in one place", repr(name), node)
            elif self.constants[name].size > 1:
                if self.constants[name].ndim != 2 or self.constants[name].shape[1] != 1:
                    found = f"{self.constants[name].shape} on (F, N)"
                    self._fail("of one constant to a row", found, node)
                inner.input[at] = f"{name}'"
                self.constants[inner.input[at]] = self.constants[name].T
                self.origin[inner.input[at]] = self.origin[name]
        self.turned[node.output[0]] = inner.output[0]
        self.uses[inner.output[0]] = self.uses[node.output[0]]
        return inner

    def _gemm(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        if node.input[0] in self.constants:
            self._weights_first(node, attributes)
            return
        if attributes.get("transA", 0):
            name = self._turned(node.input[0])
            if name is None:
                self._fail("with transA = 0, the batch being its rows", "transA = 1", node)
        else:
            name, _ = self._activation(node.input[0], node)
        weights = self._weights(node, transpose=not attributes.get("transB", 0))
        bias = self._bias(node, 2, len(weights[0])) * float(attributes.get("beta", 1.0))
        self._fully_connected(node, name, weights, float(attributes.get("alpha", 1.0)), bias)

    def _weights_first(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        """Weights (out, in) times a tensor (in, N): the batch stays last."""
        name = self._turned(node.input[1])
        if attributes.get("transB", 0):
            name, _ = self._activation(node.input[1], node)
        if name is None:
            self._fail("with the weights on the right", "constants on the left", node)
        weights = self._weights(node, transpose=bool(attributes.get("transA", 0)), at=0)
        inner = self._turn(node, node.input[2:])
        bias = self._bias(inner, 2, len(weights[0])) * float(attributes.get("beta", 1.0))
        self._fully_connected(inner, name, weights, float(attributes.get("alpha", 1.0)), bias)

    def _matmul(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        if node.input[0] in self.constants:
            self._weights_first(node, {})
            return
        name, _ = self._activation(node.input[0], node)
        weights = self._weights(node, transpose=True)
        bias = np.zeros(len(np.atleast_1d(weights[0])))
        self._fully_connected(node, name, weights, 1.0, bias)

    def _arithmetic(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        """Add of two tensors; Add, Sub, Mul and Div with a constant."""
        constant = [name in self.constants for name in node.input]
        if not any(constant):
            (a, first), (b, second) = (self._activation(name, node) for name in node.input)
            if node.op_type != "Add":
                self._fail("with a constant", f"two tensors, {a!r} and {b!r}", node)
            if first != second:
                found = f"{self._text(first)} and {self._text(second)}"
                self._fail("of two tensors of the same shape", found, node)
            self._append(Add(**self._common(node, (a, b), first)))
            return
        name, shape = self._activation(node.input[constant.index(False)], node)
        what = "bias" if node.op_type in ("Add", "Sub") else "factors"
        values = self._numbers(node.input[constant.index(True)], node, what).astype(np.float64)
        if "axis" in attributes:  # before opset 7 the constant was aligned with an axis
            values = values.reshape(
                values.shape + (1,) * (1 + len(shape) - attributes["axis"] - values.ndim)
            )
        gain, bias = np.ones(()), np.zeros(())
        match node.op_type, constant[0]:
            case "Add", _:
                bias = values
            case "Sub", False:
                bias = -values
            case "Sub", True:
                gain, bias = -np.ones(()), values
            case "Mul", _:
                gain = values
            case "Div", False if values.all():
                gain = 1 / values
            case _:
                self._fail("by constants other than 0", "a zero or a computed divisor", node)
        self._affine(node, name, gain, bias)

    def _batch_normalization(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, shape = self._activation(node.input[0], node)
        if attributes.get("training_mode", 0):
            self._fail("for inference", "training_mode = 1", node)
        whats = ("scale", "bias", "mean", "variance")
        values = [
            self._numbers(each, node, what).astype(np.float64)
            for each, what in zip(node.input[1:5], whats, strict=True)
        ]
        if any(each.shape != shape[:1] for each in values):
            found = f"{[each.shape for each in values]}"
            self._fail(f"with four times {shape[0]} values", found, node)
        scale, bias, mean, variance = values
        variance = variance + float(attributes.get("epsilon", 1e-5))
        if variance.min() <= 0:
            self._fail("with variance + epsilon above 0", f"{variance.min():g}", node)
        gain = scale / np.sqrt(variance)
        axes = (-1,) + (1,) * (len(shape) - 1)
        self._affine(node, name, gain.reshape(axes), (bias - mean * gain).reshape(axes))

    def _affine(self, node: NodeProto, name: str, gain: NDArray, bias: NDArray) -> None:
        """``gain * x + bias``, with constants that differ along one axis at most."""
        shape = self.shapes[name]
        try:
            full = [np.broadcast_to(each, (1, *shape))[0] for each in (gain, bias)]
        except ValueError:
            found = f"{max(gain.shape, bias.shape, key=len)} on {self._text(shape)}"
            self._fail("of one constant to a channel", found, node)
        if self._absorb(node, name, *full):
            return
        index = self._numbers_of(shape)
        folded = [np.moveaxis(index, axis, 0) for axis in range(len(shape))]
        if len(shape) == 2:  # (H, W) has one channel; otherwise either axis becomes the channels
            folded = [index[None], index[:, None], index.T[:, None]]
        for each in folded:
            values = self._by_channel(full, each)
            if values is not None:
                self._apart(node, name, values, each)
                return
        found = f"{max(gain.shape, bias.shape, key=len)} on {self._text(shape)}"
        self._fail("of one constant to a channel", found, node)

    @staticmethod
    def _by_channel(full: list[NDArray], index: NDArray) -> list[NDArray] | None:
        """The constants of each channel of the tensor that has value ``index`` at each place."""
        flat = [each.reshape(-1)[index.reshape(len(index), -1)] for each in full]
        same = all((each == each[:, :1]).all() for each in flat)
        return [each[:, 0].copy() for each in flat] if same else None

    def _apart(self, node: NodeProto, name: str, values: list[NDArray], index: NDArray) -> None:
        """Make a convolution of arithmetic, on the tensor rearranged so that it is by channel."""
        matrix = {
            "weight": np.ones((len(index), 1, 1, 1), np.float32),
            "gain": values[0],
            "bias": values[1],
            "groups": len(index),
        }
        shape = self.shapes[name]
        if index.shape == shape and (index == self._numbers_of(shape)).all():
            self._append(Matrix(**self._common(node, (name,), shape), **matrix))
            return
        name = self._moved(node, name, index)
        inner = self._inner(node, (name,), index.shape)
        self._append(Matrix(**inner, **matrix))
        self._rearrange(node, inner["output"], np.argsort(index.reshape(-1)).reshape(shape))

    def _absorb(self, node: NodeProto, name: str, gain: NDArray, bias: NDArray) -> bool:
        """Take arithmetic into the layer that computes ``name`` for ``node`` alone, if it can."""
        before, index = self.nodes.get(name), self._numbers_of(self.shapes[name])
        if self.uses[name] > 1:
            return False
        moved = isinstance(before, Rearrange)
        if moved:
            # Seen from the layer, if the rearrangement before this keeps every value once.
            index = np.argsort(before.index)
            every = np.arange(prod(self.shapes[before.inputs[0]]))
            if not np.array_equal(before.index[index], every):
                return False
            before = self.nodes.get(before.inputs[0])
        if not isinstance(before, Matrix) or (moved and self.uses[before.output] > 1):
            return False
        values = self._by_channel([gain, bias], index.reshape(len(before.bias), -1))
        if values is None:
            return False
        changes = {"gain": before.gain * values[0], "bias": before.bias * values[0] + values[1]}
        if moved:
            self.nodes[before.output] = replace(before, **changes)
            self._pass(node, name)
            return True
        del self.nodes[before.output]
        merged = replace(before, output=node.output[0], **changes)
        self.nodes[merged.output] = merged
        self.shapes[merged.output] = merged.shape
        return True

    def _pass(self, node: NodeProto, name: str) -> None:
        """Let the output of ``node`` be its input."""
        self.alias[node.output[0]] = name
        self.uses[name] += self.uses[node.output[0]] - 1

    def _cast(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, _ = self._activation(node.input[0], node)
        if attributes["to"] not in FLOATING:
            found = _type_name(attributes["to"])
            self._fail("to floating point", found, node)
        self._pass(node, name)

    def _concat(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        tensors = [name for name in node.input if name not in self.constants]
        names = [self._activation(name, node)[0] for name in tensors]
        shapes = [self.shapes[name] for name in names]
        rank = len(shapes[0]) + 1
        axis = int(attributes.get("axis", 1))
        axis += rank * (axis < 0)
        others = [shape[: axis - 1] + shape[axis:] for shape in shapes]
        if not 1 <= axis < rank or any(each != others[0] for each in others):
            found = f"{', '.join(map(self._text, shapes))} along axis {axis}"
            self._fail("of tensors that differ in one axis behind the batch", found, node)
        if len(names) == len(node.input):
            size = sum(shape[axis - 1] for shape in shapes)
            shape = (*shapes[0][: axis - 1], size, *shapes[0][axis:])
            self._append(Concat(**self._common(node, tuple(names), shape), axis=axis - 1))
            return
        parts = []
        for name in node.input:
            if name in tensors:
                parts.append(self._numbers_of(shapes[0]))
                continue
            values = self._numbers(name, node, "values")
            if len(names) > 1 or values.any() or values.ndim != rank or values.shape[0] != 1:
                found = f"constants {values.shape} beside {len(names)} tensors"
                self._fail("of tensors, or of one tensor and zeros", found, node)
            parts.append(np.full(values.shape[1:], -1, np.int64))
        self._rearrange(node, names[0], np.concatenate(parts, axis=axis - 1))

    # Quantised networks

    def _scale_and_zero(self, node: NodeProto) -> tuple[float, int]:
        """Scale, and zero point of codes 0 to 255."""
        scale = self._numbers(node.input[1], node, "scale")
        zero = np.zeros((), np.uint8)
        if len(node.input) > 2 and node.input[2]:
            if node.input[2] not in self.constants:
                self._fail("with a constant zero point", f"{node.input[2]!r}, computed", node)
            zero = self.constants[node.input[2]]
        if scale.size != 1 or zero.size != 1 or zero.dtype not in (np.uint8, np.int8):
            found = f"{scale.size} scales and zero points of {zero.dtype}"
            self._fail("of 8 bits with one scale on a computed tensor", found, node)
        if scale.item() <= 0:
            self._fail("with a scale above 0", f"{scale.item():g}", node)
        return float(scale.item()), int(zero.item()) + (128 if zero.dtype == np.int8 else 0)

    def _quantize(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, shape = self._activation(node.input[0], node)
        kinds = (0, TensorProto.UINT8, TensorProto.INT8)
        if attributes.get("output_dtype", 0) not in kinds:
            found = _type_name(attributes["output_dtype"])
            self._fail("to 8 bits", found, node)
        scale, zero = self._scale_and_zero(node)
        absent = len(node.input) < 3 or not node.input[2]
        if absent and attributes.get("output_dtype", 0) == TensorProto.INT8:
            zero = 128
        self._append(FakeQuant(**self._common(node, (name,), shape), scale=scale, zero=zero))

    def _dequantize(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, _ = self._activation(node.input[0], node)
        source = self.nodes.get(name)
        while isinstance(source, Rearrange | MaxPool):
            source = self.nodes.get(source.inputs[0])
        if not isinstance(source, FakeQuant):
            self._fail("of a tensor from QuantizeLinear", f"{name!r}", node)
        scale, zero = self._scale_and_zero(node)
        absent = len(node.input) < 3 or not node.input[2]
        zero = source.zero if absent and source.zero == 128 else zero
        if (scale, zero) != (source.scale, source.zero):
            found = f"scale {scale:g}, code of zero {zero}"
            expected = f"scale {source.scale:g}, code of zero {source.zero}"
            self._fail(f"as its tensor was quantised ({expected})", found, node)
        self._pass(node, name)

    def _clip(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, shape = self._activation(node.input[0], node)
        lo, hi = (0.0, np.inf)
        if node.op_type == "Clip":
            lo = self._limit(node, attributes, "min", 1, -np.inf)
            hi = self._limit(node, attributes, "max", 2, np.inf)
        if not lo <= 0 < hi:
            self._fail("to limits min <= 0 < max", f"min {lo:g}, max {hi:g}", node)
        self._append(Clip(**self._common(node, (name,), shape), lo=lo, hi=hi))

    def _limit(self, node: NodeProto, attributes, key: str, at: int, default: float) -> float:
        if key in attributes:
            return float(attributes[key])
        if len(node.input) <= at or not node.input[at]:
            return default
        if node.input[at] not in self.constants:
            self._fail(f"with a constant {key}", f"tensor {node.input[at]!r}", node)
        return float(self.constants[node.input[at]].item())

    def _pool(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, (channels, height, width) = self._image(node)
        kernel = self._pair(node, attributes, "kernel_shape")
        size = (height, width)
        stride, dilation, pads, extra = self._geometry(node, attributes, size, kernel)
        if dilation != (1, 1):
            self._fail("without dilation", f"dilations {dilation}", node)
        out = self._window(node, size, kernel, stride, pads, dilation)
        if any(pads[axis] >= kernel[axis % 2] for axis in range(4)):
            self._fail(f"with pads below its kernel {kernel}", f"{pads}", node)
        common = self._common(node, (name,), (channels, *out))
        window = {"kernel": kernel, "stride": stride, "pads": pads}
        if node.op_type == "MaxPool":
            self._append(MaxPool(**common, **window))
            return
        padding = bool(attributes.get("count_include_pad", 0))
        counts = pool_counts(size, kernel, stride, pads, extra, padding=padding)
        self._append(AveragePool(**common, **window, counts=counts))

    def _global_pool(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, (channels, height, width) = self._image(node)
        common = self._common(node, (name,), (channels, 1, 1))
        window = {"kernel": (height, width), "stride": (1, 1), "pads": (0, 0, 0, 0)}
        if node.op_type == "GlobalMaxPool":
            self._append(MaxPool(**common, **window))
            return
        counts = np.full((1, 1), height * width, np.int64)
        self._append(AveragePool(**common, **window, counts=counts))

    def _reduce_mean(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, shape = self._activation(node.input[0], node)
        axes = self._integers(node, attributes, "axes", 1)
        if not axes:
            if attributes.get("noop_with_empty_axes", 0):
                self._pass(node, name)
                return
            axes = list(range(len(shape) + 1))
        axes = sorted({axis + (len(shape) + 1) * (axis < 0) for axis in axes})
        if not 1 <= axes[0] <= axes[-1] <= len(shape):
            self._fail("over axes behind the batch", f"axes {axes}", node)
        gone = [axis - 1 for axis in axes]
        kept = [axis for axis in range(len(shape)) if axis not in gone]
        final = tuple(1 if axis in gone else size for axis, size in enumerate(shape))
        if not attributes.get("keepdims", 1):
            final = tuple(shape[axis] for axis in kept)
            if not final:
                self._fail("that leaves an axis behind the batch", "none", node)
        if len(shape) == 3 and gone == [1, 2]:
            kernel, size = shape[1:], shape
        else:
            # Axes that stay become channels, those that go a row.
            count = prod(shape[axis] for axis in gone)
            index = self._numbers_of(shape).transpose(*kept, *gone).reshape(-1, 1, count)
            name, kernel, size = self._moved(node, name, index), (1, count), index.shape
        same = final == (size[0], 1, 1)
        common = (self._common if same else self._inner)(node, (name,), (size[0], 1, 1))
        self._append(
            AveragePool(
                **common,
                kernel=(int(kernel[0]), int(kernel[1])),
                stride=(1, 1),
                pads=(0, 0, 0, 0),
                counts=np.full((1, 1), prod(kernel), np.int64),
            )
        )
        if not same:
            self._rearrange(node, common["output"], self._numbers_of(final))

    # Operators that only move values: run on the numbers of the values of one image

    def _rearrange(self, node: NodeProto, name: str, index: NDArray[np.int64]) -> None:
        common = self._common(node, (name,), tuple(int(size) for size in index.shape))
        self._append(Rearrange(**common, index=np.ascontiguousarray(index).reshape(-1)))

    def _inner(self, node: NodeProto, inputs: tuple[str, ...], shape: Shape) -> dict[str, Any]:
        """Like :meth:`_common`, for a tensor on the way to the output of ``node``."""
        common = self._common(node, inputs, shape)
        while common["output"] in self.shapes or common["output"] == node.output[0]:
            common["output"] += "'"
        return common

    def _moved(self, node: NodeProto, name: str, index: NDArray[np.int64]) -> str:
        """Rearrange a tensor on the way to the output of ``node``."""
        common = self._inner(node, (name,), tuple(int(size) for size in index.shape))
        self._append(Rearrange(**common, index=np.ascontiguousarray(index).reshape(-1)))
        return common["output"]

    @staticmethod
    def _numbers_of(shape: Shape) -> NDArray[np.int64]:
        return np.arange(prod(shape)).reshape(shape)

    def _numbered(self, node: NodeProto) -> tuple[str, NDArray[np.int64]]:
        name, shape = self._activation(node.input[0], node)
        return name, self._numbers_of(shape)

    def _slice(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, index = self._numbered(node)
        keys = ("starts", "ends", "axes", "steps")
        values = [self._integers(node, attributes, key, at + 1) for at, key in enumerate(keys)]
        starts, ends, axes, steps = values
        if starts is None or ends is None:
            self._fail("with starts and ends", f"{starts} and {ends}", node)
        axes = list(range(len(starts))) if axes is None else axes
        steps = [1] * len(starts) if steps is None else steps
        rank = index.ndim + 1
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            axis += rank * (axis < 0)
            if axis == 0:
                whole = end >= UNTIL_THE_END or (self.batch and end >= self.batch)
                if start != 0 or step != 1 or not whole:
                    self._fail("of axes behind the batch", f"{start}:{end}:{step} of it", node)
                continue
            if not 1 <= axis < rank or step == 0:
                found = f"step {step} along axis {axis}"
                self._fail(f"along axes 1 to {rank - 1} with steps other than 0", found, node)
            index = index[(slice(None),) * (axis - 1) + (slice(start, end, step),)]
        if not index.size:
            self._fail("that leaves something", self._text(index.shape), node)
        self._rearrange(node, name, index)

    def _gather(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, index = self._numbered(node)
        if node.input[1] not in self.constants:
            self._fail("with constant indices", f"tensor {node.input[1]!r}, computed", node)
        places = self.constants[node.input[1]]
        axis = int(attributes.get("axis", 0))
        axis += (index.ndim + 1) * (axis < 0)
        if not 1 <= axis <= index.ndim:
            self._fail(f"along one of axes 1 to {index.ndim}", f"axis {axis}", node)
        size = index.shape[axis - 1]
        if places.dtype.kind not in "iu" or not places.size:
            found = f"{places.dtype} of shape {places.shape}"
            self._fail("with integer indices, at least one", found, node)
        least, greatest = int(places.min()), int(places.max())
        if least < -size or greatest >= size:
            self._fail(f"with indices -{size} to {size - 1}", f"{least} to {greatest}", node)
        shape = (*index.shape[: axis - 1], *places.shape, *index.shape[axis:])
        if not shape:
            self._fail("that leaves an axis behind the batch", "none", node)
        if prod(shape) > MOST_VALUES:
            self._fail(f"to at most {MOST_VALUES} values", self._text(shape), node)
        # Places below 0 count from the end, in numpy as in ONNX.
        self._rearrange(node, name, np.take(index, places.astype(np.int64), axis - 1))

    def _pad(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, index = self._numbered(node)
        key = "pads" if self.opset > 1 or "paddings" not in attributes else "paddings"
        pads = self._integers(node, attributes, key, 1)
        mode = attributes.get("mode", "constant")
        value = float(attributes.get("value", 0.0))
        if len(node.input) > 2 and node.input[2]:
            value = float(self._numbers(node.input[2], node, "fill").item())
        rank = index.ndim + 1
        axes = self._integers(node, {}, "axes", 3)
        axes = [axis + rank * (axis < 0) for axis in range(rank)] if axes is None else axes
        axes = [axis + rank * (axis < 0) for axis in axes]
        if pads is None or len(pads) != 2 * len(axes) or not set(axes) <= set(range(rank)):
            self._fail(f"with two pads to each of {rank} axes", f"{pads} on {axes}", node)
        around = [(0, 0)] * rank
        for at, axis in enumerate(axes):
            around[axis] = pads[at], pads[at + len(axes)]
        if around[0] != (0, 0):
            self._fail("of axes behind the batch", f"{around[0]} of it", node)
        if mode == "constant" and value != 0:
            self._fail("with zeros", f"{value:g}", node)
        if mode not in ("constant", "edge", "reflect", "wrap"):
            self._fail("of mode constant, edge, reflect or wrap", repr(mode), node)
        if max(max(pair) for pair in around) > UNTIL_THE_END >> 14:
            self._fail("of at most 65536", f"{around[1:]}", node)
        padded = [size + sum(pair) for size, pair in zip(index.shape, around[1:], strict=True)]
        if prod(max(0, size) for size in padded) > MOST_VALUES:
            self._fail(f"to at most {MOST_VALUES} values", f"{padded}", node)
        # Negative pads cut off; ONNX does so first.
        cut = tuple(
            slice(max(0, -before), size - max(0, -after))
            for (before, after), size in zip(around[1:], index.shape, strict=True)
        )
        index = index[cut]
        if not index.size:
            self._fail("that leaves something", self._text(index.shape), node)
        grown = [(max(0, before), max(0, after)) for before, after in around[1:]]
        fill: dict[str, Any] = {"constant_values": -1} if mode == "constant" else {}
        index = np.pad(index, grown, mode=mode, **fill)  # pyright: ignore[reportCallIssue]
        self._rearrange(node, name, index)
        spatial = index.ndim == 3 and around[1] == (0, 0) and min(map(min, around)) >= 0
        if mode == "constant" and spatial:
            (top, bottom), (left, right) = around[2:]
            self.bordered[node.output[0]] = name, (top, left, bottom, right)

    def _flatten(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, index = self._numbered(node)
        axis = int(attributes.get("axis", 1))
        axis += (index.ndim + 1) * (axis < 0)
        if axis < 1 or prod(index.shape[: axis - 1]) != 1:
            self._fail("that keeps the batch apart", f"axis {axis}", node)
        self._rearrange(node, name, index.reshape(-1))

    def _reshape(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, index = self._numbered(node)
        target = self._integers(node, attributes, "shape", 1)
        if target is None or attributes.get("allowzero", 0):
            self._fail("with a shape and without allowzero", f"{target}", node)
        sizes = [
            index.shape[axis - 1] if size == 0 and 1 <= axis <= index.ndim else size
            for axis, size in enumerate(target)
        ]
        # The first size is the batch where it is copied, free, or what the file fixes.
        inner = sizes[1:]
        known = prod(size for size in inner if size != -1)
        if inner.count(-1) == 1 and sizes[0] != -1 and known > 0:
            inner[inner.index(-1)] = index.size // known
        batch = sizes[:1] in ([0], [-1], [1], [self.batch])
        if not batch or not inner or min(inner) < 1 or prod(inner) != index.size:
            found = f"{target} for {self._text(index.shape)}"
            self._fail("that keeps the batch first and the number of values", found, node)
        self._rearrange(node, name, index.reshape(inner))

    def _transpose(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        source = self._turned(node.input[0])
        if source is not None and list(attributes.get("perm", (1, 0))) == [1, 0]:
            self._pass(node, source)
            return
        name, shape = self._activation(node.input[0], node)
        if len(shape) == 1 and list(attributes.get("perm", (1, 0))) == [1, 0]:
            self.turned[node.output[0]] = name
            self.uses[name] += self.uses[node.output[0]] - 1
            return
        name, index = self._numbered(node)
        order = [int(axis) for axis in attributes.get("perm", range(index.ndim, -1, -1))]
        if sorted(order) != list(range(index.ndim + 1)) or order[0] != 0:
            self._fail("that keeps the batch first", f"perm {order}", node)
        self._rearrange(node, name, index.transpose([axis - 1 for axis in order[1:]]))

    def _squeeze(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, index = self._numbered(node)
        axes = self._integers(node, attributes, "axes", 1)
        if axes is None:
            axes = [axis + 1 for axis, size in enumerate(index.shape) if size == 1]
        rank = index.ndim + 1 + (len(axes) if node.op_type == "Unsqueeze" else 0)
        axes = sorted(axis + rank * (axis < 0) for axis in axes)
        if axes and not 1 <= axes[0] <= axes[-1] < rank:
            self._fail("of axes behind the batch", f"axes {axes}", node)
        if node.op_type == "Squeeze":
            index = index.squeeze(tuple(axis - 1 for axis in axes))
        else:
            for axis in axes:
                index = np.expand_dims(index, axis - 1)
        if not index.ndim:
            self._fail("that leaves an axis behind the batch", "none", node)
        self._rearrange(node, name, index)
