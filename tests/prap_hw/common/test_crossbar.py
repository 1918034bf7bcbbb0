"""The emulated crossbar at its port."""

import random
from typing import Any

import pytest

from prap_hw.common.crossbar import EmulatedCrossbar
from refmodel.config import EngineConfig
from tests.support.rtl.bench import Sink, Source, Watch, simulate

PLACES = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 3, 3)]


class Bench:
    """A crossbar with random cells at some places, and random requests to them."""

    def __init__(self, cfg: EngineConfig, seed: int, count: int, full: bool = False):
        self.cfg = cfg
        self.dut = EmulatedCrossbar(cfg)
        self.layouts: Any = self.dut.layouts
        draw = random.Random(seed)
        top, most = (1 << cfg.cell_bits) - 1, (1 << cfg.dac_bits) - 1
        self.cells = {
            place: [
                [top if full else draw.randint(0, top) for _ in range(cfg.ou_cols)]
                for _ in range(cfg.ou_rows)
            ]
            for place in PLACES
        }
        self.beats = [
            self.layouts.cells.const(
                {
                    "crossbar": x,
                    "row_block": y,
                    "col_block": z,
                    "row": row,
                    "cells": sum(cell << cfg.cell_bits * j for j, cell in enumerate(values)),
                }
            ).as_bits()
            for (x, y, z), rows in self.cells.items()
            for row, values in enumerate(rows)
        ]
        draw.shuffle(self.beats)
        self.requests, self.codes = [], []
        for _ in range(count):
            place = draw.choice(PLACES)
            select = draw.randrange(-(-cfg.ou_cols // cfg.adcs))
            digits = [most if full else draw.randint(0, most) for _ in range(cfg.ou_rows)]
            names = "crossbar", "row_block", "col_block"
            fields: dict[Any, Any] = dict(zip(names, place, strict=True))
            fields |= {"select": select, "digits": digits}
            self.requests.append(self.layouts.request.const(fields).as_bits())
            self.codes.append(
                [
                    min(
                        sum(
                            digit * values[column] if column < cfg.ou_cols else 0
                            for digit, values in zip(digits, self.cells[place], strict=True)
                        ),
                        cfg.max_code,
                    )
                    for column in range(select * cfg.adcs, (select + 1) * cfg.adcs)
                ]
            )
        self.begin = len(self.beats) + 1
        self.programmed = Source(self.dut.port.program, self.beats)

    def decode(self, sink: Sink) -> list[list[int]]:
        return [[*map(int, self.layouts.response.from_bits(bits))] for bits in sink.payloads]

    def run(self, *, stalls=(0, 0), seed=0, **options) -> tuple[Source, Sink]:
        source = Source(
            self.dut.port.request, self.requests, begin=self.begin, stall=stalls[0], seed=seed
        )
        count = len(self.requests)
        sink = Sink(self.dut.port.response, count, stall=stalls[1], seed=seed + 1, **options)
        simulate(self.dut, self.programmed, source, sink)
        return source, sink


def config(**options) -> EngineConfig:
    return EngineConfig(crossbar_size=32, crossbars=2, **options)


@pytest.mark.parametrize("latency", [1, 2, 5, 40])
def test_a_response_follows_by_the_latency_and_one_a_cycle(latency):
    bench = Bench(config(crossbar_latency=latency), latency, 12)
    source, sink = bench.run()
    assert bench.programmed.sent == list(range(len(bench.beats)))
    assert source.sent == list(range(bench.begin, bench.begin + 12))
    assert sink.cycles == [cycle + latency for cycle in source.sent]
    assert bench.decode(sink) == bench.codes


@pytest.mark.parametrize(
    ("rows", "cols", "adcs", "bits"),
    [(8, 8, 8, 0), (8, 8, 1, 0), (4, 16, 4, 0), (16, 8, 2, 0), (5, 24, 8, 0), (8, 8, 8, 2)],
    ids=str,
)
def test_codes_are_population_counts_clipped_to_the_range(rows, cols, adcs, bits):
    cfg = config(ou_rows=rows, ou_cols=cols, adcs=adcs, adc_bits=bits)
    bench = Bench(cfg, rows, 40)
    _, sink = bench.run()
    assert bench.decode(sink) == bench.codes


@pytest.mark.parametrize(
    ("cell_bits", "dac_bits", "cols", "adcs", "bits"),
    [(2, 1, 8, 8, 0), (1, 2, 12, 8, 0), (4, 4, 8, 3, 0), (2, 4, 20, 7, 5), (4, 1, 4, 4, 6)],
    ids=str,
)
def test_codes_are_sums_of_products_and_0_beyond_the_last_column(
    cell_bits, dac_bits, cols, adcs, bits
):
    cfg = config(ou_cols=cols, adcs=adcs, adc_bits=bits, cell_bits=cell_bits, dac_bits=dac_bits)
    bench = Bench(cfg, cols, 40)
    _, sink = bench.run()
    assert bench.decode(sink) == bench.codes


@pytest.mark.parametrize(("bits", "code"), [(0, 1800), (11, 1800), (10, 1023)])
def test_wide_cells_and_digits_reach_their_largest_code(bits, code):
    # Eight rows of 15 * 15.
    bench = Bench(config(adc_bits=bits, cell_bits=4, dac_bits=4), 0, 2, full=True)
    _, sink = bench.run()
    assert bench.decode(sink) == [[code] * 8] * 2


@pytest.mark.parametrize(("bits", "code"), [(0, 8), (4, 8), (3, 7), (1, 1)])
def test_all_eight_rows_conducting_give_eight_or_the_largest_code(bits, code):
    bench = Bench(config(adc_bits=bits), 0, 2, full=True)
    _, sink = bench.run()
    assert bench.decode(sink) == [[code] * 8] * 2


@pytest.mark.parametrize("latency", [1, 3])
@pytest.mark.parametrize("stalls", [(0.5, 0), (0, 0.6), (0.4, 0.4)], ids=str)
def test_order_and_codes_hold_with_stalls_on_both_sides(latency, stalls):
    bench = Bench(config(crossbar_latency=latency), latency, 40)
    _, sink = bench.run(stalls=stalls, seed=7)
    assert bench.decode(sink) == bench.codes


def test_the_whole_pipeline_stands_while_a_response_is_not_taken():
    bench = Bench(config(crossbar_latency=3), 3, 6)
    taken = bench.begin + 10
    ready = Watch(bench.dut.port.request.ready)
    source = Source(bench.dut.port.request, bench.requests, begin=bench.begin)
    sink = Sink(bench.dut.port.response, 6, ready=lambda cycle: cycle >= taken)
    simulate(bench.dut, bench.programmed, source, sink, ready)
    assert source.sent == [*range(bench.begin, bench.begin + 3), *range(taken, taken + 3)]
    assert sink.cycles == list(range(taken, taken + 6))
    assert not any(ready.values[bench.begin + 3 : taken])


def test_reset_empties_the_pipeline_and_keeps_the_cells():
    bench = Bench(config(crossbar_latency=5), 5, 4)
    early = Source(bench.dut.port.request, bench.requests, begin=bench.begin)
    late = Source(bench.dut.port.request, bench.requests, begin=bench.begin + 5)
    sink = Sink(bench.dut.port.response, 4)
    simulate(bench.dut, bench.programmed, early, late, sink, reset={bench.begin + 4})
    assert sink.cycles == [bench.begin + 10 + i for i in range(4)]
    assert bench.decode(sink) == bench.codes
