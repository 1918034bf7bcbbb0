"""Waveforms of the RTL for GTKWave: FST files of a window of cycles, with a save file.

Verilator writes a VCD of the window (``sim/benches/engine.sv``). :func:`convert` makes an FST
file of it, in which cycle n of the run lasts from 10n to 10n + 10 ns and the clock rises at
the end of each; :func:`save_file` writes what GTKWave shows of it: a group to each block of the
engine, the block's streams as the code names them, and behind them what is within it.

    gtkwave build/sim/window.gtkw
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

from amaranth.lib import wiring
from vcd.gtkw import GTKWColor, GTKWSave

from prap_hw.common.crossbar import EmulatedCrossbar
from prap_hw.engine.accumulators import Accumulators
from prap_hw.engine.input_gather import InputGather
from prap_hw.engine.ou_engine import OUEngine
from prap_hw.engine.pattern_controller import PatternController
from prap_hw.engine.psum_store import PartialSumStore
from prap_hw.engine.requantise import Requantise
from prap_hw.engine.reuse_merge import ReuseMerge
from prap_hw.engine.shift_add import ShiftAdd
from refmodel.errors import InputError

CYCLE = 10
"""Nanoseconds that a cycle lasts in a waveform: cycle n begins at 10n."""

BENCH = "prap_bench"

BLOCKS: Mapping[str, tuple[str, type[wiring.Component]]] = {
    "controller": ("controller", PatternController),
    "gather": ("gather", InputGather),
    "OU engine": ("ou_engine", OUEngine),
    "crossbar": ("crossbar", EmulatedCrossbar),
    "shift-and-add": ("shift_add", ShiftAdd),
    "store": ("store", PartialSumStore),
    "merge": ("merge", ReuseMerge),
    "accumulators": ("accumulators", Accumulators),
    "requantise": ("requantise", Requantise),
}
"""Groups of the save file: title to the name of the submodule and what it is."""

PORT = ("request", "response", "program")
"""Streams of the crossbar port."""


class Variable(NamedTuple):
    """A signal of a waveform: its scopes, name, bits as the VCD writes them ("" for one), width."""

    scopes: tuple[str, ...]
    name: str
    bits: str
    width: int

    @property
    def path(self) -> str:
        """Its name in GTKWave."""
        return ".".join((*self.scopes, self.name)) + self.bits


def require() -> None:
    """Check that the package that writes FST is installed.

    Raises
    ------
    InputError
        The package ``pylibfst`` is not installed.
    """
    if util.find_spec("pylibfst") is None:
        raise InputError(
            "expected the package pylibfst for waveforms, found none: pip install 'prap-pim[waves]'"
        )


def convert(vcd: Path, fst: Path, *, origin: int, period: int, last: int) -> list[Variable]:
    """Make an FST file of a VCD that Verilator wrote of the bench.

    Signals without a name (``$12``: Yosys's temporaries) and those outside the bench are left out.

    Parameters
    ----------
    origin
        Time in the VCD at which cycle 0 begins.
    period
        Period of the clock, in the VCD's units.
    last
        Last cycle that is kept.

    Returns
    -------
    The signals of the FST file.
    """
    from pylibfst import ffi, lib

    with vcd.open(encoding="utf-8") as lines:
        variables = list(_header(lines))
        writer = lib.fstWriterCreate(str(fst).encode(), 1)
        if writer == ffi.NULL:
            raise InputError(f"expected a place to write, found none at {fst}")
        lib.fstWriterSetTimescaleFromString(writer, b"1ns")
        handles: dict[str, int] = {}
        here: tuple[str, ...] = ()
        for code, variable in variables:
            here = _move(lib, ffi, writer, here, variable.scopes)
            # Signals of one code are one signal under several names.
            handles[code] = lib.fstWriterCreateVar(
                writer,
                lib.FST_VT_VCD_WIRE,
                lib.FST_VD_IMPLICIT,
                variable.width,
                f"{variable.name} {variable.bits}".strip().encode(),
                handles.get(code, 0),
            )
        _move(lib, ffi, writer, here, ())
        widths = {code: variable.width for code, variable in variables}
        for time, changes in _changes(lines):
            shown = (time - origin) * CYCLE // period
            if shown >= (last + 1) * CYCLE:
                break
            lib.fstWriterEmitTimeChange(writer, shown)
            for code, value in changes.items():
                if code in handles:
                    text = value.rjust(widths[code], "0")
                    lib.fstWriterEmitValueChange(writer, handles[code], text.encode())
        lib.fstWriterClose(writer)
    return [variable for _, variable in variables]


def _header(lines: Iterator[str]) -> Iterator[tuple[str, Variable]]:
    """Codes and variables of a VCD, up to the end of its header."""
    scopes: list[str] = []
    for line in lines:
        words = line.split()
        match words:
            case ["$enddefinitions", *_]:
                return
            case ["$scope", _, name, "$end"]:
                scopes.append(name)
            case ["$upscope", *_]:
                scopes.pop()
            case ["$var", _, width, code, name, *bits, "$end"]:
                if BENCH in scopes and not name.startswith("$"):
                    inner = tuple(scopes[scopes.index(BENCH) :])
                    yield code, Variable(inner, name, "".join(bits), int(width))


def _changes(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Times of a VCD, and of each code that changes then its new value, in binary digits."""
    time: int | None = None
    changes: dict[str, str] = {}
    for line in lines:
        kind = line[0]
        if kind == "#":
            if time is not None:
                yield time, changes
            time, changes = int(line[1:]), {}
        elif kind == "b":
            value, code = line[1:].split()
            changes[code] = value
        elif kind in "01xz":
            changes[line[1:].strip()] = kind
    if time is not None:
        yield time, changes


def _move(
    lib: Any, ffi: Any, writer: Any, here: tuple[str, ...], there: tuple[str, ...]
) -> tuple[str, ...]:
    """Leave and enter scopes; returns ``there``."""
    same = 0
    while same < min(len(here), len(there)) and here[same] == there[same]:
        same += 1
    for _ in here[same:]:
        lib.fstWriterSetUpscope(writer)
    for name in there[same:]:
        lib.fstWriterSetScope(writer, lib.FST_ST_VCD_MODULE, name.encode(), ffi.NULL)
    return there


def save_file(
    path: Path,
    fst: Path,
    variables: Sequence[Variable],
    *,
    first: int,
    marker: int | None = None,
) -> None:
    """Write a GTKWave save file: the signals of a waveform, in a group to each block.

    A group has the block's ports in the order of its component's signature, payloads with their
    fields in groups of their own, and, closed, what else has a name in it. ``run`` has the clock,
    the cycle, start and end of the run; ``port`` the streams of the crossbar port.

    Parameters
    ----------
    path
        The file to write.
    fst
        The waveform, beside it.
    variables
        Variables that :func:`convert` returned.
    first
        Cycle with which the waveform begins.
    marker
        Cycle to be marked, that of a difference.
    """
    with path.open("w", encoding="utf-8") as file:
        save = GTKWSave(file)
        save.dumpfile(fst.name, abspath=False)
        save.savefile(path.name, abspath=False)
        save.timestart(first * CYCLE)
        # Some 60 cycles to a screen of 1200 pixels.
        save.zoom_markers(-5.0, -1 if marker is None else marker * CYCLE)
        save.signals_width(360)
        top = [variable for variable in variables if variable.scopes == (BENCH,)]
        with save.group("run"):
            names = {variable.name: variable for variable in top}
            for name in ("clk", "run_cycle", "start", "busy"):
                if name in names:
                    save.trace(names[name].path, datafmt="dec")
        within = [variable for variable in variables if len(variable.scopes) == 2]
        with save.group("port"):
            _port(save, within)
        for title, (scope, component) in BLOCKS.items():
            inside = _inside(variables, scope)
            if inside:
                with save.group(title):
                    # Annotations are the members, in the order of the signature.
                    _block(save, inside, list(component.__annotations__))


def _port(save: GTKWSave, variables: Sequence[Variable]) -> None:
    """Streams of the crossbar port as the top module has them, open or not."""
    for stream in PORT:
        _stream(save, f"crossbar__{stream}", variables)


def _inside(variables: Sequence[Variable], scope: str) -> list[Variable]:
    """Signals of a block: of the scope with its name that is nearest to the top."""
    scopes = {variable.scopes for variable in variables if variable.scopes[-1] == scope}
    if not scopes:
        return []
    nearest = min(scopes, key=len)
    return [variable for variable in variables if variable.scopes == nearest]


def _block(save: GTKWSave, variables: Sequence[Variable], members: Sequence[str]) -> None:
    """Ports of a block in the order of its members, and the rest in a closed group."""
    shown: set[str] = {"clk", "rst"}
    for member in members:
        shown |= _stream(save, member, variables)
    rest = [variable for variable in variables if variable.name not in shown]
    if rest:
        with save.group("within", closed=True):
            for variable in rest:
                save.trace(variable.path)


def _stream(save: GTKWSave, member: str, variables: Sequence[Variable]) -> set[str]:
    """Show a port: a signal, lanes, or a stream with its payload and its fields; returns names."""
    found = [
        variable
        for variable in variables
        if re.fullmatch(rf"{re.escape(member)}(__.+|\..+)?", variable.name)
        and "$" not in variable.name
    ]
    whole = [variable for variable in found if not re.search(r"[.\[]", variable.name)]
    order = {"valid": 0, "ready": 1}
    whole.sort(key=lambda variable: order.get(variable.name.rpartition("__")[2], 2))
    for variable in whole:
        control = variable.width == 1
        save.trace(variable.path, color=GTKWColor.green if control else GTKWColor.normal)
        begin = (f"{variable.name}.", f"{variable.name}[")
        fields = [part for part in found if part.name.startswith(begin)]
        if fields:
            with save.group(variable.name, closed=True):
                for part in fields:
                    save.trace(part.path)
    return {variable.name for variable in found}
