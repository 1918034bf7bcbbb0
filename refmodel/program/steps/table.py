"""Step ``table``: each code is looked up, in one table or in one to a channel."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refmodel.program.steps.base import Pass, Source, StepKind, register
from refmodel.program.values import Shape, integers, need

CODES = 256
"""Entries of a table: one to a code."""


def table(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """``tables[k][code]``, with k the channel, or 0 where there is one table."""
    tables = np.asarray(params["tables"]).astype(np.uint8)
    if len(tables) == 1:
        return tables[0][codes]
    return tables[np.arange(len(tables)), codes]


@register
class Table(StepKind):
    """Parameters: tables, int64 [1 or channels, 256], codes 0 to 255."""

    op = "table"
    words = "table"

    def check(
        self, params: Mapping[str, Any], inputs: Sequence[Shape], output: Shape, where: str
    ) -> None:
        tables = params.get("tables")
        shapes = [(1, CODES), (output[2], CODES)]
        need(
            integers(tables) and tables.shape in shapes,  # pyright: ignore
            f"{where}: expected tables of {CODES} codes, one or {output[2]}",
        )
        tables = np.asarray(tables)
        need(
            int(tables.min()) >= 0 and int(tables.max()) < CODES,
            f"{where}: expected tables of codes 0 to {CODES - 1}",
        )
        need(inputs[0] == output, f"{where}: tensors of unlike shapes")

    def run(self, inputs: Sequence[np.ndarray], params: Mapping[str, Any]) -> np.ndarray:
        return table(inputs[0], params)

    def lower(
        self, params: Mapping[str, Any], inputs: Sequence[Source], output: Shape
    ) -> list[Pass]:
        return [Pass(loops=output, maximum=True, tables=np.asarray(params["tables"]))]
