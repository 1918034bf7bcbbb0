"""Depthwise layers whose channels share operation units: the same numbers, fewer cycles."""

from dataclasses import replace

import numpy as np
import pytest

import refmodel
from refmodel import golden
from refmodel.compression import compile as compiler
from refmodel.compression.quantize import quantize
from refmodel.compression.schemes import LayerSetting, map_layer
from refmodel.compression.schemes.base import CompactMapping, group_weights
from refmodel.config import EngineConfig
from refmodel.exchange.onnx.load import load_onnx
from refmodel.predict.cycles import predict
from refmodel.program.sizes import engine_config_for
from tests.support.nets.onnx_nets import floats, network, node, save

PACKED = LayerSetting(scheme="dense", packed=True)

SHAPES = {
    "3x3": (16, 1, 3, 8),
    "3x3, a last bundle that is not whole": (13, 1, 3, 8),
    "two outputs to a channel": (9, 2, 3, 8),
    "5x5": (8, 1, 5, 8),
    "7x7: rows of their own before": (8, 1, 7, 8),
    "1x1": (20, 1, 1, 8),
    "16 rows": (16, 1, 3, 16),
    "32 rows": (33, 1, 3, 32),
}
"""Channels, outputs to each, size of the kernel, rows of an operation unit."""


def layer(channels: int, each: int, size: int, tmp_path):
    names = {"w": floats(1, channels * each, 1, size, size), "b": floats(2, channels * each)}
    conv = node("Conv", "x w b", "y", group=channels, pads=[size // 2] * 4)
    loaded = load_onnx(save(network([conv], names, ("N", channels, 8, 8)), tmp_path))
    x = floats(3, 4, channels, 8, 8)
    return quantize(loaded, x), x


@pytest.mark.parametrize("case", SHAPES)
def test_accumulators_and_outputs_are_those_of_separate_channels(case, tmp_path):
    channels, each, size, rows = SHAPES[case]
    quant, x = layer(channels, each, size, tmp_path)
    found = []
    for setting in (LayerSetting(scheme="dense"), PACKED):
        mapping = map_layer(quant.layers[0].weight, channels, "dense", setting, rows)
        program = compiler.compile_network(quant, scheme="dense", mappings=[mapping], ou_rows=rows)
        codes = golden.quantise_input(program, x)
        found.append((mapping, golden.run_program(program, codes)[program.output], program))
    (apart, expected, _), (mapping, outputs, program) = found
    assert mapping.terms > 1 or size == 1
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(mapping.weight_q8, apart.weight_q8)
    np.testing.assert_array_equal(CompactMapping.of(mapping).weight_q8, apart.weight_q8)
    # No gather reads fewer rows than an OU has, but the last of a bundle.
    bundles = -(-channels // (rows // np.gcd(size * size, rows)))
    gathers = -(-channels * size * size // rows)
    assert gathers <= len(program.layers[0].gather_base) <= gathers + bundles


@pytest.mark.parametrize(("bits", "times"), [(1, 1.0), (2, 16 / 9), (4, 16 / 9)])
def test_cycles_fall_as_far_as_the_bound_says_where_two_weights_fit(bits, times, tmp_path):
    quant, _ = layer(64, 1, 3, tmp_path)
    config = EngineConfig(cell_bits=bits)
    cycles = []
    for setting in (LayerSetting(scheme="dense"), PACKED):
        mapping = map_layer(quant.layers[0].weight, 64, "dense", setting, 8)
        program = compiler.compile_network(quant, scheme="dense", mappings=[mapping])
        cycles.append(predict(program.layers[0], engine_config_for(program.layers, config)).cycles)
    assert cycles[0] / cycles[1] == pytest.approx(times, rel=0.01)


def test_a_weight_in_the_column_of_another_channel_is_found(tmp_path):
    quant, _ = layer(16, 1, 3, tmp_path)
    weight = quant.layers[0].weight
    mapping = map_layer(weight, 16, "dense", PACKED, 8)
    first, *rest = mapping.groups
    values = first.values.copy()
    shared = np.flatnonzero((values[1:] == 0).any(1))[0] + 1  # rows of two channels
    values[shared] = np.roll(values[shared], 1)
    wrong = group_weights([replace(first, values=values), *rest], weight.shape)
    assert not np.array_equal(wrong, mapping.weight_q8)


def mobile(tmp_path):
    weights = {
        "w1": floats(1, 8, 3, 3, 3),
        "w2": floats(2, 8, 1, 3, 3),
        "w3": floats(3, 12, 8, 1, 1),
        "w4": floats(4, 5, 12, 8, 8),
    }
    nodes = [
        node("Conv", "x w1", "a", pads=[1] * 4),
        node("Relu", "a", "b"),
        node("Conv", "b w2", "c", group=8, pads=[1] * 4),
        node("Relu", "c", "d"),
        node("Conv", "d w3", "e"),
        node("Conv", "e w4", "y"),
    ]
    return load_onnx(save(network(nodes, weights, ("N", 3, 8, 8)), tmp_path))


def test_a_network_packs_its_depthwise_layers_alone_and_answers_the_same(tmp_path):
    loaded, x = mobile(tmp_path), floats(5, 8, 3, 8, 8)
    plain, packed = (refmodel.compress(loaded, x, packed=packed) for packed in (False, True))
    np.testing.assert_array_equal(plain.logits(x), packed.logits(x))
    shares = [each.terms > 1 for each in packed.layers]
    assert shares == [False, True, False, False]
    named = {"c_node": LayerSetting(scheme="dense")}
    kept = refmodel.compress(loaded, x, packed=True, settings=named)
    assert [each.terms for each in kept.layers] == [each.terms for each in plain.layers]
