"""Write a network in floating point as an ONNX file, which the importer reads back.

Every node becomes the operators that say the same; layers keep their names, which is what settings
refer to:

============  ======================================================================================
Matrix        Conv, or Gemm for vectors; BatchNormalization of mean 0, variance 1 and epsilon 0
              behind it where its gain is not 1 throughout. Without, the bias is the Conv's.
Clip          Relu, or Clip
Rearrange     Flatten or Reshape where the order stays; otherwise Flatten, Pad by one zero where
              there are indices of -1, and Gather along axis 1
FakeQuant     QuantizeLinear and DequantizeLinear
Function      the operators of its term
others        Add, Concat, MaxPool, AveragePool, Mul
============  ======================================================================================

Weights are written bit for bit. Gains and biases, float64 in
:class:`refmodel.network.graph.Matrix`, are rounded to float32, as ``Matrix.apply`` rounds them too.
Mappings of a fine-tuned network go with it, as :mod:`refmodel.compression.tuned` writes them. The
same network gives the same bytes.
"""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from refmodel.compression import tuned, tuned_file
from refmodel.errors import InputError
from refmodel.network.expression import COMPARISONS, Term
from refmodel.network.graph import (
    Add,
    AveragePool,
    Clip,
    Concat,
    FakeQuant,
    FloatNetwork,
    Function,
    Matrix,
    MaxPool,
    Node,
    Product,
    Rearrange,
    Shape,
    ceil_padding,
    pool_counts,
)

OPSET, IR_VERSION = 17, 8

BATCH = "N"
"""Name of the first axis, which is free."""


def write_onnx(network: FloatNetwork, path: str | Path) -> None:
    """Write a network to an ONNX file.

    Parameters
    ----------
    network
        Any that :func:`refmodel.exchange.onnx.load.load_onnx` gives, or that is put together from
        the same nodes; but no weights that are 8-bit integers (``Matrix.exact``).
    path
        The file, which is replaced.

    Raises
    ------
    InputError
        See :func:`to_onnx`; nothing is written then. Or the file cannot be written.
    """
    content = to_onnx(network).SerializeToString(deterministic=True)
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise InputError(
            f"expected a file that can be written, found: {found}, in {path}"
        ) from None


def to_onnx(network: FloatNetwork) -> onnx.ModelProto:
    """Make the ONNX model of a network: opset 17, the batch free.

    Raises
    ------
    InputError
        A layer has weights that are 8-bit integers, a weight, gain or bias that is not finite as
        float32, or an average has counts that no AveragePool has; the message names the node. Or
        the mappings of the network do not fit it: :func:`refmodel.compression.tuned.check`.
    """
    writer = _Writer(network)
    for node in network.nodes:
        writer.add(node)
    model = writer.model()
    if network.tuned is not None:
        model.metadata_props.add(key=tuned.KEY, value=tuned_file.encode(network))
    onnx.checker.check_model(model, full_check=True)
    return model


