"""The crossbars of one layer on one chip: the codes that they give, with the noise of each read."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.config import EngineConfig
from refmodel.golden.devices import sums
from refmodel.golden.devices.converters import Columns, Converters
from refmodel.golden.devices.random import GOLDEN, MASK, draw_word, mix

_LANES = 4

_NOISY = 1 << 16
"""Currents that get their noise at once, about: words and indices stay in the cache."""

_FEW = 1 / 32
"""Share of currents near a half up to which their noise is drawn one by one."""


@dataclass(kw_only=True)
class Tally:
    """Count of conversions on a chip, and of those that clipped.

    Attributes
    ----------
    conversions
        Currents that became codes.
    clipped
        Those of them that were above the largest code, or with pairs below the least.
    """

    conversions: int = 0
    clipped: int = 0


@dataclass(kw_only=True)
class Room:
    """Bytes that the tables of a chip may still take."""

    left: int = 0


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Tables of a layer that are kept, by the first column of a gather.

    Attributes
    ----------
    room
        Room for more of them, of all layers.
    """

    room: Room = field(default_factory=Room)
    found: dict[int, tuple[sums.Table, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerChip:
    """The crossbars of one layer on one chip, as :mod:`refmodel.golden` asks them.

    Attributes
    ----------
    matrix
        float32 [OUs * C, R]: what a cell, or a pair, adds to a code for one step of its wordline.
    offset
        float32 [OUs * C], in codes.
    noise_of
        float32 [65536], noise in codes by 16 random bits; None where there is no read noise.
    key
        Key of the noise, before the image is mixed in.
    positions
        Output positions of an image.
    first_image
        Number of the image that stands first in the arrays.
    config
        Sizes of the engine.
    converters
        From currents to codes.
    pairs
        Whether weights are differential pairs, and codes signed.
    tally
        Counts what :meth:`codes` and :meth:`sums` convert.
    kept
        Tables of :meth:`sums` that are kept.
    """

    matrix: NDArray[np.float32]
    offset: NDArray[np.float32]
    noise_of: NDArray[np.float32] | None
    key: int
    positions: int
    first_image: int
    config: EngineConfig
    converters: Converters
    pairs: bool = False
    tally: Tally = field(default_factory=Tally)
    kept: Tables = field(default_factory=Tables)
    seeded: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def _quads(self) -> int:
        """Words of noise for the positions of an image."""
        return -(-self.positions // _LANES)

    def _starts(
        self, places: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
        """Give for each place: key plus g * (index + 1) of column 0 and digit 0, quad, lane."""
        image, position = np.divmod(places, self.positions)
        first, last = int(image.min(initial=0)), int(image.max(initial=0))
        keys = [draw_word(self.key, self.first_image + i) for i in range(first, last + 1)]
        quad, lane = np.divmod(position, _LANES)
        start = (quad + 1).astype(np.uint64) * np.uint64(GOLDEN)
        start += np.array(keys, np.uint64)[image - first]
        return start, image * self._quads + quad, lane

    def noise(self, columns: slice, places: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Read noise in codes, None where there is none.

        Parameters
        ----------
        columns
            Columns, numbered over all OUs: OU * C + column of the OU.
        places
            [n], image * positions + position, images from ``first_image`` on.

        Returns
        -------
        float32 [columns, digits * n].
        """
        if self.noise_of is None:
            return None
        count = columns.stop - columns.start
        result = np.zeros((count, self.config.digits * len(places)), np.float32)
        self._add_noise(result, columns, places)
        return result

    def _add_noise(
        self, level: NDArray[np.float32], columns: slice, places: NDArray[np.int64]
    ) -> None:
        """Add to currents [columns, digits * n] their noise."""
        assert self.noise_of is not None
        digits, n = self.config.digits, len(places)
        start, quad, lane = self._starts(places)
        # Neighbours share a word.
        new = np.diff(quad, prepend=-1) != 0
        start, take = start[new], (np.cumsum(new) - 1) * _LANES + lane
        whole = slice(int(take[0]), int(take[0]) + n) if n else slice(0)
        consecutive = bool((take == np.arange(whole.start, whole.stop)).all())
        step = max(1, _NOISY // max(1, digits * n))
        words = np.empty((step, digits, len(start)), np.uint64)
        work = np.empty_like(words)
        index = np.empty((step, digits, n), np.int64)
        drawn = np.empty(index.shape, np.float32)
        for first in range(columns.start, columns.stop, step):
            last = min(first + step, columns.stop)
            lines = np.arange(first * digits, last * digits).astype(np.uint64)
            lines *= np.uint64(GOLDEN * self._quads & MASK)
            z = words[: last - first]
            np.add(lines.reshape(-1, digits, 1), start, out=z)
            mix(z, work[: last - first])
            bits = z.astype("<u8", copy=False).view("<u2")
            chosen, noise = index[: last - first], drawn[: last - first]
            chosen[...] = bits[..., whole] if consecutive else bits[..., take]
            self.noise_of.take(chosen, out=noise, mode="clip")
            level[first - columns.start : last - columns.start] += noise.reshape(len(noise), -1)

    def noise_at(
        self, column: NDArray[np.int64], digit: NDArray[np.int64], place: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Noise of single currents, all arrays [n], in codes; there must be noise.

        Columns are numbered over all OUs, and places are as for :meth:`noise`.
        """
        assert self.noise_of is not None
        start, _, lane = self._starts(place)
        return self.noise_from(column, digit, start, (lane * 16).astype(np.uint64))

    def noise_from(
        self,
        column: NDArray[np.int64],
        digit: NDArray[np.int64],
        start: NDArray[np.uint64],
        shift: NDArray[np.uint64],
    ) -> NDArray[np.float32]:
        """Give what :meth:`noise_at` does, from :meth:`seeds` of the places."""
        assert self.noise_of is not None
        z = column * self.config.digits
        z += digit
        z = z.view(np.uint64) if z.dtype == np.int64 else z.astype(np.uint64)
        z *= np.uint64(GOLDEN * self._quads & MASK)
        z += start
        z = mix(z)
        z >>= shift
        z &= np.uint64(0xFFFF)
        return self.noise_of.take(z.view(np.int64), mode="clip")

    def seeds(self, places: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Where the words of noise of some places begin, and which of their bits are whose."""
        last = self.seeded.get("last")
        if last is None or last[0] is not places:
            start, _, lane = self._starts(places)
            last = self.seeded["last"] = places, start, (lane * 16).astype(np.uint64)
        return last[1], last[2]

    def codes(
        self, columns: slice, lines: NDArray[np.float32], places: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Convert some columns of one gather to codes.

        Parameters
        ----------
        columns
            Columns, numbered over all OUs: OU * C + column of the OU.
        lines
            [rows in use, digits * n], digits of the wordlines.
        places
            As for :meth:`noise`.

        Returns
        -------
        float32 [columns, digits * n], integers from 0, or from -(2^code_bits - 1) with pairs, to
        2^code_bits - 1.
        """
        level = self.matrix[columns, : len(lines)] @ lines
        level += self.offset[columns, None]
        self.tally.conversions += level.size
        if self.noise_of is not None:
            if self.converters.plain:
                return self._noisy(level, columns, places)
            self._add_noise(level, columns, places)
        self.tally.clipped += int(np.count_nonzero(self.converters.clipped(level)))
        return self.converters.convert(level, columns)

    def sums(
        self,
        columns: slice,
        rows: int,
        inputs: NDArray[np.intp],
        places: NDArray[np.int64],
        weights: NDArray[Any],
    ) -> NDArray[Any] | None:
        """Sum the codes of one gather over the columns of each pattern and over 1-bit digits.

        Parameters
        ----------
        columns
            Those of whole patterns, all of the gather, numbered over all OUs.
        rows
            Rows in use.
        inputs
            [digits, n], digits of all wordlines, a bit to each.
        places
            As for :meth:`noise`.
        weights
            [columns of a pattern], what their codes count, in a type in which all sums are exact.

        Returns
        -------
        [patterns, n] in the type of the weights; None where :meth:`codes` is to be asked instead,
        because tables are not worth it.
        """
        kept = self.kept.found.get(columns.start)
        what = weights.tobytes()
        if kept is None or kept[1] != what:
            if not sums.worthwhile(rows, inputs.size):
                return None
            table = sums.make(self, columns, rows, weights)
            if table.size <= self.kept.room.left:
                self.kept.room.left -= table.size
                self.kept.found[columns.start] = table, what
        else:
            table = kept[0]
        return sums.look_up(self, table, columns, inputs, places, weights)

    def _noisy(
        self, level: NDArray[np.float32], columns: slice, places: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Convert currents [columns, digits * n] with their noise; may change them."""
        assert self.noise_of is not None
        # Noise changes nothing below this distance from an integer. Exact, since all of these are
        # multiples of the same power of two.
        least = np.float32(0.5) - self.noise_of[-1]
        if least > 0:
            code = np.rint(level)
            apart = level - code
            np.abs(apart, out=apart)
            near = apart >= least
            if np.count_nonzero(near) <= _FEW * near.size:
                at = np.flatnonzero(near)
                column, rest = np.divmod(at, level.shape[1])
                digit, place = np.divmod(rest, len(places))
                level.ravel()[at] += self.noise_at(column + columns.start, digit, places[place])
                self.tally.clipped += int(np.count_nonzero(self.converters.clipped(level)))
                code.ravel()[at] = np.rint(level.ravel()[at])
                return np.clip(code, self.converters.least, self.converters.most, out=code)
        self._add_noise(level, columns, places)
        self.tally.clipped += int(np.count_nonzero(self.converters.clipped(level)))
        return self.converters.convert(level, columns)

    def request(
        self, ou: int, digit: int, place: int, wordlines: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Currents of one OU activation, in codes before rounding, as a simulation meets them.

        Parameters
        ----------
        ou, digit
            OU and digit of the request; see :class:`refmodel.golden.serial.Requests`.
        place
            image * positions + position.
        wordlines
            [R], digits.

        Returns
        -------
        float32 [C]; the converters of a request round some of them.
        """
        level = self.still(ou, wordlines)
        if self.noise_of is not None:
            level += self.noise_in(ou, np.arange(self.config.ou_cols), digit, place)
        return level

    def still(self, ou: int, wordlines: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Currents of one OU activation without their noise: the same at every read.

        Parameters
        ----------
        ou, wordlines
            As for :meth:`request`.

        Returns
        -------
        float32 [C], in codes before rounding.
        """
        columns = slice(ou * self.config.ou_cols, (ou + 1) * self.config.ou_cols)
        return self.matrix[columns] @ wordlines.astype(np.float32) + self.offset[columns]

    def noise_in(
        self, ou: int, columns: NDArray[np.int64], digit: int, place: int
    ) -> NDArray[np.float32]:
        """Read noise of some columns of one OU activation, in codes; there must be noise.

        Parameters
        ----------
        ou, digit, place
            As for :meth:`request`.
        columns
            [n], of the OU.

        Returns
        -------
        float32 [n].
        """
        each = np.full_like(columns, digit), np.full_like(columns, place)
        return self.noise_at(ou * self.config.ou_cols + columns, *each)

    def convert(
        self, level: NDArray[np.float32], ou: int, columns: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Convert currents of some columns of one OU activation to codes.

        Parameters
        ----------
        level
            float32 [n], in codes before rounding.
        ou
            Its number.
        columns
            [n], of the OU.

        Returns
        -------
        float32 [n], what goes to the engine: integers.
        """
        own = ou * self.config.ou_cols + columns
        return self.converters.convert(level[:, None].copy(), own)[:, 0]

    def near(self, level: NDArray[np.float32], columns: Columns) -> NDArray[np.bool_]:
        """Which currents [columns, n] may become another code with their noise than without."""
        if self.noise_of is None:
            return np.zeros(level.shape, bool)
        if self.converters.thresholds is None:
            # Exact, since all of these are multiples of the same power of two.
            return np.abs(level - np.rint(level)) >= np.float32(0.5) - self.noise_of[-1]
        least, most = (self.converters.convert(level + end, columns) for end in self._ends)
        return least != most

    @property
    def _ends(self) -> tuple[np.float32, np.float32]:
        """The least and the largest noise."""
        assert self.noise_of is not None
        return self.noise_of[0], self.noise_of[-1]

    def trace(
        self, digits: NDArray[np.uint8], ous: slice, places: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Codes of consecutive OUs at all places.

        Parameters
        ----------
        digits
            [ous, n, digits, R], of the wordlines.
        ous
            Their numbers.
        places
            As for :meth:`noise`.

        Returns
        -------
        float32 [ous, n, digits, C], integers.
        """
        count, n, steps, rows = digits.shape
        columns = slice(ous.start * self.config.ou_cols, ous.stop * self.config.ou_cols)
        matrix = self.matrix[columns].reshape(count, -1, rows)
        lines = digits.astype(np.float32).reshape(count, n * steps, rows)
        level = lines @ matrix.transpose(0, 2, 1)
        level += self.offset[columns].reshape(count, 1, -1)
        level = level.reshape(count, n, steps, -1)
        noise = self.noise(columns, places)
        if noise is not None:
            level += noise.reshape(count, -1, steps, n).transpose(0, 3, 2, 1)
        own = np.ascontiguousarray(level.transpose(0, 3, 1, 2)).reshape(-1, n * steps)
        code = self.converters.convert(own, columns).reshape(count, -1, n, steps)
        return code.transpose(0, 2, 3, 1)
