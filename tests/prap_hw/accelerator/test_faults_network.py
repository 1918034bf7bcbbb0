"""Faults of an accelerator: its list, and what post-processing reads and writes.

As :mod:`tests.prap_hw.engine.test_faults` has it of an engine: a flipped bit and an address out of
range stop the accelerator, and nothing is written or sent from then on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Value

import prap_hw.accelerator.accelerator
from prap_hw.accelerator.operand_reader import OperandReader
from prap_hw.accelerator.sequencer import Sequencer
from prap_hw.accelerator.write_back import WriteBack
from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Layouts, Space
from prap_hw.deliver.load import command_words, network_load
from refmodel.config import EngineConfig
from tests.support.nets.accelerator_nets import codes, program
from tests.support.rtl import operand_walks
from tests.support.rtl.accelerator_host import Host, Net, expected
from tests.support.rtl.bench import Constant, Script, Sink, Source, Watch, simulate
from tests.support.rtl.mutants import Mutant, apply

BYTES = 100
CONFIG = EngineConfig(network=True, activation_bytes=BYTES)
LAYOUTS = Layouts(CONFIG)


def reads(shape: tuple[int, int, int] = (1, 1, 1), **registers: int) -> tuple[list[int], int]:
    """Codes that an operand reader gives, each the address it is from; how many faults."""
    dut = OperandReader(CONFIG)
    bits = {name: (1 << field.width) - 1 for name, field in LAYOUTS.post}
    values = dict(
        zip(("last_row", "last_column", "last_channel"), (n - 1 for n in shape), strict=True)
    )
    values |= {"last_channel_0": shape[2] - 1, "zero_0": 200} | registers
    sink, faults = Sink(dut.o, hold=False), Watch(dut.faults)
    count = int(np.prod(shape)) * (1 + values.get("last_tap_column", 0))
    simulate(
        dut,
        Constant(*((dut.registers[name], value & bits[name]) for name, value in values.items())),
        operand_walks.Store(dut, list(range(BYTES))),
        Script(dut.start, {BYTES + 2: 1}),
        sink,
        faults,
        cycles=BYTES + count + 8,
    )
    items = [LAYOUTS.read.from_bits(bits) for bits in sink.payloads]
    return [item["code"] for item in items], sum(faults.values)


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    """The store of the operand reader's tests, for a memory of as many bytes as here."""
    monkeypatch.setattr(operand_walks, "SIZE", BYTES)


# Loops, registers within the memory, what they read; registers beyond it, what they read instead.
READS: dict[str, tuple[tuple[int, int, int], dict[str, int], list[int], dict[str, int]]] = {
    "base": ((1, 1, 1), {"base_0": 99}, [99], {"base_0": 100}),
    "base below 0": ((1, 1, 1), {"base_0": 0}, [0], {"base_0": -1}),
    "channel": (
        (1, 1, 2),
        {"base_0": 90, "channel_step_0": 9},
        [90, 99],
        {"base_0": 90, "channel_step_0": 10},
    ),
    "channel backwards": (
        (1, 1, 2),
        {"base_0": 9, "channel_step_0": -9},
        [9, 0],
        {"base_0": 9, "channel_step_0": -10},
    ),
    "column": (
        (1, 3, 1),
        {"base_0": 1, "column_step_0": 49},
        [1, 50, 99],
        {"base_0": 1, "column_step_0": 50},
    ),
    "column, no wrap-around": (
        (1, 3, 1),
        {"base_0": 0, "column_step_0": 49},
        [0, 49, 98],
        # 0, 64, 128: the third is 0 again in the memory's address bits.
        {"base_0": 0, "column_step_0": 64},
    ),
    "row backwards": (
        (2, 1, 1),
        {"base_0": 99, "row_step_0": -99},
        [99, 0],
        {"base_0": 99, "row_step_0": -100},
    ),
    "row, no wrap-around": (
        (2, 1, 1),
        {"base_0": 0, "row_step_0": 99},
        [0, 99],
        {"base_0": 0, "row_step_0": 127},
    ),
    "column of a window": (
        (1, 1, 1),
        {"base_0": 50, "last_tap_column": 1, "tap_column_step": 49},
        [50, 99],
        {"base_0": 50, "last_tap_column": 1, "tap_column_step": 50},
    ),
}


def check_read(name: str) -> None:
    shape, within, wanted, beyond = READS[name]
    assert reads(shape, **within) == (wanted, 0)
    found, faults = reads(shape, **beyond)
    assert faults == 1
    # All but the one beyond.
    assert len(found) == len(wanted) - 1


