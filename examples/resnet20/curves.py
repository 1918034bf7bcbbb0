"""Accuracy over cost for several schemes, each fine-tuned in the same way: points, table, figure.

    python examples/resnet20/curves.py net.onnx --data train.npz --images test.npz -o build/curves

A point is a scheme, a budget (so many times less than dense, of what `--budget-of` says) and a
seed. For each the network is fine-tuned, compiled and measured in 8 bits, as `prap finetune`,
`prap compress` and `prap evaluate` do it, and its figures are written to a file of their own;
points that are there already are not computed again. Nothing here knows a network: settings come
from the budget. Scheme `dense` is compiled as it is. `energy.py` prices the points.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

HEADINGS = (
    "scheme",
    "times fewer OU activations",
    "accuracy",
    "seeds",
    "OU activations",
    "conversions",
    "merges",
    "cost",
    "cycles",
    "index bits",
)

COLOURS = {"orc": "#888888", "prap": "#d1495b", "dictionary": "#00798c"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point: ``times`` 0 takes the scheme's default settings, and dense has no others."""

    scheme: str
    method: str = "shared"
    times: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of its files."""
        method = "" if self.method == "shared" else f"-{self.method}"
        return f"{self.scheme}{method}-{self.times:g}-{self.seed}"


def tune(point: Point, options: argparse.Namespace) -> Path:
    """Fine-tune the network of a point, unless that was done before."""
    import torch

    from prap_hw.app import finetuning
    from refmodel.train import Recipe

    torch.set_num_threads(1)
    tuned = options.out / f"{point.name}.onnx"
    if not tuned.exists():
        recipe = Recipe(
            method=point.method,
            epochs=options.epochs,
            augment=options.augment,
            seed=point.seed,
            precision=options.precision,
        )
        finetuning.finetune(
            options.network,
            options.data,
            tuned,
            scheme=point.scheme,
            settings=settings(point, options),
            recipe=recipe,
            calibration=options.calibration,
            **_pixels(options),
        )
    return tuned


def compute(point: Point, options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune, compile and measure one point."""
    from prap_hw.app import workflow

    folder = options.out / point.name
    dense = point.scheme == "dense"
    summary = workflow.compress(
        options.network if dense else tune(point, options),
        options.data,
        folder,
        scheme="dense" if dense else None,
        augment=options.augment,
        replace=True,
        config=engine(point.scheme, options),
        **_pixels(options),
    )
    found = workflow.evaluate(folder, options.images)
    layers, total = summary["metrics"]["layers"], summary["metrics"]["total"]
    ous = sum(layer["ous_dense"] * layer["positions"] for layer in layers)
    return asdict(point) | {
        "accuracy": found["accuracy"]["int8" if dense else point.scheme],
        "images": found["images"],
        "ratio": ous / total["ou_activations"],
        "ou_activations": total["ou_activations"],
        "conversions": total["conversions"],
        "merges": total["merges"],
        "cycles": total["cycles"],
        "index_bits": total["index_bits"],
        "epochs": options.epochs,
    }


def _pixels(options: argparse.Namespace) -> dict[str, Any]:
    return {"mean": options.mean, "std": options.std, "scale": options.scale}


def engine(scheme: str, options: argparse.Namespace) -> dict[str, int]:
    """Sizes of the engine for which a scheme's settings are chosen."""
    sizes: dict[str, int] = {}
    for each in options.engine:
        name, colon, text = each.rpartition(":")
        if not colon or name == scheme:
            size, _, value = text.partition("=")
            sizes[size] = int(value)
    return sizes


def search(scheme: str, options: argparse.Namespace) -> dict[str, Any]:
    """Choose the settings of a scheme for every budget: by budget, by layer; None: out of reach."""
    from prap_hw.app import workflow
    from refmodel.compression.budget import Budget, choose_each
    from refmodel.exchange.onnx.load import load_onnx
    from refmodel.network.augment import augment
    from refmodel.network.images import Preprocess, load_images

    network = load_onnx(options.network)
    images, _ = load_images(options.data)
    pixels = Preprocess.for_images(images, mean=options.mean, std=options.std, scale=options.scale)
    images = images[: options.calibration]
    if options.augment:
        images = augment(images, options.augment)
    budgets = [
        Budget(times=times, of=options.budget_of, technology=options.technology)
        for times in options.times
        if times
    ]
    found = choose_each(
        network,
        pixels.apply(images, network.input_shape),
        budgets,
        scheme=scheme,
        config=workflow.engine(engine(scheme, options)),
        reachable_only=True,
    )
    return {
        f"{budget.times:g}": choice
        and {name: asdict(each) for name, each in choice.settings.items()}
        for budget, choice in zip(budgets, found, strict=True)
    }


