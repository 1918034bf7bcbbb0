"""Co-simulation: a program's layers through the emitted Verilog, every value compared.

:func:`cosim` writes the prediction, builds the simulation (or finds it built), runs
:mod:`sim.bench_engine` in it, and returns what was compared. Nothing of the golden model's results
enters the simulation but what stands on the comparing side.
"""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.lib import data

from prap_hw.common.layouts import COUNTERS, Layouts
from prap_hw.deliver.load import layer_image
from prap_hw.deliver.verilog import TOP, engine_verilog
from refmodel import files, golden
from refmodel.config import MAX_SHIFT, MIN_SHIFT, SHIFT_NONE, EngineConfig
from refmodel.errors import InputError
from refmodel.golden import devices
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.device import Device
from refmodel.golden.layer import check_codes
from refmodel.predict import cycles
from refmodel.program import sizes
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from sim import bench_engine, crossbar_model, streams, verilator, waves
from sim.bench_engine import KINDS, PERIOD, expected_records, expected_values
from sim.kept import digest
from sim.streams import split, words_of

Progress = Callable[[str, int, int], None]
"""``progress(stage, done, total)``."""

PLANTS = ("code", "shift", "index")
"""Faults that can be planted."""

WAVEFORM = "first_difference.fst"
"""Name of the waveform around the first difference."""

WINDOW = "window.fst"
"""Name of the waveform of a window that was asked for."""

