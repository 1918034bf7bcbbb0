"""Cells and converters that are not ideal: chips drawn from a device file.

In units of the read voltage times G_on, with G_off = 1 / ratio, L = 2^cell_bits - 1 and
step = (1 - G_off) / L, a bitline on whose rows the wordlines put digits x carries::

    I = sum over rows of G * x                      b = G_off * (t / t0)^-nu * sum of x
    G = (G_off + l * step) * exp(sigma * z) * (t / t0)^-nu      a cell that was programmed to l
    G = G_off, G = 1                                            a cell that is stuck
    code = clip(rint((I - b) / step + offset + noise), 0, 2^code_bits - 1)

b is the reference column's share, sigma goes from ``variation_off`` at l = 0 to ``variation_on`` at
l = L in even steps, the offset has ``adc_offset`` as its standard deviation, and the noise
``read_noise / step``. With 1-bit cells (I - b) / step is (I - b) / (G_on - G_off).

A differential pair holds a digit of ``|w|`` in a plus cell (w > 0) or in a minus cell (w < 0), and
its other cell is off (:func:`refmodel.golden.cells.pair_cells`). The two bitlines are subtracted
before they are converted, by a converter with a sign: what a reference column would take from each
cancels, and the read noise of both adds up::

    code = clip(rint((I+ - I-) / step + offset + sqrt(2) * noise), -most, most)
                                                                    most = 2^code_bits - 1

Every random number is a function of where it is used, so that any part of a chip can be drawn alone
and in any order. With ``mix`` the output function of SplitMix64 (Steele, Lea and Flood: Fast
splittable pseudorandom number generators, OOPSLA 2014, doi:10.1145/2660193.2660195) and all sums
modulo 2^64::

    key(a, b, ...) = mix(... mix(mix(g * (a + 1)) + g * (b + 1)) ...)       g = 0x9E3779B97F4A7C15
    word(key, index) = mix(key + g * (index + 1))

=========  =====================  ====================================================
drawn      key                    index
=========  =====================  ====================================================
variation  seed, 0, layer         (crossbar * X + row) * X + column
           seed, 4, layer         the same, of minus cells
stuck      seed, 1, layer         the same
           seed, 5, layer         the same, of minus cells
offset     seed, 2, layer         crossbar * X + column
noise      seed, 3, layer, image  (column * digits + digit) * ceil(positions / 4)
                                  + floor(position / 4), column = OU * C + column of the OU
=========  =====================  ====================================================

Variation and offset are normal by Box and Muller from the halves of a word; a cell is stuck by its
word as a fraction. A word of noise holds 16 bits for each of 4 output positions, the lowest bits
for the lowest; they choose among the middles of 65,536 equally likely parts of the normal
distribution (the last at 4.3 sigma). Where not even the last would change how a current is rounded,
a whole layer at once does without drawing it: the codes are the same.

A cell counts as 4 L at most, and all currents are rounded to a power of two so small that their
sums are exact in float32 in any order (2^-15 of a code for R = 8 and 1-bit cells and digits): one
request at a time gives the same codes as a whole layer at once.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from refmodel.errors import InputError

FOLDER = Path(__file__).parents[2] / "assets" / "devices"
"""Packaged device files; their stems can be given in place of a path."""

Cells = Literal["twos-complement", "pairs"]
"""How cells hold weights, by the names of the command line."""

UNITS = {
    "on_off_ratio": "G_on / G_off",
    "variation_on": "ln G",
    "variation_off": "ln G",
    "stuck_off": "of cells",
    "stuck_on": "of cells",
    "read_noise": "on current",
    "drift_nu": "1",
    "drift_time": "s",
    "drift_start": "s",
    "adc_offset": "codes",
}
"""Values of a device file and their units."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """What is known of a kind of cell and its converters.

    Attributes
    ----------
    name
        How tables call it.
    on_off_ratio
        G_on / G_off, above 1; infinite where off cells do not conduct.
    variation_on, variation_off
        Standard deviation of ln G after programming, on and off, 0 to 2. The median is the target.
    stuck_off, stuck_on
        Shares of cells that stay off or on whatever is programmed, 0 to 1 together.
    read_noise
        Standard deviation of a bitline's current from read to read, in currents of an on cell, 0
        to 10.
    drift_nu, drift_time, drift_start
        G falls as (time / start)^-nu: nu from 0 to 1, seconds with 0 < start <= time.
    adc_offset
        Standard deviation of a column's offset, in codes, 0 to 100.
    sources
        Where each value is from.
    about
        A sentence.
    """

    name: str = "ideal"
    on_off_ratio: float = math.inf
    variation_on: float = 0.0
    variation_off: float = 0.0
    stuck_off: float = 0.0
    stuck_on: float = 0.0
    read_noise: float = 0.0
    drift_nu: float = 0.0
    drift_time: float = 1.0
    drift_start: float = 1.0
    adc_offset: float = 0.0
    sources: Mapping[str, str] = field(default_factory=dict)
    about: str = ""

    def __post_init__(self) -> None:
        for name in UNITS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, not {value!r}")
        if not self.on_off_ratio > 1:
            raise ValueError(f"on_off_ratio must be above 1, not {self.on_off_ratio!r}")
        for name, most in (
            ("variation_on", 2),
            ("variation_off", 2),
            ("stuck_off", 1),
            ("stuck_on", 1),
            ("read_noise", 10),
            ("drift_nu", 1),
            ("adc_offset", 100),
        ):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be 0 to {most}, not {getattr(self, name)!r}")
        if self.stuck_off + self.stuck_on > 1:
            both = self.stuck_off + self.stuck_on
            raise ValueError(f"stuck_off + stuck_on must be 1 at most, not {both!r}")
        if not 0 < self.drift_start <= self.drift_time < math.inf:
            raise ValueError(
                f"drift_time must be at least drift_start, above 0, not {self.drift_time!r}"
            )

    @property
    def off(self) -> float:
        """G_off in units of G_on."""
        return 1 / self.on_off_ratio

    @property
    def decay(self) -> float:
        """What drift leaves of a conductance: (time / start)^-nu."""
        return (self.drift_time / self.drift_start) ** -self.drift_nu

    @property
    def varies(self) -> bool:
        """Whether two chips can differ: drift alone is the same on all."""
        drawn = (self.variation_on, self.variation_off, self.stuck_off, self.stuck_on)
        return any((*drawn, self.read_noise, self.adc_offset))

    @classmethod
    def load(cls, path: str | Path) -> "Device":
        """Read a device file, or the packaged one of that name.

        Raises
        ------
        InputError
            A file that is not there, not TOML, or lacks a value, its unit or its source.
        """
        packaged = FOLDER / f"{path}.toml"
        file = packaged if str(path) in device_names() else Path(path)
        try:
            found = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError:
            raise InputError(
                f"expected a device file or one of {', '.join(device_names())}, found none at "
                f"{path}"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
            raise InputError(f"expected TOML, found {problem} in {file.name}") from None
        return cls._of(found, file)

    @classmethod
    def _of(cls, found: Mapping[str, Any], file: Path) -> "Device":
        texts = ("name", "about")
        unknown = [key for key in found if key not in UNITS and key not in texts]
        if unknown:
            raise InputError(
                f"expected {', '.join((*texts, *UNITS))}, found {unknown[0]!r} in {file.name}"
            )
        values, sources = {}, {}
        for name, unit in UNITS.items():
            entry = found.get(name)
            if not isinstance(entry, dict) or set(entry) != {"value", "unit", "source"}:
                raise InputError(
                    f"expected value, unit and source of {name}, found {entry!r} in {file.name}"
                )
            if entry["unit"] != unit:
                raise InputError(
                    f"expected unit {unit!r} of {name}, found {entry['unit']!r} in {file.name}"
                )
            if not isinstance(entry["source"], str) or not entry["source"].strip():
                raise InputError(
                    f"expected a source of {name}, found {entry['source']!r} in {file.name}"
                )
            values[name], sources[name] = entry["value"], entry["source"]
        try:
            return cls(
                name=str(found.get("name", file.stem)),
                about=str(found.get("about", "")),
                sources=sources,
                **values,
            )
        except (TypeError, ValueError) as problem:
            raise InputError(f"expected a device, found {problem} in {file.name}") from None

    def values(self) -> dict[str, float]:
        """The values without their sources."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name in UNITS}


def device_names() -> tuple[str, ...]:
    """Names of the packaged device files."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))
