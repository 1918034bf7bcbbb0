"""Compile quantised layers and their mapping into programs, and check that an engine holds them.

A mapped layer says which weight patterns are kept and how each output is put together from them; a
program says in which order the engine reads, converts and merges. Three things are decided here:

- **Gathers.** Kept patterns of one shape share a gather, so they are renumbered to lie side by
  side: slot order is gather order. A pattern with more rows than the OU is cut into several gathers
  that add into the same slots, ceil(rows / R) of them.
- **Requantisation.** ``code = clip(floor((acc + bias) * M / 2^s + 1/2) + zero_out, lo, hi)`` with
  M as large as 16 signed bits allow, so that its rounding is at most 2^-15 of the scale. A residual
  operand has an M_r and s_r of its own, one to a layer: what its codes are worth in codes of the
  output is the ratio of two scales, the same for every output.
- **Constant outputs.** Where gain is 0, or so small that the weighted sum can never move the code
  by more than 1/256, no M / 2^s could express gain and bias together: the bias would leave the
  accumulator. Such an output gets no weights (its reuse words become none, or its pattern zeros),
  so that its accumulator is 0, and M / 2^s = 1/256; its value stands in the bias alone. The same
  where the sum can move the code by at most 1/2 and the bias does leave the accumulator.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from refmodel.config import (
    FRACTION_BITS,
    INPUT_BITS,
    MIN_SHIFT,
    MOST_OUS_PER_PATTERN,
    SHIFT_NONE,
    EngineConfig,
    bits_for,
)
from refmodel.errors import InputError
from refmodel.program import LayerProgram, Program
from refmodel.quantize import MatrixLayer, QuantNetwork, fixed_point
from refmodel.schemes import (
    InputStatistics,
    LayerMapping,
    LayerSetting,
    PatternGroup,
    map_layer,
    network_settings,
)

MULTIPLIER_BITS = 15
"""Bits of the magnitude of a requantisation multiplier."""

MAX_RIGHT_SHIFT = 47
"""Largest s of M / 2^s."""

CONSTANT_REACH = 2.0**-FRACTION_BITS
"""An output whose weighted sum moves it by at most so many codes is taken to be constant."""

MAX_OUTPUT_SIDE = 4096
"""Largest height or width of an output."""

_LARGEST_CODE = (1 << INPUT_BITS) - 1
_LARGEST_BIAS = 1 << 47
_WIDE_BIAS = 1 << 37
_MOST_POSITIONS = 49


def constant_outputs(
    weight_q8: np.ndarray, scale: np.ndarray, bias_codes: np.ndarray
) -> np.ndarray:
    """Tell which outputs are taken not to depend on the input.

    Parameters
    ----------
    weight_q8
        Effective weights times 256, integers [out, ...].
    scale
        Codes of the output to one unit of the accumulator, float64 [out].
    bias_codes
        Real bias in codes of the output, float64 [out].

    Returns
    -------
    bool [out]: whether the reach ``|scale| * 255 * sum |w|`` is at most 1/256 of a code, or at most
    1/2 where the bias would need 38 bits or more.
    """
    total = np.abs(weight_q8.astype(np.int64)).reshape(len(weight_q8), -1).sum(1)
    with np.errstate(invalid="ignore"):  # infinite scales are refused later
        reach = np.abs(scale) * (_LARGEST_CODE * total)
        wide = np.minimum(np.abs(bias_codes), _LARGEST_CODE) >= np.abs(scale) * _WIDE_BIAS
        return (reach <= CONSTANT_REACH) | (wide & (reach <= 0.5))


def requantise(
    *,
    weight_q8: np.ndarray,
    scale: np.ndarray,
    bias_codes: np.ndarray,
    zero_in: int,
    zero_out: int,
    clip: tuple[int, int],
    added: float = 0.0,
    name: str = "layer",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Work out bias, multiplier and shift of every output.

    The output is ``scale * (acc - zero_in * sum w) + bias_codes + zero_out``, rounded half up and
    clipped. ``M / 2^s`` is ``scale`` with 2^14 <= |M| < 2^15 and s in 0 to 47; |M| is smaller
    where s would have to exceed 47. The bias is in units of the accumulator: ``rint(bias_codes *
    2^s / M) - zero_in * sum w``. A bias far outside the clip is drawn in to where every input
    still clips, so that it fits.

    Parameters
    ----------
    weight_q8
        Effective weights times 256, integers [out, ...]; zeros where the output is constant.
    scale
        Codes of the output to one unit of the accumulator (negative with a negative gain).
    bias_codes
        Real bias in codes of the output, without the zero point.
    zero_in, zero_out, clip
        Zero points, and (lo, hi) of the output code.
    added
        Codes, at most, that a residual operand moves the output by.
    name
        For messages.

    Returns
    -------
    bias int64 [out], multiplier int32 [out], shift int8 [out].

    Raises
    ------
    InputError
        A scale or bias is not finite, M / 2^s cannot express a scale, or a bias does not fit 48
        bits.
    """
    outputs = len(weight_q8)
    flat = weight_q8.astype(np.int64).reshape(outputs, -1)
    total, reach = flat.sum(1), np.abs(flat).sum(1) * _LARGEST_CODE
    constant = constant_outputs(flat, scale, bias_codes)
    bias = np.zeros(outputs, np.int64)
    multiplier = np.zeros(outputs, np.int32)
    shift = np.zeros(outputs, np.int8)
    for j in range(outputs):
        where = f"layer {name}, output {j}"
        value, offset = float(scale[j]), float(bias_codes[j])
        if not (math.isfinite(value) and math.isfinite(offset)):
            raise InputError(
                f"expected a finite scale and bias, found {value}, {offset} in {where}"
            )
        if constant[j]:
            if reach[j]:
                raise ValueError(f"{where} is constant: its weights must be 0 before this")
            value = 2.0**-FRACTION_BITS
        m, s = _fraction(value)
        if not 0 < abs(m) < 1 << MULTIPLIER_BITS:
            raise InputError(
                f"expected a scale of 2^-48 to 2^15 codes to one unit of the accumulator, found "
                f"{value:g} in {where}"
            )
        margin = 1.001 * abs(value) * float(reach[j]) + added + 2
        low, high = clip[0] - zero_out - margin, clip[1] - zero_out + margin
        units = round(math.ldexp(min(max(offset, low), high), s) / m) - zero_in * int(total[j])
        if abs(units) >= _LARGEST_BIAS:
            raise InputError(
                f"expected a bias that fits 48 bits, found {offset:g} codes at {value:g} codes to "
                f"one unit of the accumulator in {where}"
            )
        bias[j], multiplier[j], shift[j] = units, m, s
    return bias, multiplier, shift


