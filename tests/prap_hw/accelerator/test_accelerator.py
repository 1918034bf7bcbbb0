"""Whole networks on the accelerator: codes of the golden model, in the predicted cycles."""

import pytest

from prap_hw.accelerator.accelerator import accelerator_members
from prap_hw.engine.engine import host_members
from refmodel.config import EngineConfig
from refmodel.predict.accelerator.prediction import predict_network
from tests.support.nets.accelerator_nets import codes, program
from tests.support.rtl.accelerator_host import (
    CASES,
    LONG,
    Host,
    Net,
    Result,
    after_resets,
    check_an_image_may_come_before_a_start_or_after_it,
    check_networks_compute_what_the_golden_model_does_in_the_predicted_cycles,
    expected,
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in CASES],
)
def test_networks_compute_what_the_golden_model_does_in_the_predicted_cycles(name, tmp_path):
    check_networks_compute_what_the_golden_model_does_in_the_predicted_cycles(name, tmp_path)


@pytest.mark.parametrize(("name", "seed"), [("residual", 0), ("functions", 1)])
@pytest.mark.long
def test_pauses_on_all_sides_change_no_code(name, seed, tmp_path):
    net = Net.of(program(name, tmp_path, residual="fused"))
    images = codes(net.program, 2, seed)
    results = Host(net, stall=0.4, seed=seed).run_images(images)
    assert [result.outputs for result in results] == expected(net, images)
    wanted = predict_network(net.image, net.program.layers, net.config)
    assert min(result.cycles for result in results) >= wanted.cycles


@pytest.mark.long
def test_a_start_before_the_image_and_another_image_before_the_start(tmp_path):
    check_an_image_may_come_before_a_start_or_after_it(tmp_path)


def test_program_words_discard_an_image(tmp_path):
    net = Net.of(program("chain", tmp_path, scheme="dense"))
    images = codes(net.program, 2)
    host = Host(net)
    results: list[Result] = []

    async def body(ctx):
        await host.load(ctx)
        await host.send_image(ctx, images[0])
        await host.settle(ctx)
        await host.load(ctx)
        # The start waits for another image.
        results.append(await host.start_first(ctx, images[1]))

    host.simulate(body)
    assert [result.outputs for result in results] == expected(net, images[1:])


@pytest.mark.long
@pytest.mark.parametrize(("name", "seed"), [("residual", 0), ("residual", 1), ("functions", 2)])
def test_after_a_reset_at_any_time_the_next_run_is_right(name, seed, tmp_path):
    net = Net.of(program(name, tmp_path, residual="fused"))
    assert after_resets(net, 1, seed) == [True]


def test_an_engine_must_be_one_for_networks_or_by_itself():
    with pytest.raises(ValueError, match=r"^the engine of an accelerator must have network T"):
        accelerator_members(EngineConfig())
    with pytest.raises(
        ValueError, match=r"^an engine by itself must have network False, not True$"
    ):
        host_members(EngineConfig(network=True))
