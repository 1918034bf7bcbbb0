"""Read the tensors in a PyTorch file with numpy alone, without running anything in it.

Such a file is a pickle of names and shapes beside the raw numbers, in a zip (PyTorch 1.6 on) or one
behind the other (the older form). The pickle may only build dictionaries, numbers and tensors:
whatever else it names is refused, so that a file from anywhere can be opened.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.errors import InputError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_TYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}

Storage = Callable[[], NDArray]
"""Gives the numbers; in the older form they are read after the pickle that names them."""


class _Later:
    """A tensor whose numbers are not read yet."""

    def __init__(self, storage: Storage, offset: int, shape: tuple, strides: tuple) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> NDArray:
        shape, strides = tuple(map(int, self.shape)), tuple(map(int, self.strides))
        numbers = self.storage()
        if len(shape) != len(strides) or min((self.offset, *shape, *strides), default=0) < 0:
            raise ValueError(f"a tensor of shape {shape} with strides {strides}")
        last = sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        if prod(shape) and self.offset + last >= len(numbers):
            raise ValueError(f"a tensor that ends behind its {len(numbers)} numbers")
        if prod(shape) > len(numbers) * 64:
            raise ValueError(f"a tensor of shape {shape} over {len(numbers)} numbers")
        steps = tuple(step * numbers.itemsize for step in strides)
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], shape, steps).copy()


class _Unpickler(pickle.Unpickler):
    """Builds tensors and plain values, nothing else."""

    def __init__(self, file: io.BytesIO, find: Callable[[tuple], Storage]) -> None:
        super().__init__(file, encoding="utf-8")
        self.find = find

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _TYPES:
            return name
        # _v2 has more arguments, which only training needs.
        if (module, name) in (
            ("torch._utils", "_rebuild_tensor"),
            ("torch._utils", "_rebuild_tensor_v2"),
        ):
            return lambda storage, offset, shape, strides, *_: _Later(
                storage, offset, shape, strides
            )
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        raise pickle.UnpicklingError(f"{module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError(f"an unknown reference, {pid!r}")
        return self.find(pid)


def _zip(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (index,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        folder = index.removesuffix("data.pkl")
        names = set(archive.namelist())
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("numbers in another byte order than little")
        with archive.open(index) as file:
            found = file.read()

        def find(pid: tuple) -> Storage:
            _, kind, key, _, count = pid[:5]
            data = archive.read(f"{folder}data/{key}")
            numbers = np.frombuffer(data, _TYPES[kind])
            if len(numbers) < count:
                raise ValueError(f"{len(numbers)} numbers where there should be {count}")
            return lambda: numbers

        return _resolve(_Unpickler(io.BytesIO(found), find).load())


def _legacy(content: bytes) -> Any:
    file = io.BytesIO(content)
    kinds: dict[str, tuple[str, int]] = {}
    numbers: dict[str, NDArray] = {}

    def none(pid: tuple) -> Storage:
        raise pickle.UnpicklingError(f"a reference before the tensors, {pid!r}")

    def find(pid: tuple) -> Storage:
        _, kind, key, _, count = pid[:5]
        view = pid[5] if len(pid) > 5 else None
        kinds[key] = kind, int(count)
        if view is None:
            return lambda: numbers[key]
        _, start, size = view
        return lambda: numbers[key][start : start + size]

    magic = _Unpickler(file, none).load()
    if magic != LEGACY_MAGIC:
        raise ValueError(f"the number {magic!r} at its beginning")
    _Unpickler(file, none).load()  # version of the protocol
    system = _Unpickler(file, none).load()
    if not system["little_endian"]:
        raise ValueError("numbers in another byte order than little")
    result = _Unpickler(file, find).load()
    for key in _Unpickler(file, none).load():
        kind, count = kinds[key]
        (stored,) = struct.unpack("<q", file.read(8))
        size = np.dtype(_TYPES[kind]).itemsize
        data = file.read(size * count)
        if stored != count or len(data) != size * count:
            raise ValueError(f"{len(data)} bytes of {count} numbers")
        numbers[key] = np.frombuffer(data, _TYPES[kind])
    return _resolve(result)


def _resolve(value: Any) -> Any:
    """Read the numbers of every tensor in nested containers."""
    if isinstance(value, _Later):
        return value.array()
    if isinstance(value, Mapping):
        return {key: _resolve(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolve(each) for each in value)
    return value


def load_torch(path: str | Path) -> Any:
    """Read what ``torch.save`` wrote: dictionaries and lists of tensors and plain values.

    Returns
    -------
    The same with numpy arrays for tensors; a state dict is a dict of arrays by name.

    Raises
    ------
    InputError
        The file is missing or damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise InputError(f"expected a readable PyTorch file, found: {found}, in {path}") from error
    try:
        return (_zip if content[:2] == b"PK" else _legacy)(content)
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        NotImplementedError,
        OSError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        lines = str(error).splitlines()
        found = lines[0] if lines else type(error).__name__
        raise InputError(
            f"expected a PyTorch file of tensors, found: {found}, in {path}"
        ) from error


def state_dict(path: str | Path) -> dict[str, NDArray]:
    """Read the parameters of a network by name.

    The entry ``state_dict`` of a checkpoint is taken where there is one, and the prefix ``module.``
    that ``DataParallel`` leaves is dropped.

    Raises
    ------
    InputError
        As :func:`load_torch`; or the file holds no tensors by name.
    """
    loaded = load_torch(path)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise InputError(f"expected tensors by name, found {type(loaded).__name__}, in {path}")
    if not all(isinstance(each, np.ndarray) for each in loaded.values()):
        raise InputError(f"expected tensors by name, found other values, in {path}")
    return {str(name).removeprefix("module."): each for name, each in loaded.items()}
