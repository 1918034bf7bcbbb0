"""Networks that are made in PyTorch and written by both of its exporters."""

import warnings

import numpy as np
import onnx
import pytest

import refmodel
from refmodel.network.graph import FloatNetwork
from tests.support.nets.onnx_cases import relative, runtime
from tests.support.nets.onnx_nets import floats

pytest.importorskip("torch", reason="PyTorch is not installed: make test installs it")
from tests.support.nets import torch_nets

EXPORTERS = {"TorchScript": False, "dynamo": True}

QUICK = ("resnet",)
"""Networks that `make test` tries."""

NEWEST = {"TorchScript": 23, "dynamo": 26}
"""Opsets that PyTorch 2.13 writes at most."""

OLDEST = 13

COUNT = 16

LEAST = 30
"""Decibels of signal over noise of the outputs in 8 bits."""


def exported(name: str, exporter: str, folder, **options) -> tuple[onnx.ModelProto, FloatNetwork]:
    path = folder / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net, shape = torch_nets.make(name), torch_nets.NETWORKS[name][1]
        torch_nets.export(net, shape, path, dynamo=EXPORTERS[exporter], **options)
    return onnx.load(path), refmodel.load(path)


def check(model: onnx.ModelProto, loaded: FloatNetwork) -> np.ndarray:
    """The network is onnxruntime's, to 1e-4 of the largest value; returns its inputs."""
    x = floats(2, COUNT, *loaded.input_shape)
    expected = np.concatenate([runtime(model, image[None]) for image in x[:4]])
    last = next(each for each in model.graph.node if each.output[0] == model.graph.output[0].name)
    found = loaded.forward(x[:4])
    if last.op_type == "LogSoftmax":
        found = found - np.log(np.exp(found).sum(1, keepdims=True))
    assert relative(found, expected) <= 1e-4
    return x


def names() -> list:
    marks = {name: () if name in QUICK else (pytest.mark.long,) for name in torch_nets.NETWORKS}
    return [pytest.param(name, marks=marks[name]) for name in torch_nets.NETWORKS]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", names())
def test_networks_of_pytorch(name, exporter, tmp_path):
    model, loaded = exported(name, exporter, tmp_path)
    x = check(model, loaded)
    # In 8 bits, without pruning: how far the codes are from floating point.
    program = refmodel.compress(loaded, x, scheme="dense", moments=False)
    exact = loaded.forward(x).reshape(COUNT, -1)
    noise = program.logits(x) - exact
    decibels = 10 * np.log10((exact**2).sum() / (noise**2).sum())
    print(f"{name}, {exporter}: {decibels:.1f} dB in 8 bits")
    assert decibels >= LEAST


def opsets() -> list:
    found = [(exporter, at) for exporter in EXPORTERS for at in range(OLDEST, NEWEST[exporter] + 1)]
    quick = {("TorchScript", OLDEST)}
    return [
        pytest.param(
            *each, marks=() if each in quick else pytest.mark.long, id="-".join(map(str, each))
        )
        for each in found
    ]


@pytest.mark.parametrize(("exporter", "opset"), opsets())
def test_every_opset_that_pytorch_writes(exporter, opset, tmp_path):
    check(*exported("vgg", exporter, tmp_path, opset_version=opset))


def test_there_are_thirty_networks():
    assert len(torch_nets.NETWORKS) == 30
