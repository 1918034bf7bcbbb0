"""Every bad ONNX file gives one line that says what was expected, what was found and where."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.external_data_helper import set_external_data

from refmodel.exchange.onnx.load import load_onnx
from tests.support.nets.onnx_errors import refusal
from tests.support.nets.onnx_nets import f32, floats, network, node, save, small_cnn

CONV = {"w": floats(2, 4, 2, 3, 3), "b": floats(3, 4)}
FIRST = node("Conv", "x w b", "c")
"""(N, 2, 5, 5) to (N, 4, 3, 3)."""


def nan(values: np.ndarray, value: float = np.nan) -> np.ndarray:
    values = values.copy()
    values.flat[1] = value
    return values


def conv(weights=CONV["w"], bias=CONV["b"], **attributes):
    return network([node("Conv", "x w b", "y", **attributes)], {"w": weights, "b": bias})


def after(*nodes, **constants):
    return network([FIRST, *nodes], CONV | constants)


def flat(*nodes, **constants):
    return after(node("Flatten", "c", "f"), *nodes, **constants)


def pool(op: str = "MaxPool", **attributes: Any):
    return after(node(op, "c", "y", **attributes))


def norm(source="c", output="y", **changes):
    values = {name: np.ones(4, np.float32) for name in ("scale", "shift", "mean", "variance")}
    training = changes.pop("training", 0)
    names = f"{source} scale shift mean variance"
    each = node("BatchNormalization", names, output, training_mode=training)
    return [each], values | changes


def with_input(shape, **rest):
    return network([node("Conv", "x w b", "y")], CONV, shape, **rest)


def two_inputs():
    model = conv()
    model.graph.input.append(onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    return model


def two_outputs():
    model = after(node("Relu", "c", "y"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N"]))
    return model


def no_shape():
    model = conv()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


def initialiser_of_bytes(count):
    model = conv()
    model.graph.initializer[0].raw_data = bytes(count)
    return model


def sequence():
    model = conv()
    tensor = onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 2, 5, 5])
    model.graph.input[0].type.CopyFrom(onnx.helper.make_sequence_type_proto(tensor))
    return model


def domain():
    model = after(node("Relu", "c", "y", domain="com.example"))
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    return model


POOL: dict[str, Any] = {"kernel_shape": [2, 2]}
BAD = {
    "operator": (after(node("Det", "c", "y")), "found 'Det', in node 'y_node'"),
    "operator-domain": (domain(), "found 'com.example.Relu', in node 'y_node'"),
    "nan-weights": (
        conv(nan(CONV["w"])),
        "expected finite weights, found 1 of 72 NaN or infinite, in initialiser 'w'",
    ),
    "infinite-bias": (
        conv(bias=nan(CONV["b"], -np.inf)),
        "expected finite bias, found 1 of 4 NaN or infinite, in initialiser 'b'",
    ),
    "weights-beyond-float32": (
        conv(nan(CONV["w"].astype(np.float64), 1e300)),
        "found 1 of 72 NaN or infinite, in initialiser 'w'",
    ),
    "nan-behind-transpose": (
        network(
            [node("Transpose", "w", "t", perm=[1, 0, 2, 3]), node("Conv", "x t", "y")],
            {"w": nan(floats(4, 2, 3, 3, 3))},
        ),
        "found 1 of 54 NaN or infinite, in initialiser 'w'",
    ),
    "nan-added": (
        after(node("Add", "c k", "y"), k=nan(floats(5, 4, 1, 1))),
        "found 1 of 4 NaN or infinite, in initialiser 'k'",
    ),
    "nan-norm": (
        after(*norm()[0], **norm(mean=np.full(4, np.nan, np.float32))[1]),
        "expected finite mean, found 4 of 4 NaN or infinite, in initialiser 'mean'",
    ),
    "integer-weights": (
        conv(CONV["w"].astype(np.int32)),
        "expected Conv with weights in floating point, found int32, in node 'y_node'",
    ),
    "computed-weights": (
        after(node("Conv", "x c", "y")),
        "expected Conv with constant weights, found tensor 'c', which is computed",
    ),
    "weights-shape": (
        conv(floats(6, 4, 3, 3, 3)),
        "found weights (4, 3, 3, 3) in 1 groups on 2 channels, in node 'y_node'",
    ),
    "weights-axes": (conv(floats(6, 4, 2, 3)), "expected Conv with weights (out, in, kh, kw)"),
    "groups": (conv(floats(6, 5, 1, 3, 3), floats(6, 5), group=2), "in 2 groups on 2 channels"),
    "kernel-shape": (conv(kernel_shape=[3, 2]), "expected Conv with kernel_shape [3, 3]"),
    "kernel-too-large": (
        conv(floats(6, 4, 2, 7, 3)),
        "expected Conv with an input as large as its kernel (7, 3), found (5, 5)",
    ),
    "bias-shape": (conv(bias=floats(6, 3)), "expected Conv with a bias of 4 values, found (3,)"),
    "strides": (conv(strides=[0, 1]), "expected Conv with two strides of at least 1"),
    "pads": (conv(pads=[-1, 0, 0, 0]), "expected Conv with four pads of at least 0"),
    "auto-pad": (conv(auto_pad="MOST"), "expected Conv with a known auto_pad, found 'MOST'"),
    "conv-1d": (
        with_input(("N", 2, 5)),
        "expected Conv with weights of three axes, found (4, 2, 3, 3), in node",
    ),
    "dynamic-height": (
        with_input(("N", 2, "H", 5)),
        "expected an input with fixed sizes behind the batch, found (N, 2, H, 5), in input 'x'",
    ),
    "unknown-height": (with_input(("N", 2, None, 5)), "found (N, 2, ?, 5), in input 'x'"),
    "size-0": (with_input(("N", 0, 5, 5)), "found (N, 0, 5, 5), in input 'x'"),
    "no-batch": (with_input((5,)), "expected an input of 2 to 4 axes, the batch first, found (5)"),
    "no-shape": (no_shape(), "expected a valid ONNX network, found: Field 'shape' of 'type'"),
    "sequence": (sequence(), "expected an input with a shape, found none, in input 'x'"),
    "input-type": (
        with_input(("N", 2, 5, 5), kind=TensorProto.UINT8),
        "expected an input of floating point, found UINT8, in input 'x'",
    ),
    "two-inputs": (two_inputs(), "expected a network with one input, found 2"),
    "two-outputs": (
        two_outputs(),
        "extract_model in Python writes a file that ends with the one that is wanted, such as 'y'",
    ),
    "constant-output": (
        network([node("Identity", "w", "y")], CONV),
        "expected a network that computes its output from its input, found output 'w'",
    ),
    "no-layer": (
        network([node("Relu", "x", "y")], {}),
        "expected a network with a convolution or fully connected layer, found none",
    ),
    "five-axes": (
        after(node("Reshape", "c s", "y"), s=np.array([0, 2, 2, 3, 3])),
        "expected tensors of at most three axes behind the batch, found (2, 2, 3, 3)",
    ),
    "short-initialiser": (initialiser_of_bytes(4), "(tensor name: w) raw_data size (4 bytes)"),
    "long-initialiser": (initialiser_of_bytes(292), "found: cannot reshape array of size 73"),
    "norm-training": (
        after(*norm(training=1)[0], **norm()[1]),
        "expected BatchNormalization for inference, found training_mode = 1",
    ),
    "norm-size": (
        after(*norm()[0], **norm(mean=np.ones(3, np.float32))[1]),
        "expected BatchNormalization with four times 4 values",
    ),
    "norm-variance": (
        after(*norm()[0], **norm(variance=f32([1, 1, -2, 1]))[1]),
        "expected BatchNormalization with variance + epsilon above 0, found -1.99999",
    ),
    "gemm-transposed-batch": (
        flat(node("Gemm", "f w2", "y", transA=1), w2=floats(7, 36, 5)),
        "expected Gemm with transA = 0, the batch being its rows, found transA = 1",
    ),
    "gemm-sizes": (
        flat(node("Gemm", "f w2", "y"), w2=floats(7, 35, 5)),
        (
            "expected Gemm of an input (N, in) and weights (in, out), "
            "found input (N, 36) and weights of shape (35, 5)"
        ),
    ),
    "matmul-of-images": (
        after(node("MatMul", "c w2", "y"), w2=floats(7, 4, 5)),
        "expected MatMul with weights of 3 values along an axis, found 4, in node",
    ),
    "matmul-left": (
        flat(node("MatMul", "w2 f", "y"), w2=floats(7, 3, 5)),
        "expected MatMul with the weights on the right, found constants on the left",
    ),
    "batch-last-at-the-end": (
        flat(node("Transpose", "f", "y")),
        "expected an output with the batch first, found it last in 'y'",
    ),
    "batch-last-in-a-product": (
        flat(node("Transpose", "f", "t"), node("MatMul", "t w2", "y"), w2=floats(7, 36, 5)),
        "expected MatMul of a tensor with the batch first, found 't', its batch last",
    ),
    "batch-last-with-a-row": (
        flat(node("Transpose", "f", "t"), node("Add", "t k", "y"), k=floats(7, 36)),
        "expected Add of one constant to a row, found (36,) on (F, N), in node 'y_node'",
    ),
    "batch-last-and-first": (
        flat(node("Transpose", "f", "t"), node("Add", "t f", "y")),
        "expected Add of tensors with their batches in one place, found 'f'",
    ),
    "add-shapes": (
        flat(node("Add", "f c", "y")),
        "expected Add of two tensors of one shape, or sizes of 1 in one of them, found (N, 36) and",
    ),
    "add-per-pixel": (
        network(
            [node("Conv", "x w b", "c"), node("Add", "c k", "y")],
            CONV | {"k": floats(8, 4, 130, 130)},
            ("N", 2, 132, 132),
        ),
        "expected Add of one constant to a channel, found (4, 130, 130) on (N, 4, 130, 130)",
    ),
    "add-does-not-fit": (
        after(node("Add", "c k", "y"), k=floats(8, 7, 1, 1)),
        "expected Add of one constant to a channel, found (7, 1, 1)",
    ),
    "mul-of-tensors": (
        flat(node("Mul", "f c", "y")),
        "expected Mul of two tensors of one shape, or sizes of 1 in one of them, found (N, 36) and",
    ),
    "div-by-zero": (
        after(node("Div", "c k", "y"), k=f32([1, 0, 1, 1]).reshape(4, 1, 1)),
        "expected Div by constants other than 0, found a zero or a computed divisor",
    ),
    "div-of-a-constant": (after(node("Div", "k c", "y"), k=f32(1)), "or a computed divisor"),
    "mul-integers": (
        after(node("Mul", "c k", "y"), k=np.array(3)),
        "expected Mul with factors in floating point, found int64",
    ),
    "pad-batch": (
        after(node("Pad", "c p", "y"), p=np.array([1, 0, 0, 0, 0, 0, 0, 0])),
        "expected Pad of axes behind the batch, found (1, 0) of it, in node 'y_node'",
    ),
    "pad-value": (
        after(node("Pad", "c p v", "y"), p=np.array([0] * 7 + [1]), v=f32(2)),
        "expected Pad with zeros, found 2",
    ),
    "pad-computed": (
        after(node("Pad", "c c", "y")),
        "expected Pad with constant pads, found tensor 'c', which is computed",
    ),
    "pad-axes": (
        after(node("Pad", "c p", "y"), p=np.zeros(6, np.int64)),
        "expected Pad with two pads to each of 4 axes, found [0, 0, 0, 0, 0, 0]",
    ),
    "pad-everything-off": (
        after(node("Pad", "c p", "y"), p=np.array([0, 0, -3, 0, 0, 0, 0, 0])),
        "expected Pad that leaves something, found (N, 4, 0, 3)",
    ),
    "pad-huge": (
        after(node("Pad", "c p", "y"), p=np.array([0, 0, 1 << 40, 0, 0, 0, 0, 0])),
        "expected Pad of at most 65536, found",
    ),
    "pad-mode": (
        after(node("Pad", "c p", "y", mode="most"), p=np.zeros(8, np.int64)),
        "expected Pad of mode constant, edge, reflect or wrap, found 'most'",
    ),
    "slice-batch": (
        after(node("Slice", "c i j", "y"), i=np.array([1]), j=np.array([2])),
        "expected Slice of axes behind the batch, found 1:2:1 of it, in node 'y_node'",
    ),
    "slice-nothing": (
        after(node("Slice", "c i i a", "y"), i=np.array([1]), a=np.array([1])),
        "expected Slice that leaves something, found (N, 0, 3, 3)",
    ),
    "slice-axis": (
        after(node("Slice", "c i j a", "y"), i=np.array([0]), j=np.array([2]), a=np.array([4])),
        "expected Slice along axes 1 to 3 with steps other than 0, found step 1 along axis 4",
    ),
    "slice-computed": (
        after(node("Slice", "c c c", "y")),
        "expected Slice with constant starts, found tensor 'c', which is computed",
    ),
    "gather-batch": (
        after(node("Gather", "c i", "y"), i=np.array([0])),
        "expected Gather along one of axes 1 to 3, found axis 0, in node 'y_node'",
    ),
    "gather-axis": (
        flat(node("Gather", "f i", "g", axis=1), node("Gather", "g i", "y", axis=2), i=[0]),
        "expected Gather along one of axes 1 to 1, found axis 2, in node 'y_node'",
    ),
    "gather-computed": (
        after(node("Gather", "c c", "y", axis=1)),
        "expected Gather with constant indices, found tensor 'c', computed",
    ),
    "gather-above": (
        after(node("Gather", "c i", "y", axis=1), i=np.array([0, 4])),
        "expected Gather with indices -4 to 3, found 0 to 4, in node 'y_node'",
    ),
    "gather-below": (
        after(node("Gather", "c i", "y", axis=3), i=np.array([[-4], [2]])),
        "expected Gather with indices -3 to 2, found -4 to 2, in node 'y_node'",
    ),
    "gather-nothing": (
        after(node("Gather", "c i", "y", axis=1), i=np.zeros((0, 2), np.int64)),
        "expected Gather with integer indices, at least one, found int64 of shape (0, 2)",
    ),
    "gather-one-value": (
        flat(node("Gather", "f i", "y", axis=1), i=np.array(5)),
        "expected Gather that leaves an axis behind the batch, found none",
    ),
    "concat-batch": (
        after(node("Concat", "c c", "y", axis=0)),
        "found (N, 4, 3, 3), (N, 4, 3, 3) along axis 0, in node 'y_node'",
    ),
    "concat-shapes": (
        after(node("MaxPool", "c", "p", kernel_shape=[2, 2]), node("Concat", "c p", "y", axis=1)),
        (
            "expected Concat of tensors that differ in one axis behind the batch, "
            "found (N, 4, 3, 3), (N, 4, 2, 2) along axis 1"
        ),
    ),
    "concat-constants": (
        after(node("Concat", "c k", "y", axis=1), k=np.ones((1, 2, 3, 3), np.float32)),
        "expected Concat of tensors, or of one tensor and zeros, found constants (1, 2, 3, 3)",
    ),
    "mean-batch": (
        after(node("ReduceMean", "c", "y", axes=[0, 1])),
        "expected ReduceMean over axes behind the batch, found axes [0, 1]",
    ),
    "mean-everything": (
        after(node("ReduceMean", "c", "y", axes=[1, 2, 3], keepdims=0)),
        "expected ReduceMean that leaves an axis behind the batch, found none",
    ),
    "cast-to-integers": (
        after(node("Cast", "c", "d", to=TensorProto.INT32), node("Relu", "d", "y")),
        "expected Cast to floating point, found INT32",
    ),
    "quantised-to-16-bits": (
        after(node("QuantizeLinear", "c s z", "y"), s=f32(1), z=np.uint16(3)),
        "expected QuantizeLinear of 8 bits with one scale on a computed tensor",
    ),
    "quantised-to-a-channel": (
        after(
            node("QuantizeLinear", "c s z", "y", axis=1), s=np.ones(4, "f4"), z=np.zeros(4, "u1")
        ),
        "found 4 scales and zero points of uint8",
    ),
    "quantised-by-zero": (
        after(node("QuantizeLinear", "c s", "y"), s=f32(0)),
        "expected QuantizeLinear with a scale above 0, found 0",
    ),
    "dequantised-alone": (
        after(node("DequantizeLinear", "c s", "y"), s=f32(1)),
        "expected DequantizeLinear of a tensor from QuantizeLinear, found 'c'",
    ),
    "dequantised-otherwise": (
        after(
            node("QuantizeLinear", "c s", "q"),
            node("DequantizeLinear", "q t", "y"),
            s=f32(1),
            t=f32(2),
        ),
        (
            "expected DequantizeLinear as its tensor was quantised (scale 1, code of zero 0), "
            "found scale 2, code of zero 0"
        ),
    ),
    "clip-limits": (
        after(node("Clip", "c lo hi", "y"), lo=np.float32(1), hi=np.float32(0.5)),
        "expected Clip to limits min < max, found min 1, max 0.5",
    ),
    "clip-nan": (
        after(node("Clip", "c lo", "y"), lo=np.float32(np.nan)),
        "expected Clip to limits min < max, found min nan",
    ),
    "clip-computed": (
        after(node("Clip", "c c", "y")),
        "expected Clip with a constant min, found tensor 'c'",
    ),
    "clip-several": (
        after(node("Clip", "c lo", "y"), lo=np.zeros(2, np.float32)),
        "expected a well-formed Clip, found: can only convert an array of size 1",
    ),
    "pool-dilation": (pool(**POOL, dilations=[2, 1]), "expected MaxPool without dilation"),
    "pool-pads": (
        pool(**POOL, pads=[2, 0, 0, 0]),
        "expected MaxPool with pads below its kernel (2, 2), found (2, 0, 0, 0)",
    ),
    "pool-too-large": (
        pool("AveragePool", kernel_shape=[4, 4]),
        "expected AveragePool with an input as large as its kernel (4, 4)",
    ),
    "pool-of-vector": (
        flat(node("GlobalAveragePool", "f", "y")),
        "expected GlobalAveragePool of an input (N, C, H, W), found (N, 36)",
    ),
    "pool-indices": (
        after(
            onnx.helper.make_node("MaxPool", ["c"], ["p", "i"], kernel_shape=[2, 2]),
            node("Relu", "i", "y"),
        ),
        "expected Relu of a tensor that depends on the input, found 'i'",
    ),
    "flatten-batch": (
        after(node("Flatten", "c", "y", axis=0)),
        "expected Flatten that keeps the batch apart, found axis 0",
    ),
    "flatten-channels": (after(node("Flatten", "c", "y", axis=2)), "found axis 2"),
    "reshape-batch": (
        after(node("Reshape", "c s", "y"), s=np.array([4, -1])),
        (
            "expected Reshape that keeps the batch first and the number of values, "
            "found [4, -1] for (N, 4, 3, 3)"
        ),
    ),
    "reshape-size": (after(node("Reshape", "c s", "y"), s=np.array([0, 35])), "found [0, 35]"),
    "reshape-flat": (after(node("Reshape", "c s", "y"), s=np.array([-1])), "found [-1]"),
    "reshape-twice-free": (after(node("Reshape", "c s", "y"), s=np.array([-1, -1])), "[-1, -1]"),
    "reshape-allowzero": (
        after(node("Reshape", "c s", "y", allowzero=1), s=np.array([0, 36])),
        "expected Reshape without sizes of 0 under allowzero = 1, found [0, 36]",
    ),
    "reshape-allowzero-inside": (
        after(
            node("Shape", "c", "n", end=1),
            node("Concat", "n s", "t", axis=0),
            node("Reshape", "c t", "y", allowzero=1),
            s=np.array([0, 36]),
        ),
        "expected Reshape without sizes of 0 under allowzero = 1, found [0, 0, 36]",
    ),
    "reshape-computed": (
        after(node("Reshape", "c c", "y")),
        "expected Reshape with constant shape, found tensor 'c', which is computed",
    ),
    "transpose-batch": (
        after(node("Transpose", "c", "y")),
        "expected Transpose that keeps the batch first, found perm [3, 2, 1, 0]",
    ),
    "transpose-axes": (after(node("Transpose", "c", "y", perm=[0, 1, 2])), "found perm [0, 1, 2]"),
    "squeeze-size": (
        after(node("Squeeze", "c a", "y"), a=np.array([1])),
        "expected a well-formed Squeeze, found: cannot select an axis to squeeze out",
    ),
    "squeeze-batch": (
        after(node("Squeeze", "c a", "y"), a=np.array([0])),
        "expected Squeeze of axes behind the batch, found axes [0]",
    ),
    "squeeze-all": (
        network(
            [
                node("Conv", "x w", "c"),
                node("GlobalAveragePool", "c", "g"),
                node("Squeeze", "g", "y"),
            ],
            {"w": floats(9, 1, 2, 3, 3)},
        ),
        "expected Squeeze that leaves an axis behind the batch, found none",
    ),
    "argmax-inside": (
        flat(node("ArgMax", "f", "s", axis=1), node("Relu", "s", "y")),
        "expected ArgMax at the end of the network alone, found one before other nodes",
    ),
    "folding-fails": (
        network(
            [node("Reshape", "w s", "v"), node("Conv", "x v", "y")],
            {"w": CONV["w"], "s": np.array([5, 5])},
        ),
        "expected a well-formed Reshape, found: cannot reshape array of size 72",
    ),
    "checker": (
        network([node("Conv", "x w b", "y", colour=3)], CONV),
        "expected a valid ONNX network, found: Unrecognized attribute: colour for operator Conv",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_network_that_cannot_be_imported_is_refused_with_the_place(case, tmp_path):
    model, message = BAD[case]
    assert message in refusal(save(model, tmp_path))


def test_the_networks_that_the_bad_ones_are_made_from_are_good(tmp_path):
    for model in (conv(), after(*norm()[0], **norm()[1]), pool(**POOL), small_cnn(1)):
        load_onnx(save(model, tmp_path))


def test_a_missing_file_is_named(tmp_path):
    message = refusal(tmp_path / "none.onnx")
    assert message.startswith("expected a readable ONNX file, found: No such file or directory, in")


def test_a_folder_is_no_file(tmp_path):
    assert "expected a readable ONNX file" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content", [b"# notes\nnot a network\n", b"\x89PNG\r\n\x1a\n", b"{}"], ids=repr
)
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    assert "expected an ONNX file, found" in refusal(path)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"")
    assert "expected an ONNX file, found 0 bytes without a network" in refusal(path)


@pytest.mark.parametrize("seed", range(3))
def test_a_truncated_file_is_refused_wherever_it_ends(seed, tmp_path):
    whole = save(small_cnn(1), tmp_path).read_bytes()
    path = tmp_path / "short.onnx"
    for size in np.random.default_rng(seed).integers(1, len(whole), 20):
        path.write_bytes(whole[:size])
        refusal(path)


def test_missing_external_data_is_named(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(conv(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    message = refusal(path)
    assert "expected the network's external data, found" in message
    assert "weights.bin" in message


def test_external_data_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(bytes(72 * 4))
    folder = tmp_path / "inner"
    folder.mkdir()
    model = conv()
    tensor = model.graph.initializer[0]
    set_external_data(tensor, "../weights.bin", length=72 * 4)
    tensor.ClearField("raw_data")
    assert "expected the network's external data" in refusal(save(model, folder))