def _fraction(value: float) -> tuple[int, int]:
    """Return (M, s) with M / 2^s nearest to ``value``, M of 15 bits where s in 0..47 allows."""
    _, exponent = math.frexp(value)
    s = min(max(MULTIPLIER_BITS - exponent, 0), MAX_RIGHT_SHIFT)
    m = round(math.ldexp(value, s))
    if abs(m) == 1 << MULTIPLIER_BITS and s > 0:
        m, s = m // 2, s - 1
    return m, s


def residual_fraction(ratio: float, shift: np.ndarray, name: str = "layer") -> tuple[int, int]:
    """Work out M_r and s_r of a residual operand.

    M_r has 15 bits, or fewer where s_r would exceed the least s of the layer's outputs: the
    hardware adds at the outputs' s, to which it can only shift up. So M_r / 2^s_r is off by at most
    2^-15 of itself or, in the second case, by half a unit of 2^-s_r.

    Parameters
    ----------
    ratio
        Scale of the operand over the scale of the output.
    shift
        s of each output.
    name
        For messages.

    Raises
    ------
    InputError
        The ratio cannot be expressed well enough for the largest code to be right within half a
        code: it is 2^15 or more, or the least s is below 8 and too small for it.
    """
    multipliers, wanted = fixed_point([ratio])
    multiplier, bits = int(multipliers[0]), min(wanted, int(shift.min()))
    if bits < wanted:
        multiplier = math.floor(math.ldexp(ratio, bits) + 0.5)
    error = abs(math.ldexp(multiplier, -bits) - ratio) * _LARGEST_CODE
    if error > max(0.5, ratio * _LARGEST_CODE * 2.0**-14):
        raise InputError(
            f"expected a residual that M / 2^s with s of at most {int(shift.min())} can scale, "
            f"found a scale of {ratio:g} codes of the output in layer {name}"
        )
    return multiplier, bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Piece:
    """One gather of a shape: base and length, its segments, and the shape's rows that it reads."""

    base: int
    length: int
    segments: list[tuple[int, int, int]]
    rows: list[int]


