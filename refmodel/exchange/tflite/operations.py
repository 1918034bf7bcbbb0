"""The operations of TensorFlow Lite that can be imported, each as ONNX nodes."""

from typing import Any

import numpy as np

from refmodel.exchange.tflite.file import Operation
from refmodel.exchange.tflite.translate import SHAPED, TO_FIRST, Translator, operation

_FIRST_AXIS = {0: 0, 1: 2, 2: 3, 3: 1}
"""Where an axis of (N, H, W, C) is in (N, C, H, W)."""

_PADDING = {0: "SAME_UPPER", 1: "VALID"}


def _windows(on: Translator, op: Operation) -> dict[str, Any]:
    options = op.options
    if options["Padding"] not in _PADDING:
        on.fail("with padding SAME or VALID", f"{options['Padding']}", op)
    strides = [options["StrideH"], options["StrideW"]]
    if min(strides) < 1:
        on.fail("with strides of at least 1", f"{strides}", op)
    return {"auto_pad": _PADDING[options["Padding"]], "strides": strides}


def _axes(on: Translator, op: Operation, axes: np.ndarray, rank: int) -> list[int]:
    """Axes of the file in ONNX order."""
    found = [int(axis) + rank * (axis < 0) for axis in axes.reshape(-1)]
    if not all(0 <= axis < rank for axis in found):
        on.fail(f"with axes below {rank}", f"{found}", op)
    return [_FIRST_AXIS[axis] for axis in found] if rank == 4 else found


@operation("CONV_2D", "DEPTHWISE_CONV_2D")
def convolution(on: Translator, op: Operation) -> None:
    """Write a convolution; one that is depthwise has a group to each channel."""
    source = on.tensor(op, 0)
    if len(source.shape) != 4:
        on.fail("of an input (N, H, W, C)", f"{source.shape}", op)
    x, weights, channels = on.read(op, 0), on.constant(op, 1), source.shape[3]
    if weights is None or weights.ndim != 4 or 0 in weights.shape:
        on.fail("with four axes of constant weights", f"{on.tensor(op, 1).shape}", op)
    if op.name == "CONV_2D":
        outputs, kernel, groups = len(weights), weights.shape[1:3], channels // weights.shape[3]
        name, scale = on.weights(op, (0, 3, 1, 2))
    else:
        outputs, kernel, groups = weights.shape[3], weights.shape[1:3], channels
        name, scale = on.weights(op, (3, 0, 1, 2))
    dilations = [op.options["DilationHFactor"], op.options["DilationWFactor"]]
    result = on.node(
        "Conv",
        [x, name, *on.bias(op, scale, outputs)],
        f"{on.output(op).name}/sum",
        group=groups,
        kernel_shape=list(kernel),
        dilations=dilations,
        **_windows(on, op),
    )
    on.finish(op, result)


@operation("FULLY_CONNECTED")
def fully_connected(on: Translator, op: Operation) -> None:
    """Write a fully connected layer; an image is flattened in the order of the file."""
    if op.options["WeightsFormat"]:
        on.fail("with plain weights", "shuffled ones", op)
    x, rank = on.read(op, 0), len(on.tensor(op, 0).shape)
    out = on.output(op).name
    if rank != 2:
        shape = on.store("flat", np.array([0, -1]))
        x = on.node("Reshape", [on.channels_last(x, rank), shape], f"{out}/flat")
    name, scale = on.weights(op, (0, 1))
    bias = on.bias(op, scale, on.tensor(op, 1).shape[0])
    result = on.node("Gemm", [x, name, *bias], f"{out}/sum", transB=1)
    if len(on.output(op).shape) == 4:
        shape = on.store(
            f"{out}/shape", np.array([0, *(on.output(op).shape[at] for at in (3, 1, 2))])
        )
        result = on.node("Reshape", [result, shape], f"{out}/image")
    on.finish(op, result)


_FUNCTIONS = {"LOGISTIC": "Sigmoid", "TANH": "Tanh", "HARD_SWISH": "HardSwish"}


@operation(*_FUNCTIONS)
def function(on: Translator, op: Operation) -> None:
    """Write a function of each value."""
    name = f"{on.output(op).name}/value"
    on.finish(op, on.node(_FUNCTIONS[op.name], [on.read(op, 0)], name))


@operation("ADD", "SUB", "MUL")
def addition(on: Translator, op: Operation) -> None:
    """Write a sum, a difference or a product, of two tensors or of a tensor and a constant."""
    rank = max(len(on.tensor(op, at).shape) for at in (0, 1))
    terms = [on.real(op, at, rank) for at in (0, 1)]
    kind = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul"}[op.name]
    on.finish(op, on.node(kind, terms, f"{on.output(op).name}/sum"))


