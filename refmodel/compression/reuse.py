"""Quantised weights and reuse maps (docs/specification/algorithm.md, rules 4 to 7).

All work is per group of ``channels`` consecutive input channels. An output's weight pattern is kept
(programmed), reused (a kept pattern times a power of two) or dropped (zero).

Rules 6 (:func:`similar_map`) and 7 (:func:`prap_map`) take integer codes with 8 fraction bits (one
weight step is 256) and program y, a pattern's masked codes rounded to multiples of 256:

- Order by norm, the sum of |code * mask|: descending, equal norms by output.
- The first K = int(out * keep) are kept; if one of them rounds to zero, K becomes its place.
- Every other pattern x with norm > 0 is compared with each kept y_j on the shape of y_j, where its
  **unmasked** codes count: x_j = x * mask_j, s_j = max(2^rint(log2(|x_j| / |y_j|)), 2^-8),
  d_j = |s_j * y_j - x_j|. The last candidate is zero, with d = norm. The first smallest d wins.
- x_j = 0 gives s_j = 0 and d_j = 0. A win by zero or by s_j = 0 drops the pattern.

Rule 6 is the same with nothing masked. The ratio is rounded to float32 before the logarithm, which
is exact; everything else is an integer.

Rules 4 and 5 (:func:`identical_map`) take codes of 8 bits and know no scales:

- Order by norm as above. The limit T is the norm at place int(out * threshold).
- The first is kept. Each next one is compared with those kept so far, in the order kept, then with
  zero. Where the nearest is at most T away, the pattern reuses it (or is dropped, where zero is
  nearest); otherwise it is kept.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.prune import check_share, check_weight

DENSE_LEVELS = 127
"""L of 8-bit weights."""

FRACTION = 256
"""Codes to one weight step where codes have 8 fraction bits."""

SIMILAR_LEVELS = DENSE_LEVELS * FRACTION
"""L of the rules that scale patterns: 8 fraction bits below an 8-bit weight."""

LEAST_EXPONENT = -8
"""The least exponent of a scale, 2^-8."""

_BLOCK = 1 << 14
"""Pairs of patterns compared at once, about.

