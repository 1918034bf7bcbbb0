"""Hypothesis strategies of damaged files, made from the packaged networks and from small ones.

A file is damaged on one of three levels: its bytes (flipped, cut, repeated, overwritten, spliced
with another file), its fields (any field of the protobuf message, of the zip and its arrays, or of
the program's header, set to a hostile value, with checksums made right again), or its meaning
(huge sizes, zip bombs, cycles, deep chains, NaN scales, references that lead nowhere).
"""

import base64
import copy
import gzip
import io
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from onnx import TensorProto, helper, numpy_helper

from refmodel import digits
from refmodel.compression.compile import compile_network
from refmodel.compression.quantize import quantize
from refmodel.exchange.onnx.export import to_onnx
from refmodel.exchange.onnx.load import load_onnx
from refmodel.program.program import _digest
from tests.support.nets.onnx_nets import (
    conditions_and_statistics,
    floats,
    network,
    node,
    several_operands,
    small_cnn,
)
from tests.support.nets.tuned_nets import tuned_network

INTEGERS = (
    *(0, 1, -1, 2, 3, 7, 8, 255, 256, 65535, 1 << 20, 100_000_000),
    *((1 << 31) - 1, 1 << 31, -(1 << 31), 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63)),
)
NUMBERS = (
    0.0,
    -0.0,
    1e-45,
    1e-300,
    1.0,
    -1.0,
    1e38,
    1e300,
    float("inf"),
    -float("inf"),
    float("nan"),
)
TEXTS = (
    "",
    "x",
    "y",
    "Conv",
    "Identity",
    "../../etc/passwd",
    "a" * 1000,
    "\x00",
    "é",
    "ai.onnx.ml",
)


# Bytes


