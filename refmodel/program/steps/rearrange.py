"""Step ``rearrange``: codes moved about."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from refmodel.program.steps.base import Moved, Pass, Read, Source, StepKind, register
from refmodel.program.values import MOST_CODES, Shape, integers, need, whole, wholes


def rearrange(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """Move values about: value i of the output, flat, is value ``index[i]`` of the input.

    Where the index is -1, it is ``fill``.
    """
    index = np.asarray(params["index"])
    flat = codes.reshape(len(codes), -1).take(index, axis=1)
    if "fill" in params:
        flat[:, index < 0] = params["fill"]
    return flat.reshape(len(codes), *params["shape"])


@register
class Rearrange(StepKind):
    """Parameters: index, shape; and fill, the code where index is -1."""

    op = "rearrange"
    words = "rearrangement"

    def check(
        self, params: Mapping[str, Any], inputs: Sequence[Shape], output: Shape, where: str
    ) -> None:
        shape = wholes(params.get("shape"), 3, 1, MOST_CODES, f"{where}, shape")
        need(shape == output, f"{where}: expected the shape {output}, found {shape}")
        index = params.get("index")
        need(
            integers(index) and index.shape == (prod(output),),  # pyright: ignore
            f"{where}: expected an index of {prod(output)} places",
        )
        index = np.asarray(index)
        least = 0
        if "fill" in params:
            whole(params["fill"], 0, 255, f"{where}, fill")
            least = -1
        need(
            least <= int(index.min()) and int(index.max()) < prod(inputs[0]),
            f"{where}: an index outside the input",
        )

    def run(self, inputs: Sequence[np.ndarray], params: Mapping[str, Any]) -> np.ndarray:
        return rearrange(inputs[0], params)

    def lower(
        self, params: Mapping[str, Any], inputs: Sequence[Source], output: Shape
    ) -> list[Pass]:
        # A vector is written just as well in the loops of the image, in the order of ONNX.
        height, width, channels = inputs[0].shape
        flat = output == (1, 1, height * width * channels)
        return [
            Pass(
                loops=output,
                reads=(Read(moved=self.moved(params)),),
                unrolled=(channels, height, width) if flat else None,
                maximum=True,
            )
        ]

    def moved(self, params: Mapping[str, Any]) -> Moved:
        return Moved(index=np.asarray(params["index"]), fill=params.get("fill"))
