"""What all schemes share: settings, mappings, the table of schemes, and how mappings are built.

A scheme is a function (weight, groups, setting, ou_rows) -> :class:`LayerMapping` in a module of
this package, entered in :data:`SCHEMES` with :func:`register`. Whatever the scheme, a mapping is a
list of :class:`PatternGroup` that one controller can run: kept patterns on shapes, and for each
output of the group ``terms`` reuse words. Summed over the groups, they are the effective weights
``weight_q8``, exactly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.prune import check_share
from refmodel.compression.reuse import DENSE_LEVELS, FRACTION, ReuseMap, weight_scale
from refmodel.config import FRACTION_BITS, MAX_SHIFT, MOST_OUS_PER_PATTERN
from refmodel.errors import InputError

Weight = NDArray[np.float32] | NDArray[np.int8]
"""Weights [out, in / groups, kh, kw]: real, or 8-bit integers that are not quantised again."""

MAX_TERMS = 4
"""Reuse words to an output in a group, at most."""

WIDE_CONNECTED = 512
"""Inputs from which a fully connected layer is pruned as VGG16's hidden ones are."""


@dataclass(frozen=True, kw_only=True)
class LayerSetting:
    """How one layer is pruned.

    Attributes
    ----------
    scheme
        A name in :data:`SCHEMES`.
    channels
        C_g, input channels in a group, 1 to 4096. Not used by dense, structured and orc.
    positions
        V, kept positions of the kernel, 1 to 4096. Used by prap and shape, and not for 1x1 kernels
        and fully connected layers, which keep as many channels of a group as an operation unit has
        rows.
    keep
        What the scheme keeps, 0 to 1: prap, similar: share of a group's weight patterns; identical,
        structured+identical: the threshold, a place in the order of norms; orc: share of an
        output's weights; structured: share of the input channels; shape: the share of the weights
        that C_g and V come to, of which only matters whether it is 1. 1 means that the scheme is
        not applied: the layer runs dense.
    structure_keep
        structured+identical: share of the input channels that is kept, 0 to 1; 1 keeps all. The
        others do not use it.
    recover
        Whether weights that are a reuse map already, as fine-tuning leaves them, keep that map.
        Rules 3, 6 and 7, applied to them again, would choose another (see
        :mod:`refmodel.compression.patterned`). Used by prap and similar.
    patterns
        dictionary: K, patterns learnt for a group, 0 to 4096, where there are as many outputs. 0:
        the share ``keep`` of the outputs.
    terms
        dictionary: T, patterns that an output is the sum of at most, 1 to 4.
    rounds
        dictionary: alternations of coding and patterns, 0 to 1000.
    signed
        similar, prap: whether scales may be negative, which is free in hardware; published ones
        are not. The map of fine-tuned weights is looked for without signs first.
    """

    scheme: str = "dense"
    channels: int = 1
    positions: int = 8
    keep: float = 1.0
    structure_keep: float = 1.0
    recover: bool = True
    patterns: int = 0
    terms: int = 3
    rounds: int = 25
    signed: bool = False

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, not {self.scheme!r}")
        limits = {"channels": (1, 4096), "positions": (1, 4096), "patterns": (0, 4096)}
        for name, (least, most) in (
            limits | {"terms": (1, MAX_TERMS), "rounds": (0, 1000)}
        ).items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, not {value!r}")
            if not least <= value <= most:
                raise ValueError(f"{name} must be {least} to {most}, not {value!r}")
        check_share("keep", self.keep)
        check_share("structure_keep", self.structure_keep)
        for name in ("recover", "signed"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be a bool, not {value!r}")


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
        Input channels in the group; the last group of a layer may have fewer than the others.
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
        int64 [out, in / groups, kh, kw]: effective weights times 256, in units of the weight scale
        (:func:`weight_unit`) times ``output_scale``.
    kept, reused, dropped
        Weight patterns that are programmed, taken from another output, or zero. What structured and
        orc prune is no pattern: it is in none of the three.
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
    weight_q8: NDArray[np.int64]
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
        unit = np.full(len(self.weight_q8), weight_unit(weight))
        return unit if self.output_scale is None else unit * self.output_scale

    def effective(self, weight: Weight) -> NDArray[np.float64]:
        """Effective weights in the units of ``weight``, the layer's weights."""
        scales = np.ldexp(self.scales(weight), -FRACTION_BITS)
        return self.weight_q8.astype(np.float64) * scales[:, None, None, None]

    @property
    def patterns(self) -> int:
        """All weight patterns of the layer."""
        return self.kept + self.reused + self.dropped

    @property
    def reuse_ratio(self) -> float:
        """Share of the patterns that are not kept, dropped ones included."""
        return (self.reused + self.dropped) / self.patterns if self.patterns else 0.0


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """What a scheme's default setting depends on.

    Attributes
    ----------
    outputs, inputs
        Channels of one group of the convolution.
    kernel
        Positions of the kernel.
    fully_connected
        Whether the layer is a matrix product, not a 1x1 convolution.
    ou_rows
        R, rows of an operation unit.
    """

    outputs: int
    inputs: int
    kernel: int
    fully_connected: bool
    ou_rows: int

    def holds_whole(self, channels: int) -> bool:
        """Whether an engine adds up patterns of all rows of a group of so many channels."""
        return channels * self.kernel <= MOST_OUS_PER_PATTERN * self.ou_rows


@dataclass(frozen=True, kw_only=True, eq=False)
class InputStatistics:
    """Covariances of what a layer multiplies its weights with, over images and positions.

    Attributes
    ----------
    channels
        Input channels in a block; the last block of each group of the convolution has what is left.
    blocks
        One float64 [rows, rows] to a block: rows by channel, then position of the kernel.
    """

    channels: int
    blocks: tuple[NDArray[np.float64], ...]


SchemeFunction = Callable[[Weight, int, LayerSetting, int], LayerMapping]
LearnFunction = Callable[[Weight, int, LayerSetting, int, InputStatistics | None], LayerMapping]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A scheme.

    Attributes
    ----------
    name
        Its name.
    map
        Maps a layer: (weight, groups, setting, ou_rows) -> mapping.
    default
        Setting of a layer that nobody tuned.
    applies
        Whether a setting applies the scheme at all; otherwise the layer runs dense.
    learner
        For schemes that learn patterns: as ``map``, but to be given each output's weights times its
        gain, and what is known of the layer's inputs.
    """

    name: str
    map: SchemeFunction
    default: Callable[[LayerSize], LayerSetting]
    applies: Callable[[LayerSetting], bool]
    learner: LearnFunction | None = None


_schemes: dict[str, Scheme] = {}

SCHEMES: Mapping[str, Scheme] = MappingProxyType(_schemes)
"""Schemes by name."""


def keeps_less(setting: LayerSetting) -> bool:
    """Whether a setting keeps less than everything."""
    return setting.keep < 1


def register(
    name: str,
    default: Callable[[LayerSize], LayerSetting],
    applies: Callable[[LayerSetting], bool] = keeps_less,
    *,
    learner: LearnFunction | None = None,
) -> Callable[[SchemeFunction], SchemeFunction]:
    """Enter the function that follows in :data:`SCHEMES`."""

    def enter(function: SchemeFunction) -> SchemeFunction:
        _schemes[name] = Scheme(
            name=name, map=function, default=default, applies=applies, learner=learner
        )
        return function

    return enter


def weight_unit(weight: Weight) -> float:
    """Real value of one step of a layer's 8-bit weights: max(max W, -min W) / 127; 1 for int8."""
    return 1.0 if weight.dtype == np.int8 else weight_scale(real(weight), DENSE_LEVELS)


def fold_gain(weight: Weight, gain: NDArray[np.float64]) -> tuple[Weight, NDArray[np.float64]]:
    """Multiply each output's weights by the magnitude of its gain.

    Returns
    -------
    float32 [out, ...]
        The products over the largest of them in magnitude; zeros where the gain is 0.
    float64 [out]
        What is to be multiplied with a mapping's ``output_scale``, which is for these weights, so
        that it is for ``weight``.
    """
    magnitude = np.abs(np.asarray(gain, np.float64))
    folded = weight.astype(np.float64) * magnitude[:, None, None, None]
    largest = float(np.abs(folded).max())
    if not 0 < largest < np.inf:  # nothing to weigh: all zero, or refused when compiled
        return weight, np.ones(len(weight))
    result = (folded / largest).astype(np.float32)
    unit = weight_unit(result) * largest / weight_unit(weight)
    return result, unit / np.where(magnitude > 0, magnitude, unit)


def real(weight: Weight) -> NDArray[np.float32]:
    """Weights as float32, which pruning ranks."""
    return weight.astype(np.float32, copy=False)


def dense_ous(weight: Weight, ou_rows: int) -> int:
    """Operation units of the dense mapping, one weight pattern in each."""
    return -(-weight[0].size // ou_rows) * weight.shape[0]


def conv_groups(outputs: int, groups: int) -> list[slice]:
    """Outputs of each group of a convolution."""
    count = outputs // groups
    return [slice(group * count, (group + 1) * count) for group in range(groups)]


def eight_bit(codes: NDArray[np.int16]) -> NDArray[np.int8]:
    """Weights in 8 bits of codes with 8 fraction bits: rint(code / 256), halves to even."""
    return np.rint(codes / np.float32(FRACTION)).astype(np.int8)


def plain_mapping(
    scheme: str,
    weight: Weight,
    codes: NDArray[np.int16],
    parts: list[PatternGroup],
    mask: NDArray[np.uint8] | None,
    ou_rows: int,
) -> LayerMapping:
    """Make a mapping without reuse: every output has its own pattern in each group.

    Parameters
    ----------
    scheme
        Name of the scheme.
    weight
        Weights of the layer.
    codes
        Effective weights in units of the weight scale: zero off the mask.
    parts
        Pattern groups, without reuse words.
    mask
        1 where a weight is kept; None for ones everywhere.
    ou_rows
        R, rows of an operation unit.
    """
    return LayerMapping(
        scheme=scheme,
        terms=1,
        identity=True,
        full_offsets=True,
        groups=tuple(parts),
        weight_q8=codes.astype(np.int64) << FRACTION_BITS,
        kept=sum(pattern.kept for pattern in parts),
        reused=0,
        dropped=0,
        ous_dense=dense_ous(weight, ou_rows),
        mask=mask,
    )


def reuse_mapping(
    scheme: str,
    weight: Weight,
    steps: NDArray[np.int8],
    maps: list[ReuseMap],
    ou_rows: int,
) -> LayerMapping:
    """Make a mapping of the reuse maps of each group of a convolution.

    Kept patterns of a group are numbered by shape, then in the order of the map; shapes by their
    first pattern.

    Parameters
    ----------
    scheme
        Name of the scheme.
    weight
        Weights of the layer.
    steps
        The same in 8 bits, in units of the weight scale.
    maps
        One reuse map for each group of the convolution.
    ou_rows
        R, rows of an operation unit.
    """
    weight_q8 = np.empty(weight.shape, np.int64)
    parts: list[PatternGroup] = []
    for group, (part, reuse) in enumerate(
        zip(conv_groups(len(weight), len(maps)), maps, strict=True)
    ):
        found = pattern_groups(
            steps[part],
            reuse,
            weight_q8[part],
            channel=group * weight.shape[1],
            output=part.start,
        )
        # Where nothing is kept at all, the first group stands for the outputs.
        parts.extend([pattern for pattern in found if pattern.kept] or found[:1])
    return LayerMapping(
        scheme=scheme,
        terms=1,
        identity=False,
        full_offsets=not all(_whole_channels(reuse) for reuse in maps),
        groups=tuple(parts),
        weight_q8=weight_q8,
        kept=sum(reuse.kept for reuse in maps),
        reused=sum(reuse.reused for reuse in maps),
        dropped=sum(reuse.dropped for reuse in maps),
        ous_dense=dense_ous(weight, ou_rows),
        mask=np.concatenate([reuse.mask for reuse in maps]) if len(maps) > 1 else maps[0].mask,
        reuse=tuple(maps),
    )


def pattern_groups(
    steps: NDArray[np.int8],
    reuse: ReuseMap,
    weight_q8: NDArray[np.int64],
    *,
    channel: int,
    output: int,
) -> list[PatternGroup]:
    """Make the pattern groups of a reuse map, and fill ``weight_q8`` with the effective weights.

    ``steps`` are the weights in 8 bits; those off the map's mask do not matter.
    """
    outputs, inputs, height, width = steps.shape
    if reuse.exponent.max() > MAX_SHIFT:
        raise InputError(
            f"expected shifts of at most {MAX_SHIFT}, found {reuse.exponent.max()} in a layer with "
            f"groups of {reuse.channels} channels: use smaller groups"
        )
    masked = steps * reuse.mask.view(np.int8)
    result = []
    for index in range(len(reuse.target)):
        start = index * reuse.channels
        part = slice(start, min(start + reuse.channels, inputs))
        count = part.stop - start
        # Rows by position, then channel.
        rows = masked[:, part].transpose(2, 3, 1, 0).reshape(-1, outputs)
        shape_rows = reuse.mask[:, part].transpose(2, 3, 1, 0).reshape(-1, outputs)
        target, exponent = reuse.target[index], reuse.exponent[index]
        used = target >= 0
        scaled = rows[:, target].astype(np.int64) << (exponent + np.int64(FRACTION_BITS))
        sign = np.ones(outputs, np.int8) if reuse.sign is None else reuse.sign[index]
        scaled *= used * sign
        weight_q8[:, part] = scaled.reshape(height, width, count, outputs).transpose(3, 2, 0, 1)

        kept = reuse.order[index, : reuse.kept_count[index]]
        numbers: dict[bytes, int] = {}
        columns = np.ascontiguousarray(shape_rows[:, kept].T)
        shape_of = np.array(
            [numbers.setdefault(column.tobytes(), len(numbers)) for column in columns], np.int32
        )
        by_shape = np.argsort(shape_of, kind="stable")
        kept, shape_of = kept[by_shape], shape_of[by_shape]
        shapes = [np.flatnonzero(np.frombuffer(name, np.uint8)) for name in numbers]
        values = np.zeros((len(kept), max((len(shape) for shape in shapes), default=0)), np.int8)
        for number, shape in enumerate(shapes):
            mine = shape_of == number
            values[mine, : len(shape)] = rows[np.ix_(shape, kept[mine])].T
        place = np.full(outputs, -1, np.int32)
        place[kept] = np.arange(len(kept))
        result.append(
            PatternGroup(
                channel=channel + start,
                channels=count,
                first_output=output,
                outputs=outputs,
                shapes=tuple(
                    np.stack(np.divmod(shape, count), axis=1).astype(np.int32) for shape in shapes
                ),
                shape_of=shape_of,
                values=values,
                slot=np.where(used, place[target], -1).astype(np.int32)[:, None],
                shift=exponent[:, None].copy(),
                sign=sign[:, None].copy(),
            )
        )
    return result


def _whole_channels(reuse: ReuseMap) -> bool:
    """Whether every shape keeps the same positions in all channels of its group."""
    inputs = reuse.mask.shape[1]
    first = np.arange(inputs) // reuse.channels * reuse.channels
    return bool((reuse.mask == reuse.mask[:, first]).all())
