"""Sizes of the engine: one frozen dataclass shared by the golden model and the hardware."""

from dataclasses import dataclass, fields, replace
from typing import Literal

WEIGHT_BITS = 8
"""Bits of a weight; signed, symmetric."""

INPUT_BITS = 8
"""Bits of an activation code; unsigned, with a zero point."""

FRACTION_BITS = 8
"""Fraction bits of an accumulator: the least shift of a reuse word is -8."""

MIN_SHIFT, MAX_SHIFT = -FRACTION_BITS, 6
"""Range of the power of two k of a reuse word. The field stores 8 + k; 15 means none."""

SHIFT_NONE = 15
"""The stored shift of a reuse word that adds nothing."""

MOST_OUS_PER_PATTERN = 16
"""Operation units of one weight pattern that an engine can add up, at most."""

MOST_ENGINES = 64
"""Engines of a tile, at most."""

MAX_OUTPUT_SIDE = 4096
"""Largest height or width of an output."""

ACTIVE_BITS = 32
"""Engines of which one word of a sequencer's list says whether they take part in a layer."""

OPERANDS = 2
"""Operands of an accelerator's operation, at most."""

SOURCES = ("image", "layer", "pool")
"""Units that compute outputs of an accelerator's operation; values of the register ``source``."""

LOOKUPS = ("none", "one", "channel")
"""Tables that an operation's outputs go through: values of the register ``lookup``."""

TABLE_CODES = 256
"""Entries of a table, one to a code."""

MOST_TAPS = 4096
"""Codes of a window, at most: what the pool's accumulator is wide enough for."""


def bits_for(count: int) -> int:
    """Bits that number ``count`` things, at least 1."""
    return max(1, (count - 1).bit_length())


def check_engines(engines: int) -> None:
    """Refuse a number of engines that is none.

    Raises
    ------
    TypeError
        The value is not an integer.
    ValueError
        The value is not from 1 to 64.
    """
    if not isinstance(engines, int) or isinstance(engines, bool):
        raise TypeError(f"engines must be an integer, not {engines!r}")
    if not 1 <= engines <= MOST_ENGINES:
        raise ValueError(f"engines must be 1 to {MOST_ENGINES}, not {engines!r}")


