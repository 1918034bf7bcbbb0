"""Draw the blocks of engine, tile and accelerator: docs/images/engine-*.svg and so on.

python docs/site/block_pictures.py
"""

from drawing import Theme, block, save, wire
from matplotlib.axes import Axes


def engine(axes: Axes, theme: Theme) -> None:
    """Draw the engine: the names at the arrows are those of its streams."""
    width, height = 24, 7.5
    left, middle, right = 16, 48, 80
    rows = (48, 34, 20)
    block(axes, theme, (left, rows[0], width, height), "PatternController", "index memories")
    block(axes, theme, (left, rows[1], width, height), "InputGather", "activation memory")
    block(axes, theme, (left, rows[2], width, height), "OUEngine", "digits and columns")
    block(axes, theme, (middle, rows[0], width, height), "ReuseMerge", "reuse words")
    block(axes, theme, (middle, rows[1], width, height), "Accumulators", "two halves")
    block(axes, theme, (middle, rows[2], width, height), "Requantise", "bias, multiply, shift")
    block(axes, theme, (right, rows[0], width, height), "PartialSumStore", "a ring of slots")
    block(axes, theme, (right, rows[2], width, height), "ShiftAdd", "codes to sums")
    port = (left, 2, right + width - left, 7)
    block(
        axes,
        theme,
        port,
        "crossbar port",
        "analog macro, emulated crossbar, or Python model",
        theme.orange,
    )
    half = height / 2
    # From outside.
    wire(axes, theme, [(5, rows[0] + half), (left, rows[0] + half)], "i_load", (10, 53.2), "center")
    wire(axes, theme, [(5, rows[1] + half), (left, rows[1] + half)], "i_acts", (10, 39.2), "center")
    wire(axes, theme, [(5, 5.5), (left, 5.5)], "i_cells", (10, 7), "center")
    wire(axes, theme, [(42, 24.9), (middle, 24.9)], "i_load", (44.6, 26.5), "center")
    # The chain of inputs.
    x = left + width / 2
    wire(axes, theme, [(x, rows[0]), (x, rows[1] + height)], "o_segments")
    wire(axes, theme, [(x, rows[1]), (x, rows[2] + height)], "o")
    wire(axes, theme, [(20, rows[2]), (20, 9)], "o_request")
    wire(
        axes,
        theme,
        [(35, rows[2]), (35, 14.5), (86, 14.5), (86, rows[2])],
        "o_pending",
        (60, 16),
        "center",
    )
    wire(axes, theme, [(98, 9), (98, rows[2])], "response", (98.8, 14.5))
    # Sums.
    x = right + width / 2
    wire(axes, theme, [(x, rows[2] + height), (x, rows[0])], "o")
    wire(axes, theme, [(right, 51.7), (middle + width, 51.7)], "psum", (76, 53.2), "center")
    wire(
        axes,
        theme,
        [(left + width, 51.7), (middle, 51.7)],
        "o_headers,\no_words",
        (44, 54.6),
        "center",
    )
    x = middle + width / 2
    wire(axes, theme, [(x, rows[0]), (x, rows[1] + height)], "contribution")
    wire(axes, theme, [(x, rows[1]), (x, rows[2] + height)], "read_acc")
    wire(axes, theme, [(middle + width, 22.4), (77, 22.4)], "o", (75, 24), "center")
    # Trace.
    wire(axes, theme, [(104, 51.7), (114, 51.7)], "trace_psum", (109.5, 53.4), "center")
    wire(axes, theme, [(72, 37.7), (82, 37.7)], "trace_acc", (77.5, 39.4), "center")


