"""Scheme ``dictionary``: learnt patterns, several signed powers of two of them to an output (ours).

For each group of rows, K patterns D of 8-bit weights are learnt, each on at most R rows, and every
output is a sum of at most T of them, each times a signed power of two::

    W ~ diag(c) A D,    A: outputs by K, at most T non-zeros in a row, each +-2^k, k in -8..+6

c belongs to the output and costs nothing: it is part of requantisation. Rules ``identical``,
``similar`` and ``prap`` are special cases with T = 1 and D taken from W.

The patterns are built in five steps (docs/specification/algorithm.md, Dictionary):

1. Rows are multiplied by the gain of their output (BatchNormalization), so that an error counts as
   much as it will behind it. c undoes that.
2. D starts from K of the outputs themselves, chosen one after the other so that the sum over all
   outputs of what the best chosen one explains grows most.
3. Rounds, 25 unless the setting says otherwise, of: **coding**, T greedy steps over (pattern,
   sign, k) by the largest decrease of the squared error, then each term chosen anew given the
   others; and **patterns**, each by least squares given the others, on those R rows where it
   matters most; one that nothing uses becomes the worst residual. The round of least error counts.
4. Where the covariances of the layer's inputs are known, from calibration images, the groups are
   gone through once more, one after the other. The squared error is that of the layer's output,
   not of its weights, and what a group gets wrong, the weights of all later groups are changed to
   make good, as far as inputs are correlated (optimal brain surgery, as GPTQ does it for rounding:
   arXiv:2210.17323). The mean of an output does not matter, since its bias is matched later.
5. Patterns are scaled by powers of two to more than 63 and at most 127, and rounded; outputs are
   coded once more.

Where a layer has 2048 outputs or more, patterns are learnt from 1024 or so of them, evenly by norm,
and then all are coded. Many groups are worked on at once. Outputs are put in the order of their
norms before, so that the result does not depend on the order in which the network has them.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from refmodel.compression import processes
from refmodel.compression.dictionary_learning import (
    BEAM,
    Real,
    code,
    learn,
    refine,
    upper_factor,
)
from refmodel.compression.schemes.base import (
    MAX_TERMS,
    Choices,
    CompactMapping,
    InputStatistics,
    LayerMapping,
    LayerSetting,
    LayerSize,
    PatternGroup,
    SchemeSetting,
    Weight,
    channels_field,
    dense_ous,
    integer,
    register,
    share,
    weight_unit,
)

MOST_PATTERNS = 64


@dataclass(frozen=True, kw_only=True)
class DictionarySetting(SchemeSetting):
    """The settings of a layer.

    Attributes
    ----------
    channels
        C_g, input channels in a group, 1 to 4096.
    keep
        Share of the outputs that is the number of patterns where ``patterns`` is 0, 0 to 1.
    patterns
        K, patterns learnt for a group, 0 to 4096, where there are as many outputs. 0: the share
        ``keep`` of the outputs.
    terms
        T, patterns that an output is the sum of at most, 1 to 4.
    rounds
        Alternations of coding and patterns, 0 to 1000.
    """

    channels: int = channels_field()
    keep: float = share()
    patterns: int = integer(0, 0, 4096)
    terms: int = integer(3, 1, MAX_TERMS)
    rounds: int = integer(25, 0, 1000)


def default_patterns(outputs: int) -> int:
    """K of a layer that nobody tuned: 3, 4, 6, 8, 12, 17 for 16, 32, 64, 128, 256, 512 outputs.

    That is rint(3/4 * sqrt(outputs)), at least 2. The first three were measured on
    ResNet-20; wider layers follow the same root, so that they gain more than narrow ones.
    """
    return int(np.clip(np.rint(0.75 * np.sqrt(outputs)), 2, MOST_PATTERNS))


def default_setting(layer: LayerSize) -> LayerSetting:
    """K of :func:`default_patterns`, T = 3; groups of 1 channel, R for 1x1."""
    return LayerSetting(
        scheme="dictionary",
        channels=1 if layer.kernel > 1 else layer.ou_rows,
        patterns=default_patterns(layer.outputs),
        terms=3,
    )


def applies(setting: DictionarySetting) -> bool:
    """Whether a setting asks for patterns at all."""
    return setting.patterns > 0 or setting.keep < 1


TRIED_PATTERNS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""K that are tried with a budget, up to half the outputs of a layer."""

TRIED_TERMS = (1, 2, 3, 4)
"""T that are tried where merges have a price."""

FREE_TERMS = 4
"""T where they have none: more is always better."""

SEARCH_ROUNDS = 6
"""Alternations of a candidate: enough to tell candidates apart."""


def variants(default: LayerSetting, outputs: int, weigh_terms: bool) -> list[LayerSetting]:
    """Try other K, and where merges have a price other T."""
    return [
        replace(default, patterns=patterns, terms=terms)
        for patterns in TRIED_PATTERNS
        if patterns == 1 or 2 * patterns <= outputs
        for terms in (TRIED_TERMS if weigh_terms else (FREE_TERMS,))
    ]


