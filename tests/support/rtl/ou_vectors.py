"""Vectors for the OU engine, the requests that they must become, and the check of both."""

import random
from dataclasses import dataclass

from prap_hw.common.layouts import Layouts
from prap_hw.engine.ou_engine import OUEngine
from refmodel.config import EngineConfig
from tests.support.rtl.bench import Agent, Constant, Sink, Source, Watch, simulate

ROWS = 4


def config(adcs=8, cols=8, slots=16, size=32, crossbars=1, cell_bits=1, dac_bits=1) -> EngineConfig:
    return EngineConfig(
        ou_rows=ROWS,
        ou_cols=cols,
        adcs=adcs,
        slots=slots,
        crossbar_size=size,
        crossbars=crossbars,
        cell_bits=cell_bits,
        dac_bits=dac_bits,
    )


@dataclass
class Vector:
    """A gathered vector: the rows in use, the patterns under it, whether it ends its series."""

    rows: list[int]
    patterns: int
    final: bool = True


def payloads(dut: OUEngine, vectors: list[Vector]) -> list[int]:
    """Vectors as payloads; the rows that do not count hold leftovers."""
    return [
        dut.layouts.gathered.const(
            {
                "rows": v.rows + [0xFF] * (ROWS - len(v.rows)),
                "count": len(v.rows),
                "patterns": v.patterns,
                "final": v.final,
                **({"inputs": sum(v.rows)} if dut.config.offset else {}),
            }
        ).as_bits()
        for v in vectors
    ]


def expected(layouts: Layouts, vectors: list[Vector], last_descriptor: int):
    """Requests and what they mean, as loops over the words of the docstring."""
    cfg, columns = layouts.config, layouts.columns
    width = 8 // cfg.cell_bits
    digits = 8 // cfg.dac_bits
    requests, meanings = [], []
    ou = gather = slot = series = 0
    accumulate = False
    for v in vectors:
        series = series if accumulate else slot
        for first in range(0, v.patterns * width, cfg.ou_cols):
            end = min(first + cfg.ou_cols, v.patterns * width)
            crossbar, rest = divmod(ou, cfg.ous_per_crossbar)
            row_block, col_block = divmod(rest, cfg.col_blocks)
            for digit in range(digits):
                mask = (1 << cfg.dac_bits) - 1
                driven = [row >> digit * cfg.dac_bits & mask for row in v.rows]
                driven += [0] * (ROWS - len(v.rows))
                for chunk, begin in enumerate(range(first, end, cfg.adcs)):
                    mine = range(begin, min(begin + cfg.adcs, end))
                    ended = sum(column % width == width - 1 for column in mine)
                    bit = begin % width
                    requests.append((crossbar, row_block, col_block, chunk, driven))
                    meaning = {
                        "scale": digit * cfg.dac_bits + (bit * cfg.cell_bits) * columns.narrow,
                        "first": int(digit == 0 and bit == 0),
                        "ended": ended if digit == digits - 1 else 0,
                        "lane": begin // width - first // width,
                        "slot": (series + begin // width) % cfg.slots,
                        "accumulate": int(accumulate),
                        "final": int(v.final),
                        "top": int(bit + cfg.adcs == width),
                        "low": int(digit == 0),
                        "carry": int(digit == 0 and begin == first and bit != 0),
                        "inputs": sum(v.rows),
                    }
                    if not columns.narrow:
                        counting = cfg.adcs
                        if len(columns.phases) > 1:
                            counting = min(cfg.adcs, first + cfg.ou_cols - begin)
                        meaning["align"] = columns.alignments.index((bit, counting))
                    names = [str(name) for name, _ in layouts.pending]
                    meanings.append({name: meaning[name] for name in names})
            ou += 1
        slot = series + v.patterns if v.final else series
        accumulate = not v.final
        gather += 1
        if gather > last_descriptor:
            gather = ou = 0
    return requests, meanings


def decoded(dut: OUEngine, requests: Sink, meanings: Sink):
    fields = [dut.layouts.request.from_bits(bits) for bits in requests.payloads]
    return (
        [
            (f["crossbar"], f["row_block"], f["col_block"], f["select"], [*map(int, f["digits"])])
            for f in fields
        ],
        [
            {name: item[name] for name, _ in dut.layouts.pending}
            for item in map(dut.layouts.pending.from_bits, meanings.payloads)
        ],
    )


class Ring(Agent):
    """Frees slots at random, never more than are in use: those of complete patterns."""

    def __init__(self, dut, cfg, chance: float, seed: int):
        self.dut, self.chance = dut, chance
        self.draw = random.Random(seed)
        self.layout = dut.layouts.pending
        self.held = 0
        pending = dut.o_pending
        self.signals = (pending.valid, pending.ready, pending.payload.as_value())

    def drive(self, ctx, cycle):
        free = int(self.held > 0 and self.draw.random() < self.chance)
        self.held -= free
        ctx.set(self.dut.released, free)

    def see(self, cycle, *values):
        valid, ready, payload = values
        item = self.layout.from_bits(payload)
        self.held += item["ended"] if valid and ready and item["final"] else 0


def random_vectors(draw: random.Random, count: int, most: int) -> list[Vector]:
    vectors, again = [], 0
    for _ in range(count):
        patterns = again or draw.randint(1, most)
        final = draw.random() < 0.7
        again = 0 if final else patterns
        rows = [draw.randint(0, 255) for _ in range(draw.randint(1, ROWS))]
        vectors.append(Vector(rows, patterns, final))
    vectors[-1].final = True
    return vectors


def check_requests_follow_the_vectors_one_a_cycle_without_a_dead_cycle(
    adcs, cols, cell_bits, dac_bits
):
    cfg = config(adcs, cols, size=48, slots=64, cell_bits=cell_bits, dac_bits=dac_bits)
    dut = OUEngine(cfg)
    width = 8 // cell_bits
    per_ou = cols // width
    vectors = [
        Vector([0b10110101, 7], per_ou + 1),
        Vector([1, 2, 255, 128], 1, final=False),
        Vector([200], 1),
    ]
    want = expected(dut.layouts, vectors, 1)
    source = Source(dut.i, payloads(dut, vectors))
    requests, meanings = Sink(dut.o_request, len(want[0])), Sink(dut.o_pending, len(want[1]))
    done = Watch(dut.ou_done)
    last = Constant((dut.last_descriptor, 1))
    simulate(dut, source, last, requests, meanings, done)
    assert decoded(dut, requests, meanings) == want
    # The vector is seen in cycle 0: its meaning is told then, its request is out one later.
    assert meanings.cycles == list(range(len(want[0])))
    assert requests.cycles == list(range(1, len(want[0]) + 1))
    assert sum(done.values) == 4
    # A full OU and one of one pattern, and two of one pattern.
    full, single = (-(-used // adcs) * 8 // dac_bits for used in (cols, width))
    assert source.sent == [full + n * single - 1 for n in (1, 2, 3)]
