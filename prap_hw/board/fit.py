"""Whether the memories of a design fit the block RAM of a board, before anything is synthesised."""

from collections.abc import Iterable
from dataclasses import dataclass

from prap_hw.board.boards import Board
from prap_hw.board.buffers import OUTPUT
from prap_hw.common.layouts import Layouts, Space
from prap_hw.shell.core import accelerator_limits, engine_limits
from refmodel.config import EngineConfig
from refmodel.errors import InputError

SHAPES = {
    "DP16KD": ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36)),
    "ICESTORM_RAM": ((2048, 2), (1024, 4), (512, 8), (256, 16)),
}
"""Words and bits that a block RAM can have."""

KBITS = {"DP16KD": 18, "ICESTORM_RAM": 4}
"""Size of a block RAM in units of 1024 bits."""

LEAST_WORDS = {"DP16KD": 65, "ICESTORM_RAM": 9}
"""Memories of fewer words may become LUT RAM, which iCE40 has not, or registers: not counted."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Memories of one kind.

    Attributes
    ----------
    name
        Their kind, in words.
    copies
        How many there are.
    words, width
        Size of each.
    """

    name: str
    copies: int
    words: int
    width: int

    @property
    def bits(self) -> int:
        """Bits of all."""
        return self.copies * self.words * self.width

    def blocks(self, cell: str) -> int:
        """Block RAMs of all; 0 where a memory is small."""
        if self.words < LEAST_WORDS[cell]:
            return 0
        each = (-(-self.words // words) * -(-self.width // bits) for words, bits in SHAPES[cell])
        return self.copies * min(each)


def needs(
    config: EngineConfig, board: Board, *, commands: int = 0, engines: int = 1
) -> tuple[Need, ...]:
    """Memories of a board's top, but for those of registers.

    Parameters
    ----------
    config
        Sizes of each engine, whose crossbars are emulated.
    commands
        Words of an accelerator's list; 0 for an engine by itself.
    engines
        Engines of the accelerator.
    """
    layouts = Layouts(config)
    limits = accelerator_limits(config, commands, engines) if commands else engine_limits(config)
    blocks = (config.row_blocks - 1).bit_length() + (config.col_blocks - 1).bit_length()
    found = [
        Need(
            name="crossbars",
            copies=engines * config.ou_rows,
            words=config.crossbars << blocks,
            width=config.ou_cols * config.stored_bits,
        ),
        Need(
            name="activations",
            copies=engines + (1 if commands else 0),
            words=config.activation_bytes,
            width=8,
        ),
        Need(name="packets from the host", copies=1, words=board.in_bytes, width=9),
        Need(name="outputs for the host", copies=1, words=board.out_bytes, width=OUTPUT.size),
    ]
    shared = {Space.COMMAND, Space.SHARE, Space.OUTPUT}
    lanes = config.merge_lanes
    for number, memory in limits.memories.items():
        space = Space(number)
        if space == Space.REGISTER:
            continue
        banked = space == Space.WORD
        found.append(
            Need(
                name=f"program words {space.name}",
                copies=(1 if space in shared else engines) * (lanes if banked else 1),
                words=memory.depth // (lanes if banked else 1),
                width=memory.width + 1,
            )
        )
    found.append(
        Need(
            name="accumulators",
            copies=2 * lanes * config.position_lanes * engines,
            words=layouts.blocks,
            width=config.acc_width,
        )
    )
    found.append(
        Need(
            name="partial sums",
            copies=(lanes + (config.ous_per_pattern > 1)) * config.position_lanes * engines,
            words=config.slots,
            width=config.psum_width,
        )
    )
    return tuple(found)


def check(found: Iterable[Need], board: Board) -> int:
    """Refuse what does not fit.

    Returns
    -------
    Block RAMs that the memories need.

    Raises
    ------
    InputError
        With what is needed, what there is, and the three kinds that need most.
    """
    cell, there = board.memory
    listed = sorted(found, key=lambda need: -need.blocks(cell))
    needed = sum(need.blocks(cell) for need in listed)
    if needed <= there:
        return needed
    most = ", ".join(f"{need.name} {need.blocks(cell):,}" for need in listed[:3])
    bits = sum(need.bits for need in listed)
    raise InputError(
        f"expected memories that fit the {there} block RAMs ({there * KBITS[cell]:,} Kbit) of "
        f"{board.name}, found a need of {needed:,} ({bits // 1024:,} Kbit): {most}"
    )