def _cut_whole(shape: np.ndarray, channel: int, ou_rows: int) -> list[_Piece] | None:
    """Cut a shape of whole positions into gathers; None where it is not all channels of each.

    Channels are cut into runs of at most R, positions into as many as fit beside each other.
    """
    positions = list(dict.fromkeys(shape[:, 0].tolist()))
    width = len(shape) // len(positions)
    rows = [(p, c) for p in positions for c in range(width)]
    if rows != [tuple(row) for row in shape.tolist()]:
        return None
    pieces = []
    for first in range(0, width, ou_rows):
        length = min(ou_rows, width - first)
        step = ou_rows // length
        for i in range(0, len(positions), step):
            chosen = range(i, min(i + step, len(positions)))
            pieces.append(
                _Piece(
                    base=channel + first,
                    length=length,
                    segments=[(positions[p], 0, length) for p in chosen],
                    rows=[p * width + first + c for p in chosen for c in range(length)],
                )
            )
    return pieces


def _cut_offsets(shape: np.ndarray, channel: int, ou_rows: int) -> list[_Piece]:
    """Cut a shape of any rows into gathers of R; neighbouring channels share a segment."""
    pieces = []
    for first in range(0, len(shape), ou_rows):
        segments: list[tuple[int, int, int]] = []
        for position, offset in shape[first : first + ou_rows].tolist():
            if segments and segments[-1][0] == position and sum(segments[-1][1:]) == offset:
                segments[-1] = (position, segments[-1][1], segments[-1][2] + 1)
            else:
                segments.append((position, offset, 1))
        rows = list(range(first, min(first + ou_rows, len(shape))))
        pieces.append(_Piece(base=channel, length=0, segments=segments, rows=rows))
    return pieces


