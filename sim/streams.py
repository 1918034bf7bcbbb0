"""Ends of stream ports in a cocotb bench: sources, sinks and fields of payloads.

A stream ``x`` has the ports ``x__valid``, ``x__ready`` and ``x__payload`` (a struct is packed, its
first field lowest). Ports are read right after a rising edge, where they still have the values that
the edge has seen, and written there, which shows after it.
"""

import random
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from cocotb.handle import LogicArrayObject, LogicObject
from cocotb.triggers import RisingEdge

Fields = Mapping[str, tuple[int, int]]
"""Fields of a payload: name to (offset, width), in bits."""


class Driver:
    """The source of a stream.

    Parameters
    ----------
    dut
        The bench.
    name
        Name of the stream.
    stall
        Probability of a pause in a cycle in which an item could be offered.
    """

    def __init__(self, dut, name: str, *, stall: float = 0.0, separator: str = "__"):
        self.clk: LogicObject = dut.clk
        self.valid: LogicObject = getattr(dut, f"{name}{separator}valid")
        self.ready: LogicObject = getattr(dut, f"{name}{separator}ready")
        self.payload: LogicArrayObject = getattr(dut, f"{name}{separator}payload")
        self.stall = stall
        self.valid.value = 0
        self.payload.value = 0

    async def send(self, payloads: Iterable[int], wait: random.Random) -> None:
        """Send items; returns when the last one was accepted."""
        edge = RisingEdge(self.clk)
        offered = False
        for payload in payloads:
            while self.stall and wait.random() < self.stall:
                if offered:
                    self.valid.value = 0
                    offered = False
                await edge
            self.payload.value = payload
            if not offered:
                self.valid.value = 1
                offered = True
            await edge
            while not self.ready.value:
                await edge
        self.valid.value = 0


async def pausing_sink(
    clk: LogicObject, ready: LogicObject, stall: float, wait: random.Random
) -> None:
    """Take items, but not in a share ``stall`` of the cycles. Runs until it is cancelled."""
    edge = RisingEdge(clk)
    while True:
        ready.value = wait.random() >= stall
        await edge


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
