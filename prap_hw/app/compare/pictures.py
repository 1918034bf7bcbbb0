"""Pictures of a comparison: parts by scheme and layer, fronts, sensitivities."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prap_hw.app.compare.analysis import FACTORS, crossings, front, scaled
from prap_hw.app.compare.measure import label
from prap_hw.app.report.charts import draw_parts
from prap_hw.app.report.style import INK, MUTED, RULE, bare, colour_of, svg

Row = Mapping[str, Any]

MARKERS = "osD^vP*Xhd"


def _done(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if "failed" not in row]


def _joules(rows: Sequence[Row]) -> tuple[float, str]:
    """Give what joules are multiplied by to read well, and the unit then."""
    largest = max(row["energy"] for row in _done(rows))
    times, unit = next(
        (pair for pair in ((1e3, "mJ"), (1e6, "µJ")) if pair[0] * largest >= 1), (1e9, "nJ")
    )
    return times, f"{unit} for an image"


def draw_energy(rows: Sequence[Row]) -> Markup:
    """Draw energy by part, a bar to a row."""
    times, unit = _joules(rows)
    bars = [
        (label(row), {part: times * value for part, value in row["energy_by_part"].items()})
        for row in _done(rows)
    ]
    return draw_parts(bars, unit=unit, title="energy by part and scheme")


def draw_area(rows: Sequence[Row]) -> Markup:
    """Draw area by part, a bar to a row."""
    bars = [(label(row), dict(row["area_by_part"])) for row in _done(rows)]
    return draw_parts(bars, unit="mm²", title="area by part and scheme")


def draw_layers(row: Row, rows: Sequence[Row]) -> Markup:
    """Draw energy by part, a bar to a layer of one row, in the colours of :func:`draw_energy`."""
    times, unit = _joules([row])
    bars = [
        (layer["name"], {part: times * value for part, value in layer["energy"].items()})
        for layer in row["layers"]
    ]
    title = f"energy by part and layer, {label(row)}"
    return draw_parts(bars, unit=unit, title=title, order=_ranked(rows))


def _ranked(rows: Sequence[Row]) -> list[str]:
    """Parts of the energy, that which takes most in all rows first."""
    total: dict[str, float] = {}
    for row in _done(rows):
        for part, value in row["energy_by_part"].items():
            total[part] = total.get(part, 0.0) + value
    return sorted(total, key=lambda part: -total[part])


def draw_layer_schemes(rows: Sequence[Row], *, what: str) -> Markup:
    """Draw a bar to a row, stacked by layer: ``energy``, or ``crossbars``."""
    times, joules = _joules(rows)

    def value(layer: Mapping[str, Any]) -> float:
        return times * sum(layer["energy"].values()) if what == "energy" else layer["crossbars"]

    bars = [
        (label(row), {layer["name"]: value(layer) for layer in row["layers"]})
        for row in _done(rows)
    ]
    unit = joules if what == "energy" else "crossbars"
    return draw_parts(bars, unit=unit, title=f"{what} by layer and scheme")


def _schemes(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each scheme, in order."""
    found: dict[str, list[Row]] = {}
    for row in _done(rows):
        found.setdefault(row["scheme"], []).append(row)
    return found


