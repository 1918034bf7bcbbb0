"""Multipliers of 15 bits with a shift in common, in the place of real ratios."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

MAX_MULTIPLIER = 32767

MAX_SHIFT = 47
"""Limits of M and s in ``M / 2**s``."""


def fixed_point(ratios: Iterable[float] | NDArray) -> tuple[NDArray[np.int64], int]:
    """Multipliers M and their common shift s with ``M / 2**s`` close to ``ratios``.

    s is the largest of 0 to 47 at which every ``floor(ratio * 2**s + 1/2)`` is at most 32767, so
    that the largest ratio keeps 15 bits: 1 gives M = 16384, s = 14. A ratio above 32767 is taken as
    32767; a code differs from its zero point by 0 or at least 1, so that either saturates.

    Parameters
    ----------
    ratios
        Any shape, at least 0 and finite.
    """
    values = np.asarray(ratios, np.float64)
    for shift in range(MAX_SHIFT, -1, -1):
        multipliers = np.floor(np.ldexp(values, shift) + 0.5)
        if multipliers.max() <= MAX_MULTIPLIER:
            return multipliers.astype(np.int64), shift
    return np.minimum(np.floor(values + 0.5), MAX_MULTIPLIER).astype(np.int64), 0
