"""The host shell in Verilator, with cocotbext-axi at its ports: what sim/benches/shell.py found."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prap_hw.deliver.load import command_words, padded_input
from prap_hw.deliver.packets import accelerator_image, engine_image
from prap_hw.driver import Image
from prap_hw.driver.registers import Core
from prap_hw.shell.core import configuration_words
from refmodel import golden
from refmodel.config import DEFAULT, EngineConfig
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.prediction import predict_network
from refmodel.predict.accelerator.sizing import accelerator_config_for
from refmodel.predict.cycles import EVENTS, predict
from refmodel.program.program import Program
from sim import shell
from tests.support.layers.hand import TINY_ENGINE, hand_codes, hand_layer
from tests.support.nets.accelerator_nets import codes, demo_network, program
from tests.support.once import once

CONFIG = replace(TINY_ENGINE, trace=False)

BENCHES = (
    "it_runs",
    "it_runs_with_pauses",
    "it_runs_with_pauses_after_one_load",
    "it_runs_with_many_pauses",
    "registers_tell_the_configuration",
    "refused_accesses",
    "unaligned_accesses",
    "damaged_packets",
    "starts_out_of_turn",
    "a_packet_waits_for_the_end_of_a_run",
    "runs_of_another_length",
    "images_of_another_length",
    "a_core_that_hangs_is_found",
    "a_soft_reset_in_any_cycle",
    "a_soft_reset_with_the_packet_dropped",
    "a_reset_in_any_cycle",
    "the_driver_says_what_is_wrong",
    "the_rules_of_axi_can_be_broken",
)

RESETS = tuple(name for name in BENCHES if "_reset_" in name)
"""Benches of which one run takes long."""

Found = dict[str, str | None]


def ask(
    folder: Path,
    config: EngineConfig,
    image: Image,
    inputs: Sequence[bytes],
    outputs: Sequence[np.ndarray],
    *,
    cycles: int,
    events: dict[str, int],
    settle: int = 0,
    commands: int = 0,
    engines: int = 1,
    resets: int = 40,
    tests: Sequence[str] | None = None,
) -> Found:
    """Give the bench a job, and what each of its tests said where it failed."""
    folder.mkdir()
    (folder / "program.bin").write_bytes(image.program)
    (folder / "cells.bin").write_bytes(image.cells)
    job = {
        "config": configuration_words(config, engines=engines, commands=commands),
        "core": Core.ACCELERATOR if commands else Core.ENGINE,
        "image": {
            "input_bytes": image.input_bytes,
            "output_bytes": image.output_bytes,
            "config_hash": image.config_hash,
        },
        "inputs": [codes.hex() for codes in inputs],
        "outputs": [np.asarray(codes, np.uint8).tobytes().hex() for codes in outputs],
        "cycles": cycles,
        "events": events,
        # Until an accelerator has written the border around its image.
        "settle": settle,
        # The last position's outputs are sent in about as many cycles as there are.
        "first_output": cycles - image.output_bytes,
        "load_cycles": 2 * (len(image.program) + len(image.cells)) // 8,
        "resets": resets,
    }
    (folder / "job.json").write_text(json.dumps(job))
    return shell.run(shell.build(config, commands, engines), folder, "sim.benches.shell", tests)


def ask_network(
    folder: Path,
    compiled: Program,
    base: EngineConfig,
    images: np.ndarray,
    *,
    engines: int = 1,
    resets: int = 40,
    tests: Sequence[str] | None = None,
) -> Found:
    """Give the bench a network on an accelerator that it just fits."""
    config = replace(accelerator_config_for(compiled, base, engines), trace=False)
    image = network_image(compiled, config, engines)
    predicted = predict_network(image, compiled.layers, config)
    return ask(
        folder,
        config,
        accelerator_image(compiled, image, config),
        [codes.tobytes() for codes in images],
        list(golden.run_program(compiled, images)[compiled.output]),
        cycles=predicted.cycles,
        events=predicted.events,
        settle=predicted.image,
        commands=len(command_words(compiled, image, config)),
        engines=engines,
        resets=resets,
        tests=tests,
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Found:
    """Each test of the bench on an engine with a tiny layer."""
    layer = hand_layer([[(5, 3)], [(3, 2), (2, 1)]], outputs=11, positions=3)
    images = hand_codes(layer, images=3)
    predicted = predict(layer, CONFIG)
    return ask(
        tmp_path_factory.mktemp("shell") / "engine",
        CONFIG,
        engine_image(layer, CONFIG),
        [padded_input(layer, codes).tobytes() for codes in images],
        list(golden.run_layer(layer, images)),
        cycles=predicted.cycles,
        events={name: getattr(predicted, name) for name in EVENTS},
    )


FOUND = "found.json"
"""What the bench found, where one run of it serves all workers."""

SMALL_NETWORK = EngineConfig(crossbar_size=32, dac_bits=4, merge_lanes=4)
"""An engine that has little to do with a small network."""


@pytest.fixture(scope="module")
def accelerator(tmp_path_factory) -> Found:
    """Each test of the bench on an accelerator with a chain of three layers, with few resets."""

    def make(folder: Path) -> None:
        compiled = program("chain", folder)
        images = codes(compiled, 3)
        found = ask_network(folder / "accelerator", compiled, SMALL_NETWORK, images, resets=3)
        (folder / FOUND).write_text(json.dumps(found))

    return json.loads((once(tmp_path_factory, "accelerator-shell", make) / FOUND).read_text())


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.long
def test_an_engine_in_its_shell_under_a_host(engine, bench):
    assert bench in engine, f"the bench has no test {bench}"
    assert engine[bench] is None, engine[bench]


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.parametrize("bench", BENCHES)
def test_an_accelerator_in_its_shell_under_a_host(accelerator, bench):
    assert bench in accelerator, f"the bench has no test {bench}"
    assert accelerator[bench] is None, accelerator[bench]


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.long
def test_every_test_of_the_bench_is_asked_for(engine):
    assert sorted(engine) == sorted(BENCHES)


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["residual", "pools", "branches"])
def test_networks_of_every_operation_run_after_resets_at_any_time(tmp_path, name):
    compiled = program(name, tmp_path)
    images, tests = codes(compiled, 2), ("it_runs", *RESETS)
    found = ask_network(tmp_path / name, compiled, SMALL_NETWORK, images, resets=10, tests=tests)
    assert found == dict.fromkeys(tests)


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.long
def test_a_network_runs_on_two_engines(tmp_path):
    compiled = program("residual", tmp_path)
    images = codes(compiled, 2)
    tests = ("it_runs", "it_runs_with_pauses", "registers_tell_the_configuration")
    found = ask_network(tmp_path / "two", compiled, SMALL_NETWORK, images, engines=2, tests=tests)
    assert found == dict.fromkeys(tests)


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.long
def test_the_demo_network_runs_with_pauses_on_every_channel(tmp_path):
    # An engine that is done in a quarter of the cycles of the default: the network is the same.
    base = replace(DEFAULT, dac_bits=4, merge_lanes=4)
    tests = ("it_runs_with_pauses_after_one_load",)
    compiled, codes = demo_network(1)
    found = ask_network(tmp_path / "demo", compiled, base, codes, tests=tests)
    assert found == dict.fromkeys(tests)


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.long
def test_the_demo_network_runs_in_the_predicted_cycles(tmp_path):
    tests = ("it_runs", "it_runs_with_pauses", "starts_out_of_turn")
    compiled, codes = demo_network(2)
    found = ask_network(tmp_path / "demo", compiled, DEFAULT, codes, tests=tests)
    assert found == dict.fromkeys(tests)
