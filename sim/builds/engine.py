"""The engine as a simulation or a library: the widths and fields of its ports, and its builds."""

import functools
from pathlib import Path

from amaranth.lib import data

from prap_hw.common.layouts import COUNTERS, Layouts
from prap_hw.deliver.verilog import TOP, engine_verilog, kept_verilog
from refmodel.config import EngineConfig
from sim.builds import verilator
from sim.kept import CACHE
from sim.results import Progress, silent


def payload_fields(config: EngineConfig) -> dict[str, dict[str, tuple[int, int]]]:
    """Offset and width of each field of the payloads that the bench reads or writes."""
    layouts = Layouts(config)
    return {
        "request": fields_of(layouts.request),
        "cells": fields_of(layouts.cells),
        "acts": fields_of(layouts.acts),
        "output": fields_of(layouts.output),
        "psum": fields_of(layouts.trace_psum),
        "acc": fields_of(layouts.trace_acc),
    }


def payload_widths(config: EngineConfig) -> dict[str, int]:
    """Bits of the payloads, parameters of ``engine.sv`` and ``bulk.sv``."""
    layouts = Layouts(config)
    return {
        "LOAD": layouts.load.size,
        "CELLS": layouts.cells.size,
        "ACTS": layouts.acts.size,
        "OUT": layouts.output.size,
        "REQUEST": layouts.request.size,
        "RESPONSE": layouts.response.size,
        "PSUM": layouts.trace_psum.size,
        "PSUMS": layouts.columns.ends,
        "ACC": layouts.trace_acc.size,
    }


def fields_of(layout: data.StructLayout) -> dict[str, tuple[int, int]]:
    """Offset and width of each field of a payload."""
    return {str(name): (field.offset, field.width) for name, field in layout}


def build_engine(
    config: EngineConfig,
    *,
    open_port: bool = False,
    waves: bool = False,
    cache: Path | str = CACHE,
    progress: Progress = silent,
) -> Path:
    """Build the simulation of an engine, or find it built; returns its folder."""
    stage = "build the simulation" + (" with waveforms" if waves else "")
    progress(stage, 0, 1)
    model = verilator.build(
        _verilog(config, open_port),
        TOP[open_port],
        widths=payload_widths(config),
        open_port=open_port,
        waves=waves,
        cache=cache,
    )
    progress(stage, 1, 1)
    return model


def build_library(
    config: EngineConfig,
    *,
    cache: Path | str = CACHE,
    progress: Progress = silent,
) -> Path:
    """Build the library of an engine with trace ports, or find it built; returns its path."""
    progress("build the library", 0, 1)
    library = verilator.build_library(
        kept_verilog(config, cache=cache),
        TOP[False],
        widths=payload_widths(config),
        counters=COUNTERS,
        cache=cache,
    )
    progress("build the library", 1, 1)
    return library


@functools.lru_cache(maxsize=4)
def _verilog(config: EngineConfig, open_port: bool) -> str:
    return engine_verilog(config, open_port=open_port)