PORTS = ("emulated", "open")
"""What is at the engine's crossbar port: emulated crossbars in Verilog, or the Python model."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value that is not as it should be.

    Attributes
    ----------
    layer, image
        Name of the layer; number of the image.
    kind
        One of :data:`sim.bench_engine.KINDS`, ``cycles``, ``counter ...`` or ``hang``.
    position
        Output row and column; None where there is none.
    where
        Request, slot or output within the position.
    expected, got
        Values; ``nothing`` for one that is missing or too many.
    """

    layer: str
    image: int
    kind: str
    position: tuple[int, int] | None
    where: str
    expected: str
    got: str

    def __str__(self) -> str:
        place = [f"layer {self.layer}", f"image {self.image}"]
        if self.position is not None:
            place.append(f"position {self.position[0]},{self.position[1]}")
        if self.where:
            place.append(self.where)
        kind = self.kind.replace("_", " ")
        return f"{kind}: {', '.join(place)}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """What a layer took.

    Attributes
    ----------
    name
        The layer's name.
    cycles_predicted
        Of one image, made before.
    cycles_simulated
        Of each image: start accepted to last output accepted, counted outside the engine.
    counters
        The engine's counters of the first image.
    """

    name: str
    cycles_predicted: int
    cycles_simulated: tuple[int, ...]
    counters: Mapping[str, int]

    @property
    def cycles(self) -> int:
        """Simulated cycles of an image; the one farthest from the prediction."""
        return max(self.cycles_simulated, key=lambda n: abs(n - self.cycles_predicted), default=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class CosimResult:
    """What a co-simulation found.

    Attributes
    ----------
    compared
        Kind of value to ``{"values", "expected", "different"}``: how many were compared, how many
        the program makes, how many differ (missing and extra ones among them).
    layers
        One to a layer that ran.
    logits
        Output codes of the network as the RTL gave them, uint8 [N, H, W, C]; None after a hang.
    difference
        The first difference, or None.
    differences
        The first difference of each kind, layer and image, in order.
    waveform
        Waveform (FST) around the first difference, or None; a save file of GTKWave is beside it.
    window
        The same of the window that was asked for, or None.
    planted
        What was planted, in words, or None.
    simulated_cycles, seconds, build_seconds
        Clock cycles in all; seconds of the simulation (its start and the golden model included) and
        of the build.
    engine_seconds
        Bulk tier: CPU seconds in the simulated engine alone.
    kept
        Images of layers that an earlier run had simulated, of all layers together.
    """

    compared: dict[str, dict[str, int]]
    layers: tuple[LayerResult, ...]
    logits: np.ndarray | None
    difference: Difference | None
    differences: tuple[Difference, ...]
    waveform: Path | None
    planted: str | None
    simulated_cycles: int
    seconds: float
    build_seconds: float
    engine_seconds: float | None = None
    kept: int = 0
    window: Path | None = None

    @property
    def cycles_per_second(self) -> float:
        """Simulated clock cycles a second; of CPU time in the engine where that was taken."""
        return self.simulated_cycles / (self.engine_seconds or self.seconds)


def cosim(
    program: Program,
    codes: np.ndarray,
    config: EngineConfig,
    folder: Path | str,
    *,
    port: str = "emulated",
    device: Device | None = None,
    chip: int = 0,
    plant: str | None = None,
    stall: float = 0.0,
    seed: int = 0,
    keep: bool = False,
    waveform: bool = True,
    window: waves.Window | None = None,
    cache: Path | str = verilator.CACHE,
    progress: Progress | None = None,
    mutant: str | None = None,
) -> CosimResult:
    """Run input codes through the RTL of an engine, layer after layer, and compare every value.

    Parameters
    ----------
    program
        A compiled network; its layers must fit ``config``.
    codes
        Input codes, uint8 [N, H, W, C].
    config
        The engine; it gets trace ports whether it has them or not.
    folder
        For ``predicted.json`` (written before anything is built or run), the job, its log and
        waveform.
    port
        ``emulated``: crossbars in Verilog; ``open``: :mod:`sim.crossbar_model` at the port.
    device, chip
        Cells and converters that are not ideal, and the number of the chip that is drawn of them:
        it stands at the port, which is open then, and the golden model goes through the same.
    plant
        A fault to plant, chosen by ``seed`` among those that must show: ``code`` flips a bit of one
        ADC code of the first image between crossbar and engine (the port is open then); ``shift``
        changes the shift of one reuse word in the loaded image, one whose partial sum is not 0
        throughout the first image; ``index`` changes another index word: a reuse word's slot or a
        segment's kernel position, one with which the golden model has other requests or
        accumulators for the first image.
    stall
        Share of the cycles in which each stream pauses; with an open port the crossbar port's too.
    seed
        Of stalls and faults.
    keep
        Take up the runs of images through layers that earlier co-simulations in the same folder
        have finished without a difference, and keep those of this one; not with stalls, a fault or
        a mutant. What is kept are digests, which the golden model must give again.
    waveform
        Whether to run a failing layer and image again with a waveform of the cycles around the
        first difference.
    window
        Cycles of a layer's first image to record, in a run of that layer alone.
    cache
        Where builds are kept.
    progress
        Is told of stages.
    mutant
        For tests: a bench that is wrong itself (``forget``: loses the last output of each image;
        ``deaf``: never takes it; ``slow``: the Python crossbar answers one cycle late;
        ``ordinal``: the chip at the port counts its requests from 1).

    Raises
    ------
    InputError
        A tool is missing, a layer does not fit, there is nothing to plant in, or no layer to show.
    RuntimeError
        The simulation could not be built, or ended by itself.
    """
    if port not in PORTS:
        raise ValueError(f"port must be one of {PORTS}, not {port!r}")
    if plant is not None and plant not in PLANTS:
        raise ValueError(f"plant must be one of {PLANTS}, not {plant!r}")
    if not 0 <= stall < 1:
        raise ValueError(f"stall must be from 0 to below 1, not {stall!r}")
    if device is not None:
        # What no chip can have for a number is refused before anything is built.
        Chip(device=device, config=config, seed=chip)
    check_codes(codes, tuple(program.tensors[program.input]["shape"]), program.input)
    tell = progress if progress is not None else _silent
    if plant == "code" or device is not None:
        port = "open"
    config = dataclasses.replace(config, trace=True)
    for layer in program.layers:
        sizes.check_fits(layer, config)
    folder = Path(folder).absolute()
    files.make_folder(folder)
    stale = ["result.json", "progress.jsonl", "logits.npy", "failing.npy", "kept.npy"]
    for name in (*stale, *_wave_files(WAVEFORM), *_wave_files(WINDOW)):
        (folder / name).unlink(missing_ok=True)

    predicted = predict(program, config, len(codes))
    (folder / "predicted.json").write_text(json.dumps(predicted, indent=1) + "\n")

    show_layer = None if window is None else layer_of(program, window)
    planted, loaded, plant_code = _plant(program, codes, config, plant, seed)
    job = job_of(config, predicted) | {
        "open": port == "open",
        "stall": stall,
        "seed": seed,
        "input_of": show_layer,
        "plant_code": plant_code,
        "device": None if device is None else {"values": device.values(), "chip": chip},
        "mutant": mutant,
    }
    began = time.monotonic()
    model = build_engine(config, open_port=port == "open", cache=cache, progress=tell)
    if keep and not (stall or plant or mutant):
        job["keep"] = _simulation_name(model)
    _write_job(folder, job, program, loaded, codes, config)
    built = time.monotonic()
    found = _simulate(model, folder, tell)
    seconds = time.monotonic() - built
    differences = _differences(found)
    wave = recorded = None
    failing, kept = folder / "failing.npy", folder / "kept.npy"
    show = functools.partial(
        record, folder, job, program=program, loaded=loaded, config=config, cache=cache, tell=tell
    )
    if differences and waveform and found["differences"] and failing.exists():
        first = found["differences"][0]
        only = {"layer": first["layer"], "image": first["image"]}
        wave = of_difference(functools.partial(show, WAVEFORM, only, np.load(failing), None), tell)
    if window is not None and show_layer is not None and kept.exists():
        recorded = show(WINDOW, {"layer": show_layer, "image": 0}, np.load(kept), window)
    expected = predicted["expected"]
    logits = folder / "logits.npy"
    return CosimResult(
        compared={
            kind: {
                "values": found["compared"][kind]["values"],
                "expected": expected[kind],
                "different": found["compared"][kind]["different"],
            }
            for kind in KINDS
        },
        layers=tuple(
            LayerResult(
                name=layer["name"],
                cycles_predicted=entry["cycles"],
                cycles_simulated=tuple(layer["cycles"]),
                counters=layer["counters"][0] if layer["counters"] else {},
            )
            for layer, entry in zip(found["layers"], predicted["layers"], strict=False)
        ),
        logits=np.load(logits) if logits.exists() else None,
        difference=differences[0] if differences else None,
        differences=tuple(differences),
        waveform=wave,
        planted=planted,
        simulated_cycles=found["simulated_cycles"],
        seconds=seconds,
        build_seconds=built - began,
        window=recorded,
        kept=found["kept"],
    )


def _simulation_name(model: Path) -> str:
    """Name of a build together with all that runs beside it in Python: runs are kept under it."""
    parts = (bench_engine, crossbar_model, devices, streams)
    return digest(model.name, *(Path(str(part.__file__)).read_text("utf-8") for part in parts))


def job_of(config: EngineConfig, predicted: Mapping[str, Any]) -> dict[str, Any]:
    """Make a bench's job of all layers and images, with nothing planted and no pauses.

    Parameters
    ----------
    predicted
        What :func:`predict` returned.
    """
    return {
        "config": dataclasses.asdict(config),
        "fields": payload_fields(config),
        "counters": COUNTERS,
        "layers": predicted["layers"],
        "open": False,
        "stall": 0.0,
        "seed": 0,
        # A layer and image to run alone; a layer of which the first image's input is kept; first
        # and last cycle of a waveform, with which the run ends.
        "only": None,
        "input_of": None,
        "window": None,
        "plant_code": None,
        # Name of the simulation under which runs are kept; a chip at the open port.
        "keep": None,
        "device": None,
        "mutant": None,
    }


def predict(program: Program, config: EngineConfig, images: int) -> dict[str, Any]:
    """Work out what a co-simulation must show, from the program alone.

    Returns
    -------
    ``layers``: per layer its name, the prediction of one image, and ``records``, the words of each
    kind; ``expected``: values of each kind over all layers and images.
    """
    layers = []
    expected = dict.fromkeys(KINDS, 0)
    for layer in program.layers:
        prediction = dataclasses.asdict(cycles.predict(layer, config))
        layers.append(
            {"name": layer.name, **prediction, "records": expected_records(layer, config)}
        )
    for step in program.steps:
        if step.op == "layer":
            counts = expected_values(program.layers[step.params["index"]], config)
            for kind in KINDS:
                expected[kind] += counts[kind] * images
    return {"images": images, "layers": layers, "expected": expected}


def payload_fields(config: EngineConfig) -> dict[str, dict[str, tuple[int, int]]]:
    """Offset and width of each field of the payloads that the bench reads or writes."""
    layouts = Layouts(config)
    return {
        "request": _fields(layouts.request),
        "cells": _fields(layouts.cells),
        "acts": _fields(layouts.acts),
        "output": _fields(layouts.output),
        "psum": _fields(layouts.trace_psum),
        "acc": _fields(layouts.trace_acc),
    }


def payload_widths(config: EngineConfig) -> dict[str, int]:
    """Bits of the payloads, parameters of ``bench.sv`` and ``bulk.sv``."""
    layouts = Layouts(config)
    return {
        "LOAD": layouts.load.size,
        "CELLS": layouts.cells.size,
        "ACTS": layouts.acts.size,
        "OUT": layouts.output.size,
        "REQUEST": layouts.request.size,
        "RESPONSE": layouts.response.size,
        "PSUM": layouts.trace_psum.size,
        "PSUMS": layouts.columns.ends,
        "ACC": layouts.trace_acc.size,
    }


def _fields(layout: data.StructLayout) -> dict[str, tuple[int, int]]:
    return {str(name): (field.offset, field.width) for name, field in layout}


def build_engine(
    config: EngineConfig,
    *,
    open_port: bool = False,
    waves: bool = False,
    cache: Path | str = verilator.CACHE,
    progress: Progress | None = None,
) -> Path:
    """Build the simulation of an engine, or find it built; returns its folder."""
    tell = progress if progress is not None else _silent
    stage = "build the simulation" + (" with waveforms" if waves else "")
    tell(stage, 0, 1)
    model = verilator.build(
        _verilog(config, open_port),
        TOP[open_port],
        widths=payload_widths(config),
        open_port=open_port,
        waves=waves,
        cache=cache,
    )
    tell(stage, 1, 1)
    return model


@functools.lru_cache(maxsize=4)
def _verilog(config: EngineConfig, open_port: bool) -> str:
    return engine_verilog(config, open_port=open_port)


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _write_job(
    folder: Path,
    job: Mapping[str, Any],
    program: Program,
    loaded: Mapping[int, LayerProgram],
    codes: np.ndarray,
    config: EngineConfig,
) -> None:
    """Write all that the bench reads. ``loaded`` has the layers whose image is another's."""
    layouts = Layouts(config)
    for index, layer in enumerate(program.layers):
        image = layer_image(loaded.get(index, layer), config)
        np.savez(
            folder / f"layer{index}.npz",
            words=split(image.words, words_of(layouts.load.size)),
            beats=split(image.beats, words_of(layouts.cells.size)),
        )
    np.save(folder / "codes.npy", codes)
    program.save(folder / "program.prap")
    (folder / "job.json").write_text(json.dumps(job))


