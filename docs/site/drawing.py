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
