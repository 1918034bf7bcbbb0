"""Encodings of tensors: the meaning of their codes, and their layout in memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]

MAX_CODE = 255

SIGNED_ZERO = 128
"""Zero point of a tensor with negative values."""


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """The meaning of one tensor's codes: ``value = (code - zero) * scale``.

    Attributes
    ----------
    shape
        (H, W, C) of one image; a vector is (1, 1, F).
    scale
        Real step of one code, above 0.
    zero
        Code of the value 0, 0 to 255.
    """

    shape: tuple[int, int, int]
    scale: float
    zero: int


def memory_shape(shape: Shape) -> tuple[int, int, int]:
    """(H, W, C) of the codes of a tensor that ONNX has as (C, H, W), (H, W) or (F,)."""
    if len(shape) == 1:
        return 1, 1, shape[0]
    if len(shape) == 2:
        return shape[0], shape[1], 1
    return shape[1], shape[2], shape[0]


def to_memory(x: NDArray) -> NDArray:
    """Reorder (N, C, H, W), (N, H, W) or (N, F) as codes lie: (N, H, W, C)."""
    if x.ndim == 4:
        return x.transpose(0, 2, 3, 1)
    return x.reshape(len(x), *memory_shape(x.shape[1:]))


def encode(x: NDArray, info: TensorInfo) -> NDArray[np.uint8]:
    """Codes of real values.

    Parameters
    ----------
    x
        Finite, in ONNX order, batch first: (N, C, H, W) or (N, F).
    info
        Scale and zero point.

    Returns
    -------
    uint8 (N, H, W, C), ``clip(floor(x / scale + 1/2) + zero, 0, 255)``.

    Raises
    ------
    ValueError
        The shape is not the tensor's.
    """
    x = to_memory(np.asarray(x, np.float64))
    if x.shape[1:] != info.shape:
        raise ValueError(f"expected values of shape (H, W, C) = {info.shape}, not {x.shape[1:]!r}")
    return np.clip(np.floor(x / info.scale + 0.5) + info.zero, 0, MAX_CODE).astype(np.uint8)


def decode(codes: NDArray[np.uint8], info: TensorInfo) -> NDArray[np.float64]:
    """Real values of codes, in the codes' shape: ``(code - zero) * scale``."""
    return (codes.astype(np.float64) - info.zero) * info.scale
