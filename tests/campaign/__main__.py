"""``python -m tests.campaign``: random engines by random layers and images, and count differences.

To each layer come two images: one without stalls, whose cycles and events must be the predicted
ones, and one for which the layer is loaded again, with stalls on every stream. Partial sums,
accumulators and outputs must be the golden model's in both. A line tells of each engine; the exit
code is 1 if anything differs. The engines run in Amaranth's simulator, one elaboration to each.
"""

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from functools import partial

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.cycles import predict
from tests.campaign.draw import Drawn, draw
from tests.hardware import Run, Work, run_layers

STALL = 0.3
"""Share of the cycles in which a stream pauses, in the second image of each layer."""

EVENTS = ("requests", "ous", "gathered", "index_reads", "merged", "outputs")
STALLS = ("stall_gather", "stall_slots")


def differences(item: Drawn, config: EngineConfig, quiet: Run, stalled: Run) -> list[str]:
    """What is not as the golden model and the prediction have it, in words."""
    trace = golden.run_layer_serial(item.layer, item.images, config)
    want = predict(item.layer, config)
    found = []
    for image, run in enumerate((quiet, stalled)):
        for name in ("psums", "accumulators", "outputs"):
            if getattr(run, name) != getattr(trace, name)[image].ravel().tolist():
                found.append(f"{name} of image {image}")
        for name in EVENTS:
            if run.counters[name] != getattr(want, name):
                found.append(f"{name} of image {image}")
    if quiet.cycles != want.cycles:
        found.append(f"{quiet.cycles} cycles, {want.cycles} predicted")
    if stalled.cycles < want.cycles:
        found.append(f"{stalled.cycles} cycles with stalls, {want.cycles} predicted without")
    for name in STALLS:
        if quiet.counters[name] != getattr(want, name):
            found.append(f"{name} {quiet.counters[name]}, {getattr(want, name)} predicted")
    return found


def run(number: int, seed: int, layers: int) -> tuple[int, str, list[str], Counter[str]]:
    """Run one engine: its number, its sizes in words, differences in words, and counts."""
    config, drawn = draw(seed, number, layers)
    work = [
        Work(item.layer, item.images[i : i + 1], stall)
        for item in drawn
        for i, stall in enumerate((0.0, STALL))
    ]
    counts: Counter[str] = Counter(engines=1, layers=len(drawn), images=len(work))
    try:
        runs = [run for (run,) in run_layers(work, config, seed=number)]
    except AssertionError as problem:
        return number, words(config), [f"the simulation ended: {problem}"], counts
    found = []
    for item, quiet, stalled in zip(drawn, runs[::2], runs[1::2], strict=True):
        found += [f"{item.what}: {text}" for text in differences(item, config, quiet, stalled)]
        counts["cycles"] += quiet.cycles + stalled.cycles
        values = len(quiet.psums) + len(quiet.accumulators) + len(quiet.outputs)
        counts["values"] += 2 * values
    return number, words(config), found, counts


def words(config: EngineConfig) -> str:
    """The sizes that are not the default ones and that no layer decides."""
    names = [field.name for field in fields(config) if not field.name.startswith(("max_", "acc"))]
    default = EngineConfig()
    return " ".join(
        f"{name}={getattr(config, name)}"
        for name in names
        if name != "activation_bytes" and getattr(config, name) != getattr(default, name)
    )


def campaign(engines: int, layers: int, seed: int, workers: int, only: int | None = None) -> int:
    """Run the engines; print what was found, and give the exit code."""
    began = time.monotonic()
    print(f"campaign: seed {seed}, {engines} engines by {layers} layers", flush=True)
    numbers = range(engines) if only is None else [only]
    totals: Counter[str] = Counter()
    wrong = 0
    with ProcessPoolExecutor(workers) as pool:
        for number, sizes, found, counts in pool.map(
            partial(run, seed=seed, layers=layers), numbers
        ):
            totals += counts
            wrong += len(found)
            print(f"campaign: engine {number}: {sizes}: {len(found)} differences", flush=True)
            for text in found:
                print(f"campaign: engine {number}: {text}", flush=True)
    print(
        f"campaign: {totals['engines']} engines, {totals['layers']} layers, {totals['images']} "
        f"images, {totals['values']:,} values, {totals['cycles']:,} cycles, {wrong} differences, "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if wrong or not totals["values"] else 0


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--engines", type=int, default=20, help="configurations (20)")
    parser.add_argument("--layers", type=int, default=20, help="layers to each (20)")
    parser.add_argument("--seed", type=int, default=1, help="the same gives the same (1)")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time (2)")
    parser.add_argument("--only", type=int, help="the engine of this number alone")
    given = parser.parse_args(arguments)
    return campaign(given.engines, given.layers, given.seed, given.workers, given.only)


if __name__ == "__main__":
    sys.exit(main())
