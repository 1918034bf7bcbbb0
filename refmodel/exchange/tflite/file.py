"""Read a file of TensorFlow Lite: tensors, operations and their options as plain values.

The parser is the package ``tflite``, generated from the schema. It checks nothing, so that whatever
it raises on a damaged file becomes one line here, and counts are held against the file's size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.errors import InputError, require_extra

IDENTIFIER = b"TFL3"
"""Bytes 4 to 7 of every file."""

MOST_TENSORS = 40_000
"""Tensors of a network; each operation has a few."""

_TYPES = {
    0: np.float32,
    1: np.float16,
    2: np.int32,
    3: np.uint8,
    4: np.int64,
    7: np.int16,
    9: np.int8,
    10: np.float64,
}
"""The schema's numbers of the types that are read."""

_POOL = ("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth", "FusedActivationFunction")
_DILATIONS = ("DilationHFactor", "DilationWFactor")

_OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "AVERAGE_POOL_2D": ("Pool2DOptions", _POOL),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "CONV_2D": (
        "Conv2DOptions",
        ("Padding", "StrideH", "StrideW", *_DILATIONS, "FusedActivationFunction"),
    ),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        ("Padding", "StrideH", "StrideW", *_DILATIONS, "FusedActivationFunction"),
    ),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat")),
    "MAX_POOL_2D": ("Pool2DOptions", _POOL),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "SUB": ("SubOptions", ("FusedActivationFunction",)),
}
"""The options that are read of an operation: their table in the schema, and its fields."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor.

    Attributes
    ----------
    name
        Unique in the network.
    shape
        Its sizes, the batch first where it is computed.
    dtype
        Its type; None for one that is not read here.
    scale, zero
        float64 and int64: ``value = (code - zero) * scale``, one or one to a place along ``axis``;
        empty where the tensor is not quantised.
    axis
        The axis along which scales differ.
    data
        The values of a constant; None of a tensor that is computed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype | None
    scale: NDArray[np.float64]
    zero: NDArray[np.int64]
    axis: int
    data: NDArray | None


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation: its name in the schema, numbers of tensors (-1: none), and its options."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int]


@dataclass(frozen=True, eq=False)
class Content:
    """What a file holds: the first of its graphs."""

    tensors: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def is_tflite(head: bytes) -> bool:
    """Tell by its first 8 bytes whether a file is one of TensorFlow Lite."""
    return head[4:8] == IDENTIFIER


def read(path: str | Path) -> Content:
    """Read a file.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        It cannot be read, is damaged, or is not of TensorFlow Lite; the package ``tflite`` is not
        installed.
    """
    require_extra("tflite")
    source = str(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise InputError(f"expected a readable file, found: {found}, in {source}") from error
    if not is_tflite(content[:8]):
        raise InputError(
            f"expected a file of TensorFlow Lite, which has TFL3 behind 4 bytes, found "
            f"{len(content)} bytes that have not, in {source}"
        )
    try:
        return _Reader(content, source).content()
    except InputError:
        raise
    except Exception as error:  # struct.error, IndexError and more: offsets that lead nowhere
        raise InputError(
            f"expected a whole file of TensorFlow Lite, found offsets or sizes that do not fit its "
            f"{len(content)} bytes ({type(error).__name__}), in {source}"
        ) from error


class _Reader:
    """Reads the parts of a file's content."""

    def __init__(self, content: bytes, source: str) -> None:
        import tflite

        self.bytes = content
        self.source = source
        self.tflite: Any = tflite
        self.model: Any = tflite.Model.GetRootAs(content, 0)
        self.held = 0
        """Bytes of all constants; several tensors may name one buffer."""
        self.names: set[str] = set()

    def content(self) -> Content:
        """Read the first graph."""
        if self.count(self.model.SubgraphsLength()) < 1:
            raise InputError(f"expected a network, found no subgraph, in {self.source}")
        graph = self.model.Subgraphs(0)
        count = self.count(graph.TensorsLength())
        if count > MOST_TENSORS:
            raise InputError(
                f"expected at most {MOST_TENSORS} tensors, found {count}, in {self.source}"
            )
        return Content(
            tensors=tuple(self.tensor(graph.Tensors(at), at) for at in range(count)),
            operations=tuple(
                self.operation(graph.Operators(at), count, at)
                for at in range(self.count(graph.OperatorsLength()))
            ),
            inputs=self.numbers(graph.InputsLength, graph.Inputs, count, "an input of the network"),
            outputs=self.numbers(
                graph.OutputsLength, graph.Outputs, count, "an output of the network"
            ),
        )

    def count(self, length: int) -> int:
        """Return the length of a vector of offsets or numbers, which must fit the file."""
        if length * 4 > len(self.bytes):
            raise InputError(
                f"expected vectors that fit the file's {len(self.bytes)} bytes, found one of "
                f"{length} elements, in {self.source}"
            )
        return length

    def numbers(
        self, length: Callable[[], int], item: Callable[[int], int], count: int, what: str
    ) -> tuple[int, ...]:
        """Read numbers of tensors; -1 is none."""
        values = tuple(int(item(at)) for at in range(self.count(length())))
        for value in values:
            if not -1 <= value < count:
                raise InputError(
                    f"expected a tensor of 0 to {count - 1}, found {value}, as {what} "
                    f"in {self.source}"
                )
        return values

    def tensor(self, tensor: Any, number: int) -> Tensor:
        """Read a tensor and, where it is constant, its values."""
        name = (tensor.Name() or b"").decode("utf-8", "replace") or f"tensor{number}"
        if name in self.names:
            name = f"{name}#{number}"
        self.names.add(name)
        shape = tuple(int(tensor.Shape(at)) for at in range(self.count(tensor.ShapeLength())))
        kind = _TYPES.get(tensor.Type())
        dtype = None if kind is None else np.dtype(kind)
        scale, zero, axis = np.zeros(0), np.zeros(0, np.int64), 0
        given = tensor.Quantization()
        if given is not None and self.count(given.ScaleLength()):
            scale = np.atleast_1d(given.ScaleAsNumpy()).astype(np.float64)
            zero = np.zeros(len(scale), np.int64)
            if self.count(given.ZeroPointLength()):
                zero = np.broadcast_to(given.ZeroPointAsNumpy().astype(np.int64), scale.shape)
            axis = int(given.QuantizedDimension())
        return Tensor(name, shape, dtype, scale, zero, axis, self.data(tensor, name, shape, dtype))

    def data(
        self, tensor: Any, name: str, shape: tuple[int, ...], dtype: np.dtype | None
    ) -> NDArray | None:
        """Read the values of a constant."""
        number = tensor.Buffer()
        if not 0 <= number < self.count(self.model.BuffersLength()):
            raise InputError(
                f"expected a buffer of 0 to {self.model.BuffersLength() - 1}, found {number}, "
                f"in tensor {name!r} of {self.source}"
            )
        buffer = self.model.Buffers(number)
        if buffer.DataLength():
            raw = buffer.DataAsNumpy().tobytes()
        elif buffer.Size():  # files of more than 2 GB have the data behind the flatbuffer
            raw = self.bytes[buffer.Offset() : buffer.Offset() + buffer.Size()]
        else:
            return None
        if dtype is None:
            return None
        self.held += len(raw)
        size = dtype.itemsize * prod(shape)
        if len(raw) != size or min(shape, default=1) < 0:
            raise InputError(
                f"expected {size} bytes for the shape {shape}, found {len(raw)}, "
                f"in tensor {name!r} of {self.source}"
            )
        if self.held > 4 * len(self.bytes) + (1 << 20):
            raise InputError(
                f"expected constants of their own, found {self.held} bytes of them in a file of "
                f"{len(self.bytes)}, in {self.source}"
            )
        return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape).astype(dtype)

    def operation(self, operator: Any, count: int, number: int) -> Operation:
        """Read an operation."""
        at = operator.OpcodeIndex()
        if not 0 <= at < self.count(self.model.OperatorCodesLength()):
            raise InputError(
                f"expected a code of an operator, found number {at} of "
                f"{self.model.OperatorCodesLength()}, in operation {number} of {self.source}"
            )
        code = self.model.OperatorCodes(at)
        kind = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        known = {value: key for key, value in vars(self.tflite.BuiltinOperator).items()}
        name = str(known.get(kind, f"operator {kind}"))
        if name == "CUSTOM":
            name = f"CUSTOM {(code.CustomCode() or b'').decode('utf-8', 'replace')}"
        what = f"an input or output of operation {number}, {name},"
        return Operation(
            name=name,
            inputs=self.numbers(operator.InputsLength, operator.Inputs, count, what),
            outputs=self.numbers(operator.OutputsLength, operator.Outputs, count, what),
            options=self.options(operator, name, number),
        )

    def options(self, operator: Any, name: str, number: int) -> dict[str, int]:
        """Read the options of an operation; none where it has none that are read here."""
        if name not in _OPTIONS:
            return {}
        table, fields = _OPTIONS[name]
        found = operator.BuiltinOptions()
        wanted = getattr(self.tflite.BuiltinOptions, table)
        if found is None or operator.BuiltinOptionsType() != wanted:
            raise InputError(
                f"expected {name} with {table}, found options of type "
                f"{operator.BuiltinOptionsType()}, in operation {number} of {self.source}"
            )
        options = getattr(self.tflite, table)()
        options.Init(found.Bytes, found.Pos)
        return {field: int(getattr(options, field)()) for field in fields}
