"""How deep the logic of a design is between its registers, by the cells that its text asks for.

Yosys reads the Verilog and makes no gates of it: an adder, a comparison or a multiplexer is one
cell, whatever its width. So a depth is no time, but a path that grew by a component's logic is
deeper.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from prap_hw.deliver import synthesis

SCRIPT = """\
read_verilog -sv top.v
hierarchy -top {top}
proc
flatten
opt
memory -nomap
opt_clean
write_json cells.json
"""

REGISTERS = ("$dff", "$dffe", "$sdff", "$sdffe", "$sdffce", "$aldff")

WIRING = ("$scopeinfo", "$pos")
"""Cells that are no logic."""


class Cones:
    """The logic in front of each register of a flat design."""

    def __init__(self, verilog: str, top: str):
        with tempfile.TemporaryDirectory() as folder:
            log, done, said = synthesis._yosys(Path(folder), verilog, SCRIPT.format(top=top))
            assert not done, f"{log[-500:]}\n{said[-500:]}"
            text = (Path(folder) / "cells.json").read_text(encoding="utf-8")
        module = json.loads(text)["modules"][top]
        self.cells = module["cells"]
        self.ports = module["ports"]
        # A register is of the outermost component that has a name for it.
        self.names: dict[int | str, str] = {}
        for name, net in module["netnames"].items():
            for bit in [] if net["hide_name"] else net["bits"]:
                other = self.names.get(bit)
                if other is None or name.count(".") < other.count("."):
                    self.names[bit] = name
        self.drivers = {
            bit: (name, port)
            for name, cell in self.cells.items()
            for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == "output"
            for bit in bits
        }
        self.readers: dict[int | str, set[str]] = {}
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] == "input":
                    for bit in bits:
                        self.readers.setdefault(bit, set()).add(name)
        sys.setrecursionlimit(100_000)

    def depths(self, begins: Callable[[str], bool]) -> Callable[[int | str], int]:
        """Depth of the deepest path to a bit from such cells; -1 where none leads to it."""

        @cache
        def depth(bit: int | str) -> int:
            if isinstance(bit, str) or bit not in self.drivers:
                return -1
            name, _ = self.drivers[bit]
            cell = self.cells[name]
            if begins(name):
                return 0
            if cell["type"] in REGISTERS or self.synchronous(name):
                return -1
            inputs = [
                depth(each)
                for port, bits in cell["connections"].items()
                if cell["port_directions"][port] == "input"
                for each in bits
            ]
            deepest = max(inputs, default=-1)
            return deepest if deepest < 0 else deepest + (cell["type"] not in WIRING)

        return depth

    def synchronous(self, name: str) -> bool:
        """Whether a cell is a memory whose words come out of a register."""
        cell = self.cells[name]
        return cell["type"] == "$mem_v2" and "1" in cell["parameters"]["RD_CLK_ENABLE"]

    def from_memories(self) -> dict[str, int]:
        """Memory to the depth of the deepest path that begins in it and ends in a register."""
        found = {}
        for memory in filter(self.synchronous, self.cells):
            depth = self.depths(memory.__eq__)
            found[memory] = max(
                depth(bit)
                for cell in self.cells.values()
                if cell["type"] in REGISTERS
                for port in ("D", "EN", "SRST")
                for bit in cell["connections"].get(port, [])
            )
        return found

    def counters(self) -> dict[str, int]:
        """Counter of events, by its name, to the depth of what is added to it."""
        found: dict[str, int] = {}
        depth = self.depths(lambda name: self.cells[name]["type"] in REGISTERS)
        for cell in self.cells.values():
            if cell["type"] != "$add":
                continue
            name = self.names.get(cell["connections"]["A"][0], "")
            if "counters__" in name:
                counted = name.rpartition("counters__")[2].partition("$")[0]
                added = cell["connections"]["B"]
                found[counted] = max(depth(bit) for bit in added)
        return found

    def reached_from(self, port: str) -> set[str]:
        """Registers that depend on an input within the cycle, by a name of each."""
        (start,) = self.ports[port]["bits"]
        reached, edge = {start}, [start]
        registers: set[str] = set()
        while edge:
            for name in self.readers.get(edge.pop(), ()):
                cell = self.cells[name]
                if cell["type"] in REGISTERS:
                    registers.add(self.names.get(cell["connections"]["Q"][0], name))
                    continue
                for way, bits in cell["connections"].items():
                    if cell["port_directions"][way] == "output":
                        edge += [bit for bit in bits if bit not in reached]
                        reached |= set(bits)
        return registers
