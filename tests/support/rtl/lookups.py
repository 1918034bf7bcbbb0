"""Lookups of codes in tables, and the lookup stage held against them."""

import random

import numpy as np

from prap_hw.accelerator.lookup import LookupStage
from prap_hw.common.layouts import Layouts, Space
from refmodel.config import LOOKUPS, EngineConfig
from tests.support.rtl.bench import Agent, Constant, Script, Sink, Source, simulate

TABLES = np.random.default_rng(3).integers(0, 256, (5, 256))

CONFIG = EngineConfig(network=True, max_tables=len(TABLES))

LAYOUTS = Layouts(CONFIG)

START = len(TABLES) * 256 + 2
"""Cycle of the start, behind the load."""


class Load(Agent):
    """Loads the tables, a word a cycle."""

    def __init__(self, dut):
        self.port = dut.i_load

    def drive(self, ctx, cycle):
        ctx.set(self.port.valid, cycle < TABLES.size)
        if cycle < TABLES.size:
            ctx.set(self.port.payload.space, Space.LOOKUP)
            ctx.set(self.port.payload.addr, cycle)
            ctx.set(self.port.payload.data, int(TABLES.reshape(-1)[cycle]))


def run(codes: list[int], lookup: str, first: int, channels: int, **options) -> Sink:
    """Give codes from the cycle after the start on."""
    dut = LookupStage(CONFIG)
    stall, seed = options.get("stall", 0.0), options.get("seed", 0)
    source = Source(dut.i, codes, stall=stall, seed=seed, begin=START + 1)
    sink = Sink(dut.o, len(codes), stall=stall, seed=seed + 1)
    values = {"lookup": LOOKUPS.index(lookup), "first_table": first, "last_channel": channels - 1}
    constants = Constant(*((dut.registers[name], value) for name, value in values.items()))
    simulate(dut, constants, Load(dut), Script(dut.start, {START: 1}), source, sink)
    return sink


def check_codes_are_looked_up_one_cycle_later(seed: int) -> None:
    draw = random.Random(seed)
    lookup = LOOKUPS[seed % 3]
    channels = draw.randint(2, 3)
    first = draw.randint(0, len(TABLES) - channels)
    codes = [draw.randrange(256) for _ in range(draw.randint(1, 4) * channels)]
    expected = list(codes)
    if lookup != "none":
        tables = [first + (n % channels if lookup == "channel" else 0) for n in range(len(codes))]
        expected = [int(TABLES[table, code]) for table, code in zip(tables, codes, strict=True)]
    sink = run(codes, lookup, first, channels)
    assert sink.payloads == expected
    later = START + 1 + (lookup != "none")
    assert sink.cycles == [later + n for n in range(len(codes))]
    assert run(codes, lookup, first, channels, stall=0.5, seed=seed).payloads == expected
