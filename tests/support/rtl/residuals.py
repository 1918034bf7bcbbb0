"""Outputs with a residual operand, and the requantiser held against the golden model."""

import dataclasses
from typing import Any

import numpy as np

from prap_hw.common.layouts import Space
from prap_hw.engine.requantise import Requantise
from refmodel import golden
from refmodel.config import EngineConfig
from tests.support.layers.builders import random_layer_program
from tests.support.rtl.bench import Constant, Script, Sink, Source, simulate
from tests.support.rtl.requantising import Accumulators

FIRST = 5
"""Where the layer's output parameters begin."""


def layer_of(rng: np.random.Generator, outputs: int, residual: dict[str, Any]):
    layer = random_layer_program(
        rng, in_shape=(1, 1, 1), kernel=(1, 1), pads=(0, 0, 0, 0), outputs=outputs, groups=1
    )
    least = residual.get("residual_shift", 0)
    changes = {
        "bias": rng.integers(-1000, 1000, outputs),
        "multiplier": rng.integers(-32767, 32768, outputs),
        "shift": rng.integers(least, 48, outputs),
        "zero_out": int(rng.integers(0, 256)),
        "clip_lo": int(rng.integers(0, 20)),
        "clip_hi": int(rng.integers(230, 256)),
    }
    return dataclasses.replace(layer, **changes, **residual)


def run(layer, sums: np.ndarray, residual: np.ndarray, **options):
    """Requantise positions [positions, outputs]; returns codes and sink."""
    config = EngineConfig(network=True, max_outputs=64, max_params=128)
    dut = Requantise(config)
    layouts = dut.layouts
    words = []
    for number in range(layer.out_shape[2]):
        values: dict[Any, int] = {
            name: int(getattr(layer, name)[number]) for name in ("bias", "multiplier", "shift")
        }
        bits = layouts.params.const(values).as_bits()
        word: dict[Any, Any] = {"space": Space.OUTPUT, "addr": FIRST + number, "data": bits}
        words.append(layouts.load.const(word).as_bits())
    registers = {
        "last_output": layer.out_shape[2] - 1,
        "first_output": FIRST,
        **{name: getattr(layer, name) for name in ("zero_out", "clip_lo", "clip_hi")},
        "residual": int(layer.residual),
        **{f"residual_{name}": getattr(layer, f"residual_{name}")
           for name in ("zero", "multiplier", "shift")},
    }  # fmt: skip
    begin = len(words) + 1
    late = options.pop("late", 0.0)
    gap = options.pop("gap", 1)
    operand = Source(dut.i_residual, residual.ravel().tolist(), stall=late, seed=3)
    sink = Sink(dut.o, sums.size, **options)
    simulate(
        dut,
        Constant(*((dut.registers[name], value) for name, value in registers.items())),
        Source(dut.i_load, words),
        Script(dut.position_done, {begin + gap * p: 1 for p in range(len(sums))}),
        Accumulators(dut, sums.tolist()),
        operand,
        sink,
    )
    codes = [layouts.output.from_bits(bits)["code"] for bits in sink.payloads]
    return np.array(codes).reshape(sums.shape), sink, operand, begin


def drawn(seed: int):
    rng = np.random.default_rng(seed)
    shift = (0, 47, *rng.integers(0, 48, 6).tolist())[seed % 8]
    residual = {
        "residual": True,
        "residual_zero": int(rng.integers(0, 256)),
        "residual_multiplier": int(rng.integers(-32767, 32768)) >> max(0, 15 - min(shift, 15)),
        "residual_shift": shift,
    }
    layer = layer_of(rng, 12, residual)
    codes = rng.integers(0, 256, (2, 12)).astype(np.uint8)
    worth = (codes.astype(np.int64) - layer.residual_zero) * layer.residual_multiplier
    # Accumulators that bring the sum back among the codes, at a tie or beside it; and some extreme.
    want = 2 * rng.integers(-20, 275, (2, 12)) + rng.integers(0, 2, (2, 12))
    m = np.where(layer.multiplier == 0, 1, layer.multiplier)
    sums = np.zeros((2, 12), np.int64)
    for place in np.ndindex(2, 12):
        s = int(layer.shift[place[1]])
        at = (int(want[place]) << s >> 1) - (int(worth[place]) << s >> layer.residual_shift)
        acc = at // int(m[place[1]]) - int(layer.bias[place[1]])
        sums[place] = min(max(acc, -(1 << 39)), (1 << 39) - 1)
    sums[1, :2] = -(1 << 39), (1 << 39) - 1
    return layer, sums, codes


def check_codes_match_the_golden_model(seed):
    layer, sums, codes = drawn(seed)
    found, sink, _, begin = run(layer, sums, codes)
    assert (found == golden.output_codes(layer, sums, codes)).all()
    # No later than without a residual.
    assert sink.cycles == list(range(begin + 5, begin + 5 + 24))
