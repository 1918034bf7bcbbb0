"""An image that is longer or shorter than the network's: a fault, and no endless wait."""

from pathlib import Path
from typing import Any

import pytest

import prap_hw.accelerator.accelerator
from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Layouts, Space
from prap_hw.deliver.load import network_load
from tests.support.nets.accelerator_nets import codes, program
from tests.support.rtl.accelerator_host import Host, Net
from tests.support.rtl.mutants import Mutant, apply

BYTES = 2 * 4 * 5
LENGTHS = (1, BYTES - 1, BYTES + 1, 2 * BYTES, 3 * BYTES)
"""Of packets that are not the image, two of them whole multiples of it."""

LAST = 1 << 8


async def offer(ctx: Any, host: Host, length: int, limit: int = 3 * BYTES + 60) -> tuple[int, Any]:
    """Send so many codes, the last of them with ``last``.

    Returns
    -------
    The codes that were taken, and the fault.
    """
    dut = host.dut
    sent = 0
    for _ in range(limit):
        ctx.set(dut.i_acts.valid, sent < length)
        ctx.set(dut.i_acts.payload.as_value(), sent % 256 | LAST * (sent == length - 1))
        _, _, ready, valid = await ctx.tick().sample(dut.i_acts.ready, dut.i_acts.valid)
        sent += ready & valid
    ctx.set(dut.i_acts.valid, 0)
    return sent, ctx.get(dut.fault)


def check(folder: Path, lengths: tuple[int, ...] = LENGTHS) -> None:
    """Each length ends in the fault, with the code that shows it taken; the right one does not."""
    net = Net.of(program("chain", folder, scheme="dense"))
    assert codes(net.program, 1)[0].size == BYTES
    host = Host(net)
    layout = Layouts(net.config)
    words = [
        word
        for word in network_load(net.program, net.image, net.config).words
        if layout.load.from_bits(word)["space"] == Space.COMMAND
    ]

    async def body(ctx):
        for length in lengths:
            await host.send(ctx, host.dut.i_load, words)
            taken, fault = await offer(ctx, host, length)
            assert (fault.kind, fault.space) == (Fault.RANGE, Space.IMAGE), length
            assert taken == min(length, BYTES)
            assert not ctx.get(host.dut.o.valid)
            ctx.set(host.rst, 1)
            await ctx.tick()
            ctx.set(host.rst, 0)
        await host.send(ctx, host.dut.i_load, words)
        taken, fault = await offer(ctx, host, BYTES)
        assert (taken, fault.kind) == (BYTES, Fault.NONE)

    host.simulate(body)


def test_an_image_of_another_length_is_a_fault(tmp_path):
    check(tmp_path)


MUTANTS = [
    (
        "a longer image begins the list again",
        "& (self.i_acts.payload.last != write_back.o.payload.last)",
        "& (self.i_acts.payload.last & ~write_back.o.payload.last)",
    ),
    (
        "a shorter image leaves the list waiting",
        "& (self.i_acts.payload.last != write_back.o.payload.last)",
        "& (~self.i_acts.payload.last & write_back.o.payload.last)",
    ),
    ("nothing is found", "for part in parts), image_wrong)", "for part in parts), Signal())"),
]


@pytest.mark.parametrize(("what", "old", "new"), MUTANTS, ids=[what for what, _, _ in MUTANTS])
def test_the_check_rejects_its_mutant(what, old, new, monkeypatch, tmp_path):
    apply(monkeypatch, Mutant("accelerator", what, ((old, new),), ""))
    assert prap_hw.accelerator.accelerator.Accelerator.__module__.endswith("_mutant")
    with pytest.raises(AssertionError):
        check(tmp_path)
