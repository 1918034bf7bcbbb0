"""Errors of cells and converters, drawn anew in every step of training.

A network that is to run on chips that nobody has measured yet is trained on a new chip in each
step. Drawing every code, as :mod:`refmodel.golden.devices` does, is too slow for that; here its
effects are brought down to errors of the cells, which is exact for stuck cells and an approximation
(ours) for the rest:

- a **stuck** cell adds or takes its column's weight: exactly as on the chip, clipping apart;
- **variation, read noise and offsets** are errors of a code, of variance

      s^2 = R/2 * (variation_on^2 + (G_off * variation_off)^2) / 2 / step^2
            + (read_noise / step)^2 + adc_offset^2

  with half of the wordlines and half of the cells on. The converter rounds most of them away:
  v = E[rint(N(0, s))^2] is what is left, and every cell gets a normal error of variance v / (R/2).

Drift of the mean by a few percent is rounded away altogether and is left out.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from refmodel.golden.devices.device import Device

WEIGHT_BITS = 8


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

    @property
    def deviation(self) -> float:
        """Standard deviation of the normal error of a cell, in codes."""
        device, half = self.device, self.rows / 2
        step = 1 - device.off
        variance = half * (device.variation_on**2 + (device.off * device.variation_off) ** 2)
        variance = variance / 2 / step**2
        variance += (device.read_noise / step) ** 2 + device.adc_offset**2
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
