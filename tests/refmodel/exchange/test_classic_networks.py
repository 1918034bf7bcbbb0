"""Networks in the form of the files of ONNX's model zoo, whose opsets begin at 3."""

import numpy as np
import onnx
import pytest

import refmodel
from refmodel.exchange.onnx.load import import_model, load_onnx
from tests.support.nets.classic_nets import NETWORKS
from tests.support.nets.onnx_cases import relative, runtime
from tests.support.nets.onnx_nets import floats, save

OLDEST = 7
"""The opset from which onnxruntime runs all operators."""

CASES = [
    pytest.param(name, opset, marks=() if opset in opsets[:1] else (pytest.mark.long,))
    for name, (_, opsets) in NETWORKS.items()
    for opset in opsets
]


def softmax(x: np.ndarray) -> np.ndarray:
    shares = np.exp(x - x.max())
    return shares / shares.sum(1, keepdims=True)


@pytest.mark.parametrize(("name", "opset"), CASES)
def test_classic_networks_are_those_of_onnxruntime(name, opset, tmp_path):
    make, _ = NETWORKS[name]
    loaded = load_onnx(save(make(opset), tmp_path))
    x = floats(2, 2, *loaded.input_shape)
    model = make(max(opset, OLDEST))  # the same weights
    expected = np.concatenate([runtime(model, image[None]) for image in x])
    found = loaded.forward(x)
    if model.graph.node[-1].op_type == "Softmax":
        found = np.concatenate([softmax(each[None]) for each in found])
    assert found.shape == expected.shape
    assert relative(found, expected) <= 1e-4


@pytest.mark.parametrize("name", ["alexnet", "densenet", "efficientnet lite"])
def test_classic_networks_go_through_compression(name, tmp_path):
    make, opsets = NETWORKS[name]
    loaded = load_onnx(save(make(opsets[-1]), tmp_path))
    x = floats(3, 16, *loaded.input_shape)
    program = refmodel.compress(loaded, x, scheme="dense")
    exact = loaded.forward(x).reshape(16, -1)
    noise = program.logits(x) - exact
    assert (exact**2).sum() >= 100 * (noise**2).sum()  # 20 dB


def test_an_output_needs_no_shape():
    model = NETWORKS["vgg"][0](8)
    assert not model.graph.output[0].type.tensor_type.HasField("shape")
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    assert import_model(model, "net.onnx").output_shape == (5,)
