"""Programs: what the engine executes, as arrays, and the one file that they are saved in.

A :class:`LayerProgram` is one convolution or fully connected layer, a :class:`Program` a whole
network: its layers, the steps between them (pooling, addition, rearrangement), and how pixels
become input codes. The arrays are logical: memory images for one particular engine are made from
them by ``prap_hw.load``, so a program depends on the OU's rows and on nothing else of the hardware.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from refmodel.archive import Archive, DamagedError, plain_json
from refmodel.config import MAX_SHIFT, MIN_SHIFT, SHIFT_NONE
from refmodel.errors import InputError
from refmodel.program_check import MOST_CODES, check_program, layer_fields

FORMAT = "prap-program"
VERSIONS = (1, 2)
"""What is read. A program is written in the first version that can say it; 2 has residuals."""

_RESIDUAL = ("residual", "residual_zero", "residual_multiplier", "residual_shift")
"""Fields of a layer that version 1 has not."""

_LAYER_ARRAYS = {
    "group_kept": np.int32,
    "group_first_output": np.int32,
    "group_outputs": np.int32,
    "group_write": np.uint8,
    "group_gathers": np.int32,
    "gather_base": np.int32,
    "gather_length": np.int32,
    "gather_segments": np.int32,
    "gather_patterns": np.int32,
    "gather_accumulate": np.uint8,
    "gather_final": np.uint8,
    "segment_position": np.int32,
    "segment_channel": np.int32,
    "segment_length": np.int32,
    "word_slot": np.int32,
    "word_shift": np.int8,
    "word_sign": np.uint8,
    "weights": np.int8,
    "bias": np.int64,
    "multiplier": np.int32,
    "shift": np.int8,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerProgram:
    """One layer's program.

    For every output position the engine walks the groups; for every group its gathers; a gather
    reads its segments' bytes and runs the patterns under it. When a group's partial sums are there
    its reuse words are merged into the accumulators.

    Attributes
    ----------
    name, scheme
        Layer name from the network; scheme that made the program.
    ou_rows
        R, the rows of an OU that the gathers were cut for.
    in_shape, out_shape
        (H, W, C) of the input before padding and of the output.
    kernel, stride, dilation
        (vertical, horizontal), in pixels.
    pads
        (top, left, bottom, right), in pixels; the border holds ``zero_in``.
    conv_groups
        Groups of the convolution: an output has weights for channels / conv_groups inputs.
    zero_in, zero_out, clip_lo, clip_hi
        Codes 0 to 255: zero points of input and output, limits of the output.
    terms
        T, reuse words to an output of a group, 1 to 4.
    identity
        Whether every group maps output ``first_output + j`` to slot j (then there are no words).
    full_offsets
        Whether each segment has its own channel and length; otherwise channel 0 of the group and
        the length of its gather.
    patterns, kept, reused, dropped
        Weight patterns of the layer, and what became of them.
    ous_dense
        OU activations a position of the same layer under scheme dense.
    group_kept, group_first_output, group_outputs
        Per group: slots that it fills; outputs that it touches.
    group_write
        Per group: 1 where it is the first to touch its outputs: it writes instead of adding.
    group_gathers
        Per group: number of gathers.
    gather_base
        Per gather: first input channel.
    gather_length
        Per gather: channels read at each of its positions (0 with ``full_offsets``).
    gather_segments, gather_patterns
        Per gather: number of segments, number of weight patterns under it.
    gather_accumulate
        Per gather: 1 where its sums add into the slots of the gather before it.
    gather_final
        Per gather: 1 where its slots are complete after it.
    segment_position, segment_channel, segment_length
        Per segment: kernel position kh_i*kw+kw_i, channel offset from the base, channels read.
    word_slot, word_shift, word_sign
        Per reuse word, ordered by group, output, term: slot within the group; 8 + k or 15 for
        none; 1 for minus.
    weights
        int8 [patterns, R], patterns in the order of gathers; rows beyond the gather's are 0.
    bias, multiplier, shift
        Per output: see ARCHITECTURE.md, Numbers, output. bias is in accumulator units (1/256).
    residual
        Whether a second operand of the output's shape is added before the one rounding:
        ``(r - residual_zero) * residual_multiplier / 2^residual_shift``, r its codes.
    residual_zero, residual_multiplier, residual_shift
        0 to 255; -32767 to 32767; 0 to the least ``shift``. 0 without ``residual``.
    partial
        Of the class, not of the program: whether some outputs may be left to others. A program
        writes every output; :class:`refmodel.tile.LayerPart` writes each once or not at all.
    """

    partial: ClassVar[bool] = False

    name: str
    scheme: str
    ou_rows: int
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]
    conv_groups: int = 1
    zero_in: int
    zero_out: int
    clip_lo: int
    clip_hi: int
    terms: int
    identity: bool
    full_offsets: bool
    patterns: int
    kept: int
    reused: int
    dropped: int
    ous_dense: int
    group_kept: np.ndarray
    group_first_output: np.ndarray
    group_outputs: np.ndarray
    group_write: np.ndarray
    group_gathers: np.ndarray
    gather_base: np.ndarray
    gather_length: np.ndarray
    gather_segments: np.ndarray
    gather_patterns: np.ndarray
    gather_accumulate: np.ndarray
    gather_final: np.ndarray
    segment_position: np.ndarray
    segment_channel: np.ndarray
    segment_length: np.ndarray
    word_slot: np.ndarray
    word_shift: np.ndarray
    word_sign: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    residual: bool = False
    residual_zero: int = 0
    residual_multiplier: int = 0
    residual_shift: int = 0

    def __post_init__(self) -> None:
        for name, dtype in _LAYER_ARRAYS.items():
            array = np.ascontiguousarray(getattr(self, name), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        self._check()

    def _check(self) -> None:
        """Raise InputError unless the arrays fit together and stay inside the layer."""

        def need(condition: bool, what: str) -> None:
            if not condition:
                raise InputError(f"layer {self.name}: {what}")

        height, width, channels = self.in_shape
        outputs = self.out_shape[2]
        positions = self.kernel[0] * self.kernel[1]
        need(min(*self.in_shape, *self.out_shape, *self.kernel) >= 1, "a size is below 1")
        padded = (height + self.pads[0] + self.pads[2], width + self.pads[1] + self.pads[3])
        for sizes in (self.in_shape, self.out_shape, (*padded, channels)):
            need(prod(sizes) <= MOST_CODES, f"a tensor has more than {MOST_CODES} codes")
        for name in ("bias", "multiplier", "shift"):
            need(getattr(self, name).shape == (outputs,), f"{name} must have {outputs} entries")
        need(min(*self.stride, *self.dilation) >= 1, "stride and dilation must be at least 1")
        need(min(self.pads) >= 0, "pads must not be negative")
        need(
            self.conv_groups >= 1
            and channels % self.conv_groups == 0
            and outputs % self.conv_groups == 0,
            f"conv_groups must divide channels and outputs, not {self.conv_groups!r}",
        )
        for axis, (size, before, after) in enumerate(
            ((height, self.pads[0], self.pads[2]), (width, self.pads[1], self.pads[3]))
        ):
            span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            fits = (size + before + after - span) // self.stride[axis] + 1
            need(
                self.out_shape[axis] == fits,
                f"expected output size {fits} along axis {axis}, found {self.out_shape[axis]}",
            )
        for name in ("zero_in", "zero_out", "clip_lo", "clip_hi"):
            need(0 <= getattr(self, name) <= 255, f"{name} must be 0 to 255")
        need(1 <= self.terms <= 4, f"terms must be 1 to 4, not {self.terms}")
        groups, gathers = len(self.group_kept), len(self.gather_base)
        for prefix, count in (("group_", groups), ("gather_", gathers)):
            for name in _LAYER_ARRAYS:
                if name.startswith(prefix):
                    need(getattr(self, name).shape == (count,), f"{name} must have {count} entries")
        segments, words = len(self.segment_position), len(self.word_slot)
        need(groups >= 1 and gathers >= 1 and segments >= 1, "the program is empty")
        need(int(self.group_gathers.min()) >= 1, "a group has no gather")
        need(int(self.group_gathers.sum()) == gathers, "group_gathers does not add up")
        need(int(self.gather_segments.min()) >= 1, "a gather has no segment")
        need(int(self.gather_segments.sum()) == segments, "gather_segments does not add up")
        need(int(self.gather_patterns.min()) >= 1, "a gather has no pattern")
        need(
            self.weights.shape == (int(self.gather_patterns.sum()), self.ou_rows),
            "weights do not match gather_patterns and ou_rows",
        )
        need(
            self.segment_channel.shape == self.segment_length.shape == (segments,),
            "segment arrays differ in length",
        )
        need(self.word_shift.shape == self.word_sign.shape == (words,), "word arrays differ")
        expected = 0 if self.identity else int(self.group_outputs.sum()) * self.terms
        need(words == expected, f"expected {expected} reuse words, found {words}")
        need(
            0 <= self.segment_position.min() <= self.segment_position.max() < positions,
            "a segment's position is outside the kernel",
        )
        need(int(self.segment_length.min()) >= 1, "a segment is empty")
        owner = np.repeat(np.arange(gathers), self.gather_segments)
        first = self.gather_base[owner].astype(np.int64) + self.segment_channel
        need(
            int(first.min()) >= 0 and int((first + self.segment_length).max()) <= channels,
            "a segment reads channels that the input does not have",
        )
        rows = self.gather_rows
        need(int(rows.max()) <= self.ou_rows, "a gather has more rows than the OU")
        need(
            int(self.group_first_output.min()) >= 0
            and int((self.group_first_output.astype(np.int64) + self.group_outputs).max())
            <= outputs
            and int(self.group_outputs.min()) >= 1,
            "a group touches outputs that the layer does not have",
        )
        last = np.cumsum(self.group_gathers) - 1
        need(bool(self.gather_final[last].all()), "a group's last gather is not final")
        need(
            bool((self.gather_accumulate[1:] == 1 - self.gather_final[:-1]).all())
            and not self.gather_accumulate[0],
            "gather_accumulate and gather_final disagree",
        )
        same = self.gather_accumulate[1:] == 1
        need(
            bool((self.gather_patterns[1:][same] == self.gather_patterns[:-1][same]).all()),
            "an accumulating gather has another number of patterns than the one before",
        )
        kept = np.add.reduceat(
            self.gather_patterns * (self.gather_accumulate == 0), last - self.group_gathers + 1
        )
        need(bool((kept == self.group_kept).all()), "group_kept does not match its gathers")
        if self.identity:
            need(
                bool((self.group_kept == self.group_outputs).all()), "identity map: kept != outputs"
            )
        else:
            none = self.word_shift == SHIFT_NONE
            low, high = 0, MAX_SHIFT - MIN_SHIFT
            need(
                bool((none | ((self.word_shift >= low) & (self.word_shift <= high))).all()),
                "a reuse word's shift is out of range",
            )
            of_group = np.repeat(self.group_kept, self.group_outputs * self.terms)
            need(
                bool((none | ((self.word_slot >= 0) & (self.word_slot < of_group))).all()),
                "a reuse word's slot is not of its group",
            )
            need(bool((self.word_sign <= 1).all()), "a reuse word's sign is not 0 or 1")
        written = np.zeros(outputs, np.int64)
        for g in range(groups):
            block = slice(
                self.group_first_output[g], self.group_first_output[g] + self.group_outputs[g]
            )
            if self.group_write[g]:
                written[block] += 1
            else:
                need(bool((written[block] == 1).all()), f"group {g} adds to unwritten outputs")
        if not self.partial:
            need(bool((written == 1).all()), "an output is not written exactly once")
        need(bool((written <= 1).all()), "an output is written twice")
        need(
            bool((np.abs(self.multiplier.astype(np.int64)) <= 32767).all()),
            "a multiplier does not fit signed 16 bit",
        )
        need(bool(((self.shift >= 0) & (self.shift <= 47)).all()), "a shift is not in 0 to 47")
        most = (255, 32767, int(self.shift.min())) if self.residual else (0, 0, 0)
        need(
            0 <= self.residual_zero <= most[0]
            and abs(self.residual_multiplier) <= most[1]
            and 0 <= self.residual_shift <= most[2],
            f"expected a residual zero point, multiplier and shift of at most {most}, found "
            f"{(self.residual_zero, self.residual_multiplier, self.residual_shift)}",
        )

    @property
    def gather_rows(self) -> np.ndarray:
        """Rows in use of each gather, int64 [gathers]."""
        starts = np.cumsum(self.gather_segments) - self.gather_segments
        return np.add.reduceat(self.segment_length.astype(np.int64), starts)

    @property
    def weight_count(self) -> int:
        """Weights of the layer before any scheme: outputs * kernel positions * inputs of each."""
        inputs = self.in_shape[2] // self.conv_groups
        return self.out_shape[2] * self.kernel[0] * self.kernel[1] * inputs

    @property
    def positions(self) -> int:
        """Output positions of one image: OH * OW."""
        return self.out_shape[0] * self.out_shape[1]

    @property
    def padded_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the input with its border."""
        top, left, bottom, right = self.pads
        height, width, channels = self.in_shape
        return height + top + bottom, width + left + right, channels

    def effective_weights(self) -> np.ndarray:
        """Decode the weights that the program applies, times 256.

        Returns
        -------
        int64 [outputs, kernel positions, input channels] (all channels, also of grouped layers).
        """
        outputs, channels = self.out_shape[2], self.in_shape[2]
        result = np.zeros((outputs, self.kernel[0] * self.kernel[1], channels), np.int64)
        pattern = gather = segment = word = 0
        for g in range(len(self.group_kept)):
            kept = int(self.group_kept[g])
            rows: list[list[tuple[int, int, np.ndarray]]] = []
            series = 0
            for _ in range(self.group_gathers[g]):
                count = int(self.gather_patterns[gather])
                if not self.gather_accumulate[gather]:
                    series = len(rows)
                    rows.extend([] for _ in range(count))
                row = 0
                for s in range(segment, segment + int(self.gather_segments[gather])):
                    first = int(self.gather_base[gather] + self.segment_channel[s])
                    for c in range(first, first + int(self.segment_length[s])):
                        for p in range(count):
                            rows[series + p].append(
                                (int(self.segment_position[s]), c, self.weights[pattern + p, row])
                            )
                        row += 1
                segment += int(self.gather_segments[gather])
                pattern += count
                gather += 1
            assert len(rows) == kept
            for j in range(int(self.group_outputs[g])):
                output = int(self.group_first_output[g]) + j
                if self.identity:
                    picks = [(j, 8, 0)]
                else:
                    picks = [
                        (int(self.word_slot[w]), int(self.word_shift[w]), int(self.word_sign[w]))
                        for w in range(word, word + self.terms)
                    ]
                    word += self.terms
                for slot, shift, sign in picks:
                    if shift != SHIFT_NONE:
                        for position, c, value in rows[slot]:
                            term = int(value) << shift
                            result[output, position, c] += -term if sign else term
        return result


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation between tensors of the integer network.

    Attributes
    ----------
    op
        ``layer``, ``max_pool``, ``average_pool``, ``add``, ``clip``, ``rearrange`` or ``concat``.
    inputs, output
        Tensor names.
    params
        What the operation needs: JSON values, or int64 arrays; on codes a, b:

        ``layer``
            index, of the program's layers; a layer with ``residual`` has two inputs, the second
            being its residual operand.
        ``max_pool``
            kernel, stride, pads.
        ``average_pool``
            kernel, stride, pads, zero_in, multiplier (a number or [OH, OW]), shift, zero_out.
        ``add``
            zeros_in, multipliers, shift, zero_out, clip.
        ``clip``
            lo, hi.
        ``rearrange``
            index [values of the output], shape; and fill, the code where index is -1.
        ``concat``
            axis of (H, W, C), 0 to 2; zeros_in, multipliers (one to an input), shift, zero_out,
            clip. With one input it is a requantisation.

        :class:`refmodel.quantize.QuantNetwork` gives the formulas.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    params: Mapping[str, Any] = field(default_factory=dict)


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
        How images become network inputs, as ``refmodel.images.Preprocess.to_dict`` has it.
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

    def save(self, path: Path | str) -> None:
        """Write the program as one file; the same program gives the same bytes.

        The file is a zip of ``header.json`` and ``.npy`` arrays, uncompressed and without dates.
        The header has the format's name and version and a SHA-256 over everything else. Without a
        fused residual the file is of version 1, and what it was before there was a version 2.
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

        Raises
        ------
        InputError
            The file is missing, truncated, altered, of another format or version.
        """
        path = Path(path)
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
            check_program(program)
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
            for name, dtype in _LAYER_ARRAYS.items():
                found, axes = arrays[f"layer{i}.{name}"], 2 if name == "weights" else 1
                if found.dtype != dtype or found.ndim != axes:
                    raise InputError(
                        f"layer {i}: expected {name} as {np.dtype(dtype)} with {axes} axes, "
                        f"found {found.dtype} with {found.ndim}"
                    )
            values: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()
            }
            values |= {name: arrays[f"layer{i}.{name}"] for name in _LAYER_ARRAYS}
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
