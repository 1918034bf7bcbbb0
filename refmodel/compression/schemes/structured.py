"""Scheme ``structured``: whole input channels are left out (rule 1)."""

from dataclasses import dataclass, replace

import numpy as np

from refmodel.compression.prune import structure_mask
from refmodel.compression.schemes.base import (
    KEEPS,
    WIDE_CONNECTED,
    Choices,
    LayerMapping,
    LayerSetting,
    LayerSize,
    SchemeSetting,
    Weight,
    conv_groups,
    real,
    register,
    share,
)
from refmodel.compression.schemes.dense import map_channels


@dataclass(frozen=True, kw_only=True)
class StructuredSetting(SchemeSetting):
    """The settings of a layer.

    Attributes
    ----------
    keep
        Share of the input channels that is kept, 0 to 1.
    """

    keep: float = share()


def structure_keep(layer: LayerSize) -> float:
    """Share of the input channels that a layer keeps.

    The source are the ``structure`` lists of the published ``main.py``: 0.65 for convolutions (all
    four networks), 0.75 for 1x1 convolutions (ResNet50; the 1x1 shortcuts of the others have 0.65),
    0.25 for hidden fully connected layers (VGG16, from 512 inputs; ours: 0.65 for narrower ones).
    The second convolution of WRN, with 16 inputs, is not pruned there.
    """
    if layer.kernel > 1:
        return 0.65
    if layer.fully_connected:
        return 0.25 if layer.inputs >= WIDE_CONNECTED else 0.65
    return 0.75


def empties(layer: LayerSize) -> bool:
    """Whether :func:`structure_keep` would leave no channel: int(in * keep) is 0."""
    return not int(layer.inputs * structure_keep(layer))


def default_setting(layer: LayerSize) -> LayerSetting:
    """See :func:`structure_keep`; dense where :func:`empties` (ours)."""
    if empties(layer):
        return LayerSetting(scheme="dense")
    return LayerSetting(scheme="structured", keep=structure_keep(layer))


def variants(default: LayerSetting, outputs: int, weigh_terms: bool) -> list[LayerSetting]:
    """Try other shares."""
    del outputs, weigh_terms
    return [replace(default, keep=keep) for keep in KEEPS]


def keeps(setting: LayerSetting, shape: tuple[int, ...], groups: int) -> bool:
    """Whether a channel is kept."""
    del groups
    return int(shape[1] * setting.keep) > 0


@register(
    "structured",
    default_setting,
    setting=StructuredSetting,
    choices=Choices(variants=variants, keeps=keeps),
)
def map_structured(
    weight: Weight, groups: int, setting: StructuredSetting, ou_rows: int
) -> LayerMapping:
    """Keep the most important input channels, and map them densely.

    The rows of the kept channels lie side by side, so that ``keep`` of the operation units remain.
    Each group of a grouped convolution keeps its own channels.
    """
    parts = conv_groups(len(weight), groups)
    masks = [structure_mask(real(weight[part]), setting.keep) for part in parts]
    channels = [np.flatnonzero(mask[0, :, 0, 0]) for mask in masks]
    return map_channels("structured", weight, channels, np.concatenate(masks), ou_rows)
