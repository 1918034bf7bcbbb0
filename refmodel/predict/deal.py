"""Tiles: a layer dealt out to several engines, and cut into passes where it is too large.

A tile is N engines with one requantiser. Each engine runs some groups of the layer, or parts of
groups, for every output position; the accumulators of all engines add up to the layer's, exactly,
since an accumulator is a sum over groups and kept patterns in any order.

:mod:`refmodel.predict.tile` predicts the cycles of the parts.

**Dealing out.** The load of an engine is the largest of its conversion, gather and merge cycles a
position (docs/specification/architecture.md, Bounds). Groups go, largest first, to the engine that
is then loaded least; then the most loaded engine hands over a group, exchanges one, or splits one,
for as long as that lowers its load. A group is split by its kept patterns: each half has the
gathers over its patterns and all the group's reuse words, of which those that use the other half
say "none". So a split shares conversions and repeats gathers and merges, and is made only where
that is less. Groups with an identity map are split by outputs, which shares the merge as well.

**Passes.** A layer that is too large for the tile is cut into ranges of outputs, each a layer of
its own with the kept patterns that its outputs use: ReRAM is not rewritten during inference, so
passes need other crossbars, not other cells.
"""

import dataclasses
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from refmodel.config import SHIFT_NONE, EngineConfig, check_engines
from refmodel.errors import InputError
from refmodel.predict.events import requests_of_gathers
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import accumulator_bits, check_fits, merge_steps

WORTH = 100
"""A group is split where that lowers the load of the engine that has it by at least a part in so
many: every split costs index memory."""


class LayerPart(LayerProgram):
    """The part of a layer that one engine runs: a program that may leave outputs to others.

    It is a kind of :class:`~refmodel.program.layer.LayerProgram`, so that everything that takes a
    program (memory images, cells, partial sums, predicted events) takes a part; only the rule that
    every output is written is relaxed to at most once. Figures of the layer (``patterns``,
    ``kept``, ``reused``, ``dropped``, ``ous_dense``) and its requantisation are the whole layer's.
    A part's accumulators are 0 at outputs that it does not touch; its outputs mean nothing. Parts
    are not saved: :func:`deal` makes them from the program, the same every time.
    """

    partial: ClassVar[bool] = True

    @property
    def touched(self) -> np.ndarray:
        """Outputs that a group of the part touches, bool [outputs]."""
        result = np.zeros(self.out_shape[2], bool)
        for first, count in zip(self.group_first_output, self.group_outputs, strict=True):
            result[first : first + count] = True
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """Some patterns of a group, for some of its outputs.

    ``slots`` are the group's, ascending; with an identity map they are ``first_output`` to
    ``first_output + outputs - 1`` less the group's first output.
    """

    group: int
    slots: np.ndarray
    first_output: int
    outputs: int

    @property
    def block(self) -> slice:
        return slice(self.first_output, self.first_output + self.outputs)


