"""Read a trained network from a file of any kind that is read, told by its content."""

import shutil
from pathlib import Path

from refmodel.errors import InputError
from refmodel.exchange.onnx.load import import_model, load_onnx, parse
from refmodel.exchange.tflite.file import is_tflite
from refmodel.exchange.tflite.load import load_model
from refmodel.network.graph import FloatNetwork


def load_network(path: str | Path) -> FloatNetwork:
    """Read the network in an ONNX file or one of TensorFlow Lite.

    Parameters
    ----------
    path
        The file; see :func:`refmodel.exchange.onnx.load.load_onnx` and
        :func:`refmodel.exchange.tflite.load.load_model` for what is supported.

    Raises
    ------
    InputError
        The file cannot be read, is of another kind, or holds what is not supported.
    """
    if _tflite(path):
        return import_model(load_model(path), str(path))
    return load_onnx(path)


def copy_as_onnx(path: str | Path, out: str | Path) -> None:
    """Write the network in a file as an ONNX file that needs no other.

    Parameters
    ----------
    path
        A file that :func:`load_network` reads; weights that an ONNX file keeps in files beside it
        are put into the copy.
    out
        The file to write.

    Raises
    ------
    InputError
        It is no network, weights beside it are missing, or it has more than 2 GB with them.
    OSError
        The file cannot be read, or the copy not be written.
    """
    if _tflite(path):
        Path(out).write_bytes(load_model(path).SerializeToString())
    elif not _mentions(path, EXTERNAL):
        shutil.copyfile(path, out)
    else:
        model = parse(path, str(path))
        try:
            content = model.SerializeToString()
        except Exception as error:  # the class of protobuf's error depends on its implementation
            raise InputError(
                f"expected a network of less than 2 GB with its weights, found more, in {path}"
            ) from error
        Path(out).write_bytes(content)


EXTERNAL = b"\x0a\x08location"
"""The key of an entry that names a file with a tensor's values, as protobuf writes it."""

_CHUNK = 1 << 22


def _mentions(path: str | Path, what: bytes) -> bool:
    """Tell whether a file has these bytes anywhere, a piece of it in memory at a time."""
    before = b""
    with Path(path).open("rb") as file:
        while piece := file.read(_CHUNK):
            if what in before + piece:
                return True
            before = piece[-len(what) :]
    return False


def _tflite(path: str | Path) -> bool:
    if Path(path).suffix.lower() == ".tflite":
        return True
    try:
        with Path(path).open("rb") as file:
            return is_tflite(file.read(8))
    except OSError:
        return False  # the reader of ONNX files says what is wrong
