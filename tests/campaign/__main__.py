"""``python -m tests.campaign``: random engines by random layers and images, and count differences.

Every layer runs four times. In Amaranth's simulator, one elaboration to each engine, with emulated
crossbars: one image without stalls, and another, for which the layer is loaded again, with stalls
on every stream; partial sums, accumulators and outputs must be the golden model's. As emitted
Verilog in Verilator, one build to each engine, with a chip at the open crossbar port whose cells
and converters are drawn, too: one image without stalls, and again with stalls on every stream and
at the crossbar port; requests and ADC codes are compared as well. Without stalls, cycles and events
must be the predicted ones.

A line tells of each engine; the exit code is 1 if anything differs. A table at the end has what was
drawn, how often, and what was not (`tests.campaign.coverage`). Results are kept, and an engine that
an earlier run of the same sources has finished is not run again.
"""

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import NamedTuple

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict.cycles import EVENTS, predict
from tests.campaign import coverage
from tests.campaign.draw import Drawn, draw, draw_device
from tests.support.rtl.hardware import Run, Work, run_layers

STALL = 0.3
"""Share of the cycles in which a stream pauses, where there are stalls."""

STALLS = ("stall_gather", "stall_slots")

TIERS = ("unit", "protocol")
"""Amaranth's simulator; the emitted Verilog in Verilator, with a chip at the crossbar port."""

RUNS = {"unit": coverage.RUN["run"][:2], "protocol": coverage.RUN["run"][2:]}
"""What coverage calls the runs of each tier."""

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "campaign"
CACHE = ROOT / "build" / "cache"


class Result(NamedTuple):
    """What one engine gave: its number, its sizes in words, differences in words, and counts."""

    number: int
    sizes: str
    found: list[str]
    counts: Counter[str]


def differences(item: Drawn, config: EngineConfig, quiet: Run, stalled: Run) -> list[str]:
    """What is not as the golden model and the prediction have it, in words."""
    trace = golden.run_layer_serial(item.layer, item.images, config)
    want = predict(item.layer, config)
    found = []
    orders = {"psums": golden.psum_order(item.layer, config)}
    for image, run in enumerate((quiet, stalled)):
        for name in ("psums", "accumulators", "outputs"):
            expected = getattr(trace, name)[image].ravel()
            if getattr(run, name) != expected[orders.get(name, slice(None))].tolist():
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


def unit(
    config: EngineConfig, drawn: Sequence[Drawn], number: int
) -> tuple[list[str], Counter[str]]:
    """Run an engine's layers in Amaranth's simulator: differences in words, and counts."""
    work = [
        Work(item.layer, item.images[i : i + 1], stall)
        for item in drawn
        for i, stall in enumerate((0.0, STALL))
    ]
    counts: Counter[str] = Counter(images=len(work))
    try:
        runs = [run for (run,) in run_layers(work, config, seed=number)]
    except AssertionError as problem:
        return [f"the simulation ended: {problem}"], counts
    found = []
    for item, quiet, stalled in zip(drawn, runs[::2], runs[1::2], strict=True):
        found += [f"{item.what}: {text}" for text in differences(item, config, quiet, stalled)]
        counts["cycles"] += quiet.cycles + stalled.cycles
        counts["error"] += abs(quiet.cycles - predict(item.layer, config).cycles)
        values = len(quiet.psums) + len(quiet.accumulators) + len(quiet.outputs)
        counts["values"] += 2 * values
    return found, counts


def run(number: int, seed: int, layers: int, tiers: Sequence[str] = TIERS) -> Result:
    """Run one engine in some tiers."""
    config, drawn = draw(seed, number, layers)
    found: list[str] = []
    counts: Counter[str] = Counter(engines=1, layers=len(drawn))
    if "unit" in tiers:
        differ, counted = unit(config, drawn, number)
        found += differ
        counts.update(counted)
    if "protocol" in tiers:
        from tests.campaign import protocol  # needs Verilator

        differ, counted = protocol.check(
            drawn,
            config,
            draw_device(seed, number),
            FOLDER / f"seed{seed}-engine{number}",
            seed=number,
            stall=STALL,
            cache=CACHE,
        )
        found += differ
        counts.update(counted)
    runs = [name for tier in tiers for name in RUNS[tier]]
    device = draw_device(seed, number) if "protocol" in tiers else None
    counts.update(coverage.count(config, drawn, device, runs))
    return Result(number, words(config), found, counts)


