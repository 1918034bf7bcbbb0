"""Fine-tuned networks: the mapping of each layer, beside weights that it gives exactly.

Whoever trains a network under a scheme ends with weights that *are* a mapping: which patterns are
kept, and how each output is put together from them. To choose anew from the weights alone would in
general find another one (:mod:`refmodel.patterned` says why), so an ONNX file carries the mappings,
under the key ``prap.mappings`` of its ``metadata_props``, for programs that do not look for it an
ordinary network with the effective weights.

The value is base64 of a zip (deflated, without dates) with ``header.json``::

    {"format": "prap-mappings", "version": 1, "scheme": "prap", "ou_rows": 8,
     "layers": [{"name": "conv1", "scheme": "prap", "terms": 1, "identity": false,
                 "full_offsets": false, "dropped": 12}, ...]}

and, for the layer at place i of that list, the arrays ``i.*.npy``, all groups one behind the other:

============  =======  =========================================================================
``groups``    int32    [groups, 6]: channel, channels, first output, outputs, kept patterns and
                       shapes of each
``lengths``   int32    rows of each shape
``rows``      int32    position * channels + channel of each row, ascending within a shape
``shape_of``  int32    shape of each kept pattern, counted within its group
``values``    int8     [kept, most rows of the group's shapes], row by row
``slot``      int32    [outputs, terms], row by row; absent with ``identity``, as the next two
``shift``     int8     the same
``sign``      int8     the same
``scales``    float64  [out]: real value of one unit of each output's effective weights
============  =======  =========================================================================

What follows from these is worked out when they are read: effective weights, counts of patterns and
operation units. Nothing in a file is trusted: a mapping that is not one, or that does not give the
weights beside it to within their rounding to float32, is refused by the name of its layer.
"""

import base64
import binascii
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.archive import Archive, DamagedError, plain_json
from refmodel.config import FRACTION_BITS, MAX_SHIFT, MIN_SHIFT
from refmodel.errors import InputError
from refmodel.graph import FloatNetwork, Matrix
from refmodel.quantize import MatrixLayer
from refmodel.schemes import SCHEMES, LayerMapping, LayerSetting, PatternGroup, Weight
from refmodel.schemes.base import MAX_TERMS, dense_ous, weight_unit

KEY = "prap.mappings"
"""Key of the mappings among an ONNX model's ``metadata_props``."""

FORMAT, VERSION = "prap-mappings", 1

MOST_ROWS = 32
"""R of the tallest operation unit that an engine can have."""

MOST_GROUPS, MOST_SHAPES = 1 << 17, 1 << 22
"""Pattern groups, and shapes, of all layers of a file together.

More than VGG19 comes to under any scheme; ``orc`` has the most shapes, one to an output and chunk.
"""

TOLERANCE = 2.0**-22
"""Relative difference of a weight from what its mapping gives: a few roundings to float32."""

_ARRAYS = {
    "groups": np.int32,
    "lengths": np.int32,
    "rows": np.int32,
    "shape_of": np.int32,
    "values": np.int8,
    "slot": np.int32,
    "shift": np.int8,
    "sign": np.int8,
    "scales": np.float64,
}
_WORDS = ("slot", "shift", "sign")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """What a network was fine-tuned for.

    Attributes
    ----------
    scheme
        The scheme of the network, a name in ``refmodel.schemes.SCHEMES``.
    ou_rows
        R that the mappings were made for, 1 to 32.
    mappings
        Mapping of each mapped layer by its name; layers that have none run dense. Each is that of
        the network's own weights, which it gives: ``mapping.effective(weight)`` is ``weight``, but
        for its rounding to float32. ``reuse`` and ``mask`` of those that were read from a file are
        empty and ones.
    """

    scheme: str
    ou_rows: int
    mappings: Mapping[str, LayerMapping]


