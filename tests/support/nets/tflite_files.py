"""Files of TensorFlow Lite in 8 bits: a writer, and networks of MLPerf Tiny's topologies."""

from dataclasses import dataclass, field
from math import hypot, prod, sqrt
from typing import Any

import flatbuffers
import numpy as np
import tflite

KINDS = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9}
"""Types of tensors in the schema."""

RELU, RELU6 = 1, 3
SAME, VALID = 0, 1


@dataclass
class Writer:
    """Collects tensors and operations; :meth:`content` gives the file."""

    buffers: list[bytes] = field(default_factory=lambda: [b""])
    tensors: list[dict[str, Any]] = field(default_factory=list)
    operations: list[dict[str, Any]] = field(default_factory=list)

    def tensor(
        self, shape, kind="int8", scale=None, zero: Any = 0, *, axis=0, data=None, name=None
    ) -> int:
        """Add a tensor; returns its number."""
        number = len(self.tensors)
        buffer = 0
        if data is not None:
            self.buffers.append(np.ascontiguousarray(data, kind).tobytes())
            buffer = len(self.buffers) - 1
        self.tensors.append(
            {
                "shape": [int(size) for size in shape],
                "kind": KINDS[kind],
                "buffer": buffer,
                "name": f"t{number}" if name is None else name,
                "scale": None if scale is None else np.atleast_1d(scale).astype(np.float32),
                "zero": np.atleast_1d(zero).astype(np.int64),
                "axis": axis,
            }
        )
        return number

    def constant(self, data, kind="int32", scale=None, zero: Any = 0, *, axis=0, name=None) -> int:
        """Add a constant; returns its number."""
        return self.tensor(np.shape(data), kind, scale, zero, axis=axis, data=data, name=name)

    def operation(self, kind: str, inputs, outputs, table: str | None = None, **options) -> None:
        """Add an operation with its table of options, fields as the schema has them."""
        self.operations.append(
            {"kind": kind, "inputs": inputs, "outputs": outputs, "table": table, "options": options}
        )

    def content(self, inputs, outputs) -> bytes:
        """Give the file's bytes."""
        build = flatbuffers.Builder(1024)
        kinds = sorted({each["kind"] for each in self.operations})
        buffers = [self._buffer(build, data) for data in self.buffers]
        tensors = [self._tensor(build, each) for each in self.tensors]
        operations = [self._operation(build, each, kinds) for each in self.operations]
        codes = [self._code(build, kind) for kind in kinds]
        parts = {
            "Tensors": self._offsets(build, tensors),
            "Inputs": build.CreateNumpyVector(np.array(inputs, np.int32)),
            "Outputs": build.CreateNumpyVector(np.array(outputs, np.int32)),
            "Operators": self._offsets(build, operations),
        }
        tflite.SubGraphStart(build)
        for name, offset in parts.items():
            getattr(tflite, f"SubGraphAdd{name}")(build, offset)
        graphs = self._offsets(build, [tflite.SubGraphEnd(build)])
        codes, held = self._offsets(build, codes), self._offsets(build, buffers)
        text = build.CreateString("test")
        tflite.ModelStart(build)
        tflite.ModelAddVersion(build, 3)
        tflite.ModelAddOperatorCodes(build, codes)
        tflite.ModelAddSubgraphs(build, graphs)
        tflite.ModelAddDescription(build, text)
        tflite.ModelAddBuffers(build, held)
        build.Finish(tflite.ModelEnd(build), b"TFL3")
        return bytes(build.Output())

    @staticmethod
    def _offsets(build, offsets) -> int:
        build.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            build.PrependUOffsetTRelative(offset)
        return build.EndVector()

    @staticmethod
    def _buffer(build, data: bytes) -> int:
        vector = None
        if data:
            build.StartVector(1, len(data), 16)
            build.head = build.head - len(data)
            build.Bytes[build.head : build.head + len(data)] = data
            vector = build.EndVector()
        tflite.BufferStart(build)
        if vector is not None:
            tflite.BufferAddData(build, vector)
        return tflite.BufferEnd(build)

    @staticmethod
    def _tensor(build, each) -> int:
        name = build.CreateString(each["name"])
        shape = build.CreateNumpyVector(np.array(each["shape"], np.int32))
        quantisation = None
        if each["scale"] is not None:
            scale = build.CreateNumpyVector(each["scale"])
            zero = build.CreateNumpyVector(
                np.broadcast_to(each["zero"], each["scale"].shape).copy()
            )
            tflite.QuantizationParametersStart(build)
            tflite.QuantizationParametersAddScale(build, scale)
            tflite.QuantizationParametersAddZeroPoint(build, zero)
            tflite.QuantizationParametersAddQuantizedDimension(build, each["axis"])
            quantisation = tflite.QuantizationParametersEnd(build)
        tflite.TensorStart(build)
        tflite.TensorAddShape(build, shape)
        tflite.TensorAddType(build, each["kind"])
        tflite.TensorAddBuffer(build, each["buffer"])
        tflite.TensorAddName(build, name)
        if quantisation is not None:
            tflite.TensorAddQuantization(build, quantisation)
        return tflite.TensorEnd(build)

    @staticmethod
    def _code(build, kind: str) -> int:
        custom = build.CreateString(kind) if kind.startswith("custom") else None
        number = 32 if custom else getattr(tflite.BuiltinOperator, kind)
        tflite.OperatorCodeStart(build)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(build, min(number, 127))
        tflite.OperatorCodeAddVersion(build, 1)
        if custom:
            tflite.OperatorCodeAddCustomCode(build, custom)
        tflite.OperatorCodeAddBuiltinCode(build, number)
        return tflite.OperatorCodeEnd(build)

    @staticmethod
    def _operation(build, each, kinds) -> int:
        inputs = build.CreateNumpyVector(np.array(each["inputs"], np.int32))
        outputs = build.CreateNumpyVector(np.array(each["outputs"], np.int32))
        options, table = None, each["table"]
        if table:
            shape = each["options"].pop("NewShape", None)
            vector = None if shape is None else build.CreateNumpyVector(np.array(shape, np.int32))
            getattr(tflite, f"{table}Start")(build)
            for name, value in each["options"].items():
                getattr(tflite, f"{table}Add{name}")(build, value)
            if vector is not None:
                getattr(tflite, f"{table}AddNewShape")(build, vector)
            options = getattr(tflite, f"{table}End")(build)
        tflite.OperatorStart(build)
        tflite.OperatorAddOpcodeIndex(build, kinds.index(each["kind"]))
        tflite.OperatorAddInputs(build, inputs)
        tflite.OperatorAddOutputs(build, outputs)
        if options is not None:
            tflite.OperatorAddBuiltinOptionsType(build, getattr(tflite.BuiltinOptions, table))
            tflite.OperatorAddBuiltinOptions(build, options)
        return tflite.OperatorEnd(build)


