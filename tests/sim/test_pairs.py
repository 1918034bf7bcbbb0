"""Engines whose cells come in pairs: every value in every tier, and the cycles of those without."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.golden.devices.chip import Chip
from refmodel.predict import cycles
from sim import network
from sim.job import Job
from sim.results import KINDS
from tests.support.layers.bad_devices import EVERYTHING
from tests.support.nets import accelerator_nets
from tests.support.nets.cosim_nets import EMULATED, OPEN, WIDE, bulk, cosim, inputs, random_network

pytestmark = [pytest.mark.cosim, pytest.mark.long]

PAIRED = dataclasses.replace(EMULATED, pairs=True)

CLIPPING = dataclasses.replace(WIDE, pairs=True, adc_bits=4)
"""2-bit cells, 4-bit digits, codes that clip on both sides."""


@pytest.mark.parametrize("config", [PAIRED, CLIPPING], ids=["1-bit", "2-bit"])
def test_every_value_and_cycle(config: EngineConfig, tmp_path: Path, cache: Path) -> None:
    program = random_network(501, 12, config)
    codes = inputs(program, 2, 502)
    result = cosim(program, codes, config, tmp_path, cache=cache)
    assert result.difference is None, str(result.difference)
    for kind in KINDS:
        assert result.compared[kind]["values"] == result.compared[kind]["expected"] > 0
    without = dataclasses.replace(config, pairs=False)
    for layer, simulated in zip(program.layers, result.layers, strict=True):
        predicted = cycles.predict(layer, config).cycles
        assert predicted == cycles.predict(layer, without).cycles
        assert simulated.cycles_simulated == (predicted, predicted)
    # Codes have both signs, and reach both ends where they clip.
    tensors = golden.run_program(program, codes)
    found = [
        golden.run_layer_serial(layer, tensors[f"in{number}"], config).codes
        for number, layer in enumerate(program.layers)
    ]
    least, most = min(each.min() for each in found), max(each.max() for each in found)
    assert least < 0 < most
    assert (least == -config.max_code and most == config.max_code) or config.lossless


@pytest.mark.parametrize("config", [OPEN, WIDE], ids=["1-bit", "2-bit"])
def test_every_code_of_a_chip(config: EngineConfig, tmp_path: Path, cache: Path) -> None:
    config = dataclasses.replace(config, pairs=True)
    program = random_network(503, 4, config)
    codes = inputs(program, 1, 504)
    result = cosim(
        program, codes, config, tmp_path, device=EVERYTHING, chip_seed=3, stall=0.3, cache=cache
    )
    assert result.difference is None, str(result.difference)
    assert result.compared["codes"]["values"] > 0
    chip = Chip(device=EVERYTHING, config=config, seed=3)
    assert chip.pairs
    last = golden.run_program(program, codes, layer_fn=chip.layer_function(program))
    assert result.logits is not None
    np.testing.assert_array_equal(result.logits, last[program.output])


def test_every_value_in_bulk(tmp_path: Path, cache: Path) -> None:
    program = random_network(505, 6, PAIRED)
    codes = inputs(program, 1, 506)
    result = bulk(program, codes, PAIRED, tmp_path, every_value=True, cache=cache)
    assert result.difference is None, str(result.difference)
    assert result.compared["codes"]["values"] == result.compared["codes"]["expected"] > 0


def test_a_network_by_itself_on_two_engines(tmp_path: Path) -> None:
    compiled = accelerator_nets.program("residual", tmp_path, residual="fused", scheme="dictionary")
    images = accelerator_nets.codes(compiled, 2)
    config = EngineConfig(crossbar_size=32, crossbar_latency=3, merge_lanes=2, pairs=True)
    result = network.simulate(
        Job(program=compiled, codes=images, config=config, tier="network", engines=2)
    )
    assert result.first == ""
    assert not any(result.differences.values())
    assert result.cycles == (result.predicted.cycles,) * 2
    expected = golden.run_program(compiled, images)[compiled.output].reshape(2, -1)
    np.testing.assert_array_equal(result.outputs, expected)


def test_a_bit_flipped_in_a_signed_code_is_found(tmp_path: Path, cache: Path) -> None:
    config = dataclasses.replace(OPEN, pairs=True)
    program = random_network(507, 3, config)
    codes = inputs(program, 1, 508)
    result = cosim(
        program, codes, config, tmp_path, plant="code", record_difference=False, cache=cache
    )
    assert result.difference is not None
    assert result.difference.kind == "codes"
