"""A network of TensorFlow Lite as ONNX, with QuantizeLinear and DequantizeLinear.

Images have four axes there, channels last, and here channels first; tensors of other ranks keep
their axes. A tensor is known by its name and stands for its real values: where the file has codes
of 8 bits, an operation is written in floating point on what its inputs stand for, and its result is
put on the grid of its output's codes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from refmodel.errors import InputError
from refmodel.exchange.tflite.file import Content, Operation, Tensor

OPSET = 17

TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""Orders of axes from channels last to channels first, and back."""

_BYTES = (np.dtype(np.int8), np.dtype(np.uint8))

Handler = Callable[["Translator", Operation], None]

HANDLERS: dict[str, Handler] = {}
"""Functions that write an operation in ONNX, by its name in the schema."""


def operation(*names: str) -> Callable[[Handler], Handler]:
    """Register a function as the one that writes the operations ``names``."""

    def register(function: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, function))
        return function

    return register


class Translator:
    """The ONNX nodes and constants so far.

    Parameters
    ----------
    content
        What the file holds.
    source
        The file, for messages.
    """

    def __init__(self, content: Content, source: str) -> None:
        self.content = content
        self.source = source
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.known: dict[int, NDArray] = {}
        """Constants that operations made of others, by number."""
        self.made: set[int] = set()
        """Numbers of the tensors that are computed so far."""

    # Errors

    def place(self, op: Operation) -> str:
        """Name an operation by what it makes, and the file."""
        outputs = [self.content.tensors[at].name for at in op.outputs if at >= 0]
        return f"the operation that makes {(outputs or [''])[0]!r} of {self.source}"

    def fail(self, expected: str, found: str, op: Operation) -> NoReturn:
        """Refuse an operation: ``expected <name> <expected>, found <found>, in <place>``."""
        raise InputError(f"expected {op.name} {expected}, found {found}, in {self.place(op)}")

    # Tensors

    def tensor(self, op: Operation, at: int) -> Tensor:
        """Input ``at`` of an operation, which must be there."""
        if at >= len(op.inputs) or op.inputs[at] < 0:
            self.fail(f"with {at + 1} inputs", f"{len(op.inputs)}", op)
        return self.content.tensors[op.inputs[at]]

    def output(self, op: Operation) -> Tensor:
        """Return the one output of an operation."""
        if len(op.outputs) != 1 or op.outputs[0] < 0:
            self.fail("with one output", f"{len(op.outputs)}", op)
        return self.content.tensors[op.outputs[0]]

    def constant(self, op: Operation, at: int) -> NDArray | None:
        """Values of input ``at`` as they are in the file; None where it is computed or left out."""
        if at >= len(op.inputs) or op.inputs[at] < 0:
            return None
        number = op.inputs[at]
        return self.known.get(number, self.content.tensors[number].data)

    def integers(self, op: Operation, at: int, what: str) -> NDArray[np.int64]:
        """Read axes, sizes or pads from a constant input."""
        values = self.constant(op, at)
        if values is None or values.dtype.kind not in "iu":
            self.fail(f"with constant {what}", "others", op)
        return values.astype(np.int64)

    def read(self, op: Operation, at: int) -> str:
        """Return the ONNX tensor of an input that is computed."""
        tensor = self.tensor(op, at)
        if op.inputs[at] not in self.made:
            self.fail("of a tensor that is computed before it", f"{tensor.name!r}", op)
        return tensor.name

    def real(self, op: Operation, at: int, rank: int) -> str:
        """Return the ONNX tensor of an input, a constant in real numbers among them.

        A constant is laid out to meet a tensor of so many axes.
        """
        values = self.constant(op, at)
        if values is None:
            return self.read(op, at)
        tensor = self.tensor(op, at)
        values = self._real(tensor, values, op)
        if values.ndim > rank:
            self.fail(f"with constants of at most {rank} axes", f"{values.shape}", op)
        if rank == 4:
            values = values.reshape((1,) * (4 - values.ndim) + values.shape)
            values = values.transpose(TO_FIRST)
        return self.store(f"{tensor.name}/real{rank}", values.astype(np.float32))

    def _real(self, tensor: Tensor, values: NDArray, op: Operation) -> NDArray:
        if not tensor.scale.size:
            return values
        if tensor.scale.size > 1:
            self.fail("with constants of one scale", f"{tensor.scale.size} scales", op)
        return (values.astype(np.int64) - tensor.zero[0]) * tensor.scale[0]

    def store(self, name: str, values: ArrayLike) -> str:
        """Keep a constant, and return its name."""
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    # Nodes

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes) -> str:
        """Append a node that is named after its output, and return that."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def channels_last(self, name: str, rank: int) -> str:
        """Return a tensor in the file's order of axes."""
        if rank != 4:
            return name
        output = f"{name}/last{len(self.nodes)}"
        return self.node("Transpose", [name], output, perm=TO_LAST)

    def weights(
        self, op: Operation, order: Sequence[int], shape: Sequence[int] | None = None
    ) -> tuple[str, NDArray]:
        """Write the weights, input 1, outputs first; return their name and scales, if they have.

        ``order`` is that of their axes in ONNX, of which the first has the scales; ``shape`` is a
        shape that the values take after that.
        """
        tensor, values = self.tensor(op, 1), self.constant(op, 1)
        if values is None:
            self.fail("with constant weights", f"{tensor.name!r}, which is computed", op)
        if values.ndim != len(order):
            self.fail(f"with weights of {len(order)} axes", f"{values.shape}", op)
        values = values.transpose(order)
        values = values if shape is None else values.reshape(shape)
        name = f"{tensor.name}/weights"
        if values.dtype.kind == "f":
            return self.store(name, values.astype(np.float32)), np.ones(1)
        scale, zero = tensor.scale, tensor.zero
        if values.dtype not in _BYTES or scale.size not in (1, len(values)):
            found = f"{values.dtype} with {scale.size} scales"
            self.fail("with weights of 8 bits and one scale, or one to an output", found, op)
        if scale.size > 1 and tensor.axis != order[0]:
            self.fail(f"with scales along axis {order[0]}", f"axis {tensor.axis}", op)
        several = scale.size > 1
        names = [
            self.store(f"{name}/codes", values),
            self.store(f"{name}/scale", (scale if several else scale[0]).astype(np.float32)),
            self.store(f"{name}/zero", (zero if several else zero[0]).astype(values.dtype)),
        ]
        if name not in {each.output[0] for each in self.nodes}:
            self.node("DequantizeLinear", names, name, axis=0)
        return name, scale

    def bias(self, op: Operation, scale: NDArray, outputs: int) -> list[str]:
        """Write the bias, input 2: integers on the product of both scales, whatever it says."""
        values = self.constant(op, 2)
        if values is None:
            if len(op.inputs) > 2 and op.inputs[2] >= 0:
                self.fail("with a constant bias", f"{self.tensor(op, 2).name!r}", op)
            return []
        if values.size != outputs:
            self.fail(f"with a bias of {outputs} values", f"{values.shape}", op)
        values = values.reshape(-1).astype(np.float64)
        source = self.tensor(op, 0)
        if self.tensor(op, 2).data is not None and self.tensor(op, 2).dtype == np.int32:
            values = values * (source.scale[0] if source.scale.size else 1.0) * scale
        number = op.inputs[2]
        return [self.store(f"{self.content.tensors[number].name}/bias{op.outputs[0]}",
                           values.astype(np.float32))]  # fmt: skip

    def finish(self, op: Operation, name: str) -> None:
        """Limit what an operation computes, quantise it, and give it the name of its output."""
        activation = op.options.get("FusedActivationFunction", 0)
        limits = {0: None, 1: (0, np.inf), 2: (-1, 1), 3: (0, 6)}
        if activation not in limits:
            self.fail("with RELU, RELU6 or none fused", f"activation {activation}", op)
        self.limit(op, name, limits[activation])

    def limit(self, op: Operation, name: str, limits: tuple[float, float] | None) -> None:
        """Limit values, and put them on the grid of the output's codes."""
        tensor = self.output(op)
        if limits is not None:
            ends = [
                self.store(f"limit{value:g}", np.float32(value)) if np.isfinite(value) else ""
                for value in limits
            ]
            name = self.node("Clip", [name, *ends], f"{tensor.name}/limited")
        self.quantise(tensor, name, f"what {op.name} makes")
        self.made.add(op.outputs[0])

    def quantise(self, tensor: Tensor, name: str, what: str) -> None:
        """Let ``tensor`` be ``name`` on the grid of its codes; the same, where it has none."""
        if not tensor.scale.size:
            if tensor.dtype is None or tensor.dtype.kind != "f":
                raise InputError(
                    f"expected {what} quantised or in floating point, found {tensor.dtype}, "
                    f"in tensor {tensor.name!r} of {self.source}"
                )
            self.node("Identity", [name], tensor.name)
            return
        if tensor.dtype not in _BYTES or tensor.scale.size != 1 or tensor.scale[0] <= 0:
            raise InputError(
                f"expected {what} in 8 bits with one scale above 0, found {tensor.dtype} and "
                f"{tensor.scale.size} scales, in tensor {tensor.name!r} of {self.source}"
            )
        limits = np.iinfo(tensor.dtype)
        if not limits.min <= tensor.zero[0] <= limits.max:
            raise InputError(
                f"expected a zero point of {limits.min} to {limits.max}, found "
                f"{tensor.zero[0]}, in tensor {tensor.name!r} of {self.source}"
            )
        scales = [
            self.store(f"{tensor.name}/scale", np.float32(tensor.scale[0])),
            self.store(f"{tensor.name}/zero", tensor.zero[0].astype(tensor.dtype)),
        ]
        codes = self.node("QuantizeLinear", [name, *scales], f"{tensor.name}/codes")
        self.node("DequantizeLinear", [codes, *scales], tensor.name)


