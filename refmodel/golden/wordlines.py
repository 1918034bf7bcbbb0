"""What lies on the wordlines of gathers, packed: a word to each input digit."""

import numpy as np
from numpy.typing import NDArray

ROWS = 8
"""Rows of a gather that one word holds, with 1-bit digits."""

_SWAPS = (
    (7, 0x00AA00AA00AA00AA),
    (14, 0x0000CCCC0000CCCC),
    (28, 0x00000000F0F0F0F0),
)


def packed_digits(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn codes of the rows of a gather into the bits on its wordlines, digit by digit.

    Eight codes of eight bits are a matrix of bits, which is transposed (Warren: Hacker's Delight,
    2nd edition, section 7-3).

    Parameters
    ----------
    codes
        uint8 [..., 8], codes of eight rows, contiguous.

    Returns
    -------
    uint8 [..., 8]: bit r of value d is bit d of the code of row r.
    """
    words = codes.astype(np.uint8, copy=False).view("<u8")[..., 0].astype(np.uint64)
    work = np.empty_like(words)
    for shift, mask in _SWAPS:
        by = np.uint64(shift)
        np.right_shift(words, by, out=work)
        work ^= words
        work &= np.uint64(mask)
        words ^= work
        np.left_shift(work, by, out=work)
        words ^= work
    return words.astype("<u8", copy=False)[..., None].view(np.uint8)


def unpacked(inputs: NDArray[np.integer], rows: int) -> NDArray[np.float32]:
    """Turn words [digits, n] of 1-bit digits into the digits of some rows, [rows, digits * n]."""
    bits = inputs.ravel() >> np.arange(rows)[:, None] & 1
    return bits.astype(np.float32)
