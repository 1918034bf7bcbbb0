"""Reuse words of a compiled layer, and the weights that they stand for."""

import numpy as np

from refmodel.compression.schemes import (
    LayerMapping,
    PatternGroup,
)


def random_weight(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape) * np.exp(0.7 * rng.standard_normal(shape))
    if seed % 2:
        weight = rng.integers(-2, 3, shape) * 0.5
    return weight.astype(np.float32)


def words_of(group: PatternGroup) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots, shifts and signs of a group that has reuse words."""
    assert group.slot is not None
    assert group.shift is not None
    assert group.sign is not None
    return group.slot, group.shift, group.sign


def decode(mapping: LayerMapping, shape: tuple[int, ...], groups: int) -> np.ndarray:
    """Sum what the pattern groups give to every weight, word by word, as the engine would."""
    outputs, inputs, _, width = shape
    total = np.zeros(shape, np.int64)
    for group in mapping.groups:
        for j in range(group.outputs):
            output = group.first_output + j
            first = output // (outputs // groups) * inputs
            words = [(j, 0, 1)]
            if not mapping.identity:
                words = zip(*(part[j].tolist() for part in words_of(group)), strict=True)
            for slot, shift, sign in words:
                if slot < 0:
                    continue
                rows = group.shapes[group.shape_of[slot]].tolist()
                values = group.values[slot].tolist()
                assert not any(values[len(rows) :])
                for (position, channel), value in zip(rows, values, strict=False):
                    at = (output, group.channel + channel - first, *divmod(position, width))
                    total[at] += sign * (value << (8 + shift))
    return total
