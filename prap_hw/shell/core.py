"""Cores behind the host shell: the interface of a core, and what may be loaded into it.

A core computes; the shell connects it to a host. The engine is a core (a layer a run), and so is
whatever has the members of :func:`core_signature`. The shell checks every item of the load streams
against the core's :class:`CoreLimits` before the core sees it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from amaranth.hdl import ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.common.faults import FAULT
from prap_hw.common.layouts import (
    COUNTER_BITS,
    COUNTERS,
    Layouts,
    Lookup,
    Source,
    Space,
    TileLayouts,
)
from prap_hw.engine.requantise import MAX_SHIFT
from refmodel.config import ACTIVE_BITS, TABLE_CODES, EngineConfig


def core_signature(
    *, load: ShapeLike, cells: ShapeLike, acts: ShapeLike, output: ShapeLike
) -> wiring.Signature:
    """The members of a core that the shell uses, as the core has them.

    Members
    -------
    i_load, i_cells, i_acts : ``In(stream)``
        Program words, rows of cells, activation bytes (a struct with ``data`` and ``last``, which
        marks the last byte of an image). Offered only while ``busy`` is low, one stream at a time.
    start : ``In(1)``
        High for one cycle in which ``busy`` is low and nothing is offered.
    busy : ``Out(1)``
        High from the cycle after ``start`` until after the last output was accepted.
    fault : ``Out(FAULT)``
        The fault that has stopped the core since reset, if any. A stopped core loads and starts
        nothing, offers nothing, and ``busy`` stays as it is.
    o : ``Out(stream)``
        Outputs: a struct whose field ``code`` has 8 bits.
    counters : ``Out``, a member to each of :data:`prap_hw.common.layouts.COUNTERS`
        They stand still while ``busy`` is low.

    Reset (of the domain ``sync``) must stop the core at any time, leave it fit to be loaded again,
    and lower ``busy`` and ``fault``.
    """
    return wiring.Signature(
        {
            "i_load": In(stream.Signature(load)),
            "i_cells": In(stream.Signature(cells)),
            "i_acts": In(stream.Signature(acts)),
            "start": In(1),
            "busy": Out(1),
            "fault": Out(FAULT),
            "o": Out(stream.Signature(output)),
            "counters": Out(wiring.Signature({name: Out(COUNTER_BITS) for name in COUNTERS})),
        }
    )


SHARED = ("i_load", "i_cells", "i_acts", "start", "busy", "fault", "o", "counters")
"""Members of a core that the shell uses."""

UNUSED = ("done",)
"""Members that say again what others do; the shell passes on all but these and those it uses."""


def core_payloads(core: Any) -> dict[str, Any]:
    """Layouts of a core's streams ``i_load``, ``i_cells``, ``i_acts`` and ``o``.

    Raises
    ------
    TypeError
        The core lacks a member of :func:`core_signature`, or has it otherwise.
    """
    members = core.signature.members
    layouts = {}
    for name in ("i_load", "i_cells", "i_acts", "o"):
        if name not in members:
            raise TypeError(f"a core must have the stream {name}, which {core!r} has not")
        layouts[name] = members[name].signature.members["payload"].shape
    expected = core_signature(
        load=layouts["i_load"],
        cells=layouts["i_cells"],
        acts=layouts["i_acts"],
        output=layouts["o"],
    ).members
    for name in SHARED:
        found = members.get(name)
        if found != expected[name]:
            raise TypeError(f"a core must have {name} as {expected[name]!r}, not {found!r}")
    return layouts


@dataclass(frozen=True, kw_only=True)
class FieldRange:
    """A field of an item, unsigned, and the values that it may have.

    Attributes
    ----------
    low, width
        Its lowest bit and its bits.
    least, most
        Range of its values.
    """

    low: int
    width: int
    least: int = 0
    most: int

    @property
    def free(self) -> bool:
        """Whether every value that the field can hold is in the range."""
        return self.least == 0 and self.most >= (1 << self.width) - 1

    def holds(self, word: int) -> bool:
        """Whether the field of a word is in the range."""
        value = word >> self.low & ((1 << self.width) - 1)
        return self.least <= value <= self.most


@dataclass(frozen=True, kw_only=True)
class MemoryLimits:
    """Limits of the words that may be written to one memory of a core.

    Attributes
    ----------
    depth
        Words.
    width
        Bits of a word; those above are 0.
    fields
        Ranges within a word.
    at
        The same for single addresses, instead of ``width`` and ``fields``: where each word is a
        register of its own kind.
    """

    depth: int
    width: int
    fields: tuple[FieldRange, ...] = ()
    at: Mapping[int, "MemoryLimits"] | None = None


@dataclass(frozen=True, kw_only=True)
class CoreLimits:
    """Limits of everything that may be loaded into a core.

    Attributes
    ----------
    memories
        Limits by the value of the program word's field ``space``; other values are errors.
    cells
        Ranges of the fields of a row of cells.
    activation_bytes
        Bytes of the activation memory.
    command
        Layout of a word of the space COMMAND: a word of a sequencer's list, which is a program word
        by itself unless it has ``run``. None where there is no list.
    listed
        Limits of the program words within the list, by ``space``; other values are errors.
    word
        Ranges of fields that a program word has beside ``space``, ``addr`` and ``data``.
    """

    memories: Mapping[int, MemoryLimits]
    cells: tuple[FieldRange, ...]
    activation_bytes: int
    command: data.StructLayout | None = None
    listed: Mapping[int, MemoryLimits] = field(default_factory=dict)
    word: tuple[FieldRange, ...] = ()


def configuration_words(
    config: EngineConfig, *, engines: int = 1, commands: int = 0
) -> dict[str, int]:
    """Sizes of a core by name, for the shell: all but ``trace``, which changes nothing.

    Parameters
    ----------
    config
        Sizes of each engine.
    engines
        Number of engines.
    commands
        Words that the sequencer's list may have; 0 where there is none.
    """
    sizes = asdict(config)
    del sizes["trace"]
    sizes |= {"engines": engines, "commands": commands}
    return {name: int(value) for name, value in sizes.items()}


def configuration_hash(configuration: Mapping[str, int]) -> int:
    """The first 4 bytes of the SHA-256 of the sizes, as sorted JSON without blanks."""
    text = json.dumps(dict(configuration), sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def _ranges(layout: data.StructLayout, **most: int | tuple[int, int]) -> tuple[FieldRange, ...]:
    """Ranges of fields of a struct: its greatest value, or its least and greatest."""
    ranges = []
    for name, limit in most.items():
        least, greatest = limit if isinstance(limit, tuple) else (0, limit)
        place = layout[name]
        ranges.append(FieldRange(low=place.offset, width=place.width, least=least, most=greatest))
    return tuple(ranges)


def _registers(layout: data.StructLayout, most: Mapping[str, int]) -> MemoryLimits:
    """Limits of registers that are written by number: their widths, and greatest values of some."""
    at = {}
    for number, (name, place) in enumerate(layout):
        greatest = most.get(str(name), (1 << place.width) - 1)
        value = FieldRange(low=0, width=place.width, most=greatest)
        at[number] = MemoryLimits(depth=1, width=place.width, fields=(value,))
    return MemoryLimits(depth=len(at), width=64, at=at)


def engine_limits(config: EngineConfig) -> CoreLimits:
    """Return the limits of an engine: depths of its memories, and fields that are addresses.

    A sum of addresses (position + gather + kernel position + channel) is not known before it is
    computed, and not checked here; nor are the steps from position to position, of which those that
    are never taken may be anything.
    """
    layouts = Layouts(config)
    last_byte = config.activation_bytes - 1
    ends = {
        "descriptor": config.max_gathers - 1,
        "segment": config.max_segments - 1,
        "header": config.max_groups - 1,
        "step": layouts.word_depth - 1,
    }
    registers = {f"last_{name}": last for name, last in ends.items()}
    registers |= {"last_output": config.max_outputs - 1}
    if config.network:
        registers |= {f"first_{name}": last for name, last in ends.items()}
        registers |= {
            "base": last_byte,
            "first_output": config.params - 1,
            "first_crossbar": config.crossbars - 1,
            "residual_shift": MAX_SHIFT,
        }
    descriptor = _ranges(
        layouts.descriptor,
        base=last_byte,
        length=config.ou_rows,
        last_segment=config.ou_rows - 1,
        patterns=config.slots,
    )
    header = _ranges(
        layouts.header,
        kept=config.slots,
        first_output=config.max_outputs - 1,
        last_output=config.max_outputs - 1,
    )
    offset = _ranges(layouts.offset, channel=last_byte, length=config.ou_rows)
    position = FieldRange(low=0, width=layouts.position_bits, most=config.max_positions - 1)
    table = FieldRange(low=0, width=layouts.address_bits, most=last_byte)
    memories = {
        Space.REGISTER: _registers(layouts.registers, registers),
        Space.DESCRIPTOR: MemoryLimits(
            depth=config.max_gathers, width=layouts.descriptor.size, fields=descriptor
        ),
        Space.POSITION: MemoryLimits(
            depth=config.max_segments, width=layouts.position_bits, fields=(position,)
        ),
        Space.OFFSET: MemoryLimits(
            depth=config.max_segments, width=layouts.offset.size, fields=offset
        ),
        Space.HEADER: MemoryLimits(
            depth=config.max_groups, width=layouts.header.size, fields=header
        ),
        Space.WORD: MemoryLimits(
            depth=layouts.word_depth * config.merge_lanes, width=layouts.word.size
        ),
        Space.TABLE: MemoryLimits(
            depth=config.max_positions, width=layouts.address_bits, fields=(table,)
        ),
        Space.OUTPUT: MemoryLimits(
            depth=config.params,
            width=layouts.params.size,
            fields=_ranges(layouts.params, shift=MAX_SHIFT),
        ),
    }
    cells = _ranges(
        layouts.cells,
        crossbar=config.crossbars - 1,
        row_block=config.row_blocks - 1,
        col_block=config.col_blocks - 1,
        row=config.ou_rows - 1,
    )
    return CoreLimits(
        memories={space.value: limits for space, limits in memories.items()},
        cells=cells,
        activation_bytes=config.activation_bytes,
    )


def accelerator_limits(config: EngineConfig, commands: int, engines: int = 1) -> CoreLimits:
    """Return the limits of an accelerator: beside an engine's memories, its sequencer's list.

    A word of the list loads a layer register, a kernel position or a register of post-processing,
    and is checked for it as the host's own words are. Among the registers of post-processing, which
    the list alone reaches, ``output_base`` and ``fill_base`` are addresses of bytes that are
    written. Steps may be negative, and so may the base of an operand that has its first channel
    later: of these the low bits are kept, and any are allowed.

    With several engines a word, a row of cells and a word of the list name one of them; there are
    words that say which have a share in an output, and the list says which take part in a layer.

    Parameters
    ----------
    config
        Sizes of each engine; ``network`` must be True.
    commands
        Words that the list may have.
    engines
        N, 1 to 64.
    """
    layouts = Layouts(config)
    engine = engine_limits(config)
    last_byte = config.activation_bytes - 1
    post = {
        "output_base": last_byte,
        "fill_base": last_byte,
        "source": max(source.value for source in Source),
        "shift": MAX_SHIFT,
    }
    if config.max_tables:
        post |= {"lookup": max(each.value for each in Lookup), "first_table": config.max_tables - 1}
    listed = {space.value: engine.memories[space.value] for space in (Space.REGISTER, Space.TABLE)}
    listed[Space.POST.value] = _registers(layouts.post, post)
    command = MemoryLimits(depth=commands, width=layouts.command.size)
    memories = {**engine.memories, Space.COMMAND.value: command}
    if config.max_tables:
        tables = MemoryLimits(depth=config.max_tables * TABLE_CODES, width=8)
        memories[Space.LOOKUP.value] = tables
    limits = replace(engine, memories=memories, command=layouts.command, listed=listed)
    if engines == 1:
        return limits
    tile = TileLayouts(config, engines)
    number = {"engine": engines - 1}
    memories[Space.COMMAND.value] = MemoryLimits(
        depth=commands, width=tile.command.size, fields=_ranges(tile.command, **number)
    )
    memories[Space.SHARE.value] = MemoryLimits(depth=config.params, width=engines)
    # A word of the list has room for some of the engines.
    parts = [min(ACTIVE_BITS, engines - first) for first in range(0, engines, ACTIVE_BITS)]
    listed[Space.ENGINES.value] = MemoryLimits(
        depth=len(parts),
        width=ACTIVE_BITS,
        at={part: MemoryLimits(depth=1, width=width) for part, width in enumerate(parts)},
    )
    return replace(
        limits,
        cells=(*limits.cells, *_ranges(tile.cells, **number)),
        command=tile.command,
        word=_ranges(tile.load, **number),
    )
