"""Resistance of wordlines and bitlines: what the wires of an OU let through of its currents."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import ArrayDraw, Effect, Value

_AT_ONCE = 2048
"""OUs that are solved at once: bounds the memory."""


@register
class Wires(Effect):
    """Every piece of wire between neighbouring cells has a resistance.

    Drivers are at the left end of wordlines and hold them at the voltage of their digit, 0
    included; bitlines end at the bottom in a virtual ground. Cells outside the OU are cut off, so
    that wires run past them to its first column and from its last row. All of it is linear, so that
    an OU has for each cell a conductance in effect: the current on its bitline for a volt on its
    wordline. The reference column is taken to have no wires.
    """

    order = 60
    values = (
        Value(name="wire_wordline", unit="1 / G_on", least=0, most=1),
        Value(name="wire_bitline", unit="1 / G_on", least=0, most=1),
    )

    def change_array(
        self, device: Any, array: ArrayDraw, conductance: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        if not (device.wire_wordline or device.wire_bitline):
            return conductance
        found = np.empty_like(conductance)
        rows = conductance.shape[1]
        for first in range(0, len(conductance), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            found[part] = effective(
                conductance[part],
                device.wire_wordline,
                device.wire_bitline,
                array.column[part] + 1,
                array.size - (array.row[part] + rows - 1),
            )
        return found


def effective(
    conductance: NDArray[np.float64],
    wordline: float,
    bitline: float,
    before: NDArray[np.integer],
    after: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Solve the network of each OU exactly, one row after the other.

    The nodes of a wordline are eliminated first, which leaves couplings among the bitlines at that
    row; the nodes of bitlines are then eliminated from the top down, where each row is coupled with
    the next alone. What is left is the current into the virtual ground for each driver's voltage.

    Parameters
    ----------
    conductance
        [n, R, C], of the cells.
    wordline, bitline
        Resistance of a piece of wire from one cell to the next.
    before, after
        [n], pieces of wire from a driver to the first column, and from the last row to the end.

    Returns
    -------
    [n, R, C], what each cell adds to its bitline for a volt on its wordline alone.
    """
    count, rows, columns = conductance.shape
    diagonal = np.arange(columns)
    result = np.empty_like(conductance)
    coupled = driven = np.empty(0)
    carried = np.zeros((count, columns, rows))
    left = np.empty(0)
    for row in range(rows):
        cells = conductance[:, row]
        if wordline:
            piece, lead = 1 / wordline, 1 / (wordline * before)
            matrix = np.zeros((count, columns, columns))
            matrix[:, diagonal, diagonal] = 2 * piece + cells
            matrix[:, 0, 0] += lead - piece
            matrix[:, -1, -1] -= piece
            matrix[:, diagonal[1:], diagonal[:-1]] = -piece
            matrix[:, diagonal[:-1], diagonal[1:]] = -piece
            inverse = np.linalg.inv(matrix)
            driven = cells * inverse[:, :, 0] * lead[:, None]
            coupled = -cells[:, :, None] * inverse * cells[:, None, :]
            coupled[:, diagonal, diagonal] += cells
        else:
            driven = cells
            coupled = np.zeros((count, columns, columns))
            coupled[:, diagonal, diagonal] = cells
        if not bitline:
            result[:, row] = driven
            continue
        piece = 1 / bitline
        end = 1 / (bitline * after)
        below = end[:, None] if row == rows - 1 else piece
        coupled[:, diagonal, diagonal] += below
        if row:
            carried = piece * (left @ carried)
            coupled[:, diagonal, diagonal] += piece
            coupled -= piece**2 * left
        carried[:, :, row] += driven
        left = np.linalg.inv(coupled)
        if row == rows - 1:
            result = (end[:, None, None] * (left @ carried)).transpose(0, 2, 1)
    return result
