"""Check folders of golden cases: inputs, arguments and outputs of the published functions.

A folder holds ``index.json``, an object whose list ``cases`` has for each case its ``id``, ``file``
(an npz archive beside it with ``weights`` and the arrays to compare), ``function``, ``args`` (the
published argument names) and ``outputs`` (the arrays to compare). A case is reproduced when every
output has the same shape, type and values, with two exceptions where the published program has a
slip (docs/specification/algorithm.md, rules 2 and 4):

- where an output ``derived_mask_...`` or ``derived_map_table_...`` is given, it holds what the rule
  gives, and the published ``mask`` or ``map_table`` beside it is not compared;
- a map that was written for the first channel of each group only is compared there.
"""

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.prune import OU_ROWS, orc_mask, shape_mask, structure_mask
from refmodel.compression.reuse import (
    DENSE_LEVELS,
    SIMILAR_LEVELS,
    ReuseMap,
    identical_map,
    prap_map,
    quantise,
    similar_map,
)
from refmodel.errors import InputError

Arrays = dict[str, NDArray]


@dataclass(frozen=True, kw_only=True)
class GoldenReport:
    """Results of a folder of golden cases.

    Attributes
    ----------
    cases
        Cases in the folder.
    reproduced
        Cases whose outputs all came out the same.
    failures
        For each case that did not: its id and what differs.
    not_implemented
        Function to the number of its cases, for the functions that are not implemented here.
    """

    cases: int
    reproduced: int
    failures: tuple[tuple[str, str], ...]
    not_implemented: Mapping[str, int]

    def lines(self) -> list[str]:
        """Text of the report; the last line is ``N of M cases reproduced``."""
        failed = [f"failed: {name}: {reason}" for name, reason in self.failures]
        missing = [
            f"not implemented: {function} ({count} {'case' if count == 1 else 'cases'})"
            for function, count in self.not_implemented.items()
        ]
        return [*failed, *missing, f"{self.reproduced} of {self.cases} cases reproduced"]


def check_folder(path: str | Path) -> GoldenReport:
    """Run every case of a folder whose function is implemented.

    Raises
    ------
    InputError
        The folder, its index or an archive is missing or damaged.
    """
    folder = Path(path)
    cases = _read_index(folder / "index.json")
    failures = []
    missing: Counter[str] = Counter()
    reproduced = 0
    for case in cases:
        function = FUNCTIONS.get(case["function"])
        if function is None:
            missing[case["function"]] += 1
            continue
        file = folder / case["file"]
        outputs = _compared(case["outputs"])
        stored = _read_arrays(file, ["weights", *outputs])
        found = _run(function, stored["weights"], case["args"], file)
        differences = [
            _difference(name, found, stored[name], case["args"].get("channel_number", 1))
            for name in outputs
        ]
        reasons = [reason for reason in differences if reason]
        if reasons:
            failures.append((case["id"], "; ".join(reasons)))
        else:
            reproduced += 1
    return GoldenReport(
        cases=len(cases),
        reproduced=reproduced,
        failures=tuple(failures),
        not_implemented=MappingProxyType(dict(missing)),
    )


def _get_structure_mask(weight: NDArray[np.float32], args: Mapping[str, Any]) -> Arrays:
    """Rule 1 under its published name and arguments."""
    return {"mask": structure_mask(weight, args["keep_ratio"])}


def _get_orc_mask(weight: NDArray[np.float32], args: Mapping[str, Any]) -> Arrays:
    """Rule 2 under its published name and arguments.

    The published program mis-sorts fully connected layers; the derived mask is the rule.
    """
    mask = orc_mask(weight, args["keep_ratio"])
    return {"mask": mask, "derived_mask_rowwise_topk": mask}


def _get_shape_mask(weight: NDArray[np.float32], args: Mapping[str, Any]) -> Arrays:
    """Rule 3 under its published name and arguments."""
    mask = shape_mask(
        weight,
        args["channel_number"],
        args["pattern_value_number"],
        args["pattern_shape_number"],
        args["OU_size"],
    )
    return {"mask": mask}


def _value_identical(weight: NDArray[np.float32], args: Mapping[str, Any]) -> Arrays:
    """Rule 4 under its published name and arguments.

    For convolutions the published program writes the map into the first channel of each group.
    """
    codes = quantise(weight, DENSE_LEVELS)
    found = identical_map(codes, args["channel_number"], args["threshold"])
    return _identical_arrays(found)


def _structure_and_value_identical(weight: NDArray[np.float32], args: Mapping[str, Any]) -> Arrays:
    """Rule 5 under its published name and arguments: groups of one channel, of 8 for 1x1."""
    mask = structure_mask(weight, args["structure_keep_ratio"])
    codes = quantise(weight, DENSE_LEVELS) * mask
    channels = 1 if weight.shape[2] * weight.shape[3] > 1 else OU_ROWS
    found = identical_map(codes, channels, args["threshold"], skip_zero_groups=channels == 1)
    return {"mask": mask} | _identical_arrays(found)


def _identical_arrays(found: ReuseMap) -> Arrays:
    """Outputs of the identical rules. The published targets are wrong; the derived ones are not."""
    table = found.map_table()
    return {
        "map_table": table,
        "derived_map_table_fixed_target": table,
        "reuse_ratio": np.array(found.reuse_ratio),
    }


def _value_similar(weight: NDArray[np.float32], args: Mapping[str, Any]) -> Arrays:
    """Rule 6 under its published name and arguments."""
    codes = quantise(weight, SIMILAR_LEVELS)
    return _similar_arrays(similar_map(codes, args["channel_number"], args["threshold"]))


