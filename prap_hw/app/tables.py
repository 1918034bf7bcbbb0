"""Rows of figures as tables: pandas where it is installed, else :class:`refmodel.table.Table`."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from refmodel.table import Table


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Give rows as a pandas DataFrame where pandas is installed, else as a Table.

    Parameters
    ----------
    rows
        Records with the same columns.
    """
    try:
        import pandas
    except ImportError:
        return Table(rows)
    return pandas.DataFrame(list(rows))


def csv_text(table: Table) -> str:
    """Write a table as CSV; nothing where there is no value."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    for record in table:
        writer.writerow(["" if value is None else value for value in record.values()])
    return buffer.getvalue()
