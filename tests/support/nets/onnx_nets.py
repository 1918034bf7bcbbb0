"""Small ONNX networks for the tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def node(op: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    """A node named after its output; ``inputs`` are separated by blanks, ``-`` is an absent one."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, [output], name=f"{output}_node", **attributes)


def network(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, np.ndarray],
    shape: Sequence[int | str | None] = ("N", 2, 5, 5),
    *,
    opset: int = 17,
    output: str = "y",
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model with input ``x`` and output ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ("N", "F"))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def save(model: onnx.ModelProto, folder: Path) -> Path:
    """Write the model to a file in ``folder``."""
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def reference(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Run a model in onnx's own evaluator, on its first input."""
    (result,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})
    return np.asarray(result)


def f32(values: Any) -> np.ndarray:
    """Numbers as a float32 array."""
    return np.array(values, np.float32)


def floats(seed: int, *shape: int) -> np.ndarray:
    """Normally distributed float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def several_operands() -> onnx.ModelProto:
    """Operators with several operands or outputs, all of which the accelerator can run.

    The input is (N, 2, 4, 4), the output (N, 5).
    """
    split = node("Split", "c", "low", axis=1)
    split.output.append("high")
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        split,
        node("HardSigmoid", "low", "h"),
        node("Neg", "high", "n"),
        node("Sum", "low k h n", "s"),
        node("Max", "s high h zero", "m"),
        node("Mean", "m s", "a"),
        node("Min", "a six", "b"),
        node("ReduceMax", "b", "r", axes=[2, 3]),
        node("Reshape", "r shape", "f", allowzero=1),
        node("Gemm", "f w2", "y"),
    ]
    constants = {
        "w": floats(1, 8, 2, 3, 3),
        "k": floats(2, 4, 1, 1),
        "zero": f32(0),
        "six": f32(6),
        "shape": np.array([1, 4]),
        "w2": floats(3, 4, 5),
    }
    return network(nodes, constants, ("N", 2, 4, 4))


def conditions_and_statistics() -> onnx.ModelProto:
    """An If, conditions, normalisations by statistics, sums, and values between values.

    The input is (N, 2, 4, 4), the output (N, 4).
    """

    def branch(*nodes: NodeProto) -> onnx.GraphProto:
        value = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
        return helper.make_graph(list(nodes), "branch", [], [value])

    chosen = node(
        "If",
        "same",
        "i",
        then_branch=branch(node("Relu", "c", "t")),
        else_branch=branch(node("Neg", "c", "t")),
    )
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Shape", "c", "s"),
        node("Gather", "s three", "wide"),
        node("Equal", "wide four", "same"),
        chosen,
        node("InstanceNormalization", "i scale shift", "n"),
        node("LayerNormalization", "n rows", "l"),
        node("Greater", "l half", "g"),
        node("Where", "g l half", "v"),
        node("Softmax", "v", "m", axis=1),
        node("Mul", "m v", "p"),
        node("Resize", "p - twice", "r", mode="linear"),
        node("ReduceL2", "r", "q", axes=[3]),
        node("Expand", "q sizes", "e"),
        node("Tile", "e repeats", "d"),
        node("ReduceSum", "d axes", "y", keepdims=0),
    ]
    constants = {
        "w": floats(1, 4, 2, 3, 3),
        "three": np.array(3),
        "four": np.array(4),
        "scale": f32([1, 2, 0.5, 1]),
        "shift": floats(2, 4),
        "rows": f32([1, 2, 1, 2]),
        "half": f32(0.5),
        "twice": f32([1, 1, 2, 1.5]),
        "sizes": np.array([1, 1, 1, 3]),
        "repeats": np.array([1, 1, 2, 1]),
        "axes": np.array([2, 3]),
    }
    return network(nodes, constants, ("N", 2, 4, 4))


def small_cnn(seed: int) -> onnx.ModelProto:
    """Two convolutions with a residual, BatchNormalization, both poolings and a classifier.

    The input is (N, 2, 8, 8), the output (N, 5).
    """
    rng = np.random.default_rng(seed)
    constants = {
        "w1": floats(seed, 6, 2, 3, 3) / 3,
        "b1": floats(seed + 1, 6) / 3,
        "w2": floats(seed + 2, 6, 6, 3, 3) / 6,
        "scale": rng.uniform(-1.5, 1.5, 6).astype(np.float32),
        "shift": floats(seed + 3, 6) / 4,
        "mean": floats(seed + 4, 6) / 4,
        "variance": rng.uniform(0.5, 2, 6).astype(np.float32),
        "w3": floats(seed + 5, 6, 5),
        "b3": floats(seed + 6, 5),
    }
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("MaxPool", "c1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Relu", "p1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c2 scale shift mean variance", "n2"),
        node("Add", "n2 r1", "a2"),
        node("Relu", "a2", "r2"),
        node("GlobalAveragePool", "r2", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w3 b3", "logits"),
        node("Softmax", "logits", "y", axis=1),
    ]
    return network(nodes, constants, ("N", 2, 8, 8))
