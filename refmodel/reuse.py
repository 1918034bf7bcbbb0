"""Quantised weights and reuse maps (ALGORITHM.md, quantisation and rule 7).

All work is per group of ``channels`` consecutive input channels, on integer codes with 8 fraction
bits (one weight step is 256). An output's weight pattern is kept (programmed as y, its masked codes
rounded to multiples of 256), reused (a kept pattern times a power of two) or dropped (zero).

- Order by norm, the sum of |code * mask|: descending, equal norms by output.
- The first K = int(out * keep) are kept; if one of them rounds to zero, K becomes its place.
- Every other pattern x with norm > 0 is compared with each kept y_j on the shape of y_j, where its
  **unmasked** codes count: x_j = x * mask_j, s_j = max(2^rint(log2(|x_j| / |y_j|)), 2^-8),
  d_j = |s_j * y_j - x_j|. The last candidate is zero, with d = norm. The first smallest d wins.
- x_j = 0 gives s_j = 0 and d_j = 0. A win by zero or by s_j = 0 drops the pattern.

The ratio is rounded to float32 before the logarithm, which is exact; everything else is an integer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refmodel.prune import check_weight

DENSE_LEVELS = 127
"""L of 8-bit weights."""

FRACTION = 256
"""Codes to one weight step where codes have 8 fraction bits."""

SIMILAR_LEVELS = DENSE_LEVELS * FRACTION
"""L of the rules that scale patterns: 8 fraction bits below an 8-bit weight."""

LEAST_EXPONENT = -8
"""The least exponent of a scale, 2^-8."""

_BLOCK = 1 << 16
"""Pairs of patterns compared at once: what stays in a core's cache."""

_ABOVE_ROOT = 0x3504F4
"""Mantissa field of the least float32 above sqrt(2)."""


def weight_scale(weight: NDArray[np.float32], levels: int) -> float:
    """Real value of one code: max(max W, -min W) / levels, not yet rounded to float32."""
    return max(float(weight.max()), -float(weight.min())) / levels


