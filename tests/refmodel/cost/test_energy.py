"""A network of two layers, priced by hand term by term, and what must show when a term is dropped.

Layer A (``two_group_layer``): 6 positions, 3 outputs, 2 terms. Gathers of 2, 1 and 1 rows with 3, 1
and 1 patterns; the third adds to the slot of the second. Of 10 reuse words 4 are not "none".
Layer B: 2 positions, 3 outputs, an identity map, one gather of 2 rows with 3 patterns.

The engine has R = C = 8, 1-bit cells and digits, A = 8 converters of 4 bits, one merge lane,
partial sums of P = 22 bits in 2 copies (a lane's, and one to add to), accumulators of W = 40 bits.
A gather of p patterns takes p OUs; a weight has 8 columns and an input 8 digits.

Events of A, each 6 times what a position has:

    conversions          (3 + 1 + 1) patterns * 8 columns * 8 digits * 6        = 1920
    requests             5 OUs * 8 digits * 6                                   =  240
    wordline_drives      (2 * 24 + 1 * 8 + 1 * 8) * 6                           =  384
    cells_read           (2 * 24 + 1 * 8 + 1 * 8) * 8 * 6                       = 3072
    psum_writes, _reads  5 * 6; (4 words + 1 update) * 6                        =   30, 30
    psum_updates         1 * 6                                                  =    6
    merge_shifts, _adds  4 * 6                                                  =   24
    accumulator_writes   3 * 6; updates 2 * 6; reads 3 * 6                      =   18, 12, 18
    gathered             (2 + 1 + 1) * 6 bytes                                  =   24
    index bits           (3 * 20 + 3 * 5 + 3 * 7 + 3 * 11 + 2 * 15 + 10 * 10) * 6 = 1554
    table bits           3 * 63 * 6                                             = 1134
    activation_writes    3 * 3 * 2                                              =   18

Words have 20 bits in the memory of gathers (6 + 4 + 3 + 5 + 1 and parity), 5 in that of kernel
positions, 7 in the table of addresses, 11 in that of offsets, 15 in that of groups, 10 in that of
reuse words, 63 in that of output parameters. Events of B, 2 positions:

    conversions 384, requests 48, wordline_drives 96, cells_read 768, psum_writes 6, psum_reads 6,
    merge_shifts 6, accumulator_writes 6, reads 6, gathered 4, activation_writes 4,
    index bits (20 + 5 + 7 + 11 + 15) * 2 = 116, table bits 3 * 63 * 2 = 378
"""

import dataclasses

import pytest

from refmodel.api import compress
from refmodel.config import EngineConfig
from refmodel.cost import PARTS, NetworkCost, network_events, price, price_events
from refmodel.cost.energy import crossbar_latency, engine_for
from refmodel.cost.events import NAMES, NetworkEvents, with_latency
from refmodel.cost.memories import flip_flops, memories
from refmodel.digits import SETTINGS, digits_images, network_path
from refmodel.errors import InputError
from refmodel.predict.accelerator import (
    accelerator_config_for,
    network_image,
    predict_network,
)
from refmodel.predict.events import COUNTED
from refmodel.program.program import Program
from tests.support.layers.hand import TINY_ENGINE, hand_layer, two_group_layer
from tests.support.technology import ROUND, round_technology

ENGINE = with_latency(TINY_ENGINE, 2)

