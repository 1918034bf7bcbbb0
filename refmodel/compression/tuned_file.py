"""Mappings of a fine-tuned network as text that an ONNX file carries."""

import base64
import binascii
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.archive import Archive, DamagedError, plain_json
from refmodel.compression.schemes import LayerMapping, PatternGroup, Weight
from refmodel.compression.schemes.base import dense_ous
from refmodel.compression.tuned import (
    Place,
    Tuned,
    check,
    check_fields,
    check_groups,
    check_header,
    check_weights,
    counts,
    effective_weights,
    need,
    whole,
    with_scales,
)
from refmodel.errors import InputError
from refmodel.network.graph import FloatNetwork, Matrix

FORMAT, VERSION = "prap-mappings", 1

MOST_GROUPS, MOST_SHAPES = 1 << 17, 1 << 22
"""Pattern groups, and shapes, of all layers of a file together.

More than VGG19 comes to under any scheme; ``orc`` has the most shapes, one to an output and chunk.
"""

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
    scheme, ou_rows = check_header(header.get("scheme"), header.get("ou_rows"), source)
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
        with Place(source, name):
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
        need(
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
    need(
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
        need(isinstance(entry.get(key), bool), f"{key} true or false", repr(entry.get(key)))
    check_fields(scheme, terms, identity)
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
    check_groups(mapping, node)
    found = effective_weights(mapping, node.weight.shape)
    check_weights(node, found, arrays["scales"])
    kept, reused, least = counts(groups)
    dropped, most = entry.get("dropped"), 0 if identity else node.weight.size - kept - reused
    need(whole(dropped, least, most), f"{least} to {most} dropped patterns", repr(dropped))
    complete = replace(mapping, weight_q8=found, kept=kept, reused=reused, dropped=dropped)
    return with_scales(complete, node.weight, arrays["scales"])


def _groups(arrays: Mapping[str, NDArray], terms: int, left: _Left) -> tuple[PatternGroup, ...]:
    """Cut the arrays of a layer into its groups."""
    sizes, lengths = arrays["groups"].astype(np.int64), arrays["lengths"].astype(np.int64)
    need(sizes.shape[1] == 6, "six numbers to a group", sizes.shape)
    left.take(len(sizes), len(lengths))
    need(not sizes.size or sizes.min() >= 0, "sizes of at least 0", sizes.min(initial=0))
    need(
        not lengths.size or lengths.min() >= 1, "shapes of at least one row", lengths.min(initial=1)
    )
    ends = dict.fromkeys(arrays, 0)

    def cut(key: str, count: int) -> NDArray:
        begin = ends[key]
        ends[key] = begin + count
        need(ends[key] <= len(arrays[key]), f"{key} of all groups", f"{len(arrays[key])} numbers")
        return arrays[key][begin : ends[key]]

    result = []
    for channel, channels, first_output, outputs, kept, shapes in sizes.tolist():
        need(
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
        need(ends[key] == len(arrays[key]), f"{ends[key]} {key} to the groups", len(arrays[key]))
    return tuple(result)
