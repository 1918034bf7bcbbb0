"""Scheme ``prap``: shapes, and patterns reused times a power of two (rules 3 and 7)."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.patterned import recover_map
from refmodel.compression.prune import shape_mask
from refmodel.compression.reuse import SIMILAR_LEVELS, ReuseMap, prap_map, quantise
from refmodel.compression.schemes.base import (
    KEEPS,
    Choices,
    LayerMapping,
    LayerSetting,
    LayerSize,
    Weight,
    conv_groups,
    eight_bit,
    positions_field,
    real,
    register,
    reuse_mapping,
)
from refmodel.compression.schemes.shape import shape_size
from refmodel.compression.schemes.similar import SimilarSetting, keeps, similar_keep


@dataclass(frozen=True, kw_only=True)
class PrapSetting(SimilarSetting):
    """The settings of a layer, beside those of ``similar``.

    Attributes
    ----------
    positions
        V, kept positions of the kernel, 1 to 4096. Not used for 1x1 kernels and fully connected
        layers, which keep as many channels of a group as an operation unit has rows.
    """

    positions: int = positions_field()


def default_setting(layer: LayerSize) -> LayerSetting:
    """C_g and V of scheme ``shape``, keep of scheme ``similar``."""
    channels, positions = shape_size(layer)
    return LayerSetting(
        scheme="prap", channels=channels, positions=positions, keep=similar_keep(layer)
    )


SHAPES = ((1, 8), (2, 4), (4, 2))
"""C_g and V that are tried with a budget: those of the published networks."""


def variants(default: LayerSetting, outputs: int, weigh_terms: bool) -> list[LayerSetting]:
    """Try other shares, and where groups are small other sizes of them."""
    del outputs, weigh_terms
    own = default.channels, default.positions
    sizes = {own, *SHAPES} if default.channels < 8 else {own}
    return [
        replace(default, keep=keep, channels=channels, positions=positions)
        for keep in KEEPS
        for channels, positions in sorted(sizes)
    ]


def distance(setting: LayerSetting, default: LayerSetting) -> tuple[float, ...]:
    """How far apart two settings are: in the share, then in the size of groups."""
    return abs(setting.keep - default.keep), abs(setting.channels - default.channels)


@register(
    "prap",
    default_setting,
    setting=PrapSetting,
    choices=Choices(variants=variants, keeps=keeps, distance=distance),
)
def map_prap(weight: Weight, groups: int, setting: PrapSetting, ou_rows: int) -> LayerMapping:
    """Apply shape masks (rule 3) and reuse maps (rule 7).

    Kept patterns of a group are numbered by shape, then by descending norm; shapes by the largest
    norm among their patterns. Each group of a grouped convolution is mapped on its own, with the
    layer's quantisation. With ``setting.recover``, weights that lie on patterns keep those.
    """
    codes = quantise(weight, SIMILAR_LEVELS)
    maps = [
        _choose_map(weight[part], codes[part], setting, ou_rows)
        for part in conv_groups(len(weight), groups)
    ]
    return reuse_mapping("prap", weight, eight_bit(codes), maps, ou_rows)


def _choose_map(
    weight: Weight, codes: NDArray[np.int16], setting: PrapSetting, ou_rows: int
) -> ReuseMap:
    """Reuse map of one group of a convolution."""
    if setting.recover:
        recovered = recover_map(
            codes, setting.channels, setting.positions, setting.keep, rows=ou_rows
        )
        if recovered is not None:
            return recovered
    mask = shape_mask(real(weight), setting.channels, setting.positions, rows=ou_rows)
    return prap_map(codes, mask, setting.channels, setting.keep, signed=setting.signed)
