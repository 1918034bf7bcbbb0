"""A layer as a scheme maps it: kept patterns on shapes, and who reuses them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.reuse import DENSE_LEVELS, ReuseMap, weight_scale
from refmodel.config import FRACTION_BITS

Weight = NDArray[np.float32] | NDArray[np.int8]
"""Weights [out, in / groups, kh, kw]: real, or 8-bit integers that are not quantised again."""

RUN_WEIGHTS = 1 << 21
"""Effective weights that are worked on at once, about: bounds the memory for large layers."""

MAX_TERMS = 4
"""Reuse words to an output in a group, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PatternGroup:
    """Kept patterns of one group of input channels, and who uses them.

    The weights that output o gets from the group are, for each of its terms with a slot,
    sign * 2^shift * values[slot] on the rows of that pattern's shape.

    Attributes
    ----------
    channel
        First input channel of the group, counted over the whole input, also in a grouped
        convolution.
    channels
        Input channels in the group; the last group of a layer may have fewer than the others. They
        may be those of several groups of the convolution, whose outputs the group then touches: a
        pattern is 0 on the rows of all channels that its output does not see.
    first_output, outputs
        The outputs that the group touches.
    shapes
        For each shape int32 [rows, 2]: kernel position (row * width + column) and channel counted
        from ``channel``; by position, then channel.
    shape_of
        int32 [kept]: index in ``shapes``, ascending.
    values
        int8 [kept, most rows]: weights in the order of the shape's rows, filled up with zeros.
    slot
        int32 [outputs, terms]: kept pattern, -1 for none. None in an identity mapping, where
        output ``first_output + j`` takes pattern j as it is.
    shift
        int8 [outputs, terms]: k of the power of two, 0 where there is no pattern; or None.
    sign
        int8 [outputs, terms]: 1 or -1; or None.
    """

    channel: int
    channels: int
    first_output: int
    outputs: int
    shapes: tuple[NDArray[np.int32], ...]
    shape_of: NDArray[np.int32]
    values: NDArray[np.int8]
    slot: NDArray[np.int32] | None = None
    shift: NDArray[np.int8] | None = None
    sign: NDArray[np.int8] | None = None

    @property
    def kept(self) -> int:
        """Kept patterns."""
        return len(self.shape_of)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerMapping:
    """A layer as weight patterns.

    Attributes
    ----------
    scheme
        The scheme that was applied: "dense" where the setting says keep 1.
    terms
        Reuse words to an output in each group.
    identity
        Whether the groups have no reuse words: every output has its own pattern in each.
    full_offsets
        Whether the shapes are arbitrary lists of (position, channel), as those of dense layers and
        of 1x1 kernels that keep some channels of a group are. Otherwise each is a set of positions
        in all channels of its group.
    groups
        Pattern groups, by output, then channel. Groups without a kept pattern are left out, but
        each group of a grouped convolution has at least one: where nothing is kept in any, its
        first has no patterns, no shapes, and no slot in its reuse words.
    weight_q8
        Integers [out, in / groups, kh, kw]: effective weights times 256, in units of the weight
        scale (:func:`weight_unit`) times ``output_scale``.
    kept, reused, dropped
        Weight patterns that are programmed, taken from another output, or zero. Weights that
        structured and orc prune are no patterns: they are in none of the three.
    ous_dense
        Operation units of the same layer mapped densely, one weight pattern beside the other.
    mask
        uint8 [out, in / groups, kh, kw]: 1 where a weight is on the shape of its pattern; reused
        patterns have the shape of their target, dropped ones none. None stands for ones everywhere.
    reuse
        Reuse map of each group of the convolution; empty for schemes without reuse.
    output_scale
        float64 [out]: what requantisation multiplies each output by beside the weight scale.
        None stands for ones everywhere.
    """

    scheme: str
    terms: int
    identity: bool
    full_offsets: bool
    groups: tuple[PatternGroup, ...]
    weight_q8: NDArray[np.int32] | NDArray[np.int64]
    kept: int
    reused: int
    dropped: int
    ous_dense: int
    mask: NDArray[np.uint8] | None = None
    reuse: tuple[ReuseMap, ...] = ()
    output_scale: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.mask is None:
            ones = np.broadcast_to(np.ones((), np.uint8), self.weight_q8.shape)
            object.__setattr__(self, "mask", ones)

    def scales(self, weight: Weight) -> NDArray[np.float64]:
        """Real value of one unit of each output's effective weights, for the layer's weights."""
        unit = np.full(self.shape[0], weight_unit(weight))
        return unit if self.output_scale is None else unit * self.output_scale

    def effective(self, weight: Weight) -> NDArray[np.float64]:
        """Effective weights in the units of ``weight``, the layer's weights."""
        scales = np.ldexp(self.scales(weight), -FRACTION_BITS)
        return self.weight_q8.astype(np.float64) * scales[:, None, None, None]

    def effective_rows(self, first: int, last: int) -> NDArray[np.integer]:
        """Effective weights times 256 of some outputs, as ``weight_q8`` has them: a view of it."""
        return self.weight_q8[first:last]

    def times(self, scale: NDArray[np.float64]) -> "LayerMapping":
        """Multiply the ``output_scale`` of each output."""
        before = self.output_scale
        return replace(self, output_scale=scale if before is None else before * scale)

    def output_runs(self) -> Iterator[tuple[int, int]]:
        """Cut the outputs into runs, first and end, of about :data:`RUN_WEIGHTS` weights each."""
        outputs, *each = self.shape
        step = max(1, RUN_WEIGHTS // prod(each))
        for first in range(0, outputs, step):
            yield first, min(first + step, outputs)

    def sums(self) -> NDArray[np.int64]:
        """Sums of the effective weights times 256, int64 [out, 2]: positive and negative ones."""
        result = np.zeros((self.shape[0], 2), np.int64)
        for first, last in self.output_runs():
            rows = self.effective_rows(first, last).reshape(last - first, -1)
            result[first:last, 0] = np.maximum(rows, 0).sum(1, dtype=np.int64)
            result[first:last, 1] = np.minimum(rows, 0).sum(1, dtype=np.int64)
        return result

    def effective32(self, weight: Weight) -> NDArray[np.float32]:
        """:meth:`effective`, rounded to float32, some outputs at a time."""
        result = np.empty(self.shape, np.float32)
        scales = np.ldexp(self.scales(weight), -FRACTION_BITS)[:, None, None, None]
        for first, last in self.output_runs():
            rows = self.effective_rows(first, last).astype(np.float64)
            result[first:last] = rows * scales[first:last]
        return result

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the layer's weights."""
        return self.weight_q8.shape

    @property
    def patterns(self) -> int:
        """All weight patterns of the layer."""
        return self.kept + self.reused + self.dropped

    @property
    def reuse_ratio(self) -> float:
        """Share of the patterns that are not kept, dropped ones included."""
        return (self.reused + self.dropped) / self.patterns if self.patterns else 0.0


def group_weights(
    groups: Sequence[PatternGroup],
    shape: Sequence[int],
    first: int = 0,
    last: int | None = None,
    kind: type[np.integer] = np.int64,
) -> NDArray[np.integer]:
    """Effective weights times 256 that pattern groups give.

    Parameters
    ----------
    groups
        They are taken to fit the layer.
    shape
        Shape of the layer's weights, [out, in / groups, kh, kw].
    first, last
        Outputs, from ``first`` to before ``last``; None: to the end.
    kind
        Type of the result.
    """
    outputs, inputs, height, width = shape
    last = outputs if last is None else last
    kernel = height * width
    # What fills up a pattern's rows goes into a column behind the weights.
    flat = np.zeros((last - first, inputs * kernel + 1), kind)
    for group in groups:
        low = max(first, group.first_output)
        high = min(last, group.first_output + group.outputs)
        if not group.kept or low >= high:
            continue
        own = slice(low - group.first_output, high - group.first_output)
        lengths = np.array([len(each) for each in group.shapes])
        rows = np.concatenate(group.shapes).astype(np.int64)
        begin = group.channel % inputs
        places = np.full((len(lengths), int(lengths.max())), inputs * kernel)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        # Where a group goes over several groups of a convolution, a pattern is 0 on the rows of
        # all but its output's, and rows of each fall on the same places.
        several = group.channels > inputs
        places[owner, within] = (begin + rows[:, 1]) % inputs * kernel + rows[:, 0]
        block = np.arange(low - first, high - first)[:, None]
        values = group.values.astype(kind)
        if group.slot is None or group.shift is None or group.sign is None:
            flat[block, places[group.shape_of[own]]] += values[own] << FRACTION_BITS
            continue
        words = (each[own].T for each in (group.slot, group.shift, group.sign))
        for slot, shift, sign in zip(*words, strict=True):
            factor = np.where(slot < 0, 0, sign.astype(kind))
            scaled = values[slot] << (shift.astype(kind) + FRACTION_BITS)[:, None]
            scaled *= factor[:, None]
            if several:
                np.add.at(flat, (block, places[group.shape_of[slot]]), scaled)
            else:
                flat[block, places[group.shape_of[slot]]] += scaled
    return flat[:, :-1].reshape(last - first, inputs, height, width)


class CompactMapping(LayerMapping):
    """A mapping without the arrays that are as large as the weights.

    Effective weights are worked out from the groups where they are asked for; ``mask`` is ones,
    and ``reuse`` empty.
    """

    def __init__(self, shape: Sequence[int] | None = None, **fields: Any) -> None:
        # A copy with some fields changed has its weights.
        held = fields["weight_q8"].shape if shape is None else shape
        fields = {"output_scale": None} | fields
        for name in COMPACT_FIELDS:
            object.__setattr__(self, name, fields[name])
        object.__setattr__(self, "_shape", tuple(held))
        object.__setattr__(self, "reuse", ())

    _shape: tuple[int, ...]

    @classmethod
    def of(cls, mapping: LayerMapping) -> "CompactMapping":
        """Leave the large arrays of a mapping out."""
        if isinstance(mapping, CompactMapping):
            return mapping
        return cls(mapping.shape, **{name: getattr(mapping, name) for name in COMPACT_FIELDS})

    def times(self, scale: NDArray[np.float64]) -> "CompactMapping":
        """Multiply the ``output_scale`` of each output."""
        fields = {name: getattr(self, name) for name in COMPACT_FIELDS}
        before = self.output_scale
        fields["output_scale"] = scale if before is None else before * scale
        return CompactMapping(self._shape, **fields)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the layer's weights."""
        return self._shape

    @property
    def mask(self) -> NDArray[np.uint8]:  # pyright: ignore
        """Ones."""
        return np.broadcast_to(np.ones((), np.uint8), self._shape)

    @property
    def weight_q8(self) -> NDArray[np.integer]:  # pyright: ignore
        """Effective weights times 256, worked out anew."""
        return self.effective_rows(0, self._shape[0])

    def effective_rows(self, first: int, last: int) -> NDArray[np.integer]:
        """Effective weights times 256 of some outputs, worked out anew."""
        return group_weights(self.groups, self._shape, first, last, np.int32)


COMPACT_FIELDS = (
    "scheme", "terms", "identity", "full_offsets", "groups", "kept", "reused", "dropped",
    "ous_dense", "output_scale",
)  # fmt: skip
"""Fields that a compact mapping has from a mapping."""


def weight_unit(weight: Weight) -> float:
    """Real value of one step of a layer's 8-bit weights: max(max W, -min W) / 127; 1 for int8."""
    return (
        1.0
        if weight.dtype == np.int8
        else weight_scale(weight.astype(np.float32, copy=False), DENSE_LEVELS)
    )
