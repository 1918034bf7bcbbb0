"""Ifs that sizes decide, and what networks for small devices read and do in codes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from refmodel.exchange.onnx.branches import with_branches
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.graph import FakeQuant, FloatNetwork, Matrix
from tests.support.nets.onnx_cases import CONV, FIRST, SEED, constant, relative, runtime
from tests.support.nets.onnx_nets import f32, floats, network, node, save

SHAPE = ("N", 2, 6, 6)


def branch(*nodes, output="t", **constants):
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(each, name) for name, each in constants.items()]
    return helper.make_graph(list(nodes), "branch", [], [value], tensors)


def width_is(size: int) -> list[onnx.NodeProto]:
    """Nodes that compare the width of ``c``, which is 6."""
    return [
        node("Shape", "c", "s"),
        node("Gather", "s three", "w_of_c"),
        constant("size", np.array(size)),
        node("Equal", "w_of_c size", "same"),
    ]


def with_if(size: int, then, other, *behind) -> onnx.ModelProto:
    chosen = node("If", "same", "i", then_branch=then, else_branch=other)
    nodes = [FIRST, *width_is(size), chosen, *(behind or [node("Relu", "i", "y")])]
    return network(nodes, CONV | {"three": np.array(3)}, SHAPE)


def check(model: onnx.ModelProto, tmp_path) -> FloatNetwork:
    loaded = load_onnx(save(model, tmp_path))
    x = floats(SEED, 2, *loaded.input_shape)
    expected = np.concatenate([runtime(model, image[None]) for image in x])
    assert relative(loaded.forward(x), expected) <= 1e-5
    return loaded


PAIR = (branch(node("Neg", "c", "t")), branch(node("Identity", "c", "t")))


@pytest.mark.parametrize("size", [6, 1])
def test_the_branch_that_the_sizes_take_is_imported(size, tmp_path):
    check(with_if(size, *PAIR), tmp_path)


def test_the_other_branch_may_hold_anything(tmp_path):
    check(with_if(6, PAIR[0], branch(node("Det", "c", "t"))), tmp_path)


def test_the_branch_that_is_not_taken_would_be_found():
    model = with_if(6, *PAIR)
    x = floats(SEED, 1, 2, 6, 6)
    right, wrong = (with_branches(model, {"i": holds}) for holds in (True, False))
    assert relative(runtime(right, x), runtime(model, x)) <= 1e-6
    assert relative(runtime(wrong, x), runtime(model, x)) > 0.1


def test_both_branches_may_have_the_same_names_and_own_weights(tmp_path):
    first = branch(node("Mul", "c k", "m"), node("Relu", "m", "t"), k=floats(SEED + 1, 4, 1, 1))
    other = branch(node("Add", "c k", "m"), node("Relu", "m", "t"), k=floats(SEED + 2, 4, 1, 1))
    for size in (6, 1):
        check(with_if(size, first, other), tmp_path)


def test_an_if_in_a_branch_of_another(tmp_path):
    inner = node("If", "same", "j", then_branch=PAIR[0], else_branch=PAIR[1])
    check(with_if(6, branch(inner, node("Mul", "j j", "t")), PAIR[1]), tmp_path)


def test_a_layer_takes_what_its_only_reader_does_behind_an_if(tmp_path):
    # What follows the branch is taken over as if there had been no If.
    model = with_if(1, *PAIR, node("Mul", "i two", "y"))
    model.graph.initializer.append(numpy_helper.from_array(f32(2), "two"))
    loaded = check(model, tmp_path)
    assert [type(each) for each in loaded.nodes] == [Matrix]


def codes_in(kind, *, pixels: bool) -> onnx.ModelProto:
    """A network whose input is of 8 bits."""
    zero = np.array(-128 if kind == np.int8 else 3, kind)
    first = (
        node("Cast", "x", "f", to=TensorProto.FLOAT)
        if pixels
        else node("DequantizeLinear", "x scale zero", "f")
    )
    nodes = [first, node("Conv", "f w b", "y", pads=[1, 1, 1, 1])]
    model = network(
        nodes,
        CONV | {"scale": f32(0.05), "zero": zero},
        SHAPE,
        kind=TensorProto.INT8 if kind == np.int8 else TensorProto.UINT8,
    )
    if pixels:
        del model.graph.initializer[2:]
    return model


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_an_input_of_codes_is_one_of_the_values_that_they_stand_for(kind, tmp_path):
    model = codes_in(kind, pixels=False)
    loaded = load_onnx(save(model, tmp_path))
    limits = np.iinfo(kind)
    codes = np.random.default_rng(SEED).integers(limits.min, limits.max + 1, (2, 2, 6, 6))
    expected = np.concatenate([runtime(model, each[None].astype(kind)) for each in codes])
    zero = -128 if kind == np.int8 else 3
    found = loaded.forward(((codes - zero) * np.float32(0.05)).astype(np.float32))
    assert relative(found, expected) <= 1e-5
    assert isinstance(loaded.nodes[0], FakeQuant)


def test_pixels_that_are_cast_are_an_input_of_pixels(tmp_path):
    model = codes_in(np.uint8, pixels=True)
    loaded = load_onnx(save(model, tmp_path))
    x = np.random.default_rng(SEED).integers(0, 256, (1, 2, 6, 6), np.uint8)
    assert relative(loaded.forward(x.astype(np.float32)), runtime(model, x)) <= 1e-5


@pytest.mark.parametrize(("low", "high"), [(-8, 7), (-128, 7), (-8, 127)])
def test_limits_of_codes_are_limits_of_values(low, high, tmp_path):
    # As Brevitas writes activations of fewer than 8 bits.
    nodes = [
        FIRST,
        node("QuantizeLinear", "c s z", "q"),
        node("Clip", "q low high", "k"),
        node("Transpose", "k", "t", perm=[0, 2, 3, 1]),
        node("DequantizeLinear", "t s z", "y"),
    ]
    codes = {"s": f32(0.1), "z": np.int8(0), "low": np.int8(low), "high": np.int8(high)}
    model = network(nodes, CONV | codes, SHAPE)
    loaded = load_onnx(save(model, tmp_path))
    x = floats(SEED, 1, 2, 6, 6)
    apart = np.abs(loaded.forward(x) - runtime(model, x)) / 0.1
    assert (apart > 0.5).mean() <= 0.01  # sums in another order
    assert loaded.forward(x).max() <= high * 0.1 + 1e-6


def test_weights_of_four_bits_are_clipped_codes(tmp_path):
    nodes = [
        node("QuantizeLinear", "w s z", "q"),
        node("Clip", "q low high", "k"),
        node("DequantizeLinear", "k s z", "v"),
        node("Conv", "x v b", "y"),
    ]
    codes = {"s": f32(0.03), "z": np.int8(0), "low": np.int8(-7), "high": np.int8(7)}
    model = network(nodes, CONV | codes, SHAPE)
    loaded = check(model, tmp_path)
    (layer,) = loaded.nodes
    assert isinstance(layer, Matrix)
    assert layer.exact
    assert np.abs(layer.weight).max() == 7
