"""What operators with several operands or several outputs refuse."""

import numpy as np
import pytest

from tests.support.nets.onnx_cases import after, parts
from tests.support.nets.onnx_errors import refusal
from tests.support.nets.onnx_nets import f32, floats, network, node, save

BAD = {
    "sum-shapes": (
        after(node("Flatten", "c", "f"), node("Sum", "c f", "y")),
        "expected Sum of tensors of the same shape, found (N, 4, 6, 6), (N, 144), in node 'y_node'",
    ),
    "sum-of-many": (
        after(node("Sum", "c " * 257, "y")),
        "expected Sum of at most 256 operands, found 257, in node 'y_node'",
    ),
    "sum-per-pixel": (
        after(node("Sum", "c c k", "y"), k=floats(1, 4, 6, 5)),
        "expected Sum of one constant to a channel, found (4, 6, 5) on (N, 4, 6, 6)",
    ),
    "sum-nan": (
        after(node("Sum", "c k", "y"), k=f32(np.nan)),
        "expected finite bias, found 1 of 1 NaN or infinite, in initialiser 'k'",
    ),
    "mean-constant": (
        after(node("Mean", "c k", "y"), k=f32(1)),
        "expected Mean of tensors that are computed, found 1 constants, in node 'y_node'",
    ),
    "max-per-channel": (
        after(node("Max", "c k", "y"), k=floats(1, 4, 1, 1)),
        "expected Max with limits of one value, found constants of shapes [(4, 1, 1)]",
    ),
    "min-tensors": (
        after(node("GlobalMaxPool", "c", "r"), node("Min", "c r", "y")),
        "expected Min of tensors of the same shape, found (N, 4, 6, 6), (N, 4, 1, 1)",
    ),
    "hard-sigmoid-nan": (
        after(node("HardSigmoid", "c", "y", alpha=float("nan"))),
        "expected HardSigmoid with a finite alpha and beta, found nan and 0.5, in node 'y_node'",
    ),
    "reduce-max-batch": (
        after(node("ReduceMax", "c", "y", axes=[0, 1])),
        "expected ReduceMax over axes behind the batch, found axes [0, 1]",
    ),
    "depth-to-space-channels": (
        after(node("DepthToSpace", "c", "y", blocksize=3)),
        "expected DepthToSpace with a square of blocksize that divides the channels, found 3",
    ),
    "depth-to-space-mode": (
        after(node("DepthToSpace", "c", "y", blocksize=2, mode="ABC")),
        "expected DepthToSpace of mode DCR or CRD, found 'ABC', in node 'y_node'",
    ),
    "split-batch": (
        after(parts("Split", "c", "p q", axis=0), node("Relu", "p", "y")),
        "expected Split along one of axes 1 to 3, found axis 0, in node 'p q_node'",
    ),
    "split-unequal": (
        after(parts("Split", "c", "p q r s", axis=2), node("Relu", "p", "y")),
        "expected Split into equal parts, found 6 values into 4, in node 'p q r s_node'",
    ),
    "split-sizes": (
        after(parts("Split", "c k", "p q", axis=2), node("Relu", "p", "y"), k=np.array([2, 3])),
        "expected Split into 2 parts of 6 values, found [2, 3], in node 'p q_node'",
    ),
    "split-computed": (
        after(parts("Split", "c c", "p q", axis=2), node("Relu", "p", "y")),
        "expected Split with constant split, found tensor 'c', which is computed",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_imported_is_refused_with_the_place(case, tmp_path):
    (nodes, constants, shape, opset), message = BAD[case]
    assert message in refusal(save(network(nodes, constants, shape, opset=opset), tmp_path))


def test_a_sum_of_constants_that_fan_out_is_not_made(tmp_path):
    # Broadcast together they would have 10^12 values.
    nodes, constants, shape, opset = after(
        node("Sum", "k j", "m"),
        node("Add", "c m", "y"),
        k=np.zeros((1_000_000, 1), "f4"),
        j=np.zeros((1, 1_000_000), "f4"),
    )
    message = refusal(save(network(nodes, constants, shape, opset=opset), tmp_path))
    assert "expected Sum to constants of at most 160000000 values together" in message
