"""Sizes of a layer's program in an engine: OUs, memories, index bits; the engine that fits."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from refmodel.config import (
    FRACTION_BITS,
    MAX_OUTPUT_SIDE,
    MOST_OUS_PER_PATTERN,
    SHIFT_NONE,
    EngineConfig,
    bits_for,
)
from refmodel.errors import InputError
from refmodel.program.layer import LayerProgram

BLOCK_WORDS = 1 << 21
"""Reuse words that are worked on at once, about: bounds the memory for large layers."""

MOST_POSITIONS = 49
"""Positions of the largest kernel that an engine has, 7x7."""


def check_kernels(kernels: Iterable[tuple[str, Sequence[int]]]) -> None:
    """Refuse a kernel that no engine has, before anything is compiled.

    Parameters
    ----------
    kernels
        Name of each layer, and height and width of its kernel.

    Raises
    ------
    InputError
        The message says the layer, its kernel and the limit.
    """
    for name, (height, width) in kernels:
        if height * width > MOST_POSITIONS:
            raise InputError(
                f"layer {name}: expected a kernel of at most {MOST_POSITIONS} positions "
                f"(max_positions), found {height}x{width}, which has {height * width}"
            )


def ous_of_gathers(layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """OUs of each gather, int64 [gathers]: ceil(patterns * S / C)."""
    columns = layer.gather_patterns.astype(np.int64) * config.columns_per_weight
    return -(-columns // config.ou_cols)


def columns_of_ous(layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """Columns in use of each OU, int64 [OUs]: C, and what is left in the last OU of a gather."""
    ous = ous_of_gathers(layer, config)
    result = np.full(int(ous.sum()), config.ou_cols, np.int64)
    unused = ous * config.ou_cols - layer.gather_patterns * config.columns_per_weight
    result[np.cumsum(ous) - 1] -= unused
    return result


def ou_count(layer: LayerProgram, config: EngineConfig) -> int:
    """OUs of a layer, which is also the number of OU activations a position."""
    return int(ous_of_gathers(layer, config).sum())


def index_bits(layer: LayerProgram, config: EngineConfig) -> dict[str, int]:
    """Bits that the engine reads beside the weights, with fields as wide as this layer needs.

    Fields that are never 0 are stored less 1. Every field has at least one bit, but kernel
    positions of a 1x1 kernel have none: a shape costs V * ceil(log2(k * k)) bits
    (docs/specification/architecture.md, Program).

    Returns
    -------
    shapes
        Segments times ceil(log2(kernel positions)).
    offsets
        With full offsets: segments times (channel offset, length); otherwise 0.
    headers
        Gathers times (base, length unless full offsets, segments, patterns, accumulate, final),
        groups times (kept, first output, outputs, gathers, write).
    words
        Reuse words times ``config.reuse_word_bits``.
    padding
        Bits of the words that only pad the memory of reuse words. The memory is read a step at a
        time, ``merge_lanes`` words that are aligned to multiples of as many outputs
        (:func:`merge_steps`), and lanes without an output of the group have a word as well. 0 with
        one lane.
    total
        Their sum.
    """
    segments, gathers = len(layer.segment_position), len(layer.gather_base)
    position = (layer.kernel[0] * layer.kernel[1] - 1).bit_length()
    offset = bits_for(int(layer.segment_channel.max()) + 1)
    length = bits_for(int(layer.segment_length.max()))
    gather = (
        bits_for(layer.in_shape[2])
        + (0 if layer.full_offsets else length)
        + bits_for(int(layer.gather_segments.max()))
        + bits_for(int(layer.gather_patterns.max()))
        + 2
    )
    group = (
        bits_for(int(layer.group_kept.max()))
        + bits_for(layer.out_shape[2])
        + bits_for(int(layer.group_outputs.max()))
        + bits_for(int(layer.group_gathers.max()))
        + 1
    )
    words = len(layer.word_slot)
    held = 0 if layer.identity else int(merge_steps(layer, config.merge_lanes).sum())
    padding = held * config.merge_lanes - words
    bits = {
        "shapes": segments * position,
        "offsets": segments * (offset + length) if layer.full_offsets else 0,
        "headers": gathers * gather + len(layer.group_kept) * group,
        "words": words * config.reuse_word_bits,
        "padding": padding * config.reuse_word_bits,
    }
    return bits | {"total": sum(bits.values())}


def gathers_of_slots(layer: LayerProgram) -> np.ndarray:
    """Gathers whose sums add into each slot, int64 [slots of all groups, in order]."""
    series = np.cumsum(layer.gather_accumulate == 0) - 1
    gathers = np.bincount(series)
    return np.repeat(gathers, layer.gather_patterns[layer.gather_accumulate == 0])


def accumulator_range(layer: LayerProgram, config: EngineConfig) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest accumulator of each output, before the bias.

    From the largest ADC code, not from the ideal sum: a gather adds what ``config.psum_range``
    says, whatever its weights. Every term's range includes 0, so no sum on the way is outside
    either.

    Returns
    -------
    int64 [out], int64 [out]
    """
    least, greatest = config.psum_range
    low, high = np.zeros((2, layer.out_shape[2]), np.int64)
    gathers = gathers_of_slots(layer)
    for first, last in output_blocks(layer):
        output, slot, factor = flat_words(layer, first, last)
        times = gathers[slot] * factor
        ends = np.stack([least * times, greatest * times])
        np.add.at(low, output, ends.min(0))
        np.add.at(high, output, ends.max(0))
    return low, high


