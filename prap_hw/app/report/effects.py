"""Figure of accuracy on chips under each effect of a device alone, and without it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLOURS = {"alone": "#0072b2", "without": "#d55e00", "ideal": "#444444", "all": "#009e73"}


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Draw :func:`prap_hw.app.workflow.by_effect`: every chip, and means with 95 % intervals.

    A row to each effect, in the order in which they act; ideal chips above and all effects below.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    rows: list[tuple[str, list[tuple[str, Mapping[str, Any]]]]] = [
        ("none (ideal)", [("ideal", figures["ideal"])])
    ]
    for each in figures["effects"]:
        name = each["name"].replace("_", " ")
        marked = f"{name} (decides)" if each["name"] == figures["decides"] else name
        rows.append((marked, [("alone", each["alone"]), ("without", each["without"])]))
    rows.append(("all", [("all", figures["all"])]))
    sheet = Figure(figsize=(8, 1.4 + 0.45 * len(rows)), layout="constrained")
    axis = sheet.subplots()
    labels = {"alone": "the effect alone", "without": "all but the effect"}
    for row, (_, found) in enumerate(rows):
        for number, (kind, each) in enumerate(found):
            place = row + (0.16 * (2 * number - 1) if len(found) == 2 else 0.0)
            chips = [100 * value for value in each["accuracy"]]
            colour = COLOURS[kind]
            axis.plot(chips, [place] * len(chips), "|", color=colour, alpha=0.6, markersize=7)
            axis.errorbar(
                [100 * each["mean"]],
                [place],
                xerr=None if each["interval"] is None else [100 * each["interval"]],
                fmt="o",
                color=colour,
                capsize=3,
                markersize=4,
                label=labels.pop(kind, None),
            )
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    axis.invert_yaxis()
    axis.set_xlabel("accuracy, %: chips, and means with 95 % intervals")
    axis.grid(axis="x", alpha=0.3)
    chips = figures["all"]["seeds"]
    axis.set_title(
        f"{figures['device']}, chips {chips[0]} to {chips[-1]}, {figures['images']} images"
    )
    if any(len(found) == 2 for _, found in rows):
        sheet.legend(loc="outside lower center", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(path, dpi=130)
