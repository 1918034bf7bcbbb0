"""``python -m tests.serial_campaign``: damage a board's serial line, and count what comes of it.

A small engine in its shell, behind the bridge, in Verilator; the driver and its transport, with
bytes that are lost, doubled and garbled at random, each way, and in every fourth run the cable
pulled after a number of bytes. A run is right, with or without frames sent again, or it ends in an
error of the driver; outputs that are given must be the golden model's, and what they were counted
with the prediction's. After an error the line is good again, and so must the next run be, after a
reset and a load.

The table goes to the standard output. The exit code is 1 if outputs were wrong, or if a run after
an error was not right.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from prap_hw.driver import Driver, DriverError
from prap_hw.driver.serial import SerialTransport
from sim.builds.board import SimulatedBoard
from tests.support.noisy_line import NoisyLine
from tests.support.rtl.boards import KHZ, PATIENCE, SmallBoard, small_board

RATES = (0.0005, 0.002, 0.008, 0.03)
"""Shares of the bytes that are damaged, a third of them each way of damage; in turn."""

TRIES = 8
"""Times that a question is asked in the campaign."""


def one(small: SmallBoard, line: Any, number: int, found: Counter[str]) -> bool:
    """Load and run once over a bad line, and once over a good one; False where it is wrong."""
    code = small.codes[number % len(small.codes)]
    expected = small.expected[number % len(small.codes)]
    right = True
    try:
        transport = SerialTransport(line, patience=PATIENCE, tries=TRIES)
        driver = Driver(transport, timeout=1.0)
        driver.reset()
        driver.load(small.image)
        outputs = np.frombuffer(driver.run(code.tobytes()), np.uint8)
        cycles = driver.counters()["cycles"]
    except DriverError as error:
        found[f"ended in {type(error).__name__}"] += 1
    else:
        if (outputs == expected).all() and cycles == small.cycles:
            found["right, after repeats" if transport.counts.repeated else "right at once"] += 1
        else:
            found["WRONG"] += 1
            right = False
    line.quiet()
    transport = SerialTransport(line, patience=PATIENCE, tries=TRIES)
    driver = Driver(transport, timeout=1.0)
    driver.reset()
    driver.load(small.image)
    outputs = np.frombuffer(driver.run(code.tobytes()), np.uint8)
    if (outputs == expected).all() and driver.counters()["cycles"] == small.cycles:
        found["next run right"] += 1
    else:
        found["NEXT RUN WRONG"] += 1
        right = False
    return right


def campaign(runs: int, seed: int) -> tuple[Counter[str], Counter[str], bool]:
    """Run it: outcomes, damages, whether all was well."""
    small = small_board()
    found: Counter[str] = Counter()
    damages: Counter[str] = Counter()
    well = True
    bytes_of_load = len(small.image.program) + len(small.image.cells)
    with SimulatedBoard(small.model, KHZ, seed=seed) as board:
        for number in range(runs):
            rate = RATES[number % len(RATES)] / 3
            line = NoisyLine(
                board, seed=seed * 100_000 + number, lost=rate, doubled=rate, garbled=rate
            )
            if number % 4 == 3:
                line.lost = line.doubled = line.garbled = 0.0
                line.pull_after = line.chance.randrange(20, 2 * bytes_of_load)
            well = one(small, line, number, found) and well
            damages.update(line.damages)
    return found, damages, well


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign that the arguments describe."""
    parser = argparse.ArgumentParser(prog="python -m tests.serial_campaign", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="runs over a bad line (200)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the damages (1)")
    chosen = parser.parse_args(arguments)
    found, damages, well = campaign(chosen.runs, chosen.seed)
    print(f"{chosen.runs} runs, seed {chosen.seed}")
    for table in (damages, found):
        print()
        for name, count in sorted(table.items()):
            print(f"{count:8,}  {name}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
