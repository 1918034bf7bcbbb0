"""The report of a run: one self-contained HTML page with tables and pictures.

:func:`write_report` takes the figures of a run (what ``demo.json`` holds) and the layer programs
that it was made with. Pictures are drawn by matplotlib as SVG whose text stays text, so that the
page's fonts apply; nothing is loaded from elsewhere.
"""

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from prap_hw.app.console import KINDS
from refmodel.config import MIN_SHIFT, SHIFT_NONE, EngineConfig
from refmodel.files import new_file
from refmodel.golden.cells import cells
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import flat_words, gathers_of_slots, ous_of_gathers

INK, MUTED, RULE, PAPER = "#1c2733", "#5d6b7a", "#d9dfe6", "#ffffff"
KEPT, DROPPED, ABSENT = "#14375e", "#e9edf1", "#ffffff"
SHIFTS = {
    **dict.fromkeys(range(-8, -2), "#fdf3d0"),
    -2: "#f9dc8b",
    -1: "#f4b860",
    0: "#e8863f",
    1: "#c9503c",
    2: "#93304f",
    **dict.fromkeys(range(3, 7), "#5a1f4f"),
}
"""Colour of a reused weight pattern by its power of two; the rare ends share one."""

BOUNDS = {
    "conversion": "#14375e",
    "gather": "#3f8f8c",
    "merge": "#e8a33f",
    "output": "#a9b6c4",
}
"""Resources of the engine whose work bounds a layer's cycles."""

MARK = "#c0392b"
"""Predicted and simulated cycles; wrong answers."""

TINTS = ("#c7dbea", "#f6dfb4")
"""Background of the OUs of even and odd groups."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prap",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A shape of kept kernel positions and what uses it.

    Attributes
    ----------
    positions
        Kernel positions that are kept, numbered row by row.
    kept
        Weight patterns that are programmed with it.
    served
        Outputs, summed over the groups, that take one of those patterns.
    """

    positions: tuple[int, ...]
    kept: int
    served: int


def kept_shapes(layer: LayerProgram) -> list[Shape]:
    """List the shapes of a layer, the most served first.

    Gathers that add into the same slots are one shape. A gather with full offsets counts with the
    set of positions that it touches.
    """
    starts = np.cumsum(layer.gather_segments) - layer.gather_segments
    series: list[set[int]] = []
    for start, count, more in zip(
        starts, layer.gather_segments, layer.gather_accumulate, strict=True
    ):
        touched = set(layer.segment_position[start : start + count].tolist())
        if more:
            series[-1] |= touched
        else:
            series.append(touched)
    patterns = layer.gather_patterns[layer.gather_accumulate == 0]
    slot_series = np.repeat(np.arange(len(series)), patterns)
    users = np.bincount(flat_words(layer)[1], minlength=len(slot_series))
    kept: Counter[tuple[int, ...]] = Counter()
    served: Counter[tuple[int, ...]] = Counter()
    for slot, of in enumerate(slot_series):
        key = tuple(sorted(series[of]))
        kept[key] += 1
        served[key] += int(users[slot])
    shapes = [Shape(positions=key, kept=kept[key], served=served[key]) for key in kept]
    return sorted(shapes, key=lambda s: (-s.served, -s.kept, s.positions))


ABSENT_CODE, DROPPED_CODE, KEPT_CODE, FIRST_SHIFT_CODE = range(4)


def reuse_codes(layer: LayerProgram) -> np.ndarray:
    """Tell for each output and group where its weights come from.

    Returns
    -------
    uint8 [outputs, groups]
        ``ABSENT_CODE`` where the group does not touch the output, ``DROPPED_CODE``,
        ``KEPT_CODE``, or ``FIRST_SHIFT_CODE`` + stored shift where a pattern is reused. With
        several terms, the first one that adds something counts. The first output that takes a
        slot as it is (k = 0, plus) is shown as the one that it was kept from.
    """
    codes = np.full((layer.out_shape[2], len(layer.group_kept)), ABSENT_CODE, np.uint8)
    word = 0
    for g, (first, count) in enumerate(
        zip(layer.group_first_output.tolist(), layer.group_outputs.tolist(), strict=True)
    ):
        if layer.identity:
            codes[first : first + count, g] = KEPT_CODE
            continue
        seen: set[int] = set()
        for j in range(count):
            code = DROPPED_CODE
            for w in range(word + j * layer.terms, word + (j + 1) * layer.terms):
                shift, slot = int(layer.word_shift[w]), int(layer.word_slot[w])
                if shift == SHIFT_NONE:
                    continue
                code = FIRST_SHIFT_CODE + shift
                if shift == -MIN_SHIFT and not layer.word_sign[w] and slot not in seen:
                    seen.add(slot)
                    code = KEPT_CODE
                break
            codes[first + j, g] = code
        word += count * layer.terms
    return codes


