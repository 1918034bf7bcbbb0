"""Parts that the two pools share: windows, and how their parameters are checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from refmodel.program.steps.base import Window
from refmodel.program.values import MOST_CODES, Shape, need, wholes


def windows(x: np.ndarray, params: Mapping[str, Any], fill: int) -> np.ndarray:
    """Windows [N, OH, OW, C, kh, kw] of x [N, H, W, C] with a border of ``fill``."""
    top, left, bottom, right = params["pads"]
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x, around, constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, tuple(params["kernel"]), axis=(1, 2))
    return view[:, :: params["stride"][0], :: params["stride"][1]]


def reduce_windows(operation: np.ufunc, view: np.ndarray) -> np.ndarray:
    """Reduce windows [..., kh, kw] by a ufunc, a pass over the images for each place in them."""
    result = np.array(view[..., 0, 0])
    for i, j in list(np.ndindex(*view.shape[-2:]))[1:]:
        operation(result, view[..., i, j], out=result)
    return result


def check_window(params: Mapping[str, Any], shape: Shape, output: Shape, where: str) -> None:
    """Check kernel, stride and pads, and the shape that they make of an input's."""
    kernel = wholes(params.get("kernel"), 2, 1, MOST_CODES, f"{where}, kernel")
    stride = wholes(params.get("stride"), 2, 1, MOST_CODES, f"{where}, stride")
    pads = wholes(params.get("pads"), 4, 0, MOST_CODES, f"{where}, pads")
    padded = shape[0] + pads[0] + pads[2], shape[1] + pads[1] + pads[3]
    need(padded[0] * padded[1] * shape[2] <= MOST_CODES, f"{where}: a border of too many codes")
    sizes = [(padded[axis] - kernel[axis]) // stride[axis] + 1 for axis in (0, 1)]
    need(min(sizes) >= 1, f"{where}: a kernel larger than the input")
    expected = sizes[0], sizes[1], shape[2]
    need(output == expected, f"{where}: expected the shape {expected}, found {output}")


def window_of(params: Mapping[str, Any]) -> Window:
    """Kernel, stride and border of a pool."""
    return Window(
        kernel=tuple(params["kernel"]),
        stride=tuple(params["stride"]),
        pads=tuple(params["pads"]),
    )
