"""Boards: their FPGA, their pins, and what they do with a clock.

Pins and oscillators are those of the package ``amaranth-boards`` (the extra ``fpga``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from prap_hw.board.clocking import Pll, ecp5_pll, ice40_pll
from prap_hw.board.top import LAMPS
from prap_hw.deliver.place import ULX3S, Device
from refmodel.errors import InputError, missing_extra


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board.

    Attributes
    ----------
    key, name
        As the command line has it, and in words.
    device
        Its FPGA.
    module, platform
        Module and class of ``amaranth_boards``.
    button
        Name of the resource that resets; "" where the board has none.
    source
        Its oscillator, in kHz.
    khz
        The design's clock where none is asked for.
    baud
        Rate of the serial line where none is asked for: what its USB chip makes.
    in_bytes, out_bytes
        Buffers of the bridge.
    memory
        Cell of a block RAM, and the number of them.
    luts
        LUTs.
    header
        First lines of the constraints.
    """

    key: str
    name: str
    device: Device
    module: str
    platform: str
    button: str
    source: int
    khz: int
    baud: int
    in_bytes: int
    out_bytes: int
    memory: tuple[str, int]
    luts: int
    header: str = ""

    def pll(self, khz: int) -> Pll | None:
        """Set its PLL to a clock; None where that is the oscillator's."""
        if khz == self.source:
            return None
        return (ecp5_pll if self.device.family == "ecp5" else ice40_pll)(self.source, khz)

    def pins(self) -> dict[str, tuple[str, Mapping[str, str]]]:
        """Port of the top to its pin, and the attributes of that.

        Raises
        ------
        MissingExtraError
            The package ``amaranth-boards`` is not there.
        """
        try:
            platform = getattr(import_module(f"amaranth_boards.{self.module}"), self.platform)
        except ModuleNotFoundError as error:
            problem = missing_extra((error.name or "").split(".")[0])
            raise problem or error from None
        resources = {(entry.name, entry.number): entry for entry in platform.resources}
        found = {
            "clk": _pin(resources[platform.default_clk, 0]),
            "rx": _pin(resources["uart", 0], "rx"),
            "tx": _pin(resources["uart", 0], "tx"),
        }
        if self.button:
            found["button"] = _pin(resources[self.button, 0])
        for number in range(len(LAMPS)):
            found[f"leds[{number}]"] = _pin(resources["led", number])
        return found

    def constraints(self) -> str:
        """Text of the constraints file: a pin to each port, and the oscillator."""
        pins = self.pins()
        if self.device.family == "ecp5":
            lines = [self.header]
            for port, (site, attributes) in pins.items():
                lines.append(f'LOCATE COMP "{port}" SITE "{site}";')
                kept = " ".join(f"{name}={value}" for name, value in attributes.items())
                lines.append(f'IOBUF PORT "{port}" {kept};')
            lines.append(f'FREQUENCY PORT "clk" {self.source / 1000:g} MHZ;')
        else:
            lines = []
            for port, (site, attributes) in pins.items():
                pull = "-pullup yes " if attributes.get("PULLUP") else ""
                lines.append(f"set_io {pull}{port} {site}")
            lines.append(f"set_frequency clk {self.source / 1000:g}")
        return "\n".join(lines) + "\n"


def _pin(resource: Any, part: str = "") -> tuple[str, Mapping[str, str]]:
    """The one pin of a resource, or of a part of it, and its attributes."""
    place = next(entry for entry in resource.ios if entry.name == part) if part else resource
    (pins,) = place.ios
    if pins.invert:
        raise ValueError(f"expected {resource.name} high when it is active, found it inverted")
    (pin,) = pins.names
    attributes = {**resource.attrs, **place.attrs}
    return pin, {name: str(value) for name, value in attributes.items()}


BOARDS = {
    board.key: board
    for board in (
        Board(
            key="ulx3s",
            name="ULX3S 85F (Lattice ECP5 LFE5U-85F-6BG381C)",
            device=ULX3S,
            module="ulx3s",
            platform="ULX3S_85F_Platform",
            button="button_fire",
            source=25_000,
            khz=75_000,
            baud=3_000_000,
            in_bytes=4096,
            out_bytes=1024,
            memory=("DP16KD", 208),
            luts=83_640,
            header="SYSCONFIG CONFIG_IOVOLTAGE=3.3 COMPRESS_CONFIG=ON MCCLK_FREQ=62 "
            "SLAVE_SPI_PORT=DISABLE MASTER_SPI_PORT=ENABLE SLAVE_PARALLEL_PORT=DISABLE;",
        ),
        Board(
            key="hx8k",
            name="iCE40-HX8K breakout board (Lattice iCE40HX8K-CT256)",
            device=Device(family="ice40", chip="hx8k", package="ct256"),
            module="ice40_hx8k_b_evn",
            platform="ICE40HX8KBEVNPlatform",
            button="",
            source=12_000,
            khz=24_000,
            baud=3_000_000,
            in_bytes=1024,
            out_bytes=512,
            memory=("ICESTORM_RAM", 32),
            luts=7_680,
        ),
    )
}
"""Boards by their keys."""


def board(key: str) -> Board:
    """The board of a key; InputError where there is none."""
    if key not in BOARDS:
        raise InputError(f"expected a board of {', '.join(BOARDS)}, found {key!r}")
    return BOARDS[key]
