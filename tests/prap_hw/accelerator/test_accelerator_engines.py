"""Networks on an accelerator of several engines: codes, counters, and the predicted cycles."""

import dataclasses
import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from prap_hw.accelerator.accelerator import accelerator_members
from prap_hw.common.layouts import Layouts, Space, TileLayouts
from prap_hw.deliver import load
from prap_hw.tile.tile import Reduction
from refmodel.config import EngineConfig
from refmodel.predict.accelerator.prediction import predict_network
from refmodel.predict.accelerator.registers import OWN_REGISTERS
from tests.support.nets.accelerator_nets import codes, program
from tests.support.rtl.accelerator_engines import (
    CASES,
    SHORT,
    busy,
    check_codes_counters_and_cycles_are_as_predicted,
    check_outputs_that_nobody_takes_for_long_are_all_there,
    differences,
    net_of,
)
from tests.support.rtl.accelerator_host import Host, Net, after_resets, expected


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in SHORT else [pytest.mark.long]) for name in CASES],
)
def test_codes_counters_and_cycles_are_as_predicted(name, tmp_path):
    check_codes_counters_and_cycles_are_as_predicted(name, tmp_path)


def test_engines_are_idle_in_some_layers(tmp_path):
    """Layers of one output are one group each: there are more engines than groups."""
    assert busy(net_of("waist, 4 engines", tmp_path).image) == [1, 4, 1, 4, 1]
    assert busy(net_of("waist, 2 engines", tmp_path).image) == [1, 2, 1, 2, 1]


def test_several_engines_are_faster(tmp_path):
    compiled = program("residual", tmp_path, residual="fused")
    cycles = []
    for engines in (1, 2, 4):
        net = Net.of(compiled, engines)
        cycles.append(predict_network(net.image, compiled.layers, net.config).cycles)
    assert cycles[0] > 1.5 * cycles[1] > 1.5**2 * cycles[2]


def test_pauses_on_all_sides_change_no_code(tmp_path):
    net = net_of("waist, 2 engines", tmp_path)
    images = codes(net.program, 1)
    results = Host(net, stall=0.4).run_images(images)
    assert [result.outputs for result in results] == expected(net, images)
    wanted = predict_network(net.image, net.program.layers, net.config)
    assert min(result.cycles for result in results) >= wanted.cycles
    for result in results:
        stalled = {name for name, value in wanted.events.items() if result.counters[name] != value}
        assert all(name.startswith("stall_") for name in stalled)


def test_outputs_that_nobody_takes_for_long_are_all_there(tmp_path):
    check_outputs_that_nobody_takes_for_long_are_all_there(tmp_path)


@pytest.mark.parametrize(
    ("name", "count"),
    [("waist, 2 engines", 1), pytest.param("waist, 4 engines", 8, marks=pytest.mark.long)],
)
def test_after_a_reset_at_any_time_the_next_run_is_right(name, count, tmp_path):
    net = net_of(name, tmp_path)
    assert after_resets(net, count, seed=net.image.engines) == [True] * count


@pytest.mark.long
def test_the_places_of_every_engine_count(monkeypatch, tmp_path):
    """The mutant: engines read where engine 0's parts lie, and stop at a word never written."""
    net = net_of("waist, 2 engines", tmp_path)
    right = load.registers

    def of_engine_0(*arguments):
        found = right(*arguments)
        return dataclasses.replace(found, own=dict.fromkeys(found.own, found.own.get(0, {})))

    monkeypatch.setattr(load, "registers", of_engine_0)
    with pytest.raises(AssertionError, match=r"^hung after 0 outputs"):
        differences(net, 1)


# Payloads


def test_the_engine_of_a_word_is_above_what_one_engine_has():
    config = EngineConfig(network=True)
    layouts, tile = Layouts(config), TileLayouts(config, 5)
    for mine, one in (
        (tile.load, layouts.load),
        (tile.cells, layouts.cells),
        (tile.command, layouts.command),
        (tile.word, layouts.load),
    ):
        assert {name: mine[name] for name in one.members} == dict(one)
        assert (mine["engine"].offset, mine["engine"].width) == (one.size, 3)
    for mine in (tile.command, tile.word):
        assert mine["every"].offset == mine.size - 1
    # A word of the list is sent as the data of a word.
    assert TileLayouts(config, 64).command.size <= layouts.load["data"].width


def test_one_engine_has_the_members_that_it_has_by_itself():
    config = EngineConfig(network=True)
    one, two = accelerator_members(config), accelerator_members(config, 2)
    assert {name for name in one if one[name] != two[name]} == {"i_load", "i_cells", "trace_psum"}
    for engines, kind in ((0, ValueError), (65, ValueError), (2.0, TypeError)):
        with pytest.raises(kind, match="engines must be "):
            accelerator_members(config, engines)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("engines", [3, 33, 64])
def test_which_engines_take_part_comes_in_words_of_32(engines):
    reduction = Reduction(EngineConfig(network=True), engines)
    mask = random.Random(engines).getrandbits(engines)
    layout = Layouts(reduction.config).load

    async def body(ctx):
        for words in ([mask & 0xFFFFFFFF, mask >> 32], [mask]):
            # A tile's host sends all of them at once.
            for addr, data in enumerate(words[: 1 + (engines > 32)]):
                payload: Any = {"space": Space.ENGINES, "addr": addr, "data": data}
                ctx.set(reduction.i_load.payload, layout.const(payload))
                ctx.set(reduction.i_load.valid, 1)
                await ctx.tick()
            assert ctx.get(reduction.active) == mask
            ctx.set(reduction.i_load.payload.data, 0)
            ctx.set(reduction.i_load.payload.addr, 0)
            await ctx.tick()
            assert ctx.get(reduction.active) == 0

    simulator = Simulator(reduction)
    simulator.add_clock(1e-6)
    simulator.add_testbench(body)
    simulator.run()


def test_registers_of_an_engine_are_those_that_are_not_common():
    names = {name for name, _ in Layouts(EngineConfig(network=True)).registers}
    assert set(OWN_REGISTERS) < names
