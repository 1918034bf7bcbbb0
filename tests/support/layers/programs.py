"""Small whole programs."""

import numpy as np

from refmodel.program.program import Program
from refmodel.program.step import Step
from tests.support.layers.builders import random_layer_program


def make(seed: int = 0) -> Program:
    rng = np.random.default_rng(seed)
    sizes = {"in_shape": (4, 4, 2), "kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1)}
    layers = tuple(
        random_layer_program(
            rng, name=f"layer {i}", pads=(1, 1, 1, 1), outputs=2, groups=1, **sizes
        )
        for i in range(3)
    )
    window = {"kernel": [2, 2], "stride": [2, 2], "pads": [0, 0, 0, 0]}
    average = window | {"multiplier": np.full((2, 2), 9), "shift": 5, "zero_in": 1, "zero_out": 2}
    moved = {"index": rng.permutation(32), "shape": [4, 4, 2]}
    total = {"multipliers": [1, -2], "shift": 3, "zeros_in": [0, 1], "zero_out": 4, "clip": [0, 9]}
    steps = (
        Step(op="layer", inputs=("in",), output="a", params={"index": 0}),
        Step(op="rearrange", inputs=("a",), output="b", params=moved),
        Step(op="add", inputs=("a", "b"), output="c", params=total),
        Step(op="layer", inputs=("c",), output="d", params={"index": 1}),
        Step(op="clip", inputs=("d",), output="e", params={"lo": 3, "hi": 200}),
        Step(op="concat", inputs=("e", "a"), output="f", params=total | {"axis": 0}),
        Step(op="max_pool", inputs=("e",), output="g", params=window),
        Step(op="average_pool", inputs=("e",), output="h", params=average),
        Step(op="layer", inputs=("e",), output="i", params={"index": 2}),
    )
    shapes = {name: [4, 4, 2] for name in "abcdei"} | {"in": [4, 4, 2], "f": [8, 4, 2]}
    shapes |= {name: [2, 2, 2] for name in "gh"}
    return Program(
        layers=layers,
        steps=steps,
        tensors={
            name: {"shape": shape, "scale": 0.1 + 0.2, "zero": 3} for name, shape in shapes.items()
        },
        input="in",
        output="i",
        preprocess={"mean": [0.5], "layout": "nchw"},
        about={"scheme": "prap", "seed": seed},
    )
