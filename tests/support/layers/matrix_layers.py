"""Quantised layers as the compiler takes them."""

import numpy as np

from refmodel.compression.quantize import MatrixLayer


def matrix_layer(rng: np.random.Generator, **changes) -> MatrixLayer:
    """A random layer before mapping; ``weight`` decides its size, input 6x5."""
    values = {
        "name": "conv", "weight": rng.normal(0, 1, (8, 4, 3, 3)).astype(np.float32),
        "stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1, "in_scale": 0.02,
        "in_zero": 128, "out_scale": 0.03, "out_zero": 128, "clip": (0, 255),
    } | changes  # fmt: skip
    outputs, inputs, *kernel = values["weight"].shape
    pads, (sy, sx), (dy, dx) = values["pads"], values["stride"], values["dilation"]
    height = (6 + pads[0] + pads[2] - dy * (kernel[0] - 1) - 1) // sy + 1
    width = (5 + pads[1] + pads[3] - dx * (kernel[1] - 1) - 1) // sx + 1
    values.setdefault("gain", rng.choice([-1, 1], outputs) * rng.uniform(0.1, 1, outputs))
    values.setdefault("bias", rng.normal(0, 0.5, outputs))
    values["in_shape"] = (6, 5, inputs * values["groups"])
    values["out_shape"] = (height, width, outputs)
    return MatrixLayer(**values)
