"""Mappings of a network's layers, kept small: in memory, or in a folder that outlives a run.

A mapping has arrays that are several times as large as the weights
(:class:`~refmodel.compression.schemes.base.LayerMapping`); until a layer is compiled its pattern
groups will do. In a folder, each is a file, written whole or not at all, under a name that holds a
digest of everything that it follows from: a later run with the same digest goes on with those that
are there.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from refmodel import files
from refmodel.archive import Archive, DamagedError
from refmodel.compression.schemes import LayerMapping, PatternGroup
from refmodel.compression.schemes.base import COMPACT_FIELDS, CompactMapping

_ARRAYS = {
    "groups": np.int64,
    "lengths": np.int32,
    "rows": np.int32,
    "shape_of": np.int32,
    "values": np.int8,
    "slot": np.int32,
    "shift": np.int8,
    "sign": np.int8,
}

_WORDS = ("slot", "shift", "sign")

PREFIX = "prap-"
"""Start of the names of files that are kept."""

_PLAIN = [name for name in COMPACT_FIELDS if name not in ("groups", "output_scale")]


def digest(*parts: NDArray | str | bytes) -> str:
    """Digest of arrays and texts."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        if isinstance(data, np.ndarray):
            state.update(f"{data.dtype.str}{data.shape}".encode())
            data = np.ascontiguousarray(data).reshape(-1).data.cast("B")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def sources() -> str:
    """Digest of the code of ``refmodel``, which results follow from, too."""
    folder = Path(__file__).parents[1]
    return digest(*(path.read_bytes() for path in sorted(folder.rglob("*.py"))))


