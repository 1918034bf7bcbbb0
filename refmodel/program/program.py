"""A network as the hardware runs it, and its file."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from refmodel.archive import Archive, DamagedError, plain_json
from refmodel.errors import InputError
from refmodel.program.check import check_program, layer_fields
from refmodel.program.layer import LAYER_ARRAYS, LayerProgram
from refmodel.program.step import Step

FORMAT = "prap-program"

FILE = "program.prap"
"""Name of the program in a folder that `prap compress` writes."""

VERSIONS = (1, 2)
"""Versions that are read. A program is written in the first that can say it; 2 has residuals."""

_RESIDUAL = ("residual", "residual_zero", "residual_multiplier", "residual_shift")
"""Fields of a layer that version 1 has not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A compiled network.

    Attributes
    ----------
    layers
        Programs of the convolution and fully connected layers.
    steps
        All operations in topological order; ``layer`` steps refer to ``layers`` by index.
    tensors
        Name to ``{"shape": [H, W, C], "scale": real step of one code, "zero": zero point}``.
    input, output
        Names of the first and last tensor.
    preprocess
        How images become network inputs, as ``refmodel.network.images.Preprocess.to_dict`` has it.
    about
        Facts for reports: network, scheme, settings, calibration, versions.
    """

    layers: tuple[LayerProgram, ...]
    steps: tuple[Step, ...]
    tensors: Mapping[str, Mapping[str, Any]]
    input: str
    output: str
    preprocess: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path | str | IO[bytes]) -> None:
        """Write the program as one file, or to an open one; the same program, the same bytes.

        A folder that is not there yet is made. The file is a zip of ``header.json`` and ``.npy``
        arrays, uncompressed and without dates. The header has the format's name and version and a
        SHA-256 over everything else. Without a fused residual the file is of version 1, and what it
        was before there was a version 2.
        """
        version = 2 if any(layer.residual for layer in self.layers) else 1
        arrays: dict[str, np.ndarray] = {}
        layers = []
        for i, layer in enumerate(self.layers):
            entry: dict[str, Any] = {}
            for item in fields(layer):
                if version == 1 and item.name in _RESIDUAL:
                    continue
                value = getattr(layer, item.name)
                if isinstance(value, np.ndarray):
                    arrays[f"layer{i}.{item.name}"] = value
                else:
                    entry[item.name] = list(value) if isinstance(value, tuple) else value
            layers.append(entry)
        steps = []
        for i, step in enumerate(self.steps):
            params = {}
            for key, value in step.params.items():
                if isinstance(value, np.ndarray):
                    arrays[f"step{i}.{key}"] = value.astype(np.int64)
                    params[key] = {"array": f"step{i}.{key}"}
                else:
                    params[key] = value
            steps.append(
                {
                    "op": step.op,
                    "inputs": list(step.inputs),
                    "output": step.output,
                    "params": params,
                }
            )
        body = {
            "layers": layers,
            "steps": steps,
            "tensors": self.tensors,
            "input": self.input,
            "output": self.output,
            "preprocess": self.preprocess,
            "about": self.about,
        }
        header = {"format": FORMAT, "version": version, "checksum": _digest(body, arrays), **body}
        if isinstance(path, (str, Path)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(
                zipfile.ZipInfo("header.json"), json.dumps(header, sort_keys=True, indent=1)
            )
            for name in sorted(arrays):
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, arrays[name], allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a program file.

        Parameters
        ----------
        path
            The file, or a folder that `prap compress` wrote, which has it as ``program.prap``.

        Raises
        ------
        InputError
            The file is missing, truncated, altered, of another format or version.
        """
        path = Path(path)
        if path.is_dir():
            path = path / FILE
            if not path.exists():
                raise InputError(
                    f"expected a program file or a folder with {FILE}, found none in {path.parent}"
                )
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise InputError(f"expected a program file, found nothing at {path}") from None
        except OSError as error:
            raise InputError(
                f"expected a readable program file, found: {error.strerror}, at {path}"
            ) from None
        try:
            archive = Archive(content)
            header = plain_json(archive.read("header.json"))
            arrays = {
                name.removesuffix(".npy"): archive.array(name)
                for name in archive.names
                if name.endswith(".npy")
            }
        except (DamagedError, ValueError):
            raise InputError(
                f"expected a whole program file, found a damaged one: {path}"
            ) from None
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise InputError(f"expected a file of format {FORMAT}, found another in {path}")
        version = header.get("version")
        if isinstance(version, bool) or version not in VERSIONS:
            raise InputError(f"expected program version 1 or 2, found {version!r} in {path}")
        body = {k: v for k, v in header.items() if k not in ("format", "version", "checksum")}
        digest = _digest(body, arrays)
        if digest != header.get("checksum"):
            raise InputError(
                f"expected checksum {str(header.get('checksum'))[:12]}..., found {digest[:12]}...: "
                f"{path} was altered"
            )
        try:
            program = cls._from_body(body, arrays, version)
            check_program(
                program.layers,
                program.steps,
                program.tensors,
                source=program.input,
                output=program.output,
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            found = repr(error)[:200]
            raise InputError(f"expected a well-formed program, found {found} in {path}") from None
        except InputError as error:
            raise InputError(f"expected a well-formed program, found {error}, in {path}") from None
        return program

    @classmethod
    def _from_body(cls, body: dict[str, Any], arrays: dict[str, np.ndarray], version: int) -> Self:
        layers = []
        for i, entry in enumerate(body["layers"]):
            layer_fields(LayerProgram, entry, f"layer {i}")
            if version == 1 and not entry.keys().isdisjoint(_RESIDUAL):
                raise InputError(f"layer {i}: expected no residual in version 1, found one")
            for name, dtype in LAYER_ARRAYS.items():
                found, axes = arrays[f"layer{i}.{name}"], 2 if name == "weights" else 1
                if found.dtype != dtype or found.ndim != axes:
                    raise InputError(
                        f"layer {i}: expected {name} as {np.dtype(dtype)} with {axes} axes, "
                        f"found {found.dtype} with {found.ndim}"
                    )
            values: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()
            }
            values |= {name: arrays[f"layer{i}.{name}"] for name in LAYER_ARRAYS}
            layers.append(LayerProgram(**values))
        steps = []
        for entry in body["steps"]:
            params = {
                key: arrays[value["array"]]
                if isinstance(value, dict) and isinstance(value.get("array"), str)
                else value
                for key, value in entry["params"].items()
            }
            steps.append(
                Step(
                    op=entry["op"],
                    inputs=tuple(entry["inputs"]),
                    output=entry["output"],
                    params=params,
                )
            )
        return cls(
            layers=tuple(layers),
            steps=tuple(steps),
            tensors=body["tensors"],
            input=body["input"],
            output=body["output"],
            preprocess=body["preprocess"],
            about=body["about"],
        )


def _digest(body: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the canonical JSON of ``body`` and over the arrays by name."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
