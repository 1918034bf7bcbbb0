"""Layers with one gather and few weights, to be worked by hand."""

from typing import Any

import numpy as np

from refmodel.program.layer import LayerProgram
from tests.support.layers.builders import ProgramLists


def single(rows: list[list[int]], **changes) -> LayerProgram:
    """A fully connected layer of one identity group: outputs by inputs, at most 8 inputs."""
    matrix = np.array(rows)
    outputs, inputs = matrix.shape
    lists = ProgramLists(8)
    lists.gather(0, 0, [(0, 0, inputs)], matrix)
    lists.group(kept=outputs, first_output=0, outputs=outputs, write=True, gathers=1)
    fields: dict[str, Any] = {
        "name": "single", "scheme": "dense", "ou_rows": 8, "in_shape": (1, 1, inputs),
        "out_shape": (1, 1, outputs), "kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1),
        "pads": (0, 0, 0, 0), "zero_in": 0, "zero_out": 0, "clip_lo": 0, "clip_hi": 255, "terms": 1,
        "identity": True, "full_offsets": True, "patterns": outputs, "kept": outputs, "reused": 0,
        "dropped": 0, "ous_dense": outputs, "bias": [0] * outputs, "multiplier": [1] * outputs,
        "shift": [8] * outputs,
    }  # fmt: skip
    return LayerProgram(**(fields | lists.arrays() | changes))
