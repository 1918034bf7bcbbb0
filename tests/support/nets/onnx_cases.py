"""ONNX networks, one to each operator and form, and ONNX Runtime as a second opinion."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

from refmodel import golden
from refmodel.compression import compile as compiler
from refmodel.compression.quantize import quantize
from refmodel.network.graph import FloatNetwork
from tests.support.nets.onnx_nets import f32, floats, node

SEED = 71


SHAPE = ("N", 2, 6, 6)


CONV = {"w": floats(SEED + 1, 4, 2, 3, 3) / 3, "b": floats(SEED + 2, 4)}


FIRST = node("Conv", "x w b", "c", pads=[1, 1, 1, 1])
"""(N, 2, 6, 6) to (N, 4, 6, 6)."""


NORM = {
    "scale": f32([1.5, -0.5, 0, 2]),
    "shift": floats(SEED + 3, 4),
    "mean": floats(SEED + 4, 4),
    "variance": f32([1, 0.25, 4, 0.1]),
}


LARGE = 2**63 - 1


def runtime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Run a model in onnxruntime, node by node as written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(result)


def error_in_integers(loaded: FloatNetwork, x: np.ndarray, folder: Path) -> float:
    """Compile a network, save and load it, and tell how far its codes are from floating point.

    Returns
    -------
    float
        The largest error, in shares of the largest value.
    """
    program = compiler.compile_network(quantize(loaded, x), scheme="dense")
    program.save(folder / "p.prap")
    program = type(program).load(folder / "p.prap")
    codes = golden.run_program(program, golden.quantise_input(program, x))
    info = program.tensors[program.output]
    found = (codes[program.output].astype(float) - info["zero"]) * info["scale"]
    expected = loaded.forward(x)
    expected = expected.transpose(0, 2, 3, 1) if expected.ndim == 4 else expected
    return relative(found.reshape(expected.shape), expected)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def after(*nodes, **constants):
    return [FIRST, *nodes], CONV | constants, SHAPE, 17


def first(*nodes, opset=17, shape=SHAPE, **constants):
    return list(nodes), constants, shape, opset


def flat(*nodes, **constants):
    return after(node("Flatten", "c", "f"), *nodes, **constants)


def constant(name: str, values) -> onnx.NodeProto:
    return node("Constant", "", name, value=numpy_helper.from_array(np.asarray(values)))


def parts(op: str, inputs: str, outputs: str, **attributes) -> onnx.NodeProto:
    """A node with several outputs, named after all of them."""
    made = node(op, inputs, outputs, **attributes)
    made.output[:] = outputs.split()
    return made


def filled(name: str, shape: str, value: float) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(f32([value]))
    return node("ConstantOfShape", shape, name, value=tensor)


CASES = {
    # Gather, on (4, 6, 6)
    "gather-channels": after(node("Gather", "c i", "y", axis=1), i=ints(3, 0, 0, -1, -4)),
    "gather-rows": after(node("Gather", "c i", "y", axis=2), i=np.array([5, -6], np.int32)),
    "gather-one-column": after(node("Gather", "c i", "y", axis=-1), i=np.array(2)),
    "gather-a-table": flat(
        node("Gather", "f i", "y", axis=1), i=np.arange(-144, 144, 3).reshape(4, 8, 3)
    ),
    "gather-a-table-of-rows": after(
        node("Gather", "c i", "g", axis=2),
        node("Flatten", "g", "y"),
        i=ints(0, 1, 2, 3, 5, 4).reshape(3, 2),
    ),
    "gather-computed-indices": after(
        constant("one", ints(1)),
        node("Add", "i one", "j"),
        node("Gather", "c j", "y", axis=1),
        i=ints(2, 0),
    ),
    "gather-behind-a-pad": after(
        node("Flatten", "c", "f"),
        node("Pad", "f p", "z"),
        node("Gather", "z i", "y", axis=1),
        p=ints(0, 0, 0, 1),
        i=ints(144, 7, 0, 144).reshape(1, 2, 2),
    ),
    # Normalisation and arithmetic that no layer can take
    "norm-first": first(
        node("BatchNormalization", "x scale shift mean variance", "n"),
        node("Conv", "n w b", "y", pads=[1, 1, 1, 1]),
        **{name: values[:2] for name, values in NORM.items()},
        **CONV,
    ),
    "norm-after-relu": after(
        node("Relu", "c", "r"),
        node("BatchNormalization", "r scale shift mean variance", "y"),
        **NORM,
    ),
    "norm-of-a-shared-tensor": after(
        node("BatchNormalization", "c scale shift mean variance", "n"),
        node("Add", "n c", "y"),
        **NORM,
    ),
    "norm-of-a-vector": flat(
        node("Gemm", "f v", "g"),
        node("Relu", "g", "r"),
        node("BatchNormalization", "r scale shift mean variance", "y"),
        v=floats(SEED, 144, 4),
        **NORM,
    ),
    "normalised-input": first(
        node("Sub", "x m", "d"),
        node("Div", "d s", "e"),
        node("Conv", "e w b", "y", pads=[1, 1, 1, 1]),
        m=f32([0.5, 0.25]).reshape(2, 1, 1),
        s=f32([2, 0.5]).reshape(1, 2, 1, 1),
        **CONV,
    ),
    "normalised-by-scalars": first(
        node("Mul", "x m", "d"),
        node("Sub", "half d", "e"),
        node("Conv", "e w b", "y"),
        m=f32(3),
        half=f32([0.5]),
        **CONV,
    ),
    "normalised-channels-last": first(
        node("Sub", "x m", "d"),
        node("Transpose", "d", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w b", "y"),
        shape=("N", 6, 6, 2),
        m=f32([0.5, 0.25]),
        **CONV,
    ),
    "normalised-rows": first(
        node("Mul", "x m", "d"),
        node("Flatten", "d", "f"),
        node("Gemm", "f v", "y"),
        shape=("N", 4, 5),
        m=floats(SEED, 4, 1),
        v=floats(SEED, 20, 3),
    ),
    "normalised-columns": first(
        node("Add", "x m", "d"),
        node("Flatten", "d", "f"),
        node("Gemm", "f v", "y"),
        shape=("N", 4, 5),
        m=floats(SEED, 5),
        v=floats(SEED, 20, 3),
    ),
    "normalised-image-without-channels": first(
        node("Div", "x m", "d"),
        node("Flatten", "d", "f"),
        node("Gemm", "f v", "y"),
        shape=("N", 4, 5),
        m=f32([[3.0]]),
        v=floats(SEED, 20, 3),
    ),
    "arithmetic-behind-a-layer": after(
        node("Mul", "c k", "m"),
        node("Sub", "m j", "s"),
        node("Div", "s k", "d"),
        node("Sub", "j d", "y"),
        k=floats(SEED, 4, 1, 1),
        j=floats(SEED + 9, 4, 1, 1),
    ),
    "bias-behind-a-transpose": after(
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("Add", "t k", "y"),
        k=floats(SEED, 4),
    ),
    "factor-behind-a-slice": after(
        node("Slice", "c i i axis", "t"),
        node("Add", "c k", "y"),
        i=ints(0),
        axis=ints(1),
        k=floats(SEED, 4, 1, 1),
    ),
    # Matrix products
    "gemm-transposed": flat(
        node("Gemm", "f v d", "y", transB=1, alpha=0.5, beta=-2.0),
        v=floats(SEED, 3, 144),
        d=floats(SEED, 3),
    ),
    "matmul-add-scalar": flat(
        node("MatMul", "f v", "m"), node("Add", "half m", "y"), v=floats(SEED, 144, 3), half=f32(2)
    ),
    "matmul-rows": after(
        constant("s", ints(0, 4, 36)),
        node("Reshape", "c s", "f"),
        node("MatMul", "f v", "m"),
        node("Add", "m d", "y"),
        v=floats(SEED, 36, 3),
        d=floats(SEED, 3),
    ),
    "gemm-of-a-transpose": flat(
        node("Transpose", "f", "t", perm=[1, 0]),
        node("Gemm", "t v d", "y", transA=1, alpha=2.0),
        v=floats(SEED, 144, 3),
        d=floats(SEED, 3),
    ),
    "weights-on-the-left": flat(
        node("Transpose", "f", "t"),
        node("MatMul", "v t", "m"),
        node("Add", "m d", "a"),
        node("Relu", "a", "r"),
        node("Gemm", "u r e", "g", transA=1, beta=0.5),
        node("Transpose", "g", "y", perm=[1, 0]),
        v=floats(SEED, 7, 144) / 9,
        d=floats(SEED, 7, 1),
        u=floats(SEED, 7, 3),
        e=floats(SEED, 3, 1),
    ),
    "weights-on-the-left-of-a-transpose": flat(
        node("Gemm", "v f e", "g", transB=1),
        node("Transpose", "g", "y", perm=[1, 0]),
        v=floats(SEED, 3, 144),
        e=f32(2),
    ),
    # Moving values
    "slice-steps": after(
        node("Slice", "c a e axes steps", "y"),
        a=ints(0, 5),
        e=ints(LARGE, -LARGE),
        axes=ints(2, -1),
        steps=ints(2, -3),
    ),
    "slice-without-axes": after(node("Slice", "c a e", "y"), a=ints(0, 1, 2), e=ints(LARGE, 3, -1)),
    "slice-attributes": first(
        FIRST,
        node("Slice", "c", "y", starts=[0, 1], ends=[LARGE, 5], axes=[0, 3]),
        opset=9,
        **CONV,
    ),
    "pad-before-a-convolution": first(
        node("Pad", "x p", "q"),
        node("Conv", "q w b", "y", strides=[2, 2]),
        p=ints(0, 0, 1, 2, 0, 0, 0, 1),
        **CONV,
    ),
    "pad-before-a-padded-convolution": first(
        node("Pad", "x p zero", "q"),
        node("Conv", "q w b", "y", pads=[1, 0, 1, 1]),
        p=ints(0, 0, 1, 2, 0, 0, 0, 1),
        zero=f32(0),
        **CONV,
    ),
    "pad-before-same": first(
        node("Pad", "x p", "q"),
        node("Conv", "q w b", "y", auto_pad="SAME_UPPER", strides=[2, 2]),
        p=ints(0, 0, 1, 1, 0, 0, 0, 0),
        **CONV,
    ),
    "pad-shared": first(
        node("Pad", "x p", "q"),
        node("Conv", "q w b", "c"),
        node("Slice", "q i e axis", "h"),
        node("Conv", "h w b", "d", pads=[1, 1, 1, 1]),
        node("Add", "c d", "y"),
        p=ints(0, 0, 1, 1, 0, 0, 1, 1),
        i=ints(1, 1),
        e=ints(7, 7),
        axis=ints(2, 3),
        **CONV,
    ),
    "pad-before-pooling": after(
        node("Pad", "c p", "q"),
        node("MaxPool", "q", "y", kernel_shape=[2, 2], strides=[2, 2]),
        p=ints(0, 0, 1, 1, 0, 0, 1, 1),
    ),
    "pad-channels": after(node("Pad", "c p", "y"), p=ints(0, 1, 0, 0, 0, 2, 0, 0)),
    "pad-attribute": first(
        FIRST, node("Pad", "c", "y", pads=[0, 2, 1, 0, 0, 0, 0, 1]), opset=9, **CONV
    ),
    "pad-negative": after(node("Pad", "c p", "y"), p=ints(0, 0, -1, 2, 0, 1, -2, -3)),
    "pad-axes": first(
        FIRST,
        node("Pad", "c p - axes", "y"),
        opset=18,
        p=ints(1, 2, 3, 0),
        axes=ints(-1, 1),
        **CONV,
    ),
    "pad-reflect": after(node("Pad", "c p", "y", mode="reflect"), p=ints(0, 0, 2, 1, 0, 0, 0, 3)),
    "pad-edge": after(node("Pad", "c p", "y", mode="edge"), p=ints(0, 0, 2, 1, 0, 0, 0, 3)),
    "option-a": after(
        node("Slice", "c a e axes steps", "s"),
        node("Pad", "s p", "z"),
        node("Conv", "c v", "d", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Add", "d z", "y"),
        a=ints(0, 0),
        e=ints(LARGE, LARGE),
        axes=ints(2, 3),
        steps=ints(2, 2),
        p=ints(0, 2, 0, 0, 0, 2, 0, 0),
        v=floats(SEED, 8, 4, 3, 3),
    ),
    "reshape-of-a-constant": flat(
        constant("s", ints(144, 3)),
        node("Reshape", "v s", "u"),
        node("MatMul", "f u", "y"),
        v=floats(SEED, 4, 36, 3),
    ),
    # As PyTorch's exporter writes them since 2.9: a pixel shuffle and a flattening
    "reshape-allowzero": after(
        node("Reshape", "c s", "r", allowzero=1),
        node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t u", "v", allowzero=1),
        node("Reshape", "v flat", "y", allowzero=1),
        s=ints(1, 2, 2, 6, 6),
        u=ints(1, 4, 6, 6),
        flat=ints(1, 144),
    ),
    "reshape-allowzero-of-a-free-batch": after(
        node("Shape", "c", "n", end=1),
        node("Concat", "n k", "s", axis=0),
        node("Reshape", "c s", "y", allowzero=1),
        k=ints(12, 12),
    ),
    "transpose-before-flatten": after(
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("Flatten", "t", "f"),
        node("Gemm", "f v", "y"),
        v=floats(SEED, 144, 3),
    ),
    "constants-of-shape": first(
        constant("s", ints(4, 2, 3, 3)),
        constant("t", ints(4)),
        filled("w", "s", 0.25),
        filled("b", "t", 1.0),
        node("Conv", "x w b", "y"),
    ),
    # Concatenation
    "concat": after(
        node("Conv", "x v", "d", pads=[0, 0, 0, 0]),
        node("Relu", "c", "r"),
        node("Concat", "r d c", "y", axis=1),
        v=floats(SEED, 3, 2, 1, 1),
    ),
    "concat-rows": after(node("Relu", "c", "r"), node("Concat", "r c", "y", axis=-2)),
    "concat-columns": after(node("Relu", "c", "r"), node("Concat", "r c", "y", axis=3)),
    "concat-vectors": flat(
        node("Relu", "f", "r"), node("Concat", "f r", "g", axis=1), node("Relu", "g", "y")
    ),
    "concat-zeros": after(node("Concat", "z c z", "y", axis=1), z=np.zeros((1, 2, 6, 6), "f4")),
    # Pooling
    "mean": after(node("ReduceMean", "c", "y", axes=[2, 3])),
    "mean-flat": after(node("ReduceMean", "c", "y", axes=[-1, 2], keepdims=0)),
    "mean-input": first(
        FIRST, node("ReduceMean", "c axes", "y", keepdims=0), opset=18, axes=ints(2, 3), **CONV
    ),
    "mean-rows": after(node("ReduceMean", "c", "y", axes=[2])),
    "mean-channels": after(node("ReduceMean", "c", "y", axes=[1], keepdims=0)),
    "mean-channels-last": after(
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("ReduceMean", "t", "y", axes=[1, 2], keepdims=0),
    ),
    "mean-of-rows": after(
        constant("s", ints(0, 4, 36)),
        node("Reshape", "c s", "f"),
        node("ReduceMean", "f", "y", axes=[2], keepdims=0),
    ),
    "mean-nothing": first(
        FIRST, node("ReduceMean", "c", "y", noop_with_empty_axes=1), opset=18, **CONV
    ),
    "global-max-pool": after(node("GlobalMaxPool", "c", "y")),
    "large-average": first(
        FIRST, node("AveragePool", "c", "y", kernel_shape=[6, 6]), shape=("N", 2, 12, 12), **CONV
    ),
    # No operation
    "cast": after(node("Cast", "c", "d", to=TensorProto.FLOAT), node("Relu", "d", "y")),
    "dropout-ratio": after(node("Dropout", "c ratio", "d"), node("Relu", "d", "y"), ratio=f32(0.5)),
    # Several operands
    "sum-of-three": after(node("Relu", "c", "r"), node("Sum", "c r c", "y")),
    "sum-with-constants": after(
        node("Relu", "c", "r"), node("Sum", "k r c j", "y"), k=floats(SEED, 4, 1, 1), j=f32(0.5)
    ),
    "sum-of-a-layer-and-constants": after(
        node("Sum", "k c k", "s"), node("Relu", "s", "y"), k=floats(SEED, 4, 1, 1)
    ),
    "sum-of-one": after(node("Sum", "c", "s"), node("Relu", "s", "y")),
    "mean-of-three": after(node("Relu", "c", "r"), node("Mean", "c r c", "y")),
    "mean-of-vectors": flat(node("Relu", "f", "r"), node("Mean", "f r", "y")),
    "mean-of-one": after(node("Mean", "c", "s"), node("Relu", "s", "y")),
    "max-of-three": after(
        node("Conv", "x v", "d"),
        node("Neg", "c", "n"),
        node("Max", "c d n", "y"),
        v=floats(SEED, 4, 2, 1, 1),
    ),
    "max-of-rows": after(
        constant("s", ints(0, 4, 36)),
        node("Reshape", "c s", "f"),
        node("Neg", "f", "n"),
        node("Max", "f n", "y"),
    ),
    "max-with-a-limit": after(
        node("Neg", "c", "n"), node("Max", "lo c n low", "y"), lo=f32(-0.5), low=f32([-1])
    ),
    "max-of-one": after(node("Max", "c", "m"), node("Max", "m zero", "y"), zero=f32(0)),
    "min": after(node("Min", "hi c six", "y"), hi=f32(0.5), six=f32([[6]])),
    "max-batch-last": flat(
        node("Transpose", "f", "t"),
        node("Sum", "t t k", "s"),
        node("Max", "s zero", "m"),
        node("Transpose", "m", "y"),
        k=floats(SEED, 144, 1),
        zero=f32(0),
    ),
    "max-of-constants": after(
        node("Max", "k j", "m"), node("Add", "c m", "y"), k=floats(SEED, 4, 1, 1), j=f32(0)
    ),
    # More activations, reductions and moves
    "neg-behind-a-relu": after(node("Relu", "c", "r"), node("Neg", "r", "y")),
    "hard-sigmoid": after(node("HardSigmoid", "c", "y")),
    "hard-sigmoid-of-a-relu": after(
        node("Relu", "c", "r"), node("HardSigmoid", "r", "y", alpha=-0.5, beta=0.75)
    ),
    "reduce-max": after(node("ReduceMax", "c", "y", axes=[2, 3], keepdims=0)),
    "reduce-max-of-rows": after(node("ReduceMax", "c", "y", axes=[-1])),
    "reduce-max-input": first(
        FIRST, node("ReduceMax", "c axes", "y"), opset=18, axes=ints(1), **CONV
    ),
    "depth-to-space": after(node("DepthToSpace", "c", "y", blocksize=2)),
    "depth-to-space-by-columns": after(node("DepthToSpace", "c", "y", blocksize=2, mode="CRD")),
    "split": after(
        parts("Split", "c", "low high", axis=1),
        node("MaxPool", "low", "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Add", "p high", "y"),
    ),
    "split-sizes": after(
        parts("Split", "c sizes", "low middle high", axis=-1),
        node("Concat", "high low", "y", axis=3),
        sizes=ints(1, 3, 2),
    ),
    "split-attribute": first(
        FIRST,
        parts("Split", "c", "low high", axis=2, split=[4, 2]),
        node("Relu", "high", "y"),
        opset=11,
        **CONV,
    ),
    "split-into-unequal-parts": first(
        FIRST,
        parts("Split", "c", "p q r s", axis=3, num_outputs=4),
        node("Concat", "s q", "y", axis=3),
        opset=18,
        shape=("N", 2, 6, 7),
        **CONV,
    ),
}


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())
