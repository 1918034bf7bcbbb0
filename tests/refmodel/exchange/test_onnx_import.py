"""Networks as exporters write them, against onnxruntime; what they become in integers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from refmodel import golden
from refmodel.compression import compile as compiler
from refmodel.compression.quantize import quantize
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.graph import (
    Add,
    AveragePool,
    Clip,
    Concat,
    FloatNetwork,
    Matrix,
    MaxPool,
    Rearrange,
)
from refmodel.network.images import Preprocess, load_images
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.run import run_image
from refmodel.predict.accelerator.sizing import accelerator_config_for
from tests.support.nets.onnx_cases import (
    CASES,
    CONV,
    FIRST,
    LARGE,
    NORM,
    SEED,
    SHAPE,
    error_in_integers,
    ints,
    relative,
    runtime,
)
from tests.support.nets.onnx_nets import (
    f32,
    floats,
    network,
    node,
    reference,
    save,
    several_operands,
)

IMAGES = floats(SEED, 3, 2, 6, 6)


def images_for(shape) -> np.ndarray:
    return floats(SEED, 1, *shape[1:])


@pytest.mark.parametrize("case", CASES)
def test_every_operator_matches_onnxruntime(case, tmp_path):
    nodes, constants, shape, opset = CASES[case]
    model = network(nodes, constants, shape, opset=opset)
    loaded = load_onnx(save(model, tmp_path))
    x = images_for(shape)
    expected = runtime(model, x)
    found = loaded.forward(x)
    assert found.shape == expected.shape
    assert relative(found, expected) <= 1e-5
    # A batch is its images one by one.
    several = floats(SEED + 5, 3, *shape[1:])
    one_by_one = np.concatenate([runtime(model, image[None]) for image in several])
    assert relative(loaded.forward(several), one_by_one) <= 1e-5


@pytest.mark.parametrize("case", CASES)
def test_every_operator_in_integers_is_near_float(case, tmp_path):
    nodes, constants, shape, opset = CASES[case]
    loaded = load_onnx(save(network(nodes, constants, shape, opset=opset), tmp_path))
    x = floats(SEED, 8, *shape[1:])
    assert error_in_integers(loaded, x, tmp_path) <= 0.04


def test_operators_one_behind_the_other_match_onnxruntime(tmp_path):
    model = several_operands()
    loaded = load_onnx(save(model, tmp_path))
    for x in floats(SEED, 8, 1, 2, 4, 4):
        assert relative(loaded.forward(x), runtime(model, x)) <= 1e-5


def test_operators_one_behind_the_other_run_on_the_accelerator(tmp_path):
    loaded = load_onnx(save(several_operands(), tmp_path))
    x = floats(SEED, 16, 2, 4, 4)
    program = compiler.compile_network(quantize(loaded, x), scheme="dense")
    codes = golden.quantise_input(program, x)
    expected = golden.run_program(program, codes)[program.output].reshape(16, -1)
    image = network_image(program, accelerator_config_for(program))
    np.testing.assert_array_equal(run_image(image, program.layers, codes), expected)


def kinds(network: FloatNetwork) -> list[type]:
    return [type(each) for each in network.nodes]


def load_case(case: str, folder: Path) -> FloatNetwork:
    nodes, constants, shape, opset = CASES[case]
    return load_onnx(save(network(nodes, constants, shape, opset=opset), folder))


@pytest.mark.parametrize(
    ("case", "expected"),
    {
        "pad-before-a-padded-convolution": [Matrix],
        "pad-before-pooling": [Matrix, Rearrange, MaxPool],
        "option-a": [Matrix, Rearrange, Matrix, Add],
        "arithmetic-behind-a-layer": [Matrix],
        "bias-behind-a-transpose": [Matrix, Rearrange],
        "norm-first": [Matrix, Matrix],
        "mean": [Matrix, AveragePool],
        "concat-zeros": [Matrix, Rearrange],
        "cast": [Matrix, Clip],
    }.items(),
)
def test_what_operators_become(case, expected, tmp_path):
    assert kinds(load_case(case, tmp_path)) == expected


def test_a_border_becomes_the_pads_of_the_convolution(tmp_path):
    (layer,) = load_case("pad-before-a-padded-convolution", tmp_path).nodes
    assert isinstance(layer, Matrix)
    assert layer.pads == (1 + 1, 2 + 0, 0 + 1, 1 + 1)


def test_arithmetic_apart_is_a_depthwise_convolution_of_ones(tmp_path):
    layer = load_case("norm-first", tmp_path).nodes[0]
    assert isinstance(layer, Matrix)
    assert (layer.groups, layer.weight.shape) == (2, (2, 1, 1, 1))
    np.testing.assert_array_equal(layer.weight, 1)
    gain = NORM["scale"] / np.sqrt(NORM["variance"].astype(np.float64) + 1e-5)
    np.testing.assert_allclose(layer.gain, gain[:2])


def test_zero_channels_have_the_code_of_zero(tmp_path):
    quant = quantize(load_case("option-a", tmp_path), IMAGES)
    step = next(step for step in quant.steps if step.op == "rearrange")
    info = quant.tensors[step.output]
    assert info.shape == (3, 3, 8)
    assert step.params["fill"] == info.zero == 128
    empty = step.params["index"].reshape(info.shape) < 0
    assert empty[..., [0, 1, 6, 7]].all()
    assert not empty[..., 2:6].any()
    # Channel 2 + c of the output is channel c, every second pixel: (2y * 6 + 2x) * 4 + c.
    assert step.params["index"].reshape(info.shape)[1, 2, 3] == (2 * 6 + 4) * 4 + 1


# Opsets


def exported(opset: int) -> onnx.ModelProto:
    """A network whose operators changed between opset 9 and the newest."""
    constants = dict(CONV, **NORM, v=floats(SEED, 5, 4), d=floats(SEED, 5))
    if opset >= 11:
        constants |= {"lo": f32(0), "hi": f32(6)}
    if opset >= 13:
        constants["axes"] = ints(2, 3)
    mean = {} if opset >= 18 else {"axes": [2, 3]}
    squeeze = {} if opset >= 13 else {"axes": [2, 3]}
    nodes = [
        FIRST,
        node("BatchNormalization", "c scale shift mean variance", "n"),
        node("Clip", "n lo hi", "r") if opset >= 11 else node("Clip", "n", "r", min=0.0, max=6.0),
        node("Dropout", "r", "o"),
        node("ReduceMean", "o axes" if opset >= 18 else "o", "g", **mean),
        node("Squeeze", "g axes" if opset >= 13 else "g", "q", **squeeze),
        node("Identity", "q", "i"),
        node("Gemm", "i v d", "h", transB=1),
        node("Softmax", "h", "y", axis=1),
    ]
    model = network(nodes, constants, ("batch", 2, 6, 6), opset=opset)
    model.ir_version = 8 if opset < 21 else 10
    return model


NEWEST = onnx.defs.onnx_opset_version()


@pytest.mark.parametrize("opset", range(9, NEWEST + 1))
def test_opsets_9_to_the_newest_mean_the_same(opset, tmp_path):
    loaded = load_onnx(save(exported(opset), tmp_path))
    model = exported(17)
    del model.graph.node[-1]
    model.graph.output[0].name = "h"
    assert relative(loaded.forward(IMAGES), runtime(model, IMAGES)) <= 1e-5


# Random chains


@st.composite
def chains(draw):
    """A few operators that move values, one behind the other, on (4, 6, 6)."""
    index, nodes, constants = np.zeros((1, 4, 6, 6)), [FIRST], dict(CONV)
    name = "c"
    for number in range(draw(st.integers(1, 4))):
        op = draw(st.sampled_from(["Slice", "Pad", "Transpose", "Relu", "Mul"]))
        out, here = f"t{number}", f"k{number}"
        attributes: dict[str, Any] = {}
        inputs = name
        if op == "Slice":
            axis = draw(st.integers(1, 3))
            size = index.shape[axis]
            start = draw(st.integers(-size, size - 1))
            step = draw(st.sampled_from([1, 2, 3, -1, -2]))
            end = LARGE if step > 0 else -LARGE
            values = ints(start), ints(end), ints(axis), ints(step)
            names = [f"{here}{part}" for part in "aexs"]
            constants |= dict(zip(names, values, strict=True))
            inputs = " ".join([name, *names])
            window = (slice(None),) * axis + (slice(start, None, step),)
            index = index[window]
        elif op == "Pad":
            pads = draw(st.lists(st.integers(0, 2), min_size=6, max_size=6))
            constants[here] = ints(0, *pads[:3], 0, *pads[3:])
            inputs = f"{name} {here}"
            index = np.pad(index, [(0, 0), *zip(pads[:3], pads[3:], strict=True)])
        elif op == "Transpose":
            order = [0, *draw(st.permutations([1, 2, 3]))]
            attributes["perm"] = order
            index = index.transpose(order)
        elif op == "Mul":
            axis = draw(st.integers(1, 3))
            shape = [1, 1, 1]
            shape[axis - 1] = index.shape[axis]
            constants[here] = floats(number, *shape)
            inputs = f"{name} {here}"
        nodes.append(node(op, inputs, out, **attributes))
        name = out
    nodes.append(node("Identity", name, "y"))
    return nodes, constants


@settings(max_examples=50)
@given(chain=chains())
def test_any_chain_of_moves_matches_onnxruntime(tmp_path_factory, chain):
    nodes, constants = chain
    model = network(nodes, constants, SHAPE)
    loaded = load_onnx(save(model, tmp_path_factory.mktemp("net")))
    expected = runtime(model, IMAGES)
    found = loaded.forward(IMAGES)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# Mutants


def test_a_slice_of_other_pixels_does_not_match(tmp_path):
    nodes, constants, shape, _ = CASES["option-a"]
    model = network(nodes, constants, shape)
    other = network(nodes, constants | {"a": ints(1, 1)}, shape)
    found = load_onnx(save(other, tmp_path)).forward(IMAGES)
    assert relative(found, reference(model, IMAGES)) > 0.01


# Given networks


def test_light_squeezenet_has_the_shapes_and_outputs_of_the_runtime(shared, tmp_path):
    folder = shared / "data/onnx/light"
    loaded = load_onnx(folder / "light_squeezenet.onnx")
    assert loaded.input_shape == (3, 224, 224)
    assert loaded.output_shape == (1000, 1, 1)
    assert sum(isinstance(each, Concat) for each in loaded.nodes) == 8
    x = np.ones((1, 3, 224, 224), np.float32)
    logits = loaded.forward(x)
    tensor = onnx.TensorProto()
    tensor.ParseFromString((folder / "light_squeezenet_output_0.pb").read_bytes())
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(shares, numpy_helper.to_array(tensor), rtol=1e-4)
    # All weights equal: nothing to prune by, but it maps.
    quant = quantize(loaded, x)
    assert [step.op for step in quant.steps].count("concat") == 8
    program = compiler.compile_network(quant, scheme="prap")
    assert len(program.layers) == 26


def test_light_vgg19_has_the_shapes_and_outputs_of_the_runtime(shared):
    folder = shared / "data/onnx/light"
    loaded = load_onnx(folder / "light_vgg19.onnx")
    layers = [each for each in loaded.nodes if isinstance(each, Matrix)]
    assert [each.weight.shape for each in layers[-4:]] == [
        (512, 512, 3, 3),
        (4096, 25088, 1, 1),
        (4096, 4096, 1, 1),
        (1000, 4096, 1, 1),
    ]
    assert len(layers) == 19
    logits = loaded.forward(np.ones((1, 3, 224, 224), np.float32)).astype(np.float64)
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    tensor = onnx.TensorProto()
    tensor.ParseFromString((folder / "light_vgg19_output_0.pb").read_bytes())
    np.testing.assert_allclose(shares, numpy_helper.to_array(tensor), rtol=1e-4)


@pytest.mark.parametrize("name", ["apad", "norm", "shuf"])
def test_what_pytorchs_default_exporter_writes_matches_onnxruntime(name, shared):
    path = shared / "cases/import" / f"{name}_dyn.onnx"
    loaded = load_onnx(path)
    model = onnx.load(path)
    if model.graph.node[-1].op_type == "LogSoftmax":
        model.graph.output[0].name = model.graph.node[-1].input[0]
        del model.graph.node[-1]
    x = floats(SEED, 1, 3, 32, 32)
    assert relative(loaded.forward(x), runtime(model, x)) <= 1e-4
    several = floats(SEED, 16, 3, 32, 32)
    program = compiler.compile_network(quantize(loaded, several), scheme="dense")
    codes = golden.run_program(program, golden.quantise_input(program, several))
    info = program.tensors[program.output]
    found = (codes[program.output].astype(float) - info["zero"]) * info["scale"]
    assert relative(found.reshape(16, -1), loaded.forward(several)) <= 0.06


DENSE = {
    # Preprocessing, images evaluated.
    "cifar_base_kw.onnx": (
        Preprocess(mean=(0.485, 0.456, 0.406), std=(0.225,), scale=1 / 255),
        "cifar10_test_A_5000.npz",
        "cifar10_train_10000.npz",
    ),
    "mnist/model.onnx": (
        Preprocess(scale=1),
        "t10k-images-idx3-ubyte.gz",
        "mnist_train_10000.npz",
    ),
}


@pytest.mark.parametrize("name", DENSE)
def test_dense_8_bits_are_within_half_a_point_of_float(name, shared):
    pre, test, train = DENSE[name]
    loaded = load_onnx(shared / "data/onnx" / name)
    x, y = load_images(shared / "data/images" / test)
    calibration, _ = load_images(shared / "data/images" / train)
    assert y is not None
    inputs = pre.apply(x[:2000], loaded.input_shape)
    quant = quantize(loaded, pre.apply(calibration[:128], loaded.input_shape))
    program = compiler.compile_network(quant, scheme="dense")
    expected = (loaded.forward(inputs).argmax(axis=1) == y[:2000]).mean()
    assert abs(golden.accuracy(program, inputs, y[:2000]) - expected) <= 0.005
