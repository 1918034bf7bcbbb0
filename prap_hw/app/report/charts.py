"""Pictures of a run: cycles by resource, what converters do, images, costs by part."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from prap_hw.app.report.style import (
    BOUNDS,
    INK,
    KEPT,
    MARK,
    MUTED,
    ON_BAR,
    RULE,
    SERIES,
    bare,
    colour_of,
    svg,
)

MANY_LAYERS = 12
"""Layers from which on a picture has one thin bar to a layer."""


def draw_cycles(layers: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw what bounds each layer: work of the four resources, predicted and simulated cycles.

    Where there are many layers, the bar is that of the resource that bounds the layer.
    """
    if len(layers) > MANY_LAYERS:
        return _draw_bounds(layers)
    figure = Figure(figsize=(8.4, 0.86 * len(layers) + 0.85))
    axes = figure.add_subplot()
    longest = max(layer["cycles_predicted"] for layer in layers)
    for i, layer in enumerate(layers):
        predicted = layer["cycles_predicted"]
        bounds = layer.get("bounds") or {"conversion": layer["cycles_bound"]}
        step = 0.72 / len(bounds)
        for j, (name, cycles) in enumerate(bounds.items()):
            y = i - 0.36 + (j + 0.5) * step
            axes.barh(y, cycles, height=step * 0.82, color=BOUNDS[name], linewidth=0)
            # Inside the bar where it comes near the red line.
            inside = predicted - cycles < 0.09 * longest and cycles > 0.09 * longest
            if inside or cycles + 0.09 * longest < predicted:
                axes.annotate(
                    f"{cycles:,}",
                    (cycles, y),
                    xytext=(-4 if inside else 3, -0.4),
                    textcoords="offset points",
                    ha="right" if inside else "left",
                    va="center",
                    fontsize=7,
                    color=ON_BAR if inside and name in ("conversion", "gather") else INK,
                )
        axes.plot([predicted] * 2, [i - 0.42, i + 0.42], color=MARK, linewidth=1.6)
        if layer.get("cycles_simulated") is not None:
            axes.plot(layer["cycles_simulated"], i + 0.42, marker="^", color=MARK, markersize=5)
        axes.annotate(
            f"{predicted:,}",
            (predicted, i),
            xytext=(6, 1),
            textcoords="offset points",
            va="bottom",
            fontweight="bold",
        )
        axes.annotate(
            f"{predicted / layer['cycles_bound']:.3f} × bound",
            (predicted, i),
            xytext=(6, -1),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=MUTED,
        )
    axes.set_yticks(range(len(layers)), [_short(layer["name"]) for layer in layers])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.14)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("cycles for one image")
    bare(axes)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    names = list(next(iter(layers)).get("bounds") or ["conversion"])
    handles: list[Any] = [Patch(facecolor=BOUNDS[name], label=f"work: {name}") for name in names]
    handles += axes.plot([], [], color=MARK, linewidth=1.6, label="predicted cycles")
    if any(layer.get("cycles_simulated") is not None for layer in layers):
        handles += axes.plot(
            [], [], color=MARK, marker="^", markersize=5, linewidth=0, label="simulated cycles"
        )
    _legend_above(figure, handles, left=_room(layers))
    return svg(figure, title="where the cycles go")


def _room(rows: Sequence[Mapping[str, Any]], width: float = 8.4) -> float:
    """Share of a figure's width that the names of its rows take."""
    longest = max(len(_short(row["name"])) for row in rows)
    return min(0.3, max(0.09, (0.078 * longest + 0.15) / width))


def _short(name: object) -> str:
    """A name that fits beside a bar."""
    text = str(name)
    return text if len(text) <= 28 else f"…{text[-27:]}"


