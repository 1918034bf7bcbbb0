"""For ``prap inspect`` and ``prap evaluate``: contents and accuracy of a compiled network."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from prap_hw.app.console import Report, silent
from prap_hw.app.workflow.engines import EngineOptions, engine, engine_for
from prap_hw.app.workflow.folders import NETWORK_FILE, Paths, folder_of, load_program, names_of
from refmodel import golden
from refmodel.api import float_accuracy, predict
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.chip import accuracy as chip_accuracy
from refmodel.golden.devices.device import Cells, Device
from refmodel.network.images import Preprocess, load_images
from refmodel.predict.metrics import network_metrics
from refmodel.program.program import Program

IDEAL = "ideal"
"""Name of the packaged device without a fault."""


def inspect(
    folder: Paths,
    *,
    config: EngineOptions | EngineConfig | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Count what a compiled network holds, and does for one image.

    Parameters
    ----------
    folder
        What :func:`compress` wrote.
    config
        The engine; it is sized to the network.

    Returns
    -------
    dict
        ``engine``; ``layers`` and ``total``, see :class:`refmodel.predict.metrics.Metrics`.
    """
    program = load_program(folder)
    fitted = engine_for(program, config)
    predictions = predict(program, fitted, report=report)
    found = network_metrics(program, fitted, predictions)
    return {"engine": dataclasses.asdict(fitted), **found.to_dict()}


def evaluate(
    folder: Paths,
    images: Paths | Sequence[Paths],
    *,
    limit: int | None = None,
    device: Paths | Sequence[Paths] = (),
    cells: Cells | None = None,
    trials: int | None = None,
    seed: int | None = None,
    config: EngineOptions | EngineConfig | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Measure the accuracy of a compiled network and of the float network it came from.

    Parameters
    ----------
    limit
        Images used at most: the first of the file.
    device
        Device files, or names of packaged ones. None, but ``cells`` or bits of an ADC code in
        ``config``: the packaged device ``ideal``, on which those apply. None at all: the exact
        arithmetic of the golden model.
    cells
        How the cells of devices hold weights: as those of the RTL do, in ``twos-complement`` (the
        weight + 128 where cells have 2 or 4 bits; None: so), or as differential ``pairs`` of cells.
    trials
        Chips drawn from each device; None: 5. InputError without a device.
    seed
        Seed of the first chip; the next have ``seed + 1`` and so on; None: 0. InputError without a
        device.
    config
        The engine whose cells and converters the devices are; it is sized to the network.

    Returns
    -------
    dict
        ``images``, their number; ``accuracy``: ``float``, and ``int8`` (scheme dense) or the name
        of the scheme, as shares of 1. With devices also ``devices``, of each: ``name``, ``cells``,
        ``adc_bits``, ``values``; and of its chips ``seeds``, ``accuracy`` of each, ``mean``, and
        ``spread``, their standard deviation (None of one chip).
    """
    from refmodel.exchange.onnx.load import load_onnx

    if cells not in (None, *get_args(Cells)):
        raise InputError(f"expected {' or '.join(get_args(Cells))}, found {cells!r} as cells")
    names = [device] if isinstance(device, Paths) else list(device)
    given = [name for name, value in {"trials": trials, "seed": seed}.items() if value is not None]
    if given and not names:
        raise InputError(f"expected a device with {' and '.join(given)}, found none")
    engine(config)  # what no engine has is refused at once
    if not names and (cells is not None or _code_bits(config) is not None):
        names = [IDEAL]
    cells = cells or "twos-complement"
    trials, seed = 5 if trials is None else trials, seed or 0
    kinds = [Device.load(name) for name in names]
    program = load_program(folder)
    floats = load_onnx(folder_of(folder) / NETWORK_FILE)
    x, y = load_images(images)
    if y is None:
        raise InputError(f"expected images with labels, found none in {names_of(images)}")
    x, y = x[:limit], y[:limit]
    scheme = str(program.about.get("scheme", "dense"))
    preprocess = Preprocess.from_dict(program.preprocess)
    inputs = preprocess.apply(x, floats.input_shape, source=names_of(images))
    accuracy = {"float": float_accuracy(floats, inputs, y, report=report)}
    accuracy["int8" if scheme == "dense" else scheme] = program_accuracy(
        program, inputs, y, stage=f"evaluate in 8 bits ({scheme})", report=report
    )
    figures: dict[str, Any] = {"images": len(y), "accuracy": accuracy}
    if not kinds:
        return figures
    fitted = engine_for(program, config)
    codes = golden.quantise_input(program, inputs)
    found = []
    for kind in kinds:
        rights = []
        for number in range(seed, seed + trials):
            stage = f"evaluate chip {number} of {kind.name}"
            if rights and not kind.varies:  # all its chips are the same
                rights.append(rights[0])
                continue
            report(stage, 0, len(codes))
            chip = Chip(device=kind, config=fitted, seed=number, pairs=cells == "pairs")
            rights.append(chip_accuracy(program, codes, y, chip, progress=partial(report, stage)))
        found.append(
            {
                "name": kind.name,
                "cells": cells,
                "adc_bits": fitted.code_bits,
                "values": kind.values(),
                "seeds": list(range(seed, seed + trials)),
                "accuracy": rights,
                "mean": float(np.mean(rights)),
                "spread": float(np.std(rights, ddof=1)) if trials > 1 else None,
            }
        )
    return figures | {"devices": found}


def _code_bits(config: EngineOptions | EngineConfig | None) -> int | None:
    """Bits of an ADC code that were chosen; None where they were not."""
    if isinstance(config, EngineConfig):
        return config.adc_bits or None
    return (config or {}).get("adc_bits")


def program_accuracy(
    program: Program,
    inputs: NDArray,
    labels: NDArray,
    *,
    stage: str,
    report: Report = silent,
) -> float:
    """Share of network inputs that the golden model of a program puts into the right class."""
    report(stage, 0, len(inputs))
    return golden.accuracy(
        program, inputs, labels, progress=lambda done, total: report(stage, done, total)
    )
