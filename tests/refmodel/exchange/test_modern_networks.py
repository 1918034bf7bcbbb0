"""Networks of the last years, made in PyTorch and written by both of its exporters."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

import refmodel
from refmodel import golden
from refmodel.errors import InputError
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.run import run_image
from refmodel.predict.accelerator.sizing import accelerator_config_for
from tests.support.nets.onnx_cases import relative, runtime
from tests.support.nets.onnx_nets import floats

pytest.importorskip("torch", reason="PyTorch is not installed: make test installs it")
from tests.support.nets import modern_nets, torch_nets

COUNT = 16

LEAST = {"EfficientNet-B0": 18, "MobileNetV3-small": 18}
"""Decibels of signal over noise of the outputs in 8 bits, at least; 20 where nothing is said."""

LOOPS = ("normalised by groups",)
"""Networks that the accelerator says it cannot run; engines run their layers."""

QUICK = ("EfficientNet-B0", "TorchScript")


def cases() -> list:
    return [
        pytest.param(name, exporter, marks=() if (name, exporter) == QUICK else (pytest.mark.long,))
        for name in modern_nets.NETWORKS
        for exporter in ("TorchScript", "dynamo")
    ]


def export(name: str, exporter: str, folder, monkeypatch) -> Path:
    monkeypatch.setitem(torch_nets.NETWORKS, name, modern_nets.NETWORKS[name])
    shape = modern_nets.NETWORKS[name][1]
    path = folder / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch_nets.make(name)
        torch_nets.export(net, shape, path, dynamo=exporter == "dynamo")
    return path


@pytest.mark.parametrize(("name", "exporter"), cases())
def test_networks_of_the_last_years(name, exporter, tmp_path, monkeypatch):
    path = export(name, exporter, tmp_path, monkeypatch)
    loaded = refmodel.load(path)
    model = onnx.load(path)
    x = floats(2, COUNT, *loaded.input_shape)
    expected = np.concatenate([runtime(model, image[None]) for image in x[:4]])
    exact = loaded.forward(x)
    if name == "segmentation":
        np.testing.assert_array_equal(exact[:4].argmax(1), expected)
    else:
        assert relative(exact[:4], expected) <= 1e-4
    # In 8 bits, without pruning: how far the codes are from floating point.
    program = refmodel.compress(loaded, x, scheme="dense", moments=False)
    exact = exact.reshape(COUNT, -1)
    noise = program.logits(x) - exact
    decibels = 10 * np.log10((exact**2).sum() / (noise**2).sum())
    print(f"{name}, {exporter}: {decibels:.1f} dB in 8 bits")
    assert decibels >= LEAST.get(name, 20)
    # The accelerator's operations are those of the golden model.
    if name in LOOPS:
        with pytest.raises(InputError, match="three loops cannot read"):
            network_image(program, accelerator_config_for(program))
        return
    codes = golden.quantise_input(program, x[:2])
    image = network_image(program, accelerator_config_for(program))
    found = run_image(image, program.layers, codes)
    wanted = golden.run_program(program, codes)[program.output]
    np.testing.assert_array_equal(found, wanted.reshape(2, -1))
