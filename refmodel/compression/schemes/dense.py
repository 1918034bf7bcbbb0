"""Scheme ``dense``: every weight as it is."""

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.reuse import DENSE_LEVELS, quantise
from refmodel.compression.schemes.base import (
    LayerMapping,
    LayerSetting,
    LayerSize,
    PatternGroup,
    SchemeSetting,
    Weight,
    conv_groups,
    plain_mapping,
    register,
)


def default_setting(layer: LayerSize) -> LayerSetting:
    """There is nothing to set."""
    del layer
    return LayerSetting(scheme="dense")


def applies(setting: SchemeSetting) -> bool:
    """It always does."""
    del setting
    return True


@register("dense", default_setting, applies)
def map_dense(weight: Weight, groups: int, setting: SchemeSetting, ou_rows: int) -> LayerMapping:
    """Cut the input rows into chunks of R: every output has its own pattern in each.

    Input rows are flattened over (kernel position, channel), the channel fastest.
    """
    del setting
    channels = [np.arange(weight.shape[1])] * groups
    return map_channels("dense", weight, channels, None, ou_rows)


def map_channels(
    scheme: str,
    weight: Weight,
    channels: list[NDArray[np.intp]],
    mask: NDArray[np.uint8] | None,
    ou_rows: int,
) -> LayerMapping:
    """Map some input channels densely: their rows side by side in chunks of R.

    Parameters
    ----------
    scheme
        Name of the scheme.
    weight
        Weights of the layer.
    channels
        Kept input channels of each group of the convolution, counted within it, ascending.
    mask
        The same as a mask, or None for all.
    ou_rows
        R, rows of an operation unit.
    """
    outputs, inputs, height, width = weight.shape
    codes = quantise(weight, DENSE_LEVELS)
    if mask is not None:
        codes *= mask
    parts = []
    for group, part in enumerate(conv_groups(outputs, len(channels))):
        kept = channels[group]
        rows = height * width * len(kept)
        flat = codes[part].transpose(0, 2, 3, 1)[..., kept].reshape(part.stop - part.start, rows)
        position, place = np.divmod(np.arange(rows), max(1, len(kept)))
        offsets = np.stack([position, kept[place]], axis=1).astype(np.int32)
        parts.extend(
            PatternGroup(
                channel=group * inputs,
                channels=inputs,
                first_output=part.start,
                outputs=part.stop - part.start,
                shapes=(offsets[start : start + ou_rows],),
                shape_of=np.zeros(part.stop - part.start, np.int32),
                values=flat[:, start : start + ou_rows].astype(np.int8),
            )
            for start in range(0, rows, ou_rows)
        )
    return plain_mapping(scheme, weight, codes, parts, mask, ou_rows)
