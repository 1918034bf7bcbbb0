"""Partial sums of a gather through tables: what the columns of a pattern give for every input.

The wordlines of one OU activation have few inputs: 256 with eight rows and 1-bit digits. Codes of
all of them are formed once, folded over the columns of a pattern, and looked up for each position
and digit. Noise is drawn only for currents that it may bring to another code, and corrects the sums
of those that it does. The sums are those of :meth:`LayerChip.codes`, bit for bit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.wordlines import unpacked

INPUT_BITS = 8
"""Bits on the wordlines of a gather up to which there are tables."""

NEAR = 1 / 8
"""Share of currents that noise may change up to which they are corrected one by one."""

_WORTH = 2
"""Lookups in a table from which it is worth being made, over its entries."""


FEW = 4
"""Patterns from which on a row of all of them is looked up at once: faster than one by one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """What a gather's patterns give for every input, inputs by their bits.

    Attributes
    ----------
    few
        Whether there are fewer than ``FEW`` patterns.
    sums
        Codes times the weights of their columns: [inputs, patterns], or [patterns, inputs] of few
        patterns.
    clipped
        int64 [inputs], conversions that clip without noise.
    noisy
        bool, as ``sums``: whether noise may change it; None without noise.
    near
        uint8 [inputs, patterns], a bit to each column of a pattern whose current noise may bring to
        another code.
    first
        int32 [inputs, patterns], where the near currents of a pattern begin in the next two.
    level, code
        float32 [n], near currents, and their codes without noise.
    """

    few: bool
    sums: NDArray[Any]
    clipped: NDArray[np.int64]
    noisy: NDArray[np.bool_] | None = None
    near: NDArray[np.uint8] | None = None
    first: NDArray[np.int32] | None = None
    level: NDArray[np.float32] | None = None
    code: NDArray[np.float32] | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        arrays = (self.sums, self.clipped, self.noisy, self.near, self.first, self.level, self.code)
        return sum(each.nbytes for each in arrays if each is not None)


def worthwhile(rows: int, lookups: int) -> bool:
    """Whether a gather of some rows goes through tables, for a number of lookups."""
    return rows <= INPUT_BITS and lookups >= _WORTH << rows


def make(chip: Any, columns: slice, rows: int, weights: NDArray[Any]) -> Table:
    """Make the table of a gather of :class:`~refmodel.golden.devices.layer_chip.LayerChip`.

    Parameters
    ----------
    chip
        The crossbars.
    columns
        Columns of the gather, numbered over all OUs.
    rows
        Rows in use.
    weights
        [columns of a pattern], of their codes, in the type in which sums are exact.
    """
    inputs = np.arange(1 << rows)
    lines = unpacked(inputs, rows)
    level = chip.matrix[columns, :rows] @ lines
    level += chip.offset[columns, None]
    width = len(weights)
    clipped = np.count_nonzero(chip.converters.clipped(level), axis=0)
    near = None if chip.noise_of is None else chip.near(level, columns)
    kept = level.copy() if near is not None else level
    code = chip.converters.convert(level, columns)
    sums = weights @ code.reshape(-1, width, len(inputs)).astype(weights.dtype, copy=False)
    few = len(sums) < FEW
    if not few:
        sums = np.ascontiguousarray(sums.T)
    if near is None:
        return Table(few=few, sums=sums, clipped=clipped)
    # In the order of inputs, patterns and columns.
    order = near.reshape(-1, width, len(inputs)).transpose(2, 0, 1)
    marks = np.packbits(order, axis=2, bitorder="little")[..., 0]
    counts = np.bitwise_count(marks).astype(np.int32)
    ends = np.cumsum(counts, dtype=np.int32).reshape(counts.shape)
    return Table(
        few=few,
        sums=sums,
        clipped=clipped,
        noisy=np.ascontiguousarray((marks.T if few else marks) != 0),
        near=np.ascontiguousarray(marks),
        first=ends - counts,
        level=kept.reshape(-1, width, len(inputs)).transpose(2, 0, 1)[order],
        code=code.reshape(-1, width, len(inputs)).transpose(2, 0, 1)[order],
    )


