"""Chips drawn from a device: all effects on their cells and converters put together."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.golden.devices.converters import AdcRange, Converters
from refmodel.golden.devices.device import Device, effects
from refmodel.golden.devices.effect import ArrayDraw, CellDraw, ConverterDraw
from refmodel.golden.devices.layer_chip import LayerChip, Room, Tables, Tally
from refmodel.golden.devices.random import draw_words, key_of, quantiles
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program

_NOISE = 3
"""Stream of the random words of all noise from read to read."""

_LARGEST = 4

_KEPT = 1 << 28
"""Bytes of tables that a chip keeps; more of them are made again each time."""


@dataclass(kw_only=True)
class Writes:
    """Count of cells that were drawn, and of the writes that they took.

    Attributes
    ----------
    cells
        Cells of whole layers.
    writes
        Writes to them: more than one to a cell only where writes are verified.
    """

    cells: int = 0
    writes: int = 0

    def cost(self, device: Device) -> dict[str, float]:
        """Energy in nJ and time in ms of all writes, one cell after the other.

        By the values of a device file: ``write_energy`` and ``write_time`` of a write and, where
        writes are verified, ``verify_energy`` and ``verify_time`` of the read after each.
        """
        verified = device.verify_writes > 1
        energy = device.write_energy + verified * device.verify_energy
        time = device.write_time + verified * device.verify_time
        return {"energy_nj": self.writes * energy / 1e3, "time_ms": self.writes * time / 1e6}


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
        Differential pairs of cells in place of two's complement. The plus cells of a chip are those
        that it has without. An engine with pairs has them on every chip.
    ranges
        What the converters tell apart, by the number of a layer; elsewhere as the engine's do.
    tally
        Counts all conversions of whole layers, and those that clipped.
    written
        Counts the writes of the layers that were drawn.
    """

    device: Device
    config: EngineConfig
    seed: int
    pairs: bool = False
    ranges: Mapping[int, AdcRange] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    written: Writes = field(default_factory=Writes)
    _room: Room = field(default_factory=lambda: Room(left=_KEPT), repr=False)
    _drawn: dict[int, tuple[LayerProgram, LayerChip]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed must be 0 to 2^63 - 1, not {self.seed!r}")
        if self.config.pairs and not self.pairs:
            object.__setattr__(self, "pairs", True)
        if self.pairs and any(each.low for each in self.ranges.values()):
            raise ValueError("low must be 0 in the ranges of pairs, whose codes have a sign")

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
        return self._cells(programmed, layer, ous, minus=minus)[0]

    def _cells(
        self,
        programmed: NDArray[np.uint8],
        layer: int,
        ous: NDArray[np.integer],
        *,
        minus: bool = False,
    ) -> tuple[NDArray[np.float32], int]:
        """What :meth:`cells` computes, and the number of writes that it took."""
        device, config = self.device, self.config
        top = (1 << config.cell_bits) - 1
        step = (1 - device.off) / top
        places = self._places(np.asarray(ous, np.int64))
        crossbar, row, column = places
        size = config.crossbar_size
        index = (crossbar[:, None, None] * size + row[:, :, None]) * size + column[:, None, :]
        level = programmed.astype(np.float64)
        conductance, writes = self._write(level, top, layer, index, minus=minus)
        drawn = CellDraw(level=level, top=top, minus=minus, words=self._words(layer, index))
        array = ArrayDraw(row=row[:, 0], column=column[:, 0], size=size)
        off, gain = device.off, self._gain
        for effect in effects():
            if not effect.written:
                effect.change_cells(device, drawn, conductance)
            off *= effect.reference(device)
        for effect in effects():
            conductance = effect.change_array(device, array, conductance)
        scale = step * self._range(layer).step
        added = (conductance - off) / scale * gain
        for gains in self._converted(layer, places, "gains"):
            added *= gains[:, None, :]
        return self._round(added, _LARGEST * top), writes

    def _write(
        self,
        level: NDArray[np.float64],
        top: int,
        layer: int,
        index: NDArray[np.int64],
        *,
        minus: bool,
    ) -> tuple[NDArray[np.float64], int]:
        """Write cells, again where that is called for: conductances [n, R, C], and the writes."""
        device = self.device
        target = device.off + level * ((1 - device.off) / top)
        errors = [effect for effect in effects() if effect.written]

        def once(time: int, at: NDArray[np.bool_] | None) -> NDArray[np.float64]:
            # Cells that are not written again are not drawn, either.
            own = (target, level, index) if at is None else (target[at], level[at], index[at])
            found = own[0].copy()
            words = self._words(layer, own[2], *([time] if time else []))
            drawn = CellDraw(level=own[1], top=top, minus=minus, words=words)
            for effect in errors:
                effect.change_cells(device, drawn, found)
            return found

        conductance = once(0, None)
        total = conductance.size
        for time in range(1, max(effect.writes(device) for effect in effects())):
            masks = [effect.again(device, target, conductance) for effect in effects()]
            off = [mask for mask in masks if mask is not None]
            at = np.logical_or.reduce(off) if off else np.zeros(level.shape, bool)
            count = int(np.count_nonzero(at))
            if not count:
                break
            total += count
            conductance[at] = once(time, at)
        return conductance, total

    @property
    def _gain(self) -> float:
        """The gain of all converters."""
        return math.prod(effect.gain(self.device) for effect in effects())

    def _range(self, layer: int) -> AdcRange:
        return self.ranges.get(layer) or AdcRange.of(self.config)

    def _words(self, layer: int, index: NDArray, *more: int) -> Callable[[int], NDArray[np.uint64]]:
        """Random words of a layer at some places, by stream."""
        return lambda stream: draw_words(key_of(self.seed, stream, layer, *more), index)

    def offsets(self, layer: int, ous: NDArray[np.integer]) -> NDArray[np.float32]:
        """Offsets of the columns of some OUs, in codes: float32 [n, C]."""
        places = self._places(np.asarray(ous, np.int64))
        found = np.zeros(places[2].shape)
        for part in self._converted(layer, places, "offsets"):
            found = found + part
        own = self._range(layer)
        return self._round(found - own.low / own.step, self._most)

    def _converted(
        self, layer: int, places: tuple[NDArray, NDArray, NDArray], what: str
    ) -> list[NDArray[np.float64]]:
        """What effects say of the converters of some OUs: ``gains`` or ``offsets``, each [n, C]."""
        drawn = self._converter_draw(layer, places[0][:, None], places[2])
        parts = (getattr(effect, what)(self.device, drawn) for effect in effects())
        return [part for part in parts if part is not None]

    def _converter_draw(
        self, layer: int, crossbar: NDArray[np.int64], column: NDArray[np.int64]
    ) -> ConverterDraw:
        own = self._range(layer)
        steps = np.arange(1 - own.most if self.pairs else 1, own.most + 1).astype(np.float64)
        index = crossbar * self.config.crossbar_size + column
        each = index[..., None] * len(steps) + np.arange(len(steps))
        return ConverterDraw(
            words=self._words(layer, index), steps=steps, step_words=self._words(layer, each)
        )

    def _converters(self, layer: int, ous: int) -> Converters:
        """The converters of a layer with some OUs."""
        config, own = self.config, self._range(layer)
        crossbars = -(-ous // config.ous_per_crossbar)
        number, column = np.divmod(
            np.arange(crossbars * config.crossbar_size), config.crossbar_size
        )
        drawn = self._converter_draw(layer, number[:, None], column[:, None])
        parts = [effect.thresholds(self.device, drawn) for effect in effects()]
        moved = [part[:, 0] for part in parts if part is not None]
        thresholds = place = None
        if moved:
            found = np.sort(drawn.steps - 0.5 + np.sum(moved, axis=0), axis=1)
            thresholds = self._round(found, float(1 << 14))
            crossbar, _, columns = self._places(np.arange(ous))
            place = (crossbar[:, None] * config.crossbar_size + columns).ravel()
        return Converters(
            least=-own.most if self.pairs else 0,
            most=own.most,
            below=self.pairs or own.low > 0,
            thresholds=thresholds,
            place=place,
            values=own.values(config, pairs=self.pairs),
        )

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
            matrix, writes = self._matrix(layer, number)
            self.written.cells += matrix.size << self.pairs
            self.written.writes += writes
            kept = (layer, self._layer_chip(matrix, number, layer.positions))
            self._drawn[number] = kept
        return replace(kept[1], first_image=first_image)

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
            uint8 [OUs, R, C], levels of the cells of all OUs from number 0; of an engine with pairs
            int8, plus less minus.
        number, first_image
            As for :meth:`layer`.
        positions
            Output positions of an image.
        """
        if self.pairs and not self.config.pairs:
            raise ValueError("pairs must be False where cells are given: they hold one level each")
        matrix, _ = self._added(programmed, number)
        drawn = self._layer_chip(matrix, number, positions)
        return replace(drawn, first_image=first_image)

    def _layer_chip(self, matrix: NDArray[np.float32], number: int, positions: int) -> LayerChip:
        """The crossbars of a layer whose cells add ``matrix`` [OUs, R, C] to a code."""
        ous = len(matrix)
        return LayerChip(
            matrix=_by_column(matrix),
            offset=self.offsets(number, np.arange(ous)).ravel(),
            noise_of=self._noise_table(number),
            key=key_of(self.seed, _NOISE, number),
            positions=positions,
            first_image=0,
            config=self.config,
            converters=self._converters(number, ous),
            pairs=self.pairs,
            tally=self.tally,
            kept=Tables(room=self._room),
        )

    def _matrix(self, layer: LayerProgram, number: int) -> tuple[NDArray[np.float32], int]:
        """Compute how much each cell, or pair of cells, adds to a code: [OUs, R, C]; the writes."""
        coded = golden.pair_cells if self.pairs else golden.cells
        return self._added(coded(layer, self.config), number)

    def _added(self, signed: NDArray[Any], number: int) -> tuple[NDArray[np.float32], int]:
        """As :meth:`_matrix`, of levels; with pairs plus less minus."""
        ous = np.arange(len(signed))
        if not self.pairs:
            return self._cells(signed, number, ous)
        plus, minus = (np.maximum(each, 0).astype(np.uint8) for each in (signed, -signed))
        one, writes = self._cells(plus, number, ous)
        other, more = self._cells(minus, number, ous, minus=True)
        return one - other, writes + more

    def _noise_table(self, layer: int) -> NDArray[np.float32] | None:
        device = self.device
        step = (1 - device.off) / ((1 << self.config.cell_bits) - 1) * self._range(layer).step
        scale = (math.sqrt(2) if self.pairs else 1) * self._gain / step
        parts = [scale * noise for effect in effects() if (noise := effect.noise(device))]
        parts += [noise for effect in effects() if (noise := effect.code_noise(device))]
        if not parts:
            return None
        sigma = parts[0] if len(parts) == 1 else math.hypot(*parts)
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
