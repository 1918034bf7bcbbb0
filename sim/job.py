"""A job: what is simulated, how, and by which tier; the tiers, and the options that each takes."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from refmodel.config import MOST_ENGINES, EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices.converters import AdcRange
from refmodel.golden.devices.device import Device
from refmodel.program.program import Program
from sim.kept import CACHE
from sim.results import Progress, silent

PLANTS = ("code", "shift", "index")
"""Faults that can be planted."""

PORTS = ("emulated", "open")
"""Choices for the engine's crossbar port: emulated crossbars in Verilog, or the Python model."""

LONGEST = 100_000
"""Cycles of the longest window."""

DIFFERENCE = "difference"
"""The request to show the first difference."""


@dataclass(frozen=True, kw_only=True)
class Tier:
    """A way to simulate (docs/simulation.md).

    Attributes
    ----------
    takes
        Options of a :class:`Job` that it takes, beside those that every tier takes.
    because
        Option that it does not take to what the refusal adds.
    """

    takes: frozenset[str]
    because: Mapping[str, str] = field(default_factory=dict)


TIERS: Mapping[str, Tier] = {
    "protocol": Tier(
        takes=frozenset(
            {
                "device",
                "chip_seed",
                "ranges",
                "port",
                "plant",
                "stall",
                "seed",
                "fresh",
                "window",
                "record_difference",
                "mutant",
            }
        ),
        because={"every_value": "which compares every value anyway"},
    ),
    "bulk": Tier(
        takes=frozenset(
            {
                "every_value",
                "plant",
                "seed",
                "fresh",
                "window",
                "record_difference",
                "layers",
                "positions",
            }
        ),
        because={"device": "whose crossbars are emulated in Verilog"},
    ),
    "network": Tier(takes=frozenset({"engines"})),
}
"""The tiers: an engine, layer after layer, under cocotb or as a library behind whole arrays; or the
accelerator, which runs the network by itself."""

