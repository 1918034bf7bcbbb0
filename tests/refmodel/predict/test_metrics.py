"""Metrics: a layer worked by hand, counts against the trace, sums of a network."""

import dataclasses
import json

import numpy as np
import pytest

from refmodel import golden
from refmodel.compression.compile import compile_layer
from refmodel.compression.schemes import map_layer
from refmodel.config import EngineConfig
from refmodel.predict import cycles
from refmodel.predict.metrics import ALL, layer_metrics, network_metrics
from refmodel.program.program import Program
from refmodel.program.sizes import engine_config_for, index_bits, ous_of_gathers
from tests.support.layers.builders import random_codes, random_layer_program
from tests.support.layers.hand import two_group_layer
from tests.support.layers.matrix_layers import matrix_layer


def test_metrics_by_hand():
    layer = two_group_layer()
    config = EngineConfig(ou_cols=16, adcs=4, slots=16, crossbar_size=32)
    found = layer_metrics(layer, config)
    prediction = cycles.predict(layer, config)
    bits = index_bits(layer, config)
    assert found.to_dict() == {
        "name": "hand", "scheme": "prap",
        "patterns": 6, "kept": 4, "reused": 1, "dropped": 1, "reuse_ratio": 2 / 6,
        # 3 outputs of 2 * 2 weights. Output 0: 1 + 2 and 3; output 1: 4/2, 5/2; output 2: 12, 14.
        "weights": 12, "weights_zero": 6, "sparsity": 0.5,
        # Two patterns to an OU of 16 columns: 2 OUs under the first gather, 1 under each other.
        "ous_dense": 3, "ous": 4, "ou_reduction": 0.75,
        # A crossbar of 32 holds 4 row blocks of 2 OUs.
        "crossbars": 1, "cells_crossbars": 1024, "cells_ous": 4 * 128,
        # 2 rows of 3 patterns, 1 row of 1 pattern twice, 8 columns each
        "cells_programmed": 64, "occupancy": 1 / 16, "ou_occupancy": 1 / 8,
        "weight_bits": 64, "weight_bits_dense": 96, "weight_bits_saved": 32,
        # 3 segments: kernel position 1 bit, channel 1 bit, length 1 bit; 10 words of 4 + 5 bits.
        # Gathers: base 1, segments 1, patterns 2, flags 2. Groups: kept 2, first 2, outputs 2,
        # gathers 1, write 1.
        "index_shapes": 3, "index_offsets": 6, "index_words": 90, "index_padding": 0,
        "index_headers": 3 * 6 + 2 * 8,
        "index_bits": 133, "index_share": 133 / 32,
        # All of these for 6 positions: requests of 4 columns, 8 digits:
        "positions": 6, "requests": 6 * 8 * (4 + 2 + 2 + 2), "ou_activations": 6 * 4,
        "conversions": 6 * 8 * (24 + 8 + 8), "wordline_drives": 6 * 8 * (2 * 6 + 2 + 2),
        "buffer_reads": 6 * 4,
        # 3 gathers, 2 groups, 3 segments twice, 10 words
        "index_reads": 6 * 21,
        # 3 + 1 + 1 patterns; the last gather reads its slot, 4 words read theirs
        "psum_writes": 6 * 5, "psum_reads": 6 * (1 + 4), "merges": 6 * 10,
        # Each group touches its outputs once, whatever their words: the first writes, one adds.
        "accumulator_writes": 6 * 3, "accumulator_updates": 6 * 2, "outputs": 6 * 3,
        "cycles": prediction.cycles, "conversion_cycles": 6 * 80, "gather_cycles": 6 * 4,
        "merge_cycles": 6 * 10, "output_cycles": 6 * 3, "bound": 480, "limit": prediction.limit,
    }  # fmt: skip
    assert bits["total"] == found.index_bits


def test_index_bits_have_the_padding_of_the_lanes():
    # Four lanes hold 4 words for the 3 and the 2 outputs of a group, and that for each of 2 terms.
    layer = two_group_layer()
    config = EngineConfig(ou_cols=16, adcs=4, slots=16, crossbar_size=32, merge_lanes=4)
    found = layer_metrics(layer, config)
    assert (found.index_words, found.index_padding) == (90, (16 - 10) * 9)
    assert found.index_bits == 133 + 54 == index_bits(layer, config)["total"]
    assert found.index_share == 187 / 32


@pytest.mark.parametrize("cell_bits", [1, 2, 4])
@pytest.mark.parametrize("seed", range(8))
def test_events_are_those_of_the_trace(seed, cell_bits):
    rng = np.random.default_rng(seed)
    layer = random_layer_program(rng, in_shape=(4, 4, 4))
    base = EngineConfig(
        cell_bits=cell_bits, dac_bits=(1, 2, 4)[seed % 3], ou_cols=(4, 8, 12, 32)[seed % 4],
        adcs=(1, 3, 8)[seed % 3],
    )  # fmt: skip
    config = engine_config_for([layer], base)
    found = layer_metrics(layer, config)
    trace = golden.run_layer_serial(layer, random_codes(rng, layer), config)
    positions = trace.codes.shape[1]
    assert found.positions == positions
    assert found.requests == len(trace.ou) * positions
    assert found.ous == len(set(trace.ou.tolist()))
    rows = np.repeat(layer.gather_rows, ous_of_gathers(layer, config))
    assert found.wordline_drives == int(rows[trace.ou].sum()) * positions
    per_digit = int(layer.gather_patterns.sum()) * (8 // cell_bits)
    assert found.conversions == per_digit * (8 // config.dac_bits) * positions
    weights = layer.effective_weights()
    assert found.weights - found.weights_zero == np.count_nonzero(weights)
    used = golden.cells(layer, config)
    if cell_bits == 1:
        assert np.count_nonzero(used) <= found.cells_programmed <= used.size == found.cells_ous


def test_dense_saves_nothing_and_grouped_layers_count_their_own_inputs():
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 1, (8, 3, 3, 3)).astype(np.float32)
    layer = matrix_layer(rng, weight=weight, groups=2)
    program = compile_layer(layer, map_layer(weight, 2, "dense", None, 8), 8)
    found = layer_metrics(program, engine_config_for([program]))
    assert found.weights == 8 * 27
    assert found.cells_programmed == 8 * 27 * 8
    assert found.weight_bits_saved == 0
    assert found.index_share is None
    assert found.ous == found.ous_dense == 8 * 4
    assert found.merges == found.psum_reads == found.positions * 32
    # Four gathers' outputs each: the first of them writes.
    assert found.accumulator_writes == found.positions * 8
    assert found.accumulator_updates == found.positions * 24


def test_network_adds_up_and_is_json():
    layers = tuple(random_layer_program(np.random.default_rng(seed)) for seed in range(4))
    program = Program(
        layers=layers, steps=(), tensors={}, input="x", output="y", preprocess={},
        about={"scheme": "prap"},
    )  # fmt: skip
    found = network_metrics(program)
    assert (found.total.name, found.total.scheme) == (ALL, "prap")
    for item in dataclasses.fields(found.total):
        if item.name not in ("name", "scheme"):
            values = [getattr(each, item.name) for each in found.layers]
            assert getattr(found.total, item.name) == sum(values)
    zero = sum(each.weights_zero for each in found.layers)
    assert found.total.sparsity == zero / sum(each.weights for each in found.layers)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    config = engine_config_for(layers)
    predictions = [cycles.predict(layer, config) for layer in layers]
    assert network_metrics(program, config, predictions) == found
    with pytest.raises(TypeError, match="predictions need the config that they are for, not None"):
        network_metrics(program, None, predictions)
