"""A layer as the crossbars compute it: digit by digit, through ADC codes and partial sums."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refmodel.config import FRACTION_BITS, SHIFT_NONE, EngineConfig
from refmodel.golden.cells import (
    Crossbars,
    Device,
    cells,
    coding,
    columns_of_patterns,
    in_pairs,
)
from refmodel.golden.layer import (
    CHUNK,
    check_codes,
    gather_columns,
    output_codes,
    patches,
    slot_of_patterns,
)
from refmodel.golden.wordlines import ROWS, packed_digits, unpacked
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import columns_of_ous, flat_words, ous_of_gathers

LayerFunction = Callable[..., np.ndarray]
"""Computes a layer: (layer, input codes), and codes of its residual operand where it has one."""

_SERIAL_POSITIONS = 1024
"""Output positions that go through ADC codes at once, at most."""

_TABLE_POSITIONS = 1 << 14
"""Output positions that go through tables of codes at once, at most."""

_DENSE = 64
"""Partial sums of a group, to each term of an output, up to which their factors are a matrix."""

_SERIAL_VALUES = 1 << 17
"""Codes that are formed and folded at once, about: they stay in the cache."""


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
    """Everything that the hardware shows while it computes a layer, position by position.

    It is the hardware's order where ``position_lanes`` is 1; :mod:`refmodel.golden.order` has
    others.

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
        Model of the bitline values, a callable or :class:`Crossbars`; None: the population count.
    positions
        Numbers of output positions, row by row; None: all. A trace has a kilobyte or so to each
        partial sum, so large layers are better taken in parts.
    residual
        uint8 [N, OH, OW, O], all positions, where the layer has a residual operand.
    """
    check_codes(codes, layer.in_shape, f"layer {layer.name}")
    program = requests(layer, config)
    programmed = cells(layer, config)
    columns = columns_of_patterns(layer, config)
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
    weights, offset, least = coding(layer, config, pairs=in_pairs(device))
    wide = np.uint8 if config.max_code <= np.iinfo(np.uint8).max else np.uint16
    wide = np.int16 if least < 0 else wide
    wordlines = np.empty((total, len(program.ou), layer.ou_rows), np.uint8)
    converted = np.zeros((total, len(program.ou), config.adcs), wide)
    psums = np.zeros((total, slots), np.int64)
    sums = np.zeros((total, outputs), np.int64)
    if residual is not None:
        check_codes(residual, layer.out_shape, f"layer {layer.name}, residual")
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
    step = max(1, CHUNK // (len(programmed) * ou_size))
    parts = _runs(ous, max(1, CHUNK // (step * ou_size)))
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
                level = device.trace(bits, here, places[i : i + step])
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
        word_step = max(1, CHUNK // psum.shape[1])
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
    check_codes(codes, layer.in_shape, f"layer {layer.name}")
    if config.dac_bits == 1 and layer.ou_rows <= ROWS and not (device is None or callable(device)):
        return _by_tables(layer, codes, config, device)
    programmed = cells(layer, config)
    by_column = programmed.transpose(0, 2, 1).reshape(-1, layer.ou_rows)
    seen = patches(layer, codes)
    flat = seen.reshape(-1, seen.shape[2])
    result = np.empty((len(flat), layer.out_shape[2]), np.int64)
    width, digits = config.columns_per_weight, config.digits
    exact = _exact_type(config)
    shifts = np.arange(digits, dtype=np.uint8) * np.uint8(config.dac_bits)
    mask = np.uint8((1 << config.dac_bits) - 1)
    weights, offset, least = coding(layer, config, pairs=in_pairs(device))
    weight = np.outer(weights, 1 << shifts.astype(int)).astype(exact).ravel()
    rows = gather_columns(layer)
    length, patterns = layer.gather_rows.tolist(), layer.gather_patterns.tolist()
    starts = (np.cumsum(layer.gather_accumulate == 0) - 1).tolist()
    ous = ous_of_gathers(layer, config)
    first_ou = (np.cumsum(ous) - ous).tolist()
    merges = _merges(layer)
    step = max(1, min(_SERIAL_POSITIONS, CHUNK // (digits * flat.shape[1])))
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
                            np.clip(code, least, config.max_code, out=code)
                    else:
                        code = levels[p * width : (p + these) * width]
                        code = np.clip(np.rint(code), least, config.max_code)
                    code = code.astype(exact, copy=False).reshape(these, -1, count)
                    psum[slot + p : slot + p + these] += (weight @ code).astype(np.int64)
            gather += gathers
            for slots, factors in words:
                sums[outputs] += psum[slots] * factors
        result[i : i + step] = sums.T
    return result.reshape(len(codes), *layer.out_shape)


def _by_tables(
    layer: LayerProgram, codes: np.ndarray, config: EngineConfig, device: Crossbars
) -> np.ndarray:
    """Compute accumulators [N, OH, OW, O] by whole gathers, through tables where they are worth it.

    For 1-bit digits and eight rows at most. Partial sums and accumulators are float64, which is
    exact: they are below 2^42.
    """
    seen = patches(layer, codes)
    flat = seen.reshape(-1, seen.shape[2])
    depth = flat.shape[1]
    result = np.empty((len(flat), layer.out_shape[2]), np.int64)
    width = config.columns_per_weight
    weights, offset, _ = coding(layer, config, pairs=in_pairs(device))
    exact = _exact_type(config)
    column_weight = weights.astype(exact)
    rows = gather_columns(layer)
    rows = np.where(rows < 0, depth, rows)
    rows = np.pad(rows, ((0, 0), (0, ROWS - rows.shape[1])), constant_values=depth)
    length, patterns = layer.gather_rows.tolist(), layer.gather_patterns.tolist()
    starts = (np.cumsum(layer.gather_accumulate == 0) - 1).tolist()
    ous = ous_of_gathers(layer, config)
    first_column = ((np.cumsum(ous) - ous) * config.ou_cols).tolist()
    merges = [
        (gathers, kept, outputs, words, _factors(kept, outputs, words))
        for gathers, kept, outputs, words in _merges(layer)
    ]
    most = max(layer.group_kept.max(initial=1), ROWS, depth // 8, layer.out_shape[2])
    step = max(1, min(_TABLE_POSITIONS, CHUNK // int(most)))
    for i in range(0, len(flat), step):
        count = len(flat[i : i + step])
        part = np.zeros((depth + 1, count), np.uint8)
        part[:depth] = flat[i : i + step].T
        places = np.arange(i, i + count)
        sums = np.zeros((layer.out_shape[2], count))
        gather = 0
        for gathers, kept, outputs, words, factor in merges:
            psum = np.zeros((kept, count))
            slot = 0
            for g in range(gather, gather + gathers):
                used = length[g]
                if g > gather and starts[g] != starts[g - 1]:
                    slot += patterns[g - 1]
                driven = np.ascontiguousarray(part[rows[g]].T)
                here = psum[slot : slot + patterns[g]]
                if offset:
                    here -= offset * driven.sum(1, dtype=np.float64)
                inputs = packed_digits(driven).T.astype(np.intp)
                columns = slice(first_column[g], first_column[g] + patterns[g] * width)
                found = device.sums(columns, used, inputs, places, column_weight)
                if found is not None:
                    here += found
                else:
                    _convert(device, columns, unpacked(inputs, used), places, column_weight, here)
            gather += gathers
            if factor is not None:
                sums[outputs] += factor @ psum
                continue
            for slots, factors in words:
                sums[outputs] += psum[slots] * factors
        result[i : i + step] = sums.T
    return result.reshape(len(codes), *layer.out_shape)


def _factors(
    kept: int, outputs: slice, words: list[tuple[np.ndarray | slice, np.ndarray | int]]
) -> np.ndarray | None:
    """Factors [outputs, kept] of a group's partial sums; None where too few of them are not 0."""
    result = np.zeros((outputs.stop - outputs.start, kept))
    if kept > _DENSE * len(words):
        return None
    for slots, factors in words:
        if isinstance(slots, slice):
            return None
        np.add.at(result, (np.arange(len(result)), slots), np.ravel(factors))
    return result