SAID = {"ranges": "adc_ranges", "window": "waves", "record_difference": "waves"}
"""Options of a job that the user knows by another name."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Cycles to be shown of the first image of a layer.

    Attributes
    ----------
    first, last
        Cycles, both shown; 0 is the cycle in which the start is accepted.
    layer
        Name of the layer; None: the program's first.
    """

    first: int
    last: int
    layer: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last < self.first + LONGEST:
            raise InputError(
                f"expected a window of 1 to {LONGEST} cycles, first to last, found "
                f"{self.first}:{self.last}"
            )

    @classmethod
    def parse(cls, text: str) -> "Window":
        """Read ``FIRST:LAST`` or ``LAYER:FIRST:LAST``."""
        found = re.fullmatch(r"(?:(.+):)?(\d{1,12}):(\d{1,12})", text)
        if found is None:
            raise InputError(
                f"expected {DIFFERENCE}, FIRST:LAST or LAYER:FIRST:LAST in cycles, found {text!r}"
            )
        return cls(first=int(found[2]), last=int(found[3]), layer=found[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One co-simulation, from the command line to the tier.

    Attributes
    ----------
    program
        A compiled network; its layers must fit ``config``.
    codes
        Input codes, uint8 [N, H, W, C].
    config
        The engine; it gets trace ports whether it has them or not. The tier ``network`` sizes it to
        the network.
    tier
        A name in :data:`TIERS`.
    folder
        Folder for ``predicted.json`` (written before anything is built or run), what is kept for
        later runs, waveforms, and the simulator's own files. The tier ``network`` writes nothing.
    cache
        Folder where builds are kept.
    progress
        Is told of stages.
    inputs
        Codes of tensors that no step computes, beside the program's input: :mod:`sim.sample`.
    engines
        N, 1 to 64, to which the accelerator deals each layer out.
    every_value
        Whether requests, ADC codes and partial sums are compared, too: then nothing is taken from
        earlier runs, and one image of a layer is held in memory, 24 bytes or more to a request.
    fresh
        Whether to simulate everything, whatever earlier jobs in the same folder have kept.
    device, chip_seed
        Cells and converters that are not ideal, and the number of the chip that is drawn of them:
        it stands at the port, which is open then, and the golden model goes through the same.
    ranges
        What the converters of a device tell apart, by the number of a layer.
    port
        ``emulated``: crossbars in Verilog; ``open``: :mod:`sim.benches.crossbar_model` at the port.
    plant
        A fault to plant, chosen by ``seed`` among those that must show: ``code`` flips a bit of one
        ADC code of the first image between crossbar and engine (the port is open then); ``shift``
        changes the shift of one reuse word in the loaded image, one whose partial sum is not 0
        throughout the first image; ``index`` changes another index word: a reuse word's slot or a
        segment's kernel position, one with which the golden model has other requests or
        accumulators for the first image.
    stall
        Share of the cycles in which each stream pauses; with an open port the crossbar port's too.
    seed
        Seed of stalls and faults.
    window
        Cycles of a layer's first image to record, in a run of that layer alone.
    record_difference
        Whether to run a failing layer and image again with a waveform of the cycles around the
        first difference. None: in the tier ``protocol`` alone.
    layers, positions
        Names of the layers to run, each by itself, and how many output positions of each, drawn by
        ``seed``: :func:`sim.sample.sampled` makes the job of them. Empty and None: all.
    mutant
        For tests: a bench that is wrong itself (``forget``: loses the last output of each image;
        ``deaf``: never takes it; ``slow``: the Python crossbar answers one cycle late;
        ``ordinal``: the chip at the port counts its requests from 1).
    """

    program: Program
    codes: np.ndarray
    config: EngineConfig
    tier: str = "protocol"
    folder: Path | str = "build/sim"
    cache: Path | str = CACHE
    progress: Progress = silent
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    engines: int = 1
    every_value: bool = False
    fresh: bool = False
    device: Device | None = None
    chip_seed: int = 0
    ranges: Mapping[int, AdcRange] = field(default_factory=dict)
    port: str = "emulated"
    plant: str | None = None
    stall: float = 0.0
    seed: int = 0
    window: Window | None = None
    record_difference: bool | None = None
    layers: tuple[str, ...] = ()
    positions: int | None = None
    mutant: str | None = None

    def __post_init__(self) -> None:
        check_options(self.tier, **{name: getattr(self, name) for name in OPTIONS})
        if self.port not in PORTS:
            raise ValueError(f"port must be one of {PORTS}, not {self.port!r}")
        if self.plant is not None and self.plant not in PLANTS:
            raise ValueError(f"plant must be one of {PLANTS}, not {self.plant!r}")
        if self.ranges and self.device is None:
            raise ValueError("ranges must come with a device, whose converters have them")
        if self.positions is not None and self.positions < 1:
            raise ValueError(f"positions must be at least 1, not {self.positions!r}")
        if not 0 <= self.stall < 1:
            raise ValueError(f"stall must be from 0 to below 1, not {self.stall!r}")


OPTIONS: dict[str, Any] = {
    each.name: each.default
    for each in fields(Job)
    if each.default is not MISSING and each.name not in ("tier", "folder", "cache", "progress")
} | {"ranges": {}}
"""Options of a job that not every tier takes, with their defaults."""


def check_options(tier: str, **options: object) -> None:
    """Refuse a tier that there is not, and options that a tier does not take.

    Parameters
    ----------
    options
        Values by name, as a :class:`Job` has them; an option with its default is not chosen.

    Raises
    ------
    InputError
        The message says which tiers take the option.
    """
    if tier not in TIERS:
        raise InputError(f"expected a tier of {', '.join(TIERS)}, found {tier!r}")
    for name, value in options.items():
        if value == OPTIONS[name] or name in TIERS[tier].takes:
            continue
        takers = " or ".join(each for each, kind in TIERS.items() if name in kind.takes)
        because = TIERS[tier].because.get(name)
        raise InputError(
            f"expected tier {takers} for {SAID.get(name, name)}, found {tier}"
            + (f", {because}" if because else "")
        )
    engines = options.get("engines", 1)
    if not isinstance(engines, int) or not 1 <= engines <= MOST_ENGINES:
        raise InputError(f"expected 1 to {MOST_ENGINES} engines, found {engines}")
