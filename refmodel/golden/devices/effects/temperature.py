"""Temperature: cells conduct more or less than at the temperature of the other values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import CellDraw, Effect, Value


@register
class Temperature(Effect):
    """``G (1 + c (temperature - temperature_start))``.

    The coefficient c goes from ``temperature_off`` at level 0 to ``temperature_on`` at the highest,
    in even steps; the reference column is one of off cells. Noise stays as the file gives it.
    """

    order = 22
    values = (
        Value(name="temperature", unit="K", default=300.0, least=200, most=500),
        Value(name="temperature_start", unit="K", default=300.0, least=200, most=500),
        Value(name="temperature_on", unit="1/K", least=-0.01, most=0.01),
        Value(name="temperature_off", unit="1/K", least=-0.01, most=0.01),
    )

    def check(self, device: Any) -> None:
        worst = min(device.temperature_on, device.temperature_off, key=self._factor(device))
        if self._factor(device)(worst) <= 0:
            raise ValueError(
                f"temperature must leave conductances above 0, not {device.temperature!r} K with "
                f"a coefficient of {worst!r}"
            )

    def acts(self, device: Any) -> bool:
        return device.temperature != device.temperature_start and bool(
            device.temperature_on or device.temperature_off
        )

    @staticmethod
    def _factor(device: Any) -> Any:
        return lambda slope: 1 + slope * (device.temperature - device.temperature_start)

    def change_cells(self, device: Any, cells: CellDraw, conductance: NDArray[np.float64]) -> None:
        if device.temperature == device.temperature_start:
            return
        more = device.temperature_on - device.temperature_off
        conductance *= self._factor(device)(device.temperature_off + cells.level / cells.top * more)

    def reference(self, device: Any) -> float:
        return self._factor(device)(device.temperature_off)
