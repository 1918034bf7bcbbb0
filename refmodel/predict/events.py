"""Events of one image: what a program makes each part of an engine do, counted in closed form.

Everything is counted from the program, in integers, without the cycle model, so that pricing a
layer is cheap. Nothing here comes from the RTL: an event is what the specification has the engine
do, and the hardware has a counter of the same name for each of :data:`COUNTED`, whose value after
a run is this one. R, C, S and A are those of docs/specification/architecture.md,
B / D is the number of input digits, rows(g) and patterns(g) are those of a gather g; for one output
position::

    requests             sum over OUs of ceil(columns in use / A), times ceil(B / D)
    conversions          sum over gathers of patterns(g) * S, times ceil(B / D)
    wordline_drives      sum over gathers of rows(g) * requests(g)
    cells_read           sum over gathers of rows(g) * patterns(g) * S, times ceil(B / D)
    index_bits           sum over index memories of words read * bits of a word; a block of P
                         positions reads a word once
    psum_updates         sum over gathers that add to slots of patterns(g)
    merge_shifts         reuse words that are not "none"
    accumulator_updates  sum over groups that add to outputs of their outputs

The hardware need not count what is a sum or a multiple of what it counts (:data:`DERIVED`)::

    psum_writes          conversions / (S * ceil(B / D)): a slot is written when a pattern's columns
                         have been converted for each digit
    psum_reads           merge_shifts + psum_updates
    merge_adds           merge_shifts: every shifted partial sum is added to the terms before it
    accumulator_writes   merged / terms - accumulator_updates: every output of a group is touched
                         once, behind its last term
    replay_writes        segments, once for each block of P positions; 0 where P is 1
    replay_reads         segments, once for each position of a block behind its first
    requantisations      outputs
    table_bits           outputs * bits of a word of output parameters

    from refmodel.predict.events import layer_events

    found = layer_events(layer, config)
    print(found["conversions"], found["index_bits"])
"""

from collections.abc import Iterable, Mapping

import numpy as np

from refmodel.config import SHIFT_NONE, EngineConfig, bits_for
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import columns_of_ous, merge_steps, ous_of_gathers

COUNTED = (
    "requests",
    "ous",
    "gathered",
    "index_reads",
    "merged",
    "outputs",
    "conversions",
    "wordline_drives",
    "cells_read",
    "index_bits",
    "psum_updates",
    "merge_shifts",
    "accumulator_updates",
)
"""Events for which the hardware has a counter of the same name.

``requests``
    Conversion requests at the crossbar port, of at most A columns each.
``ous``
    OU activations, each with all digits.
``gathered``
    Bytes read from the activation buffer.
``index_reads``
    Words taken from the index memories, once for each block of ``position_lanes`` positions;
    ``merge_lanes`` reuse words count as one.
``merged``
    Reuse words merged, "none" included; with an identity map, the outputs of groups. A word that
    is merged for several positions in a cycle counts once for each.
``outputs``
    Output codes.
``conversions``
    Columns converted: those in use of each request.
``wordline_drives``
    Wordlines driven: the rows in use of each request, whatever their digits. Where an OU takes
    several requests to a digit, each drives the wordlines again.
``cells_read``
    Rows in use times columns in use of each request.
``index_bits``
    Bits read from the six memories that the pattern controller walks, parity included:
    :func:`memory_reads` times :func:`memory_bits`.
``psum_updates``
    Partial sums that are added to what their slot holds: the slot is read, and written.
``merge_shifts``
    Reuse words that are not "none", or identity takes: a slot is read, shifted, and added.
``accumulator_updates``
    Accumulators that are read, added to and written.
"""

DERIVED = (
    "psum_writes",
    "psum_reads",
    "merge_adds",
    "accumulator_writes",
    "replay_writes",
    "replay_reads",
    "requantisations",
    "table_bits",
)
"""Events that follow from those of :data:`COUNTED`, so that no hardware counts them.

``psum_writes``
    Slots written, those of ``psum_updates`` among them.
``psum_reads``
    Slots read: by the merge, and to be added to.
``merge_adds``
    Additions of shifted partial sums.
``accumulator_writes``
    Accumulators that the first group of an output writes without reading them.
``replay_writes``, ``replay_reads``
    Segments that are kept for the other positions of their block, and taken from there.
``requantisations``
    Accumulators that become codes. Each is read once; in a tile, once in every engine.
``table_bits``
    Bits read from the table of output parameters, parity included. A tile has one table.
"""

INDEX_MEMORIES = ("descriptor", "position", "table", "offset", "header", "word")
"""Memories that the pattern controller walks: gather descriptors, kernel positions, address offsets
of the kernel positions, channel offsets, group headers, reuse words."""

PARITY_BITS = 1
"""Bits with which every word of a memory of the program is protected."""


