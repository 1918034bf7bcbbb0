"""Step ``clip``: codes within limits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refmodel.program.steps.base import Pass, Source, StepKind, register
from refmodel.program.values import Shape, check_limits, need, whole


def clip(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """Limit codes to ``lo`` .. ``hi``."""
    return np.clip(codes, params["lo"], params["hi"])


@register
class Clip(StepKind):
    """Parameters: lo, hi."""

    op = "clip"
    words = "clipping"

    def check(
        self, params: Mapping[str, Any], inputs: Sequence[Shape], output: Shape, where: str
    ) -> None:
        low, high = (whole(params.get(key), 0, 255, f"{where}, {key}") for key in ("lo", "hi"))
        check_limits(low, high, where)
        need(inputs[0] == output, f"{where}: tensors of unlike shapes")

    def run(self, inputs: Sequence[np.ndarray], params: Mapping[str, Any]) -> np.ndarray:
        return clip(inputs[0], params)

    def lower(
        self, params: Mapping[str, Any], inputs: Sequence[Source], output: Shape
    ) -> list[Pass]:
        return [Pass(loops=output, maximum=True, clip=(params["lo"], params["hi"]))]