@pytest.mark.parametrize("name", READS)
def test_a_code_that_is_not_in_the_memory_is_a_fault_and_is_not_given(name):
    check_read(name)


def check_absent() -> None:
    """Channel 0 has the zero point; its address, below 0, is none that is read."""
    values = {"base_0": -7, "channel_step_0": 7, "first_channel_0": 1}
    assert reads((1, 1, 2), **values) == ([200, 0], 0)


def test_addresses_of_channels_that_have_the_zero_point_are_not_checked():
    check_absent()


def writes(count: int, **registers: int) -> tuple[dict[int, int], int]:
    """What write-back stores of ``count`` outputs, 1, 2, 3 .., and how many faults it finds."""
    dut = WriteBack(CONFIG)
    stored: dict[int, int] = {}
    values = {"fill_code": 77} | registers
    valid, addr = Watch(dut.store.valid), Watch(dut.store.payload.addr)
    byte, faults = Watch(dut.store.payload.data), Watch(dut.faults)
    simulate(
        dut,
        Constant(*((dut.registers[name], value) for name, value in values.items())),
        Script(dut.start, {0: 1}),
        Source(dut.i, range(1, count + 1), begin=1),
        valid,
        addr,
        byte,
        faults,
        cycles=count + 12,
    )
    for there, at, what in zip(valid.values, addr.values, byte.values, strict=True):
        if there:
            stored[at] = what
    return stored, sum(faults.values)


# Outputs, registers within the memory, what is stored; registers beyond it, what is stored then.
Stored = dict[int, int]
WRITES: dict[str, tuple[int, dict[str, int], Stored, dict[str, int], Stored]] = {
    "channel": (
        2,
        {"output_base": 98, "last_channel": 1},
        {98: 1, 99: 2},
        {"output_base": 99, "last_channel": 1},
        {99: 1},
    ),
    "column": (
        2,
        {"output_base": 50, "last_column": 1, "output_column_step": 49},
        {50: 1, 99: 2},
        {"output_base": 50, "last_column": 1, "output_column_step": 50},
        {50: 1},
    ),
    "column, no wrap-around": (
        2,
        {"output_base": 2, "last_column": 1, "output_column_step": 97},
        {2: 1, 99: 2},
        # 2 + 127 is 1 in the memory's address bits.
        {"output_base": 2, "last_column": 1, "output_column_step": 127},
        {2: 1},
    ),
    "row": (
        2,
        {"output_base": 50, "last_row": 1, "output_row_step": 49},
        {50: 1, 99: 2},
        {"output_base": 50, "last_row": 1, "output_row_step": 50},
        {50: 1},
    ),
    "border": (
        1,
        {"output_base": 0, "fill": 1, "fill_base": 97, "fill_first": 3},
        {0: 1, 97: 77, 98: 77, 99: 77},
        {"output_base": 0, "fill": 1, "fill_base": 98, "fill_first": 3},
        {0: 1, 98: 77, 99: 77},
    ),
    "border, gap": (
        1,
        {
            "output_base": 0,
            "fill": 1,
            "fill_base": 5,
            "fill_first": 1,
            "fill_gap": 93,
            "fill_more": 1,
            "fill_last": 1,
        },
        {0: 1, 5: 77, 99: 77},
        {
            "output_base": 0,
            "fill": 1,
            "fill_base": 5,
            "fill_first": 1,
            "fill_gap": 127,
            "fill_more": 1,
            "fill_last": 1,
        },
        {0: 1, 5: 77},
    ),
}


def check_write(name: str) -> None:
    count, within, wanted, beyond, rest = WRITES[name]
    assert writes(count, **within) == (wanted, 0)
    assert writes(count, **beyond) == (rest, 1)


@pytest.mark.parametrize("name", WRITES)
def test_a_byte_beyond_the_memory_is_a_fault_and_is_not_written(name):
    check_write(name)


def listed(*words: dict[str, int], depth: int = 3) -> tuple[list[int], list[int], list[int]]:
    """Faults, runs and ends of a sequencer, cycle by cycle, whose operations take a cycle each."""
    dut = Sequencer(CONFIG, depth)
    loads = []
    for addr, fields in enumerate(words):
        command: dict[Any, Any] = dict(fields)
        bits = LAYOUTS.command.const(command).as_bits()
        word: dict[Any, Any] = {"space": Space.COMMAND, "addr": addr, "data": bits}
        loads.append(LAYOUTS.load.const(word).as_bits())
    at = depth + 2
    faults, runs, ends = Watch(dut.faults), Watch(dut.run), Watch(dut.done)
    simulate(
        dut,
        Source(dut.i_load, loads),
        Script(dut.start, {at: 1}),
        faults,
        runs,
        ends,
        cycles=at + 16,
    )
    return faults.values[at:], runs.values[at:], ends.values[at:]