def words(config: EngineConfig) -> str:
    """The sizes that are not the default ones and that no layer decides."""
    names = [field.name for field in fields(config) if not field.name.startswith(("max_", "acc"))]
    default = EngineConfig()
    return " ".join(
        f"{name}={getattr(config, name)}"
        for name in names
        if name != "activation_bytes" and getattr(config, name) != getattr(default, name)
    )


class Kept:
    """Results of engines in a file, a line of JSON to each, for runs of the very same sources."""

    def __init__(self, folder: Path, seed: int, layers: int, tiers: Sequence[str], *, fresh: bool):
        state = hashlib.sha256()
        for package in ("refmodel", "prap_hw", "sim", "tests/campaign"):
            for path in sorted((ROOT / package).rglob("*")):
                if path.suffix in {".py", ".sv", ".cpp", ".vlt"}:
                    state.update(path.read_bytes())
        for name in ("layers/builders", "rtl/hardware"):
            state.update((ROOT / "tests/support" / f"{name}.py").read_bytes())
        name = f"seed{seed}-layers{layers}-{'-'.join(tiers)}-{state.hexdigest()[:16]}.jsonl"
        self.path = folder / name
        self.results: dict[int, Result] = {}
        if fresh:
            self.path.unlink(missing_ok=True)
        text = self.path.read_text() if self.path.exists() else ""
        # A run was ended while it wrote, if the last line has no end.
        for line in text[: text.rfind("\n") + 1].splitlines():
            number, sizes, found, counts = json.loads(line)
            self.results[number] = Result(number, sizes, found, Counter(counts))
        if not text.endswith("\n") and text:
            self.path.write_text(text[: text.rfind("\n") + 1])

    def add(self, result: Result) -> None:
        """Keep a result; one with differences is to be found again."""
        if result.found:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(result) + "\n")


def results(
    numbers: Sequence[int], kept: Kept, seed: int, layers: int, tiers: Sequence[str], workers: int
) -> Iterator[Result]:
    """Results of engines in order: those that are kept, and the others run."""
    todo = [number for number in numbers if number not in kept.results]
    with ProcessPoolExecutor(workers) as pool:
        ran = pool.map(partial(run, seed=seed, layers=layers, tiers=tiers), todo)
        for number in numbers:
            if number in kept.results:
                yield kept.results[number]
                continue
            result = next(ran)
            kept.add(result)
            yield result


def campaign(
    engines: int,
    layers: int,
    seed: int,
    workers: int,
    only: int | None = None,
    tiers: Sequence[str] = TIERS,
    *,
    folder: Path = FOLDER,
    fresh: bool = False,
) -> int:
    """Run the engines; print what was found, and give the exit code."""
    began = time.monotonic()
    print(f"campaign: seed {seed}, {engines} engines by {layers} layers", flush=True)
    numbers = list(range(engines)) if only is None else [only]
    kept = Kept(folder, seed, layers, tiers, fresh=fresh)
    before = sum(number in kept.results for number in numbers)
    totals: Counter[str] = Counter()
    wrong = 0
    for number, sizes, found, counts in results(numbers, kept, seed, layers, tiers, workers):
        totals.update(counts)
        wrong += len(found)
        print(f"campaign: engine {number}: {sizes}: {len(found)} differences", flush=True)
        for text in found:
            print(f"campaign: engine {number}: {text}", flush=True)
    print(
        f"campaign: {totals['engines']} engines, {totals['layers']} layers, {totals['images']} "
        f"images, {totals['values']:,} values, {totals['cycles']:,} cycles, {wrong} differences, "
        f"{totals['error']} cycles of prediction error without stalls, "
        f"{time.monotonic() - began:.0f} s"
        + (f"; {before} engines kept from earlier runs" if before else "")
    )
    print("\n".join(["", *coverage.table(totals)]))
    return 1 if wrong or not totals["values"] else 0


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--engines", type=int, default=20, help="configurations (20)")
    parser.add_argument("--layers", type=int, default=20, help="layers to each (20)")
    parser.add_argument("--seed", type=int, default=1, help="the same gives the same (1)")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time (2)")
    parser.add_argument("--only", type=int, help="the engine of this number alone")
    parser.add_argument(
        "--tiers", nargs="+", choices=TIERS, default=TIERS, help="how to simulate (both)"
    )
    parser.add_argument("--fresh", action="store_true", help="run what earlier runs have, too")
    given = parser.parse_args(arguments)
    return campaign(
        given.engines,
        given.layers,
        given.seed,
        given.workers,
        given.only,
        given.tiers,
        fresh=given.fresh,
    )


if __name__ == "__main__":
    sys.exit(main())