class _Writer:
    """Nodes and constants of a graph while it grows."""

    def __init__(self, network: FloatNetwork) -> None:
        self.network = network
        self.shapes = network.shapes
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray] = {}
        self.tensors = set(self.shapes)
        self.names = {node.name for node in network.nodes}

    def model(self) -> onnx.ModelProto:
        network = self.network
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, (BATCH, *self.shapes[name]))
            for name in (network.input, network.output)
        ]
        graph = helper.make_graph(
            self.nodes,
            "network",
            ends[:1],
            ends[1:],
            [numpy_helper.from_array(values, name) for name, values in self.constants.items()],
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="prap-pim",
        )

    def add(self, node: Node) -> None:
        """Add the operators of a node."""
        match node:
            case Matrix():
                self._matrix(node)
            case Add():
                self._last("Add", node.inputs, node)
            case Clip():
                self._clip(node)
            case MaxPool():
                self._last("MaxPool", node.inputs, node, **self._window(node))
            case AveragePool():
                self._average(node)
            case Rearrange():
                self._rearrange(node)
            case Concat():
                self._last("Concat", node.inputs, node, axis=node.axis + 1)
            case FakeQuant():
                self._fake_quant(node)
            case Function():
                self._function(node)
            case Product():
                self._last("Mul", node.inputs, node)
            case _:
                raise TypeError(f"cannot write {node!r}")

    # Names

    @staticmethod
    def _fresh(wanted: str, taken: set[str]) -> str:
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name)
        return name

    def _constant(self, node: Node, what: str, values: ArrayLike) -> str:
        name = self._fresh(f"{node.name}.{what}", self.tensors)
        self.constants[name] = np.asarray(values, order="C")
        return name

    def _op(self, op: str, inputs, output: str, name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def _last(self, op: str, inputs, node: Node, **attributes: Any) -> None:
        """Add the operator that has the name and the output of a node."""
        self._op(op, inputs, node.output, node.name, **attributes)

    def _between(self, op: str, inputs, node: Node, what: str, **attributes: Any) -> str:
        """Add an operator that is neither the named nor the last one of a node."""
        name = self._fresh(f"{node.name}.{what}", self.names)
        output = self._fresh(f"{node.output}.{what}", self.tensors)
        return self._op(op, inputs, output, name, **attributes)

    def _place(self, node: Node) -> str:
        return f"in node {node.name!r} of {self.network.source}"

    # Nodes

    def _float32(self, node: Matrix, what: str) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            values = np.asarray(getattr(node, what)).astype(np.float32)
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise InputError(
                f"expected a finite {what} in float32, found {bad} of {values.size} values that "
                f"are not, {self._place(node)}"
            )
        return values

    def _matrix(self, node: Matrix) -> None:
        if node.exact:
            raise InputError(
                f"expected weights in floating point, found 8-bit integers, {self._place(node)}"
            )
        weight, gain, bias = (self._float32(node, what) for what in ("weight", "gain", "bias"))
        apart = bool((gain != 1).any())
        outputs = len(weight)
        shape = self.shapes[node.inputs[0]]
        vector = len(shape) == 1 and node.groups == 1 and node.shape == (outputs,)
        if vector:
            names = [node.inputs[0], self._constant(node, "weight", weight.reshape(outputs, -1))]
            full = node.shape
        else:
            # A vector is a pixel of F channels, (H, W) an image of one channel.
            image = (*shape, 1, 1) if len(shape) == 1 else (1, *shape) if len(shape) == 2 else shape
            x = node.inputs[0]
            if image != shape:
                target = self._constant(node, "image", np.array((0, *image), np.int64))
                x = self._between("Reshape", [x, target], node, "image")
            names = [x, self._constant(node, "weight", weight)]
            full = self._conv_shape(node, image)
        if bias.any() and not apart:
            names.append(self._constant(node, "bias", bias))
        options: dict[str, Any] = {"transB": 1} if vector else self._convolution(node)

        # The layer's name is that of the Conv or Gemm; its output that of the last of these.
        steps = 1 + apart + (full != node.shape)
        x = self._op(
            "Gemm" if vector else "Conv",
            names,
            node.output if steps == 1 else self._fresh(f"{node.output}.product", self.tensors),
            node.name,
            **options,
        )
        if apart:
            ones = np.ones(outputs, np.float32)
            values = {"gain": gain, "bias": bias, "mean": ones - 1, "variance": ones}
            names = [self._constant(node, what, each) for what, each in values.items()]
            steps -= 1
            self._op(
                "BatchNormalization",
                [x, *names],
                node.output if steps == 1 else self._fresh(f"{node.output}.scaled", self.tensors),
                self._fresh(f"{node.name}.gain", self.names),
                epsilon=0.0,
            )
            x = self.nodes[-1].output[0]
        if steps > 1:
            target = self._constant(node, "shape", np.array((0, *node.shape), np.int64))
            name = self._fresh(f"{node.name}.shape", self.names)
            self._op("Reshape", [x, target], node.output, name)

    @staticmethod
    def _conv_shape(node: Matrix, image: Shape) -> Shape:
        """Output shape of the Conv of a layer."""
        top, left, bottom, right = node.pads
        padded = image[1] + top + bottom, image[2] + left + right
        sizes = [
            (padded[axis] - (node.weight.shape[2 + axis] - 1) * node.dilation[axis] - 1)
            // node.stride[axis]
            + 1
            for axis in (0, 1)
        ]
        return len(node.weight), *sizes

    @staticmethod
    def _convolution(node: Matrix) -> dict[str, Any]:
        return {
            "kernel_shape": list(node.weight.shape[2:]),
            "strides": list(node.stride),
            "pads": list(node.pads),
            "dilations": list(node.dilation),
            "group": node.groups,
        }

    def _clip(self, node: Clip) -> None:
        if (node.lo, node.hi) == (0.0, np.inf):
            self._last("Relu", node.inputs, node)
            return
        limits = [
            self._constant(node, what, np.float32(value)) if np.isfinite(value) else ""
            for what, value in (("min", node.lo), ("max", node.hi))
        ]
        self._last("Clip", [*node.inputs, *limits], node)

    @staticmethod
    def _window(node: MaxPool | AveragePool) -> dict[str, Any]:
        return {
            "kernel_shape": list(node.kernel),
            "strides": list(node.stride),
            "pads": list(node.pads),
        }

    def _average(self, node: AveragePool) -> None:
        size = self.shapes[node.inputs[0]][1:]
        # Some of the padding may be what ceil_mode adds, which never counts.
        for extra in product(*map(range, node.stride)):
            pads = (*node.pads[:2], node.pads[2] - extra[0], node.pads[3] - extra[1])
            added = tuple(
                ceil_padding(
                    size[axis], node.kernel[axis], node.stride[axis], pads[axis], pads[axis + 2]
                )
                for axis in (0, 1)
            )
            if min(pads) < 0 or (any(extra) and added != extra):
                continue
            for padding in (False, True):
                counts = pool_counts(
                    size, node.kernel, node.stride, node.pads, extra, padding=padding
                )
                if np.array_equal(counts, node.counts):
                    window = self._window(node) | {"pads": list(pads)}
                    self._last(
                        "AveragePool",
                        node.inputs,
                        node,
                        **window,
                        count_include_pad=int(padding),
                        ceil_mode=int(any(extra)),
                    )
                    return
        raise InputError(
            f"expected an average over the kernel, or over what of it is not padding, found other "
            f"counts, {self._place(node)}"
        )

    def _rearrange(self, node: Rearrange) -> None:
        (x,) = node.inputs
        shape = self.shapes[x]
        size = int(np.prod(shape))
        index = np.asarray(node.index)
        if np.array_equal(index, np.arange(size)):
            if len(node.shape) == 1 and len(shape) > 1:
                self._last("Flatten", [x], node, axis=1)
            else:
                target = self._constant(node, "shape", np.array((0, *node.shape), np.int64))
                self._last("Reshape", [x, target], node)
            return
        if len(shape) > 1:
            x = self._between("Flatten", [x], node, "flat", axis=1)
        if index.min() < 0:
            pads = self._constant(node, "pads", np.array([0, 0, 0, 1], np.int64))
            x = self._between("Pad", [x, pads], node, "zero")
            index = np.where(index < 0, size, index)
        places = self._constant(node, "index", index.reshape(node.shape).astype(np.int32))
        self._last("Gather", [x, places], node, axis=1)

    def _function(self, node: Function) -> None:
        """Write the operators of a term, those of its operands first."""
        made: dict[int, str] = {}

        def write(part: Term) -> str:
            if part.op == "X":
                return node.inputs[0]
            if id(part) in made:
                return made[id(part)]
            names = [
                write(each)
                if isinstance(each, Term)
                else ""
                if part.op == "Clip" and np.isinf(each)
                else self._constant(node, "constant", each.astype(np.float32))
                for each in part.operands
            ]
            last = part is node.term
            if part.op == "Where":  # whose condition is of another type in ONNX
                names[0] = self._between("Cast", names[:1], node, "chosen", to=TensorProto.BOOL)
            elif part.op in COMPARISONS:
                held = self._between(part.op, names, node, part.op)
                number = {"to": TensorProto.FLOAT}
                if last:
                    self._last("Cast", [held], node, **number)
                    return node.output
                made[id(part)] = self._between("Cast", [held], node, "number", **number)
                return made[id(part)]
            if last:
                self._last(part.op, names, node, **part.attributes)
                return node.output
            made[id(part)] = self._between(part.op, names, node, part.op, **part.attributes)
            return made[id(part)]

        if node.term.op == "X":
            self._last("Identity", node.inputs, node)
        else:
            write(node.term)

    def _fake_quant(self, node: FakeQuant) -> None:
        names = [
            self._constant(node, "scale", np.float32(node.scale)),
            self._constant(node, "zero", np.uint8(node.zero)),
        ]
        codes = self._fresh(f"{node.output}.codes", self.tensors)
        self._op("QuantizeLinear", [*node.inputs, *names], codes, node.name)
        name = self._fresh(f"{node.name}.real", self.names)
        self._op("DequantizeLinear", [codes, *names], node.output, name)
