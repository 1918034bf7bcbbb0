"""Schemes: from the float weights of a layer to weight patterns and reuse words.

A scheme is a function (weight, groups, setting, ou_rows) -> :class:`LayerMapping`, entered in
:data:`SCHEMES` under its name. Whatever the scheme, a mapping is a list of :class:`PatternGroup`
that one controller can run: kept patterns on shapes, and for each output of the group ``terms``
reuse words. Summed over the groups, they are the effective weights ``weight_q8``, exactly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from refmodel.config import FRACTION_BITS, MAX_SHIFT
from refmodel.errors import InputError
from refmodel.patterned import recover_map
from refmodel.prune import OU_ROWS, check_weight, shape_mask
from refmodel.reuse import (
    DENSE_LEVELS,
    FRACTION,
    SIMILAR_LEVELS,
    ReuseMap,
    prap_map,
    quantise,
)


@dataclass(frozen=True, kw_only=True)
class LayerSetting:
    """How one layer is pruned.

    Attributes
    ----------
    scheme
        A name in :data:`SCHEMES`.
    channels
        C_g, input channels in a group, 1 to 4096.
    positions
        V, kept positions of the kernel, 1 to 4096. Not used for 1x1 kernels and fully connected
        layers, which keep as many channels of a group as an operation unit has rows.
    keep
        Share of a group's weight patterns that is kept, 0 to 1. 1 means that the scheme is not
        applied: the layer runs dense.
    recover
        Whether weights that are a reuse map already, as fine-tuning leaves them, keep that map.
        Rules 3 and 7, applied to them again, would choose another (see :mod:`refmodel.patterned`).
    """

    scheme: str = "dense"
    channels: int = 1
    positions: int = 8
    keep: float = 1.0
    recover: bool = True

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, not {self.scheme!r}")
        for name in ("channels", "positions"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, not {value!r}")
            if not 1 <= value <= 4096:
                raise ValueError(f"{name} must be 1 to 4096, not {value!r}")
        if not isinstance(self.keep, int | float) or isinstance(self.keep, bool):
            raise TypeError(f"keep must be a number, not {self.keep!r}")
        if not 0 <= self.keep <= 1:
            raise ValueError(f"keep must be 0 to 1, not {self.keep!r}")
        if not isinstance(self.recover, bool):
            raise TypeError(f"recover must be a bool, not {self.recover!r}")


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
        max(max W, -min W) / 127.
    kept, reused, dropped
        Weight patterns that are programmed, taken from another output, or zero.
    ous_dense
        Operation units of the same layer mapped densely, one weight pattern beside the other.
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

    @property
    def patterns(self) -> int:
        """All weight patterns of the layer."""
        return self.kept + self.reused + self.dropped

    @property
    def reuse_ratio(self) -> float:
        """Share of the patterns that are not kept, dropped ones included."""
        return (self.reused + self.dropped) / self.patterns


def map_layer(
    weight: NDArray[np.float32],
    groups: int,
    scheme: str,
    setting: LayerSetting | None = None,
    ou_rows: int = OU_ROWS,
) -> LayerMapping:
    """Map one convolution or fully connected layer.

    Parameters
    ----------
    weight
        Finite float32 [out, in / groups, kh, kw]; kh = kw = 1 for a fully connected layer. Or int8:
        weights that are not quantised again.
    groups
        Groups of the convolution.
    scheme
        Scheme of the network. Where this or the setting's is "dense", or the setting keeps all,
        the layer runs dense; otherwise the two are the same.
    setting
        Sizes for this layer; None takes :func:`default_setting`, which cannot know the first and
        the last layer of a network here: use :func:`network_settings` for a whole one.
    ou_rows
        R, rows of an operation unit.
    """
    check_weight(weight, integers=True)
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, not {scheme!r}")
    if groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"groups must divide {weight.shape[0]} outputs, not {groups!r}")
    if ou_rows < 1:
        raise ValueError(f"ou_rows must be at least 1, not {ou_rows!r}")
    if setting is None:
        setting = default_setting(weight, groups=groups, scheme=scheme, ou_rows=ou_rows)
    if "dense" in (scheme, setting.scheme) or setting.keep >= 1:
        scheme = "dense"
    elif scheme != setting.scheme:
        raise ValueError(f"setting must be for the scheme {scheme!r}, not {setting.scheme!r}")
    return SCHEMES[scheme](weight, groups, setting, ou_rows)


def map_dense(
    weight: NDArray[np.float32], groups: int, setting: LayerSetting, ou_rows: int
) -> LayerMapping:
    """Cut the input rows into chunks of R: every output has its own pattern in each.

    Input rows are flattened over (kernel position, channel), the channel fastest.
    """
    del setting
    outputs, inputs, height, width = weight.shape
    codes = quantise(weight, DENSE_LEVELS)
    rows = height * width * inputs
    flat = codes.transpose(0, 2, 3, 1).reshape(outputs, rows).astype(np.int8)
    offsets = np.stack(np.divmod(np.arange(rows, dtype=np.int32), np.int32(inputs)), axis=1)
    per_group = outputs // groups
    parts = [
        PatternGroup(
            channel=group * inputs,
            channels=inputs,
            first_output=group * per_group,
            outputs=per_group,
            shapes=(offsets[start : start + ou_rows],),
            shape_of=np.zeros(per_group, np.int32),
            values=flat[group * per_group : (group + 1) * per_group, start : start + ou_rows],
        )
        for group in range(groups)
        for start in range(0, rows, ou_rows)
    ]
    ous = _dense_ous(weight, ou_rows)
    return LayerMapping(
        scheme="dense",
        terms=1,
        identity=True,
        full_offsets=True,
        groups=tuple(parts),
        weight_q8=codes.astype(np.int64) << FRACTION_BITS,
        kept=ous,
        reused=0,
        dropped=0,
        ous_dense=ous,
    )


def map_prap(
    weight: NDArray[np.float32], groups: int, setting: LayerSetting, ou_rows: int
) -> LayerMapping:
    """Apply shape masks (rule 3) and reuse maps (rule 7).

    Kept patterns of a group are numbered by shape, then by descending norm; shapes by the largest
    norm among their patterns. Each group of a grouped convolution is mapped on its own, with the
    layer's quantisation. With ``setting.recover``, weights that lie on patterns keep those.
    """
    codes = quantise(weight, SIMILAR_LEVELS)
    outputs = weight.shape[0] // groups
    inputs = weight.shape[1]
    weight_q8 = np.empty(weight.shape, np.int64)
    parts: list[PatternGroup] = []
    maps: list[ReuseMap] = []
    for group in range(groups):
        part = slice(group * outputs, (group + 1) * outputs)
        reuse = _choose_map(weight[part], codes[part], setting, ou_rows)
        found = _pattern_groups(
            codes[part], reuse, weight_q8[part], channel=group * inputs, output=group * outputs
        )
        # Where nothing is kept at all, the first group stands for the outputs.
        parts.extend([pattern for pattern in found if pattern.kept] or found[:1])
        maps.append(reuse)
    return LayerMapping(
        scheme="prap",
        terms=1,
        identity=False,
        full_offsets=not all(_whole_channels(reuse) for reuse in maps),
        groups=tuple(parts),
        weight_q8=weight_q8,
        kept=sum(reuse.kept for reuse in maps),
        reused=sum(reuse.reused for reuse in maps),
        dropped=sum(reuse.dropped for reuse in maps),
        ous_dense=_dense_ous(weight, ou_rows),
    )


SchemeFunction = Callable[[NDArray[np.float32], int, LayerSetting, int], LayerMapping]

SCHEMES: Mapping[str, SchemeFunction] = MappingProxyType({"dense": map_dense, "prap": map_prap})
"""Schemes by name."""


def _dense_ous(weight: NDArray[np.float32], ou_rows: int) -> int:
    """Operation units of the dense mapping, one weight pattern in each."""
    return -(-weight[0].size // ou_rows) * weight.shape[0]


def _choose_map(
    weight: NDArray[np.float32], codes: NDArray[np.int16], setting: LayerSetting, ou_rows: int
) -> ReuseMap:
    """Reuse map of one group of a convolution."""
    if setting.recover:
        recovered = recover_map(
            codes, setting.channels, setting.positions, setting.keep, rows=ou_rows
        )
        if recovered is not None:
            return recovered
    real = weight.astype(np.float32, copy=False)
    mask = shape_mask(real, setting.channels, setting.positions, rows=ou_rows)
    return prap_map(codes, mask, setting.channels, setting.keep)


def _pattern_groups(
    codes: NDArray[np.int16],
    reuse: ReuseMap,
    weight_q8: NDArray[np.int64],
    *,
    channel: int,
    output: int,
) -> list[PatternGroup]:
    """Pattern groups of a reuse map; fills ``weight_q8`` with the effective weights."""
    outputs, inputs, height, width = codes.shape
    if reuse.exponent.max() > MAX_SHIFT:
        raise InputError(
            f"expected shifts of at most {MAX_SHIFT}, found {reuse.exponent.max()} in a layer with "
            f"groups of {reuse.channels} channels: use smaller groups"
        )
    rounded = np.rint(codes / np.float32(FRACTION)).astype(np.int8)
    rounded *= reuse.mask.view(np.int8)
    result = []
    for index in range(len(reuse.target)):
        start = index * reuse.channels
        part = slice(start, min(start + reuse.channels, inputs))
        count = part.stop - start
        # Rows by position, then channel.
        rows = rounded[:, part].transpose(2, 3, 1, 0).reshape(-1, outputs)
        shape_rows = reuse.mask[:, part].transpose(2, 3, 1, 0).reshape(-1, outputs)
        target, exponent = reuse.target[index], reuse.exponent[index]
        used = target >= 0
        scaled = rows[:, target].astype(np.int64) << (exponent + np.int64(FRACTION_BITS))
        scaled *= used
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
                sign=np.ones((outputs, 1), np.int8),
            )
        )
    return result


def _whole_channels(reuse: ReuseMap) -> bool:
    """Whether every shape keeps the same positions in all channels of its group."""
    inputs = reuse.mask.shape[1]
    first = np.arange(inputs) // reuse.channels * reuse.channels
    return bool((reuse.mask == reuse.mask[:, first]).all())


# Settings of a network that nobody tuned.

FEWEST_OUTPUTS = 8
"""Layers with fewer outputs (to a group of a convolution) run dense: there is nobody to share with.
Depthwise convolutions are the case in point."""

KEPT_PATTERNS = 64
MOST_KEPT, LEAST_KEPT = 0.75, 1 / 32


def default_setting(
    weight: NDArray[np.float32] | Sequence[int],
    *,
    groups: int = 1,
    scheme: str = "prap",
    fully_connected: bool = False,
    first: bool = False,
    last: bool = False,
    ou_rows: int = OU_ROWS,
) -> LayerSetting:
    """Choose a setting by the widths of a layer, as the published networks have it.

    The source is the ``shape_and_value_similar`` lists of VGG16 and ResNet50 in the published
    ``main.py``. In them:

    - first and last layers are dense;
    - a group keeps 64 patterns whatever the output width: keep = 64 / out, at most 0.75 (64 outputs
      and, ours, the narrower layers that they do not have), at least 1/32 (4096 outputs);
    - (C_g, V) follows the input width: (1, 8) to 64 channels, (2, 4) to 256, (4, 2) from 512;
    - C_g of 1x1 convolutions is 8 up to 256 channels, 16 from 512; of hidden fully connected layers
      32 (from 512 inputs; ours: 8 below, where pruning 3 of 4 inputs untrained destroys a network).

    The other two published networks keep 48 (ResNet18) or 96 (WRN) patterns, and use (2, 4) where
    these have (1, 8). ResNet50's last two shortcuts have C_g = 8, and one of them keeps 128.
    For R other than 8 the same C_g hold R / C_g positions, and C_g of 1x1 layers are R, 2R, 4R.

    Parameters
    ----------
    weight
        Weights [out, in / groups, kh, kw], or their shape alone.
    groups
        Groups of the convolution.
    scheme
        Scheme of the network.
    fully_connected
        Whether the layer is a matrix product, not a 1x1 convolution.
    first, last
        Whether it is the network's first or last layer with weights.
    ou_rows
        R, rows of an operation unit.
    """
    shape = tuple(weight.shape if isinstance(weight, np.ndarray) else weight)
    if len(shape) != 4:
        raise ValueError(f"weight must have the shape [out, in, kh, kw], not {shape!r}")
    outputs, inputs = shape[0] // groups, shape[1]
    if scheme == "dense" or first or last or outputs < FEWEST_OUTPUTS:
        return LayerSetting(scheme="dense")
    if shape[2] * shape[3] > 1:
        channels = 1 if inputs < 128 else 2 if inputs < 512 else 4
        positions = max(1, ou_rows // channels)
    else:
        channels = ou_rows * (1 if inputs < 512 else 4 if fully_connected else 2)
        positions = 1
    keep = min(MOST_KEPT, max(LEAST_KEPT, KEPT_PATTERNS / outputs))
    return LayerSetting(scheme=scheme, channels=channels, positions=positions, keep=keep)


class MappedLayer(Protocol):
    """What :func:`network_settings` asks of a layer; ``quantize.MatrixLayer`` has it."""

    @property
    def name(self) -> str:
        """Its name in the network."""
        ...

    @property
    def weight(self) -> NDArray[np.float32]:
        """Weights [out, in / groups, kh, kw]."""
        ...

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        ...

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the input."""
        ...


