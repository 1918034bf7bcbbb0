"""``python -m tests.netlist_campaign DIR --images FILE``: a board's netlist, and mutants of it.

Runs images on the netlist that ``prap fpga --for`` left in a folder, all of it, at its serial pins,
by the very driver: outputs must be the golden model's and all counters the predicted ones. Then one
LUT after the other has its table inverted, and an image is run again: each must be found, by other
outputs or counters, or by an error of the driver. LUTs are drawn among those whose name has the
text of ``--within``.

A mutant is a build of its own: it takes as long as the netlist. The exit code is 1 if the netlist
is wrong, or if a mutant is not found.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prap_hw.app import workflow
from prap_hw.driver import DriverError
from sim import board

NETLIST = "prap_board_netlist.v"


def faults(folder: Path, images: np.ndarray) -> tuple[list[str], str]:
    """Run images on a folder's netlist; what is wrong, and what was seen, in words."""
    began = time.monotonic()
    try:
        found = workflow.board(folder, images, simulate="netlist")
    except DriverError as error:
        return [str(error)], f"stopped after {time.monotonic() - began:.0f} s"
    cycles = sorted(set(found["cycles"]))
    minutes = (time.monotonic() - began) / 60
    return found["faults"], (
        f"{len(images)} images, cycles {cycles}, {len(found['expected'])} counters, "
        f"load {found['load_seconds']:.3f} s, runs {found['seconds']:.3f} s of the board's time, "
        f"{minutes:.1f} minutes here"
    )


def mutated(folder: Path, name: str, into: Path) -> None:
    """Copy a folder with the table of a LUT of its netlist inverted."""
    for path in folder.iterdir():
        if path.is_file() and path.name != NETLIST:
            (into / path.name).write_bytes(path.read_bytes())
    text = (folder / NETLIST).read_text(encoding="utf-8")
    (into / NETLIST).write_text(board.with_lut_changed(text, name), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description="A board's netlist and mutants of it.")
    parser.add_argument("folder", type=Path, help="what prap fpga --for wrote")
    parser.add_argument("--images", type=Path, required=True, help="an .npz file with x")
    parser.add_argument("--count", type=int, default=5, help="images on the netlist (5)")
    parser.add_argument("--mutants", type=int, default=1, help="LUTs, one after the other (1)")
    parser.add_argument("--within", default=".requantise.", help="text in a LUT's name")
    parser.add_argument("--seed", type=int, default=1, help="of the draw of LUTs (1)")
    given = parser.parse_args(arguments)
    images = np.load(given.images)["x"]
    wrong, seen = faults(given.folder, images[: given.count])
    print(f"netlist: {seen}: {'; '.join(wrong) or 'right'}", flush=True)
    failed = bool(wrong)
    text = (given.folder / NETLIST).read_text(encoding="utf-8")
    names = random.Random(given.seed).sample(board.luts(text, given.within), given.mutants)
    for name in names:
        with tempfile.TemporaryDirectory() as into:
            mutated(given.folder, name, Path(into))
            wrong, seen = faults(Path(into), images[:1])
        what = f"found, {wrong[0][:80]}" if wrong else "NOT FOUND"
        print(f"{name.strip()} inverted: {seen}: {what}", flush=True)
        failed |= not wrong
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
