"""Run an engine in Amaranth's simulator: what the hardware tests share."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator

from prap_hw.common.faults import Fault
from prap_hw.common.layouts import COUNTERS
from prap_hw.deliver.load import layer_image, padded_input
from prap_hw.engine.engine import EmulatedEngine
from refmodel.config import EngineConfig
from refmodel.predict.cycles import predict
from refmodel.program.layer import LayerProgram


@dataclass
class Run:
    """Results of an engine for one image."""

    outputs: list[int] = field(default_factory=list)
    psums: list[int] = field(default_factory=list)
    accumulators: list[int] = field(default_factory=list)
    cycles: int = -1
    counters: dict[str, int] = field(default_factory=dict)


class StoppedError(Exception):
    """A fault stopped the engine: its kind and space."""


@dataclass(frozen=True, eq=False)
class Work:
    """A layer to load, images [N, H, W, C] to run through it, one after the other.

    ``stall`` is the probability that a source or the sink pauses in a cycle.
    """

    layer: LayerProgram
    images: np.ndarray
    stall: float = 0.0


def run_engine(
    layer: LayerProgram,
    images: np.ndarray,
    config: EngineConfig,
    *,
    engine=None,
    stall: float = 0.0,
    seed: int = 0,
) -> list[Run]:
    """Load a layer and run images [N, H, W, C] through it, one after the other."""
    (runs,) = run_layers([Work(layer, images, stall)], config, engine=engine, seed=seed)
    return runs


async def send(ctx, port, payloads, stall: float, wait: random.Random) -> None:
    """Send payloads into a stream, which pauses in a share of the cycles."""
    for payload in payloads:
        while stall and wait.random() < stall:
            await ctx.tick()
        ctx.set(port.payload.as_value(), payload)
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)


def run_layers(
    work: Sequence[Work], config: EngineConfig, *, engine=None, seed: int = 0
) -> list[list[Run]]:
    """Run layers on one engine, which is elaborated once."""
    dut = engine if engine is not None else EmulatedEngine(config)
    results: list[list[Run]] = []
    wait = random.Random(seed)

    async def host(ctx):
        for item in work:
            layer, stall = item.layer, item.stall
            image = layer_image(layer, config)
            await send(ctx, dut.i_load, image.words, stall, wait)
            await send(ctx, dut.i_cells, image.beats, stall, wait)
            results.append([])
            for codes in item.images:
                data = padded_input(layer, codes).tolist()
                acts = [byte | (i == len(data) - 1) << 8 for i, byte in enumerate(data)]
                await send(ctx, dut.i_acts, acts, stall, wait)
                results[-1].append(await run_image(ctx, layer, stall))

    async def run_image(ctx, layer: LayerProgram, stall: float) -> Run:
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        run = Run()
        expected = layer.positions * layer.out_shape[2]
        cycle = 0
        limit = 20 * predict(layer, config).cycles + 1000
        while len(run.outputs) < expected:
            ctx.set(dut.o.ready, not (stall and wait.random() < stall))
            cycle += 1
            _, _, fault, valid, ready, payload, pv, pp, av, ap = await ctx.tick().sample(
                dut.fault,
                dut.o.valid,
                dut.o.ready,
                dut.o.payload,
                dut.trace_psum.valid,
                dut.trace_psum.payload,
                dut.trace_acc.valid,
                dut.trace_acc.payload,
            )
            if fault.kind != Fault.NONE:
                raise StoppedError(fault.kind, fault.space)
            if pv:
                run.psums += [item.sum for lane, item in enumerate(pp) if pv >> lane & 1]
            if av:
                run.accumulators.append(ap.acc)
            if valid and ready:
                run.outputs.append(payload.code)
            assert cycle < limit, f"hung after {len(run.outputs)} of {expected} outputs"
        run.cycles = cycle
        assert not ctx.get(dut.busy)
        assert not ctx.get(dut.o.valid), "an output too many"
        run.counters = {name: ctx.get(getattr(dut.counters, name)) for name in COUNTERS}
        return run

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(host)
    simulator.run()
    return results
