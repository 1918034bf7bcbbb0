"""Energy, latency and area of a network on the engine, from the events of the RTL.

Every event of :mod:`refmodel.cost.events` is charged, and so are the clock, leakage, control, and
the copies that merge lanes need: nothing of the digital side is free. With P bits of a partial sum,
W bits of an accumulator, Q bits that are kept of a segment for the other positions of its block,
``add``, ``shift``, ``reg`` joules a bit, ``mul`` joules a bit of each factor, and ``sram``,
``act``, ``idx`` joules a bit of a memory of its capacity::

    adc               conversions * (adc(code bits) + sample)
    crossbar          cells_read * cell
    wordlines         wordline_drives * (drive(dac bits) + dac bits * reg)
    shift and add     conversions * P (shift + add + reg) + requests * 2 * 18 sram
    partial sums      psum_writes * copies * P sram + psum_reads * P sram + psum_updates * P add
    merge             merge_shifts * W (shift + reg) + merge_adds * W add
    accumulators      accumulator_updates * W (2 sram + add) + (accumulator_writes
                      + accumulator_reads) * W sram
    index             sum over index memories of words * bits * (idx + reg) + list_words * 47 idx
                      + (replay_writes + replay_reads) * Q sram
    tables            words of output parameters * bits * (idx + reg), and of a tile's shares
    gather            gathered * 8 (act + 2 reg + 2 sram) + gathered * 24 add
    activations       activation_writes * 8 act, and once more for the operand reader's copy
    requantisation    requantisations * (W (add + shift + 3 reg) + 16 W mul + 8 reg)
    post-processing   operand_reads * (8 act + 8 * 16 mul + 24 (add + reg))
    reduction         reduction_adds * W (add + reg)
    control           control share * everything that adds, shifts, multiplies or registers above
    clock             cycles * flip-flops * clock
    leakage           seconds * (area of logic and registers * logic_leakage
                      + bits of memories * memory_leakage)

Latency is cycles over the clock of the technology. The engine asks for a read a cycle: where a read
takes longer, a note says how many the arrays must overlap. Where converters are slower than the
clock, several take turns, and their area is charged.

    from refmodel.cost import price

    found = price(program, None, Technology.load("isaac-32nm"))
    print(found.joules, found.seconds, found.mm2, found.parts)
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refmodel.config import EngineConfig
from refmodel.cost.events import (
    LayerEvents,
    NetworkEvents,
    network_events,
    with_latency,
)
from refmodel.cost.memories import (
    Memory,
    all_flip_flops,
    list_memory,
    memories,
)
from refmodel.cost.technology import Technology
from refmodel.errors import InputError
from refmodel.predict.accelerator import accelerator_config_for
from refmodel.predict.events import INDEX_MEMORIES
from refmodel.program.program import Program

TABLES = ("output", "share", "lookup")
"""Memories of output parameters, of shares in outputs, and of tables that outputs go through."""

PARTS = (
    "adc",
    "crossbar",
    "wordlines",
    "shift and add",
    "partial sums",
    "merge",
    "accumulators",
    "index",
    "tables",
    "gather",
    "activations",
    "requantisation",
    "post-processing",
    "reduction",
    "control",
    "clock",
    "leakage",
)
"""Parts of the energy."""

AREAS = ("adc", "crossbar", "wordlines", "memory of activations", "memory of sums",
         "memory of indices", "logic", "registers")  # fmt: skip
"""Parts of the area."""

MULTIPLIER_BITS, ADDRESS_BITS, SUM_BITS = 16, 24, 24
"""Bits of a requantisation's multiplier, of an address, and of a pool's sum."""

SHARED = ("output", "share", "list", "operands")
"""Memories that a tile or an accelerator has once, whatever its engines."""

MOST_LATENCY = 40
"""Cycles of crossbar latency that an engine has at most."""


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Energy and latency of an operation for one image.

    Attributes
    ----------
    name, kind
        Name and kind of the operation.
    parts
        Joules by part, one to each of :data:`PARTS`.
    seconds
        Latency.
    cycles
        Clock cycles.
    """

    name: str
    kind: str
    parts: Mapping[str, float]
    seconds: float
    cycles: int

    @property
    def joules(self) -> float:
        """Energy of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """Energy, latency and area of a network, for one image.

    Attributes
    ----------
    technology
        Name of the technology.
    scheme
        Scheme of the program.
    layers
        Operations in order.
    areas
        Square metres by part, one to each of :data:`AREAS`.
    clock
        Hertz.
    assumptions
        Constants of the technology that are assumptions, a line each.
    notes
        Remarks on how the figures came about, a line each.
    """

    technology: str
    scheme: str
    layers: tuple[LayerCost, ...]
    areas: Mapping[str, float]
    clock: float
    assumptions: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, float]:
        """Joules by part, of all layers."""
        return {name: sum(layer.parts[name] for layer in self.layers) for name in PARTS}

    @property
    def joules(self) -> float:
        """Energy of an image."""
        return sum(self.parts.values())

    @property
    def seconds(self) -> float:
        """Latency of an image."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def cycles(self) -> int:
        """Clock cycles of an image."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def mm2(self) -> float:
        """Area in square millimetres."""
        return sum(self.areas.values()) * 1e6

    def rows(self) -> list[dict[str, Any]]:
        """Make a record to each layer, for tables: microjoules, microseconds, parts in uJ."""
        return [
            {
                "layer": layer.name,
                "kind": layer.kind,
                "cycles": layer.cycles,
                "us": layer.seconds * 1e6,
                "uJ": layer.joules * 1e6,
                **{f"{name} uJ": value * 1e6 for name, value in layer.parts.items()},
            }
            for layer in self.layers
        ]

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values, in joules, seconds and square millimetres."""
        return {
            "technology": self.technology,
            "scheme": self.scheme,
            "clock_hz": self.clock,
            "joules": self.joules,
            "seconds": self.seconds,
            "cycles": self.cycles,
            "mm2": self.mm2,
            "parts": self.parts,
            "areas_mm2": {name: value * 1e6 for name, value in self.areas.items()},
            "layers": [
                dataclasses.asdict(layer) | {"joules": layer.joules} for layer in self.layers
            ],
            "assumptions": list(self.assumptions),
            "notes": list(self.notes),
        }


