"""Pictures of a layer's program as small SVG: kept shapes, reuse maps, crossbars.

They are written by hand rather than by matplotlib: a page of 50 layers holds hundreds of them, and
stays small. Cells are images with a palette (PNG), whose colours show on light and dark paper.
"""

import struct
import zlib
from base64 import b64encode
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from prap_hw.app.report.content import (
    ABSENT_CODE,
    DROPPED_CODE,
    FIRST_SHIFT_CODE,
    KEPT_CODE,
    Occupancy,
    kept_shapes,
    reuse_codes,
)
from prap_hw.app.report.style import DROPPED, KEPT, SHIFTS
from refmodel.config import MIN_SHIFT, SHIFT_NONE
from refmodel.program.layer import LayerProgram

WIDTH = 840
"""Units of a picture's width; the page scales it."""

MOST_SHAPES = 16
"""Shapes of a layer that are drawn."""

MOST_CELLS = 60_000
"""Cells of a reuse map that are drawn, unless the page has many layers."""

Rgba = tuple[int, int, int, int]

EVEN, ODD = "#2f6fb5", "#d07f2c"
"""Cells at 1 of even and odd groups."""

CROSSBAR_PALETTE: tuple[Rgba, ...] = (
    (128, 140, 155, 30),
    (47, 111, 181, 70),
    (47, 111, 181, 255),
    (232, 163, 63, 80),
    (208, 127, 44, 255),
)
"""Free cells; cells at 0 and at 1 of even groups; the same of odd groups."""


def _rgba(colour: str, alpha: int = 255) -> Rgba:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue, alpha


def png(codes: np.ndarray, palette: Sequence[Rgba]) -> str:
    """Write codes, uint8 [rows, columns], as a PNG with a palette: a ``data:`` address."""
    height, width = codes.shape
    bits = 4 if len(palette) <= 16 else 8
    if bits == 4:
        even = np.pad(codes, ((0, 0), (0, width % 2)))
        packed = (even[:, ::2] << 4 | even[:, 1::2]).astype(np.uint8)
    else:
        packed = codes.astype(np.uint8)
    lines = np.pad(packed, ((0, 0), (1, 0))).tobytes()  # each begins with its filter, 0

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    data = b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 3, 0, 0, 0)),
            chunk(b"PLTE", b"".join(bytes(colour[:3]) for colour in palette)),
            chunk(b"tRNS", bytes(colour[3] for colour in palette)),
            chunk(b"IDAT", zlib.compress(lines, 9)),
            chunk(b"IEND", b""),
        )
    )
    return "data:image/png;base64," + b64encode(data).decode("ascii")


def _picture(title: str, height: float, body: Sequence[str], width: float = WIDTH) -> Markup:
    return Markup(
        f'<svg role="img" aria-label="{escape(title)}" class="drawn" '
        f'viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg">'
        + "".join(body)
        + "</svg>"
    )


