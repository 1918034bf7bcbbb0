"""Scales, zero points, fused limits and steps of the integer network."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from refmodel.compression.fractions import fixed_point
from refmodel.compression.quantize import QuantNetwork, quantize
from refmodel.compression.ranges import least_error_scale
from refmodel.errors import InputError
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.graph import FloatNetwork, Node
from refmodel.network.images import Preprocess
from refmodel.program.tensors import TensorInfo, decode, encode, memory_shape
from tests.support.nets.onnx_nets import f32, floats, network, node, save, small_cnn

SEED = 31
X = floats(SEED, 4, 2, 5, 5)
CONV = {"w": floats(SEED + 1, 4, 2, 3, 3), "b": floats(SEED + 2, 4)}
FIRST = node("Conv", "x w b", "c", pads=[1, 1, 1, 1])
"""(N, 2, 5, 5) to (N, 4, 5, 5), signed."""


@pytest.fixture
def quantised(tmp_path):
    """Make a function that quantises a network of these nodes with these images."""

    def make(nodes, constants=CONV, images=X, shape=None, **options):
        shape = ("N", *images.shape[1:]) if shape is None else shape
        loaded = load_onnx(save(network(nodes, constants, shape), tmp_path))
        return loaded, quantize(loaded, images, **options)

    return make


def integers(quant: QuantNetwork, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Run the integer network with plain loops; weights in float, rounded to 8 bits."""

    def at(image, y, x, zero):
        inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
        return image[y, x].astype(np.int64) - zero if inside else None

    def half_up(value):
        return np.floor(value + 0.5)

    def window(params, y, x):
        for i in range(params["kernel"][0]):
            for j in range(params["kernel"][1]):
                yield (
                    y * params["stride"][0] + i - params["pads"][0],
                    x * params["stride"][1] + j - params["pads"][1],
                )

    tensors = {quant.input: codes}
    for step in quant.steps:
        a, params = tensors[step.inputs[0]], step.params
        shape = quant.tensors[step.output].shape
        result = np.zeros((len(a), *shape), np.int64)
        if step.op == "rearrange":
            result = a.reshape(len(a), -1)[:, params["index"]].reshape(-1, *params["shape"])
        elif step.op == "clip":
            result = np.clip(a, params["lo"], params["hi"])
        elif step.op == "add":
            b = tensors[step.inputs[1]]
            total = sum(
                (values.astype(np.int64) - zero) * multiplier
                for values, zero, multiplier in zip(
                    (a, b), params["zeros_in"], params["multipliers"], strict=True
                )
            )
            result = half_up(total / 2 ** params["shift"]) + params["zero_out"]
            result = np.clip(result, *params["clip"])
        else:
            for n, y, x in np.ndindex(len(a), *shape[:2]):
                if step.op == "layer":
                    layer = quant.layers[params["index"]]
                    scale = max(layer.weight.max(), -layer.weight.min(), 1e-30) / 127
                    weight = np.rint(layer.weight / scale).astype(np.int64)
                    outputs, inputs = weight.shape[:2]
                    per_group = outputs // layer.groups
                    total = np.zeros(outputs, np.int64)
                    for i, j in np.ndindex(*weight.shape[2:]):
                        pixel = at(
                            a[n],
                            y * layer.stride[0] + i * layer.dilation[0] - layer.pads[0],
                            x * layer.stride[1] + j * layer.dilation[1] - layer.pads[1],
                            layer.in_zero,
                        )
                        if pixel is not None:
                            for o in range(outputs):
                                first = o // per_group * inputs
                                part = pixel[first : first + inputs]
                                total[o] += part @ weight[o, :, i, j]
                    real = layer.gain * total * scale * layer.in_scale + layer.bias
                    value = half_up(real / layer.out_scale) + layer.out_zero
                    result[n, y, x] = np.clip(value, *layer.clip)
                elif step.op == "max_pool":
                    pixels = [at(a[n], i, j, 0) for i, j in window(params, y, x)]
                    result[n, y, x] = np.max([p for p in pixels if p is not None], axis=0)
                else:
                    pixels = [at(a[n], i, j, params["zero_in"]) for i, j in window(params, y, x)]
                    total = np.sum([p for p in pixels if p is not None], axis=0)
                    multiplier = np.broadcast_to(params["multiplier"], shape[:2])[y, x]
                    value = half_up(total * multiplier / 2 ** params["shift"])
                    result[n, y, x] = np.clip(value + params["zero_out"], 0, 255)
        tensors[step.output] = result.astype(np.uint8)
    return tensors


