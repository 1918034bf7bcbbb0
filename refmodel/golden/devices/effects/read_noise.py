"""Read noise: the current of a bitline changes from read to read."""

from typing import Any

from refmodel.golden.devices.device import register
from refmodel.golden.devices.effect import Effect, Value


@register
class ReadNoise(Effect):
    """Normal, whatever the bitline carries; both bitlines of a pair have it."""

    order = 40
    values = (Value(name="read_noise", unit="on current", least=0, most=10, required=True),)

    streams = (3,)

    def varies(self, device: Any) -> bool:
        return bool(device.read_noise)

    def noise(self, device: Any) -> float:
        return device.read_noise