@st.composite
def damaged_bytes(draw: DrawFn, content: bytes, other: bytes) -> bytes:
    """Damage the bytes of a file; ``other`` is spliced into it."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        size = len(data)
        if not size:
            break
        at = draw(st.integers(0, size - 1))
        length = draw(st.integers(1, 1 << draw(st.integers(0, 12))))
        kind = draw(st.sampled_from(["flip", "set", "cut", "delete", "repeat", "splice", "head"]))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at : at + min(length, 10)] = bytes([draw(st.sampled_from([0, 1, 127, 128, 255]))])
        elif kind == "cut":
            del data[at:]
        elif kind == "delete":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        elif kind == "splice":
            start = draw(st.integers(0, len(other) - 1))
            data[at : at + draw(st.sampled_from([0, length]))] = other[start : start + length]
        else:  # the first bytes, where lengths and kinds stand
            place = draw(st.integers(0, min(size - 1, 63)))
            data[place] = draw(st.integers(0, 255))
    return bytes(data)


# Networks


def _operators() -> onnx.ModelProto:
    """A network with many of the operators that only move values, and constants to work out."""
    constants = {
        "w": floats(1, 4, 2, 3, 3),
        "lo": np.float32(0),
        "hi": np.float32(6),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "starts": np.array([0]),
        "ends": np.array([4]),
        "axes": np.array([2]),
        "steps": np.array([2]),
        "shape": np.array([2, 2]),
        "perm": np.array([0, -1]),
        "w2": floats(2, 100, 5),
    }
    nodes = [
        node("Pad", "x pads", "p"),
        node("Conv", "p w", "c"),
        node("Clip", "c lo hi", "r"),
        node("Identity", "r", "i"),
        node("Transpose", "i", "t", perm=[0, 2, 3, 1]),
        node("Reshape", "t perm", "f"),
        node("ConstantOfShape", "shape", "k"),
        node("MatMul", "f w2", "m"),
        node("Softmax", "m", "y"),
    ]
    return network(nodes, constants, ("N", 2, 5, 5))


def _quantised() -> onnx.ModelProto:
    """A network of QuantizeLinear and DequantizeLinear."""
    constants = {
        "xs": np.float32(0.05),
        "xz": np.uint8(3),
        "wq": np.clip(floats(3, 4, 2, 3, 3) * 40, -127, 127).astype(np.int8),
        "ws": np.float32(0.02),
        "wz": np.int8(0),
        "ys": np.float32(0.1),
        "yz": np.uint8(0),
        "w2": floats(4, 36, 5),
    }
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("DequantizeLinear", "q xs xz", "d"),
        node("DequantizeLinear", "wq ws wz", "w"),
        node("Conv", "d w", "c"),
        node("Relu", "c", "r"),
        node("QuantizeLinear", "r ys yz", "rq"),
        node("DequantizeLinear", "rq ys yz", "rd"),
        node("Flatten", "rd", "f"),
        node("Gemm", "f w2", "y"),
    ]
    return network(nodes, constants, ("N", 2, 5, 5))


@cache
def networks() -> tuple[onnx.ModelProto, ...]:
    """The networks that are damaged."""
    packaged = [onnx.load(str(digits.network_path(kind))) for kind in ("float", "prap")]
    several = several_operands(), conditions_and_statistics()
    return (*packaged, small_cnn(0), *several, _operators(), _quantised(), *_tuned())


@cache
def _tuned() -> tuple[onnx.ModelProto, ...]:
    """Networks that carry the mappings that they were tuned for."""
    with tempfile.TemporaryDirectory() as folder:
        return tuple(
            to_onnx(tuned_network(Path(folder), scheme)) for scheme in ("prap", "dictionary", "orc")
        )


@st.composite
def damaged_mappings(draw: DrawFn) -> bytes:
    """A network whose mappings are damaged, packed so that they are read all the same."""
    model = copy.deepcopy(draw(st.sampled_from(_tuned())))
    (entry,) = model.metadata_props
    content = base64.b64decode(entry.value)
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        members = {name: source.read(name) for name in source.namelist()}
    kind = draw(st.sampled_from(["bytes", "zip", "header", "array", "array", "array"]))
    if kind == "bytes":
        content = draw(damaged_bytes(content, content))
    elif kind == "zip":
        content = draw(damaged_zip(members))
    else:
        for _ in range(draw(st.integers(1, 3))):
            name = draw(st.sampled_from(sorted(members)))
            if kind == "header" or not name.endswith(".npy"):
                header = json.loads(members["header.json"])
                path = draw(st.sampled_from(_places(header)))
                target: Any = header
                for key in path[:-1]:
                    target = target[key]
                target[path[-1]] = draw(st.sampled_from(_VALUES))
                members["header.json"] = json.dumps(header).encode()
            elif draw(st.integers(0, 5)):
                array = np.lib.format.read_array(io.BytesIO(members[name]))
                members[name] = draw(damaged_array(array))
            else:
                del members[name]
            if "header.json" not in members or len(members) < 2:
                break
            if kind == "array" and not _readable(members):
                break
        content = archive(members)
    entry.value = base64.b64encode(content).decode()
    return model.SerializeToString()


def _readable(members: Mapping[str, bytes]) -> bool:
    """Whether all arrays can still be read, so that more damage can be done to them."""
    try:
        for name, content in members.items():
            if name.endswith(".npy"):
                np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception:
        return False
    return True


@cache
def network_files() -> tuple[bytes, ...]:
    """The same as files."""
    return tuple(model.SerializeToString() for model in networks())


def _messages(message: Any) -> list[Any]:
    """All protobuf messages in one, itself first."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            values = value if field.is_repeated else [value]
            for each in values:
                found += _messages(each)
    return found


def _hostile(draw: DrawFn, field: Any, names: list[str]) -> Any:
    """A value for a field, of its type."""
    kind = field.cpp_type
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return draw(st.sampled_from(NUMBERS))
    if kind == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            return draw(st.binary(max_size=40))
        return draw(st.sampled_from([*names, *TEXTS]))
    if kind == field.CPPTYPE_ENUM:
        return draw(st.sampled_from([value.number for value in field.enum_type.values]))
    value = draw(st.sampled_from(INTEGERS))
    if kind == field.CPPTYPE_INT32:
        return (value + (1 << 31)) % (1 << 32) - (1 << 31)
    return value % (1 << 64) if kind == field.CPPTYPE_UINT64 else value


