"""A campaign's engines as emitted Verilog, with a chip in Python at the open crossbar port.

All layers of an engine are one network, side by side; its first image goes through without stalls,
and again with stalls on every stream and at the crossbar port. ADC codes, requests, partial sums,
accumulators and outputs are compared with the golden model of the same chip.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from refmodel.config import EngineConfig
from refmodel.golden.devices.device import Device
from refmodel.program.program import Program
from sim.job import Job
from sim.protocol import simulate
from sim.results import CosimResult
from tests.campaign.draw import Drawn
from tests.support.layers.builders import side_by_side


def network(drawn: Sequence[Drawn]) -> tuple[Program, np.ndarray]:
    """One network of all layers, and the codes that give each its first image.

    Layers read the beginning of the input, so one layer's image lies within another's: to each goes
    the image of the layer with the largest input.
    """
    program = side_by_side([item.layer for item in drawn])
    largest = max(drawn, key=lambda item: item.images[0].size)
    return program, largest.images[:1].reshape(1, 1, 1, -1)


def check(
    drawn: Sequence[Drawn],
    config: EngineConfig,
    device: Device,
    folder: Path,
    *,
    seed: int,
    stall: float,
    cache: Path,
    mutant: str | None = None,
) -> tuple[list[str], Counter[str]]:
    """Simulate an engine's layers without stalls and with them.

    Parameters
    ----------
    device, seed
        What the chip is drawn of, and its number; the seed is that of the stalls, too.
    folder
        For the simulator's files; it is removed unless something differs.
    stall
        Share of the cycles in which a stream pauses, in the second run.
    cache
        Where builds are kept.
    mutant
        For tests: see :class:`sim.job.Job`.

    Returns
    -------
    Differences in words; ``images``, ``values``, ``cycles`` and ``error`` (cycles by which the run
    without stalls is not as predicted, all layers together).
    """
    program, codes = network(drawn)
    found: list[str] = []
    counts: Counter[str] = Counter()
    for share in (0.0, stall):
        try:
            job = Job(
                program=program,
                codes=codes,
                config=config,
                folder=folder,
                fresh=True,
                device=device,
                chip_seed=seed,
                stall=share,
                seed=seed,
                record_difference=False,
                cache=cache,
                mutant=mutant,
            )
            result = simulate(job)
        except RuntimeError as problem:
            found.append(f"{_how(share)}: {problem}")
            continue
        found += told(result, drawn, share)
        counts["images"] += sum(len(layer.cycles_simulated) for layer in result.layers)
        counts["values"] += sum(kind["values"] for kind in result.compared.values())
        counts["cycles"] += sum(layer.cycles for layer in result.layers)
        if not share:
            errors = [abs(layer.cycles - layer.cycles_predicted) for layer in result.layers]
            counts["error"] += sum(errors)
    if not found:
        shutil.rmtree(folder)
    return found, counts


def told(result: CosimResult, drawn: Sequence[Drawn], stall: float) -> list[str]:
    """What is wrong with a run, in words."""
    what = {f"layer{number}": item.what for number, item in enumerate(drawn)}
    return [
        *(f"{what[each.layer]}: {_how(stall)}: {each}" for each in result.differences),
        *(
            f"{_how(stall)}: {counts['values']} of {counts['expected']} {kind} compared"
            for kind, counts in result.compared.items()
            if counts["values"] != counts["expected"]
        ),
    ]


def _how(stall: float) -> str:
    return "chip with stalls" if stall else "chip without stalls"
