"""Tables of figures: records that print as text, show in a notebook, and give numpy columns."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


def _text(value: object) -> str:
    """One cell: thousands apart, ratios with three digits, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:.3f}"
    if isinstance(value, tuple | list):
        return "x".join(map(str, value))
    return str(value)


class Table:
    """Records with the same columns, in order.

    ``table[0]`` is a record, ``table["cycles"]`` a numpy array with one value to a record,
    ``print(table)`` aligned text; a notebook shows it as an HTML table.

    Parameters
    ----------
    records
        Mappings with the same keys.
    title
        Said above the table; nothing if empty.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]], title: str = "") -> None:
        self.records = tuple(dict(record) for record in records)
        self.title = title
        self.columns: tuple[str, ...] = tuple(self.records[0]) if self.records else ()
        for record in self.records:
            if tuple(record) != self.columns:
                raise ValueError(
                    f"records must have the columns {self.columns!r}, not {tuple(record)!r}"
                )

    @overload
    def __getitem__(self, key: str) -> NDArray: ...
    @overload
    def __getitem__(self, key: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> "Table": ...
    def __getitem__(self, key: str | int | slice) -> "NDArray | Mapping[str, Any] | Table":
        if isinstance(key, str):
            if key not in self.columns:
                raise KeyError(f"expected one of {', '.join(self.columns)}, not {key!r}")
            values = [record[key] for record in self.records]
            if any(isinstance(value, tuple | list) for value in values):
                result = np.empty(len(values), object)
                result[:] = values
                return result
            return np.array(values)
        if isinstance(key, slice):
            return Table(self.records[key], self.title)
        return self.records[key]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.records)

    def _right(self) -> list[bool]:
        """Whether each column is of numbers, which stand to the right."""
        return [
            any(
                isinstance(record[name], int | float | np.number)
                and not isinstance(record[name], bool)
                for record in self.records
            )
            for name in self.columns
        ]

    def __str__(self) -> str:
        cells = [list(self.columns)]
        cells += [[_text(record[name]) for name in self.columns] for record in self.records]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [self.title] if self.title else []
        for row in cells:
            parts = [
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, self._right(), strict=True)
            ]
            lines.append("  ".join(parts).rstrip())
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        style = ['<td style="text-align:right">' if r else "<td>" for r in self._right()]
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        rows = "".join(
            "<tr>"
            + "".join(
                f"{td}{escape(_text(record[name]))}</td>"
                for td, name in zip(style, self.columns, strict=True)
            )
            + "</tr>"
            for record in self.records
        )
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
