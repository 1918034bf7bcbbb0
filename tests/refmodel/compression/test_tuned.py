"""Fine-tuned networks: mappings written beside the weights, read back, refused where damaged."""

import base64
import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from refmodel.compression.schemes import SCHEMES, LayerMapping, LayerSetting, PatternGroup
from refmodel.compression.tuned import KEY, attach, check, effective_weights
from refmodel.config import MAX_SHIFT, MIN_SHIFT
from refmodel.errors import InputError
from refmodel.exchange.onnx.export import to_onnx, write_onnx
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.graph import FloatNetwork, Matrix
from tests.fuzz.damage import archive, npy, zip_bomb
from tests.support.nets.onnx_nets import save
from tests.support.nets.tuned_nets import mapped, plain_model, tuned_network

HARD: dict[str, tuple[str, dict[str, LayerSetting]]] = {
    # Nothing kept, patterns of several operation units, signs, four terms, one output to a group.
    "nothing-kept": ("prap", {"c[23]*": LayerSetting(scheme="prap", keep=0.0)}),
    "no-channel": ("structured", {"c[23]*": LayerSetting(scheme="structured", keep=0.0)}),
    "no-weight": ("orc", {"c[23]*": LayerSetting(scheme="orc", keep=0.0)}),
    "nothing-of-groups": (
        "structured+identical",
        {"c3*": LayerSetting(scheme="structured+identical", keep=0.5, structure_keep=0.0)},
    ),
    "long-patterns": ("identical", {"c2*": LayerSetting(scheme="identical", channels=3, keep=0.5)}),
    "signs": ("similar", {"c*": LayerSetting(scheme="similar", keep=0.3, signed=True)}),
    "terms": ("dictionary", {"c*": LayerSetting(scheme="dictionary", patterns=3, terms=4)}),
    "first-layer-too": ("prap", {"c1*": LayerSetting(scheme="prap", keep=0.5)}),
}


def same_groups(one: PatternGroup, other: PatternGroup) -> None:
    for name in ("channel", "channels", "first_output", "outputs"):
        assert getattr(one, name) == getattr(other, name)
    assert len(one.shapes) == len(other.shapes)
    for first, second in zip(one.shapes, other.shapes, strict=True):
        assert second.dtype == np.int32
        np.testing.assert_array_equal(first, second)
    for name in ("shape_of", "values", "slot", "shift", "sign"):
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None)
        if first is not None:
            assert first.dtype == second.dtype
            assert first.size == second.size
            np.testing.assert_array_equal(first.reshape(-1), second.reshape(-1))


