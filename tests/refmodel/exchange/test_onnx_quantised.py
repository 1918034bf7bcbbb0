"""Quantised networks, with QuantizeLinear and DequantizeLinear, against onnxruntime."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from refmodel import golden
from refmodel.compression import compile as compiler
from refmodel.compression.quantize import quantize
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.graph import (
    Add,
    Concat,
    FakeQuant,
    FloatNetwork,
    Matrix,
)
from refmodel.program.tensors import encode
from tests.support.nets.onnx_cases import (
    CONV,
    FIRST,
    SEED,
    SHAPE,
    relative,
    runtime,
)
from tests.support.nets.onnx_nets import (
    f32,
    floats,
    network,
    node,
    save,
)

IMAGES = floats(SEED, 3, 2, 6, 6)


def kinds(network: FloatNetwork) -> list[type]:
    return [type(each) for each in network.nodes]


def quantised_network(
    *, signed: bool, per_channel: bool, scale_of_pool: float = 0.05
) -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear around everything, as onnxruntime's quantiser writes."""
    rng = np.random.default_rng(SEED)
    kind = np.int8 if signed else np.uint8
    zero = kind(-9) if signed else kind(119)
    constants: dict[str, np.ndarray] = {}

    def weights(name: str, *shape: int, axis: int = 0) -> onnx.NodeProto:
        constants[f"{name}_q"] = rng.integers(-90, 91, shape).astype(np.int8)
        count = shape[axis] if per_channel else 1
        scales = f32(rng.uniform(0.001, 0.004, count))
        zeros = np.zeros(count, np.int8)
        constants[f"{name}_s"], constants[f"{name}_z"] = (
            (scales, zeros) if per_channel else (scales[0], zeros[0])
        )
        attributes = {"axis": axis} if per_channel else {}
        names = f"{name}_q {name}_s {name}_z"
        return node("DequantizeLinear", names, name, **attributes)

    def pair(source: str, out: str, scale: float, zero=zero) -> list[onnx.NodeProto]:
        constants[f"{out}_s"], constants[f"{out}_z"] = f32(scale), np.array(zero)
        return [
            node("QuantizeLinear", f"{source} {out}_s {out}_z", f"{out}_q"),
            node("DequantizeLinear", f"{out}_q {out}_s {out}_z", out),
        ]

    low = kind(-128) if signed else kind(0)
    constants["d_q"] = rng.integers(-900, 900, 4).astype(np.int32)
    constants["d_s"] = f32(0.001)
    nodes = [
        *pair("x", "x1", 0.03),
        weights("w1", 4, 2, 3, 3),
        node("DequantizeLinear", "d_q d_s", "d"),
        node("Conv", "x1 w1 d", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        *pair("r1", "r2", 0.0113, low),
        node("MaxPool", "r2", "p", kernel_shape=[2, 2], strides=[2, 2]),
        *pair("p", "p1", 0.0113, low),
        weights("w2", 4, 4, 1, 1),
        node("Conv", "p1 w2", "c2"),
        *pair("c2", "c3", 0.02),
        node("Add", "c3 p1", "a"),
        *pair("a", "a1", 0.02),
        node("Concat", "a1 p1", "k", axis=1),
        *pair("k", "k1", 0.025),
        node("AveragePool", "k1", "v", kernel_shape=[3, 3]),
        *pair("v", "v1", scale_of_pool),
        node("Flatten", "v1", "f"),
        weights("w3", 8, 5, axis=1),
        node("MatMul", "f w3", "m"),
        *pair("m", "m1", 0.02),
        node("Softmax", "m1", "z"),
        *pair("z", "y", 1 / 256, low),
    ]
    return network(nodes, constants, SHAPE)


KINDS = [(True, True), (True, False), (False, True), (False, False)]


def before_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.node[-3:]
    cut.graph.output[0].name = "m1"
    return cut


@pytest.mark.parametrize(("signed", "per_channel"), KINDS)
def test_a_quantised_network_in_float_matches_onnxruntime(signed, per_channel, tmp_path):
    model = quantised_network(signed=signed, per_channel=per_channel)
    loaded = load_onnx(save(model, tmp_path))
    x = floats(SEED, 8, 2, 6, 6)
    expected = runtime(before_softmax(model), x)
    # All values are multiples of the last scale; sums in another order may round otherwise.
    apart = np.abs(loaded.forward(x) - expected) / 0.02
    assert apart.max() <= 1.001
    assert (apart > 0.5).mean() <= 0.1


@pytest.mark.parametrize(("signed", "per_channel"), KINDS)
def test_a_quantised_network_keeps_its_weights_scales_and_zero_points(
    signed, per_channel, tmp_path
):
    model = quantised_network(signed=signed, per_channel=per_channel)
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    loaded = load_onnx(save(model, tmp_path))
    quant = quantize(loaded, floats(SEED, 2, 2, 6, 6), activations="mse", weights="channel")
    offset = 128 if signed else 0
    for layer, name, axes in zip(
        quant.layers, ("w1", "w2", "w3"), ((0, 1, 2, 3), (0, 1, 2, 3), (1, 0)), strict=True
    ):
        weight = stored[f"{name}_q"].transpose(axes)
        assert layer.weight.dtype == np.int8
        np.testing.assert_array_equal(layer.weight.reshape(weight.shape), weight)
        np.testing.assert_allclose(layer.gain, stored[f"{name}_s"] * np.ones(len(weight)))
    np.testing.assert_allclose(quant.layers[0].bias, stored["d_q"] * 0.001, rtol=1e-6)
    program = compiler.compile_network(quant, scheme="dense")
    for layer, mapped in zip(quant.layers, program.layers, strict=True):
        effective = mapped.effective_weights() / 256
        np.testing.assert_array_equal(
            effective.reshape(len(layer.weight), *layer.weight.shape[2:], -1),
            layer.weight.transpose(0, 2, 3, 1),
        )
    scales = {name: float(stored[f"{name}_s"]) for name in ("x1", "c3", "a1", "k1", "v1", "m1")}
    zeros = {name: int(stored[f"{name}_z"]) + offset for name in scales}
    for step_name, name in {"x": "x1", "c2": "c3", "a": "a1", "k": "k1", "v": "v1"}.items():
        info = quant.tensors[step_name]
        assert (info.scale, info.zero) == (pytest.approx(scales[name]), zeros[name])
    ops = [step.op for step in quant.steps]
    assert ops == ["layer", "max_pool", "layer", "add", "concat", "average_pool", "layer"]
    relu = quant.tensors[quant.steps[0].output]
    assert (relu.scale, relu.zero) == (pytest.approx(0.0113), 0)


@pytest.mark.parametrize(("signed", "per_channel"), KINDS)
def test_a_quantised_network_in_integers_is_within_a_code(signed, per_channel, tmp_path):
    model = quantised_network(signed=signed, per_channel=per_channel)
    loaded = load_onnx(save(model, tmp_path))
    x = floats(SEED, 8, 2, 6, 6)
    quant = quantize(loaded, x)
    program = compiler.compile_network(quant, scheme="dense")
    found = golden.run_program(program, golden.quantise_input(program, x))
    info = quant.tensors[quant.output]
    expected = encode(runtime(before_softmax(model), x), info).astype(int)
    apart = np.abs(found[quant.output] - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.1


def test_a_network_with_another_scale_is_told_apart(tmp_path):
    x = floats(SEED, 8, 2, 6, 6)
    outputs = []
    for scale in (0.05, 0.3):
        model = quantised_network(signed=True, per_channel=False, scale_of_pool=scale)
        outputs.append(load_onnx(save(model, tmp_path)).forward(x))
    assert np.abs(outputs[0] - outputs[1]).max() > 0.03


def test_weights_that_do_not_fit_8_bits_are_real_numbers(tmp_path):
    constants = {
        "q": np.arange(36, dtype=np.uint8).reshape(2, 2, 3, 3) * 7,
        "s": f32(0.1),
        "z": np.uint8(3),
    }
    nodes = [node("DequantizeLinear", "q s z", "w"), node("Conv", "x w", "y")]
    for zero, exact in ((3, False), (128, True)):
        constants["z"] = np.array(zero, np.uint8)
        model = network(nodes, constants, SHAPE)
        loaded = load_onnx(save(model, tmp_path))
        (layer,) = loaded.nodes
        assert isinstance(layer, Matrix)
        assert layer.exact == exact
        assert relative(loaded.forward(IMAGES), runtime(model, IMAGES)) <= 1e-5


def test_transposed_weights_stay_integers(tmp_path):
    constants = {"q": np.array([[1, -128, 3], [4, 5, 127]], np.int8), "s": f32([0.5, 0.25])}
    nodes = [
        node("DequantizeLinear", "q s", "w", axis=0),
        node("Transpose", "w", "t", perm=[1, 0]),
        node("MatMul", "x t", "y"),
    ]
    model = network(nodes, constants, ("N", 3))
    loaded = load_onnx(save(model, tmp_path))
    (layer,) = loaded.nodes
    assert isinstance(layer, Matrix)
    assert layer.exact
    np.testing.assert_array_equal(layer.weight[:, :, 0, 0], constants["q"])
    np.testing.assert_array_equal(layer.gain, constants["s"])
    x = floats(SEED, 4, 3)
    assert relative(loaded.forward(x), runtime(model, x)) <= 1e-5
    # -128 has no opposite: the integer network has it all the same.
    program = compiler.compile_network(quantize(loaded, x), scheme="dense")
    assert program.layers[0].effective_weights().min() == -128 * 256


def test_codes_of_a_tensor_that_is_read_before_it_is_quantised(tmp_path):
    nodes = [
        FIRST,
        node("QuantizeLinear", "c s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Add", "c d", "y"),
    ]
    constants = CONV | {"s": f32(0.05), "z": np.uint8(120)}
    loaded = load_onnx(save(network(nodes, constants, SHAPE), tmp_path))
    assert kinds(loaded) == [Matrix, FakeQuant, Add]
    quant = quantize(loaded, IMAGES)
    assert [step.op for step in quant.steps] == ["layer", "concat", "add"]
    info = quant.tensors[quant.steps[1].output]
    assert (info.scale, info.zero) == (pytest.approx(0.05), 120)


def test_a_tensor_that_is_quantised_twice_is_requantised(tmp_path):
    nodes = [
        FIRST,
        node("QuantizeLinear", "c s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("QuantizeLinear", "d t u", "r"),
        node("DequantizeLinear", "r t u", "y"),
    ]
    constants = CONV | {"s": f32(0.05), "z": np.uint8(120), "t": f32(0.5), "u": np.int8(0)}
    loaded = load_onnx(save(network(nodes, constants, SHAPE), tmp_path))
    quant = quantize(loaded, IMAGES)
    assert [step.op for step in quant.steps] == ["layer", "concat"]
    found = [quant.tensors[step.output] for step in quant.steps]
    assert [info.zero for info in found] == [120, 128]
    assert [info.scale for info in found] == pytest.approx([0.05, 0.5])


def test_concatenated_codes_by_hand():
    # Scales 1 and 1/2 on scale 1: the second input is halved, halves up; zero points 0 and 10 to 4.
    params = {
        "axis": 2,
        "multipliers": [16384, 8192],
        "shift": 14,
        "zeros_in": [0, 10],
        "zero_out": 4,
        "clip": [3, 200],
    }
    a = np.array([[[[0, 100, 255]]]], np.uint8)
    b = np.array([[[[10, 11, 9, 0]]]], np.uint8)
    # 0 + 4, 100 + 4, 259 clipped; 0 + 4, 0.5 -> 1 + 4, -0.5 -> 0 + 4, -5 + 4 clipped.
    expected = [[[[4, 104, 200, 4, 5, 4, 3]]]]
    assert golden.concat(a, b, params).tolist() == expected


def test_concatenation_takes_the_relu_behind_it(tmp_path):
    nodes = [
        FIRST,
        node("Conv", "x v", "d"),
        node("Concat", "c d", "k", axis=1),
        node("Relu", "k", "y"),
    ]
    constants = CONV | {"v": floats(SEED, 3, 2, 1, 1)}
    loaded = load_onnx(save(network(nodes, constants, SHAPE), tmp_path))
    assert kinds(loaded)[2] is Concat
    quant = quantize(loaded, IMAGES)
    assert [step.op for step in quant.steps] == ["layer", "layer", "concat"]
    assert quant.tensors[quant.output].zero == 0
    assert quant.steps[2].params["clip"] == [0, 255]
