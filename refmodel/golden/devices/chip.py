"""Chips drawn from a device: all effects on their cells and converters put together."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.golden.devices.device import Device, effects
from refmodel.golden.devices.effect import CellDraw, ConverterDraw
from refmodel.golden.devices.layer_chip import LayerChip, Tally
from refmodel.golden.devices.random import draw_words, key_of, quantiles
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program

_NOISE = 3
"""Stream of the random words of all noise from read to read."""

_LARGEST = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Chip:
    """One chip: a device, an engine, a seed, and how its cells hold weights.

    The same four give the same chip, and two seeds two chips that have nothing in common.

    Attributes
    ----------
    device
        The device: cells and converters.
    config
        Sizes of the engine; cell, DAC and ADC bits among them.
    seed
        Number of the chip, 0 to 2^63 - 1.
    pairs
        Differential pairs of cells in place of two's complement, which the RTL does not have. The
        plus cells of a chip are those that it has without.
    tally
        Counts all conversions of whole layers, and those that clipped.
    """

    device: Device
    config: EngineConfig
    seed: int
    pairs: bool = False
    tally: Tally = field(default_factory=Tally)
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
        """Compute how much each cell adds to a code.

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
        top = (1 << config.cell_bits) - 1
        step = (1 - device.off) / top
        crossbar, row, column = self._places(np.asarray(ous, np.int64))
        size = config.crossbar_size
        index = (crossbar[:, None, None] * size + row[:, :, None]) * size + column[:, None, :]
        level = programmed.astype(np.float64)
        drawn = CellDraw(level=level, top=top, minus=minus, words=self._words(layer, index))
        conductance = device.off + level * step
        off = device.off
        for effect in effects():
            effect.change_cells(device, drawn, conductance)
            off *= effect.reference(device)
        return self._round((conductance - off) / step, _LARGEST * top)

    def _words(self, layer: int, index: NDArray) -> Callable[[int], NDArray[np.uint64]]:
        """Random words of a layer at some places, by stream."""
        return lambda stream: draw_words(key_of(self.seed, stream, layer), index)

    def offsets(self, layer: int, ous: NDArray[np.integer]) -> NDArray[np.float32]:
        """Offsets of the columns of some OUs, in codes: float32 [n, C]."""
        crossbar, _, column = self._places(np.asarray(ous, np.int64))
        index = crossbar[:, None] * self.config.crossbar_size + column
        drawn = ConverterDraw(words=self._words(layer, index))
        parts = [effect.offsets(self.device, drawn) for effect in effects()]
        found = [part for part in parts if part is not None]
        if not found:
            return np.zeros(index.shape, np.float32)
        return self._round(np.sum(found, axis=0), self._most)

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
            The layer that is programmed.
        number
            Number of the layer in its program.
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
            tally=self.tally,
        )

    def _matrix(self, layer: LayerProgram, number: int) -> NDArray[np.float32]:
        """Compute how much each cell, or pair of cells, adds to a code: [OUs, R, C]."""
        if not self.pairs:
            programmed = golden.cells(layer, self.config)
            return self.cells(programmed, number, np.arange(len(programmed)))
        signed = golden.pair_cells(layer, self.config)
        ous = np.arange(len(signed))
        plus, minus = (np.maximum(each, 0).astype(np.uint8) for each in (signed, -signed))
        return self.cells(plus, number, ous) - self.cells(minus, number, ous, minus=True)

    def _noise_table(self) -> NDArray[np.float32] | None:
        parts = [noise for effect in effects() if (noise := effect.noise(self.device))]
        if not parts:
            return None
        noise = parts[0] if len(parts) == 1 else math.hypot(*parts)
        step = (1 - self.device.off) / ((1 << self.config.cell_bits) - 1)
        sigma = noise / step * (math.sqrt(2) if self.pairs else 1)
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
