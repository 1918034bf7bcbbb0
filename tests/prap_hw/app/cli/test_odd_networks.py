"""Networks that are odd through the whole path: layers of zeros, one output, names of any kind."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import Prap
from tests.support.nets.onnx_nets import floats, network, node

SEED = 41

CASES = {
    "a layer of zeros": ("{}", (1, 0)),
    "only zeros": ("{}", (0, 0)),
    "unicode names": ("层/卷积 é🙂 'q' {}", (1, 1)),
    "long names": ("block/" * 100 + "{}", (1, 1)),
}
"""How nodes are named, and factors of the weights of two layers; the last layer has one output."""


@pytest.mark.long
@pytest.mark.cosim
@pytest.mark.parametrize("case", CASES)
def test_odd_networks_through_compression_evaluation_and_cosimulation(
    case: str, prap: Prap, tmp_path: Path
) -> None:
    name, factors = CASES[case]
    constants = {
        "w1": floats(1, 4, 1, 3, 3) * np.float32(factors[0]),
        "b1": floats(2, 4),
        "w2": floats(3, 4, 4, 3, 3) * np.float32(factors[1] / 6),
        "w3": floats(4, 64, 1),
    }
    nodes = [
        node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Conv", "r w2", "d", pads=[1, 1, 1, 1]),
        node("Relu", "d", "e"),
        node("MaxPool", "e", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "f"),
        node("Gemm", "f w3", "y"),
    ]
    for each in nodes:
        each.name = name.format(each.name)
    model = network(nodes, constants, ("N", 1, 8, 8))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    x = np.random.default_rng(SEED).integers(0, 256, (12, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", x=x, y=np.zeros(12, int))
    images = ("--images", tmp_path / "x.npz")
    done = tmp_path / "done"
    calibration = ("--calibration", tmp_path / "x.npz")
    code, _, err = prap("compress", tmp_path / "net.onnx", *calibration, "-o", done)
    assert code == 0, err
    code, _, err = prap("evaluate", done, *images)
    assert code == 0, err
    figures = tmp_path / "cosim.json"
    code, _, err = prap("cosim", done, *images, "--json", figures)
    assert code == 0, err
    found = json.loads(figures.read_text())
    assert found["differences"] == []
    assert [layer["name"] for layer in found["layers"]] == [nodes[at].name for at in (0, 2, 6)]
