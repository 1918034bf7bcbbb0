"""The verbs of the command line, as functions for Python.

    from prap_hw.app import workflow

    workflow.compress("net.onnx", "train.npz", "build/net", scheme="prap")
    print(workflow.evaluate("build/net", "test.npz")["accuracy"])
    figures = workflow.cosim("build/net", "test.npz", count=1)
    assert not workflow.faults(figures)

Functions return their figures as a dictionary of JSON values. Bad input raises
:class:`refmodel.errors.InputError`; a folder or file that is written is whole or not there.
"""

from prap_hw.app.workflow.accuracy import evaluate, inspect, program_accuracy
from prap_hw.app.workflow.chips import adc_ranges, by_effect
from prap_hw.app.workflow.compression import (
    compile_floats,
    compress,
    default_scheme,
    work_folder,
)
from prap_hw.app.workflow.engines import (
    EngineOptions,
    asked_or_compressed_for,
    engine,
    engine_for,
    folder_engine,
    rtl_engine,
)
from prap_hw.app.workflow.figures import cycle_total, faults, layer_figures
from prap_hw.app.workflow.folders import (
    NETWORK_FILE,
    PROGRAM_FILE,
    SUMMARY_FILE,
    Paths,
    folder_of,
    input_codes,
    json_object,
    load_program,
    names_of,
    summary_of,
    versions,
)
from prap_hw.app.workflow.fpga import board, fpga, use_rows
from prap_hw.app.workflow.golden_cases import check_golden
from prap_hw.app.workflow.hardware import area, area_of, deliver, write_verilog
from prap_hw.app.workflow.headline import headline
from prap_hw.app.workflow.hints import input_words
from prap_hw.app.workflow.pricing import price
from prap_hw.app.workflow.simulation import cosim, simulate, simulate_network
from refmodel.api import float_accuracy, predict
from sim.job import TIERS, Job

__all__ = [
    "NETWORK_FILE",
    "PROGRAM_FILE",
    "SUMMARY_FILE",
    "TIERS",
    "EngineOptions",
    "Job",
    "Paths",
    "adc_ranges",
    "area",
    "area_of",
    "asked_or_compressed_for",
    "board",
    "by_effect",
    "check_golden",
    "compile_floats",
    "compress",
    "cosim",
    "cycle_total",
    "default_scheme",
    "deliver",
    "engine",
    "engine_for",
    "evaluate",
    "faults",
    "float_accuracy",
    "folder_engine",
    "folder_of",
    "fpga",
    "headline",
    "input_codes",
    "input_words",
    "inspect",
    "json_object",
    "layer_figures",
    "load_program",
    "names_of",
    "predict",
    "price",
    "program_accuracy",
    "rtl_engine",
    "simulate",
    "simulate_network",
    "summary_of",
    "use_rows",
    "versions",
    "work_folder",
    "write_verilog",
]
