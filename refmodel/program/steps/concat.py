"""Step ``concat``: tensors one behind the other, each requantised; of one, its requantisation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refmodel.program.rounding import divide
from refmodel.program.steps.base import Pass, Read, Source, StepKind, register
from refmodel.program.steps.requantising import check_requantisation, same_zeros, sums
from refmodel.program.values import Shape, need, whole


def concat(*inputs_and_params: Any) -> np.ndarray:
    """Put tensors one behind the other along ``axis`` of (H, W, C), each requantised.

    ``clip(floor((a - zero_in) * M / 2^s + 1/2) + zero_out, lo, hi)`` of each value a.
    """
    *inputs, params = inputs_and_params
    parts = []
    for x, zero, multiplier in zip(inputs, params["zeros_in"], params["multipliers"], strict=True):
        # There are 256 codes: each is worked out once.
        codes = divide((np.arange(256) - zero) * multiplier, params["shift"]) + params["zero_out"]
        parts.append(np.clip(codes, *params["clip"]).astype(np.uint8)[x])
    return np.concatenate(parts, axis=params["axis"] + 1)


@register
class Concat(StepKind):
    """Parameters: axis; zeros_in, multipliers, shift, zero_out, clip."""

    op = "concat"
    words = "concatenation"
    inputs = None

    def check(
        self, params: Mapping[str, Any], inputs: Sequence[Shape], output: Shape, where: str
    ) -> None:
        check_requantisation(params, len(inputs), where)
        axis = whole(params.get("axis"), 0, 2, f"{where}, axis")
        joined = list(inputs[0])
        joined[axis] = sum(shape[axis] for shape in inputs)
        rest = {shape[:axis] + shape[axis + 1 :] for shape in inputs}
        need(len(rest) == 1 and tuple(joined) == output, f"{where}: unlike shapes")

    def run(self, inputs: Sequence[np.ndarray], params: Mapping[str, Any]) -> np.ndarray:
        return concat(*inputs, params)

    def lower(
        self, params: Mapping[str, Any], inputs: Sequence[Source], output: Shape
    ) -> list[Pass]:
        same_zeros(params, inputs)
        at = [0, 0, 0]
        passes = []
        for number, (source, multiplier) in enumerate(
            zip(inputs, params["multipliers"], strict=True)
        ):
            read = Read(source=number, multiplier=multiplier)
            place = (at[0], at[1], at[2])
            passes.append(Pass(loops=source.shape, reads=(read,), at=place, **sums(params)))
            at[params["axis"]] += source.shape[params["axis"]]
        return passes
