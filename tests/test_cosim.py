"""The emitted Verilog in Verilator: many random layers, stalls on every stream, planted faults."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refmodel import cycles, golden
from refmodel.compile import check_fits
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.program import LayerProgram, Program, Step
from sim import cosim as runner
from sim.bench_engine import KINDS
from sim.cosim import CosimResult, cosim
from tests.builders import random_layer_program

pytestmark = pytest.mark.cosim

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
    ou_rows=16, ou_cols=16, cell_bits=2, dac_bits=4, adcs=12, crossbar_latency=2, **LIMITS
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


def network(layers: list[LayerProgram]) -> Program:
    """Layers side by side: each reads the beginning of the input; the last one's is the output."""
    size = max(int(np.prod(layer.in_shape)) for layer in layers)
    layers = [dataclasses.replace(layer, name=f"layer{i}") for i, layer in enumerate(layers)]
    tensors = {"input": {"shape": [1, 1, size], "scale": 1.0, "zero": 0}}
    steps = []
    for i, layer in enumerate(layers):
        index = np.arange(int(np.prod(layer.in_shape)))
        shape = list(layer.in_shape)
        params = {"index": index, "shape": shape}
        steps.append(Step(op="rearrange", inputs=("input",), output=f"in{i}", params=params))
        steps.append(Step(op="layer", inputs=(f"in{i}",), output=f"out{i}", params={"index": i}))
        tensors[f"in{i}"] = {"shape": shape, "scale": 1.0, "zero": layer.zero_in}
        tensors[f"out{i}"] = {
            "shape": list(layer.out_shape),
            "scale": 1.0,
            "zero": layer.zero_out,
        }
    return Program(
        layers=tuple(layers),
        steps=tuple(steps),
        tensors=tensors,
        input="input",
        output=f"out{len(layers) - 1}",
        preprocess={},
    )


def random_network(seed: int, count: int, config: EngineConfig) -> Program:
    """A network of random layers: sizes, strides, padding, groups, terms, dense and prap."""
    rng = np.random.default_rng(seed)
    return network([fitting(rng, config, ou_rows=config.ou_rows) for _ in range(count)])


