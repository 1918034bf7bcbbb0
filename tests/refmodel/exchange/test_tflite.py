"""Networks of TensorFlow Lite in 8 bits, layer by layer against its reference interpreter."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

import refmodel
from refmodel import errors, golden
from refmodel.errors import InputError
from refmodel.exchange.load import copy_as_onnx, load_network
from refmodel.exchange.onnx.load import load_onnx
from refmodel.exchange.tflite import file, translate
from refmodel.exchange.tflite.load import load_model
from refmodel.network.graph import Matrix
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.run import run_image
from refmodel.predict.accelerator.sizing import accelerator_config_for
from tests.support.nets import tflite_files as made
from tests.support.nets.tflite_reference import compare, drawn, interpreted, program_of

SMALL = {
    "resnet8": lambda: made.resnet8(16, 8),
    "ds_cnn": lambda: made.ds_cnn(25, 16, 2),
    "mobilenet": lambda: made.mobilenet(32, 4),
    "autoencoder": lambda: made.autoencoder(64, 16),
    "others": made.others,
    "functions": made.functions,
}
"""The four networks of MLPerf Tiny in small, and the operations that none of them has."""


def save(net: made.Net | bytes, folder: Path) -> Path:
    path = folder / "net.tflite"
    path.write_bytes(net if isinstance(net, bytes) else net.file())
    return path


def check(net: made.Net, folder: Path) -> None:
    """Each step, given the interpreter's inputs, is within one step of the last bit."""
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert has no wheel for this machine")
    found = compare(save(net, folder))
    for each in found:
        print(f"{each.op} {each.name}: {each.layer} ({each.share:.2%}), chained {each.chained}")
    assert {each.op for each in found} >= {"layer"}
    assert max(each.layer for each in found) <= 1
    # Not equal where a multiplier of 15 bits and one rounding differ from 31 bits and two.
    assert all(each.share <= 0.02 for each in found if each.op == "layer")