def output_blocks(layer: LayerProgram) -> Iterator[tuple[int, int]]:
    """Cut the outputs into runs, first and end, of about :data:`BLOCK_WORDS` reuse words each."""
    terms = 1 if layer.identity else layer.terms
    words = int(layer.group_outputs.sum(dtype=np.int64)) * terms
    step = max(1, layer.out_shape[2] * BLOCK_WORDS // max(1, words))
    for first in range(0, layer.out_shape[2], step):
        yield first, min(first + step, layer.out_shape[2])


def flat_words(
    layer: LayerProgram, first: int = 0, last: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the reuse words that add something, also those that an identity map implies.

    Parameters
    ----------
    layer
        The program.
    first, last
        Outputs, from ``first`` to before ``last``; None: to the end.

    Returns
    -------
    output
        int64 [words], the layer's output that it adds to.
    slot
        int64 [words], numbered over all groups.
    factor
        int64 [words], sign times 2^(8 + k).
    """
    last = layer.out_shape[2] if last is None else last
    terms = 1 if layer.identity else layer.terms
    begin = layer.group_first_output.astype(np.int64)
    all_counts = layer.group_outputs.astype(np.int64)
    base = np.cumsum(layer.group_kept, dtype=np.int64) - layer.group_kept
    # Of each group the outputs that are asked for, and where they begin among its own.
    skipped = np.maximum(first - begin, 0)
    counts = np.maximum(np.minimum(begin + all_counts, last) - begin - skipped, 0)
    starts = np.cumsum(counts) - counts
    within = np.arange(counts.sum()) - np.repeat(starts - skipped, counts)
    output = np.repeat(np.repeat(begin, counts) + within, terms)
    if layer.identity:
        slot = np.repeat(base, counts) + within
        return output, slot, np.full(len(slot), 1 << FRACTION_BITS, np.int64)
    words = np.repeat((np.cumsum(all_counts) - all_counts) * terms, counts) + within * terms
    words = (words[:, None] + np.arange(terms)).reshape(-1)
    shift = layer.word_shift[words]
    used = shift != SHIFT_NONE
    words = words[used]
    factor = np.int64(1) << shift[used].astype(np.int64)
    factor = np.where(layer.word_sign[words] == 1, -factor, factor)
    slot = np.repeat(base, counts * terms)[used] + layer.word_slot[words]
    return output[used], slot, factor


def accumulator_bits(layer: LayerProgram, config: EngineConfig) -> int:
    """Bits of a signed accumulator that holds every sum of a layer, before and after the bias.

    The sums are bounded as in :func:`accumulator_range`; the bias by itself fits as well. An
    engine's ``acc_width`` must be at least this to run the layer.
    """
    low, high = accumulator_range(layer, config)
    ends = np.concatenate([low, high, layer.bias, low + layer.bias, high + layer.bias])
    return max(int(ends.max()).bit_length(), (-int(ends.min()) - 1).bit_length()) + 1


def check_fits(layer: LayerProgram, config: EngineConfig) -> None:
    """Check that an engine can run a layer.

    Raises
    ------
    InputError
        Names the limit that the layer exceeds, what it is, and what the layer needs.
    """
    if layer.ou_rows != config.ou_rows:
        raise InputError(
            f"layer {layer.name}: expected a program for OUs of {config.ou_rows} rows (ou_rows), "
            f"found {layer.ou_rows}"
        )
    needs = _needs(layer, config)
    limits = {name: (getattr(config, name), need) for name, need in needs.items()}
    limits["slots"] = config.slots, int(layer.group_kept.max()) + config.patterns_per_ou - 1
    limits["output rows or columns"] = MAX_OUTPUT_SIDE, max(layer.out_shape[:2])
    limits["crossbars"] = config.crossbars, -(-ou_count(layer, config) // config.ous_per_crossbar)
    limits["acc_width"] = config.acc_width, accumulator_bits(layer, config)
    for name, (limit, need) in limits.items():
        if need > limit:
            raise InputError(
                f"layer {layer.name}: expected {name} of at most {limit}, found {need}"
            )


def merge_steps(layer: LayerProgram, lanes: int) -> np.ndarray:
    """Merge cycles of each group: the blocks of ``lanes`` outputs it touches, times the terms.

    Blocks are aligned to multiples of ``lanes``, so that every output has its lane.

    Returns
    -------
    int64 [groups].
    """
    first = layer.group_first_output.astype(np.int64)
    last = first + layer.group_outputs - 1
    return (last // lanes - first // lanes + 1) * layer.terms


def _needs(layer: LayerProgram, config: EngineConfig) -> dict[str, int]:
    """Depths of the engine's memories that a layer needs."""
    lanes = config.merge_lanes
    return {
        "ous_per_pattern": int(gathers_of_slots(layer).max()),
        "max_outputs": layer.out_shape[2],
        "max_gathers": len(layer.gather_base),
        "max_segments": len(layer.segment_position),
        "max_groups": len(layer.group_kept),
        "max_words": 1 if layer.identity else int(merge_steps(layer, lanes).sum()) * lanes,
        "max_positions": layer.kernel[0] * layer.kernel[1],
        "activation_bytes": math.prod(layer.padded_shape),
    }


def _power_of_two(value: int) -> int:
    """Round up to a power of two."""
    return 1 << max(0, value - 1).bit_length()


def engine_config_for(
    layers: Sequence[LayerProgram], base: EngineConfig | None = None
) -> EngineConfig:
    """Size an engine that holds each of some layers (one at a time).

    Crossbars, slots and memory depths become what the layers need, depths rounded up to powers of
    two; ``acc_width`` and ``ous_per_pattern`` grow where ``base`` is too small. Everything else is
    as in ``base``.

    The ring of partial sums has at least ``2 * kept + began + P + 1`` slots: the kept patterns of
    the largest group twice, what begins while the first of them waits for its codes, and P, the
    patterns that may begin in one OU, ceil(C / S), since an OU waits until as many slots are free.
    A pattern has S * ceil(8 / dac_bits) columns to convert (docs/specification/architecture.md,
    Parts).

    Raises
    ------
    InputError
        A layer needs more than any engine has.
    """
    base = EngineConfig() if base is None else base
    if not layers:
        raise InputError("expected a convolution or fully connected layer, found none")
    check_kernels((layer.name, layer.kernel) for layer in layers)
    needs: dict[str, int] = {}
    for layer in layers:
        for name, need in _needs(layer, base).items():
            needs[name] = max(needs.get(name, 1), need)
    if needs["ous_per_pattern"] > MOST_OUS_PER_PATTERN:
        worst = max(layers, key=lambda layer: gathers_of_slots(layer).max())
        raise InputError(
            f"layer {worst.name}: expected weight patterns of at most {MOST_OUS_PER_PATTERN} "
            f"operation units (ous_per_pattern), found {needs['ous_per_pattern']}: use a setting "
            f"of fewer channels, or scheme dense"
        )
    sizes = {name: _power_of_two(need) for name, need in needs.items()}
    sizes["ous_per_pattern"] = max(base.ous_per_pattern, needs["ous_per_pattern"])
    sizes["activation_bytes"] = max(64, sizes["activation_bytes"])
    sizes["max_positions"] = min(MOST_POSITIONS, sizes["max_positions"])
    kept = max(int(layer.group_kept.max()) for layer in layers)
    # Patterns that begin while the first waits for its codes: A columns a cycle, S to a pattern.
    hidden = (base.crossbar_latency + 12) * min(base.adcs, base.ou_cols)
    began = -(-hidden // (base.columns_per_weight * base.digits))
    slots = 2 * kept + began + base.patterns_per_ou + 1
    sizes["slots"] = max(4, _power_of_two(slots))
    sizes["crossbars"] = max(-(-ou_count(layer, base) // base.ous_per_crossbar) for layer in layers)
    sizes["acc_width"] = max(base.acc_width, *(accumulator_bits(layer, base) for layer in layers))
    try:
        config = dataclasses.replace(base, **sizes)
    except ValueError as error:
        names = ", ".join(layer.name for layer in layers)
        raise InputError(
            f"expected layers that one engine holds, found {error} ({names})"
        ) from None
    for layer in layers:
        check_fits(layer, config)
    return config
