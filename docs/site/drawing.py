"""The style that the pictures of the pages share: themes, boxes, arrows, and saving.

A picture is drawn twice, ``NAME-light.svg`` and ``NAME-dark.svg``; pages show the one that fits.
Text is drawn as outlines, so that it looks the same everywhere, and a file has no date, so that
the same script writes the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

IMAGES = Path(__file__).resolve().parents[1] / "images"


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours of a picture.

    Attributes
    ----------
    name
        The end of the file's name.
    ink, faint, panel, edge
        Colours of text, of side remarks, of boxes and of their borders.
    blue, orange, green
        Colours that tell things apart.
    """

    name: str
    ink: str
    faint: str
    panel: str
    edge: str
    blue: str
    orange: str
    green: str


LIGHT = Theme(
    name="light",
    ink="#1e293b",
    faint="#64748b",
    panel="#f1f5f9",
    edge="#94a3b8",
    blue="#2563eb",
    orange="#d97706",
    green="#059669",
)

DARK = Theme(
    name="dark",
    ink="#e2e8f0",
    faint="#94a3b8",
    panel="#273043",
    edge="#64748b",
    blue="#60a5fa",
    orange="#fbbf24",
    green="#34d399",
)


def box(axes: Axes, x: float, y: float, width: float, height: float, **style: object) -> None:
    """Draw a box with round corners, its lower left corner at (x, y)."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.8", **{"lw": 1.0} | style
        )
    )


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str,
    *,
    curve: float = 0.0,
    width: float = 1.4,
) -> None:
    """Draw an arrow, straight or with a curve."""
    axes.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "-|>,head_length=0.45,head_width=0.22",
            "color": colour,
            "lw": width,
            "shrinkA": 0,
            "shrinkB": 0,
            "connectionstyle": f"arc3,rad={curve}",
        },
    )


def save(name: str, size: tuple[float, float], draw: Callable[[Axes, Theme], None]) -> None:
    """Draw a picture under both themes; ``size`` is in tenths of an inch, as its coordinates."""
    for theme in (LIGHT, DARK):
        with rc_context({"svg.hashsalt": name, "font.family": "DejaVu Sans", "font.size": 9}):
            figure = Figure(figsize=(size[0] / 10, size[1] / 10))
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_xlim(0, size[0])
            axes.set_ylim(0, size[1])
            axes.set_axis_off()
            draw(axes, theme)
            path = IMAGES / f"{name}-{theme.name}.svg"
            figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
        print(path.relative_to(IMAGES.parents[1]))


def block(
    axes: Axes,
    theme: Theme,
    place: tuple[float, float, float, float],
    text: str,
    more: str = "",
    shade: str = "",
) -> None:
    """Draw a part: its name, and a word on it below; ``place`` is left, bottom, width, height."""
    x, y, width, height = place
    box(axes, *place, facecolor=theme.panel, edgecolor=shade or theme.blue, lw=1.4)
    style = {"ha": "center", "va": "center", "linespacing": 1.4}
    up = 1.2 if more else 0.0
    axes.text(x + width / 2, y + height / 2 + up, text, color=theme.ink, weight="bold", **style)
    axes.text(x + width / 2, y + height / 2 - 1.4, more, color=theme.faint, fontsize=7.5, **style)


def wire(
    axes: Axes,
    theme: Theme,
    points: list[tuple[float, float]],
    text: str = "",
    at: tuple[float, float] | None = None,
    side: str = "left",
) -> None:
    """Draw a connection along points, an arrow at its end, with its name at a place."""
    if len(points) > 2:
        xs, ys = zip(*points[:-1], strict=True)
        axes.plot(xs, ys, color=theme.faint, lw=1.4, solid_joinstyle="round")
    arrow(axes, points[-2], points[-1], theme.faint)
    if text:
        (x0, y0), (x1, y1) = points[0], points[1]
        x, y = at or ((x0 + x1) / 2 + 0.8, (y0 + y1) / 2)
        axes.text(
            x,
            y,
            text,
            color=theme.faint,
            fontsize=8,
            family="DejaVu Sans Mono",
            ha=side,
            va="center",
            linespacing=1.4,
        )
