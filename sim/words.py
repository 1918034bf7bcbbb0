"""Payloads of streams as 64-bit words: fields and lanes packed and taken apart, with numpy.

A struct is packed, its first field lowest.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Fields = Mapping[str, tuple[int, int]]
"""Fields of a payload: name to (offset, width), in bits."""


def pack(fields: Fields, **values: np.ndarray | int) -> np.ndarray:
    """Pack integers into payloads of up to 64 bits; negative ones in two's complement.

    Returns
    -------
    uint64, of the shape to which the values broadcast.
    """
    words = np.uint64(0)
    for name, value in values.items():
        offset, width = fields[name]
        field = np.asarray(value).astype(np.int64).view(np.uint64) & np.uint64((1 << width) - 1)
        words = words | (field << np.uint64(offset))
    return np.asarray(words)


def unpack(fields: Fields, word: int, signed: Iterable[str] = ()) -> dict[str, int]:
    """Take a payload apart."""
    values = {}
    for name, (offset, width) in fields.items():
        value = int(word) >> offset & ((1 << width) - 1)
        if name in signed and value >> (width - 1):
            value -= 1 << width
        values[name] = value
    return values


def words_of(bits: int) -> int:
    """64-bit words that hold a payload."""
    return -(-bits // 64)


def join(words: np.ndarray) -> list[int]:
    """Payloads from their 64-bit words [n, words], lowest first."""
    result = words[:, 0].tolist()
    for w in range(1, words.shape[1]):
        result = [
            low | high << 64 * w for low, high in zip(result, words[:, w].tolist(), strict=True)
        ]
    return result


def split(payloads: Sequence[int], words: int) -> np.ndarray:
    """64-bit words [n, words] of payloads, lowest first."""
    low = (1 << 64) - 1
    rows = [[payload >> 64 * w & low for w in range(words)] for payload in payloads]
    return np.array(rows, np.uint64).reshape(-1, words)


def pack_lanes(values: np.ndarray, width: int, *, offset: int = 0, words: int = 1) -> np.ndarray:
    """Pack the last axis into payloads, ``width`` bits each, first value at bit ``offset``.

    Returns
    -------
    uint64 [..., words].
    """
    packed = np.zeros((*values.shape[:-1], words), np.uint64)
    for lane in range(values.shape[-1]):
        value = values[..., lane].astype(np.uint64)
        word, bit = divmod(offset + lane * width, 64)
        packed[..., word] |= value << np.uint64(bit)
        if bit + width > 64:
            packed[..., word + 1] |= value >> np.uint64(64 - bit)
    return packed


def unpack_lanes(words: np.ndarray, width: int, lanes: int) -> np.ndarray:
    """Take payloads [..., words] apart into uint64 [..., lanes], ``width`` bits each."""
    values = np.empty((*words.shape[:-1], lanes), np.uint64)
    mask = np.uint64((1 << width) - 1)
    for lane in range(lanes):
        word, bit = divmod(lane * width, 64)
        value = words[..., word] >> np.uint64(bit)
        if bit + width > 64:
            value = value | words[..., word + 1] << np.uint64(64 - bit)
        values[..., lane] = value & mask
    return values