@st.composite
def damaged_fields(draw: DrawFn, model: onnx.ModelProto) -> bytes:
    """Set, delete, repeat or swap fields anywhere in the message."""
    model = copy.deepcopy(model)
    names = sorted({name for each in model.graph.node for name in (*each.input, *each.output)})
    names += [each.op_type for each in model.graph.node]
    for _ in range(draw(st.integers(1, 4))):
        message = draw(st.sampled_from(_messages(model)))
        fields = list(message.DESCRIPTOR.fields)
        present = [field for field, _ in message.ListFields()]
        pick = (
            st.sampled_from(present or fields) if draw(st.booleans()) else st.sampled_from(fields)
        )
        field = draw(pick)
        value = getattr(message, field.name)
        if field.is_repeated:
            count = len(value)
            action = draw(st.sampled_from(["set", "delete", "repeat", "swap", "append"]))
            at = draw(st.integers(0, max(0, count - 1)))
            if action == "delete" and count:
                del value[at]
            elif action == "repeat" and count:
                value.extend([value[at]] * draw(st.sampled_from([1, 2, 50])))
            elif action == "swap" and count > 1 and field.message_type is not None:
                other = draw(st.integers(0, count - 1))
                first, second = copy.deepcopy(value[at]), copy.deepcopy(value[other])
                value[at].CopyFrom(second)
                value[other].CopyFrom(first)
            elif field.message_type is not None:
                value.add()
            elif action == "set" and count:
                value[at] = _hostile(draw, field, names)
            else:
                value.append(_hostile(draw, field, names))
        elif field.message_type is not None:
            if draw(st.booleans()):
                message.ClearField(field.name)
            else:
                value.SetInParent()
        elif isinstance(value, bytes) and value:
            at = draw(st.integers(0, len(value)))
            new = [
                value[:at],
                value + b"\0" * 8,
                value[:at] + b"\xff\xff\xc0\x7f" + value[at + 4 :],
            ]
            setattr(message, field.name, draw(st.sampled_from(new)))
        else:
            setattr(message, field.name, _hostile(draw, field, names))
    return model.SerializeToString()


def _chain(draw: DrawFn) -> onnx.ModelProto:
    """A long chain of one operator in front of a layer, or the layers themselves."""
    depth = draw(st.sampled_from([10, 1000, 9_000, 60_000]))
    op = draw(
        st.sampled_from(["Identity", "Relu", "Flatten", "Dropout", "Softmax", "Reshape", "Add"])
    )
    extra = {"Reshape": " s", "Add": " c"}.get(op, "")
    nodes = [node(op, f"t{i}{extra}" if i else f"x{extra}", f"t{i + 1}") for i in range(depth)]
    if op == "Add" and draw(st.booleans()):  # each reads the one before twice
        nodes = [node("Add", f"t{i} t{i}" if i else "x x", f"t{i + 1}") for i in range(depth)]
    size = draw(st.sampled_from([8, 1 << 16]))
    constants = {
        "w": np.ones((8, 2), np.float32),
        "s": np.array([0, -1]),
        "c": np.zeros(1, np.float32),
    }
    return network([*nodes, node("MatMul", f"t{depth} w", "y")], constants, ("N", size))


