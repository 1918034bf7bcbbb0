"""Input gather: bytes of segments into vectors."""

import random

import pytest

from prap_hw.common.layouts import Layouts
from prap_hw.engine.input_gather import InputGather
from refmodel.config import EngineConfig
from tests.support.rtl.bench import Sink, Source, Watch, simulate

ROWS = 4


def config(buffers: int, cell_bits: int = 1) -> EngineConfig:
    return EngineConfig(
        ou_rows=ROWS,
        gather_buffers=buffers,
        activation_bytes=64,
        slots=16,
        cell_bits=cell_bits,
    )


class Bench:
    """A gather, and segments for it, from vectors as lists of (address, length)."""

    def __init__(self, vectors, *, buffers=4, image=None, cell_bits=1):
        self.dut = InputGather(config(buffers, cell_bits))
        self.layouts = self.dut.layouts
        self.image = list(range(100, 164)) if image is None else image
        self.vectors = vectors
        self.acts = [
            self.layouts.acts.const({"data": byte, "last": i == len(self.image) - 1}).as_bits()
            for i, byte in enumerate(self.image)
        ]
        self.segments = [
            self.layouts.segment.const(
                {
                    "address": address,
                    "length": length,
                    "last": i == len(vector) - 1,
                    "patterns": number % 16 + 1,
                    "final": number % 3 == 0,
                }
            ).as_bits()
            for number, vector in enumerate(vectors)
            for i, (address, length) in enumerate(vector)
        ]
        self.begin = len(self.image) + 1
        self.sizes = [sum(length for _, length in vector) for vector in vectors]

    def source(self, **options) -> Source:
        return Source(self.dut.i_segments, self.segments, begin=self.begin, **options)

    def loader(self) -> Source:
        return Source(self.dut.i_acts, self.acts)

    def expected(self) -> list[tuple]:
        return [
            (
                [self.image[a + i] for a, length in vector for i in range(length)],
                number % 16 + 1,
                int(number % 3 == 0),
            )
            for number, vector in enumerate(self.vectors)
        ]

    def decode(self, payloads) -> list[tuple]:
        result = []
        for bits in payloads:
            item = self.layouts.gathered.from_bits(bits)
            rows = [item["rows"][r] for r in range(item["count"])]
            result.append((rows, item["patterns"], item["final"]))
        return result


VECTORS = [[(0, 4)], [(10, 1), (20, 2)], [(63, 1)], [(5, 1), (4, 1), (3, 1), (2, 1)], [(30, 3)]]


def test_a_byte_every_cycle_and_a_vector_two_cycles_after_its_last_byte():
    # Sizes 4, 3, 1, 4, 3: with the first segment accepted in cycle b, bytes are read in cycles
    # b + 1 to b + 15, the vectors' last ones in b + 4, 7, 8, 12, 15.
    bench = Bench(VECTORS)
    sink, reading = Sink(bench.dut.o, 5), Watch(bench.dut.reading)
    simulate(bench.dut, bench.loader(), bench.source(), sink, reading)
    assert sink.cycles == [bench.begin + last + 2 for last in (4, 7, 8, 12, 15)]
    assert bench.decode(sink.payloads) == bench.expected()
    first = bench.begin + 1
    assert [c for c, value in enumerate(reading.values) if value] == list(range(first, first + 15))


@pytest.mark.parametrize("buffers", [2, 3, 4])
def test_as_many_vectors_as_buffers_are_read_ahead_and_a_freed_one_is_used_in_the_next_cycle(
    buffers,
):
    bench = Bench([[(i, 2)] for i in range(buffers + 3)], buffers=buffers)
    release = bench.begin + 2 * buffers + 10
    sink = Sink(bench.dut.o, ready=lambda cycle: cycle in (release, release + 7))
    reading = Watch(bench.dut.reading)
    simulate(bench.dut, bench.loader(), bench.source(), sink, reading, cycles=release + 20)
    first = bench.begin + 1
    expected = [*range(first, first + 2 * buffers)]
    expected += [release + 1, release + 2, release + 8, release + 9]
    assert [c for c, value in enumerate(reading.values) if value] == expected
    assert bench.decode(sink.payloads) == bench.expected()[:2]


