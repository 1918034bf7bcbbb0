"""Resistance of wires under OUs of 8, 16 and 32 rows: python examples/digits/wires.py.

Prints the table of docs/devices.md. For each height of an OU and each resistance of a piece of
wire, in ohms between neighbouring cells: the currents of an OU with all cells on, nearest to the
drivers and the converters and farthest from both, beside those without resistance; the codes of the
digits network's images that change; and its accuracy. Cells conduct 40 uS when on, those of
``wan-2022``, and a fortieth of it when off; nothing else is wrong with them.
"""

import argparse

import numpy as np

from refmodel import digits, golden
from refmodel.api import compress, load
from refmodel.config import EngineConfig
from refmodel.golden import devices
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.device import Device
from refmodel.network.images import Preprocess

ON = 40e-6
"""Conductance of an on cell, siemens."""

OHMS = (0.5, 1.0, 2.5, 5.0)
"""Resistance of a piece of wire."""


def device(ohms: float) -> Device:
    """Cells with wires on both sides, and no other fault."""
    return Device(on_off_ratio=40.0, wire_wordline=ohms * ON, wire_bitline=ohms * ON)


def ends(config: EngineConfig, ohms: float) -> tuple[float, float]:
    """Current of the worst column of on cells of the best and the worst placed OU, as a share."""
    chip = Chip(device=device(ohms), config=config, seed=0)
    on = np.ones((1, config.ou_rows, config.ou_cols), np.uint8)
    best = (config.row_blocks - 1) * config.col_blocks
    worst = config.col_blocks - 1
    found = [chip.cells(on, 0, np.array([ou])).sum(1).min() for ou in (best, worst)]
    return found[0] / config.ou_rows, found[1] / config.ou_rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Resistance of wires, by the height of an OU.")
    parser.add_argument("--images", type=int, default=500, help="held-out images: the first")
    options = parser.parse_args()
    images = digits.digits_images()
    x, y = images.x[: options.images], images.y[: options.images]
    print("| rows | ohms | nearest OU | farthest OU | codes changed | accuracy |")
    print("|---|---|---|---|---|---|")
    for rows in (8, 16, 32):
        config = EngineConfig(ou_rows=rows)
        program = compress(
            load(digits.network_path("float")),
            images.calibration_x,
            scheme="dense",
            ou_rows=rows,
            preprocess=Preprocess.for_images(images.calibration_x, scale=1 / 16),
        )
        fitted = program.engine(config)
        codes = program.codes(x)
        layer = program.layers[1]
        inputs = golden.run_layer(program.layers[0], codes[:4])
        ideal = golden.run_layer_serial(layer, inputs, fitted).codes
        for ohms in (0.0, *OHMS):
            chip = Chip(device=device(ohms), config=fitted, seed=0)
            drawn = chip.layer(layer, 1)
            found = golden.run_layer_serial(layer, inputs, fitted, device=drawn).codes
            share = devices.accuracy(program, codes, y, chip)
            near, far = ends(fitted, ohms)
            print(
                f"| {rows} | {ohms:g} | {100 * near:.2f} % | {100 * far:.2f} % | "
                f"{100 * np.mean(found != ideal):.2f} % | {100 * share:.2f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