def look_up(
    chip: Any,
    table: Table,
    columns: slice,
    inputs: NDArray[np.intp],
    places: NDArray[np.int64],
    weights: NDArray[Any],
) -> NDArray[Any] | None:
    """Sum the codes of a gather over columns and digits.

    Parameters
    ----------
    chip, table, columns, weights
        As for :func:`make`, and what it made.
    inputs
        [digits, n], 1-bit digits of all wordlines, a bit to each.
    places
        [n], as for :meth:`LayerChip.noise`.

    Returns
    -------
    [patterns, n], in the type of the weights; None where noise may change too many codes.
    """
    digits, n = inputs.shape
    scale = (1 << np.arange(digits)).astype(weights.dtype)
    changes = None
    if table.noisy is not None:
        changes = _changes(chip, table, columns, inputs, places, weights)
        if changes is None:
            return None
    if table.few:
        sums = np.array([scale @ each[inputs] for each in table.sums])
    else:
        found = table.sums.take(inputs, axis=0, mode="clip").reshape(digits, -1)
        sums = np.ascontiguousarray((scale @ found).reshape(n, -1).T)
    chip.tally.conversions += inputs.size * len(sums) * len(weights)
    if table.clipped.any():
        counts = np.bincount(inputs.ravel(), minlength=len(table.clipped))
        chip.tally.clipped += int(counts @ table.clipped)
    if changes is not None:
        place, pattern, by, clips = changes
        np.add.at(sums.reshape(-1), pattern * n + place, by)
        chip.tally.clipped += clips
    return sums


def _changes(
    chip: Any,
    table: Table,
    columns: slice,
    inputs: NDArray[np.intp],
    places: NDArray[np.int64],
    weights: NDArray[Any],
) -> tuple[NDArray, NDArray, NDArray, int] | None:
    """Draw the noise of near currents.

    Returns
    -------
    Of the codes that change: place [n] and pattern [n], and by how much the sum of the pattern
    changes; and how many more conversions clip. None where too many may change.
    """
    assert table.noisy is not None
    assert table.near is not None
    assert table.first is not None
    assert table.level is not None
    assert table.code is not None
    digits, n = inputs.shape
    patterns = table.near.shape[1]
    flat = inputs.reshape(-1)
    scale = (1 << np.arange(digits)).astype(weights.dtype)
    if table.few:
        hits = [np.flatnonzero(each[flat]) for each in table.noisy]
        line = np.concatenate(hits)
        pattern = np.repeat(np.arange(patterns), [len(each) for each in hits])
        digit = line // n
    else:
        # By a scalar, // is several times faster than divmod.
        hit = np.flatnonzero(table.noisy.take(flat, axis=0, mode="clip"))
        line = hit // patterns
        pattern = hit - line * patterns
        ends = np.searchsorted(line, np.arange(1, digits) * n)
        digit = np.repeat(np.arange(digits), np.diff(ends, prepend=0, append=len(line)))
    place = line - digit * n
    at = flat.take(line) * patterns + pattern
    marks = table.near.reshape(-1).take(at)
    counts = np.bitwise_count(marks)
    ends = np.cumsum(counts, dtype=np.int64)
    if len(ends) and ends[-1] > NEAR * flat.size * patterns * len(weights):
        return None
    # Columns of each mark, in the order in which their currents are kept.
    bits = np.unpackbits(marks, bitorder="little")
    column = np.flatnonzero(bits)
    which = column >> 3
    column &= 7
    entry = (table.first.reshape(-1).take(at) - (ends - counts)).take(which)
    entry += np.arange(len(which))
    digit, place, pattern = digit.take(which), place.take(which), pattern.take(which)
    own = pattern * len(weights)
    own += column
    own += columns.start
    start, shift = chip.seeds(places)
    still = table.level.take(entry)
    level = still + chip.noise_from(own, digit, start.take(place), shift.take(place))
    clips = chip.converters.clipped
    more = int(np.count_nonzero(clips(level))) - int(np.count_nonzero(clips(still)))
    less = chip.converters.convert(level[:, None], own)[:, 0] - table.code.take(entry)
    changed = np.flatnonzero(less)
    by = less[changed].astype(weights.dtype) * weights[column[changed]]
    by *= scale[digit[changed]]
    return place[changed], pattern[changed], by, more
