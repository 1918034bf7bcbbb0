"""Read a trained network from an ONNX file.

The operators are those of feed-forward image classifiers: Conv, Gemm, MatMul, BatchNormalization,
Add, Relu, Clip, the poolings, what only moves values (Flatten, Reshape, Transpose, Squeeze,
Unsqueeze), Identity and Dropout, and Softmax or LogSoftmax as the last step, which is left out:
it does not change which class is largest. What computes only with constants is worked out while
reading, so the chains that exporters write around Reshape are no obstacle.

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

from refmodel.errors import InputError
from refmodel.graph import (
    Add,
    AveragePool,
    Clip,
    FloatNetwork,
    Matrix,
    MaxPool,
    Node,
    Pads,
    Rearrange,
    Shape,
    output_size,
    simplify,
)

DROPPED = ("Identity", "Dropout")
"""Operators that pass their first input on during inference."""

LAST = ("Softmax", "LogSoftmax")
"""Operators that may end the network and are left out."""

FOLDED = frozenset(
    (
        "Add",
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Div",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MatMul",
        "Mul",
        "Neg",
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
        Weights as float32; BatchNormalization apart from them, as gain and bias of its layer.

    Raises
    ------
    InputError
        The file cannot be read, is not ONNX, or holds an operator, a shape or a weight that is
        not supported. The message names the node or initialiser.
    """
    source = str(path)
    model = _parse(path, source)
    importer = _Importer(model, source)
    importer.refuse_unknown_operators()
    _check(model, source)
    return importer.network()


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