HAND_FJ = {
    # conversions * (1000 + 500)
    "adc": (1920 * 1500, 384 * 1500),
    # cells_read * 2
    "crossbar": (3072 * 2, 768 * 2),
    # wordline_drives * (100 + 1 bit * 3)
    "wordlines": (384 * 103, 96 * 103),
    # conversions * 22 (2 + 1 + 3) + requests * 2 * 18 bits * 20
    "shift and add": (1920 * 132 + 240 * 720, 384 * 132 + 48 * 720),
    # psum_writes * 2 copies * 22 * 20 + psum_reads * 22 * 20 + psum_updates * 22 * 1
    "partial sums": (30 * 880 + 30 * 440 + 6 * 22, 6 * 880 + 6 * 440),
    # merge_shifts * 40 (2 + 3) + merge_adds * 40 * 1
    "merge": (24 * 200 + 24 * 40, 6 * 200 + 6 * 40),
    # updates * 40 (2 * 20 + 1) + (writes + reads) * 40 * 20
    "accumulators": (12 * 1640 + (18 + 18) * 800, (6 + 6) * 800),
    # index bits * (30 + 3)
    "index": (1554 * 33, 116 * 33),
    # table bits * (30 + 3)
    "tables": (1134 * 33, 378 * 33),
    # gathered * (8 (10 + 2 * 3 + 2 * 20) + 24 * 1)
    "gather": (24 * (448 + 24), 4 * (448 + 24)),
    # activation_writes * 8 * 10
    "activations": (18 * 80, 4 * 80),
    # outputs * (40 (1 + 2 + 3 * 3) + 16 * 40 * 0.5 + 8 * 3)
    "requantisation": (18 * 824, 6 * 824),
    "post-processing": (0, 0),
    "reduction": (0, 0),
    # half of what adds, shifts, multiplies and registers: wordlines 384 * 3, shift and add
    # 1920 * 132, partial sums 6 * 22, merge 5760, accumulators 12 * 40, index 1554 * 3, tables
    # 1134 * 3, gather 24 * (48 + 24), requantisation 18 * 824; of B the same without updates.
    "control": (
        0.5 * (1152 + 253440 + 132 + 5760 + 480 + 4662 + 3402 + 1728 + 14832),
        0.5 * (288 + 50688 + 1440 + 348 + 1134 + 288 + 4944),
    ),
}
"""Femtojoules of A and of B by part."""

HAND_UM2 = {
    # 8 converters * 100; 2 crossbars * 32 bitlines * 1
    "adc": 800 + 64,
    # 2 * 32 * 32 * 0.01
    "crossbar": 20.48,
    # 2 * 32 * 2
    "wordlines": 128,
    # 64 bytes * 8 * 0.1
    "memory of activations": 51.2,
    # vectors 4 * 64, pending 64 * 18, partial sums 2 * 16 * 22, accumulators 2 * 16 * 40
    "memory of sums": (256 + 1152 + 704 + 1280) * 0.2,
    # 16 * 20 + 32 * 5 + 9 * 7 + 32 * 11 + 8 * 15 + 256 * 10 + 16 * 63
    "memory of indices": (320 + 160 + 63 + 352 + 120 + 2560 + 1008) * 0.3,
    # 8 * 22 (1 + 2) + 22 + 40 (2 + 2) + 4 * 24; 40 (1 + 2) + 48 * 16 * 0.5; half of it again
    "logic": 1.5 * (528 + 22 + 160 + 96 + 120 + 384),
}
"""Square micrometres by part; registers are flip-flops times 4."""


@pytest.fixture(scope="module")
def program() -> Program:
    b = hand_layer([[(2, 3)]], outputs=3, positions=2, identity=True)
    return Program(
        layers=(two_group_layer(), b), steps=(), tensors={}, input="", output="", preprocess={}
    )


@pytest.fixture(scope="module")
def events(program: Program) -> NetworkEvents:
    return network_events(program, ENGINE)


def check(cost: NetworkCost, events: NetworkEvents) -> None:
    """Compare a price with the one worked by hand."""
    registers = flip_flops(ENGINE)
    # um2 * 1 mW/mm2 = nW; bits of memories * 2 pW
    leaking = HAND_UM2["logic"] + 4 * registers + (512 + 3392 + 4583) * 0.002
    for n, layer in enumerate(cost.layers):
        cycles = events.layers[n].cycles
        expected = {name: values[n] for name, values in HAND_FJ.items()}
        expected["clock"] = cycles * registers * 0.25
        # 1 nW for the 10 ns of a cycle is 0.01 fJ.
        expected["leakage"] = leaking * cycles * 0.01
        assert list(layer.parts) == list(PARTS)
        for name, value in layer.parts.items():
            assert value * 1e15 == pytest.approx(expected[name], rel=1e-9), (layer.name, name)
        assert layer.seconds == pytest.approx(cycles * 10e-9)
    for name, value in cost.areas.items():
        area = HAND_UM2.get(name, 4 * registers)
        assert value * 1e12 == pytest.approx(area, rel=1e-9), name


