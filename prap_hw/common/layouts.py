"""Payload layouts of the engine's streams and memories, from one configuration.

Every struct that passes between two components is named here, so that both ends have the same
shape. The first field of a struct is in the low bits of the port that Verilog shows.
"""

from amaranth import signed, unsigned
from amaranth.hdl import ShapeLike
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import Out

from prap_hw.common.columns import Columns
from refmodel.config import (
    INPUT_BITS,
    LOOKUPS,
    OPERANDS,
    SOURCES,
    EngineConfig,
    bits_for,
    check_engines,
)

COUNTER_BITS = 40
"""Width of an event counter."""

COUNTERS = (
    "cycles",
    "requests",
    "ous",
    "gathered",
    "index_reads",
    "merged",
    "outputs",
    "stall_gather",
    "stall_slots",
    "stall_port",
    "conversions",
    "wordline_drives",
    "cells_read",
    "index_bits",
    "psum_updates",
    "merge_shifts",
    "accumulator_updates",
    "activation_writes",
    "operand_reads",
)
"""The event counters: cycles while busy; conversion requests; OUs run; bytes gathered; words taken
from the index memories; reuse words merged; outputs sent; cycles in which no request was issued for
want of a gathered vector, of free slots, or of room in the crossbar port; columns converted;
wordlines driven, and cells read, by the requests; bits taken from the index memories; partial sums
added to their slots; reuse words that add something; accumulators added to; and of an accelerator
the bytes that operations write, without the image, and that post-processing reads. All other events
that cost energy follow from these: :data:`refmodel.predict.events.DERIVED`."""

RUN_COUNTERS = ("cycles", "outputs", "activation_writes", "operand_reads")
"""Those of what runs: an engine by itself, a tile, an accelerator. Operations write, and
post-processing reads, in an accelerator only; elsewhere the two are 0."""

CORE_COUNTERS = tuple(name for name in COUNTERS if name not in RUN_COUNTERS)
"""Those that an engine of a tile has for itself."""

POSITION_BITS = 12
"""Bits that count output rows or columns: a layer has at most 4096 of each."""


class Space(enum.Enum, shape=4):
    """Where a word of the load stream goes."""

    #: Layer registers, in the order of :meth:`Layouts.registers`.
    REGISTER = 0
    #: Gather descriptors, one to a gather.
    DESCRIPTOR = 1
    #: Kernel positions, one to a segment.
    POSITION = 2
    #: Channel offset and length, one to a segment where ``full_offsets`` is set.
    OFFSET = 3
    #: Group headers, one to a group.
    HEADER = 4
    #: Reuse words: address = step * merge_lanes + lane.
    WORD = 5
    #: Address offsets of the kernel positions in the padded input.
    TABLE = 6
    #: Bias, multiplier and shift, one to an output.
    OUTPUT = 7
    #: Registers of an accelerator's post-processing, in the order of :attr:`Layouts.post`.
    POST = 8
    #: The list of an accelerator's sequencer.
    COMMAND = 9
    #: No memory, and for no word: the image that the host sends to an accelerator. A fault has it.
    IMAGE = 10
    #: Tables of codes that an accelerator's outputs go through: address = table * 256 + code.
    LOOKUP = 11
    #: Engines of a tile that take part in the layer, a bit each, at address 0; address 1 is for
    #: those from the 33rd on, where a word has no room for them.
    ENGINES = 14
    #: Engines of a tile that have a share in an output, a bit each; one word to an output.
    SHARE = 15


class Source(enum.Enum, shape=2):
    """Units that compute the outputs of an operation; numbered as :data:`SOURCES`."""

    #: Nothing: they come from the host.
    IMAGE = SOURCES.index("image")
    #: The engine.
    LAYER = SOURCES.index("layer")
    #: The pool unit.
    POOL = SOURCES.index("pool")


