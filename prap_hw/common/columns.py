"""Where the bitlines of weight patterns lie in an OU, and which of them an answer holds.

The patterns of a gather lie side by side from its first OU on, ``columns_per_weight`` bitlines
each. Where an OU's bitlines are no multiple of that, a pattern goes on in the next OU, so that OUs
differ in the bit of a weight at which they begin: their *phase*.
"""

import math

from amaranth import Array, Const, Mux, Value

from refmodel.config import EngineConfig


class Columns:
    """Bitlines of one configuration; all numbers are known when the hardware is made.

    A *lane* is a pattern that an OU touches, numbered from 0 at its first bitline. A *piece* is
    a pattern that an answer touches, numbered from 0 at its first converter.

    Attributes
    ----------
    phases
        Bits of a weight, as columns from its lowest, at which an OU can begin.
    chunks
        Answers that all bitlines of an OU take for a digit: ceil(C / A).
    pieces
        Most patterns that an answer touches.
    ends
        Most patterns that end in an answer; as many sums may be complete at once.
    alignments
        Columns of a weight at which an answer can begin, each with how many of its codes count:
        where patterns go on in the next OU, not those beyond the OU's last column.
    narrow
        Whether every answer lies within one pattern at a multiple of its size: then one sum of
        ``adcs`` codes serves all places, shifted.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        self.width = width = config.columns_per_weight
        self.phases = tuple(range(0, width, math.gcd(width, config.ou_cols)))
        self.chunks = -(-config.ou_cols // config.adcs)
        places = [(phase, chunk) for phase in self.phases for chunk in range(self.chunks)]
        self.alignments = tuple(sorted({self.alignment(*place) for place in places}))
        self.pieces = max(-(-self._end(*p) // width) - self.lane(*p) for p in places)
        self.ends = max(self.ended(*place) for place in places)
        self.narrow = width % config.adcs == 0 and not any(
            align % config.adcs for align, _ in self.alignments
        )

    def _end(self, phase: int, chunk: int) -> int:
        """Column after an answer's last, counted from where the OU's first pattern begins."""
        return phase + min(self.config.ou_cols, (chunk + 1) * self.config.adcs)

    def lane(self, phase: int, chunk: int) -> int:
        """Lane in which an answer's first column lies."""
        return (phase + chunk * self.config.adcs) // self.width

    def align(self, phase: int, chunk: int) -> int:
        """Column of its weight that an answer's first column is."""
        return (phase + chunk * self.config.adcs) % self.width

    def alignment(self, phase: int, chunk: int) -> tuple[int, int]:
        """An answer's alignment: one of :attr:`alignments`."""
        counting = self.config.adcs
        if len(self.phases) > 1:
            counting = min(counting, self.config.ou_cols - chunk * self.config.adcs)
        return self.align(phase, chunk), counting

    def ended(self, phase: int, chunk: int) -> int:
        """Patterns whose last column is in an answer."""
        return self._end(phase, chunk) // self.width - self.lane(phase, chunk)

    def last_chunk(self, phase: int, patterns: int) -> int:
        """Last answer of an OU that touches so many patterns."""
        return max(0, -(-self._used(phase, patterns) // self.config.adcs) - 1)

    def last_columns(self, phase: int, patterns: int) -> int:
        """Columns in use of the last answer of an OU that touches so many patterns, 1 or more."""
        before = self.last_chunk(phase, patterns) * self.config.adcs
        left = self._used(phase, patterns) - before
        return left if left > 0 else self.config.adcs

    def _used(self, phase: int, patterns: int) -> int:
        """Columns in use of an OU that touches so many patterns."""
        return min(self.config.ou_cols, patterns * self.width - phase)

    def select(self, function, phase: Value, chunk: Value) -> Value:
        """``function(phase, chunk)`` of signals, ``phase`` as its number."""
        return self.table(
            [[function(phase, chunk) for chunk in range(self.chunks)] for phase in self.phases],
            phase,
            chunk,
        )

    @staticmethod
    def table(rows: list[list[int]], phase: Value, index: Value) -> Value:
        """``rows[phase][index]``; no logic where all are equal."""
        values = [lookup(row, index) for row in rows]
        if all(row == rows[0] for row in rows):
            return values[0]
        return Mux(phase, values[1], values[0])


def lookup(values: list[int], index: Value) -> Value:
    """``values[index]`` as combinational logic; none where all are equal."""
    if len(set(values)) == 1:
        return Const(values[0])
    return Array(Const(value) for value in values)[index]