class _Groups:
    """Where things of each group lie in a layer's arrays, and what a range of its slots costs."""

    def __init__(self, layer: LayerProgram, config: EngineConfig | None = None):
        self.layer = layer
        kept = layer.group_kept.astype(np.int64)
        self.first_slot = np.cumsum(kept) - kept
        self.first_word = np.cumsum(layer.group_outputs, dtype=np.int64)
        self.first_word = (self.first_word - layer.group_outputs) * layer.terms
        # Series: gathers that add into the same slots. Slots are numbered over all groups.
        starts = np.flatnonzero(layer.gather_accumulate == 0)
        self.series_gather = np.append(starts, len(layer.gather_base))
        patterns = layer.gather_patterns.astype(np.int64)
        self.series_patterns = patterns[starts]
        self.series_slot = np.append(0, np.cumsum(self.series_patterns))
        self.gather_pattern = np.cumsum(patterns) - patterns
        self.gather_segment = np.cumsum(layer.gather_segments, dtype=np.int64)
        self.gather_segment -= layer.gather_segments
        if config is None:
            return
        self.config = config
        ends = self.series_gather[:-1]
        self.series_rows = np.add.reduceat(layer.gather_rows, ends)
        series_requests = np.add.reduceat(requests_of_gathers(layer, config), ends)
        self.rows_before = np.append(0, np.cumsum(self.series_rows))
        self.requests_before = np.append(0, np.cumsum(series_requests))
        self.slot_edges = self.series_slot.tolist()
        self.steps = merge_steps(layer, config.merge_lanes)

    def series_of(self, slot: int) -> int:
        """The series of a slot."""
        return bisect_right(self.slot_edges, slot) - 1

    def _requests(self, series: int, patterns: int) -> int:
        """Requests of some patterns under all gathers of a series."""
        config = self.config
        columns = patterns * config.columns_per_weight
        whole, rest = divmod(columns, config.ou_cols)
        asked = whole * -(-config.ou_cols // config.adcs) - (-rest // config.adcs)
        gathers = self.series_gather[series + 1] - self.series_gather[series]
        return int(gathers) * asked * config.digits

    def cost(self, group: int, ranges: Sequence[tuple[int, int]]) -> np.ndarray:
        """Conversion, gather and merge cycles of ranges of a group's slots, for a block."""
        layer, total = self.layer, np.zeros(3, np.int64)
        base = int(self.first_slot[group])
        for start, end in ranges:
            a, b = base + start, base + end
            first, last = self.series_of(a), self.series_of(b - 1)
            conversion = int(self.requests_before[last + 1] - self.requests_before[first])
            for series in {first, last}:
                low, high = self.slot_edges[series], self.slot_edges[series + 1]
                if a > low or b < high:
                    inside = min(b, high) - max(a, low)
                    conversion -= self._requests(series, high - low)
                    conversion += self._requests(series, inside)
            merge = 0
            if layer.identity:
                output, lanes = int(layer.group_first_output[group]), self.config.merge_lanes
                merge = (output + end - 1) // lanes - (output + start) // lanes + 1
            gather = self.rows_before[last + 1] - self.rows_before[first]
            total += (conversion, gather, merge)
        total[:2] *= self.config.position_lanes
        if ranges and not layer.identity:
            total[2] = self.steps[group]
        return total


def _assemble(
    groups: _Groups, pieces: Sequence[_Piece], outputs: slice, kind: type[LayerProgram]
) -> LayerProgram:
    """Make a program of some pieces of a layer, for a range of its outputs.

    The first piece that touches an output writes, later ones add. A piece's outputs must all be
    written before, or none of them; see :func:`_ordered`.
    """
    layer = groups.layer
    headers: list[tuple[int, ...]] = []
    gathers: list[np.ndarray] = []
    patterns: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    words: list[np.ndarray] = []
    written = np.zeros(layer.out_shape[2], bool)
    for piece in pieces:
        slots = piece.slots + groups.first_slot[piece.group]
        series = np.searchsorted(groups.series_slot, slots, side="right") - 1
        count = 0
        for number, first, last in _runs(series):
            chosen = slots[first:last] - groups.series_slot[number]
            run = np.arange(groups.series_gather[number], groups.series_gather[number + 1])
            gathers.append(run)
            patterns.append(np.full(len(run), len(chosen)))
            weights.append((groups.gather_pattern[run][:, None] + chosen).ravel())
            count += len(run)
        write = not written[piece.block].any()
        written[piece.block] = True
        headers.append(
            (len(slots), piece.first_output - outputs.start, piece.outputs, write, count)
        )
        if not layer.identity:
            words.append(_words(groups, piece))
    gather = np.concatenate(gathers)
    counts = layer.gather_segments[gather]
    ends = np.cumsum(counts)
    segment = np.repeat(groups.gather_segment[gather] - ends + counts, counts) + np.arange(ends[-1])
    header = np.array(headers, np.int64)
    word = np.concatenate(words) if words else np.zeros((0, 3), np.int64)
    arrays = {
        "group_kept": header[:, 0],
        "group_first_output": header[:, 1],
        "group_outputs": header[:, 2],
        "group_write": header[:, 3],
        "group_gathers": header[:, 4],
        "gather_patterns": np.concatenate(patterns),
        "word_slot": word[:, 0],
        "word_shift": word[:, 1],
        "word_sign": word[:, 2],
        "weights": layer.weights[np.concatenate(weights)],
    }
    for name in ("base", "length", "segments", "accumulate", "final"):
        arrays[f"gather_{name}"] = getattr(layer, f"gather_{name}")[gather]
    for name in ("position", "channel", "length"):
        arrays[f"segment_{name}"] = getattr(layer, f"segment_{name}")[segment]
    for name in ("bias", "multiplier", "shift"):
        arrays[name] = getattr(layer, name)[outputs]
    values = {item.name: getattr(layer, item.name) for item in dataclasses.fields(LayerProgram)}
    values["out_shape"] = (*layer.out_shape[:2], outputs.stop - outputs.start)
    if kind is LayerProgram:
        values["conv_groups"] = 1  # A range of outputs need not be whole groups of the convolution.
    return kind(**(values | arrays))


def _runs(values: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of equal values: (value, first, end)."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [len(values)]])
    return [(int(values[first]), int(first), int(end)) for first, end in pairwise(edges)]


def _words(groups: _Groups, piece: _Piece) -> np.ndarray:
    """Reuse words of a piece, int64 [outputs * terms, 3]: slot, stored shift, sign.

    Words that use other patterns say none, as do those of outputs that the group does not touch.
    """
    layer, g = groups.layer, piece.group
    first, count = int(layer.group_first_output[g]), int(layer.group_outputs[g])
    result = np.tile(np.array([0, SHIFT_NONE, 0]), (piece.outputs, layer.terms, 1))
    low = max(first, piece.first_output)
    high = min(first + count, piece.first_output + piece.outputs)
    at = slice(
        int(groups.first_word[g]) + (low - first) * layer.terms,
        int(groups.first_word[g]) + (high - first) * layer.terms,
    )
    slot, shift = layer.word_slot[at].astype(np.int64), layer.word_shift[at]
    renumbered = np.full(int(layer.group_kept[g]), -1)
    renumbered[piece.slots] = np.arange(len(piece.slots))
    none = (shift == SHIFT_NONE) | (renumbered[np.where(shift == SHIFT_NONE, 0, slot)] < 0)
    words = np.stack(
        [
            np.where(none, 0, renumbered[np.where(none, 0, slot)]),
            np.where(none, SHIFT_NONE, shift),
            np.where(none, 0, layer.word_sign[at]),
        ],
        axis=-1,
    )
    inside = slice(low - piece.first_output, high - piece.first_output)
    result[inside] = words.reshape(-1, layer.terms, 3)
    return result.reshape(-1, 3)


def _ordered(pieces: Sequence[_Piece], identity: bool) -> list[_Piece]:
    """Order the pieces of an engine so that each finds all of its outputs written, or none.

    Among pieces that overlap, directly or through others, one that has all their outputs goes
    first. Where there is none: with reuse words the widest is widened by words that say none; with
    an identity map, wider ones go first, and later ones are cut where written outputs begin or end.
    """
    pieces = sorted(pieces, key=lambda piece: piece.group)
    by_place = sorted(range(len(pieces)), key=lambda i: pieces[i].first_output)
    runs: list[list[int]] = []
    reached = -1
    for i in by_place:
        if pieces[i].first_output >= reached:
            runs.append([])
        runs[-1].append(i)
        reached = max(reached, pieces[i].block.stop)
    result = list(pieces)
    for run in runs:
        places = sorted(run)
        low = min(pieces[i].first_output for i in run)
        high = max(pieces[i].block.stop for i in run)
        widest = max(places, key=lambda i: (pieces[i].outputs, -i))
        if identity:
            order = sorted(places, key=lambda i: (-pieces[i].outputs, i))
            if pieces[widest].outputs == high - low:
                order = [widest, *(i for i in places if i != widest)]
            chosen = [pieces[i] for i in order]
        else:
            cover = dataclasses.replace(pieces[widest], first_output=low, outputs=high - low)
            chosen = [cover, *(pieces[i] for i in places if i != widest)]
        for place, piece in zip(places, chosen, strict=True):
            result[place] = piece
    return _cut(result) if identity else result


def _cut(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Cut pieces with an identity map where outputs that are already written begin or end."""
    written = np.zeros(max(piece.block.stop for piece in pieces), bool)
    result = []
    for piece in pieces:
        edges = np.flatnonzero(np.diff(written[piece.block])) + 1
        for part in np.split(np.arange(piece.outputs), edges):
            result.append(
                dataclasses.replace(
                    piece,
                    slots=piece.slots[part],
                    first_output=piece.first_output + int(part[0]),
                    outputs=len(part),
                )
            )
        written[piece.block] = True
    return result


class _Deal:
    """Which engine has which ranges of each group's slots, and how loaded it is."""

    def __init__(self, groups: _Groups, engines: int):
        self.groups = groups
        self.engines = engines
        self.kept = groups.layer.group_kept.tolist()
        self.whole = [groups.cost(g, [(0, kept)]) for g, kept in enumerate(self.kept)]
        # Per engine: group to ranges, ascending and apart; group to cost.
        self.ranges: list[dict[int, list[tuple[int, int]]]] = [{} for _ in range(engines)]
        self.costs: list[dict[int, np.ndarray]] = [{} for _ in range(engines)]
        self.loads = np.zeros((engines, 3), np.int64)

    def cost(self, group: int, ranges: list[tuple[int, int]]) -> np.ndarray:
        """Cost of ranges of a group, those of whole groups from memory."""
        if ranges == [(0, self.kept[group])]:
            return self.whole[group]
        return self.groups.cost(group, ranges)

    def put(self, engine: int, group: int, ranges: list[tuple[int, int]]) -> None:
        """Let an engine have these ranges of a group instead of what it had of it."""
        self.loads[engine] -= self.costs[engine].pop(group, 0)
        self.ranges[engine].pop(group, None)
        if ranges:
            self.ranges[engine][group] = ranges
            self.costs[engine][group] = self.cost(group, ranges)
            self.loads[engine] += self.costs[engine][group]

    def change(self, engine: int, group: int, ranges: list[tuple[int, int]]) -> np.ndarray:
        """Return how much :meth:`put` would add to the engine's load."""
        return self.cost(group, ranges) - self.costs[engine].get(group, 0)

    def whole_groups(self) -> None:
        """Give every group to the engine that is then loaded least, largest groups first."""
        order = sorted(range(len(self.kept)), key=lambda g: (-self.whole[g].max(), g))
        for g in order:
            after = self.loads + self.whole[g]
            engine = int(np.lexsort((after.sum(1), after.max(1)))[0])
            self.put(engine, g, [(0, self.kept[g])])

    def improve(self) -> bool:
        """Lower the load of the most loaded engine, if a move, an exchange or a split does."""
        most = self.loads.max(1)
        e = int(most.argmax())
        best, steps = int(most[e]), None
        others = [f for f in np.argsort(most, kind="stable").tolist() if f != e]
        mine = self._kinds(e)
        for f in others:
            theirs = self._kinds(f)
            for g in mine:
                moved = _joined(self.ranges[e][g], self.ranges[f].get(g, []))
                to_f = self.change(f, g, moved)
                value = self._pair(e, f, -self.costs[e][g], to_f)
                if value < best:
                    best, steps = value, [(e, g, []), (f, g, moved)]
                for h in theirs:
                    if h in self.ranges[e] or g in self.ranges[f]:
                        continue
                    less = self.costs[f][h] - self.costs[e][g]
                    value = self._pair(e, f, less, -less)
                    if value < best:
                        best = value
                        steps = [(e, g, []), (f, g, self.ranges[e][g])]
                        steps += [(f, h, []), (e, h, self.ranges[f][h])]
        # A split costs gathers and merges of its own: it must be worth it.
        limit = min(best, int(most[e]) - max(1, int(most[e]) // WORTH) + 1)
        for f in others[:2]:
            for g in mine:
                value, ranges = self._split(e, f, g)
                if value < limit:
                    limit, steps = value, ranges
        for engine, group, ranges in steps or ():
            self.put(engine, group, ranges)
        return steps is not None

    def _kinds(self, engine: int) -> list[int]:
        """Groups of an engine, one of each cost."""
        kinds = {tuple(cost.tolist()): g for g, cost in reversed(self.costs[engine].items())}
        return list(kinds.values())

    def _pair(self, e: int, f: int, to_e: np.ndarray, to_f: np.ndarray) -> int:
        """The larger load of two engines after a change of both."""
        return int(max((self.loads[e] + to_e).max(), (self.loads[f] + to_f).max()))

    def _split(self, e: int, f: int, g: int) -> tuple[int, list[tuple[int, int, list]]]:
        """The best cut of the last range that an engine has of a group, and what it leaves."""
        *rest, (start, end) = self.ranges[e][g]
        theirs = self.ranges[f].get(g, [])

        def at(cut: int) -> tuple[int, int, list[tuple[int, int, list]]]:
            keep, give = [*rest, (start, cut)], _joined(theirs, [(cut, end)])
            load_e = int((self.loads[e] + self.change(e, g, keep)).max())
            load_f = int((self.loads[f] + self.change(f, g, give)).max())
            return load_e, load_f, [(e, g, keep), (f, g, give)]

        # The load that stays grows with the cut, the one that goes falls.
        low, high = start + 1, end - 1
        if low > high:
            return int(self.loads[e].max()), []
        while low < high:
            middle = (low + high) // 2
            load_e, load_f, _ = at(middle)
            low, high = (middle + 1, high) if load_e < load_f else (low, middle)
        found = []
        for cut in {max(start + 1, low - 1), low}:
            load_e, load_f, steps = at(cut)
            found.append((max(load_e, load_f), cut, steps))
        value, _, steps = min(found, key=lambda item: item[:2])
        return value, steps

    def pieces(self, engine: int) -> list[_Piece]:
        """Return the pieces that an engine has."""
        layer, result = self.groups.layer, []
        for g, ranges in sorted(self.ranges[engine].items()):
            first, count = int(layer.group_first_output[g]), int(layer.group_outputs[g])
            if layer.identity:
                result += [
                    _Piece(
                        group=g,
                        slots=np.arange(start, end),
                        first_output=first + start,
                        outputs=end - start,
                    )
                    for start, end in ranges
                ]
            else:
                slots = np.concatenate([np.arange(start, end) for start, end in ranges])
                result.append(_Piece(group=g, slots=slots, first_output=first, outputs=count))
        return result


def _joined(
    some: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Put ranges together that do not overlap; neighbours become one."""
    result: list[tuple[int, int]] = []
    for start, end in sorted([*some, *others]):
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result


def deal(layer: LayerProgram, engines: int, config: EngineConfig) -> list[LayerPart | None]:
    """Deal a layer out to the engines of a tile.

    Parameters
    ----------
    layer
        The program of the layer, or of a pass of it.
    engines
        N, 1 to 64.
    config
        An engine; only what sets its speed counts here: OU, cells, converters, digits, lanes.

    Returns
    -------
    A part to each engine, None where it has nothing to do. Engine 0 always has a part. The same
    arguments give the same parts.
    """
    check_engines(engines)
    groups = _Groups(layer, config)
    state = _Deal(groups, engines)
    state.whole_groups()
    while state.improve():
        pass
    outputs = slice(0, layer.out_shape[2])
    dealt = [state.pieces(engine) for engine in range(engines)]
    # Idle engines last; the others in the order of their first groups.
    dealt.sort(key=lambda pieces: pieces[0].group if pieces else len(state.kept))
    return [_part(groups, pieces, outputs) if pieces else None for pieces in dealt]


def _part(groups: _Groups, pieces: Sequence[_Piece], outputs: slice) -> LayerPart:
    part = _assemble(groups, _ordered(pieces, groups.layer.identity), outputs, LayerPart)
    assert isinstance(part, LayerPart)
    return part


def loads(parts: Sequence[LayerPart | None], config: EngineConfig) -> np.ndarray:
    """Conversion, gather and merge cycles of engines for a block of positions: [engines, 3]."""
    result = np.zeros((len(parts), 3), np.int64)
    for row, part in zip(result, parts, strict=True):
        if part is not None:
            row[0] = requests_of_gathers(part, config).sum() * config.position_lanes
            row[1] = part.gather_rows.sum() * config.position_lanes
            row[2] = merge_steps(part, config.merge_lanes).sum()
    return result


def passes(layer: LayerProgram, config: EngineConfig, engines: int) -> list[LayerProgram]:
    """Cut a layer into as few ranges of outputs as the tile can hold, one after the other.

    Each pass is a layer program of its own: the same input, the outputs of its range numbered from
    0, the patterns that they use. The layer's output is that of the passes, one behind the other
    along the channels. Ranges are equal but for the last, and of whole steps of the merge lanes.
    ``conv_groups`` is 1 and the figures of the layer are the whole layer's, so a pass counts
    neither weights nor patterns.

    Parameters
    ----------
    config
        Each of the tile's engines.
    engines
        N, 1 to 64.

    Returns
    -------
    The layer itself where it fits as it is.

    Raises
    ------
    InputError
        A layer that does not fit even a few outputs at a time; names the limit.
    """
    check_engines(engines)
    groups, outputs, lanes = _Groups(layer), layer.out_shape[2], config.merge_lanes
    count, size = 1, outputs
    while True:
        cut = [
            _pass(groups, slice(first, min(first + size, outputs)))
            for first in range(0, outputs, size)
        ]
        cut = [layer] if count == 1 else cut
        try:
            for part in cut:
                check_fits_tile(part, deal(part, engines, config), config)
        except InputError:
            if size <= lanes:
                raise
        else:
            return cut
        smaller = size
        while smaller >= size:
            count += 1
            smaller = -(-outputs // (count * lanes)) * lanes
        size = smaller


def _pass(groups: _Groups, outputs: slice) -> LayerProgram:
    """The program of a range of a layer's outputs."""
    layer = groups.layer
    pieces, idle = [], []
    for g in range(len(layer.group_kept)):
        first, count = int(layer.group_first_output[g]), int(layer.group_outputs[g])
        low, high = max(first, outputs.start), min(first + count, outputs.stop)
        if low >= high:
            continue
        if layer.identity:
            used = np.arange(low - first, high - first)
        else:
            begin, end = (
                int(groups.first_word[g]) + (o - first) * layer.terms for o in (low, high)
            )
            slots = layer.word_slot[begin:end]
            used = np.unique(slots[layer.word_shift[begin:end] != SHIFT_NONE]).astype(np.int64)
        some = used if len(used) else np.zeros(1, np.int64)
        piece = _Piece(group=g, slots=some, first_output=low, outputs=high - low)
        (pieces if len(used) else idle).append(piece)
    # A group of which nothing is used is there only where its outputs have no other.
    touched = np.zeros(layer.out_shape[2], bool)
    for piece in pieces:
        touched[piece.block] = True
    for piece in idle:
        if not touched[piece.block].all():
            pieces.append(piece)
            touched[piece.block] = True
    return _assemble(groups, _ordered(pieces, layer.identity), outputs, LayerProgram)


def check_fits_tile(
    layer: LayerProgram, parts: Sequence[LayerProgram | None], config: EngineConfig
) -> None:
    """Check that a tile can run a layer that is dealt out like this.

    Parameters
    ----------
    config
        Each of its engines.

    Raises
    ------
    InputError
        Names the limit that a part exceeds; or the layer's accumulators, which the sum over all
        engines must hold as one engine's must.
    """
    for part in parts:
        if part is not None:
            check_fits(part, config)
    need = accumulator_bits(layer, config)
    if need > config.acc_width:
        raise InputError(
            f"layer {layer.name}: expected acc_width of at most {config.acc_width}, found {need}"
        )