def test_a_network_of_two_layers_costs_what_is_worked_by_hand(program, events, tmp_path):
    cost = price_events(events, None, round_technology(tmp_path))
    check(cost, events)
    assert cost.joules == pytest.approx(sum(layer.joules for layer in cost.layers))
    assert cost.seconds == pytest.approx(events.cycles * 10e-9)
    assert cost.mm2 == pytest.approx(sum(cost.areas.values()) * 1e6)
    assert cost.notes == ()
    assert price(program, TINY_ENGINE, round_technology(tmp_path)) == cost


def test_the_events_are_those_worked_by_hand(events):
    a, b = (layer.counts for layer in events.layers)
    hand = {
        "conversions": (1920, 384),
        "requests": (240, 48),
        "wordline_drives": (384, 96),
        "cells_read": (3072, 768),
        "psum_writes": (30, 6),
        "psum_reads": (30, 6),
        "psum_updates": (6, 0),
        "merge_shifts": (24, 6),
        "merge_adds": (24, 6),
        "accumulator_writes": (18, 6),
        "accumulator_updates": (12, 0),
        "accumulator_reads": (18, 6),
        "gathered": (24, 4),
        "index_bits": (1554, 116),
        "table_bits": (1134, 378),
        "activation_writes": (18, 4),
        "requantisations": (18, 6),
    }
    assert {name: (a[name], b[name]) for name in hand} == hand


CHARGED = [
    name
    for name in NAMES
    # Sums and multiples of others are charged under the others' names; nothing is kept of segments
    # where a position is a block by itself.
    if name not in ("ous", "index_reads", "merged", "outputs", "index_bits", "table_bits")
    and not name.startswith("replay")
]


@pytest.mark.parametrize("name", CHARGED)
def test_an_event_that_is_not_charged_shows(name, events, tmp_path):
    layers = [
        dataclasses.replace(layer, counts=layer.counts | {name: layer.counts[name] + 1})
        for layer in events.layers
    ]
    other = dataclasses.replace(events, layers=tuple(layers))
    with pytest.raises(AssertionError):
        check(price_events(other, None, round_technology(tmp_path)), events)


@pytest.mark.parametrize("name", sorted(memories(ENGINE).keys() & {
    "descriptor", "position", "table", "offset", "header", "word", "output"
}))  # fmt: skip
def test_a_memory_that_is_not_charged_shows(name, events, tmp_path):
    layers = [
        dataclasses.replace(layer, reads=layer.reads | {name: layer.reads[name] + 1})
        for layer in events.layers
    ]
    other = dataclasses.replace(events, layers=tuple(layers))
    with pytest.raises(AssertionError):
        check(price_events(other, None, round_technology(tmp_path)), events)


UNSEEN = ("supply", "adc_rate", "adc_time", "read_time", *(
    f"{kind}_capacity" for kind in ("activation", "sram", "index")
))  # fmt: skip
"""Constants that change nothing here: nothing is scaled, memories do not grow, latency fits."""


@pytest.mark.parametrize("name", [name for name in ROUND if name not in UNSEEN])
def test_a_constant_that_is_not_used_shows(name, events, tmp_path):
    value = ROUND[name]
    doubled = (
        {bits: 2 * each for bits, each in value.items()} if isinstance(value, dict) else 2 * value
    )
    changed = {name: doubled or 0.5}
    with pytest.raises(AssertionError):
        check(price_events(events, None, round_technology(tmp_path, changed)), events)


def test_memories_cost_more_the_larger_they_are(events, tmp_path):
    # Activations: 64 bytes of 8 KiB, 1/128; to the power of 1/2, 0.0884.
    cost = price_events(events, None, round_technology(tmp_path, {"memory_growth": 0.5}))
    found = cost.layers[0].parts["activations"] * 1e15
    assert found == pytest.approx(18 * 80 / 128**0.5)
    # Partial sums: 16 words of 22 bits of 65536 bits; the addition costs what it did.
    found = cost.layers[0].parts["partial sums"] * 1e15
    assert found == pytest.approx((30 * 880 + 30 * 440) * (352 / 65536) ** 0.5 + 6 * 22)


