"""Tiny layer programs of which everything that takes time is chosen by hand."""

from typing import Any

import numpy as np

from refmodel.config import SHIFT_NONE, EngineConfig
from refmodel.program.layer import LayerProgram
from tests.support.layers.builders import ProgramLists

TINY_ENGINE = EngineConfig(
    crossbar_size=32,
    slots=16,
    max_outputs=16,
    max_gathers=16,
    max_segments=32,
    max_groups=8,
    max_words=256,
    activation_bytes=64,
)
"""An engine that the layers of this file fit, with all else as usual: 8 ADCs, 1 lane, latency 1."""


def hand_layer(
    groups: list[list[tuple[int, int]]],
    *,
    outputs: int,
    positions: int = 1,
    terms: int = 1,
    identity: bool = False,
    ou_rows: int = 8,
    spans: list[tuple[int, int]] | None = None,
    none_share: float = 0.0,
    series: bool = False,
    seed: int = 0,
) -> LayerProgram:
    """Make a layer of 1x1 kernels over a row of ``positions`` pixels.

    Parameters
    ----------
    groups
        To each group its gathers, as (rows, patterns).
    spans
        To each group the outputs that it touches, as (first, count); all where None. The first
        group must touch all.
    series
        Whether the gathers of a group add into the same slots.
    seed
        Draws weights, reuse words and requantisation.
    """
    rng = np.random.default_rng(seed)
    lists = ProgramLists(ou_rows)
    channels = max(rows for gathers in groups for rows, _ in gathers)
    kept_total = 0
    for g, gathers in enumerate(groups):
        first, count = (0, outputs) if spans is None else spans[g]
        kept = gathers[0][1] if series else sum(patterns for _, patterns in gathers)
        for i, (rows, patterns) in enumerate(gathers):
            lists.gather(
                0,
                0 if identity else rows,
                [(0, 0, rows)],
                rng.integers(-128, 128, (patterns, rows)),
                accumulate=series and i > 0,
                final=not series or i == len(gathers) - 1,
            )
        lists.group(
            kept=kept, first_output=first, outputs=count, write=g == 0, gathers=len(gathers)
        )
        kept_total += kept
        for _ in range(0 if identity else count * terms):
            none = rng.random() < none_share
            shift = SHIFT_NONE if none else int(rng.integers(0, 15))
            lists.word(int(rng.integers(0, kept)), shift, int(rng.integers(0, 2)))
    arrays = lists.arrays()
    fields: dict[str, Any] = {
        "name": "hand",
        "scheme": "dense" if identity else "prap",
        "ou_rows": ou_rows,
        "in_shape": (1, positions, channels),
        "out_shape": (1, positions, outputs),
        "kernel": (1, 1),
        "stride": (1, 1),
        "dilation": (1, 1),
        "pads": (0, 0, 0, 0),
        "zero_in": 0,
        "zero_out": 128,
        "clip_lo": 0,
        "clip_hi": 255,
        "terms": terms,
        "identity": identity,
        "full_offsets": identity,
        "patterns": kept_total,
        "kept": kept_total,
        "reused": 0,
        "dropped": 0,
        "ous_dense": kept_total,
    }
    zero: dict[str, Any] = dict.fromkeys(("bias", "multiplier", "shift"), np.zeros(outputs))
    weights = LayerProgram(**fields, **arrays, **zero).effective_weights().reshape(outputs, -1)
    # Outputs spread over the codes: the standard deviation of a sum becomes about 60.
    spread = 74 * np.sqrt((weights.astype(float) ** 2).sum(1)) + 256
    shift = np.clip(np.floor(np.log2(spread * (1 << 14) / 60)), 0, 47)
    return LayerProgram(
        **fields,
        **arrays,
        bias=-weights.sum(1) * 128,
        multiplier=rng.choice([-1, 1], outputs) * (1 << 14),
        shift=shift,
    )


def hand_codes(layer: LayerProgram, images: int = 1, seed: int = 0) -> np.ndarray:
    """Draw input codes uint8 [images, H, W, C]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (images, *layer.in_shape)).astype(np.uint8)
