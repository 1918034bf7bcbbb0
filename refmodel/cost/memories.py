"""Memories and flip-flops of an engine: words, bits, copies.

Widths and depths are those of the hardware for one :class:`refmodel.config.EngineConfig`, parity of
the program's memories included; synthesis finds the same bits (``prap area``).
"""

from dataclasses import dataclass

from refmodel.config import TABLE_CODES, EngineConfig, bits_for
from refmodel.predict.events import PARITY_BITS, memory_bits

COUNTER_BITS, COUNTERS = 40, 17
"""Bits of an event counter, and event counters of an engine."""

SEQUENCING = 1466
"""Flip-flops that an accelerator has beside those of its engines: sequencer, operand reader, pool
unit, write-back, two event counters, and a wider requantiser. Synthesis finds 1,465 in that of the
default preset, 1,467 in that of the small one."""

LIST_BITS = 46 + PARITY_BITS
"""Bits of a word of the sequencer's list, parity included."""

PENDING_BITS = 18
"""Bits that are kept of a request until its answer comes; of the default engine. Where positions go
in blocks, two or three more say which position of its block it is of."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A memory, or several alike.

    Attributes
    ----------
    name
        The contents.
    kind
        ``activation``, ``sram``, or ``index``: which constants of a technology file price it.
    width, depth
        Bits of a word; words.
    banks
        Memories that hold different words.
    copies
        Memories that hold the same words: each write writes all, each read reads one.
    """

    name: str
    kind: str
    width: int
    depth: int
    banks: int = 1
    copies: int = 1

    @property
    def capacity(self) -> int:
        """Bits of one bank of one copy: what an access reaches into."""
        return self.width * self.depth

    @property
    def bits(self) -> int:
        """Bits of all banks and copies."""
        return self.capacity * self.banks * self.copies


def memories(config: EngineConfig, engines: int = 1) -> dict[str, Memory]:
    """Memories of one engine, by name; with several, a tile's share memory beside them.

    The store of partial sums has a bank to each position of a block, and of each a copy to each
    merge lane, since each reads a slot a cycle, and one more where sums add to slots. What keeps a
    gather's segments for the positions of a block is there where blocks have several. An
    accelerator's operand reader has the activations as well, once for all engines, and the tables
    that outputs go through.
    """
    lanes, positions, widths = config.merge_lanes, config.position_lanes, memory_bits(config)
    words = -(-config.max_words // lanes)
    depths = {
        "descriptor": config.max_gathers,
        "position": config.max_segments,
        "table": config.max_positions,
        "offset": config.max_segments,
        "header": config.max_groups,
        "word": words,
        "output": config.params,
    }
    found = [
        Memory(
            name="activations",
            kind="activation",
            width=8,
            depth=config.activation_bytes,
        ),
        Memory(name="vectors", kind="sram", width=8 * config.ou_rows, depth=config.gather_buffers),
        Memory(
            name="pending", kind="sram", width=pending_bits(config), depth=config.requests_in_flight
        ),
        Memory(
            name="partial sums",
            kind="sram",
            width=config.psum_width,
            depth=config.slots,
            banks=positions,
            copies=lanes + (config.ous_per_pattern > 1),
        ),
        Memory(
            name="accumulators",
            kind="sram",
            width=config.acc_width,
            depth=max(2, -(-config.max_outputs // lanes)),
            banks=2 * lanes * positions,
        ),
        *(
            Memory(name=name, kind="index", width=widths[name], depth=depth)
            for name, depth in depths.items()
        ),
    ]
    if positions > 1:
        found.append(
            Memory(name="replay", kind="sram", width=replay_bits(config), depth=config.ou_rows)
        )
    if config.network:
        found.append(
            Memory(name="operands", kind="activation", width=8, depth=config.activation_bytes)
        )
    if config.network and config.max_tables:
        depth = config.max_tables * TABLE_CODES
        found.append(Memory(name="lookup", kind="index", width=8 + PARITY_BITS, depth=depth))
    if engines > 1:
        width = engines + PARITY_BITS
        found.append(Memory(name="share", kind="index", width=width, depth=config.params))
    return {memory.name: memory for memory in found}


def pending_bits(config: EngineConfig) -> int:
    """Bits that are kept of a request until its answer comes."""
    blocked = config.position_lanes > 1
    return PENDING_BITS + (bits_for(config.position_lanes) + 1 if blocked else 0)


def replay_bits(config: EngineConfig) -> int:
    """Bits that are kept of a segment for the other positions of its block: where, how long."""
    return bits_for(config.activation_bytes) + 1 + bits_for(config.ou_rows + 1)


def list_memory(words: int) -> Memory:
    """The memory of an accelerator's list, as deep as delivered ones are: a power of two."""
    depth = 1 << (words - 1).bit_length()
    return Memory(name="list", kind="index", width=LIST_BITS, depth=depth)


def all_flip_flops(config: EngineConfig, engines: int = 1) -> int:
    """Estimate the flip-flops of all engines, of a tile's reduction, and of an accelerator."""
    reduction = (engines - 1) * config.acc_width
    return flip_flops(config) * engines + reduction + (SEQUENCING if config.network else 0)


def flip_flops(config: EngineConfig) -> int:
    """Estimate the flip-flops of one engine.

    Registers between stages by their widths: gathered rows and digits, codes and their sums, the
    merge and the accumulators to each lane and each position of a block, seven registers of the
    requantiser, two words of each index memory, counters, layer registers. Synthesis finds 2,402
    for the default, 2,091 for the small engine (``prap area``, without the emulated crossbar); the
    estimate is within a tenth of them.
    """
    widths = memory_bits(config)
    index = sum(width for name, width in widths.items() if name != "output")
    address, output = bits_for(config.activation_bytes), bits_for(config.max_outputs)
    layer = (
        2 * 12
        + 2 * address
        + sum(map(bits_for, (config.max_gathers, config.max_segments, config.max_groups)))
        + bits_for(config.max_words)
        + output
        + 28
    )
    rows = config.ou_rows * (8 + config.dac_bits)
    codes = config.adcs * config.lane_bits + 3 * config.psum_width * config.patterns_per_ou
    lanes = config.merge_lanes * config.position_lanes
    merge = lanes * (2 * config.acc_width + config.psum_width)
    requantise = 7 * config.acc_width + 2 * 40
    walk = 6 * address + 8 * bits_for(config.slots)
    counters = COUNTER_BITS * COUNTERS
    return rows + codes + merge + requantise + 2 * index + layer + walk + counters + 600