@dataclass(frozen=True, kw_only=True, eq=False)
class Occupancy:
    """What stands in the crossbars of a layer.

    Attributes
    ----------
    cells
        uint8 [crossbars, X, X]: 0 outside the OUs in use; else 1 + 2 * (group is odd) + cell, so
        1 and 3 are cells at 0, 2 and 4 cells at 1.
    ous
        OUs in use.
    rows_used
        Share of the wordlines of the OUs in use that carry a weight.
    ones
        Share of the cells in use that are 1.
    """

    cells: np.ndarray
    ous: int
    rows_used: float
    ones: float


def occupancy(layer: LayerProgram, config: EngineConfig) -> Occupancy:
    """Lay a layer's OUs out in crossbars and look up every cell.

    OUs are numbered as the engine numbers them: in the order of gathers, along a row of blocks,
    then down, then on to the next crossbar.
    """
    size, rows, cols = config.crossbar_size, config.ou_rows, config.ou_cols
    content = cells(layer, config)
    total = len(content)
    ous = ous_of_gathers(layer, config)
    gather = np.repeat(np.arange(len(ous)), ous)
    odd = np.repeat(np.arange(len(layer.group_kept)), layer.group_gathers) & 1
    # Patterns fill the OUs of a gather from the left; the last one may have room.
    within = np.arange(total) - np.repeat(np.cumsum(ous) - ous, ous)
    patterns = np.minimum(
        layer.gather_patterns[gather] - within * config.patterns_per_ou, config.patterns_per_ou
    )
    height = layer.gather_rows[gather]
    width = patterns * config.columns_per_weight
    used = (np.arange(rows)[:, None] < height[:, None, None]) & (
        np.arange(cols) < width[:, None, None]
    )
    coloured = np.where(used, 1 + 2 * odd[gather][:, None, None] + content, 0).astype(np.uint8)
    arrays = -(-total // config.ous_per_crossbar)
    blocks = np.zeros((arrays * config.ous_per_crossbar, rows, cols), np.uint8)
    blocks[:total] = coloured
    grid = blocks.reshape(arrays, config.row_blocks, config.col_blocks, rows, cols)
    filled = grid.transpose(0, 1, 3, 2, 4).reshape(
        arrays, config.row_blocks * rows, config.col_blocks * cols
    )
    picture = np.zeros((arrays, size, size), np.uint8)
    picture[:, : filled.shape[1], : filled.shape[2]] = filled
    return Occupancy(
        cells=picture,
        ous=total,
        rows_used=float(height.sum()) / (total * rows),
        ones=float(content.sum()) / int(used.sum()),
    )


def _svg(figure: Figure, *, title: str, small: bool = False) -> Markup:
    """Give a figure as inline SVG: as wide as the page unless ``small``, in the page's fonts."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    limit = r' style="max-width:\2pt"' if small else ""
    text = re.sub(r'(<svg [^>]*?) width="([\d.]+)pt"', r"\1" + limit, text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[\d.]+pt"', r"\1", text, count=1)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{Markup.escape(title)}" ', 1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1sans-serif", text)
    return Markup(text)


def _bare(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


MOST_SHAPES = 16
"""Shapes of a layer that are drawn."""


def draw_shapes(layer: LayerProgram, most: int = MOST_SHAPES) -> Markup | None:
    """Draw the shapes of a layer as small grids; None where the kernel has one position."""
    height, width = layer.kernel
    if height * width == 1 or layer.full_offsets:
        return None
    shapes = kept_shapes(layer)[:most]
    across = min(8, len(shapes))
    down = -(-len(shapes) // across)
    figure = Figure(figsize=(8.4, 1.45 * down + 0.1))
    grid = figure.subplots(down, 8, squeeze=False)
    for index, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if index >= len(shapes):
            continue
        shape = shapes[index]
        for position in range(height * width):
            y, x = divmod(position, width)
            on = position in shape.positions
            axes.add_patch(
                Rectangle(
                    (x + 0.06, y + 0.06),
                    0.88,
                    0.88,
                    facecolor=KEPT if on else DROPPED,
                    edgecolor="none",
                )
            )
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_aspect("equal")
        axes.set_title(
            f"{shape.kept} kept\n{shape.served} served",
            fontsize=8,
            fontweight="normal",
            color=MUTED,
            loc="center",
            y=-0.46,
        )
    figure.subplots_adjust(left=0.01, right=0.99, top=0.97, bottom=0.28 / down, hspace=0.62)
    return _svg(figure, title=f"kept shapes of layer {layer.name}")


def draw_reuse(layer: LayerProgram) -> Markup | None:
    """Draw the reuse map of a layer, outputs down, groups across; None for identity maps."""
    if layer.identity:
        return None
    codes = reuse_codes(layer)
    outputs, groups = codes.shape
    palette = [ABSENT, DROPPED, KEPT, *(SHIFTS[MIN_SHIFT + i] for i in range(SHIFT_NONE))]
    # Cells are as square as the page's width allows; long maps are drawn lying down.
    turned = outputs > groups
    picture = codes.T if turned else codes
    rows, columns = picture.shape
    cell = min(0.2, 7.6 / columns, 3.6 / rows)
    size = (8.4, max(0.5, cell * rows) + 0.75)
    figure = Figure(figsize=size)
    axes = figure.add_axes(
        (0.62 / size[0], 0.42 / size[1], cell * columns / size[0], cell * rows / size[1])
    )
    axes.pcolormesh(
        picture,
        cmap=ListedColormap(palette),
        vmin=-0.5,
        vmax=len(palette) - 0.5,
        edgecolors=PAPER,
        linewidth=min(1.0, cell * 7),
        rasterized=rows * columns > 6000,
    )
    axes.invert_yaxis()
    axes.set_ylabel("group" if turned else "output")
    axes.set_xlabel("output" if turned else "group")
    for axis, count in ((axes.yaxis, rows), (axes.xaxis, columns)):
        step = next(s for s in (1, 2, 4, 8, 16, 32, 64, 128, 512) if s * 24 >= count)
        ticks = np.arange(0, count, step)
        axis.set_ticks(ticks + 0.5, [str(t) for t in ticks])
    axes.tick_params(labelsize=8)
    _bare(axes)
    by_colour: dict[str, list[int]] = {}
    for code in sorted(set(codes.flatten().tolist()) - {ABSENT_CODE}):
        by_colour.setdefault(palette[code], []).append(code)
    handles = [
        Patch(facecolor=colour, label=_legend_text(found)) for colour, found in by_colour.items()
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.06, 1.0), ncols=len(handles),
        handlelength=1.0, handleheight=1.0, columnspacing=1.4, handletextpad=0.5, borderpad=0,
    )  # fmt: skip
    return _svg(figure, title=f"reuse map of layer {layer.name}")


def _legend_text(codes: Sequence[int]) -> str:
    """Name the cells of one colour of a reuse map."""
    if codes[0] < FIRST_SHIFT_CODE:
        return {DROPPED_CODE: "dropped", KEPT_CODE: "kept"}[codes[0]]
    powers = [_power(code - FIRST_SHIFT_CODE + MIN_SHIFT) for code in codes]
    return "reused × " + (powers[0] if len(powers) == 1 else f"{powers[0]} to {powers[-1]}")


def _power(k: int) -> str:
    return {-3: "⅛", -2: "¼", -1: "½"}.get(k, str(1 << k) if k >= 0 else f"1/{1 << -k}")


def draw_crossbars(programs: Sequence[LayerProgram], config: EngineConfig, most: int = 8) -> Markup:
    """Draw the crossbars of all layers cell by cell, at most ``most`` of a layer."""
    panels: list[tuple[str, np.ndarray]] = []
    for layer in programs:
        use = occupancy(layer, config)
        arrays = len(use.cells)
        for a, picture in enumerate(use.cells[:most]):
            name = layer.name if arrays == 1 else f"{layer.name} {a + 1}/{arrays}"
            panels.append((name, picture))
    colours = np.array(
        [
            to_rgb(colour)
            for colour in ("#f4f6f8", TINTS[0], _ink_on(TINTS[0]), TINTS[1], _ink_on(TINTS[1]))
        ]
    )
    across = min(5, max(4, len(panels)))
    down = -(-len(panels) // across)
    panel = 8.4 / across + 0.2
    figure = Figure(figsize=(8.4, panel * down))
    grid = figure.subplots(down, across, squeeze=False)
    for index, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if index >= len(panels):
            continue
        name, picture = panels[index]
        axes.imshow(colours[picture], interpolation="none")
        axes.set_title(name, fontsize=9)
        axes.add_patch(
            Rectangle((-0.5, -0.5), *picture.shape, fill=False, edgecolor=RULE, linewidth=1)
        )
    figure.subplots_adjust(left=0.005, right=0.995, top=1 - 0.22 / (panel * down), bottom=0.01,
                           wspace=0.06, hspace=0.14)  # fmt: skip
    return _svg(figure, title="crossbars of all layers")


def _ink_on(tint: str) -> str:
    return {TINTS[0]: "#14375e", TINTS[1]: "#8a4b12"}[tint]


def draw_cycles(layers: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw what bounds each layer: work of the four resources, predicted and simulated cycles."""
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
                    color=PAPER if inside and name in ("conversion", "gather") else INK,
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
    axes.set_yticks(range(len(layers)), [str(layer["name"]) for layer in layers])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.14)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("cycles for one image")
    _bare(axes)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    names = list(next(iter(layers)).get("bounds") or ["conversion"])
    handles: list[Any] = [Patch(facecolor=BOUNDS[name], label=f"work: {name}") for name in names]
    handles += axes.plot([], [], color=MARK, linewidth=1.6, label="predicted cycles")
    if any(layer.get("cycles_simulated") is not None for layer in layers):
        handles += axes.plot(
            [], [], color=MARK, marker="^", markersize=5, linewidth=0, label="simulated cycles"
        )
    figure.legend(handles=handles, loc="upper left", ncols=len(handles), handlelength=1.1,
                  columnspacing=1.3, handletextpad=0.5, borderpad=0.2)  # fmt: skip
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.11, right=0.995, top=1 - 0.32 / height, bottom=0.45 / height)
    return _svg(figure, title="where the cycles go")


