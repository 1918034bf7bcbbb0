"""Lognormal errors of writing whose spread does not depend on the conductance."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import CellDraw, Effect, Value
from refmodel.golden.devices.random import normal


@register
class LognormalError(Effect):
    """Lognormal with mean G and standard deviation ``lognormal_independent``.

    ``G exp(s z - s^2 / 2)`` with ``s^2 = ln(1 + (lognormal_independent / G)^2)``. A cell that does
    not conduct stays so. The lognormal error in proportion to G is
    :class:`~refmodel.golden.devices.effects.variation.Variation`.
    """

    order = 12
    values = (Value(name="lognormal_independent", unit="of G_on", least=0, most=2),)
    streams = (14, 15)
    written = True

    def varies(self, device: Any) -> bool:
        return bool(device.lognormal_independent)

    def change_cells(self, device: Any, cells: CellDraw, conductance: NDArray[np.float64]) -> None:
        if not self.varies(device):
            return
        z = normal(cells.words(self.streams[cells.minus]))
        conducts = conductance > 0
        ratio = np.zeros_like(conductance)
        np.divide(device.lognormal_independent, conductance, out=ratio, where=conducts)
        square = np.log1p(ratio * ratio)
        conductance *= np.exp(np.sqrt(square) * z - square / 2)