def settings(point: Point, options: argparse.Namespace) -> dict[str, Any] | None:
    """Read the settings of a point; None where it takes the default ones, or none reach it."""
    from refmodel.compression.schemes import LayerSetting

    if not point.times:
        return None
    chosen = _read(_settings_file(point.scheme, options))[f"{point.times:g}"]
    return chosen and {name: LayerSetting(**fields) for name, fields in chosen.items()}


def missing(points: Sequence[Point], options: argparse.Namespace) -> None:
    """Choose the settings and compute the points whose files are not there, some at a time."""
    left = [point for point in points if not _file(point, options).exists()]
    print(f"curves: {len(points)} points, {len(points) - len(left)} there already", flush=True)
    schemes = {point.scheme for point in left if point.times and not _has_settings(point, options)}
    with ProcessPoolExecutor(options.jobs) as pool:
        searches = {pool.submit(search, scheme, options): scheme for scheme in sorted(schemes)}
        for future in as_completed(searches):
            path = _settings_file(searches[future], options)
            _write(path, (_read(path) if path.exists() else {}) | future.result())
            print(f"{searches[future]}: settings chosen", flush=True)
        for point in [point for point in left if _out_of_reach(point, options)]:
            print(f"{point.name}: left out, no setting reaches this budget", flush=True)
            left.remove(point)
        futures = {pool.submit(compute, point, options): point for point in left}
        for future in as_completed(futures):
            point, figures = futures[future], future.result()
            _write(_file(point, options), figures)
            print(
                f"{point.name}: {figures['ratio']:.2f} times fewer OU activations, "
                f"{100 * figures['accuracy']:.2f} %",
                flush=True,
            )


def _write(path: Path, figures: dict[str, Any]) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _has_settings(point: Point, options: argparse.Namespace) -> bool:
    path = _settings_file(point.scheme, options)
    return path.exists() and f"{point.times:g}" in _read(path)


def _out_of_reach(point: Point, options: argparse.Namespace) -> bool:
    return bool(point.times) and settings(point, options) is None


def same_run(options: argparse.Namespace) -> None:
    """Refuse a folder of points that were computed with other options."""
    names = ("network", "data", "images", "epochs", "augment", "precision", "calibration")
    names += ("budget_of", "technology", "engine")
    own = {name: str(getattr(options, name)) for name in names}
    path = options.out / "run.json"
    if path.exists() and _read(path) != own:
        raise SystemExit(f"curves: error: expected a folder of this run, found another's: {path}")
    _write(path, own)


def _settings_file(scheme: str, options: argparse.Namespace) -> Path:
    return options.out / f"settings-{scheme}.json"


def _file(point: Point, options: argparse.Namespace) -> Path:
    return options.out / f"{point.name}.json"


