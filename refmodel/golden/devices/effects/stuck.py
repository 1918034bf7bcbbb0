"""Stuck cells: off or on whatever is programmed; they neither vary nor drift."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import CellDraw, Effect, Value


@register
class Stuck(Effect):
    """A cell is stuck by its random word as a fraction: off below one share, on below both."""

    order = 30
    values = (
        Value(name="stuck_off", unit="of cells", least=0, most=1, required=True),
        Value(name="stuck_on", unit="of cells", least=0, most=1, required=True),
    )
    streams = (1, 5)

    def check(self, device: Any) -> None:
        both = device.stuck_off + device.stuck_on
        if both > 1:
            raise ValueError(f"stuck_off + stuck_on must be 1 at most, not {both!r}")

    def varies(self, device: Any) -> bool:
        return bool(device.stuck_off or device.stuck_on)

    def change_cells(self, device: Any, cells: CellDraw, conductance: NDArray[np.float64]) -> None:
        if not self.varies(device):
            return
        share = cells.words(self.streams[cells.minus]).astype(np.float64) / 2.0**64
        conductance[share < device.stuck_off] = device.off
        on = (share >= device.stuck_off) & (share < device.stuck_off + device.stuck_on)
        conductance[on] = 1.0
