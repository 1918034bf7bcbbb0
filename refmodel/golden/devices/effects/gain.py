"""Gain errors: each column of a converter has full scale a little above or below the others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import ConverterDraw, Effect, Value
from refmodel.golden.devices.random import normal


@register
class Gain(Effect):
    """``1 + adc_gain * z`` times the current, z normal and a column's own; at least 0."""

    order = 52
    values = (Value(name="adc_gain", unit="of current", least=0, most=1),)
    streams = (18,)

    def varies(self, device: Any) -> bool:
        return bool(device.adc_gain)

    def gains(self, device: Any, converters: ConverterDraw) -> NDArray[np.float64] | None:
        if not self.varies(device):
            return None
        return np.maximum(1 + device.adc_gain * normal(converters.words(self.streams[0])), 0.0)