class Work:
    """A folder for what a run has finished, for later runs of the same.

    Parameters
    ----------
    folder
        It is made when something is kept, and must be a folder of this kind if it is there.
    key
        Digest of everything that results follow from.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        files.check_folder(folder)

    def part(self, name: str) -> "Work":
        """Give a part of the same folder, whose names are its own."""
        return Work(self.folder, f"{self.key}.{name}")

    def path(self, name: str) -> Path:
        """Where something of a name is kept."""
        return self.folder / f"{PREFIX}{self.key}.{name}"

    def write(self, name: str, content: bytes) -> None:
        """Keep something, whole or not at all."""
        with files.new_file(self.path(name)) as draft:
            draft.write_bytes(content)

    def read(self, name: str) -> bytes | None:
        """Take what was kept; None where it was not."""
        path = self.path(name)
        return path.read_bytes() if path.is_file() else None

    def remove(self, *, others: bool = False) -> None:
        """Remove what was kept, with ``others`` of every run, and the folder if it is empty then.

        Files of other names stay.
        """
        if not self.folder.is_dir():
            return
        start = PREFIX if others else f"{PREFIX}{self.key}."
        for path in self.folder.iterdir():
            # Behind a dot is what a process was writing when it was ended.
            if path.name.removeprefix(".").startswith(start):
                path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


class Mappings(Sequence[LayerMapping]):
    """Mappings of the layers of a network, each worked out anew where it is taken.

    Parameters
    ----------
    names
        Names of the layers.
    work
        Where they are kept; None: in memory.
    """

    def __init__(self, names: Sequence[str], work: Work | None = None) -> None:
        self.names, self.work = tuple(names), work
        self._held: list[CompactMapping | None] = [None] * len(names)

    def kept(self, index: int) -> bool:
        """Whether a mapping is there already."""
        if self._held[index] is not None:
            return True
        return self.work is not None and self.work.path(self._name(index)).is_file()

    def put(self, index: int, mapping: LayerMapping) -> None:
        """Keep a mapping."""
        compact = CompactMapping.of(mapping)
        if self.work is None:
            self._held[index] = compact
        else:
            self.work.write(self._name(index), packed(compact))

    def hold(self, index: int, mapping: LayerMapping) -> None:
        """Keep a mapping in memory, wherever others are."""
        self._held[index] = CompactMapping.of(mapping)

    def changing(self, carried: Collection[str] = ()) -> bool:
        """Whether a mapping changes the weights of its layer: none that is dense or carried."""
        return any(
            name not in carried and self[index].scheme != "dense"
            for index, name in enumerate(self.names)
        )

    def _name(self, index: int) -> str:
        return f"{index}.layer"

    @overload
    def __getitem__(self, index: int) -> LayerMapping: ...
    @overload
    def __getitem__(self, index: slice) -> list[LayerMapping]: ...
    def __getitem__(self, index: int | slice) -> LayerMapping | list[LayerMapping]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        held = self._held[index]
        if held is not None:
            return held
        content = None if self.work is None else self.work.read(self._name(index))
        if content is None:
            raise KeyError(f"no mapping of layer {self.names[index]}")
        return unpacked(content)

    def __iter__(self) -> Iterator[LayerMapping]:
        return (self[index] for index in range(len(self)))

    def __len__(self) -> int:
        return len(self.names)


def packed(mapping: CompactMapping) -> bytes:
    """Write a mapping as bytes: a zip of ``header.json`` and arrays, all groups in one of each."""
    groups = mapping.groups
    sizes = [
        (
            each.channel, each.channels, each.first_output, each.outputs, each.kept,
            len(each.shapes), each.values.shape[1],
        )
        for each in groups
    ]  # fmt: skip
    shapes = [shape for each in groups for shape in each.shapes]
    arrays = {
        "groups": np.array(sizes, np.int64).reshape(-1, 7),
        "lengths": np.array([len(each) for each in shapes], np.int32),
        "rows": _joined(shapes, "rows"),
        "shape_of": _joined([each.shape_of for each in groups], "shape_of"),
        "values": _joined([each.values for each in groups], "values"),
    }
    if not mapping.identity:
        arrays |= {key: _joined([getattr(each, key) for each in groups], key) for key in _WORDS}
    if mapping.output_scale is not None:
        arrays["output_scale"] = np.asarray(mapping.output_scale, np.float64)
    header: dict[str, Any] = {name: getattr(mapping, name) for name in _PLAIN}
    header["shape"] = list(mapping.shape)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("header.json", json.dumps(header))
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
    return buffer.getvalue()


def _joined(parts: list[NDArray], name: str) -> NDArray:
    kind = _ARRAYS[name]
    return np.concatenate([np.zeros(0, kind), *(each.reshape(-1).astype(kind) for each in parts)])


def unpacked(content: bytes) -> CompactMapping:
    """Read a mapping that :func:`packed` wrote.

    Raises
    ------
    RuntimeError
        The bytes are damaged.
    """
    try:
        archive = Archive(content)
        header = json.loads(archive.read("header.json"))
        arrays = {
            name.removesuffix(".npy"): archive.array(name)
            for name in archive.names
            if name.endswith(".npy")
        }
    except (DamagedError, ValueError) as error:
        raise RuntimeError(f"a mapping that was kept is damaged: {error}") from None
    ends = dict.fromkeys(arrays, 0)

    def cut(key: str, count: int) -> NDArray:
        begin = ends[key]
        ends[key] = begin + count
        return arrays[key][begin : ends[key]]

    groups = []
    for channel, channels, first, outputs, kept, shapes, width in arrays["groups"].tolist():
        lengths = cut("lengths", shapes)
        rows = cut("rows", 2 * int(lengths.sum())).reshape(-1, 2)
        words = {}
        if "slot" in arrays:
            count = outputs * header["terms"]
            words = {key: cut(key, count).reshape(outputs, -1) for key in _WORDS}
        groups.append(
            PatternGroup(
                channel=channel,
                channels=channels,
                first_output=first,
                outputs=outputs,
                shapes=tuple(np.split(rows, np.cumsum(lengths)[:-1])) if shapes else (),
                shape_of=cut("shape_of", kept),
                values=cut("values", kept * width).reshape(kept, width),
                **words,
            )
        )
    return CompactMapping(
        header.pop("shape"),
        groups=tuple(groups),
        output_scale=arrays.get("output_scale"),
        **header,
    )
