"""A mapped layer as one flat list of pattern values, and which weights are made of which.

Whatever the scheme, an effective weight is a sum of values of kept patterns, each times a signed
power of two (:class:`refmodel.compression.schemes.base.mapping.PatternGroup`)::

    weight_q8[element] / 256 = sum over its entries of factor * values[value]

Training needs that sum forwards, with the values of today, and backwards, where a value gathers the
gradients of all weights that use it.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.schemes import LayerMapping
from refmodel.compression.schemes.base import PatternGroup
from refmodel.config import FRACTION_BITS


@dataclass(frozen=True, kw_only=True, eq=False)
class PatternTable:
    """The values of all kept patterns of a layer, and the entries that make weights of them.

    Attributes
    ----------
    mapping
        The mapping that it was made from.
    shape
        Shape of the layer's weights, (out, in / groups, kh, kw).
    values
        int8 [values]: pattern after pattern, each in the order of its shape's rows.
    element
        int64 [entries]: flat place in the weights.
    value
        int64 [entries]: place in ``values``.
    factor
        float32 [entries]: +-2^k.
    """

    mapping: LayerMapping
    shape: tuple[int, ...]
    values: NDArray[np.int8]
    element: NDArray[np.int64]
    value: NDArray[np.int64]
    factor: NDArray[np.float32]

    @classmethod
    def of(cls, mapping: LayerMapping) -> "PatternTable":
        """List the values and entries of a mapping; not of one that runs dense."""
        shape = mapping.weight_q8.shape
        parts = [_group_entries(group, shape) for group in mapping.groups]
        sizes = np.array([len(part[0]) for part in parts], np.int64)
        starts = np.cumsum(sizes) - sizes
        none = np.zeros(0, np.int64)  # of a layer of which nothing is kept
        places = [part[2] + start for part, start in zip(parts, starts, strict=True)]
        table = cls(
            mapping=mapping,
            shape=shape,
            values=np.concatenate([none.astype(np.int8), *(part[0] for part in parts)]),
            element=np.concatenate([none, *(part[1] for part in parts)]),
            value=np.concatenate([none, *places]),
            factor=np.concatenate([none.astype(np.float32), *(part[3] for part in parts)]),
        )
        if (table.decode(table.values) != mapping.weight_q8).any():
            raise ValueError(
                f"mapping must have the weights of its groups, scheme {mapping.scheme}"
            )
        return table

    @property
    def users(self) -> NDArray[np.float64]:
        """Sum of the squared factors with which each value is used, float64 [values]."""
        squares = np.square(self.factor.astype(np.float64))
        return np.bincount(self.value, squares, minlength=len(self.values)).astype(np.float64)

    def decode(self, values: NDArray[np.int8]) -> NDArray[np.int64]:
        """Effective weights times 256 of other values, int64 [out, in / groups, kh, kw]."""
        factor = np.rint(np.ldexp(self.factor.astype(np.float64), FRACTION_BITS))
        parts = factor * values[self.value]
        flat = np.bincount(self.element, parts, minlength=int(np.prod(self.shape)))
        return np.rint(flat).astype(np.int64).reshape(self.shape)

    def sources(self) -> NDArray[np.int64] | None:
        """Which weight each value was taken from, int64 [values]; None of a learnt dictionary.

        It is the element that uses the value as it is and whose output the pattern is of: in
        a reuse map the kept output itself, otherwise the only one that uses the value.
        """
        if self.mapping.scheme == "dictionary":
            return None
        outputs = self.element // int(np.prod(self.shape[1:]))
        own = np.ones(len(self.element), bool)
        if self.mapping.reuse:
            kept = _kept_outputs(self.mapping)
            own = kept[outputs, self._group_of_entry()]
        result = np.full(len(self.values), -1, np.int64)
        result[self.value[own]] = self.element[own]
        return result if (result >= 0).all() else None

    def _group_of_entry(self) -> NDArray[np.int64]:
        """Group of input channels of each entry, in a reuse map."""
        channels = self.mapping.reuse[0].channels
        per_channel = self.shape[2] * self.shape[3]
        return self.element // per_channel % self.shape[1] // channels

    def with_values(self, values: NDArray[np.int8]) -> LayerMapping:
        """Make the mapping of other values, int8 [values]; its output scale is that of before."""
        groups, start = [], 0
        for group in self.mapping.groups:
            new = np.zeros_like(group.values)
            for pattern, shape in enumerate(group.shape_of):
                rows = len(group.shapes[shape])
                new[pattern, :rows] = values[start : start + rows]
                start += rows
            groups.append(replace(group, values=new))
        return replace(self.mapping, groups=tuple(groups), weight_q8=self.decode(values))


def _kept_outputs(mapping: LayerMapping) -> NDArray[np.bool_]:
    """Which outputs are kept in which group of input channels, bool [out, groups]."""
    parts = []
    for reuse in mapping.reuse:
        outputs = np.arange(reuse.target.shape[1])
        kept = reuse.target == outputs
        if reuse.skipped is not None:
            kept &= ~reuse.skipped[:, None]
        parts.append(kept.T)
    return np.concatenate(parts)


def _group_entries(
    group: PatternGroup, shape: tuple[int, ...]
) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Values of a group, and element, value and factor of each entry."""
    _, inputs, height, width = shape
    kernel = height * width
    lengths = np.array([len(group.shapes[number]) for number in group.shape_of], np.int64)
    first = np.cumsum(lengths) - lengths
    values = np.concatenate(
        [group.values[j, :length] for j, length in enumerate(lengths)] or [np.zeros(0, np.int8)]
    )
    if group.slot is None:
        output, slot = np.arange(group.kept), np.arange(group.kept)
        factor = np.ones(group.kept)
    else:
        assert group.shift is not None
        assert group.sign is not None
        output, term = np.nonzero(group.slot >= 0)
        slot = group.slot[output, term].astype(np.int64)
        factor = group.sign[output, term] * np.exp2(group.shift[output, term].astype(np.float64))
    # Place of each value of a pattern in the weights of an output.
    places = [
        (group.channel % inputs + rows[:, 1].astype(np.int64)) * kernel + rows[:, 0]
        for rows in group.shapes
    ]
    place_of_value = np.concatenate(
        [places[number] for number in group.shape_of] or [np.zeros(0, np.int64)]
    )
    count = lengths[slot]
    word = np.repeat(np.arange(len(slot)), count)
    within = np.arange(len(word)) - np.repeat(np.cumsum(count) - count, count)
    value = first[slot[word]] + within
    element = (group.first_output + output[word]) * (inputs * kernel) + place_of_value[value]
    return values, element, value, factor[word].astype(np.float32)
