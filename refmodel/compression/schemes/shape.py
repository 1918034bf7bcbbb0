"""Scheme ``shape``: kernel positions are left out, all patterns are kept (rule 3)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.prune import shape_mask
from refmodel.compression.reuse import DENSE_LEVELS, ReuseMap, quantise
from refmodel.compression.schemes.base import (
    LayerMapping,
    LayerSetting,
    LayerSize,
    SchemeSetting,
    Weight,
    channels_field,
    conv_groups,
    positions_field,
    real,
    register,
    reuse_mapping,
    share,
)


@dataclass(frozen=True, kw_only=True)
class ShapeSetting(SchemeSetting):
    """The settings of a layer.

    Attributes
    ----------
    channels
        C_g, input channels in a group, 1 to 4096.
    positions
        V, kept positions of the kernel, 1 to 4096. Not used for 1x1 kernels and fully connected
        layers, which keep as many channels of a group as an operation unit has rows.
    keep
        The share of the weights that C_g and V come to, 0 to 1, of which only matters whether it
        is 1: then the layer runs dense.
    """

    channels: int = channels_field()
    positions: int = positions_field()
    keep: float = share()


def shape_size(layer: LayerSize) -> tuple[int, int]:
    """(C_g, V) of a layer.

    The source are the lists of VGG16 and ResNet50 in the published ``main.py``, the same for
    ``shape`` and ``shape_and_value_similar``:

    - (C_g, V) follows the input width: (1, 8) to 64 channels, (2, 4) to 256, (4, 2) from 512;
    - C_g of 1x1 convolutions is 8 up to 256 channels, 16 from 512; of hidden fully connected layers
      32 (from 512 inputs; ours: 8 below, where pruning 3 of 4 inputs untrained destroys a network).

    The other two published networks use (2, 4) where these have (1, 8). ResNet50's last two
    shortcuts have C_g = 8. For R other than 8 the same C_g hold R / C_g positions, and C_g of 1x1
    layers are R, 2R, 4R.
    """
    if layer.kernel > 1:
        channels = 1 if layer.inputs < 128 else 2 if layer.inputs < 512 else 4
        return channels, max(1, layer.ou_rows // channels)
    wide = 4 if layer.fully_connected else 2
    return layer.ou_rows * (1 if layer.inputs < 512 else wide), 1


def default_setting(layer: LayerSize) -> LayerSetting:
    """C_g and V of :func:`shape_size`; keep is the share of the weights that they come to.

    The published lists have keep 1.0 throughout, where it is not used; the share is what the
    published simulator is told (``prune_config_list``: 8/9, 4/9, 2/9, 1/2, 1/4).
    """
    channels, positions = shape_size(layer)
    keep = positions / layer.kernel if layer.kernel > 1 else layer.ou_rows / channels
    return LayerSetting(scheme="shape", channels=channels, positions=positions, keep=min(1.0, keep))


@register("shape", default_setting, setting=ShapeSetting)
def map_shape(weight: Weight, groups: int, setting: ShapeSetting, ou_rows: int) -> LayerMapping:
    """Keep the patterns of all outputs on the shapes of rule 3; patterns of one share gathers."""
    codes = quantise(weight, DENSE_LEVELS)
    maps = [
        _all_kept(
            shape_mask(real(weight[part]), setting.channels, setting.positions, rows=ou_rows),
            setting.channels,
        )
        for part in conv_groups(len(weight), groups)
    ]
    return reuse_mapping("shape", weight, codes.astype(np.int8), maps, ou_rows)


def _all_kept(mask: NDArray[np.uint8], channels: int) -> ReuseMap:
    """Reuse map that keeps every pattern."""
    outputs, groups = len(mask), -(-mask.shape[1] // channels)
    own = np.tile(np.arange(outputs, dtype=np.int32), (groups, 1))
    return ReuseMap(
        channels=channels,
        order=own,
        kept_count=np.full(groups, outputs, np.int32),
        target=own,
        exponent=np.zeros((groups, outputs), np.int8),
        mask=mask,
    )
