"""Converters with fewer bits than sums need: python examples/digits/ranges.py.

Prints the table of docs/devices.md: the accuracy of the digits network under OUs of 8 and 32 rows,
whose converters keep the sums from 0 on, or have the range that was chosen for each layer on 32
images of training.
"""

import argparse
import dataclasses

from refmodel import digits
from refmodel.api import compress, load
from refmodel.golden import devices
from refmodel.golden.devices import calibration
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.device import Device
from refmodel.network.images import Preprocess


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Converters with few bits, ranges calibrated.")
    parser.add_argument("--images", type=int, default=500, help="held-out images: the first")
    options = parser.parse_args()
    images = digits.digits_images()
    y = images.y[: options.images]
    print("| rows | bits | sums from 0 | calibrated | first layer | largest step |")
    print("|---|---|---|---|---|---|")
    for rows in (8, 32):
        program = compress(
            load(digits.network_path("float")),
            images.calibration_x,
            scheme="dense",
            ou_rows=rows,
            preprocess=Preprocess.for_images(images.calibration_x, scale=1 / 16),
        )
        config = program.engine()
        codes = program.codes(images.x[: options.images])
        chosen = program.codes(images.calibration_x[:32])
        for bits in range(1, config.code_bits + 1):
            clipped = Chip(
                device=Device(), config=dataclasses.replace(config, adc_bits=bits), seed=0
            )
            ranges = calibration.calibrate(program, chosen, config, bits)
            ranged = Chip(device=Device(), config=config, seed=0, ranges=ranges)
            found = [devices.accuracy(program, codes, y, chip) for chip in (clipped, ranged)]
            first, step = ranges[0], max(each.step for each in ranges.values())
            print(
                f"| {rows} | {bits} | {100 * found[0]:.2f} % | {100 * found[1]:.2f} % | "
                f"{first.low:g} to {first.low + first.step * first.most:g} | {step:g} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