def _doubling(draw: DrawFn) -> onnx.ModelProto:
    """Constants that grow with every node."""
    op = draw(st.sampled_from(["Concat", "MatMul", "Add", "Gather", "Expand", "Mul"]))
    depth = draw(st.sampled_from([10, 40]))
    size = draw(st.sampled_from([2, 1000, 5000]))
    nodes, constants = [], {"k0": np.ones(size, np.float32), "w": np.ones((8, 2), np.float32)}
    if op == "Concat":
        nodes = [node(op, f"k{i} k{i}", f"k{i + 1}", axis=0) for i in range(depth)]
    elif op == "Gather":
        constants["k0"] = np.zeros(size, np.int64)
        nodes = [node(op, f"k{i} k{i}", f"k{i + 1}") for i in range(depth)]
        constants["k0"] = np.zeros((1, size), np.int64)
    elif op == "Expand":
        constants["s"] = np.array(draw(st.lists(st.sampled_from(INTEGERS), max_size=4)), np.int64)
        nodes = [node(op, "k0 s", f"k{depth}")]
    else:
        constants["k0"] = np.ones((size, 1), np.float32)
        constants["r"] = np.ones((1, size), np.float32)
        nodes = [node(op, "k0 r", "k1")]
        for i in range(1, depth):
            nodes.append(node("Reshape", f"k{i} flat", f"f{i}"))
            nodes.append(node(op, f"f{i} r", f"k{i + 1}"))
        constants["flat"] = np.array([-1, 1])
    nodes += [node("Add", f"x k{depth}", "z"), node("MatMul", "z w", "y")]
    return network(nodes, constants, ("N", 8))


def _sizes(draw: DrawFn) -> onnx.ModelProto:
    """Huge sizes where a network says sizes."""
    size = st.sampled_from([*INTEGERS, 1 << 12, 1 << 16, 1 << 24, 1 << 28])
    few = st.lists(size, min_size=1, max_size=4)
    kind = draw(
        st.sampled_from(["input", "shape", "reshape", "range", "kernel", "pads", "pad", "slice"])
    )
    constants: dict[str, Any] = {"w": np.ones((8, 2), np.float32)}
    last = node("MatMul", "z w", "y")
    if kind == "input":
        shape = ("N", *draw(st.lists(size, min_size=1, max_size=3)))
        constants["c"] = np.ones((1, 1, 1, 1), np.float32)
        first = draw(st.sampled_from(["Conv", "Flatten", "GlobalAveragePool", "Transpose"]))
        middle = [node(first, "x c" if first == "Conv" else "x", "f"), node("Flatten", "f", "z")]
        return network([*middle, last], constants, shape)
    if kind == "shape":
        constants["s"] = np.array(draw(few), np.int64)
        return network(
            [node("ConstantOfShape", "s", "k"), node("Add", "x k", "z"), last], constants, ("N", 8)
        )
    if kind == "reshape":
        constants["s"] = np.array(draw(few), np.int64)
        return network([node("Reshape", "x s", "z"), last], constants, ("N", 8))
    if kind == "range":
        constants |= {name: np.int64(draw(size)) for name in ("a", "b", "d")}
        return network(
            [node("Range", "a b d", "k"), node("Add", "x k", "z"), last], constants, ("N", 8)
        )
    eight = np.clip(draw(st.lists(size, min_size=8, max_size=8)), -(1 << 63), (1 << 63) - 1)
    constants["c"] = np.ones((1, 2, 1, 1), np.float32)
    nodes = [node("Conv", "x c", "m")]
    four = [int(value) for value in eight[:4]]
    if kind == "kernel":
        op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
        nodes.append(node(op, "m", "y", kernel_shape=four[:2], strides=four[2:]))
    elif kind == "pads":
        nodes = [node("Conv", "x c", "y", pads=four, dilations=[int(v) for v in eight[4:6]])]
        if draw(st.booleans()):
            nodes = [node("AveragePool", "x", "m", kernel_shape=[2, 2], pads=four, ceil_mode=1)]
            nodes.append(node("Conv", "m c", "y"))
    elif kind == "pad":
        constants["p"] = np.array(eight, np.int64)
        nodes = [node("Pad", "x p", "m"), node("Conv", "m c", "y")]
    else:
        names = ("starts", "ends", "axes", "steps")
        constants |= {name: np.array([four[i]], np.int64) for i, name in enumerate(names)}
        nodes = [node("Slice", "x " + " ".join(names), "m"), node("Conv", "m c", "y")]
    return network(nodes, constants, ("N", 2, 5, 5))