def test_merge_lanes_cost_copies_of_every_partial_sum(program, tmp_path):
    technology = round_technology(tmp_path)
    found = {}
    for lanes in (1, 2, 4):
        config = dataclasses.replace(ENGINE, merge_lanes=lanes)
        cost = price(program, config, technology)
        found[lanes] = cost.layers[1].parts["partial sums"] * 1e15
        assert memories(config)["partial sums"].copies == lanes + 1
    # Layer B writes 6 partial sums of 22 bits in lanes + 1 copies, and reads each once.
    assert found == pytest.approx({n: 6 * (n + 1) * 440 + 6 * 440 for n in (1, 2, 4)})


def test_blocks_of_positions_cost_a_copy_of_no_sum_and_an_index_word_once(program, tmp_path):
    technology = round_technology(tmp_path)
    one, four = (
        price(program, dataclasses.replace(ENGINE, position_lanes=lanes), technology)
        for lanes in (1, 4)
    )
    for before, after in zip(one.layers, four.layers, strict=True):
        for part in ("partial sums", "merge", "accumulators", "adc", "tables"):
            assert after.parts[part] == before.parts[part]
    # Words of a sixth of the 1554 bits, and of half the 116, for 2 blocks and 1. Of A's 3 segments
    # 6 are kept and 12 come again, of B's 1 and 1: 6 + 1 + 4 bits each.
    index = [layer.parts["index"] * 1e15 for layer in four.layers]
    assert index == pytest.approx([518 * 33 + 18 * 11 * 20, 58 * 33 + 2 * 11 * 20])
    # Three bits more are kept of a request: which of four positions it is of, whether the last.
    shifted = [layer.parts["shift and add"] * 1e15 for layer in four.layers]
    assert shifted == pytest.approx([1920 * 132 + 240 * 840, 384 * 132 + 48 * 840])
    # Vectors 4 * 64, pending 64 * 21, four times the sums and accumulators, segments 8 * 11.
    sums = (256 + 1344 + 4 * (704 + 1280) + 88) * 0.2
    assert four.areas["memory of sums"] * 1e12 == pytest.approx(sums)
    # Three times more of what shifts and adds to an accumulator: 40 (2 + 2), half of it again.
    logic = (four.areas["logic"] - one.areas["logic"]) * 1e12
    assert logic == pytest.approx(1.5 * 3 * 160)
    assert four.areas["registers"] > one.areas["registers"]
    assert four.areas["memory of indices"] == one.areas["memory of indices"]


def test_slow_converters_take_turns_and_slow_reads_are_noted(events, tmp_path):
    cost = price_events(events, None, round_technology(tmp_path, {"adc_rate": 0.03}))
    # 0.1 GHz over 0.03 GS/s: 4 converters to each of 8; 2 crossbars * 32 * 1 as before.
    assert cost.areas["adc"] * 1e12 == pytest.approx(8 * 4 * 100 + 64)
    cost = price_events(events, None, round_technology(tmp_path, {"read_time": 35.0}))
    assert cost.notes == (
        "cycles are for a crossbar latency of 2; round has 5",
        "a request a cycle means that 3.5 reads of the arrays overlap",
    )


def test_the_crossbar_latency_is_the_technologys(program, tmp_path):
    technology = round_technology(tmp_path, {"read_time": 85.0})
    # (85 + 10) ns at 0.1 GHz
    assert crossbar_latency(technology) == 10
    assert engine_for(EngineConfig(), technology).crossbar_latency == 10
    slow, fast = (
        price(program, TINY_ENGINE, round_technology(tmp_path, {"read_time": time}))
        for time in (85.0, 10.0)
    )
    assert slow.cycles > fast.cycles
    late = round_technology(tmp_path, {"read_time": 395.0})
    with pytest.raises(InputError, match=r"at most 40 cycles of clock, found 41 in technology"):
        price(program, TINY_ENGINE, late)


def test_bits_above_the_table_are_refused(events, tmp_path):
    technology = round_technology(tmp_path)
    cost = price_events(events, dataclasses.replace(ENGINE, adc_bits=5), technology)
    assert cost.layers[1].parts["adc"] * 1e15 == pytest.approx(384 * (1250 + 500))
    few = price_events(events, dataclasses.replace(ENGINE, adc_bits=3), technology)
    four = price_events(events, dataclasses.replace(ENGINE, adc_bits=4), technology)
    assert few.layers[1].parts["adc"] == four.layers[1].parts["adc"]
    assert few.areas["adc"] == four.areas["adc"]
    assert few.notes == few.assumptions[-1:] != four.notes
    for bits in (6, 8):
        config = dataclasses.replace(ENGINE, adc_bits=bits)
        message = f"expected adc_energy for {bits} bits, found bits 4, 5 in technology round"
        with pytest.raises(InputError, match=message):
            price_events(events, config, technology)