def grouped(points: Sequence[Point], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Put the seeds of a point together: mean and spread of the accuracy, costs in the mean."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for point in points:
        figures = _read(_file(point, options))
        groups.setdefault((point.scheme, point.method, point.times), []).append(figures)
    result = []
    for (scheme, method, times), found in groups.items():
        accuracy = [each["accuracy"] for each in found]
        row = {"scheme": scheme, "method": method, "times": times, "seeds": len(found)}
        row |= {
            "accuracy": mean(accuracy),
            "first": accuracy[0],
            "spread": stdev(accuracy) if len(found) > 1 else None,
        }
        for key in ("ratio", "ou_activations", "conversions", "merges", "cycles", "index_bits"):
            row[key] = mean(each[key] for each in found)
        row["cost"] = row["conversions"] + options.merge_weight * row["merges"]
        result.append(row)
    return sorted(result, key=lambda row: (row["scheme"], row["method"], row["ratio"]))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write the table as Markdown; the accuracy of the first seed, and mean and spread of all."""
    lines = [
        f"| {' | '.join(HEADINGS)} |",
        "|" + "---|" * len(HEADINGS),
    ]
    for row in rows:
        name = row["scheme"] + (f" ({row['method']})" if row["method"] != "shared" else "")
        accuracy = f"{100 * row['first']:.2f} %"
        if row["spread"] is not None:
            accuracy += f" ({100 * row['accuracy']:.2f} ± {100 * row['spread']:.2f} %)"
        counts = [row["ou_activations"], row["conversions"], row["merges"], row["cost"]]
        millions = " | ".join(f"{count / 1e6:.2f} M" for count in counts)
        lines.append(
            f"| {name} | {row['ratio']:.2f} | {accuracy} | {row['seeds']} | {millions} | "
            f"{row['cycles'] / 1e6:.2f} M | {row['index_bits']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def figure(rows: Sequence[dict[str, Any]], reference: float, options: argparse.Namespace) -> None:
    """Draw accuracy over OU activations, and over conversions plus weighted merges."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    panels = (
        ("ou_activations", "OU activations for an image (millions)"),
        ("cost", f"conversions + {options.merge_weight:g} x merges for an image (millions)"),
    )
    sheet, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for axis, (key, label) in zip(axes, panels, strict=True):
        for (scheme, method), style in _styles(rows).items():
            mine = [row for row in rows if (row["scheme"], row["method"]) == (scheme, method)]
            name = scheme + ("" if method == "shared" else f", {method} recipe")
            axis.errorbar(
                [row[key] / 1e6 for row in mine],
                [100 * row["accuracy"] for row in mine],
                [100 * (row["spread"] or 0) for row in mine],
                label=name,
                capsize=3,
                **style,
            )
        axis.axhline(100 * reference, color="black", linewidth=0.8, linestyle=":")
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.set_xlabel(label)
        axis.grid(alpha=0.3, which="both")
    axes[0].annotate(
        "float network", (0.02, 100 * reference), xycoords=("axes fraction", "data"), va="bottom"
    )
    axes[0].set_ylabel("accuracy (%)")
    axes[0].legend(loc="best")
    sheet.suptitle(options.title)
    sheet.tight_layout()
    sheet.savefig(options.out / "curves.png", dpi=130)


def _styles(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    kinds = dict.fromkeys((row["scheme"], row["method"]) for row in rows)
    return {
        (scheme, method): {
            "color": COLOURS.get(scheme, "#444444"),
            "marker": "o" if method == "shared" else "x",
            "linestyle": "-" if method == "shared" else "none",
        }
        for scheme, method in kinds
    }


def float_network(options: argparse.Namespace) -> float:
    """Accuracy of the network as it was trained."""
    from refmodel.api import float_accuracy
    from refmodel.exchange.onnx.load import load_onnx
    from refmodel.network.images import Preprocess, load_images

    network = load_onnx(options.network)
    images, labels = load_images(options.images)
    pixels = Preprocess.for_images(images, **_pixels(options))
    return float_accuracy(network, pixels.apply(images, network.input_shape), labels)


def numbers(text: str) -> tuple[float, ...]:
    """Read numbers with commas."""
    return tuple(float(part) for part in text.split(","))


def main() -> int:
    """Compute the points that are missing, print the table, write table and figure."""
    parser = argparse.ArgumentParser(description="Accuracy over cost, every scheme trained alike.")
    parser.add_argument("network", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="training images")
    parser.add_argument("--images", type=Path, required=True, help="test images")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder")
    parser.add_argument("--schemes", default="orc,prap,dictionary", help="scheme[:published],...")
    parser.add_argument(
        "--times", type=numbers, default="2.2,4.25,7.5,10.4", help="budgets; 0: default settings"
    )
    parser.add_argument("--budget-of", default="ous", help="ous, cycles, weighted or energy")
    parser.add_argument("--technology", help="for --budget-of energy: a name or a file")
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="[SCHEME:]FIELD=VALUE",
        help="a size of the engine that settings are chosen for, of one scheme or of all",
    )
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--calibration", type=int, default=1024, help="images for the settings")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--augment")
    parser.add_argument("--mean", type=numbers)
    parser.add_argument("--std", type=numbers)
    parser.add_argument("--scale", type=float)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--merge-weight", type=float, default=1.0, help="in conversions")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    points = [
        Point(scheme=name, method=method or "shared", times=times, seed=seed)
        for name, _, method in (each.partition(":") for each in options.schemes.split(","))
        for times in options.times
        for seed in map(int, options.seeds.split(","))
    ]
    same_run(options)
    missing(points, options)
    everything = [
        Point(**{key: figures[key] for key in ("scheme", "method", "times", "seed")})
        for figures in (
            _read(path)
            for path in sorted(options.out.glob("*.json"))
            if path.name != "run.json" and not path.name.startswith("settings-")
        )
    ]
    rows = grouped(everything, options)
    text = table(rows)
    (options.out / "curves.md").write_text(text, encoding="utf-8")
    figure(rows, float_network(options), options)
    print(text, end="")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
