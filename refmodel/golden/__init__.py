"""The golden model: what every code, partial sum, accumulator and output must be."""

from refmodel.golden.cells import cells, pair_cells
from refmodel.golden.layer import (
    accumulators,
    gather_columns,
    nonzero_weights,
    output_codes,
    pad,
    patches,
    run_layer,
    slot_of_patterns,
)
from refmodel.golden.network import accuracy, logits, quantise_input, run_program, run_step
from refmodel.golden.order import psum_order, request_order
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
from refmodel.program.rounding import divide
from refmodel.program.steps.add import add
from refmodel.program.steps.average_pool import average_pool
from refmodel.program.steps.clip import clip
from refmodel.program.steps.concat import concat
from refmodel.program.steps.max_pool import max_pool
from refmodel.program.steps.rearrange import rearrange

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
    "psum_order",
    "quantise_input",
    "rearrange",
    "request_order",
    "requests",
    "run_layer",
    "run_layer_serial",
    "run_program",
    "run_step",
    "serial_accumulators",
    "serial_layer",
    "slot_of_patterns",
]
