"""Weights of a layer while it is trained, as modules without inputs.

:class:`SharedWeights` are the effective weights themselves: put together from the values of the
kept patterns, rounded to 8 bits, in every step, so that training sees what the crossbars will
compute. Rounding lets gradients through, and a value gathers the gradients of all weights that use
it. :class:`PulledWeights` are what the published recipe trains: all weights of the layer, drawn to
the mapping by two penalties and put onto it every few epochs. :class:`DenseWeights` are those of
a layer that runs dense.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from refmodel.compression.reuse import DENSE_LEVELS
from refmodel.compression.schemes import LayerMapping
from refmodel.train.noise import CellNoise
from refmodel.train.patterns import PatternTable

LARGEST_PULL = 2.0**6
"""M of the published penalty at most (ours).

1 / scale reaches 256, where a step of 0.1 * 2 * 0.001 * M^2 throws a weight to the other side of
its target, 12 times as far away as it was."""


class _Decode(torch.autograd.Function):
    """Weights of values; backwards, the mean of what the users of a value ask for.

    A step along this gradient brings the weights as near to a step along their own as one value
    can: least squares, the sum of factor * gradient over the sum of factor^2.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        size: int,
        element: Tensor,
        value: Tensor,
        factor: Tensor,
        users: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(element, value, factor, users)
        return values.new_zeros(size).index_add_(0, element, factor * values[value])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        element, value, factor, users = ctx.saved_tensors
        asked = factor * gradients[0][element]
        gathered = torch.zeros_like(users).index_add_(0, value, asked)
        return gathered / users, None, None, None, None, None


class _Rounding(nn.Module):
    """Rounds to steps of 8 bits and adds errors of cells, in training, where there are any."""

    def __init__(self, noise: CellNoise | None, generator: torch.Generator | None) -> None:
        super().__init__()
        self.noise, self.generator = noise, generator

    def forward(self, steps: Tensor) -> Tensor:
        """Round ``steps``, real numbers of steps of any shape, to -127..127; gradients go through.

        They go through where a value is beyond the limits, too: it could not come back otherwise.
        """
        wanted = steps.detach().round().clamp(-DENSE_LEVELS, DENSE_LEVELS)
        rounded = steps + (wanted - steps).detach()
        if self.training and self.noise is not None and self.generator is not None:
            rounded = rounded + self.noise.errors(rounded, self.generator)
        return rounded