def _simulate(
    model: Path, folder: Path, tell: Progress, *, plusargs: Sequence[str] = ()
) -> dict[str, Any]:
    """Run a job in a process of its own; returns what the bench found."""
    log = folder / "simulation.log"
    result, lines = folder / "result.json", folder / "progress.jsonl"
    settings = {
        "model": str(model),
        "folder": str(folder),
        "plusargs": [*verilator.RANDOM_MEMORIES, *plusargs],
    }
    errors = folder / "worker.log"
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "sim.worker", json.dumps(settings)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    seen = 0
    try:
        ended = False
        while not ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
                ended = True
            if lines.exists():
                text = lines.read_text()
                whole = text[: text.rfind("\n") + 1].splitlines()
                for line in whole[seen:]:
                    tell(*json.loads(line))
                seen = len(whole)
    finally:
        # The worker and the simulator in it: nothing goes on when this ends, for whatever reason.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode or not result.exists():
        tail = [
            line
            for path in (log, errors)
            if path.exists()
            for line in path.read_text(errors="replace").splitlines()[-25:]
        ]
        raise RuntimeError("\n".join([f"the simulation ended by itself, see {log}", *tail]))
    return json.loads(result.read_text())


def _differences(found: Mapping[str, Any]) -> list[Difference]:
    """Differences in the order of layers and images; a hang is the last."""
    differences = [
        Difference(
            layer=entry["name"],
            image=entry["image"],
            kind=entry["kind"],
            position=tuple(entry["position"]) if "position" in entry else None,
            where=entry.get("where", ""),
            expected=entry["expected"],
            got=entry["got"],
        )
        for entry in found["differences"]
    ]
    if found["hang"] is not None:
        layer = found["layers"][-1]
        differences.append(
            Difference(
                layer=layer["name"],
                image=len(layer["cycles"]) - 1,
                kind="hang",
                position=None,
                where="",
                expected="an end",
                got=found["hang"],
            )
        )
    return differences


