"""Scheme ``structured+identical``: rule 4 on the channels that rule 1 keeps (rule 5)."""

from dataclasses import dataclass, replace

import numpy as np

from refmodel.compression.prune import structure_mask
from refmodel.compression.reuse import DENSE_LEVELS, ReuseMap, identical_map, quantise
from refmodel.compression.schemes import identical, structured
from refmodel.compression.schemes.base import (
    LayerMapping,
    LayerSetting,
    LayerSize,
    Weight,
    conv_groups,
    real,
    register,
    reuse_mapping,
    share,
)


@dataclass(frozen=True, kw_only=True)
class StructuredIdenticalSetting(identical.IdenticalSetting):
    """The settings of a layer, beside those of ``identical``.

    Attributes
    ----------
    structure_keep
        Share of the input channels that is kept, 0 to 1; 1 keeps all.
    """

    structure_keep: float = share()


def default_setting(layer: LayerSize) -> LayerSetting:
    """Thresholds and groups of ``identical``, channels of ``structured``.

    So has the published ``main.py``, whose ``structure+identical`` lists equal its
    ``value_identical`` lists, and whose simulator takes the pruning of its ``structure`` lists.
    Dense where either of the two schemes is, so where no channel would be left (ours).
    """
    setting = identical.default_setting(layer)
    if setting.scheme == "dense" or structured.empties(layer):
        return LayerSetting(scheme="dense")
    return replace(
        setting,
        scheme="structured+identical",
        structure_keep=structured.structure_keep(layer),
    )


def applies(setting: StructuredIdenticalSetting) -> bool:
    """Whether either part of the scheme is applied."""
    return setting.keep < 1 or setting.structure_keep < 1


@register("structured+identical", default_setting, applies, setting=StructuredIdenticalSetting)
def map_structured_identical(
    weight: Weight, groups: int, setting: StructuredIdenticalSetting, ou_rows: int
) -> LayerMapping:
    """Apply rule 5: masked codes, and groups of one channel are skipped where it is all zero.

    Pruned channels are on no shape. With a threshold of 1 the layer is ``structured``.
    """
    if setting.keep >= 1:
        return structured.map_structured(
            weight,
            groups,
            structured.StructuredSetting(keep=setting.structure_keep),
            ou_rows,
        )
    codes = quantise(weight, DENSE_LEVELS)
    maps: list[ReuseMap] = []
    for part in conv_groups(len(weight), groups):
        mask = structure_mask(real(weight[part]), setting.structure_keep)
        codes[part] *= mask
        found = identical_map(
            codes[part],
            setting.channels,
            setting.keep,
            skip_zero_groups=setting.channels == 1,
        )
        found = replace(found, mask=found.mask * mask)
        maps.append(identical.without_zeros(found, codes[part]))
    return reuse_mapping("structured+identical", weight, codes.astype(np.int8), maps, ou_rows)