def attach(
    network: FloatNetwork,
    *,
    scheme: str,
    ou_rows: int,
    mappings: Mapping[str, LayerMapping],
    scales: Mapping[str, NDArray[np.float64]],
) -> FloatNetwork:
    """Put effective weights into a network, and their mappings beside them.

    Parameters
    ----------
    network
        The network as it was trained; weights of the layers in ``mappings`` do not matter.
    scheme, ou_rows
        As :class:`Tuned` has them.
    mappings
        Layer name to mapping; their ``output_scale`` does not matter.
    scales
        Layer name to the real value of one unit of each output's effective weights, float64 [out]:
        for a mapping of weights as they are, ``mapping.scales(weight)``.

    Returns
    -------
    FloatNetwork
        Weights of the mapped layers are ``weight_q8 * scales / 256``, rounded to float32.

    Raises
    ------
    InputError
        A name is no layer of the network, or a mapping does not fit its layer.
    """
    layers = {node.name for node in network.nodes if isinstance(node, Matrix)}
    for name in mappings:
        if name not in layers:
            raise InputError(
                f"expected a mapping of a layer, found one of {name!r}, in {network.source}"
            )
    nodes, own = [], {}
    for node in network.nodes:
        if isinstance(node, Matrix) and node.name in mappings:
            mapping, units = mappings[node.name], np.asarray(scales[node.name], np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                weight = _real(mapping.weight_q8, units).astype(np.float32)
            node = replace(node, weight=weight, exact=False)
            own[node.name] = _with_scales(mapping, weight, units)
        nodes.append(node)
    tuned = Tuned(scheme=scheme, ou_rows=ou_rows, mappings=own)
    result = replace(network, nodes=tuple(nodes), tuned=tuned)
    check(result)
    return result


def check(network: FloatNetwork) -> None:
    """Check that the mappings of a network are ones, and give its weights.

    Raises
    ------
    InputError
        They are not; the message names the layer.
    """
    tuned = network.tuned
    if tuned is None:
        return
    _header(tuned.scheme, tuned.ou_rows, network.source)
    layers = {node.name: node for node in network.nodes if isinstance(node, Matrix)}
    for name, mapping in tuned.mappings.items():
        if name not in layers:
            raise InputError(
                f"expected a mapping of a layer, found one of {name!r}, in {network.source}"
            )
        node = layers[name]
        with _Place(network.source, name):
            _check_fields(mapping.scheme, mapping.terms, mapping.identity)
            _check_groups(mapping, node)
            found = effective_weights(mapping, node.weight.shape)
            _need(
                np.array_equal(found, mapping.weight_q8),
                "effective weights that its groups give",
                f"{np.count_nonzero(found != mapping.weight_q8)} others",
            )
            _check_weights(node, found, mapping.scales(node.weight))
            kept, reused, least = _counts(mapping.groups)
            _need(
                (mapping.kept, mapping.reused) == (kept, reused) and mapping.dropped >= least,
                f"{kept} kept, {reused} reused and at least {least} dropped patterns",
                (mapping.kept, mapping.reused, mapping.dropped),
            )


def scheme_of(network: FloatNetwork) -> str:
    """The scheme of a network for which none was asked: what it was fine-tuned for, else prap."""
    return "prap" if network.tuned is None else network.tuned.scheme


def carried(
    network: FloatNetwork,
    layers: Sequence[MatrixLayer],
    *,
    scheme: str,
    settings: Mapping[str, LayerSetting] | None = None,
    ou_rows: int = 8,
) -> tuple[dict[str, LayerMapping], dict[str, LayerSetting]]:
    """Mappings that came with a network, for its quantised layers.

    Parameters
    ----------
    network
        The network.
    layers
        Its layers as :func:`refmodel.quantize.quantize` gives them, with scales to a layer or to an
        output.
    scheme, settings, ou_rows
        What was asked for.

    Returns
    -------
    dict
        Layer name to mapping, of layers that no setting matches; ``output_scale`` is for the
        weights of ``layers``. Empty where the network was not tuned, or for another scheme.
    dict
        The settings, and behind them, where the network was tuned for the scheme, one for every
        layer by its name: to run dense, as all that have no mapping do.

    Raises
    ------
    InputError
        The mappings are for another ``ou_rows``.
    """
    found = network.tuned
    chosen = dict(settings or {})
    if found is None or found.scheme != scheme:
        return {}, chosen
    nodes = {node.name: node for node in network.nodes if isinstance(node, Matrix)}
    result: dict[str, LayerMapping] = {}
    for layer in layers:
        mapping = found.mappings.get(layer.name)
        if mapping is None or any(fnmatchcase(layer.name, key) for key in settings or {}):
            continue
        if found.ou_rows != ou_rows:
            raise InputError(
                f"expected ou_rows of {found.ou_rows}, which the mappings were made for, found "
                f"{ou_rows}, for {network.source}"
            )
        weight = nodes[layer.name].weight
        # With scales to an output, its weights were divided by the largest of them.
        before, after = (np.abs(each).max(axis=(1, 2, 3)) for each in (weight, layer.weight))
        factor = before / np.where(after > 0, after, 1).astype(np.float64)
        units = mapping.scales(weight) / np.where(factor > 0, factor, 1)
        result[layer.name] = _with_scales(mapping, layer.weight, units)
    dense = LayerSetting(scheme="dense")
    return result, chosen | {
        escape(layer.name): dense for layer in layers if escape(layer.name) not in chosen
    }


# What a mapping comes to


def effective_weights(mapping: LayerMapping, shape: Sequence[int]) -> NDArray[np.int64]:
    """Effective weights times 256 that the groups of a mapping give.

    Parameters
    ----------
    mapping
        Its groups are taken to fit the layer.
    shape
        Of the layer's weights, [out, in / groups, kh, kw].
    """
    outputs, inputs, height, width = shape
    kernel = height * width
    # What fills up a pattern's rows goes into a column behind the weights.
    flat = np.zeros((outputs, inputs * kernel + 1), np.int64)
    for group in mapping.groups:
        if not group.kept:
            continue
        lengths = np.array([len(each) for each in group.shapes])
        rows = np.concatenate(group.shapes).astype(np.int64)
        first = group.channel % inputs
        places = np.full((len(lengths), int(lengths.max())), inputs * kernel)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places[owner, within] = (first + rows[:, 1]) * kernel + rows[:, 0]
        block = np.arange(group.first_output, group.first_output + group.outputs)[:, None]
        values = group.values.astype(np.int64)
        if group.slot is None or group.shift is None or group.sign is None:
            flat[block, places[group.shape_of]] += values << FRACTION_BITS
            continue
        for slot, shift, sign in zip(group.slot.T, group.shift.T, group.sign.T, strict=True):
            factor = np.where(slot < 0, 0, sign.astype(np.int64))
            scaled = values[slot] << (shift.astype(np.int64) + FRACTION_BITS)[:, None]
            flat[block, places[group.shape_of[slot]]] += scaled * factor[:, None]
    return flat[:, :-1].reshape(outputs, inputs, height, width)


def _counts(groups: Sequence[PatternGroup]) -> tuple[int, int, int]:
    """Patterns kept and reused in some groups, and the least number dropped.

    What is dropped in groups that are left out does not show in those that are there.
    """
    kept = sum(group.kept for group in groups)
    full = [group.slot for group in groups if group.slot is not None and group.kept]
    used = sum(int(np.count_nonzero((slot >= 0).any(1))) for slot in full)
    reused = max(0, used - kept)
    return kept, reused, max(0, sum(map(len, full)) - kept - reused)


def _real(weight_q8: NDArray[np.int64], units: NDArray[np.float64]) -> NDArray[np.float64]:
    return weight_q8.astype(np.float64) * np.ldexp(units, -FRACTION_BITS)[:, None, None, None]


def _with_scales(mapping: LayerMapping, weight: Weight, units: NDArray[np.float64]) -> LayerMapping:
    """The same mapping for ``weight``, one unit of each output being worth ``units``."""
    unit = weight_unit(weight)
    return replace(mapping, output_scale=units / unit if unit > 0 else np.ones(len(units)))


# Checks


class _Place:
    """Says behind an InputError whose mapping it is about: a network's, or one of its layers'."""

    def __init__(self, source: str, name: str | None = None) -> None:
        self.text = f"in the mappings of {source}"
        if name is not None:
            self.text = f"in the mapping of layer {name[:80]!r} of {source}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, InputError):
            raise InputError(f"{error}, {self.text}") from None


def _need(condition: Any, expected: str, found: object) -> None:
    if not condition:
        text = str(found)
        raise InputError(f"expected {expected}, found {text if len(text) <= 80 else text[:77]}")


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _header(scheme: Any, ou_rows: Any, source: str) -> tuple[str, int]:
    """Check what is the same for all layers, and give it back."""
    with _Place(source):
        _check_scheme(scheme)
        _need(_whole(ou_rows, 1, MOST_ROWS), f"ou_rows of 1 to {MOST_ROWS}", repr(ou_rows))
    return scheme, ou_rows


def _check_scheme(scheme: Any) -> None:
    known = isinstance(scheme, str) and scheme in SCHEMES
    _need(known, f"a scheme of {', '.join(SCHEMES)}", repr(scheme))


def _check_fields(scheme: Any, terms: Any, identity: Any) -> None:
    _check_scheme(scheme)
    _need(_whole(terms, 1, MAX_TERMS), f"1 to {MAX_TERMS} terms", repr(terms))
    _need(not identity or terms == 1, "1 term to an identity map", repr(terms))


def _check_groups(mapping: LayerMapping, node: Matrix) -> None:
    """Check that groups lie in the layer and refer to what they have."""
    outputs, inputs, height, width = node.weight.shape
    count, kernel = outputs // node.groups, height * width
    touched = np.zeros(outputs, bool)
    weights = 0
    for number, group in enumerate(mapping.groups):
        where = f"of group {number}"
        begin, end = group.first_output, group.first_output + group.outputs
        _need(0 <= begin < end <= outputs, f"outputs 0 to {outputs - 1} {where}", (begin, end - 1))
        part = begin // count
        _need(end <= (part + 1) * count, f"outputs {where} in one group of the convolution", end)
        low, high = part * inputs, (part + 1) * inputs
        ends = group.channel, group.channel + group.channels
        _need(low <= ends[0] < ends[1] <= high, f"channels {low} to {high - 1} {where}", ends)
        block = touched[begin:end]
        _need(block.all() or not block.any(), f"outputs {where} that are all new or none", begin)
        block[:] = True
        kept = group.kept
        _need(kept <= group.outputs, f"at most {group.outputs} kept patterns {where}", kept)
        _check_shapes(group, kernel, where)
        weights += group.outputs * group.values.shape[1]
        if mapping.identity:
            _need(kept == group.outputs, f"{group.outputs} kept patterns {where}", kept)
            _need(group.slot is None, f"no reuse words {where} of an identity map", "some")
        else:
            _check_words(group, mapping.terms, where)
    # So that no file has more to be worked out than its weights are worth.
    most = outputs * inputs * kernel
    _need(weights <= most, f"patterns of at most {most} weights over all outputs", weights)


def _check_shapes(group: PatternGroup, kernel: int, where: str) -> None:
    """Check the shapes and patterns of a group."""
    shapes = len(group.shapes)
    used = np.concatenate([[-1], group.shape_of, [shapes]])
    steps = np.diff(used)
    fits = steps.min() >= 0 and steps.max() <= 1 and steps[0] == steps[-1] == 1
    _need(fits, f"patterns {where} by shape, all of {shapes} used", "others")
    _need(
        group.values.ndim == 2 and len(group.values) == group.kept,
        f"values of {group.kept} patterns {where}",
        group.values.shape,
    )
    if not shapes:
        _need(not group.values.size, f"no values {where}", group.values.shape)
        return
    lengths = np.array([len(each) for each in group.shapes])
    _need(lengths.min() >= 1, f"shapes {where} of at least one row", int(lengths.min()))
    width = int(lengths.max())
    _need(
        group.values.shape[1] == width, f"{width} values to a pattern {where}", group.values.shape
    )
    rows = np.concatenate(group.shapes).astype(np.int64)
    least, most = rows.min(0).tolist(), rows.max(0).tolist()
    _need(
        min(least) >= 0 and most[0] < kernel and most[1] < group.channels,
        f"rows {where} in {kernel} positions and {group.channels} channels",
        f"{least} to {most}",
    )
    order = rows[:, 0] * group.channels + rows[:, 1]
    rising = np.diff(order) > 0
    rising[np.cumsum(lengths)[:-1] - 1] = True
    _need(rising.all(), f"rows {where} by position, then channel", "others")
    behind = np.arange(width) >= lengths[group.shape_of][:, None]
    _need(not group.values[behind].any(), f"zeros behind the rows of a pattern {where}", "others")


def _check_words(group: PatternGroup, terms: int, where: str) -> None:
    """Check the reuse words of a group."""
    slot, shift, sign = group.slot, group.shift, group.sign
    size = (group.outputs, terms)
    if slot is None or shift is None or sign is None:
        raise InputError(f"expected reuse words {where}, found none")
    for name, values in (("slot", slot), ("shift", shift), ("sign", sign)):
        _need(values.shape == size, f"{name} {where} of shape {size}", values.shape)
    _need(
        slot.min() >= -1 and slot.max() < group.kept,
        f"slots {where} of -1 to {group.kept - 1}",
        f"{slot.min()} to {slot.max()}",
    )
    _need(
        shift.min() >= MIN_SHIFT and shift.max() <= MAX_SHIFT,
        f"shifts {where} of {MIN_SHIFT} to {MAX_SHIFT}",
        f"{shift.min()} to {shift.max()}",
    )
    _need((np.abs(sign) == 1).all(), f"signs {where} of 1 and -1", "others")


def _check_weights(node: Matrix, weight_q8: NDArray[np.int64], units: NDArray[np.float64]) -> None:
    """Check that a mapping gives the layer's weights."""
    _need(not node.exact, "weights in floating point", "8-bit integers")
    _need(
        units.shape == (len(weight_q8),) and np.isfinite(units).all(),
        f"{len(weight_q8)} finite scales",
        f"{np.count_nonzero(np.isfinite(units))} of shape {units.shape}",
    )
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = _real(weight_q8, units)
        near = np.abs(node.weight - wanted) <= TOLERANCE * np.abs(wanted) + 2.0**-149
    _need(
        near.all(),
        "the weights that it gives (they were changed after fine-tuning)",
        f"{near.size - np.count_nonzero(near)} others of {near.size}",
    )


# Text that a file carries


def encode(network: FloatNetwork) -> str:
    """Write the mappings of a network as text; the same ones as the same text.

    Raises
    ------
    InputError
        They do not fit the network: see :func:`check`.
    """
    check(network)
    tuned = network.tuned
    assert tuned is not None
    nodes = [node for node in network.nodes if isinstance(node, Matrix)]
    layers, members = [], {}
    for node in nodes:
        mapping = tuned.mappings.get(node.name)
        if mapping is None:
            continue
        for key, values in _arrays(mapping, node.weight).items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, values.astype(_ARRAYS[key]), allow_pickle=False)
            members[f"{len(layers)}.{key}.npy"] = buffer.getvalue()
        layers.append(
            {
                "name": node.name,
                "scheme": mapping.scheme,
                "terms": mapping.terms,
                "identity": mapping.identity,
                "full_offsets": mapping.full_offsets,
                "dropped": mapping.dropped,
            }
        )
    header = {
        "format": FORMAT,
        "version": VERSION,
        "scheme": tuned.scheme,
        "ou_rows": tuned.ou_rows,
        "layers": layers,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in ({"header.json": json.dumps(header).encode()} | members).items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return base64.b64encode(buffer.getvalue()).decode()


def _arrays(mapping: LayerMapping, weight: Weight) -> dict[str, NDArray]:
    """Arrays of a layer, all groups one behind the other."""
    groups = mapping.groups
    sizes = [
        (each.channel, each.channels, each.first_output, each.outputs, each.kept, len(each.shapes))
        for each in groups
    ]
    rows = [shape[:, 0] * each.channels + shape[:, 1] for each in groups for shape in each.shapes]
    arrays = {
        "groups": np.array(sizes, np.int32).reshape(-1, 6),
        "lengths": np.array([len(each) for each in rows], np.int32),
        "rows": _joined(rows),
        "shape_of": _joined([each.shape_of for each in groups]),
        "values": _joined([each.values for each in groups]),
        "scales": mapping.scales(weight),
    }
    if not mapping.identity:
        arrays |= {key: _joined([getattr(each, key) for each in groups]) for key in _WORDS}
    return arrays


def _joined(parts: list[NDArray]) -> NDArray:
    return np.concatenate([np.zeros(0, np.int64), *(np.ravel(each) for each in parts)])


def decode(text: str, network: FloatNetwork) -> Tuned:
    """Read the mappings that came with a network.

    Raises
    ------
    InputError
        They are damaged, of another version, or do not fit the network: see :func:`check`.
    """
    source = network.source
    try:
        archive = Archive(base64.b64decode(text, validate=True))
        header = plain_json(archive.read("header.json"))
    except (DamagedError, ValueError, binascii.Error) as error:
        found = str(error)[:100] or type(error).__name__
        raise InputError(f"expected whole mappings, found: {found}, in {source}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"expected mappings of format {FORMAT}, found others, in {source}")
    if header.get("version") != VERSION:
        found = repr(header.get("version"))[:40]
        raise InputError(f"expected mappings of version {VERSION}, found {found}, in {source}")
    scheme, ou_rows = _header(header.get("scheme"), header.get("ou_rows"), source)
    layers = header.get("layers")
    if not isinstance(layers, list) or not all(isinstance(each, dict) for each in layers):
        raise InputError(f"expected mappings with a list of layers, found none, in {source}")
    nodes = {node.name: node for node in network.nodes if isinstance(node, Matrix)}
    mappings: dict[str, LayerMapping] = {}
    left = _Left(groups=MOST_GROUPS, shapes=MOST_SHAPES)
    for number, entry in enumerate(layers):
        name = entry.get("name")
        if not isinstance(name, str) or name not in nodes or name in mappings:
            found = repr(name)[:80]
            raise InputError(f"expected one mapping to a layer, found {found}, in {source}")
        with _Place(source, name):
            arrays = {
                key: _array(archive, f"{number}.{key}.npy", kind)
                for key, kind in _ARRAYS.items()
                if key not in _WORDS or not entry.get("identity")
            }
            mappings[name] = _mapping(entry, arrays, nodes[name], ou_rows, left)
    return Tuned(scheme=scheme, ou_rows=ou_rows, mappings=mappings)


@dataclass
class _Left:
    """Groups and shapes that a file may still have."""

    groups: int
    shapes: int

    def take(self, groups: int, shapes: int) -> None:
        self.groups -= groups
        self.shapes -= shapes
        _need(
            min(self.groups, self.shapes) >= 0,
            f"at most {MOST_GROUPS} groups and {MOST_SHAPES} shapes in a file",
            f"{MOST_GROUPS - self.groups} and {MOST_SHAPES - self.shapes}",
        )


def _array(archive: Archive, name: str, kind: type) -> NDArray:
    try:
        values = archive.array(name)
    except DamagedError as error:
        raise InputError(f"expected the array {name}, found: {error}") from None
    axes = 2 if name.endswith(".groups.npy") else 1
    _need(
        values.dtype == kind and values.ndim == axes,
        f"{name} as {np.dtype(kind)} with {axes} axes",
        f"{values.dtype} with {values.ndim}",
    )
    return values


def _mapping(
    entry: Mapping[str, Any],
    arrays: Mapping[str, NDArray],
    node: Matrix,
    ou_rows: int,
    left: _Left,
) -> LayerMapping:
    """Put the mapping of a layer together, and check it."""
    scheme, terms = entry.get("scheme"), entry.get("terms")
    identity, full_offsets = entry.get("identity"), entry.get("full_offsets")
    for key in ("identity", "full_offsets"):
        _need(isinstance(entry.get(key), bool), f"{key} true or false", repr(entry.get(key)))
    _check_fields(scheme, terms, identity)
    assert isinstance(scheme, str)
    assert isinstance(terms, int)
    groups = _groups(arrays, terms, left)
    mapping = LayerMapping(
        scheme=scheme,
        terms=terms,
        identity=bool(identity),
        full_offsets=bool(full_offsets),
        groups=groups,
        weight_q8=np.zeros(node.weight.shape, np.int64),
        kept=0,
        reused=0,
        dropped=0,
        ous_dense=dense_ous(node.weight, ou_rows),
    )
    _check_groups(mapping, node)
    found = effective_weights(mapping, node.weight.shape)
    _check_weights(node, found, arrays["scales"])
    kept, reused, least = _counts(groups)
    dropped, most = entry.get("dropped"), 0 if identity else node.weight.size - kept - reused
    _need(_whole(dropped, least, most), f"{least} to {most} dropped patterns", repr(dropped))
    whole = replace(mapping, weight_q8=found, kept=kept, reused=reused, dropped=dropped)
    return _with_scales(whole, node.weight, arrays["scales"])


def _groups(arrays: Mapping[str, NDArray], terms: int, left: _Left) -> tuple[PatternGroup, ...]:
    """Cut the arrays of a layer into its groups."""
    sizes, lengths = arrays["groups"].astype(np.int64), arrays["lengths"].astype(np.int64)
    _need(sizes.shape[1] == 6, "six numbers to a group", sizes.shape)
    left.take(len(sizes), len(lengths))
    _need(not sizes.size or sizes.min() >= 0, "sizes of at least 0", sizes.min(initial=0))
    _need(
        not lengths.size or lengths.min() >= 1, "shapes of at least one row", lengths.min(initial=1)
    )
    ends = dict.fromkeys(arrays, 0)

    def cut(key: str, count: int) -> NDArray:
        begin = ends[key]
        ends[key] = begin + count
        _need(ends[key] <= len(arrays[key]), f"{key} of all groups", f"{len(arrays[key])} numbers")
        return arrays[key][begin : ends[key]]

    result = []
    for channel, channels, first_output, outputs, kept, shapes in sizes.tolist():
        _need(
            channels >= 1 and outputs >= 1, "groups with channels and outputs", (channels, outputs)
        )
        sizes_of = cut("lengths", shapes)
        rows = cut("rows", int(sizes_of.sum()))
        table = np.stack(np.divmod(rows, np.int32(channels)), axis=1).astype(np.int32, copy=False)
        parts = np.split(table, np.cumsum(sizes_of)[:-1]) if shapes else []
        width = int(sizes_of.max(initial=0))
        words: dict[str, Any] = {}
        if "slot" in arrays:
            words = {key: cut(key, outputs * terms).reshape(outputs, terms) for key in _WORDS}
        result.append(
            PatternGroup(
                channel=channel,
                channels=channels,
                first_output=first_output,
                outputs=outputs,
                shapes=tuple(parts),
                shape_of=cut("shape_of", kept),
                values=cut("values", kept * width).reshape(kept, width),
                **words,
            )
        )
    for key in ("lengths", "rows", "shape_of", "values", *(key for key in _WORDS if key in arrays)):
        _need(ends[key] == len(arrays[key]), f"{ends[key]} {key} to the groups", len(arrays[key]))
    return tuple(result)
