"""Read a trained network from a file of any kind that is read, told by its content."""

from pathlib import Path

from onnx import external_data_helper

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


def onnx_content(path: str | Path) -> bytes:
    """Give the network in a file as the content of an ONNX file that needs no other.

    Parameters
    ----------
    path
        A file that :func:`load_network` reads; weights that an ONNX file keeps in files beside it
        are put into the content.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    if _tflite(path):
        return load_model(path).SerializeToString()
    model = parse(path, str(path), weights=False)
    attributes = [each for node in model.graph.node for each in node.attribute]
    tensors = [*model.graph.initializer, *(each.t for each in attributes)]
    if not any(map(external_data_helper.uses_external_data, tensors)):
        return Path(path).read_bytes()
    try:
        return parse(path, str(path)).SerializeToString()
    except ValueError as error:
        raise InputError(
            f"expected a network of less than 2 GB with its weights, found more, in {path}"
        ) from error


def _tflite(path: str | Path) -> bool:
    if Path(path).suffix.lower() == ".tflite":
        return True
    try:
        with Path(path).open("rb") as file:
            return is_tflite(file.read(8))
    except OSError:
        return False  # the reader of ONNX files says what is wrong
