"""What ``prap cosim`` does: images through the RTL, and its figures beside the predicted ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prap_hw.app.console import Report, silent
from prap_hw.app.workflow.engines import EngineOptions, engine_for, rtl_engine
from prap_hw.app.workflow.figures import cycle_total, layer_figures
from prap_hw.app.workflow.folders import Paths, input_codes, load_program, names_of
from refmodel.api import predict
from refmodel.config import MOST_ENGINES, EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices.device import Device
from refmodel.network.images import load_images
from refmodel.predict import cycles
from refmodel.program.program import Program
from sim import tools

if TYPE_CHECKING:
    from sim.cosim import LayerResult

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
            figures |= simulated_figures(result.layers[index], prediction)
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


def simulated_figures(simulated: "LayerResult", prediction: cycles.Prediction) -> dict[str, Any]:
    """What the hardware counted for one image of a layer."""
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
