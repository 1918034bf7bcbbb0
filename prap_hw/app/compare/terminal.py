"""Tables of a comparison on the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from prap_hw.app.compare.measure import label
from prap_hw.app.console import table
from prap_hw.app.report.page import quantity


def comparison_tables(figures: Mapping[str, Any]) -> Iterator[Table]:
    """Make the tables: figures of each scheme, energy by part, and costs at one accuracy."""
    done = [row for row in figures["rows"] if "failed" not in row]
    images = figures["images"]
    title = f"{figures['network']}, technology {figures['technology']}"
    title += (
        f"; accuracy on {images:,} images, float {100 * figures['float']:.2f} %" if images else ""
    )
    yield table(
        title,
        [
            "scheme",
            "accuracy",
            "OU\nactivations",
            "index\nbits",
            "cycles",
            "latency",
            "energy",
            "mm²",
        ],
        [
            [
                label(row),
                f"{100 * row['accuracy']:.2f} %" if "accuracy" in row else None,
                *(row[name] for name in ("ou_activations", "index_bits", "cycles")),
                quantity(row["seconds"], "s"),
                quantity(row["energy"], "J"),
                row["area"],
            ]
            for row in done
        ],
    )
    parts = sorted(
        dict.fromkeys(part for row in done for part in row["energy_by_part"]),
        key=lambda part: -max(row["energy_by_part"].get(part, 0.0) for row in done),
    )
    yield table(
        "Energy by part, µJ (the largest parts; all are in compare.csv)",
        ["scheme", *(part.replace(" ", "\n") for part in parts[:7])],
        [
            [label(row), *(1e6 * row["energy_by_part"].get(p, 0.0) for p in parts[:7])]
            for row in done
        ],
    )
    failed = [row for row in figures["rows"] if "failed" in row]
    if failed:
        yield table("Not compared", ["scheme", "why"], [[label(r), r["failed"]] for r in failed])
    if "at_accuracy" in figures:
        found = figures["at_accuracy"]
        yield table(
            f"At {100 * found['accuracy']:.2f} % accuracy, interpolated between budgets",
            ["scheme", "energy", "latency", "how"],
            [
                [r["scheme"], quantity(r["energy"], "J"), quantity(r["seconds"], "s"), r["how"]]
                for r in found["rows"]
            ],
        )
