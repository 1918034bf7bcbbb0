"""One run of the engine's bench: the job in its folder, the process, and what it has found.

Nothing of the golden model's results enters the simulation but what stands on the comparing side.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prap_hw.common.layouts import COUNTERS, Layouts
from prap_hw.deliver.load import layer_image
from refmodel.config import EngineConfig
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from sim.builds import verilator
from sim.builds.engine import payload_fields
from sim.results import Progress
from sim.words import split, words_of


def settings_of(config: EngineConfig, predicted: Mapping[str, Any]) -> dict[str, Any]:
    """Make a bench's settings for all layers and images, with nothing planted and no pauses.

    Parameters
    ----------
    predicted
        Predictions that :func:`sim.comparison.predict` returned.
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


def write_job(
    folder: Path,
    settings: Mapping[str, Any],
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
    (folder / "job.json").write_text(json.dumps(settings))


def simulate(
    model: Path, folder: Path, progress: Progress, *, plusargs: Sequence[str] = ()
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
            [sys.executable, "-m", "sim.benches.worker", json.dumps(settings)],
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
                    progress(*json.loads(line))
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