def layer_of(program: Program, window: waves.Window) -> int:
    """Index of the layer that a window is of.

    Raises
    ------
    InputError
        There is no such layer, or what writes waveforms is missing.
    """
    waves.require()
    names = [layer.name for layer in program.layers]
    if window.layer is None:
        return 0
    if window.layer not in names:
        raise InputError(
            f"expected one of the layers {', '.join(names)} for a waveform, found {window.layer!r}"
        )
    return names.index(window.layer)


def record(
    folder: Path,
    job: Mapping[str, Any],
    name: str,
    only: Mapping[str, int],
    codes: np.ndarray,
    window: waves.Window | None,
    *,
    program: Program,
    loaded: Mapping[int, LayerProgram],
    config: EngineConfig,
    cache: Path | str,
    tell: Progress,
) -> Path | None:
    """Run a layer and image alone and record a window, or what is around its first difference.

    The run is in the protocol tier, in a build of its own that can write waveforms.

    Parameters
    ----------
    folder
        Where the waveform ``name`` and its save file go, and the run's own files into ``waveform``.
    job
        As the bench had it, see :func:`job_of`.
    only
        ``layer`` and ``image``, numbers.
    codes
        Input codes of that image in that layer, uint8 [1, H, W, C].
    window
        None: what is around the first difference.

    Returns
    -------
    The waveform; None where nothing differs when the layer runs alone.
    """
    waves.require()
    again = folder / "waveform"
    layer = program.layers[only["layer"]].name
    mark = None

    def run(model: Path, change: Mapping[str, Any], *plusargs: str) -> dict[str, Any]:
        shutil.rmtree(again, ignore_errors=True)
        again.mkdir()
        _write_job(
            again,
            {**job, "only": only, "input_of": None, "keep": None, **change},
            program,
            loaded,
            codes,
            config,
        )
        return _simulate(model, again, _silent, plusargs=plusargs)

    if window is None:
        tell(f"look for the first difference in {layer}", 0, 1)
        model = build_engine(config, open_port=job["open"], cache=cache, progress=tell)
        found = run(model, {}, "+stamps")
        if not found["differences"]:
            return None
        mark = cycle_of(found["differences"][0], np.fromfile(again / "cycles.bin", "<u8"))
        window = waves.Window(first=max(0, mark - waves.BEFORE), last=mark + waves.AFTER)
    model = build_engine(config, open_port=job["open"], waves=True, cache=cache, progress=tell)
    stage = f"record a waveform of {layer}"
    tell(stage, 0, 1)
    vcd, path = again / "waves.vcd", folder / name
    found = run(model, {"window": [window.first, window.last]}, f"+wave={vcd}")
    if not vcd.exists():
        raise InputError(
            f"expected a window that begins while layer {layer} runs, found cycle {window.first}"
        )
    variables = waves.convert(vcd, path, origin=found["origin"], period=PERIOD, last=window.last)
    vcd.unlink()
    save = path.with_suffix(".gtkw")
    waves.save_file(save, path, variables, first=window.first, marker=mark)
    tell(stage, 1, 1)
    return path


