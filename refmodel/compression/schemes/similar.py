"""Scheme ``similar``: patterns are reused times a power of two (rule 6)."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.patterned import recover_map
from refmodel.compression.reuse import SIMILAR_LEVELS, ReuseMap, quantise, similar_map
from refmodel.compression.schemes.base import (
    KEEPS,
    Choices,
    LayerMapping,
    LayerSetting,
    LayerSize,
    SchemeSetting,
    Weight,
    channels_field,
    conv_groups,
    eight_bit,
    register,
    reuse_mapping,
    share,
    switch,
)

KEPT_PATTERNS = 64
MOST_KEPT, LEAST_KEPT = 0.75, 1 / 32


@dataclass(frozen=True, kw_only=True)
class SimilarSetting(SchemeSetting):
    """The settings of a layer.

    Attributes
    ----------
    channels
        C_g, input channels in a group, 1 to 4096.
    keep
        Share of a group's weight patterns that is kept, 0 to 1.
    recover
        Whether weights that are a reuse map already, as fine-tuning leaves them, keep that map.
        The rules, applied to them again, would choose another (see
        :mod:`refmodel.compression.patterned`).
    signed
        Whether scales may be negative, which is free in hardware; published ones are not. The map
        of fine-tuned weights is looked for without signs first.
    """

    channels: int = channels_field()
    keep: float = share()
    recover: bool = switch(True)
    signed: bool = switch(False)


def similar_keep(layer: LayerSize) -> float:
    """Share of the patterns that a layer keeps.

    The source are the lists of VGG16 and ResNet50 in the published ``main.py``, the same for
    ``value_similar`` and ``shape_and_value_similar``: a group keeps 64 patterns whatever the output
    width: 64 / out, at most 0.75 (64 outputs and, ours, the narrower layers that they do not have),
    at least 1/32 (4096 outputs). The other two networks keep 48 (ResNet18) or 96 (WRN) patterns,
    and one of ResNet50's shortcuts 128.
    """
    return min(MOST_KEPT, max(LEAST_KEPT, KEPT_PATTERNS / layer.outputs))


def default_setting(layer: LayerSize) -> LayerSetting:
    """Keep of :func:`similar_keep`; groups of 1 channel, R for 1x1, as published.

    Dense (ours) where a kernel is so large that an engine could not add up its patterns: more than
    16 R positions.
    """
    channels = 1 if layer.kernel > 1 else layer.ou_rows
    if not layer.holds_whole(channels):
        return LayerSetting(scheme="dense")
    return LayerSetting(scheme="similar", channels=channels, keep=similar_keep(layer))


def variants(default: LayerSetting, outputs: int, weigh_terms: bool) -> list[LayerSetting]:
    """Try other shares."""
    del outputs, weigh_terms
    return [replace(default, keep=keep) for keep in KEEPS]


def keeps(setting: LayerSetting, shape: tuple[int, ...], groups: int) -> bool:
    """Whether a pattern of a group is kept."""
    return int(shape[0] // groups * setting.keep) > 0


@register(
    "similar",
    default_setting,
    setting=SimilarSetting,
    choices=Choices(variants=variants, keeps=keeps),
)
def map_similar(weight: Weight, groups: int, setting: SimilarSetting, ou_rows: int) -> LayerMapping:
    """Apply rule 6; patterns have all rows of their group.

    With ``setting.recover``, weights that lie on patterns keep those.
    """
    codes = quantise(weight, SIMILAR_LEVELS)
    maps = [_choose_map(codes[part], setting) for part in conv_groups(len(weight), groups)]
    return reuse_mapping("similar", weight, eight_bit(codes), maps, ou_rows)


def _choose_map(codes: NDArray[np.int16], setting: SimilarSetting) -> ReuseMap:
    """Reuse map of one group of a convolution."""
    if setting.recover:
        positions = codes.shape[2] * codes.shape[3]
        recovered = recover_map(
            codes, setting.channels, positions, setting.keep, rows=setting.channels
        )
        if recovered is not None:
            return recovered
    return similar_map(codes, setting.channels, setting.keep, signed=setting.signed)