@operation("AVERAGE_POOL_2D", "MAX_POOL_2D")
def pool(on: Translator, op: Operation) -> None:
    """Write a pooling of windows; padding does not count."""
    kind = {"AVERAGE_POOL_2D": "AveragePool", "MAX_POOL_2D": "MaxPool"}[op.name]
    kernel = [op.options["FilterHeight"], op.options["FilterWidth"]]
    name = f"{on.output(op).name}/pooled"
    result = on.node(kind, [on.read(op, 0)], name, kernel_shape=kernel, **_windows(on, op))
    on.finish(op, result)


@operation("MEAN")
def mean(on: Translator, op: Operation) -> None:
    """Write an average over whole axes."""
    rank, out = len(on.tensor(op, 0).shape), on.output(op)
    axes, x = on.integers(op, 1, "axes"), on.read(op, 0)
    keep = op.options["KeepDims"]
    if not keep and rank == 4 and sorted(_axes(on, op, axes, 4)) != [2, 3]:
        x, found = on.channels_last(x, 4), [int(axis) for axis in axes.reshape(-1)]
    else:
        found = _axes(on, op, axes, rank)
    result = on.node("ReduceMean", [x], f"{out.name}/mean", axes=found, keepdims=keep)
    on.finish(op, result)


@operation("PAD")
def pad(on: Translator, op: Operation) -> None:
    """Write a border of zeros."""
    rank = len(on.tensor(op, 0).shape)
    pads = on.integers(op, 1, "pads")
    if pads.shape != (rank, 2):
        on.fail(f"with two pads to each of {rank} axes", f"{pads.shape}", op)
    pads = pads[list(TO_FIRST)] if rank == 4 else pads
    around = on.store(f"{on.output(op).name}/pads", pads.T.reshape(-1))
    on.finish(op, on.node("Pad", [on.read(op, 0), around], f"{on.output(op).name}/padded"))


@operation("CONCATENATION")
def concatenation(on: Translator, op: Operation) -> None:
    """Write a concatenation."""
    rank = len(on.output(op).shape)
    (axis,) = _axes(on, op, np.array(op.options["Axis"]), rank)
    parts = [on.real(op, at, rank) for at in range(len(op.inputs))]
    on.finish(op, on.node("Concat", parts, f"{on.output(op).name}/joined", axis=axis))


@operation(*SHAPED)
def reshape(on: Translator, op: Operation) -> None:
    """Write another shape of the same values, in the order of the file."""
    before, after = on.tensor(op, 0).shape, on.output(op)
    if before[:1] != after.shape[:1]:
        on.fail("that keeps the batch first", f"{before} to {after.shape}", op)
    x = on.channels_last(on.read(op, 0), len(before))
    shape = on.store(f"{after.name}/shape", np.array([0, *after.shape[1:]], np.int64))
    if len(after.shape) == 4:
        x = on.node("Reshape", [x, shape], f"{after.name}/last")
        result = on.node("Transpose", [x], f"{after.name}/first", perm=TO_FIRST)
    else:
        result = on.node("Reshape", [x, shape], f"{after.name}/shaped")
    on.finish(op, result)


@operation("TRANSPOSE")
def transpose(on: Translator, op: Operation) -> None:
    """Write another order of axes."""
    rank, name = len(on.tensor(op, 0).shape), on.output(op).name
    order = on.integers(op, 1, "order").reshape(-1).tolist()
    x = on.channels_last(on.read(op, 0), rank)
    result = on.node("Transpose", [x], f"{name}/turned", perm=order)
    if rank == 4:
        result = on.node("Transpose", [result], f"{name}/first", perm=TO_FIRST)
    on.finish(op, result)


@operation("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")
def limits(on: Translator, op: Operation) -> None:
    """Write a limit to a range."""
    ends = {"RELU": np.inf, "RELU6": 6.0, "RELU_N1_TO_1": 1.0, "RELU_0_TO_1": 1.0}
    least = -1.0 if op.name == "RELU_N1_TO_1" else 0.0
    on.limit(op, on.read(op, 0), (least, ends[op.name]))


@operation("QUANTIZE", "DEQUANTIZE")
def quantise(on: Translator, op: Operation) -> None:
    """Write a change of codes, or of a constant to floating point."""
    values = on.constant(op, 0)
    if values is None:
        on.finish(op, on.read(op, 0))
    elif values.dtype.kind == "f":
        on.known[op.outputs[0]] = values.astype(np.float32)
    else:
        on.fail("of a tensor that is computed, or a constant in float16", f"{values.dtype}", op)


@operation("SOFTMAX", "LOG_SOFTMAX")
def softmax(on: Translator, op: Operation) -> None:
    """Write a Softmax, which the importer leaves out at the end and refuses elsewhere."""
    kind = {"SOFTMAX": "Softmax", "LOG_SOFTMAX": "LogSoftmax"}[op.name]
    rank = len(on.tensor(op, 0).shape)
    axis = 1 if rank == 4 else rank - 1
    on.finish(op, on.node(kind, [on.read(op, 0)], f"{on.output(op).name}/shares", axis=axis))
