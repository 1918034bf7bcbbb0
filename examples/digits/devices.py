"""The digits network on chips that are not ideal: python examples/digits/devices.py.

Prints the tables of docs/devices.md: the accuracy of four schemes on chips of each device, with
weights in two's complement and in differential pairs of cells; and what reuse and the coding do to
the number of cells, and to the outputs that a bad one reaches. ``--figure FILE`` draws the first.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from refmodel import digits, golden
from refmodel.api import Program, compress, load
from refmodel.config import EngineConfig
from refmodel.golden import devices
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.device import Device
from refmodel.network.images import Preprocess

CHIPS = 5
"""Chips of each device, seeds from 0; one where all are alike."""

PROBED = 100
"""Stuck cells tried, one to a chip."""

SCHEMES: dict[str, digits.Kind] = {
    "dense": "float",
    "orc": "float",
    "prap": "prap",
    "dictionary": "float",
}
"""Scheme to packaged network: as trained, or fine-tuned onto the patterns of prap."""

CODINGS = {"two's complement": False, "pairs": True}

Accuracies = dict[tuple[str, str, str], np.ndarray]
"""Device, scheme and coding to the accuracy of each chip, as a share."""


def program(scheme: str) -> Program:
    """The packaged network: dense, orc with the kept shares of prap, prap, or dictionary.

    The dense network and the one that was fine-tuned for prap are mapped as they are, the others
    without training, with their moments matched.
    """
    images = digits.digits_images()
    settings = digits.SETTINGS if scheme in ("orc", "prap") else None
    if settings and scheme == "orc":
        settings = {
            name: dataclasses.replace(each, scheme="orc") if each.scheme == "prap" else each
            for name, each in settings.items()
        }
    return compress(
        load(digits.network_path(SCHEMES[scheme])),
        images.calibration_x,
        scheme=scheme,
        settings=settings,
        preprocess=Preprocess.for_images(images.calibration_x, scale=1 / 16),
        moments=scheme not in ("dense", "prap"),
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


def spread(values: np.ndarray) -> float:
    """Standard deviation from chip to chip, 0 of a chip that is like all others."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def accuracies(programs: dict[str, Program]) -> Accuracies:
    """Measure every scheme and coding on every chip, on all held-out images.

    Prints mean and spread on the way: a row for a device and coding, a column for a scheme.
    """
    images = digits.digits_images()
    found: Accuracies = {}
    print(f"| device | cells | {' | '.join(programs)} |\n|---|---|{'---|' * len(programs)}")
    for device in kinds():
        alike = device.values() == Device().values()
        for coding, pairs in CODINGS.items():
            cells = []
            for scheme, each in programs.items():
                codes, config = each.codes(images.x), each.engine()
                chips = [
                    Chip(device=device, config=config, seed=seed, pairs=pairs)
                    for seed in range(1 if alike else CHIPS)
                ]
                values = np.array([devices.accuracy(each, codes, images.y, chip) for chip in chips])
                found[device.name, scheme, coding] = values
                cells.append(f"{100 * values.mean():.2f} ± {100 * spread(values):.2f} %")
            print(f"| {device.name} | {coding} | {' | '.join(cells)} |", flush=True)
    return found


def on_cells(program: Program, config: EngineConfig, *, pairs: bool) -> int:
    """Count the cells of all layers that are programmed to be on."""
    coded = golden.pair_cells if pairs else golden.cells
    return sum(int(np.count_nonzero(coded(layer, config))) for layer in program.layers)


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


def print_cells(programs: dict[str, Program]) -> None:
    """Print what each scheme programs, and how far a bad cell of it reaches."""
    images = digits.digits_images()
    rows: dict[str, list[str]] = {
        "kept patterns of the second layer": [],
        "outputs of it that one cell stuck on changes": [],
        "on cells of all layers, two's complement": [],
        "on cells of all layers, pairs": [],
    }
    for each in programs.values():
        config = each.engine()
        cells = (on_cells(each, config, pairs=pairs) for pairs in CODINGS.values())
        hit = touched(each, each.codes(images.x[:20]), config)
        found = (f"{each.layers[1].kept:,}", f"{hit:.2f}", *(f"{count:,}" for count in cells))
        for row, value in zip(rows.values(), found, strict=True):
            row.append(value)
    print(f"| | {' | '.join(SCHEMES)} |\n|---|{'---|' * len(SCHEMES)}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(row)} |")


def draw(found: Accuracies, path: Path) -> None:
    """Draw mean and spread of each device: schemes by colour, codings by the filling of points."""
    from matplotlib.figure import Figure

    names = [device.name for device in kinds()]
    colours = dict(zip(SCHEMES, ("#444444", "#0072b2", "#d55e00", "#009e73"), strict=True))
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    packaged, stuck = figure.subplots(1, 2, width_ratios=(3, 2))
    for axes, shown in ((packaged, names[:3]), (stuck, names[3:])):
        for i, (scheme, coding) in enumerate((s, c) for s in SCHEMES for c in CODINGS):
            values = [100 * found[name, scheme, coding] for name in shown]
            places = np.arange(len(shown)) + (i - 3.5) * 0.09
            axes.errorbar(
                places,
                [each.mean() for each in values],
                [spread(each) for each in values],
                fmt="o",
                color=colours[scheme],
                markerfacecolor="white" if CODINGS[coding] else colours[scheme],
                markersize=5,
                capsize=2,
                linewidth=1,
                label=f"{scheme}, {coding}",
            )
        axes.set_xticks(range(len(shown)), shown)
        axes.grid(axis="y", alpha=0.3)
    packaged.set_ylabel("held-out images right, %")
    handles, labels = packaged.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print both tables, and draw the figure that was asked for."""
    parser = argparse.ArgumentParser(description="The digits network on chips that are not ideal.")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw a .png, .svg or .pdf")
    options = parser.parse_args()
    programs = {scheme: program(scheme) for scheme in SCHEMES}
    found = accuracies(programs)
    print()
    print_cells(programs)
    if options.figure:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