def _convert(
    device: Crossbars,
    columns: slice,
    lines: np.ndarray,
    places: np.ndarray,
    weights: np.ndarray,
    psum: np.ndarray,
) -> None:
    """Convert all columns of a gather, and add their 1-bit digits' codes to [patterns, n]."""
    count, width = len(places), len(weights)
    digits = lines.shape[1] // count
    weight = np.outer(weights, 1 << np.arange(digits)).astype(weights.dtype).ravel()
    planes = lines.reshape(len(lines), digits, count)
    for i in range(0, count, _SERIAL_POSITIONS):
        part = np.ascontiguousarray(planes[:, :, i : i + _SERIAL_POSITIONS])
        here = part.shape[2]
        block = max(1, _SERIAL_VALUES // (width * digits * here))
        for p in range(0, len(psum), block):
            these = min(block, len(psum) - p)
            first = columns.start + p * width
            code = device.codes(
                slice(first, first + these * width),
                part.reshape(len(part), -1),
                places[i : i + here],
            )
            code = code.astype(weights.dtype, copy=False).reshape(these, -1, here)
            psum[p : p + these, i : i + here] += weight @ code


def _levels(
    device: Device, lines: np.ndarray, programmed: np.ndarray, ous: slice, digits: int
) -> np.ndarray:
    """Currents of one gather's OUs on a device: [columns, digits * n] from ``lines`` likewise."""
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
