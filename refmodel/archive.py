"""Zips of plain arrays, read so that no file can ask for more memory than it is worth.

A damaged or hostile file says sizes that it does not have, or unpacks to a thousand times its own.
Here nothing is unpacked or allocated before its size is known and allowed.
"""

import io
import json
import re
import struct
import zipfile
import zlib
from math import prod
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

UNPACKED = 256 << 20
"""Bytes that any file may unpack to."""

RATIO = 8
"""A larger file may unpack to this many times its own size."""

_CHUNK = 1 << 20

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    KeyError,
    ValueError,
    OSError,
    EOFError,
    RuntimeError,  # an encrypted member; NotImplementedError is one too
    OverflowError,
)

_DESCR = re.compile(r"['\"]descr['\"]\s*:\s*['\"]([<>|=]?[biufc?]\d{0,2})['\"]")
_ORDER = re.compile(r"['\"]fortran_order['\"]\s*:\s*(True|False)")
# One run of a class of characters: nested repetition would try every way to cut a number in two.
_SHAPE = re.compile(r"['\"]shape['\"]\s*:\s*\(([\d\sL,]*)\)")


class DamagedError(Exception):
    """A file is not what it should be; the message says what is wrong, in one line."""


def limit(size: int) -> int:
    """Bytes that a file of ``size`` bytes may unpack to."""
    return max(UNPACKED, RATIO * size)


def gunzip(content: bytes) -> bytes:
    """Unpack a gzip file of one or more members.

    Raises
    ------
    DamagedError
        It is truncated, damaged, or unpacks to more than :func:`limit`.
    """
    parts, most, found = [], limit(len(content)), 0
    rest = content
    try:
        while rest[:2] == b"\x1f\x8b":
            unpack = zlib.decompressobj(31)
            data = rest
            while not unpack.eof:
                part = unpack.decompress(data, _CHUNK)
                data = unpack.unconsumed_tail
                if not part and not data and not unpack.eof:
                    raise DamagedError("Compressed file ended before its end")
                parts.append(part)
                found += len(part)
                if found > most:
                    raise DamagedError(f"more than {most} bytes in {len(content)} packed ones")
            rest = unpack.unused_data
    except zlib.error as error:
        raise DamagedError(str(error)) from None
    if rest.strip(b"\0"):
        raise DamagedError("something else behind the packed bytes")
    return b"".join(parts)


class Archive:
    """A zip of ``.npy`` arrays and other members.

    Parameters
    ----------
    content
        The whole file.

    Raises
    ------
    DamagedError
        It is no zip, or its members together are larger than :func:`limit` allows. The methods
        raise it for what is wrong with one member.
    """

    def __init__(self, content: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
            members = self._zip.infolist()
        except _DAMAGED as error:
            raise DamagedError(_line(error)) from None
        self._members = {member.filename: member for member in members}
        total = sum(member.file_size for member in members)
        if total > limit(len(content)):
            raise DamagedError(f"{total} bytes in a zip of {len(content)}")
        if len(self._members) != len(members):
            raise DamagedError("two members of the same name")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(self._members)

    def _open(self, name: str) -> IO[bytes]:
        member = self._members[name]
        # Others can unpack a few bytes to any number before their size can be checked.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DamagedError(f"an unknown compression of {name}")
        return self._zip.open(member)

    def read(self, name: str) -> bytes:
        """Content of a member."""
        try:
            with self._open(name) as stream:
                parts = list(iter(lambda: stream.read(_CHUNK), b""))
        except _DAMAGED as error:
            raise DamagedError(_line(error)) from None
        return b"".join(parts)

    def array(self, name: str) -> NDArray:
        """Array of a member: numbers of a plain type, native byte order, in C order."""
        try:
            with self._open(name) as stream:
                return _npy(stream, self._members[name].file_size)
        except _DAMAGED as error:
            raise DamagedError(_line(error)) from None


def npy(content: bytes) -> NDArray:
    """Array of the content of an ``.npy`` file: numbers of a plain type, as in an archive.

    Raises
    ------
    DamagedError
        It is no such file, or its header says another size than it has.
    """
    try:
        return _npy(io.BytesIO(content), len(content))
    except _DAMAGED as error:
        raise DamagedError(_line(error)) from None


def plain_json(text: bytes) -> Any:
    """Read JSON that is not nested deeper than a header is; ValueError otherwise."""
    depth = deepest = 0
    for byte in re.findall(rb"[\[{\]}]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", text)):
        depth += 1 if byte in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > 50:
        raise ValueError("nested too deep")
    return json.loads(text)


def _line(error: Exception) -> str:
    # Some messages of zipfile quote what they found, be it the whole file.
    lines = str(error)[:1000].splitlines()
    return lines[0][:120] if lines else type(error).__name__


def _npy(stream: IO[bytes], size: int) -> NDArray:
    """Read an array; its header must say exactly the ``size`` bytes that there are."""
    head = stream.read(10)
    if len(head) < 10 or head[:6] != b"\x93NUMPY" or head[6] not in (1, 2, 3):
        raise ValueError("no array where one should be")
    length, used = struct.unpack("<H", head[8:])[0], 10
    if head[6] > 1:
        length, used = struct.unpack("<I", head[8:] + stream.read(2))[0], 12
    text = stream.read(min(length, 10_000)).decode("latin-1")
    used += length
    descr, order, shape = (each.search(text) for each in (_DESCR, _ORDER, _SHAPE))
    if descr is None and re.search(r"['\"]descr['\"]\s*:\s*['\"][<>|=]?O", text):
        raise ValueError("Object arrays cannot be loaded")
    if descr is None or order is None or shape is None or len(text) != length:
        raise ValueError(f"an array that is not of plain numbers: {text.strip()[:80]}")
    try:
        dtype = np.dtype(descr[1])
    except TypeError:
        raise ValueError(f"an array of an unknown type: {descr[1]}") from None
    sizes = tuple(int(number) for number in re.findall(r"\d+", shape[1]))
    if len(sizes) > 32 or prod(sizes) * dtype.itemsize != size - used or not prod(sizes):
        if len(sizes) <= 32 and size == used and 0 in sizes and max(sizes) < 1 << 31:
            return np.zeros(sizes, dtype.newbyteorder("="))
        raise ValueError(f"{size - used} bytes for an array of {text.strip()[:80]}")
    result = np.empty(prod(sizes), dtype)
    view, filled = result.view(np.uint8), 0
    while part := stream.read(_CHUNK):
        view[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
    if filled != len(view):
        raise EOFError("the end of the file inside an array")
    result = result.reshape(sizes, order="F" if order[1] == "True" else "C")
    return np.ascontiguousarray(result, dtype.newbyteorder("=")).reshape(sizes)
