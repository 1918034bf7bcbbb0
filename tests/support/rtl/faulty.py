"""Run an engine with a fault in its program or at its port: what the tests of faults share."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from amaranth import Module, Signal, Value
from amaranth.hdl import ResetInserter
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.sim import Simulator

from prap_hw.common import crossbar
from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Layouts, Space
from prap_hw.deliver.load import layer_image, padded_input
from prap_hw.engine import engine
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.program.layer import LayerProgram
from tests.support.layers.hand import hand_codes

STANDS = 12
"""Cycles for which an engine with a fault is watched."""

LIMIT = 3000
"""Cycles of a run, at most."""

Key = tuple[Space, int]
Words = dict[Key, int]


class Gated(wiring.Component):
    """An engine and its emulated crossbars, with gates between them.

    ``hold_request`` keeps requests from the crossbars, ``hold_response`` answers from the engine,
    and ``hold_program`` rows of cells from the crossbars.
    """

    i_load: Any
    i_cells: Any
    i_acts: Any
    start: Any
    busy: Any
    fault: Any
    o: Any

    def __init__(self, config: EngineConfig):
        self.config = config
        members = engine.host_members(config)
        super().__init__(members)
        self.hold_request = Signal()
        self.hold_response = Signal()
        self.hold_program = Signal()
        self.offered = Signal()
        self.stands = Signal()

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.engine = self.engine = inner = engine.Engine(self.config)
        m.submodules.crossbar = outer = crossbar.EmulatedCrossbar(self.config)
        engine.pass_through(m, engine.host_members(self.config), inner, self)
        ours, theirs = inner.crossbar, outer.port
        # Crossbars that take every request, whether they answer or not.
        layout = theirs.response.payload.shape()
        m.submodules.answers = answers = SyncFIFOBuffered(
            width=layout.size, depth=self.config.requests_in_flight + 4
        )
        m.d.comb += [
            answers.w_en.eq(theirs.response.valid),
            answers.w_data.eq(theirs.response.payload),
            theirs.response.ready.eq(answers.w_rdy),
            ours.response.valid.eq(answers.r_rdy & ~self.hold_response),
            ours.response.payload.eq(answers.r_data),
            answers.r_en.eq(ours.response.ready & ~self.hold_response),
        ]
        moves = Signal()
        waiting = Signal(range(self.config.requests_in_flight + 2))
        asked = ours.request.valid & ours.request.ready
        answered = ours.response.valid & ours.response.ready
        m.d.sync += waiting.eq(waiting + asked - answered)
        for a, b, hold in (
            (ours.request, theirs.request, self.hold_request),
            (ours.program, theirs.program, self.hold_program),
        ):
            m.d.comb += [
                b.valid.eq(a.valid & ~hold),
                b.payload.eq(a.payload),
                a.ready.eq(b.ready & ~hold),
            ]
        offered = ours.request.valid | ours.program.valid
        m.d.comb += [
            moves.eq(asked | answered | (ours.program.valid & ours.program.ready)),
            self.offered.eq(offered),
            self.stands.eq((offered | (waiting != 0)) & ~moves),
        ]
        return m


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A run, and what is wrong in it.

    Attributes
    ----------
    words
        Program words to load instead of the layer's, by space and address.
    flips
        (space, which of its memories, address, bit) to flip before the run.
    """

    words: Mapping[Key, int] = field(default_factory=dict)
    flips: tuple[tuple[Space, int, int, int], ...] = ()


@dataclass
class Outcome:
    """Outcome of a run: the first fault, or None, and the outputs up to there."""

    fault: tuple[Fault, Space] | None
    outputs: list[int]