def of_difference(show: Callable[[], Path | None], tell: Progress) -> Path | None:
    """Record what is around a difference, which is told even where that cannot be had."""
    try:
        return show()
    except (RuntimeError, InputError) as problem:
        tell(f"no waveform: {problem}", 1, 1)
        return None


def cycle_of(difference: Mapping[str, Any], stamps: np.ndarray) -> int:
    """Cycle in which a value passed that differs.

    Parameters
    ----------
    difference
        As the bench tells it: ``kind``, and ``record``, its place among the records of the kind.
    stamps
        uint64, one to each record of any kind: the kind's place in
        :data:`sim.bench_engine.KINDS` in the top byte, and the cycle below.

    Returns
    -------
    The cycle; where nothing came or it is no value that differs, that of the last record before.
    """
    kinds, passed = stamps >> np.uint64(56), stamps & np.uint64((1 << 56) - 1)
    if difference["kind"] in KINDS:
        own = passed[kinds == KINDS.index(difference["kind"])]
        if difference["record"] < len(own):
            return int(own[difference["record"]])
    return int(passed[-1]) if len(passed) else 0


def _wave_files(name: str) -> tuple[str, str]:
    """A waveform and its save file."""
    return name, str(Path(name).with_suffix(".gtkw"))


def _plant(
    program: Program,
    codes: np.ndarray,
    config: EngineConfig,
    plant: str | None,
    seed: int,
) -> tuple[str | None, dict[int, LayerProgram], dict[str, int] | None]:
    """Choose a fault that must show.

    Returns
    -------
    What it is in words; layers to load instead; the fault of a code.
    """
    if plant is None:
        return None, {}, None
    rng = np.random.default_rng([seed, PLANTS.index(plant)])
    tensors = golden.run_program(program, codes[:1])
    inputs = {
        step.params["index"]: tensors[step.inputs[0]]
        for step in program.steps
        if step.op == "layer"
    }
    order = rng.permutation(sorted(inputs)).tolist()
    if plant == "code":
        index = order[0]
        layer = program.layers[index]
        ordinal = int(rng.integers(expected_records(layer, config)["codes"]))
        adc = int(rng.integers(config.adcs))
        flip = 1 << int(rng.integers(config.code_bits)) + adc * config.code_bits
        fault = {"layer": index, "image": 0, "ordinal": ordinal, "flip": flip}
        text = f"layer {layer.name}, image 0: a bit of ADC {adc} in response {ordinal}"
        return text, {}, fault
    for index in order:
        layer = program.layers[index]
        for text, changed in _changes(layer, plant, rng):
            if _shows(layer, changed, inputs[index], config):
                return f"layer {layer.name}: {text}", {index: changed}, None
    raise InputError(f"expected a layer in which to plant {plant}, found none where it would show")