def _graph(draw: DrawFn) -> onnx.ModelProto:
    """Cycles, tensors that nobody makes or two make, scales that are no numbers."""
    model = copy.deepcopy(draw(st.sampled_from(networks())))
    nodes = model.graph.node
    kind = draw(st.sampled_from(["cycle", "self", "twice", "shuffle", "scale", "external", "deep"]))
    at = draw(st.integers(0, len(nodes) - 1))
    if kind == "cycle":
        nodes[at].input[0] = nodes[draw(st.integers(0, len(nodes) - 1))].output[0]
    elif kind == "self":
        name = nodes[at].output[0]
        nodes.insert(at, helper.make_node("Identity", [name], [name]))
    elif kind == "twice":
        nodes[at].output[0] = nodes[draw(st.integers(0, len(nodes) - 1))].output[0]
    elif kind == "shuffle":
        order = draw(st.permutations(range(len(nodes))))
        kept = [copy.deepcopy(nodes[i]) for i in order]
        del nodes[:]
        nodes.extend(kept)
    elif kind == "scale":
        tensor = draw(st.sampled_from(list(model.graph.initializer)))
        values = numpy_helper.to_array(tensor).copy()
        if values.dtype.kind == "f":
            chosen = np.float32(np.clip(draw(st.sampled_from(NUMBERS)), -3e38, 3e38))
            values.flat[draw(st.integers(0, values.size - 1))] = chosen
            if draw(st.booleans()):
                values = np.full_like(
                    values, draw(st.sampled_from([0, 1e-45, 1e38, np.nan, -np.inf]))
                )
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    elif kind == "external":
        tensor = draw(st.sampled_from(list(model.graph.initializer)))
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        where = draw(
            st.sampled_from(["../x", "/etc/passwd", "/dev/zero", "net.onnx", "", ".", "none"])
        )
        for key, value in (
            ("location", where),
            ("offset", str(draw(st.sampled_from(INTEGERS)))),
            ("length", draw(st.sampled_from(["x", *map(str, INTEGERS)]))),
        ):
            if draw(st.booleans()) or key == "location":
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
    else:
        graph = helper.make_graph([], "inner", [], [])
        for _ in range(draw(st.sampled_from([3, 20, 40]))):
            inner = helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph)
            graph = helper.make_graph([inner], "inner", [], [])
            if len(graph.SerializeToString()) > 1 << 20:
                break
        nodes[at].attribute.append(helper.make_attribute("body", graph))
    return model


@st.composite
def damaged_network(draw: DrawFn) -> bytes:
    """A damaged ONNX file."""
    kinds = ["bytes", "fields", "fields", "fields", "mappings", "sizes", "graph", "grow"]
    kind = draw(st.sampled_from(kinds))
    if kind == "bytes":
        content, other = (
            draw(st.sampled_from(network_files())),
            draw(st.sampled_from(network_files())),
        )
        return draw(damaged_bytes(content, other))
    if kind == "fields":
        return draw(damaged_fields(draw(st.sampled_from(networks()))))
    if kind == "mappings":
        return draw(damaged_mappings())
    make = {"sizes": _sizes, "graph": _graph}.get(kind)
    if make is None:
        make = draw(st.sampled_from([_doubling, _doubling, _chain]))
    return make(draw).SerializeToString()


# Arrays in a zip


