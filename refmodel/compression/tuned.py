"""Fine-tuned networks: the mapping of each layer, beside weights that it gives exactly.

Whoever trains a network under a scheme ends with weights that *are* a mapping: which patterns are
kept, and how each output is put together from them. To choose anew from the weights alone would in
general find another one (:mod:`refmodel.compression.patterned` says why), so an ONNX file carries
the mappings, under the key ``prap.mappings`` of its ``metadata_props``, for programs that do not
look for it an ordinary network with the effective weights.

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

Effective weights and the counts of patterns and operation units follow from these, and are worked
out when a file is read. Nothing in a file is trusted: a mapping that is not one, or that does not
give the weights beside it to within their rounding to float32, is refused by the name of its layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.quantize import MatrixLayer
from refmodel.compression.schemes import SCHEMES, LayerMapping, LayerSetting, PatternGroup, Weight
from refmodel.compression.schemes.base import MAX_TERMS, group_weights, weight_unit
from refmodel.config import FRACTION_BITS, MAX_SHIFT, MIN_SHIFT
from refmodel.errors import InputError
from refmodel.network.graph import FloatNetwork, Matrix

KEY = "prap.mappings"
"""Key of the mappings among an ONNX model's ``metadata_props``."""

MOST_ROWS = 32
"""R of the tallest operation unit that an engine can have."""

