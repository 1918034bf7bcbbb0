"""Step ``max_pool``: the largest code of each window."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refmodel.program.steps.base import Pass, Sides, Source, StepKind, register
from refmodel.program.steps.pooling import check_window, reduce_windows, window_of, windows
from refmodel.program.values import Shape


def max_pool(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """Largest code of each window; the border never wins, since no code is below 0."""
    return reduce_windows(np.maximum, windows(codes, params, 0))


@register
class MaxPool(StepKind):
    """Parameters: kernel, stride, pads."""

    op = "max_pool"
    words = "max pooling"
    border_least = True

    def check(
        self, params: Mapping[str, Any], inputs: Sequence[Shape], output: Shape, where: str
    ) -> None:
        check_window(params, inputs[0], output, where)

    def run(self, inputs: Sequence[np.ndarray], params: Mapping[str, Any]) -> np.ndarray:
        return max_pool(inputs[0], params)

    def lower(
        self, params: Mapping[str, Any], inputs: Sequence[Source], output: Shape
    ) -> list[Pass]:
        return [Pass(loops=output, window=window_of(params), maximum=True)]

    def border(self, params: Mapping[str, Any]) -> Sides:
        return window_of(params).pads