class SharedWeights(nn.Module):
    """Effective weights of a mapped layer, by the values of its kept patterns.

    Parameters
    ----------
    mapping
        The mapping; who uses which pattern, shifted how, stays.
    unit
        Real value of one step of a pattern, above 0.
    noise, generator
        Errors to draw in training, and from what.

    Attributes
    ----------
    values
        Parameter float32 [values], in real units.
    """

    def __init__(
        self,
        mapping: LayerMapping,
        unit: float,
        noise: CellNoise | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.table = PatternTable.of(mapping)
        self.unit = unit
        self.rounding = _Rounding(noise, generator)
        self.values = nn.Parameter(torch.from_numpy(self.table.values.astype(np.float32) * unit))
        users = np.maximum(self.table.users, np.finfo(np.float32).tiny)
        for name, array in (
            ("element", self.table.element),
            ("value", self.table.value),
            ("factor", self.table.factor),
            ("users", users.astype(np.float32)),
        ):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def forward(self) -> Tensor:
        """Weights [out, in / groups, kh, kw] of today's values."""
        rounded = self.rounding(self.values / self.unit) * self.unit
        size = int(np.prod(self.table.shape))
        buffers = [self.get_buffer(name) for name in ("element", "value", "factor", "users")]
        weights = _Decode.apply(rounded, size, *buffers)
        assert isinstance(weights, Tensor)
        return weights.reshape(self.table.shape)

    @torch.no_grad()
    def limit(self) -> None:
        """Keep the values to what 8 bits can hold, after a step."""
        self.values.clamp_(-DENSE_LEVELS * self.unit, DENSE_LEVELS * self.unit)

    def codes(self) -> NDArray[np.int8]:
        """Values in steps of 8 bits, as they are programmed; int8 [values]."""
        steps = (self.values.detach() / self.unit).clamp(-DENSE_LEVELS, DENSE_LEVELS).round()
        return steps.cpu().numpy().astype(np.int8)


class DenseWeights(nn.Module):
    """Weights of a layer that runs dense, rounded to 8 bits of today's largest."""

    def __init__(
        self,
        weight: NDArray[np.float32],
        noise: CellNoise | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(weight.copy()))
        self.rounding = _Rounding(noise, generator)

    def forward(self) -> Tensor:
        """Weights [out, in / groups, kh, kw]."""
        unit = self.weight.detach().abs().max().clamp_min(1e-30) / DENSE_LEVELS
        return self.rounding(self.weight / unit) * unit


class PulledWeights(nn.Module):
    """All weights of a layer, and the penalties of the published recipe.

    docs/specification/algorithm.md, Moments and fine-tuning, has them from the paper.

    With S the projection of the weights (kept patterns rounded to 8 bits, the others their target's
    times the scale, refreshed each epoch), P the mask, and M = 1 / scale of the pattern (1 where
    kept, 2^-8 where dropped)::

        penalty = 0.001 * 0.5 * |W - P W|^2 + 0.001 * |M (W - S)|^2

    The identical rules have no penalty, as published, and schemes without reuse have its first term
    (ours: the paper trains them no further).

    Attributes
    ----------
    weight
        Parameter float32 [out, in / groups, kh, kw].
    """

    def __init__(self, weight: NDArray[np.float32], mapping: LayerMapping, factor: float) -> None:
        super().__init__()
        self.table = PatternTable.of(mapping)
        source = self.table.sources()
        if source is None:
            raise ValueError(f"mapping must take its patterns from the weights: {mapping.scheme}")
        self.factor = factor
        self.masked = "identical" not in mapping.scheme
        self.scaled = mapping.scheme in ("similar", "prap")
        self.weight = nn.Parameter(torch.from_numpy(weight.copy()))
        mask = np.zeros(weight.size, np.float32)
        mask[self.table.element] = 1
        for name, array in (
            ("source", source),
            ("element", self.table.element),
            ("value", self.table.value),
            ("scale", self.table.factor),
            ("mask", mask.reshape(weight.shape)),
            ("pull", _pull(mapping)),
        ):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)
        self.register_buffer("target", torch.zeros(weight.shape), persistent=True)
        self.refresh()

    def forward(self) -> Tensor:
        """Weights [out, in / groups, kh, kw]."""
        return self.weight

    @property
    def unit(self) -> float:
        """Real value of one step of a kept pattern today: the largest weight is 127."""
        return float(self.weight.detach().abs().max()) / DENSE_LEVELS or 1.0

    def steps(self) -> Tensor:
        """Kept patterns of today in steps of 8 bits, float32 [values]."""
        flat = self.weight.detach().flatten()[self.get_buffer("source")]
        return (flat / self.unit).clamp(-DENSE_LEVELS, DENSE_LEVELS).round()

    def codes(self) -> NDArray[np.int8]:
        """Kept patterns in steps of 8 bits, as they are programmed."""
        return self.steps().cpu().numpy().astype(np.int8)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take S from the weights of today."""
        values = self.steps() * self.unit
        flat = torch.zeros_like(self.get_buffer("target")).flatten()
        element, value = self.get_buffer("element"), self.get_buffer("value")
        flat.index_add_(0, element, self.get_buffer("scale") * values[value])
        self.get_buffer("target").copy_(flat.reshape(self.weight.shape))

    @torch.no_grad()
    def project(self) -> None:
        """Put the weights onto S, until rounding no longer moves the largest."""
        for _ in range(8):
            self.refresh()
            if torch.equal(self.weight, self.get_buffer("target")):
                break
            self.weight.copy_(self.get_buffer("target"))

    def penalty(self) -> Tensor:
        """Both terms of the penalty for the weights of today."""
        mask, target = self.get_buffer("mask"), self.get_buffer("target")
        result = self.weight.new_zeros(())
        if self.masked:
            result = result + 0.5 * (self.weight - mask * self.weight).square().sum()
        if self.scaled:
            result = result + (self.get_buffer("pull") * (self.weight - target)).square().sum()
        return self.factor * result


def _pull(mapping: LayerMapping) -> NDArray[np.float32]:
    """M of every weight of a layer, [out, in / groups, 1, 1], by its pattern."""
    parts = []
    for reuse in mapping.reuse:
        inverse = np.exp2(-reuse.exponent.astype(np.float64))
        pull = np.where(reuse.target < 0, 2.0**-8, np.minimum(inverse, LARGEST_PULL))
        # One row to a group of input channels.
        parts.append(np.repeat(pull, reuse.channels, axis=0)[: mapping.weight_q8.shape[1]].T)
    if not parts:
        return np.ones((1, 1, 1, 1), np.float32)
    return np.concatenate(parts).astype(np.float32)[:, :, None, None]