def _grid(axes: Axes) -> None:
    bare(axes)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def draw_front(rows: Sequence[Row], cost: str, dense: float | None = None) -> Markup | None:
    """Draw accuracy over ``energy`` or ``seconds``, and the front; None without accuracies."""
    points = [row for row in _done(rows) if row.get("accuracy") is not None]
    if not points:
        return None
    figure = Figure(figsize=(8.4, 4.0))
    axes = figure.add_subplot()
    times = {"energy": 1e6, "seconds": 1e3}[cost]
    best = front(points, cost)
    axes.plot(
        [times * row[cost] for row in best],
        [100 * row["accuracy"] for row in best],
        color=MUTED, linewidth=1.2, linestyle="--", zorder=1, label="Pareto front",
    )  # fmt: skip
    for number, (scheme, found) in enumerate(_schemes(points).items()):
        axes.scatter(
            [times * row[cost] for row in found],
            [100 * row["accuracy"] for row in found],
            color=colour_of(number), marker=MARKERS[number % len(MARKERS)], s=38, linewidth=0,
            label=scheme, zorder=2,
        )  # fmt: skip
    if dense is not None:
        axes.axhline(100 * dense, color=MUTED, linewidth=0.8, linestyle=":")
        axes.annotate(
            "float", (1.0, 100 * dense), xycoords=("axes fraction", "data"), xytext=(-2, 2),
            textcoords="offset points", ha="right", fontsize=7, color=MUTED,
        )  # fmt: skip
    axes.set_xscale("log")
    unit = {"energy": "energy of an image, µJ", "seconds": "latency of an image, ms"}[cost]
    log_ticks(axes, [times * row[cost] for row in points])
    axes.set_xlabel(unit)
    axes.set_ylabel("accuracy, %")
    _grid(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.subplots_adjust(left=0.075, right=0.79, top=0.97, bottom=0.12)
    name = {"energy": "energy", "seconds": "latency"}[cost]
    return svg(figure, title=f"accuracy over {name}")


def log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Put plain numbers on a logarithmic horizontal axis that covers the values."""
    low, high = min(values) / 1.15, max(values) * 1.15
    steps = [
        m * 10.0**p for p in range(-9, 10) for m in (1, 2, 3, 5, 7) if low <= m * 10.0**p <= high
    ]
    if len(steps) > 9:
        steps = [each for each in steps if f"{each:e}"[0] in "15"]
    axes.set_xlim(low, high)
    axes.set_xticks(steps, [f"{each:,g}" for each in steps])
    axes.set_xticks([], minor=True)


def draw_sensitivity(rows: Sequence[Row], price: str) -> Markup | None:
    """Draw each scheme's energy over that of the first one, as a price changes.

    Only rows at default settings are drawn; crossings are listed by
    :func:`prap_hw.app.compare.analysis.crossings`.
    """
    shown = [row for row in _done(rows) if row["budget"] is None]
    if len(shown) < 2:
        return None
    base = next((row for row in shown if row["scheme"] == "dense"), shown[0])
    figure = Figure(figsize=(8.4, 3.7))
    axes = figure.add_subplot()
    for number, row in enumerate(shown):
        ratios = [scaled(base, price, f) / scaled(row, price, f) for f in FACTORS]
        axes.plot(FACTORS, ratios, color=colour_of(number), linewidth=1.8, label=label(row))
    for each in crossings(shown, price):
        if base in (each["one"], each["other"]):
            continue
        ratio = scaled(base, price, each["factor"]) / scaled(each["one"], price, each["factor"])
        axes.plot(each["factor"], ratio, marker="o", markersize=4, color=INK, linewidth=0)
        right = each["factor"] > 2
        axes.annotate(
            f"{label(each['one'])} = {label(each['other'])}, ×{each['factor']:.2g}",
            (each["factor"], ratio), xytext=(-5 if right else 5, -11),
            textcoords="offset points", ha="right" if right else "left", fontsize=6.5, color=MUTED,
        )  # fmt: skip
    axes.axvline(1, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    ticks = (1 / 16, 1 / 4, 1, 4, 16)
    axes.set_xticks(ticks, ["1/16", "1/4", "as in the file", "4", "16"])
    axes.set_xticks([], minor=True)
    axes.set_xlim(FACTORS[0], FACTORS[-1])
    axes.set_ylim(bottom=0)
    words = {"adc": "energy of a conversion", "merge": "energy of a merge"}[price]
    axes.set_xlabel(f"{words}, times")
    axes.set_ylabel(f"times less energy than {base['scheme']}")
    _grid(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.subplots_adjust(left=0.075, right=0.79, top=0.97, bottom=0.13)
    return svg(figure, title=f"sensitivity to the {words}")
