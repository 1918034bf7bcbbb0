"""The pattern-index controller: the walk over positions, and the two index streams."""

import itertools
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Cat

from prap_hw.common.layouts import Space
from prap_hw.deliver.load import layer_image, reuse_steps
from prap_hw.engine.pattern_controller import PatternController
from refmodel.config import EngineConfig
from refmodel.program.sizes import engine_config_for
from tests.support.layers.builders import random_layer_program
from tests.support.rtl.bench import Script, Sink, Source, Watch, simulate

TINY = {"in_shape": (3, 3, 2), "outputs": 4, "kernel": (2, 2), "groups": 1}


def program(seed: int, **options):
    layer = random_layer_program(np.random.default_rng(seed), **options)
    base = EngineConfig(crossbar_size=32, merge_lanes=(1, 2, 4)[seed % 3])
    return layer, engine_config_for([layer], base)


def expected_segments(layer) -> list[dict[str, int]]:
    """Segments of all positions, from the program, in loops."""
    _, width, channels = layer.padded_shape
    result = []
    for oy, ox in itertools.product(range(layer.out_shape[0]), range(layer.out_shape[1])):
        corner = (oy * layer.stride[0] * width + ox * layer.stride[1]) * channels
        s = 0
        for q, count in enumerate(layer.gather_segments.tolist()):
            for k in range(count):
                y, x = divmod(int(layer.segment_position[s]), layer.kernel[1])
                at = (y * layer.dilation[0] * width + x * layer.dilation[1]) * channels
                result.append(
                    {
                        "address": int(
                            corner + at + layer.gather_base[q] + layer.segment_channel[s]
                        ),
                        "length": int(layer.segment_length[s]),
                        "last": int(k == count - 1),
                        "patterns": int(layer.gather_patterns[q]),
                        "final": int(layer.gather_final[q]),
                    }
                )
                s += 1
    return result


def expected_headers(layer) -> list[tuple[int, int, int, int]]:
    first = layer.group_first_output
    last = first + layer.group_outputs - 1
    return list(
        zip(
            layer.group_kept.tolist(),
            first.tolist(),
            last.tolist(),
            layer.group_write.tolist(),
            strict=True,
        )
    )


class Bench:
    """A loaded controller, and sinks on its streams."""

    def __init__(self, layer, config, *, stall=0.0, seed=0, hold=True):
        self.layer = layer
        self.dut = PatternController(config)
        words = layer_image(layer, config).words
        self.load = Source(self.dut.i_load, words)
        self.begin = len(words) + 1
        self.want = expected_segments(layer)
        self.segments = Sink(self.dut.o_segments, stall=stall, seed=seed, hold=hold)
        self.headers = Sink(self.dut.o_headers, stall=stall, seed=seed + 1, hold=hold)
        self.words = Sink(self.dut.o_words, stall=stall, seed=seed + 2, hold=hold)
        self.last = Watch(self.dut.o_headers_last)
        self.reads = Watch(self.dut.index_reads)

    def run(self, cycles: int, starts=(0,), **options) -> None:
        start = Script(
            Cat(self.dut.start, self.dut.resting), {self.begin + at: 0b11 for at in starts}
        )
        watched = self.segments, self.headers, self.words, self.last, self.reads
        simulate(self.dut, self.load, start, *watched, cycles=self.begin + cycles, **options)

    def decoded(self, after: int = 0):
        layouts = self.dut.layouts
        segments = [
            {name: layouts.segment.from_bits(bits)[name] for name, _ in layouts.segment}
            for cycle, bits in self.segments.taken
            if cycle > self.begin + after
        ]
        headers = [
            tuple(layouts.header.from_bits(bits)[name] for name, _ in layouts.header)
            for cycle, bits in self.headers.taken
            if cycle > self.begin + after
        ]
        words = [
            [(word["slot"], word["shift"], word["minus"]) for word in layouts.words.from_bits(bits)]
            for cycle, bits in self.words.taken
            if cycle > self.begin + after
        ]
        return segments, headers, words


