"""Converters of one layer on one chip: from currents to codes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refmodel.config import EngineConfig

Columns = slice | NDArray[np.integer]
"""Columns, numbered over all OUs of a layer: OU * C + column of the OU."""

_COMPARED = 63
"""Thresholds up to which all are compared with all currents; more are searched."""


@dataclass(frozen=True, kw_only=True)
class AdcRange:
    """What the converters of a layer tell apart, in cells that conduct.

    Code k stands for ``rint(low + step * k)`` cells, and is what currents nearest to ``low + step *
    k`` become. What goes to the engine is that number of cells, so that partial sums have the same
    unit whatever the range is.

    Attributes
    ----------
    bits
        Bits of the converter, 1 to 13: codes 0 to 2^bits - 1, with pairs also the negative ones.
    low
        Cells at code 0; 0 with pairs.
    step
        Cells from one code to the next, at least 1.
    """

    bits: int
    low: float = 0.0
    step: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or isinstance(self.bits, bool):
            raise TypeError(f"bits must be an integer, not {self.bits!r}")
        if not 1 <= self.bits <= 13:
            raise ValueError(f"bits must be 1 to 13, not {self.bits!r}")
        if not 0 <= self.low <= 1 << 13:
            raise ValueError(f"low must be 0 to 8192, not {self.low!r}")
        if not 1 <= self.step <= 1 << 13:
            raise ValueError(f"step must be 1 to 8192, not {self.step!r}")

    @classmethod
    def of(cls, config: EngineConfig) -> "AdcRange":
        """The range of an engine's converters: a code to every number of cells, from 0."""
        return cls(bits=config.code_bits)

    @property
    def most(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    def values(self, config: EngineConfig, *, pairs: bool) -> NDArray[np.float32] | None:
        """Cells that each code stands for, from the least; None where code k stands for k."""
        codes = np.arange(-self.most if pairs else 0, self.most + 1)
        found = np.clip(
            np.rint(self.low + self.step * codes), -config.max_code if pairs else 0, config.max_code
        )
        return None if (found == codes).all() else found.astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Converters:
    """Converters of all columns of a layer.

    Attributes
    ----------
    least, most
        The least and the largest code that they tell apart.
    below
        Whether a current below the least code counts as clipped: not at 0, where none is less.
    thresholds
        float32 [places, most - least], ascending; None where threshold k is k - 1/2.
    place
        [columns], which converter each column has; with ``thresholds``.
    values
        float32 [most - least + 1], what each code stands for; None where it is the code.
    """

    least: int
    most: int
    below: bool
    thresholds: NDArray[np.float32] | None = None
    place: NDArray[np.int64] | None = None
    values: NDArray[np.float32] | None = None

    @property
    def plain(self) -> bool:
        """Whether a code is the nearest integer, clipped."""
        return self.thresholds is None and self.values is None

    def convert(self, level: NDArray[np.float32], columns: Columns) -> NDArray[np.float32]:
        """Convert currents.

        Parameters
        ----------
        level
            float32 [columns, n], in codes; may be changed.
        columns
            Which they are, or [columns] of them.

        Returns
        -------
        float32 [columns, n], what the codes stand for.
        """
        if self.thresholds is None:
            code = np.rint(level, out=level)
            np.clip(code, self.least, self.most, out=code)
        else:
            assert self.place is not None
            code = self._reached(level, self.thresholds[self.place[columns]])
        if self.values is None:
            return code
        return self.values[(code - np.float32(self.least)).astype(np.intp)]

    def _reached(
        self, level: NDArray[np.float32], thresholds: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Count the thresholds [columns, T] that currents [columns, n] reach, from the least."""
        code = np.full(level.shape, self.least, np.float32)
        if thresholds.shape[1] <= _COMPARED:
            for each in thresholds.T:
                code += level >= each[:, None]
            return code
        for column, own in enumerate(thresholds):
            code[column] += np.searchsorted(own, level[column], side="right")
        return code

    def clipped(self, level: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which currents are out of range, by thresholds that are not moved."""
        over = level >= np.float32(self.most + 0.5)
        if self.below:
            over |= level <= np.float32(self.least - 0.5)
        return over
