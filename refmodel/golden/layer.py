"""One layer, computed with the weights that its program decodes to: the fast, exact path.

:func:`run_layer` multiplies in floating point and is exact: in float32 where every sum is below
2^24 once a power of two that all weights have in common is taken out, otherwise in float64, where
it is below 2^53. :mod:`refmodel.golden.serial` computes the same layer through crossbars,
converters, partial sums and reuse merge in the order of the hardware; the two agree bit for bit
where the ADC is lossless.

Numbers are as in docs/specification/architecture.md::

    ADC code     clip(rint(x), 0, 2^code_bits - 1), x the sum of cell * digit over a bitline's rows
    partial sum  sum over OUs, digits d, columns j of code * 2^(dac_bits d) * 2^(cell_bits j);
                 1-bit cells: column 7 counts -2^7; others: less 2^7 * the sum of gathered inputs
    accumulator  sum over reuse words of sign * partial sum << (8 + k)
    output       clip(floor((accumulator + bias) * M / 2^s + residual + 1/2) + zero_out,
                 clip_lo, clip_hi)
    residual     (r - z_r) * M_r / 2^s_r of the layer's second operand r, where it has one; else 0

Halves round towards plus infinity: with M = 1 and s = 1, 3 gives 2 and -3 gives -1. There is one
rounding with the residual as without. The residual has a shift of its own, since M / 2^s, the worth
of an accumulator's unit, is some 2^-17 of M_r / 2^s_r, that of a code, and no two multipliers of 16
bits express both at one s. s_r belongs to the layer, and is at most the least s of its outputs.

Tensors are uint8 codes of shape (N, H, W, C); a vector is (N, 1, 1, F).
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import flat_words, output_blocks

CHUNK = 1 << 22
"""Values of the largest array of one chunk, about; bounds the memory."""

_EXACT = 1 << 53
"""Integers up to here are exact in float64."""

_EXACT_32 = 1 << 24
"""Integers up to here are exact in float32."""


def check_codes(codes: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    """Refuse what is not uint8 codes [images, *shape]."""
    if not isinstance(codes, np.ndarray) or codes.dtype != np.uint8:
        raise TypeError(
            f"codes of {name} must be a uint8 array, not {type(codes).__name__} "
            f"{getattr(codes, 'dtype', '')}".rstrip()
        )
    if codes.shape[1:] != tuple(shape):
        raise ValueError(f"codes of {name} must be [images, {shape}], not {codes.shape!r}")


def pad(layer: LayerProgram, codes: np.ndarray) -> np.ndarray:
    """Put the border of ``zero_in`` around input codes [N, H, W, C]."""
    top, left, bottom, right = layer.pads
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    return np.pad(codes, around, constant_values=layer.zero_in)


def patches(layer: LayerProgram, codes: np.ndarray) -> np.ndarray:
    """Collect what each output position sees.

    Parameters
    ----------
    codes
        [N, H, W, C], any dtype.

    Returns
    -------
    [N, OH * OW, kernel positions * C], kernel position major.
    """
    padded = pad(layer, codes)
    (height, width, _), (sy, sx), (dy, dx) = layer.out_shape, layer.stride, layer.dilation
    (kh, kw), channels = layer.kernel, layer.in_shape[2]
    count, positions = len(codes), height * width
    if kh == kw == sy == sx == 1:
        return padded[:, :height, :width].reshape(count, positions, channels)
    image, row, pixel, value = padded.strides
    # A row of the kernel lies in one piece, unless it is dilated.
    run = kw * channels if dx == 1 else channels
    shape = (count, height, width, kh, kw * channels // run, run)
    strides = (image, row * sy, pixel * sx, row * dy, pixel * dx, value)
    view = np.lib.stride_tricks.as_strided(padded, shape, strides, writeable=False)
    return view.reshape(count, positions, kh * kw * channels)


def gather_columns(layer: LayerProgram) -> np.ndarray:
    """Which value of a patch drives each wordline.

    Returns
    -------
    int64 [gathers, R], columns of :func:`patches`; -1 where the wordline is unused.
    """
    channels = layer.in_shape[2]
    lengths = layer.segment_length.astype(np.int64)
    gather = np.repeat(np.arange(len(layer.gather_base)), layer.gather_segments)
    first = layer.segment_position.astype(np.int64) * channels
    first += layer.gather_base[gather] + layer.segment_channel
    start = np.cumsum(lengths) - lengths
    owner = np.repeat(gather, lengths)
    gather_start = np.cumsum(layer.gather_rows) - layer.gather_rows
    ordinal = np.arange(lengths.sum())
    columns = np.full((len(layer.gather_base), layer.ou_rows), -1, np.int64)
    columns[owner, ordinal - gather_start[owner]] = np.repeat(first - start, lengths) + ordinal
    return columns


def slot_of_patterns(layer: LayerProgram) -> np.ndarray:
    """The slot that each row of ``weights`` adds into, numbered over all groups."""
    new = layer.gather_accumulate == 0
    counts = layer.gather_patterns.astype(np.int64)
    base = np.cumsum(counts * new) - counts * new
    base = base[new][np.cumsum(new) - 1]
    starts = np.cumsum(counts) - counts
    return np.repeat(base - starts, counts) + np.arange(counts.sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """Outputs that read the same inputs.

    ``weights`` [columns, outputs] are float32 or float64, whichever is exact, and to be multiplied
    by 2^shift.
    """

    outputs: slice
    columns: np.ndarray | None
    weights: np.ndarray
    shift: int


_decoded: "weakref.WeakKeyDictionary[LayerProgram, list[_Block]]" = weakref.WeakKeyDictionary()


def _blocks(layer: LayerProgram) -> list[_Block]:
    """Decode a layer's weights once, in blocks of outputs, with only the inputs that they read."""
    if layer not in _decoded:
        _decoded[layer] = _decode(layer)
    return _decoded[layer]


