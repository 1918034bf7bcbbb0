"""Small networks that are tuned for a scheme: their weights are what mapping leaves of them."""

from pathlib import Path

import numpy as np
import onnx

from refmodel.compression.compile import map_network
from refmodel.compression.quantize import QuantNetwork, quantize
from refmodel.compression.schemes import LayerMapping, LayerSetting
from refmodel.compression.tuned import attach
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.graph import FloatNetwork
from tests.support.nets.onnx_nets import floats, network, node, save

SHAPE = (2, 6, 6)


def plain_model() -> onnx.ModelProto:
    """Six layers: 3x3, 3x3 with BatchNormalization, grouped, 1x1 with a residual, and two Gemm."""
    rng = np.random.default_rng(5)
    constants = {
        "w1": floats(1, 16, 2, 3, 3) / 3,
        "b1": floats(2, 16) / 3,
        "w2": floats(3, 24, 16, 3, 3) / 12,
        "scale": rng.uniform(-1.5, 1.5, 24).astype(np.float32),
        "shift": floats(4, 24) / 4,
        "mean": floats(5, 24) / 4,
        "variance": rng.uniform(0.5, 2, 24).astype(np.float32),
        "w3": floats(6, 24, 12, 3, 3) / 10,
        "w4": floats(7, 24, 24, 1, 1) / 5,
        "w5": floats(8, 20, 24) / 5,
        "b5": floats(9, 20),
        "w6": floats(10, 10, 20) / 4,
    }
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "c2 scale shift mean variance", "n2"),
        node("Relu", "n2", "r2"),
        node("Conv", "r2 w3", "c3", group=2, pads=[1, 1, 1, 1]),
        node("Relu", "c3", "r3"),
        node("Conv", "r3 w4", "c4"),
        node("Add", "c4 r2", "a4"),
        node("Relu", "a4", "r4"),
        node("GlobalAveragePool", "r4", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w5 b5", "f5", transB=1),
        node("Relu", "f5", "r5"),
        node("Gemm", "r5 w6", "y", transB=1),
    ]
    return network(nodes, constants, ("N", *SHAPE))


def images(count: int = 16) -> np.ndarray:
    """Images as network inputs."""
    return floats(11, count, *SHAPE)


def mapped(
    folder: Path, scheme: str, settings: dict[str, LayerSetting] | None = None
) -> tuple[FloatNetwork, QuantNetwork, dict[str, LayerMapping]]:
    """The network, its layers, and the mapping of each that does not run dense."""
    plain = load_onnx(save(plain_model(), folder))
    quant = quantize(plain, images())
    mappings = map_network(quant, scheme=scheme, settings=settings)
    return (
        plain,
        quant,
        {
            layer.name: mapping
            for layer, mapping in zip(quant.layers, mappings, strict=True)
            if mapping.scheme != "dense"
        },
    )


def tuned_network(
    folder: Path, scheme: str, settings: dict[str, LayerSetting] | None = None
) -> FloatNetwork:
    """The network as fine-tuning would leave it."""
    plain, quant, mappings = mapped(folder, scheme, settings)
    layers = {layer.name: layer for layer in quant.layers}
    scales = {name: each.scales(layers[name].weight) for name, each in mappings.items()}
    return attach(plain, scheme=scheme, ou_rows=8, mappings=mappings, scales=scales)
