"""Step ``multiply``: the requantised product of two tensors."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from refmodel.program.rounding import divide
from refmodel.program.steps.base import Moved, Pass, Read, Source, StepKind, register
from refmodel.program.steps.requantising import same_zeros
from refmodel.program.values import Shape, check_limits, need, whole, wholes


def multiply(a: np.ndarray, b: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """``clip(floor((a - za) * (b - zb) * M / 2^s + 1/2) + zero_out, lo, hi)``.

    b is read again along the axes where it has a size of 1.
    """
    first, second = (
        x.astype(np.int64) - zero for x, zero in zip((a, b), params["zeros_in"], strict=True)
    )
    total = divide(first * second * params["multiplier"], params["shift"]) + params["zero_out"]
    return np.clip(total, *params["clip"]).astype(np.uint8)


@register
class Multiply(StepKind):
    """Parameters: zeros_in, multiplier, shift, zero_out, clip."""

    op = "multiply"
    words = "product"
    inputs = 2

    def check(
        self, params: Mapping[str, Any], inputs: Sequence[Shape], output: Shape, where: str
    ) -> None:
        wholes(params.get("zeros_in"), 2, 0, 255, f"{where}, zeros_in")
        whole(params.get("multiplier"), 0, 32767, f"{where}, multiplier")
        whole(params.get("shift"), 0, 47, f"{where}, shift")
        whole(params.get("zero_out"), 0, 255, f"{where}, zero_out")
        low, high = wholes(params.get("clip"), 2, 0, 255, f"{where}, clip")
        check_limits(low, high, where)
        fits = all(size in (1, most) for size, most in zip(inputs[1], output, strict=True))
        need(inputs[0] == output and fits, f"{where}: tensors of unlike shapes")

    def run(self, inputs: Sequence[np.ndarray], params: Mapping[str, Any]) -> np.ndarray:
        return multiply(inputs[0], inputs[1], params)

    def lower(
        self, params: Mapping[str, Any], inputs: Sequence[Source], output: Shape
    ) -> list[Pass]:
        same_zeros(params, inputs)
        moved = None
        shape = inputs[1].shape
        if shape != output:
            index = np.arange(prod(shape)).reshape(shape)
            index = np.broadcast_to(index, output).reshape(-1)
            moved = Moved(index=index, fill=None)
        low, high = params["clip"]
        return [
            Pass(
                loops=output,
                reads=(
                    Read(source=0, multiplier=params["multiplier"]),
                    Read(source=1, multiplier=1, moved=moved),
                ),
                product=True,
                shift=params["shift"],
                zero_out=params["zero_out"],
                clip=(low, high),
            )
        ]
