"""What conditions, statistics, repetitions and codes refuse."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.support.nets.onnx_cases import after, constant, first, flat, ints
from tests.support.nets.onnx_errors import refusal
from tests.support.nets.onnx_nets import f32, floats, network, node, save

CODES = {"s": f32(0.1), "z": np.int8(0)}


def branch(*nodes, output="t"):
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), "branch", [], [value])


def decided(condition: str, *before, then=None, **constants):
    then = then or branch(node("Relu", "c", "t"))
    other = branch(node("Neg", "c", "t"))
    chosen = node("If", condition, "y", then_branch=then, else_branch=other)
    return after(*before, chosen, **constants)


BAD = {
    "greater-of-tensors": (
        after(node("Relu", "c", "r"), node("Greater", "c r", "g"), node("Where", "g c r", "y")),
        "expected Greater of a tensor with one constant, found 0 constants of shapes []",
    ),
    "less-per-channel": (
        after(node("Less", "c k", "g"), node("Where", "g c c", "y"), k=floats(1, 4, 1, 1)),
        "expected Less of a tensor with one constant, found 1 constants of shapes [(4, 1, 1)]",
    ),
    "where-per-channel": (
        after(
            node("Less", "c k", "g"), node("Where", "g c j", "y"), k=f32(0), j=floats(1, 4, 1, 1)
        ),
        "expected Where with constants of one value, found (4, 1, 1), in node 'y_node'",
    ),
    "where-shapes": (
        after(
            node("GlobalMaxPool", "c", "p"),
            node("Less", "p k", "g"),
            node("Where", "g c c", "y"),
            k=f32(0),
        ),
        "expected Where of tensors of one shape, found (N, 4, 1, 1), (N, 4, 6, 6)",
    ),
    "where-of-two-tensors": (
        after(
            node("MaxPool", "c", "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Less", "p k", "g"),
            node("Where", "g c p", "y"),
            k=f32(0),
        ),
        "expected Where between functions of one tensor, found one of",
    ),
    "and-shapes": (
        after(
            node("GlobalMaxPool", "c", "p"),
            node("Less", "p k", "g"),
            node("Less", "c k", "h"),
            node("And", "g h", "a"),
            node("Where", "a c c", "y"),
            k=f32(0),
        ),
        "expected And of tensors of one shape, found (N, 4, 1, 1), (N, 4, 6, 6)",
    ),
    "instance-norm-of-a-vector": (
        flat(node("InstanceNormalization", "f k k", "y"), k=floats(1, 144)),
        "expected InstanceNormalization of a tensor with pixels, found (N, 144)",
    ),
    "instance-norm-scale": (
        after(node("InstanceNormalization", "c k k", "y"), k=floats(1, 3)),
        "expected InstanceNormalization with scale of 4 values, found (3,), in node 'y_node'",
    ),
    "group-norm-groups": (
        first(
            node("Conv", "x w", "c"),
            node("GroupNormalization", "c k k", "y", num_groups=3),
            opset=21,
            w=floats(1, 4, 2, 3, 3),
            k=floats(1, 4),
        ),
        "expected GroupNormalization with groups that divide the channels, found 3 groups of",
    ),
    "layer-norm-over-the-batch": (
        after(node("LayerNormalization", "c k", "y", axis=0), k=floats(1, 1, 4, 6, 6)),
        "expected LayerNormalization over axes behind the batch (statistics over the batch are",
    ),
    "softmax-over-the-batch": (
        after(node("Softmax", "c", "s", axis=0), node("Relu", "s", "y")),
        "expected Softmax of each image by itself (statistics over the batch are those of",
    ),
    "expand-the-batch": (
        after(node("Expand", "c s", "y"), s=ints(3, 4, 6, 6)),
        "expected Expand with shape for 4 axes, 1 of the batch, found [3, 4, 6, 6]",
    ),
    "expand-to-another-shape": (
        after(node("Expand", "c s", "y"), s=ints(1, 4, 5, 6)),
        "expected Expand to a shape that the tensor fits, found [1, 4, 5, 6]",
    ),
    "tile-without-end": (
        after(node("Tile", "c r", "y"), r=ints(1, 1 << 20, 1 << 20, 1)),
        "expected Tile to 1 to 16777216 values, found repeats [1, 1048576, 1048576, 1]",
    ),
    "tile-the-batch": (
        after(node("Tile", "c r", "y"), r=ints(2, 1, 1, 1)),
        "expected Tile with repeats for 4 axes, 1 of the batch, found [2, 1, 1, 1]",
    ),
    "resize-to-broken-sizes": (
        after(
            node(
                "Resize",
                "c - s",
                "y",
                mode="linear",
                coordinate_transformation_mode="align_corners",
            ),
            s=f32([1, 1, 0.7, 1]),
        ),
        "expected Resize to whole sizes, where corners are aligned, found 6 to 4.2",
    ),
    "resize-antialias": (
        first(
            node("Resize", "x - s", "r", mode="linear", antialias=1),
            node("Conv", "r w", "y"),
            opset=18,
            w=floats(1, 4, 2, 3, 3),
            s=f32([1, 1, 0.5, 0.5]),
        ),
        "expected Resize with antialias = 0, exclude_outside = 0, found one that is set",
    ),
    "if-of-a-computed-value": (
        decided("g", node("Greater", "c k", "g"), k=f32(0)),
        "expected If with a condition of constants and sizes (export with fixed sizes and in",
    ),
    "if-of-the-batch": (
        decided(
            "e",
            node("Shape", "c", "s"),
            node("Gather", "s zero", "n"),
            node("Equal", "n one", "e"),
            zero=np.array(0),
            one=np.array(1),
        ),
        "found tensor 'e', computed from the input or the size of the batch, in node 'y_node'",
    ),
    "if-with-an-unknown-operator": (
        decided("t0", constant("t0", np.array(True)), then=branch(node("Det", "c", "t"))),
        "expected an operator that can be imported, found 'Det'",
    ),
    "codes-as-values": (
        after(node("QuantizeLinear", "c s z", "q"), node("Cast", "q", "y", to=1), **CODES),
        "expected Cast of values, which DequantizeLinear makes, found codes 'q', in node 'y_node'",
    ),
    "limits-of-codes": (
        after(
            node("QuantizeLinear", "c s z", "q"),
            node("Clip", "q low high", "k"),
            node("DequantizeLinear", "k s z", "y"),
            low=np.int8(4),
            high=np.int8(7),
            **CODES,
        ),
        "expected Clip of codes to limits that hold the zero point, found 0.4 to 0.7",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_imported_is_refused_with_the_place(case, tmp_path):
    (nodes, constants, shape, opset), message = BAD[case]
    assert message in refusal(save(network(nodes, constants, shape, opset=opset), tmp_path))
