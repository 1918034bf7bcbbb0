"""Step ``add``: the requantised sum of two tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refmodel.program.rounding import divide
from refmodel.program.steps.base import Pass, Read, Source, StepKind, register
from refmodel.program.steps.requantising import check_requantisation, same_zeros, sums
from refmodel.program.values import Shape, need


def add(a: np.ndarray, b: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """``clip(floor(((a - za) * Ma + (b - zb) * Mb) / 2^s + 1/2) + zero_out, lo, hi)``."""
    # There are 256 codes: the share of each is worked out once.
    first, second = (
        (np.arange(256) - zero) * multiplier
        for zero, multiplier in zip(params["zeros_in"], params["multipliers"], strict=True)
    )
    total = divide(first[a] + second[b], params["shift"]) + params["zero_out"]
    return np.clip(total, *params["clip"]).astype(np.uint8)


@register
class Add(StepKind):
    """Parameters: zeros_in, multipliers, shift, zero_out, clip."""

    op = "add"
    words = "addition"
    inputs = 2
    takes_views = True

    def check(
        self, params: Mapping[str, Any], inputs: Sequence[Shape], output: Shape, where: str
    ) -> None:
        check_requantisation(params, 2, where)
        need(inputs[0] == inputs[1] == output, f"{where}: tensors of unlike shapes")

    def run(self, inputs: Sequence[np.ndarray], params: Mapping[str, Any]) -> np.ndarray:
        return add(inputs[0], inputs[1], params)

    def lower(
        self, params: Mapping[str, Any], inputs: Sequence[Source], output: Shape
    ) -> list[Pass]:
        same_zeros(params, inputs)
        reads = tuple(Read(source=n, multiplier=m) for n, m in enumerate(params["multipliers"]))
        return [Pass(loops=output, reads=reads, **sums(params))]
