"""The whole engine against the golden model and the predicted cycles."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from prap_hw.deliver.load import layer_image, padded_input
from prap_hw.engine.engine import EmulatedEngine, Engine
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict.cycles import (
    CONVERT_LATENCY,
    EVENTS,
    FIRST_READ,
    GATHER_LATENCY,
    MERGE_LATENCY,
    OUTPUT_LATENCY,
    predict,
)
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import engine_config_for
from tests.support.layers.builders import random_codes, random_layer_program
from tests.support.layers.hand import TINY_ENGINE, hand_codes, hand_layer
from tests.support.rtl.bench import Agent, Script, Sink, Source, Watch, simulate
from tests.support.rtl.hardware import Run, run_engine

# Seed, engine, layer: what is not said is drawn.
CASES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "1 ADC, dense": (
        1,
        {"adcs": 1},
        {
            "identity": True,
            "in_shape": (2, 1, 3),
            "kernel": (1, 1),
            "outputs": 2,
            "groups": 1,
            "pads": (0, 0, 0, 0),
        },
    ),
    "2 ADCs, 2 lanes, 3 terms": (
        2,
        {"adcs": 2, "merge_lanes": 2},
        {
            "identity": False,
            "terms": 3,
            "max_kept": 3,
            "groups": 1,
            "outputs": 5,
            "in_shape": (2, 2, 3),
            "pads": (0, 0, 0, 0),
        },
    ),
    "4 ADCs, 4 lanes, depthwise": (
        3,
        {"adcs": 4, "merge_lanes": 4},
        {
            "identity": False,
            "groups": 4,
            "in_shape": (2, 2, 4),
            "outputs": 4,
            "max_kept": 2,
            "pads": (0, 0, 0, 0),
        },
    ),
    "8 ADCs, 1 lane, 4 terms": (
        4,
        {},
        {"identity": False, "terms": 4, "in_shape": (2, 2, 4), "outputs": 6, "groups": 1},
    ),
    "latency 5, multi-OU patterns": (
        5,
        {"crossbar_latency": 5, "merge_lanes": 2},
        {"identity": False, "long_patterns": True, "kernel": (3, 3), "in_shape": (3, 3, 4)},
    ),
    "latency 40, dense, multi-OU patterns": (
        6,
        {"crossbar_latency": 40, "merge_lanes": 4},
        {
            "identity": True,
            "long_patterns": True,
            "kernel": (2, 3),
            "in_shape": (2, 4, 5),
            "outputs": 4,
            "groups": 1,
            "pads": (0, 0, 0, 0),
        },
    ),
    "latency 40, few in flight": (
        7,
        {"crossbar_latency": 40, "requests_in_flight": 44, "adcs": 4},
        {"identity": False, "in_shape": (3, 3, 2), "outputs": 3},
    ),
    "OUs of 4 x 16, 2 ADCs, latency 5": (
        8,
        {"ou_cols": 16, "adcs": 2, "crossbar_latency": 5},
        {
            "identity": False,
            "ou_rows": 4,
            "in_shape": (1, 2, 3),
            "outputs": 4,
            "max_kept": 4,
            "pads": (0, 0, 0, 0),
        },
    ),
    "OUs of 16 x 24, 2 buffers": (
        9,
        {"ou_cols": 24, "gather_buffers": 2, "merge_lanes": 4, "crossbar_size": 48},
        {"identity": True, "ou_rows": 16, "outputs": 4, "kernel": (3, 3), "in_shape": (3, 3, 4)},
    ),
    "strides, pads and dilation": (
        10,
        {"merge_lanes": 2},
        {
            "stride": (2, 1),
            "dilation": (2, 1),
            "pads": (2, 1, 0, 1),
            "kernel": (2, 2),
            "in_shape": (3, 3, 2),
            "outputs": 3,
            "groups": 1,
        },
    ),
    "words that mostly say none": (
        11,
        {"merge_lanes": 4},
        {"identity": False, "none_share": 0.9, "terms": 2, "in_shape": (3, 3, 3)},
    ),
    "cells and digits of 2 bits": (
        13,
        {"cell_bits": 2, "dac_bits": 2, "crossbar_latency": 5},
        {"identity": False, "long_patterns": True, "in_shape": (3, 3, 3)},
    ),
    "cells and digits of 4 bits, 16 ADCs": (
        14,
        {"cell_bits": 4, "dac_bits": 4, "ou_cols": 16, "adcs": 16, "merge_lanes": 4},
        {"identity": False, "max_kept": 9, "in_shape": (3, 4, 4), "kernel": (3, 3)},
    ),
    "OUs of 9 x 12, 5 ADCs": (
        15,
        {"ou_cols": 12, "adcs": 5, "dac_bits": 2, "merge_lanes": 2},
        {"identity": True, "ou_rows": 9, "in_shape": (2, 3, 3), "outputs": 5, "groups": 1},
    ),
    "OUs of 32 x 4, 3 ADCs, clipping": (
        16,
        {"ou_cols": 4, "adcs": 3, "adc_bits": 3},
        {"identity": False, "ou_rows": 32, "in_shape": (2, 3, 8), "outputs": 4, "groups": 1},
    ),
    "clipping, cells of 2 bits, 3 ADCs": (
        17,
        {"cell_bits": 2, "adc_bits": 4, "adcs": 3, "ou_cols": 20},
        {"identity": False, "in_shape": (3, 3, 4), "outputs": 6, "max_kept": 7},
    ),
    "one input, one output": (
        12,
        {},
        {"in_shape": (1, 1, 1), "outputs": 1, "groups": 1, "pads": (0, 0, 0, 0)},
    ),
}


def case(name: str) -> tuple[LayerProgram, EngineConfig, np.ndarray]:
    seed, sizes, options = CASES[name]
    rng = np.random.default_rng(seed)
    layer = random_layer_program(rng, **options)
    base: dict[str, Any] = {"crossbar_size": 32, "ou_rows": layer.ou_rows} | sizes
    config = engine_config_for([layer], EngineConfig(**base))
    return layer, config, random_codes(rng, layer, 2)


def check_values(runs: list[Run], layer: LayerProgram, config: EngineConfig, images) -> None:
    trace = golden.run_layer_serial(layer, images, config)
    order = golden.psum_order(layer, config)
    for number, run in enumerate(runs):
        psums = trace.psums[number].ravel()[order].tolist()
        assert run.psums == psums, f"image {number}: partial sums"
        assert run.accumulators == trace.accumulators[number].ravel().tolist(), f"image {number}"
        assert run.outputs == trace.outputs[number].ravel().tolist(), f"image {number}: outputs"


def check_events(run: Run, layer: LayerProgram, config: EngineConfig) -> None:
    """The counters that do not depend on stalled ports."""
    want = predict(layer, config)
    names = EVENTS
    assert {name: run.counters[name] for name in names} == {
        name: getattr(want, name) for name in names
    }


@pytest.mark.parametrize("name", CASES)
def test_values_cycles_and_events_are_as_predicted(name):
    layer, config, images = case(name)
    # Two images in a row, where that takes no longer than a moment.
    want = predict(layer, config)
    images = images[: 2 if want.cycles < 300 else 1]
    runs = run_engine(layer, images, config)
    check_values(runs, layer, config, images)
    for run in runs:
        assert run.cycles == want.cycles
        assert run.counters["cycles"] == want.cycles
        check_events(run, layer, config)
        assert run.counters["stall_gather"] == want.stall_gather
        assert run.counters["stall_slots"] == want.stall_slots
        assert run.counters["stall_port"] == 0


@pytest.mark.parametrize(
    "name",
    [
        "2 ADCs, 2 lanes, 3 terms",
        "8 ADCs, 1 lane, 4 terms",
        "latency 40, few in flight",
        "strides, pads and dilation",
        "one input, one output",
        "cells and digits of 4 bits, 16 ADCs",
        "OUs of 9 x 12, 5 ADCs",
    ],
)
def test_values_are_the_same_with_stalls(name):
    layer, config, images = case(name)
    runs = run_engine(layer, images[:1], config, stall=0.4, seed=CASES[name][0])
    check_values(runs, layer, config, images[:1])
    assert runs[0].cycles >= predict(layer, config).cycles
    check_events(runs[0], layer, config)


@pytest.mark.parametrize("outputs", [1, 3, 9])
@pytest.mark.parametrize("seed", range(2))
def test_outputs_that_are_taken_late_are_right_while_their_accumulators_are_merged_into(
    outputs, seed
):
    # One pattern, few conversions: the next position merges as soon as a half is read.
    layer = hand_layer([[(1, 1)]], outputs=outputs, positions=12)
    config = dataclasses.replace(TINY_ENGINE, merge_lanes=(1, 4)[seed])
    images = hand_codes(layer)
    runs = run_engine(layer, images, config, stall=0.7, seed=seed)
    check_values(runs, layer, config, images)


@pytest.mark.parametrize("terms", [1, 4])
def test_a_ring_that_is_too_small_to_overlap_stalls_and_stays_exact(terms):
    # Three kept patterns in four slots: see tests/refmodel/predict/test_cycles.py, ring stalls.
    layer = hand_layer([[(2, 3)], [(3, 2), (1, 1)]], outputs=4, positions=3, terms=terms)
    config = dataclasses.replace(TINY_ENGINE, slots=4, crossbar_latency=5)
    images = hand_codes(layer)
    runs = run_engine(layer, images, config)
    check_values(runs, layer, config, images)
    assert runs[0].cycles == predict(layer, config).cycles
    assert runs[0].counters["stall_slots"] > 0


def test_every_idle_cycle_of_the_converters_has_a_cause():
    layer = hand_layer([[(2, 3)]], outputs=4, positions=2, terms=4)
    config = dataclasses.replace(TINY_ENGINE, slots=4)
    (run,) = run_engine(layer, hand_codes(layer), config)
    counters = run.counters
    want = predict(layer, config)
    # The first request is issued 7 cycles after start (see test_cycles.py). After the last
    # one: 1 to the port, the latency, 5 to the slot, the merge, 2 to the outputs, and those.
    first = FIRST_READ + 2 - 1 + GATHER_LATENCY
    drain = config.crossbar_latency + CONVERT_LATENCY + 16 - 1 + MERGE_LATENCY + 3 + OUTPUT_LATENCY
    stalls = counters["stall_gather"] + counters["stall_slots"]
    assert stalls == want.stall_gather + want.stall_slots > 0
    assert counters["requests"] + stalls + first - 1 + drain == counters["cycles"]
    assert counters["stall_port"] == 0


class Host:
    """Sources and sink of an engine that is driven cycle by cycle."""

    def __init__(self, layer, config, codes, engine=None):
        self.dut: Any = EmulatedEngine(config) if engine is None else engine
        self.image = layer_image(layer, config)
        data = padded_input(layer, codes).tolist()
        self.acts = [byte | (i == len(data) - 1) << 8 for i, byte in enumerate(data)]
        self.count = layer.positions * layer.out_shape[2]
        self.length = max(len(self.image.words), len(self.image.beats), len(self.acts)) + 1

    def load(self, begin: int) -> list[Agent]:
        """All three streams at once, from a cycle on."""
        return [
            Source(self.dut.i_load, self.image.words, begin=begin),
            Source(self.dut.i_cells, self.image.beats, begin=begin),
            Source(self.dut.i_acts, self.acts, begin=begin),
        ]

    def codes(self, sink: Sink, after: int = 0) -> list[int]:
        layout = self.dut.o.payload.shape()
        return [layout.from_bits(bits)["code"] for cycle, bits in sink.taken if cycle > after]


def small() -> tuple[LayerProgram, EngineConfig, np.ndarray]:
    layer = hand_layer([[(3, 2)], [(2, 1)]], outputs=3, positions=3, terms=2)
    return layer, TINY_ENGINE, hand_codes(layer)


def test_cycles_and_outputs_are_the_same_without_trace_ports():
    layer, config, images = small()
    host = Host(layer, dataclasses.replace(config, trace=False), images[0])
    assert not hasattr(host.dut, "trace_psum")
    start = host.length
    sink = Sink(host.dut.o, host.count)
    busy = Watch(host.dut.busy)
    simulate(host.dut, *host.load(0), Script(host.dut.start, {start: 1}), sink, busy)
    assert host.codes(sink) == golden.run_layer(layer, images).ravel().tolist()
    cycles = predict(layer, config).cycles
    assert sink.cycles[-1] - start == cycles
    # Busy from the cycle after start until the one after the last output.
    assert [c for c, value in enumerate(busy.values) if value] == list(
        range(start + 1, start + cycles + 1)
    )


def test_start_and_loading_are_ignored_while_busy():
    layer, config, images = small()
    host = Host(layer, config, images[0])
    start = host.length
    cycles = predict(layer, config).cycles
    again = start + cycles + 3
    starts = Script(host.dut.start, dict.fromkeys([start, start + 1, start + 20, again], 1))
    sink = Sink(host.dut.o, 2 * host.count)
    # What is sent while the engine runs waits until it is done.
    late = Source(host.dut.i_load, host.image.words[:1], begin=start + 10)
    cells = Source(host.dut.i_cells, host.image.beats[:1], begin=start + 10)
    # A stream's last byte says that it starts over; a byte alone is the first of the buffer.
    acts = Source(host.dut.i_acts, [host.acts[0] | 1 << 8], begin=start + 10)
    simulate(host.dut, *host.load(0), starts, sink, late, cells, acts)
    want = golden.run_layer(layer, images).ravel().tolist()
    assert host.codes(sink) == 2 * want
    assert sink.cycles[host.count - 1] == start + cycles
    assert sink.cycles[-1] == again + cycles
    assert late.sent == cells.sent == acts.sent == [start + cycles + 1]


@pytest.mark.parametrize("after", [3, 17, 24, 41])
def test_reset_ends_a_run_and_the_next_one_is_clean(after):
    layer, config, images = small()
    host = Host(layer, config, images[0])
    first = host.length
    reset = first + after
    start = reset + 1 + host.length
    sink = Sink(host.dut.o, hold=False)
    busy = Watch(host.dut.busy)
    cycles = predict(layer, config).cycles
    simulate(
        host.dut,
        *host.load(0),
        *host.load(reset + 1),
        Script(host.dut.start, {first: 1, start: 1}),
        sink,
        busy,
        reset={reset},
        cycles=start + cycles + 4,
    )
    assert busy.values[reset : start + 1] == [1] + [0] * (start - reset)
    assert all(cycle <= reset or cycle > start for cycle in sink.cycles)
    assert host.codes(sink, start) == golden.run_layer(layer, images).ravel().tolist()
    assert sink.cycles[-1] - start == cycles


def test_the_open_port_asks_and_takes_answers_as_the_golden_model_has_them():
    """An engine without crossbars; answers of the golden model after any number of cycles."""
    layer, config, images = small()
    config = dataclasses.replace(config, merge_lanes=2)
    host = Host(layer, config, images[0], Engine(config))
    dut, start = host.dut, host.length
    trace = golden.run_layer_serial(layer, images, config)
    answers = [
        dut.layouts.response.const(codes.tolist()).as_bits()
        for codes in trace.codes[0].reshape(-1, config.adcs)
    ]
    requests = Sink(dut.crossbar.request, len(answers), stall=0.3, seed=1)

    class Answers(Source):
        """Gives no answer before its request."""

        def drive(self, ctx, cycle):
            if len(self.sent) < len(requests.taken):
                super().drive(ctx, cycle)
            else:
                ctx.set(dut.crossbar.response.valid, 0)

    programmed = Sink(dut.crossbar.program, len(host.image.beats), stall=0.3, seed=2)
    sink = Sink(dut.o, host.count, stall=0.3, seed=3)
    start = 2 * start + 20
    simulate(
        dut,
        *host.load(0),
        Script(dut.start, {start: 1}),
        programmed,
        requests,
        Answers(dut.crossbar.response, answers, stall=0.5, seed=4),
        sink,
    )
    assert programmed.payloads == host.image.beats
    assert host.codes(sink) == trace.outputs.ravel().tolist()
    asked = [dut.layouts.request.from_bits(bits) for bits in requests.payloads]
    assert [[int(d) for d in item["digits"]] for item in asked] == trace.digits[0].reshape(
        -1, config.ou_rows
    ).tolist()
    ous = np.tile(trace.ou, layer.positions).tolist()
    assert [
        item["crossbar"] * config.ous_per_crossbar
        + item["row_block"] * config.col_blocks
        + item["col_block"]
        for item in asked
    ] == ous
    assert [item["select"] for item in asked] == np.tile(trace.chunk, layer.positions).tolist()
