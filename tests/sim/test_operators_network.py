"""A network to each operator on the Verilog of the accelerator, in Verilator.

All run on one accelerator, large enough for each of them, so that it is built once.
"""

from dataclasses import fields, replace

import numpy as np
import pytest

from refmodel import golden
from refmodel.compression import compile as compiler
from refmodel.compression.quantize import quantize
from refmodel.config import EngineConfig
from refmodel.exchange.onnx.load import load_onnx
from refmodel.predict import accelerator
from sim import network as bench
from sim.job import Job
from tests.support.nets.function_cases import CASES
from tests.support.nets.onnx_cases import SEED
from tests.support.nets.onnx_nets import floats, network, save

pytestmark = [pytest.mark.cosim, pytest.mark.long]

ENGINE = EngineConfig(crossbar_size=32, crossbar_latency=3, merge_lanes=2)

COMMANDS = 1 << 12


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("operators")
    found = {}
    for case, (nodes, constants, shape, opset) in CASES.items():
        model = network(nodes, constants, shape, opset=opset)
        x = floats(SEED, 8, *shape[1:])
        program = compiler.compile_network(
            quantize(load_onnx(save(model, folder)), x), scheme="dense"
        )
        found[case] = program, golden.quantise_input(program, x)[:2]
    return found


@pytest.fixture(scope="module")
def roomy(programs) -> EngineConfig:
    """An accelerator that each of the networks fits."""
    configs = [
        accelerator.accelerator_config_for(program, ENGINE) for program, _ in programs.values()
    ]
    most = {
        each.name: max(getattr(config, each.name) for config in configs)
        for each in fields(EngineConfig)
    }
    assert most["max_tables"]
    assert most["products"]
    return EngineConfig(**most)


@pytest.fixture
def one_accelerator(roomy, monkeypatch):
    """Let the tier take that accelerator for every network."""
    written = bench.accelerator_verilog
    monkeypatch.setattr(bench, "accelerator_config_for", lambda *_: roomy)
    monkeypatch.setattr(
        bench, "accelerator_verilog", lambda config, _, engines: written(config, COMMANDS, engines)
    )


@pytest.mark.parametrize("case", CASES)
def test_an_operator_runs_on_the_accelerator(case, programs, one_accelerator, tmp_path_factory):
    program, codes = programs[case]
    folder = tmp_path_factory.getbasetemp() / "libraries"
    result = bench.simulate(
        Job(program=program, codes=codes, config=ENGINE, tier="network", cache=folder)
    )
    assert result.first == ""
    assert not any(result.differences.values())
    expected = golden.run_program(program, codes)[program.output].reshape(2, -1)
    np.testing.assert_array_equal(result.outputs, expected)
    assert result.cycles == (result.predicted.cycles,) * 2


def test_a_table_that_is_another_is_found(programs, one_accelerator, monkeypatch, tmp_path_factory):
    program, codes = programs["silu"]
    loaded = bench.network_load

    def changed(program, image, config):
        tables = image.tables.copy()
        tables[0, 128:] ^= 1
        return loaded(program, replace(image, tables=tables), config)

    monkeypatch.setattr(bench, "network_load", changed)
    folder = tmp_path_factory.getbasetemp() / "libraries"
    result = bench.simulate(
        Job(program=program, codes=codes, config=ENGINE, tier="network", cache=folder)
    )
    assert result.differences["outputs"] > 0
