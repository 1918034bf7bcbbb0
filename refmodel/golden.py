"""Golden inference: what every layer, and the steps between layers, must compute.

A layer can be computed in two ways that agree bit for bit where the ADC is lossless:

- :func:`run_layer` multiplies with the weights that the program decodes to. Matrix products are in
  floating point and exact: in float32 where every sum is below 2^24 once a power of two that all
  weights have in common is taken out, otherwise in float64, where it is below 2^53.
- :func:`run_layer_serial` goes through crossbars, converters, shift-and-add, partial sums and reuse
  merge in the order of the hardware, and shows every value on the way.

Numbers are as in ARCHITECTURE.md::

    ADC code     clip(rint(x), 0, 2^code_bits - 1), x the sum of cell * digit over a bitline's rows
    partial sum  sum over OUs, digits d, columns j of code * 2^(dac_bits d) * 2^(cell_bits j);
                 1-bit cells: column 7 counts -2^7; others: less 2^7 * the sum of gathered inputs
    accumulator  sum over reuse words of sign * partial sum << (8 + k)
    output       clip(floor((accumulator + bias) * M / 2^s + residual + 1/2) + zero_out,
                 clip_lo, clip_hi)
    residual     (r - z_r) * M_r / 2^s_r of the layer's second operand r, where it has one; else 0

Halves round towards plus infinity: with M = 1 and s = 1, 3 gives 2 and -3 gives -1. There is one
rounding with the residual as without. ARCHITECTURE.md has one s for both products; but M / 2^s, the
worth of an accumulator's unit, is some 2^-17 of M_r / 2^s_r, that of a code, and no two multipliers
of 16 bits express both at one s. So s_r is the layer's own, at most the least s of its outputs.

Tensors are uint8 codes of shape (N, H, W, C); a vector is (N, 1, 1, F).
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from refmodel.compile import columns_of_ous, flat_words, ous_of_gathers
from refmodel.config import FRACTION_BITS, SHIFT_NONE, EngineConfig
from refmodel.program import LayerProgram, Program, Step
from refmodel.quantize import TensorInfo, encode

Device = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""A crossbar: (digits uint8 [ous, n, digits, R], cells uint8 [ous, R, C], OU numbers int32 [ous])
to what the converters see, in cells that conduct: float [ous, n, digits, C]."""