def crossbar_latency(technology: Technology) -> int:
    """Cycles from a request to its codes at the technology's clock, 1 at least.

    Raises
    ------
    InputError
        More than an engine can wait for.
    """
    seconds = technology.number("read_time") + technology.number("adc_time")
    # A whole number of cycles that floats put a hair above itself stays what it is.
    cycles = max(1, math.ceil(seconds * technology.number("clock") - 1e-9))
    if cycles > MOST_LATENCY:
        raise InputError(
            f"expected read_time and adc_time of at most {MOST_LATENCY} cycles of clock, found "
            f"{cycles} in technology {technology.name}"
        )
    return cycles


def converters(technology: Technology) -> int:
    """Converters that take turns to give a code a cycle at the technology's clock."""
    return math.ceil(technology.number("clock") / technology.number("adc_rate") - 1e-9)


def engine_for(config: EngineConfig, technology: Technology) -> EngineConfig:
    """Give an engine the crossbar latency that a technology has at its clock."""
    return with_latency(config, crossbar_latency(technology))


def price(
    program: Program,
    config: EngineConfig | None,
    technology: Technology,
    engines: int = 1,
) -> NetworkCost:
    """Price one image of a network.

    Parameters
    ----------
    program
        The network.
    config
        As for :func:`refmodel.cost.events.network_events`. The crossbar latency is the
        technology's, whatever it says.
    technology
        Constants.
    engines
        N, 1 to 64.
    """
    base = engine_for(config or EngineConfig(), technology)
    if config is None:
        base = accelerator_config_for(program, base, engines)
    return price_events(network_events(program, base, engines), base, technology)


