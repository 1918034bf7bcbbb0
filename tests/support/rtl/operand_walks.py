"""Operands of post-processing read by plain loops, and the reader held against them."""

import random
from dataclasses import replace
from itertools import product

from prap_hw.accelerator.operand_reader import OperandReader
from prap_hw.common.layouts import Layouts
from refmodel.config import EngineConfig
from refmodel.predict.accelerator.operations import Operation
from refmodel.predict.accelerator.prediction import FIRST_ITEM
from refmodel.predict.accelerator.regions import Operand, Walk
from refmodel.predict.accelerator.registers import registers
from tests.support.rtl.bench import Agent, Constant, Script, Sink, simulate

SIZE = 256


CONFIG = EngineConfig(network=True, activation_bytes=SIZE)


LAYOUTS = Layouts(CONFIG)


START = SIZE + 2


class Store(Agent):
    """Writes every byte of the memory, one a cycle, from cycle 0 on."""

    def __init__(self, dut, contents):
        self.port, self.contents = dut.i_store, contents

    def drive(self, ctx, cycle):
        ctx.set(self.port.valid, cycle < SIZE)
        if cycle < SIZE:
            ctx.set(self.port.payload.addr, cycle)
            ctx.set(self.port.payload.data, self.contents[cycle])


def addresses(op: Operation, number: int) -> list[int]:
    """Addresses of the codes that are read of an operand, by plain loops."""
    operand = op.operands[number]
    walk = operand.walk
    channels = range(operand.first_channel, operand.last_channel + 1)
    taps = product(range(op.kernel[0]), range(op.kernel[1]))
    places = product(range(op.shape[0]), range(op.shape[1]), channels, list(taps))
    return [
        walk.base
        + row * walk.row_step
        + column * walk.column_step
        + channel * walk.channel_step
        + down * op.tap_row_step
        + across * op.tap_column_step
        for row, column, channel, (down, across) in places
    ]


def walked(op: Operation, contents: list[int]) -> list[tuple[int, int, int, int]]:
    """(code, operand, first, last) of every read, by plain loops."""
    result = []
    rows, columns, channels = op.shape
    for row, column, channel in product(range(rows), range(columns), range(channels)):
        item = []
        for number, operand in enumerate(op.operands):
            walk = operand.walk
            at = walk.base + row * walk.row_step + column * walk.column_step
            at += channel * walk.channel_step
            there = operand.first_channel <= channel <= operand.last_channel
            for down, across in product(range(op.kernel[0]), range(op.kernel[1])):
                tap = at + down * op.tap_row_step + across * op.tap_column_step
                item.append((contents[tap] if there else operand.zero, number))
        last = len(item) - 1
        result += [(*code, int(i == 0), int(i == last)) for i, code in enumerate(item)]
    return result


def run(op: Operation, contents: list[int], **options) -> Sink:
    dut = OperandReader(CONFIG)
    expected = walked(op, contents)
    sink = Sink(dut.o, len(expected), **options)
    values = registers(op, (), CONFIG).post
    names = [name for name, _ in LAYOUTS.post]
    mask = {name: (1 << field.width) - 1 for name, field in LAYOUTS.post}
    signed = ("multiplier_0", "multiplier_1")
    constants = [
        (dut.registers[name], value if name in signed else int(value) & mask[name])
        for name, value in values.items()
        if name in names
    ]
    start = Script(dut.start, {START: 1})
    simulate(dut, Constant(*constants), Store(dut, contents), start, sink)
    items = [LAYOUTS.read.from_bits(bits) for bits in sink.payloads]
    found = [(item["code"], item["operand"], item["first"], item["last"]) for item in items]
    assert found == expected
    return sink


def drawn(seed: int) -> tuple[Operation, list[int]]:
    draw = random.Random(seed)
    shape = draw.randint(1, 3), draw.randint(1, 3), draw.randint(1, 4)
    pair = draw.random() < 0.4

    def operand() -> Operand:
        first = draw.randint(0, shape[2] - 1)
        walk = Walk(
            base=0,
            row_step=draw.randint(-30, 60),
            column_step=draw.randint(-9, 20),
            channel_step=draw.choice([1, 1, draw.randint(-3, 9)]),
        )
        last = draw.randint(first, shape[2] - 1)
        return Operand(walk=walk, first_channel=first, last_channel=last, zero=draw.randint(0, 255))

    kernel = (1, 1) if pair else (draw.randint(1, 3), draw.randint(1, 3))
    op = Operation(
        name="a",
        kind="pool",
        shape=shape,
        output=Walk(base=0, row_step=0, column_step=0),
        operands=(operand(), operand()) if pair else (operand(),),
        kernel=kernel,
        tap_row_step=draw.randint(0, 40),
        tap_column_step=draw.randint(0, 9),
    )
    # Where all of them are in the memory; the first one often is at one of its ends.
    placed = []
    for number, each in enumerate(op.operands):
        low = min(addresses(op, number)) - each.walk.base
        high = max(addresses(op, number)) - each.walk.base
        if high - low >= SIZE:
            return drawn(seed + 100)
        base = draw.choice([-low, SIZE - 1 - high, draw.randint(-low, SIZE - 1 - high)])
        placed.append(replace(each, walk=replace(each.walk, base=base)))
    op = replace(op, operands=tuple(placed))
    return op, [draw.randrange(256) for _ in range(SIZE)]


def check_codes_are_those_of_plain_loops_one_a_cycle(seed):
    op, contents = drawn(seed)
    sink = run(op, contents)
    begin = START + FIRST_ITEM
    assert sink.cycles == list(range(begin, begin + len(sink.taken)))
