"""Draw docs/images/flow-light.svg and -dark.svg: from a trained network to the report.

    python docs/site/flow_picture.py

Each box has the folder under its words; docs/architecture.md says what is in them.
"""

from drawing import Theme, arrow, box, save
from matplotlib.axes import Axes

SIZE = (118, 78)

BOXES = {
    "onnx": (3, 62, 20, 10, "trained network\ncalibration images", "ONNX, npz"),
    "import": (28, 62, 19, 10, "import\nnetwork as a graph", "refmodel/exchange\nrefmodel/network"),
    "compress": (52, 62, 26, 10, "quantise, prune, reuse\ncompile", "refmodel/compression"),
    "program": (
        83,
        62,
        32,
        10,
        "program\ngroups, gathers, patterns, reuse words",
        "refmodel/program",
    ),
    "golden": (3, 39, 24, 12, "golden inference\ncodes, partial sums,\noutputs", "refmodel/golden"),
    "predict": (
        31,
        39,
        24,
        12,
        "prediction\ncycles, events,\ncosts",
        "refmodel/predict\nrefmodel/cost",
    ),
    "rtl": (
        59,
        39,
        27,
        12,
        "hardware in Amaranth",
        "prap_hw/common, engine,\ntile, accelerator, shell",
    ),
    "deliver": (
        90,
        39,
        25,
        12,
        "Verilog, driver\nmemory images",
        "prap_hw/deliver\nprap_hw/driver",
    ),
    "sim": (
        31,
        20,
        55,
        9,
        "co-simulation in Verilator: values equal, bit for bit, and cycles",
        "sim",
    ),
    "app": (31, 5, 55, 9, "command line, tables, figures, report", "prap_hw/app"),
}
"""Left, bottom, width and height of each box, what it does, and its folder."""

MODEL = ("import", "compress", "program", "golden", "predict")
HARDWARE = ("rtl", "deliver")


def place(name: str, x: float, y: float) -> tuple[float, float]:
    """A point of a box, by shares of its width and height."""
    left, bottom, width, height, *_ = BOXES[name]
    return left + x * width, bottom + y * height


def draw(axes: Axes, theme: Theme) -> None:
    """Draw the boxes and what goes between them."""
    for name, (left, bottom, width, height, does, folder) in BOXES.items():
        shade = theme.edge
        if name in MODEL:
            shade = theme.blue
        elif name in HARDWARE:
            shade = theme.orange
        elif name in ("sim", "app"):
            shade = theme.green
        box(axes, left, bottom, width, height, facecolor=theme.panel, edgecolor=shade, lw=1.4)
        lines, more = does.count("\n") + 1, folder.count("\n") + 1
        line = 2.15
        first = bottom + height / 2 + (lines + more) * line / 2 - line / 2
        for number, text in enumerate([*does.split("\n"), *folder.split("\n")]):
            code = number >= lines and name != "onnx"
            axes.text(
                left + width / 2,
                first - number * line,
                text,
                ha="center",
                va="center",
                color=shade if code else theme.ink if number < lines else theme.faint,
                fontsize=8 if number else 9,
                family="DejaVu Sans Mono" if code else "DejaVu Sans",
                weight="bold" if number == 0 else "normal",
            )

    def link(start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
        arrow(axes, start, end, theme.faint)
        if text:
            axes.text(
                (start[0] + end[0]) / 2 + 0.9,
                (start[1] + end[1]) / 2,
                text,
                color=theme.faint,
                fontsize=8,
                va="center",
            )

    for one, other in (("onnx", "import"), ("import", "compress"), ("compress", "program")):
        link(place(one, 1, 0.5), place(other, 0, 0.5))
    # From the program down a rail to all that it is given to.
    rail = 56.5
    middle = place("program", 0.5, 0)
    axes.plot([middle[0]] * 2, [middle[1], rail], color=theme.faint, lw=1.4)
    ends = [place(name, 0.5, 1) for name in ("golden", "predict", "rtl", "deliver")]
    axes.plot([ends[0][0], ends[-1][0]], [rail, rail], color=theme.faint, lw=1.4)
    for end, text in zip(ends, ("", "", "sizes", "cells, words"), strict=True):
        link((end[0], rail), end, text)
    link(place("rtl", 1, 0.5), place("deliver", 0, 0.5))
    rail = 34.0
    for name in ("golden", "predict", "deliver"):
        x, y = place(name, 0.5, 0)
        axes.plot([x, x], [y, rail], color=theme.faint, lw=1.4)
    texts = {
        "golden": "expected values",
        "predict": "predicted cycles",
        "deliver": "emitted Verilog",
    }
    for name, text in texts.items():
        x, _ = place(name, 0.5, 0)
        axes.text(x + 0.9, 36.4, text, color=theme.faint, fontsize=8, va="center")
    axes.plot(
        [place("golden", 0.5, 0)[0], place("deliver", 0.5, 0)[0]],
        [rail, rail],
        color=theme.faint,
        lw=1.4,
    )
    link((58.5, rail), (58.5, 29))
    link(place("sim", 0.5, 0), place("app", 0.5, 1), "figures")
    axes.text(3, 25.5, "blue: model, in integers", color=theme.blue, fontsize=8.5)
    axes.text(3, 22.5, "orange: hardware", color=theme.orange, fontsize=8.5)
    axes.text(3, 19.5, "green: what runs and shows both", color=theme.green, fontsize=8.5)


if __name__ == "__main__":
    save("flow", SIZE, draw)