def _needs_offsets(mapping: LayerMapping, ou_rows: int) -> bool:
    """Whether whole positions cannot express the layer's shapes in ceil(rows / R) gathers."""
    if mapping.full_offsets:
        return True
    for group in mapping.groups:
        for shape in group.shapes:
            pieces = _cut_whole(shape, group.channel, ou_rows)
            if pieces is None or len(pieces) > -(-len(shape) // ou_rows):
                return True
    return False


class _Lists:
    """The program's arrays while they grow."""

    def __init__(self, *, ou_rows: int, full_offsets: bool) -> None:
        self.ou_rows = ou_rows
        self.full_offsets = full_offsets
        self.groups: list[Sequence[int]] = []
        self.gathers: list[Sequence[int]] = []
        self.segments: list[Sequence[int]] = []
        self.words: list[np.ndarray] = []
        self.weights: list[np.ndarray] = []

    def series(self, shape: np.ndarray, channel: int, values: np.ndarray) -> int:
        """Add the gathers of one shape with its patterns' ``values`` [patterns, rows]."""
        pieces = None if self.full_offsets else _cut_whole(shape, channel, self.ou_rows)
        if pieces is None:
            pieces = _cut_offsets(shape, channel, self.ou_rows)
        for i, piece in enumerate(pieces):
            cells = np.zeros((len(values), self.ou_rows), np.int8)
            cells[:, : len(piece.rows)] = values[:, piece.rows]
            self.weights.append(cells)
            self.segments.extend(piece.segments)
            self.gathers.append(
                (
                    piece.base,
                    piece.length,
                    len(piece.segments),
                    len(values),
                    i > 0,
                    i == len(pieces) - 1,
                )
            )
        return len(pieces)

    def short_series(
        self, shapes: list[np.ndarray], channel: int, counts: np.ndarray, values: np.ndarray
    ) -> int:
        """Add shapes of at most R rows with full offsets, one gather each, all at once.

        As :meth:`series` does for each shape with as many of the ``values`` [patterns, rows] as
        ``counts`` says.
        """
        owner = np.repeat(np.arange(len(shapes)), [len(shape) for shape in shapes])
        position, offset = np.concatenate(shapes).astype(np.int64).T
        new = np.ones(len(owner), bool)
        new[1:] = (np.diff(owner) > 0) | (np.diff(position) != 0) | (np.diff(offset) != 1)
        first = np.flatnonzero(new)
        length = np.diff(np.append(first, len(owner)))
        self.segments.extend(np.stack([position[first], offset[first], length], axis=1).tolist())
        gathers = np.zeros((len(shapes), 6), np.int64)
        gathers[:, 0] = channel
        gathers[:, 2] = np.bincount(owner[first])
        gathers[:, 3] = counts
        gathers[:, 5] = 1
        self.gathers.extend(gathers.tolist())
        cells = np.zeros((len(values), self.ou_rows), np.int8)
        cells[:, : values.shape[1]] = values
        self.weights.append(cells)
        return len(shapes)

    def arrays(self) -> dict[str, Any]:
        """Return them under the names of LayerProgram."""
        names = {
            "group": ("kept", "first_output", "outputs", "write", "gathers"),
            "gather": ("base", "length", "segments", "patterns", "accumulate", "final"),
            "segment": ("position", "channel", "length"),
            "word": ("slot", "shift", "sign"),
        }
        words = np.concatenate(self.words) if self.words else np.zeros((0, 3), np.int64)
        tables = {
            "group": np.array(self.groups, np.int64),
            "gather": np.array(self.gathers, np.int64),
            "segment": np.array(self.segments, np.int64),
            "word": words,
        }
        arrays = {
            f"{prefix}_{name}": tables[prefix][:, i]
            for prefix, columns in names.items()
            for i, name in enumerate(columns)
        }
        return arrays | {"weights": np.concatenate(self.weights)}


def _add_group(
    lists: _Lists, group: PatternGroup, mapping: LayerMapping, dead: np.ndarray, write: bool
) -> None:
    """Add one group: its gathers, shape after shape, and its reuse words."""
    block = slice(group.first_output, group.first_output + group.outputs)
    shape_of = np.asarray(group.shape_of)
    kept = len(shape_of)
    values = np.array(group.values, np.int8).reshape(kept, -1)
    if mapping.identity:
        # Slots are outputs here, so their order stands; runs of one shape still share gathers.
        order = np.arange(kept)
        values[dead[block]] = 0
    else:
        order = np.argsort(shape_of, kind="stable")
    edges = np.flatnonzero(np.diff(shape_of[order])) + 1
    first = np.concatenate([[0], edges])
    shapes = [np.asarray(group.shapes[k]) for k in shape_of[order[first]].tolist()]
    if lists.full_offsets and max(len(shape) for shape in shapes) <= lists.ou_rows:
        counts = np.diff(np.append(first, kept))
        gathers = lists.short_series(shapes, group.channel, counts, values[order])
    else:
        gathers = 0
        for shape, run in zip(shapes, np.split(order, edges), strict=True):
            gathers += lists.series(shape, group.channel, values[run])
    lists.groups.append((kept, group.first_output, group.outputs, write, gathers))
    if not mapping.identity:
        slot_of = np.empty(kept, np.int64)
        slot_of[order] = np.arange(kept)
        slot = np.asarray(group.slot, np.int64)
        none = (slot < 0) | dead[block][:, None]
        shift = np.where(none, SHIFT_NONE, np.asarray(group.shift, np.int64) - MIN_SHIFT)
        sign = np.where(none, 0, np.asarray(group.sign) < 0)
        words = np.stack([np.where(none, 0, slot_of[slot]), shift, sign], axis=-1)
        lists.words.append(words.reshape(-1, 3))


def _add_zeros(lists: _Lists, *, identity: bool, terms: int, first: int, outputs: int) -> None:
    """Add a group that writes zero to outputs that no group touches.

    It has one zero pattern on one row; with an identity map one to each output, since there the
    format has no other way to say it.
    """
    kept = outputs if identity else 1
    gathers = lists.series(np.zeros((1, 2), np.int64), 0, np.zeros((kept, 1), np.int8))
    lists.groups.append((kept, first, outputs, True, gathers))
    if not identity:
        lists.words.append(np.tile([0, SHIFT_NONE, 0], (outputs * terms, 1)))


def compile_layer(layer: MatrixLayer, mapping: LayerMapping, ou_rows: int) -> LayerProgram:
    """Compile one layer.

    A layer of which nothing is kept has one zero pattern on one row, whatever the scheme: its
    program has no identity map and no full offsets, and one reuse word to an output, "none".
    Groups are in the order of the mapping; in a layer of one output position by kept patterns, the
    fewest first.

    Parameters
    ----------
    layer
        Geometry, scales and gain of the layer.
    mapping
        Its kept patterns and how outputs reuse them.
    ou_rows
        R, rows of an OU; patterns with more are cut.

    Raises
    ------
    InputError
        Scales or bias cannot be expressed.
    """
    outputs = layer.out_shape[2]
    weight = np.asarray(layer.weight)
    gain = np.asarray(layer.gain, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # requantise refuses what is not finite
        scale = (
            gain
            * mapping.scales(layer.weight)
            * layer.in_scale
            / (layer.out_scale * (1 << FRACTION_BITS))
        )
    weight_q8 = np.array(mapping.weight_q8, np.int64)
    bias_codes = np.asarray(layer.bias, np.float64) / layer.out_scale
    dead = constant_outputs(weight_q8, scale, bias_codes)
    weight_q8[dead] = 0
    ratio = 0.0 if layer.residual is None else layer.residual.scale / layer.out_scale
    bias, multiplier, shift = requantise(
        weight_q8=weight_q8,
        scale=scale,
        bias_codes=bias_codes,
        zero_in=layer.in_zero,
        zero_out=layer.out_zero,
        clip=layer.clip,
        added=ratio * _LARGEST_CODE,
        name=layer.name,
    )
    residual: dict[str, Any] = {}
    if layer.residual is not None:
        m, s = residual_fraction(ratio, shift, layer.name)
        residual = {"residual": True, "residual_zero": layer.residual.zero}
        residual |= {"residual_multiplier": m, "residual_shift": s}
    empty = not any(group.kept for group in mapping.groups)
    identity = mapping.identity and not empty
    terms = 1 if mapping.identity or empty else mapping.terms
    full_offsets = not empty and _needs_offsets(mapping, ou_rows)
    lists = _Lists(ou_rows=ou_rows, full_offsets=full_offsets)
    touched = np.zeros(outputs, bool)
    groups = list(mapping.groups)
    if layer.out_shape[:2] == (1, 1):
        # A group converts, then merges, and no other position fills the gaps. Merges are alike, so
        # by Johnson's rule (1954, two machines) the shortest conversions go first: what is behind
        # at the end is one merge, not those of many short groups.
        groups.sort(key=lambda group: group.kept)
    for group in groups:
        if not len(group.shape_of):
            continue
        block = touched[group.first_output : group.first_output + group.outputs]
        if block.any() and not block.all():
            raise ValueError(f"layer {layer.name}: a group overlaps another in part of its outputs")
        _add_group(lists, group, mapping, dead, write=not block.any())
        block[:] = True
    for run in np.split(np.arange(outputs), np.flatnonzero(np.diff(touched)) + 1):
        if not touched[run[0]]:
            _add_zeros(lists, identity=identity, terms=terms, first=int(run[0]), outputs=len(run))
    return LayerProgram(
        name=layer.name,
        scheme=mapping.scheme,
        ou_rows=ou_rows,
        in_shape=layer.in_shape,
        out_shape=layer.out_shape,
        kernel=(int(weight.shape[2]), int(weight.shape[3])),
        stride=layer.stride,
        dilation=layer.dilation,
        pads=layer.pads,
        conv_groups=layer.groups,
        zero_in=layer.in_zero,
        zero_out=layer.out_zero,
        clip_lo=layer.clip[0],
        clip_hi=layer.clip[1],
        terms=terms,
        identity=identity,
        full_offsets=lists.full_offsets,
        patterns=mapping.patterns,
        kept=mapping.kept,
        reused=mapping.reused,
        dropped=mapping.dropped,
        ous_dense=mapping.ous_dense,
        **lists.arrays(),
        bias=bias,
        multiplier=multiplier,
        shift=shift,
        **residual,
    )


def map_network(
    quant: QuantNetwork,
    *,
    scheme: str,
    settings: Mapping[str, LayerSetting] | None = None,
    ou_rows: int = 8,
    inputs: Mapping[str, InputStatistics] | None = None,
    carried: Mapping[str, LayerMapping] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[LayerMapping]:
    """Map all layers of a network; parameters as those of :func:`compile_network`.

    ``inputs`` are the statistics of layers by name, as far as they are known; ``carried`` the
    mappings of layers that are not mapped any more.
    """
    chosen = network_settings(quant.layers, scheme, settings, ou_rows)
    mappings = []
    for i, layer in enumerate(quant.layers):
        if progress is not None:
            progress(layer.name, i, len(quant.layers))
        if carried is not None and layer.name in carried:
            mappings.append(carried[layer.name])
            continue
        setting = chosen[layer.name]
        known = None if inputs is None else inputs.get(layer.name)
        mappings.append(
            map_layer(layer.weight, layer.groups, scheme, setting, ou_rows, layer.gain, known)
        )
    return mappings


def compile_network(
    quant: QuantNetwork,
    *,
    scheme: str,
    settings: Mapping[str, LayerSetting] | None = None,
    ou_rows: int = 8,
    mappings: Sequence[LayerMapping] | None = None,
    carried: Collection[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Program:
    """Map and compile a whole network.

    Parameters
    ----------
    quant
        The integer network.
    scheme
        A name in ``refmodel.schemes.SCHEMES``.
    settings
        Name pattern to setting, as :func:`refmodel.schemes.network_settings` takes them; layers
        that none matches take the scheme's default.
    ou_rows
        R, rows of an OU.
    mappings
        What :func:`map_network` gives for the same, if it is at hand.
    carried
        Names of layers whose mapping came with the network: they have no setting.
    progress
        Called before each layer with its name, its index and the number of layers.

    Raises
    ------
    InputError
        A layer cannot be expressed, or a setting matches no layer.
    """
    chosen = network_settings(quant.layers, scheme, settings, ou_rows)
    if mappings is None:
        mappings = map_network(
            quant, scheme=scheme, settings=settings, ou_rows=ou_rows, progress=progress
        )
    layers = [
        compile_layer(layer, mapping, ou_rows)
        for layer, mapping in zip(quant.layers, mappings, strict=True)
    ]
    return Program(
        layers=tuple(layers),
        steps=quant.steps,
        tensors={
            name: {"shape": list(info.shape), "scale": float(info.scale), "zero": int(info.zero)}
            for name, info in quant.tensors.items()
        },
        input=quant.input,
        output=quant.output,
        preprocess=quant.preprocess.to_dict(),
        about={
            "scheme": scheme,
            "ou_rows": ou_rows,
            "settings": {
                name: dataclasses.asdict(setting)
                for name, setting in chosen.items()
                if name not in carried
            },
        }
        | ({"carried": list(carried)} if carried else {}),
    )


def ous_of_gathers(layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """OUs of each gather, int64 [gathers]: ceil(patterns * S / C)."""
    columns = layer.gather_patterns.astype(np.int64) * config.columns_per_weight
    return -(-columns // config.ou_cols)


def columns_of_ous(layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """Columns in use of each OU, int64 [OUs]: C, and what is left in the last OU of a gather."""
    ous = ous_of_gathers(layer, config)
    result = np.full(int(ous.sum()), config.ou_cols, np.int64)
    unused = ous * config.ou_cols - layer.gather_patterns * config.columns_per_weight
    result[np.cumsum(ous) - 1] -= unused
    return result


def ou_count(layer: LayerProgram, config: EngineConfig) -> int:
    """OUs of a layer, which is also the number of OU activations a position."""
    return int(ous_of_gathers(layer, config).sum())


def index_bits(layer: LayerProgram, config: EngineConfig) -> dict[str, int]:
    """Bits that the engine reads beside the weights, with fields as wide as this layer needs.

    Fields that are never 0 are stored less 1. Every field has at least one bit, but kernel
    positions of a 1x1 kernel have none (ARCHITECTURE.md: V*ceil(log2(k*k)) bits to a shape).

    Returns
    -------
    shapes
        Segments times ceil(log2(kernel positions)).
    offsets
        With full offsets: segments times (channel offset, length); otherwise 0.
    headers
        Gathers times (base, length unless full offsets, segments, patterns, accumulate, final),
        groups times (kept, first output, outputs, gathers, write).
    words
        Reuse words times ``config.reuse_word_bits``.
    padding
        What the memory of reuse words holds beside them, in the same bits: it is read a step at a
        time, ``merge_lanes`` words that are aligned to multiples of as many outputs
        (:func:`merge_steps`), and lanes without an output of the group have a word as well. 0 with
        one lane.
    total
        Their sum.
    """
    segments, gathers = len(layer.segment_position), len(layer.gather_base)
    position = (layer.kernel[0] * layer.kernel[1] - 1).bit_length()
    offset = bits_for(int(layer.segment_channel.max()) + 1)
    length = bits_for(int(layer.segment_length.max()))
    gather = (
        bits_for(layer.in_shape[2])
        + (0 if layer.full_offsets else length)
        + bits_for(int(layer.gather_segments.max()))
        + bits_for(int(layer.gather_patterns.max()))
        + 2
    )
    group = (
        bits_for(int(layer.group_kept.max()))
        + bits_for(layer.out_shape[2])
        + bits_for(int(layer.group_outputs.max()))
        + bits_for(int(layer.group_gathers.max()))
        + 1
    )
    words = len(layer.word_slot)
    held = 0 if layer.identity else int(merge_steps(layer, config.merge_lanes).sum())
    padding = held * config.merge_lanes - words
    bits = {
        "shapes": segments * position,
        "offsets": segments * (offset + length) if layer.full_offsets else 0,
        "headers": gathers * gather + len(layer.group_kept) * group,
        "words": words * config.reuse_word_bits,
        "padding": padding * config.reuse_word_bits,
    }
    return bits | {"total": sum(bits.values())}


def gathers_of_slots(layer: LayerProgram) -> np.ndarray:
    """Gathers whose sums add into each slot, int64 [slots of all groups, in order]."""
    series = np.cumsum(layer.gather_accumulate == 0) - 1
    gathers = np.bincount(series)
    return np.repeat(gathers, layer.gather_patterns[layer.gather_accumulate == 0])


def accumulator_range(layer: LayerProgram, config: EngineConfig) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest accumulator of each output, before the bias.

    From the largest ADC code, not from the ideal sum: a gather adds what ``config.psum_range``
    says, whatever its weights. Every term's range includes 0, so no sum on the way is outside
    either.

    Returns
    -------
    int64 [out], int64 [out]
    """
    least, greatest = config.psum_range
    low, high = np.zeros((2, layer.out_shape[2]), np.int64)
    output, slot, factor = flat_words(layer)
    times = gathers_of_slots(layer)[slot] * factor
    ends = np.stack([least * times, greatest * times])
    np.add.at(low, output, ends.min(0))
    np.add.at(high, output, ends.max(0))
    return low, high


def flat_words(layer: LayerProgram) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the reuse words that add something, also those that an identity map implies.

    Returns
    -------
    output
        int64 [words], the layer's output that it adds to.
    slot
        int64 [words], numbered over all groups.
    factor
        int64 [words], sign times 2^(8 + k).
    """
    counts = layer.group_outputs.astype(np.int64)
    base = np.cumsum(layer.group_kept, dtype=np.int64) - layer.group_kept
    terms = 1 if layer.identity else layer.terms
    starts = np.cumsum(counts) - counts
    within = np.arange(counts.sum()) - np.repeat(starts, counts)
    output = np.repeat(np.repeat(layer.group_first_output, counts) + within, terms)
    if layer.identity:
        slot = np.repeat(base, counts) + within
        return output, slot, np.full(len(slot), 1 << FRACTION_BITS, np.int64)
    slot = np.repeat(base, counts * terms) + layer.word_slot
    used = layer.word_shift != SHIFT_NONE
    factor = np.int64(1) << layer.word_shift[used].astype(np.int64)
    factor = np.where(layer.word_sign[used] == 1, -factor, factor)
    return output[used].astype(np.int64), slot[used], factor


def accumulator_bits(layer: LayerProgram, config: EngineConfig) -> int:
    """Bits of a signed accumulator that holds every sum of the layer, its bias, and both added."""
    low, high = accumulator_range(layer, config)
    ends = np.concatenate([low, high, layer.bias, low + layer.bias, high + layer.bias])
    return max(int(ends.max()).bit_length(), (-int(ends.min()) - 1).bit_length()) + 1


def check_fits(layer: LayerProgram, config: EngineConfig) -> None:
    """Check that an engine can run a layer.

    Raises
    ------
    InputError
        Names the limit that the layer exceeds, what it is, and what the layer needs.
    """
    if layer.ou_rows != config.ou_rows:
        raise InputError(
            f"layer {layer.name}: expected a program for OUs of {config.ou_rows} rows (ou_rows), "
            f"found {layer.ou_rows}"
        )
    needs = _needs(layer, config)
    limits = {name: (getattr(config, name), need) for name, need in needs.items()}
    limits["slots"] = config.slots, int(layer.group_kept.max()) + config.patterns_per_ou - 1
    limits["output rows or columns"] = MAX_OUTPUT_SIDE, max(layer.out_shape[:2])
    limits["crossbars"] = config.crossbars, -(-ou_count(layer, config) // config.ous_per_crossbar)
    limits["acc_width"] = config.acc_width, accumulator_bits(layer, config)
    for name, (limit, need) in limits.items():
        if need > limit:
            raise InputError(
                f"layer {layer.name}: expected {name} of at most {limit}, found {need}"
            )


def merge_steps(layer: LayerProgram, lanes: int) -> np.ndarray:
    """Merge cycles of each group: the blocks of ``lanes`` outputs it touches, times the terms.

    Blocks are aligned to multiples of ``lanes``, so that every output has its lane.

    Returns
    -------
    int64 [groups].
    """
    first = layer.group_first_output.astype(np.int64)
    last = first + layer.group_outputs - 1
    return (last // lanes - first // lanes + 1) * layer.terms


def _needs(layer: LayerProgram, config: EngineConfig) -> dict[str, int]:
    """What a layer needs of the depths of the engine's memories."""
    lanes = config.merge_lanes
    return {
        "ous_per_pattern": int(gathers_of_slots(layer).max()),
        "max_outputs": layer.out_shape[2],
        "max_gathers": len(layer.gather_base),
        "max_segments": len(layer.segment_position),
        "max_groups": len(layer.group_kept),
        "max_words": 1 if layer.identity else int(merge_steps(layer, lanes).sum()) * lanes,
        "max_positions": layer.kernel[0] * layer.kernel[1],
        "activation_bytes": math.prod(layer.padded_shape),
    }


def _power_of_two(value: int) -> int:
    """Round up to a power of two."""
    return 1 << max(0, value - 1).bit_length()


def engine_config_for(
    layers: Sequence[LayerProgram], base: EngineConfig | None = None
) -> EngineConfig:
    """Size an engine that holds each of some layers (one at a time).

    Crossbars, slots and memory depths become what the layers need, depths rounded up to powers of
    two; ``acc_width`` and ``ous_per_pattern`` grow where ``base`` is too small. Everything else is
    as in ``base``.

    The ring of partial sums has at least ``2 * kept + began + P + 1`` slots: the kept patterns of
    the largest group twice, what begins while the first of them waits for its codes, and P, the
    patterns that may begin in one OU, ceil(C / S), since an OU waits until as many slots are free.
    ARCHITECTURE.md's formula (Partial-sum store) is for OUs of one pattern: it has C * ceil(B/D)
    columns converted to a pattern, where S * ceil(B/D) are, and falls short for OUs of several.

    Raises
    ------
    InputError
        A layer needs more than any engine has.
    """
    base = EngineConfig() if base is None else base
    if not layers:
        raise InputError("expected a convolution or fully connected layer, found none")
    needs: dict[str, int] = {}
    for layer in layers:
        for name, need in _needs(layer, base).items():
            needs[name] = max(needs.get(name, 1), need)
    if needs["ous_per_pattern"] > MOST_OUS_PER_PATTERN:
        worst = max(layers, key=lambda layer: gathers_of_slots(layer).max())
        raise InputError(
            f"layer {worst.name}: expected weight patterns of at most {MOST_OUS_PER_PATTERN} "
            f"operation units (ous_per_pattern), found {needs['ous_per_pattern']}: use a setting "
            f"of fewer channels, or scheme dense"
        )
    sizes = {name: _power_of_two(need) for name, need in needs.items()}
    sizes["ous_per_pattern"] = max(base.ous_per_pattern, needs["ous_per_pattern"])
    sizes["activation_bytes"] = max(64, sizes["activation_bytes"])
    if needs["max_positions"] <= _MOST_POSITIONS:
        sizes["max_positions"] = min(_MOST_POSITIONS, sizes["max_positions"])
    kept = max(int(layer.group_kept.max()) for layer in layers)
    # Patterns that begin while the first waits for its codes: A columns a cycle, S to a pattern.
    hidden = (base.crossbar_latency + 12) * min(base.adcs, base.ou_cols)
    began = -(-hidden // (base.columns_per_weight * base.digits))
    slots = 2 * kept + began + base.patterns_per_ou + 1
    sizes["slots"] = max(4, _power_of_two(slots))
    sizes["crossbars"] = max(-(-ou_count(layer, base) // base.ous_per_crossbar) for layer in layers)
    sizes["acc_width"] = max(base.acc_width, *(accumulator_bits(layer, base) for layer in layers))
    try:
        config = dataclasses.replace(base, **sizes)
    except ValueError as error:
        names = ", ".join(layer.name for layer in layers)
        raise InputError(
            f"expected layers that one engine holds, found {error} ({names})"
        ) from None
    for layer in layers:
        check_fits(layer, config)
    return config
