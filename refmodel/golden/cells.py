"""The cells of a layer's crossbars, and the places of its columns among them."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from refmodel.config import EngineConfig
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import ous_of_gathers

Device = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""A crossbar: (digits uint8 [ous, n, digits, R], cells uint8 [ous, R, C], OU numbers int32 [ous])
to what the converters see, in cells that conduct: float [ous, n, digits, C]."""


class Crossbars(Protocol):
    """Crossbars that know of every activation which it is: see :mod:`refmodel.golden.devices`.

    ``places`` are image * positions + position of what the arrays hold, images from 0.
    """

    @property
    def pairs(self) -> bool:
        """Whether a weight is a difference of two cells: see :func:`pair_cells`."""
        ...

    def codes(self, columns: slice, lines: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Give ADC codes [columns, digits * n] for digits [rows in use, digits * n] of a gather."""
        ...

    def sums(
        self, columns: slice, rows: int, inputs: np.ndarray, places: np.ndarray, weights: np.ndarray
    ) -> np.ndarray | None:
        """Give sums [patterns, n] of a whole gather's codes times weights [S] and digits.

        ``inputs`` [digits, n] are the 1-bit digits of the rows in use, a word to each digit. None
        where :meth:`codes` is to be asked.
        """
        ...

    def trace(self, digits: np.ndarray, ous: slice, places: np.ndarray) -> np.ndarray:
        """Give ADC codes [ous, n, digits, C] of consecutive OUs for digits [..., R]."""
        ...


def cells(layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """Return the levels that are programmed into the crossbars.

    OUs are numbered in the order of the program. The patterns of a gather lie side by side from
    its first OU on, S columns each, low bits first: column j of a gather is column ``j % C`` of its
    OU ``j // C``, and belongs to its pattern ``j // S``. 1-bit cells hold two's complement; others
    the weight + 128, in the rows that the gather uses.

    Returns
    -------
    uint8 [OUs, R, C], 0 to 2^cell_bits - 1; unused cells are 0. Of an engine with pairs, int8:
    :func:`pair_cells`.
    """
    if config.pairs:
        return pair_cells(layer, config)
    stored = layer.weights.view(np.uint8) ^ np.uint8(config.offset)
    if config.offset:
        rows = np.repeat(layer.gather_rows, layer.gather_patterns)
        stored[np.arange(layer.ou_rows) >= rows[:, None]] = 0
    return _placed(_digits_of(stored, config), layer, config)


def pair_cells(layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """Return the levels that differential pairs of cells are programmed to.

    They lie as :func:`cells` lie. The columns of a pattern hold the digits of ``|w|``, low first;
    those of a positive weight are in the plus cells, those of a negative one in the minus cells,
    and the other cell of each pair is off. No weight is stored with an offset, every column counts
    2^(cell_bits j), and codes are signed. With 1-bit cells -1 is one on-cell, and -128, the only
    weight of eight digits, one in column 7. Where a chip has pairs and the engine has not, columns
    above the digits of a layer's largest weight are left out of its sums: without a weight of -128,
    column 7. An engine with pairs counts all columns.

    Returns
    -------
    int8 [OUs, R, C], plus less minus: -(2^cell_bits - 1) to 2^cell_bits - 1; unused pairs are 0.
    """
    size = np.abs(layer.weights.astype(np.int16)).astype(np.uint8)
    parts = _digits_of(size, config).astype(np.int8)
    parts *= np.sign(layer.weights)[:, None, :]
    return _placed(parts, layer, config)


def _digits_of(stored: np.ndarray, config: EngineConfig) -> np.ndarray:
    """Digits of what is stored, uint8 [patterns, R]: uint8 [patterns, S, R], low first."""
    shifts = np.arange(config.columns_per_weight, dtype=np.uint8) * np.uint8(config.cell_bits)
    return stored[:, None, :] >> shifts[:, None] & np.uint8((1 << config.cell_bits) - 1)


def _placed(parts: np.ndarray, layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """Put the columns of all patterns, [patterns, S, R], where they lie: [OUs, R, C]."""
    columns = columns_of_patterns(layer, config)
    count = int(ous_of_gathers(layer, config).sum())
    result = np.zeros((count * config.ou_cols, config.ou_rows), parts.dtype)
    result[columns] = parts
    result = result.reshape(count, config.ou_cols, config.ou_rows)
    return np.ascontiguousarray(result.transpose(0, 2, 1))


def in_pairs(device: Device | Crossbars | None) -> bool:
    """Return whether a device holds weights in pairs of cells."""
    return device is not None and not callable(device) and device.pairs


def coding(
    layer: LayerProgram, config: EngineConfig, *, pairs: bool
) -> tuple[np.ndarray, int, int]:
    """Return the weight of each column's code, the offset of stored weights, the least code.

    Parameters
    ----------
    pairs
        Whether the device holds weights in pairs of cells although the engine's are single ones.
    """
    weights = np.array(config.column_weights)
    if config.pairs:
        return weights, 0, -config.max_code
    if not pairs:
        return weights, config.offset, 0
    largest = int(np.abs(layer.weights.astype(np.int16)).max(initial=0))
    weights = np.abs(weights)
    return np.where(weights <= largest, weights, 0), 0, -config.max_code


def columns_of_patterns(layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """Columns of each row of ``weights``, int64 [patterns, S]: OU * C + column of the OU."""
    if layer.ou_rows != config.ou_rows:
        raise ValueError(f"ou_rows must be {layer.ou_rows} for this layer, not {config.ou_rows!r}")
    ous = ous_of_gathers(layer, config)
    counts = layer.gather_patterns.astype(np.int64)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.repeat(np.cumsum(ous) - ous, counts) * config.ou_cols
    first += within * config.columns_per_weight
    return first[:, None] + np.arange(config.columns_per_weight)
