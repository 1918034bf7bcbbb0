"""Confidence intervals of means of few values, by Student's distribution."""

import math
from collections.abc import Sequence
from functools import lru_cache

CONFIDENCE = 0.95


@lru_cache
def quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Give the t within which the confidence lies, for so many degrees of freedom.

    The integral of the density, by t = sqrt(freedom) tan(angle), is that of a power of a cosine;
    it is found by Simpson's rule, and the angle by bisection.
    """
    if freedom < 1:
        raise ValueError(f"freedom must be at least 1, not {freedom!r}")
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)

    def within(angle: float, steps: int = 400) -> float:
        width = angle / steps
        ends = 1.0 + math.cos(angle) ** (freedom - 1)
        inner = sum(
            (4 if step % 2 else 2) * math.cos(step * width) ** (freedom - 1)
            for step in range(1, steps)
        )
        return 2 * scale * width / 3 * (ends + inner)

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def half_width(values: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """Give by how much the mean of normal values may be off, either way; None of one value."""
    count = len(values)
    if count < 2:
        return None
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return quantile(count - 1, confidence) * math.sqrt(variance / count)
