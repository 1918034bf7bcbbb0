"""The digits network on chips that are not ideal: python examples/digits/devices.py.

Prints the tables of docs/devices.md: accuracy of dense and prap on five chips of each device, and
what one stuck cell does to the outputs of a layer.
"""

import dataclasses

import numpy as np

from refmodel import devices, digits, golden
from refmodel.api import Program, compress, load
from refmodel.compile import engine_config_for
from refmodel.config import EngineConfig
from refmodel.devices import Chip, Device
from refmodel.images import Preprocess

CHIPS = range(5)
PROBED = 100
"""Stuck cells tried, one to a chip."""


def program(scheme: str) -> Program:
    """The packaged network, as trained and dense or fine-tuned and with prap."""
    images = digits.digits_images()
    network = load(digits.network_path("prap" if scheme == "prap" else "float"))
    return compress(
        network,
        images.calibration_x,
        scheme=scheme,
        settings=digits.SETTINGS if scheme == "prap" else None,
        preprocess=Preprocess.for_images(images.calibration_x, scale=1 / 16),
        moments=False,
    )


def kinds() -> list[Device]:
    """The packaged devices, and ideal cells of which a few are stuck."""
    packaged = [Device.load(name) for name in ("ideal", "falcone-2025", "wan-2022")]
    stuck = [
        dataclasses.replace(
            packaged[0], name=f"ideal, {rate:.1%} stuck each", stuck_off=rate, stuck_on=rate
        )
        for rate in (0.002, 0.01)
    ]
    return [*packaged, *stuck]


def touched(program: Program, codes: np.ndarray, config: EngineConfig) -> float:
    """Outputs of the second layer that one cell stuck on changes, in the mean; seed 0."""
    layer = program.layers[1]
    ideal = Chip(device=Device(), config=config, seed=0).layer(layer, 1)
    inputs = golden.run_layer(program.layers[0], codes)
    if inputs.shape[1:] != layer.in_shape:
        raise ValueError(f"the second layer must follow the first, not {inputs.shape!r}")
    right = golden.serial_accumulators(layer, inputs, config)
    rng = np.random.default_rng(0)
    off = np.argwhere(ideal.matrix == 0)
    used = golden.cells(layer, config).transpose(0, 2, 1).reshape(ideal.matrix.shape)
    off = off[used[off[:, 0]].any(1)]
    found = []
    for column, row in off[rng.choice(len(off), PROBED, replace=False)]:
        matrix = ideal.matrix.copy()
        matrix[column, row] = 1
        one = dataclasses.replace(ideal, matrix=matrix)
        wrong = golden.serial_accumulators(layer, inputs, config, device=one)
        found.append((wrong != right).any((0, 1, 2)).sum())
    return float(np.mean(found))


def main() -> None:
    """Print both tables."""
    images = digits.digits_images()
    programs = {scheme: program(scheme) for scheme in ("dense", "prap")}
    configs = {
        scheme: engine_config_for(each.layers, EngineConfig()) for scheme, each in programs.items()
    }
    codes = {scheme: each.codes(images.x) for scheme, each in programs.items()}
    print("| device | dense | prap |\n|---|---|---|")
    for device in kinds():
        cells = [device.name]
        for scheme, each in programs.items():
            found = [
                devices.accuracy(
                    each,
                    codes[scheme],
                    images.y,
                    Chip(device=device, config=configs[scheme], seed=seed),
                )
                for seed in CHIPS
            ]
            mean, spread = 100 * np.mean(found), 100 * np.std(found, ddof=1)
            cells.append(f"{mean:.2f} ± {spread:.2f} %")
        print(f"| {' | '.join(cells)} |")
    print("\n| second layer | dense | prap |\n|---|---|---|")
    kept = [str(each.layers[1].kept) for each in programs.values()]
    print(f"| kept patterns | {' | '.join(kept)} |")
    hit = [
        f"{touched(each, codes[scheme][:20], configs[scheme]):.2f}"
        for scheme, each in programs.items()
    ]
    print(f"| outputs changed by one cell stuck on | {' | '.join(hit)} |")


if __name__ == "__main__":
    main()
