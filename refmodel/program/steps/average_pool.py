"""Step ``average_pool``: the requantised sum of each window."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from refmodel.program.rounding import divide
from refmodel.program.steps.base import (
    Pass,
    Read,
    Sides,
    Source,
    StepKind,
    UnsupportedError,
    register,
)
from refmodel.program.steps.pooling import check_window, reduce_windows, window_of, windows
from refmodel.program.values import Shape, integers, need, whole


def average_pool(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """``clip(floor(sum(code - zero_in) * M / 2^s + 1/2) + zero_out, 0, 255)`` of each window.

    The border adds 0. M is a number, or an array [OH, OW].
    """
    values = codes.astype(np.int32) - np.int32(params["zero_in"])
    sums = reduce_windows(np.add, windows(values, params, 0)).astype(np.int64)
    multiplier = np.asarray(params["multiplier"], np.int64)
    if multiplier.ndim:
        multiplier = multiplier[:, :, None]
    result = divide(sums * multiplier, params["shift"]) + params["zero_out"]
    return np.clip(result, 0, 255).astype(np.uint8)


def _runs(lines: np.ndarray) -> list[tuple[int, int]]:
    """Begin and end of each run of equal lines."""
    changes = np.flatnonzero((lines[1:] != lines[:-1]).any(1)) + 1
    bounds = [0, *changes.tolist(), len(lines)]
    return list(pairwise(bounds))


@register
class AveragePool(StepKind):
    """Parameters: kernel, stride, pads, zero_in, multiplier, shift, zero_out."""

    op = "average_pool"
    words = "average pooling"

    def check(
        self, params: Mapping[str, Any], inputs: Sequence[Shape], output: Shape, where: str
    ) -> None:
        check_window(params, inputs[0], output, where)
        multiplier = params.get("multiplier")
        if isinstance(multiplier, np.ndarray):
            fits = integers(multiplier) and multiplier.shape == output[:2]
            need(
                fits and int(multiplier.min()) >= 0 and int(multiplier.max()) <= 32767,
                f"{where}: expected a multiplier 0 to 32767 for each of {output[:2]}",
            )
        else:
            whole(multiplier, 0, 32767, f"{where}, multiplier")
        whole(params.get("shift"), 0, 47, f"{where}, shift")
        for name in ("zero_in", "zero_out"):
            whole(params.get(name), 0, 255, f"{where}, {name}")

    def run(self, inputs: Sequence[np.ndarray], params: Mapping[str, Any]) -> np.ndarray:
        return average_pool(inputs[0], params)

    def lower(
        self, params: Mapping[str, Any], inputs: Sequence[Source], output: Shape
    ) -> list[Pass]:
        zero = inputs[0].zero
        if params["zero_in"] != zero:
            raise UnsupportedError(f"zero point {params['zero_in']} of a tensor that has {zero}")
        # Windows that count as many codes lie in rectangles: each is a pass.
        multipliers = np.broadcast_to(params["multiplier"], output[:2])
        rows, columns = (_runs(each) for each in (multipliers, multipliers.T))
        return [
            Pass(
                loops=(row[1] - row[0], column[1] - column[0], output[2]),
                at=(row[0], column[0], 0),
                reads=(Read(multiplier=int(multipliers[row[0], column[0]])),),
                window=window_of(params),
                shift=params["shift"],
                zero_out=params["zero_out"],
            )
            for row in rows
            for column in columns
        ]

    def border(self, params: Mapping[str, Any]) -> Sides:
        return window_of(params).pads