def npy(array: np.ndarray, **changes: str) -> bytes:
    """An array as a file; ``changes`` are other texts for the fields of its header."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    content = buffer.getvalue()
    if not changes:
        return content
    size = struct.unpack("<H", content[8:10])[0]
    fields = {
        "descr": repr(array.dtype.str),
        "fortran_order": "False",
        "shape": repr(array.shape),
    } | changes
    text = ("{" + ", ".join(f"'{key}': {value}" for key, value in fields.items()) + "}").encode()
    return content[:8] + struct.pack("<H", len(text) + 1) + text + b"\n" + content[10 + size :]


_DESCRS = (
    "'|O'",
    "'<f8'",
    "'<f2'",
    "'|b1'",
    "'<U9'",
    "'<M8[s]'",
    "[('a','<i4')]",
    "'|V0'",
    "'x'",
    "3",
    "'<c16'",
    "'|S0'",
)
_SHAPES = (
    "()",
    "(0,)",
    "(-1,)",
    "(1,)*60",
    "(99999999999,)",
    "(1<<62, 4)",
    "(2**31, 2**31)",
    "(300000000,)",
    "(0, 1<<62)",
    "None",
    "(1.5,)",
    "('a',)",
    "(True, 2)",
)


@st.composite
def damaged_array(draw: DrawFn, array: np.ndarray) -> bytes:
    """An array as a file whose header lies, or whose values are others."""
    kind = draw(st.sampled_from(["shape", "descr", "values", "bytes", "type", "order"]))
    if kind == "shape":
        shape = draw(
            st.sampled_from(
                [*_SHAPES, repr(tuple(draw(st.lists(st.sampled_from(INTEGERS), max_size=4))))]
            )
        )
        return npy(array, shape=shape)
    if kind == "descr":
        return npy(array, descr=draw(st.sampled_from(_DESCRS)))
    if kind == "order":
        return npy(array, fortran_order=draw(st.sampled_from(["True", "1", "None"])))
    if kind == "bytes":
        return draw(damaged_bytes(npy(array), b"\x93NUMPY" + bytes(64)))
    if kind == "type":
        dtype = draw(st.sampled_from(["i1", "u1", "i8", "u8", "f2", "f4", "f8", "c8", "?"]))
        with np.errstate(all="ignore"):
            return npy(array.astype(dtype))
    changed = array.copy()
    if changed.size:
        place = draw(st.integers(0, changed.size - 1))
        value = draw(st.sampled_from(NUMBERS if changed.dtype.kind == "f" else INTEGERS))
        if changed.dtype.kind != "f":
            info = np.iinfo(changed.dtype)
            value = (int(value) - info.min) % (int(info.max) - int(info.min) + 1) + info.min
        with np.errstate(all="ignore"):
            changed.flat[place] = value
    return npy(changed if draw(st.booleans()) else changed[: draw(st.integers(0, 3))])


def archive(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        for name, content in members.items():
            target.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return buffer.getvalue()


BOMB = 3 << 30
"""Bytes that a bomb unpacks to."""


@cache
def _zeros(head: bytes) -> bytes:
    """``head`` and 3 GiB of zeros as a raw deflate stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    one = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + one * (BOMB >> 24) + packer.flush(zlib.Z_FINISH)


@cache
def zip_bomb(name: str, head: bytes) -> bytes:
    """A zip with one member of 3 GiB of zeros."""
    stream = _zeros(head)
    sizes = (0, len(stream), len(head) + BOMB)  # the checksum is wrong, and read too late to help
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 33, *sizes, len(name), 0)
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 33, *sizes, len(name), *([0] * 6)
    )
    first = local + name.encode() + stream
    second = entry + name.encode()
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(second), len(first), 0)
    return first + second + end


@cache
def gzip_bomb(head: bytes) -> bytes:
    """A gzip file of 3 GiB of zeros."""
    return b"\x1f\x8b\x08" + bytes(7) + _zeros(head) + struct.pack("<2I", 0, len(head) + BOMB)


