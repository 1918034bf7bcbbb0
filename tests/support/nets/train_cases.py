"""Layers and settings for fine-tuning, and mappings worked by hand."""

import numpy as np

from refmodel.compression.schemes import LayerMapping, LayerSetting, PatternGroup, map_layer
from tests.support.nets.onnx_nets import floats

SETTINGS = {
    "structured": LayerSetting(scheme="structured", keep=0.6),
    "orc": LayerSetting(scheme="orc", keep=0.3),
    "shape": LayerSetting(scheme="shape", channels=2, positions=4, keep=0.5),
    "identical": LayerSetting(scheme="identical", channels=1, keep=0.5),
    "structured+identical": LayerSetting(
        scheme="structured+identical", keep=0.5, structure_keep=0.6
    ),
    "similar": LayerSetting(scheme="similar", channels=1, keep=0.4),
    "prap": LayerSetting(scheme="prap", channels=2, positions=4, keep=0.4),
    "dictionary": LayerSetting(scheme="dictionary", channels=1, patterns=4, terms=3),
}


SHAPES = [(16, 6, 3, 3, 1), (16, 3, 3, 3, 2), (12, 20, 1, 1, 1)]


def mapped(scheme: str, shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, LayerMapping]:
    """Weights of a shape (out, in, kh, kw, groups), and their mapping."""
    weight = floats(seed, *shape[:4])
    return weight, map_layer(weight, shape[4], scheme, SETTINGS[scheme])


def by_hand() -> LayerMapping:
    """Two outputs on a kernel of one position and two channels.

    Patterns [3, -5] and [7]; the second on channel 1 alone. Output 0 is pattern 0 times 1/2 less
    pattern 1 times 4: [1.5, -2.5 - 28] = [1.5, -30.5]; output 1 is pattern 1: [0, 7].
    """
    group = PatternGroup(
        channel=0,
        channels=2,
        first_output=0,
        outputs=2,
        shapes=(np.array([[0, 0], [0, 1]], np.int32), np.array([[0, 1]], np.int32)),
        shape_of=np.array([0, 1], np.int32),
        values=np.array([[3, -5], [7, 0]], np.int8),
        slot=np.array([[0, 1], [1, -1]], np.int32),
        shift=np.array([[-1, 2], [0, 0]], np.int8),
        sign=np.array([[1, -1], [1, 1]], np.int8),
    )
    return LayerMapping(
        scheme="dictionary",
        terms=2,
        identity=False,
        full_offsets=True,
        groups=(group,),
        weight_q8=np.array([[384, -7808], [0, 1792]]).reshape(2, 2, 1, 1),
        kept=2,
        reused=0,
        dropped=0,
        ous_dense=2,
    )