def inputs(program: Program, images: int, seed: int) -> np.ndarray:
    """Codes with many at both limits."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (images, *program.tensors["input"]["shape"]))
    extreme = rng.random(codes.shape)
    codes[extreme < 0.1] = 0
    codes[extreme > 0.9] = 255
    return codes.astype(np.uint8)


@pytest.fixture
def cache(root: Path) -> Path:
    """Where builds are kept from one run of the tests to the next."""
    return root / "build" / "cache"


def assert_equal(result: CosimResult, images: int) -> None:
    """All that was expected was compared, and nothing differs."""
    assert result.difference is None, str(result.difference)
    assert set(result.compared) == set(KINDS)
    for kind, counts in result.compared.items():
        assert counts["values"] == counts["expected"] > 0, kind
        assert counts["different"] == 0, kind
    assert all(len(layer.cycles_simulated) == images for layer in result.layers)


@pytest.mark.parametrize(
    ("port", "config"), [("emulated", EMULATED), ("open", OPEN)], ids=["emulated", "open"]
)
def test_every_value_and_cycle_of_random_layers(
    port: str, config: EngineConfig, tmp_path: Path, cache: Path
) -> None:
    program = random_network(101, 24, config)
    codes = inputs(program, 2, 102)
    result = cosim(program, codes, config, tmp_path, port=port, cache=cache)
    assert_equal(result, 2)
    for layer, simulated in zip(program.layers, result.layers, strict=True):
        predicted = cycles.predict(layer, config).cycles
        assert simulated.cycles_predicted == predicted
        assert simulated.cycles_simulated == (predicted, predicted)
    assert result.logits is not None
    last = golden.run_program(program, codes)[program.output]
    np.testing.assert_array_equal(result.logits, last)


@pytest.mark.parametrize("port", ["emulated", "open"])
def test_every_value_and_cycle_where_payloads_are_wide(
    port: str, tmp_path: Path, cache: Path
) -> None:
    program = random_network(111, 8, WIDE)
    codes = inputs(program, 1, 112)
    result = cosim(program, codes, WIDE, tmp_path, port=port, cache=cache)
    assert_equal(result, 1)
    for layer, simulated in zip(program.layers, result.layers, strict=True):
        assert simulated.cycles_simulated == (cycles.predict(layer, WIDE).cycles,)


def test_a_code_beyond_the_first_word_is_compared(tmp_path: Path, cache: Path) -> None:
    program = random_network(111, 2, WIDE)
    codes = inputs(program, 1, 112)
    lanes = set()
    for seed in range(12):
        result = cosim(
            program, codes, WIDE, tmp_path, plant="code", seed=seed, waveform=False, cache=cache
        )
        assert result.difference is not None
        assert result.difference.kind == "codes"
        assert result.compared["codes"]["different"] == 1
        lanes.add(int(result.difference.where.rpartition(" ")[2]))
        if max(lanes) >= 7:
            return
    pytest.fail(f"no fault of a converter beyond the sixth in {lanes}")


@pytest.mark.parametrize("seed", [201, 202])
@pytest.mark.parametrize("stall", [0.15, 0.5])
@pytest.mark.parametrize(
    ("port", "config"), [("emulated", EMULATED), ("open", OPEN)], ids=["emulated", "open"]
)
def test_every_value_of_random_layers_with_stalls(
    port: str, config: EngineConfig, stall: float, seed: int, tmp_path: Path, cache: Path
) -> None:
    program = random_network(seed, 6, config)
    codes = inputs(program, 1, seed)
    result = cosim(program, codes, config, tmp_path, port=port, stall=stall, seed=seed, cache=cache)
    assert_equal(result, 1)
    slower = [layer.cycles - layer.cycles_predicted for layer in result.layers]
    assert min(slower) >= 0
    assert max(slower) > 0


def test_the_prediction_is_written_before_the_simulation(tmp_path: Path) -> None:
    program = random_network(301, 2, OPEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "build_engine", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cosim(program, inputs(program, 3, 0), OPEN, tmp_path)
    predicted = json.loads((tmp_path / "predicted.json").read_text())
    assert [entry["cycles"] for entry in predicted["layers"]] == [
        cycles.predict(layer, OPEN).cycles for layer in program.layers
    ]
    outputs = sum(layer.positions * layer.out_shape[2] for layer in program.layers)
    assert predicted["expected"]["outputs"] == 3 * outputs
    requests = sum(
        len(golden.requests(layer, OPEN).ou) * layer.positions for layer in program.layers
    )
    assert predicted["expected"]["codes"] == 3 * requests * OPEN.adcs


def reused_network(seed: int, config: EngineConfig) -> Program:
    """Layers with reuse words and kernels, so that each fault has something to change."""
    rng = np.random.default_rng(seed)
    choices = {"identity": False, "kernel": (2, 2), "in_shape": (4, 4, 4), "groups": 1}
    return network([fitting(rng, config, **choices) for _ in range(3)])


KINDS_OF_PLANT = {
    "code": {"codes"},
    "shift": {"accumulators"},
    "index": {"requests", "accumulators"},
}
"""What each fault must show in first."""


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("plant", ["code", "shift", "index"])
def test_a_planted_fault_is_found_with_its_place(
    plant: str, seed: int, tmp_path: Path, cache: Path
) -> None:
    config = OPEN if plant == "code" else EMULATED
    program = reused_network(401, config)
    codes = inputs(program, 2, 402)
    result = cosim(
        program, codes, config, tmp_path, plant=plant, seed=seed, waveform=False, cache=cache
    )
    found = result.difference
    assert found is not None
    assert result.planted is not None
    assert found.kind in KINDS_OF_PLANT[plant]
    # In the layer in which it was planted, and in no other: a layer is given what the RTL made.
    assert result.planted.startswith(f"layer {found.layer}")
    assert {difference.layer for difference in result.differences} == {found.layer}
    assert found.position is not None
    assert found.expected != found.got
    for kind, counts in result.compared.items():
        assert counts["values"] == counts["expected"], kind
    assert result.compared[found.kind]["different"] > 0
    if plant == "code":
        assert result.compared["codes"]["different"] == 1
        assert result.compared["requests"]["different"] == 0


@pytest.mark.parametrize("mutant", ["forget", "deaf"])
def test_a_missing_output_is_a_failure(mutant: str, tmp_path: Path, cache: Path) -> None:
    program = reused_network(501, EMULATED)
    codes = inputs(program, 1, 502)
    result = cosim(program, codes, EMULATED, tmp_path, mutant=mutant, cache=cache)
    assert result.difference is not None
    assert result.difference.kind == "outputs"
    assert result.waveform is not None
    assert result.difference.got == "nothing"
    height, width, outputs = program.layers[0].out_shape
    assert result.difference.position == (height - 1, width - 1)
    assert result.difference.where == f"output {outputs - 1}"
    counts = result.compared["outputs"]
    assert counts["values"] < counts["expected"]
    assert counts["different"] > 0
    hangs = [found for found in result.differences if found.kind == "hang"]
    assert bool(hangs) == (mutant == "deaf")
    if hangs:
        assert "outputs" in hangs[0].got


def test_a_cycle_more_is_a_failure(tmp_path: Path, cache: Path) -> None:
    program = reused_network(501, OPEN)
    codes = inputs(program, 1, 502)
    result = cosim(
        program, codes, OPEN, tmp_path, port="open", mutant="slow", waveform=False, cache=cache
    )
    assert {found.kind for found in result.differences} >= {"cycles"}
    assert all(counts["different"] == 0 for counts in result.compared.values())


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    program = random_network(301, 1, OPEN)
    codes = inputs(program, 1, 0)
    with pytest.raises(ValueError, match=r"port must be one of .* not 'closed'"):
        cosim(program, codes, OPEN, tmp_path, port="closed")
    with pytest.raises(ValueError, match=r"plant must be one of .* not 'sign'"):
        cosim(program, codes, OPEN, tmp_path, plant="sign")
    with pytest.raises(ValueError, match="stall must be from 0 to below 1, not 1"):
        cosim(program, codes, OPEN, tmp_path, stall=1.0)
    with pytest.raises(ValueError, match="codes of input must be"):
        cosim(program, codes[:, :, :, 1:], OPEN, tmp_path)


def test_a_shift_needs_a_reuse_word(tmp_path: Path) -> None:
    rng = np.random.default_rng(601)
    program = network([fitting(rng, EMULATED, identity=True)])
    with pytest.raises(InputError, match="expected a layer in which to plant shift, found none"):
        cosim(program, inputs(program, 1, 0), EMULATED, tmp_path, plant="shift")
