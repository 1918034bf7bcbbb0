"""Golden cases: the published program's results, and what is said of damaged folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from refmodel.compression import golden_cases
from refmodel.compression.golden_cases import check_folder
from refmodel.errors import InputError
from tests.support import ROOT

FEW = Path(__file__).parent / "golden"
"""Some published cases, so that every checkout has them."""

FEW_CASES = len(json.loads((FEW / "index.json").read_text())["cases"])

ALL = ROOT.parent / "shared" / "golden"
"""All 125 published cases, where they are beside this checkout."""

PUBLISHED = [FEW, ALL] if ALL.is_dir() else [FEW]
SHAPE_ARGUMENTS = {
    "channel_number": 1,
    "pattern_value_number": 2,
    "pattern_shape_number": 8,
    "OU_size": 8,
}
WEIGHTS = np.array([[1, 2, 3, 0, 0, 0, 0, 0, 0]] * 2, np.float32).reshape(2, 1, 3, 3)
MASK = np.array([[0, 1, 1, 0, 0, 0, 0, 0, 0]] * 2, np.uint8).reshape(2, 1, 3, 3)


def case(name: str, **changes) -> dict:
    return {
        "id": name,
        "file": f"{name}.npz",
        "function": "get_shape_mask",
        "args": SHAPE_ARGUMENTS,
        "outputs": ["mask"],
    } | changes


def write(folder: Path, *cases: dict, **arrays: np.ndarray) -> Path:
    """Write a folder; every case gets the same archive."""
    stored = {"weights": WEIGHTS, "mask": MASK} | arrays
    for entry in cases:
        np.savez(folder / entry["file"], allow_pickle=False, **stored)
    (folder / "index.json").write_text(json.dumps({"cases": cases}))
    return folder


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.parent.name)
def test_the_published_cases_are_reproduced(folder):
    report = check_folder(folder)
    cases = FEW_CASES if folder == FEW else 125
    assert report.lines() == [f"{cases} of {cases} cases reproduced"]


MAP = golden_cases.prap_map


@pytest.mark.parametrize(
    "mutant",
    [
        lambda codes, mask, channels, keep: MAP(codes, mask * 0 + 1, channels, keep),
        lambda codes, mask, channels, keep: MAP(codes * mask, mask, channels, keep),
        lambda codes, mask, channels, keep: MAP(codes, mask, channels, keep * 0.9),
    ],
    ids=["no-mask", "masked-codes", "less-kept"],
)
def test_mutant_maps_fail_published_cases(monkeypatch, mutant):
    monkeypatch.setattr(golden_cases, "prap_map", mutant)
    assert check_folder(FEW).failures


def test_other_folders_of_the_form_work(tmp_path):
    folder = write(tmp_path, case("a"), case("b", function="get_mask"), case("c"))
    report = check_folder(str(folder))
    assert report.lines() == ["not implemented: get_mask (1 case)", "2 of 3 cases reproduced"]


def test_a_worked_map_is_reproduced(tmp_path):
    # A fully connected layer of one group: outputs [4, 2], [2, 1] (its half) and zeros.
    weights = np.array([[4, 2], [2, 1], [0, 0]], np.float32)
    # Codes 32512 and 16256; 16256 / 256 = 63.5 rounds to 64: y = [127, 64], s * y = [63.5, 32].
    entry = case(
        "fc",
        function="pattern_shape_and_value_similar_translate",
        args=SHAPE_ARGUMENTS | {"channel_number": 2, "threshold": 0.4},
        outputs=["map_table", "mask", "multiple_relationship_table", "reuse_ratio"],
    )
    table = np.array([[[1, 0], [2, -1], [-1, 0]]] * 2, np.int16)
    scales = np.array([[1, 1], [0.5, 0.5], [0, 0]], np.float32)
    arrays = {
        "weights": weights,
        "mask": np.ones((3, 2), np.uint8),
        "map_table": table,
        "multiple_relationship_table": scales,
        "reuse_ratio": np.array(2 / 3),
    }
    assert check_folder(write(tmp_path, entry, **arrays)).lines() == ["1 of 1 cases reproduced"]
    arrays["reuse_ratio"] = np.array(0.5)
    arrays["map_table"] = table + np.int16(1)
    report = check_folder(write(tmp_path, entry, **arrays))
    reason = (
        "map_table: 12 of 12 values differ, first at [0, 0, 0]: expected 2, found 1; "
        "reuse_ratio: 1 of 1 values differ: expected 0.5, found 0.6666666666666666"
    )
    assert report.failures == (("fc", reason),)


SIMILAR = golden_cases.similar_map
IDENTICAL = golden_cases.identical_map


@pytest.mark.parametrize(
    ("name", "mutant"),
    [
        ("similar_map", lambda codes, c, keep: MAP(codes, np.ones_like(codes, np.uint8), c, keep)),
        ("similar_map", lambda codes, c, keep: SIMILAR(codes, c, keep * 0.9)),
        ("identical_map", lambda codes, c, t, **skip: IDENTICAL(codes, c, t)),
        ("identical_map", lambda codes, c, t, **skip: IDENTICAL(codes, c, t / 2, **skip)),
        ("structure_mask", lambda weight, keep: golden_cases.orc_mask(weight, keep)),
        ("orc_mask", lambda weight, keep: golden_cases.structure_mask(weight, keep)),
    ],
    ids=["walk", "similar-keep", "zero-channels", "threshold", "structure", "orc"],
)
def test_other_mutants_fail_published_cases(monkeypatch, name, mutant):
    original = getattr(golden_cases, name)
    monkeypatch.setattr(golden_cases, name, mutant)
    assert check_folder(FEW).failures
    monkeypatch.setattr(golden_cases, name, original)
    assert not check_folder(FEW).failures


# One group of two channels: [127, 42] is 85 from the kept [127, 127], at most T = 169; zero is
# dropped.
IDENTICAL_WEIGHTS = np.array([[127, 127], [127, 42], [0, 0]], np.float32)[:, :, None, None]
IDENTICAL_TABLE = np.array([[[1, 0], [2, -1], [-1, 0]]] * 2, np.int16)
IDENTICAL_CASE = {
    "function": "pattern_value_identical_translate",
    "args": {"channel_number": 2, "threshold": 0.34},
    "outputs": ["map_table", "derived_map_table_fixed_target", "reuse_ratio"],
}


@pytest.mark.parametrize("published", [0, 7], ids=["zeros", "wrong"])
@pytest.mark.parametrize("first_only", [False, True], ids=["all", "first"])
def test_a_derived_map_is_the_rule_and_may_be_of_first_channels_only(
    tmp_path, published, first_only
):
    table = IDENTICAL_TABLE.copy()
    if first_only:
        table[1, :2] = 0
    arrays = {
        "weights": IDENTICAL_WEIGHTS,
        "map_table": table * 0 + published,
        "derived_map_table_fixed_target": table,
        "reuse_ratio": np.array(2 / 3),
    }
    folder = write(tmp_path, case("a", **IDENTICAL_CASE), **arrays)
    assert check_folder(folder).lines() == ["1 of 1 cases reproduced"]
    table[0, 0, 1] = 2
    folder = write(tmp_path, case("a", **IDENTICAL_CASE), **arrays)
    assert check_folder(folder).reproduced == 0


def test_a_map_that_is_blank_beyond_its_first_channels_has_its_end_mark(tmp_path):
    table = IDENTICAL_TABLE.copy()
    table[1] = 0
    entry = case("a", **IDENTICAL_CASE | {"outputs": ["derived_map_table_fixed_target"]})
    arrays = {"weights": IDENTICAL_WEIGHTS, "derived_map_table_fixed_target": table}
    assert check_folder(write(tmp_path, entry, **arrays)).reproduced == 0


def test_a_derived_mask_is_the_rule(tmp_path):
    weights = np.array([[4, 1, 2, 3], [1, 2, 3, 4]], np.float32)
    rule = np.array([[1, 0, 0, 1], [0, 0, 1, 1]], np.uint8)
    entry = case(
        "a",
        function="get_ORC_mask",
        args={"keep_ratio": 0.5},
        outputs=["derived_mask_rowwise_topk", "mask"],
    )
    arrays = {"weights": weights, "mask": rule * 0, "derived_mask_rowwise_topk": rule}
    assert check_folder(write(tmp_path, entry, **arrays)).reproduced == 1
    arrays["derived_mask_rowwise_topk"] = rule[::-1]
    assert check_folder(write(tmp_path, entry, **arrays)).reproduced == 0


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (
            {"mask": 1 - MASK},
            "mask: 18 of 18 values differ, first at [0, 0, 0, 0]: expected 1, found 0",
        ),
        ({"mask": MASK[:1]}, "mask: expected uint8 [1, 1, 3, 3], found uint8 [2, 1, 3, 3]"),
        (
            {"mask": MASK.astype(np.int8)},
            "mask: expected int8 [2, 1, 3, 3], found uint8 [2, 1, 3, 3]",
        ),
    ],
    ids=["values", "shape", "type"],
)
def test_a_difference_is_reported(tmp_path, arrays, reason):
    report = check_folder(write(tmp_path, case("a"), **arrays))
    assert report.failures == (("a", reason),)
    assert report.lines() == [f"failed: a: {reason}", "0 of 1 cases reproduced"]


def test_an_output_that_does_not_exist_is_reported(tmp_path):
    report = check_folder(write(tmp_path, case("a", outputs=["code"]), code=MASK))
    assert report.failures == (("a", "code: no such output"),)


def test_an_empty_folder_of_cases_has_none(tmp_path):
    assert check_folder(write(tmp_path)).lines() == ["0 of 0 cases reproduced"]


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        check_folder(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("expected ")
    return message


def test_a_missing_folder_is_refused(tmp_path):
    assert f"found none at {tmp_path / 'no' / 'index.json'}" in refusal(tmp_path / "no")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "expected JSON, found none (Expecting property name"),
        ("[]", "expected an object with a list 'cases', found none in"),
        ('{"cases": {}}', "expected an object with a list 'cases', found none in"),
        ('{"cases": [1]}', "expected a str as 'id', found None in case 0 of"),
        (json.dumps({"cases": [case("a"), case("b", args=None)]}),
         "expected a dict as 'args', found None in case 1 of"),
        (json.dumps({"cases": [case("a", outputs=[])]}),
         "expected 'outputs' to compare, found none in case 0 of"),
    ],
    ids=["json", "list", "no-list", "no-case", "field", "outputs"],
)  # fmt: skip
def test_a_bad_index_is_refused(tmp_path, text, expected):
    (tmp_path / "index.json").write_text(text)
    message = refusal(tmp_path)
    assert message.startswith(expected)
    assert str(tmp_path / "index.json") in message


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def corrupt(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[150] ^= 0xFF
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def plain_array(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, WEIGHTS)


def objects(file: Path) -> None:
    np.savez(file, weights=np.array([{}], object), mask=MASK)


@pytest.mark.parametrize("damage", [cut, corrupt, empty, plain_array, objects])
def test_a_damaged_archive_is_refused(tmp_path, damage):
    folder = write(tmp_path, case("a"))
    damage(folder / "a.npz")
    message = refusal(folder)
    assert message.startswith("expected an npz archive, found none (")
    assert message.endswith(f"in {folder / 'a.npz'}")


def test_a_missing_archive_is_refused(tmp_path):
    folder = write(tmp_path, case("a"))
    (folder / "a.npz").unlink()
    assert refusal(folder) == f"expected a file, found none at {folder / 'a.npz'}"


@pytest.mark.parametrize(
    ("changes", "arrays", "expected"),
    [
        ({"outputs": ["masks"]}, {}, "expected an array 'masks', found none in"),
        ({"args": {}}, {}, "expected an argument 'channel_number', found none for"),
        ({}, {"weights": WEIGHTS[0]}, "expected weights of 2 or 4 dimensions, found 3 in"),
        ({}, {"weights": WEIGHTS * np.float32(np.nan)},
         "expected a usable case, found that weight must be finite, not"),
        ({}, {"weights": WEIGHTS.astype(float)},
         "expected a usable case, found that weight must be a float32 array, not 'float64' for"),
        ({"args": SHAPE_ARGUMENTS | {"OU_size": "8"}}, {},
         "expected a usable case, found that rows must be an integer, not '8' for"),
    ],
    ids=["array", "argument", "dimensions", "nan", "type", "argument-type"],
)  # fmt: skip
def test_an_unusable_case_is_refused(tmp_path, changes, arrays, expected):
    message = refusal(write(tmp_path, case("a", **changes), **arrays))
    assert message.startswith(expected)
    assert str(tmp_path / "a.npz") in message
