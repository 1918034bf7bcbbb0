"""Functions of single values, and products, on 8-bit codes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.fractions import fixed_point
from refmodel.network.graph import Function
from refmodel.program.tensors import MAX_CODE, TensorInfo

CUTS = 4096
"""Values of a range at which functions are looked at, for where they change."""


def affine_scale(lo: float, hi: float) -> tuple[float, int]:
    """Scale and zero point with all codes between two values, widened to hold 0.

    0 is a code: what is put around a tensor must be exact.
    """
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    scale = (hi - lo) / MAX_CODE or 1.0
    return scale, int(np.clip(np.floor(-lo / scale + 0.5), 0, MAX_CODE))


def changing_range(functions: list[Function], lo: float, hi: float) -> tuple[float, float]:
    """Cut a range at both ends where functions of it are flat, as a sigmoid is.

    What is cut off changes none of them by more than half a 255th of what it changes by in all, so
    that the codes of the range go to where they make a difference.
    """
    values = np.linspace(lo, hi, CUTS)
    first, last = CUTS - 1, 0
    for node in functions:
        with np.errstate(all="ignore"):
            found = node.term(values.reshape(-1, *(1 for _ in node.shape))).reshape(CUTS, -1)
        if not np.isfinite(found).all():
            return lo, hi
        near = np.ptp(found, axis=0) / (2 * MAX_CODE)
        for each, step in ((found, 1), (found[::-1], -1)):
            # What all values up to one differ by; the first that is too far ends what is cut off.
            reach = np.maximum.accumulate(each) - np.minimum.accumulate(each)
            flat = int((reach <= near).all(1).cumprod().sum())
            if step > 0:
                first = min(first, max(flat - 1, 0))
            else:
                last = max(last, CUTS - max(flat, 1))
    return (float(values[first]), float(values[last])) if first < last else (lo, hi)


def function_tables(
    node: Function, source: TensorInfo, info: TensorInfo, clip: tuple[int, int]
) -> NDArray[np.int64]:
    """Codes that a function makes of each code of its input.

    ``clip(floor(f((code - zero_in) * scale_in) / scale_out + 1/2) + zero_out, lo, hi)``. What is no
    number, as the logarithm of what is below 0, counts as 0.

    Returns
    -------
    int64 [tables, 256]; one table, or one to a channel where the function differs between them.
    """
    codes = (np.arange(MAX_CODE + 1) - source.zero) * source.scale
    with np.errstate(all="ignore"):
        values = node.term(codes.reshape(-1, *(1 for _ in node.shape)))
        values = values.reshape(MAX_CODE + 1, -1).T / info.scale
        reals = np.nan_to_num(values, nan=0.0, posinf=1e18, neginf=-1e18)
    found = np.floor(reals + 0.5) + info.zero
    return np.clip(found, *clip).astype(np.int64)


def product_params(
    inputs: list[TensorInfo], info: TensorInfo, clip: tuple[int, int]
) -> dict[str, Any]:
    """Parameters of the step ``multiply``."""
    multipliers, shift = fixed_point([inputs[0].scale * inputs[1].scale / info.scale])
    return {
        "zeros_in": [each.zero for each in inputs],
        "multiplier": int(multipliers[0]),
        "shift": shift,
        "zero_out": info.zero,
        "clip": list(clip),
    }