def steps(quant: QuantNetwork) -> list[str]:
    return [step.op for step in quant.steps]


# By hand


@pytest.mark.parametrize(
    ("ratios", "multipliers", "shift"),
    [
        ([1.0], [16384], 14),
        ([0.5], [16384], 15),
        ([1 / 9], [29127], 18),  # 2^18 / 9 = 29127.1; 2^19 / 9 is above 32767
        ([1.0, 0.25], [16384, 4096], 14),
        ([32767 / 32768], [32767], 15),
        ([32767.5 / 32768], [16384], 14),  # at shift 15 it would round to 32768
        ([3 * 2.0**-49], [1], 47),  # 0.75 rounds up
        ([2.0**-48], [1], 47),  # a half rounds up
        ([2.0**-49], [0], 47),
        ([0.0], [0], 47),
        ([32767.0], [32767], 0),
        ([1e9, 3.4], [32767, 3], 0),
    ],
    ids=str,
)
def test_multipliers_by_hand(ratios, multipliers, shift):
    found, found_shift = fixed_point(ratios)
    assert (found.tolist(), found_shift) == (multipliers, shift)
    assert found.dtype == np.int64


def test_multipliers_are_within_half_a_unit():
    ratios = 2.0 ** np.random.default_rng(SEED).uniform(-20, 12, 1000)
    for ratio in ratios:
        (multiplier,), shift = fixed_point([ratio])
        assert 16384 <= multiplier <= 32767
        assert abs(multiplier - ratio * 2.0**shift) <= 0.5


def test_codes_by_hand():
    # Scale 0.5, zero point 10: 0.24 -> 10.48 rounds down, 0.25 -> 10.5 up, -0.25 -> 9.5 up.
    info = TensorInfo(shape=(1, 1, 7), scale=0.5, zero=10)
    values = np.array([[0.0, 0.24, 0.25, -0.25, -0.26, 1e9, -5.5]])
    codes = encode(values, info)
    assert codes.tolist() == [[[[10, 10, 11, 10, 9, 255, 0]]]]
    assert codes.dtype == np.uint8
    assert decode(codes, info).ravel().tolist() == [0.0, 0.0, 0.5, 0.0, -0.5, 122.5, -5.0]


def test_codes_lie_channels_last():
    image = np.arange(24.0).reshape(1, 2, 3, 4)
    codes = encode(image, TensorInfo(shape=(3, 4, 2), scale=1.0, zero=0))
    np.testing.assert_array_equal(codes[0, 1, 2], [image[0, 0, 1, 2], image[0, 1, 1, 2]])


def test_values_of_another_shape_have_no_codes():
    with pytest.raises(ValueError, match=r"expected values of shape \(H, W, C\) = \(3, 4, 2\)"):
        encode(np.zeros((1, 3, 4, 2)), TensorInfo(shape=(3, 4, 2), scale=1.0, zero=0))


@pytest.mark.parametrize(
    ("shape", "expected"), [((7,), (1, 1, 7)), ((3, 4), (3, 4, 1)), ((2, 3, 4), (3, 4, 2))], ids=str
)
def test_shapes_in_memory(shape, expected):
    assert memory_shape(shape) == expected


def one_weight(quantised, value: float, bias: float, images, *nodes):
    """A network that multiplies one number, and images of one number each."""
    constants = {"w": np.full((1, 1, 1, 1), value, np.float32), "b": f32([bias])}
    chain = [node("Conv", "x w b", "c"), *nodes]
    chain[-1].output[0] = "y"
    return quantised(chain, constants, f32(images).reshape(-1, 1, 1, 1))[1]


