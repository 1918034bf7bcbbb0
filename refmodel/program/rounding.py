"""Division by a power of two, as all requantisation does it."""

import numpy as np


def divide(value: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    """``floor(value / 2^shift + 1/2)`` of int64 values, exact."""
    shift = np.asarray(shift, np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    return (value + half) >> shift
