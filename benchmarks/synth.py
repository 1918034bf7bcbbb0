"""What the delivered modules take of four FPGA families, and how fast they are.

    make synth

synthesises engine, tile, accelerator and both shells of the three presets with Yosys for ECP5,
iCE40, Xilinx 7 series and Gowin: a row to each, with its cells and what is wrong with it (a latch,
a combinational loop, a signal with other than one driver, a memory of more than 64 words that is
none any more). The tile has two engines; the accelerator is the one that `prap verilog` delivers,
with room for eight layers.

    make synth CLOCKS=1

places and routes them, too, where there are open tools for it: on an LFE5U-85F of speed 6 and an
iCE40 HX8K, between shift registers instead of pins, with as many seeds as SEEDS says; the row then
has the median of the clocks and the slowest of them. Whatever does not fit says so.

Results are kept in build/cache by content. A module takes Yosys about a minute, and nextpnr two to
four minutes for each seed.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from prap_hw.deliver import delivery, place, synthesis
from prap_hw.deliver.delivery import Part
from prap_hw.deliver.harness import TOP, in_harness
from refmodel.config import PRESETS
from refmodel.errors import InputError

CACHE = Path(__file__).resolve().parent.parent / "build" / "cache"

FAMILIES = tuple(synthesis.KINDS)

PARTS = ("engine", "tile", "accelerator", "shell", "accelerator_shell")

KINDS = ("LUT", "carry", "flip-flops", "multipliers", "LUT RAM", "block RAM")
"""Columns; LUT4 is a LUT."""

DEVICES = {"ecp5": place.ULX3S, "ice40": place.ICE40_PINS}
"""FPGAs on which clocks are measured."""

ENGINES = 2
"""Engines of the tile."""


def parts_of(preset: str) -> dict[str, Part]:
    """Modules of a preset by their keys, as they are delivered."""
    engine = replace(PRESETS[preset], trace=False)
    found = {part.key: part for part in delivery.parts(delivery.sizes(engine))}
    tiles = delivery.sizes(engine, engines=ENGINES)
    found |= {part.key: part for part in delivery.parts(tiles) if part.key == "tile"}
    return found


def counts(found: synthesis.Synthesis) -> list[int]:
    """Cells by :data:`KINDS`."""
    if not found.cells:
        return [0] * len(KINDS)
    total = found.components()["total"]
    return [total.get(kind, total.get("LUT4", 0) if kind == "LUT" else 0) for kind in KINDS]


def clock(part: Part, family: str, seeds: int) -> str:
    """Median and slowest clock, in words."""
    text = in_harness(part.verilog, part.module)
    try:
        placed = [
            place.place(text, TOP, DEVICES[family], seed=seed, cache=CACHE)
            for seed in range(1, seeds + 1)
        ]
    except InputError as problem:
        return f"does not fit: {str(problem).split(': ', 1)[-1][:60]}"
    worst = min(placement.slowest for placement in placed)
    return f"{place.median(placed):.1f} ({worst:.1f})"


def rows(
    presets: Sequence[str], families: Sequence[str], parts: Sequence[str], seeds: int
) -> Iterator[tuple[list[str], tuple[str, ...]]]:
    """Cells of the table's rows, and the faults of each."""
    for preset in presets:
        made = parts_of(preset)
        for key in parts:
            for family in families:
                part = made[key]
                found = synthesis.synthesise(part.verilog, part.module, family, cache=CACHE)
                row = [preset, key, family, *(f"{count:,}" for count in counts(found))]
                if seeds:
                    placed = family in DEVICES and not found.faults
                    row.append(clock(part, family, seeds) if placed else "–")
                yield [*row, str(len(found.faults))], found.faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, a row as it is found; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description="Modules of the presets on FPGA families.")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=0, help="place and route with so many seeds")
    given = parser.parse_args(arguments)
    if given.seeds < 0:
        parser.error(f"expected 0 seeds or more, found {given.seeds}")
    heads = ["preset", "module", "family", *KINDS, *(["MHz"] if given.seeds else []), "faults"]
    print(f"| {' | '.join(heads)} |")
    print("|---|---|---|" + "--:|" * (len(heads) - 3), flush=True)
    faulty = False
    for row, faults in rows(given.presets, given.families, given.parts, given.seeds):
        print(f"| {' | '.join(row)} |", flush=True)
        for fault in faults:
            print(f"prap: error: {' '.join(row[:3])}: {fault}", file=sys.stderr)
        faulty |= bool(faults)
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main())
