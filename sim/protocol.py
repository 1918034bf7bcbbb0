"""The protocol tier: a program's layers through the emitted Verilog under cocotb, value by value.

:func:`simulate` writes the prediction, builds the simulation (or finds it built), runs
:mod:`sim.benches.engine` in it, and returns what was compared. Nothing of the golden model's
results enters the simulation but what stands on the comparing side.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from refmodel.golden import devices
from refmodel.golden.devices.chip import Chip
from sim import comparison, plant, record, simulator, words
from sim.benches import crossbar_model, streams
from sim.builds.engine import build_engine
from sim.job import Job
from sim.kept import digest
from sim.prepare import prepared
from sim.results import KINDS, CosimResult, Difference, LayerResult


def simulate(job: Job) -> CosimResult:
    """Run input codes through the RTL of an engine, layer after layer, and compare every value.

    Raises
    ------
    InputError
        A tool is missing, a layer does not fit, there is nothing to plant in, or no layer to show.
    RuntimeError
        The simulation could not be built, or ended by itself.
    """
    if job.device is not None:
        # What no chip can have for a number is refused before anything is built.
        Chip(device=job.device, config=job.config, seed=job.chip_seed, ranges=job.ranges)
    job, predicted = prepared(job)
    folder = Path(job.folder)
    for name in ("result.json", "progress.jsonl", "logits.npy", "failing.npy", "kept.npy"):
        (folder / name).unlink(missing_ok=True)
    show_layer = None if job.window is None else record.layer_of(job.program, job.window)
    planted, loaded, plant_code = plant.choose(
        job.program, job.codes, job.config, job.plant, job.seed
    )
    is_open = job.port == "open" or job.plant == "code" or job.device is not None
    settings = simulator.settings_of(job.config, predicted) | {
        "open": is_open,
        "stall": job.stall,
        "seed": job.seed,
        "input_of": show_layer,
        "plant_code": plant_code,
        "device": None
        if job.device is None
        else {
            "values": job.device.values(),
            "chip": job.chip_seed,
            "ranges": {number: asdict(each) for number, each in job.ranges.items()},
        },
        "mutant": job.mutant,
    }
    began = time.monotonic()
    model = build_engine(job.config, open_port=is_open, cache=job.cache, progress=job.progress)
    if not (job.fresh or job.stall or job.plant or job.mutant):
        settings["keep"] = _simulation_name(model)
    simulator.write_job(folder, settings, job.program, loaded, job.codes, job.config)
    built = time.monotonic()
    found = simulator.simulate(model, folder, job.progress)
    seconds = time.monotonic() - built
    differences = _differences(found)
    failing = shown = None
    recorded = job.record_difference is not False
    if recorded and found["differences"] and (folder / "failing.npy").exists():
        first = found["differences"][0]
        failing = first["layer"], first["image"], np.load(folder / "failing.npy")
    if show_layer is not None and (folder / "kept.npy").exists():
        shown = show_layer, np.load(folder / "kept.npy")
    wave, window = record.record_found(job, settings, loaded, failing, shown)
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
        window=window,
        kept=found["kept"],
    )


def _simulation_name(model: Path) -> str:
    """Name of a build together with all that runs beside it in Python: runs are kept under it."""
    bench = Path(str(streams.__file__)).with_name("engine.py")
    parts = (comparison, crossbar_model, streams, words)
    paths = [bench, *(Path(str(part.__file__)) for part in parts)]
    paths += sorted(Path(str(devices.__file__)).parent.rglob("*.py"))
    return digest(model.name, *(path.read_text("utf-8") for path in paths))


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
