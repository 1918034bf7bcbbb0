"""Frames of the serial line: what the two ends of it say to each other, in bytes.

A frame is a body and its CRC-32 (that of Ethernet and zlib, lowest byte first) between two bytes
:data:`END`. Within it, END and :data:`ESC` are sent as ESC and the byte with the bit :data:`FLIP`
changed. A byte that is lost, doubled or wrong spoils one frame, or two where an END is; the next
END is the beginning of what is heard again.

The host asks and the board answers. The body of a question is :data:`ASK`: kind, session, number,
place, value; of STREAM a part of a packet follows. The body of an answer is :data:`REPLY`: kind,
session and number of the question, flags, how many bytes of the stream have come (modulo 65536), up
to which the board has room for them, and a value; of OUTPUT bytes and a :class:`Mark` follow.
"""

import struct
import zlib
from enum import IntEnum, IntFlag

END = 0xC0
"""Byte at the beginning and at the end of a frame."""

ESC = 0xDB
"""Byte before one that has another meaning."""

FLIP = 0x20
"""Bit that a byte after ESC has changed."""

PROTOCOL = 1
"""Version of the frames."""

ASK = struct.Struct("<BBBHI")
"""Head of a question."""

REPLY = struct.Struct("<BBBBHHI")
"""Head of an answer."""

MOST_DATA = 240
"""Bytes of a packet in a frame."""

MOST_OUTPUT = 240
"""Outputs in a frame."""

POSITIONS = 1 << 16
"""Positions in the stream count modulo this."""


class Ask(IntEnum):
    """Kinds of questions, and of their answers."""

    #: Begin a session: its number becomes the board's, buffers are emptied, positions are 0. The
    #: answer's value has :data:`PROTOCOL` in the top byte, below it the clock in kHz.
    HELLO = 1
    #: Bytes of a packet for the shell. ``place`` is their position in the stream; bytes of another
    #: than the next one are not taken. ``value`` is 1 where the packet ends with them.
    STREAM = 2
    #: Write ``value`` to the register at ``place``, once: a number that was written is not again.
    WRITE = 3
    #: Read the register at ``place``.
    READ = 4
    #: Wait until the interrupt is high, at most ``value`` cycles; another question ends it, too.
    WAIT = 5
    #: Forget all outputs; their positions begin with 0 again.
    ARM = 6
    #: Outputs from the position ``place`` on, at most the low byte of ``value``; those before it
    #: are forgotten. The answer's value is the position of the first.
    OUTPUT = 7


class Flag(IntFlag):
    """Flags of an answer."""

    #: The interrupt is high.
    IRQ = 1
    #: The register access was answered by an error.
    REFUSED = 2


class Mark(IntFlag):
    """Last byte of an answer to OUTPUT."""

    #: The last output is the last one of its packet.
    LAST = 1
    #: The packet is bad.
    BAD = 2


def frame(body: bytes) -> bytes:
    """Put the body of a frame between its ends, with its CRC."""
    whole = body + zlib.crc32(body).to_bytes(4, "little")
    whole = whole.replace(bytes([ESC]), bytes([ESC, ESC ^ FLIP]))
    whole = whole.replace(bytes([END]), bytes([ESC, END ^ FLIP]))
    return bytes([END]) + whole + bytes([END])


class Frames:
    """Bodies of the frames in what a line gives, byte by byte.

    Attributes
    ----------
    bad
        Frames that were dropped so far: too short, or with a wrong CRC.
    """

    def __init__(self) -> None:
        self.bad = 0
        self._raw = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; returns the bodies of the frames that end with them."""
        *ended, rest = (self._raw + data).split(bytes([END]))
        self._raw = bytearray(rest)
        bodies = []
        for raw in ended:
            if not raw:
                continue
            body = _body(bytes(raw))
            if body is None:
                self.bad += 1
            else:
                bodies.append(body)
        return bodies


def _body(raw: bytes) -> bytes | None:
    """What is between two ends as a body; None where it is not whole."""
    parts = raw.split(bytes([ESC]))
    # An empty part after the first: ESC stands before ESC, or at the end.
    if not all(parts[1:]):
        return None
    whole = parts[0] + b"".join(bytes([part[0] ^ FLIP]) + part[1:] for part in parts[1:])
    if len(whole) < 4 or zlib.crc32(whole[:-4]).to_bytes(4, "little") != whole[-4:]:
        return None
    return whole[:-4]
