"""Tiny layer programs of which everything that takes time is chosen by hand."""

from dataclasses import replace
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


TWO_GROUP_ENGINE = replace(TINY_ENGINE, ou_cols=16, adcs=4)
"""An engine for :func:`two_group_layer`: two patterns to an OU, four requests to a digit of it."""

TWO_GROUP_EVENTS = {
    "requests": 8 * (6 + 2 + 2),
    "ous": 2 + 1 + 1,
    "gathered": 2 + 1 + 1,
    # 3 descriptors, 3 kernel positions, 3 offsets, 2 headers, 10 words.
    "index_reads": 21,
    "merged": 10,
    "outputs": 3,
    "conversions": 8 * (24 + 8 + 8),
    "wordline_drives": 8 * (2 * 6 + 1 * 2 + 1 * 2),
    "cells_read": 8 * (2 * 24 + 1 * 8 + 1 * 8),
    # Descriptors: address 6 of 64 bytes, length 4, segments 3, patterns 5, final, parity. Kernel
    # positions: 4 of 9, parity; their table: 6, parity. Offsets: 6, 4, parity. Headers: 5, twice 4
    # of 16 outputs, write, parity. Words: slot 4, shift 4, sign, parity.
    "index_bits": 3 * 20 + 3 * 5 + 3 * 7 + 3 * 11 + 2 * 15 + 10 * 10,
    # The third vector adds its pattern to what the second one left.
    "psum_updates": 1,
    # Of the ten words four are not "none".
    "merge_shifts": 4,
    # The second group adds to two of the three outputs that the first one wrote.
    "accumulator_updates": 2,
    "psum_writes": 3 + 1 + 1,
    "psum_reads": 4 + 1,
    "merge_adds": 4,
    "accumulator_writes": 3,
    # A position is a block by itself.
    "replay_writes": 0,
    "replay_reads": 0,
    "requantisations": 3,
    # Bias 40, multiplier 16, shift 6, parity.
    "table_bits": 3 * 63,
}
"""Events of one position of :func:`two_group_layer` in ``TWO_GROUP_ENGINE``, worked by hand.

Vectors of 2 rows and 3 patterns, of 1 and 1, of 1 and 1: 24, 8 and 8 columns, which 4 converters
have in 6, 2 and 2 requests to each of 8 digits.
"""


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


def two_group_layer() -> LayerProgram:
    """Make a layer of 2 inputs, 3x3 pixels, kernel 2x1, 3 outputs, 2 terms: 6 positions.

    Group 0: one gather of 2 rows (position 0, both channels) with 3 patterns; group 1: two gathers
    of 1 row each (position 1, channel 0; then channel 1, adding into the same slot), 1 pattern.
    """
    lists = ProgramLists(8)
    lists.gather(0, 0, [(0, 0, 2)], np.array([[1, 0], [2, 3], [4, 5]]))
    lists.group(kept=3, first_output=0, outputs=3, write=True, gathers=1)
    # Output 0: slots 0 and 1; output 1: slot 2, none; output 2: none, none (zero is written).
    for slot, shift in ((0, 8), (1, 8), (2, 7), (0, 15), (0, 15), (0, 15)):
        lists.word(slot, shift, 0)
    lists.gather(0, 0, [(1, 0, 1)], np.array([[6]]), final=False)
    lists.gather(0, 0, [(1, 1, 1)], np.array([[7]]), accumulate=True)
    lists.group(kept=1, first_output=1, outputs=2, write=False, gathers=2)
    # Output 1: none twice (nothing is written); output 2: slot 0, none.
    for slot, shift in ((0, 15), (0, 15), (0, 9), (0, 15)):
        lists.word(slot, shift, 0)
    return LayerProgram(
        name="hand", scheme="prap", ou_rows=8, in_shape=(3, 3, 2), out_shape=(2, 3, 3),
        kernel=(2, 1), stride=(1, 1), dilation=(1, 1), pads=(0, 0, 0, 0), zero_in=0, zero_out=0,
        clip_lo=0, clip_hi=255, terms=2, identity=False, full_offsets=True, patterns=6, kept=4,
        reused=1, dropped=1, ous_dense=3, bias=np.zeros(3), multiplier=np.ones(3),
        shift=np.full(3, 8),
        **lists.arrays(),
    )  # fmt: skip


def hand_codes(layer: LayerProgram, images: int = 1, seed: int = 0) -> np.ndarray:
    """Draw input codes uint8 [images, H, W, C]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (images, *layer.in_shape)).astype(np.uint8)
