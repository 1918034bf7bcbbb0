"""How mappings are built: the steps that several schemes share."""

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.reuse import FRACTION, ReuseMap
from refmodel.compression.schemes.base.mapping import (
    LayerMapping,
    PatternGroup,
    Weight,
    weight_unit,
)
from refmodel.config import FRACTION_BITS, MAX_SHIFT
from refmodel.errors import InputError


def fold_gain(weight: Weight, gain: NDArray[np.float64]) -> tuple[Weight, NDArray[np.float64]]:
    """Multiply each output's weights by the magnitude of its gain.

    Returns
    -------
    float32 [out, ...]
        The products over the largest of them in magnitude; zeros where the gain is 0.
    float64 [out]
        Factor of each output: times this, the ``output_scale`` of a mapping of the products is that
        of a mapping of ``weight``.
    """
    magnitude = np.abs(np.asarray(gain, np.float64))
    # An output at a time: no array in float64 as large as the weights.
    largest = max(
        float(np.abs(row).max()) * float(factor)
        for row, factor in zip(weight, magnitude, strict=True)
    )
    if not 0 < largest < np.inf:  # nothing to weigh: all zero, or refused when compiled
        return weight, np.ones(len(weight))
    result = np.empty(weight.shape, np.float32)
    for row, values, factor in zip(result, weight, magnitude, strict=True):
        row[...] = values.astype(np.float64) * factor / largest
    unit = weight_unit(result) * largest / weight_unit(weight)
    return result, unit / np.where(magnitude > 0, magnitude, unit)


def real(weight: Weight) -> NDArray[np.float32]:
    """Weights as float32, which pruning ranks."""
    return weight.astype(np.float32, copy=False)


