"""Packets of the load stream: a header of one beat, then items."""

import struct
from dataclasses import dataclass
from enum import IntEnum

MAGIC = 0x5250
"""The first two bytes of a packet: the letters PR."""

BEAT = 8
"""Bytes of a beat."""


class Kind(IntEnum):
    """Kinds of items in a packet."""

    #: Program words, each in whole beats.
    PROGRAM = 1
    #: Rows of cells, each in whole beats.
    CELLS = 2
    #: Activations, a byte each.
    ACTIVATIONS = 3


def packet(kind: int, count: int, items: bytes) -> bytes:
    """Put a header before items.

    Parameters
    ----------
    kind
        A :class:`Kind`.
    count
        Items.
    items
        Their bytes, as they go into beats.
    """
    return struct.pack("<HBBI", MAGIC, kind, 0, count) + items


@dataclass(frozen=True, kw_only=True)
class Image:
    """One program as the shell gets it.

    Attributes
    ----------
    program, cells
        Packets.
    input_bytes, output_bytes
        Activations that a run takes, outputs that it gives.
    config_hash
        The register CONFIG_HASH of the hardware that it was made for.
    """

    program: bytes
    cells: bytes
    input_bytes: int
    output_bytes: int
    config_hash: int
