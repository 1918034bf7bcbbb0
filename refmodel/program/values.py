"""Values that were read from a file: whether they are whole and in range."""

from typing import Any

import numpy as np

from refmodel.errors import InputError

MOST_CODES = 1 << 24
"""Codes of the largest tensor, borders included: no engine's activation buffer is larger."""

Shape = tuple[int, int, int]


def need(condition: Any, what: str) -> None:
    """Raise InputError unless ``condition`` holds."""
    if not condition:
        raise InputError(what)


def whole(value: Any, low: int, high: int, what: str) -> int:
    """A whole number within limits; InputError otherwise."""
    plain = isinstance(value, int) and not isinstance(value, bool)
    need(plain and low <= value <= high, f"{what}: expected {low} to {high}, found {short(value)}")
    return value


def wholes(value: Any, count: int, low: int, high: int, what: str) -> tuple[int, ...]:
    """As many whole numbers within limits."""
    plain = isinstance(value, list | tuple) and len(value) == count
    need(plain, f"{what}: expected {count} numbers, found {short(value)}")
    return tuple(whole(each, low, high, what) for each in value)


def check_limits(low: int, high: int, where: str) -> None:
    """Check that limits of codes are in order."""
    need(low <= high, f"{where}: limits {low} to {high}")


def integers(value: Any) -> bool:
    """Whether a value is an int64 array."""
    return isinstance(value, np.ndarray) and value.dtype == np.int64


def short(value: Any) -> str:
    """Give a value as text of at most 80 characters, for a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