class Net(Writer):
    """A network that is built layer by layer, with random weights and scales to suit.

    ``scales`` are one to an output channel where ``channels`` is true. Zero points of tensors that
    a ReLU limits are -128, others are drawn.
    """

    def __init__(self, shape, *, seed: int = 1, channels: bool = True, scale=1 / 128, zero=-1):
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.channels = channels
        self.first = self.at = self.tensor(shape, "int8", scale, zero, name="input")
        self.spread = scale * hypot(74, zero)
        """Root of the mean square of the last tensor's values; here, of codes drawn evenly."""

    def shape(self, at: int | None = None) -> list[int]:
        return self.tensors[self.at if at is None else at]["shape"]

    def scale(self, at: int | None = None) -> float:
        return float(self.tensors[self.at if at is None else at]["scale"][0])

    def _out(self, shape, spread: float, activation: int, name: str | None) -> int:
        """A new tensor for values of a given spread."""
        if activation == RELU6:
            spread = min(spread, 2.0)
        zero = -128 if activation else int(self.rng.integers(-20, 21))
        # Three deviations to either side; one side alone behind a ReLU.
        scale = 3 * spread / (255 if activation else 120)
        self.spread = spread * (0.7 if activation else 1)
        self.at = self.tensor(shape, "int8", scale, zero, name=name)
        return self.at

    def _weights(self, shape, axis: int, reach: int) -> tuple[int, np.ndarray]:
        codes = np.clip(self.rng.normal(0, 45, shape), -127, 127).astype(np.int8)
        count = shape[axis] if self.channels else 1
        scale = self.rng.uniform(0.7, 1.4, count) / (45 * sqrt(reach))
        return self.constant(codes, "int8", scale, np.zeros(count), axis=axis), scale

    def _bias(self, scale: np.ndarray, outputs: int) -> int:
        step = np.float32(self.scale()) * np.broadcast_to(scale, outputs)
        values = self.rng.normal(0, self.spread / 4, outputs) / step
        step = step if self.channels else step[:1]
        return self.constant(np.rint(values).astype(np.int32), "int32", step, np.zeros(len(step)))

    def _size(self, kernel, stride, padding) -> list[int]:
        sizes = zip(self.shape()[1:3], kernel, stride, strict=True)
        return [-(-n // s) if padding == SAME else (n - k) // s + 1 for n, k, s in sizes]

    def conv(self, outputs, kernel, stride=(1, 1), padding=SAME, activation=RELU, name=None) -> int:
        source, (batch, *_, inputs) = self.at, self.shape()
        size = self._size(kernel, stride, padding)
        weights, scale = self._weights((outputs, *kernel, inputs), 0, prod(kernel) * inputs)
        bias = self._bias(scale, outputs)
        out = self._out((batch, *size, outputs), self.spread, activation, name)
        self.operation(
            "CONV_2D", [source, weights, bias], [out], "Conv2DOptions", Padding=padding,
            StrideH=stride[0], StrideW=stride[1], FusedActivationFunction=activation,
            DilationHFactor=1, DilationWFactor=1,
        )  # fmt: skip
        return out

    def depthwise(self, kernel=(3, 3), stride=(1, 1), padding=SAME, activation=RELU, by=1) -> int:
        source, (batch, *_, inputs) = self.at, self.shape()
        size, outputs = self._size(kernel, stride, padding), inputs * by
        weights, scale = self._weights((1, *kernel, outputs), 3, prod(kernel))
        bias = self._bias(scale, outputs)
        out = self._out((batch, *size, outputs), self.spread, activation, None)
        self.operation(
            "DEPTHWISE_CONV_2D", [source, weights, bias], [out], "DepthwiseConv2DOptions",
            Padding=padding, StrideH=stride[0], StrideW=stride[1], DepthMultiplier=by,
            FusedActivationFunction=activation, DilationHFactor=1, DilationWFactor=1,
        )  # fmt: skip
        return out

    def dense(self, outputs, activation=RELU) -> int:
        source, (batch, *sizes) = self.at, self.shape()
        inputs = prod(sizes)
        weights, scale = self._weights((outputs, inputs), 0, inputs)
        bias = self._bias(scale, outputs)
        out = self._out((batch, outputs), self.spread, activation, None)
        self.operation(
            "FULLY_CONNECTED", [source, weights, bias], [out], "FullyConnectedOptions",
            FusedActivationFunction=activation,
        )  # fmt: skip
        return out

    def add(self, a: int, b: int, activation=RELU) -> int:
        out = self._out(self.shape(a), self.spread * 2, activation, None)
        self.operation("ADD", [a, b], [out], "AddOptions", FusedActivationFunction=activation)
        return out

    def pool(self, kind: str, kernel, stride=None, padding=VALID) -> int:
        stride = stride or kernel
        source, shape = self.tensors[self.at], self.shape()
        size = self._size(kernel, stride, padding)
        before = self.at
        self.at = self.tensor(
            (shape[0], *size, shape[3]), "int8", source["scale"][0], source["zero"][0]
        )
        self.operation(
            kind, [before], [self.at], "Pool2DOptions", Padding=padding, StrideH=stride[0],
            StrideW=stride[1], FilterHeight=kernel[0], FilterWidth=kernel[1],
        )  # fmt: skip
        return self.at

    def mean(self, *, keep: bool = False) -> int:
        before, (batch, *_, count) = self.at, self.shape()
        axes = self.constant([1, 2])
        shape = (batch, 1, 1, count) if keep else (batch, count)
        self.at = self.tensor(shape, "int8", self.scale() / 2, self.tensors[before]["zero"][0])
        self.operation("MEAN", [before, axes], [self.at], "ReducerOptions", KeepDims=keep)
        return self.at

    def _same(self, shape) -> int:
        tensor = self.tensors[self.at]
        self.at = self.tensor(shape, "int8", tensor["scale"][0], tensor["zero"][0])
        return self.at

    def reshape(self, *shape) -> int:
        before = self.at
        sizes = self.constant(list(shape))
        self.operation(
            "RESHAPE", [before, sizes], [self._same(shape)], "ReshapeOptions", NewShape=shape
        )
        return self.at

    def pad(self, top, bottom, left, right) -> int:
        before, (batch, height, width, count) = self.at, self.shape()
        pads = self.constant([[0, 0], [top, bottom], [left, right], [0, 0]])
        shape = (batch, height + top + bottom, width + left + right, count)
        self.operation("PAD", [before, pads], [self._same(shape)], "PadOptions")
        return self.at

    def concat(self, a: int, b: int) -> int:
        """Concatenate two tensors of one scale along their channels."""
        self.at = a
        shape = [*self.shape(a)[:3], self.shape(a)[3] + self.shape(b)[3]]
        out = self._same(shape)
        self.operation("CONCATENATION", [a, b], [out], "ConcatenationOptions", Axis=3)
        return out

    def function(self, kind: str, scale: float, zero: int) -> int:
        """Apply a function to each value."""
        before = self.at
        self.at = self.tensor(self.shape(), "int8", scale, zero)
        self.operation(kind, [before], [self.at])
        return self.at

    def product(self, a: int, b: int) -> int:
        """Multiply two tensors of one shape."""
        self.at = self.tensor(self.shape(a), "int8", self.scale(a) * 0.7, 0)
        self.operation("MUL", [a, b], [self.at], "MulOptions", FusedActivationFunction=0)
        return self.at

    def softmax(self) -> int:
        before = self.at
        self.at = self.tensor(self.shape(), "int8", 1 / 256, -128)
        self.operation("SOFTMAX", [before], [self.at], "SoftmaxOptions", Beta=1.0)
        return self.at

    def file(self) -> bytes:
        return self.content([self.first], [self.at])


def resnet8(size: int = 32, width: int = 16) -> Net:
    """ResNet-8 for CIFAR-10: three stacks, each with a sum, the last two halving the image."""
    net = Net((1, size, size, 3), seed=8, scale=1.0, zero=-128)
    shortcut = net.conv(width, (3, 3))
    for stack in range(3):
        outputs, stride = width << stack, (1, 1) if stack == 0 else (2, 2)
        net.at = shortcut
        spread = net.spread
        net.conv(outputs, (3, 3), stride)
        branch = net.conv(outputs, (3, 3), activation=0)
        if stack:
            net.at, net.spread = shortcut, spread
            shortcut = net.conv(outputs, (1, 1), stride, activation=0)
        shortcut = net.add(shortcut, branch)
    net.pool("AVERAGE_POOL_2D", (size // 4, size // 4))
    net.reshape(1, width * 4)
    net.dense(10, 0)
    net.softmax()
    return net


def ds_cnn(height: int = 49, width: int = 64, blocks: int = 4) -> Net:
    """DS-CNN for keywords: a convolution and depthwise-separable ones over spectra of ten bins."""
    net = Net((1, height, 10, 1), seed=9, scale=0.58, zero=83)
    net.conv(width, (10, 4), (2, 2))
    for _ in range(blocks):
        net.depthwise()
        net.conv(width, (1, 1))
    net.pool("AVERAGE_POOL_2D", tuple(net.shape()[1:3]))
    net.reshape(1, width)
    net.dense(12, 0)
    net.softmax()
    return net


def mobilenet(size: int = 96, width: int = 8) -> Net:
    """MobileNet v1 of width 0.25 for persons: depthwise and pointwise layers with ReLU6."""
    net = Net((1, size, size, 3), seed=10, scale=1 / 255, zero=-128)
    net.conv(width, (3, 3), (2, 2), activation=RELU6)
    plan = [(2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1)]
    for times, stride in plan:
        net.depthwise((3, 3), (stride, stride), activation=RELU6)
        net.conv(width * times, (1, 1), activation=RELU6)
    net.pool("AVERAGE_POOL_2D", tuple(net.shape()[1:3]))
    net.conv(2, (1, 1), activation=0)
    net.reshape(1, 2)
    net.softmax()
    return net


def autoencoder(inputs: int = 640, width: int = 128) -> Net:
    """The autoencoder of machine sounds: fully connected, with a bottleneck of 8."""
    net = Net((1, inputs), seed=11, scale=0.39, zero=92, channels=False)
    for outputs in (*[width] * 4, 8, *[width] * 4):
        net.dense(outputs)
    net.dense(inputs, 0)
    return net


def others() -> Net:
    """The operations that none of the four has: padding, concatenation, maxima, a mean."""
    net = Net((1, 12, 10, 3), seed=12)
    net.pad(1, 0, 2, 1)
    net.conv(8, (3, 3), padding=VALID, activation=0)
    first = net.pool("MAX_POOL_2D", (2, 3), (2, 2), SAME)
    second = net.pool("AVERAGE_POOL_2D", (3, 3), (1, 1), SAME)
    net.concat(first, second)
    net.depthwise((3, 5), by=2, activation=RELU6)
    net.mean(keep=False)
    net.dense(6, 0)
    return net


def functions() -> Net:
    """Functions of each value, as tables, and a product of two tensors."""
    net = Net((1, 6, 6, 3), seed=13)
    net.conv(6, (3, 3), activation=0)
    net.function("HARD_SWISH", net.scale() * 0.7, -60)
    first = net.conv(6, (3, 3), activation=0)
    second = net.function("LOGISTIC", 1 / 256, -128)
    net.product(first, second)
    net.conv(4, (3, 3), activation=0)
    net.function("TANH", 1 / 128, 0)
    return net


NETWORKS = {
    "resnet8": resnet8,
    "ds_cnn": ds_cnn,
    "mobilenet": mobilenet,
    "autoencoder": autoencoder,
    "others": others,
    "functions": functions,
}
