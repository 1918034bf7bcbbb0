"""The order of requests and sums in blocks of positions: by hand, and against plain loops."""

from dataclasses import replace

import numpy as np
import pytest

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import ous_of_gathers
from tests.support.layers.builders import random_layer_program
from tests.support.layers.hand import TWO_GROUP_ENGINE, hand_layer, two_group_layer


def test_sums_by_hand():
    # Slots of group 0: three, of group 1: one, complete with its second gather. Positions 0 and 1
    # are a block, position 2 is one by itself.
    layer = two_group_layer()
    config = replace(TWO_GROUP_ENGINE, position_lanes=2)
    found = golden.psum_order(layer, config, 3).tolist()
    assert found == [0, 1, 2, 4, 5, 6, 3, 7, 8, 9, 10, 11]


def test_requests_by_hand():
    # Digits of 4 bits, two: a gather of one pattern has 2 requests, and one of two patterns 4.
    layer = hand_layer([[(1, 1)], [(1, 2)]], outputs=1, positions=3)
    config = EngineConfig(dac_bits=4, position_lanes=4)
    found = golden.request_order(layer, config).tolist()
    assert found == [0, 1, 6, 7, 12, 13, 2, 3, 4, 5, 8, 9, 10, 11, 14, 15, 16, 17]


def in_loops(layer: LayerProgram, config: EngineConfig) -> tuple[list[int], list[int]]:
    """Orders of requests and of sums, in loops over blocks, gathers, positions."""
    asked: list[int] = []
    summed: list[int] = []
    requests = golden.requests(layer, config)
    each, kept = len(requests.ou), int(layer.group_kept.sum())
    ous = ous_of_gathers(layer, config).tolist()
    for first in range(0, layer.positions, config.position_lanes):
        positions = range(first, min(first + config.position_lanes, layer.positions))
        ou = slot = 0
        for gather, count in enumerate(ous):
            here = np.flatnonzero((requests.ou >= ou) & (requests.ou < ou + count))
            patterns = int(layer.gather_patterns[gather])
            for position in positions:
                asked += (position * each + here).tolist()
                if layer.gather_final[gather]:
                    summed += [position * kept + slot + k for k in range(patterns)]
            ou += count
            slot += patterns * int(layer.gather_final[gather])
    return asked, summed


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("seed", range(8))
def test_orders_are_those_of_loops(seed, lanes):
    layer = random_layer_program(np.random.default_rng(seed))
    config = EngineConfig(ou_cols=(8, 12, 16)[seed % 3], adcs=3, position_lanes=lanes)
    asked, summed = in_loops(layer, config)
    assert golden.request_order(layer, config).tolist() == asked
    assert golden.psum_order(layer, config).tolist() == summed
    if lanes == 1:
        assert asked == list(range(len(asked)))


def test_a_few_positions_have_the_order_of_the_first_of_many():
    layer = random_layer_program(np.random.default_rng(3), in_shape=(6, 6, 4))
    config = EngineConfig(position_lanes=4)
    count = 4 * (layer.positions // 8)
    for order in (golden.request_order, golden.psum_order):
        few = order(layer, config, count)
        assert np.array_equal(order(layer, config)[: len(few)], few)
