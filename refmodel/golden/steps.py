"""Steps on codes between layers: pools, additions, clips, concatenations, moves."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from refmodel.golden.layer import divide


def _windows(x: np.ndarray, params: Mapping[str, Any], fill: int) -> np.ndarray:
    """Windows [N, OH, OW, C, kh, kw] of x [N, H, W, C] with a border of ``fill``."""
    top, left, bottom, right = params["pads"]
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x, around, constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, tuple(params["kernel"]), axis=(1, 2))
    return view[:, :: params["stride"][0], :: params["stride"][1]]


def _reduce(operation: np.ufunc, view: np.ndarray) -> np.ndarray:
    """Reduce windows [..., kh, kw] by a ufunc, a pass over the images for each place in them."""
    result = np.array(view[..., 0, 0])
    for i, j in list(np.ndindex(*view.shape[-2:]))[1:]:
        operation(result, view[..., i, j], out=result)
    return result


def max_pool(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """Largest code of each window; the border never wins, since no code is below 0."""
    return _reduce(np.maximum, _windows(codes, params, 0))


def average_pool(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """``clip(floor(sum(code - zero_in) * M / 2^s + 1/2) + zero_out, 0, 255)`` of each window.

    The border adds 0. M is a number, or an array [OH, OW].
    """
    values = codes.astype(np.int32) - np.int32(params["zero_in"])
    sums = _reduce(np.add, _windows(values, params, 0)).astype(np.int64)
    multiplier = np.asarray(params["multiplier"], np.int64)
    if multiplier.ndim:
        multiplier = multiplier[:, :, None]
    result = divide(sums * multiplier, params["shift"]) + params["zero_out"]
    return np.clip(result, 0, 255).astype(np.uint8)


def add(a: np.ndarray, b: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """``clip(floor(((a - za) * Ma + (b - zb) * Mb) / 2^s + 1/2) + zero_out, lo, hi)``."""
    # There are 256 codes: the share of each is worked out once.
    first, second = (
        (np.arange(256) - zero) * multiplier
        for zero, multiplier in zip(params["zeros_in"], params["multipliers"], strict=True)
    )
    total = divide(first[a] + second[b], params["shift"]) + params["zero_out"]
    return np.clip(total, *params["clip"]).astype(np.uint8)


def clip(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """Limit codes to ``lo`` .. ``hi``."""
    return np.clip(codes, params["lo"], params["hi"])


def rearrange(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """Move values about: value i of the output, flat, is value ``index[i]`` of the input.

    Where the index is -1, it is ``fill``.
    """
    index = np.asarray(params["index"])
    flat = codes.reshape(len(codes), -1).take(index, axis=1)
    if "fill" in params:
        flat[:, index < 0] = params["fill"]
    return flat.reshape(len(codes), *params["shape"])


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