Arrays of 64 KiB stay in a core's cache, and in memory that the allocator keeps: those from 128 KiB
on may be mapped and cleared anew every time, which was measured to take ten times as long.
"""

_CODES = 1 << 20
"""Weights that are quantised at once, about."""

_HEAD = 256
"""Patterns of rule 4 that are settled at once."""

_ABOVE_ROOT = 0x3504F4
"""Mantissa field of the least float32 above sqrt(2)."""


def weight_scale(weight: NDArray[np.float32] | NDArray[np.int8], levels: int) -> float:
    """Real value of one code: max(max W, -min W) / levels, not yet rounded to float32."""
    return max(float(weight.max()), -float(weight.min())) / levels


def quantise(weight: NDArray[np.float32] | NDArray[np.int8], levels: int) -> NDArray[np.int16]:
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
    result = np.empty(weight.shape, np.int16)
    step = max(1, _CODES // weight[0].size)
    for first in range(0, len(weight), step):  # some outputs at a time: no large array
        codes = weight[first : first + step] / scale
        result[first : first + step] = np.rint(codes, out=codes)
    return result


@dataclass(frozen=True, kw_only=True, eq=False)
class ReuseMap:
    """The fate of every weight pattern of a layer: kept, reused or dropped.

    Attributes
    ----------
    channels
        C_g, input channels in a group; the last group may have fewer.
    order
        int32 [groups, out]: first the ``kept_count`` outputs that are kept, then the others, both
        by descending norm.
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
    skipped
        bool [groups]: groups that the rule leaves alone since all their weights are zero. Their
        patterns are none of kept, reused or dropped. None where the rule skips no group.
    sign
        int8 [groups, out]: sign of the scale, 1 or -1. None where all are 1, as published.
    """

    channels: int
    order: NDArray[np.int32]
    kept_count: NDArray[np.int32]
    target: NDArray[np.int32]
    exponent: NDArray[np.int8]
    mask: NDArray[np.uint8]
    skipped: NDArray[np.bool_] | None = None
    sign: NDArray[np.int8] | None = None

    @property
    def patterns(self) -> int:
        """Weight patterns of the layer, without those of skipped groups."""
        return self.target.size - self._skipped_patterns

    @property
    def kept(self) -> int:
        """Weight patterns that are programmed."""
        return int(self.kept_count.sum())

    @property
    def dropped(self) -> int:
        """Weight patterns that are replaced by zero."""
        return int(np.count_nonzero(self.target < 0)) - self._skipped_patterns

    @property
    def reused(self) -> int:
        """Weight patterns that are taken from a kept one."""
        return self.patterns - self.kept - self.dropped

    @property
    def reuse_ratio(self) -> float:
        """Share of the patterns that are not kept, dropped ones included."""
        return (self.patterns - self.kept) / self.patterns if self.patterns else 0.0

    @property
    def _skipped_patterns(self) -> int:
        """Weight patterns of skipped groups."""
        if self.skipped is None:
            return 0
        return int(np.count_nonzero(self.skipped)) * self.target.shape[1]

    def map_table(self) -> NDArray[np.int16]:
        """List the patterns that are not kept, as the published program does.

        Returns
        -------
        int16 [in, out, 2]
            For each input channel the pairs (output, its target or -1 where dropped) by descending
            norm, then (-1, 0), then zeros. There is no end mark where nothing is kept. A skipped
            group has the end mark alone.
        """
        groups, outputs = self.target.shape
        table = np.zeros((groups, outputs, 2), np.int16)
        for group, kept in enumerate(self.kept_count.tolist()):
            if self.skipped is not None and self.skipped[group]:
                table[group, 0] = (-1, 0)
                continue
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


def _check_codes(codes: NDArray[np.int16], channels: int) -> None:
    """Refuse codes and group sizes that no rule takes."""
    if codes.dtype != np.int16 or codes.ndim != 4 or not codes.size:
        raise ValueError(f"codes must be int16 [out, in, kh, kw], not {codes.dtype}{codes.shape!r}")
    if channels < 1:
        raise ValueError(f"channels must be at least 1, not {channels!r}")


def identical_map(
    codes: NDArray[np.int16], channels: int, threshold: float, *, skip_zero_groups: bool = False
) -> ReuseMap:
    """Reuse map of rule 4, and with masked codes of rule 5.

    Worked group of one row: codes 9, 8, 5, 1, threshold 0.5. T is the norm at place 2, which is 5.
    9 is kept. 8 is 1 away from 9, at most 5: it reuses 9. So does 5, which is 4 away from 9 and 5
    from zero. 1 is 8 away from 9 and 1 from zero: dropped.

    The published program (``pattern_value_identical_translate``) stores a wrong target, and for
    convolutions it writes the map into the first channel of each group only; here the target is
    the pattern that was nearest, and holds for all channels (docs/specification/algorithm.md, rule
    4; index.json of the golden cases, ``derived_map_table_fixed_target``).

    Parameters
    ----------
    codes
        Quantised weights, int16 [out, in, kh, kw], as ``quantise(weight, DENSE_LEVELS)`` gives
        them; times the mask of rule 1 for rule 5. A grouped convolution is given one group of
        outputs at a time, quantised as a whole.
    channels
        C_g, input channels in a group, at least 1; the last group takes what is left.
    threshold
        Place of T in the order, as a share of the outputs: at least 0, below 1.
    skip_zero_groups
        Whether groups whose codes are all zero are left alone, as rule 5 has it for a group of one
        channel. Otherwise the first of their patterns is kept and all others reuse it.
    """
    _check_codes(codes, channels)
    check_share("threshold", threshold)
    if threshold == 1:
        raise ValueError("threshold must be below 1, not 1")
    outputs, inputs, height, width = codes.shape
    groups = -(-inputs // channels)
    flat = codes.reshape(outputs, -1)
    order = np.empty((groups, outputs), np.int32)
    kept_count = np.zeros(groups, np.int32)
    target = np.full((groups, outputs), -1, np.int32)
    skipped = np.zeros(groups, bool)
    mask = np.ones((outputs, inputs, height, width), np.uint8)
    place = int(outputs * threshold)
    for group in range(groups):
        rows = slice(group * channels * height * width, (group + 1) * channels * height * width)
        norm = np.abs(flat[:, rows]).sum(axis=1, dtype=np.int64)
        by_norm = np.argsort(-norm, kind="stable")
        if skip_zero_groups and not norm.any():
            order[group], skipped[group] = by_norm, True
        else:
            norm = norm[by_norm]
            pattern = np.ascontiguousarray(flat[by_norm, rows].T)
            source = _identical_group(pattern, norm, int(norm[place]))
            kept = source == np.arange(outputs)
            order[group] = np.concatenate([by_norm[kept], by_norm[~kept]])
            kept_count[group] = np.count_nonzero(kept)
            target[group, by_norm] = np.where(source < 0, -1, by_norm[source])
        mask[:, group * channels : (group + 1) * channels] *= (target[group] >= 0)[
            :, None, None, None
        ]
    return ReuseMap(
        channels=channels,
        order=order,
        kept_count=kept_count,
        target=target,
        exponent=np.zeros((groups, outputs), np.int8),
        mask=mask,
        skipped=skipped,
    )


def _identical_group(
    codes: NDArray[np.int16], norm: NDArray[np.int64], limit: int
) -> NDArray[np.intp]:
    """Places of the targets of one group's patterns [rows, out], by descending norm; -1 for none.

    Patterns of a norm up to the limit are never kept, since zero is near enough: they come last and
    are compared with the kept ones all at once. The others, for which zero never is near enough,
    are taken in blocks: what no earlier kept pattern is near enough to is kept, or near to a kept
    one of its own block, which a few rounds over the block's own distances settle.
    """
    outputs = len(norm)
    narrow = len(codes) * 2 * (DENSE_LEVELS + 1) <= np.iinfo(np.int16).max
    pattern = codes if narrow else codes.astype(np.int32)
    head = max(1, int(np.searchsorted(-norm, -limit, side="left")))
    source = np.full(outputs, -1, np.intp)
    source[0] = 0
    kept = np.zeros(head, np.intp)
    values = np.zeros((len(pattern), head), pattern.dtype)
    values[:, 0] = pattern[:, 0]
    count = 1
    for start in range(1, head, _HEAD):
        block = np.arange(start, min(start + _HEAD, head))
        best, near = _nearest(pattern[:, block], values[:, :count])
        new = block[best > limit]
        new = new[_first_kept(pattern[:, new], limit)]
        kept[count : count + len(new)] = new
        values[:, count : count + len(new)] = pattern[:, new]
        if len(new):
            again, place = _nearest(pattern[:, block], pattern[:, new], block, new)
            # Those kept before come first: one of the block has to be nearer, not as near.
            near = np.where(again < best, count + place, near)
        source[block] = kept[near]
        source[new] = new
        count += len(new)
    best, near = _nearest(pattern[:, head:], values[:, :count])
    source[head:] = np.where(best <= norm[head:], kept[near], -1)
    return source


def _nearest(
    pattern: NDArray,
    values: NDArray,
    place: NDArray[np.intp] | None = None,
    other: NDArray[np.intp] | None = None,
) -> tuple[NDArray, NDArray[np.intp]]:
    """Least L1 distance of each pattern [rows, n] to ``values`` [rows, kept], and the first at it.

    With places, only values of a lower place than the pattern's count.
    """
    size = pattern.shape[1]
    best = np.empty(size, pattern.dtype)
    near = np.empty(size, np.intp)
    step = max(1, 2 * _BLOCK // values.shape[1])  # of 16 bits
    for start in range(0, size, step):
        block = slice(start, start + step)
        distance = _distances(pattern[:, block], values)
        if place is not None and other is not None:
            distance[other >= place[block, None]] = np.iinfo(distance.dtype).max
        near[block] = np.argmin(distance, axis=1)
        best[block] = distance[np.arange(len(distance)), near[block]]
    return best, near


def _distances(pattern: NDArray, values: NDArray) -> NDArray:
    """L1 distances [n, kept] of patterns [rows, n] and [rows, kept]."""
    distance = np.abs(pattern[0][:, None] - values[0])
    difference = np.empty_like(distance)
    for row in range(1, len(pattern)):
        np.subtract(pattern[row][:, None], values[row], out=difference)
        np.abs(difference, out=difference)
        distance += difference
    return distance


def _first_kept(pattern: NDArray, limit: int) -> NDArray[np.bool_]:
    """Which of some patterns [rows, n] are kept where each one near to an earlier kept one is not.

    In each round those that are near to nothing earlier and open are kept, and those that are near
    to them fall out.
    """
    count = pattern.shape[1]
    near = np.tril(_distances(pattern, pattern) <= limit, -1)
    kept, still_open = np.zeros(count, bool), np.ones(count, bool)
    while still_open.any():
        new = still_open & ~near[:, still_open].any(axis=1)
        kept |= new
        still_open &= ~new & ~near[:, new].any(axis=1)
    return kept


def similar_map(
    codes: NDArray[np.int16], channels: int, keep: float, *, signed: bool = False
) -> ReuseMap:
    """Reuse map of rule 6: as :func:`prap_map`, with nothing masked.

    One thing differs: a pattern that ends the walk, since it rounds to zero, is dropped. So does
    the published ``pattern_value_similar_translate``, as if it rounded patterns where they lie:
    golden case 073, channel 5, output 20 is as near to a kept pattern as to zero, and is dropped.
    Rule 7 compares unmasked weights, which stay as they were (case 111, the same output: reused).
    """
    mask = np.ones(codes.shape, np.uint8)
    return _reuse_map(codes, mask, channels, keep, drop_last=True, signed=signed)


def prap_map(
    codes: NDArray[np.int16],
    mask: NDArray[np.uint8],
    channels: int,
    keep: float,
    *,
    signed: bool = False,
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
    signed
        Whether scales may be negative, which is ours: each kept pattern is compared with both
        signs, the positive one first.
    """
    return _reuse_map(codes, mask, channels, keep, drop_last=False, signed=signed)