def test_scales_and_zero_points_by_hand(quantised):
    # Input -1 to 4: scale 5/255 = 1/51, zero 51. Output 2x - 1 from -3 to 7: 7/127, zero 128.
    quant = one_weight(quantised, 2.0, -1.0, [-1, 0, 4])
    assert quant.tensors["x"] == TensorInfo(shape=(1, 1, 1), scale=5 / 255, zero=51)
    assert quant.tensors["y"] == TensorInfo(shape=(1, 1, 1), scale=7 / 127, zero=128)
    (layer,) = quant.layers
    assert (layer.in_scale, layer.in_zero) == (5 / 255, 51)
    assert (layer.out_scale, layer.out_zero, layer.clip) == (7 / 127, 128, (0, 255))
    assert (layer.in_shape, layer.out_shape) == ((1, 1, 1), (1, 1, 1))
    assert (layer.gain.tolist(), layer.bias.tolist()) == ([1.0], [-1.0])


def test_a_relu_makes_the_output_unsigned(quantised):
    quant = one_weight(quantised, 2.0, -1.0, [-1, 0, 4], node("Relu", "c", "r"))
    assert quant.tensors[quant.output] == TensorInfo(shape=(1, 1, 1), scale=7 / 255, zero=0)
    assert quant.layers[0].clip == (0, 255)
    assert steps(quant) == ["layer"]


@pytest.mark.parametrize(("top", "scale", "high"), [(4, 7 / 255, 255), (9, 6 / 255, 255)], ids=str)
def test_a_relu6_limits_codes(quantised, top, scale, high):
    # 2x - 1 reaches 7 or 17; limited to 6, the largest code is 6, so the limit is code 255.
    chain = [node("Clip", "c lo hi", "y")]
    constants = {
        "w": np.full((1, 1, 1, 1), 2, np.float32),
        "b": f32([-1]),
        "lo": np.float32(0),
        "hi": np.float32(6),
    }
    images = f32([-1, 0, top]).reshape(-1, 1, 1, 1)
    _, quant = quantised([node("Conv", "x w b", "c"), *chain], constants, images)
    assert quant.tensors[quant.output].scale == 6 / 255
    assert quant.layers[0].clip == (0, high)
    assert scale >= 6 / 255


def test_a_limit_that_calibration_does_not_reach_costs_no_codes(quantised):
    constants = CONV | {"lo": np.float32(0), "hi": np.float32(1000)}
    loaded, quant = quantised([FIRST, node("Clip", "c lo hi", "y")], constants)
    top = loaded.trace(X)["c"].max()
    assert quant.tensors[quant.output].scale == pytest.approx(top / 255, rel=1e-6)
    assert quant.layers[0].clip == (0, 255)


def test_an_input_without_negative_values_has_zero_point_0(quantised):
    quant = one_weight(quantised, 2.0, 0.0, [1, 2, 4])
    assert quant.tensors["x"] == TensorInfo(shape=(1, 1, 1), scale=4 / 255, zero=0)


def test_an_input_without_positive_values_has_zero_point_255(quantised):
    quant = one_weight(quantised, 2.0, 0.0, [-1, -2, -4])
    assert quant.tensors["x"] == TensorInfo(shape=(1, 1, 1), scale=4 / 255, zero=255)


def test_what_is_0_throughout_has_scale_1(quantised):
    for relu in ([], [node("Relu", "c", "r")]):
        quant = one_weight(quantised, 0.0, 0.0, [0, 0], *relu)
        assert [info.scale for info in quant.tensors.values()] == [1.0, 1.0]
        codes = encode(np.zeros((1, 1, 1, 1)), quant.tensors["x"])
        assert integers(quant, codes)[quant.output].tolist() == [[[[0 if relu else 128]]]]


def test_constant_weights_and_outputs_that_do_not_vary(quantised):
    quant = one_weight(quantised, 0.0, 3.0, [1, 2])
    codes = encode(np.ones((1, 1, 1, 1)), quant.tensors["x"])
    out = integers(quant, codes)[quant.output]
    assert decode(out, quant.tensors[quant.output]).item() == pytest.approx(3.0)


