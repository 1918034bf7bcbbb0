"""Networks for the float graph, one to each kind of node."""

import numpy as np
import onnx

from tests.support.nets.onnx_nets import floats, node

CONV = {"w": floats(2, 4, 2, 3, 3), "b": floats(3, 4)}


FIRST = node("Conv", "x w b", "c", pads=[1, 1, 1, 1])
"""(N, 2, 5, 5) to (N, 4, 5, 5)."""


NORM = {
    "scale": np.array([1.5, -0.5, 0, 2], np.float32),
    "shift": floats(4, 4),
    "mean": floats(5, 4),
    "variance": np.array([1, 0.25, 4, 0], np.float32),
}


def constant(name: str, values, dtype=np.int64):
    return node("Constant", "", name, value=onnx.numpy_helper.from_array(np.array(values, dtype)))


def conv(**attributes):
    return [node("Conv", "x w b", "y", **attributes)], CONV


def after(*nodes, **constants):
    return [FIRST, *nodes], CONV | constants


CASES = {
    "conv": conv(),
    "conv-pads": conv(pads=[2, 0, 1, 3], kernel_shape=[3, 3]),
    "conv-strides": conv(strides=[2, 3], pads=[1, 1, 1, 1]),
    "conv-dilations": conv(dilations=[2, 1]),
    "conv-same-upper": conv(auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv-same-lower": conv(auto_pad="SAME_LOWER", strides=[1, 2], dilations=[1, 1]),
    "conv-valid": conv(auto_pad="VALID"),
    "conv-even-kernel": ([node("Conv", "x w", "y")], {"w": floats(2, 3, 2, 2, 4)}),
    "conv-groups": ([node("Conv", "x w b", "y", group=2)], {**CONV, "w": floats(2, 4, 1, 3, 3)}),
    "conv-depthwise": (
        [node("Conv", "x w", "y", group=2, pads=[1, 1, 1, 1])],
        {"w": floats(2, 2, 1, 3, 3)},
    ),
    "conv-float64-weights": ([node("Conv", "x w b", "y")], CONV),
    "relu": after(node("Relu", "c", "y")),
    "clip-6": after(node("Clip", "c lo hi", "y"), lo=np.float32(0), hi=np.float32(6)),
    "clip-no-max": after(node("Clip", "c lo", "y"), lo=np.float32(0)),
    "clip-no-min": after(node("Clip", "c - hi", "y"), hi=np.float32(1)),
    "clip-infinity": after(node("Clip", "c lo hi", "y"), lo=np.float32(0), hi=np.float32(np.inf)),
    "max-pool": after(node("MaxPool", "c", "y", kernel_shape=[2, 3])),
    "max-pool-pads": after(
        node("MaxPool", "c", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    ),
    "max-pool-ceil": after(
        node("MaxPool", "c", "y", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    ),
    "max-pool-ceil-no-window-in-padding": after(
        node(
            "MaxPool", "c", "y", kernel_shape=[2, 2], strides=[3, 3], pads=[0, 0, 1, 1], ceil_mode=1
        )
    ),
    "max-pool-same": after(
        node("MaxPool", "c", "y", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")
    ),
    "average-pool": after(node("AveragePool", "c", "y", kernel_shape=[3, 2], strides=[2, 1])),
    "average-pool-pads": after(
        node("AveragePool", "c", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    ),
    "average-pool-pads-counted": after(
        node("AveragePool", "c", "y", kernel_shape=[3, 3], pads=[1, 0, 1, 2], count_include_pad=1)
    ),
    "average-pool-ceil": after(
        node("AveragePool", "c", "y", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    ),
    "global-average-pool": after(node("GlobalAveragePool", "c", "y")),
    "add-constant": after(node("Add", "c k", "y"), k=floats(6, 4, 1, 1)),
    "add-constant-first": after(node("Add", "k c", "y"), k=floats(6, 1, 4, 1, 1)),
    "add-scalar": after(node("Add", "c k", "y"), k=np.float32(0.5)),
    "residual": after(node("Relu", "c", "r"), node("Add", "r c", "y")),
    "twice-itself": after(node("Add", "c c", "y")),
    "norm": after(node("BatchNormalization", "c scale shift mean variance", "y"), **NORM),
    "norm-epsilon-add-norm": after(
        node("BatchNormalization", "c scale shift mean variance", "n", epsilon=0.1),
        node("Add", "n k", "a"),
        node("BatchNormalization", "a scale shift mean variance", "y"),
        **NORM,
        k=floats(6, 4, 1, 1),
    ),
    "identity-dropout": after(node("Identity", "c", "i"), node("Dropout", "i", "y")),
    "identity-inside": after(
        node("Identity", "c", "i"),
        node("BatchNormalization", "i scale shift mean variance", "n"),
        node("Dropout", "n", "d"),
        node("Relu", "d", "y"),
        **NORM,
    ),
    "flatten-gemm": after(
        node("Flatten", "c", "f"),
        node("Gemm", "f w2 b2", "y", transB=1, alpha=0.5, beta=2.0),
        w2=floats(7, 6, 100),
        b2=floats(8, 6),
    ),
    "gemm-row-bias": after(
        node("Flatten", "c", "f", axis=-3),
        node("Gemm", "f w2 b2", "y"),
        w2=floats(7, 100, 6),
        b2=floats(8, 1, 6),
    ),
    "gemm-no-bias": after(
        node("Flatten", "c", "f"), node("Gemm", "f w2", "y"), w2=floats(7, 100, 6)
    ),
    "matmul-add": after(
        constant("s", [-1, 100]),
        node("Reshape", "c s", "f"),
        node("MatMul", "f w2", "m"),
        node("Add", "m b2", "y"),
        w2=floats(7, 100, 6),
        b2=floats(8, 6),
    ),
    "matmul-norm": after(
        node("Flatten", "c", "f"),
        node("MatMul", "f w2", "m"),
        node("BatchNormalization", "m scale shift mean variance", "y"),
        w2=floats(7, 100, 4),
        **NORM,
    ),
    "reshape-copied": after(constant("s", [0, -1]), node("Reshape", "c s", "y")),
    "reshape-channels": after(constant("s", [0, 2, 2, -1]), node("Reshape", "c s", "y")),
    "transpose": after(node("Transpose", "c", "y", perm=[0, 2, 3, 1])),
    "transposes": after(
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("Transpose", "t", "y", perm=[0, 2, 1, 3]),
    ),
    "shuffle": after(
        constant("s", [0, 2, 2, 5, 5]),
        constant("t", [0, 4, 5, 5]),
        node("Reshape", "c s", "u"),
        node("Transpose", "u", "v", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "v t", "y"),
    ),
    "squeeze-unsqueeze": after(
        node("GlobalAveragePool", "c", "g"),
        node("Squeeze", "g axes", "s"),
        node("Unsqueeze", "s axes", "y"),
        axes=np.array([2, -1]),
    ),
    "shape-chain": after(
        node("Shape", "c", "all"),
        constant("zero", 0),
        node("Gather", "all zero", "n"),
        node("Unsqueeze", "n axis", "n1"),
        node("Concat", "n1 rest", "s", axis=0),
        node("Reshape", "c s", "y"),
        axis=np.array([0]),
        rest=np.array([-1]),
    ),
    "folded-weights": (
        [
            node("Transpose", "w", "t", perm=[1, 0, 3, 2]),
            node("Mul", "t two", "t2"),
            node("Conv", "x t2", "y"),
        ],
        {"w": floats(2, 2, 4, 3, 3), "two": np.float32(2)},
    ),
}