def price_events(
    events: NetworkEvents, config: EngineConfig | None, technology: Technology
) -> NetworkCost:
    """Price events that were counted before, which is cheap.

    Cycles are those of ``events``: where they were predicted for another crossbar latency than the
    technology's, a note says so.

    Parameters
    ----------
    events
        The counts that :func:`refmodel.cost.events.network_events` gives.
    config
        The engine; the one of the events where None. It may differ from that in what changes no
        event, as ``adc_bits``.
    technology
        Constants.
    """
    if config is not None:
        events = dataclasses.replace(events, config=config)
    prices = _Prices(events, technology)
    areas = prices.areas()
    leaking = prices.leaking(areas)
    notes = []
    needed, assumed = crossbar_latency(technology), events.config.crossbar_latency
    if needed != assumed:
        notes.append(
            f"cycles are for a crossbar latency of {assumed}; {technology.name} has {needed}"
        )
    overlap = technology.number("clock") * technology.number("read_time")
    if overlap > 1 + 1e-9:
        notes.append(f"a request a cycle means that {overlap:.1f} reads of the arrays overlap")
    larger = technology["adc_energy"].enough(events.config.lane_bits)
    assumptions = technology.assumptions()
    if larger > events.config.lane_bits:
        notes.append(
            f"codes of {events.config.lane_bits} bits are priced as those of converters of {larger}"
            " bits, the smallest of the technology: an upper bound"
        )
        assumptions = (*assumptions, notes[-1])
    return NetworkCost(
        technology=technology.name,
        scheme=events.scheme,
        layers=tuple(prices.layer(layer, leaking) for layer in events.layers),
        areas=areas,
        clock=technology.number("clock"),
        assumptions=assumptions,
        notes=tuple(notes),
    )


