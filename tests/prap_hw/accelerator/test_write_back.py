"""Write-back: outputs with pitch, border beside them, and when the operation ends."""

import random

import pytest

from prap_hw.accelerator.write_back import WriteBack
from prap_hw.common.layouts import Layouts
from refmodel.config import EngineConfig
from refmodel.predict.accelerator.operations import Operation
from refmodel.predict.accelerator.regions import Region, Walk
from refmodel.predict.accelerator.registers import registers
from tests.support.bench import Agent, Constant, Script, Sink, Source, Watch, simulate

CONFIG = EngineConfig(network=True, activation_bytes=512)
LAYOUTS = Layouts(CONFIG)
START = 3


class Memory(Agent):
    """What was written: address to (cycle, byte), each address once."""

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


@pytest.mark.parametrize("border", BORDERS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_region_is_written_whole_and_in_time(shape, border):
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


@pytest.mark.parametrize("seed", range(4))
def test_pauses_are_used_for_the_border(seed):
    op = operation((3, 3, 2), (1, 2, 1, 0), base=5)
    codes = list(range(18))
    memory, busy, _, source = run(op, codes, stall=0.5, seed=seed)
    assert op.fill is not None
    end = max(source.sent[-1], START + 18 + op.fill.bytes)
    assert busy.index(0, START + 1) == end + 1
    assert len(memory.cycles) == 18 + op.fill.bytes
    region = Region(base=5, shape=(3, 3, 2), border=(1, 2, 1, 0))
    assert [memory.bytes[a] for a in region.addresses.ravel().tolist()] == codes


def test_outputs_of_several_parts_of_a_tensor_have_its_pitch():
    # Two channels out of five, from the second on, without a border.
    walk = Walk(base=101, row_step=15, column_step=5)
    op = Operation(name="a", kind="pool", shape=(2, 3, 2), output=walk)
    memory, *_ = run(op, list(range(12)))
    assert memory.bytes == dict(
        zip([101, 102, 106, 107, 111, 112, 116, 117, 121, 122, 126, 127], range(12), strict=True)
    )


@pytest.mark.parametrize("seed", range(3))
def test_what_is_sent_goes_to_the_host_and_to_memory(seed):
    op = operation((2, 2, 3), (0, 1, 0, 0), send=True)
    codes = [10 * number for number in range(12)]
    memory, _, sink, _ = run(op, codes, stall=0.5, seed=seed)
    items = [LAYOUTS.sent.from_bits(bits) for bits in sink.payloads]
    assert [item["code"] for item in items] == codes
    assert [item["last"] for item in items] == [0] * 11 + [1]
    assert len(memory.bytes) == 12 + 2 * 3


def test_nothing_is_written_while_the_host_does_not_take_it_but_the_border():
    op = operation((1, 2, 1), (1, 0, 0, 0), send=True)
    memory, busy, sink, _ = run(op, [5, 6], ready=lambda cycle: cycle >= START + 20)
    assert sink.cycles == [START + 20, START + 21]
    assert memory.cycles == [START + 1, START + 2, START + 20, START + 21]
    assert busy.index(0, START + 1) == START + 22


def test_reset_ends_an_operation():
    dut = WriteBack(CONFIG)
    busy, memory = Watch(dut.busy), Memory(dut)
    constants = Constant((dut.registers.fill, 1), (dut.registers.fill_first, 100))
    simulate(
        dut, constants, Script(dut.start, {START: 1}), busy, memory, cycles=30, reset={START + 5}
    )
    assert sum(busy.values) == 5
    assert len(memory.cycles) == 5
