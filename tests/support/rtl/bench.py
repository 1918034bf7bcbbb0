"""Agents that drive and watch a component cycle by cycle: what the tests of components share.

Cycle n is the n-th clock period: agents drive at its beginning and see what the signals were at its
end. So `a follows b by two cycles` is: b seen in cycle n, a in cycle n + 2.
"""

import random
from collections.abc import Callable, Iterable
from typing import Any

from amaranth.hdl import ResetInserter, Signal, Value
from amaranth.sim import Simulator


class Agent:
    """Drives some signals, and sees some signals, in every cycle."""

    signals: tuple[Any, ...] = ()

    def drive(self, ctx: Any, cycle: int) -> None:
        """Set inputs at the beginning of a cycle."""

    def see(self, cycle: int, *values: int) -> None:
        """Take the values of ``signals`` at the end of a cycle."""

    @property
    def done(self) -> bool:
        """Whether the simulation may end, as far as this agent goes."""
        return True


class Source(Agent):
    """Sends payloads (as integers) through a stream; pauses with the chance ``stall``.

    From cycle ``begin`` on; a later source may take the port over.
    """

    def __init__(self, port, payloads: Iterable[int], *, stall=0.0, seed=0, begin=0):
        self.port = port
        self.payloads = list(payloads)
        self.stall = stall
        self.chance = random.Random(seed)
        self.begin = begin
        self.sent: list[int] = []
        self.offering = False
        self.signals = (port.ready,)

    def drive(self, ctx, cycle):
        if cycle < self.begin:
            return
        left = self.payloads[len(self.sent) :]
        if not self.offering and left:
            self.offering = not self.stall or self.chance.random() >= self.stall
            if self.offering:
                ctx.set(Value.cast(self.port.payload), left[0])
        ctx.set(self.port.valid, self.offering)

    def see(self, cycle, *values):
        if self.offering and values[0]:
            self.sent.append(cycle)
            self.offering = False

    @property
    def done(self):
        return len(self.sent) == len(self.payloads)


class Sink(Agent):
    """Takes payloads from a stream, and checks that valid and payload hold until ready.

    ``ready`` says in which cycles it is; otherwise it pauses with the chance ``stall``. ``hold``
    is False where the stream may be cut off.
    """

    def __init__(
        self,
        port,
        count: int | None = None,
        *,
        stall=0.0,
        seed=0,
        ready: Callable[[int], bool] | None = None,
        hold: bool = True,
    ):
        self.port = port
        self.count = count
        self.stall = stall
        self.chance = random.Random(seed)
        self.ready = ready
        self.hold = hold
        self.taken: list[tuple[int, int]] = []
        self.waiting: int | None = None
        self.signals = (port.valid, port.ready, Value.cast(port.payload))

    def drive(self, ctx, cycle):
        if self.ready is not None:
            ctx.set(self.port.ready, self.ready(cycle))
        else:
            ctx.set(self.port.ready, not self.stall or self.chance.random() >= self.stall)

    def see(self, cycle, *values):
        valid, ready, payload = values
        if self.hold and self.waiting is not None:
            assert valid, f"valid fell in cycle {cycle} before ready"
            assert payload == self.waiting, f"payload changed in cycle {cycle} before ready"
        self.waiting = payload if valid and not ready else None
        if valid and ready:
            self.taken.append((cycle, payload))

    @property
    def cycles(self) -> list[int]:
        return [cycle for cycle, _ in self.taken]

    @property
    def payloads(self) -> list[int]:
        return [payload for _, payload in self.taken]

    @property
    def done(self):
        return self.count is None or len(self.taken) >= self.count


class Script(Agent):
    """Sets a signal to ``values[cycle]``, or to 0 where there is none."""

    def __init__(self, signal, values: dict[int, int]):
        self.signal = Value.cast(signal)
        self.values = values

    def drive(self, ctx, cycle):
        ctx.set(self.signal, self.values.get(cycle, 0))

    @property
    def done(self):
        return True


class Watch(Agent):
    """Keeps the value of a signal in every cycle."""

    def __init__(self, signal):
        self.signals = (Value.cast(signal),)
        self.values: list[int] = []

    def see(self, cycle, *values):
        self.values.append(values[0])


class Constant(Agent):
    """Sets signals once, before the first cycle."""

    def __init__(self, *pairs: tuple[Any, int]):
        self.pairs = pairs

    def drive(self, ctx, cycle):
        if cycle == 0:
            for signal, value in self.pairs:
                ctx.set(Value.cast(signal), value)


def simulate(dut, *agents: Agent, cycles: int | None = None, limit: int = 20_000, reset=None):
    """Run until every agent is done and five more cycles, or for ``cycles`` cycles.

    ``reset``, if given, is the set of cycles in which the component is reset.
    """
    rst = Signal()
    simulator = Simulator(dut if reset is None else ResetInserter(rst)(dut))
    simulator.add_clock(1e-6)

    async def testbench(ctx):
        cycle = more = 0
        while more < 6 if cycles is None else cycle < cycles:
            for agent in agents:
                agent.drive(ctx, cycle)
            if reset is not None:
                ctx.set(rst, cycle in reset)
            _, _, *values = await ctx.tick().sample(
                *(signal for agent in agents for signal in agent.signals)
            )
            at = 0
            for agent in agents:
                agent.see(cycle, *values[at : at + len(agent.signals)])
                at += len(agent.signals)
            cycle += 1
            more = more + 1 if all(agent.done for agent in agents) else 0
            assert cycle < limit, f"not done after {limit} cycles"

    simulator.add_testbench(testbench)
    simulator.run()
