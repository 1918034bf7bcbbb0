"""Variation: the conductance of a cell is lognormal about its target."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import CellDraw, Effect, Value
from refmodel.golden.devices.random import normal


@register
class Variation(Effect):
    """``G * exp(sigma * z)``, sigma in even steps from off to on, z normal and a cell's own."""

    order = 10
    values = (
        Value(name="variation_on", unit="ln G", least=0, most=2, required=True),
        Value(name="variation_off", unit="ln G", least=0, most=2, required=True),
    )
    streams = (0, 4)
    written = True

    def varies(self, device: Any) -> bool:
        return bool(device.variation_on or device.variation_off)

    def change_cells(self, device: Any, cells: CellDraw, conductance: NDArray[np.float64]) -> None:
        if not self.varies(device):
            return
        more = device.variation_on - device.variation_off
        sigma = device.variation_off + cells.level / cells.top * more
        z = normal(cells.words(self.streams[cells.minus]))
        conductance *= np.exp(sigma * z)