@pytest.mark.parametrize("stalls", [(0, 0), (0.5, 0), (0, 0.7), (0.4, 0.4)], ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_every_vector_arrives_once_in_order_with_stalls_on_both_sides(seed, stalls):
    draw = random.Random(seed)
    vectors = []
    for _ in range(25):
        vector, room = [], draw.randint(1, ROWS)
        while room:
            length = draw.randint(1, room)
            vector.append((draw.randint(0, 63 - length), length))
            room -= length
        vectors.append(vector)
    image = [draw.randint(0, 255) for _ in range(64)]
    bench = Bench(vectors, buffers=2 + seed, image=image)
    sink = Sink(bench.dut.o, len(vectors), stall=stalls[1], seed=seed + 10)
    source = bench.source(stall=stalls[0], seed=seed + 20)
    simulate(bench.dut, bench.loader(), source, sink)
    assert bench.decode(sink.payloads) == bench.expected()


@pytest.mark.parametrize("stalls", [(0, 0), (0.3, 0.5)], ids=str)
def test_the_sum_of_a_vectors_bytes_comes_with_it(stalls):
    image = [255 - i % 3 for i in range(64)]
    bench = Bench(VECTORS * 4, buffers=3, image=image, cell_bits=2)
    sink = Sink(bench.dut.o, 20, stall=stalls[1], seed=1)
    simulate(bench.dut, bench.loader(), bench.source(stall=stalls[0], seed=2), sink)
    items = [bench.layouts.gathered.from_bits(bits) for bits in sink.payloads]
    assert [item["inputs"] for item in items] == [sum(rows) for rows, _, _ in bench.expected()]
    assert max(item["inputs"] for item in items) > 3 * 253
    assert "inputs" not in dict(Layouts(config(3)).gathered)


def test_storing_starts_over_after_the_last_byte():
    # The second image is shorter: what it does not cover stays.
    bench = Bench([[(0, 4)], [(4, 2)]], image=[1, 2, 3, 4, 5, 6])
    bench.acts += [
        bench.layouts.acts.const({"data": 50 + i, "last": i == 2}).as_bits() for i in range(3)
    ]
    bench.begin += 3
    sink = Sink(bench.dut.o, 2)
    simulate(bench.dut, bench.loader(), bench.source(), sink)
    assert [rows for rows, _, _ in bench.decode(sink.payloads)] == [[50, 51, 52, 4], [5, 6]]


def test_ready_depends_on_registers_alone():
    # In the cycle of a segment's last byte the next one is taken; before, none.
    bench = Bench([[(0, 3)], [(8, 1)], [(9, 2)]])
    ready = Watch(bench.dut.i_segments.ready)
    source, sink = bench.source(), Sink(bench.dut.o, 3)
    simulate(bench.dut, bench.loader(), source, sink, ready)
    assert source.sent == [bench.begin + offset for offset in (0, 3, 4)]
    assert ready.values[bench.begin : bench.begin + 5] == [1, 0, 0, 1, 1]


def test_reset_empties_the_buffers_and_keeps_the_bytes():
    bench = Bench([[(0, 4)], [(10, 4)], [(20, 4)]])
    reset = bench.begin + 10
    early = Source(bench.dut.i_segments, bench.segments[:2], begin=bench.begin)
    late = Source(bench.dut.i_segments, bench.segments[2:], begin=reset + 1)
    sink = Sink(bench.dut.o, 1, ready=lambda cycle: cycle > reset, hold=False)
    simulate(bench.dut, bench.loader(), early, late, sink, reset={reset})
    # The first byte is read two cycles after reset, so the vector is there five later.
    assert sink.cycles == [reset + 1 + 4 + 2]
    assert bench.decode(sink.payloads) == bench.expected()[2:]
