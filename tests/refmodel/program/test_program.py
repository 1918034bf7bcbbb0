"""Program files: what is saved is what is loaded, and nothing else is; arrays that do not fit."""

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refmodel.errors import InputError
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from tests.support.layers.builders import random_layer_program
from tests.support.layers.programs import make


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "net.prap"
    make().save(path)
    return path


@pytest.mark.parametrize("seed", range(5))
def test_what_is_loaded_is_what_was_saved(seed, tmp_path):
    program = make(seed)
    program.save(tmp_path / "a.prap")
    loaded = Program.load(tmp_path / "a.prap")
    for was, now in zip(program.layers, loaded.layers, strict=True):
        for item in dataclasses.fields(LayerProgram):
            a, b = getattr(was, item.name), getattr(now, item.name)
            assert type(a) is type(b)
            assert np.array_equal(a, b)
            assert not isinstance(b, np.ndarray) or b.dtype == a.dtype
    for was, now in zip(program.steps, loaded.steps, strict=True):
        assert (was.op, was.inputs, was.output) == (now.op, now.inputs, now.output)
        assert was.params.keys() == now.params.keys()
        assert all(np.array_equal(was.params[key], now.params[key]) for key in was.params)
    for name in ("tensors", "input", "output", "preprocess", "about"):
        assert getattr(program, name) == getattr(loaded, name)
    loaded.save(tmp_path / "b.prap")
    assert (tmp_path / "a.prap").read_bytes() == (tmp_path / "b.prap").read_bytes()


def test_other_programs_have_other_bytes(tmp_path):
    for seed in (0, 1):
        make(seed).save(tmp_path / f"{seed}.prap")
    assert (tmp_path / "0.prap").read_bytes() != (tmp_path / "1.prap").read_bytes()