RUN = {"run": 1}
END = {"run": 1, "last": 1}


def check_list() -> None:
    """Three words fill the list; the last one must be a last run, and must be there."""
    faults, runs, ends = listed(RUN, RUN, END)
    assert (sum(faults), sum(runs), sum(ends)) == (0, 3, 1)
    # Behind the end there may be anything, also what was never written.
    faults, runs, ends = listed(RUN, END)
    assert (sum(faults), sum(runs), sum(ends)) == (0, 2, 1)
    faults, runs, ends = listed(RUN, RUN, RUN)
    assert 2 in faults
    # A list of two words without an end comes to one that was never written, and stands there.
    faults, runs, ends = listed(RUN, RUN)
    assert set(faults) == {0, 1}
    assert faults[-1] == 1
    assert (sum(runs), sum(ends)) == (2, 0)


def test_a_list_without_an_end_and_a_wrong_word_that_is_due_are_faults():
    check_list()


async def faulty(ctx, host: Host, codes: np.ndarray) -> tuple[tuple[Fault, Space], list[int]]:
    """Run from the image on until a fault, and see that the accelerator stands.

    Returns
    -------
    The fault; the outputs that were sent before.
    """
    dut = host.dut
    image = codes.ravel().tolist()
    outputs: list[int] = []
    ctx.set(dut.o.ready, 1)
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    sent = 0
    for _ in range(host.limit):
        ctx.set(dut.i_acts.valid, sent < len(image))
        ctx.set(dut.i_acts.payload.data, image[min(sent, len(image) - 1)])
        ctx.set(dut.i_acts.payload.last, sent == len(image) - 1)
        _, _, fault, valid, code, ready, offered = await ctx.tick().sample(
            dut.fault, dut.o.valid, dut.o.payload.code, dut.i_acts.ready, dut.i_acts.valid
        )
        if fault.kind != Fault.NONE:
            assert not valid, "an output beside a fault"
            await stand(ctx, dut)
            return (fault.kind, fault.space), outputs
        sent += offered & ready
        if valid:
            outputs.append(code)
    raise AssertionError(f"no fault, {sent} bytes and {len(outputs)} outputs")


async def stand(ctx, dut: Any) -> None:
    busy = ctx.get(dut.busy)
    for _ in range(300):
        for signal in (dut.i_load.valid, dut.i_cells.valid, dut.i_acts.valid, dut.start):
            ctx.set(signal, 1)
        _, _, *values = await ctx.tick().sample(
            dut.o.valid,
            dut.i_load.ready,
            dut.i_cells.ready,
            dut.i_acts.ready,
            dut.busy ^ busy,
            dut.done,
        )
        assert not any(values), values
    for signal in (dut.i_load.valid, dut.i_cells.valid, dut.i_acts.valid, dut.start):
        ctx.set(signal, 0)


async def reset(ctx, host: Host) -> None:
    ctx.set(host.rst, 1)
    await ctx.tick()
    ctx.set(host.rst, 0)


async def flip(ctx, host: Host, space: Space, addr: int, bit: int) -> None:
    row = Value.cast(host.dut.accelerator.memories[space][0].contents[addr])
    ctx.set(row, ctx.get(row) ^ 1 << bit)


