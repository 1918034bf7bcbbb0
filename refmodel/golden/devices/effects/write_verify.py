"""Write-verify: cells are read after they were written, and written again if they are off."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import Effect, Value


@register
class WriteVerify(Effect):
    """Up to ``verify_writes`` writes to a cell, until it is within ``verify_tolerance``.

    A cell whose last write is off, too, keeps what that gave. What is written has all errors of
    writing anew each time; drift and stuck cells come afterwards. Energy and time are those of the
    writes that a chip took (:class:`refmodel.golden.devices.chip.Writes`).
    """

    order = 14
    values = (
        Value(name="verify_writes", unit="writes", default=1.0, least=1, most=1000),
        Value(name="verify_tolerance", unit="of G_on", default=0.05, least=0, most=1),
        Value(name="write_energy", unit="pJ", least=0, most=1e6),
        Value(name="write_time", unit="ns", least=0, most=1e9),
        Value(name="verify_energy", unit="pJ", least=0, most=1e6),
        Value(name="verify_time", unit="ns", least=0, most=1e9),
    )

    def check(self, device: Any) -> None:
        if device.verify_writes != int(device.verify_writes):
            raise ValueError(f"verify_writes must be whole, not {device.verify_writes!r}")

    def acts(self, device: Any) -> bool:
        return device.verify_writes > 1

    def writes(self, device: Any) -> int:
        return int(device.verify_writes)

    def again(
        self, device: Any, target: NDArray[np.float64], conductance: NDArray[np.float64]
    ) -> NDArray[np.bool_] | None:
        if device.verify_writes == 1:
            return None
        return np.abs(conductance - target) > device.verify_tolerance