def test_missing_file_is_named(tmp_path):
    path = tmp_path / "none.prap"
    with pytest.raises(InputError, match=f"^expected a program file, found nothing at {path}$"):
        Program.load(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=f"expected a whole program file, .*damaged one: {saved}"):
        Program.load(saved)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_passes_for_another_program(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("flip")
    program = make()
    program.save(folder / "net.prap")
    content = bytearray((folder / "net.prap").read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (folder / "net.prap").write_bytes(content)
    # Some bits of a zip mean nothing (dates, attributes); then the program must be the same.
    try:
        loaded = Program.load(folder / "net.prap")
    except InputError:
        return
    loaded.save(folder / "again.prap")
    program.save(folder / "net.prap")
    assert (folder / "again.prap").read_bytes() == (folder / "net.prap").read_bytes()


def rewrite(path: Path, change) -> None:
    """Rewrite a program file with ``change(name, bytes) -> bytes`` of its members, None to drop."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if (new := change(name, content)) is not None:
                archive.writestr(name, new)


def header(**values):
    def change(name: str, content: bytes) -> bytes:
        if name != "header.json":
            return content
        return json.dumps(json.loads(content) | values).encode()

    return change


def test_altered_weights_are_refused(saved):
    def change(name, content):
        return content[:-1] + bytes([content[-1] ^ 1]) if name == "layer1.weights.npy" else content

    rewrite(saved, change)
    message = rf"^expected checksum \w{{12}}\.\.\., found \w{{12}}\.\.\.: {saved} was altered$"
    with pytest.raises(InputError, match=message):
        Program.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(header(output="a"), id="header"),
        pytest.param(lambda n, c: None if n == "layer0.bias.npy" else c, id="array-left-out"),
    ],
)
def test_altered_parts_are_refused(saved, change):
    rewrite(saved, change)
    with pytest.raises(InputError, match="was altered"):
        Program.load(saved)


def test_other_versions_and_formats_are_refused(saved):
    rewrite(saved, header(version=3))
    with pytest.raises(InputError, match=f"^expected program version 1 or 2, found 3 in {saved}$"):
        Program.load(saved)
    rewrite(saved, header(format="other"))
    message = f"^expected a file of format prap-program, found another in {saved}$"
    with pytest.raises(InputError, match=message):
        Program.load(saved)
    rewrite(saved, lambda name, content: b"[]" if name == "header.json" else content)
    with pytest.raises(InputError, match=message):
        Program.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda n, c: None if n == "header.json" else c, id="no-header"),
        pytest.param(lambda n, c: b"{" if n == "header.json" else c, id="bad-header"),
        pytest.param(lambda n, c: b"" if n == "layer0.bias.npy" else c, id="empty-array"),
    ],
)
def test_damaged_members_are_refused(saved, change):
    rewrite(saved, change)
    with pytest.raises(InputError, match="found a damaged one"):
        Program.load(saved)


def test_well_summed_nonsense_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "net.prap"
    make().save(path)
    monkeypatch.setattr("refmodel.program.program._digest", lambda body, arrays: "0")
    rewrite(path, header(checksum="0", layers=[{"name": "a"}]))
    with pytest.raises(InputError, match=f"expected a well-formed program, found .* in {path}"):
        Program.load(path)


def base(**kwargs) -> LayerProgram:
    """A layer with words, two groups, several gathers, and accumulation."""
    seed = 0
    while True:
        rng = np.random.default_rng(seed)
        values = {
            "identity": False, "groups": 1, "long_patterns": True, "terms": 2,
            "in_shape": (6, 6, 8), "kernel": (3, 3), "dilation": (1, 1),
            "pads": (1, 1, 1, 1), "stride": (1, 1), "outputs": 6,
        }  # fmt: skip
        layer = random_layer_program(rng, **(values | kwargs))
        if len(layer.group_kept) > 1 and (layer.identity or layer.gather_accumulate.any()):
            return layer
        seed += 1


def edit(name: str, index, value):
    """Set one entry of an array; ``value`` may be a function of the old one."""

    def change(layer: LayerProgram) -> dict:
        array = getattr(layer, name).astype(np.int64)
        array[index] = value(array[index]) if callable(value) else value
        return {name: array}

    return change


def drop(name: str):
    return lambda layer: {name: getattr(layer, name)[:-1]}


def fixed(**values):
    return lambda layer: values


def accumulating(name: str, value):
    """Change an entry of the first accumulating gather."""

    def change(layer: LayerProgram) -> dict:
        index = int(np.flatnonzero(layer.gather_accumulate)[0])
        return edit(name, index, value)(layer)

    return change


def uneven(layer: LayerProgram) -> dict:
    """Move a pattern from an accumulating gather to another, so that the sum stays."""
    counts = layer.gather_patterns.astype(np.int64)
    index = int(np.flatnonzero(layer.gather_accumulate)[0])
    counts[index] += 1
    weights = np.concatenate([layer.weights, layer.weights[:1]])
    return {"gather_patterns": counts, "weights": weights}


CHECKS = [
    (fixed(kernel=(0, 3)), "a size is below 1"),
    (fixed(stride=(0, 1)), "stride and dilation must be at least 1"),
    (fixed(pads=(-1, 1, 1, 1)), "pads must not be negative"),
    (fixed(out_shape=(5, 6, 6)), "expected output size 6 along axis 0, found 5"),
    (fixed(out_shape=(6, 7, 6)), "expected output size 6 along axis 1, found 7"),
    (fixed(zero_in=256), "zero_in must be 0 to 255"),
    (fixed(clip_lo=-1), "clip_lo must be 0 to 255"),
    (fixed(terms=5), "terms must be 1 to 4, not 5"),
    (drop("group_outputs"), "group_outputs must have"),
    (drop("gather_length"), "gather_length must have"),
    (
        lambda p: {f"segment_{n}": np.zeros(0) for n in ("position", "channel", "length")},
        "the program is empty",
    ),
    (edit("group_gathers", 0, 0), "a group has no gather"),
    (edit("group_gathers", 0, lambda n: n + 1), "group_gathers does not add up"),
    (edit("gather_segments", 0, 0), "a gather has no segment"),
    (edit("gather_segments", 0, lambda n: n + 1), "gather_segments does not add up"),
    (edit("gather_patterns", 0, 0), "a gather has no pattern"),
    (edit("gather_patterns", 0, lambda n: n + 1), "weights do not match gather_patterns"),
    (drop("segment_length"), "segment arrays differ in length"),
    (drop("word_sign"), "word arrays differ"),
    (fixed(terms=3), "expected .* reuse words, found"),
    (edit("segment_position", 0, 9), "a segment's position is outside the kernel"),
    (edit("segment_position", 0, -1), "a segment's position is outside the kernel"),
    (edit("segment_length", 0, 0), "a segment is empty"),
    (edit("segment_channel", 0, 8), "a segment reads channels that the input does not have"),
    (edit("gather_base", 0, -1), "a segment reads channels that the input does not have"),
    (
        lambda p: {"segment_length": np.full_like(p.segment_length, 8),
                   "gather_base": np.zeros_like(p.gather_base)},
        "a gather has more rows than the OU",
    ),
    (edit("group_first_output", 0, 1), "a group touches outputs that the layer does not have"),
    (edit("gather_final", -1, 0), "a group's last gather is not final"),
    (accumulating("gather_accumulate", 0), "gather_accumulate and gather_final disagree"),
    (edit("gather_accumulate", 0, 1), "gather_accumulate and gather_final disagree"),
    (uneven, "an accumulating gather has another number of patterns than the one before"),
    (edit("group_kept", 0, lambda n: n + 1), "group_kept does not match its gathers"),
    (edit("word_shift", 0, 16), "a reuse word's shift is out of range"),
    (edit("word_shift", 0, -1), "a reuse word's shift is out of range"),
    (
        lambda p: edit("word_slot", 0, 99)(p) | edit("word_shift", 0, 8)(p),
        "a reuse word's slot is not of its group",
    ),
    (edit("word_sign", 0, 2), "a reuse word's sign is not 0 or 1"),
    (edit("group_write", 0, 0), "group 0 adds to unwritten outputs"),
    (edit("group_write", -1, 1), "an output is not written exactly once"),
    (drop("bias"), "bias must have 6 entries"),
    (drop("multiplier"), "multiplier must have 6 entries"),
    (drop("shift"), "shift must have 6 entries"),
    (edit("multiplier", 0, -32768), "a multiplier does not fit signed 16 bit"),
    (edit("shift", 0, 48), "a shift is not in 0 to 47"),
    (edit("shift", 0, -1), "a shift is not in 0 to 47"),
    (lambda _: {"conv_groups": 0}, "conv_groups must divide channels and outputs, not 0"),
    (lambda _: {"conv_groups": 4}, "conv_groups must divide channels and outputs, not 4"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [pytest.param(*check, id=f"{i}-{check[1][:40]}") for i, check in enumerate(CHECKS)],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    layer = base()
    with pytest.raises(InputError, match=f"^layer layer: {message}"):
        dataclasses.replace(layer, **change(layer))


def test_identity_map_needs_a_pattern_for_each_output():
    layer = base(identity=True, long_patterns=False)
    outputs = layer.group_outputs.astype(np.int64)
    outputs[1] -= 1
    with pytest.raises(InputError, match=r"^layer layer: identity map: kept != outputs"):
        dataclasses.replace(layer, group_outputs=outputs)


def test_arrays_cannot_be_changed_afterwards():
    layer = base()
    with pytest.raises(ValueError, match="read-only"):
        layer.weights[0, 0] = 1


def test_sizes_follow_from_the_arrays():
    layer = base()
    assert layer.positions == 36
    assert layer.padded_shape == (8, 8, 8)
    starts = np.cumsum(layer.gather_segments) - layer.gather_segments
    rows = [layer.segment_length[a : a + n].sum() for a, n in
            zip(starts, layer.gather_segments, strict=True)]  # fmt: skip
    assert layer.gather_rows.tolist() == rows
