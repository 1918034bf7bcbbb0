import random
from types import SimpleNamespace

import pytest

from prap_hw.shell import register_map
from tests.support.rtl.axi_registers import CONSTANTS, Registers
from tests.support.rtl.bench import Constant, Script, Sink, Source, simulate

OKAY, SLVERR = 0, 2


def write(dut, writes, *, stalls=(0.0, 0.0, 0.0), agents=()):
    """Write (address, data, strobe); returns the responses."""
    sink = Sink(dut.b, len(writes), stall=stalls[2], seed=3)
    simulate(
        dut,
        Source(dut.aw, [address for address, _, _ in writes], stall=stalls[0], seed=1),
        Source(dut.w, [data | strobe << 32 for _, data, strobe in writes], stall=stalls[1], seed=2),
        sink,
        *agents,
    )
    return sink.payloads


def read(dut, addresses, *agents, stall=0.0):
    """Read; returns (data, response)."""
    sink = Sink(dut.r, len(addresses), stall=stall, seed=5)
    simulate(dut, Source(dut.ar, addresses, stall=stall, seed=4), sink, *agents)
    return [(word & 0xFFFFFFFF, word >> 32) for word in sink.payloads]


def test_constants_and_what_the_hardware_drives_are_read_at_their_addresses():
    dut = Registers()
    addresses = [register.address for register in register_map.load().registers]
    agents = [Constant((dut.file.STATUS_busy, 1), (dut.file.STATUS_output_waits, 1))]
    found = dict(zip(addresses, read(dut, addresses, *agents, stall=0.4), strict=True))
    for register in register_map.load().registers:
        expected = CONSTANTS.get(register.name, {"STATUS": 0x81, "WATCHDOG": 1 << 28})
        if isinstance(expected, dict):
            expected = expected.get(register.name, 0)
        assert found[register.address] == (expected, OKAY), register.name


def test_unmapped_and_unaligned_reads_are_errors_and_give_no_data():
    dut = Registers()
    end = register_map.load().size
    bad = [0x34, 0x7C, 0xF4, end, 0x200, 0x800, 0xFFC, 1, 2, 3, 0x82, 0x1D]
    assert read(dut, bad) == [(0, SLVERR)] * len(bad)


@pytest.mark.parametrize("stalls", [(0, 0, 0), (0.7, 0, 0), (0, 0.7, 0), (0.5, 0.5, 0.7)])
def test_writes_answer_as_a_model_of_the_map_says(stalls):
    names = {r.address: r.name for r in register_map.load().registers}
    writable = {"CONTROL", "IRQ_ENABLE", "IRQ_PENDING", "INPUT_BYTES", "OUTPUT_BYTES", "WATCHDOG"}
    draw = random.Random(7)
    writes = []
    for _ in range(120):
        address = draw.choice([draw.randrange(0, 0x40, 4), 0x20, 0x28, 0x2C, 0x30, 0x29, 0x828])
        writes.append((address, draw.getrandbits(32), draw.getrandbits(4)))
    model = {"IRQ_ENABLE": 0, "INPUT_BYTES": 0, "OUTPUT_BYTES": 0, "WATCHDOG": 1 << 28}
    masks = {"IRQ_ENABLE": 3}
    expected = []
    for address, word, strobe in writes:
        name = names.get(address)
        expected.append(OKAY if name in writable else SLVERR)
        if name in model:
            marked = sum(0xFF << 8 * b for b in range(4) if strobe >> b & 1) & masks.get(name, -1)
            model[name] = model[name] & ~marked | word & marked
    dut = Registers()
    assert write(dut, writes, stalls=stalls) == expected
    # A simulation of its own begins at reset, so the same writes come before the reads.
    after = Sink(dut.r, len(model))
    simulate(
        dut,
        Source(dut.aw, [a for a, _, _ in writes]),
        Source(dut.w, [d | s << 32 for _, d, s in writes]),
        Constant((dut.b.ready, 1)),
        Source(dut.ar, [register_map.load()[name].address for name in model], begin=500),
        after,
    )
    assert [word & 0xFFFFFFFF for word in after.payloads] == list(model.values())


def test_a_locked_register_refuses_a_write_and_keeps_its_value():
    dut = Registers()
    lock = Constant((dut.file.lock, 1))
    locked = [register.address for register in register_map.load().registers if register.locked]
    assert locked == [0x28, 0x2C, 0x30]
    assert write(dut, [(a, 5, 15) for a in locked], agents=[lock]) == [SLVERR] * 3
    after = Sink(dut.r, 3)
    simulate(
        dut,
        lock,
        Constant((dut.b.ready, 1)),
        Source(dut.aw, locked),
        Source(dut.w, [5 | 15 << 32] * 3),
        Source(dut.ar, locked, begin=50),
        after,
    )
    assert after.payloads == [0, 0, 1 << 28]


def test_a_command_is_high_for_one_cycle_and_only_where_its_byte_is_marked():
    dut = Registers()
    seen = Sink(
        SimpleNamespace(
            valid=dut.file.CONTROL_start, ready=dut.file.lock, payload=dut.file.CONTROL_soft_reset
        ),
        ready=lambda cycle: True,
        hold=False,
    )
    assert write(dut, [(0x10, 1, 15), (0x10, 3, 14), (0x10, 3, 1)], agents=[seen]) == [OKAY] * 3
    assert seen.payloads == [0, 1]


def test_an_event_in_the_cycle_of_its_clearing_is_not_lost():
    # Address and data are taken in cycle 40, so the field is cleared at the end of cycle 41.
    found = []
    for cycle in range(40, 44):
        dut = Registers()
        after = Sink(dut.r, 1)
        simulate(
            dut,
            Script(dut.file.IRQ_PENDING_error_set, {cycle: 1}),
            Constant((dut.b.ready, 1)),
            Source(dut.aw, [0x24], begin=40),
            Source(dut.w, [2 | 15 << 32], begin=40),
            Source(dut.ar, [0x24], begin=90),
            after,
        )
        found.append(after.payloads[0] >> 1)
    assert found == [0, 1, 1, 1]


def test_the_high_half_of_a_counter_is_of_the_moment_at_which_the_low_half_was_read():
    dut = Registers()
    count = dut.file.COUNT_CYCLES_value
    low, high = 0x100, 0x104
    after = Sink(dut.r, 4)
    values = {cycle: (7 << 32 | 1) if cycle < 20 else (8 << 32 | 2) for cycle in range(200)}
    simulate(
        dut,
        Script(count, values),
        Source(dut.ar, [low], begin=5),
        Source(dut.ar, [high], begin=30),
        Source(dut.ar, [low, high], begin=60),
        after,
    )
    assert after.payloads == [1, 7, 2, 8]
