"""The float network against onnx's own reference evaluator, operator by operator."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from refmodel.errors import InputError
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network import graph
from refmodel.network.graph import AveragePool, Clip, Matrix, Rearrange
from refmodel.network.images import Preprocess, load_images
from tests.support.nets.graph_cases import CASES, CONV, FIRST, NORM, constant, conv
from tests.support.nets.onnx_nets import f32, floats, network, node, reference, save, small_cnn

IMAGES = floats(1, 3, 2, 5, 5)


@pytest.mark.parametrize("case", CASES)
def test_every_operator_matches_the_reference_evaluator(case, tmp_path):
    nodes, constants = CASES[case]
    if case == "conv-float64-weights":
        model = network(nodes, CONV)
        loaded = load_onnx(
            save(network(nodes, {k: v.astype(np.float64) for k, v in CONV.items()}), tmp_path)
        )
    else:
        model = network(nodes, constants)
        loaded = load_onnx(save(model, tmp_path))
    expected = reference(model, IMAGES)
    found = loaded.forward(IMAGES)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (3, *loaded.output_shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


OLD = {
    "clip-6": ([FIRST, node("Clip", "c", "y", min=0.0, max=6.0)], 6),
    "norm-7": (
        [FIRST, node("BatchNormalization", "c scale shift mean variance", "y", epsilon=0.01)],
        7,
    ),
    "squeeze-unsqueeze-11": (
        [
            FIRST,
            node("GlobalAveragePool", "c", "g"),
            node("Squeeze", "g", "s", axes=[2, 3]),
            node("Unsqueeze", "s", "y", axes=[2, 3]),
        ],
        11,
    ),
}


@pytest.mark.parametrize("case", OLD)
def test_attributes_of_older_opsets_mean_the_same(case, tmp_path):
    nodes, opset = OLD[case]
    constants = CONV | (NORM if "norm" in case else {})
    model = network(nodes, constants, opset=opset)
    # The evaluator's BatchNormalization of opset 7 returns a tuple, which it then refuses itself;
    # the node is written the same way in opset 17.
    known = network(nodes, constants) if "norm" in case else model
    expected = reference(known, IMAGES)
    found = load_onnx(save(model, tmp_path)).forward(IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_shape_as_an_attribute_and_an_addition_along_an_axis(tmp_path):
    nodes = [
        node("Conv", "x w", "c"),
        node("Add", "c b", "a", broadcast=1, axis=1),
        node("Reshape", "a", "y", shape=[0, 36]),
    ]
    older = [onnx.helper.make_opsetid("", 1)]
    model = network(nodes, CONV, opset=1)
    del model.opset_import[:]
    model.opset_import.extend(older)
    newer = network([node("Conv", "x w b", "c"), node("Flatten", "c", "y")], CONV)
    folder = tmp_path / "newer"
    folder.mkdir()
    expected = load_onnx(save(newer, folder)).forward(IMAGES)
    found = load_onnx(save(model, tmp_path)).forward(IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("target", [[1, -1], [1, 50], [-1, 50], [0, 50]], ids=str)
def test_a_batch_fixed_at_1_still_takes_batches(target, tmp_path):
    nodes = [constant("s", target), node("Reshape", "x s", "f"), node("MatMul", "f w", "y")]
    loaded = load_onnx(save(network(nodes, {"w": floats(3, 50, 4)}, (1, 2, 5, 5)), tmp_path))
    expected = IMAGES.reshape(3, 50) @ floats(3, 50, 4)
    np.testing.assert_allclose(loaded.forward(IMAGES), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("softmax", ["Softmax", "LogSoftmax"])
def test_a_softmax_at_the_end_is_left_out(softmax, tmp_path):
    nodes = [FIRST, node("Flatten", "c", "f"), node(softmax, "f", "p"), node("Identity", "p", "y")]
    loaded = load_onnx(save(network(nodes, CONV), tmp_path))
    model = network(nodes[:2], CONV, output="f")
    logits = reference(model, IMAGES)
    np.testing.assert_allclose(loaded.forward(IMAGES), logits, rtol=1e-5, atol=1e-5)


def test_normalisation_stays_apart_from_the_weights(tmp_path):
    nodes, constants = CASES["norm"]
    (layer,) = load_onnx(save(network(nodes, constants), tmp_path)).nodes
    assert isinstance(layer, Matrix)
    np.testing.assert_array_equal(layer.weight, CONV["w"])
    gain = NORM["scale"] / np.sqrt(NORM["variance"].astype(np.float64) + 1e-5)
    np.testing.assert_allclose(layer.gain, gain, rtol=1e-7)
    shift = (CONV["b"].astype(np.float64) - NORM["mean"]) * gain + NORM["shift"]
    np.testing.assert_allclose(layer.bias, shift, rtol=1e-7)


def test_chains_of_rearrangements_become_one_and_dead_nodes_go(tmp_path):
    nodes, constants = CASES["shuffle"]
    dead = node("Sin", "c", "unused")
    loaded = load_onnx(save(network([*nodes, dead], constants), tmp_path))
    assert [type(each) for each in loaded.nodes] == [Matrix, Rearrange]


def test_names_of_nodes_are_unique(tmp_path):
    nodes = [node("Conv", "x w", "c"), node("Conv", "c v", "y")]
    for each in nodes:
        each.name = "same"
    constants = {"w": CONV["w"], "v": floats(9, 2, 4, 1, 1)}
    loaded = load_onnx(save(network(nodes, constants), tmp_path))
    assert [each.name for each in loaded.nodes] == ["same", "same_2"]


def test_inputs_that_are_initialisers_too_are_no_inputs(tmp_path):
    model = network(*conv())
    for name, value in CONV.items():
        info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape)
        model.graph.input.insert(0, info)
    assert load_onnx(save(model, tmp_path)).input == "x"


def test_weights_in_a_file_beside_the_network_are_read(tmp_path):
    model = network(*conv())
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").exists()
    found = load_onnx(path).forward(IMAGES)
    expected = reference(network(*conv()), IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_padding_of_ceil_mode_is_not_counted_but_that_of_pads_is(tmp_path):
    # Width 5 with one column of pads behind it, kernel 2, stride 2, rounded up: columns {0, 1},
    # {2, 3}, {4, pad}. Without pads the last window is {4} and a column that does not exist.
    pool = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}
    for pads, corner in (([0, 0, 0, 0], 1), ([0, 0, 1, 1], 4)):
        nodes = [FIRST, node("AveragePool", "c", "y", pads=pads, **pool)]
        loaded = load_onnx(save(network(nodes, CONV), tmp_path))
        average = loaded.nodes[-1]
        assert isinstance(average, AveragePool)
        assert average.counts.shape == (3, 3)
        assert average.counts[2, 2] == corner
        assert average.counts[0, 0] == 4


def test_a_batch_is_the_same_as_its_images_one_by_one(tmp_path, monkeypatch):
    loaded = load_onnx(save(small_cnn(11), tmp_path))
    images = floats(12, 7, 2, 8, 8)
    whole = loaded.forward(images)
    monkeypatch.setattr(graph, "CHUNK_ELEMENTS", 1)
    assert len(list(loaded.chunks(images))) == 7
    np.testing.assert_allclose(loaded.forward(images), whole, rtol=1e-5, atol=1e-6)


def test_trace_holds_every_tensor_and_ends_in_the_output(tmp_path):
    loaded = load_onnx(save(small_cnn(13), tmp_path))
    images = floats(14, 2, 2, 8, 8)
    tensors = loaded.trace(images)
    assert set(tensors) == set(loaded.shapes)
    assert {name: values.shape[1:] for name, values in tensors.items()} == loaded.shapes
    np.testing.assert_array_equal(tensors[loaded.output], loaded.forward(images))


def test_no_images_give_no_outputs(tmp_path):
    loaded = load_onnx(save(small_cnn(15), tmp_path))
    assert loaded.forward(np.zeros((0, 2, 8, 8), np.float32)).shape == (0, 5)


def test_images_of_the_wrong_shape_are_refused(tmp_path):
    loaded = load_onnx(save(small_cnn(16), tmp_path))
    message = (
        r"expected network inputs of shape \(N, 2, 8, 8\), found \(3, 2, 5, 5\), in .*net.onnx"
    )
    with pytest.raises(InputError, match=message):
        loaded.forward(IMAGES)


def test_a_node_kind_must_say_how_it_is_computed():
    with pytest.raises(NotImplementedError):
        graph.Node(name="n", inputs=("x",), output="y", shape=(1,)).apply(IMAGES)


def test_relu_limits_are_the_default_of_a_clip():
    clip = Clip(name="n", inputs=("x",), output="y", shape=(3,))
    np.testing.assert_array_equal(clip.apply(f32([[-1, 0, 2]])), [[0, 0, 2]])


TRAINED = {
    "mnist_conv_maxpool.onnx": ((0.1307,), (0.3081,), 1 / 255, 0.9815),
    "mnist/model.onnx": ((0.0,), (1.0,), 1.0, 0.9891),
}


@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks_reach_the_accuracy_measured_elsewhere(name, shared: Path):
    # The figures are those of onnxruntime and PyTorch in the README of the given data.
    mean, std, scale, accuracy = TRAINED[name]
    x, y = load_images(shared / "data/images/t10k-images-idx3-ubyte.gz")
    assert y is not None
    loaded = load_onnx(shared / "data/onnx" / name)
    pre = Preprocess(mean=mean, std=std, scale=scale)
    logits = loaded.forward(pre.apply(x, loaded.input_shape))
    assert round(float((logits.argmax(axis=1) == y).mean()), 4) == accuracy


def test_the_cifar_network_matches_the_reference_evaluator(shared: Path):
    path = shared / "data/onnx/cifar_base_kw.onnx"
    model = onnx.load(path)
    x, _ = load_images(shared / "data/images/cifar10_test_A_5000.npz")
    loaded = load_onnx(path)
    pre = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.225,), scale=1 / 255)
    inputs = pre.apply(x[:2], loaded.input_shape)
    expected = np.concatenate([reference(model, image[None]) for image in inputs])
    np.testing.assert_allclose(loaded.forward(inputs), expected, rtol=1e-4, atol=1e-4)
