"""A host of the accelerator: it loads a network, sends images, and takes the outputs."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

from prap_hw.accelerator.accelerator import EmulatedAccelerator
from prap_hw.common.layouts import COUNTERS
from prap_hw.deliver.load import command_words, network_load
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict.accelerator.operations import NetworkImage
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.prediction import predict_network
from refmodel.predict.accelerator.sizing import accelerator_config_for
from refmodel.program.program import Program
from tests.support.nets.accelerator_nets import codes, program


@dataclass
class Result:
    """Result of one image: its outputs, cycles and events."""

    outputs: list[int] = field(default_factory=list)
    cycles: int = 0
    counters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Net:
    """A program, laid out for an accelerator."""

    program: Program
    config: EngineConfig
    image: NetworkImage

    @classmethod
    def of(cls, compiled: Program, engines: int = 1, **sizes: Any) -> "Net":
        options: dict[str, Any] = {"crossbar_size": 32} | sizes
        config = accelerator_config_for(compiled, EngineConfig(**options), engines)
        return cls(compiled, config, network_image(compiled, config, engines))

    @property
    def commands(self) -> int:
        return len(command_words(self.program, self.image, self.config))


class Host:
    """Loads an accelerator and runs images; pauses with the chance ``stall`` everywhere.

    ``held`` is the number of cycles after start in which no output is taken.
    """

    def __init__(self, net: Net, *, stall: float = 0.0, seed: int = 0, held: int = 0):
        self.net = net
        self.stall = stall
        self.held = held
        self.wait = random.Random(seed)
        self.dut = EmulatedAccelerator(net.config, net.commands, net.image.engines)
        self.rst = Signal()
        self.limit = 10 * predict_network(net.image, net.program.layers, net.config).cycles
        self.results: list[Result] = []

    async def send(self, ctx, port, payloads: Sequence[int]) -> None:
        for payload in payloads:
            while self.stall and self.wait.random() < self.stall:
                await ctx.tick()
            ctx.set(port.payload.as_value(), payload)
            ctx.set(port.valid, 1)
            _, _, ready = await ctx.tick().sample(port.ready)
            waited = 0
            while not ready:
                waited += 1
                assert waited < self.limit, "a loading stream is never ready"
                _, _, ready = await ctx.tick().sample(port.ready)
            ctx.set(port.valid, 0)

    async def load(self, ctx) -> None:
        loaded = network_load(self.net.program, self.net.image, self.net.config)
        await self.send(ctx, self.dut.i_load, loaded.words)
        await self.send(ctx, self.dut.i_cells, loaded.beats)

    async def send_image(self, ctx, image: np.ndarray) -> None:
        codes = image.ravel().tolist()
        codes[-1] |= 1 << 8  # last
        await self.send(ctx, self.dut.i_acts, codes)

    async def settle(self, ctx) -> None:
        """Wait until the border around the image is written."""
        await ctx.tick().until(self.dut.i_load.ready)

    async def run(self, ctx, limit: int | None = None) -> Result:
        """Start and take outputs until ``done``; one cycle more shows that nothing follows."""
        dut = self.dut
        result = Result()
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        over = False
        cycle = 0
        while not over:
            cycle += 1
            paused = self.stall and self.wait.random() < self.stall
            ctx.set(dut.o.ready, not paused and cycle > self.held)
            if cycle == limit:
                return result
            assert cycle < self.limit, f"hung after {len(result.outputs)} outputs"
            _, _, valid, ready, payload, over, busy = await ctx.tick().sample(
                dut.o.valid, dut.o.ready, dut.o.payload, dut.done, dut.busy
            )
            assert busy == (not over)
            if valid and ready:
                result.outputs.append(payload.code)
                result.cycles = cycle
                assert payload.last == (len(result.outputs) == self.wanted)
        result.counters = {name: ctx.get(getattr(dut.counters, name)) for name in COUNTERS}
        assert not ctx.get(dut.o.valid)
        assert not ctx.get(dut.done)
        return result

    async def start_first(self, ctx, image: np.ndarray) -> Result:
        """Start, and send the image a while later."""
        dut = self.dut
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        assert ctx.get(dut.busy)
        assert not ctx.get(dut.i_load.ready)
        await ctx.tick().repeat(200)
        await self.send_image(ctx, image)
        result = Result()
        ctx.set(dut.o.ready, 1)
        cycle = 0
        while not ctx.get(dut.done):
            cycle += 1
            assert cycle < self.limit, "the network does not end"
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid:
                result.outputs.append(payload.code)
        result.counters = {name: ctx.get(getattr(dut.counters, name)) for name in COUNTERS}
        return result

    @property
    def wanted(self) -> int:
        return int(np.prod(self.net.program.tensors[self.net.program.output]["shape"]))

    def simulate(self, body) -> None:
        simulator = Simulator(ResetInserter(self.rst)(self.dut))
        simulator.add_clock(1e-6)
        simulator.add_testbench(body)
        simulator.run()

    def run_images(self, images: np.ndarray) -> list[Result]:
        """Load the network and run images, one after the other."""
        results: list[Result] = []

        async def body(ctx):
            await self.load(ctx)
            for image in images:
                await self.send_image(ctx, image)
                await self.settle(ctx)
                results.append(await self.run(ctx))

        self.simulate(body)
        return results


def expected(net: Net, images: np.ndarray) -> list[list[int]]:
    tensors = golden.run_program(net.program, images)
    return tensors[net.program.output].reshape(len(images), -1).tolist()


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "functions": ("functions", {}, {}),
    "residual, fused": ("residual", {"residual": "fused"}, {}),
    "residual, separate": ("residual", {"scheme": "dense"}, {"ou_cols": 12, "adcs": 12}),
    "residual, dictionary, 2 lanes": (
        "residual",
        {"residual": "fused", "scheme": "dictionary"},
        {"merge_lanes": 2, "crossbar_latency": 7},
    ),
    "residual, dictionary, 4 positions": (
        "residual",
        {"residual": "fused", "scheme": "dictionary"},
        {"position_lanes": 4, "crossbar_latency": 7},
    ),
    "chain, 2 positions, 2 lanes": (
        "chain",
        {"scheme": "dictionary"},
        {"position_lanes": 2, "merge_lanes": 2},
    ),
    "pools": ("pools", {}, {"cell_bits": 2, "dac_bits": 2}),
    "branches": ("branches", {"scheme": "orc"}, {}),
    "chain": ("chain", {"scheme": "dense"}, {"ou_cols": 16, "adcs": 16}),
}


def check_an_image_may_come_before_a_start_or_after_it(tmp_path):
    """The last of two images counts; whenever it comes, it is no event of the run."""
    net = Net.of(program("chain", tmp_path, scheme="dense"))
    images = codes(net.program, 3)
    host = Host(net)
    results: list[Result] = []

    async def body(ctx):
        await host.load(ctx)
        for image in images[:2]:
            await host.send_image(ctx, image)
            await host.settle(ctx)
        results.append(await host.run(ctx))
        results.append(await host.start_first(ctx, images[2]))

    host.simulate(body)
    assert [result.outputs for result in results] == expected(net, images[1:])
    wanted = predict_network(net.image, net.program.layers, net.config)
    for result in results:
        assert {name: result.counters[name] for name in wanted.events} == wanted.events


LONG = (
    "functions",
    "residual, separate",
    "residual, fused",
    "residual, dictionary, 2 lanes",
    "residual, dictionary, 4 positions",
    "chain, 2 positions, 2 lanes",
    "branches",
    "pools",
)


def check_networks_compute_what_the_golden_model_does_in_the_predicted_cycles(name, tmp_path):
    kind, options, sizes = CASES[name]
    net = Net.of(program(kind, tmp_path, **options), **sizes)
    images = codes(net.program, 2)
    results = Host(net).run_images(images)
    assert [result.outputs for result in results] == expected(net, images)
    wanted = predict_network(net.image, net.program.layers, net.config)
    for result in results:
        assert result.cycles == result.counters["cycles"] == wanted.cycles
        assert result.counters == {"cycles": wanted.cycles, "stall_port": 0, **wanted.events}


def after_resets(net: Net, count: int, seed: int) -> list[bool]:
    """Run an image, reset in the middle of it, run another, ``count`` times.

    Returns
    -------
    Whether codes, cycles and counters of the other one were right each time.
    """
    images = codes(net.program, 2)
    wanted = predict_network(net.image, net.program.layers, net.config)
    when = random.Random(seed)
    host = Host(net)
    results: list[Result] = []

    async def body(ctx):
        await host.load(ctx)
        for _ in range(count):
            await host.send_image(ctx, images[0])
            await host.settle(ctx)
            await host.run(ctx, limit=when.randrange(1, wanted.cycles))
            ctx.set(host.rst, 1)
            await ctx.tick()
            ctx.set(host.rst, 0)
            assert not ctx.get(host.dut.busy)
            # The memories of all engines keep program and cells.
            await host.send_image(ctx, images[1])
            await host.settle(ctx)
            results.append(await host.run(ctx))

    host.simulate(body)
    (values,) = expected(net, images[1:])
    counters = {"cycles": wanted.cycles, "stall_port": 0, **wanted.events}
    return [
        result.outputs == values and result.cycles == wanted.cycles and result.counters == counters
        for result in results
    ]
