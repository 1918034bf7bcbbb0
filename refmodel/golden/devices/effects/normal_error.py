"""Normal errors of writing: in proportion to the conductance, or the same for all."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import CellDraw, Effect, Value
from refmodel.golden.devices.random import normal


@register
class NormalError(Effect):
    """``G (1 + proportional * z1) + independent * z2``, at least 0; z1 and z2 a cell's own."""

    order = 11
    values = (
        Value(name="error_proportional", unit="of G", least=0, most=2),
        Value(name="error_independent", unit="of G_on", least=0, most=2),
    )
    streams = (10, 11, 12, 13)
    written = True

    def varies(self, device: Any) -> bool:
        return bool(device.error_proportional or device.error_independent)

    def change_cells(self, device: Any, cells: CellDraw, conductance: NDArray[np.float64]) -> None:
        if not self.varies(device):
            return
        if device.error_proportional:
            z = normal(cells.words(self.streams[cells.minus]))
            conductance *= 1 + device.error_proportional * z
        if device.error_independent:
            z = normal(cells.words(self.streams[2 + cells.minus]))
            conductance += device.error_independent * z
        np.maximum(conductance, 0.0, out=conductance)
