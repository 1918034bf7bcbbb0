"""Faults of a tile: of any of its engines, of the shares, and of who takes part."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from amaranth.hdl import ResetInserter, Signal, Value
from amaranth.sim import Simulator

import prap_hw.tile.tile
from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Layouts, Space, TileLayouts
from prap_hw.deliver.load import LayerImage, padded_input, tile_image
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict.deal import deal
from refmodel.predict.tile import tile_config_for
from refmodel.program.layer import LayerProgram
from tests.support.layers.hand import TINY_ENGINE, hand_codes, hand_layer
from tests.support.rtl.faulty import LIMIT, STANDS
from tests.support.rtl.mutants import Mutant, apply

ENGINES = 3
"""The third has no part in the layer."""


@dataclass(frozen=True, eq=False)
class Given:
    """A layer of one group of two patterns, which two engines share."""

    layer: LayerProgram
    config: EngineConfig
    image: LayerImage
    acts: list[int]
    expected: list[int]


@cache
def given() -> Given:
    layer = hand_layer([[(3, 2)]], outputs=3, positions=2, seed=5)
    config = tile_config_for([layer], ENGINES, TINY_ENGINE)
    parts = deal(layer, ENGINES, config)
    assert [part is not None for part in parts] == [True, True, False]
    codes = hand_codes(layer, seed=3)
    data = padded_input(layer, codes[0]).tolist()
    return Given(
        layer,
        config,
        tile_image(layer, parts, config),
        [byte | (i == len(data) - 1) << 8 for i, byte in enumerate(data)],
        golden.run_layer(layer, codes).reshape(-1).tolist(),
    )


def word(space: Space, addr: int, bits: int, engine: int = 0) -> int:
    item: dict[Any, Any] = {"space": space, "addr": addr, "data": bits, "engine": engine}
    return TileLayouts(given().config, ENGINES).load.const(item).as_bits()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is wrong: words that are loaded last, bits that are flipped; the fault that it is.

    A flip is (space, which of its memories, address, bit).
    """

    words: tuple[int, ...] = ()
    flips: tuple[tuple[Space, int, int, int], ...] = ()
    fault: tuple[Fault, Space] | None = None


def trials() -> dict[str, list[Trial]]:
    layouts = Layouts(given().config)
    header: dict[Any, Any] = {"kept": 1, "first_output": 0, "last_output": 3, "write": 1}
    return {
        "shares": [
            Trial(
                flips=((Space.SHARE, 0, bit % 3, bit),),
                fault=(Fault.PARITY, Space.SHARE),
            )
            for bit in range(ENGINES + 1)
        ],
        "engines": [
            Trial(
                flips=((space, engine, 0, 0),),
                fault=(Fault.PARITY, space),
            )
            for engine in (0, 1)
            for space in (Space.DESCRIPTOR, Space.HEADER, Space.WORD, Space.TABLE)
        ],
        "parameters": [
            Trial(flips=((Space.OUTPUT, 0, 1, 3),), fault=(Fault.PARITY, Space.OUTPUT)),
        ],
        "idle": [
            # An idle engine reads none of its words.
            Trial(flips=((Space.DESCRIPTOR, 2, 0, 0), (Space.HEADER, 2, 0, 1))),
        ],
        "a share of an idle engine": [
            Trial(words=(word(Space.SHARE, 1, 0b011),)),
            Trial(words=(word(Space.SHARE, 1, 0b111),), fault=(Fault.RANGE, Space.SHARE)),
        ],
        "engine 0 is idle": [
            Trial(words=(word(Space.ENGINES, 0, 0b010),), fault=(Fault.RANGE, Space.ENGINES)),
        ],
        "a header of engine 1": [
            Trial(
                words=(word(Space.HEADER, 0, layouts.header.const(header).as_bits(), 1),),
                fault=(Fault.RANGE, Space.HEADER),
            ),
        ],
    }