def test_a_relu_whose_input_is_never_positive(quantised):
    quant = one_weight(quantised, 1.0, -9.0, [1, 2], node("Relu", "c", "r"))
    assert quant.tensors[quant.output] == TensorInfo(shape=(1, 1, 1), scale=1.0, zero=0)


# Fusing


def pool(source: str, output: str):
    return node("MaxPool", source, output, kernel_shape=[2, 2])


FUSED = {
    "behind-layer": [FIRST, node("Relu", "c", "y")],
    "behind-max-pool": [FIRST, pool("c", "p"), node("Relu", "p", "y")],
    "behind-flatten": [FIRST, node("Flatten", "c", "f"), node("Relu", "f", "y")],
    "behind-both": [FIRST, pool("c", "p"), node("Flatten", "p", "f"), node("Relu", "f", "y")],
    "twice": [FIRST, node("Relu", "c", "r"), node("Relu", "r", "y")],
    "behind-addition": [
        FIRST,
        node("Conv", "x w", "d", pads=[1, 1, 1, 1]),
        node("Add", "c d", "a"),
        node("Relu", "a", "y"),
    ],
    "behind-average": [
        FIRST,
        node("AveragePool", "c", "p", kernel_shape=[2, 2]),
        node("Relu", "p", "y"),
    ],
}
APART = {
    "read-before": [FIRST, node("Relu", "c", "r"), node("Add", "c r", "y")],
    "read-behind-pool": [FIRST, pool("c", "p"), node("Relu", "p", "r"), node("Add", "p r", "y")],
    "behind-input": [node("Relu", "x", "r"), node("Conv", "r w b", "y")],
    "limit-behind-average": [
        FIRST,
        node("AveragePool", "c", "p", kernel_shape=[2, 2]),
        node("Clip", "p lo hi", "y"),
    ],
    "later-reader": [
        FIRST,
        node("Clip", "c lo hi", "r"),
        node("Clip", "r lo half", "s"),
        node("Add", "r s", "y"),
    ],
}
LIMITS = {"lo": np.float32(0), "hi": np.float32(1), "half": np.float32(0.5)}


@pytest.mark.parametrize("case", FUSED)
def test_a_relu_is_fused_where_no_one_reads_what_is_before_it(case, quantised):
    loaded, quant = quantised(FUSED[case])
    assert "clip" not in steps(quant)
    assert quant.tensors[quant.output].zero == 0
    agree(loaded, quant, X)


@pytest.mark.parametrize("case", APART)
def test_a_relu_is_a_step_where_it_cannot_be_fused(case, quantised):
    loaded, quant = quantised(APART[case], CONV | LIMITS)
    assert steps(quant).count("clip") == 1
    agree(loaded, quant, X)


@pytest.mark.parametrize("first", ["hi", "half"])
def test_limits_in_a_row_become_their_intersection(first, quantised):
    second = "half" if first == "hi" else "hi"
    nodes = [FIRST, node("Clip", f"c lo {first}", "r"), node("Clip", f"r lo {second}", "y")]
    _, quant = quantised(nodes, CONV | LIMITS)
    assert steps(quant) == ["layer"]
    assert quant.tensors[quant.output].scale == 0.5 / 255


def test_limits_on_both_sides_keep_the_sign(quantised):
    nodes = [FIRST, node("Clip", "c lo hi", "y")]
    constants = CONV | {"lo": np.float32(-1), "hi": np.float32(0.5)}
    loaded, quant = quantised(nodes, constants)
    # Scale 1/127: -1 is code 1, 0.5 is 63.5 steps, which round up to 64.
    assert quant.tensors[quant.output] == TensorInfo(shape=(5, 5, 4), scale=1 / 127, zero=128)
    assert quant.layers[0].clip == (1, 192)
    agree(loaded, quant, X)


