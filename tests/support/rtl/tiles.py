"""Run a tile in Amaranth's simulator: what the tests of tiles share."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator

from prap_hw.common.layouts import CORE_COUNTERS
from prap_hw.deliver.load import padded_input, tile_image
from prap_hw.tile.tile import EmulatedTile
from refmodel.config import EngineConfig
from refmodel.predict.deal import LayerPart, deal
from refmodel.predict.tile import predict_tile
from refmodel.program.layer import LayerProgram
from tests.support.rtl.hardware import send


@dataclass
class TileRun:
    """Results of a tile for one image; lists of lists are per engine."""

    outputs: list[int] = field(default_factory=list)
    accumulators: list[int] = field(default_factory=list)
    psums: list[list[int]] = field(default_factory=list)
    cycles: int = -1
    counters: dict[str, int] = field(default_factory=dict)
    engines: list[dict[str, int]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class TileWork:
    """A layer to load, dealt out, and images [N, H, W, C] to run through it.

    ``stall`` is the probability that a source or the sink pauses in a cycle; ``pauses`` are, to
    each image that has any, cycles after start in which the sink is not ready.
    """

    layer: LayerProgram
    images: np.ndarray
    stall: float = 0.0
    pauses: Sequence[range] = ()
    parts: Sequence[LayerPart | None] | None = None


def run_tile(
    work: Sequence[TileWork], config: EngineConfig, engines: int, *, tile=None, seed: int = 0
) -> list[list[TileRun]]:
    """Run layers on one tile, which is elaborated once."""
    dut = EmulatedTile(config, engines) if tile is None else tile
    results: list[list[TileRun]] = []
    wait = random.Random(seed)

    async def host(ctx):
        for item in work:
            parts = deal(item.layer, engines, config) if item.parts is None else item.parts
            image = tile_image(item.layer, parts, config)
            await send(ctx, dut.i_load, image.words, item.stall, wait)
            await send(ctx, dut.i_cells, image.beats, item.stall, wait)
            results.append([])
            for number, codes in enumerate(item.images):
                data = padded_input(item.layer, codes).tolist()
                acts = [byte | (i == len(data) - 1) << 8 for i, byte in enumerate(data)]
                await send(ctx, dut.i_acts, acts, item.stall, wait)
                results[-1].append(await run_image(ctx, item, number, parts))

    async def run_image(ctx, item: TileWork, number: int, parts) -> TileRun:
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        pauses = item.pauses[number] if item.pauses else ()
        run = TileRun(psums=[[] for _ in range(engines)])
        expected = item.layer.positions * item.layer.out_shape[2]
        cycle = 0
        limit = 20 * predict_tile(parts, config).cycles + 1000
        while len(run.outputs) < expected:
            cycle += 1
            paused = item.stall and wait.random() < item.stall
            ctx.set(dut.o.ready, not paused and cycle not in pauses)
            _, _, valid, ready, payload, av, ap, *psums = await ctx.tick().sample(
                dut.o.valid,
                dut.o.ready,
                dut.o.payload,
                dut.trace_acc.valid,
                dut.trace_acc.payload,
                *(port.valid for port in dut.trace_psum),
                *(port.payload for port in dut.trace_psum),
            )
            for n in range(engines):
                lanes, values = psums[n], psums[engines + n]
                if lanes:
                    run.psums[n] += [v.sum for i, v in enumerate(values) if lanes >> i & 1]
            if av:
                run.accumulators.append(ap.acc)
            if valid and ready:
                run.outputs.append(payload.code)
            assert cycle < limit, f"hung after {len(run.outputs)} of {expected} outputs"
        run.cycles = cycle
        assert not ctx.get(dut.busy)
        assert not ctx.get(dut.o.valid), "an output too many"
        run.counters = {
            name: ctx.get(getattr(dut.counters, name)) for name in ("cycles", "outputs")
        }
        run.engines = [
            {name: ctx.get(getattr(each, name)) for name in CORE_COUNTERS}
            for each in dut.engine_counters
        ]
        return run

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(host)
    simulator.run()
    return results
