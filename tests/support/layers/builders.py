"""Random small layer programs, built without the compiler, for tests of model and hardware."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refmodel.config import SHIFT_NONE
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.step import Step

Segment = tuple[int, int, int]

_LISTS = [
    "group_kept",
    "group_first_output",
    "group_outputs",
    "group_write",
    "group_gathers",
    "gather_base",
    "gather_length",
    "gather_segments",
    "gather_patterns",
    "gather_accumulate",
    "gather_final",
    "segment_position",
    "segment_channel",
    "segment_length",
    "word_slot",
    "word_shift",
    "word_sign",
]


class ProgramLists:
    """Collect groups, gathers, segments, words and weights, and join them into a LayerProgram."""

    def __init__(self, ou_rows: int) -> None:
        self.ou_rows = ou_rows
        self.lists: dict[str, list[Any]] = {name: [] for name in _LISTS}
        self.weights: list[np.ndarray] = []

    def _append(self, **values: int) -> None:
        for name, value in values.items():
            self.lists[name].append(int(value))

    def gather(
        self,
        base: int,
        length: int,
        segments: list[Segment],
        weights: np.ndarray,
        *,
        accumulate: bool = False,
        final: bool = True,
    ) -> None:
        """Add a gather: ``weights`` is int8 [patterns, rows]."""
        for position, channel, count in segments:
            self._append(segment_position=position, segment_channel=channel, segment_length=count)
        rows = sum(count for _, _, count in segments)
        assert weights.shape[1] == rows <= self.ou_rows
        self.weights.append(np.pad(weights, ((0, 0), (0, self.ou_rows - rows))))
        self._append(
            gather_base=base,
            gather_length=length,
            gather_segments=len(segments),
            gather_patterns=len(weights),
            gather_accumulate=accumulate,
            gather_final=final,
        )

    def group(
        self, *, kept: int, first_output: int, outputs: int, write: bool, gathers: int
    ) -> None:
        """Add a group over the last ``gathers`` gathers."""
        self._append(
            group_kept=kept,
            group_first_output=first_output,
            group_outputs=outputs,
            group_write=write,
            group_gathers=gathers,
        )

    def word(self, slot: int, shift: int, sign: int) -> None:
        """Add a reuse word (stored shift)."""
        self._append(word_slot=slot, word_shift=shift, word_sign=sign)

    def arrays(self) -> dict[str, Any]:
        """Return the constructor's array arguments, all but the requantisation."""
        arrays: dict[str, Any] = {
            name: np.array(values, np.int64) for name, values in self.lists.items()
        }
        return arrays | {"weights": np.concatenate(self.weights).astype(np.int8)}


