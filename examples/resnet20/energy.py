"""Accuracy over energy and over latency: the points of `curves.py`, priced on several engines.

    python examples/resnet20/energy.py build/curves-orc build/curves-dictionary -o build/energy

Each compiled point of some folders is priced by `prap price` in every technology and on every
engine of `--engine`. Of a scheme, in a technology, each point is taken on the engine on which its
energy times its latency is least; energy and latency are both those of that engine. Seeds of a
point are put together: means. Ratios at equal accuracy are interpolated: between two neighbouring
points of a scheme the logarithm of a cost is linear in the accuracy; of a scheme's points only
those count that no cheaper one of it is as accurate as; nothing is extrapolated.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from math import exp, log
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = dict[str, Any]

COLOURS = {"dense": "#444444", "orc": "#888888", "prap": "#d1495b", "dictionary": "#00798c"}

HEADINGS = (
    "technology",
    "scheme",
    "engine",
    "accuracy",
    "seeds",
    "energy, µJ",
    "latency, µs",
    "cycles",
    "conversions",
    "merges",
)

COSTS = {"joules": "energy", "seconds": "latency", "conversions": "conversions"}
"""Costs whose ratios are reported."""

GOAL = {"joules": 1.51, "seconds": 2.0, "conversions": 3.0}
"""What `dictionary` shall be better by than `orc`, at equal accuracy."""


def points(folders: Sequence[Path]) -> Iterator[tuple[Path, Row]]:
    """Go through the compiled points of some folders: the folder of each, and its figures."""
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            figures = json.loads(path.read_text(encoding="utf-8"))
            program = path.with_suffix("")
            if "accuracy" in figures and (program / "program.prap").is_file():
                yield program, figures


def priced(folder: Path, engines: Sequence[Mapping[str, int]]) -> list[Row]:
    """Price a point on every engine, in every packaged technology; kept beside its figures."""
    from prap_hw.app import workflow

    kept = folder / "prices.json"
    stamp = (folder / "program.prap").stat().st_mtime
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if known.get("stamp") != stamp:
        known = {"stamp": stamp, "prices": []}
    prices = known["prices"]
    for engine in engines:
        if any(each["engine"] == dict(engine) for each in prices):
            continue
        for found in workflow.price(folder, (), config=dict(engine))["technologies"]:
            names = ("technology", "joules", "seconds", "cycles", "mm2", "parts")
            prices.append({"engine": dict(engine)} | {name: found[name] for name in names})
    kept.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return [each for each in prices if each["engine"] in [dict(engine) for engine in engines]]


def rows(folders: Sequence[Path], engines: Sequence[Mapping[str, int]]) -> list[Row]:
    """Put the seeds of each point together, on its best engine in each technology."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for folder, figures in points(folders):
        for price in priced(folder, engines):
            key = (price["technology"], figures["scheme"], figures["method"])
            budget = (str(folder.parent), figures["times"])
            groups.setdefault((*key, *budget), []).append(figures | price)
    result = []
    for (technology, scheme, method, *_), found in groups.items():
        engine = min(
            (each["engine"] for each in found),
            key=lambda engine: mean(
                each["joules"] * each["seconds"] for each in found if each["engine"] == engine
            ),
        )
        own = [each for each in found if each["engine"] == engine]
        accuracy = [each["accuracy"] for each in own]
        row = {"technology": technology, "scheme": scheme, "method": method, "engine": engine}
        row |= {"seeds": len(own), "accuracy": mean(accuracy)}
        row |= {"spread": stdev(accuracy) if len(own) > 1 else None}
        row |= {"parts": {k: mean(each["parts"][k] for each in own) for k in own[0]["parts"]}}
        for name in ("joules", "seconds", "cycles", "mm2", "ratio", "conversions", "merges"):
            row[name] = mean(each[name] for each in own)
        result.append(row)
    return sorted(result, key=lambda row: (row["technology"], row["scheme"], row["joules"]))


def front(found: Sequence[Row], cost: str) -> list[tuple[float, float]]:
    """Accuracy and cost of the points that no cheaper one is as accurate as; by accuracy."""
    result: list[tuple[float, float]] = []
    for row in sorted(found, key=lambda row: (row[cost], -row["accuracy"])):
        if not result or row["accuracy"] > result[-1][0]:
            result.append((row["accuracy"], row[cost]))
    return result


