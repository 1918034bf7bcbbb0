"""A picture of what each part of a design takes of an FPGA, as SVG."""

from collections.abc import Mapping
from xml.sax.saxutils import escape

COLOURS = {"LUTs": "#0072b2", "flip-flops": "#d55e00", "block RAM": "#009e73"}
"""A colour to each kind of cell; they differ for all kinds of colour vision, too."""

ROW = 52
"""Height of a part."""

LEFT, WIDTH = 170, 470
"""Where the bars begin, and the length of the longest."""


def use_by_part(
    title: str, parts: Mapping[str, Mapping[str, int]], available: Mapping[str, int]
) -> str:
    """Draw bars: of each part the share of the device that it takes of each kind of cell.

    Parameters
    ----------
    title
        Above the picture.
    parts
        Part to kind to number.
    available
        Kind to the number that the device has.
    """

    def share(part: Mapping[str, int], kind: str) -> float:
        return part.get(kind, 0) / available[kind]

    order = sorted(parts, key=lambda name: -max(share(parts[name], kind) for kind in COLOURS))
    most = max((share(parts[name], kind) for name in order for kind in COLOURS), default=0) or 1
    height = 70 + ROW * len(order)
    frame = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}"'
    lines = [
        f'<svg {frame} font-family="sans-serif" font-size="12">',
        f'<rect width="760" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="22" font-size="15">{escape(title)}</text>',
    ]
    for number, (kind, colour) in enumerate(COLOURS.items()):
        x = LEFT + 185 * number
        total = sum(part.get(kind, 0) for part in parts.values())
        lines.append(f'<rect x="{x}" y="34" width="10" height="10" fill="{colour}"/>')
        said = f"{kind}: {total:,} of {available[kind]:,}"
        lines.append(f'<text x="{x + 14}" y="44">{said}</text>')
    for row, name in enumerate(order):
        y = 62 + ROW * row
        lines.append(f'<text x="{LEFT - 8}" y="{y + 26}" text-anchor="end">{escape(name)}</text>')
        for number, (kind, colour) in enumerate(COLOURS.items()):
            part = share(parts[name], kind)
            width = WIDTH * part / most
            top = y + 14 * number
            lines.append(
                f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="11" fill="{colour}"/>'
            )
            count = parts[name].get(kind, 0)
            if count:
                lines.append(
                    f'<text x="{LEFT + width + 4:.1f}" y="{top + 10}" font-size="10">'
                    f"{count:,} ({100 * part:.1f} %)</text>"
                )
    return "\n".join([*lines, "</svg>"]) + "\n"