def random_layer_program(
    rng: np.random.Generator,
    *,
    name: str = "layer",
    ou_rows: int = 8,
    identity: bool | None = None,
    terms: int | None = None,
    groups: int | None = None,
    in_shape: tuple[int, int, int] | None = None,
    outputs: int | None = None,
    kernel: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    dilation: tuple[int, int] | None = None,
    pads: tuple[int, int, int, int] | None = None,
    max_kept: int = 5,
    none_share: float = 0.2,
    long_patterns: bool | None = None,
    zero_in: int | None = None,
) -> LayerProgram:
    """Make a random valid layer program.

    Parameters that are None are drawn from ``rng``. Sizes stay small: up to 6x6x8 inputs and 8
    outputs, so that worst-case accumulators fit 40 bits. Partial sums are of up to 4 gathers.

    Parameters
    ----------
    rng
        The only source of chance; the same state gives the same program.
    ou_rows
        R of the OU.
    identity
        True: groups are chunks of (position, channel) rows with full offsets, as of scheme dense.
        False: groups of consecutive channels with several shapes and reuse words, as of prap.
    terms
        Reuse words to an output, 1 to 4; 1 with ``identity``.
    groups
        Groups of the convolution, 1, 2 or 4; channels and outputs are rounded up to a multiple.
    in_shape, outputs, kernel, stride, dilation, pads
        Geometry; a drawn input is at least as large as the kernel's span, and the kernel's span is
        cut down to a given input.
    max_kept
        Most kept patterns of a group that has reuse words.
    none_share
        Share of reuse words that add nothing.
    long_patterns
        Whether patterns may have more rows than R, so that gathers accumulate.
    zero_in
        Zero point of the input; drawn ones are mostly not 0.
    """

    def draw(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    identity = bool(draw(0, 1)) if identity is None else identity
    long_patterns = bool(draw(0, 1)) if long_patterns is None else long_patterns
    terms = 1 if identity else (draw(1, 4) if terms is None else terms)
    groups = (1, 1, 2, 4)[draw(0, 3)] if groups is None else groups
    kernel = (draw(1, 3), draw(1, 3)) if kernel is None else kernel
    stride = (draw(1, 2), draw(1, 2)) if stride is None else stride
    dilation = ((1, 1, 2)[draw(0, 2)], 1) if dilation is None else dilation
    pads = (draw(0, 2), draw(0, 2), draw(0, 1), draw(0, 1)) if pads is None else pads
    if in_shape is not None:
        kernel = (min(kernel[0], in_shape[0]), min(kernel[1], in_shape[1]))
        most = [
            max(1, (size - 1) // max(1, k - 1))
            for size, k in zip(in_shape[:2], kernel, strict=True)
        ]
        dilation = (min(dilation[0], most[0]), min(dilation[1], most[1]))
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if in_shape is None:
        in_shape = (draw(span[0], span[0] + 3), draw(span[1], span[1] + 3), draw(1, 8))
    outputs = draw(1, 8) if outputs is None else outputs
    in_shape = (*in_shape[:2], -(-in_shape[2] // groups) * groups)
    outputs = -(-outputs // groups) * groups
    out_size = [
        (size + before + after - s) // step + 1
        for size, before, after, s, step in zip(
            in_shape[:2], pads[:2], pads[2:], span, stride, strict=True
        )
    ]
    positions = kernel[0] * kernel[1]
    lists = ProgramLists(ou_rows)
    channels_per, outputs_per = in_shape[2] // groups, outputs // groups

    def values(patterns: int, rows: int) -> np.ndarray:
        # Mostly ordinary weights, some at the limits, some zero.
        weights = rng.integers(-127, 128, (patterns, rows))
        extreme = rng.random((patterns, rows))
        weights[extreme < 0.1] = 127
        weights[extreme > 0.9] = -128
        weights[(extreme > 0.45) & (extreme < 0.5)] = 0
        return weights

    def emit(base: int, length: int, rows: list[tuple[int, int]], patterns: int) -> int:
        """Add the gathers of one series: ``rows`` as (position, channel offset), in order."""
        # With a length, whole positions only: `length` channels of each.
        step = max(1, ou_rows // length) * length if length else ou_rows
        pieces = [rows[i : i + step] for i in range(0, len(rows), step)][:4]
        for i, piece in enumerate(pieces):
            segments: list[Segment] = []
            for position, channel in piece:
                if length:
                    if channel == 0:
                        segments.append((position, 0, length))
                elif segments and segments[-1][0] == position and sum(segments[-1][1:]) == channel:
                    segments[-1] = (position, segments[-1][1], segments[-1][2] + 1)
                else:
                    segments.append((position, channel, 1))
            lists.gather(
                base,
                length,
                segments,
                values(patterns, len(piece)),
                accumulate=i > 0,
                final=i == len(pieces) - 1,
            )
        return len(pieces)

    patterns_total = kept_total = 0
    for g in range(groups):
        channel, first_output = g * channels_per, g * outputs_per
        write = True
        if identity:
            rows = [(p, c) for p in range(positions) for c in range(channels_per)]
            rows = [row for row in rows if rng.random() < 0.8] or rows[:1]
            step = 2 * ou_rows if long_patterns else ou_rows
            for i in range(0, len(rows), step):
                count = emit(channel, 0, rows[i : i + step], outputs_per)
                lists.group(
                    kept=outputs_per,
                    first_output=first_output,
                    outputs=outputs_per,
                    write=write,
                    gathers=count,
                )
                write = False
                patterns_total += outputs_per
                kept_total += outputs_per
            continue
        done = 0
        while done < channels_per:
            width = min(draw(1, min(4, ou_rows)), channels_per - done)
            most = positions if long_patterns else max(1, ou_rows // width)
            kept = gathers = 0
            for _ in range(draw(1, 3)):
                if kept >= max_kept:
                    break
                chosen = rng.permutation(positions)[: draw(1, min(positions, most))]
                rows = [(int(p), c) for p in sorted(chosen) for c in range(width)]
                patterns = draw(1, max_kept - kept)
                gathers += emit(channel + done, width, rows, patterns)
                kept += patterns
            lists.group(
                kept=kept,
                first_output=first_output,
                outputs=outputs_per,
                write=write,
                gathers=gathers,
            )
            for _ in range(outputs_per * terms):
                none = rng.random() < none_share
                shift = SHIFT_NONE if none else min(draw(0, 14), draw(0, 14))
                lists.word(draw(0, kept - 1), shift, draw(0, 1))
            write = False
            done += width
            patterns_total += outputs_per
            kept_total += min(kept, outputs_per)
    arrays = lists.arrays()
    zero_in = (0, 128, draw(1, 255), draw(1, 255))[draw(0, 3)] if zero_in is None else zero_in
    fields: dict[str, Any] = {
        "name": name,
        "scheme": "dense" if identity else "prap",
        "ou_rows": ou_rows,
        "in_shape": in_shape,
        "out_shape": (*out_size, outputs),
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "pads": pads,
        "conv_groups": groups,
        "zero_in": zero_in,
        "zero_out": draw(0, 255),
        "clip_lo": (0, draw(0, 100))[draw(0, 1)],
        "clip_hi": (255, draw(150, 255))[draw(0, 1)],
        "terms": terms,
        "identity": identity,
        "full_offsets": identity,
        "patterns": patterns_total,
        "kept": kept_total,
        "reused": patterns_total - kept_total,
        "dropped": 0,
        "ous_dense": outputs * -(-positions * channels_per // ou_rows),
    }
    plain: dict[str, Any] = {
        "bias": np.zeros(outputs),
        "multiplier": np.zeros(outputs),
        "shift": np.zeros(outputs),
    }
    # Multipliers of either sign that spread the outputs over some 100 codes.
    weights = LayerProgram(**fields, **arrays, **plain).effective_weights().reshape(outputs, -1)
    spread = 74 * np.sqrt((weights.astype(float) ** 2).sum(1)) + 256
    shift = np.clip(np.floor(np.log2(spread) + rng.uniform(7.7, 9.7, outputs)), 0, 47).astype(int)
    multiplier = rng.integers(1 << 14, 1 << 15, outputs) * rng.choice([-1, 1], outputs)
    bias = -weights.sum(1) * 128 + np.rint(rng.normal(0, 1, outputs) * spread).astype(np.int64)
    return LayerProgram(**fields, **arrays, bias=bias, multiplier=multiplier, shift=shift)


def random_codes(rng: np.random.Generator, layer: LayerProgram, images: int = 1) -> np.ndarray:
    """Draw input codes uint8 [images, H, W, C], with runs of 0 and 255 among them."""
    codes = rng.integers(0, 256, (images, *layer.in_shape))
    extreme = rng.random(codes.shape)
    codes[extreme < 0.1] = 0
    codes[extreme > 0.9] = 255
    return codes.astype(np.uint8)


def side_by_side(layers: Sequence[LayerProgram]) -> Program:
    """Layers side by side: each reads the beginning of the input; the last one's is the output."""
    size = max(int(np.prod(layer.in_shape)) for layer in layers)
    layers = [replace(layer, name=f"layer{i}") for i, layer in enumerate(layers)]
    tensors = {"input": {"shape": [1, 1, size], "scale": 1.0, "zero": 0}}
    steps = []
    for i, layer in enumerate(layers):
        index = np.arange(int(np.prod(layer.in_shape)))
        shape = list(layer.in_shape)
        params = {"index": index, "shape": shape}
        steps.append(Step(op="rearrange", inputs=("input",), output=f"in{i}", params=params))
        steps.append(Step(op="layer", inputs=(f"in{i}",), output=f"out{i}", params={"index": i}))
        tensors[f"in{i}"] = {"shape": shape, "scale": 1.0, "zero": layer.zero_in}
        tensors[f"out{i}"] = {
            "shape": list(layer.out_shape),
            "scale": 1.0,
            "zero": layer.zero_out,
        }
    return Program(
        layers=tuple(layers),
        steps=tuple(steps),
        tensors=tensors,
        input="input",
        output=f"out{len(layers) - 1}",
        preprocess={},
    )