def draw_stalls(layers: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Draw what the converters do in each layer's cycles: convert, or wait, by cause."""
    if not all(layer.get("stalls") is not None for layer in layers):
        return None
    causes = list(dict.fromkeys(cause for layer in layers for cause in layer["stalls"]))
    colours = ["#e8a33f", "#c9503c", "#93304f", "#3f8f8c", "#a9b6c4", "#5d6b7a", "#7f6aa8"]
    figure = Figure(figsize=(8.4, 0.42 * len(layers) + 0.85))
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
            axes.barh(i, share, left=left, height=0.62, color=colour, linewidth=0)
            left += share
        axes.annotate(
            f"{100 * (total - waiting) / total:.1f} %",
            (1.0, i),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=PAPER,
            fontsize=8,
        )
    axes.set_yticks(range(len(layers)), [str(layer["name"]) for layer in layers])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the layer's cycles, %")
    _bare(axes)
    handles = [Patch(facecolor=KEPT, label="converting")]
    handles += [
        Patch(facecolor=colours[c % len(colours)], label=str(cause))
        for c, cause in enumerate(causes)
    ]
    figure.legend(handles=handles, loc="upper left", ncols=min(6, len(handles)), handlelength=1.1,
                  columnspacing=1.3, handletextpad=0.5, borderpad=0.2)  # fmt: skip
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.11, right=0.985, top=1 - 0.32 / height, bottom=0.45 / height)
    return _svg(figure, title="what the converters do")


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
    return _svg(figure, title="images that went through the hardware", small=True)


