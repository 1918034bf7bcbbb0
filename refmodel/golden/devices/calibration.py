"""Ranges of converters with few bits, chosen for each layer on images.

A converter of b bits tells 2^b numbers of conducting cells apart. Which ones is the choice of a low
end and a step (:class:`~refmodel.golden.devices.converters.AdcRange`); the best are those that
change the sums of a layer least. On images the sums of all columns are counted, each weighted by
the square of what its code counts, and the range is taken whose squared error is least.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel import golden
from refmodel.config import Cells, EngineConfig
from refmodel.errors import InputError
from refmodel.golden.cells import coding
from refmodel.golden.devices.converters import AdcRange
from refmodel.golden.layer import gather_columns, patches
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import ous_of_gathers

POSITIONS = 512
"""Output positions of a layer on which sums are counted, at most, evenly spaced."""

_PARTS = 4
"""Steps are tried in this part of a cell, and low ends in whole cells."""

_TRIED = 64
"""Steps and low ends that are tried, at most each: all of them with 1-bit cells and digits."""


def counted(
    layer: LayerProgram, codes: NDArray[np.uint8], config: EngineConfig, *, pairs: bool = False
) -> NDArray[np.float64]:
    """Count the sums of cells on bitlines, weighted by the squares of what their codes count.

    Parameters
    ----------
    codes
        uint8 [N, H, W, C], inputs of the layer.
    pairs
        Count differences of pairs, without their sign.

    Returns
    -------
    [largest sum + 1], by the number of cells.
    """
    most = layer.ou_rows * ((1 << config.cell_bits) - 1) * ((1 << config.dac_bits) - 1)
    flat = patches(layer, codes).reshape(-1, layer.kernel[0] * layer.kernel[1] * layer.in_shape[2])
    chosen = np.linspace(0, len(flat) - 1, min(POSITIONS, len(flat))).astype(int)
    flat = flat[np.unique(chosen)]
    programmed = (golden.pair_cells if pairs else golden.cells)(layer, config)
    by_column = programmed.transpose(0, 2, 1).reshape(-1, layer.ou_rows).astype(np.float32)
    shifts = np.arange(config.digits, dtype=np.uint8) * np.uint8(config.dac_bits)
    mask = np.uint8((1 << config.dac_bits) - 1)
    planes = (flat.T[:, None, :] >> shifts[:, None] & mask).astype(np.float32)
    weights = coding(layer, config, pairs=pairs)[0].astype(np.float64)
    weights = np.outer(weights**2, 4.0 ** (config.dac_bits * np.arange(config.digits)))
    rows, width = gather_columns(layer), config.columns_per_weight
    ous = ous_of_gathers(layer, config)
    first = (np.cumsum(ous) - ous) * config.ou_cols
    result = np.zeros(most + 1)
    for gather, (used, patterns) in enumerate(
        zip(layer.gather_rows.tolist(), layer.gather_patterns.tolist(), strict=True)
    ):
        lines = planes[rows[gather, :used]].reshape(used, -1)
        columns = by_column[first[gather] : first[gather] + patterns * width, :used]
        found = np.abs(columns @ lines).astype(np.int64)
        found = found.reshape(patterns, width, config.digits, -1)
        for column in range(width):
            for digit in range(config.digits):
                part = found[:, column, digit].ravel()
                result += weights[column, digit] * np.bincount(part, minlength=most + 1)
    return result


def best(
    counts: NDArray[np.float64], bits: int, config: EngineConfig, *, pairs: bool = False
) -> AdcRange:
    """Choose the range of some bits with the least squared error on counted sums.

    Of equal ones it is that with the smallest step, and then the lowest.
    """
    sums = np.arange(len(counts), dtype=np.float64)
    found: tuple[float, AdcRange] | None = None
    top = len(counts) - 1
    most = (1 << bits) - 1
    last = max(_PARTS, -(-_PARTS * top // most))
    steps = np.unique(np.linspace(_PARTS, last, min(_TRIED, last - _PARTS + 1)).astype(int))
    lows = np.unique(np.linspace(0, top, min(_TRIED, top + 1)).astype(int))
    for step in (steps / _PARTS).tolist():
        for low in [0] if pairs else lows.tolist():
            each = AdcRange(bits=bits, low=float(low), step=step)
            code = np.clip(np.rint((sums - low) / step), 0, most)
            value = np.clip(np.rint(low + step * code), 0, config.max_code)
            error = float(counts @ (value - sums) ** 2)
            if found is None or error < found[0]:
                found = error, each
    assert found is not None
    return found[1]


def calibrate(
    program: Program,
    codes: NDArray[np.uint8],
    config: EngineConfig,
    bits: int,
    *,
    pairs: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, AdcRange]:
    """Choose the range of every layer's converters on images.

    Parameters
    ----------
    codes
        uint8 [N, H, W, C], input codes of the network.
    bits
        Bits of the converters.

    Returns
    -------
    Ranges by the number of the layer.
    """
    numbers = {id(layer): number for number, layer in enumerate(program.layers)}
    result: dict[int, AdcRange] = {}

    def run(
        layer: LayerProgram,
        inputs: NDArray[np.uint8],
        residual: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        counts = counted(layer, inputs, config, pairs=pairs)
        result[numbers[id(layer)]] = best(counts, bits, config, pairs=pairs)
        if progress is not None:
            progress(len(result), len(program.layers))
        return golden.run_layer(layer, inputs, residual)

    golden.run_program(program, codes, layer_fn=run)
    return result


def save(
    ranges: Mapping[int, AdcRange], program: Program, path: str | Path, *, cells: Cells
) -> None:
    """Write ranges as JSON, by the names of their layers, with how the cells hold weights."""
    layers = {program.layers[number].name: asdict(each) for number, each in ranges.items()}
    found = {"cells": cells, "layers": layers}
    Path(path).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def load(path: str | Path, program: Program, *, cells: Cells) -> dict[int, AdcRange]:
    """Read what :func:`save` wrote, for the same program and cells.

    Raises
    ------
    InputError
        The file is not there, is not one of ranges, or is of other layers or cells.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"expected a file of ADC ranges, found none at {path}") from None
    try:
        found: Any = json.loads(text)
        entries = {str(name): dict(values) for name, values in found["layers"].items()}
        given = found["cells"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"expected ADC ranges by layer in JSON, found others in {file.name}"
        ) from None
    if given != cells:
        raise InputError(
            f"expected ADC ranges for {cells}, found some for {given!r} in {file.name}"
        )
    numbers = {layer.name: number for number, layer in enumerate(program.layers)}
    for name in entries:
        if name not in numbers:
            raise InputError(f"expected layers of the network, found {name!r} in {file.name}")
    result = {}
    for name, values in entries.items():
        try:
            result[numbers[name]] = AdcRange(**values)
        except (TypeError, ValueError) as problem:
            raise InputError(
                f"expected bits, low and step of {name}, found {problem} in {file.name}"
            ) from None
    return result
