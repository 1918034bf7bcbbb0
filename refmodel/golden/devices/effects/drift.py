"""Drift: conductances, and the reference column with them, fall as a power law of time."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import CellDraw, Effect, Value


@register
class Drift(Effect):
    """``G * (time / start)^-nu``, the same for all cells."""

    order = 20
    values = (
        Value(name="drift_nu", unit="1", least=0, most=1, required=True),
        Value(name="drift_time", unit="s", default=1.0, required=True),
        Value(name="drift_start", unit="s", default=1.0, required=True),
    )

    def check(self, device: Any) -> None:
        if not 0 < device.drift_start <= device.drift_time < math.inf:
            raise ValueError(
                f"drift_time must be at least drift_start, above 0, not {device.drift_time!r}"
            )

    def change_cells(self, device: Any, cells: CellDraw, conductance: NDArray[np.float64]) -> None:
        conductance *= self.reference(device)

    def reference(self, device: Any) -> float:
        return (device.drift_time / device.drift_start) ** -device.drift_nu
