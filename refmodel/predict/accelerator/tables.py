"""The memory of tables: each table of 256 codes once, those of one operation side by side."""

import numpy as np
from numpy.typing import NDArray


class TableMemory:
    """Tables while a network is laid out."""

    def __init__(self) -> None:
        self._tables: list[bytes] = []

    def add(self, tables: NDArray[np.int64]) -> int:
        """Find room for tables, int64 [tables, 256]; returns the number of the first."""
        wanted = [each.astype(np.uint8).tobytes() for each in tables]
        for first in range(len(self._tables) - len(wanted) + 1):
            if self._tables[first : first + len(wanted)] == wanted:
                return first
        self._tables += wanted
        return len(self._tables) - len(wanted)

    @property
    def contents(self) -> NDArray[np.int64]:
        """All tables, int64 [tables, 256]."""
        joined = np.frombuffer(b"".join(self._tables), np.uint8)
        return joined.reshape(-1, 256).astype(np.int64)
