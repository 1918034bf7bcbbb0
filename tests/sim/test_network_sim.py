"""Whole networks on the Verilog of the accelerator, in Verilator, against the golden model."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from prap_hw.app import workflow
from prap_hw.app.cli import program as command_line
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.predict import accelerator
from refmodel.predict.accelerator import prediction
from refmodel.program.program import Program
from sim import network
from sim.job import Job
from tests.support.nets.accelerator_nets import codes, program

pytestmark = pytest.mark.cosim

ENGINE = EngineConfig(crossbar_size=32, crossbar_latency=3, merge_lanes=2)


def simulate(program: Program, codes: np.ndarray, **options: Any) -> network.NetworkResult:
    return network.simulate(
        Job(program=program, codes=codes, config=ENGINE, tier="network", **options)
    )


def test_a_residual_network_runs_from_image_to_logits(tmp_path):
    compiled = program("residual", tmp_path, residual="fused", scheme="dictionary")
    images = codes(compiled, 5)
    result = simulate(compiled, images)
    assert result.first == ""
    assert not any(result.differences.values())
    expected = golden.run_program(compiled, images)[compiled.output].reshape(5, -1)
    np.testing.assert_array_equal(result.outputs, expected)
    assert result.cycles == (result.predicted.cycles,) * 5
    # 16 positions of 4 channels three times, 4 of 8 twice, 5 logits.
    assert result.compared == result.expected
    assert result.compared == {"accumulators": 5 * (3 * 64 + 2 * 32 + 5), "outputs": 5 * 5}


@pytest.mark.parametrize("engines", [2, 4])
@pytest.mark.long
def test_several_engines_run_a_network_with_one_start(engines, tmp_path):
    compiled = program("residual", tmp_path, residual="fused", scheme="dictionary")
    images = codes(compiled, 3)
    result = simulate(compiled, images, engines=engines)
    assert result.first == ""
    assert not any(result.differences.values())
    expected = golden.run_program(compiled, images)[compiled.output].reshape(3, -1)
    np.testing.assert_array_equal(result.outputs, expected)
    assert result.cycles == (result.predicted.cycles,) * 3
    assert result.compared == result.expected
    assert result.compared == {"accumulators": 3 * (3 * 64 + 2 * 32 + 5), "outputs": 3 * 5}
    assert result.alone is not None
    config = accelerator.accelerator_config_for(compiled, ENGINE)
    image = accelerator.network_image(compiled, config)
    assert result.alone == accelerator.predict_network(image, compiled.layers, config)
    assert result.alone.cycles > 1.5 * result.predicted.cycles


def test_what_is_wrong_is_found(tmp_path, monkeypatch):
    """The mutants: a residual read a channel further, another multiplier, a wrong prediction."""
    compiled = program("residual", tmp_path, residual="fused", scheme="dictionary")
    images = codes(compiled, 1)
    plain = network.network_image

    def moved(*arguments):
        image = plain(*arguments)
        changed = []
        for operation in image.operations:
            if operation.operands and operation.kind == "layer":
                (operand,) = operation.operands
                walk = dataclasses.replace(operand.walk, base=operand.walk.base + 1)
                operand = dataclasses.replace(operand, walk=walk)
                operation = dataclasses.replace(operation, operands=(operand,))
            changed.append(operation)
        return dataclasses.replace(image, operations=tuple(changed))

    with monkeypatch.context() as patch:
        patch.setattr(network, "network_image", moved)
        found = simulate(compiled, images)
    assert found.differences["accumulators"] > 0
    assert found.first.startswith("image 0, accumulators ")

    load = network.network_load

    def halved(given, *arguments):
        last = given.layers[-1]
        last = dataclasses.replace(last, multiplier=last.multiplier // 2)
        return load(dataclasses.replace(given, layers=(*given.layers[:-1], last)), *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(network, "network_load", halved)
        found = simulate(compiled, images)
    assert found.differences["accumulators"] == 0
    assert found.differences["outputs"] > 0
    assert found.first.startswith("image 0, outputs ")

    with monkeypatch.context() as patch:
        patch.setattr(prediction, "NEXT_WORD", 2)
        found = simulate(compiled, images)
    assert found.differences == {"accumulators": 0, "outputs": 0, "cycles": 1, "counters": 1}
    operations = len(found.predicted.operations) - 1
    assert found.cycles[0] == found.predicted.cycles - operations
    assert found.first == (f"image 0: {found.cycles[0]} cycles, predicted {found.predicted.cycles}")


def test_codes_that_do_not_fit_are_refused(tmp_path):
    compiled = program("chain", tmp_path)
    with pytest.raises(ValueError, match="codes of x must be"):
        simulate(compiled, np.zeros((1, 2, 2, 2), np.uint8))


@pytest.mark.long
@pytest.mark.parametrize("engines", [1, 2])
def test_the_command_prints_cycles_and_compared_values(engines, tmp_path, capsys):
    compiled = program("residual", tmp_path, residual="fused", scheme="dictionary")
    folder = tmp_path / "net"
    folder.mkdir()
    compiled.save(folder / workflow.PROGRAM_FILE)
    images = np.random.default_rng(0).normal(0, 1, (2, 2, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "images.npz", x=images, y=np.zeros(2, np.int64))
    command = ["cosim", folder, "--images", tmp_path / "images.npz", "--count", 2]
    command += ["--tier", "network", "--latency", 3, "--merge-lanes", 2, "--json", tmp_path / "j"]
    command += ["--engines", engines]
    assert command_line.run([str(part) for part in command]) == 0
    text = capsys.readouterr().out
    figures = json.loads((tmp_path / "j").read_text())
    cycles = figures["network"]["cycles_predicted"]
    assert figures["network"]["cycles_simulated"] == [cycles] * 2
    assert f"an image: {cycles:,} cycles predicted, {cycles:,} simulated; activation" in text
    assert not workflow.faults(figures)
    assert figures["network"]["engines"] == engines
    assert ("on one" in text) == ("times as fast as one" in text) == (engines > 1)
    if engines > 1:
        alone = figures["network"]["cycles_one_engine"]
        assert figures["network"]["speed_up"] == alone / cycles
        assert all(
            each["speed_up"] == each["cycles_one_engine"] / each["cycles"]
            for each in figures["operations"]
        )
        assert f"{alone / cycles:.2f} times as fast as one, which takes {alone:,} cycles" in text
    assert [each["kind"] for each in figures["operations"]] == (
        ["image", *["layer"] * 5, "pool", "layer"]
    )
    assert sum(each["words"] + 1 + each["cycles"] for each in figures["operations"][1:]) == cycles


def test_options_of_the_other_tiers_are_refused(tmp_path):
    refused: list[tuple[dict[str, Any], str]] = [
        ({"every_value": True}, "bulk"),
        ({"fresh": True}, "protocol or bulk"),
        ({"waves": "1:2"}, "protocol or bulk"),
        ({"device": "wan-2022"}, "protocol"),
    ]
    for options, tiers in refused:
        (name,) = options
        with pytest.raises(InputError, match=f"^expected tier {tiers} for {name}, found network$"):
            workflow.cosim(tmp_path, tmp_path, tier="network", **options)
    for tier in ("protocol", "bulk"):
        with pytest.raises(InputError, match=f"^expected tier network for engines, found {tier}$"):
            workflow.cosim(tmp_path, tmp_path, tier=tier, engines=2)
    for engines in (0, 65):
        with pytest.raises(InputError, match=f"^expected 1 to 64 engines, found {engines}$"):
            workflow.cosim(tmp_path, tmp_path, tier="network", engines=engines)
    said = "^expected a device or positions with seed, found none with seed 3$"
    with pytest.raises(InputError, match=said):
        workflow.cosim(tmp_path, tmp_path, seed=3)