def test_a_relu_of_what_cannot_be_negative_disappears(quantised):
    nodes = [FIRST, node("Relu", "c", "r"), node("AveragePool", "r", "p", kernel_shape=[2, 2])]
    nodes += [node("Relu", "p", "s"), node("Add", "p s", "y")]
    loaded, quant = quantised(nodes)
    assert steps(quant) == ["layer", "average_pool", "add"]
    assert quant.steps[-1].inputs == ("p", "p")
    agree(loaded, quant, X)


def test_max_pool_and_rearrangement_keep_scale_and_zero_point(quantised):
    _, quant = quantised([FIRST, pool("c", "p"), node("Transpose", "p", "y", perm=[0, 2, 1, 3])])
    infos = [quant.tensors[name] for name in ("c", "p", "y")]
    assert {(info.scale, info.zero) for info in infos} == {(infos[0].scale, 128)}


def test_a_rearrangement_that_moves_nothing_in_memory_is_no_step(quantised):
    nodes = [FIRST, node("GlobalAveragePool", "c", "g"), node("Flatten", "g", "y")]
    loaded, quant = quantised(nodes)
    assert steps(quant) == ["layer", "average_pool"]
    assert quant.output == "g"
    agree(loaded, quant, X)


def test_a_vector_is_in_the_order_of_onnx(quantised):
    loaded, quant = quantised([FIRST, node("Flatten", "c", "y")])
    codes = encode(X, quant.tensors[quant.input])
    tensors = integers(quant, codes)
    image = tensors["c"].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(tensors["y"], image.reshape(len(X), 1, 1, -1))
    agree(loaded, quant, X)


# Steps


def test_additions_by_hand(quantised):
    # 2x - 1 and x + 3 for x = -1 .. 4: -3 .. 7 (7/127) and 2 .. 7 (7/127); sum 3x + 2: -1 .. 14.
    constants = {
        "w": f32([[[[2]]]]),
        "b": f32([-1]),
        "v": f32([[[[1]]]]),
        "d": f32([3]),
    }
    nodes = [node("Conv", "x w b", "p"), node("Conv", "x v d", "q"), node("Add", "p q", "y")]
    _, quant = quantised(nodes, constants, f32([-1, 0, 4]).reshape(-1, 1, 1, 1))
    assert quant.tensors["y"].scale == 14 / 127
    params = quant.steps[-1].params
    assert params == {
        "multipliers": [16384, 16384],  # half of a code each
        "shift": 15,
        "zeros_in": [128, 128],
        "zero_out": 128,
        "clip": [0, 255],
    }


def test_a_sum_of_unsigned_tensors_is_unsigned(quantised):
    nodes = [FIRST, node("Relu", "c", "r"), pool("r", "p"), node("Add", "p p", "y")]
    _, quant = quantised(nodes)
    assert quant.tensors["y"].zero == 0
    assert quant.steps[-1].params["zeros_in"] == [0, 0]


def test_average_pooling_by_hand(quantised):
    # Identity, then the mean of 2x2 of which the largest is the largest input: 1/4 each.
    images = f32([[[[4, 4], [4, 4]]], [[[0, 1], [2, 3]]]])
    constants = {"w": np.ones((1, 1, 1, 1), np.float32)}
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "y")]
    _, quant = quantised(nodes, constants, images)
    assert quant.steps[-1].params == {
        "kernel": [2, 2],
        "stride": [1, 1],
        "pads": [0, 0, 0, 0],
        "multiplier": 16384,
        "shift": 16,
        "zero_in": 0,
        "zero_out": 0,
    }
    codes = integers(quant, encode(images, quant.tensors["x"]))["y"]
    # 0, 1, 2, 3 of scale 4/255 are codes 0, 64, 128, 191: 383 / 4 = 95.75.
    assert codes.ravel().tolist() == [255, 96]


@pytest.mark.parametrize("counted", [0, 1])
def test_average_pooling_with_padding(counted, quantised):
    average = node(
        "AveragePool",
        "c",
        "y",
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        count_include_pad=counted,
    )
    loaded, quant = quantised([FIRST, average])
    multiplier = quant.steps[-1].params["multiplier"]
    if counted:
        assert isinstance(multiplier, int)
    else:
        assert multiplier.dtype == np.int64
        ratio = multiplier / multiplier[1, 1]
        expected = np.outer([1.5, 1, 1.5], [1.5, 1, 1.5])  # 4, 6 and 9 values of 9
        np.testing.assert_allclose(ratio, expected, rtol=1e-4)
    agree(loaded, quant, X)