@dataclass(frozen=True, kw_only=True)
class _LayerView:
    """What the template shows of one layer."""

    name: str
    text: str
    shapes: Markup | None
    shape_count: int
    reuse: Markup | None


def _layer_views(programs: Sequence[LayerProgram]) -> Iterator[_LayerView]:
    for layer in programs:
        height, width, channels = layer.in_shape
        kernel = "×".join(map(str, layer.kernel))
        what = (
            f"fully connected, {channels} → {layer.out_shape[2]}"
            if layer.kernel == (1, 1) and (height, width) == (1, 1)
            else f"{kernel} convolution, {channels} → {layer.out_shape[2]} channels, "
            f"{layer.out_shape[0]}×{layer.out_shape[1]} positions"
        )
        most = int(gathers_of_slots(layer).max())
        rows = f"{most} OUs to the largest pattern" if most > 1 else "one OU to a pattern"
        yield _LayerView(
            name=layer.name,
            text=f"{what}; scheme {layer.scheme}, {len(layer.group_kept)} groups, {rows}",
            shapes=draw_shapes(layer),
            shape_count=len(kept_shapes(layer)),
            reuse=draw_reuse(layer),
        )


def _number(value: Any, digits: int = 0) -> str:
    if value is None:
        return "–"
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def _percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f} %"