def _shape_and_value_similar(weight: NDArray[np.float32], args: Mapping[str, Any]) -> Arrays:
    """Rule 7 under its published name and arguments.

    The published function returns the mask as it was before the reused patterns take over the
    shapes of their targets.
    """
    arrays = _get_shape_mask(weight, args)
    codes = quantise(weight, SIMILAR_LEVELS)
    found = prap_map(codes, arrays["mask"], args["channel_number"], args["threshold"])
    return arrays | _similar_arrays(found)


def _similar_arrays(found: ReuseMap) -> Arrays:
    """Outputs of the similar rules."""
    return {
        "map_table": found.map_table(),
        "multiple_relationship_table": found.relationship_table(),
        "reuse_ratio": np.array(found.reuse_ratio),
    }


FUNCTIONS: Mapping[str, Callable[[NDArray[np.float32], Mapping[str, Any]], Arrays]] = (
    MappingProxyType(
        {
            "get_structure_mask": _get_structure_mask,
            "get_ORC_mask": _get_orc_mask,
            "get_shape_mask": _get_shape_mask,
            "pattern_value_identical_translate": _value_identical,
            "pattern_value_similar_translate": _value_similar,
            "structure_and_value_identical_translate": _structure_and_value_identical,
            "pattern_shape_and_value_similar_translate": _shape_and_value_similar,
        }
    )
)
"""Published functions that are implemented: (weights [out, in, kh, kw], arguments) -> outputs."""

DERIVED = {"derived_mask_": "mask", "derived_map_table_": "map_table"}
"""Beginning of a derived output's name, and the published output whose place it takes."""


def _compared(outputs: list[str]) -> list[str]:
    """Outputs of a case without those published ones that a derived one takes the place of."""
    replaced = {
        published
        for prefix, published in DERIVED.items()
        if any(name.startswith(prefix) for name in outputs)
    }
    return [name for name in outputs if name not in replaced]


def _first_channels(table: NDArray[np.int16], channels: int) -> NDArray[np.int16]:
    """Keep of a map [in, out, 2] what a map of each group's first channel has.

    The other channels have zeros up to the end mark, and the end mark.
    """
    result = table.copy()
    others = np.arange(len(table)) % channels > 0
    result[others] *= table[others, :, :1] == -1
    return result


def _read_index(file: Path) -> list[dict[str, Any]]:
    """Read and check the list of cases."""
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"expected a file that can be read, found none at {file}") from error
    except ValueError as error:
        raise InputError(f"expected JSON, found none ({error}) in {file}") from error
    cases = index.get("cases") if isinstance(index, dict) else None
    if not isinstance(cases, list):
        raise InputError(f"expected an object with a list 'cases', found none in {file}")
    kinds = {"id": str, "file": str, "function": str, "args": dict, "outputs": list}
    for number, case in enumerate(cases):
        for key, kind in kinds.items():
            value = case.get(key) if isinstance(case, dict) else None
            if not isinstance(value, kind):
                raise InputError(
                    f"expected a {kind.__name__} as {key!r}, found {value!r} in case {number} "
                    f"of {file}"
                )
        if not case["outputs"]:
            raise InputError(
                f"expected 'outputs' to compare, found none in case {number} of {file}"
            )
    return cases


def _read_arrays(file: Path, names: list[str]) -> Arrays:
    """Read arrays from an archive."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            absent = [name for name in names if name not in archive.files]
            if absent:
                raise InputError(f"expected an array {absent[0]!r}, found none in {file}")
            return {name: archive[name] for name in names}
    except FileNotFoundError as error:
        raise InputError(f"expected a file, found none at {file}") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"expected an npz archive, found none ({reason}) in {file}") from error


def _run(
    function: Callable[[NDArray[np.float32], Mapping[str, Any]], Arrays],
    weight: NDArray,
    args: Mapping[str, Any],
    file: Path,
) -> Arrays:
    """Run a function on weights of two or four dimensions; its arrays have as many."""
    if weight.ndim not in (2, 4):
        raise InputError(f"expected weights of 2 or 4 dimensions, found {weight.ndim} in {file}")
    layer = weight if weight.ndim == 4 else weight[:, :, None, None]
    try:
        arrays = function(layer, args)
    except KeyError as error:
        raise InputError(f"expected an argument {error}, found none for {file}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"expected a usable case, found that {error} for {file}") from error
    return {
        name: array.reshape(weight.shape) if array.shape == layer.shape else array
        for name, array in arrays.items()
    }


def _difference(name: str, found: Arrays, stored: NDArray, channels: int) -> str:
    """Say how a stored array and the one computed here differ; empty where they do not.

    A map of groups of ``channels`` channels may be given for the first channel of each only.
    """
    array = found.get(name)
    if array is None:
        return f"{name}: no such output"
    if array.shape != stored.shape or array.dtype != stored.dtype:
        return (
            f"{name}: expected {stored.dtype} {list(stored.shape)}, "
            f"found {array.dtype} {list(array.shape)}"
        )
    if "map_table" in name and array.ndim == 3 and channels > 1:
        first = _first_channels(array, channels)
        array = first if np.array_equal(first, stored) else array
    different = np.argwhere(np.atleast_1d(array) != np.atleast_1d(stored))
    if not len(different):
        return ""
    at = tuple(different[0].tolist())
    expected, here = np.atleast_1d(stored)[at], np.atleast_1d(array)[at]
    place = f", first at {list(at)}" if stored.ndim else ""
    return (
        f"{name}: {len(different)} of {stored.size} values differ{place}: "
        f"expected {expected}, found {here}"
    )
