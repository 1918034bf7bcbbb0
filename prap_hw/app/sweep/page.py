"""The page of a sweep: Pareto fronts of accuracy over costs, and the points on them."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from prap_hw.app.compare.analysis import front
from prap_hw.app.compare.pictures import log_ticks
from prap_hw.app.report.page import render
from prap_hw.app.report.style import MUTED, RULE, STYLE, bare, colour_of, svg

Row = Mapping[str, Any]

MARKERS = "osD^vP*Xhd"

COSTS = {
    "energy": ("energy of an image, µJ", 1e6),
    "seconds": ("latency of an image, ms", 1e3),
    "area": ("area, mm²", 1.0),
}
"""Costs that are drawn: what the axis says, and what a value is multiplied by."""

MOST_ROWS = 400
"""Rows of the table on the page; all are in the CSV."""


def _draw(rows: Sequence[Row], cost: str, over: str) -> Markup:
    """Draw all points, and their front: accuracy over a cost, or energy over latency."""
    words, times = COSTS[cost]
    figure = Figure(figsize=(8.4, 4.1))
    axes = figure.add_subplot()

    def height(row: Row) -> float:
        return 100 * row["accuracy"] if over == "accuracy" else COSTS[over][1] * row[over]

    schemes = list(dict.fromkeys(row["scheme"] for row in rows))
    for number, scheme in enumerate(schemes):
        found = [row for row in rows if row["scheme"] == scheme]
        axes.scatter(
            [times * row[cost] for row in found], [height(row) for row in found],
            color=colour_of(number), marker=MARKERS[number % len(MARKERS)], s=32, alpha=0.8,
            linewidth=0, label=scheme, zorder=2, rasterized=len(rows) > 2000,
        )  # fmt: skip
    best = front(rows, cost) if over == "accuracy" else front_of_costs(rows, cost, over)
    axes.plot(
        [times * row[cost] for row in best], [height(row) for row in best],
        color=MUTED, linewidth=1.2, linestyle="--", zorder=1, label="Pareto front",
    )  # fmt: skip
    axes.set_xscale("log")
    if over != "accuracy":
        axes.set_yscale("log")
    axes.set_xlabel(words)
    axes.set_ylabel("accuracy, %" if over == "accuracy" else COSTS[over][0])
    log_ticks(axes, [times * row[cost] for row in rows])
    if over != "accuracy":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in "25" else "")
    axes.tick_params(which="both", labelsize=8)
    bare(axes)
    axes.tick_params(which="minor", length=0)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.subplots_adjust(left=0.09, right=0.79, top=0.97, bottom=0.12)
    return svg(figure, title=f"{over} over {cost}")


def front_of_costs(rows: Sequence[Row], cost: str, other: str) -> list[Row]:
    """Rows that no row beats in two costs, the cheapest by the first one first."""
    result: list[Row] = []
    for row in sorted(rows, key=lambda each: (each[cost], each[other])):
        if not result or row[other] < result[-1][other]:
            result.append(row)
    return result


def render_page(rows: Sequence[Row], *, title: str) -> str:
    """Make the page of a sweep.

    Parameters
    ----------
    rows
        Rows as :func:`prap_hw.app.sweep.results.rows_of` gives them.
    title
        Its heading.
    """
    sections = []
    done = [row for row in rows if row["failed"] is None]
    # Fronts are of what can be chosen: a network, device and technology are given.
    given = ("network", "device", "technology")
    groups = dict.fromkeys(tuple(row[name] for name in given) for row in done)
    with rc_context(STYLE):
        for group in groups:
            found = [row for row in done if tuple(row[name] for name in given) == group]
            measured = [row for row in found if row["accuracy"] is not None]
            pictures = [_draw(measured, cost, "accuracy") for cost in COSTS if measured]
            pictures.append(_draw(found, "seconds", "energy"))
            best = (
                front(measured, "energy")
                if measured
                else front_of_costs(found, "seconds", "energy")
            )
            sections.append(
                {
                    "name": " · ".join(group),
                    "pictures": pictures,
                    "best": best,
                    "count": len(found),
                    "measured": bool(measured),
                }
            )
    varied = [
        name
        for name in ("ou_rows", "ou_cols", "crossbar_size", "cell_bits", "dac_bits", "adc_bits",
                     "adcs", "merge_lanes", "position_lanes", "engines")
        if len({row[name] for row in rows}) > 1
    ]  # fmt: skip
    return render(
        "sweep.html.j2",
        title=title,
        sections=sections,
        rows=rows,
        done=done,
        failed=[row for row in rows if row["failed"] is not None],
        varied=varied,
        most=MOST_ROWS,
    )