def memory_bits(config: EngineConfig) -> dict[str, int]:
    """Bits that one read of each memory of the program gives, parity included.

    Fields are as wide as the engine's sizes need. A read of ``word`` gives ``merge_lanes`` reuse
    words; ``output`` is the table of output parameters: bias, multiplier of 16 bits, shift of 6.
    """
    address, rows = bits_for(config.activation_bytes), bits_for(config.ou_rows + 1)
    patterns, outputs = bits_for(config.slots + 1), bits_for(config.max_outputs)
    return {
        # First byte, bytes of a segment, segments, patterns, final.
        "descriptor": address + rows + bits_for(config.ou_rows) + patterns + 1 + PARITY_BITS,
        "position": bits_for(config.max_positions) + PARITY_BITS,
        "table": address + PARITY_BITS,
        # Channel, bytes.
        "offset": address + rows + PARITY_BITS,
        # Slots, first and last output, write.
        "header": patterns + 2 * outputs + 1 + PARITY_BITS,
        "word": config.merge_lanes * (config.reuse_word_bits + PARITY_BITS),
        "output": config.acc_width + 16 + 6 + PARITY_BITS,
    }


def memory_reads(layer: LayerProgram, config: EngineConfig) -> dict[str, int]:
    """Words read from each memory of the program for one image, by the names of `memory_bits`.

    All but the output parameters are read once for each block of ``position_lanes`` positions. The
    table of kernel positions is read with every kernel position. ``merge_lanes`` reuse words are
    one read, of which those beyond a group's outputs fill up the lanes.
    """
    blocks = config.blocks_of(layer.positions)
    segments = len(layer.segment_position)
    steps = 0 if layer.identity else int(merge_steps(layer, config.merge_lanes).sum())
    reads = {
        "descriptor": len(layer.gather_base),
        "position": segments,
        "table": segments,
        "offset": segments if layer.full_offsets else 0,
        "header": len(layer.group_kept),
        "word": steps,
    }
    found = {name: count * blocks for name, count in reads.items()}
    return found | {"output": layer.out_shape[2] * layer.positions}


def requests_of_gathers(layer: LayerProgram, config: EngineConfig) -> np.ndarray:
    """Conversion requests of each gather a position, int64 [gathers].

    Each OU is asked ceil(columns in use / A) times for every input digit.
    """
    chunks = -(-columns_of_ous(layer, config) // config.adcs)
    ends = np.cumsum(ous_of_gathers(layer, config))
    return np.diff(np.cumsum(chunks)[ends - 1], prepend=0) * config.digits


def layer_events(layer: LayerProgram, config: EngineConfig) -> dict[str, int]:
    """Count the events of one image of a layer: :data:`COUNTED` and :data:`DERIVED`.

    Parameters
    ----------
    layer
        The program, or an engine's part of one.
    config
        The engine.
    """
    rows = layer.gather_rows
    patterns = layer.gather_patterns.astype(np.int64)
    columns = patterns * config.columns_per_weight * config.digits
    requests = requests_of_gathers(layer, config)
    count = layer.group_outputs.astype(np.int64)
    words = int(count.sum()) * layer.terms
    none = 0 if layer.identity else int((layer.word_shift == SHIFT_NONE).sum())
    added = patterns[layer.gather_accumulate == 1]
    each = {
        "requests": requests.sum(),
        "ous": ous_of_gathers(layer, config).sum(),
        "gathered": rows.sum(),
        "merged": words,
        "outputs": layer.out_shape[2],
        "conversions": columns.sum(),
        "wordline_drives": (rows * requests).sum(),
        "cells_read": (rows * columns).sum(),
        "psum_updates": added.sum(),
        "merge_shifts": words - none,
        "accumulator_updates": count[layer.group_write == 0].sum(),
        "accumulator_writes": count[layer.group_write == 1].sum(),
        "psum_writes": patterns.sum(),
    }
    events = {name: int(value) * layer.positions for name, value in each.items()}
    reads, bits = memory_reads(layer, config), memory_bits(config)
    events |= {
        # A kernel position and its word of the table count as one.
        "index_reads": sum(reads[name] for name in INDEX_MEMORIES if name != "table"),
        "index_bits": sum(reads[name] * bits[name] for name in INDEX_MEMORIES),
        "psum_reads": events["merge_shifts"] + events["psum_updates"],
        "merge_adds": events["merge_shifts"],
        "replay_writes": reads["position"] if config.position_lanes > 1 else 0,
        "replay_reads": len(layer.segment_position) * layer.positions - reads["position"],
        "requantisations": events["outputs"],
        "table_bits": reads["output"] * bits["output"],
    }
    return {name: events[name] for name in (*COUNTED, *DERIVED)}


def tile_events(parts: Iterable[LayerProgram | None], config: EngineConfig) -> dict[str, int]:
    """Count the events of one image of a layer that is dealt out to the engines of a tile.

    Those of all engines together; outputs, requantisations and the table of output parameters are
    the tile's, and count once.
    """
    found = [layer_events(part, config) for part in parts if part is not None]
    if not found:
        raise ValueError("parts must have one that is not None")
    once = {name: found[0][name] for name in ("outputs", "requantisations", "table_bits")}
    return add_events(found) | once


def add_events(found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up counts by name."""
    total: dict[str, int] = {}
    for events in found:
        for name, count in events.items():
            total[name] = total.get(name, 0) + count
    return total
