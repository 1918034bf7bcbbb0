"""Comparator noise: a converter decides a little differently at every read."""

from typing import Any

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import Effect, Value


@register
class ConverterNoise(Effect):
    """Normal, in codes; it adds up in squares with the read noise, and is drawn with it."""

    order = 56
    values = (Value(name="adc_noise", unit="codes", least=0, most=100),)

    def varies(self, device: Any) -> bool:
        return bool(device.adc_noise)

    def code_noise(self, device: Any) -> float:
        return device.adc_noise
