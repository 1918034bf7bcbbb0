"""Regions that are written back, and the check of what lies in memory afterwards."""

import random

from prap_hw.accelerator.write_back import WriteBack
from prap_hw.common.layouts import Layouts
from refmodel.config import EngineConfig
from refmodel.predict.accelerator.operations import Operation
from refmodel.predict.accelerator.regions import Region, Walk
from refmodel.predict.accelerator.registers import registers
from tests.support.rtl.bench import Agent, Constant, Script, Sink, Source, Watch, simulate

CONFIG = EngineConfig(network=True, activation_bytes=512)


LAYOUTS = Layouts(CONFIG)


START = 3


class Memory(Agent):
    """The bytes that were written: address to (cycle, byte), each address once."""

    def __init__(self, dut):
        self.signals = dut.store.valid, dut.store.payload.addr, dut.store.payload.data
        self.bytes: dict[int, int] = {}
        self.cycles: list[int] = []

    def see(self, cycle, *values):
        valid, address, byte = values
        if valid:
            assert address not in self.bytes, f"{address} is written twice"
            self.bytes[address] = byte
            self.cycles.append(cycle)


def operation(shape, border, base=0, code=77, *, send=False) -> Operation:
    region = Region(base=base, shape=shape, border=border)
    walk = Walk(base=region.address(0, 0), row_step=region.pitch, column_step=shape[2])
    return Operation(
        name="a", kind="pool", shape=shape, output=walk, fill=region.fill(code), send=send
    )


def run(op: Operation, codes: list[int], *, begin=START + 1, stall=0.0, ready=None, seed=0):
    """Give the codes from a cycle on; returns memory, busy, what was sent to the host, source."""
    dut = WriteBack(CONFIG)
    values = registers(op, (), CONFIG).post
    source = Source(dut.i, codes, stall=stall, seed=seed, begin=begin)
    sink = Sink(dut.o, len(codes) if op.send else None, stall=stall, seed=seed + 1, ready=ready)
    memory, busy = Memory(dut), Watch(dut.busy)
    names = {name for name, _ in LAYOUTS.post}
    constants = [(dut.registers[name], value) for name, value in values.items() if name in names]
    simulate(
        dut,
        Constant(*constants),
        Script(dut.start, {START: 1}),
        source,
        sink,
        memory,
        busy,
        cycles=begin + 40 + 8 * (len(codes) + (op.fill.bytes if op.fill else 0)),
    )
    return memory, busy.values, sink, source


SHAPES = [(1, 1, 1), (2, 3, 4), (3, 1, 2), (1, 4, 3), (4, 2, 1)]


BORDERS = [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0), (2, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 2)]


def check_a_region_is_written_whole_and_in_time(shape, border):
    op = operation(shape, border, base=17)
    region = Region(base=17, shape=shape, border=border)
    draw = random.Random(1)
    codes = [draw.randrange(256) for _ in range(op.outputs)]
    filled = 0 if op.fill is None else op.fill.bytes
    # At once, so that the border comes behind; and late, so that it comes before.
    for begin in (START + 1, START + 200):
        memory, busy, _, source = run(op, codes, begin=begin)
        wanted = {17 + number: 77 for number in range(region.size)}
        wanted |= dict(zip(region.addresses.ravel().tolist(), codes, strict=True))
        assert memory.bytes == wanted
        assert source.sent == list(range(begin, begin + len(codes)))
        end = max(source.sent[-1], START + len(codes) + filled)
        assert busy.index(1) == START + 1
        assert busy.index(0, START + 1) == end + 1
        assert sum(busy) == end - START


def check_what_is_sent_goes_to_the_host_and_to_memory(seed):
    op = operation((2, 2, 3), (0, 1, 0, 0), send=True)
    codes = [10 * number for number in range(12)]
    memory, _, sink, _ = run(op, codes, stall=0.5, seed=seed)
    items = [LAYOUTS.sent.from_bits(bits) for bits in sink.payloads]
    assert [item["code"] for item in items] == codes
    assert [item["last"] for item in items] == [0] * 11 + [1]
    assert len(memory.bytes) == 12 + 2 * 3