def _reuse_map(
    codes: NDArray[np.int16],
    mask: NDArray[np.uint8],
    channels: int,
    keep: float,
    *,
    drop_last: bool,
    signed: bool,
) -> ReuseMap:
    """Reuse map of rule 7; with ``drop_last`` the pattern that ends the walk is dropped."""
    _check_codes(codes, channels)
    if mask.shape != codes.shape:
        raise ValueError(f"mask must have the shape {codes.shape!r}, not {mask.shape!r}")
    check_share("keep", keep)
    outputs, inputs, height, width = codes.shape
    groups = -(-inputs // channels)
    # Rows of a pattern by position, then channel; outputs along the last axis.
    rows = codes.reshape(outputs, inputs, height * width).transpose(2, 1, 0)
    kept_rows = mask.reshape(outputs, inputs, height * width).transpose(2, 1, 0).copy()
    order = np.empty((groups, outputs), np.int32)
    kept_count = np.empty(groups, np.int32)
    target = np.empty((groups, outputs), np.int32)
    exponent = np.empty((groups, outputs), np.int8)
    sign = np.ones((groups, outputs), np.int8)
    for group in range(groups):
        part = slice(group * channels, (group + 1) * channels)
        group_mask = kept_rows[:, part].reshape(-1, outputs)
        order[group], kept_count[group], target[group], exponent[group], sign[group] = _map_group(
            rows[:, part].reshape(-1, outputs),
            group_mask,
            keep,
            drop_last=drop_last,
            signed=signed,
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
        sign=sign if signed else None,
    )


def _map_group(
    codes: NDArray[np.int16],
    mask: NDArray[np.uint8],
    keep: float,
    *,
    drop_last: bool,
    signed: bool,
) -> tuple[NDArray[np.intp], int, NDArray[np.int32], NDArray[np.int8], NDArray[np.int8]]:
    """Order, K, target, exponent and sign of one group, given as [rows, out]."""
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
    last = count
    if rounds_to_zero.any():
        count = int(rounds_to_zero.argmax())
        pattern = pattern[:, :count]
        last = count + drop_last
    kept = order[:count]
    target = np.full(outputs, -1, np.int32)
    target[kept] = kept
    exponent = np.zeros(outputs, np.int8)
    sign = np.ones(outputs, np.int8)
    rest = order[last:]
    rest = rest[norm[rest] > 0]
    if not count or not rest.size:
        return order, count, target, exponent, sign

    # For each kept pattern the rows of its shape; short shapes are filled up with a row of zeros.
    shape = mask[:, kept] != 0
    length = shape.sum(axis=0)
    height = int(length.max())
    index = np.argsort(~shape, axis=0, kind="stable")[:height]
    index[np.arange(height)[:, None] >= length] = size
    value = np.take_along_axis(np.vstack([pattern, np.zeros((1, count), real)]), index, axis=0)
    one_shape = bool((index == index[:, :1]).all())
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
        difference = np.empty_like(shaped_norm)
        columns = np.ascontiguousarray(other[:, block])
        opposite = np.zeros_like(shaped_norm) if signed else distance
        for row in range(height):
            np.multiply(scale, value[row][:, None], out=difference)
            other_row = columns[index[row, 0] if one_shape else index[row]]
            if signed:
                opposite += np.abs(difference + other_row)
            difference -= other_row
            distance += np.abs(difference, out=difference)
        negative = opposite < distance
        if signed:
            np.minimum(distance, opposite, out=distance)
        best = np.argmin(distance, axis=0)
        place = (best, np.arange(len(best)))
        chosen = rest[block]
        won = (norm[chosen] >= distance[place]) & (scale[place] > 0)
        target[chosen[won]] = kept[best[won]]
        exponent[chosen[won]] = power[place][won]
        sign[chosen[won]] = np.where(negative[place][won], -1, 1)
    return order, count, target, exponent, sign


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
