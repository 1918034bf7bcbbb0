"""Damage to files of TensorFlow Lite, of preprocessing and of pictures; and all strategies."""

import copy
import io
import json
import struct
import zlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from PIL import Image

from tests.fuzz import damage
from tests.fuzz.damage import INTEGERS, NUMBERS, TEXTS, File, damaged_bytes
from tests.support.nets import tflite_files


@cache
def tflite_networks() -> tuple[tflite_files.Net, ...]:
    """Small networks with all operations."""
    small = (tflite_files.resnet8(8, 4), tflite_files.autoencoder(16, 4))
    return (tflite_files.others(), *small)


@cache
def tflite_contents() -> tuple[bytes, ...]:
    """Their files."""
    return tuple(copy.deepcopy(net).file() for net in tflite_networks())


def _hostile(draw: DrawFn, value: Any) -> Any:
    """Give another value in the place of one that a tensor, operation or table has."""
    if isinstance(value, np.ndarray):
        numbers = NUMBERS if value.dtype.kind == "f" else (0, 1, -1, 127, -128, 200, 1 << 40)
        count = draw(st.sampled_from([len(value), 0, 1, 3]))
        found = [draw(st.sampled_from(numbers)) for _ in range(count)]
        with np.errstate(over="ignore"):
            return np.array(found).astype(value.dtype)
    if isinstance(value, str):
        return draw(st.sampled_from((*TEXTS[:6], "ADD", "MEAN", "RESHAPE", "COS", "custom x")))
    if isinstance(value, list | tuple):
        found = list(value)
        if found and draw(st.booleans()):
            at = draw(st.integers(0, len(found) - 1))
            found[at] = draw(st.sampled_from([0, 1, -1, 2, 5, 1 << 20, (1 << 31) - 1]))
            return found
        return [*found[: draw(st.integers(0, len(found)))], draw(st.integers(-1, 30))]
    if value is None:
        return draw(st.sampled_from([None, np.ones(1, np.float32), "AddOptions"]))
    return draw(st.sampled_from([each for each in INTEGERS if -(1 << 31) <= each < 1 << 31]))


@st.composite
def damaged_tflite(draw: DrawFn) -> bytes:
    """A damaged file of TensorFlow Lite."""
    contents = tflite_contents()
    number = draw(st.integers(0, len(contents) - 1))
    if draw(st.booleans()):
        return draw(damaged_bytes(contents[number], contents[number - 1]))
    net = copy.deepcopy(tflite_networks()[number])
    inputs, outputs = [net.first], [net.at]
    for _ in range(draw(st.integers(1, 3))):
        part = draw(st.sampled_from(["tensor", "tensor", "operation", "option", "ends"]))
        if part == "ends":
            inputs = _hostile(draw, inputs)
            outputs = _hostile(draw, outputs)
            continue
        owner = draw(st.sampled_from(net.tensors if part == "tensor" else net.operations))
        owner = owner["options"] if part == "option" else owner
        keys = sorted(key for key in owner if key not in ("options", "NewShape"))
        if keys:
            key = draw(st.sampled_from(keys))
            owner[key] = _hostile(draw, owner[key])
    try:
        return net.content(inputs, outputs)
    except Exception:  # what the format cannot hold
        return contents[number][: draw(st.integers(0, 200))]


_PREPROCESSING: Mapping[str, Any] = {
    "mean": [0.5, 0.4, 0.3],
    "std": 0.25,
    "scale": 0.5,
    "layout": "nhwc",
    "resize": 32,
    "crop": 24,
}


def _toml(value: Any) -> str:
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(value), repr(value))
    return json.dumps(value)


@st.composite
def damaged_preprocessing(draw: DrawFn) -> bytes:
    """A damaged file of preprocessing, TOML or JSON."""
    values = dict(_PREPROCESSING)
    kind = draw(st.sampled_from(["fields", "fields", "bytes", "deep", "long"]))
    as_json = draw(st.booleans())
    if kind == "deep":
        depth = draw(st.sampled_from([10, 100, 1000, 30_000]))
        opened = "[" * depth + "]" * depth
        named = "mean" + ".a" * depth + " = 1\n"
        return (f'{{"mean": {opened}}}' if as_json else f"mean = {opened}\n{named}").encode()
    if kind == "long":
        return b"mean = [" + b"1," * draw(st.sampled_from([10, 20_000, 100_000])) + b"]\n"
    if kind == "fields":
        for _ in range(draw(st.integers(1, 3))):
            key = draw(st.sampled_from([*values, "other", "mean"]))
            hostile = (*INTEGERS, *NUMBERS, *TEXTS, [], [[]], [True], {}, True)
            values[key] = draw(st.sampled_from(hostile))
    text = json.dumps(values) if as_json else ""
    if not as_json:
        text = "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())
    content = text.encode("utf-8", "surrogatepass")
    return draw(damaged_bytes(content, content)) if kind == "bytes" else content


@cache
def picture_contents() -> tuple[bytes, ...]:
    """Small pictures of all kinds."""
    pixels = np.random.default_rng(5).integers(0, 256, (20, 24, 3), np.uint8)
    kinds = [("L", "PNG"), ("RGB", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("1", "PNG")]
    kinds += [("L", "JPEG"), ("RGB", "JPEG"), ("CMYK", "JPEG")]
    found = []
    for mode, kind in kinds:
        stream = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(stream, kind)
        found.append(stream.getvalue())
    return tuple(found)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def _packed(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


@st.composite
def damaged_picture(draw: DrawFn) -> bytes:
    """A damaged picture, or one of sizes that no memory holds."""
    contents = picture_contents()
    number = draw(st.integers(0, len(contents) - 1))
    if draw(st.integers(0, 3)):
        return draw(damaged_bytes(contents[number], contents[number - 1]))
    sides = st.sampled_from([0, 1, 8, 4000, 8192, 8193, 65_536, 1 << 20, (1 << 31) - 1])
    depth, colour = draw(st.sampled_from([(8, 0), (8, 2), (16, 0), (1, 3), (16, 6), (9, 9)]))
    head = struct.pack(">2I5B", draw(sides), draw(sides), depth, colour, 0, 0, 0)
    text = _chunk(b"zTXt", b"a\0\0" + _packed(1 << 27)) if draw(st.booleans()) else b""
    data = _chunk(b"IDAT", _packed(draw(st.sampled_from([10, 1 << 20]))))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + text + data + _chunk(b"IEND", b"")


STRATEGIES: Mapping[str, st.SearchStrategy[File]] = {
    **damage.STRATEGIES,
    "tflite": damaged_tflite().map(File),
    "preprocess": damaged_preprocessing().map(File),
    "picture": damaged_picture().map(File),
}
"""What is damaged: kind of file to strategy."""


def make_corpus() -> None:
    """Make what damage is done to, which takes a second and is kept."""
    damage.make_corpus()
    tflite_contents()
    picture_contents()
