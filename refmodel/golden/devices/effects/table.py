"""Conductance table: cells as they were measured, by the level that they were programmed to."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.errors import InputError
from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import CellDraw, Effect, Value
from refmodel.golden.devices.random import normal

Table = tuple[tuple[float, ...], ...]
"""Rows (level, mean, sigma), or (level, sample, sample, ...) with as many samples in each row."""

QUANTILES = 257
"""Points to which the samples of a level are brought, from the least to the greatest."""

MOMENTS, SAMPLES = ("level", "mean", "sigma"), ("level", "sample")


def read_table(path: Path) -> Table:
    """Read a table of conductances.

    A CSV file whose first line is ``level,mean,sigma`` or ``level,sample``. Levels go from 0 (off)
    to 1 (on), in shares of the whole range; conductances are in any unit, and are divided by the
    mean of level 1. Samples, a line to each cell that was measured, become 257 quantiles, evenly
    spaced.

    Raises
    ------
    InputError
        The file is not there, or is not such a table.
    """
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"expected a CSV file of conductances, found none at {path}") from None
    head = tuple(part.strip() for part in lines[0]) if lines else ()
    if head not in (MOMENTS, SAMPLES):
        raise InputError(
            f"expected {','.join(MOMENTS)} or {','.join(SAMPLES)} in line 1, "
            f"found {','.join(head)!r} in {path.name}"
        )
    found: dict[float, list[tuple[float, ...]]] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        level, *values = _numbers(line, len(head), f"line {number} of {path.name}")
        if head == MOMENTS and level in found:
            raise InputError(
                f"expected each level once, found {level!r} again in line {number} of {path.name}"
            )
        found.setdefault(level, []).append(tuple(values))
    levels = sorted(found)
    if len(levels) < 2 or (levels[0], levels[-1]) != (0, 1):
        raise InputError(f"expected levels from 0 to 1, found {levels} in {path.name}")
    if head == MOMENTS:
        on = found[1][0][0]
        rows = [(level, *found[level][0]) for level in levels]
    else:
        on = float(np.mean(found[1]))
        shares = np.linspace(0, 1, QUANTILES)
        rows = [
            (level, *np.quantile(np.array(found[level])[:, 0], shares).tolist()) for level in levels
        ]
    if not on > 0:
        raise InputError(f"expected a conductance above 0 at level 1, found {on!r} in {path.name}")
    return tuple((level, *(value / on for value in values)) for level, *values in rows)


def _numbers(line: Sequence[str], count: int, where: str) -> list[float]:
    try:
        values = [float(part) for part in line]
    except ValueError:
        raise InputError(f"expected numbers, found {','.join(line)!r} in {where}") from None
    if len(values) != count or not all(0 <= value < math.inf for value in values):
        raise InputError(
            f"expected {count} numbers of at least 0, found {','.join(line)!r} in {where}"
        )
    return values


@register
class ConductanceTable(Effect):
    """Conductances by level, from a table, in place of those in even steps.

    Between two levels of the table, mean and sigma, or all quantiles, are interpolated. Of means
    and sigmas the distribution is normal, cut off at 0; of samples it is theirs.
    """

    order = 5
    values = (Value(name="conductance_table", unit="CSV file", default=(), read=read_table),)
    streams = (8, 9)
    written = True

    def check(self, device: Any) -> None:
        table = device.conductance_table
        if table and (
            len({len(row) for row in table}) != 1
            or len(table[0]) < 3
            or (table[0][0], table[-1][0]) != (0, 1)
        ):
            raise ValueError("conductance_table must have rows of one length, levels 0 to 1")

    def varies(self, device: Any) -> bool:
        return bool(device.conductance_table)

    def change_cells(self, device: Any, cells: CellDraw, conductance: NDArray[np.float64]) -> None:
        if not device.conductance_table:
            return
        table = np.array(device.conductance_table)
        share = cells.level / cells.top
        words = cells.words(self.streams[cells.minus])
        above = np.clip(np.searchsorted(table[:, 0], share), 1, len(table) - 1)
        low = table[above - 1, 0]
        part = (share - low) / (table[above, 0] - low)

        def between(column: NDArray[np.int64] | int) -> NDArray[np.float64]:
            return (1 - part) * table[above - 1, column] + part * table[above, column]

        if table.shape[1] == len(MOMENTS):
            drawn = between(1) + between(2) * normal(words)
        else:
            place = (words >> np.uint64(11)).astype(np.float64) / 2.0**53 * (table.shape[1] - 2)
            left = place.astype(np.int64)
            more = place - left
            drawn = (1 - more) * between(1 + left) + more * between(2 + left)
        np.maximum(drawn, 0.0, out=conductance)