@pytest.mark.parametrize("name", SMALL)
def test_every_layer_is_within_one_step_of_the_interpreter(name, tmp_path):
    check(SMALL[name](), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", made.NETWORKS)
def test_every_layer_of_whole_networks_is_within_one_step_of_the_interpreter(name, tmp_path):
    check(made.NETWORKS[name](), tmp_path)


def test_one_scale_to_a_layer(tmp_path):
    net = made.Net((1, 9, 9, 3), seed=4, channels=False)
    net.conv(6, (3, 3), (2, 2))
    net.depthwise(by=2)
    net.mean(keep=True)
    net.reshape(1, 12)
    net.dense(3, 0)
    check(net, tmp_path)


@pytest.mark.parametrize(
    ("field", "by"), [("zero", 3), ("scale", 1.02), ("axis", 0)], ids=["zero", "scale", "weights"]
)
def test_a_reader_that_takes_another_scale_is_told_apart(field, by, tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert has no wheel for this machine")
    read = file.read

    def other(path):
        content = read(path)
        tensors = list(content.tensors)
        for at, each in enumerate(tensors):
            if field == "axis" and each.data is not None and each.data.ndim == 4:
                tensors[at] = dataclasses.replace(each, data=each.data[..., ::-1])
            elif each.name == "t3" and field != "axis":
                value = getattr(each, field)
                value = value + by if field == "zero" else value * by
                tensors[at] = dataclasses.replace(each, **{field: value})
        return dataclasses.replace(content, tensors=tuple(tensors))

    monkeypatch.setattr(file, "read", other)
    net = made.Net((1, 6, 6, 3), seed=5)
    net.conv(6, (3, 3), activation=0)
    net.conv(4, (3, 3), activation=0)
    assert max(each.layer for each in compare(save(net, tmp_path))) > 1


def test_scales_zero_points_and_weights_are_those_of_the_file(tmp_path):
    net = made.Net((1, 6, 6, 3), seed=5, scale=0.05, zero=17)
    net.conv(6, (3, 3), activation=0, name="first")
    path = save(net, tmp_path)
    loaded = load_network(path)
    (layer,) = (each for each in loaded.nodes if isinstance(each, Matrix))
    content = file.read(path)
    weights = content.tensors[1]
    assert weights.data is not None
    assert layer.exact
    np.testing.assert_array_equal(layer.weight, weights.data.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(layer.gain, weights.scale, rtol=1e-6)
    program = program_of(path, np.zeros((1, 3, 6, 6), np.float32))
    output = content.tensors[-1]
    for name, tensor in ((program.input, content.tensors[0]), (program.output, output)):
        info = program.tensors[name]
        assert info["scale"] == pytest.approx(tensor.scale[0])
        assert info["zero"] == tensor.zero[0] + 128


def test_a_network_through_the_whole_path(tmp_path):
    path = save(SMALL["ds_cnn"](), tmp_path)
    codes, x = drawn(path, 6, 4)
    network = refmodel.load(path)
    program = network.compress(x, scheme="prap", preprocess=refmodel.Preprocess(scale=1.0))
    image = network_image(program, accelerator_config_for(program))
    inputs = program.codes(x)
    np.testing.assert_array_equal(inputs[:, :, :, 0], codes[..., 0].astype(int) + 128)
    expected = golden.run_program(program, inputs)[program.output].reshape(len(x), -1)
    np.testing.assert_array_equal(run_image(image, program.layers, inputs), expected)
    # The folder of a compressed network holds it as ONNX.
    copy_as_onnx(path, tmp_path / "net.onnx")
    np.testing.assert_array_equal(load_onnx(tmp_path / "net.onnx").forward(x), network.forward(x))


def real(*, half: bool = False) -> made.Writer:
    """A network in floating point; with half, its weights are float16 behind DEQUANTIZE."""
    net = made.Writer()
    x = net.tensor((1, 5, 5, 2), "float32")
    weights = np.random.default_rng(2).normal(size=(3, 3, 3, 2))
    kind = "float16" if half else "float32"
    w, b = net.constant(weights, kind), net.constant(np.array([1.0, -2, 0.5]), "float32")
    if half:
        wide = net.tensor(weights.shape, "float32")
        net.operation("DEQUANTIZE", [w], [wide])
        w = wide
    y = net.tensor((1, 3, 3, 3), "float32")
    net.operation(
        "CONV_2D", [x, w, b], [y], "Conv2DOptions", Padding=made.VALID, StrideH=1, StrideW=1,
        FusedActivationFunction=made.RELU6, DilationHFactor=1, DilationWFactor=1,
    )  # fmt: skip
    return net


@pytest.mark.parametrize("half", [False, True])
def test_networks_in_floating_point(half, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert has no wheel for this machine")
    net = real(half=half)
    last = len(net.tensors) - 1
    path = save(net.content([0], [last]), tmp_path)
    x = np.random.default_rng(1).normal(size=(2, 5, 5, 2)).astype(np.float32)
    expected = interpreted(path, x)[f"t{last}"]
    found = load_network(path).forward(x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), expected, rtol=1e-4, atol=1e-5)


# What is refused


def edited(change) -> bytes:
    """A network of one convolution after a change of its writer."""
    net = made.Net((1, 6, 6, 2), seed=6)
    net.conv(4, (3, 3))
    change(net)
    return net.content(getattr(net, "inputs", [net.first]), getattr(net, "outputs", [net.at]))


def with_operation(kind: str):
    def change(net):
        before = net.at
        net._same(net.shape())
        net.operation(kind, [before], [net.at])

    return change


def tensor(at: int, **values):
    return lambda net: net.tensors[at].update(values)


def operation(**values):
    return lambda net: net.operations[0].update(values)


def options(**values):
    return lambda net: net.operations[0]["options"].update(values)


def bias_of_three(net):
    net.operations[0]["inputs"][2] = net.constant(np.ones(3, np.int32), "int32", 1.0)


def joined_with_five_axes(net):
    before, values = net.at, np.ones((1, 1, 6, 6, 1), np.int8)
    net._same([*net.shape()[:3], net.shape()[3] + 1])
    inputs = [before, net.constant(values, "int8", 1.0)]
    net.operation("CONCATENATION", inputs, [net.at], "ConcatenationOptions", Axis=3)


BAD = {
    "unknown operation": (
        with_operation("COS"),
        "expected an operation that can be imported, found 'COS', in the operation that makes 't4'",
    ),
    "activation function": (with_operation("GELU"), "train with RELU or RELU6 in its place"),
    "custom operation": (
        with_operation("custom thing"),
        "found 'CUSTOM custom thing', .*: convert the network without custom operations",
    ),
    "int16": (tensor(3, kind=7), "expected what CONV_2D makes in 8 bits with one scale above 0"),
    "no scale": (tensor(3, scale=None), "expected what CONV_2D makes quantised or in floating"),
    "scale of zero": (tensor(3, scale=np.zeros(1, np.float32)), "one scale above 0"),
    "zero point": (tensor(3, zero=np.array([200])), "expected a zero point of -128 to 127"),
    "scales along inputs": (tensor(1, axis=3), "expected CONV_2D with scales along axis 0"),
    "weights too short": (tensor(1, shape=[4, 3, 3, 3]), "expected 108 bytes for the shape"),
    "no constant weights": (tensor(1, buffer=0), "with four axes of constant weights"),
    "two inputs": (lambda net: setattr(net, "inputs", [0, 0]), "a network with one input, found 2"),
    "no output": (lambda net: setattr(net, "outputs", []), "a network with one output, found 0"),
    "input as output": (lambda net: setattr(net, "outputs", [0]), "an output that is computed"),
    "tensor number": (operation(inputs=[0, 99, 2]), "expected a tensor of 0 to 3, found 99"),
    "itself": (operation(inputs=[3, 1, 2]), "expected CONV_2D of a tensor that is computed before"),
    "no options": (operation(table=None), "expected CONV_2D with Conv2DOptions, found options"),
    "padding": (options(Padding=5), "expected CONV_2D with padding SAME or VALID, found 5"),
    "activation": (options(FusedActivationFunction=4), "expected CONV_2D with RELU, RELU6 or none"),
    "stride": (options(StrideH=0), "expected CONV_2D with strides of at least 1"),
    "bias": (bias_of_three, "expected CONV_2D with a bias of 4 values"),
    "constant": (joined_with_five_axes, "expected CONCATENATION with constants of at most 4 axes"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_imported_is_one_line(case, tmp_path):
    change, message = BAD[case]
    path = save(edited(change), tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_no_file_of_tensorflow_lite(tmp_path):
    path = tmp_path / "net.tflite"
    with pytest.raises(InputError, match="expected a readable file, found: No such file"):
        load_network(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="which has TFL3 behind 4 bytes, found 19 bytes that have"):
        load_network(path)
    whole = SMALL["others"]().file()
    for end in (8, 20, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError) as caught:
            load_network(path)
        assert "\n" not in str(caught.value)


def test_a_file_is_known_by_its_content(tmp_path):
    path = tmp_path / "network"
    path.write_bytes(SMALL["others"]().file())
    assert load_network(path).input_shape == (3, 12, 10)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    find = errors.util.find_spec
    missing = {"tflite": None}
    monkeypatch.setattr(errors.util, "find_spec", lambda name: missing.get(name, find(name)))
    with pytest.raises(InputError, match=r"the package tflite, found none: .*prap-pim\[tflite\]"):
        load_network(save(SMALL["others"](), tmp_path))


def test_the_suggestions_are_of_operations_that_cannot_be_imported():
    for name in ("LSTM", "GELU", "COS"):
        assert name not in translate.HANDLERS
        assert translate.advice(name)


def test_the_translation_is_valid_onnx(tmp_path):
    onnx.checker.check_model(load_model(save(SMALL["mobilenet"](), tmp_path)), full_check=True)