def same_mappings(one: LayerMapping, other: LayerMapping) -> None:
    for name in ("scheme", "terms", "identity", "full_offsets", "kept", "reused", "dropped"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.ous_dense == other.ous_dense
    np.testing.assert_array_equal(one.weight_q8, other.weight_q8)
    assert len(one.groups) == len(other.groups)
    for pair in zip(one.groups, other.groups, strict=True):
        same_groups(*pair)


@pytest.mark.parametrize("case", [*SCHEMES, *HARD])
def test_every_mapping_reads_back_as_it_was(case, tmp_path):
    scheme, settings = HARD.get(case, (case, None))
    _, quant, mappings = mapped(tmp_path, scheme, settings)
    assert bool(mappings) == (scheme != "dense")
    tuned = tuned_network(tmp_path, scheme, settings)
    path = tmp_path / "tuned.onnx"
    write_onnx(tuned, path)
    back = load_onnx(path)
    assert back.tuned is not None
    assert (back.tuned.scheme, back.tuned.ou_rows) == (scheme, 8)
    assert list(back.tuned.mappings) == list(mappings)
    nodes = {node.name: node for node in back.nodes if isinstance(node, Matrix)}
    layers = {layer.name: layer for layer in quant.layers}
    for name, mapping in mappings.items():
        found, weight = back.tuned.mappings[name], nodes[name].weight
        same_mappings(mapping, found)
        units = mapping.scales(layers[name].weight)
        if weight.any():  # zeros have no scale
            np.testing.assert_allclose(found.scales(weight), units, rtol=1e-15)
        # The network's weights are the effective ones.
        np.testing.assert_array_equal(
            weight, mapping.effective(layers[name].weight).astype(np.float32)
        )
    write_onnx(back, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_a_network_without_mappings_has_none(tmp_path):
    plain = load_onnx(save(plain_model(), tmp_path))
    assert plain.tuned is None
    assert not to_onnx(plain).metadata_props
    (entry,) = to_onnx(tuned_network(tmp_path, "orc")).metadata_props
    assert entry.key == KEY


def test_effective_weights_by_hand():
    # Two channels of a 1x2 kernel, two groups of one channel each, three outputs.
    # Group 0: shapes {position 1} and {0, 1}; patterns [5] and [3, -4].
    # Output 0: 2 * pattern 1 - pattern 0 / 4 = [6, -8 - 1.25]; output 1: none; output 2: pattern 0.
    # Group 1: pattern [7, 1] on {0, 1}, output 1: -1/256 of it, output 2: 64 times it, twice.
    first = PatternGroup(
        channel=0,
        channels=1,
        first_output=0,
        outputs=3,
        shapes=(np.array([[1, 0]], np.int32), np.array([[0, 0], [1, 0]], np.int32)),
        shape_of=np.array([0, 1], np.int32),
        values=np.array([[5, 0], [3, -4]], np.int8),
        slot=np.array([[1, 0], [-1, -1], [0, -1]], np.int32),
        shift=np.array([[1, -2], [0, 0], [0, 0]], np.int8),
        sign=np.array([[1, -1], [1, 1], [1, 1]], np.int8),
    )
    second = replace(
        first,
        channel=1,
        shapes=first.shapes[1:],
        shape_of=np.array([0], np.int32),
        values=np.array([[7, 1]], np.int8),
        slot=np.array([[-1, -1], [-1, 0], [0, 0]], np.int32),
        shift=np.array([[0, 0], [0, -8], [6, 6]], np.int8),
        sign=np.array([[1, 1], [1, -1], [1, 1]], np.int8),
    )
    mapping = LayerMapping(
        scheme="dictionary",
        terms=2,
        identity=False,
        full_offsets=False,
        groups=(first, second),
        weight_q8=np.zeros((3, 2, 1, 2), np.int64),
        kept=3,
        reused=1,
        dropped=2,
        ous_dense=3,
    )
    expected = 256 * np.array(
        [[[6, -9.25], [0, 0]], [[0, 0], [-7 / 256, -1 / 256]], [[0, 5], [896, 128]]]
    )
    found = effective_weights(mapping, (3, 2, 1, 2))
    np.testing.assert_array_equal(found, expected.astype(np.int64)[:, :, None])


# Refused


def unpack(model: onnx.ModelProto) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    (entry,) = model.metadata_props
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(entry.value))) as source:
        header = json.loads(source.read("header.json"))
        arrays = {
            name: np.lib.format.read_array(io.BytesIO(source.read(name)))
            for name in source.namelist()
            if name.endswith(".npy")
        }
    return header, arrays


def pack(model: onnx.ModelProto, header: Any, arrays: dict[str, np.ndarray]) -> None:
    members = {"header.json": json.dumps(header).encode()}
    members |= {name: npy(values) for name, values in arrays.items()}
    model.metadata_props[0].value = base64.b64encode(archive(members)).decode()


def refusal(model: onnx.ModelProto, folder: Path) -> str:
    path = save(model, folder)
    with pytest.raises(InputError) as caught:
        load_onnx(path)
    message = str(caught.value)
    assert message.startswith("expected ")
    assert ", found" in message
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, onnx.ModelProto]:
    folder = tmp_path_factory.mktemp("tuned")
    return {scheme: to_onnx(tuned_network(folder, scheme)) for scheme in ("prap", "orc")}


