"""The host shell in Verilator, with cocotbext-axi at its ports: what sim/bench_shell.py found."""

import json
from dataclasses import replace

import numpy as np
import pytest

from prap_hw.core import configuration_words
from prap_hw.load import padded_input
from prap_hw.packets import engine_image
from refmodel import golden
from refmodel.cycles import predict
from sim import shell
from tests.hand import TINY_ENGINE, hand_codes, hand_layer

CONFIG = replace(TINY_ENGINE, trace=False)

BENCHES = (
    "a_layer_runs",
    "a_layer_runs_with_pauses",
    "a_layer_runs_with_many_pauses",
    "registers_tell_the_configuration",
    "refused_accesses",
    "unaligned_accesses",
    "damaged_packets",
    "starts_out_of_turn",
    "runs_of_another_length",
    "a_core_that_hangs_is_found",
    "a_soft_reset_in_any_cycle",
    "a_soft_reset_with_the_packet_dropped",
    "a_reset_in_any_cycle",
    "the_driver_says_what_is_wrong",
    "the_rules_of_axi_can_be_broken",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Each test of the bench, and what it said where it failed."""
    folder = tmp_path_factory.mktemp("shell")
    layer = hand_layer([[(5, 3)], [(3, 2), (2, 1)]], outputs=11, positions=3)
    images = hand_codes(layer, images=3)
    image = engine_image(layer, CONFIG)
    predicted = predict(layer, CONFIG).cycles
    (folder / "program.bin").write_bytes(image.program)
    (folder / "cells.bin").write_bytes(image.cells)
    job = {
        "config": configuration_words(CONFIG),
        "image": {
            "input_bytes": image.input_bytes,
            "output_bytes": image.output_bytes,
            "config_hash": image.config_hash,
        },
        "inputs": [padded_input(layer, codes).tobytes().hex() for codes in images],
        "outputs": [
            np.asarray(codes, np.uint8).tobytes().hex() for codes in golden.run_layer(layer, images)
        ],
        "cycles": predicted,
        # The last of three positions' outputs are sent in about as many cycles as there are.
        "first_output": predicted - image.output_bytes,
        "load_cycles": 2 * (len(image.program) + len(image.cells)) // 8,
    }
    (folder / "job.json").write_text(json.dumps(job))
    return shell.run(shell.build(CONFIG), folder, "sim.bench_shell")


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.parametrize("bench", BENCHES)
def test_the_shell_under_a_host(results, bench):
    assert bench in results, f"the bench has no test {bench}"
    assert results[bench] is None, results[bench]


@pytest.mark.cosim
@pytest.mark.slow
def test_every_test_of_the_bench_is_asked_for(results):
    assert sorted(results) == sorted(BENCHES)
