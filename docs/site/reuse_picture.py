"""Draw docs/images/reuse-light.svg and -dark.svg: an operation unit, a partial sum, and reuse.

    python docs/site/reuse_picture.py

The picture shows one group of a layer: six outputs on eight inputs. Two of the weight patterns are
programmed; their bits, in two's complement, are what the operation units hold.
"""

from drawing import Theme, arrow, box, save
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

FIRST = [52, -32, 8, -60, 20, -4, 12, 36]
SECOND = [16, -48, 64, 24, -8, 72, -32, 40]

TAKES = [(0, 1, "1"), (0, 0.5, "½"), None, (1, 1, "1"), (0, 2, "2"), (1, 0.25, "¼")]
"""For each output: the kept pattern that it takes, the power of two, and how that is written."""

KEPT = {0: 0, 3: 1}
"""Outputs whose patterns are kept, and their numbers."""

SIZE = (118, 53)
TOP = 40.5
ROW, COLUMN, CELL = 3.5, 5.4, 2.0


def colour(theme: Theme, kept: int) -> str:
    """Colour of a kept pattern, and of all that comes from it."""
    return (theme.blue, theme.orange)[kept]


def heading(axes: Axes, theme: Theme, x: float, number: int, text: str, more: str) -> None:
    """Write the number and name of a part, with a line below."""
    axes.add_patch(Circle((x + 1.5, 49.2), 1.6, color=theme.green))
    style = {"ha": "center", "va": "center_baseline", "weight": "bold"}
    axes.text(x + 1.5, 49.2, str(number), color="white", fontsize=9.5, **style)
    axes.text(x + 4.2, 49.9, text, color=theme.ink, fontsize=10.5, va="center", weight="bold")
    axes.text(x + 4.2, 47.4, more, color=theme.faint, fontsize=8.5, va="center")


def patterns(axes: Axes, theme: Theme) -> None:
    """Draw the weights of the group: a column to an output."""
    heading(axes, theme, 2, 1, "Weight patterns", "one group: six outputs on eight inputs")
    left = 6.5
    for row in range(8):
        y = TOP - (row + 0.5) * ROW
        axes.text(left - 1.2, y, f"$x_{row}$", color=theme.faint, ha="right", va="center")
    for output, takes in enumerate(TAKES):
        x = left + output * COLUMN
        axes.text(
            x + COLUMN / 2 - 0.3,
            TOP + 1.3,
            f"out {output}",
            color=theme.ink,
            fontsize=8,
            ha="center",
        )
        for row in range(8):
            y = TOP - (row + 1) * ROW
            if takes is None:
                fill, alpha, text = theme.panel, 1.0, "0"
            else:
                kept, scale, _ = takes
                fill, alpha = colour(theme, kept), 0.85 if output in KEPT else 0.28
                text = f"{(FIRST, SECOND)[kept][row] * scale:.0f}".replace("-", "\N{MINUS SIGN}")
            axes.add_patch(
                Rectangle((x, y + 0.12), COLUMN - 0.6, ROW - 0.24, color=fill, alpha=alpha, lw=0)
            )
            on_fill = "white" if output in KEPT and theme.name == "light" else theme.ink
            on_fill = "#111827" if output in KEPT and theme.name == "dark" else on_fill
            shown = theme.faint if takes is None else on_fill
            axes.text(
                x + COLUMN / 2 - 0.3,
                y + ROW / 2,
                text,
                color=shown,
                fontsize=7.5,
                ha="center",
                va="center_baseline",
            )
        y = TOP - 8 * ROW - 0.8
        if takes is None:
            what, shade = "dropped", theme.faint
        elif output in KEPT:
            what, shade = "kept", colour(theme, takes[0])
        else:
            what, shade = f"{takes[2]} ×\nout {3 * takes[0]}", colour(theme, takes[0])
        axes.text(
            x + COLUMN / 2 - 0.3,
            y,
            what,
            color=shade,
            fontsize=8,
            ha="center",
            va="top",
            linespacing=1.35,
            weight="bold" if output in KEPT else "normal",
        )
    axes.text(
        left - 0.2,
        4.0,
        "The others are copies, scaled by powers of two.",
        color=theme.faint,
        fontsize=8.5,
        va="center",
    )


