"""Memories and flip-flops of an engine: those that the hardware has."""

import dataclasses

import pytest

from prap_hw.common.layouts import CORE_COUNTERS, COUNTER_BITS, Layouts
from refmodel.config import DEFAULT, PAPER, SMALL
from refmodel.cost import memories as cost_memories
from refmodel.cost.memories import PENDING_BITS, all_flip_flops, flip_flops, list_memory, memories

SYNTHESISED = {
    # `prap area --preset NAME --family ecp5`: bits of the memories of controller, store,
    # accumulators, requantiser; flip-flops in all, without those of the emulated crossbar.
    "default": (DEFAULT, 191_093, 11_264, 10_240, 8_064, 2_451 - 49),
    "small": (SMALL, 20_323, 1_408, 2_560, 2_016, 2_165 - 74),
    "paper": (PAPER, 191_093, 11_264, 10_240, 8_064, 2_428 - 54),
}


@pytest.mark.parametrize("preset", list(SYNTHESISED))
def test_bits_are_those_that_synthesis_finds(preset):
    config, index, sums, accumulators, params, registers = SYNTHESISED[preset]
    found = memories(config)
    walked = ("descriptor", "position", "table", "offset", "header", "word")
    assert sum(found[name].bits for name in walked) == index
    assert found["partial sums"].bits == sums
    assert found["accumulators"].bits == accumulators
    assert found["output"].bits == params
    assert flip_flops(config) == pytest.approx(registers, rel=1 / 10)


@pytest.mark.parametrize(
    "config",
    [
        DEFAULT,
        dataclasses.replace(DEFAULT, merge_lanes=4, cell_bits=2, ou_rows=16, acc_width=42),
        dataclasses.replace(SMALL, network=True, max_params=100, dac_bits=2),
    ],
)
def test_widths_are_those_of_the_hardware(config):
    layouts, found = Layouts(config), memories(config)
    for name, shape in (
        ("descriptor", layouts.descriptor),
        ("offset", layouts.offset),
        ("header", layouts.header),
        ("output", layouts.params),
    ):
        assert found[name].width == shape.size + 1, name
    assert found["word"].width == config.merge_lanes * (layouts.word.size + 1)
    assert found["position"].width == layouts.position_bits + 1
    assert found["table"].width == layouts.address_bits + 1
    assert found["word"].depth == layouts.word_depth
    assert found["output"].depth == config.params
    assert ("operands" in found) == config.network


def test_what_is_kept_of_a_request_has_the_width_of_the_default_engine():
    assert Layouts(DEFAULT).pending.size == PENDING_BITS


def test_what_blocks_of_positions_keep_is_as_wide_as_the_hardware_has_it():
    for positions in (2, 4):
        config = dataclasses.replace(DEFAULT, position_lanes=positions)
        layouts, found = Layouts(config), memories(config)
        assert found["pending"].width == layouts.pending.size
        assert found["replay"].width == layouts.replayed.size
        assert found["replay"].depth == config.ou_rows
    assert "replay" not in memories(DEFAULT)


def test_each_position_of_a_block_has_its_sums_and_accumulators():
    one = memories(DEFAULT)
    four = memories(dataclasses.replace(DEFAULT, position_lanes=4))
    for name in ("partial sums", "accumulators"):
        assert four[name].bits == 4 * one[name].bits
        assert four[name].capacity == one[name].capacity
        assert four[name].copies == one[name].copies
    for name in ("word", "descriptor", "activations", "vectors"):
        assert four[name] == one[name]


def test_every_counter_of_an_engine_by_itself_is_in_the_flip_flops():
    # Cycles and outputs beside those of an engine of a tile; the rest belongs to an accelerator.
    assert len(CORE_COUNTERS) + 2 == cost_memories.COUNTERS
    assert cost_memories.COUNTER_BITS == COUNTER_BITS


@pytest.mark.parametrize(
    ("config", "sizes", "registers"),
    [
        # Yosys, ecp5, of prap_accelerator.v of `prap verilog --preset NAME`, without the emulated
        # crossbar; the memory of the list has 1024 words of 47 bits in both.
        (DEFAULT, (8192, 32768, 4096, 32768, 16384, 1024), 3_919 - 52),
        (SMALL, (1024, 4096, 512, 4096, 4096, 256), 3_609 - 51),
    ],
)
def test_an_accelerators_flip_flops_are_those_that_synthesis_finds(config, sizes, registers):
    names = ("max_gathers", "max_segments", "max_groups", "max_words", "activation_bytes")
    config = dataclasses.replace(
        config, network=True, **dict(zip((*names, "max_params"), sizes, strict=True))
    )
    assert all_flip_flops(config) == pytest.approx(registers, rel=1 / 10)
    assert list_memory(1000).bits == 1024 * 47


def test_engines_have_flip_flops_each_and_an_accelerator_its_own_once():
    one, three = (all_flip_flops(dataclasses.replace(DEFAULT, network=True), n) for n in (1, 3))
    assert three - one == 2 * (flip_flops(DEFAULT) + DEFAULT.acc_width)
    assert one - all_flip_flops(DEFAULT) == cost_memories.SEQUENCING