def cost_at(line: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    """Cost at an accuracy, its logarithm linear between neighbours; None beyond the points."""
    for (a, low), (b, high) in itertools.pairwise(line):
        if a <= accuracy <= b:
            return exp(log(low) + (log(high) - log(low)) * (accuracy - a) / (b - a))
    return None


def ratios(found: Sequence[Row], levels: Sequence[float], one: str, other: str) -> list[Row]:
    """How many times more ``one`` costs than ``other`` at some accuracies, by technology."""
    result = []
    for technology in dict.fromkeys(row["technology"] for row in found):
        lines = {
            (scheme, cost): front(
                [
                    row
                    for row in found
                    if (row["technology"], row["scheme"], row["method"])
                    == (technology, scheme, "shared")
                ],
                cost,
            )
            for scheme in (one, other)
            for cost in COSTS
        }
        for accuracy in levels:
            row: Row = {"technology": technology, "accuracy": accuracy}
            for cost in COSTS:
                dear, cheap = (cost_at(lines[scheme, cost], accuracy) for scheme in (one, other))
                row[cost] = None if dear is None or cheap is None else dear / cheap
            if any(row[cost] is not None for cost in COSTS):
                result.append(row)
    return result


def name_of(row: Row) -> str:
    """Name a row's scheme."""
    return row["scheme"] + ("" if row["method"] == "shared" else f" ({row['method']})")


def tables(found: Sequence[Row], better: Sequence[Row], one: str, other: str) -> str:
    """Write both tables as Markdown."""
    lines = [
        f"| {' | '.join(HEADINGS)} |",
        "|" + "---|" * len(HEADINGS),
    ]
    for row in found:
        engine = ", ".join(f"{value} {name}" for name, value in row["engine"].items())
        accuracy = f"{100 * row['accuracy']:.2f} %"
        if row["spread"] is not None:
            accuracy += f" ± {100 * row['spread']:.2f}"
        lines.append(
            f"| {row['technology']} | {name_of(row)} | {engine.replace('_', ' ')} | {accuracy} |"
            f" {row['seeds']} | {row['joules'] * 1e6:.1f} | {row['seconds'] * 1e6:,.0f} |"
            f" {row['cycles'] / 1e6:.2f} M | {row['conversions'] / 1e6:.2f} M |"
            f" {row['merges'] / 1e6:.2f} M |"
        )
    goal = " | ".join(f"{COSTS[cost]} (goal {goal:g})" for cost, goal in GOAL.items())
    lines += ["", f"{one} over {other} at equal accuracy:", ""]
    lines += [f"| technology | accuracy | {goal} |", "|---|---|---|---|---|"]
    for row in better:
        cells = [f"{row[cost]:.2f}" if row[cost] is not None else "–" for cost in COSTS]
        lines.append(
            f"| {row['technology']} | {100 * row['accuracy']:.2f} % | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def figure(found: Sequence[Row], path: Path, title: str) -> None:
    """Draw accuracy over energy, a panel to each technology, and over latency in cycles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    technologies = list(dict.fromkeys(row["technology"] for row in found))
    panels = [(each, "joules", 1e6, f"energy for an image, {each} (µJ)") for each in technologies]
    panels.append((technologies[0], "cycles", 1e-6, "cycles for an image (millions)"))
    sheet, axes = pyplot.subplots(2, 2, figsize=(11, 8), sharey=True, squeeze=False)
    for axis, (technology, key, factor, label) in zip(axes.flat, panels, strict=False):
        for scheme in dict.fromkeys(name_of(row) for row in found):
            mine = [
                row for row in found if row["technology"] == technology and name_of(row) == scheme
            ]
            mine.sort(key=lambda row: row[key])
            axis.errorbar(
                [row[key] * factor for row in mine],
                [100 * row["accuracy"] for row in mine],
                [100 * (row["spread"] or 0) for row in mine],
                label=scheme,
                color=COLOURS.get(scheme.split()[0], "#444444"),
                marker="o" if scheme in COLOURS else "x",  # the published recipe, as in curves.py
                capsize=3,
            )
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_locator(ticker.LogLocator(subs=(2, 3, 5)))
        axis.xaxis.set_minor_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.set_xlabel(label)
        axis.grid(alpha=0.3, which="both")
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy (%)")
    axes[0, 0].legend(loc="best")
    sheet.suptitle(title)
    sheet.tight_layout()
    sheet.savefig(path, dpi=130)


def engines_of(options: Sequence[str]) -> list[dict[str, int]]:
    """Combine ``merge_lanes=1,2,4`` and the like: every engine of the options' values."""
    names, values = [], []
    for option in options:
        name, _, text = option.partition("=")
        names.append(name)
        values.append([int(each) for each in text.split(",")])
    return [dict(zip(names, each, strict=True)) for each in itertools.product(*values)]


def main() -> int:
    """Price the points, print the tables, write them and the figure."""
    parser = argparse.ArgumentParser(description="Accuracy over energy and latency.")
    parser.add_argument("folders", type=Path, nargs="+", help="folders of curves.py")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder")
    parser.add_argument(
        "--engine",
        action="append",
        metavar="FIELD=VALUE,...",
        help="values of a size of the engine; merge_lanes=1,2,4 where left out",
    )
    parser.add_argument("--one", default="orc", help="scheme that is compared")
    parser.add_argument("--other", default="dictionary", help="scheme that it is compared with")
    parser.add_argument("--levels", default="89,89.5,90,90.5,91,91.25", help="accuracies, percent")
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = rows(options.folders, engines_of(options.engine or ["merge_lanes=1,2,4"]))
    if not found:
        raise SystemExit("energy: error: expected compiled points of curves.py, found none")
    levels = [float(each) / 100 for each in options.levels.split(",")]
    better = ratios(found, levels, options.one, options.other)
    text = tables(found, better, options.one, options.other)
    (options.out / "energy.md").write_text(text, encoding="utf-8")
    (options.out / "energy.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    figure(found, options.out / "energy.png", options.title)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