def _draw_bounds(layers: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw one thin bar to a layer: its bound, in the colour of the resource."""
    figure = Figure(figsize=(8.4, 0.155 * len(layers) + 0.85))
    axes = figure.add_subplot()
    longest = max(layer["cycles_predicted"] for layer in layers)
    for i, layer in enumerate(layers):
        bounds = layer.get("bounds") or {"conversion": layer["cycles_bound"]}
        name = max(bounds, key=lambda each: bounds[each])
        axes.barh(i, bounds[name], height=0.72, color=BOUNDS[name], linewidth=0)
        predicted = layer["cycles_predicted"]
        axes.plot([predicted] * 2, [i - 0.45, i + 0.45], color=MARK, linewidth=1.2)
        axes.annotate(
            f"{predicted:,}", (predicted, i), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=6.5, color=MUTED,
        )  # fmt: skip
    axes.set_yticks(range(len(layers)), [_short(layer["name"]) for layer in layers], fontsize=7)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.14)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("cycles for one image")
    bare(axes)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    handles: list[Any] = [
        Patch(facecolor=colour, label=f"bound by {name}") for name, colour in BOUNDS.items()
    ]
    handles += axes.plot([], [], color=MARK, linewidth=1.6, label="predicted cycles")
    _legend_above(figure, handles, left=0.72 * _room(layers))
    return svg(figure, title="where the cycles go")


def _legend_above(figure: Figure, handles: Sequence[Any], *, left: float, most: int = 6) -> None:
    """Put the legend above the axes and give the axes the rest of the figure."""
    figure.legend(
        handles=list(handles), loc="upper left", ncols=min(most, len(handles)), handlelength=1.1,
        columnspacing=1.3, handletextpad=0.5, borderpad=0.2,
    )  # fmt: skip
    height = figure.get_figheight()
    lines = -(-len(handles) // most)
    top = 1 - (0.14 + 0.18 * lines) / height
    figure.subplots_adjust(left=left, right=0.985, top=top, bottom=0.45 / height)


def draw_parts(
    rows: Sequence[tuple[str, Mapping[str, float]]],
    *,
    unit: str,
    title: str,
    order: Sequence[str] = (),
) -> Markup:
    """Draw stacked bars, one to a row, of what its parts come to.

    Parameters
    ----------
    rows
        Name, and value by part; parts have the same colours in all rows.
    unit
        Unit of the values, on the axis.
    title
        Name of the picture.
    order
        Parts from the first colour on, so that pictures agree; empty: the largest first.
    """
    parts = list(dict.fromkeys(part for _, values in rows for part in values))
    ranked = sorted(parts, key=lambda part: -sum(values.get(part, 0.0) for _, values in rows))
    ranked = [part for part in order if part in parts] + [p for p in ranked if p not in order]
    shown, rest = ranked[: len(SERIES) - 1], ranked[len(SERIES) - 1 :]
    thin = len(rows) > MANY_LAYERS
    most, entries = 4, len(shown) + bool(rest)
    around = 0.65 + 0.18 * -(-entries // most)
    figure = Figure(figsize=(8.4, (0.155 if thin else 0.34) * len(rows) + around))
    axes = figure.add_subplot()
    longest = max((sum(values.values()) for _, values in rows), default=0.0) or 1.0
    for i, (_, values) in enumerate(rows):
        left = 0.0
        for c, part in enumerate(shown):
            value = values.get(part, 0.0)
            if value > 0.0004 * longest:  # thinner is not seen
                axes.barh(i, value, left=left, height=0.7, color=colour_of(c), linewidth=0)
            left += value
        more = sum(values.get(part, 0.0) for part in rest)
        if more:
            axes.barh(i, more, left=left, height=0.7, color=MUTED, linewidth=0)
        total = sum(values.values())
        axes.annotate(
            f"{total:,.0f}" if total >= 100 or total == int(total) else f"{total:#.3g}",
            (total, i), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize=6.5 if thin else 8, color=MUTED,
        )  # fmt: skip
    names = [_short(name) for name, _ in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7 if thin else 9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.1)
    axes.set_xlabel(unit)
    bare(axes)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    handles = [Patch(facecolor=colour_of(c), label=part) for c, part in enumerate(shown)]
    if rest:
        handles.append(Patch(facecolor=MUTED, label="other"))
    room = _room([{"name": name} for name, _ in rows])
    _legend_above(figure, handles, left=0.72 * room if thin else room, most=most)
    return svg(figure, title=title)


def draw_stalls(layers: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Draw what the converters do in each layer's cycles: convert, or wait, by cause."""
    if not all(layer.get("stalls") is not None for layer in layers):
        return None
    causes = list(dict.fromkeys(cause for layer in layers for cause in layer["stalls"]))
    colours = ["#e8a33f", "#c9503c", "#93304f", "#3f8f8c", "#a9b6c4", "#5d6b7a", "#7f6aa8"]
    thin = len(layers) > MANY_LAYERS
    figure = Figure(figsize=(8.4, (0.155 if thin else 0.42) * len(layers) + 0.85))
    axes = figure.add_subplot()
    for i, layer in enumerate(layers):
        total, left = layer["cycles_predicted"], 0.0
        waiting = sum(layer["stalls"].values())
        parts = [("converting", total - waiting, KEPT)]
        parts += [
            (cause, layer["stalls"].get(cause, 0), colours[c % len(colours)])
            for c, cause in enumerate(causes)
        ]
        for _, cycles, colour in parts:
            share = 100 * cycles / total
            if share:
                axes.barh(i, share, left=left, height=0.66, color=colour, linewidth=0)
            left += share
        axes.annotate(
            f"{100 * (total - waiting) / total:.1f} %",
            (1.0, i),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=ON_BAR,
            fontsize=6.5 if thin else 8,
        )
    names = [_short(layer["name"]) for layer in layers]
    axes.set_yticks(range(len(layers)), names, fontsize=7 if thin else 9)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the layer's cycles, %")
    bare(axes)
    handles = [Patch(facecolor=KEPT, label="converting")]
    handles += [
        Patch(facecolor=colours[c % len(colours)], label=str(cause))
        for c, cause in enumerate(causes)
    ]
    room = _room(layers)
    _legend_above(figure, handles, left=0.72 * room if thin else room)
    return svg(figure, title="what the converters do")


def draw_images(samples: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw the images that went through the hardware.

    Parameters
    ----------
    samples
        ``pixels`` [H, W] or [H, W, C], ``label`` (or None) and ``answer`` of each.
    """
    count = min(10, len(samples))
    figure = Figure(figsize=(0.84 * count, 1.12))
    for axes, sample in zip(figure.subplots(1, count, squeeze=False).flat, samples, strict=False):
        pixels = np.asarray(sample["pixels"])
        axes.imshow(pixels, cmap="gray_r", interpolation="none")
        axes.set_axis_off()
        right = sample["label"] is None or sample["label"] == sample["answer"]
        text = f"→ {sample['answer']}" if right else f"→ {sample['answer']} ({sample['label']})"
        axes.set_title(text, fontsize=9, loc="center", y=-0.34, color=INK if right else MARK)
    figure.subplots_adjust(left=0.005, right=0.995, top=0.99, bottom=0.24, wspace=0.12)
    return svg(figure, title="images that went through the hardware", small=True)
