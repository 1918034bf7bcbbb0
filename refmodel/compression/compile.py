"""Compile quantised layers and their mappings into programs.

A mapped layer says which weight patterns are kept and how each output is put together from them; a
program says in which order the engine reads, converts and merges. Three things are decided here:

- **Gathers.** Kept patterns of one shape share a gather, so they are renumbered to lie side by
  side: slot order is gather order. A pattern with more rows than the OU is cut into several gathers
  that add into the same slots, ceil(rows / R) of them.
- **Requantisation.** ``code = clip(floor((acc + bias) * M / 2^s + 1/2) + zero_out, lo, hi)`` with
  the M and s of :mod:`refmodel.compression.requantise`. A residual operand has an M_r and s_r of
  its own, one to a layer: what its codes are worth in codes of the output is the ratio of two
  scales, the same for every output.
- **Constant outputs.** Where gain is 0, or so small that the weighted sum can never move the code
  by more than 1/256, no M / 2^s could express gain and bias together: the bias would leave the
  accumulator. Such an output gets no weights (its reuse words become none, or its pattern zeros),
  so that its accumulator is 0, and M / 2^s = 1/256; its value stands in the bias alone. The same
  where the sum can move the code by at most 1/2 and the bias does leave the accumulator.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from refmodel.compression.quantize import MatrixLayer, QuantNetwork
from refmodel.compression.requantise import (
    LARGEST_CODE,
    constant_outputs,
    requantise,
    residual_fraction,
)
from refmodel.compression.schemes import (
    InputStatistics,
    LayerMapping,
    LayerSetting,
    PatternGroup,
    map_layer,
    network_settings,
)
from refmodel.config import (
    FRACTION_BITS,
    MIN_SHIFT,
    SHIFT_NONE,
)
from refmodel.program.layer import LAYER_ARRAYS, LayerProgram
from refmodel.program.program import Program

WORD_TYPES = {name: kind for name, kind in LAYER_ARRAYS.items() if name.startswith("word_")}
"""Arrays of reuse words, and their types."""


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
        self.words: list[tuple[np.ndarray, ...]] = []
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

    def add_words(self, slot: np.ndarray, shift: np.ndarray, sign: np.ndarray) -> None:
        """Add reuse words, by output, then term."""
        given = zip((slot, shift, sign), WORD_TYPES.values(), strict=True)
        self.words.append(tuple(values.reshape(-1).astype(kind) for values, kind in given))

    def arrays(self) -> dict[str, Any]:
        """Return them under the names of LayerProgram."""
        names = {
            "group": ("kept", "first_output", "outputs", "write", "gathers"),
            "gather": ("base", "length", "segments", "patterns", "accumulate", "final"),
            "segment": ("position", "channel", "length"),
        }
        tables = {
            "group": np.array(self.groups, np.int64),
            "gather": np.array(self.gathers, np.int64),
            "segment": np.array(self.segments, np.int64),
        }
        arrays = {
            f"{prefix}_{name}": tables[prefix][:, i]
            for prefix, columns in names.items()
            for i, name in enumerate(columns)
        }
        # Words are the most by far in a large layer: they have their final types from the start.
        for i, (name, kind) in enumerate(WORD_TYPES.items()):
            parts = [words[i] for words in self.words]
            arrays[name] = np.concatenate(parts) if parts else np.zeros(0, kind)
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
        lists.add_words(np.where(none, 0, slot_of[slot]), shift, sign)


def _add_zeros(lists: _Lists, *, identity: bool, terms: int, first: int, outputs: int) -> None:
    """Add a group that writes zero to outputs that no group touches.

    It has one zero pattern on one row; with an identity map one to each output, since there the
    format has no other way to say it.
    """
    kept = outputs if identity else 1
    gathers = lists.series(np.zeros((1, 2), np.int64), 0, np.zeros((kept, 1), np.int8))
    lists.groups.append((kept, first, outputs, True, gathers))
    if not identity:
        zeros = np.zeros(outputs * terms, np.int64)
        lists.add_words(zeros, zeros + SHIFT_NONE, zeros)


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
    # Requantisation asks for the sums of an output's weights, and of their magnitudes, alone.
    weight_q8 = mapping.sums()
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
        added=ratio * LARGEST_CODE,
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
        A name in ``refmodel.compression.schemes.SCHEMES``.
    settings
        Name pattern to setting, as :func:`refmodel.compression.schemes.network_settings` takes
        them; layers that none matches take the scheme's default.
    ou_rows
        R, rows of an OU.
    mappings
        The result of :func:`map_network` for the same arguments, if it is at hand.
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