@pytest.fixture
def model(models) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(models["prap"])
    return result


def weights(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    (found,) = [each for each in model.graph.initializer if each.name == name]
    return found


@pytest.mark.parametrize("name", ["c2_node", "c3_node", "f5_node"])
def test_weights_that_were_changed_are_refused(name, model, tmp_path):
    tensor = weights(model, f"{name}.weight")
    values = numpy_helper.to_array(tensor).copy()
    place = np.unravel_index(np.abs(values).argmax(), values.shape)
    values[place] *= 1 + 1e-5
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    message = refusal(model, tmp_path)
    assert "expected the weights that it gives (they were changed after fine-tuning)" in message
    assert f"found 1 others of {values.size}, in the mapping of layer '{name}'" in message


def test_weights_of_dense_layers_gains_and_biases_are_free(model, tmp_path):
    for name in ("c1_node.weight", "y_node.weight", "c2_node.gain", "c2_node.bias", "f5_node.bias"):
        tensor = weights(model, name)
        values = numpy_helper.to_array(tensor) * np.float32(1.5)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert load_onnx(save(model, tmp_path)).tuned is not None


def test_a_rounding_of_a_weight_is_allowed(model, tmp_path):
    tensor = weights(model, "c2_node.weight")
    values = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(np.nextafter(values, 2 * values), tensor.name))
    assert load_onnx(save(model, tmp_path)).tuned is not None


Change = Callable[[dict[str, Any], dict[str, np.ndarray]], None]


