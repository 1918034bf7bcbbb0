"""Cells and converters that are not ideal: chips drawn from a device file.

In units of the read voltage times G_on, with G_off = 1 / ratio, L = 2^cell_bits - 1 and
step = (1 - G_off) / L, a bitline on whose rows the wordlines put digits x carries::

    I = sum over rows of G * x                      b = G_off * f * sum of x
    G = array(change(written(G_off + l * step)))    a cell that was programmed to l
    y = gain * (g * (I - b) / step + noise) + offset
    code = how many thresholds y reaches            0 to 2^code_bits - 1

``written`` has the errors of every write (table, variation, normal, lognormal, write-verify),
``change`` what happens to cells afterwards (drift, temperature, stuck cells), ``array`` what wires
let through; f is what drift and temperature do to the reference column. ``gain`` is that of all
converters and g a column's own. Threshold k lies at k - 1/2 and where nonlinearity moves it;
without any the code is clip(rint(y)), halves to even. Every effect's formula stands in its file,
and all of them in docs/devices.md.

A differential pair holds a digit of ``|w|`` in a plus cell (w > 0) or in a minus cell (w < 0), and
its other cell is off (:func:`refmodel.golden.cells.pair_cells`). The two bitlines are subtracted
before they are converted, by a converter with a sign: what a reference column would take from each
cancels, and the read noise of both adds up::

    y = gain * (g * (I+ - I-) / step + sqrt(2) * noise) + offset
    code = clip(rint(y), -most, most)                               most = 2^code_bits - 1

Every random number is a function of where it is used, so that any part of a chip can be drawn alone
and in any order. With ``mix`` the output function of SplitMix64 (Steele, Lea and Flood: Fast
splittable pseudorandom number generators, OOPSLA 2014, doi:10.1145/2660193.2660195) and all sums
modulo 2^64::

    key(a, b, ...) = mix(... mix(mix(g * (a + 1)) + g * (b + 1)) ...)       g = 0x9E3779B97F4A7C15
    word(key, index) = mix(key + g * (index + 1))

    noise       key seed, 3, layer, image; index (column * digits + digit) * ceil(positions / 4)
                + floor(position / 4), column = OU * C + column of the OU
    converters  key seed, stream, layer; index crossbar * X + column; stream 2: offset, 18: gain
    thresholds  key seed, 19, layer; index (crossbar * X + column) * T + number of the threshold
    cells       key seed, stream, layer; index (crossbar * X + row) * X + column; the second stream
                is that of minus cells
                0, 4    variation       12, 13  independent normal error
                1, 5    stuck           14, 15  lognormal error
                8, 9    table           16, 17  exponent of drift
                10, 11  proportional normal error

What a cell draws at the n-th of several writes, from 1, has n - 1 as one more part of its key where
that is not 0.

All that is normal is so by Box and Muller from the halves of a word; a cell is stuck by its
word as a fraction. A word of noise holds 16 bits for each of 4 output positions, the lowest bits
for the lowest; they choose among the middles of 65,536 equally likely parts of the normal
distribution (the last at 4.3 sigma). Where not even the last would change how a current is rounded,
a whole layer at once does without drawing it: the codes are the same.

A cell counts as 4 L at most, and all currents are rounded to a power of two so small that their
sums are exact in float32 in any order (2^-15 of a code for R = 8 and 1-bit cells and digits): one
request at a time gives the same codes as a whole layer at once.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from refmodel.errors import InputError
from refmodel.golden.devices.effect import Effect, Value
from refmodel.packaged import packaged_names, read_toml
from refmodel.record import Record

FOLDER = Path(__file__).parents[2] / "assets" / "devices"
"""Packaged device files; their stems can be given in place of a path."""

_effects: list[Effect] = []

_values = {
    "on_off_ratio": Value(name="on_off_ratio", unit="G_on / G_off", default=math.inf, required=True)
}

_units = {name: value.unit for name, value in _values.items()}

UNITS: Mapping[str, str] = MappingProxyType(_units)
"""Values of a device file and their units."""


def effects() -> tuple[Effect, ...]:
    """Give all effects, in their order."""
    return tuple(_effects)


def name_of(effect: Effect) -> str:
    """Name of an effect: that of its file."""
    return type(effect).__module__.rpartition(".")[2]


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Device(Record):
    """A kind of cell and its converters.

    It has a field for every value of an effect, with its name in device files, and takes them as
    keywords: ``Device(on_off_ratio=40.0, variation_on=0.07)``. The effects describe them
    (:mod:`refmodel.golden.devices.effects`).

    Attributes
    ----------
    name
        Name of the device in tables.
    on_off_ratio
        G_on / G_off, above 1; infinite where off cells do not conduct.
    sources
        Source of each value.
    about
        A sentence.
    """

    name: str = "ideal"
    on_off_ratio: float = math.inf
    sources: Mapping[str, str] = field(default_factory=dict)
    about: str = ""

    def __post_init__(self) -> None:
        for name, each in _values.items():
            value = getattr(self, name)
            if each.read is not None:
                object.__setattr__(self, name, _rows(name, value))
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, not {value!r}")
        if not self.on_off_ratio > 1:
            raise ValueError(f"on_off_ratio must be above 1, not {self.on_off_ratio!r}")
        for name, value in _values.items():
            least, most, found = value.least, value.most, getattr(self, name)
            if least is not None and most is not None and not least <= found <= most:
                raise ValueError(f"{name} must be {least} to {most}, not {found!r}")
        for effect in effects():
            effect.check(self)

    @property
    def off(self) -> float:
        """G_off in units of G_on."""
        return 1 / self.on_off_ratio

    @property
    def varies(self) -> bool:
        """Whether two chips can differ: drift alone is the same on all."""
        return any(effect.varies(self) for effect in effects())

    def effects(self) -> tuple[str, ...]:
        """Names of the effects that it has: of their files, in their order."""
        return tuple(name_of(effect) for effect in effects() if effect.acts(self))

    def only(self, names: Collection[str]) -> "Device":
        """The device with some of its effects, and with the ideal values of all others."""
        values = {
            each.name: each.default
            for effect in effects()
            if name_of(effect) not in names
            for each in effect.values
        }
        return dataclasses.replace(self, **values)

    @classmethod
    def load(cls, path: str | Path) -> "Device":
        """Read a device file, or the packaged one of that name.

        Raises
        ------
        InputError
            A file that is not there, not TOML, or lacks a value, its unit or its source.
        """
        found, file = read_toml(path, FOLDER, "device")
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
            if name not in found and not _values[name].required:
                continue
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
            read = _values[name].read
            if read is not None:
                if not isinstance(values[name], str):
                    raise InputError(
                        f"expected the name of a file as {name}, found {values[name]!r} "
                        f"in {file.name}"
                    )
                values[name] = read(file.parent / values[name])
        try:
            return cls(
                name=str(found.get("name", file.stem)),
                about=str(found.get("about", "")),
                sources=sources,
                **values,
            )
        except (TypeError, ValueError) as problem:
            raise InputError(f"expected a device, found {problem} in {file.name}") from None

    def values(self) -> dict[str, Any]:
        """The values without their sources: numbers, and tuples of tuples of a file."""
        return {name: getattr(self, name) for name in UNITS}


def _rows(name: str, value: Any) -> tuple[tuple[float, ...], ...]:
    """Rows of a file, which may come as lists from JSON."""
    try:
        return tuple(tuple(float(number) for number in row) for row in value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be rows of numbers, not {value!r}") from None


def register(kind: type[Effect]) -> type[Effect]:
    """Enter an effect; a decorator of its class.

    Raises
    ------
    ValueError
        Another effect has a value of the same name, or draws from the same stream.
    """
    effect = kind()
    for value in effect.values:
        if value.name in {each.name for each in dataclasses.fields(Device)}:
            raise ValueError(f"{value.name} must be a value of one effect, not of two")
    taken = {stream for each in _effects for stream in each.streams}
    if taken & set(effect.streams):
        raise ValueError(f"streams must be none of {sorted(taken)}, not {effect.streams}")
    for value in effect.values:
        _values[value.name] = value
        _units[value.name] = value.unit
    plain = [(each.name, Any, field(default=each.default)) for each in effect.values]
    Device.declare(dataclasses.make_dataclass(kind.__name__, plain))
    _effects.append(effect)
    _effects.sort(key=lambda each: each.order)
    return kind


def device_names() -> tuple[str, ...]:
    """Names of the packaged device files."""
    return packaged_names(FOLDER)