def check_network(folder: Path) -> None:
    """Flips in every memory that the host loads, and words of its list that lead out of range."""
    net = Net.of(program("branches", folder))
    images = codes(net.program, 1, seed=4)
    host = Host(net)
    wanted = expected(net, images)[0]
    layout = Layouts(net.config)
    words = command_words(net.program, net.image, net.config)
    ends = [n for n, word in enumerate(words) if layout.command.from_bits(word)["run"]]
    post = [name for name, _ in layout.post]

    def listed(name: str, value: int) -> tuple[int, int]:
        """Where a register of post-processing is loaded, other than with 0, and another value."""
        for number, word in enumerate(words):
            item = layout.command.from_bits(word)
            if item["space"] == Space.POST and item["addr"] == post.index(name):
                command: dict[Any, Any] = {"space": Space.POST, "addr": post.index(name)}
                return number, layout.command.const({**command, "data": value}).as_bits()
        raise AssertionError(f"the list has no {name}")

    last = net.config.activation_bytes - 1
    flips = [
        (Space.COMMAND, 0, 0),
        (Space.COMMAND, ends[0], layout.command.size),
        (Space.COMMAND, ends[-1], 1),
        (Space.DESCRIPTOR, 0, 2),
        (Space.POSITION, 1, 0),
        (Space.OFFSET, 0, 0),
        (Space.HEADER, 0, 1),
        (Space.OUTPUT, 2, 9),
    ]
    changes = [
        (*listed("output_base", last), (Fault.RANGE, Space.POST)),
        (*listed("base_0", last), (Fault.RANGE, Space.POST)),
        # The last run is not the last one.
        (ends[-1], layout.command.const({"run": 1}).as_bits(), (Fault.RANGE, Space.COMMAND)),
    ]

    loaded = network_load(net.program, net.image, net.config)
    sent = {layout.load.from_bits(word)["space"] for word in loaded.words}
    assert {space for space, _, _ in flips} == sent

    async def body(ctx):
        for space, addr, bit in flips:
            await host.load(ctx)
            await flip(ctx, host, space, addr, bit)
            fault, outputs = await faulty(ctx, host, images[0])
            assert fault == (Fault.PARITY, space)
            assert outputs == wanted[: len(outputs)]
            await reset(ctx, host)
        for number, word, expected_fault in changes:
            await host.load(ctx)
            item: dict[Any, Any] = {"space": Space.COMMAND, "addr": number, "data": word}
            await host.send(ctx, host.dut.i_load, [layout.load.const(item).as_bits()])
            fault, _ = await faulty(ctx, host, images[0])
            assert fault == expected_fault
            await reset(ctx, host)
        # What was wrong is loaded anew, and all is right.
        await host.load(ctx)
        await host.send_image(ctx, images[0])
        await host.settle(ctx)
        assert (await host.run(ctx)).outputs == wanted

    host.simulate(body)


@pytest.mark.long
def test_a_fault_of_any_part_stops_the_accelerator_until_reset(tmp_path):
    check_network(tmp_path)


MUTANTS: list[tuple[str, str, tuple[str, str], Callable[[], None]]] = [
    (
        "operand_reader",
        "a code beyond the memory",
        ("address >= self.config.activation_bytes", "address > self.config.activation_bytes"),
        lambda: check_read("base"),
    ),
    (
        "operand_reader",
        "addresses wrap around",
        ("self.layouts.address_bits + 1", "self.layouts.address_bits"),
        lambda: check_read("column, no wrap-around"),
    ),
    (
        "operand_reader",
        "channels with the zero point",
        ("beyond.eq(here & (", "beyond.eq(("),
        lambda: check_absent(),
    ),
    (
        "operand_reader",
        "the code is given",
        ("self.o.valid.eq(~beyond)", "self.o.valid.eq(1)"),
        lambda: check_read("channel"),
    ),
    (
        "write_back",
        "a byte beyond the memory",
        ("written >= self.config.activation_bytes", "written > self.config.activation_bytes"),
        lambda: check_write("channel"),
    ),
    (
        "write_back",
        "addresses wrap around",
        (
            "address = Signal(self.layouts.address_bits + 1)",
            "address = Signal(self.layouts.address_bits)",
        ),
        lambda: check_write("column, no wrap-around"),
    ),
    (
        "write_back",
        "the byte is written",
        ("self.store.valid.eq((taken | fill) & ~beyond)", "self.store.valid.eq(taken | fill)"),
        lambda: check_write("border"),
    ),
    (
        "write_back",
        "bytes of the border",
        ("self.faults.eq((taken | fill) & beyond)", "self.faults.eq(taken & beyond)"),
        lambda: check_write("border, gap"),
    ),
    (
        "sequencer",
        "parity",
        ("commands.wrong & commands.o.ready", "0"),
        lambda: check_list(),
    ),
    (
        "sequencer",
        "parity of a word that is not due",
        ("commands.wrong & commands.o.ready", "commands.wrong"),
        lambda: check_list(),
    ),
    (
        "sequencer",
        "a list without an end",
        ("taken & commands.o_last &", "0 &"),
        lambda: check_list(),
    ),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "what", "edit", "check"),
    MUTANTS,
    ids=[f"{module}: {what}" for module, what, _, _ in MUTANTS],
)
def test_the_mutant_is_caught(monkeypatch, module, what, edit, check):
    apply(monkeypatch, Mutant(module, what, (edit,), ""))
    for name in ("OperandReader", "Sequencer", "WriteBack"):
        # What this module imported is the mutant's, too.
        monkeypatch.setitem(globals(), name, getattr(prap_hw.accelerator.accelerator, name))
    with pytest.raises(AssertionError):
        check()
