"""A network as the accelerator runs it: its operations on the activation memory, byte by byte."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refmodel import golden
from refmodel.predict.accelerator.operations import NetworkImage, Operation
from refmodel.predict.accelerator.regions import Operand, Walk
from refmodel.program.layer import LayerProgram

# What the operations compute, over a flat memory.


def run_image(
    image: NetworkImage, layers: Sequence[LayerProgram], codes: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Run the operations of a network over a flat memory, as the accelerator does.

    Nothing is looked at but addresses: a region that overlaps another, or a border that was not
    written, shows in the result. The memory holds random bytes at first.

    Parameters
    ----------
    codes
        uint8 [N, H, W, C].
    seed
        Draws what the memory holds at first.

    Returns
    -------
    uint8 [N, values]: what is sent to the host.
    """
    count = len(codes)
    rng = np.random.default_rng(seed)
    memory = rng.integers(0, 256, (count, image.activation_bytes)).astype(np.uint8)
    sent = np.zeros((count, 0), np.uint8)
    for operation in image.operations:
        if operation.kind == "image":
            result = codes
        elif operation.kind == "layer":
            result = _run_layer(operation, layers, memory)
        else:
            result = _run_pool(operation, memory)
        if operation.tables is not None:
            first = operation.first_table
            tables = image.tables[first : first + len(operation.tables)].astype(np.uint8)
            result = tables[np.arange(len(tables)), result]
        memory[:, operation.output.addresses(operation.shape)] = result
        if operation.fill is not None:
            memory[:, operation.fill.addresses] = operation.fill.code
        if operation.send:
            sent = result.reshape(count, -1)
    return sent


def _taps(operation: Operation, operand: Operand, memory: np.ndarray) -> np.ndarray:
    """Codes of an operand, uint8 [N, rows, columns, channels, taps]."""
    present = slice(operand.first_channel, operand.last_channel + 1)
    first = operand.walk.addresses(operation.shape)[:, :, present]
    down, across = (np.arange(size) for size in operation.kernel)
    steps = down[:, None] * operation.tap_row_step + across * operation.tap_column_step
    codes = np.full((len(memory), *operation.shape, steps.size), operand.zero, np.uint8)
    codes[:, :, :, present] = memory[:, first[..., None] + steps.reshape(-1)]
    return codes


def _run_pool(operation: Operation, memory: np.ndarray) -> np.ndarray:
    if operation.maximum:
        result = _taps(operation, operation.operands[0], memory).max(-1).astype(np.int64)
    elif operation.product:
        total: Any = 1
        for operand in operation.operands:
            taps = _taps(operation, operand, memory).astype(np.int64)
            total = total * (taps - operand.zero).sum(-1) * operand.multiplier
        result = golden.divide(total, operation.shift) + operation.zero_out
    else:
        total = 0
        for operand in operation.operands:
            taps = _taps(operation, operand, memory).astype(np.int64)
            total = total + (taps - operand.zero).sum(-1) * operand.multiplier
        result = golden.divide(total, operation.shift) + operation.zero_out
    return np.clip(result, *operation.clip).astype(np.uint8)


def _run_layer(
    operation: Operation, layers: Sequence[LayerProgram], memory: np.ndarray
) -> np.ndarray:
    """Run a layer on its input as it lies in memory, border and all."""
    assert operation.layer is not None
    assert operation.place is not None
    layer = layers[operation.layer]
    height, width, channels = layer.padded_shape
    place = operation.place
    walk = Walk(base=place.base, row_step=place.pitch, column_step=channels)
    seen = memory[:, walk.addresses((height, width, channels))]
    residual = None
    if operation.operands:
        residual = _taps(operation, operation.operands[0], memory)[..., 0]
    bare = replace(layer, in_shape=layer.padded_shape, pads=(0, 0, 0, 0))
    return golden.run_layer(bare, seen, residual)
