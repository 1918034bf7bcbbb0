"""Nonlinear converters: a bow over the whole range, and steps that are not equally wide."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import ConverterDraw, Effect, Value
from refmodel.golden.devices.random import normal


@register
class Nonlinearity(Effect):
    """Threshold k, at k - 1/2 of an ideal converter, lies ``inl * 4 u (1 - u) + dnl * z`` higher.

    u = k / most is its place in the range, so that ``adc_inl`` is reached in the middle; negative
    codes of pairs mirror the positive ones. z is normal and a threshold's own. Thresholds that
    would pass their neighbours are sorted, so that a converter stays monotone.
    """

    order = 54
    values = (
        Value(name="adc_inl", unit="codes", least=-100, most=100),
        Value(name="adc_dnl", unit="codes", least=0, most=10),
    )
    streams = (19,)

    def varies(self, device: Any) -> bool:
        return bool(device.adc_dnl)

    def thresholds(self, device: Any, converters: ConverterDraw) -> NDArray[np.float64] | None:
        if not (device.adc_inl or device.adc_dnl):
            return None
        steps = converters.steps
        most = max(1.0, float(np.abs(steps - 0.5).max() + 0.5))
        place = np.abs(steps - 0.5) + 0.5
        bow = 4 * place / most * (1 - place / most) * np.where(steps > 0.5, 1, -1)
        size = converters.words(self.streams[0]).shape
        found = np.broadcast_to(device.adc_inl * bow, (*size, len(steps)))
        if device.adc_dnl:
            found = found + device.adc_dnl * normal(converters.step_words(self.streams[0]))
        return found