def operation_units(axes: Axes, theme: Theme) -> None:
    """Draw the two operation units, with the bits of their patterns, and what follows them."""
    heading(
        axes, theme, 44, 2, "Operation units", "only kept patterns are programmed and converted"
    )
    left = 52.0
    for kept, values in enumerate((FIRST, SECOND)):
        bottom = (26.5, 6.5)[kept]
        shade = colour(theme, kept)
        for row, value in enumerate(values):
            y = bottom + (7 - row) * CELL
            arrow(
                axes, (left - 3.2, y + CELL / 2), (left - 0.3, y + CELL / 2), theme.faint, width=0.8
            )
            for bit in range(8):
                on = value >> (7 - bit) & 1
                axes.add_patch(
                    Rectangle(
                        (left + bit * CELL, y),
                        CELL,
                        CELL,
                        facecolor=shade if on else theme.panel,
                        edgecolor=theme.edge,
                        lw=0.5,
                    )
                )
        axes.text(
            left - 4.0,
            bottom + 4 * CELL,
            "inputs, bit by bit",
            color=theme.faint,
            fontsize=8,
            rotation=90,
            ha="center",
            va="center",
        )
        axes.text(
            left + 4 * CELL,
            bottom - 1.4,
            "one 8×8 OU: a weight in 8 cells",
            color=theme.faint,
            fontsize=7.5,
            ha="center",
            va="center",
        )
        middle = bottom + 4 * CELL
        arrow(axes, (left + 8 * CELL + 0.3, middle), (left + 8 * CELL + 3, middle), theme.faint)
        x = left + 8 * CELL + 3.2
        box(axes, x, middle - 3.4, 7.4, 6.8, facecolor=theme.panel, edgecolor=theme.edge)
        axes.text(
            x + 3.7,
            middle,
            "ADC\nshift, add",
            color=theme.ink,
            fontsize=7.8,
            ha="center",
            va="center",
            linespacing=1.5,
        )
        arrow(axes, (x + 7.6, middle), (x + 10.2, middle), theme.faint)
        axes.add_patch(Circle((x + 12.6, middle), 2.3, color=shade))
        axes.text(
            x + 12.6,
            middle,
            f"$p_{kept}$",
            ha="center",
            va="center",
            fontsize=11,
            color="white" if theme.name == "light" else "#111827",
        )
        axes.text(
            x + 12.6,
            middle - 3.9,
            "partial sum",
            color=theme.faint,
            fontsize=7.5,
            ha="center",
            va="center",
        )


def reuse(axes: Axes, theme: Theme) -> None:
    """Draw which output takes which partial sum."""
    heading(axes, theme, 88, 3, "Reuse", "a shift and an addition")
    for output, takes in enumerate(TAKES):
        y = TOP - 1.6 - output * 6.4
        box(axes, 99.5, y - 2.1, 16, 4.2, facecolor=theme.panel, edgecolor=theme.edge)
        if takes is None:
            axes.text(107.5, y, f"out {output}", color=theme.faint, ha="center", va="center")
            continue
        kept, _, written = takes
        shade = colour(theme, kept)
        arrow(axes, (86.4, (34.5, 14.5)[kept]), (99.2, y), shade, width=1.3)
        axes.text(101, y, f"out {output}  +=", color=theme.ink, va="center_baseline")
        axes.text(
            114.3, y, ("" if written == "1" else f"{written} · ") + f"$p_{kept}$", color=shade,
            fontsize=10, ha="right", va="center_baseline", weight="bold",
        )  # fmt: skip


def draw(axes: Axes, theme: Theme) -> None:
    """Draw the three parts side by side."""
    patterns(axes, theme)
    operation_units(axes, theme)
    reuse(axes, theme)


if __name__ == "__main__":
    save("reuse", SIZE, draw)
