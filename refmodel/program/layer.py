"""The program of one convolution or fully connected layer: what an engine executes, as arrays.

A :class:`LayerProgram` checks its own arrays. They are logical: memory images for one particular
engine are made from them by ``prap_hw.deliver.load``, so a program depends on the OU's rows and on
nothing else of the hardware. :mod:`refmodel.program.program` has whole networks and their file.
"""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from refmodel.config import MAX_SHIFT, MIN_SHIFT, SHIFT_NONE
from refmodel.errors import InputError
from refmodel.program.values import MOST_CODES

LAYER_ARRAYS = {
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
        One each to an output: the row "output" of "Numbers and formats" in
        docs/specification/architecture.md. The bias is in accumulator units (1/256).
    residual
        Whether a second operand of the output's shape is added before the one rounding:
        ``(r - residual_zero) * residual_multiplier / 2^residual_shift``, r its codes.
    residual_zero, residual_multiplier, residual_shift
        0 to 255; -32767 to 32767; 0 to the least ``shift``. 0 without ``residual``.
    partial
        A constant of the class: whether some outputs may be left to others. A program
        writes every output; :class:`refmodel.predict.deal.LayerPart` writes each once or not at
        all.
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
        for name, dtype in LAYER_ARRAYS.items():
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
            for name in LAYER_ARRAYS:
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
