"""Drift: conductances, and the reference column with them, fall as a power law of time."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import CellDraw, Effect, Value
from refmodel.golden.devices.random import normal


@register
class Drift(Effect):
    """``G * (time / start)^-nu``, nu normal about ``drift_nu`` and a cell's own.

    The reference column has many cells, and falls by their mean: ``(time / start)^-drift_nu`` times
    ``exp((drift_nu_spread * ln(time / start))^2 / 2)``. With ``drift_compensation`` at 1 the
    converters amplify all currents by as much as that mean has fallen; between 0 and 1 by that
    power of it.
    """

    order = 20
    values = (
        Value(name="drift_nu", unit="1", least=0, most=1, required=True),
        Value(name="drift_time", unit="s", default=1.0, required=True),
        Value(name="drift_start", unit="s", default=1.0, required=True),
        Value(name="drift_nu_spread", unit="1", least=0, most=1),
        Value(name="drift_compensation", unit="share", least=0, most=1),
    )
    streams = (16, 17)

    def check(self, device: Any) -> None:
        if not 0 < device.drift_start <= device.drift_time < math.inf:
            raise ValueError(
                f"drift_time must be at least drift_start, above 0, not {device.drift_time!r}"
            )

    def acts(self, device: Any) -> bool:
        return device.drift_time > device.drift_start and bool(
            device.drift_nu or device.drift_nu_spread
        )

    def varies(self, device: Any) -> bool:
        return bool(device.drift_nu_spread) and device.drift_time > device.drift_start

    def change_cells(self, device: Any, cells: CellDraw, conductance: NDArray[np.float64]) -> None:
        past = device.drift_time / device.drift_start
        if not self.varies(device):
            conductance *= past**-device.drift_nu
            return
        nu = device.drift_nu + device.drift_nu_spread * normal(
            cells.words(self.streams[cells.minus])
        )
        conductance *= np.exp(-nu * math.log(past))

    def reference(self, device: Any) -> float:
        past = device.drift_time / device.drift_start
        return past**-device.drift_nu * math.exp((device.drift_nu_spread * math.log(past)) ** 2 / 2)

    def gain(self, device: Any) -> float:
        return self.reference(device) ** -device.drift_compensation
