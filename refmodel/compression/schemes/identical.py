"""Scheme ``identical``: equal, or nearly equal, patterns are programmed once (rule 4; PattPIM)."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.reuse import DENSE_LEVELS, ReuseMap, identical_map, quantise
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
    register,
    reuse_mapping,
    share,
)


@dataclass(frozen=True, kw_only=True)
class IdenticalSetting(SchemeSetting):
    """The settings of a layer.

    Attributes
    ----------
    channels
        C_g, input channels in a group, 1 to 4096.
    keep
        The threshold, a place in the order of norms, 0 to 1.
    """

    channels: int = channels_field()
    keep: float = share()


def default_setting(layer: LayerSize) -> LayerSetting:
    """Threshold 0.75, in convolutions with 512 outputs or more 0.5; groups of 1 channel, R for 1x1.

    The source is the ``value_identical`` list of VGG16 in the published ``main.py``; its hidden
    fully connected layers have 0.75. The other networks have one threshold for all layers: 0.6
    (ResNet18, ResNet50) or 0.7 (WRN). Dense (ours) where a kernel is so large that an engine could
    not add up its patterns: more than 16 R positions.
    """
    wide = layer.outputs >= 512 and not layer.fully_connected
    channels = 1 if layer.kernel > 1 else layer.ou_rows
    if not layer.holds_whole(channels):
        return LayerSetting(scheme="dense")
    return LayerSetting(scheme="identical", channels=channels, keep=0.5 if wide else 0.75)


def variants(default: LayerSetting, outputs: int, weigh_terms: bool) -> list[LayerSetting]:
    """Try other thresholds."""
    del outputs, weigh_terms
    return [replace(default, keep=keep) for keep in KEEPS]


@register(
    "identical", default_setting, setting=IdenticalSetting, choices=Choices(variants=variants)
)
def map_identical(
    weight: Weight, groups: int, setting: IdenticalSetting, ou_rows: int
) -> LayerMapping:
    """Apply rule 4: reused patterns have the values of their target, unscaled.

    Patterns have all rows of their group; those with more than R are cut when compiled. A group
    whose codes are all zero keeps nothing, where the rule would program zeros once.
    """
    codes = quantise(weight, DENSE_LEVELS)
    maps = [
        without_zeros(identical_map(codes[part], setting.channels, setting.keep), codes[part])
        for part in conv_groups(len(weight), groups)
    ]
    return reuse_mapping("identical", weight, codes.astype(np.int8), maps, ou_rows)


def without_zeros(reuse: ReuseMap, codes: NDArray[np.int16]) -> ReuseMap:
    """Drop the patterns of groups whose codes are all zero, instead of keeping the first."""
    inputs = codes.shape[1]
    padded = np.zeros(len(reuse.target) * reuse.channels, bool)
    padded[:inputs] = np.any(codes, axis=(0, 2, 3))
    zero = ~np.any(padded.reshape(-1, reuse.channels), axis=1)
    if not zero.any():
        return reuse
    mask = reuse.mask.copy()
    mask[:, np.repeat(zero, reuse.channels)[:inputs]] = 0
    return replace(
        reuse,
        kept_count=np.where(zero, 0, reuse.kept_count).astype(np.int32),
        target=np.where(zero[:, None], -1, reuse.target).astype(np.int32),
        mask=mask,
    )