class _Prices:
    """Joules of each event, and areas, of one engine in one technology."""

    def __init__(self, events: NetworkEvents, technology: Technology) -> None:
        self.events, self.technology = events, technology
        self.config = config = events.config
        number = technology.number
        self.add, self.shift = number("add_energy"), number("shift_energy")
        self.multiply, self.register = number("multiply_energy"), number("register_energy")
        self.memories = memories(config, events.engines)
        self.registers = all_flip_flops(config, events.engines)
        listed = sum(layer.counts["list_words"] for layer in events.layers)
        if listed:
            self.memories["list"] = list_memory(listed)
        self.convert = self._converter("adc_energy") + number("sample_energy")
        self.drive = technology["drive_energy"].at(config.dac_bits)

    def _converter(self, name: str) -> float:
        """A constant of the smallest converter that has the bits of a code."""
        constant = self.technology[name]
        return constant.at(constant.enough(self.config.lane_bits))

    def bit(self, name: str) -> float:
        """Joules of a bit of one of the memories."""
        memory = self.memories[name]
        return self.technology.memory_energy(memory.kind, memory.capacity)

    def leaking(self, areas: Mapping[str, float]) -> float:
        """Watts that leak."""
        bits = sum(self._many(memory) * memory.bits for memory in self.memories.values())
        logic = areas["logic"] + areas["registers"]
        number = self.technology.number
        return logic * number("logic_leakage") + bits * number("memory_leakage")

    def layer(self, layer: LayerEvents, leaking: float) -> LayerCost:
        """Price an operation; ``leaking`` is the watts that leak."""
        number = self.technology.number
        seconds = layer.cycles / number("clock")
        storing = self._storing(layer)
        logic = self._logic(layer)
        analog = {
            "adc": layer.counts["conversions"] * self.convert,
            "crossbar": (layer.counts["cells_read"] << self.config.pairs) * number("cell_energy"),
            "wordlines": layer.counts["wordline_drives"] * self.drive,
        }
        always = {
            "control": number("control_share") * sum(logic.values()),
            "clock": layer.cycles * self.registers * number("clock_energy"),
            "leakage": seconds * leaking,
        }
        parts = {
            name: sum(group.get(name, 0.0) for group in (analog, storing, logic, always))
            for name in PARTS
        }
        return LayerCost(
            name=layer.name,
            kind=layer.kind,
            parts=parts,
            seconds=seconds,
            cycles=layer.cycles,
        )

    def _storing(self, layer: LayerEvents) -> dict[str, float]:
        """Joules of what is read from and written to memories."""
        counts, config, memory = layer.counts, self.config, self.memories
        psum, acc = config.psum_width, config.acc_width
        sums, accumulators = psum * self.bit("partial sums"), acc * self.bit("accumulators")
        copies = memory["partial sums"].copies
        touched = counts["accumulator_writes"] + counts["accumulator_reads"]
        listed = self.memories["list"].width * self.bit("list") if counts["list_words"] else 0.0
        replayed = memory["replay"].width * self.bit("replay") if "replay" in memory else 0.0
        byte = 8 * self.bit("activations")
        # The engines' memories are written alike, and so is the one of the operand reader.
        mirrored = 0.0
        if "operands" in memory:
            mirrored = counts["activation_writes"] / self.events.engines
        return {
            "shift and add": counts["requests"] * 2 * memory["pending"].width * self.bit("pending"),
            "partial sums": (counts["psum_writes"] * copies + counts["psum_reads"]) * sums,
            "accumulators": (2 * counts["accumulator_updates"] + touched) * accumulators,
            "index": sum(self._words(layer, name) for name in INDEX_MEMORIES)
            + counts["list_words"] * listed
            + (counts["replay_writes"] + counts["replay_reads"]) * replayed,
            "tables": sum(self._words(layer, name) for name in TABLES),
            "gather": counts["gathered"] * (byte + 2 * 8 * self.bit("vectors")),
            "activations": (counts["activation_writes"] + mirrored) * byte,
            "post-processing": counts["operand_reads"] * byte,
        }

    def _words(self, layer: LayerEvents, name: str) -> float:
        """Joules of the words read from one of the program's memories."""
        if not layer.reads.get(name):
            return 0.0
        return layer.reads[name] * self.memories[name].width * self.bit(name)

    def _logic(self, layer: LayerEvents) -> dict[str, float]:
        """Joules of what adds, shifts, multiplies and registers."""
        counts, config = layer.counts, self.config
        add, shift, multiply, register = self.add, self.shift, self.multiply, self.register
        psum, acc = config.psum_width, config.acc_width
        index = sum(layer.reads.get(name, 0) * self.memories[name].width for name in INDEX_MEMORIES)
        tables = sum(
            count * self.memories[name].width
            for name, count in layer.reads.items()
            if name in TABLES
        )
        scaled = MULTIPLIER_BITS * acc * multiply
        return {
            "wordlines": counts["wordline_drives"] * config.dac_bits * register,
            "shift and add": counts["conversions"] * psum * (shift + add + register),
            "partial sums": counts["psum_updates"] * psum * add,
            "merge": counts["merge_shifts"] * acc * (shift + register)
            + counts["merge_adds"] * acc * add,
            "accumulators": counts["accumulator_updates"] * acc * add,
            "index": index * register,
            "tables": tables * register,
            "gather": counts["gathered"] * (2 * 8 * register + ADDRESS_BITS * add),
            "requantisation": counts["requantisations"]
            * (acc * (add + shift + 3 * register) + scaled + 8 * register),
            "post-processing": counts["operand_reads"]
            * (8 * MULTIPLIER_BITS * multiply + SUM_BITS * (add + register)),
            "reduction": counts["reduction_adds"] * acc * (add + register),
        }

    def areas(self) -> dict[str, float]:
        """Square metres of each part."""
        config, engines, area = self.config, self.events.engines, self.technology.number
        size = config.crossbar_size
        crossbars = self.events.crossbars
        if config.network:
            crossbars = config.crossbars * engines
        acc, psum = config.acc_width, config.psum_width
        lanes = config.merge_lanes * config.position_lanes
        add, shift = area("add_area"), area("shift_area")
        multiply = area("multiply_area")
        each = (
            config.adcs * psum * (add + shift)
            + (config.patterns_per_ou * psum * add if config.ous_per_pattern > 1 else 0.0)
            + lanes * acc * (shift + 2 * add)
            + 4 * ADDRESS_BITS * add
        )
        once = acc * (add + shift) + (acc + 8) * MULTIPLIER_BITS * multiply
        if config.network:
            once += 8 * MULTIPLIER_BITS * multiply + SUM_BITS * add
        once += (engines - 1) * acc * add
        held: dict[str, float] = {"activation": 0.0, "sram": 0.0, "index": 0.0}
        for memory in self.memories.values():
            held[memory.kind] += self._many(memory) * memory.bits * area(f"{memory.kind}_area")
        return {
            "adc": engines * config.adcs * converters(self.technology) * self._converter("adc_area")
            + crossbars * size * area("sample_area"),
            "crossbar": (crossbars * size**2 << config.pairs) * area("cell_area"),
            "wordlines": crossbars * size * self.technology["drive_area"].at(config.dac_bits),
            "memory of activations": held["activation"],
            "memory of sums": held["sram"],
            "memory of indices": held["index"],
            "logic": (engines * each + once) * (1 + area("control_share")),
            "registers": self.registers * area("register_area"),
        }

    def _many(self, memory: Memory) -> int:
        """How many of a memory there are: a tile has one each of those that are not an engine's."""
        return 1 if memory.name in SHARED else self.events.engines
