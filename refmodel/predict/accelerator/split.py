"""Rearrangements that three loops cannot read, as several passes that they can.

Pixels of an enlarged image, the channels that a pixel shuffle spreads over a block, windows of
several tensors side by side: every n-th row and column of the output, and some channels, follow
loops of their own. What no pass reads, as the zeros between the pixels of an image, is written by
passes without a channel.
"""

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from refmodel.predict.accelerator.regions import Region, affine
from refmodel.program.steps import Moved, Pass

MOST_PASSES = 64
"""Passes of one step, at most."""

MOST_STEP = 64
"""Rows, or columns, between two that one pass writes, at most."""


def split(each: Pass, source: Region) -> list[Pass] | None:
    """Split a pass that moves codes of one input into passes that three loops read.

    Parameters
    ----------
    each
        A pass with one read of moved codes.
    source
        The region of its input.

    Returns
    -------
    The fewest passes that do; None where there are none, or more than :data:`MOST_PASSES`.
    """
    (read,) = each.reads
    assert read.moved is not None
    index = read.moved.index.reshape(each.loops)
    addresses = np.where(index < 0, -1, source.addresses.reshape(-1)[index])
    height, width, channels = each.loops
    rows = [n for n in range(1, min(height, MOST_STEP) + 1) if _straight(addresses, 0, n)]
    columns = [n for n in range(1, min(width, MOST_STEP) + 1) if _straight(addresses, 1, n)]
    parts = [n for n in range(1, min(channels, MOST_PASSES) + 1) if channels % n == 0]
    choices = [
        choice
        for choice in product(rows, columns, parts)
        if choice[0] * choice[1] * choice[2] <= MOST_PASSES
    ]
    for down, across, count in sorted(choices, key=lambda choice: (np.prod(choice), choice)):
        found = _passes(each, addresses, (down, across), channels // count)
        if found is not None:
            return found
    return None


def _straight(addresses: NDArray[np.int64], axis: int, step: int) -> bool:
    """Whether every ``step``-th address along an axis follows a loop, in the first other places."""
    lines = np.moveaxis(addresses, axis, 0)[:, :2, :1].reshape(addresses.shape[axis], -1)
    for start in range(min(step, len(lines))):
        line = lines[start::step]
        straight = (np.diff(line, n=2, axis=0) == 0).all() if len(line) > 2 else True
        absent = (line < 0).any(0) & (line >= 0).any(0)
        if not straight or absent.any():
            return False
    return True


def _passes(
    each: Pass, addresses: NDArray[np.int64], stride: tuple[int, int], channels: int
) -> list[Pass] | None:
    (read,) = each.reads
    assert read.moved is not None
    index = read.moved.index.reshape(each.loops)
    found = []
    for first in range(0, each.loops[2], channels):
        for row, column in np.ndindex(*stride):
            at = (
                slice(row, None, stride[0]),
                slice(column, None, stride[1]),
                slice(first, first + channels),
            )
            part = addresses[at]
            if affine(part) is None:
                return None
            moved = Moved(index=index[at].reshape(-1), fill=read.moved.fill)
            rows, columns, count = part.shape
            found.append(
                replace(
                    each,
                    loops=(rows, columns, count),
                    reads=(replace(read, moved=moved),),
                    at=(row, column, first),
                    stride=stride,
                    unrolled=None,
                )
            )
    return found
