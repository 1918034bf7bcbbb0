"""Ends of stream ports in a cocotb bench: sources and sinks.

A stream ``x`` has the ports ``x__valid``, ``x__ready`` and ``x__payload`` (a struct is packed, its
first field lowest). Ports are read right after a rising edge, where they still have the values that
the edge has seen, and written there, which shows after it.
"""

import random
from collections.abc import Iterable

from cocotb.handle import LogicArrayObject, LogicObject
from cocotb.triggers import RisingEdge


class Driver:
    """The source of a stream.

    Parameters
    ----------
    dut
        The bench.
    name
        Name of the stream.
    stall
        Probability of a pause in a cycle in which an item could be offered.
    """

    def __init__(self, dut, name: str, *, stall: float = 0.0, separator: str = "__"):
        self.clk: LogicObject = dut.clk
        self.valid: LogicObject = getattr(dut, f"{name}{separator}valid")
        self.ready: LogicObject = getattr(dut, f"{name}{separator}ready")
        self.payload: LogicArrayObject = getattr(dut, f"{name}{separator}payload")
        self.stall = stall
        self.valid.value = 0
        self.payload.value = 0

    async def send(self, payloads: Iterable[int], wait: random.Random) -> None:
        """Send items; returns when the last one was accepted."""
        edge = RisingEdge(self.clk)
        offered = False
        for payload in payloads:
            while self.stall and wait.random() < self.stall:
                if offered:
                    self.valid.value = 0
                    offered = False
                await edge
            self.payload.value = payload
            if not offered:
                self.valid.value = 1
                offered = True
            await edge
            while not self.ready.value:
                await edge
        self.valid.value = 0


async def pausing_sink(
    clk: LogicObject, ready: LogicObject, stall: float, wait: random.Random
) -> None:
    """Take items, but not in a share ``stall`` of the cycles. Runs until it is cancelled."""
    edge = RisingEdge(clk)
    while True:
        ready.value = wait.random() >= stall
        await edge
