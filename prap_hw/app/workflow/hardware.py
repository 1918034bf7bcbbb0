"""For ``prap verilog`` and ``prap area``: the hardware as files, and its synthesis."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prap_hw.app.console import Report, silent
from prap_hw.app.workflow.engines import EngineOptions, folder_engine, rtl_engine
from prap_hw.app.workflow.folders import Paths, load_program
from refmodel import files
from refmodel.config import MOST_ENGINES, EngineConfig
from refmodel.errors import InputError

if TYPE_CHECKING:
    from prap_hw.deliver.synthesis import Synthesis


def write_verilog(
    out: Paths,
    config: EngineOptions | EngineConfig | None = None,
    *,
    program: Paths | None = None,
    open_port: bool = False,
    trace: bool = False,
    report: Report = silent,
) -> list[Path]:
    """Write the Verilog of an engine.

    Parameters
    ----------
    out
        Folder; it may exist, files of these names in it are replaced.
    config
        Sizes.
    program
        A folder that :func:`compress` wrote; the engine is the one that it was compressed for,
        changed by ``config`` and sized to hold its layers.
    open_port
        Whether the crossbar port is left open instead of holding emulated crossbars; the black box
        that belongs there and a module that connects the two are then written, too.
    trace
        Whether the trace ports are there.

    Returns
    -------
    list of Path
        The files written.
    """
    from prap_hw.deliver import blackbox
    from prap_hw.deliver.verilog import TOP, engine_verilog

    fitted = rtl_engine(config)
    if program is not None:
        fitted = folder_engine(program, load_program(program), config, rtl_engine)
    fitted = dataclasses.replace(fitted, trace=trace)
    report("write Verilog", 0, 1)
    engine_text = engine_verilog(fitted, open_port=open_port)
    texts = {TOP[open_port]: engine_text}
    if open_port:
        texts[blackbox.NAME] = blackbox.black_box(fitted)
        texts[blackbox.MACRO] = blackbox.macro(fitted, engine_text)
    written = []
    for name, text in texts.items():
        written.append(Path(out) / f"{name}.v")
        with files.new_file(written[-1]) as draft:
            draft.write_text(text, encoding="utf-8")
    report("write Verilog", 1, 1)
    return written


def deliver(
    out: Paths,
    config: EngineOptions | EngineConfig | None = None,
    *,
    program: Paths | None = None,
    engines: int = 1,
    open_port: bool = False,
    trace: bool = False,
    report: Report = silent,
) -> list[Path]:
    """Write what an integrator needs: engine, tile and accelerator, and the shell around them.

    Parameters are those of :func:`write_verilog`, and ``engines``, those of the tile and of the
    accelerator. With a program the accelerator is sized to hold it as a whole; else as
    :func:`prap_hw.deliver.delivery.sizes` has it. ``README.md`` in the folder tells of the files;
    with a program and without ``open_port`` there is a bench among them that runs it.

    Returns
    -------
    list of Path
        The files written.
    """
    from prap_hw.deliver import delivery

    if not 1 <= engines <= MOST_ENGINES:
        raise InputError(f"expected 1 to {MOST_ENGINES} engines, found {engines}")
    loaded = None if program is None else load_program(program)
    if loaded is None or program is None:
        fitted = rtl_engine(config)
    else:
        fitted = folder_engine(program, loaded, config, rtl_engine)
    fitted = dataclasses.replace(fitted, trace=trace)
    report("write Verilog", 0, 1)
    given = delivery.sizes(fitted, program=loaded, engines=engines)
    texts = delivery.delivered_files(given, program=loaded, open_port=open_port)
    written = []
    for name, text in texts.items():
        written.append(Path(out) / name)
        with files.new_file(written[-1]) as draft:
            draft.write_text(text, encoding="utf-8")
    report("write Verilog", 1, 1)
    return written


def area_of(
    config: EngineOptions | EngineConfig | None = None,
    *,
    family: str = "ecp5",
    program: Paths | None = None,
    cache: Paths = "build/cache",
) -> "Synthesis":
    """Do what :func:`area` does; returns its parts."""
    from prap_hw.deliver import synthesis
    from prap_hw.deliver.verilog import TOP, kept_verilog

    synthesis.require()
    fitted = rtl_engine(config)
    if program is not None:
        fitted = folder_engine(program, load_program(program), config, rtl_engine)
    text = kept_verilog(dataclasses.replace(fitted, trace=False), cache=cache)
    return synthesis.synthesise(text, TOP[False], family, cache=cache)


def area(
    config: EngineOptions | EngineConfig | None = None,
    *,
    family: str = "ecp5",
    program: Paths | None = None,
    cache: Paths = "build/cache",
    report: Report = silent,
) -> dict[str, Any]:
    """Synthesise an engine with its emulated crossbars, as :func:`write_verilog` writes it.

    Parameters
    ----------
    config
        Sizes.
    family
        ``ecp5``, ``ice40``, ``xilinx`` (7 series) or ``gowin``.
    program
        A folder that :func:`compress` wrote, as for :func:`write_verilog`.
    cache
        Where Verilog and results are kept.

    Returns
    -------
    dict
        ``family``; ``components``, name to kind of cell to number, with ``memory bits`` and the
        ``total``; ``memories``, each with ``module``, ``name``, ``words``, ``width`` and the
        ``cell`` that it has become; ``faults``, in words. Without components where the Verilog has
        latches, loops, or signals with other than one driver.
    """
    stage = f"synthesise for {family}"
    report(stage, 0, 1)
    found = area_of(config, family=family, program=program, cache=cache)
    report(stage, 1, 1)
    return {
        "family": family,
        "components": found.components() if found.cells else {},
        "memories": [dataclasses.asdict(memory) for memory in found.memories],
        "faults": list(found.faults),
    }