def _changes(layer: LayerProgram, plant: str, rng: np.random.Generator):
    """Layers with one word changed, in random order: what was changed, and the layer."""

    def change(name: str, at: int, value: int) -> LayerProgram:
        array = getattr(layer, name).copy()
        array[at] = value
        return dataclasses.replace(layer, **{name: array})

    words = (
        np.flatnonzero(layer.word_shift != SHIFT_NONE) if not layer.identity else np.zeros(0, int)
    )
    if plant == "shift":
        for word in rng.permutation(words).tolist()[:64]:
            before = int(layer.word_shift[word])
            after = before + 1 if before < MAX_SHIFT - MIN_SHIFT else before - 1
            yield (
                f"shift of reuse word {word} {before} to {after}",
                change("word_shift", word, after),
            )
        return
    kept = np.repeat(layer.group_kept, layer.group_outputs * layer.terms)
    positions = layer.kernel[0] * layer.kernel[1]
    candidates = [("slot", word) for word in words.tolist() if kept[word] > 1]
    if positions > 1:
        candidates += [("position", s) for s in range(len(layer.segment_position))]
    if layer.full_offsets:
        candidates += [("channel", s) for s in range(len(layer.segment_channel))]
    for kind, at in (candidates[i] for i in rng.permutation(len(candidates))[:64]):
        name = {
            "slot": "word_slot",
            "position": "segment_position",
            "channel": "segment_channel",
        }[kind]
        before = int(getattr(layer, name)[at])
        if kind == "slot":
            count = int(kept[at])
        else:
            count = positions if kind == "position" else layer.in_shape[2]
        after = (before + 1 + int(rng.integers(max(1, count - 1)))) % count
        if after == before:
            continue
        owner = "reuse word" if kind == "slot" else "segment"
        try:
            yield f"{kind} of {owner} {at} {before} to {after}", change(name, at, after)
        except InputError:
            continue  # a channel run that would leave the input