def setting(key: str, value: Any) -> Change:
    """Set a value of the header, or of its first layer."""

    def change(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        (header["layers"][0] if key in header["layers"][0] else header)[key] = value

    return change


def values(name: str, value: Any, at: Any = 0) -> Change:
    """Set a value of an array of the first layer."""

    def change(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        arrays[f"0.{name}.npy"].flat[at] = value

    return change


def whole(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Replace an array of the first layer."""

    def change(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        arrays[f"0.{name}.npy"] = make(arrays[f"0.{name}.npy"])

    return change


def without(name: str) -> Change:
    def change(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        del arrays[f"0.{name}.npy"]

    return change


def layer(*, place: int | None = None, **values: Any) -> Change:
    """Add a layer to the list, at a place, or a copy of the first."""

    def change(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        header["layers"].append(header["layers"][place or 0] | values)
        number = len(header["layers"]) - 1
        first = {name: each for name, each in arrays.items() if name.startswith("0.")}
        arrays.update({f"{number}{name[1:]}": each for name, each in first.items()})

    return change


def both(*changes: Change) -> Change:
    def change(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        for each in changes:
            each(header, arrays)

    return change


# Groups of c2 under prap: one channel each, 24 outputs; kernel positions 0 to 8.
REFUSED: dict[str, tuple[Change, str]] = {
    "version": (setting("version", 2), "expected mappings of version 1, found 2, in "),
    "no-version": (setting("version", None), "expected mappings of version 1, found None"),
    "format": (setting("format", "others"), "expected mappings of format prap-mappings"),
    "network-scheme": (
        lambda header, arrays: header.update(scheme="best"),
        "expected a scheme of dense, dictionary, identical, orc, ",
    ),
    "scheme": (setting("scheme", 7), "found 7, in the mapping of layer 'c2_node'"),
    "ou-rows": (setting("ou_rows", 33), "expected ou_rows of 1 to 32, found 33, in the mappings"),
    "ou-rows-kind": (setting("ou_rows", True), "expected ou_rows of 1 to 32, found True"),
    "layers": (setting("layers", {"a": 1}), "expected mappings with a list of layers, found none"),
    "layer": (setting("layers", [3]), "expected mappings with a list of layers, found none"),
    "name": (setting("name", "c9_node"), "expected one mapping to a layer, found 'c9_node'"),
    "name-kind": (setting("name", ["c2_node"]), "expected one mapping to a layer, found ['c2"),
    "name-twice": (layer(), "expected one mapping to a layer, found 'c2_node'"),
    "other-layer": (setting("name", "y_node"), "in the mapping of layer 'y_node'"),
    "terms": (setting("terms", 5), "expected 1 to 4 terms, found 5"),
    "more-terms": (setting("terms", 2), "expected slot of all groups, found 384 numbers"),
    "identity-terms": (
        both(setting("identity", True), setting("terms", 2)),
        "expected 1 term to an identity map, found 2",
    ),
    "identity": (setting("identity", True), "expected 24 kept patterns of group 0, found 18"),
    "identity-kind": (setting("identity", 1), "expected identity true or false, found 1"),
    "offsets-kind": (setting("full_offsets", "no"), "expected full_offsets true or false, found"),
    "dropped": (setting("dropped", -1), "dropped patterns, found -1"),
    "dropped-too-few": (setting("dropped", 0), "expected 1 to 3073 dropped patterns, found 0"),
    "dropped-too-many": (setting("dropped", 3074), "dropped patterns, found 3074"),
    "no-array": (without("slot"), "expected the array 0.slot.npy, found: '0.slot.npy'"),
    "kind": (
        whole("values", lambda a: a.astype(np.int16)),
        "expected 0.values.npy as int8 with 1 axes, found int16 with 1",
    ),
    "axes": (
        whole("rows", lambda a: a[None]),
        "expected 0.rows.npy as int32 with 1 axes, found int32 with 2",
    ),
    "groups-width": (whole("groups", lambda a: a[:, :5].copy()), "expected six numbers to a group"),
    "group-missing": (
        whole("groups", lambda a: a[:-1].copy()),
        " lengths to the groups, found ",
    ),
    "rows-missing": (whole("rows", lambda a: a[:-1].copy()), "expected rows of all groups, found"),
    "words-left": (whole("sign", lambda a: np.append(a, a[:1])), "expected 384 sign to the groups"),
    "negative-size": (values("groups", -1, 4), "expected sizes of at least 0, found -1"),
    "no-channels": (values("groups", 0, 1), "expected groups with channels and outputs, found (0"),
    "channel": (values("groups", 16, 0), "expected channels 0 to 15 of group 0, found (16, 17)"),
    "outputs": (values("groups", 1, 2), "expected outputs 0 to 23 of group 0, found (1, 24)"),
    "empty-shape": (values("lengths", 0), "expected shapes of at least one row, found 0"),
    "row-outside": (values("rows", 9, 7), "rows of group 0 in 9 positions and 1 channels, found"),
    "row-negative": (values("rows", -1), "rows of group 0 in 9 positions and 1 channels, found"),
    "rows-unsorted": (values("rows", 0, 1), "expected rows of group 0 by position, then channel"),
    "shape-of": (values("shape_of", 1), "expected patterns of group 0 by shape, all of"),
    "slot": (values("slot", 18), "expected slots of group 0 of -1 to 17, found "),
    "slot-negative": (values("slot", -2), "expected slots of group 0 of -1 to 17, found -2"),
    "shift-up": (
        values("shift", MAX_SHIFT + 1),
        f"expected shifts of group 0 of {MIN_SHIFT} to {MAX_SHIFT}, found",
    ),
    "shift-down": (values("shift", MIN_SHIFT - 1), "expected shifts of group 0 of -8 to 6, found"),
    "sign": (values("sign", 0), "expected signs of group 0 of 1 and -1, found others"),
    "pattern": (values("values", 1), "expected the weights that it gives"),
    "other-slot": (values("slot", 3), "expected the weights that it gives"),
    "scale": (values("scales", 1.5), "expected the weights that it gives"),
    "scale-nan": (values("scales", np.nan), "expected 24 finite scales, found 23 of shape (24,)"),
    "scales": (
        whole("scales", lambda a: a[:-1].copy()),
        "expected 24 finite scales, found 23 of shape (23,)",
    ),
    "several-times": (
        both(
            *(
                whole(name, lambda a: np.concatenate([a, a]))
                for name in ("groups", "lengths", "rows", "shape_of", "values")
            ),
            *(whole(name, lambda a: np.concatenate([a, a])) for name in ("slot", "shift", "sign")),
        ),
        "expected patterns of at most 3456 weights over all outputs, found 6144",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mapping_that_is_none_is_refused(case, model, tmp_path):
    change, expected = REFUSED[case]
    header, arrays = unpack(model)
    change(header, arrays)
    pack(model, header, arrays)
    assert expected in refusal(model, tmp_path)


def test_groups_that_overlap_in_part_are_refused(model, tmp_path):
    header, arrays = unpack(model)
    groups = arrays["0.groups.npy"]
    # The second group has only the first 20 outputs, the third all of them: that is well. The
    # first group with 20 outputs leaves the second with some new outputs and some old ones.
    kept = groups[0, 4]
    assert kept <= 20
    for name in ("slot", "shift", "sign"):
        arrays[f"0.{name}.npy"] = np.delete(arrays[f"0.{name}.npy"], slice(20, 24))
    groups[0, 3] = 20
    pack(model, header, arrays)
    assert "expected outputs of group 1 that are all new or none, found 0" in refusal(
        model, tmp_path
    )


def test_groups_across_a_grouped_convolution_are_refused(model, tmp_path):
    header, arrays = unpack(model)
    assert header["layers"][1]["name"] == "c3_node"
    groups = arrays["1.groups.npy"]
    assert groups[0].tolist()[:4] == [0, 1, 0, 12]
    for place, value, expected in (
        (2, 6, "expected outputs of group 0 in one group of the convolution, found 18"),
        (0, 12, "expected channels 0 to 11 of group 0, found (12, 13)"),
    ):
        changed = arrays | {"1.groups.npy": groups.copy()}
        changed["1.groups.npy"][0, place] = value
        pack(model, header, changed)
        assert expected in refusal(model, tmp_path)


def test_identity_maps_have_a_pattern_to_each_output(models, tmp_path):
    model = onnx.ModelProto()
    model.CopyFrom(models["orc"])
    header, arrays = unpack(model)
    assert header["layers"][0]["identity"]
    groups = arrays["0.groups.npy"]
    groups[0, 4] -= 1
    pack(model, header, arrays)
    assert "in the mapping of layer 'c2_node'" in refusal(model, tmp_path)


TEXTS = {
    "empty": ("", "expected whole mappings, found"),
    "not-base64": ("prap!", "expected whole mappings, found"),
    "not-ascii": ("größe", "expected whole mappings, found"),
    "no-zip": (base64.b64encode(b"zip").decode(), "expected whole mappings, found"),
    "no-header": (
        base64.b64encode(archive({"a": b"{}"})).decode(),
        "expected whole mappings, found: 'header.json'",
    ),
    "no-json": (base64.b64encode(archive({"header.json": b"{"})).decode(), "expected whole"),
    "deep": (
        base64.b64encode(archive({"header.json": b"[" * 100_000})).decode(),
        "expected whole mappings, found: nested too deep",
    ),
    "list": (
        base64.b64encode(archive({"header.json": b"[]"})).decode(),
        "expected mappings of format prap-mappings, found others",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_that_holds_no_mappings_is_refused(case, model, tmp_path):
    text, expected = TEXTS[case]
    model.metadata_props[0].value = text
    assert expected in refusal(model, tmp_path)


def test_mappings_given_twice_are_refused(model, tmp_path):
    model.metadata_props.add(key=KEY, value=model.metadata_props[0].value)
    assert "duplicate keys in metadata_props" in refusal(model, tmp_path)


def test_truncated_and_flipped_text_is_refused(model, tmp_path):
    content = base64.b64decode(model.metadata_props[0].value)
    rng = np.random.default_rng(3)
    path = tmp_path / "net.onnx"
    accepted = 0
    for number in range(300):
        damaged = bytearray(content)
        if number % 3:
            place = int(rng.integers(len(content)))
            damaged[place] ^= 1 << int(rng.integers(8))
        else:
            del damaged[int(rng.integers(len(content))) :]
        model.metadata_props[0].value = base64.b64encode(bytes(damaged)).decode()
        path.write_bytes(model.SerializeToString())
        with contextlib.suppress(InputError):
            load_onnx(path)
            accepted += 1  # a bit of a date or an attribute, which no one reads
    assert accepted < 60


def test_a_bomb_is_refused_before_it_is_unpacked(model, tmp_path):
    for name in ("header.json", "0.groups.npy"):
        bomb = base64.b64encode(zip_bomb(name, b"")).decode()
        model.metadata_props[0].value = bomb
        assert "expected whole mappings, found" in refusal(model, tmp_path)


def test_as_many_groups_as_a_file_may_have(model, tmp_path, monkeypatch):
    for name, most in (("MOST_GROUPS", 20), ("MOST_SHAPES", 30)):
        monkeypatch.setattr(f"refmodel.compression.tuned_file.{name}", most)
        assert f"{most} {name[5:].lower()}" in refusal(model, tmp_path)
        monkeypatch.undo()


# Put together


def test_what_does_not_fit_is_not_attached(tmp_path):
    plain, quant, mappings = mapped(tmp_path, "prap")
    layers = {each.name: each for each in quant.layers}
    scales = {name: each.scales(layers[name].weight) for name, each in mappings.items()}

    def put(found: dict[str, LayerMapping], **options: Any) -> FloatNetwork:
        chosen = {"scheme": "prap", "ou_rows": 8} | options
        return attach(plain, mappings=found, scales=scales | {"x": scales["c2_node"]}, **chosen)

    with pytest.raises(InputError, match="expected a mapping of a layer, found one of 'x'"):
        put({"x": mappings["c2_node"]})
    with pytest.raises(InputError, match=r"layer 'c3_node'"):
        put({"c3_node": mappings["c2_node"]})
    with pytest.raises(InputError, match="expected ou_rows of 1 to 32, found 0"):
        put(mappings, ou_rows=0)
    with pytest.raises(InputError, match="expected a scheme of dense, dictionary"):
        put(mappings, scheme="best")
    c2 = mappings["c2_node"]
    with pytest.raises(InputError, match="expected effective weights that its groups give, found"):
        put({"c2_node": replace(c2, weight_q8=c2.weight_q8 + 1)})
    with pytest.raises(InputError, match=r"kept, .* reused and at least .* dropped patterns"):
        put({"c2_node": replace(c2, kept=c2.kept + 1)})


def test_a_network_whose_weights_were_changed_is_not_written(tmp_path):
    tuned = tuned_network(tmp_path, "dictionary")
    check(tuned)
    factor = np.ones((24, 24, 1, 1), np.float32)
    factor[3] = 1.01
    nodes = tuple(
        replace(node, weight=node.weight * factor)
        if isinstance(node, Matrix) and node.name == "c4_node"
        else node
        for node in tuned.nodes
    )
    changed = replace(tuned, nodes=nodes)
    path = tmp_path / "changed.onnx"
    with pytest.raises(InputError, match=r"the weights that it gives .* layer 'c4_node'"):
        write_onnx(changed, path)
    assert not path.exists()


def test_a_layer_of_zeros_has_a_mapping(tmp_path):
    plain, _, mappings = mapped(tmp_path, "prap", {"c[23]*": LayerSetting(scheme="prap", keep=0.0)})
    scales = {name: np.zeros(len(each.weight_q8)) for name, each in mappings.items()}
    zeros = {name: each for name, each in mappings.items() if not each.weight_q8.any()}
    assert "c2_node" in zeros
    tuned = attach(plain, scheme="prap", ou_rows=8, mappings=zeros, scales=scales)
    back = load_onnx(save(to_onnx(tuned), tmp_path))
    assert back.tuned is not None
    assert not back.tuned.mappings["c2_node"].weight_q8.any()
