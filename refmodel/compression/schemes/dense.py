"""Scheme ``dense``: every weight as it is.

In a depthwise layer an output sees one channel. Its kernel has few rows, 9 of 3 x 3, so that the
last operation unit of each channel is nearly empty, and the other columns of all of them are: they
see the same rows. With the setting ``packed``, rows of neighbouring channels follow one another
through the operation units, and each has a column for every channel that it holds rows of; an
output is the sum of its columns. Where an operation unit has room for two weights, 3 x 3 kernels
take 1.78 times fewer of them; where it has room for one, as many as before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from math import gcd

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.reuse import DENSE_LEVELS, quantise
from refmodel.compression.schemes.base import (
    MAX_TERMS,
    LayerMapping,
    LayerSetting,
    LayerSize,
    MappedLayer,
    PatternGroup,
    SchemeSetting,
    Weight,
    conv_groups,
    dense_ous,
    plain_mapping,
    register,
    switch,
)
from refmodel.config import FRACTION_BITS


@dataclass(frozen=True, kw_only=True)
class DenseSetting(SchemeSetting):
    """The settings of a layer.

    Attributes
    ----------
    packed
        Whether several groups of a convolution share operation units, where that takes fewer.
    """

    packed: bool = switch(False)


def default_setting(layer: LayerSize) -> LayerSetting:
    """Nothing is packed: how many weights an operation unit holds is not known here."""
    del layer
    return LayerSetting(scheme="dense")


def applies(setting: SchemeSetting) -> bool:
    """It always does."""
    del setting
    return True


@register("dense", default_setting, applies, setting=DenseSetting)
def map_dense(weight: Weight, groups: int, setting: SchemeSetting, ou_rows: int) -> LayerMapping:
    """Cut the input rows into chunks of R: every output has its own pattern in each.

    Input rows are flattened over (kernel position, channel), the channel fastest.
    """
    assert isinstance(setting, DenseSetting)
    if setting.packed and packs(weight.shape, groups, ou_rows):
        return _map_packed(weight, groups, ou_rows)
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


def packs(shape: tuple[int, ...], groups: int, ou_rows: int) -> bool:
    """Whether groups of a convolution leave rows of their operation units empty for others."""
    return groups > 1 and int(np.prod(shape[1:])) % ou_rows > 0


def packed_settings(
    layers: Sequence[MappedLayer], settings: Mapping[str, LayerSetting], ou_rows: int
) -> dict[str, LayerSetting]:
    """Settings with ``packed``, of the layers for which it does something.

    Parameters
    ----------
    layers
        Layers with weights.
    settings
        The setting of each by its name; those of another scheme stay as they are.
    ou_rows
        R, rows of an operation unit.

    Returns
    -------
    dict
        Name pattern to setting.
    """
    return {
        escape(layer.name): replace(settings[layer.name], packed=True)
        for layer in layers
        if settings[layer.name].scheme == "dense"
        and packs(layer.weight.shape, layer.groups, ou_rows)
    }


def _map_packed(weight: Weight, groups: int, ou_rows: int) -> LayerMapping:
    """Let the rows of neighbouring groups of a convolution follow one another.

    An output is the sum of at most :data:`MAX_TERMS` columns. The rows of larger kernels are in
    operation units of their own until few enough are left.
    """
    outputs, inputs, height, width = weight.shape
    each, kernel = outputs // groups, height * width * inputs
    codes = quantise(weight, DENSE_LEVELS)
    flat = codes.transpose(0, 2, 3, 1).reshape(outputs, kernel).astype(np.int8)
    alone = 0
    while -(-(kernel - alone - 1) // ou_rows) + 1 > MAX_TERMS:
        alone += ou_rows
    # After so many groups rows and operation units end together.
    bundle = ou_rows // gcd(kernel - alone, ou_rows)
    parts = []
    for group in range(groups):
        for start in range(0, alone, ou_rows):
            rows = np.arange(start, start + ou_rows)
            shape = np.stack([rows // inputs, rows % inputs], axis=1).astype(np.int32)
            parts.append(
                PatternGroup(
                    channel=group * inputs,
                    channels=inputs,
                    first_output=group * each,
                    outputs=each,
                    shapes=(shape,),
                    shape_of=np.zeros(each, np.int32),
                    values=flat[group * each : (group + 1) * each, rows],
                    **_words(np.arange(each)[:, None]),
                )
            )
    for first in range(0, groups, bundle):
        block = flat[first * each : min(first + bundle, groups) * each]
        parts.append(_bundle(block, first, each, inputs, alone, ou_rows))
    terms = max(part.slot.shape[1] for part in parts if part.slot is not None)
    parts = [replace(part, **_words(part.slot, terms)) for part in parts]
    return LayerMapping(
        scheme="dense",
        terms=terms,
        identity=False,
        full_offsets=True,
        groups=tuple(parts),
        weight_q8=codes.astype(np.int32) << FRACTION_BITS,
        kept=sum(part.kept for part in parts),
        reused=0,
        dropped=0,
        ous_dense=dense_ous(weight, ou_rows),
    )


def _words(slot: NDArray | None, terms: int = 1) -> dict[str, NDArray]:
    """Reuse words [outputs, terms] that add up patterns as they are; -1 is none."""
    assert slot is not None
    slot = np.pad(slot, ((0, 0), (0, max(0, terms - slot.shape[1]))), constant_values=-1)
    return {
        "slot": slot.astype(np.int32),
        "shift": np.zeros(slot.shape, np.int8),
        "sign": np.ones(slot.shape, np.int8),
    }


def _bundle(
    flat: NDArray[np.int8], first: int, each: int, inputs: int, alone: int, ou_rows: int
) -> PatternGroup:
    """Pack groups of a convolution.

    Parameters
    ----------
    flat
        Weights [outputs, rows] of the bundle.
    first
        Its first group.
    each, inputs
        Outputs and input channels of a group.
    alone
        Rows of each group that are left out.
    ou_rows
        R, rows of an operation unit.
    """
    count, rows = len(flat) // each, flat.shape[1] - alone
    owner, place = np.divmod(np.arange(count * rows), rows)
    place += alone
    shapes, shape_of, values = [], [], []
    slots: list[list[int]] = [[] for _ in flat]
    for start in range(0, len(owner), ou_rows):
        part = slice(start, start + ou_rows)
        position, channel = place[part] // inputs, owner[part] * inputs + place[part] % inputs
        order = np.lexsort((channel, position))
        shapes.append(np.stack([position, channel], axis=1)[order].astype(np.int32))
        mine, read = owner[part][order], place[part][order]
        for group in np.unique(mine).tolist():
            for output in range(group * each, (group + 1) * each):
                pattern = np.zeros(ou_rows, np.int8)
                pattern[: len(read)] = np.where(mine == group, flat[output, read], 0)
                slots[output].append(len(values))
                shape_of.append(len(shapes) - 1)
                values.append(pattern)
    terms = max(map(len, slots))
    slot = np.array([mine + [-1] * (terms - len(mine)) for mine in slots])
    return PatternGroup(
        channel=first * inputs,
        channels=count * inputs,
        first_output=first * each,
        outputs=len(flat),
        shapes=tuple(shapes),
        shape_of=np.array(shape_of, np.int32),
        values=np.array(values)[:, : max(map(len, shapes))],
        **_words(slot),
    )