def distance(setting: LayerSetting, default: LayerSetting) -> tuple[float, ...]:
    """How far apart two settings are: in K, then in T, counted from the one that is best."""
    return abs(setting.patterns - default.patterns), abs(setting.terms - FREE_TERMS)


def learn_dictionary(
    weight: Weight,
    groups: int,
    setting: DictionarySetting,
    ou_rows: int,
    statistics: InputStatistics | None,
) -> LayerMapping:
    """Learn patterns for each group of rows, and code the outputs.

    A group has all positions of ``setting.channels`` input channels; where these are more than R
    rows and an eighth, they are cut into as few equal parts as are not. K is ``setting.patterns``,
    or where that is 0 the whole part of outputs * ``setting.keep``, and at least 1. Patterns that
    no output uses in the end are not programmed. ``statistics`` are used where their blocks are
    whole groups of channels.
    """
    outputs, inputs, height, width = weight.shape
    unit = weight_unit(weight) or 1.0
    count = outputs // groups
    patterns = min(setting.patterns or max(1, int(count * setting.keep)), count)
    # Codes of 8-bit weights reach -128, patterns +-127: they are coded like any others.
    parts: list[PatternGroup] = []
    for index in range(groups):
        parts.extend(
            _map_group(
                weight[index * count : (index + 1) * count],
                unit,
                channel=index * inputs,
                output=index * count,
                cuts=_cuts(inputs, height * width, setting.channels, ou_rows),
                patterns=patterns,
                terms=setting.terms,
                rounds=setting.rounds,
                rows=ou_rows,
                blocks=_blocks(statistics, index, groups, setting.channels),
            )
        )
    # An output without a term in a group is dropped there.
    kept, total = sum(part.kept for part in parts), sum(part.outputs for part in parts)
    none = sum(
        int(np.count_nonzero((part.slot < 0).all(1))) for part in parts if part.slot is not None
    )
    dropped = min(none, total - kept)
    return CompactMapping(
        weight.shape,
        scheme="dictionary",
        terms=setting.terms,
        identity=False,
        full_offsets=not all(_whole(shape) for part in parts for shape in part.shapes),
        groups=_present(parts),
        kept=kept,
        reused=total - kept - dropped,
        dropped=dropped,
        ous_dense=dense_ous(weight, ou_rows),
    )


LEARNT_EVERY = 3
"""Of so many neighbouring K the error of one is measured with covariances.

A choice: docs/large-networks.md (Measured) has what a budget comes to with it on ResNet-20.
"""


def learnt(settings: list[LayerSetting]) -> list[LayerSetting]:
    """Every :data:`LEARNT_EVERY`-th K, from the second on, with each T."""
    patterns = sorted({each.patterns for each in settings})
    chosen = set(patterns[1::LEARNT_EVERY] or patterns)
    return [each for each in settings if each.patterns in chosen]


CHOICES = Choices(
    variants=variants,
    distance=distance,
    learnt=learnt,
    quick=lambda setting: replace(setting, rounds=SEARCH_ROUNDS),
)


@register(
    "dictionary",
    default_setting,
    applies,
    setting=DictionarySetting,
    learner=learn_dictionary,
    choices=CHOICES,
)
def map_dictionary(
    weight: Weight, groups: int, setting: DictionarySetting, ou_rows: int
) -> LayerMapping:
    """Learn patterns from the weights alone: :func:`learn_dictionary`."""
    return learn_dictionary(weight, groups, setting, ou_rows, None)


def _blocks(
    statistics: InputStatistics | None, index: int, groups: int, channels: int
) -> tuple[int, tuple[Real, ...]] | None:
    """Channels in a block, and covariances of one group of the convolution."""
    if statistics is None or statistics.channels % channels:
        return None
    count = len(statistics.blocks) // groups
    return statistics.channels, statistics.blocks[index * count : (index + 1) * count]


def _present(parts: list[PatternGroup]) -> tuple[PatternGroup, ...]:
    """Leave out the groups without patterns, except the first where an output has no other."""
    firsts = {part.first_output: part for part in reversed(parts)}
    full = {part.first_output for part in parts if part.kept}
    return tuple(
        part
        for part in parts
        if part.kept or (part.first_output not in full and part is firsts[part.first_output])
    )


def _whole(shape: NDArray[np.int32]) -> bool:
    """Whether a shape has the same channels, from the group's first on, at all its positions."""
    positions, counts = np.unique(shape[:, 0], return_counts=True)
    expected = [(p, c) for p in positions.tolist() for c in range(int(counts[0]))]
    return shape.tolist() == [list(row) for row in expected]


