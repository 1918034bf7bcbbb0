"""Accuracy on chips: of a device, of its effects one by one, and with other converters."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prap_hw.app.console import Report, silent
from prap_hw.app.intervals import half_width
from prap_hw.app.workflow.engines import EngineOptions, folder_engine
from prap_hw.app.workflow.folders import Paths, input_codes, load_program, names_of
from refmodel.config import Cells, EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices import calibration
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.chip import accuracy as chip_accuracy
from refmodel.golden.devices.converters import AdcRange
from refmodel.golden.devices.device import Device
from refmodel.network.images import Preprocess, load_images
from refmodel.program.program import Program

CALIBRATION = 32
"""Images on which ranges are chosen where the number is not given."""


def measure(
    program: Program,
    codes: NDArray[np.uint8],
    labels: NDArray,
    device: Device,
    config: EngineConfig,
    *,
    seeds: Sequence[int],
    cells: Cells = "twos-complement",
    ranges: Mapping[int, AdcRange] | None = None,
    report: Report = silent,
    name: str | None = None,
) -> dict[str, Any]:
    """Measure the accuracy of a program on chips of a device.

    Returns
    -------
    dict
        As of ``devices`` of :func:`prap_hw.app.workflow.evaluate`.
    """
    rights: list[float] = []
    clipped: list[int] = []
    conversions = 0
    cost: dict[str, float] | None = None
    for number in seeds:
        if rights and not device.varies:  # all its chips are the same
            rights.append(rights[0])
            clipped.append(clipped[0])
            continue
        stage = f"evaluate chip {number} of {name or device.name}"
        report(stage, 0, len(codes))
        chip = Chip(
            device=device,
            config=config,
            seed=number,
            pairs=cells == "pairs",
            ranges=dict(ranges or {}),
        )
        rights.append(chip_accuracy(program, codes, labels, chip, progress=partial(report, stage)))
        clipped.append(chip.tally.clipped)
        conversions = chip.tally.conversions
        written = dataclasses.asdict(chip.written) | chip.written.cost(device)
        cost = cost or written
    return {
        "name": name or device.name,
        "cells": cells,
        "adc_bits": _bits(config, ranges),
        "values": device.values(),
        "seeds": list(seeds),
        "accuracy": rights,
        "mean": float(np.mean(rights)),
        "spread": float(np.std(rights, ddof=1)) if len(rights) > 1 else None,
        "interval": half_width(rights),
        "conversions": conversions,
        "clipped": clipped,
        "programming": cost,
    }


def _bits(config: EngineConfig, ranges: Mapping[int, AdcRange] | None) -> int:
    """Bits of the converters: the most of any layer's range, or those of the engine's codes."""
    return max((each.bits for each in (ranges or {}).values()), default=config.code_bits)


def cells_of(config: EngineConfig, cells: Cells | None) -> Cells:
    """How cells hold weights: as was asked for, else as those of the engine do.

    Raises
    ------
    InputError
        The engine has pairs, and two's complement was asked for.
    """
    if not config.pairs:
        return cells or "twos-complement"
    if cells == "twos-complement":
        raise InputError("expected pairs as cells of an engine with pairs, found twos-complement")
    return "pairs"


def by_effect(
    folder: Paths,
    images: Paths | Sequence[Paths],
    device: Paths | Device,
    *,
    limit: int | None = None,
    cells: Cells | None = None,
    trials: int = 5,
    seed: int = 0,
    config: EngineOptions | EngineConfig | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Measure a program on the same chips with all effects of a device, each alone, and without it.

    Chips of the same number have the same random numbers in all of them, so that accuracies are
    compared chip by chip.

    Returns
    -------
    dict
        ``device``, ``images``; ``ideal`` and ``all``, as of :func:`measure`; ``effects``, of each
        ``name``, ``alone`` and ``without`` likewise, ``loss`` (ideal less alone) and ``gain``
        (without less all), each with ``mean`` and ``interval``, half of the one of 95 %, in shares
        of 1; ``decides``, the name of the effect whose removal gains most, where all chips together
        show that it gains anything and more than the next, else None.
    """
    kind = device if isinstance(device, Device) else Device.load(device)
    names = kind.effects()
    if not names:
        raise InputError(f"expected a device with effects, found none in {kind.name}")
    program = load_program(folder)
    x, y = load_images(images, **Preprocess.from_dict(program.preprocess).sizes)
    if y is None:
        raise InputError(f"expected images with labels, found none in {names_of(images)}")
    x, labels = x[:limit], y[:limit]
    codes = input_codes(program, x, source=names_of(images))
    fitted = folder_engine(folder, program, config)
    run = partial(
        measure,
        program,
        codes,
        labels,
        config=fitted,
        seeds=range(seed, seed + trials),
        cells=cells_of(fitted, cells),
        report=report,
    )
    ideal = run(device=kind.only(()), name="ideal")
    whole = run(device=kind, name="all")
    found = []
    for name in names:
        alone = run(device=kind.only((name,)), name=f"{name} alone")
        without = (
            ideal
            if len(names) == 1
            else run(device=kind.only(set(names) - {name}), name=f"all but {name}")
        )
        found.append(
            {
                "name": name,
                "alone": alone,
                "without": without,
                "loss": _paired(ideal, alone),
                "gain": _paired(without, whole),
            }
        )
    return {
        "device": kind.name,
        "images": len(labels),
        "ideal": ideal,
        "all": whole,
        "effects": found,
        "decides": _decides(found),
    }


def _paired(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Mean of the differences chip by chip, and half of their interval."""
    less = [a - b for a, b in zip(one["accuracy"], other["accuracy"], strict=True)]
    return {"mean": float(np.mean(less)), "interval": half_width(less)}


def _decides(found: Sequence[Mapping[str, Any]]) -> str | None:
    """Name the effect without which accuracy is higher than without any other."""
    ranked = sorted(found, key=lambda each: each["gain"]["mean"], reverse=True)
    first = ranked[0]
    half = first["gain"]["interval"]
    if half is None or first["gain"]["mean"] <= half:
        return None
    if len(ranked) > 1:
        apart = _paired(first["without"], ranked[1]["without"])
        if apart["mean"] <= (apart["interval"] or 0.0):
            return None
    return first["name"]


def adc_ranges(
    folder: Paths,
    images: Paths | Sequence[Paths],
    out: Path | str,
    *,
    bits: int,
    count: int = CALIBRATION,
    cells: Cells | None = None,
    config: EngineOptions | EngineConfig | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Choose the range of each layer's converters on images, and write them to a file.

    Returns
    -------
    dict
        ``bits``, ``cells``, ``images``; ``layers``, by name ``bits``, ``low`` and ``step``.
    """
    if not 1 <= bits <= 13:
        raise InputError(f"expected 1 to 13 bits of a converter, found {bits}")
    program = load_program(folder)
    x, _ = load_images(images, **Preprocess.from_dict(program.preprocess).sizes)
    codes = input_codes(program, x[:count], source=names_of(images))
    fitted = folder_engine(folder, program, config)
    cells = cells_of(fitted, cells)
    found = calibration.calibrate(
        program,
        codes,
        fitted,
        bits,
        pairs=cells == "pairs",
        progress=partial(report, "count sums on bitlines"),
    )
    calibration.save(found, program, out, cells=cells)
    layers = {
        program.layers[number].name: dataclasses.asdict(each) for number, each in found.items()
    }
    return {"bits": bits, "cells": cells, "images": len(codes), "layers": layers}
