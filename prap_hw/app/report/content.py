"""Contents of a layer's program that the report shows: shapes, reuse, crossbars.

Everything is counted from the program.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from refmodel.config import MIN_SHIFT, SHIFT_NONE, EngineConfig
from refmodel.golden.cells import cells
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import flat_words, ous_of_gathers


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A shape of kept kernel positions and what uses it.

    Attributes
    ----------
    positions
        Kernel positions that are kept, numbered row by row.
    kept
        Weight patterns that are programmed with it.
    served
        Outputs, summed over the groups, that take one of those patterns.
    """

    positions: tuple[int, ...]
    kept: int
    served: int


def kept_shapes(layer: LayerProgram) -> list[Shape]:
    """List the shapes of a layer, the most served first.

    Gathers that add into the same slots are one shape. A gather with full offsets counts with the
    set of positions that it touches.
    """
    starts = np.cumsum(layer.gather_segments) - layer.gather_segments
    series: list[set[int]] = []
    for start, count, more in zip(
        starts, layer.gather_segments, layer.gather_accumulate, strict=True
    ):
        touched = set(layer.segment_position[start : start + count].tolist())
        if more:
            series[-1] |= touched
        else:
            series.append(touched)
    patterns = layer.gather_patterns[layer.gather_accumulate == 0]
    slot_series = np.repeat(np.arange(len(series)), patterns)
    users = np.bincount(flat_words(layer)[1], minlength=len(slot_series))
    kept: Counter[tuple[int, ...]] = Counter()
    served: Counter[tuple[int, ...]] = Counter()
    for slot, of in enumerate(slot_series):
        key = tuple(sorted(series[of]))
        kept[key] += 1
        served[key] += int(users[slot])
    shapes = [Shape(positions=key, kept=kept[key], served=served[key]) for key in kept]
    return sorted(shapes, key=lambda s: (-s.served, -s.kept, s.positions))


ABSENT_CODE, DROPPED_CODE, KEPT_CODE, FIRST_SHIFT_CODE = range(4)


def reuse_codes(layer: LayerProgram) -> np.ndarray:
    """Tell for each output and group where its weights come from.

    Returns
    -------
    uint8 [outputs, groups]
        ``ABSENT_CODE`` where the group does not touch the output, ``DROPPED_CODE``,
        ``KEPT_CODE``, or ``FIRST_SHIFT_CODE`` + stored shift where a pattern is reused. With
        several terms, the first one that adds something counts. The first output that takes a
        slot as it is (k = 0, plus) is shown as the one that it was kept from.
    """
    codes = np.full((layer.out_shape[2], len(layer.group_kept)), ABSENT_CODE, np.uint8)
    counts = layer.group_outputs.astype(np.int64)
    group = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    output = layer.group_first_output[group] + within
    if layer.identity:
        codes[output, group] = KEPT_CODE
        return codes
    none = (layer.word_shift == SHIFT_NONE).reshape(-1, layer.terms)
    word = np.arange(len(group)) * layer.terms + none.argmin(1)
    shift = layer.word_shift[word].astype(np.int64)
    found = np.where(none.all(1), DROPPED_CODE, FIRST_SHIFT_CODE + shift)
    whole = np.flatnonzero(~none.all(1) & (shift == -MIN_SHIFT) & (layer.word_sign[word] == 0))
    slot = group[whole] * (int(layer.word_slot.max(initial=0)) + 1) + layer.word_slot[word[whole]]
    # The first of equal keys: np.unique gives the index of the first.
    found[whole[np.unique(slot, return_index=True)[1]]] = KEPT_CODE
    codes[output, group] = found
    return codes


@dataclass(frozen=True, kw_only=True, eq=False)
class Occupancy:
    """The contents of a layer's crossbars.

    Attributes
    ----------
    cells
        uint8 [crossbars, X, X]: 0 outside the OUs in use; else 1 or 3, of even and odd groups,
        where the cell is at 0, and 2 or 4 where it conducts.
    crossbars
        Crossbars of the layer, of which ``cells`` has the first ones.
    ous
        OUs in use.
    rows_used
        Share of the wordlines of the OUs in use that carry a weight.
    ones
        Share of the cells in use that conduct.
    """

    cells: np.ndarray
    crossbars: int
    ous: int
    rows_used: float
    ones: float


def occupancy(layer: LayerProgram, config: EngineConfig, most: int | None = None) -> Occupancy:
    """Lay a layer's OUs out in crossbars and look up every cell.

    OUs are numbered as the engine numbers them: in the order of gathers, along a row of blocks,
    then down, then on to the next crossbar. ``most`` limits the crossbars of ``cells``.
    """
    size, rows, cols = config.crossbar_size, config.ou_rows, config.ou_cols
    content = cells(layer, config)
    total = len(content)
    ous = ous_of_gathers(layer, config)
    gather = np.repeat(np.arange(len(ous)), ous)
    odd = np.repeat(np.arange(len(layer.group_kept)), layer.group_gathers) & 1
    # Patterns fill the OUs of a gather from the left; the last one may have room.
    within = np.arange(total) - np.repeat(np.cumsum(ous) - ous, ous)
    patterns = np.minimum(
        layer.gather_patterns[gather] - within * config.patterns_per_ou, config.patterns_per_ou
    )
    height = layer.gather_rows[gather]
    width = patterns * config.columns_per_weight
    used = (np.arange(rows)[:, None] < height[:, None, None]) & (
        np.arange(cols) < width[:, None, None]
    )
    coloured = np.where(used, 1 + 2 * odd[gather][:, None, None] + (content != 0), 0).astype(
        np.uint8
    )
    crossbars = -(-total // config.ous_per_crossbar)
    arrays = crossbars if most is None else min(most, crossbars)
    blocks = np.zeros((arrays * config.ous_per_crossbar, rows, cols), np.uint8)
    shown = min(total, len(blocks))
    blocks[:shown] = coloured[:shown]
    grid = blocks.reshape(arrays, config.row_blocks, config.col_blocks, rows, cols)
    filled = grid.transpose(0, 1, 3, 2, 4).reshape(
        arrays, config.row_blocks * rows, config.col_blocks * cols
    )
    picture = np.zeros((arrays, size, size), np.uint8)
    picture[:, : filled.shape[1], : filled.shape[2]] = filled
    return Occupancy(
        cells=picture,
        crossbars=crossbars,
        ous=total,
        rows_used=float(height.sum()) / (total * rows),
        ones=int(np.count_nonzero(content)) / int(used.sum()),
    )
