"""Regions of the activation memory, and how an operation reads and writes them.

A tensor of shape (H, W, C) lies in a :class:`Region`: row by row, channels fastest, with the border
that the layers and pools which read it need, the widest on each side; a reader that needs less
begins further in. The border holds the tensor's zero point. It is written with the tensor
(:class:`Fill`), in cycles in which no output arrives, and not once for all: regions share memory
over time, so a border does not last.

An :class:`Operand` is read in three loops (row, column, channel) with a step of the address to each
(:class:`Walk`), and only some channels may exist; the others are the zero point. :func:`affine`
finds the loops that read given addresses, where there are any.
"""

from dataclasses import dataclass, replace

import numpy as np

Shape = tuple[int, int, int]

Sides = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Region:
    """Where a tensor lies, with its border.

    Attributes
    ----------
    base
        Address of the first byte of the border.
    shape
        (H, W, C) of the tensor.
    border
        (top, left, bottom, right), in pixels.
    """

    base: int
    shape: Shape
    border: Sides

    @property
    def pitch(self) -> int:
        """Bytes from a row to the next."""
        return (self.shape[1] + self.border[1] + self.border[3]) * self.shape[2]

    @property
    def size(self) -> int:
        """Bytes, with the border."""
        return (self.shape[0] + self.border[0] + self.border[2]) * self.pitch

    def address(self, row: int, column: int, channel: int = 0) -> int:
        """Address of a code; rows and columns count from the tensor's first, without border."""
        top, left, *_ = self.border
        return self.base + (row + top) * self.pitch + (column + left) * self.shape[2] + channel

    @property
    def addresses(self) -> np.ndarray:
        """Address of every code, int64 [H, W, C]."""
        height, width, channels = self.shape
        rows = np.arange(height)[:, None, None] * self.pitch
        return self.address(0, 0) + rows + np.arange(width * channels).reshape(1, width, channels)

    def fill(self, code: int) -> "Fill | None":
        """Give the writing of the border; None where there is none."""
        top, left, bottom, right = self.border
        height, width, channels = self.shape
        if not any(self.border):
            return None
        gap, between = width * channels, (left + right) * channels
        runs = [top * self.pitch + left * channels, *[between] * (height - 1)]
        runs.append(right * channels + bottom * self.pitch)
        if not between:
            # Rows lie one behind the other: there is a run above and one below.
            gap, runs = height * gap, [runs[0], runs[-1]]
        base = self.base
        if not runs[0]:
            base, runs = base + gap, runs[1:]
        if not runs[-1]:
            runs = runs[:-1]
        return Fill(
            base=base,
            first=runs[0],
            between=runs[1] if len(runs) > 2 else 0,
            last=runs[-1],
            gap=gap,
            runs=len(runs),
            code=code,
        )


@dataclass(frozen=True, kw_only=True)
class Fill:
    """How a border is written: runs of bytes, between which the tensor's rows lie. None is empty.

    Attributes
    ----------
    base
        Address of the first byte.
    first, between, last
        Bytes of the first run, of those between, and of the last.
    gap
        Bytes from the end of a run to the next.
    runs
        Number of runs, from 1 on.
    code
        Code that is written to every byte, 0 to 255.
    """

    base: int
    first: int
    between: int
    last: int
    gap: int
    runs: int
    code: int

    @property
    def lengths(self) -> list[int]:
        """Bytes of each run."""
        return [self.first, *[self.between] * (self.runs - 2), self.last][: self.runs]

    @property
    def bytes(self) -> int:
        """Bytes of the border."""
        return sum(self.lengths)

    @property
    def addresses(self) -> np.ndarray:
        """Address of every byte of the border, int64 [bytes]."""
        starts = np.cumsum([0, *(run + self.gap for run in self.lengths[:-1])])
        runs = zip(starts, self.lengths, strict=True)
        return self.base + np.concatenate([start + np.arange(run) for start, run in runs])


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Addresses in three loops: ``base + row * row_step + column * column_step + channel * ...``.

    Steps are in bytes and may be negative.
    """

    base: int
    row_step: int
    column_step: int
    channel_step: int = 1

    def addresses(self, shape: Shape) -> np.ndarray:
        """Address of every item of loops of a shape, int64 [rows, columns, channels]."""
        rows, columns, channels = (np.arange(size) for size in shape)
        return (
            self.base
            + rows[:, None, None] * self.row_step
            + columns[:, None] * self.column_step
            + channels * self.channel_step
        )


@dataclass(frozen=True, kw_only=True)
class Operand:
    """An operand: codes read for each item of an operation's loops, beside the engine's gathers.

    Attributes
    ----------
    walk
        Address of the first code of the window of each item.
    first_channel, last_channel
        Channels of the loops that have a code; of others nothing is read, and the zero point
        stands for it.
    zero, multiplier
        z_k and M_k; the multiplier counts for sums of ``pool`` alone.
    """

    walk: Walk
    first_channel: int
    last_channel: int
    zero: int
    multiplier: int = 0


def affine(addresses: np.ndarray) -> tuple[Walk, int, int] | None:
    """Find the three loops that give addresses [rows, columns, channels], -1 where there is none.

    Returns
    -------
    The walk, the first and last channel that have an address, 1 and 0 where none has; None where no
    loops give them.
    """
    present = addresses >= 0
    channels = np.flatnonzero(present.any((0, 1)))
    if not len(channels):
        return Walk(base=0, row_step=0, column_step=0), 1, 0
    first, last = int(channels[0]), int(channels[-1])
    some = addresses[:, :, first : last + 1]
    if present[:, :, :first].any() or present[:, :, last + 1 :].any() or (some < 0).any():
        return None
    start = int(some[0, 0, 0])
    steps = [
        int(some[tuple(int(axis == k) for k in range(3))]) - start if some.shape[axis] > 1 else 0
        for axis in range(3)
    ]
    walk = Walk(base=start, row_step=steps[0], column_step=steps[1], channel_step=steps[2])
    if (walk.addresses(some.shape) != some).any():  # pyright: ignore[reportArgumentType]
        return None
    return replace(walk, base=start - first * steps[2]), first, last
