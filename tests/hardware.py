"""Run an engine in Amaranth's simulator: what the hardware tests share."""

import random
from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator

from prap_hw.engine import EmulatedEngine
from prap_hw.layouts import COUNTERS
from prap_hw.load import layer_image, padded_input
from refmodel.config import EngineConfig
from refmodel.cycles import predict
from refmodel.program import LayerProgram


@dataclass
class Run:
    """What an engine did with one image."""

    outputs: list[int] = field(default_factory=list)
    psums: list[int] = field(default_factory=list)
    accumulators: list[int] = field(default_factory=list)
    cycles: int = -1
    counters: dict[str, int] = field(default_factory=dict)


def run_engine(
    layer: LayerProgram,
    images: np.ndarray,
    config: EngineConfig,
    *,
    engine=None,
    stall: float = 0.0,
    seed: int = 0,
) -> list[Run]:
    """Load a layer and run images [N, H, W, C] through it, one after the other.

    ``stall`` is the probability that a source or the sink pauses in a cycle.
    """
    dut = engine if engine is not None else EmulatedEngine(config)
    image = layer_image(layer, config)
    runs: list[Run] = []
    wait = random.Random(seed)

    async def send(ctx, port, payloads):
        for payload in payloads:
            while stall and wait.random() < stall:
                await ctx.tick()
            ctx.set(port.payload.as_value(), payload)
            ctx.set(port.valid, 1)
            await ctx.tick().until(port.ready)
            ctx.set(port.valid, 0)

    async def host(ctx):
        await send(ctx, dut.i_load, image.words)
        await send(ctx, dut.i_cells, image.beats)
        for codes in images:
            data = padded_input(layer, codes).tolist()
            await send(ctx, dut.i_acts, [b | (i == len(data) - 1) << 8 for i, b in enumerate(data)])
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            run = Run()
            runs.append(run)
            expected = layer.positions * layer.out_shape[2]
            cycle = 0
            limit = 20 * predict(layer, config).cycles + 1000
            while len(run.outputs) < expected:
                ctx.set(dut.o.ready, not (stall and wait.random() < stall))
                cycle += 1
                _, _, valid, ready, payload, pv, pp, av, ap = await ctx.tick().sample(
                    dut.o.valid,
                    dut.o.ready,
                    dut.o.payload,
                    dut.trace_psum.valid,
                    dut.trace_psum.payload,
                    dut.trace_acc.valid,
                    dut.trace_acc.payload,
                )
                run.psums += [item.sum for lane, item in enumerate(pp) if pv >> lane & 1]
                if av:
                    run.accumulators.append(ap.acc)
                if valid and ready:
                    run.outputs.append(payload.code)
                assert cycle < limit, f"hung after {len(run.outputs)} of {expected} outputs"
            run.cycles = cycle
            assert not ctx.get(dut.busy)
            run.counters = {name: ctx.get(getattr(dut.counters, name)) for name in COUNTERS}

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(host)
    simulator.run()
    return runs
