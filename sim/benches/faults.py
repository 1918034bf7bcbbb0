"""The cocotb bench of the fault campaign: flips bits in an engine's memories, and runs.

``PRAP_JOB`` names a folder with ``job.json``, which :mod:`tests.fault_campaign` writes. Bench and
engine are in ``sim/benches/faults.sv``, which loads and runs by itself; Python comes in between. A
line of ``results.jsonl`` tells of each trial.
"""

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge

from sim.builds.memories import Memory

LOAD, RUN = 1, 2
"""Values of ``command``."""

TOLD = ("kind", "space", "cycles", "outputs", "wrong", "late", "hung")
"""Facts that the bench tells of a load or run."""


class Bench:
    """The bench's ports."""

    def __init__(self, dut: Any):
        self.dut = dut

    async def reset(self) -> None:
        """Reset the engine, for two cycles."""
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 2)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 1)

    async def do(self, command: int) -> dict[str, int]:
        """Load or run; what is told of it."""
        self.dut.command.value = command
        await ClockCycles(self.dut.clk, 1)
        self.dut.command.value = 0
        await ClockCycles(self.dut.clk, 1)
        if not self.dut.finished.value:
            await RisingEdge(self.dut.finished)
        await ClockCycles(self.dut.clk, 1)
        return {name: int(getattr(self.dut, name).value) for name in TOLD}


def flip(word: Any, bit: int) -> None:
    """Flip a bit of a word of a memory."""
    word.value = int(word.value) ^ 1 << bit


@cocotb.test()
async def campaign(dut: Any) -> None:
    """All trials of the job: ``flips`` of bits in memories, ``damages`` of words on their way."""
    folder = Path(os.environ["PRAP_JOB"])
    job = json.loads((folder / "job.json").read_text())
    Clock(dut.clk, 2, unit="ns", impl="gpi").start()
    for name in ("command", "rst"):
        getattr(dut, name).value = 0
    for name, values in job["contents"].items():
        for number, value in enumerate(values):
            getattr(dut, name)[number].value = int(value, 16)
    for name, value in job["counts"].items():
        getattr(dut, name).value = value
    await ClockCycles(dut.clk, 2)
    bench = Bench(dut)
    memories = [Memory(**fields).of(dut.dut) for fields in job["memories"]]
    flags = [Memory(**fields).of(dut.dut) for fields in job["flags"]]

    async def anew() -> None:
        """Reset, and load everything through the streams: what a host does after a fault."""
        await bench.reset()
        await bench.do(LOAD)

    with (folder / "results.jsonl").open("w") as results:

        def tell(**found: Any) -> None:
            results.write(json.dumps(found) + "\n")
            results.flush()

        await anew()
        tell(run=await bench.do(RUN))
        for flag in flags:
            assert not flag.value, "expected no read outside a memory in a run that is right"
        for number, address, bit in job["flips"]:
            flip(memories[number][address], bit)
            run = await bench.do(RUN)
            await anew()
            tell(run=run, after=await bench.do(RUN))
        for number, value in job["damages"]:
            word = dut.words[number]
            right = int(word.value)
            await bench.reset()
            word.value = int(value, 16)
            await ClockCycles(dut.clk, 1)
            load = await bench.do(LOAD)
            run = load if load["kind"] or load["hung"] else await bench.do(RUN)
            run["outside"] = sum(int(flag.value) for flag in flags)
            for flag in flags:
                flag.value = 0
            word.value = right
            await ClockCycles(dut.clk, 1)
            await anew()
            tell(run=run, after=await bench.do(RUN))
