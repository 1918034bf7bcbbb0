"""For ``prap inspect`` and ``prap evaluate``: contents and accuracy of a compiled network."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from prap_hw.app.console import Report, silent
from prap_hw.app.workflow import hints
from prap_hw.app.workflow.chips import cells_of, measure
from prap_hw.app.workflow.engines import EngineOptions, engine, folder_engine
from prap_hw.app.workflow.folders import (
    NETWORK_FILE,
    Paths,
    folder_of,
    load_program,
    names_of,
    summary_of,
)
from refmodel import golden
from refmodel.api import BATCH, float_accuracy, predict
from refmodel.config import Cells, EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices import calibration
from refmodel.golden.devices.device import Device
from refmodel.network.graph import FloatNetwork
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
        A folder that :func:`compress` wrote.
    config
        The engine; what is not chosen is as in the one that the network was compressed for. It is
        sized to the network.

    Returns
    -------
    dict
        ``engine``; ``layers`` and ``total``, see :class:`refmodel.predict.metrics.Metrics`.
    """
    program = load_program(folder)
    fitted = folder_engine(folder, program, config)
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
    adc_ranges: Paths | None = None,
    config: EngineOptions | EngineConfig | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Measure the accuracy of a compiled network and of the float network it came from.

    For a network that is no classifier (its output for an image is no vector), measure the
    signal-to-noise ratio of its outputs against those of the float network; images need no labels
    then.

    Parameters
    ----------
    limit
        Images used at most: the first of the file.
    device
        Device files, or names of packaged ones. None, but ``cells`` or bits of an ADC code in
        ``config``, or an engine whose codes clip: the packaged device ``ideal``, on which those
        apply. None at all: the exact arithmetic of the golden model.
    cells
        How the cells of devices hold weights: in ``twos-complement`` (the weight + 128 where cells
        have 2 or 4 bits), or as differential ``pairs`` of cells; None: as those of the engine do.
    trials
        Chips drawn from each device; None: 5. InputError without a device.
    seed
        Seed of the first chip; the next have ``seed + 1`` and so on; None: 0. InputError without a
        device.
    adc_ranges
        File of the ranges of the layers' converters, which
        :func:`prap_hw.app.workflow.chips.adc_ranges` wrote. Without a device they apply to
        ``ideal``.
    config
        The engine whose cells and converters the devices are, as for :func:`inspect`.

    Returns
    -------
    dict
        ``images``, their number; ``accuracy``: ``float``, and ``int8`` (scheme dense) or the name
        of the scheme, as shares of 1; of a network that is no classifier in its place ``snr``, in
        dB by the same names (None: not a single difference); ``preprocess``, how pixels became
        inputs, and ``hints``, sentences on what may be wrong with that. With devices also
        ``devices``, of each: ``name``, ``cells``, ``adc_bits``, ``values``; and of its chips
        ``seeds``, ``accuracy`` of each, ``mean``, ``spread``, their standard deviation, and
        ``interval``, half of the 95 % confidence interval of the mean (both None of one chip);
        ``conversions`` of a chip, and how many of them ``clipped`` on each; and ``programming`` of
        the first, ``cells``, ``writes``, ``energy_nj`` and ``time_ms``.
    """
    from refmodel.exchange.onnx.load import load_onnx

    if cells not in (None, *get_args(Cells)):
        raise InputError(f"expected {' or '.join(get_args(Cells))}, found {cells!r} as cells")
    names = [device] if isinstance(device, Paths) else list(device)
    given = [name for name, value in {"trials": trials, "seed": seed}.items() if value is not None]
    if given and not names:
        raise InputError(f"expected a device with {' and '.join(given)}, found none")
    engine(config)  # what no engine has is refused at once
    kinds = [Device.load(name) for name in names]
    program = load_program(folder)
    clips = False
    if not kinds and program.layers:
        clips = not folder_engine(folder, program, config).lossless
    ranges = None
    if adc_ranges is not None:
        own = cells_of(folder_engine(folder, program, config), cells)
        ranges = calibration.load(adc_ranges, program, cells=own)
    if ranges and _code_bits(config) is not None:
        raise InputError("expected bits of an ADC code or ADC ranges, found both")
    if not kinds and (cells is not None or _code_bits(config) is not None or clips or ranges):
        kinds = [Device.load(IDEAL)]
    trials, seed = 5 if trials is None else trials, seed or 0
    floats = load_onnx(folder_of(folder) / NETWORK_FILE)
    x, y = load_images(images, **Preprocess.from_dict(program.preprocess).sizes)
    scheme = str(program.about.get("scheme", "dense"))
    kept = summary_of(folder).get("preprocess") or {}
    noted = {"preprocess": program.preprocess}
    if not is_classifier(floats):
        if kinds:
            check_classifier(floats, "accuracy on devices")
        inputs = Preprocess.from_dict(program.preprocess).apply(
            x[:limit], floats.input_shape, source=names_of(images)
        )
        hint = hints.pixel_hint(kept.get("images"), x[:limit])
        found = snr(program, floats, inputs, report=report)
        return noted | {
            "images": len(inputs),
            "snr": {"int8" if scheme == "dense" else scheme: found},
            "hints": [] if hint is None else [hint],
        }
    if y is None:
        raise InputError(f"expected images with labels, found none in {names_of(images)}")
    x, y = x[:limit], y[:limit]
    preprocess = Preprocess.from_dict(program.preprocess)
    hint = hints.pixel_hint(kept.get("images"), x) or hints.training_hint(floats, x, y, preprocess)
    inputs = preprocess.apply(x, floats.input_shape, source=names_of(images))
    accuracy = {"float": float_accuracy(floats, inputs, y, report=report)}
    accuracy["int8" if scheme == "dense" else scheme] = program_accuracy(
        program, inputs, y, stage=f"evaluate in 8 bits ({scheme})", report=report
    )
    figures: dict[str, Any] = {"images": len(y), "accuracy": accuracy} | noted
    figures["hints"] = [] if hint is None else [hint]
    if not kinds:
        return figures
    fitted = folder_engine(folder, program, config)
    codes = golden.quantise_input(program, inputs)
    found = [
        measure(
            program,
            codes,
            y,
            kind,
            fitted,
            seeds=range(seed, seed + trials),
            cells=cells_of(fitted, cells),
            ranges=ranges,
            report=report,
        )
        for kind in kinds
    ]
    return figures | {"devices": found}


def is_classifier(network: FloatNetwork) -> bool:
    """Whether the output for an image is a vector, one value to a class."""
    return sum(side > 1 for side in network.output_shape) <= 1


def check_classifier(network: FloatNetwork, wanted: str) -> None:
    """Check that a network is a classifier.

    Parameters
    ----------
    network
        The network.
    wanted
        The figure that only a classifier has, in words, for the message.

    Raises
    ------
    InputError
        The output for an image is not a vector.
    """
    if not is_classifier(network):
        shape = "x".join(map(str, network.output_shape))
        raise InputError(
            f"expected a network with a vector as its output, for {wanted}, found outputs of "
            f"{shape} in {Path(network.source).name}"
        )


def snr(
    program: Program, network: FloatNetwork, inputs: NDArray, *, report: Report = silent
) -> float | None:
    """Signal-to-noise ratio of a program's outputs against those of its float network, in dB.

    The power of the float network's outputs over that of the differences, over all images; None
    where nothing differs.
    """
    stage = "compare outputs with the float network"
    signal = noise = 0.0
    for start in range(0, len(inputs), BATCH):
        report(stage, start, len(inputs))
        part = inputs[start : start + BATCH]
        wanted = network.forward(part).reshape(len(part), -1).astype(np.float64)
        found = golden.logits(program, golden.quantise_input(program, part))
        signal += float(np.square(wanted).sum())
        noise += float(np.square(wanted - found).sum())
    report(stage, len(inputs), len(inputs))
    return None if noise == 0 else 10 * math.log10(max(signal, sys.float_info.min) / noise)


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
