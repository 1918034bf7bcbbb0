"""A network and images for matching moments."""

import numpy as np

from refmodel.network.graph import Clip, FloatNetwork, Floats, Matrix


def network(seed: int = 0, *, fused: bool = False) -> FloatNetwork:
    """Three convolutions with gains and ReLUs; fused, the gains are in the weights."""
    rng = np.random.default_rng(seed)
    nodes, name, inputs = [], "x", 3
    for index, outputs in enumerate((12, 12, 10)):
        weight: Floats = rng.standard_normal((outputs, inputs, 3, 3)).astype(
            np.float32
        ) / np.float32(5)
        gain = rng.uniform(0.5, 2, outputs) * rng.choice([-1, 1], outputs)
        if fused:
            weight = np.asarray(weight * gain[:, None, None, None], np.float32)
            gain = np.ones(outputs)
        nodes.append(
            Matrix(
                name=f"conv{index}",
                inputs=(name,),
                output=f"y{index}",
                shape=(outputs, 8, 8),
                weight=weight,
                gain=gain,
                bias=rng.standard_normal(outputs),
                pads=(1, 1, 1, 1),
            )
        )
        shape = (outputs, 8, 8)
        nodes.append(Clip(name=f"r{index}", inputs=(f"y{index}",), output=f"z{index}", shape=shape))
        name, inputs = f"z{index}", outputs
    return FloatNetwork(nodes=tuple(nodes), input="x", output=name, input_shape=(3, 8, 8))


def images(seed: int, count: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)