# Images


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@st.composite
def damaged_images(draw: DrawFn) -> bytes:
    """A damaged file of images."""
    stored = digits.digits_images()
    arrays = {"x": stored.x[:20], "y": stored.y[:20].astype(np.int64)}
    if draw(st.booleans()):
        arrays["x"] = arrays["x"].astype(np.float32)
    kind = draw(
        st.sampled_from(["bytes", "array", "array", "idx", "idx sizes", "gzip", "bomb", "zip"])
    )
    packing = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    members = {f"{name}.npy": npy(array) for name, array in arrays.items()}
    idx = _idx(stored.x[:20])
    if kind == "bytes":
        return draw(damaged_bytes(archive(members, packing), idx))
    if kind == "array":
        name = draw(st.sampled_from(["x", "y"]))
        members[f"{name}.npy"] = draw(damaged_array(arrays[name]))
        return archive(members, packing)
    if kind == "idx":
        return draw(damaged_bytes(idx, archive(members)))
    if kind == "idx sizes":
        sizes = draw(st.lists(st.sampled_from(INTEGERS), max_size=5))
        head = bytes([0, 0, draw(st.integers(7, 15)), len(sizes)])
        return head + b"".join(struct.pack(">I", size % (1 << 32)) for size in sizes) + idx[16:]
    if kind == "gzip":
        return draw(damaged_bytes(gzip.compress(idx, mtime=0), idx))
    if kind == "zip":
        return draw(damaged_zip(members))
    bombs: list[Callable[[], bytes]] = [
        lambda: gzip_bomb(struct.pack(">4B2I", 0, 0, 8, 2, BOMB >> 10, 1 << 10)),
        lambda: zip_bomb("x.npy", _bomb_head()),
        lambda: gzip.compress(archive(members), mtime=0),
    ]
    # Bombs are few among the rest: each costs seconds where nothing stops it.
    choice = draw(st.integers(0, 15))
    return bombs[min(choice, 2)]()


def _bomb_head() -> bytes:
    return npy(np.zeros((1, 1), np.uint8), shape=f"({BOMB >> 10}, 1024)")[:-1]


@st.composite
def damaged_zip(draw: DrawFn, members: Mapping[str, bytes]) -> bytes:
    """A zip that says other things about its members than they are."""
    content = bytearray(archive(members, draw(st.sampled_from([0, 8]))))
    # Numbers of the central directory: version, flags, method, checksum, sizes, offsets.
    starts = [at for at in range(len(content) - 3) if content[at : at + 4] == b"PK\1\2"]
    start = draw(st.sampled_from(starts))
    at, width = draw(
        st.sampled_from([(8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (42, 4)])
    )
    value = draw(st.sampled_from(INTEGERS)) % (1 << 8 * width)
    content[start + at : start + at + width] = value.to_bytes(width, "little")
    return bytes(content)


# Programs


@cache
def program_members() -> tuple[tuple[dict[str, Any], dict[str, np.ndarray]], ...]:
    """Header and arrays of some programs: the packaged network, a residual one with poolings."""
    result = []
    stored = digits.digits_images()
    for which in range(2):
        if which:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "net.onnx"
                path.write_bytes(network_files()[2])
                floats_ = load_onnx(path)
            images = np.random.default_rng(0).standard_normal((4, 2, 8, 8)).astype(np.float32)
            program = compile_network(quantize(floats_, images), scheme="dense")
        else:
            floats_ = load_onnx(digits.network_path("prap"))
            images = (stored.calibration_x[:20, None] / 16).astype(np.float32)
            settings = digits.SETTINGS
            program = compile_network(quantize(floats_, images), scheme="prap", settings=settings)
        buffer = io.BytesIO()
        program.save(buffer)
        with zipfile.ZipFile(buffer) as source:
            header = json.loads(source.read("header.json"))
            arrays = {
                name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(source.read(name)))
                for name in source.namelist()
                if name.endswith(".npy")
            }
        result.append((header, arrays))
    return tuple(result)