def test_a_tile_reads_every_engines_accumulators_and_adds_them_up(program, tmp_path):
    technology = round_technology(tmp_path)
    one, two = (price(program, ENGINE, technology, engines=n) for n in (1, 2))
    layers = network_events(program, ENGINE, 2).layers
    busy = [layer.counts["accumulator_reads"] // layer.counts["outputs"] for layer in layers]
    assert busy == [2, 2]
    # Outputs * one addition of two accumulators: 40 (1 + 3).
    assert [layer.parts["reduction"] * 1e15 for layer in two.layers] == pytest.approx(
        [18 * 160, 6 * 160]
    )
    # Every engine has a copy of the activations; there are twice as many converters.
    assert two.layers[0].parts["activations"] == pytest.approx(
        2 * one.layers[0].parts["activations"]
    )
    assert two.parts["adc"] == pytest.approx(one.parts["adc"])
    assert two.areas["memory of activations"] == pytest.approx(
        2 * one.areas["memory of activations"]
    )


def test_rows_and_figures_as_json_values_add_up(events, tmp_path):
    cost = price_events(events, None, round_technology(tmp_path))
    rows = cost.rows()
    assert sum(row["uJ"] for row in rows) == pytest.approx(cost.joules * 1e6)
    figures = cost.to_dict()
    assert figures["joules"] == pytest.approx(sum(figures["parts"].values()))
    assert figures["mm2"] == pytest.approx(sum(figures["areas_mm2"].values()))
    assert len(figures["assumptions"]) == len(ROUND)


@pytest.mark.parametrize("engines", [1, 3])
def test_an_accelerators_events_are_those_that_its_prediction_has(engines):
    images = digits_images().calibration_x[:8]
    program = compress(network_path("prap"), images, settings=SETTINGS)
    config = accelerator_config_for(program, engines=engines)
    events = network_events(program, config, engines)
    image = network_image(program, config, engines)
    predicted = predict_network(image, program.layers, config)
    assert events.cycles == predicted.cycles + predicted.image
    counted = {name: events.counts[name] for name in COUNTED}
    assert counted == {name: predicted.events[name] for name in COUNTED}
    written = sum(operation["written"] for operation in predicted.operations)
    assert events.counts["activation_writes"] == written * engines
    kinds = [layer.kind for layer in events.layers]
    assert kinds.count("layer") == len(program.layers)
    assert kinds[0] == "image"
    assert "pool" in kinds
    assert network_events(program, engines=engines).counts == events.counts


def test_an_accelerator_has_activations_in_each_engine_and_once_for_operands(tmp_path):
    technology = round_technology(tmp_path)
    images = digits_images().calibration_x[:8]
    program = compress(network_path("prap"), images, settings=SETTINGS)
    for engines in (1, 3):
        base = engine_for(ENGINE, technology)
        config = accelerator_config_for(program, base, engines)
        found = network_events(program, config, engines)
        cost = price_events(found, None, technology)
        written = found.counts["activation_writes"] // engines
        per_byte = 8 * technology.memory_energy("activation", 8 * config.activation_bytes)
        assert cost.parts["activations"] == pytest.approx(written * (engines + 1) * per_byte)
        bits = 8 * config.activation_bytes * (engines + 1)
        area = technology.number("activation_area")
        assert cost.areas["memory of activations"] == pytest.approx(bits * area)


def test_an_accelerator_that_does_not_hold_the_network_is_refused():
    images = digits_images().calibration_x[:8]
    program = compress(network_path("prap"), images, settings=SETTINGS)
    config = dataclasses.replace(accelerator_config_for(program), max_gathers=1)
    with pytest.raises(InputError, match="expected max_gathers of at most 1 for all layers"):
        network_events(program, config)
    with pytest.raises(InputError, match="expected a convolution or fully connected layer, found"):
        network_events(dataclasses.replace(program, layers=()))