def dense_ous(weight: Weight, ou_rows: int) -> int:
    """Operation units of the dense mapping, one weight pattern in each."""
    return -(-weight[0].size // ou_rows) * weight.shape[0]


def conv_groups(outputs: int, groups: int) -> list[slice]:
    """Outputs of each group of a convolution."""
    count = outputs // groups
    return [slice(group * count, (group + 1) * count) for group in range(groups)]


def eight_bit(codes: NDArray[np.int16]) -> NDArray[np.int8]:
    """Weights in 8 bits of codes with 8 fraction bits: rint(code / 256), halves to even."""
    result = np.empty(codes.shape, np.int8)
    for row, values in zip(result, codes, strict=True):  # an output at a time: no large array
        row[...] = np.rint(values / np.float32(FRACTION))
    return result


def plain_mapping(
    scheme: str,
    weight: Weight,
    codes: NDArray[np.int16],
    parts: list[PatternGroup],
    mask: NDArray[np.uint8] | None,
    ou_rows: int,
) -> LayerMapping:
    """Make a mapping without reuse: every output has its own pattern in each group.

    Parameters
    ----------
    scheme
        Name of the scheme.
    weight
        Weights of the layer.
    codes
        Effective weights in units of the weight scale: zero off the mask.
    parts
        Pattern groups, without reuse words.
    mask
        1 where a weight is kept; None for ones everywhere.
    ou_rows
        R, rows of an operation unit.
    """
    return LayerMapping(
        scheme=scheme,
        terms=1,
        identity=True,
        full_offsets=True,
        groups=tuple(parts),
        weight_q8=codes.astype(np.int32) << FRACTION_BITS,
        kept=sum(pattern.kept for pattern in parts),
        reused=0,
        dropped=0,
        ous_dense=dense_ous(weight, ou_rows),
        mask=mask,
    )


def reuse_mapping(
    scheme: str,
    weight: Weight,
    steps: NDArray[np.int8],
    maps: list[ReuseMap],
    ou_rows: int,
) -> LayerMapping:
    """Make a mapping of the reuse maps of each group of a convolution.

    Kept patterns of a group are numbered by shape, then in the order of the map; shapes by their
    first pattern.

    Parameters
    ----------
    scheme
        Name of the scheme.
    weight
        Weights of the layer.
    steps
        The same in 8 bits, in units of the weight scale.
    maps
        One reuse map for each group of the convolution.
    ou_rows
        R, rows of an operation unit.
    """
    weight_q8 = np.empty(weight.shape, np.int32)
    parts: list[PatternGroup] = []
    for group, (part, reuse) in enumerate(
        zip(conv_groups(len(weight), len(maps)), maps, strict=True)
    ):
        found = pattern_groups(
            steps[part],
            reuse,
            weight_q8[part],
            channel=group * weight.shape[1],
            output=part.start,
        )
        # Where nothing is kept at all, the first group stands for the outputs.
        parts.extend([pattern for pattern in found if pattern.kept] or found[:1])
    return LayerMapping(
        scheme=scheme,
        terms=1,
        identity=False,
        full_offsets=not all(_whole_channels(reuse) for reuse in maps),
        groups=tuple(parts),
        weight_q8=weight_q8,
        kept=sum(reuse.kept for reuse in maps),
        reused=sum(reuse.reused for reuse in maps),
        dropped=sum(reuse.dropped for reuse in maps),
        ous_dense=dense_ous(weight, ou_rows),
        mask=np.concatenate([reuse.mask for reuse in maps]) if len(maps) > 1 else maps[0].mask,
        reuse=tuple(maps),
    )


def pattern_groups(
    steps: NDArray[np.int8],
    reuse: ReuseMap,
    weight_q8: NDArray[np.int32],
    *,
    channel: int,
    output: int,
) -> list[PatternGroup]:
    """Make the pattern groups of a reuse map, and fill ``weight_q8`` with the effective weights.

    ``steps`` are the weights in 8 bits; those off the map's mask do not matter.
    """
    outputs, inputs, height, width = steps.shape
    if reuse.exponent.max() > MAX_SHIFT:
        raise InputError(
            f"expected shifts of at most {MAX_SHIFT}, found {reuse.exponent.max()} in a layer with "
            f"groups of {reuse.channels} channels: use smaller groups"
        )
    result = []
    for index in range(len(reuse.target)):
        start = index * reuse.channels
        part = slice(start, min(start + reuse.channels, inputs))
        count = part.stop - start
        # Rows by position, then channel.
        masked = steps[:, part] * reuse.mask[:, part].view(np.int8)
        rows = masked.transpose(2, 3, 1, 0).reshape(-1, outputs)
        shape_rows = reuse.mask[:, part].transpose(2, 3, 1, 0).reshape(-1, outputs)
        target, exponent = reuse.target[index], reuse.exponent[index]
        used = target >= 0
        scaled = rows[:, target].astype(np.int64) << (exponent + np.int64(FRACTION_BITS))
        sign = np.ones(outputs, np.int8) if reuse.sign is None else reuse.sign[index]
        scaled *= used * sign
        weight_q8[:, part] = scaled.reshape(height, width, count, outputs).transpose(3, 2, 0, 1)

        kept = reuse.order[index, : reuse.kept_count[index]]
        numbers: dict[bytes, int] = {}
        columns = np.ascontiguousarray(shape_rows[:, kept].T)
        shape_of = np.array(
            [numbers.setdefault(column.tobytes(), len(numbers)) for column in columns], np.int32
        )
        by_shape = np.argsort(shape_of, kind="stable")
        kept, shape_of = kept[by_shape], shape_of[by_shape]
        shapes = [np.flatnonzero(np.frombuffer(name, np.uint8)) for name in numbers]
        values = np.zeros((len(kept), max((len(shape) for shape in shapes), default=0)), np.int8)
        for number, shape in enumerate(shapes):
            mine = shape_of == number
            values[mine, : len(shape)] = rows[np.ix_(shape, kept[mine])].T
        place = np.full(outputs, -1, np.int32)
        place[kept] = np.arange(len(kept))
        result.append(
            PatternGroup(
                channel=channel + start,
                channels=count,
                first_output=output,
                outputs=outputs,
                shapes=tuple(
                    np.stack(np.divmod(shape, count), axis=1).astype(np.int32) for shape in shapes
                ),
                shape_of=shape_of,
                values=values,
                slot=np.where(used, place[target], -1).astype(np.int32)[:, None],
                shift=exponent[:, None].copy(),
                sign=sign[:, None].copy(),
            )
        )
    return result


def _whole_channels(reuse: ReuseMap) -> bool:
    """Whether every shape keeps the same positions in all channels of its group."""
    inputs = reuse.mask.shape[1]
    first = np.arange(inputs) // reuse.channels * reuse.channels
    return bool((reuse.mask == reuse.mask[:, first]).all())
