"""Events: a layer worked by hand, memories against the hardware's, sums of a tile."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Fragment

from prap_hw.accelerator.accelerator import Accelerator
from prap_hw.common.layouts import Layouts, Space
from prap_hw.engine.engine import Engine
from refmodel import golden
from refmodel.config import SHIFT_NONE, EngineConfig
from refmodel.predict.cycles import predict
from refmodel.predict.deal import deal
from refmodel.predict.events import (
    COUNTED,
    DERIVED,
    add_events,
    layer_events,
    memory_bits,
    memory_reads,
    tile_events,
)
from refmodel.predict.tile import predict_tile
from refmodel.program.sizes import engine_config_for, ous_of_gathers
from tests.support.layers.builders import random_codes, random_layer_program
from tests.support.layers.hand import (
    TINY_ENGINE,
    TWO_GROUP_ENGINE,
    TWO_GROUP_EVENTS,
    hand_layer,
    two_group_layer,
)

CONFIG, BY_HAND = TWO_GROUP_ENGINE, TWO_GROUP_EVENTS


def test_events_by_hand():
    found = layer_events(two_group_layer(), CONFIG)
    assert found == {name: 6 * count for name, count in BY_HAND.items()}
    assert list(found) == [*COUNTED, *DERIVED]


def test_lanes_read_words_that_fill_them_up():
    # Outputs 0 to 2, and 1 and 2: one block of four each, two terms.
    found = layer_events(two_group_layer(), replace(CONFIG, merge_lanes=4))
    words = 6 * (4 * 40 - 10 * 10)
    assert found["index_bits"] == 6 * BY_HAND["index_bits"] + words
    assert found["index_reads"] == 6 * (21 - 10 + 4)
    changed = {"index_bits", "index_reads"}
    assert all(found[name] == 6 * n for name, n in BY_HAND.items() if name not in changed)


@pytest.mark.parametrize(("lanes", "blocks"), [(2, 3), (4, 2)])
def test_a_block_of_positions_reads_its_index_words_once(lanes, blocks):
    # Six positions: three blocks of two, or one of four and one of two.
    found = layer_events(two_group_layer(), replace(CONFIG, position_lanes=lanes))
    assert found["index_bits"] == blocks * BY_HAND["index_bits"]
    assert found["index_reads"] == blocks * 21
    # Three segments are kept in each block, and taken from there for all positions but its first.
    assert found["replay_writes"] == blocks * 3
    assert found["replay_reads"] == (6 - blocks) * 3
    changed = {"index_bits", "index_reads", "replay_writes", "replay_reads"}
    assert all(found[name] == 6 * n for name, n in BY_HAND.items() if name not in changed)


def test_an_identity_map_takes_every_slot_and_reads_no_words():
    layer = hand_layer([[(3, 2)], [(2, 2)]], outputs=2, positions=5, identity=True)
    found = layer_events(layer, TINY_ENGINE)
    reads = memory_reads(layer, TINY_ENGINE)
    assert reads["word"] == 0
    assert reads["offset"] == reads["position"] == reads["table"] == 5 * 2
    assert found["merge_shifts"] == found["merged"] == found["psum_writes"] == 5 * 4
    assert found["accumulator_writes"] == found["accumulator_updates"] == 5 * 2


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_memories_are_as_wide_as_the_hardware_has_them(seed, network):
    rng = np.random.default_rng(seed)
    layer = random_layer_program(rng)
    base = EngineConfig(
        ou_cols=(4, 8, 16, 32)[seed % 4],
        adcs=4,
        merge_lanes=(1, 2, 4)[seed % 3],
        position_lanes=(1, 2, 4)[seed // 2],
        network=network,
    )
    config = engine_config_for([layer], base)
    top = Accelerator(config, 16) if network else Engine(config)
    Fragment.get(top, None)
    for name, bits in memory_bits(config).items():
        memories = top.memories[Space[name.upper()]]
        assert bits == sum(memory.shape.width + 1 for memory in memories), name
    assert Layouts(config).words.size == config.merge_lanes * config.reuse_word_bits


@pytest.mark.parametrize("seed", range(12))
def test_events_are_those_of_the_trace(seed):
    """Each counted from what the golden model does, not from sums over gathers."""
    rng = np.random.default_rng(seed)
    layer = random_layer_program(rng, in_shape=(4, 4, 4))
    base = EngineConfig(
        cell_bits=(1, 2, 4)[seed % 3], dac_bits=(1, 2, 4)[seed // 3 % 3],
        ou_cols=(4, 8, 12, 32)[seed % 4], adcs=(1, 3, 4)[seed % 3],
    )  # fmt: skip
    config = engine_config_for([layer], base)
    trace = golden.run_layer_serial(layer, random_codes(rng, layer), config)
    found = {n: count // layer.positions for n, count in layer_events(layer, config).items()}
    # What each request has: its OU's rows, and the columns of the OU that are in use from the first
    # one of the request on.
    ous = ous_of_gathers(layer, config)
    gather_of_ou = np.repeat(np.arange(len(ous)), ous)
    first_ou = np.cumsum(ous) - ous
    conversions = wordlines = cells = 0
    seen: dict[tuple[int, int], int] = {}
    for ou, digit in zip(trace.ou.tolist(), trace.digit.tolist(), strict=True):
        gather = gather_of_ou[ou]
        columns = int(layer.gather_patterns[gather]) * config.columns_per_weight
        in_ou = min(config.ou_cols, columns - (ou - first_ou[gather]) * config.ou_cols)
        before = seen.get((ou, digit), 0)
        here = min(config.adcs, in_ou - before)
        assert here > 0
        seen[ou, digit] = before + here
        rows = int(layer.gather_rows[gather])
        conversions += here
        wordlines += rows
        cells += rows * here
    assert found["conversions"] == conversions
    assert found["wordline_drives"] == wordlines
    assert found["cells_read"] == cells
    # A walk over the program, group after group.
    writes = updates = shifts = first = again = gather = word = 0
    for g in range(len(layer.group_kept)):
        filled: set[int] = set()
        slot = series = 0
        for _ in range(layer.group_gathers[g]):
            slot = series if layer.gather_accumulate[gather] else slot
            series = slot
            for _ in range(layer.gather_patterns[gather]):
                writes += 1
                updates += slot in filled
                filled.add(slot)
                slot += 1
            gather += 1
        assert len(filled) == layer.group_kept[g]
        for _ in range(layer.group_outputs[g]):
            first += int(layer.group_write[g])
            again += 1 - int(layer.group_write[g])
            for _ in range(layer.terms):
                shifts += layer.identity or int(layer.word_shift[word]) != SHIFT_NONE
                word += not layer.identity
    assert (found["psum_writes"], found["psum_updates"]) == (writes, updates)
    assert (found["psum_reads"], found["merge_shifts"]) == (shifts + updates, shifts)
    assert (found["accumulator_writes"], found["accumulator_updates"]) == (first, again)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_derived_follows_from_what_is_counted(seed):
    """As the module's text has it, so that hardware need not count it."""
    layer = random_layer_program(np.random.default_rng(seed))
    config = engine_config_for([layer], EngineConfig(cell_bits=(1, 2, 4)[seed % 3]))
    found = layer_events(layer, config)
    per_pattern = config.columns_per_weight * config.digits
    assert found["psum_writes"] * per_pattern == found["conversions"]
    assert found["psum_reads"] == found["merge_shifts"] + found["psum_updates"]
    assert found["merge_adds"] == found["merge_shifts"]
    touched = found["accumulator_writes"] + found["accumulator_updates"]
    assert touched * layer.terms == found["merged"]
    assert found["requantisations"] == found["outputs"]
    assert found["table_bits"] == found["outputs"] * memory_bits(config)["output"]


@pytest.mark.parametrize("engines", [1, 2, 3])
def test_a_tile_counts_outputs_once_and_the_rest_in_every_engine(engines):
    layer = random_layer_program(np.random.default_rng(5))
    config = engine_config_for([layer], EngineConfig())
    parts = deal(layer, engines, config)
    found = tile_events(parts, config)
    whole = layer_events(layer, config)
    for name in ("outputs", "requantisations", "table_bits"):
        assert found[name] == whole[name]
    predicted = predict_tile(parts, config)
    busy = [each for each in predicted.engines if each is not None]
    for name in set(COUNTED) - {"outputs"}:
        assert found[name] == sum(getattr(each, name) for each in busy)
    if engines == 1:
        assert found == whole


def test_a_prediction_has_the_events():
    layer = two_group_layer()
    predicted = predict(layer, CONFIG)
    assert {name: getattr(predicted, name) for name in COUNTED} == {
        name: 6 * BY_HAND[name] for name in COUNTED
    }


def test_sums_are_by_name():
    assert add_events([{"a": 1}, {"a": 2, "b": 3}]) == {"a": 3, "b": 3}


def test_a_tile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="parts must have one that is not None"):
        tile_events([None, None], CONFIG)