# Whole networks


def agree(loaded: FloatNetwork, quant: QuantNetwork, images: np.ndarray) -> None:
    """Float and integer outputs differ by at most 4 output codes and 2 % of the largest value."""
    tensors = integers(quant, encode(images, quant.tensors[quant.input]))
    info = quant.tensors[quant.output]
    exact = loaded.trace(images)
    expected = exact[loaded.output]
    found = decode(tensors[quant.output], info)
    if expected.ndim == 4:
        expected = expected.transpose(0, 2, 3, 1)
    expected = expected.reshape(found.shape)
    bound = 4 * info.scale + 0.02 * max(np.abs(values).max() for values in exact.values())
    worst = np.abs(found - expected).max()
    assert worst <= bound, f"seed {SEED}: largest difference {worst}, bound {bound}"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_network_of_everything_agrees_with_float(seed, tmp_path):
    loaded = load_onnx(save(small_cnn(seed), tmp_path))
    images = floats(100 + seed, 3, 2, 8, 8)
    quant = quantize(loaded, images)
    # The ReLU behind the pool is the first layer's clip; Flatten moves nothing.
    assert steps(quant) == ["layer", "max_pool", "layer", "add", "average_pool", "layer"]
    agree(loaded, quant, images)


def test_the_bound_between_float_and_integers_is_sharp_enough(tmp_path):
    """The mutants: another zero point, swapped channels, or a missing bias break it."""
    loaded = load_onnx(save(small_cnn(1), tmp_path))
    images = floats(101, 3, 2, 8, 8)
    quant = quantize(loaded, images)
    first, second, third = quant.layers
    changed = {
        "zero point": (replace(first, in_zero=first.in_zero + 20), second, third),
        "channels": (replace(first, weight=first.weight[:, ::-1]), second, third),
        "bias": (replace(first, bias=first.bias * 0), second, third),
        "gain": (first, replace(second, gain=np.abs(second.gain)), third),
    }
    for layers in changed.values():
        mutant = replace(quant, layers=layers)
        with pytest.raises(AssertionError, match="largest difference"):
            agree(loaded, mutant, images)


def test_grouped_dilated_strided_layers_agree_with_float(quantised):
    constants = {"w": floats(SEED + 3, 4, 1, 3, 2), "b": floats(SEED + 4, 4)}
    conv = node("Conv", "x w b", "y", group=2, strides=[2, 1], dilations=[1, 2], pads=[1, 0, 2, 1])
    loaded, quant = quantised([conv], constants)
    (layer,) = quant.layers
    assert (layer.groups, layer.stride, layer.dilation) == (2, (2, 1), (1, 2))
    assert layer.pads == (1, 0, 2, 1)
    agree(loaded, quant, X)


def test_weights_stay_as_they_are_in_the_file(tmp_path):
    model = small_cnn(1)
    quant = quantize(load_onnx(save(model, tmp_path)), floats(2, 2, 2, 8, 8))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    np.testing.assert_array_equal(quant.layers[1].weight, stored["w2"])
    assert quant.layers[1].weight.dtype == np.float32
    assert quant.layers[1].gain.min() < 0 < quant.layers[1].gain.max()
    np.testing.assert_array_equal(quant.layers[2].weight[:, :, 0, 0], stored["w3"].T)


def test_the_network_says_how_its_images_were_made(quantised):
    pre = Preprocess(mean=(0.5,), std=(0.25,), scale=1.0)
    _, quant = quantised([FIRST, node("Relu", "c", "y")], preprocess=pre)
    assert quant.preprocess == pre


def test_an_input_with_channels_last_is_rearranged_first(quantised):
    images = X.transpose(0, 2, 3, 1)
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w b", "y")]
    loaded, quant = quantised(nodes, CONV, np.ascontiguousarray(images))
    assert steps(quant) == ["rearrange", "layer"]
    agree(loaded, quant, images)