def _cuts(
    inputs: int, kernel: int, channels: int, ou_rows: int
) -> list[tuple[int, int, NDArray[np.int32]]]:
    """(first channel, channels, rows [n, 2]) of each group, rows by position, then channel."""
    result = []
    for first in range(0, inputs, channels):
        width = min(channels, inputs - first)
        rows = np.stack(np.divmod(np.arange(kernel * width), width), axis=1).astype(np.int32)
        pieces = -(-len(rows) // (ou_rows + ou_rows // 8))
        result.extend((first, width, piece) for piece in np.array_split(rows, pieces))
    return result


RUN = 1 << 20
"""Weights of the groups that are worked on at a time, about."""


def _map_group(
    weight: Weight,
    unit: float,
    *,
    channel: int,
    output: int,
    cuts: list[tuple[int, int, NDArray[np.int32]]],
    patterns: int,
    terms: int,
    rounds: int,
    rows: int,
    blocks: tuple[int, tuple[Real, ...]] | None,
) -> list[PatternGroup]:
    """Pattern groups of one group of the convolution, whose weights are in units of ``unit``."""
    outputs, _, height, width = weight.shape
    kernel = height * width
    flat = weight.reshape(outputs, -1, kernel)
    # By norm, and where norms are equal by the weights themselves.
    norm = np.array([np.abs(row.astype(np.float64) / unit).sum() for row in flat])
    first = flat.reshape(outputs, -1)[:, :4].astype(np.float64) / unit
    by_norm = np.lexsort([*first.T, -norm])
    back = np.argsort(by_norm)
    # Runs of cuts: those of a covariance, or as many as are worked on at a time.
    covariances: list[Real | None]
    if blocks is None:
        step = max(1, RUN // (outputs * max(len(piece) for _, _, piece in cuts)))
        runs = [cuts[start : start + step] for start in range(0, len(cuts), step)]
        covariances = [None] * len(runs)
    else:
        runs = [
            [cut for cut in cuts if cut[0] // blocks[0] == number]
            for number in range(len(blocks[1]))
        ]
        covariances = list(blocks[1])

    def work(number: int) -> list[PatternGroup]:
        """Map the groups of one run."""
        own = runs[number]
        lengths = np.array([len(piece) for _, _, piece in own])
        table = np.zeros((len(own), outputs, int(lengths.max())))
        for index, (start, _, piece) in enumerate(own):
            values = flat[:, start + piece[:, 1], piece[:, 0]]
            table[index, :, : len(piece)] = values[by_norm].astype(np.float64) / unit
        values, support = learn(
            table, lengths, patterns=patterns, terms=terms, rounds=rounds, rows=rows
        )
        upper = None
        covariance = covariances[number]
        if covariance is not None and blocks is not None:
            # Where the rows of the groups lie in the covariance.
            row_lists = [
                (start - number * blocks[0] + piece[:, 1]) * kernel + piece[:, 0]
                for start, _, piece in own
            ]
            order = np.concatenate(row_lists)
            upper = upper_factor(covariance[np.ix_(order, order)])
        if upper is None:  # nothing is known of the inputs, or they do not vary
            codes = code(table, values.astype(np.float64), terms, beam=BEAM)
        else:
            codes = refine(table, values, support, lengths, upper, terms, rows)
        result = []
        for index, (start, count, piece) in enumerate(own):
            kept, shapes, shape_of, slot, shift, sign = _pattern_group(
                values[index, :, : len(piece)],
                support[index, :, : len(piece)],
                codes.pattern[index],
                codes.factor[index],
                piece,
            )
            result.append(
                PatternGroup(
                    channel=channel + start,
                    channels=count,
                    first_output=output,
                    outputs=outputs,
                    shapes=shapes,
                    shape_of=shape_of,
                    values=kept,
                    slot=slot[back],
                    shift=shift[back],
                    sign=sign[back],
                )
            )
        return result

    parts = processes.each(work, range(len(runs)), processes.inner())
    return [group for part in parts for group in part]


def _pattern_group(
    values: NDArray[np.int8],
    support: NDArray[np.bool_],
    pattern: NDArray[np.intp],
    factor: Real,
    rows: NDArray[np.int32],
) -> tuple[
    NDArray[np.int8],
    tuple[NDArray[np.int32], ...],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int8],
    NDArray[np.int8],
]:
    """Values, shapes, shape of each pattern, slots, shifts and signs of one group."""
    used = np.unique(pattern[pattern >= 0])
    numbers: dict[bytes, int] = {}
    number = np.array([numbers.setdefault(support[k].tobytes(), len(numbers)) for k in used], int)
    order = np.argsort(number, kind="stable")
    used, shape_of = used[order], number[order]
    places = [np.flatnonzero(np.frombuffer(name, bool)) for name in numbers]
    kept = np.zeros((len(used), max((len(place) for place in places), default=0)), np.int8)
    for j, k in enumerate(used):
        place = places[shape_of[j]]
        kept[j, : len(place)] = values[k, place]
    slot_of = np.full(len(values) + 1, -1, np.int32)
    slot_of[used] = np.arange(len(used))
    _, exponent = np.frexp(np.abs(factor))
    return (
        kept,
        tuple(rows[place] for place in places),
        shape_of.astype(np.int32),
        slot_of[pattern],
        np.where(pattern >= 0, exponent - 1, 0).astype(np.int8),
        np.where(factor < 0, -1, 1).astype(np.int8),
    )
