"""Waveforms of a run: of a window that was asked for, or of what is around a difference.

The run is one of a layer and image alone, in the protocol tier, in a build that writes waveforms.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refmodel.errors import InputError
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from sim import waves
from sim.builds.engine import build_engine
from sim.job import Job, Window
from sim.results import KINDS, PERIOD, silent
from sim.simulator import simulate, write_job

WAVEFORM = "first_difference.fst"
"""Name of the waveform around the first difference."""

BEFORE, AFTER = 300, 100
"""Cycles that are shown before and after a difference."""

WINDOW = "window.fst"
"""Name of the waveform of a window that was asked for."""


def layer_of(program: Program, window: Window) -> int:
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
    job: Job,
    settings: Mapping[str, Any],
    loaded: Mapping[int, LayerProgram],
    name: str,
    only: Mapping[str, int],
    codes: np.ndarray,
    window: Window | None,
) -> Path | None:
    """Run a layer and image alone and record a window, or what is around its first difference.

    The run is in the protocol tier, in a build of its own that can write waveforms.

    Parameters
    ----------
    job
        The job; the waveform ``name`` and its save file go into its folder, and the run's own files
        into ``waveform`` there.
    settings, loaded
        As the bench had them, see :func:`sim.simulator.settings_of` and
        :func:`sim.simulator.write_job`.
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
    folder = Path(job.folder)
    again = folder / "waveform"
    layer = job.program.layers[only["layer"]].name
    mark = None

    def run(model: Path, change: Mapping[str, Any], *plusargs: str) -> dict[str, Any]:
        shutil.rmtree(again, ignore_errors=True)
        again.mkdir()
        write_job(
            again,
            {**settings, "only": only, "input_of": None, "keep": None, **change},
            job.program,
            loaded,
            codes,
            job.config,
        )
        return simulate(model, again, silent, plusargs=plusargs)

    if window is None:
        job.progress(f"look for the first difference in {layer}", 0, 1)
        model = build_engine(
            job.config, open_port=settings["open"], cache=job.cache, progress=job.progress
        )
        found = run(model, {}, "+stamps")
        if not found["differences"]:
            return None
        mark = cycle_of(found["differences"][0], np.fromfile(again / "cycles.bin", "<u8"))
        window = Window(first=max(0, mark - BEFORE), last=mark + AFTER)
    model = build_engine(
        job.config, open_port=settings["open"], waves=True, cache=job.cache, progress=job.progress
    )
    stage = f"record a waveform of {layer}"
    job.progress(stage, 0, 1)
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
    job.progress(stage, 1, 1)
    return path


def record_found(
    job: Job,
    settings: Mapping[str, Any],
    loaded: Mapping[int, LayerProgram],
    failing: tuple[int, int, np.ndarray] | None,
    shown: tuple[int, np.ndarray] | None,
) -> tuple[Path | None, Path | None]:
    """Record what a tier's run gives reason to.

    Parameters
    ----------
    failing
        Layer, image and input of the first difference, where that is to be recorded.
    shown
        Layer of the job's window, and the input of its first image.

    Returns
    -------
    Waveforms of the difference and of the window. A difference is told even where there can be no
    waveform of it.
    """
    wave = window = None
    if failing is not None:
        index, image, codes = failing
        only = {"layer": index, "image": image}
        try:
            wave = record(job, settings, loaded, WAVEFORM, only, codes, None)
        except (RuntimeError, InputError) as problem:
            job.progress(f"no waveform: {problem}", 1, 1)
    if shown is not None:
        index, codes = shown
        only = {"layer": index, "image": 0}
        window = record(job, settings, loaded, WINDOW, only, codes, job.window)
    return wave, window


def cycle_of(difference: Mapping[str, Any], stamps: np.ndarray) -> int:
    """Cycle in which a value passed that differs.

    Parameters
    ----------
    difference
        As the bench tells it: ``kind``, and ``record``, its place among the records of the kind.
    stamps
        uint64, one to each record of any kind: the kind's place in
        :data:`sim.results.KINDS` in the top byte, and the cycle below.

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


def forget(folder: Path) -> None:
    """Remove the waveforms of an earlier job, and their save files."""
    for name in (WAVEFORM, WINDOW):
        for path in (folder / name, (folder / name).with_suffix(".gtkw")):
            path.unlink(missing_ok=True)
