"""Compiled networks on chips that are not ideal: table and figure of several devices.

    python examples/resnet20/devices.py dense=build/dense prap=build/prap \
      --images test.npz --limit 200 -o build/devices

Each NAME=DIR is a folder of `prap compress`. For every network and device it is what `prap evaluate
--device` measures, written to a file of its own; what is there already is not measured again.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

DEVICES = ("ideal", "falcone-2025", "wan-2022")


def measure(folder: Path, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """Accuracy of one network on the chips of one device."""
    from prap_hw.app import workflow

    found = workflow.evaluate(
        folder,
        options.images,
        limit=options.limit,
        device=device,
        cells=options.cells,
        trials=options.trials,
        seed=options.seed,
    )
    return {"images": found["images"], **found["accuracy"], **found["devices"][0]}


def missing(options: argparse.Namespace) -> None:
    """Measure what is not there, some at a time."""
    left = [
        (name, folder, device)
        for name, folder in options.networks
        for device in options.device
        if not _file(name, device, options).exists()
    ]
    with ProcessPoolExecutor(options.jobs) as pool:
        futures = {
            pool.submit(measure, folder, device, options): (name, device)
            for name, folder, device in left
        }
        for future in as_completed(futures):
            name, device = futures[future]
            path = _file(name, device, options)
            draft = path.with_suffix(".part")
            draft.write_text(json.dumps(future.result(), indent=2) + "\n", encoding="utf-8")
            draft.replace(path)
            print(f"{name} on {device}: measured", flush=True)


def _file(name: str, device: str, options: argparse.Namespace) -> Path:
    return options.out / f"{name}-{Path(device).stem}-{options.cells}.json".replace(" ", "_")


def table(rows: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> str:
    """Write the table as Markdown: mean and spread over the chips, by network and device."""
    names = [found["name"] for found in rows[0][1]]
    lines = [f"| network | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for name, found in rows:
        cells = [_accuracy(each["mean"], each["spread"]) for each in found]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def paired(rows: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> str:
    """Write how much better each network is than the first, chip by chip, with 95 % intervals.

    Chips of a device with the same number have the same random numbers at the same places.
    """
    from prap_hw.app.intervals import half_width

    first, reference = rows[0]
    lines = [f"| less {first} | {' | '.join(found['name'] for found in reference)} |"]
    lines.append("|---|" + "---|" * len(reference))
    for name, found in rows[1:]:
        cells = []
        for mine, theirs in zip(found, reference, strict=True):
            less = [
                100 * (a - b) for a, b in zip(mine["accuracy"], theirs["accuracy"], strict=True)
            ]
            half = half_width(less)
            mean = f"{sum(less) / len(less):+.2f}"
            cells.append(f"{mean} points" if half is None else f"{mean} ± {half:.2f} points")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _accuracy(mean: float, spread: float | None) -> str:
    text = f"{100 * mean:.2f}"
    return f"{text} %" if spread is None else f"{text} ± {100 * spread:.2f} %"


def figure(rows: Sequence[tuple[str, Sequence[dict[str, Any]]]], path: Path, title: str) -> None:
    """Draw every chip as a point, and mean and spread beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sheet, axis = pyplot.subplots(figsize=(8, 4.2))
    width = 0.8 / len(rows)
    names = [found["name"] for found in rows[0][1]]
    for number, (name, found) in enumerate(rows):
        colour = f"C{number}"
        places = [place + (number + 0.5) * width - 0.4 for place in range(len(found))]
        for place, each in zip(places, found, strict=True):
            chips = [100 * value for value in each["accuracy"]]
            axis.plot([place] * len(chips), chips, ".", color=colour, alpha=0.5)
        axis.errorbar(
            [place + width / 5 for place in places],
            [100 * each["mean"] for each in found],
            [100 * (each["spread"] or 0) for each in found],
            fmt="o",
            color=colour,
            capsize=3,
            label=name,
        )
    axis.set_xticks(range(len(names)), names)
    axis.set_ylabel("accuracy (%)")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(loc="lower left")
    axis.set_title(title)
    sheet.tight_layout()
    sheet.savefig(path, dpi=130)


def network(text: str) -> tuple[str, Path]:
    """Read NAME=DIR."""
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise argparse.ArgumentTypeError(f"expected NAME=DIR, found {text!r}")
    return name, Path(folder)


def main() -> int:
    """Measure what is missing, print the table, write table and figure."""
    parser = argparse.ArgumentParser(description="Compiled networks on chips of several devices.")
    parser.add_argument("networks", nargs="+", type=network, metavar="NAME=DIR")
    parser.add_argument("--images", type=Path, required=True, help="test images")
    parser.add_argument("--limit", type=int, help="images at most: the first")
    parser.add_argument("--device", action="append", help="device file or packaged name; again")
    parser.add_argument("--cells", default="twos-complement", help="or pairs")
    parser.add_argument("--trials", type=int, default=5, help="chips of each device")
    parser.add_argument("--seed", type=int, default=0, help="of the first chip")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--title", default="")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder")
    options = parser.parse_args()
    options.device = options.device or list(DEVICES)
    options.out.mkdir(parents=True, exist_ok=True)
    missing(options)
    rows = [
        (
            name,
            [
                json.loads(_file(name, device, options).read_text(encoding="utf-8"))
                for device in options.device
            ],
        )
        for name, _ in options.networks
    ]
    text = table(rows)
    if len(rows) > 1 and options.trials > 1:
        text += "\n" + paired(rows)
    (options.out / f"devices-{options.cells}.md").write_text(text, encoding="utf-8")
    figure(rows, options.out / f"devices-{options.cells}.png", options.title)
    print(text, end="")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