@dataclass(frozen=True, eq=False)
class Case:
    """A layer, an engine, and the words that load the one into the other."""

    layer: LayerProgram
    config: EngineConfig

    @cached_property
    def codes(self) -> np.ndarray:
        return hand_codes(self.layer, seed=3)

    @cached_property
    def expected(self) -> list[int]:
        return golden.run_layer(self.layer, self.codes).reshape(-1).tolist()

    @cached_property
    def words(self) -> Words:
        load = Layouts(self.config).load
        result = {}
        for bits in layer_image(self.layer, self.config).words:
            item = load.from_bits(bits)
            result[Space(item["space"]), item["addr"]] = item["data"]
        return result

    def register(self, name: str) -> Key:
        """Where a layer register is loaded."""
        names = [name for name, _ in Layouts(self.config).registers]
        return Space.REGISTER, names.index(name)

    def change(self, key: Key, **fields: int) -> Words:
        """The word with other values of some fields."""
        layouts = Layouts(self.config)
        structs: dict[Space, Any] = {
            Space.DESCRIPTOR: layouts.descriptor,
            Space.OFFSET: layouts.offset,
            Space.HEADER: layouts.header,
            Space.WORD: layouts.word,
        }
        bits = self.words[key]
        for name, value in fields.items():
            place = structs[key[0]][name]
            assert value >> place.width == 0, f"{name} has no room for {value}"
            bits &= ~(((1 << place.width) - 1) << place.offset)
            bits |= value << place.offset
        return {key: bits}

    def run(self, trials: Iterable[Trial]) -> list[Outcome]:
        """Run trials one after the other, with a reset and a new program behind each.

        A run that ends in a fault is watched for some cycles, in which everything is offered to the
        engine and taken from it.
        """
        dut = engine.EmulatedEngine(self.config)
        reset = Signal()
        simulator = Simulator(ResetInserter(reset)(dut))
        simulator.add_clock(1e-6)
        outcomes: list[Outcome] = []
        image = layer_image(self.layer, self.config)
        data = padded_input(self.layer, self.codes[0]).tolist()
        load = Layouts(self.config).load

        async def testbench(ctx):
            for port, payloads in (
                (dut.i_cells, image.beats),
                (dut.i_acts, [b | (i == len(data) - 1) << 8 for i, b in enumerate(data)]),
            ):
                for payload in payloads:
                    ctx.set(port.payload.as_value(), payload)
                    ctx.set(port.valid, 1)
                    await ctx.tick().until(port.ready)
                    ctx.set(port.valid, 0)
            for trial in trials:
                await program(ctx, {**self.words, **trial.words})
                for space, number, addr, bit in trial.flips:
                    row = Value.cast(dut.engine.memories[space][number].contents[addr])
                    ctx.set(row, ctx.get(row) ^ 1 << bit)
                outcomes.append(await run(ctx))
                ctx.set(reset, 1)
                await ctx.tick()
                ctx.set(reset, 0)

        async def program(ctx, words: Words) -> None:
            for (space, addr), bits in words.items():
                item: dict[Any, Any] = {"space": space, "addr": addr, "data": bits}
                ctx.set(dut.i_load.payload.as_value(), load.const(item).as_bits())
                ctx.set(dut.i_load.valid, 1)
                await ctx.tick().until(dut.i_load.ready)
            ctx.set(dut.i_load.valid, 0)

        async def run(ctx) -> Outcome:
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.o.ready, 1)
            outcome = Outcome(None, [])
            for _ in range(LIMIT):
                _, _, busy, valid, payload, fault = await ctx.tick().sample(
                    dut.busy, dut.o.valid, dut.o.payload, dut.fault
                )
                if fault.kind != Fault.NONE:
                    outcome.fault = (fault.kind, fault.space)
                    assert not valid, "an output beside a fault"
                    await stand(ctx, dut, fault)
                    return outcome
                if valid:
                    outcome.outputs.append(payload.code)
                if not busy:
                    return outcome
            raise AssertionError(f"hung after {len(outcome.outputs)} outputs")

        simulator.add_testbench(testbench)
        simulator.run()
        return outcomes


async def stand(ctx, dut: Any, fault: Any) -> None:
    """Check that an engine with a fault does nothing, whatever is offered and taken."""
    busy = ctx.get(dut.busy)
    inner = dut.engine
    for _ in range(STANDS):
        for signal in (dut.i_load.valid, dut.i_cells.valid, dut.i_acts.valid, dut.start):
            ctx.set(signal, 1)
        _, _, *values = await ctx.tick().sample(
            dut.o.valid,
            inner.crossbar.request.valid,
            inner.crossbar.program.valid,
            dut.i_load.ready,
            dut.i_cells.ready,
            dut.i_acts.ready,
            dut.busy ^ busy,
            dut.fault.as_value() ^ fault.as_bits(),
        )
        assert not any(values), values
    for signal in (dut.i_load.valid, dut.i_cells.valid, dut.i_acts.valid, dut.start):
        ctx.set(signal, 0)


def port_run(
    case: Case, hold: Callable[[Gated], Signal], cycles: int
) -> tuple[Fault, int, list[int]]:
    """Load and run with a gate closed from its first use on, until the port stood for ``cycles``.

    Returns
    -------
    The fault's kind; cycles from the first one in which the port stood for good to the fault, 0
    without one; the outputs.
    """
    dut = Gated(case.config)
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    image = layer_image(case.layer, case.config)
    data = padded_input(case.layer, case.codes[0]).tolist()
    acts = [b | (i == len(data) - 1) << 8 for i, b in enumerate(data)]
    outputs: list[int] = []
    found = [Fault.NONE, 0]
    done = []

    async def host(ctx):
        for port, payloads in (
            (dut.i_load, image.words),
            (dut.i_acts, acts),
            (dut.i_cells, image.beats),
        ):
            for payload in payloads:
                ctx.set(port.payload.as_value(), payload)
                ctx.set(port.valid, 1)
                for _ in range(LIMIT):
                    _, _, ready, fault = await ctx.tick().sample(port.ready, dut.fault)
                    if ready or fault.kind != Fault.NONE:
                        break
                ctx.set(port.valid, 0)
                if ctx.get(dut.fault).kind != Fault.NONE:
                    await stand(ctx, dut, ctx.get(dut.fault))
                    done.append(True)
                    return
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.o.ready, 1)
        for _ in range(LIMIT):
            _, _, valid, payload, fault = await ctx.tick().sample(
                dut.o.valid, dut.o.payload, dut.fault
            )
            if fault.kind != Fault.NONE:
                await stand(ctx, dut, fault)
                break
            if valid:
                outputs.append(payload.code)
            if len(outputs) == len(case.expected):
                break
        done.append(True)

    async def gate(ctx):
        signal = hold(dut)
        ctx.set(signal, 1)
        stood = total = 0
        while not done:
            _, _, stands, fault = await ctx.tick().sample(dut.stands, dut.fault)
            if fault.kind != Fault.NONE and found[0] == Fault.NONE:
                found[:] = [fault.kind, total]
            stood = stood + 1 if stands else 0
            total = stood if stands else total
            if stood == cycles:
                ctx.set(signal, 0)

    simulator.add_testbench(host)
    simulator.add_testbench(gate, background=True)
    simulator.run()
    return found[0], found[1], outputs
