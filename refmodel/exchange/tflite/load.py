"""Read a trained network from a file of TensorFlow Lite."""

from pathlib import Path

import onnx

from refmodel.exchange.tflite import file, operations, translate

FAMILIES = (operations,)
"""Modules that register operations when they are imported."""


def load_model(path: str | Path) -> onnx.ModelProto:
    """Read the network in a file of TensorFlow Lite, written as ONNX.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    ModelProto
        Channels first; scales, zero points and integer weights are those of the file, in
        QuantizeLinear and DequantizeLinear.

    Raises
    ------
    InputError
        The file cannot be read, is damaged, or holds what is not supported.
    """
    return translate.to_onnx(file.read(path), path)
