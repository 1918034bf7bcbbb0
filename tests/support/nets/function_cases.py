"""ONNX networks of functions, products, resizes and other operators, one to each form."""

import numpy as np

from tests.support.nets.onnx_cases import CONV, SEED, after, first, flat, ints
from tests.support.nets.onnx_nets import f32, floats, node

PLAIN = (
    *("Abs", "Celu", "Cos", "Elu", "Erf", "Exp", "HardSwish", "LeakyRelu", "Selu", "Sigmoid"),
    *("Sin", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"),
    *("Ceil", "Floor", "Round"),
)


def later(opset: int, case):
    """The same case in a newer opset."""
    return (*case[:3], opset)


SQUEEZE = (
    node("GlobalAveragePool", "c", "p"),
    node("Conv", "p w1", "s"),
    node("Relu", "s", "r"),
    node("Conv", "r w2", "e"),
)
WEIGHTS = {"w1": floats(SEED + 6, 2, 4, 1, 1), "w2": floats(SEED + 7, 4, 2, 1, 1)}
LINE = ("N", 3, 10)
SIGNAL = {"w": floats(SEED + 8, 4, 3, 3) / 3, "b": floats(SEED + 9, 4)}


def transposed(*shape: int, **attributes):
    weights = floats(SEED + 10, *shape) / 3
    return first(node("ConvTranspose", "x w", "y", **attributes), w=weights)


CASES = {
    **{name.lower(): after(node(name, "c", "y")) for name in PLAIN},
    "leaky-relu-slope": after(node("LeakyRelu", "c", "y", alpha=0.3)),
    "leaky-relu-of-a-vector": flat(node("LeakyRelu", "f", "y")),
    "gelu": later(20, after(node("Gelu", "c", "y"))),
    "gelu-tanh": later(20, after(node("Gelu", "c", "y", approximate="tanh"))),
    "gelu-of-parts": after(
        node("Div", "c root", "d"),
        node("Erf", "d", "e"),
        node("Add", "e one", "a"),
        node("Mul", "c a", "m"),
        node("Mul", "m half", "y"),
        root=f32(np.sqrt(2)),
        one=f32(1),
        half=f32(0.5),
    ),
    "gelu-tanh-of-parts": after(
        node("Pow", "c three", "q"),
        node("Mul", "q k", "k_q"),
        node("Add", "c k_q", "i"),
        node("Mul", "i s", "s_i"),
        node("Tanh", "s_i", "t"),
        node("Add", "t one", "a"),
        node("Mul", "c half", "h"),
        node("Mul", "h a", "y"),
        three=f32(3),
        k=f32(0.044715),
        s=f32(np.sqrt(2 / np.pi)),
        one=f32(1),
        half=f32(0.5),
    ),
    "silu": after(node("Sigmoid", "c", "s"), node("Mul", "c s", "y")),
    "mish": later(18, after(node("Mish", "c", "y"))),
    "hard-swish-of-parts": after(
        node("Add", "c three", "a"),
        node("Clip", "a low six", "r"),
        node("Mul", "c r", "m"),
        node("Div", "m six", "y"),
        three=f32(3),
        low=f32(0),
        six=f32(6),
    ),
    "hard-sigmoid-shared": after(
        node("HardSigmoid", "c", "s", alpha=1 / 6), node("Mul", "c s", "y")
    ),
    "softmax-like": after(
        node("Exp", "c", "e"), node("Add", "e one", "a"), node("Div", "e a", "y"), one=f32(1)
    ),
    "table-then-limit": after(node("Tanh", "c", "t"), node("Relu", "t", "y")),
    "limit-then-table": after(node("Relu", "c", "r"), node("Tanh", "r", "y")),
    "logarithm": after(
        node("Abs", "c", "a"), node("Add", "a one", "p"), node("Log", "p", "y"), one=f32(1)
    ),
    "root": after(node("Exp", "c", "a"), node("Sqrt", "a", "y")),
    "reciprocal": after(
        node("Exp", "c", "e"), node("Add", "e one", "a"), node("Reciprocal", "a", "y"), one=f32(1)
    ),
    "swish": later(24, after(node("Swish", "c", "y", alpha=1.5))),
    "power": after(node("Abs", "c", "a"), node("Pow", "a p", "y"), p=f32(1.5)),
    "prelu": after(node("PRelu", "c s", "y"), s=f32([0.25]).reshape(1, 1, 1)),
    "prelu-channels": after(
        node("PRelu", "c s", "y"), s=f32([0.25, -0.5, 0, 1.5]).reshape(4, 1, 1)
    ),
    "prelu-vector": first(
        node("Flatten", "x", "f"),
        node("PRelu", "f s", "p"),
        node("Gemm", "p w", "y"),
        s=floats(SEED + 11, 8),
        w=floats(SEED + 12, 8, 3),
        shape=("N", 2, 2, 2),
    ),
    "squeeze-and-excitation": after(
        *SQUEEZE, node("Sigmoid", "e", "g"), node("Mul", "c g", "y"), **WEIGHTS
    ),
    "squeeze-and-excitation-hard": after(
        *SQUEEZE, node("HardSigmoid", "e", "g"), node("Mul", "g c", "y"), **WEIGHTS
    ),
    "spatial-attention": after(
        node("ReduceMean", "c", "m", axes=[1]), node("Sigmoid", "m", "g"), node("Mul", "g c", "y")
    ),
    "product": after(
        node("Conv", "x w2 b2", "d", pads=[1, 1, 1, 1]),
        node("Mul", "c d", "y"),
        w2=floats(SEED + 13, 4, 2, 3, 3),
        b2=floats(SEED + 14, 4),
    ),
    "product-of-a-row-and-a-column": after(
        node("ReduceMean", "c", "r", axes=[2]),
        node("ReduceMean", "c", "s", axes=[3]),
        node("Mul", "r s", "y"),
    ),
    "product-of-vectors": flat(
        node("Tanh", "f", "t"), node("Relu", "f", "r"), node("Mul", "t r", "y")
    ),
    "quotient": after(
        node("Relu", "c", "r"), node("Add", "r one", "a"), node("Div", "c a", "y"), one=f32(1)
    ),
    "difference": after(
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Sub", "c p", "y"),
    ),
    "sum-of-a-row": after(node("GlobalAveragePool", "c", "p"), node("Add", "c p", "y")),
    "min-of-tensors": after(node("Neg", "c", "n"), node("Min", "c n", "y")),
    "lrn": after(node("LRN", "c", "y", size=3, alpha=0.5)),
    "lrn-of-parts": after(
        node("Mul", "c c", "q"),
        node("Reshape", "q five", "v"),
        node("Pad", "v p", "wide"),
        node("AveragePool", "wide", "a", kernel_shape=[3, 1, 1], count_include_pad=1),
        node("Squeeze", "a one", "s"),
        node("Add", "s k", "base"),
        node("Pow", "base k", "f"),
        node("Div", "c f", "y"),
        five=ints(0, 1, 4, 6, 6),
        p=ints(0, 0, 1, 0, 0, 0, 0, 1, 0, 0),
        one=ints(1),
        k=f32(0.75),
    ),
    "largest-of-depths": after(
        node("Reshape", "c five", "v"),
        node("MaxPool", "v", "m", kernel_shape=[2, 1, 1], strides=[2, 1, 1]),
        node("Reshape", "m four", "y"),
        five=ints(0, 1, 4, 6, 6),
        four=ints(0, 2, 6, 6),
    ),
    "lrn-wide": after(node("LRN", "c", "y", size=13, alpha=0.3)),
    "global-max-pool": after(node("GlobalMaxPool", "c", "y")),
    "max-pool-of-signed-codes": after(
        node("MaxPool", "c", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    ),
    "max-of-tensors": after(node("Neg", "c", "n"), node("Max", "c n", "y")),
    "resize": after(
        node(
            "Resize",
            "c - s",
            "y",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
        s=f32([1, 1, 2, 3]),
    ),
    "resize-half-pixel": after(node("Resize", "c - s", "y"), s=f32([1, 1, 2, 2])),
    "resize-down": after(node("Resize", "c - s", "y"), s=f32([1, 1, 0.5, 0.7])),
    "resize-sizes": after(
        node(
            "Resize",
            "c - - z",
            "y",
            coordinate_transformation_mode="align_corners",
            nearest_mode="round_prefer_ceil",
        ),
        z=ints(1, 4, 9, 4),
    ),
    "resize-axes": later(
        18, after(node("Resize", "c - s", "y", axes=[2, 3], nearest_mode="ceil"), s=f32([2, 1.5]))
    ),
    "upsample": first(
        node("Upsample", "x s", "u"),
        node("Conv", "u w b", "y"),
        opset=9,
        s=f32([1, 1, 2, 2]),
        **CONV,
    ),
    "pixel-shuffle": after(node("DepthToSpace", "c", "y", blocksize=2, mode="CRD")),
    "pixel-shuffle-of-depth": after(node("DepthToSpace", "c", "y", blocksize=2)),
    "transposed": transposed(2, 3, 2, 2, strides=[2, 2]),
    "transposed-gan": transposed(2, 3, 4, 4, strides=[2, 2], pads=[1, 1, 1, 1]),
    "transposed-output-padding": transposed(
        2, 3, 3, 3, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    ),
    "transposed-plain": transposed(2, 3, 3, 3),
    "transposed-stride-above-kernel": transposed(2, 3, 2, 1, strides=[3, 2]),
    "transposed-groups": transposed(2, 2, 3, 3, strides=[2, 1], group=2),
    "transposed-dilated": transposed(2, 2, 2, 3, strides=[2, 2], dilations=[2, 1]),
    "transposed-output-shape": transposed(2, 2, 3, 3, strides=[2, 2], output_shape=[12, 12]),
    "transposed-same": transposed(2, 2, 3, 3, strides=[2, 2], auto_pad="SAME_LOWER"),
    "transposed-cut": transposed(2, 2, 3, 3, strides=[2, 2], pads=[3, 4, 2, 0]),
    "transposed-with-norm": first(
        node("ConvTranspose", "x w b", "c", strides=[2, 2]),
        node("Relu", "c", "y"),
        w=floats(SEED + 15, 2, 3, 2, 2),
        b=floats(SEED + 16, 3),
    ),
    "line": first(
        node("Conv", "x w b", "c", pads=[1, 1]),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2], strides=[2]),
        node("Conv", "p v", "y"),
        shape=LINE,
        v=floats(SEED + 17, 2, 4, 3),
        **SIGNAL,
    ),
    "line-average": first(
        node("Conv", "x w b", "c", strides=[2]),
        node("PRelu", "c s", "p"),
        node("AveragePool", "p", "a", kernel_shape=[3], pads=[1, 1]),
        node("GlobalAveragePool", "a", "y"),
        shape=LINE,
        s=floats(SEED + 19, 4, 1),
        **SIGNAL,
    ),
    "line-transposed": first(
        node("ConvTranspose", "x w", "y", strides=[2], pads=[1, 0]),
        shape=LINE,
        w=floats(SEED + 18, 3, 2, 3),
    ),
    "einsum-rows": first(
        node("Einsum", "x w", "y", equation="nchw,wo->ncho"), w=floats(SEED + 20, 6, 5)
    ),
    "einsum-channels": first(
        node("Einsum", "x w", "y", equation="nchw,oc->nohw"), w=floats(SEED + 21, 5, 2)
    ),
    "einsum-heads": first(
        node("Einsum", "w x", "y", equation="chk,nchw->nwck"), w=floats(SEED + 22, 2, 6, 3)
    ),
    "einsum-dots": first(node("Einsum", "x w", "y", equation="...w,wo"), w=floats(SEED + 23, 6, 2)),
    "einsum-sums": first(
        node("Einsum", "x w", "y", equation="nchw,co->no"), w=floats(SEED + 24, 2, 4)
    ),
    "matmul-of-images": first(node("MatMul", "x w", "y"), w=floats(SEED + 25, 6, 4)),
    "matmul-on-the-left": first(node("MatMul", "w x", "y"), w=floats(SEED + 26, 4, 6)),
    "matmul-by-channel": first(node("MatMul", "x w", "y"), w=floats(SEED + 27, 1, 2, 6, 4)),
    "argmax-free": flat(node("Gemm", "f v", "y"), v=floats(SEED + 28, 144, 5)),
    # Conditions
    "where": after(
        node("Greater", "c limit", "g"),
        node("Mul", "c tenth", "t"),
        node("Where", "g c t", "y"),
        limit=f32(0.25),
        tenth=f32(0.1),
    ),
    "softplus-of-dynamo": after(
        node("Softplus", "c", "s"),
        node("Greater", "c limit", "g"),
        node("Where", "g c s", "y"),
        limit=f32(20),
    ),
    "shrink-of-parts": after(
        node("LessOrEqual", "c high", "p"),
        node("GreaterOrEqual", "c low", "q"),
        node("And", "p q", "inside"),
        node("Where", "inside zero c", "y"),
        high=f32(0.5),
        low=f32(-0.5),
        zero=f32(0),
    ),
    "outside": after(
        node("Less", "low c", "p"),
        node("Less", "c high", "q"),
        node("Not", "q", "nq"),
        node("Or", "p nq", "o"),
        node("Mul", "c c", "square"),
        node("Where", "o c square", "y"),
        high=f32(-0.5),
        low=f32(0.5),
    ),
    "shrink": after(node("Shrink", "c", "y", lambd=0.4, bias=0.2)),
    "sign": after(node("Sign", "c", "s"), node("Mul", "s c", "y")),
    "limit-above-0": after(
        node("Clip", "c low high", "k"), node("Log", "k", "y"), low=f32(0.5), high=f32(2)
    ),
    "limit-to-below-0": after(node("Min", "c low", "y"), low=f32(-0.25)),
    "constants-of-each-value": after(node("Add", "c k", "y"), k=floats(SEED + 29, 1, 4, 6, 6)),
    # Statistics
    "instance-norm": after(
        node("InstanceNormalization", "c scale shift", "y"),
        scale=f32([1.5, -0.5, 0.5, 2]),
        shift=floats(SEED + 30, 4),
    ),
    "group-norm": later(
        21,
        after(
            node("GroupNormalization", "c scale shift", "y", num_groups=2),
            scale=f32([1.5, 0.5, 1, 0.7]),
            shift=floats(SEED + 31, 4),
        ),
    ),
    "layer-norm": after(
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("LayerNormalization", "t scale shift", "n", epsilon=0.25),
        node("Transpose", "n", "y", perm=[0, 3, 1, 2]),
        scale=f32([1.5, -0.5, 0.5, 2]),
        shift=floats(SEED + 30, 4),
    ),
    "layer-norm-of-images": after(
        node("LayerNormalization", "c scale", "y", axis=1), scale=floats(SEED + 32, 4, 6, 6)
    ),
    "layer-norm-of-rows": after(
        node("LayerNormalization", "c ones", "y", axis=-1), ones=np.ones(6, np.float32)
    ),
    "rms-norm": later(
        23,
        after(node("RMSNormalization", "c scale", "y", axis=-1), scale=f32([1, 2, 1, 0.5, 1, 1])),
    ),
    "softmax-in-the-middle": after(
        node("Softmax", "c", "s", axis=1),
        node("Mul", "s c", "y"),
    ),
    "log-softmax-in-the-middle": first(
        node("Conv", "x w b", "c"),
        node("LogSoftmax", "c", "l", axis=2),
        node("Relu", "c", "r"),
        node("Add", "l r", "y"),
        opset=11,
        **CONV,
    ),
    "sum": after(node("ReduceSum", "c axes", "y", keepdims=0), axes=ints(2, 3)),
    "sum-of-channels": after(
        node("ReduceSum", "c axes", "s"), node("Mul", "s c", "y"), axes=ints(1)
    ),
    "norm-1": after(node("ReduceL1", "c", "y", axes=[3])),
    "norm-2": after(node("ReduceL2", "c", "l", axes=[2, 3], keepdims=0), node("Relu", "l", "y")),
    "sum-of-squares": after(node("ReduceSumSquare", "c", "y", axes=[-1])),
    "least": after(node("ReduceMin", "c", "y", axes=[2, 3])),
    # Repeated and interpolated values
    "expand": after(
        node("GlobalAveragePool", "c", "p"), node("Expand", "p s", "y"), s=ints(1, 1, 3, 2)
    ),
    "tile": after(node("Tile", "c r", "y"), r=ints(1, 2, 1, 2)),
    "resize-linear": after(node("Resize", "c - s", "y", mode="linear"), s=f32([1, 1, 2, 2])),
    "resize-linear-corners": after(
        node(
            "Resize", "c - - z", "y", mode="linear", coordinate_transformation_mode="align_corners"
        ),
        z=ints(1, 4, 11, 6),
    ),
    "resize-linear-down": after(node("Resize", "c - - z", "y", mode="linear"), z=ints(1, 4, 3, 5)),
    "resize-cubic": after(node("Resize", "c - s", "y", mode="cubic"), s=f32([1, 1, 1.5, 2])),
    "resize-linear-of-a-line": first(
        node("Conv", "x w b", "c"),
        node("Resize", "c - s", "y", mode="linear"),
        shape=LINE,
        s=f32([1, 1, 2]),
        **SIGNAL,
    ),
    "upsample-linear": first(
        node("Upsample", "x s", "u", mode="linear"),
        node("Conv", "u w b", "y"),
        opset=9,
        s=f32([1, 1, 2, 2]),
        **CONV,
    ),
}
