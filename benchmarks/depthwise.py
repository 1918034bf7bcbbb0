"""What a depthwise layer makes of the operation units, beside the best packing and its bound.

    python benchmarks/depthwise.py net.tflite
    python benchmarks/depthwise.py net.onnx --ou-rows 16

An output of a depthwise layer reads one channel: K positions of a kernel, in ceil(K / R) operation
units of R rows. An operation unit of B columns has room for P = B / S weights side by side, S
columns to a weight, and all of its columns see the same inputs. So with P = 1 (8 columns, cells of
one bit: all presets) nothing stands empty but rows; with more, P - 1 of P places do.

``now`` is scheme dense. ``packed`` lays the kernels of channels along a diagonal: the rows of
neighbouring channels follow each other, R to an operation unit, and each has the columns of those
channels that it has rows of: what scheme dense does with the setting ``packed``. ``bound`` fills
every cell, or for conversions converts no column that does not have to be. Counts are for one
output position, of all depthwise layers together.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import ceil


@dataclass(frozen=True)
class Counts:
    """Operation units and conversions of a layer, for one output position."""

    ous: int
    conversions: int

    def __add__(self, other: "Counts") -> "Counts":
        """Sum of two layers."""
        return Counts(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(self))
        )


def now(
    channels: int, positions: int, multiplier: int, rows: int, columns: int, per: int
) -> Counts:
    """Scheme dense: a channel by itself.

    Parameters
    ----------
    channels, positions, multiplier
        Channels of the input, positions of the kernel, outputs to a channel.
    rows, columns
        R and B of an operation unit.
    per
        S, columns to a weight.
    """
    gathers = channels * ceil(positions / rows)
    used = multiplier * per
    return Counts(gathers * ceil(used / columns), gathers * used)


def packed(
    channels: int, positions: int, multiplier: int, rows: int, columns: int, per: int
) -> Counts:
    """Kernels along a diagonal, in rows of the best length; parameters as :func:`now`."""
    best = now(channels, positions, multiplier, rows, columns, per)
    for several in range(2, channels + 1):
        total = Counts(0, 0)
        for first in range(0, channels, several):
            count = min(several, channels - first)
            for start in range(0, count * positions, rows):
                end = min(start + rows, count * positions)
                touched = (end - 1) // positions - start // positions + 1
                used = touched * multiplier * per
                total += Counts(ceil(used / columns), used)
        best = min(best, total, key=lambda each: (each.ous, each.conversions))
        if several > rows:  # a pattern that repeats after R channels is no better later
            break
    return best


def bound(
    channels: int, positions: int, multiplier: int, rows: int, columns: int, per: int
) -> Counts:
    """No fewer operation units and conversions than these; parameters as :func:`now`."""
    cells = channels * positions * multiplier * per
    least = channels * multiplier * ceil(positions / rows)
    return Counts(ceil(cells / (rows * columns)), least * per)


ENGINES = ((8, 1), (8, 2), (8, 4), (16, 1), (32, 1), (32, 4))
"""Columns of an operation unit, and bits of a cell."""


def layers(path: str) -> Iterator[tuple[int, int, int]]:
    """Channels, positions and outputs to a channel of each depthwise layer of a file."""
    from refmodel.exchange.load import load_network
    from refmodel.network.graph import Matrix

    for node in load_network(path).nodes:
        if isinstance(node, Matrix) and node.weight.shape[1] == 1 and node.groups > 1:
            outputs, _, height, width = node.weight.shape
            yield node.groups, height * width, outputs // node.groups


def main(arguments: list[str] | None = None) -> int:
    """Print the table of a network."""
    from refmodel.errors import InputError

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("network", help="a file of ONNX or TensorFlow Lite")
    parser.add_argument("--ou-rows", type=int, default=8, help="R, 1 to 32 (8)")
    given = parser.parse_args(arguments)
    if not 1 <= given.ou_rows <= 32:
        parser.error(f"expected --ou-rows of 1 to 32, found {given.ou_rows}")
    try:
        found = list(layers(given.network))
    except InputError as error:
        print(f"depthwise: error: {error}", file=sys.stderr)
        return 2
    print(f"{len(found)} depthwise layers, OUs of {given.ou_rows} rows; to an output position")
    print(
        "columns  cell bits  weights | OUs now  packed  bound  now/packed | "
        "conversions now  packed  bound"
    )
    for columns, bits in ENGINES:
        sizes = (given.ou_rows, columns, 8 // bits)
        sums = [
            sum((each(*layer, *sizes) for layer in found), Counts(0, 0))
            for each in (now, packed, bound)
        ]
        ous, conversions = [each.ous for each in sums], [each.conversions for each in sums]
        print(
            f"{columns:7}  {bits:9}  {columns * bits // 8:7} | {ous[0]:7}  {ous[1]:6}  {ous[2]:5}  "
            f"{ous[0] / max(1, ous[1]):10.2f} | {conversions[0]:15}  {conversions[1]:6}  "
            f"{conversions[2]:5}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
