"""Images a second on chips, of two checkouts in turn: python benchmarks/beside.py OLD NETWORK.

Each round runs a new process of either checkout on one core, so that what else the machine does
hits both. The logits of both must be equal, bit for bit. Images a second are of CPU time, after the
cells were drawn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

JOB = """
import dataclasses, hashlib, json, sys, time
from pathlib import Path
import numpy as np
from refmodel.golden import devices
from refmodel.network.images import load_images
from prap_hw.app.workflow.folders import input_codes, load_program
folder, images, device, count, noise = sys.argv[1:]
program = load_program(Path(folder))
codes = input_codes(program, load_images(images)[0][: int(count)], source=images)
kind = devices.Device.load(device)
if noise == "0":
    kind = dataclasses.replace(kind, read_noise=0.0)
chip = devices.Chip(device=kind, config=program.engine(), seed=0)
devices.logits(program, codes[:1], chip)
began = time.process_time()
found = devices.logits(program, codes, chip)
taken = time.process_time() - began
print(json.dumps([len(codes) / taken, hashlib.sha256(found.tobytes()).hexdigest()]))
"""


def once(checkout: Path, arguments: list[str]) -> tuple[float, str]:
    """Images a second and the digest of the logits, of one process."""
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    found = subprocess.run(
        [sys.executable, "-c", JOB, *arguments],
        cwd=checkout,
        env=os.environ | one | {"PYTHONPATH": str(checkout)},
        check=True,
        capture_output=True,
        text=True,
    )
    rate, digest = json.loads(found.stdout)
    return rate, digest


def main() -> int:
    """Print a row to each kind of noise."""
    parser = argparse.ArgumentParser(description="Images a second on chips, old beside new.")
    parser.add_argument("old", type=Path, help="checkout to compare with")
    parser.add_argument("network", type=Path, help="folder of prap compress")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--device", default="wan-2022")
    parser.add_argument("--count", type=int, default=16, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| | old, images/s | new, images/s | ratio |\n|---|---|---|---|")
    for name, noise in (("static effects", "0"), ("with read noise", "1")):
        rates: tuple[list[float], list[float]] = [], []
        for _ in range(options.rounds):
            digests = set()
            for checkout, found in zip((options.old.resolve(), ROOT), rates, strict=True):
                files = [str(path.resolve()) for path in (options.network, options.images)]
                rate, digest = once(checkout, [*files, options.device, str(options.count), noise])
                found.append(rate)
                digests.add(digest)
            if len(digests) > 1:
                print(f"{name}: the two have other logits", file=sys.stderr)
                return 1
        old, new = (statistics.median(found) for found in rates)
        print(f"| {name} | {old:.1f} | {new:.1f} | {new / old:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