def check(name: str) -> None:
    """Run the trials of a name; behind each that has a fault, a reset and a run that is right."""
    here = given()
    dut = prap_hw.tile.tile.EmulatedTile(here.config, ENGINES)
    reset = Signal()
    simulator = Simulator(ResetInserter(reset)(dut))
    simulator.add_clock(1e-6)

    async def send(ctx, port, payloads) -> None:
        for payload in payloads:
            ctx.set(port.payload.as_value(), payload)
            ctx.set(port.valid, 1)
            await ctx.tick().until(port.ready)
            ctx.set(port.valid, 0)

    async def run(ctx, trial: Trial) -> None:
        await send(ctx, dut.i_load, [*here.image.words, *trial.words])
        for space, number, addr, bit in trial.flips:
            row = Value.cast(dut.tile.memories[space][number].contents[addr])
            ctx.set(row, ctx.get(row) ^ 1 << bit)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.o.ready, 1)
        outputs = []
        for _ in range(LIMIT):
            _, _, busy, valid, code, fault = await ctx.tick().sample(
                dut.busy, dut.o.valid, dut.o.payload.code, dut.fault
            )
            if fault.kind != Fault.NONE:
                assert (fault.kind, fault.space) == trial.fault
                assert not valid
                await stand(ctx)
                break
            if valid:
                outputs.append(code)
            if not busy:
                assert trial.fault is None, "no fault"
                assert len(outputs) == len(here.expected)
                break
        else:
            raise AssertionError("hung")
        assert outputs == here.expected[: len(outputs)]

    async def stand(ctx) -> None:
        busy = ctx.get(dut.busy)
        ports = dut.tile.crossbar
        for _ in range(STANDS):
            for signal in (dut.i_load.valid, dut.i_cells.valid, dut.i_acts.valid, dut.start):
                ctx.set(signal, 1)
            _, _, *values = await ctx.tick().sample(
                dut.o.valid,
                *(port.request.valid for port in ports),
                *(port.program.valid for port in ports),
                dut.i_load.ready,
                dut.i_cells.ready,
                dut.i_acts.ready,
                dut.busy ^ busy,
            )
            assert not any(values), values
        for signal in (dut.i_load.valid, dut.i_cells.valid, dut.i_acts.valid, dut.start):
            ctx.set(signal, 0)

    async def testbench(ctx):
        await send(ctx, dut.i_cells, here.image.beats)
        await send(ctx, dut.i_acts, here.acts)
        for trial in [*trials()[name], Trial()]:
            await run(ctx, trial)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            # Nothing that a trial left behind is in the way of the next one.
            await send(ctx, dut.i_load, [word(Space.ENGINES, 0, 0)])

    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("name", trials())
def test_a_fault_of_any_part_stops_the_whole_tile_until_reset(name):
    check(name)


MUTANTS: list[tuple[str, str, tuple[str, str], str]] = [
    ("tile", "parity of shares", ("valid & shares.wrong", "0"), "shares"),
    (
        "tile",
        "shares of idle engines",
        ("valid & (shares.word & ~self.active).any()", "0"),
        "a share of an idle engine",
    ),
    ("tile", "engine 0 idle", ("self.start & ~reduction.active[0]", "0"), "engine 0 is idle"),
    (
        "tile",
        "faults of engine 0 alone",
        ("reduce(or_, (core.faults for core in cores))", "cores[0].faults"),
        "engines",
    ),
    (
        "engine",
        "the engines go on",
        ("core.halted.eq(faults.halted)", "core.halted.eq(0)"),
        "engines",
    ),
    (
        "tile",
        "one engine stops",
        ("*(core.halted.eq(self.halted) for core in cores)", "cores[0].halted.eq(self.halted)"),
        "engines",
    ),
    (
        "engine",
        "outputs go on",
        ("requantise.o.valid & ~faults.halted", "requantise.o.valid"),
        "parameters",
    ),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "what", "edit", "name"), MUTANTS, ids=[what for _, what, _, _ in MUTANTS]
)
def test_the_mutant_is_caught(monkeypatch, module, what, edit, name):
    apply(monkeypatch, Mutant(module, what, (edit,), ""))
    with pytest.raises(AssertionError):
        check(name)