def _text(x: float, y: float, text: object, *, anchor: str = "start", kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _image(x: float, y: float, width: float, height: float, address: str) -> str:
    return (
        f'<image x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
        f'preserveAspectRatio="none" href="{address}"/>'
    )


def draw_shapes(layer: LayerProgram, most: int = MOST_SHAPES) -> Markup | None:
    """Draw the shapes of a layer as small grids; None where the kernel has one position."""
    height, width = layer.kernel
    if height * width == 1 or layer.full_offsets:
        return None
    shapes = kept_shapes(layer)[:most]
    across, step, box = 8, WIDTH / 8, 62.0
    cell = box / max(height, width)
    body = []
    for index, shape in enumerate(shapes):
        row, column = divmod(index, across)
        x0, y0 = column * step + (step - cell * width) / 2, row * 112.0 + 4
        parts = {True: "", False: ""}
        side = cell * 0.88
        for position in range(height * width):
            y, x = divmod(position, width)
            on = position in shape.positions
            corner = (x0 + (x + 0.06) * cell, y0 + (y + 0.06) * cell)
            parts[on] += f"M{corner[0]:.1f} {corner[1]:.1f}h{side:.1f}v{side:.1f}h-{side:.1f}z"
        for on, path in parts.items():
            if path:
                look = f'fill="{KEPT}"' if on else f'fill="{DROPPED}" fill-opacity=".35"'
                body.append(f'<path {look} d="{path}"/>')
        middle = column * step + step / 2
        for line, words in enumerate((f"{shape.kept:,} kept", f"{shape.served:,} served")):
            y = y0 + box + 15 + 14 * line
            body.append(_text(middle, y, words, anchor="middle", kind="muted"))
    down = -(-len(shapes) // across)
    return _picture(f"kept shapes of layer {layer.name}", down * 112, body)


def _legend_text(codes: Sequence[int]) -> str:
    """Name the cells of one colour of a reuse map."""
    if codes[0] < FIRST_SHIFT_CODE:
        return {DROPPED_CODE: "dropped", KEPT_CODE: "kept"}[codes[0]]
    powers = [_power(code - FIRST_SHIFT_CODE + MIN_SHIFT) for code in codes]
    return "reused × " + (powers[0] if len(powers) == 1 else f"{powers[0]} to {powers[-1]}")


def _power(k: int) -> str:
    return {-3: "⅛", -2: "¼", -1: "½"}.get(k, str(1 << k) if k >= 0 else f"1/{1 << -k}")


def _ticks(count: int) -> range:
    step = next(s for s in (1, 2, 4, 8, 16, 32, 64, 128, 512, 4096) if s * 24 >= count)
    return range(0, count, step)


def draw_reuse(layer: LayerProgram, most: int = MOST_CELLS) -> Markup | None:
    """Draw the reuse map of a layer, outputs by groups; None for identity maps.

    A map of more than ``most`` cells is cut off: it shows the first outputs and groups, and says
    so.
    """
    if layer.identity:
        return None
    codes = reuse_codes(layer)
    outputs, groups = codes.shape
    if codes.size > most:
        side = int(np.sqrt(most))
        rows = max(min(outputs, side), min(outputs, most // max(groups, 1)))
        codes = codes[:rows, : max(1, most // rows)]
    cut = codes.shape != (outputs, groups)
    # Cells are as square as the page's width allows; long maps are drawn lying down.
    turned = codes.shape[0] > codes.shape[1]
    picture = codes.T if turned else codes
    rows, columns = picture.shape
    cell = min(18.0, (WIDTH - 64) / columns, 360 / rows)
    x0, y0, wide, high = 56.0, 34.0, cell * columns, cell * rows
    palette = [
        _rgba("#ffffff", 0),
        _rgba(DROPPED, 70),
        _rgba(KEPT),
        *(_rgba(SHIFTS[MIN_SHIFT + i]) for i in range(SHIFT_NONE)),
    ]
    body = [_image(x0, y0, wide, high, png(picture, palette))]
    if cell >= 5:
        lines = "".join(f"M{x0 + i * cell:.1f} {y0:g}v{high:.1f}" for i in range(1, columns))
        lines += "".join(f"M{x0:g} {y0 + i * cell:.1f}h{wide:.1f}" for i in range(1, rows))
        body.append(f'<path class="gap" d="{lines}"/>')
    names = ("group", "output") if turned else ("output", "group")
    for tick in _ticks(rows):
        body.append(_text(x0 - 6, y0 + (tick + 0.5) * cell + 4, tick, anchor="end", kind="muted"))
    for tick in _ticks(columns):
        place = x0 + (tick + 0.5) * cell
        body.append(_text(place, y0 + high + 14, tick, anchor="middle", kind="muted"))
    turn = f"translate(14 {y0 + high / 2:g}) rotate(-90)"
    body.append(f'<g transform="{turn}">{_text(0, 0, names[0], anchor="middle")}</g>')
    body.append(_text(x0 + min(wide, WIDTH - 64) / 2, y0 + high + 32, names[1], anchor="middle"))
    body += _legend(codes)
    if cut:
        words = (
            f"the first {codes.shape[0]:,} of {outputs:,} outputs and {codes.shape[1]:,} of "
            f"{groups:,} groups"
        )
        body.append(_text(WIDTH, y0 + high + 32, words, anchor="end", kind="muted"))
    return _picture(f"reuse map of layer {layer.name}", y0 + high + 40, body)


def _legend(codes: np.ndarray) -> list[str]:
    """Say what each colour of a reuse map means."""
    by_colour: dict[str, list[int]] = {}
    for code in np.unique(codes).tolist():
        if code == DROPPED_CODE:
            by_colour[DROPPED] = [code]
        elif code == KEPT_CODE:
            by_colour[KEPT] = [code]
        elif code != ABSENT_CODE:
            by_colour.setdefault(SHIFTS[code - FIRST_SHIFT_CODE + MIN_SHIFT], []).append(code)
    body, x = [], 56.0
    for colour, found in by_colour.items():
        words = _legend_text(found)
        faint = ' fill-opacity=".35"' if found == [DROPPED_CODE] else ""
        body.append(f'<rect x="{x:g}" y="6" width="11" height="11" fill="{colour}"{faint}/>')
        body.append(_text(x + 16, 16, words))
        x += 34 + 6.6 * len(words)
    return body


def draw_crossbars(uses: Sequence[tuple[str, Occupancy]], title: str) -> Markup:
    """Draw crossbars cell by cell, five side by side; ``uses`` are named by their layers."""
    panels = [
        (name if use.crossbars == 1 else f"{name} {a + 1}/{use.crossbars}", picture)
        for name, use in uses
        for a, picture in enumerate(use.cells)
    ]
    across = 5
    step = WIDTH / across
    side = step - 12
    body = []
    for index, (name, picture) in enumerate(panels):
        row, column = divmod(index, across)
        x, y = column * step, row * (side + 30)
        fitted = name if len(name) <= 24 else f"…{name[-23:]}"
        body.append(_text(x, y + 14, fitted))
        body.append(_image(x, y + 20, side, side, png(picture, CROSSBAR_PALETTE)))
        body.append(
            f'<rect class="frame" x="{x:g}" y="{y + 20:g}" width="{side:g}" height="{side:g}"/>'
        )
    return _picture(title, -(-len(panels) // across) * (side + 30), body)
