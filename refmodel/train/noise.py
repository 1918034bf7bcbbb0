"""Errors of cells and converters, drawn anew in every step of training.

A network that is to run on chips that nobody has measured yet is trained on a new chip in each
step. Drawing every code, as :mod:`refmodel.golden.devices` does, is too slow for that; here its
effects are brought down to errors of the cells, which is exact for stuck cells and an approximation
(ours) for the rest:

- a **stuck** cell adds or takes its column's weight: exactly as on the chip, clipping apart;
- **errors of writing, drift from cell to cell, noise and offsets** are errors of a code, of the
  variance

      s^2 = R/2 * (s_on^2 + s_off^2) / 2 / step^2
            + (read_noise / step)^2 + adc_offset^2 + adc_noise^2
      s_on^2  = variation_on^2 + p^2 + i^2           p: error_proportional, drift_nu_spread ln t
      s_off^2 = G_off^2 (variation_off^2 + p^2) + i^2          i: the independent errors

  with half of the wordlines and half of the cells on. The converter rounds most of them away:
  v = E[rint(N(0, s))^2] is what is left, and every cell gets a normal error of variance v / (R/2).

Drift of the mean by a few percent is rounded away altogether and is left out. Devices with other
effects are refused.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from refmodel.errors import InputError
from refmodel.golden.devices.device import Device

WEIGHT_BITS = 8

KNOWN = frozenset(
    {
        "variation",
        "normal_error",
        "lognormal_error",
        "drift",
        "stuck",
        "read_noise",
        "offset",
        "adc_noise",
    }
)
"""Effects that have a term here."""


@dataclass(frozen=True, kw_only=True)
class CellNoise:
    """Draws errors of weights in two's complement 1-bit cells.

    Attributes
    ----------
    device
        Variation, noise and offsets of cells and converters.
    rows
        R, rows of an operation unit.
    """

    device: Device
    rows: int

    def __post_init__(self) -> None:
        unknown = [name for name in self.device.effects() if name not in KNOWN]
        if unknown:
            raise InputError(
                f"expected a device whose effects training knows ({', '.join(sorted(KNOWN))}), "
                f"found {', '.join(unknown)} in {self.device.name}"
            )

    @property
    def deviation(self) -> float:
        """Standard deviation of the normal error of a cell, in codes."""
        device, half = self.device, self.rows / 2
        step = 1 - device.off
        past = math.log(device.drift_time / device.drift_start)
        relative = device.error_proportional**2 + (device.drift_nu_spread * past) ** 2
        fixed = device.error_independent**2
        lognormal = device.lognormal_independent**2
        on = device.variation_on**2 + relative + fixed + lognormal
        off = device.off**2 * (device.variation_off**2 + relative) + fixed
        off += lognormal if device.off else 0.0
        variance = half * (on + off) / 2 / step**2
        variance += (device.read_noise / step) ** 2 + device.adc_offset**2 + device.adc_noise**2
        return math.sqrt(rounded_variance(math.sqrt(variance)) / half)

    def errors(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Draw errors of 8-bit weights, in steps of a weight.

        Parameters
        ----------
        values
            Integers of -128 to 127, of any shape.
        generator
            Source of the random numbers, on the torch device of ``values``.
        """
        columns = torch.arange(WEIGHT_BITS, device=values.device)
        bits = values.detach().to(torch.int64)[..., None] >> columns & 1
        size = (*values.shape, WEIGHT_BITS)
        deviation = self.deviation
        error = torch.zeros(size, device=values.device)
        if deviation:
            error = deviation * torch.randn(size, generator=generator, device=values.device)
        off, on = self.device.stuck_off, self.device.stuck_on
        if off or on:
            place = torch.rand(size, generator=generator, device=values.device)
            stuck = bits.new_full(size, 2)
            stuck[place < off + on] = 1
            stuck[place < off] = 0
            error = torch.where(stuck < 2, (stuck - bits).to(error.dtype), error)
        weights = torch.pow(2.0, columns.to(error.dtype))
        weights[-1] *= -1
        return error @ weights


def rounded_variance(deviation: float) -> float:
    """Second moment of rint(x) of a normal x with mean 0: what a converter leaves of an error.

    Worked: of a deviation of 0.25, P(|x| > 1/2) = 0.0455 is left, of 0.1 less than 1e-6.
    """
    if deviation <= 0:
        return 0.0
    # E[n^2] = sum over m >= 0 of (2 m + 1) P(|x| > m + 1/2).
    total, m = 0.0, 0
    while True:
        tail = math.erfc((m + 0.5) / (deviation * math.sqrt(2)))
        total += (2 * m + 1) * tail
        if (2 * m + 1) * tail < 1e-12:
            return total
        m += 1