def program_file(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray | bytes]) -> bytes:
    """A program file whose checksum is right, whatever it holds."""
    body = {k: v for k, v in header.items() if k not in ("format", "version", "checksum")}
    plain = {}
    for name, array in arrays.items():
        try:
            if isinstance(array, bytes):
                array = np.lib.format.read_array(io.BytesIO(array), allow_pickle=False)
            plain[name] = array
        except Exception:
            plain[name] = np.zeros(0)
    checksum = _digest(body, plain)
    header = {**header, "checksum": checksum}
    members = {"header.json": json.dumps(header, sort_keys=True).encode()}
    members |= {
        f"{name}.npy": array if isinstance(array, bytes) else npy(array)
        for name, array in arrays.items()
    }
    return archive(members)


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """Where values stand in nested JSON."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, each in value.items():
            found += _places(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            found += _places(each, (*path, index))
    return found


_VALUES = (
    *INTEGERS,
    *NUMBERS,
    *TEXTS[:4],
    None,
    True,
    [],
    {},
    [1, 1],
    [0, 0, 0],
    {"array": "x"},
    {"array": "layer0.bias"},
    [1 << 40] * 3,
    1 << 100,
    "input",
)


@st.composite
def damaged_program(draw: DrawFn) -> bytes:
    """A damaged program file."""
    header, arrays = draw(st.sampled_from(program_members()))
    kind = draw(st.sampled_from(["bytes", "zip", "header", "header", "array", "array", "odd"]))
    if kind == "bytes":
        other = program_file(*program_members()[1])
        return draw(damaged_bytes(program_file(header, arrays), other))
    if kind == "zip":
        small = {name: array for name, array in arrays.items() if name.startswith("layer0")}
        members = {"header.json": json.dumps(header).encode()}
        return draw(
            damaged_zip(members | {f"{name}.npy": npy(array) for name, array in small.items()})
        )
    if kind == "odd":
        choice = draw(st.integers(0, 20))
        if choice == 0:
            return zip_bomb("header.json", b"[")
        if choice == 1:
            return zip_bomb("layer0.bias.npy", _bomb_head())
        text = draw(
            st.sampled_from(
                [
                    b"[" * 100_000,
                    b"1" * 10_000,
                    b'{"a":' * 50_000,
                    b"\xff",
                    b"null",
                    b"{}",
                    b'{"format": "prap-program", "version": 1}',
                ]
            )
        )
        return archive({"header.json": text})
    header, changed = copy.deepcopy(header), dict[str, np.ndarray | bytes](arrays)
    for _ in range(draw(st.integers(1, 3))):
        if kind == "array":
            name = draw(st.sampled_from(sorted(arrays)))
            if draw(st.integers(0, 5)):
                changed[name] = draw(damaged_array(arrays[name]))
            else:
                changed.pop(name, None)
            continue
        path = draw(st.sampled_from(_places({k: header[k] for k in header if k != "about"})))
        target: Any = header
        for key in path[:-1]:
            target = target[key]
        action = draw(st.sampled_from(["set", "set", "delete", "near", "copy"]))
        if action == "delete":
            del target[path[-1]]
        elif action == "near" and isinstance(target[path[-1]], int):
            target[path[-1]] += draw(st.sampled_from([-1, 1, 8]))
        elif action == "copy" and isinstance(target, list):
            target.append(copy.deepcopy(target[path[-1]]))
        else:
            target[path[-1]] = draw(st.sampled_from(_VALUES))
    return program_file(header, changed)


class File:
    """The content of a file, with a short text for messages."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __repr__(self) -> str:
        return f"File({len(self.content)} bytes: {self.content[:16].hex(' ')} ...)"


def make_corpus() -> None:
    """Make what damage is done to, which takes a second and is kept."""
    network_files()
    program_members()
    digits.digits_images()


STRATEGIES: Mapping[str, st.SearchStrategy[File]] = {
    "network": damaged_network().map(File),
    "images": damaged_images().map(File),
    "program": damaged_program().map(File),
}
"""What is damaged: kind of file to strategy."""