def nonzero_weights(layer: LayerProgram) -> int:
    """Count the effective weights that are not 0."""
    # Not kept: a large network's decoded weights are worth their memory only for inference.
    if layer in _decoded:
        return sum(int(np.count_nonzero(block.weights)) for block in _decoded[layer])
    return sum(int(np.count_nonzero(weights)) for _, weights in _effective(layer))


def _effective(layer: LayerProgram) -> Iterator[tuple[slice, np.ndarray]]:
    """Effective weights, some outputs at a time: integers in float64 [columns, outputs]."""
    columns = gather_columns(layer)
    gather = np.repeat(np.arange(len(columns)), layer.gather_patterns)
    slot = slot_of_patterns(layer)
    depth = layer.kernel[0] * layer.kernel[1] * layer.in_shape[2]
    # Rows of `weights` that add into one slot lie at by_slot[first[slot] : first[slot + 1]].
    by_slot = np.argsort(slot, kind="stable")
    first = np.searchsorted(slot[by_slot], np.arange(int(layer.group_kept.sum()) + 1))
    step = max(1, CHUNK // (8 * layer.ou_rows))
    # As many outputs as have their words, and their columns, in memory.
    most = max(1, 4 * CHUNK // (depth + 1))
    runs = [
        (at, min(at + most, after))
        for before, after in output_blocks(layer)
        for at in range(before, after, most)
    ]
    for begin, end in runs:
        output, word_slot, factor = flat_words(layer, begin, end)
        # One more row takes what unused rows, all 0, would add.
        result = np.zeros((depth + 1, end - begin))
        for i in range(0, len(output), step):
            starts, ends = first[word_slot[i : i + step]], first[word_slot[i : i + step] + 1]
            word = np.repeat(np.arange(i, i + len(starts)), ends - starts)
            within = np.arange(len(word)) - np.repeat(
                np.cumsum(ends - starts) - (ends - starts), ends - starts
            )
            pattern = by_slot[np.repeat(starts, ends - starts) + within]
            values = layer.weights[pattern] * factor[word][:, None].astype(np.float64)
            np.add.at(result, (columns[gather[pattern]], output[word][:, None] - begin), values)
        yield slice(begin, end), result[:depth]


def _decode(layer: LayerProgram) -> list[_Block]:
    depth = layer.kernel[0] * layer.kernel[1] * layer.in_shape[2]
    result = np.empty((depth, layer.out_shape[2]), np.int32)
    common, largest = 0, 0
    for part, weights in _effective(layer):
        largest = max(largest, int(np.abs(weights).sum(0).max()))
        if 255 * largest >= _EXACT:
            raise ValueError(f"layer {layer.name}: sums exceed 2^53")
        if largest >= 1 << 31 and result.dtype == np.int32:
            result = result.astype(np.int64)
        result[:, part] = weights
        common |= int(np.bitwise_or.reduce(result[:, part], axis=None))
    # The power of two that all weights have in common.
    shift = (common & -common).bit_length() - 1 if common else 0
    kind = np.float32 if 255 * (largest >> shift) < _EXACT_32 else np.float64
    if kind == np.float32 and result.dtype == np.int32:
        # In place: a large layer is there once.
        floats = result.view(np.float32)
        for row, values in zip(floats, result, strict=True):
            row[:] = (values >> shift).astype(np.float32)
        result = floats
    else:
        result = (result >> shift).astype(kind)
    # Blocks of outputs are those of the groups that write.
    blocks = []
    writing = np.flatnonzero(layer.group_write)
    for start, count in zip(
        layer.group_first_output[writing].tolist(),
        layer.group_outputs[writing].tolist(),
        strict=True,
    ):
        outputs = slice(start, start + count)
        used = np.flatnonzero(result[:, outputs].any(1))
        few = len(used) < depth
        weights = result[used, outputs] if few else result[:, outputs]
        columns = used if few else None
        blocks.append(_Block(outputs=outputs, columns=columns, weights=weights, shift=shift))
    return blocks


def accumulators(layer: LayerProgram, codes: np.ndarray) -> np.ndarray:
    """Compute a layer's accumulators exactly, before the bias.

    Parameters
    ----------
    codes
        uint8 [N, H, W, C].

    Returns
    -------
    int64 [N, OH, OW, O], in units of 1/256.
    """
    check_codes(codes, layer.in_shape, f"layer {layer.name}")
    result = np.empty((len(codes), *layer.out_shape), np.int64)
    for part in _batches(layer, len(codes)):
        result[part] = _sums(layer, codes[part])
    return result


def _batches(layer: LayerProgram, images: int) -> list[slice]:
    """Images whose patches stay in the cache: more at once is up to five times slower."""
    depth = layer.kernel[0] * layer.kernel[1] * layer.in_shape[2]
    step = max(1, CHUNK // 8 // (layer.positions * max(depth, layer.out_shape[2])))
    return [slice(i, i + step) for i in range(0, images, step)]


def _sums(layer: LayerProgram, codes: np.ndarray) -> np.ndarray:
    """Accumulators int64 [N, OH, OW, O] of a few images."""
    blocks = _blocks(layer)
    kind = blocks[0].weights.dtype
    seen = patches(layer, codes.astype(kind))
    flat = seen.reshape(-1, seen.shape[2])
    # Zeros where no group writes, as in a part of a layer.
    result = np.zeros((len(flat), layer.out_shape[2]), np.int64)
    for block in blocks:
        part = flat if block.columns is None else flat[:, block.columns]
        result[:, block.outputs] = part @ block.weights
    if blocks[0].shift:
        result <<= blocks[0].shift
    return result.reshape(len(codes), *layer.out_shape)


def output_codes(
    layer: LayerProgram, sums: np.ndarray, residual: np.ndarray | None = None
) -> np.ndarray:
    """Requantise accumulators int64 [..., O] to codes uint8 [..., O].

    ``clip(floor((acc + bias) * M / 2^s + (r - z_r) * M_r / 2^s_r + 1/2) + zero_out, clip_lo,
    clip_hi)``, the second product where the layer has a residual. With M = 1, s = 1 and
    zero_out = 10: 3 gives 12, -3 gives 9; with M = -1 they give 9 and 12. With M_r = 1, s_r = 1,
    z_r = 0 and r = 1 beside them: 1 gives 11, where rounding each product would give 12.

    Parameters
    ----------
    sums
        Accumulators before the bias.
    residual
        Codes r, uint8 [..., O]; None where the layer has no residual.
    """
    if (residual is not None) != layer.residual:
        raise ValueError(
            f"layer {layer.name} {'needs' if layer.residual else 'has no'} residual operand"
        )
    # One array throughout: (acc * M + bias * M + half) >> s, all of it within 64 bits.
    multiplier, shift = layer.multiplier.astype(np.int64), layer.shift.astype(np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    codes = sums * multiplier
    codes += layer.bias * multiplier + half
    whole = None
    if residual is not None:
        # At 2^s the residual could leave 64 bits, but whole codes commute with the rounding: only
        # what is left of them, below 2^s, goes through it. There are 256 codes: each is worked out.
        worth = (np.arange(256) - layer.residual_zero) * layer.residual_multiplier
        whole = worth >> layer.residual_shift
        left = (worth - (whole << layer.residual_shift))[residual]
        codes += left << (shift - layer.residual_shift)
        whole = whole[residual]
    codes >>= shift
    if whole is not None:
        codes += whole
    codes += layer.zero_out
    np.maximum(codes, layer.clip_lo, out=codes)
    np.minimum(codes, layer.clip_hi, out=codes)
    return codes.astype(np.uint8)


def run_layer(
    layer: LayerProgram, codes: np.ndarray, residual: np.ndarray | None = None
) -> np.ndarray:
    """Compute a layer: uint8 [N, H, W, C] to uint8 [N, OH, OW, O]. The fast, exact path.

    ``residual`` is its second operand, uint8 [N, OH, OW, O], where it has one.
    """
    check_codes(codes, layer.in_shape, f"layer {layer.name}")
    if residual is not None:
        check_codes(residual, layer.out_shape, f"layer {layer.name}, residual")
    result = np.empty((len(codes), *layer.out_shape), np.uint8)
    for part in _batches(layer, len(codes)):
        added = None if residual is None else residual[part]
        result[part] = output_codes(layer, _sums(layer, codes[part]), added)
    return result