# Calibration


def test_a_percentile_leaves_out_the_largest_values(quantised):
    # 0, 1, ..., 999 through weight 1: the 99th percentile is 990, to one bin of 999/4096.
    images = np.arange(1000, dtype=np.float32).reshape(10, 1, 10, 10)
    constants = {"w": np.ones((1, 1, 1, 1), np.float32)}
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
    _, quant = quantised(nodes, constants, images, activations="percentile", percentile=99.0)
    assert quant.tensors["x"].scale == 999 / 255
    assert quant.tensors[quant.output].scale * 255 == pytest.approx(990, abs=1)
    _, quant = quantised(nodes, constants, images, activations="percentile", percentile=100.0)
    assert quant.tensors[quant.output].scale == 999 / 255


def test_a_percentile_counts_from_both_ends(quantised):
    images = np.arange(-1000, 500, dtype=np.float32).reshape(15, 1, 10, 10)
    constants = {"w": np.ones((1, 1, 1, 1), np.float32)}
    _, quant = quantised(
        [node("Conv", "x w", "y")], constants, images, activations="percentile", percentile=98.0
    )
    assert quant.tensors[quant.output].scale * 127 == pytest.approx(970, abs=1)


def test_a_percentile_of_what_does_not_vary_is_that_value(quantised):
    constants = {"w": np.zeros((1, 1, 1, 1), np.float32), "b": f32([2])}
    _, quant = quantised(
        [node("Conv", "x w b", "y")],
        constants,
        np.ones((3, 1, 1, 1), np.float32),
        activations="percentile",
        percentile=99.0,
    )
    assert quant.tensors[quant.output].scale == 2 / 127


@pytest.mark.parametrize("percentile", [50, 0, 100.1, float("nan")], ids=str)
def test_a_percentile_outside_50_to_100_is_refused(percentile, quantised):
    message = f"percentile must be above 50 and at most 100, not {percentile!r}"
    with pytest.raises(ValueError, match=message):
        quantised([FIRST, node("Relu", "c", "y")], percentile=percentile)


@pytest.mark.parametrize("option", ["activations", "weights"])
def test_an_unknown_choice_is_refused(option, quantised):
    names = {"activations": "minmax, percentile, mse", "weights": "layer, channel"}[option]
    message = f"{option} must be one of {names}, not 'best'"
    with pytest.raises(ValueError, match=message):
        quantised([FIRST, node("Relu", "c", "y")], **{option: "best"})


def test_the_scale_of_least_error_by_hand():
    # 100 values 10 and one 256 with scale 256/127: 10 is code 5 = 10.08; 128ths make the scale
    # finer until 256 saturates. At k = 126, scale 1.9843, 10 is 5 codes less 0.078, 256 is cut to
    # 252: worse. Without the outlier's weight, the finer one wins.
    values, scale = np.array([10.0, 256.0]), 256 / 127
    for counts in ([100, 1], [1000000, 1]):
        errors = {}
        for k in range(16, 129):
            tried = scale * k / 128
            codes = np.clip(np.floor(values / tried + 0.5), -128, 127)
            errors[k] = float(np.array(counts) @ (codes * tried - values) ** 2)
        best = min(errors.values())
        k = max(k for k, error in errors.items() if error == best)
        found = least_error_scale(values, np.array(counts), scale, 128)
        assert found == scale * k / 128
    assert found < scale


def test_the_scale_of_least_error_saturates_few_large_values(quantised):
    # 4,000 values in -1..1 and one of 30: min-max has 30/127 to a code.
    images = np.linspace(-1, 1, 4000, dtype=np.float32).reshape(10, 1, 20, 20)
    images[3, 0, 4, 5] = 30
    constants = {"w": np.ones((1, 1, 1, 1), np.float32)}
    errors = {}
    for activations in ("minmax", "mse"):
        _, quant = quantised([node("Conv", "x w", "y")], constants, images, activations=activations)
        info = quant.tensors[quant.output]
        values = images.astype(np.float64)
        errors[activations] = np.square(
            decode(encode(values, info), info)[..., 0] - values[:, 0]
        ).mean()
        assert quant.tensors["x"].scale == 31 / 255
    assert errors["mse"] < errors["minmax"]
    assert info.scale < 30 / 127