Cells = Literal["twos-complement", "pairs"]
"""How cells hold weights, by the names of the command line."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Sizes of one engine.

    Attributes
    ----------
    ou_rows
        R, wordlines of an operation unit, 4 to 32.
    ou_cols
        C, bitlines of an operation unit, a multiple of 4 from 4 to 32. The patterns of a gather lie
        side by side from its first OU on, so that one may go on in the next OU.
    crossbar_size
        X, wordlines and bitlines of a crossbar, 32 to 512.
    crossbars
        Arrays that share the engine's converters, 1 to 65536.
    cell_bits
        Bits of a ReRAM cell: 1 (two's complement), 2 or 4 (offset binary).
    dac_bits
        Bits of an input digit, 1, 2 or 4.
    adc_bits
        Bits of an ADC code, 1 to 13. 0 means lossless:
        ceil(log2(R*(2^cell_bits-1)*(2^dac_bits-1)+1)).
    adcs
        A, converters, 1 to 32: columns converted in a cycle.
    merge_lanes
        L, reuse words merged in a cycle, 1, 2 or 4.
    crossbar_latency
        Cycles from a request to its response in the emulated crossbar, 1 to 40.
    requests_in_flight
        Requests that may be unanswered at once, crossbar_latency + 4 to 256.
    gather_buffers
        Gathered input vectors held ahead of the OU engine, 2 to 16.
    slots
        Depth of the partial-sum ring, a power of two from 4, and at least the patterns that begin
        in one OU, ceil(C / columns of a weight): an OU waits until as many are free. A group's kept
        patterns must fit.
    acc_width
        Bits of a signed accumulator, 24 to 42, 8 of them fraction bits.
    ous_per_pattern
        Most gathers whose sums add into one slot, 1 to 16; widens the partial sum.
    max_outputs
        Output channels of a layer.
    max_gathers, max_segments, max_groups, max_words
        Depths of the index memories: gather descriptors, segments, group headers, reuse words.
    max_positions
        Kernel positions (kh*kw) of a layer, 1 to 49.
    activation_bytes
        Bytes of the activation buffer (padded input of one layer).
    max_params
        Output parameters that are held, of all resident layers; 0 means max_outputs.
    network
        Whether the engine is one of an accelerator, with all layers of a network resident: base
        registers for its memories, crossbars and input, an activation memory that is written at
        addresses, a residual operand. Cycles are the same with and without.
    port_timeout
        Cycles without any progress after which the engine gives its crossbar port up, 16, and at
        least crossbar_latency + 4, to 2^24. It must exceed the longest latency of the macro, and
        the longest time for which it takes no request or no row of cells.
    max_tables
        Tables of 256 codes that outputs of an accelerator's operations may go through, 0 to 65536;
        with 0 there is no memory of tables.
    products
        Whether an accelerator's pool unit multiplies two operands.
    position_lanes
        P, consecutive output positions that every index word and reuse word is read for once, 1, 2
        or 4: a reuse word is merged for all of them in its cycle.
    pairs
        Whether weights are held in differential pairs of cells, of which one conducts, and codes
        have a sign. A place in the crossbars is a pair then. Cycles are the same with and without.
    trace
        Whether the trace ports exist. Cycles are the same with and without.
    """

    ou_rows: int = 8
    ou_cols: int = 8
    crossbar_size: int = 128
    crossbars: int = 1
    cell_bits: int = 1
    dac_bits: int = 1
    adc_bits: int = 0
    adcs: int = 8
    merge_lanes: int = 1
    crossbar_latency: int = 1
    requests_in_flight: int = 64
    gather_buffers: int = 4
    slots: int = 256
    acc_width: int = 40
    ous_per_pattern: int = 4
    max_outputs: int = 128
    max_gathers: int = 1024
    max_segments: int = 4096
    max_groups: int = 512
    max_words: int = 4096
    max_positions: int = 9
    activation_bytes: int = 4096
    max_params: int = 0
    network: bool = False
    port_timeout: int = 4096
    max_tables: int = 0
    products: bool = False
    position_lanes: int = 1
    pairs: bool = False
    trace: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("network", "pairs", "products", "trace") and (
                not isinstance(value, int) or isinstance(value, bool)
            ):
                raise TypeError(f"{field.name} must be an integer, not {value!r}")
        self._check("ou_rows", 4, 32)
        self._check("ou_cols", 4, 32)
        if self.ou_cols % 4:
            raise ValueError(f"ou_cols must be a multiple of 4, not {self.ou_cols!r}")
        self._check("crossbar_size", 32, 512)
        self._check("crossbars", 1, 1 << 16)
        self._choice("cell_bits", (1, 2, 4))
        self._choice("dac_bits", (1, 2, 4))
        self._check("adc_bits", 0, 13)
        self._check("adcs", 1, 32)
        self._choice("merge_lanes", (1, 2, 4))
        self._choice("position_lanes", (1, 2, 4))
        self._check("crossbar_latency", 1, 40)
        self._check("requests_in_flight", self.crossbar_latency + 4, 256)
        self._check("gather_buffers", 2, 16)
        self._check("slots", 4, 1 << 16)
        if self.slots & (self.slots - 1):
            raise ValueError(f"slots must be a power of two, not {self.slots!r}")
        if self.slots < self.patterns_per_ou:
            raise ValueError(
                f"slots must be at least the patterns that begin in one operation unit, "
                f"{self.patterns_per_ou}, not {self.slots!r}"
            )
        self._check("acc_width", 24, 42)
        self._check("ous_per_pattern", 1, MOST_OUS_PER_PATTERN)
        self._check("max_outputs", 1, 1 << 14)
        for name in ("max_gathers", "max_segments", "max_groups", "max_words"):
            self._check(name, 1, 1 << 24)
        self._check("max_positions", 1, 49)
        self._check("activation_bytes", 64, 1 << 24)
        self._check("max_params", 0, 1 << 20)
        self._check("max_tables", 0, 1 << 16)
        self._check("port_timeout", max(16, self.crossbar_latency + 4), 1 << 24)

    def _check(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise ValueError(f"{name} must be {low} to {high}, not {value!r}")

    def _choice(self, name: str, choices: tuple[int, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ValueError(f"{name} must be one of {choices}, not {value!r}")

    @property
    def columns_per_weight(self) -> int:
        """S, bitlines of one weight: 8 / cell_bits."""
        return WEIGHT_BITS // self.cell_bits

    @property
    def digits(self) -> int:
        """Input digits of an activation: ceil(8 / dac_bits)."""
        return -(-INPUT_BITS // self.dac_bits)

    @property
    def patterns_per_ou(self) -> int:
        """Most weight patterns that begin in one OU: ceil(C / S)."""
        return -(-self.ou_cols // self.columns_per_weight)

    @property
    def code_bits(self) -> int:
        """Bits of an ADC code: ``adc_bits``, or the lossless width where that is 0."""
        if self.adc_bits:
            return self.adc_bits
        top = self.ou_rows * ((1 << self.cell_bits) - 1) * ((1 << self.dac_bits) - 1)
        return top.bit_length()

    @property
    def max_code(self) -> int:
        """The largest ADC code, 2^code_bits - 1; with pairs its negative is the least."""
        return (1 << self.code_bits) - 1

    @property
    def lossless(self) -> bool:
        """Whether no sum of a bitline exceeds the largest code."""
        top = self.ou_rows * ((1 << self.cell_bits) - 1) * ((1 << self.dac_bits) - 1)
        return top <= self.max_code

    @property
    def column_weights(self) -> tuple[int, ...]:
        """Weights of the codes of a weight's columns, low bits first.

        1-bit cells hold two's complement: 1, 2, 4 .. 64, -128. Others hold the weight + 128:
        1, 4, 16, 64 for 2 bits, 1, 16 for 4. Pairs hold its size, and have a sign in every code: as
        for the weight + 128, and 1, 2, 4 .. 128 for 1 bit.
        """
        weights = [1 << self.cell_bits * j for j in range(self.columns_per_weight)]
        return tuple([*weights[:-1], -weights[-1]] if self.twos_complement else weights)

    @property
    def twos_complement(self) -> bool:
        """Whether the codes of the last column of a weight are negative."""
        return self.cell_bits == 1 and not self.pairs

    @property
    def lane_bits(self) -> int:
        """Bits of a code at the crossbar port: :attr:`code_bits`, with pairs and a sign."""
        return self.code_bits + self.pairs

    @property
    def stored_bits(self) -> int:
        """Bits that are written to a place in the crossbars: of one cell, or of a pair."""
        return self.cell_bits << self.pairs

    @property
    def offset(self) -> int:
        """What is added to a weight to store it: 0 in 1-bit cells and in pairs, 2^7 in others."""
        return 0 if self.cell_bits == 1 or self.pairs else 1 << (WEIGHT_BITS - 1)

    @property
    def psum_range(self) -> tuple[int, int]:
        """Least and greatest sum of one pattern over the R rows of its gather.

        From the largest code, not from the ideal sum, since codes of a real device are any:
        input digits make each code count ``sum of 2^(dac_bits * d)``. With offset binary, 2^7 times
        the sum of the inputs, which is at most 255 R, is subtracted whatever the codes are.
        """
        digits = sum(1 << self.dac_bits * d for d in range(self.digits))
        weights = self.column_weights
        top = self.max_code * digits
        low = top * sum(-w if self.pairs else w for w in weights if self.pairs or w < 0)
        low -= self.offset * self.ou_rows * ((1 << INPUT_BITS) - 1)
        return low, top * sum(w for w in weights if w > 0)

    @property
    def psum_width(self) -> int:
        """Bits of a signed partial sum: ``ous_per_pattern`` times :attr:`psum_range`."""
        low, high = self.psum_range
        return (self.ous_per_pattern * max(-low, high)).bit_length() + 1

    @property
    def row_blocks(self) -> int:
        """OUs from top to bottom of a crossbar: floor(X / R)."""
        return self.crossbar_size // self.ou_rows

    @property
    def col_blocks(self) -> int:
        """OUs from left to right of a crossbar: floor(X / C)."""
        return self.crossbar_size // self.ou_cols

    @property
    def ous_per_crossbar(self) -> int:
        """OUs that one crossbar holds."""
        return self.row_blocks * self.col_blocks

    @property
    def max_ous(self) -> int:
        """OUs that the engine's crossbars hold together."""
        return self.ous_per_crossbar * self.crossbars

    def blocks_of(self, positions: int) -> int:
        """Blocks of P output positions in which a layer's are walked; the last may be short."""
        return -(-positions // self.position_lanes)

    @property
    def params(self) -> int:
        """Output parameters that are held: ``max_params``, or ``max_outputs`` where that is 0."""
        return self.max_params or self.max_outputs

    @property
    def reuse_word_bits(self) -> int:
        """Bits of a reuse word: slot, 4 bits of shift, sign."""
        return bits_for(self.slots) + 5


DEFAULT = EngineConfig()
"""8x8 operation units in 128x128 crossbars, 8 converters."""

PAPER = replace(DEFAULT, crossbar_size=256, adcs=1)
"""As the published evaluation has it: 8x8 operation units in 256x256 crossbars, 1 converter."""

SMALL = replace(
    DEFAULT,
    crossbar_size=64,
    adcs=4,
    requests_in_flight=16,
    gather_buffers=2,
    slots=32,
    max_outputs=32,
    max_gathers=128,
    max_segments=512,
    max_groups=64,
    max_words=512,
    activation_bytes=1024,
)
"""A small engine, for looking at its Verilog or for a small FPGA: one 64x64 crossbar."""

PRESETS = {"default": DEFAULT, "paper": PAPER, "small": SMALL}
"""Engines by name."""
