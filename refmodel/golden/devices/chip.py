"""Chips drawn from a device: their cells, their converters, the codes that they give."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.golden.devices.device import Device
from refmodel.golden.devices.random import (
    GOLDEN,
    MASK,
    draw_word,
    draw_words,
    key_of,
    mix,
    normal,
    quantiles,
)
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program

_VARIATION, _STUCK, _OFFSET, _NOISE, _MINUS_VARIATION, _MINUS_STUCK = range(6)

_LANES = 4

_LARGEST = 4

_NOISY = 1 << 16
"""Currents that get their noise at once, about: words and indices stay in the cache."""

_FEW = 1 / 32
"""Share of currents near a half up to which their noise is drawn one by one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerChip:
    """The crossbars of one layer on one chip, as :mod:`refmodel.golden` asks them.

    Attributes
    ----------
    matrix
        float32 [OUs * C, R]: what a cell, or a pair, adds to a code for one step of its wordline.
    offset
        float32 [OUs * C], in codes.
    noise_of
        float32 [65536], noise in codes by 16 random bits; None where there is no read noise.
    key
        Of the noise, before the image.
    positions
        Output positions of an image.
    first_image
        Number of the image that stands first in the arrays.
    config
        Sizes of the engine.
    pairs
        Whether weights are differential pairs, and codes signed.
    """

    matrix: NDArray[np.float32]
    offset: NDArray[np.float32]
    noise_of: NDArray[np.float32] | None
    key: int
    positions: int
    first_image: int
    config: EngineConfig
    pairs: bool = False

    @property
    def _quads(self) -> int:
        """Words of noise for the positions of an image."""
        return -(-self.positions // _LANES)

    def _starts(
        self, places: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
        """Of each place: key plus g * (index + 1) of column 0 and digit 0, quad, and lane."""
        image, position = np.divmod(places, self.positions)
        first, last = int(image.min(initial=0)), int(image.max(initial=0))
        keys = [draw_word(self.key, self.first_image + i) for i in range(first, last + 1)]
        quad, lane = np.divmod(position, _LANES)
        start = (quad + 1).astype(np.uint64) * np.uint64(GOLDEN)
        start += np.array(keys, np.uint64)[image - first]
        return start, image * self._quads + quad, lane

    def noise(self, columns: slice, places: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Read noise in codes, None where there is none.

        Parameters
        ----------
        columns
            Of all, OU * C + column of the OU.
        places
            [n], image * positions + position, images from ``first_image`` on.

        Returns
        -------
        float32 [columns, digits * n].
        """
        if self.noise_of is None:
            return None
        count = columns.stop - columns.start
        result = np.zeros((count, self.config.digits * len(places)), np.float32)
        self._add_noise(result, columns, places)
        return result

    def _add_noise(
        self, level: NDArray[np.float32], columns: slice, places: NDArray[np.int64]
    ) -> None:
        """Add to currents [columns, digits * n] their noise."""
        assert self.noise_of is not None
        digits, n = self.config.digits, len(places)
        start, quad, lane = self._starts(places)
        # Neighbours share a word.
        new = np.diff(quad, prepend=-1) != 0
        start, take = start[new], (np.cumsum(new) - 1) * _LANES + lane
        whole = slice(int(take[0]), int(take[0]) + n) if n else slice(0)
        consecutive = bool((take == np.arange(whole.start, whole.stop)).all())
        step = max(1, _NOISY // max(1, digits * n))
        words = np.empty((step, digits, len(start)), np.uint64)
        work = np.empty_like(words)
        index = np.empty((step, digits, n), np.int64)
        drawn = np.empty(index.shape, np.float32)
        for first in range(columns.start, columns.stop, step):
            last = min(first + step, columns.stop)
            lines = np.arange(first * digits, last * digits).astype(np.uint64)
            lines *= np.uint64(GOLDEN * self._quads & MASK)
            z = words[: last - first]
            np.add(lines.reshape(-1, digits, 1), start, out=z)
            mix(z, work[: last - first])
            bits = z.astype("<u8", copy=False).view("<u2")
            chosen, noise = index[: last - first], drawn[: last - first]
            chosen[...] = bits[..., whole] if consecutive else bits[..., take]
            self.noise_of.take(chosen, out=noise, mode="clip")
            level[first - columns.start : last - columns.start] += noise.reshape(len(noise), -1)

    def _noise_at(
        self, column: NDArray[np.int64], digit: NDArray[np.int64], place: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Noise of single currents, all arrays [n]; the columns as for :meth:`noise`."""
        assert self.noise_of is not None
        start, _, lane = self._starts(place)
        line = (column * self.config.digits + digit).astype(np.uint64)
        z = mix(start + line * np.uint64(GOLDEN * self._quads & MASK))
        bits = z >> (lane * 16).astype(np.uint64) & np.uint64(0xFFFF)
        return self.noise_of[bits.astype(np.int64)]

    def codes(
        self, columns: slice, lines: NDArray[np.float32], places: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """What the converters make of some columns of one gather.

        Parameters
        ----------
        columns
            Of all, OU * C + column of the OU.
        lines
            [rows in use, digits * n], digits of the wordlines.
        places
            As for :meth:`noise`.

        Returns
        -------
        float32 [columns, digits * n], integers from 0, or from -(2^code_bits - 1) with pairs, to
        2^code_bits - 1.
        """
        level = self.matrix[columns, : len(lines)] @ lines
        level += self.offset[columns, None]
        if self.noise_of is None:
            code = np.rint(level, out=level)
        else:
            code = self._round_noisy(level, columns, places)
        most = self.config.max_code
        return np.clip(code, -most if self.pairs else 0, most, out=code)

    def _round_noisy(
        self, level: NDArray[np.float32], columns: slice, places: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Round currents [columns, digits * n], with their noise, to integers; may change them."""
        assert self.noise_of is not None
        # Noise changes nothing below this distance from an integer. Exact, since all of these are
        # multiples of the same power of two.
        least = np.float32(0.5) - self.noise_of[-1]
        if least > 0:
            code = np.rint(level)
            apart = level - code
            np.abs(apart, out=apart)
            near = apart >= least
            if np.count_nonzero(near) <= _FEW * near.size:
                at = np.flatnonzero(near)
                column, rest = np.divmod(at, level.shape[1])
                digit, place = np.divmod(rest, len(places))
                noise = self._noise_at(column + columns.start, digit, places[place])
                code.ravel()[at] = np.rint(level.ravel()[at] + noise)
                return code
        self._add_noise(level, columns, places)
        return np.rint(level, out=level)

    def request(
        self, ou: int, digit: int, place: int, wordlines: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Currents of one OU activation, in codes before rounding, as a simulation meets them.

        Parameters
        ----------
        ou, digit
            Of the request; see :class:`refmodel.golden.serial.Requests`.
        place
            image * positions + position.
        wordlines
            [R], digits.

        Returns
        -------
        float32 [C]; the converters of a request round some of them.
        """
        level = self.still(ou, wordlines)
        if self.noise_of is not None:
            level += self.noise_at(ou, np.arange(self.config.ou_cols), digit, place)
        return level

    def still(self, ou: int, wordlines: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Currents of one OU activation without their noise: the same at every read.

        Parameters
        ----------
        ou, wordlines
            As for :meth:`request`.

        Returns
        -------
        float32 [C], in codes before rounding.
        """
        columns = slice(ou * self.config.ou_cols, (ou + 1) * self.config.ou_cols)
        return self.matrix[columns] @ wordlines.astype(np.float32) + self.offset[columns]

    def noise_at(
        self, ou: int, columns: NDArray[np.int64], digit: int, place: int
    ) -> NDArray[np.float32]:
        """Read noise of some columns of one OU activation, in codes; there must be noise.

        Parameters
        ----------
        ou, digit, place
            As for :meth:`request`.
        columns
            [n], of the OU.

        Returns
        -------
        float32 [n].
        """
        each = np.full_like(columns, digit), np.full_like(columns, place)
        return self._noise_at(ou * self.config.ou_cols + columns, *each)

    def near(self, level: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which currents may be rounded to another integer with their noise than without."""
        if self.noise_of is None:
            return np.zeros(level.shape, bool)
        # Exact, since all of these are multiples of the same power of two.
        return np.abs(level - np.rint(level)) >= np.float32(0.5) - self.noise_of[-1]

    def levels(
        self, digits: NDArray[np.uint8], ous: slice, places: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Currents in codes before rounding, of consecutive OUs at all places.

        Parameters
        ----------
        digits
            [ous, n, digits, R], of the wordlines.
        ous
            Their numbers.
        places
            As for :meth:`noise`.

        Returns
        -------
        float32 [ous, n, digits, C].
        """
        count, n, steps, rows = digits.shape
        columns = slice(ous.start * self.config.ou_cols, ous.stop * self.config.ou_cols)
        matrix = self.matrix[columns].reshape(count, -1, rows)
        lines = digits.astype(np.float32).reshape(count, n * steps, rows)
        level = lines @ matrix.transpose(0, 2, 1)
        level += self.offset[columns].reshape(count, 1, -1)
        level = level.reshape(count, n, steps, -1)
        noise = self.noise(columns, places)
        if noise is not None:
            level += noise.reshape(count, -1, steps, n).transpose(0, 3, 2, 1)
        return level


@dataclass(frozen=True, kw_only=True, eq=False)
class Chip:
    """One chip: a device, an engine, a seed, and how its cells hold weights.

    The same four give the same chip, and two seeds two chips that have nothing in common.

    Attributes
    ----------
    device
        What its cells are like.
    config
        Sizes of the engine; cell, DAC and ADC bits among them.
    seed
        Number of the chip, 0 to 2^63 - 1.
    pairs
        Differential pairs of cells in place of two's complement, which the RTL does not have. The
        plus cells of a chip are those that it has without.
    """

    device: Device
    config: EngineConfig
    seed: int
    pairs: bool = False
    _drawn: dict[int, tuple[LayerProgram, NDArray[np.float32], NDArray[np.float32]]] = field(
        default_factory=dict, repr=False
    )

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed must be 0 to 2^63 - 1, not {self.seed!r}")

    @property
    def fraction_bits(self) -> int:
        """Bits behind the point of a current in codes, so that sums are exact in float32.

        Sums of cells are below 2^21 of such parts, or 2^22 of pairs, offset and noise 2^21 at most.
        """
        config = self.config
        rows = config.ou_rows * ((1 << config.dac_bits) - 1)
        return 21 - (rows * _LARGEST * ((1 << config.cell_bits) - 1)).bit_length()

    def _round(self, values: NDArray[np.float64], largest: float) -> NDArray[np.float32]:
        """Limit values and round them to the fraction bits."""
        scale = float(1 << self.fraction_bits)
        return (np.rint(np.clip(values, -largest, largest) * scale) / scale).astype(np.float32)

    def cells(
        self,
        programmed: NDArray[np.uint8],
        layer: int,
        ous: NDArray[np.integer],
        *,
        minus: bool = False,
    ) -> NDArray[np.float32]:
        """What each cell adds to a code.

        Parameters
        ----------
        programmed
            uint8 [n, R, C], levels of the cells of some OUs.
        layer
            Number of the layer in its program.
        ous
            [n], numbers of the OUs: where in the crossbars they lie.
        minus
            Draw the minus cells of pairs: other cells at the same places.

        Returns
        -------
        float32 [n, R, C]; what minus cells add is to be subtracted.
        """
        device, config = self.device, self.config
        variation, stuck = (_MINUS_VARIATION, _MINUS_STUCK) if minus else (_VARIATION, _STUCK)
        top = (1 << config.cell_bits) - 1
        step = (1 - device.off) / top
        crossbar, row, column = self._places(np.asarray(ous, np.int64))
        size = config.crossbar_size
        index = (crossbar[:, None, None] * size + row[:, :, None]) * size + column[:, None, :]
        level = programmed.astype(np.float64)
        conductance = device.off + level * step
        if device.variation_on or device.variation_off:
            more = device.variation_on - device.variation_off
            sigma = device.variation_off + level / top * more
            z = normal(draw_words(key_of(self.seed, variation, layer), index))
            conductance *= np.exp(sigma * z)
        conductance *= device.decay
        if device.stuck_off or device.stuck_on:
            share = draw_words(key_of(self.seed, stuck, layer), index).astype(np.float64) / 2.0**64
            conductance[share < device.stuck_off] = device.off
            on = (share >= device.stuck_off) & (share < device.stuck_off + device.stuck_on)
            conductance[on] = 1.0
        return self._round((conductance - device.off * device.decay) / step, _LARGEST * top)

    def offsets(self, layer: int, ous: NDArray[np.integer]) -> NDArray[np.float32]:
        """Offsets of the columns of some OUs, in codes: float32 [n, C]."""
        crossbar, _, column = self._places(np.asarray(ous, np.int64))
        index = crossbar[:, None] * self.config.crossbar_size + column
        if not self.device.adc_offset:
            return np.zeros(index.shape, np.float32)
        z = normal(draw_words(key_of(self.seed, _OFFSET, layer), index))
        return self._round(self.device.adc_offset * z, self._most)

    @property
    def _most(self) -> float:
        """The largest offset or noise, in codes."""
        return float(1 << (21 - self.fraction_bits))

    def _places(self, ous: NDArray[np.int64]) -> tuple[NDArray, NDArray, NDArray]:
        """Crossbar [n], rows [n, R] and columns [n, C] of OUs."""
        config = self.config
        crossbar, within = np.divmod(ous, config.ous_per_crossbar)
        block, col_block = np.divmod(within, config.col_blocks)
        row = block[:, None] * config.ou_rows + np.arange(config.ou_rows)
        column = col_block[:, None] * config.ou_cols + np.arange(config.ou_cols)
        return crossbar, row, column

    def layer(self, layer: LayerProgram, number: int, *, first_image: int = 0) -> LayerChip:
        """Draw the crossbars of a layer.

        Parameters
        ----------
        layer
            What is programmed.
        number
            Of the layer in its program.
        first_image
            Number of the image that stands first in what the layer will be asked.
        """
        kept = self._drawn.get(number)
        if kept is None or kept[0] is not layer:
            matrix = self._matrix(layer, number)
            kept = (layer, _by_column(matrix), self.offsets(number, np.arange(len(matrix))).ravel())
            self._drawn[number] = kept
        return self._layer_chip(kept[1], kept[2], number, layer.positions, first_image)

    def crossbars(
        self,
        programmed: NDArray[np.uint8],
        number: int,
        *,
        positions: int,
        first_image: int = 0,
    ) -> LayerChip:
        """Draw crossbars of which the cells are known and not the program.

        With the cells that :func:`refmodel.golden.cells.cells` has for a layer they are those of
        :meth:`layer`.

        Parameters
        ----------
        programmed
            uint8 [OUs, R, C], levels of the cells of all OUs from number 0.
        number, first_image
            As for :meth:`layer`.
        positions
            Output positions of an image.
        """
        if self.pairs:
            raise ValueError("pairs must be False where cells are given: they hold one level each")
        ous = np.arange(len(programmed))
        matrix = _by_column(self.cells(programmed, number, ous))
        offset = self.offsets(number, ous).ravel()
        return self._layer_chip(matrix, offset, number, positions, first_image)

    def _layer_chip(
        self,
        matrix: NDArray[np.float32],
        offset: NDArray[np.float32],
        number: int,
        positions: int,
        first_image: int,
    ) -> LayerChip:
        return LayerChip(
            matrix=matrix,
            offset=offset,
            noise_of=self._noise_table(),
            key=key_of(self.seed, _NOISE, number),
            positions=positions,
            first_image=first_image,
            config=self.config,
            pairs=self.pairs,
        )

    def _matrix(self, layer: LayerProgram, number: int) -> NDArray[np.float32]:
        """What each cell, or pair of cells, of a layer adds to a code: [OUs, R, C]."""
        if not self.pairs:
            programmed = golden.cells(layer, self.config)
            return self.cells(programmed, number, np.arange(len(programmed)))
        signed = golden.pair_cells(layer, self.config)
        ous = np.arange(len(signed))
        plus, minus = (np.maximum(each, 0).astype(np.uint8) for each in (signed, -signed))
        return self.cells(plus, number, ous) - self.cells(minus, number, ous, minus=True)

    def _noise_table(self) -> NDArray[np.float32] | None:
        if not self.device.read_noise:
            return None
        step = (1 - self.device.off) / ((1 << self.config.cell_bits) - 1)
        sigma = self.device.read_noise / step * (math.sqrt(2) if self.pairs else 1)
        return self._round(sigma * quantiles(), self._most)

    def layer_function(self, program: Program, *, first_image: int = 0) -> golden.LayerFunction:
        """Return a ``layer_fn`` of :func:`refmodel.golden.run_program` through the chip.

        Parameters
        ----------
        program
            The network; a layer is known by its place in it.
        first_image
            Number of the first image: read noise differs from image to image.
        """
        numbers = {id(layer): number for number, layer in enumerate(program.layers)}

        def run(
            layer: LayerProgram,
            codes: NDArray[np.uint8],
            residual: NDArray[np.uint8] | None = None,
        ) -> NDArray[np.uint8]:
            drawn = self.layer(layer, numbers[id(layer)], first_image=first_image)
            sums = golden.serial_accumulators(layer, codes, self.config, device=drawn)
            return golden.output_codes(layer, sums, residual)

        return run


def _by_column(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cells [OUs, R, C] as [OUs * C, R]."""
    return np.ascontiguousarray(matrix.transpose(0, 2, 1).reshape(-1, matrix.shape[1]))


def logits(
    program: Program,
    codes: NDArray[np.uint8],
    chip: Chip,
    *,
    progress: Callable[[int, int], None] | None = None,
    batch: int = 16,
) -> NDArray[np.float64]:
    """Compute real outputs [N, F] from input codes [N, H, W, C] on a chip; images count from 0."""
    parts = []
    for first in range(0, len(codes), batch):
        run = chip.layer_function(program, first_image=first)
        parts.append(golden.logits(program, codes[first : first + batch], layer_fn=run))
        if progress is not None:
            progress(min(first + batch, len(codes)), len(codes))
    return np.concatenate(parts)


def accuracy(
    program: Program,
    codes: NDArray[np.uint8],
    labels: NDArray,
    chip: Chip,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Share of input codes [N, H, W, C] whose largest output on a chip is their label's."""
    values = logits(program, codes, chip, progress=progress)
    return float(np.mean(values.argmax(1) == np.asarray(labels)))
