"""The golden model: what every code, partial sum, accumulator and output must be."""

from refmodel.golden.cells import cells, pair_cells
from refmodel.golden.layer import (
    accumulators,
    divide,
    gather_columns,
    nonzero_weights,
    output_codes,
    pad,
    patches,
    run_layer,
    slot_of_patterns,
)
from refmodel.golden.network import accuracy, logits, quantise_input, run_program, run_step
from refmodel.golden.serial import (
    Crossbars,
    LayerFunction,
    LayerTrace,
    Requests,
    requests,
    run_layer_serial,
    serial_accumulators,
    serial_layer,
)
from refmodel.golden.steps import add, average_pool, clip, concat, max_pool, rearrange

__all__ = [
    "Crossbars",
    "LayerFunction",
    "LayerTrace",
    "Requests",
    "accumulators",
    "accuracy",
    "add",
    "average_pool",
    "cells",
    "clip",
    "concat",
    "divide",
    "gather_columns",
    "logits",
    "max_pool",
    "nonzero_weights",
    "output_codes",
    "pad",
    "pair_cells",
    "patches",
    "quantise_input",
    "rearrange",
    "requests",
    "run_layer",
    "run_layer_serial",
    "run_program",
    "run_step",
    "serial_accumulators",
    "serial_layer",
    "slot_of_patterns",
]