def to_onnx(content: Content, source: str | Path) -> onnx.ModelProto:
    """Write a network of TensorFlow Lite as ONNX.

    Parameters
    ----------
    content
        What the file holds.
    source
        The file, for messages.

    Returns
    -------
    ModelProto
        One input, in floating point, channels first, its batch free; a DequantizeLinear last.

    Raises
    ------
    InputError
        An operation, a type or a shape that is not supported; the message names the operation by
        what it makes.
    """
    on = Translator(content, str(source))
    live = _live(content)
    for op in live:
        if op.name not in HANDLERS:
            raise InputError(
                f"expected an operation that can be imported, found {op.name!r}, "
                f"in {on.place(op)}: {advice(op.name)}; supported are {', '.join(sorted(HANDLERS))}"
            )
    ends = []
    for what, numbers in (("input", content.inputs), ("output", content.outputs)):
        if len(numbers) != 1 or numbers[0] < 0:
            raise InputError(
                f"expected a network with one {what}, found {len(numbers)}, in {source}"
            )
        ends.append(content.tensors[numbers[0]])
    first, last = ends
    if not 2 <= len(first.shape) <= 4 or min(first.shape[1:]) < 1:
        raise InputError(
            f"expected an input of 2 to 4 axes of fixed sizes, the batch first, found "
            f"{first.shape}, in tensor {first.name!r} of {source}"
        )
    image = first.shape if len(first.shape) != 4 else tuple(first.shape[at] for at in TO_FIRST)
    entrance = f"{first.name}/pixels"
    on.quantise(first, entrance, "the input")
    on.made.add(content.inputs[0])
    for op in live:
        HANDLERS[op.name](on, op)
    if content.outputs[0] not in on.made or not live:
        raise InputError(
            f"expected an output that is computed, found {last.name!r} that is not, in {source}"
        )
    axes = ["N", *(f"axis{at}" for at in range(1, len(last.shape)))]
    graph = helper.make_graph(
        on.nodes,
        "tflite",
        [helper.make_tensor_value_info(entrance, TensorProto.FLOAT, ["N", *image[1:]])],
        [helper.make_tensor_value_info(last.name, TensorProto.FLOAT, axes)],
        list(on.constants.values()),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _live(content: Content) -> list[Operation]:
    """List the operations that the output depends on, reshapes by their first input alone."""
    needed = set(content.outputs)
    live = []
    for op in reversed(content.operations):
        if needed.intersection(op.outputs):
            needed.update(op.inputs[:1] if op.name in SHAPED else op.inputs)
            live.append(op)
    return live[::-1]


SHAPED = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
"""Operations that give the output's shape to the values of their first input."""


def advice(name: str) -> str:
    """Suggest what can be done about an operation."""
    if name.startswith("CUSTOM"):
        return "convert the network without custom operations"
    if name in ("ELU", "GELU", "LEAKY_RELU", "PRELU", "RSQRT", "EXP"):
        return "train with RELU or RELU6 in its place, or convert by way of ONNX"
    if name in ("LSTM", "RNN", "SVDF", "IF", "WHILE") or "SEQUENCE" in name:
        return "only feed-forward networks can be mapped to crossbars"
    return "express it by those below, or convert it to ONNX (tf2onnx), where there are more"