def test_a_least_error_behind_a_relu_looks_at_what_it_leaves(quantised):
    # Behind the ReLU the large negative values are 0, so that the range stays that of the others.
    images = np.linspace(-1000, 10, 4000, dtype=np.float32).reshape(10, 1, 20, 20)
    constants = {"w": np.ones((1, 1, 1, 1), np.float32)}
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
    _, quant = quantised(nodes, constants, images, activations="mse")
    info = quant.tensors[quant.output]
    assert info.zero == 0
    assert 0.7 * 10 / 255 < info.scale <= 10 / 255


def test_weights_to_a_channel_are_on_its_own_scale(quantised):
    weight = CONV["w"] * f32([1, 100, 0.01, 0]).reshape(4, 1, 1, 1)
    loaded, quant = quantised([FIRST, node("Relu", "c", "y")], CONV | {"w": weight})
    _, channels = quantised(
        [FIRST, node("Relu", "c", "y")], CONV | {"w": weight}, weights="channel"
    )
    (layer,), (other,) = quant.layers, channels.layers
    largest = np.abs(weight).max(axis=(1, 2, 3))
    np.testing.assert_array_equal(layer.weight, weight)
    np.testing.assert_array_equal(layer.gain, 1)
    np.testing.assert_array_equal(other.gain, [*largest[:3], 1])
    np.testing.assert_array_equal(np.abs(other.weight).max(axis=(1, 2, 3)), [1, 1, 1, 0])
    np.testing.assert_allclose(
        other.weight * other.gain[:, None, None, None], weight, rtol=1e-6, atol=1e-12
    )
    # Output 2, 10,000 times smaller than output 1, is lost on a common scale.
    expected = loaded.forward(X)
    for each, near in ((quant, False), (channels, True)):
        codes = integers(each, encode(X, each.tensors["x"]))[each.output]
        values = decode(codes, each.tensors[each.output])[..., 2]
        step = each.tensors[each.output].scale
        assert (np.abs(values - expected[:, 2]).max() <= 1.5 * step) or not near
    assert not np.rint(weight[2] / (largest.max() / 127)).any()
    assert np.rint(other.weight[2] * 127).any()


def test_no_images_are_refused(quantised):
    with pytest.raises(
        InputError, match=r"expected calibration images, found none, for .*net.onnx"
    ):
        quantised([FIRST, node("Relu", "c", "y")], images=X[:0])


def test_images_of_the_wrong_shape_are_refused(quantised):
    message = (
        r"expected network inputs of shape \(N, 2, 5, 4\), found \(4, 2, 5, 5\), in .*net.onnx"
    )
    with pytest.raises(InputError, match=message):
        quantised([FIRST, node("Relu", "c", "y")], shape=("N", 2, 5, 4))


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_images_that_are_no_numbers_are_refused(value, quantised):
    images = X.copy()
    images[1, 1, 1, 1] = value
    with pytest.raises(InputError, match=r"found NaN or infinity, in tensor 'x' of .*net.onnx"):
        quantised([FIRST, node("Relu", "c", "y")], images=images)


def test_values_that_overflow_are_refused(quantised):
    constants = CONV | {"w": np.full((4, 2, 3, 3), 3e38, np.float32)}
    with pytest.raises(InputError, match="expected finite values on the calibration images"):
        quantised([FIRST, node("Relu", "c", "y")], constants)


def test_a_node_of_another_kind_is_refused():
    other = Node(name="n", inputs=("x",), output="y", shape=(1,))
    other = type("Other", (Node,), {"apply": lambda self, x: x})(**vars(other))
    strange = FloatNetwork(nodes=(other,), input="x", output="y", input_shape=(1,))
    with pytest.raises(TypeError, match="cannot quantise"):
        quantize(strange, np.ones((1, 1), np.float32))