def tile(axes: Axes, theme: Theme) -> None:
    """Draw the tile: engines, the reduction of their accumulators, one requantiser."""
    axes.set_ylim(6, 45)
    places = (8, 33, 79)
    names = ("EngineCore 0", "EngineCore 1", "EngineCore N - 1")
    wire(axes, theme, [(2, 41), (89, 41), (89, 32)])
    wire(axes, theme, [(2, 37.5), (93, 37.5), (93, 32)])
    for x, name in zip(places, names, strict=True):
        block(axes, theme, (x, 24, 20, 8), name, "groups of the layer")
        if x < 79:
            wire(axes, theme, [(x + 10, 41), (x + 10, 32)])
            wire(axes, theme, [(x + 14, 37.5), (x + 14, 32)])
        wire(axes, theme, [(x + 10, 24), (x + 10, 17)])
        axes.text(
            x + 10.8,
            20.5,
            "accumulators",
            color=theme.faint,
            fontsize=8,
            va="center",
            family="DejaVu Sans Mono",
        )
        wire(axes, theme, [(x + 20, 28), (x + 23.5, 28)])
    axes.text(66, 28, "…", color=theme.ink, fontsize=16, ha="center", va="center")
    axes.text(103.5, 28, "a crossbar\nport each", color=theme.orange, fontsize=8, va="center")
    for y, text in (
        (42.4, "i_load, i_cells: each word with the number of its engine"),
        (38.9, "i_acts: copied to all"),
    ):
        axes.text(2, y, text, color=theme.faint, fontsize=8, va="center")
    block(axes, theme, (8, 9, 84, 8), "Reduction", "shares, a tree of registered adders, a buffer")
    wire(axes, theme, [(92, 13), (96.5, 13)])
    block(axes, theme, (96.5, 9, 14, 8), "Requantise", "one for all")
    wire(axes, theme, [(110.5, 13), (116.5, 13)], "o", (113, 14.6), "center")


def accelerator(axes: Axes, theme: Theme) -> None:
    """Draw the accelerator: post-processing reads and writes the one memory of activations."""
    block(axes, theme, (14, 44, 26, 8), "Sequencer", "the list of operations")
    block(axes, theme, (74, 44, 26, 8), "EngineCore or TileCore", "all layers resident")
    block(axes, theme, (74, 28, 26, 8), "Requantise", "one rounding, with residual")
    block(axes, theme, (14, 28, 26, 8), "OperandReader", "residuals, operands of pools")
    block(axes, theme, (14, 14, 26, 8), "PoolUnit", "largest code, or sum")
    block(axes, theme, (74, 14, 26, 8), "WriteBack", "outputs and borders")
    block(
        axes,
        theme,
        (14, 1, 86, 7),
        "activation memory",
        "N + 1 copies, all written at once",
        theme.green,
    )
    wire(axes, theme, [(3, 48), (14, 48)], "i_load", (8, 49.6), "center")
    wire(axes, theme, [(40, 48), (74, 48)], "registers, tables, run", (57, 49.6), "center")
    wire(axes, theme, [(100, 48), (108, 48)])
    axes.text(108.5, 48, "crossbar\nports", color=theme.orange, fontsize=8, va="center")
    wire(axes, theme, [(87, 44), (87, 36)], "accumulators")
    wire(axes, theme, [(87, 28), (87, 22)], "codes")
    wire(axes, theme, [(40, 32), (74, 32)], "residual", (57, 33.6), "center")
    wire(axes, theme, [(27, 28), (27, 22)], "codes")
    wire(axes, theme, [(40, 16.5), (74, 16.5)], "codes", (54, 18), "center")
    wire(axes, theme, [(87, 14), (87, 8)], "bytes")
    wire(axes, theme, [(100, 18), (112, 18)], "o", (107, 19.6), "center")
    wire(axes, theme, [(64, 20), (74, 20)], "i_acts", (66, 21.5), "center")
    wire(axes, theme, [(18, 8), (18, 11), (9, 11), (9, 32), (14, 32)])
    wire(axes, theme, [(96, 8), (96, 11), (105, 11), (105, 46), (100, 46)])
    axes.text(105.6, 30, "inputs of\nlayers", color=theme.faint, fontsize=8, va="center")


if __name__ == "__main__":
    save("engine", (118, 59), engine)
    save("tile", (118, 39), tile)
    save("accelerator", (118, 54), accelerator)
