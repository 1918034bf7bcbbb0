"""Memories in emitted Verilog: where they are, and how a bench reaches into them."""

import re
from dataclasses import dataclass
from typing import Any

from prap_hw.common.layouts import Space

_MODULE = re.compile(r"^module \\?(\S+)\s*\(", re.MULTILINE)
_MEMORY = re.compile(r"^\s*reg (?:\[(\d+):0\] )?\\?(\S+) +\[(\d+):0\];", re.MULTILINE)

PROGRAM = {
    r"controller\.descriptors\.words": Space.DESCRIPTOR,
    r"controller\.positions\.words": Space.POSITION,
    r"controller\.offsets\.words": Space.OFFSET,
    r"controller\.headers\.words": Space.HEADER,
    r"controller\.words_\d+\.words": Space.WORD,
    r"controller\.table": Space.TABLE,
    r"requantise\.params": Space.OUTPUT,
    r"lookup\.tables": Space.LOOKUP,
    r"sequencer\.commands\.words": Space.COMMAND,
    r"reduction\.shares": Space.SHARE,
}
"""Memories that hold words of a program: the end of the place, and the space that is loaded there.
Reuse words have one to a lane."""

DATA = (
    r"crossbar(_\d+)?\.row_\d+",
    r"accumulators\.half_\d_bank_\d+",
    r"gather\.(bytes|row_\d+|tasks)",
    r"pending\.storage",
    r"reader\.bytes",
    r"reduction\.sums\.storage",
    r"shell\.buffer\.beats\.storage",
    r"store\.(lane_\d+|accumulate\$\d+)",
)
"""Memories that hold what is computed with, or, in ``crossbar``, stand for an analog array, or, in
``buffer``, beats of packets, of which every item has a parity bit of its own."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A memory.

    Attributes
    ----------
    module
        The Verilog module that it is in. Amaranth names modules after their place: that of the top,
        then the instances on the way, with dots between.
    name
        Its name there.
    width, depth
        Bits of a word, words.
    """

    module: str
    name: str
    width: int
    depth: int

    @property
    def place(self) -> str:
        """Instances below the top, and the name."""
        return ".".join([*self.module.split(".")[1:], self.name])

    @property
    def space(self) -> Space | None:
        """Which words of a program it holds; None for those of :data:`DATA`.

        Raises
        ------
        ValueError
            It is none that this module knows.
        """
        for pattern, space in PROGRAM.items():
            if re.search(rf"(^|\.){pattern}$", self.place):
                return space
        if any(re.search(rf"(^|\.){pattern}$", self.place) for pattern in DATA):
            return None
        raise ValueError(f"expected a memory that sim.builds.memories knows, found {self.place}")

    @property
    def lane(self) -> int:
        """The lane of a memory of reuse words; otherwise 0."""
        found = re.search(r"words_(\d+)\.words$", self.place)
        return int(found[1]) if found else 0

    @property
    def engine(self) -> int:
        """Number of the engine that it is in, of several; otherwise 0."""
        found = re.search(r"(?:^|\.)engine_(\d+)\.", self.place)
        return int(found[1]) if found else 0

    def of(self, dut: Any) -> Any:
        """The handle in a cocotb bench, from that of the top module."""
        handle = dut
        for name in self.place.split("."):
            handle = getattr(handle, name)
        return handle


def memories(verilog: str) -> list[Memory]:
    """All memories of a text, in its order."""
    modules = list(_MODULE.finditer(verilog))
    ends = [*(found.start() for found in modules[1:]), len(verilog)]
    result = []
    for found, end in zip(modules, ends, strict=True):
        for width, name, last in _MEMORY.findall(verilog[found.start() : end]):
            result.append(
                Memory(
                    module=found[1],
                    name=name,
                    width=int(width or 0) + 1,
                    depth=int(last) + 1,
                )
            )
    return result


def program_memories(verilog: str) -> list[Memory]:
    """Those that hold words of a program."""
    return [memory for memory in memories(verilog) if memory.space is not None]


def public(found: list[Memory]) -> str:
    """Verilator's directives that let a bench read and write these memories."""
    lines = [f'public_flat_rw -module "{m.module}" -var "{m.name}"' for m in found]
    return "\n".join(["`verilator_config", *lines, ""])


def guard(verilog: str) -> tuple[str, list[Memory]]:
    """Add a flag to each memory that an address can leave, which keeps whether a read has left it.

    Only of reads by the clock: what is read within a cycle depends on an address that need not be
    one in every cycle.

    Returns
    -------
    The text, and the flags, as memories of a bit; a bench clears them.
    """
    modules = list(_MODULE.finditer(verilog))
    parts = [verilog[: modules[0].start()]]
    flags: list[Memory] = []
    ends = [*(found.start() for found in modules[1:]), len(verilog)]
    for found, end in zip(modules, ends, strict=True):
        text = verilog[found.start() : end]
        for width, name, last in _MEMORY.findall(text):
            depth = int(last) + 1
            if depth & (depth - 1) == 0:
                continue
            flag = f"prap_outside_{len(flags)}"
            read = rf"^(\s*\S+ <= \\?{re.escape(name)} ?\[)(.+)(\];)$"
            guarded = rf"\1\2\3\n      if ((\2) >= {depth}) {flag} <= 1'h1;"
            text, count = re.subn(read, guarded, text, flags=re.MULTILINE)
            if count:
                declared = rf"(^\s*reg (?:\[{width}:0\] )?\\?{re.escape(name)} +\[{last}:0\];)"
                text = re.sub(declared, rf"\1\n  reg {flag} = 1'h0;", text, flags=re.MULTILINE)
                flags.append(Memory(module=found[1], name=flag, width=1, depth=1))
        parts.append(text)
    return "".join(parts), flags
