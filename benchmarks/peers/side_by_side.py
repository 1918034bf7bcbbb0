"""Accuracy over sigma, and images a second, with settings that other simulators have, too.

    python benchmarks/peers/side_by_side.py NETWORK --images IMAGES.npz

README.md beside this file says what would have to be set in CrossSim and in aihwkit, and why their
side is not written.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np

from prap_hw.app.intervals import half_width
from prap_hw.app.workflow.folders import input_codes, load_program
from refmodel.golden import devices
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.device import Device
from refmodel.network.images import load_images

SIGMAS = (0.0, 0.05, 0.1, 0.2, 0.3)

PEERS = {"CrossSim": "simulator", "aihwkit": "aihwkit"}
"""Peer to the package that it installs."""


def peers() -> list[str]:
    """Say of each peer whether it is there; its side is not written in either case."""
    return [
        f"{name}: not compared, "
        + (
            f"the package {package} is not installed"
            if importlib.util.find_spec(package) is None
            else "its side is not written (benchmarks/peers/README.md)"
        )
        for name, package in PEERS.items()
    ]


def main() -> int:
    """Print settings, a row to each sigma, and a line to each peer."""
    parser = argparse.ArgumentParser(description="Accuracy over sigma, images a second.")
    parser.add_argument("network", type=Path, help="folder of prap compress")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=500, help="images: the first")
    parser.add_argument("--chips", type=int, default=20, help="chips of each sigma")
    options = parser.parse_args()
    program = load_program(options.network)
    x, labels = load_images(options.images)
    if labels is None:
        parser.error(f"expected images with labels, found none in {options.images.name}")
    codes = input_codes(program, x[: options.limit], source=options.images.name)
    y = np.asarray(labels)[: options.limit]
    config = program.engine()
    print(
        f"{config.ou_rows} rows, pairs of {config.cell_bits}-bit cells, {config.dac_bits}-bit "
        f"digits, codes of {config.code_bits} bits and sign, normal errors in proportion to G, "
        f"{len(y)} images, {options.chips} chips"
    )
    print("| sigma | accuracy, 95 % interval | lowest | highest | images/s of CPU time |")
    print("|---|---|---|---|---|")
    for sigma in SIGMAS:
        device = Device(error_proportional=sigma)
        began = time.process_time()
        chips = range(options.chips if device.varies else 1)
        rights = [
            100
            * devices.accuracy(
                program, codes, y, Chip(device=device, config=config, seed=seed, pairs=True)
            )
            for seed in chips
        ]
        rate = len(rights) * len(y) / (time.process_time() - began)
        half = half_width(rights)
        print(
            f"| {sigma:g} | {np.mean(rights):.2f} %{'' if half is None else f' ± {half:.2f}'} | "
            f"{min(rights):.2f} % | {max(rights):.2f} % | {rate:.1f} |",
            flush=True,
        )
    print("\n".join(peers()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
