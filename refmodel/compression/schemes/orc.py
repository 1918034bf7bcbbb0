"""Scheme ``orc``: each output keeps its own largest weights (rule 2; SRE, ISCA 2019)."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from refmodel.compression.prune import orc_mask
from refmodel.compression.reuse import DENSE_LEVELS, quantise
from refmodel.compression.schemes.base import (
    KEEPS,
    WIDE_CONNECTED,
    Choices,
    LayerMapping,
    LayerSetting,
    LayerSize,
    PatternGroup,
    SchemeSetting,
    Weight,
    conv_groups,
    plain_mapping,
    real,
    register,
    share,
)


@dataclass(frozen=True, kw_only=True)
class OrcSetting(SchemeSetting):
    """The settings of a layer.

    Attributes
    ----------
    keep
        Share of an output's weights that is kept, 0 to 1.
    """

    keep: float = share()


def default_setting(layer: LayerSize) -> LayerSetting:
    """Keep 0.2 of the weights, 0.05 in hidden fully connected layers from 512 inputs.

    The source are the ``ORC`` lists of VGG16, ResNet18 and ResNet50 in the published ``main.py``
    (WRN keeps 0.15, and ResNet18 according to its simulator as well). That fully connected layers
    below 512 inputs keep 0.2 too is ours: the published networks have none. So is that layers of
    fewer than 5 weights to an output, of which nothing would be left, run dense.
    """
    wide = layer.fully_connected and layer.inputs >= WIDE_CONNECTED
    keep = 0.05 if wide else 0.2
    if not int(layer.inputs * layer.kernel * keep):
        return LayerSetting(scheme="dense")
    return LayerSetting(scheme="orc", keep=keep)


def variants(default: LayerSetting, outputs: int, weigh_terms: bool) -> list[LayerSetting]:
    """Try other shares."""
    del outputs, weigh_terms
    return [replace(default, keep=keep) for keep in KEEPS]


def keeps(setting: LayerSetting, shape: tuple[int, ...], groups: int) -> bool:
    """Whether an output keeps a weight."""
    del groups
    return int(prod(shape[1:]) * setting.keep) > 0


@register(
    "orc",
    default_setting,
    setting=OrcSetting,
    choices=Choices(variants=variants, keeps=keeps),
)
def map_orc(weight: Weight, groups: int, setting: OrcSetting, ou_rows: int) -> LayerMapping:
    """Pack the kept weights of each output into operation units of its own.

    Kept positions are ordered by (kernel position, channel). A pattern group is a chunk: its
    pattern j is the next R kept positions of output j, on a shape of its own, so that every
    operation unit has its own gather.
    """
    outputs, inputs = weight.shape[:2]
    codes = quantise(weight, DENSE_LEVELS)
    mask = np.empty(weight.shape, np.uint8)
    parts = []
    for group, part in enumerate(conv_groups(outputs, groups)):
        mask[part] = orc_mask(real(weight[part]), setting.keep)
        count = part.stop - part.start
        flat = codes[part].transpose(0, 2, 3, 1).reshape(count, -1)
        # Every output keeps as many.
        kept = np.nonzero(mask[part].transpose(0, 2, 3, 1).reshape(count, -1))[1]
        kept = kept.reshape(count, -1).astype(np.int32)
        values = np.take_along_axis(flat, kept, axis=1).astype(np.int8)
        offsets = np.stack(np.divmod(kept, np.int32(inputs)), axis=2)
        parts.extend(
            PatternGroup(
                channel=group * inputs,
                channels=inputs,
                first_output=part.start,
                outputs=count,
                shapes=tuple(offsets[:, start : start + ou_rows]),
                shape_of=np.arange(count, dtype=np.int32),
                values=values[:, start : start + ou_rows],
            )
            for start in range(0, kept.shape[1], ou_rows)
        )
    codes *= mask
    return plain_mapping("orc", weight, codes, parts, mask, ou_rows)