def prefix(items: list, cycle: list) -> bool:
    """Whether a list goes round and round another."""
    return items == list(itertools.islice(itertools.cycle(cycle), len(items)))


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_streams_begin_two_and_three_cycles_after_start_with_an_item_a_cycle(seed, identity):
    layer, config = program(seed, identity=identity, **TINY)
    bench = Bench(layer, config)
    count = len(bench.want)
    bench.run(count + 8)
    segments, headers, words = bench.decoded()
    assert segments == bench.want
    first = bench.begin + 3
    assert bench.segments.cycles == list(range(first, first + count))
    # The reuse stream goes round.
    assert bench.headers.cycles == list(range(first - 1, bench.begin + count + 8))
    assert prefix(headers, expected_headers(layer))
    last = [int(i % len(layer.group_kept) == len(layer.group_kept) - 1) for i in range(count)]
    assert bench.last.values[first - 1 : first - 1 + count] == last
    if not identity:
        assert bench.words.cycles == bench.headers.cycles
        assert prefix(words, reuse_steps(layer, config.merge_lanes))


@pytest.mark.parametrize("seed", range(6))
def test_every_geometry_walks_its_addresses_with_stalls(seed):
    layer, config = program(seed + 30, in_shape=(5, 6, 3), outputs=4)
    bench = Bench(layer, config, stall=0.4, seed=seed)
    bench.run(min(2 * len(bench.want) + 60, 900))
    segments, headers, words = bench.decoded()
    assert len(segments) == len(bench.want) or len(segments) > 400
    assert segments == bench.want[: len(segments)]
    assert prefix(headers, expected_headers(layer))
    assert layer.identity or prefix(words, reuse_steps(layer, config.merge_lanes))


def test_registers_are_as_loaded():
    layer, config = program(4, identity=False, terms=3, **TINY)
    bench = Bench(layer, config)
    watch = Watch(bench.dut.registers)
    simulate(bench.dut, bench.load, watch)
    registers = bench.dut.layouts.registers.from_bits(watch.values[-1])
    assert registers["last_column"] == layer.out_shape[1] - 1
    assert registers["last_row"] == layer.out_shape[0] - 1
    assert registers["column_step"] == layer.stride[1] * 2
    assert registers["last_term"] == 2
    assert registers["identity"] == 0
    assert (registers["zero_out"], registers["clip_lo"], registers["clip_hi"]) == (
        layer.zero_out,
        layer.clip_lo,
        layer.clip_hi,
    )


def test_index_reads_count_what_is_taken_from_the_memories():
    layer, config = program(5, identity=True, **TINY)
    bench = Bench(layer, config)
    # An identity map has no reuse words; a memory has some, though, if it was ever written.
    for lane in range(config.merge_lanes):
        word: dict[Any, Any] = {"space": Space.WORD, "addr": lane, "data": 0}
        bench.load.payloads.append(bench.dut.layouts.load.const(word).as_bits())
        bench.begin += 1
    count = len(bench.want)
    bench.run(count + 8)
    # Two words to a segment (position, offset), one to a gather; a header and a word of reuse
    # every cycle from the second after start on.
    gathers = sum(item["last"] for item in bench.want)
    # A read is counted a cycle later, those of the last cycle not here.
    assert sum(bench.reads.values) == 2 * count + gathers + 2 * (len(bench.headers.taken) - 1)


def test_start_in_the_middle_rewinds_everything():
    layer, config = program(6, identity=False, **TINY)
    bench = Bench(layer, config, hold=False)
    again = len(bench.want) // 2 + 5
    bench.run(again + len(bench.want) + 8, starts=(0, again))
    segments, headers, words = bench.decoded(after=again)
    assert segments == bench.want
    assert prefix(headers, expected_headers(layer))
    assert prefix(words, reuse_steps(layer, config.merge_lanes))


def test_reset_empties_the_streams_and_keeps_the_memories():
    # The layer registers are registers, so reset clears them: they are loaded again.
    layer, config = program(7, identity=False, **TINY)
    bench = Bench(layer, config, hold=False)
    bench.run(30, reset={bench.begin + 10})
    for sink in (bench.segments, bench.headers, bench.words):
        assert sink.cycles[-1] <= bench.begin + 10
