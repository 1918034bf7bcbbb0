"""Random numbers by counter: a draw depends on its key and its index alone."""

from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15

MASK = (1 << 64) - 1


def mix(z: NDArray[np.uint64], work: NDArray[np.uint64] | None = None) -> NDArray[np.uint64]:
    """Output function of SplitMix64, in place; ``work`` is as large."""
    work = np.empty_like(z) if work is None else work
    np.right_shift(z, np.uint64(30), out=work)
    z ^= work
    z *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(z, np.uint64(27), out=work)
    z ^= work
    z *= np.uint64(0x94D049BB133111EB)
    np.right_shift(z, np.uint64(31), out=work)
    z ^= work
    return z


def key_of(*parts: int) -> int:
    """The key of a kind of draws."""
    key = 0
    for part in parts:
        key = draw_word(key, part)
    return key


def draw_word(key: int, index: int) -> int:
    """One word of 64 random bits, in Python's integers: faster than an array of one."""
    z = (key + GOLDEN * (index + 1)) & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def draw_words(key: int, index: NDArray) -> NDArray[np.uint64]:
    """One word of 64 random bits for each index."""
    z = index.astype(np.uint64)
    z += np.uint64(1)
    z *= np.uint64(GOLDEN)
    z += np.uint64(key)
    return mix(z)


def normal(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Standard normal values by Box and Muller, one to a word."""
    radius = ((words >> np.uint64(32)).astype(np.float64) + 0.5) / 2**32
    angle = ((words & np.uint64(0xFFFFFFFF)).astype(np.float64) + 0.5) / 2**32
    return np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)


@lru_cache(maxsize=1)
def quantiles() -> NDArray[np.float64]:
    """Middles of 65,536 equally likely parts of the standard normal distribution, ascending."""
    inverse = NormalDist().inv_cdf
    upper = np.array([inverse(0.5 + (i + 0.5) / 65536) for i in range(32768)])
    return np.concatenate([-upper[::-1], upper])
