"""The folder of a comparison: figures as JSON and CSV, pictures as SVG, and a page of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context

from prap_hw.app.compare.analysis import PRICES, at_accuracy, crossings
from prap_hw.app.compare.measure import COLUMNS, label
from prap_hw.app.compare.pictures import (
    draw_area,
    draw_energy,
    draw_front,
    draw_layer_schemes,
    draw_layers,
    draw_sensitivity,
)
from prap_hw.app.report.page import render
from prap_hw.app.report.style import STYLE
from prap_hw.app.tables import csv_text
from refmodel import files
from refmodel.table import Table

JSON_FILE, CSV_FILE, PAGE_FILE = "compare.json", "compare.csv", "compare.html"

Row = Mapping[str, Any]


def flat(row: Row) -> dict[str, Any]:
    """A row with a column to each part: ``energy_adc``, ``area_adc`` and so on."""
    result = {name: row.get(name) for name in (*COLUMNS[:-1], "merges", "crossbars")}
    for kind in ("energy", "area"):
        for part, value in (row.get(f"{kind}_by_part") or {}).items():
            result[f"{kind}_{part.replace(' ', '_')}"] = value
    return result | {"failed": row.get("failed")}


def flat_table(rows: Sequence[Row], title: str = "") -> Table:
    """All rows with the same columns; what a row has not is None."""
    found = [flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in found for name in row))
    names.append(names.pop(names.index("failed")))
    return Table([{name: row.get(name) for name in names} for row in found], title)


def write_folder(
    out: Path, found: Mapping[str, Any], *, accuracy: float | None = None
) -> dict[str, Any]:
    """Write the folder of a comparison; returns the figures with what was found in them.

    Parameters
    ----------
    out
        The folder; files of these names in it are replaced.
    found
        Figures as :func:`prap_hw.app.compare.measure.compare` gives them.
    accuracy
        A share of 1 at which costs are compared; None: nowhere.
    """
    rows = found["rows"]
    done = [row for row in rows if "failed" not in row]
    default = [row for row in done if row["budget"] is None]
    figures = dict(found)
    figures["crossings"] = {
        price: [
            {
                "one": label(each["one"]),
                "other": label(each["other"]),
                "factor": each["factor"],
                "above": label(each["above"]),
            }
            for each in crossings(default, price)
        ]
        for price in PRICES
    }
    if accuracy is not None:
        figures["at_accuracy"] = {"accuracy": accuracy, "rows": at_accuracy(done, accuracy)}
    pictures = _pictures(found, done)
    files.make_folder(out)
    for name, (picture, _) in pictures.items():
        _write(out / f"{name}.svg", '<?xml version="1.0" encoding="utf-8"?>\n' + str(picture))
    files.write_json(out / JSON_FILE, figures)
    _write(out / CSV_FILE, csv_text(flat_table(rows)))
    base = next((row for row in default if row["scheme"] == "dense"), None)
    page = render(
        "compare.html.j2",
        title=f"Schemes on {found['network']}",
        found=figures,
        rows=rows,
        label=label,
        base=base,
        pictures=pictures,
    )
    _write(out / PAGE_FILE, page)
    return figures


def _write(path: Path, text: str) -> None:
    with files.new_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _pictures(found: Mapping[str, Any], done: Sequence[Row]) -> dict[str, tuple[Markup, str]]:
    """Pictures by name, each with the words below it."""
    technology = found["technology"]
    leanest = min(done, key=lambda row: row["energy"])
    with rc_context(STYLE):
        drawn: dict[str, tuple[Markup | None, str]] = {
            "energy": (draw_energy(done), f"Energy of an image by part, technology {technology}."),
            "area": (draw_area(done), "Area by part: all layers resident at once."),
            "energy_layers": (
                draw_layer_schemes(done, what="energy"),
                "Energy of an image by layer; layers that take least are one bar.",
            ),
            "crossbars_layers": (
                draw_layer_schemes(done, what="crossbars"),
                "Crossbars by layer: the part of the area that layers have to themselves.",
            ),
            "energy_layers_parts": (
                draw_layers(leanest, done),
                f"Energy by layer and part under {label(leanest)}, which takes the least.",
            ),
            "front_energy": (
                draw_front(done, "energy", found["float"]),
                "Accuracy over energy; the line joins points that no other point beats in both.",
            ),
            "front_latency": (
                draw_front(done, "seconds", found["float"]),
                "Accuracy over latency, likewise.",
            ),
            "sensitivity_adc": (
                draw_sensitivity(done, "adc"),
                (
                    "Energy of dense over that of each scheme if a conversion took more or less "
                    "than the technology file says. Dots are where two schemes cross."
                ),
            ),
            "sensitivity_merge": (
                draw_sensitivity(done, "merge"),
                (
                    "The same for the energy of a merge: partial sums, shift and addition, "
                    "accumulators."
                ),
            ),
        }
    return {name: (picture, words) for name, (picture, words) in drawn.items() if picture}