class Crossbars(Protocol):
    """Crossbars that know of every activation which it is: see :mod:`refmodel.devices`.

    ``places`` are image * positions + position of what the arrays hold, images from 0.
    """

    @property
    def pairs(self) -> bool:
        """Whether a weight is a difference of two cells: see :func:`pair_cells`."""
        ...

    def codes(self, columns: slice, lines: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Give ADC codes [columns, digits * n] for digits [rows in use, digits * n] of a gather."""
        ...

    def levels(self, digits: np.ndarray, ous: slice, places: np.ndarray) -> np.ndarray:
        """Give currents [ous, n, digits, C], in codes before rounding, for digits [..., R]."""
        ...


LayerFunction = Callable[..., np.ndarray]
"""Computes a layer: (layer, input codes), and codes of its residual operand where it has one."""

_CHUNK = 1 << 22
"""Values of the largest array of one chunk, about; bounds the memory."""

_SERIAL_POSITIONS = 1024
"""Output positions that go through ADC codes at once, at most."""

_SERIAL_VALUES = 1 << 17
"""Codes that are formed and folded at once, about: they stay in the cache."""

_EXACT = 1 << 53
"""Integers up to here are exact in float64."""

_EXACT_32 = 1 << 24
"""Integers up to here are exact in float32."""


def _check_codes(codes: np.ndarray, shape: tuple[int, ...], name: str) -> None:
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
    blocks = _decoded.get(layer) or _decode(layer)
    return sum(int(np.count_nonzero(block.weights)) for block in blocks)


def _decode(layer: LayerProgram) -> list[_Block]:
    columns = gather_columns(layer)
    gather = np.repeat(np.arange(len(columns)), layer.gather_patterns)
    slot = slot_of_patterns(layer)
    output, word_slot, factor = flat_words(layer)
    depth = layer.kernel[0] * layer.kernel[1] * layer.in_shape[2]
    # Rows of `weights` that add into one slot lie at by_slot[first[slot] : first[slot + 1]].
    by_slot = np.argsort(slot, kind="stable")
    first = np.searchsorted(slot[by_slot], np.arange(int(layer.group_kept.sum()) + 1))
    # Integers in float64; one more row takes what unused rows, all 0, would add.
    result = np.zeros((depth + 1, layer.out_shape[2]))
    step = max(1, _CHUNK // (8 * layer.ou_rows))
    for i in range(0, len(output), step):
        start, end = first[word_slot[i : i + step]], first[word_slot[i : i + step] + 1]
        word = np.repeat(np.arange(i, i + len(start)), end - start)
        within = np.arange(len(word)) - np.repeat(
            np.cumsum(end - start) - (end - start), end - start
        )
        pattern = by_slot[np.repeat(start, end - start) + within]
        values = layer.weights[pattern] * factor[word][:, None].astype(np.float64)
        np.add.at(result, (columns[gather[pattern]], output[word][:, None]), values)
    result = result[:depth]
    if 255 * max(np.abs(column).sum() for column in result.T) >= _EXACT:
        raise ValueError(f"layer {layer.name}: sums exceed 2^53")
    # The power of two that all weights have in common.
    common = int(np.bitwise_or.reduce(result.astype(np.int64), axis=None))
    shift = (common & -common).bit_length() - 1 if common else 0
    result /= 1 << shift
    if 255 * np.abs(result).sum(0).max() < _EXACT_32:
        result = result.astype(np.float32)
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
    _check_codes(codes, layer.in_shape, f"layer {layer.name}")
    result = np.empty((len(codes), *layer.out_shape), np.int64)
    for part in _batches(layer, len(codes)):
        result[part] = _sums(layer, codes[part])
    return result


def _batches(layer: LayerProgram, images: int) -> list[slice]:
    """Images whose patches stay in the cache: more at once is up to five times slower."""
    depth = layer.kernel[0] * layer.kernel[1] * layer.in_shape[2]
    step = max(1, _CHUNK // 8 // (layer.positions * max(depth, layer.out_shape[2])))
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


def divide(value: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    """``floor(value / 2^shift + 1/2)`` of int64 values, exact."""
    shift = np.asarray(shift, np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    return (value + half) >> shift


def run_layer(
    layer: LayerProgram, codes: np.ndarray, residual: np.ndarray | None = None
) -> np.ndarray:
    """Compute a layer: uint8 [N, H, W, C] to uint8 [N, OH, OW, O]. The fast, exact path.

    ``residual`` is its second operand, uint8 [N, OH, OW, O], where it has one.
    """
    _check_codes(codes, layer.in_shape, f"layer {layer.name}")
    if residual is not None:
        _check_codes(residual, layer.out_shape, f"layer {layer.name}, residual")
    result = np.empty((len(codes), *layer.out_shape), np.uint8)
    for part in _batches(layer, len(codes)):
        added = None if residual is None else residual[part]
        result[part] = output_codes(layer, _sums(layer, codes[part]), added)
    return result


def cells(layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """What is programmed into the crossbars.

    OUs are numbered in the order of the program. The patterns of a gather lie side by side from
    its first OU on, S columns each, low bits first: column j of a gather is column ``j % C`` of its
    OU ``j // C``, and belongs to its pattern ``j // S``. 1-bit cells hold two's complement; others
    the weight + 128, in the rows that the gather uses.

    Returns
    -------
    uint8 [OUs, R, C], 0 to 2^cell_bits - 1; unused cells are 0.
    """
    stored = layer.weights.view(np.uint8) ^ np.uint8(config.offset)
    if config.offset:
        rows = np.repeat(layer.gather_rows, layer.gather_patterns)
        stored[np.arange(layer.ou_rows) >= rows[:, None]] = 0
    return _placed(_digits_of(stored, config), layer, config)


def pair_cells(layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """What differential pairs of cells are programmed to.

    They lie as :func:`cells` lie. The columns of a pattern hold the digits of ``|w|``, low first;
    those of a positive weight are in the plus cells, those of a negative one in the minus cells,
    and the other cell of each pair is off. No weight is stored with an offset, every column counts
    2^(cell_bits j), and codes are signed. With 1-bit cells -1 is one on-cell, and -128, the only
    weight of eight digits, one in column 7. Columns above the digits of a layer's
    largest weight are left out of its sums: without a weight of -128, column 7.

    Returns
    -------
    int8 [OUs, R, C], plus less minus: -(2^cell_bits - 1) to 2^cell_bits - 1; unused pairs are 0.
    """
    size = np.abs(layer.weights.astype(np.int16)).astype(np.uint8)
    parts = _digits_of(size, config).astype(np.int8)
    parts *= np.sign(layer.weights)[:, None, :]
    return _placed(parts, layer, config)


def _digits_of(stored: np.ndarray, config: EngineConfig) -> np.ndarray:
    """Digits of what is stored, uint8 [patterns, R]: uint8 [patterns, S, R], low first."""
    shifts = np.arange(config.columns_per_weight, dtype=np.uint8) * np.uint8(config.cell_bits)
    return stored[:, None, :] >> shifts[:, None] & np.uint8((1 << config.cell_bits) - 1)


def _placed(parts: np.ndarray, layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """Put the columns of all patterns, [patterns, S, R], where they lie: [OUs, R, C]."""
    columns = _columns_of_patterns(layer, config)
    count = int(ous_of_gathers(layer, config).sum())
    result = np.zeros((count * config.ou_cols, config.ou_rows), parts.dtype)
    result[columns] = parts
    result = result.reshape(count, config.ou_cols, config.ou_rows)
    return np.ascontiguousarray(result.transpose(0, 2, 1))


def _coding(
    layer: LayerProgram, config: EngineConfig, device: Device | Crossbars | None
) -> tuple[np.ndarray, int, int]:
    """What codes of each column of a weight count, the offset of stored weights, the least code."""
    weights = np.array(config.column_weights)
    if device is None or callable(device) or not device.pairs:
        return weights, config.offset, 0
    largest = int(np.abs(layer.weights.astype(np.int16)).max(initial=0))
    weights = np.abs(weights)
    return np.where(weights <= largest, weights, 0), 0, -config.max_code


def _columns_of_patterns(layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """Columns of each row of ``weights``, int64 [patterns, S]: OU * C + column of the OU."""
    if layer.ou_rows != config.ou_rows:
        raise ValueError(f"ou_rows must be {layer.ou_rows} for this layer, not {config.ou_rows!r}")
    ous = ous_of_gathers(layer, config)
    counts = layer.gather_patterns.astype(np.int64)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.repeat(np.cumsum(ous) - ous, counts) * config.ou_cols
    first += within * config.columns_per_weight
    return first[:, None] + np.arange(config.columns_per_weight)


@dataclass(frozen=True, kw_only=True, eq=False)
class Requests:
    """The requests of one output position, in order: group, gather, OU, digit, column chunk.

    Attributes
    ----------
    ou
        int32 [requests], number of the OU: at crossbar n // ous_per_crossbar, row block
        n % ous_per_crossbar // col_blocks, column block n % ous_per_crossbar % col_blocks.
    digit
        int32 [requests], input digit, low first.
    chunk
        int32 [requests], columns ``chunk * adcs`` and following of the OU are converted.
    """

    ou: np.ndarray
    digit: np.ndarray
    chunk: np.ndarray


def requests(layer: LayerProgram, config: EngineConfig) -> Requests:
    """List the requests of one output position; every position has the same."""
    chunks = -(-columns_of_ous(layer, config) // config.adcs)
    counts = chunks * config.digits
    owner = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return Requests(
        ou=owner.astype(np.int32),
        digit=(within // chunks[owner]).astype(np.int32),
        chunk=(within % chunks[owner]).astype(np.int32),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerTrace:
    """Everything that the hardware shows while it computes a layer, in its order.

    Attributes
    ----------
    ou, digit, chunk
        int32 [requests of a position], see :class:`Requests`.
    digits
        uint8 [N, positions, requests, R], below 2^dac_bits: wordline digits of each request.
    codes
        uint8 (uint16 where codes have more than 8 bits, int16 of differential pairs) [N, positions,
        requests, adcs]: ADC codes of each response, lowest column first; 0 of converters beyond the
        OU's last column.
    psums
        int64 [N, positions, slots]: partial sums when complete, groups in order, slots in order.
    accumulators
        int64 [N, positions, O], before the bias.
    outputs
        uint8 [N, positions, O].
    """

    ou: np.ndarray
    digit: np.ndarray
    chunk: np.ndarray
    digits: np.ndarray
    codes: np.ndarray
    psums: np.ndarray
    accumulators: np.ndarray
    outputs: np.ndarray


def run_layer_serial(
    layer: LayerProgram,
    codes: np.ndarray,
    config: EngineConfig,
    *,
    device: Device | Crossbars | None = None,
    positions: slice | None = None,
    residual: np.ndarray | None = None,
) -> LayerTrace:
    """Compute a layer through crossbars and converters, and keep every value.

    Parameters
    ----------
    codes
        uint8 [N, H, W, C].
    config
        Sizes of the OU and the converters; ``ou_rows`` must be the layer's.
    device
        What bitlines carry, a callable or :class:`Crossbars`; the population count where None.
    positions
        Which output positions (row by row); all where None. A trace has a kilobyte or so to each
        partial sum, so large layers are better taken in parts.
    residual
        uint8 [N, OH, OW, O], all positions, where the layer has a residual operand.
    """
    _check_codes(codes, layer.in_shape, f"layer {layer.name}")
    program = requests(layer, config)
    programmed = cells(layer, config)
    columns = _columns_of_patterns(layer, config)
    slot = slot_of_patterns(layer)
    output, word_slot, factor = flat_words(layer)
    slots, outputs = int(layer.group_kept.sum()), layer.out_shape[2]
    gathers = len(layer.gather_base)
    ous = ous_of_gathers(layer, config)
    gather_of_ou = np.repeat(np.arange(gathers), ous)
    first_ou = np.concatenate([[0], np.cumsum(ous)])
    first_pattern = np.concatenate([[0], np.cumsum(layer.gather_patterns, dtype=np.int64)])
    gather_of_pattern = np.repeat(np.arange(gathers), layer.gather_patterns)

    # One more column, always 0, drives the unused wordlines.
    seen = patches(layer, codes)[:, slice(None) if positions is None else positions]
    images, count, depth = seen.shape
    all_positions = layer.out_shape[0] * layer.out_shape[1]
    places = np.arange(all_positions)[slice(None) if positions is None else positions]
    places = (np.arange(images)[:, None] * all_positions + places).ravel()
    flat = np.concatenate([seen, np.zeros((images, count, 1), np.uint8)], 2).reshape(-1, depth + 1)
    rows = gather_columns(layer)
    rows = np.where(rows < 0, depth, rows)

    total = len(flat)
    weights, offset, least = _coding(layer, config, device)
    wide = np.uint8 if config.max_code <= np.iinfo(np.uint8).max else np.uint16
    wide = np.int16 if least < 0 else wide
    wordlines = np.empty((total, len(program.ou), layer.ou_rows), np.uint8)
    converted = np.zeros((total, len(program.ou), config.adcs), wide)
    psums = np.zeros((total, slots), np.int64)
    sums = np.zeros((total, outputs), np.int64)
    if residual is not None:
        _check_codes(residual, layer.out_shape, f"layer {layer.name}, residual")
        residual = residual.reshape(-1, outputs)[places]
    # The column beyond an OU's last is one that is always 0.
    column = program.chunk[:, None] * config.adcs + np.arange(config.adcs)
    column = np.minimum(column, config.ou_cols)
    exact = _exact_type(config)
    column_weight = weights.astype(exact)
    shifts = np.arange(config.digits, dtype=np.uint8) * np.uint8(config.dac_bits)
    digit_weight = (1 << shifts.astype(int)).astype(exact)
    mask = np.uint8((1 << config.dac_bits) - 1)
    numbers = np.arange(len(programmed), dtype=np.int32)
    # Positions in parts, and where even one is large, its gathers in parts.
    ou_size = config.digits * (config.ou_cols + 1)
    step = max(1, _CHUNK // (len(programmed) * ou_size))
    parts = _runs(ous, max(1, _CHUNK // (step * ou_size)))
    for i in range(0, total, step):
        psum = np.zeros((slots, len(flat[i : i + step])), np.int64)
        for a, b in parts:
            here, asked = (
                slice(first_ou[a], first_ou[b]),
                slice(*np.searchsorted(program.ou, first_ou[[a, b]])),
            )
            part = flat[i : i + step][:, rows[gather_of_ou[here]]].transpose(1, 0, 2)
            bits = part[:, :, None, :] >> shifts[:, None] & mask
            if device is None or callable(device):
                ask = _count if device is None else device
                level = ask(bits, programmed[here], numbers[here])
            else:
                level = device.levels(bits, here, places[i : i + step])
            code = np.zeros((*level.shape[:3], config.ou_cols + 1), exact)
            np.clip(np.rint(level), least, config.max_code, out=code[..., :-1], casting="unsafe")
            ou, digit = program.ou[asked] - first_ou[a], program.digit[asked]
            wordlines[i : i + step, asked] = bits[ou, :, digit].transpose(1, 0, 2)
            picked = code[ou[:, None], :, digit[:, None], column[asked]]
            converted[i : i + step, asked] = picked.transpose(2, 0, 1)
            mine = slice(first_pattern[a], first_pattern[b])
            summed = (code[..., :-1].swapaxes(2, 3) @ digit_weight).transpose(0, 2, 1)
            summed = summed.reshape(-1, psum.shape[1])[columns[mine] - first_ou[a] * config.ou_cols]
            folded = np.einsum("psn,s->pn", summed, column_weight).astype(np.int64)
            if offset:
                inputs = flat[i : i + step][:, rows[a:b]].sum(2, dtype=np.int64)
                folded -= offset * inputs.T[gather_of_pattern[mine] - a]
            np.add.at(psum, slot[mine], folded)
        merged = np.zeros((outputs, psum.shape[1]), np.int64)
        word_step = max(1, _CHUNK // psum.shape[1])
        for j in range(0, len(factor), word_step):
            words = slice(j, j + word_step)
            np.add.at(merged, output[words], psum[word_slot[words]] * factor[words, None])
        psums[i : i + step], sums[i : i + step] = psum.T, merged.T
    return LayerTrace(
        ou=program.ou,
        digit=program.digit,
        chunk=program.chunk,
        digits=wordlines.reshape(images, count, -1, layer.ou_rows),
        codes=converted.reshape(images, count, -1, config.adcs),
        psums=psums.reshape(images, count, slots),
        accumulators=sums.reshape(images, count, outputs),
        outputs=output_codes(layer, sums, residual).reshape(images, count, outputs),
    )


def _exact_type(config: EngineConfig) -> type[np.floating]:
    """Float type in which the sum of one pattern's codes is exact, whatever the codes."""
    digits = sum(1 << config.dac_bits * d for d in range(config.digits))
    most = config.max_code * digits * sum(abs(w) for w in config.column_weights)
    return np.float32 if most < 1 << 24 else np.float64


def _runs(sizes: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """Cut a sequence of sizes into runs that add up to ``limit`` at most, or of one element."""
    parts, start, total = [], 0, 0
    for i, size in enumerate(sizes.tolist()):
        if total and total + size > limit:
            parts.append((start, i))
            start, total = i, 0
        total += size
    return [*parts, (start, len(sizes))]


def serial_layer(
    config: EngineConfig, *, device: Device | Crossbars | None = None
) -> LayerFunction:
    """Return a ``layer_fn`` of :func:`run_program` that goes through ADC codes."""

    def run(
        layer: LayerProgram, codes: np.ndarray, residual: np.ndarray | None = None
    ) -> np.ndarray:
        sums = serial_accumulators(layer, codes, config, device=device)
        return output_codes(layer, sums, residual)

    return run


def serial_accumulators(
    layer: LayerProgram,
    codes: np.ndarray,
    config: EngineConfig,
    *,
    device: Device | Crossbars | None = None,
) -> np.ndarray:
    """Compute a layer's accumulators through ADC codes, keeping nothing else.

    The values are those of :func:`run_layer_serial`; every code is computed, clipped, shifted and
    added, a gather at a time for many positions.

    Parameters
    ----------
    codes
        uint8 [N, H, W, C].
    config, device
        As for :func:`run_layer_serial`. A device is asked for the OUs of one gather at a time.

    Returns
    -------
    int64 [N, OH, OW, O], in units of 1/256.
    """
    _check_codes(codes, layer.in_shape, f"layer {layer.name}")
    programmed = cells(layer, config)
    by_column = programmed.transpose(0, 2, 1).reshape(-1, layer.ou_rows)
    seen = patches(layer, codes)
    flat = seen.reshape(-1, seen.shape[2])
    result = np.empty((len(flat), layer.out_shape[2]), np.int64)
    width, digits = config.columns_per_weight, config.digits
    exact = _exact_type(config)
    shifts = np.arange(digits, dtype=np.uint8) * np.uint8(config.dac_bits)
    mask = np.uint8((1 << config.dac_bits) - 1)
    weights, offset, _ = _coding(layer, config, device)
    weight = np.outer(weights, 1 << shifts.astype(int)).astype(exact).ravel()
    rows = gather_columns(layer)
    length, patterns = layer.gather_rows.tolist(), layer.gather_patterns.tolist()
    starts = (np.cumsum(layer.gather_accumulate == 0) - 1).tolist()
    ous = ous_of_gathers(layer, config)
    first_ou = (np.cumsum(ous) - ous).tolist()
    merges = _merges(layer)
    step = max(1, min(_SERIAL_POSITIONS, _CHUNK // (digits * flat.shape[1])))
    for i in range(0, len(flat), step):
        part = np.ascontiguousarray(flat[i : i + step].T)
        count = part.shape[1]
        planes = (part[:, None, :] >> shifts[:, None] & mask).astype(np.float32)
        planes = planes.reshape(len(part), digits * count)
        places = np.arange(i, i + count)
        block = max(1, _SERIAL_VALUES // (width * digits * count))
        sums = np.zeros((layer.out_shape[2], count), np.int64)
        gather = 0
        for gathers, kept, outputs, words in merges:
            psum = np.zeros((kept, count), np.int64)
            slot = 0
            for g in range(gather, gather + gathers):
                used = length[g]
                lines = planes[rows[g, :used]]
                first = first_ou[g] * config.ou_cols
                if g > gather and starts[g] != starts[g - 1]:
                    slot += patterns[g - 1]
                if offset:
                    inputs = part[rows[g, :used]].sum(0, dtype=np.int64)
                    psum[slot : slot + patterns[g]] -= offset * inputs
                here = slice(first_ou[g], first_ou[g] + int(ous[g]))
                levels = None
                if callable(device):
                    levels = _levels(device, lines, programmed, here, digits)
                for p in range(0, patterns[g], block):
                    these = min(block, patterns[g] - p)
                    columns = slice(first + p * width, first + (p + these) * width)
                    if device is not None and not callable(device):
                        code = device.codes(columns, lines, places)
                    elif levels is None:
                        code = by_column[columns, :used].astype(np.float32) @ lines
                        if not config.lossless:
                            np.minimum(code, config.max_code, out=code)
                    else:
                        code = levels[p * width : (p + these) * width]
                        code = np.clip(np.rint(code), 0, config.max_code)
                    code = code.astype(exact, copy=False).reshape(these, -1, count)
                    psum[slot + p : slot + p + these] += (weight @ code).astype(np.int64)
            gather += gathers
            for slots, factors in words:
                sums[outputs] += psum[slots] * factors
        result[i : i + step] = sums.T
    return result.reshape(len(codes), *layer.out_shape)


def _levels(
    device: Device, lines: np.ndarray, programmed: np.ndarray, ous: slice, digits: int
) -> np.ndarray:
    """What a device shows of one gather's OUs: [columns, digits * n] from ``lines`` likewise."""
    rows = programmed.shape[1]
    bits = np.zeros((rows, lines.shape[1]), np.uint8)
    bits[: len(lines)] = lines
    bits = bits.reshape(rows, digits, -1).transpose(2, 1, 0)
    numbers = np.arange(ous.start, ous.stop, dtype=np.int32)
    level = device(np.broadcast_to(bits, (len(numbers), *bits.shape)), programmed[ous], numbers)
    return level.transpose(0, 3, 2, 1).reshape(-1, lines.shape[1])


def _merges(
    layer: LayerProgram,
) -> list[tuple[int, int, slice, list[tuple[np.ndarray | slice, np.ndarray | int]]]]:
    """Per group: gathers, slots, its outputs, and per term the slot and factor of each output."""
    result = []
    word = 0
    for gathers, kept, first, outputs in zip(
        layer.group_gathers.tolist(),
        layer.group_kept.tolist(),
        layer.group_first_output.tolist(),
        layer.group_outputs.tolist(),
        strict=True,
    ):
        words: list[tuple[np.ndarray | slice, np.ndarray | int]] = []
        if layer.identity:
            words.append((slice(None), 1 << FRACTION_BITS))
        else:
            end = word + outputs * layer.terms
            for term in range(layer.terms):
                mine = slice(word + term, end, layer.terms)
                shift = layer.word_shift[mine].astype(np.int64)
                none = shift == SHIFT_NONE
                factor = np.where(none, 0, np.int64(1) << shift)
                factor = np.where(layer.word_sign[mine] == 1, -factor, factor)
                words.append((np.where(none, 0, layer.word_slot[mine]), factor[:, None]))
            word = end
        result.append((gathers, kept, slice(first, first + outputs), words))
    return result


def _count(digits: np.ndarray, programmed: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Sums of digit times cell over the rows: the ideal device."""
    ous, n, count, rows = digits.shape
    driven = digits.reshape(ous, n * count, rows).astype(np.float32)
    return (driven @ programmed.astype(np.float32)).reshape(ous, n, count, -1)


def _windows(x: np.ndarray, params: Mapping[str, Any], fill: int) -> np.ndarray:
    """Windows [N, OH, OW, C, kh, kw] of x [N, H, W, C] with a border of ``fill``."""
    top, left, bottom, right = params["pads"]
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x, around, constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, tuple(params["kernel"]), axis=(1, 2))
    return view[:, :: params["stride"][0], :: params["stride"][1]]


def _reduce(operation: np.ufunc, view: np.ndarray) -> np.ndarray:
    """Reduce windows [..., kh, kw] by a ufunc, a pass over the images for each place in them."""
    result = np.array(view[..., 0, 0])
    for i, j in list(np.ndindex(*view.shape[-2:]))[1:]:
        operation(result, view[..., i, j], out=result)
    return result


def max_pool(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """Largest code of each window; the border never wins, since no code is below 0."""
    return _reduce(np.maximum, _windows(codes, params, 0))


def average_pool(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """``clip(floor(sum(code - zero_in) * M / 2^s + 1/2) + zero_out, 0, 255)`` of each window.

    The border adds 0. M is a number, or an array [OH, OW].
    """
    values = codes.astype(np.int32) - np.int32(params["zero_in"])
    sums = _reduce(np.add, _windows(values, params, 0)).astype(np.int64)
    multiplier = np.asarray(params["multiplier"], np.int64)
    if multiplier.ndim:
        multiplier = multiplier[:, :, None]
    result = divide(sums * multiplier, params["shift"]) + params["zero_out"]
    return np.clip(result, 0, 255).astype(np.uint8)


def add(a: np.ndarray, b: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """``clip(floor(((a - za) * Ma + (b - zb) * Mb) / 2^s + 1/2) + zero_out, lo, hi)``."""
    # There are 256 codes: the share of each is worked out once.
    first, second = (
        (np.arange(256) - zero) * multiplier
        for zero, multiplier in zip(params["zeros_in"], params["multipliers"], strict=True)
    )
    total = divide(first[a] + second[b], params["shift"]) + params["zero_out"]
    return np.clip(total, *params["clip"]).astype(np.uint8)


def clip(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """Limit codes to ``lo`` .. ``hi``."""
    return np.clip(codes, params["lo"], params["hi"])


def rearrange(codes: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """Move values about: value i of the output, flat, is value ``index[i]`` of the input.

    Where the index is -1, it is ``fill``.
    """
    index = np.asarray(params["index"])
    flat = codes.reshape(len(codes), -1).take(index, axis=1)
    if "fill" in params:
        flat[:, index < 0] = params["fill"]
    return flat.reshape(len(codes), *params["shape"])


def concat(*inputs_and_params: Any) -> np.ndarray:
    """Put tensors one behind the other along ``axis`` of (H, W, C), each requantised.

    ``clip(floor((a - zero_in) * M / 2^s + 1/2) + zero_out, lo, hi)`` of each value a.
    """
    *inputs, params = inputs_and_params
    parts = []
    for x, zero, multiplier in zip(inputs, params["zeros_in"], params["multipliers"], strict=True):
        # There are 256 codes: each is worked out once.
        codes = divide((np.arange(256) - zero) * multiplier, params["shift"]) + params["zero_out"]
        parts.append(np.clip(codes, *params["clip"]).astype(np.uint8)[x])
    return np.concatenate(parts, axis=params["axis"] + 1)


_STEPS: dict[str, Callable[..., np.ndarray]] = {
    "max_pool": max_pool,
    "average_pool": average_pool,
    "add": add,
    "clip": clip,
    "concat": concat,
    "rearrange": rearrange,
}


def run_step(
    program: Program, step: Step, inputs: list[np.ndarray], layer_fn: LayerFunction = run_layer
) -> np.ndarray:
    """Compute one step of a program from its input codes."""
    if step.op == "layer":
        return layer_fn(program.layers[step.params["index"]], *inputs)
    if step.op not in _STEPS:
        raise ValueError(f"op must be layer or one of {', '.join(_STEPS)}, not {step.op!r}")
    return _STEPS[step.op](*inputs, step.params)


def run_program(
    program: Program,
    codes: np.ndarray,
    *,
    layer_fn: LayerFunction = run_layer,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Compute a whole network.

    Parameters
    ----------
    codes
        Input codes, uint8 [N, H, W, C].
    layer_fn
        Computes a layer from its input codes.
    progress
        Called before each step with its output's name, its index and the number of steps.

    Returns
    -------
    Every tensor's codes, by name.
    """
    _check_codes(codes, tuple(program.tensors[program.input]["shape"]), program.input)
    tensors = {program.input: codes}
    for i, step in enumerate(program.steps):
        if progress is not None:
            progress(step.output, i, len(program.steps))
        inputs = [tensors[name] for name in step.inputs]
        tensors[step.output] = run_step(program, step, inputs, layer_fn)
    return tensors


def quantise_input(program: Program, images: np.ndarray) -> np.ndarray:
    """Turn network inputs, float [N, C, H, W] or [N, F], into codes uint8 [N, H, W, C].

    ``clip(floor(x / scale + 1/2) + zero, 0, 255)``, as :func:`refmodel.quantize.encode` has it.
    """
    info = program.tensors[program.input]
    return np.ascontiguousarray(
        encode(
            images,
            TensorInfo(shape=tuple(info["shape"]), scale=info["scale"], zero=info["zero"]),
        )
    )


def logits(
    program: Program,
    codes: np.ndarray,
    *,
    layer_fn: LayerFunction = run_layer,
    progress: Callable[[int, int], None] | None = None,
    batch: int = 100,
) -> np.ndarray:
    """Compute real outputs from input codes: float64 [N, F], an image flattened as ONNX has it.

    Parameters
    ----------
    codes
        Input codes, uint8 [N, H, W, C].
    progress
        Called after each batch with images done and images in all.
    batch
        Images computed at once.
    """
    info = program.tensors[program.output]
    parts = []
    for i in range(0, len(codes), batch):
        result = run_program(program, codes[i : i + batch], layer_fn=layer_fn)[program.output]
        # Codes lie (N, H, W, C); ONNX has the channels first.
        channels_first = result.transpose(0, 3, 1, 2)
        parts.append(channels_first.reshape(len(result), -1).astype(np.float64))
        if progress is not None:
            progress(min(i + batch, len(codes)), len(codes))
    return (np.concatenate(parts) - info["zero"]) * info["scale"]


def accuracy(
    program: Program,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Share of network inputs (float [N, C, H, W]) whose largest output is their label's."""
    values = logits(program, quantise_input(program, images), progress=progress)
    return float(np.mean(values.argmax(1) == np.asarray(labels)))
