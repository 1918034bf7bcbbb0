"""The event model against one that looks at every OU of every position, in plain loops."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refmodel.config import EngineConfig
from refmodel.predict import cycles
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import engine_config_for, merge_steps
from tests.support.layers.builders import random_layer_program


def plain(layer: LayerProgram, config: EngineConfig) -> int:
    """Cycles of one image: each item's times, one after another, with no shortcut of any kind."""
    width = config.columns_per_weight
    most = -(-config.ou_cols // width)
    read, issued, merged, sent = cycles.FIRST_READ - 1, -1, -1, [-1, -1]
    buffers = [-1] * config.gather_buffers
    free, releases = config.slots, []
    steps = merge_steps(layer, config.merge_lanes).tolist()
    rows = layer.gather_rows.tolist()
    for position in range(0, layer.positions, config.position_lanes):
        block = min(config.position_lanes, layer.positions - position)
        gather = 0
        for group, gathers in enumerate(layer.group_gathers.tolist()):
            for _ in range(gathers):
                for turn in range(block):
                    read = max(read + 1, buffers.pop(0) + 1) + rows[gather] - 1
                    time = max(issued + 1, read + cycles.GATHER_LATENCY)
                    columns = int(layer.gather_patterns[gather]) * width
                    for first in range(0, columns, config.ou_cols):
                        used = range(first, min(first + config.ou_cols, columns))
                        begin = sum(column % width == 0 for column in used)
                        if begin and not layer.gather_accumulate[gather] and turn == 0:
                            while free < most:
                                at, slots = releases.pop(0)
                                time, free = max(time, at), free + slots
                            free -= begin
                        time += -(-len(used) // config.adcs) * -(-8 // config.dac_bits)
                    issued = time - 1
                    buffers.append(issued)
                gather += 1
            complete = issued + config.crossbar_latency + cycles.CONVERT_LATENCY
            begin = max(merged + 1, complete, sent[0] if group == 0 else 0)
            merged = begin + steps[group] - 1
            releases.append((merged + 1, int(layer.group_kept[group])))
        begin = max(sent[1] + 1, merged + cycles.MERGE_LATENCY)
        sent = [sent[1], begin + block * layer.out_shape[2] - 1]
    return sent[1] + cycles.OUTPUT_LATENCY


def engines(seed: int) -> tuple[LayerProgram, list[EngineConfig]]:
    """A layer, an engine sized for it, and one with the shortest ring that holds it."""
    rng = np.random.default_rng(seed)

    def pick(*choices: int) -> int:
        return int(rng.choice(choices))

    layer = random_layer_program(
        rng,
        ou_rows=pick(4, 8, 9, 16),
        outputs=pick(1, 3, 8, 40),
        max_kept=pick(2, 5, 20),
        in_shape=(pick(3, 4), pick(3, 5), pick(1, 4, 8)),
    )
    latency = pick(1, 7, 40)
    base = EngineConfig(
        ou_rows=layer.ou_rows,
        ou_cols=pick(4, 8, 12, 16, 24, 32),
        cell_bits=pick(1, 1, 2, 4),
        dac_bits=pick(1, 2, 4),
        adcs=pick(1, 2, 3, 8, 32),
        merge_lanes=pick(1, 2, 4),
        crossbar_latency=latency,
        requests_in_flight=latency + 4,
        gather_buffers=pick(2, 4),
        position_lanes=pick(1, 1, 2, 4),
    )
    config = engine_config_for([layer], base)
    least = int(layer.group_kept.max()) + config.patterns_per_ou - 1
    short = dataclasses.replace(config, slots=max(4, 1 << (least - 1).bit_length()))
    return layer, [config, short]


@given(seed=st.integers(0, 2**32 - 1))
def test_shortcuts_change_no_cycle(seed):
    layer, configs = engines(seed)
    for config in configs:
        assert cycles.predict(layer, config).cycles == plain(layer, config)


@pytest.mark.parametrize("early", [1, 2])
def test_a_shortcut_that_does_not_look_at_the_ring_is_noticed(monkeypatch, early):
    wait = cycles.EngineWalk._wait_for_slots

    def hasty(self, patterns: int, time: int) -> int:
        self.freed += early
        found = wait(self, patterns, time)
        self.freed -= early
        return found

    def differ(seed: int) -> bool:
        layer, (_, short) = engines(seed)
        return cycles.predict(layer, short).cycles != plain(layer, short)

    monkeypatch.setattr(cycles.EngineWalk, "_wait_for_slots", hasty)
    assert sum(map(differ, range(40))) >= 3