def _shows(
    layer: LayerProgram, changed: LayerProgram, codes: np.ndarray, config: EngineConfig
) -> bool:
    """Whether a changed layer has other requests or accumulators at some early position."""
    positions = slice(0, min(layer.positions, 256))
    a = golden.run_layer_serial(layer, codes, config, positions=positions)
    b = golden.run_layer_serial(changed, codes, config, positions=positions)
    return not (
        np.array_equal(a.digits, b.digits) and np.array_equal(a.accumulators, b.accumulators)
    )


def shown(path: Path) -> Path:
    """A path as it is seen from here, where it is below."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path


@dataclass(frozen=True, kw_only=True, eq=False)
class RunResult:
    """A :class:`CosimResult` as the command line shows it: differences are lines."""

    compared: dict[str, dict[str, int]]
    layers: tuple[LayerResult, ...]
    differences: list[str]
    result: CosimResult


def run(
    program: Program,
    codes: np.ndarray,
    config: EngineConfig,
    *,
    build: Path | str,
    device: Device | None = None,
    chip: int = 0,
    plant: str | None = None,
    tier: str = "protocol",
    every: bool = False,
    fresh: bool = False,
    waveform: str | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Co-simulate for the command line: ``build`` is the folder, ``waveform`` as of ``--waves``.

    See :func:`cosim`, the tier ``protocol``, which ``device`` and ``chip`` are for, and
    :func:`sim.bulk.bulk`, which ``every`` is for. ``fresh``: take up nothing of earlier runs.
    """
    window = None
    if waveform is not None:
        waves.require()
        window = None if waveform == waves.DIFFERENCE else waves.Window.parse(waveform)
    if tier == "bulk":
        from sim.bulk import bulk

        result = bulk(
            program,
            codes,
            config,
            build,
            every=every,
            fresh=fresh,
            plant=plant,
            waveform=waveform == waves.DIFFERENCE,
            window=window,
            progress=progress,
        )
    else:
        result = cosim(
            program,
            codes,
            config,
            build,
            device=device,
            chip=chip,
            plant=plant,
            keep=not fresh,
            window=window,
            progress=progress,
        )
    lines = [str(difference) for difference in result.differences[:1]]
    if lines and result.waveform is not None:
        lines[0] += f" (waveform: {shown(result.waveform)})"
    if result.planted and lines:
        lines[0] += f" [planted: {result.planted}]"
    return RunResult(
        compared=result.compared, layers=result.layers, differences=lines, result=result
    )
