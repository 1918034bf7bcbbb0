"""Colours of the report's pictures, and how a figure becomes inline SVG.

Ink, muted text, rules and paper are written into the SVG as variables of the page's style sheet,
so that a picture follows the page from light to dark. The colours of data are of middle lightness
and stay the same on both.
"""

import io
import re
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1c2733", "#5d6b7a", "#d9dfe6", "#ffffff"

ON_BAR = "#fdfdfd"
"""Text on a bar, on light and dark paper."""

KEPT, DROPPED, ABSENT = "#2f6fb5", "#a9b6c4", "#ffffff"
"""Weight patterns that are programmed, replaced by zero, and not there."""

SHIFTS = {
    **dict.fromkeys(range(-8, -2), "#f3e3a1"),
    -2: "#f9d067",
    -1: "#f4b048",
    0: "#e8863f",
    1: "#d0533f",
    2: "#a83c6e",
    **dict.fromkeys(range(3, 7), "#7c4a93"),
}
"""Colour of a reused weight pattern by its power of two; the rare ends share one."""

BOUNDS = {
    "conversion": "#2f6fb5",
    "gather": "#3f9f9c",
    "merge": "#e8a33f",
    "output": "#a9b6c4",
}
"""Resources of the engine whose work bounds a layer's cycles."""

MARK = "#d0432f"
"""Predicted and simulated cycles; wrong answers."""

SERIES = (
    "#2f6fb5", "#e8863f", "#3f9f9c", "#a83c6e", "#e8c04f", "#7f6aa8",
    "#7a9a3f", "#c9503c", "#6fa8dc", "#b08d57", "#d58fb4", "#50809a", "#9bc4a0", "#8a5a44",
    "#b39ddb", "#4f9d69", "#93a3b3",
)  # fmt: skip
"""Colours of series that have no colour of their own, in order."""

STYLE: dict[Any, Any] = {
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
"""Settings of matplotlib under which every figure is drawn."""

_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"}


def colour_of(index: int) -> str:
    """Give the colour of a series by its place, over again after the last."""
    return SERIES[index % len(SERIES)]


def svg(figure: Figure, *, title: str, small: bool = False) -> Markup:
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
    # Matplotlib leaves black, the initial value, out: text then has no fill of its own.
    for colour, variable in _VARIABLES.items():
        text = re.sub(rf"(fill|stroke): {colour}", rf"\1: var({variable}, {colour})", text)
    # A hundredth of a unit of a path is not seen.
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\d\.\d\d)\d+", r"\1", path.group()), text)
    return Markup(re.sub(r"\n\s*", "\n", text))


def bare(axes: Axes) -> None:
    """Take spines and ticks away."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
