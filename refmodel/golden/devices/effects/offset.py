"""Offsets: each column of a converter is off by the same at every read."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import ConverterDraw, Effect, Value
from refmodel.golden.devices.random import normal


@register
class Offset(Effect):
    """``adc_offset * z`` codes, z normal and a column's own."""

    order = 50
    values = (Value(name="adc_offset", unit="codes", least=0, most=100, required=True),)
    streams = (2,)

    def varies(self, device: Any) -> bool:
        return bool(device.adc_offset)

    def offsets(self, device: Any, converters: ConverterDraw) -> NDArray[np.float64] | None:
        if not self.varies(device):
            return None
        return device.adc_offset * normal(converters.words(self.streams[0]))