class _Importer:
    """Turns one ONNX graph into nodes of :mod:`refmodel.graph`."""

    def __init__(self, model: onnx.ModelProto, source: str) -> None:
        self.model = model
        self.graph = model.graph
        self.source = source
        self.constants: dict[str, NDArray] = {}
        self.origin: dict[str, str] = {}
        """Which initialiser or Constant a constant was made from."""
        self.alias: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        self.nodes: dict[str, Node] = {}
        """By output, in order."""
        self.opset = max((o.version for o in model.opset_import if not o.domain), default=1)
        self.batch = 0
        self.handlers: dict[str, Callable[[NodeProto, dict[str, Any]], None]] = {
            "Add": self._add,
            "AveragePool": self._pool,
            "BatchNormalization": self._batch_normalization,
            "Clip": self._clip,
            "Conv": self._conv,
            "Flatten": self._flatten,
            "Gemm": self._gemm,
            "GlobalAveragePool": self._global_average_pool,
            "MatMul": self._matmul,
            "MaxPool": self._pool,
            "Relu": self._clip,
            "Reshape": self._reshape,
            "Squeeze": self._squeeze,
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
            found = TensorProto.DataType.Name(tensor.elem_type)
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
        while name in makers and makers[name].op_type in (*DROPPED, *LAST):
            name = makers[name].input[0]
        self.ending = name
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
        while name in self.alias:
            name = self.alias[name]
        return name

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
            elif node.op_type in DROPPED:
                pass
            elif node.op_type in LAST:
                if self._resolve(node.input[0]) != self._resolve(self.ending):
                    self._fail("at the end of the network alone", "one before other nodes", node)
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
        values = {name: self.constants[name] for name in names}
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
            values = values.astype(np.float32)
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
        names = {other.name for other in self.nodes.values()}
        name, count = node.name, 1
        while name in names:
            count += 1
            name = f"{node.name}_{count}"
        self.nodes[node.output] = replace(node, name=name)
        self.shapes[node.output] = node.shape

    def _common(self, node: NodeProto, inputs: tuple[str, ...], shape: Shape) -> dict[str, Any]:
        output = node.output[0]
        return {"name": node.name or output, "inputs": inputs, "output": output, "shape": shape}

    def _matrix_before(self, name: str, node: NodeProto) -> Matrix:
        """The layer that computes ``name`` for ``node`` alone."""
        before = self.nodes.get(name)
        if not isinstance(before, Matrix):
            found = f"{name!r}, the output of no such layer"
            self._fail("of constants right after a convolution or matrix product", found, node)
        if self.uses[name] != 1:
            found = f"{name!r}, which {self.uses[name]} nodes read"
            self._fail("to be the only reader of its layer's output", found, node)
        return before

    def _absorb(self, before: Matrix, node: NodeProto, **changes: Any) -> None:
        del self.nodes[before.output]
        merged = replace(before, output=node.output[0], **changes)
        self.nodes[merged.output] = merged
        self.shapes[merged.output] = merged.shape

    # Operators

    def _conv(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, (channels, height, width) = self._image(node)
        weight = self._numbers(node.input[1], node, "weights")
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
        self._append(
            Matrix(
                **self._common(node, (name,), (outputs, *out)),
                weight=np.ascontiguousarray(weight),
                gain=np.ones(outputs),
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
                padded = size[axis] + pads[axis] + pads[axis + 2]
                count = -(-(padded - reach[axis]) // stride[axis]) + 1
                # A window that would start in the padding behind the input is left out.
                if (count - 1) * stride[axis] >= size[axis] + pads[axis]:
                    count -= 1
                extra[axis] = max(0, (count - 1) * stride[axis] + reach[axis] - padded)
                pads[axis + 2] += extra[axis]
        top, left, bottom, right = pads
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

    def _fully_connected(self, node: NodeProto, name: str, weight, gain: float, bias) -> None:
        """``weight`` is [out, in]."""
        shape = self.shapes[name]
        if weight.ndim != 2 or 0 in weight.shape or len(shape) != 1 or shape[0] != weight.shape[1]:
            found = f"input {self._text(shape)} and weights of shape {weight.shape[::-1]}"
            self._fail("of an input (N, in) and weights (in, out)", found, node)
        outputs = len(weight)
        self._append(
            Matrix(
                **self._common(node, (name,), (outputs,)),
                weight=np.ascontiguousarray(weight)[:, :, None, None],
                gain=np.full(outputs, gain),
                bias=bias,
            )
        )

    def _gemm(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, _ = self._activation(node.input[0], node)
        if attributes.get("transA", 0):
            self._fail("with transA = 0, the batch being its rows", "transA = 1", node)
        weight = self._numbers(node.input[1], node, "weights")
        weight = weight if attributes.get("transB", 0) else weight.T
        bias = self._bias(node, 2, len(weight)) * float(attributes.get("beta", 1.0))
        self._fully_connected(node, name, weight, float(attributes.get("alpha", 1.0)), bias)

    def _matmul(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        if node.input[0] in self.constants:
            self._fail("with the weights on the right", "constants on the left", node)
        name, _ = self._activation(node.input[0], node)
        weight = self._numbers(node.input[1], node, "weights").T
        self._fully_connected(node, name, weight, 1.0, np.zeros(len(np.atleast_1d(weight))))

    def _add(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        constant = [name in self.constants for name in node.input]
        if not any(constant):
            (a, first), (b, second) = (self._activation(name, node) for name in node.input)
            if first != second:
                found = f"{self._text(first)} and {self._text(second)}"
                self._fail("of two tensors of the same shape", found, node)
            self._append(Add(**self._common(node, (a, b), first)))
            return
        name, shape = self._activation(node.input[constant.index(False)], node)
        before = self._matrix_before(name, node)
        values = self._numbers(node.input[constant.index(True)], node, "bias")
        if "axis" in attributes:  # before opset 7 the constant was aligned with an axis
            values = values.reshape(
                values.shape + (1,) * (1 + len(shape) - attributes["axis"] - values.ndim)
            )
        try:
            full = np.broadcast_to(values, (1, *shape)).reshape(shape[0], -1)
        except ValueError:
            full = np.arange(2.0)[None]
        if (full != full[:, :1]).any():
            found = f"{values.shape} on {self._text(shape)}"
            self._fail("of one constant to a channel", found, node)
        self._absorb(before, node, bias=before.bias + full[:, 0])

    def _batch_normalization(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, _ = self._activation(node.input[0], node)
        before = self._matrix_before(name, node)
        if attributes.get("training_mode", 0):
            self._fail("for inference", "training_mode = 1", node)
        whats = ("scale", "bias", "mean", "variance")
        values = [
            self._numbers(each, node, what).astype(np.float64)
            for each, what in zip(node.input[1:5], whats, strict=True)
        ]
        if any(each.shape != before.bias.shape for each in values):
            found = f"{[each.shape for each in values]}"
            self._fail(f"with four times {len(before.bias)} values", found, node)
        scale, bias, mean, variance = values
        variance = variance + float(attributes.get("epsilon", 1e-5))
        if variance.min() <= 0:
            self._fail("with variance + epsilon above 0", f"{variance.min():g}", node)
        gain = scale / np.sqrt(variance)
        self._absorb(before, node, gain=before.gain * gain, bias=(before.bias - mean) * gain + bias)

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
        top, left, bottom, right = pads
        padding = float(attributes.get("count_include_pad", 0))
        around = ((top, bottom - extra[0]), (left, right - extra[1]))
        counted = np.pad(np.ones(size), around, constant_values=padding)
        counted = np.pad(counted, ((0, extra[0]), (0, extra[1])))
        ones = AveragePool(
            **common, kernel=kernel, stride=stride, pads=(0, 0, 0, 0), counts=np.ones(out, np.int64)
        )
        counts = ones.apply(counted[None, None].astype(np.float32))[0, 0].astype(np.int64)
        self._append(AveragePool(**common, **window, counts=counts))

    def _global_average_pool(self, node: NodeProto, attributes: dict[str, Any]) -> None:
        name, (channels, height, width) = self._image(node)
        self._append(
            AveragePool(
                **self._common(node, (name,), (channels, 1, 1)),
                kernel=(height, width),
                stride=(1, 1),
                pads=(0, 0, 0, 0),
                counts=np.full((1, 1), height * width, np.int64),
            )
        )

    # Operators that only move values: run on the numbers of the values of one image

    def _rearrange(self, node: NodeProto, name: str, index: NDArray[np.int64]) -> None:
        common = self._common(node, (name,), tuple(int(size) for size in index.shape))
        self._append(Rearrange(**common, index=np.ascontiguousarray(index).reshape(-1)))

    def _numbered(self, node: NodeProto) -> tuple[str, NDArray[np.int64]]:
        name, shape = self._activation(node.input[0], node)
        return name, np.arange(prod(shape)).reshape(shape)

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