def render_report(
    figures: Mapping[str, Any],
    programs: Sequence[LayerProgram],
    config: EngineConfig,
    *,
    title: str = "PRAP-PIM demo",
    samples: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Make the page.

    Parameters
    ----------
    figures
        What ``demo.json`` holds: ``images``, ``seconds``, ``accuracy``, ``compared``, ``layers``;
        and, shown where they are there, ``command``, ``versions``, ``seeds``, ``config``,
        ``host_ops``, ``notes`` (a list of sentences), and in each layer ``bounds`` and ``stalls``.
    programs
        The layers' programs, in the order of ``figures["layers"]``.
    config
        Sizes of the engine that ran them.
    title
        Heading of the page.
    samples
        Images that went through the hardware; see :func:`draw_images`.
    """
    environment = Environment(
        loader=PackageLoader("prap_hw.app"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent}
    layers = list(figures["layers"])
    compared = figures["compared"]
    uses = [occupancy(layer, config) for layer in programs]
    with rc_context(_STYLE):
        return environment.get_template("report.html.j2").render(
            title=title,
            figures=figures,
            layers=layers,
            totals={
                key: sum(layer.get(key) or 0 for layer in layers)
                for key in layers[0]
                if isinstance(layers[0][key], int)
            },
            different=sum(kind["different"] for kind in compared.values()),
            values=sum(kind["values"] for kind in compared.values()),
            missing=sum(kind["expected"] - kind["values"] for kind in compared.values()),
            cycles_equal=all(
                layer.get("cycles_simulated") == layer["cycles_predicted"] for layer in layers
            ),
            cycles_figure=draw_cycles(layers),
            stalls_figure=draw_stalls(layers),
            crossbar_figure=draw_crossbars(programs, config),
            occupancies=list(zip((layer.name for layer in programs), uses, strict=True)),
            samples=list(samples),
            compared={KINDS.get(kind, kind): counts for kind, counts in compared.items()},
            samples_figure=draw_images(samples) if samples else None,
            views=list(_layer_views(programs)),
            engine=config,
            most_shapes=MOST_SHAPES,
        )


def write_report(
    path: Path,
    figures: Mapping[str, Any],
    programs: Sequence[LayerProgram],
    config: EngineConfig,
    *,
    title: str = "PRAP-PIM demo",
    samples: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page of :func:`render_report` to a file, whole or not at all."""
    page = render_report(figures, programs, config, title=title, samples=samples)
    with new_file(path) as draft:
        draft.write_text(page, encoding="utf-8")