def quantise(
    weight: NDArray[np.float32] | NDArray[np.int8], levels: int
) -> NDArray[np.int16]:
    """Codes rint(float32(W) / float32(s)), s = max(max W, -min W) / levels.

    The division is done in float32; halves go to even. A layer of zeros has zero codes. Weights
    that are 8-bit integers already, which is ours, are their own codes for 127 levels.

    Parameters
    ----------
    weight
        Finite float32 [out, in, kh, kw], or int8.
    levels
        The largest code, 127 or 127 * 256.

    Returns
    -------
    int16 [out, in, kh, kw]
        Codes of -levels to levels.
    """
    check_weight(weight, integers=True)
    if not 1 <= levels <= SIMILAR_LEVELS:
        raise ValueError(f"levels must be 1 to {SIMILAR_LEVELS}, not {levels!r}")
    if weight.dtype == np.int8:
        # -128 * 256 has no magnitude in 16 bits; its neighbour rounds to the same -128.
        codes = weight.astype(np.int32) * (levels // DENSE_LEVELS)
        return np.maximum(codes, -np.iinfo(np.int16).max).astype(np.int16)
    scale = np.float32(weight_scale(weight, levels))
    if scale == 0 and not weight.any():
        return np.zeros(weight.shape, np.int16)
    if scale < np.finfo(np.float32).tiny:
        largest = float(np.abs(weight).max())
        raise ValueError(f"weight must be zero or reach 1e-33 in magnitude, not {largest!r}")
    codes = weight / scale
    np.rint(codes, out=codes)
    return codes.astype(np.int16)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReuseMap:
    """What became of every weight pattern of a layer.

    Attributes
    ----------
    channels
        C_g, input channels in a group; the last group may have fewer.
    order
        int32 [groups, out]: outputs by descending norm. The first ``kept_count`` are kept.
    kept_count
        int32 [groups]: K of each group.
    target
        int32 [groups, out]: the output whose kept pattern is used, itself where kept, -1 where
        dropped.
    exponent
        int8 [groups, out]: k of the scale 2^k, 0 where kept or dropped.
    mask
        uint8 [out, in, kh, kw]: shapes in the end. A reused pattern has taken over that of its
        target; that of a dropped one is empty.
    """

    channels: int
    order: NDArray[np.int32]
    kept_count: NDArray[np.int32]
    target: NDArray[np.int32]
    exponent: NDArray[np.int8]
    mask: NDArray[np.uint8]

    @property
    def patterns(self) -> int:
        """Weight patterns of the layer."""
        return self.target.size

    @property
    def kept(self) -> int:
        """Weight patterns that are programmed."""
        return int(self.kept_count.sum())

    @property
    def dropped(self) -> int:
        """Weight patterns that are replaced by zero."""
        return int(np.count_nonzero(self.target < 0))

    @property
    def reused(self) -> int:
        """Weight patterns that are taken from a kept one."""
        return self.patterns - self.kept - self.dropped

    @property
    def reuse_ratio(self) -> float:
        """Share of the patterns that are not kept, dropped ones included."""
        return (self.patterns - self.kept) / self.patterns

    def map_table(self) -> NDArray[np.int16]:
        """List the patterns that are not kept, as the published program does.

        Returns
        -------
        int16 [in, out, 2]
            For each input channel the pairs (output, its target or -1 where dropped) by descending
            norm, then (-1, 0), then zeros. There is no end mark where nothing is kept.
        """
        groups, outputs = self.target.shape
        table = np.zeros((groups, outputs, 2), np.int16)
        for group, kept in enumerate(self.kept_count.tolist()):
            rest = self.order[group, kept:]
            table[group, : len(rest), 0] = rest
            table[group, : len(rest), 1] = self.target[group, rest]
            if kept:
                table[group, len(rest)] = (-1, 0)
        return self._per_channel(table)

    def relationship_table(self) -> NDArray[np.float32]:
        """Scale of each weight as the published ``multiple_relationship_table`` has it.

        Returns
        -------
        float32 [out, in, kh, kw]
            1 where kept, 0 where dropped, the power of two where reused.
        """
        scale = np.where(self.target < 0, 0.0, np.exp2(self.exponent.astype(np.float64)))
        per_channel = self._per_channel(scale.astype(np.float32)).T
        return np.broadcast_to(per_channel[:, :, None, None], self.mask.shape).copy()

    def _per_channel(self, per_group: NDArray) -> NDArray:
        """Repeat the first axis, groups, for each input channel."""
        return np.repeat(per_group, self.channels, axis=0)[: self.mask.shape[1]]


def prap_map(
    codes: NDArray[np.int16], mask: NDArray[np.uint8], channels: int, keep: float
) -> ReuseMap:
    """Reuse map of rule 7.

    Parameters
    ----------
    codes
        Quantised weights with 8 fraction bits, int16 [out, in, kh, kw], as
        ``quantise(weight, SIMILAR_LEVELS)`` gives them. A grouped convolution is given one group of
        outputs at a time, quantised as a whole.
    mask
        Mask of rule 3, uint8 of the same shape.
    channels
        C_g, input channels in a group, at least 1; the last group takes what is left.
    keep
        Share of the patterns of a group that is kept, 0 to 1.
    """
    if codes.dtype != np.int16 or codes.ndim != 4 or not codes.size:
        raise ValueError(f"codes must be int16 [out, in, kh, kw], not {codes.dtype}{codes.shape!r}")
    if mask.shape != codes.shape:
        raise ValueError(f"mask must have the shape {codes.shape!r}, not {mask.shape!r}")
    if channels < 1:
        raise ValueError(f"channels must be at least 1, not {channels!r}")
    if not 0 <= keep <= 1:
        raise ValueError(f"keep must be 0 to 1, not {keep!r}")
    outputs, inputs, height, width = codes.shape
    groups = -(-inputs // channels)
    # Rows of a pattern by position, then channel; outputs along the last axis.
    rows = codes.reshape(outputs, inputs, height * width).transpose(2, 1, 0)
    kept_rows = mask.reshape(outputs, inputs, height * width).transpose(2, 1, 0).copy()
    order = np.empty((groups, outputs), np.int32)
    kept_count = np.empty(groups, np.int32)
    target = np.empty((groups, outputs), np.int32)
    exponent = np.empty((groups, outputs), np.int8)
    for group in range(groups):
        part = slice(group * channels, (group + 1) * channels)
        group_mask = kept_rows[:, part].reshape(-1, outputs)
        order[group], kept_count[group], target[group], exponent[group] = _map_group(
            rows[:, part].reshape(-1, outputs), group_mask, keep
        )
        taken = group_mask[:, target[group]] * (target[group] >= 0)
        kept_rows[:, part] = taken.reshape(height * width, -1, outputs)
    return ReuseMap(
        channels=channels,
        order=order,
        kept_count=kept_count,
        target=target,
        exponent=exponent,
        mask=np.ascontiguousarray(kept_rows.transpose(2, 1, 0)).reshape(codes.shape),
    )


def _map_group(
    codes: NDArray[np.int16], mask: NDArray[np.uint8], keep: float
) -> tuple[NDArray[np.intp], int, NDArray[np.int32], NDArray[np.int8]]:
    """Order, K, target and exponent of one group, given as [rows, out]."""
    size, outputs = codes.shape
    # Norms and distances are integers of at most 2.5 * rows * 32512: exact, and the matrix product
    # as well, in whatever order it adds.
    real = np.float32 if size * SIMILAR_LEVELS * 2.5 < 1 << 24 else np.float64
    full = codes.astype(real)
    masked = full * mask
    norm = np.abs(masked).sum(axis=0)
    order = np.argsort(-norm, kind="stable")
    count = int(outputs * keep)
    pattern = np.rint(masked[:, order[:count]] / FRACTION) * FRACTION
    rounds_to_zero = ~pattern.any(axis=0)
    if rounds_to_zero.any():
        count = int(rounds_to_zero.argmax())
        pattern = pattern[:, :count]
    kept = order[:count]
    target = np.full(outputs, -1, np.int32)
    target[kept] = kept
    exponent = np.zeros(outputs, np.int8)
    rest = order[count:]
    rest = rest[norm[rest] > 0]
    if not count or not rest.size:
        return order, count, target, exponent

    # For each kept pattern the rows of its shape; short shapes are filled up with a row of zeros.
    shape = mask[:, kept] != 0
    length = shape.sum(axis=0)
    height = int(length.max())
    index = np.argsort(~shape, axis=0, kind="stable")[:height]
    index[np.arange(height)[:, None] >= length] = size
    value = np.take_along_axis(np.vstack([pattern, np.zeros((1, count), real)]), index, axis=0)
    other = np.vstack([full[:, rest], np.zeros((1, len(rest)), real)])
    magnitude = np.abs(other[:size])
    selector = shape.T.astype(real)
    pattern_norm = np.abs(pattern).sum(axis=0)[:, None]
    step = max(64, _BLOCK // count)
    for start in range(0, len(rest), step):
        block = slice(start, start + step)
        shaped_norm = selector @ magnitude[:, block]
        power = nearest_exponent((shaped_norm / pattern_norm).astype(np.float32))
        scale = _power_of_two(power).astype(real, copy=False)
        scale *= shaped_norm > 0
        distance = np.zeros_like(shaped_norm)
        columns = np.ascontiguousarray(other[:, block])
        for row in range(height):
            difference = scale * value[row][:, None]
            difference -= columns[index[row]]
            distance += np.abs(difference, out=difference)
        best = np.argmin(distance, axis=0)
        place = (best, np.arange(len(best)))
        chosen = rest[block]
        won = (norm[chosen] >= distance[place]) & (scale[place] > 0)
        target[chosen[won]] = kept[best[won]]
        exponent[chosen[won]] = power[place][won]
    return order, count, target, exponent


def nearest_exponent(ratio: NDArray[np.float32]) -> NDArray[np.int32]:
    """Exponents k = max(rint(log2(ratio)), -8) of float32 ratios; -8 for a ratio of 0.

    No ratio is a tie: sqrt(2) * 2^e is irrational. So k is e or e + 1, by whether the mantissa is
    below or above that of sqrt(2), and no logarithm is taken: its rounding differs among machines.
    """
    power = ratio.view(np.int32) + ((1 << 23) - _ABOVE_ROOT)
    power >>= 23
    power -= 127
    return np.maximum(power, LEAST_EXPONENT, out=power)


def _power_of_two(exponent: NDArray[np.int32]) -> NDArray[np.float32]:
    """2^exponent as float32, for exponents of normal numbers."""
    return ((exponent + 127) << 23).view(np.float32)