def network_settings(
    layers: Sequence[MappedLayer],
    scheme: str,
    overrides: Mapping[str, LayerSetting] | None = None,
    ou_rows: int = OU_ROWS,
) -> dict[str, LayerSetting]:
    """Give every layer of a network its setting.

    Parameters
    ----------
    layers
        Layers with weights, in order.
    scheme
        Scheme of the network.
    overrides
        Settings by name pattern (``*``, ``?`` and ``[...]`` as in file names, case counts). The
        first pattern that matches a layer's name holds; layers that none matches take
        :func:`default_setting`.
    ou_rows
        R, rows of an operation unit.

    Returns
    -------
    dict
        Layer name to setting, in the order of the layers.
    """
    overrides = overrides or {}
    names = [layer.name for layer in layers]
    for pattern in overrides:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"expected a layer that matches {pattern!r}, found only {', '.join(names)}"
            )
    settings = {}
    for index, layer in enumerate(layers):
        chosen = [value for key, value in overrides.items() if fnmatchcase(layer.name, key)]
        settings[layer.name] = (
            chosen[0]
            if chosen
            else default_setting(
                layer.weight,
                groups=layer.groups,
                scheme=scheme,
                fully_connected=tuple(layer.in_shape[:2]) == (1, 1),
                first=index == 0,
                last=index == len(layers) - 1,
                ou_rows=ou_rows,
            )
        )
    return settings
