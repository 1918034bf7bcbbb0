"""Random networks, engines that they are co-simulated on, and the tiers that do it."""

from pathlib import Path
from typing import Any

import numpy as np

from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import check_fits
from sim.job import Job
from sim.results import CosimResult
from sim.run import run_layers
from tests.support.layers.builders import random_layer_program, side_by_side

LIMITS: dict[str, Any] = {
    "merge_lanes": 2,
    "slots": 32,
    "crossbar_size": 64,
    "crossbars": 4,
    "max_outputs": 16,
    "max_gathers": 64,
    "max_segments": 256,
    "max_groups": 64,
    "max_words": 512,
    "activation_bytes": 1024,
}


EMULATED = EngineConfig(adcs=8, **LIMITS)


OPEN = EngineConfig(adcs=4, crossbar_latency=3, **LIMITS)
"""The two engines that are built; every test here runs on one of them, but for one with both ports.
"""


WIDE = EngineConfig(
    ou_rows=16, ou_cols=32, cell_bits=2, dac_bits=4, adcs=12, crossbar_latency=2, **LIMITS
)
"""Payloads of more than 64 bits, and three patterns that end with one answer."""


def fitting(rng: np.random.Generator, config: EngineConfig, **choices: Any) -> LayerProgram:
    """Draw layers until one fits the engine."""
    while True:
        layer = random_layer_program(rng, **choices)
        try:
            check_fits(layer, config)
        except InputError:
            continue
        return layer


def random_network(seed: int, count: int, config: EngineConfig) -> Program:
    """A network of random layers: sizes, strides, padding, groups, terms, dense and prap."""
    rng = np.random.default_rng(seed)
    return side_by_side([fitting(rng, config, ou_rows=config.ou_rows) for _ in range(count)])


def inputs(program: Program, images: int, seed: int) -> np.ndarray:
    """Codes with many at both limits."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (images, *program.tensors["input"]["shape"]))
    extreme = rng.random(codes.shape)
    codes[extreme < 0.1] = 0
    codes[extreme > 0.9] = 255
    return codes.astype(np.uint8)


def reused_network(seed: int, config: EngineConfig) -> Program:
    """Layers with reuse words and kernels, so that each fault has something to change."""
    rng = np.random.default_rng(seed)
    choices = {"identity": False, "kernel": (2, 2), "in_shape": (4, 4, 4), "groups": 1}
    return side_by_side([fitting(rng, config, **choices) for _ in range(3)])


def cosim(
    program: Program, codes: np.ndarray, config: EngineConfig, folder: Path, **options: Any
) -> CosimResult:
    """The tier ``protocol``; nothing is kept unless a test says so."""
    options = {"fresh": True, **options}
    return run_layers(Job(program=program, codes=codes, config=config, folder=folder, **options))


def bulk(
    program: Program, codes: np.ndarray, config: EngineConfig, folder: Path, **options: Any
) -> CosimResult:
    """The tier ``bulk``."""
    job = Job(program=program, codes=codes, config=config, folder=folder, tier="bulk", **options)
    return run_layers(job)