class Lookup(enum.Enum, shape=2):
    """Tables that outputs of an operation go through; numbered as :data:`LOOKUPS`."""

    #: None.
    NONE = LOOKUPS.index("none")
    #: The same for all.
    ONE = LOOKUPS.index("one")
    #: One to a channel.
    CHANNEL = LOOKUPS.index("channel")


def valid_only(layout: ShapeLike, lanes: int = 1) -> wiring.Signature:
    """A port that shows events and cannot be held up: ``valid``, a bit a lane, and ``payload``."""
    return wiring.Signature({"valid": Out(lanes), "payload": Out(layout)})


def check_supported(config: EngineConfig) -> None:
    """Refuse a configuration that the golden model has and the RTL has not.

    Raises
    ------
    ValueError
        ``the RTL supports ..., not ...``.
    """
    limits = (("adcs", f"of at most ou_cols ({config.ou_cols})", config.adcs <= config.ou_cols),)
    for name, choices, supported in limits:
        if not supported:
            raise ValueError(f"the RTL supports {name} {choices}, not {getattr(config, name)!r}")


class Layouts:
    """All layouts of one configuration.

    Parameters
    ----------
    config
        Sizes of the engine; see :func:`check_supported`.

    Attributes
    ----------
    load, acts, cells, output
        Payloads of the host's streams: program word, activation byte, row of cells, output code.
    request, response, program
        Payloads of the crossbar port.
    registers, descriptor, offset, header, word, words, params
        Contents of the layer registers and of the index and parameter memories.
    segment, gathered, pending, psum, step, accumulate, result
        Payloads of the streams between components.
    replayed
        What is kept of a segment for the other positions of its block.
    trace_psum, trace_psums, trace_acc
        Payloads of the trace ports: a partial sum, ``columns.ends`` of them, an accumulator.
    store, sent, read, post, command
        An accelerator's: a byte written to the activation memory, a code to the host, a code read
        for post-processing, the registers of that, and a word of the sequencer's list.
    turns
        Fields of these that say which position of its block something is of; none where blocks are
        single positions.
    columns
        Where the bitlines of patterns lie.
    """

    def __init__(self, config: EngineConfig):
        check_supported(config)
        self.config = config
        rows = config.ou_rows
        self.address_bits = bits_for(config.activation_bytes)
        self.slot_bits = bits_for(config.slots)
        self.output_bits = bits_for(config.max_outputs)
        self.position_bits = bits_for(config.max_positions)
        self.row_bits = bits_for(rows + 1)
        self.columns = columns = Columns(config)
        pattern_bits = bits_for(config.slots + 1)
        self.turn_bits = bits_for(config.position_lanes)
        self.blocks = -(-config.max_outputs // config.merge_lanes)
        self.block_bits = bits_for(self.blocks)

        # Host streams.
        self.load = data.StructLayout({"space": Space, "addr": 24, "data": 64})
        self.acts = data.StructLayout({"data": 8, "last": 1})
        self.output = data.StructLayout({"code": 8, "channel": self.output_bits, "last": 1})

        # Crossbar port.
        place = {
            "crossbar": bits_for(config.crossbars),
            "row_block": bits_for(config.row_blocks),
            "col_block": bits_for(config.col_blocks),
        }
        row_of_cells = config.ou_cols * config.stored_bits
        self.cells = data.StructLayout({**place, "row": bits_for(rows), "cells": row_of_cells})
        self.request = data.StructLayout(
            {
                **place,
                "select": bits_for(columns.chunks),
                "digits": data.ArrayLayout(unsigned(config.dac_bits), rows),
            }
        )
        code = signed(config.lane_bits) if config.pairs else unsigned(config.code_bits)
        self.response = data.ArrayLayout(code, config.adcs)

        # Layer registers and memories.
        based = {
            "base": self.address_bits,
            "first_descriptor": bits_for(config.max_gathers),
            "first_segment": bits_for(config.max_segments),
            "first_header": bits_for(config.max_groups),
            "first_step": bits_for(self.word_depth),
            "first_output": bits_for(config.params),
            "first_crossbar": bits_for(config.crossbars),
            "residual": 1,
            "residual_zero": 8,
            "residual_multiplier": signed(16),
            "residual_shift": 6,
        }
        self.registers = data.StructLayout(
            {
                "last_column": POSITION_BITS,
                "last_row": POSITION_BITS,
                "column_step": self.address_bits,
                "row_step": self.address_bits,
                "last_descriptor": bits_for(config.max_gathers),
                "last_segment": bits_for(config.max_segments),
                "last_header": bits_for(config.max_groups),
                "last_step": bits_for(self.word_depth),
                "last_output": self.output_bits,
                "last_term": 2,
                "identity": 1,
                "full_offsets": 1,
                "zero_out": 8,
                "clip_lo": 8,
                "clip_hi": 8,
                **(based if config.network else {}),
            }
        )
        self.descriptor = data.StructLayout(
            {
                "base": self.address_bits,
                "length": self.row_bits,
                "last_segment": bits_for(rows),
                "patterns": pattern_bits,
                "final": 1,
            }
        )
        self.offset = data.StructLayout({"channel": self.address_bits, "length": self.row_bits})
        self.header = data.StructLayout(
            {
                "kept": pattern_bits,
                "first_output": self.output_bits,
                "last_output": self.output_bits,
                "write": 1,
            }
        )
        self.word = data.StructLayout({"slot": self.slot_bits, "shift": 4, "minus": 1})
        self.words = data.ArrayLayout(self.word, config.merge_lanes)
        self.params = data.StructLayout(
            {"bias": signed(config.acc_width), "multiplier": signed(16), "shift": 6}
        )

        # Streams between components. Where positions go in blocks, which of its block's positions a
        # vector, an answer or a sum is of, and whether that is the last one.
        blocked = config.position_lanes > 1
        turns = {"turn": self.turn_bits, "last_turn": 1} if blocked else {}
        self.turns = tuple(turns)
        task = {"patterns": pattern_bits, "final": 1, **turns}
        # Offset binary subtracts a multiple of the sum of a vector's inputs.
        inputs = {"inputs": unsigned((rows * ((1 << INPUT_BITS) - 1)).bit_length())}
        inputs = inputs if config.offset else {}
        self.segment = data.StructLayout(
            {"address": self.address_bits, "length": self.row_bits, "last": 1, **task}
        )
        # What is kept of a segment for the other positions of its block. Fits: an offset of a
        # kernel position and a channel.
        self.replayed = data.StructLayout(
            {"offset": self.address_bits + 1, "length": self.row_bits}
        )
        self.gathered = data.StructLayout(
            {"rows": data.ArrayLayout(unsigned(8), rows), "count": self.row_bits, **task, **inputs}
        )
        pending = {
            # Bits by which what the answer is worth is shifted: of the digit and, where answers
            # lie within a pattern, of the first column.
            "scale": 4,
            # Whether piece 0 begins with this answer.
            "first": 1,
            # Patterns that end with this answer.
            "ended": bits_for(columns.ends + 1),
            "lane": bits_for(config.patterns_per_ou),
            "slot": self.slot_bits,
            "accumulate": 1,
            "final": 1,
            **turns,
            **inputs,
        }
        if columns.pieces > 1:
            # Whether this is the first digit: the other pieces begin with it.
            pending |= {"low": 1}
        if len(columns.phases) > 1:
            # Whether piece 0 began in the OU before.
            pending |= {"carry": 1}
        if not columns.narrow:
            # Which of the alignments the answer has.
            pending |= {"align": bits_for(len(columns.alignments))}
        elif config.twos_complement:
            # Whether the last converter has the sign column.
            pending |= {"top": 1}
        self.pending = data.StructLayout(pending)
        self.psum = data.StructLayout(
            {
                "slot": self.slot_bits,
                "sums": data.ArrayLayout(signed(config.psum_width), columns.ends),
                "accumulate": 1,
                "final": 1,
                **turns,
                **({"count": bits_for(columns.ends + 1)} if columns.ends > 1 else {}),
            }
        )
        trace_psum = {"slot": self.slot_bits, "sum": signed(config.psum_width)}
        self.trace_psum = data.StructLayout(trace_psum)
        self.trace_psums = data.ArrayLayout(self.trace_psum, columns.ends)
        self.trace_acc = data.StructLayout(
            {"output": self.output_bits, "acc": signed(config.acc_width)}
        )

        # Of an accelerator.
        factor = signed(16)
        self.store = data.StructLayout({"addr": self.address_bits, "data": 8})
        self.sent = data.StructLayout({"code": 8, "last": 1})
        self.read = data.StructLayout({"code": 8, "operand": 1, "first": 1, "last": 1})
        # Steps may be negative, and so may the base of an operand that begins with a later channel.
        walk = ("base", "row_step", "column_step", "channel_step")
        operand = {
            **dict.fromkeys(walk, self.address_bits + 1),
            **dict.fromkeys(("first_channel", "last_channel"), self.address_bits),
            "zero": 8,
            "multiplier": factor,
        }
        addresses = ("output_base", "output_row_step", "output_column_step")
        runs = ("fill_base", "fill_first", "fill_between", "fill_last", "fill_gap")
        self.post = data.StructLayout(
            {
                "last_row": POSITION_BITS,
                "last_column": POSITION_BITS,
                "last_channel": self.address_bits,
                **dict.fromkeys(addresses, self.address_bits),
                "source": Source,
                "send": 1,
                "fill": 1,
                **dict.fromkeys(runs, self.address_bits),
                "fill_more": POSITION_BITS,
                "fill_code": 8,
                **{
                    f"{name}_{number}": shape
                    for number in range(OPERANDS)
                    for name, shape in operand.items()
                },
                "last_operand": 1,
                "last_tap_row": POSITION_BITS,
                "last_tap_column": POSITION_BITS,
                "tap_row_step": self.address_bits,
                "tap_column_step": self.address_bits,
                "maximum": 1,
                "shift": 6,
                "zero_out": 8,
                "clip_lo": 8,
                "clip_hi": 8,
                **({"product": 1} if config.products else {}),
                **(
                    {"lookup": Lookup, "first_table": bits_for(config.max_tables)}
                    if config.max_tables
                    else {}
                ),
            }
        )
        self.command = data.StructLayout(
            {"run": 1, "last": 1, "space": Space, "addr": 8, "data": 32}
        )

    @property
    def word_depth(self) -> int:
        """Steps of reuse words that the index memory holds: max_words / merge_lanes, rounded up."""
        return -(-self.config.max_words // self.config.merge_lanes)


class TileLayouts:
    """Payloads of what loads several engines.

    Parameters
    ----------
    config
        Sizes of each engine.
    engines
        N, 1 to 64.

    Attributes
    ----------
    engine
        An engine's own layouts.
    load, cells
        An engine's payloads, and behind them ``engine``, the number of the engine that they are
        for.
    acts, output
        As an engine's: every engine has a copy of the activations.
    command, word
        An accelerator's: a word of the sequencer's list, and the form that a word of the list or of
        the host takes. Both are an engine's ``command`` and ``load`` with ``engine`` and ``every``
        behind them: whether it is for every engine, whatever ``engine`` says.
    """

    def __init__(self, config: EngineConfig, engines: int):
        check_engines(engines)
        self.engines = engines
        self.engine = layouts = Layouts(config)
        target = {"engine": bits_for(engines)}
        self.load = data.StructLayout({**layouts.load.members, **target})
        self.cells = data.StructLayout({**layouts.cells.members, **target})
        self.acts = layouts.acts
        self.output = layouts.output
        self.command = data.StructLayout({**layouts.command.members, **target, "every": 1})
        self.word = data.StructLayout({**layouts.load.members, **target, "every": 1})
