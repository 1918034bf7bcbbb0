"""Workflow of ``prap cosim``: images through the RTL, and its figures beside the predicted ones."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from prap_hw.app.console import Report, silent
from prap_hw.app.workflow.chips import cells_of
from prap_hw.app.workflow.engines import EngineOptions, folder_engine, rtl_engine
from prap_hw.app.workflow.figures import cycle_total, layer_figures
from prap_hw.app.workflow.folders import Paths, input_codes, load_program, names_of
from refmodel.api import predict
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices import calibration
from refmodel.golden.devices.device import Device
from refmodel.network.images import Preprocess, load_images
from refmodel.predict import cycles
from sim.builds import tools
from sim.job import DIFFERENCE, Job, Window, check_options
from sim.results import LayerResult

STALLS = {
    "stall_gather": "waiting for inputs",
    "stall_slots": "partial-sum ring full",
    "stall_port": "crossbar port busy",
}
"""Counters of the engine that say why no conversion was requested in a cycle, in words."""


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
    adc_ranges: Paths | None = None,
    seed: int = 0,
    engines: int = 1,
    layers: Sequence[str] = (),
    positions: int | None = None,
    config: EngineOptions | EngineConfig | None = None,
    build: Paths = "build/sim",
    report: Report = silent,
) -> dict[str, Any]:
    """Run the first images of a file through the RTL, layer by layer, and compare every value.

    Parameters
    ----------
    folder
        A folder that :func:`compress` wrote.
    count
        Images, from the first.
    tier
        One of :data:`sim.job.TIERS`.
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
    adc_ranges
        Tier ``protocol``: file of the ranges of the layers' converters at the open port, which
        :func:`prap_hw.app.workflow.chips.adc_ranges` wrote. Without a device they are those of
        ``ideal``.
    seed
        Number of the chip that is drawn of ``device``; or what draws ``positions``.
    engines
        Tier ``network``: engines of the accelerator, 1 to 64, to which each layer is dealt out.
    layers, positions
        Tier ``bulk``: names of the layers to run, by pattern, each by itself on what the golden
        model gives it; and how many output positions of each (:mod:`sim.sample`).
    config
        The engine; what is not chosen is as in the one that the network was compressed for. It is
        sized to the network.
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
        (``name``, ``chip``, ``adc_bits``, ``values``); of a sample also ``sample`` (``seed``, and
        of each of its ``layers`` ``name``, ``positions`` of them all ``simulated``, and the
        ``cycles`` of the whole layer as predicted); ``labels`` of the images, None where there are
        none; :func:`faults` judges it. For the tier ``network``, the result of
        :func:`simulate_network` and ``labels``.
    """
    chosen: dict[str, Any] = {"every_value": every_value, "fresh": fresh, "engines": engines}
    chosen |= {"layers": tuple(layers), "positions": positions}
    check_options(tier, **chosen, device=device, window=waves)
    if adc_ranges is not None and device is None:
        check_options(tier, ranges={0: None})
        device = Device(name="ideal")
    kind = device if isinstance(device, Device | None) else Device.load(device)
    if waves is not None:  # refused before anything is read or run
        chosen["record_difference"] = waves == DIFFERENCE or None
        chosen["window"] = None if waves == DIFFERENCE else Window.parse(waves)
    if seed and device is None and positions is None:
        raise InputError(f"expected a device or positions with seed, found none with seed {seed}")
    if positions is not None:
        chosen["seed"] = seed
    program = load_program(folder)
    x, y = load_images(images, **Preprocess.from_dict(program.preprocess).sizes)
    if len(x) < count:
        raise InputError(f"expected at least {count} images, found {len(x)} in {names_of(images)}")
    fitted = folder_engine(folder, program, config, rtl_engine)
    ranges = (
        {}
        if adc_ranges is None
        else calibration.load(adc_ranges, program, cells=cells_of(fitted, None))
    )
    job = Job(
        program=program,
        codes=input_codes(program, x[:count], source=names_of(images)),
        config=fitted,
        tier=tier,
        folder=build,
        progress=report,
        device=kind,
        chip_seed=0 if device is None else seed,
        ranges=ranges,
        **chosen,
    )
    labels = None if y is None else y[:count].tolist()
    if job.layers or job.positions is not None:
        return simulate_sample(job) | {"labels": labels}
    if tier == "network":
        return simulate_network(job) | {"labels": labels}
    return simulate(job, predict(program, fitted, report=report)) | {"labels": labels}


def simulate(job: Job, predictions: Sequence[cycles.Prediction]) -> dict[str, Any]:
    """Run a job layer by layer through the RTL and put its figures beside the predicted ones.

    Parameters
    ----------
    job
        A job of the tier ``protocol`` or ``bulk``.
    predictions
        One to a layer, made before.

    Returns
    -------
    dict
        As :func:`cosim` has it.
    """
    tools.require()
    from sim.results import shown
    from sim.run import lines, run_layers

    result = run_layers(job)
    layers = []
    for index, (layer, prediction) in enumerate(zip(job.program.layers, predictions, strict=True)):
        figures = layer_figures(layer, job.config, prediction)
        if index < len(result.layers):  # those after a hang did not run
            figures |= simulated_figures(result.layers[index], prediction)
        layers.append(figures)
    figures: dict[str, Any] = {
        "images": len(job.codes),
        "layers": layers,
        "total": cycle_total(layers),
        "compared": result.compared,
        "differences": lines(result),
        "answers": None if result.logits is None else _classes(result.logits),
        "simulation": {
            "tier": job.tier,
            "cycles": result.simulated_cycles,
            "cycles_per_second": round(result.cycles_per_second),
            "kept": result.kept,
        },
        "waveforms": [
            str(shown(path)) for path in (result.waveform, result.window) if path is not None
        ],
    }
    if job.device is not None:
        figures["device"] = {
            "name": job.device.name,
            "chip": job.chip_seed,
            "adc_bits": max(
                (each.bits for each in job.ranges.values()), default=job.config.code_bits
            ),
            "values": job.device.values(),
        }
    return figures


def simulate_sample(job: Job) -> dict[str, Any]:
    """Run some layers, or some output positions of layers, each by itself.

    Parameters
    ----------
    job
        A job of the tier ``bulk`` for the whole network, with ``layers`` or ``positions``.

    Returns
    -------
    dict
        As :func:`cosim` has it: ``layers`` are those of the sample, with its cycles.
    """
    from sim.sample import sampled

    program = job.program
    made, parts = sampled(job)
    found = simulate(made, predict(made.program, made.config, report=job.progress))
    whole = [program.layers[part.index] for part in parts]
    found["sample"] = {
        "seed": job.seed,
        "layers": [
            {
                "name": layer.name,
                "positions": layer.positions,
                "simulated": layer.positions if part.positions is None else len(part.positions),
                "cycles": cycles.predict(layer, made.config).cycles,
            }
            for part, layer in zip(parts, whole, strict=True)
        ],
    }
    found["answers"] = None  # no image went through the whole network
    return found


def simulate_network(job: Job) -> dict[str, Any]:
    """Run a job through the accelerator, the whole network with one start to an image.

    Parameters
    ----------
    job
        A job of the tier ``network``; its engine is sized to hold all layers, or its parts of them.

    Returns
    -------
    dict
        As :func:`cosim`, but ``layers`` is empty; instead ``operations`` has those of the
        accelerator with predicted cycles, and ``network`` the cycles of each image. With several
        engines ``cycles_one_engine`` of both is what one engine should take, and ``speed_up`` how
        many times as many cycles that is; without, where no single engine holds the network.
    """
    tools.require()
    from sim.run import run_network

    result = run_network(job)
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
        "engines": job.engines,
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
        "images": len(job.codes),
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


def simulated_figures(simulated: LayerResult, prediction: cycles.Prediction) -> dict[str, Any]:
    """Collect what the hardware counted for one image of a layer."""
    waits = {words: simulated.counters.get(name, 0) for name, words in STALLS.items()}
    busy = simulated.counters.get("requests", 0)
    waits["start and end"] = simulated.cycles - busy - sum(waits.values())
    return {
        "cycles_simulated": simulated.cycles,
        "cycles_ratio": (simulated.cycles - prediction.start) / prediction.bound,
        "stalls": waits,
    }


def _classes(outputs: NDArray) -> list[int]:
    """Class of each image: its largest output, the first of equals."""
    return outputs.reshape(len(outputs), -1).argmax(1).tolist()