TOLERANCE = 2.0**-22
"""Relative difference of a weight from what its mapping gives: a few roundings to float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """The mappings that a network was fine-tuned for.

    Attributes
    ----------
    scheme
        The scheme of the network, a name in ``refmodel.compression.schemes.SCHEMES``.
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
            own[node.name] = with_scales(mapping, weight, units)
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
    check_header(tuned.scheme, tuned.ou_rows, network.source)
    layers = {node.name: node for node in network.nodes if isinstance(node, Matrix)}
    for name, mapping in tuned.mappings.items():
        if name not in layers:
            raise InputError(
                f"expected a mapping of a layer, found one of {name!r}, in {network.source}"
            )
        node = layers[name]
        with Place(network.source, name):
            check_fields(mapping.scheme, mapping.terms, mapping.identity)
            check_groups(mapping, node)
            found = effective_weights(mapping, node.weight.shape)
            need(
                np.array_equal(found, mapping.weight_q8),
                "effective weights that its groups give",
                f"{np.count_nonzero(found != mapping.weight_q8)} others",
            )
            check_weights(node, found, mapping.scales(node.weight))
            kept, reused, least = counts(mapping.groups)
            need(
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
        Its layers as :func:`refmodel.compression.quantize.quantize` gives them, with scales to a
        layer or to an output.
    scheme, settings, ou_rows
        The scheme, settings by name pattern and rows of an operation unit that the caller asks for.

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
        result[layer.name] = with_scales(mapping, layer.weight, units)
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
        Shape of the layer's weights, [out, in / groups, kh, kw].
    """
    return group_weights(mapping.groups, shape).astype(np.int64, copy=False)


def counts(groups: Sequence[PatternGroup]) -> tuple[int, int, int]:
    """Patterns kept and reused in some groups, and the least number dropped.

    Patterns that were dropped in groups that are left out cannot be counted from the others.
    """
    kept = sum(group.kept for group in groups)
    full = [group.slot for group in groups if group.slot is not None and group.kept]
    used = sum(int(np.count_nonzero((slot >= 0).any(1))) for slot in full)
    reused = max(0, used - kept)
    return kept, reused, max(0, sum(map(len, full)) - kept - reused)


def _real(weight_q8: NDArray[np.signedinteger], units: NDArray[np.float64]) -> NDArray[np.float64]:
    return weight_q8.astype(np.float64) * np.ldexp(units, -FRACTION_BITS)[:, None, None, None]


def with_scales(mapping: LayerMapping, weight: Weight, units: NDArray[np.float64]) -> LayerMapping:
    """The same mapping for ``weight``, one unit of each output being worth ``units``."""
    unit = weight_unit(weight)
    return replace(mapping, output_scale=units / unit if unit > 0 else np.ones(len(units)))


# Checks


class Place:
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


def need(condition: Any, expected: str, found: object) -> None:
    """Raise InputError unless ``condition`` holds."""
    if not condition:
        text = str(found)
        raise InputError(f"expected {expected}, found {text if len(text) <= 80 else text[:77]}")


def whole(value: Any, low: int, high: int) -> bool:
    """Whether a value is an integer from ``low`` to ``high``."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def check_header(scheme: Any, ou_rows: Any, source: str) -> tuple[str, int]:
    """Check what is the same for all layers, and give it back."""
    with Place(source):
        _check_scheme(scheme)
        need(whole(ou_rows, 1, MOST_ROWS), f"ou_rows of 1 to {MOST_ROWS}", repr(ou_rows))
    return scheme, ou_rows


def _check_scheme(scheme: Any) -> None:
    known = isinstance(scheme, str) and scheme in SCHEMES
    need(known, f"a scheme of {', '.join(SCHEMES)}", repr(scheme))


def check_fields(scheme: Any, terms: Any, identity: Any) -> None:
    """Check what a mapping says of itself."""
    _check_scheme(scheme)
    need(whole(terms, 1, MAX_TERMS), f"1 to {MAX_TERMS} terms", repr(terms))
    need(not identity or terms == 1, "1 term to an identity map", repr(terms))


def check_groups(mapping: LayerMapping, node: Matrix) -> None:
    """Check that groups lie in the layer and refer to what they have."""
    outputs, inputs, height, width = node.weight.shape
    count, kernel = outputs // node.groups, height * width
    touched = np.zeros(outputs, bool)
    weights = 0
    for number, group in enumerate(mapping.groups):
        where = f"of group {number}"
        begin, end = group.first_output, group.first_output + group.outputs
        need(0 <= begin < end <= outputs, f"outputs 0 to {outputs - 1} {where}", (begin, end - 1))
        part = begin // count
        need(end <= (part + 1) * count, f"outputs {where} in one group of the convolution", end)
        low, high = part * inputs, (part + 1) * inputs
        ends = group.channel, group.channel + group.channels
        need(low <= ends[0] < ends[1] <= high, f"channels {low} to {high - 1} {where}", ends)
        block = touched[begin:end]
        need(block.all() or not block.any(), f"outputs {where} that are all new or none", begin)
        block[:] = True
        kept = group.kept
        need(kept <= group.outputs, f"at most {group.outputs} kept patterns {where}", kept)
        _check_shapes(group, kernel, where)
        weights += group.outputs * group.values.shape[1]
        if mapping.identity:
            need(kept == group.outputs, f"{group.outputs} kept patterns {where}", kept)
            need(group.slot is None, f"no reuse words {where} of an identity map", "some")
        else:
            _check_words(group, mapping.terms, where)
    # So that no file has more to be worked out than its weights are worth.
    most = outputs * inputs * kernel
    need(weights <= most, f"patterns of at most {most} weights over all outputs", weights)


def _check_shapes(group: PatternGroup, kernel: int, where: str) -> None:
    """Check the shapes and patterns of a group."""
    shapes = len(group.shapes)
    used = np.concatenate([[-1], group.shape_of, [shapes]])
    steps = np.diff(used)
    fits = steps.min() >= 0 and steps.max() <= 1 and steps[0] == steps[-1] == 1
    need(fits, f"patterns {where} by shape, all of {shapes} used", "others")
    need(
        group.values.ndim == 2 and len(group.values) == group.kept,
        f"values of {group.kept} patterns {where}",
        group.values.shape,
    )
    if not shapes:
        need(not group.values.size, f"no values {where}", group.values.shape)
        return
    lengths = np.array([len(each) for each in group.shapes])
    need(lengths.min() >= 1, f"shapes {where} of at least one row", int(lengths.min()))
    width = int(lengths.max())
    need(group.values.shape[1] == width, f"{width} values to a pattern {where}", group.values.shape)
    rows = np.concatenate(group.shapes).astype(np.int64)
    least, most = rows.min(0).tolist(), rows.max(0).tolist()
    need(
        min(least) >= 0 and most[0] < kernel and most[1] < group.channels,
        f"rows {where} in {kernel} positions and {group.channels} channels",
        f"{least} to {most}",
    )
    order = rows[:, 0] * group.channels + rows[:, 1]
    rising = np.diff(order) > 0
    rising[np.cumsum(lengths)[:-1] - 1] = True
    need(rising.all(), f"rows {where} by position, then channel", "others")
    behind = np.arange(width) >= lengths[group.shape_of][:, None]
    need(not group.values[behind].any(), f"zeros behind the rows of a pattern {where}", "others")


def _check_words(group: PatternGroup, terms: int, where: str) -> None:
    """Check the reuse words of a group."""
    slot, shift, sign = group.slot, group.shift, group.sign
    size = (group.outputs, terms)
    if slot is None or shift is None or sign is None:
        raise InputError(f"expected reuse words {where}, found none")
    for name, values in (("slot", slot), ("shift", shift), ("sign", sign)):
        need(values.shape == size, f"{name} {where} of shape {size}", values.shape)
    need(
        slot.min() >= -1 and slot.max() < group.kept,
        f"slots {where} of -1 to {group.kept - 1}",
        f"{slot.min()} to {slot.max()}",
    )
    need(
        shift.min() >= MIN_SHIFT and shift.max() <= MAX_SHIFT,
        f"shifts {where} of {MIN_SHIFT} to {MAX_SHIFT}",
        f"{shift.min()} to {shift.max()}",
    )
    need((np.abs(sign) == 1).all(), f"signs {where} of 1 and -1", "others")


def check_weights(node: Matrix, weight_q8: NDArray[np.int64], units: NDArray[np.float64]) -> None:
    """Check that a mapping gives the layer's weights."""
    need(not node.exact, "weights in floating point", "8-bit integers")
    need(
        units.shape == (len(weight_q8),) and np.isfinite(units).all(),
        f"{len(weight_q8)} finite scales",
        f"{np.count_nonzero(np.isfinite(units))} of shape {units.shape}",
    )
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = _real(weight_q8, units)
        near = np.abs(node.weight - wanted) <= TOLERANCE * np.abs(wanted) + 2.0**-149
    need(
        near.all(),
        "the weights that it gives (they were changed after fine-tuning)",
        f"{near.size - np.count_nonzero(near)} others of {near.size}",
    )
