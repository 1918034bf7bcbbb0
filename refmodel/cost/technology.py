"""Technology files: what energy, area and time a part of an engine takes, each with its source.

A file is TOML. Each constant is a table of ``value``, ``unit``, ``node`` (nm that the value holds
for), ``source`` (the publication), ``place`` (where in it), and ``confidence``: ``read`` in the
source, ``secondary`` (quoted by another program or publication), or ``assumption``. Values of
converters and wordline drivers are tabulated by bits, and never stretched beyond their tables:
codes are priced as those of the smallest converter of the table that has their bits. Logic and
memories given at another node than the file's are scaled to it by :mod:`refmodel.cost.scaling`;
analog parts are taken as they are.

    from refmodel.cost.technology import Technology

    found = Technology.load("isaac-32nm")
    print(found["adc_energy"].at(4), found.assumptions())
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from refmodel.cost.scaling import COARSEST, FINEST, area_factor, energy_factor
from refmodel.errors import InputError
from refmodel.packaged import packaged_names, read_toml

FOLDER = Path(__file__).parents[1] / "assets" / "technologies"
"""Packaged technology files; their stems can be given in place of a path."""

CONFIDENCES = ("read", "secondary", "assumption")
"""How sure a value is."""

Scale = Literal["", "energy", "area"]


class Spec(NamedTuple):
    """The form that a constant must have.

    Attributes
    ----------
    unit
        Its unit.
    factor
        Factor of the unit in J, m^2 and s.
    meaning
        A phrase.
    table
        Whether it is tabulated by bits.
    scale
        By which rule it goes to the file's node; empty: not at all.
    zero
        Whether it may be 0.
    """

    unit: str
    factor: float
    meaning: str
    table: bool = False
    scale: Scale = ""
    zero: bool = True


_PJ, _FJ, _UM2 = 1e-12, 1e-15, 1e-12

SPECS: dict[str, Spec] = {
    "clock": Spec("GHz", 1e9, "clock of the digital side", zero=False),
    "supply": Spec("V", 1.0, "supply for which energies are scaled", zero=False),
    "adc_energy": Spec("pJ", _PJ, "a conversion, by bits of the code", table=True),
    "adc_area": Spec("um2", _UM2, "a converter, by bits of the code", table=True),
    "adc_rate": Spec("GS/s", 1e9, "conversions of a converter a second", zero=False),
    "adc_time": Spec("ns", 1e-9, "from the sampling of a value to its code", zero=False),
    "sample_energy": Spec("pJ", _PJ, "holding a bitline's value for a conversion"),
    "sample_area": Spec("um2", _UM2, "a sample and hold circuit, one to a bitline"),
    "drive_energy": Spec("pJ", _PJ, "driving a wordline with a digit, by its bits", table=True),
    "drive_area": Spec("um2", _UM2, "a wordline's driver, by bits of the digit", table=True),
    "cell_energy": Spec("fJ", _FJ, "reading a cell"),
    "cell_area": Spec("um2", _UM2, "a cell"),
    "read_time": Spec("ns", 1e-9, "reading an operation unit with one digit"),
    "add_energy": Spec("fJ/bit", _FJ, "adding", scale="energy"),
    "add_area": Spec("um2/bit", _UM2, "an adder", scale="area"),
    "shift_energy": Spec("fJ/bit", _FJ, "shifting", scale="energy"),
    "shift_area": Spec("um2/bit", _UM2, "a shifter", scale="area"),
    "multiply_energy": Spec("fJ/bit2", _FJ, "multiplying, to a bit of each factor", scale="energy"),
    "multiply_area": Spec("um2/bit2", _UM2, "a multiplier", scale="area"),
    "register_energy": Spec("fJ/bit", _FJ, "writing and reading a register", scale="energy"),
    "register_area": Spec("um2/bit", _UM2, "a register", scale="area"),
    "clock_energy": Spec("fJ/bit", _FJ, "clocking a register for a cycle", scale="energy"),
    "control_share": Spec("1", 1.0, "logic of control, in logic of the data path"),
    "activation_energy": Spec(
        "fJ/bit", _FJ, "reading or writing the activation memory", scale="energy"
    ),
    "activation_capacity": Spec("KiB", 8192.0, "memory of activation_energy", zero=False),
    "activation_area": Spec("um2/bit", _UM2, "the activation memory", scale="area"),
    "sram_energy": Spec(
        "fJ/bit", _FJ, "reading or writing partial sums and accumulators", scale="energy"
    ),
    "sram_capacity": Spec("KiB", 8192.0, "memory of sram_energy", zero=False),
    "sram_area": Spec("um2/bit", _UM2, "memories of sums", scale="area"),
    "index_energy": Spec("fJ/bit", _FJ, "reading index and parameter memories", scale="energy"),
    "index_capacity": Spec("KiB", 8192.0, "memory of index_energy", zero=False),
    "index_area": Spec("um2/bit", _UM2, "index and parameter memories", scale="area"),
    "memory_growth": Spec("1", 1.0, "power of its capacity with which a memory's energy grows"),
    "logic_leakage": Spec("mW/mm2", 1e3, "leakage of logic and registers"),
    "memory_leakage": Spec("pW/bit", 1e-12, "leakage of memories"),
}
"""Constants of a technology file. In the program energies are J, areas m^2, times s, rates 1/s,
capacities bits, leakage W/m^2 and W a bit."""

KEYS = ("value", "unit", "node", "source", "place", "confidence")
"""Keys of a constant."""

_MOST_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A constant of a technology file.

    Attributes
    ----------
    name
        A name in :data:`SPECS`.
    value
        As it stands in the file, in ``unit``: a number, or numbers by bits.
    unit, node, source, place, confidence
        As they stand in the file; ``node`` in nm.
    factor
        Factor on ``value``: that of the unit times that of scaling to the file's node.
    scaled
        Whether scaling changed it.
    file
        Name of the technology, for messages.
    """

    name: str
    value: float | Mapping[int, float]
    unit: str
    node: float
    source: str
    place: str
    confidence: str
    factor: float
    scaled: bool
    file: str

    @property
    def number(self) -> float:
        """The value in SI units, at the file's node."""
        assert not isinstance(self.value, Mapping)
        return self.value * self.factor

    def at(self, bits: int) -> float:
        """The value for so many bits in SI units.

        Raises
        ------
        InputError
            The table has no such entry: nothing is interpolated.
        """
        assert isinstance(self.value, Mapping)
        if bits not in self.value:
            known = ", ".join(map(str, sorted(self.value)))
            raise InputError(
                f"expected {self.name} for {bits} bits, found bits {known} in technology "
                f"{self.file}"
            )
        return self.value[bits] * self.factor

    def enough(self, bits: int) -> int:
        """The smallest entry of at least so many bits, which can stand in for one that is not.

        Raises
        ------
        InputError
            All entries have fewer bits.
        """
        assert isinstance(self.value, Mapping)
        found = min((each for each in self.value if each >= bits), default=bits)
        self.at(found)
        return found


@dataclass(frozen=True, kw_only=True)
class Technology:
    """The constants of a technology, each with its source.

    Attributes
    ----------
    name, about
        Name of the technology in tables; a sentence that describes it.
    node
        nm to which logic and memories are scaled.
    constants
        One to each name of :data:`SPECS`.
    """

    name: str
    about: str
    node: float
    constants: Mapping[str, Constant]

    def __getitem__(self, name: str) -> Constant:
        return self.constants[name]

    def number(self, name: str) -> float:
        """A constant in SI units, at the file's node."""
        return self.constants[name].number

    def assumptions(self) -> tuple[str, ...]:
        """One line to each constant that is an assumption: name, value, unit and why."""
        return tuple(
            f"{each.name} = {_shown(each.value)} {each.unit}: {each.source}"
            for each in self.constants.values()
            if each.confidence == "assumption"
        )

    def memory_energy(self, kind: str, bits: float) -> float:
        """Joules of a bit read from or written to a memory.

        ``E = energy * (bits / capacity)^growth``.

        Parameters
        ----------
        kind
            ``activation``, ``sram`` or ``index``.
        bits
            Bits that the memory holds.
        """
        share = bits / self.number(f"{kind}_capacity")
        return self.number(f"{kind}_energy") * share ** self.number("memory_growth")

    @classmethod
    def load(cls, path: str | Path) -> "Technology":
        """Read a technology file, or the packaged one of that name.

        Raises
        ------
        InputError
            A file that is not there, not TOML, or has a key too many, a constant too few or one
            that is not as it must be; one line with file, key, what was expected and found.
        """
        found, file = read_toml(path, FOLDER, "technology")
        return _technology(found, file.name, file.stem)


def technology_names() -> tuple[str, ...]:
    """Names of the packaged technology files."""
    return packaged_names(FOLDER)


def _technology(found: Mapping[str, Any], file: str, stem: str) -> Technology:
    texts = ("name", "about", "node")
    for key in found:
        if key not in SPECS and key not in texts:
            raise InputError(
                f"expected name, about, node and the constants of a technology, found {key!r} in "
                f"{file}"
            )
    for key in SPECS:
        if key not in found:
            raise InputError(f"expected {key}, {SPECS[key].meaning}, found none in {file}")
    name, about = found.get("name", stem), found.get("about", "")
    for key, text in (("name", name), ("about", about)):
        if not isinstance(text, str):
            raise InputError(f"expected a text as {key}, found {text!r} in {file}")
    node = _node(found.get("node"), "node", file)
    supply = _value(found["supply"], "supply", file)
    assert isinstance(supply, float)
    constants = {key: _constant(found[key], key, node, supply, name, file) for key in SPECS}
    return Technology(name=name, about=about, node=node, constants=constants)


def _constant(entry: Any, key: str, node: float, supply: float, name: str, file: str) -> Constant:
    value = _value(entry, key, file)
    spec = SPECS[key]
    if entry["unit"] != spec.unit:
        raise InputError(f"expected unit {spec.unit!r} of {key}, found {entry['unit']!r} in {file}")
    for text in ("source", "place"):
        if not isinstance(entry[text], str) or not entry[text].strip():
            raise InputError(f"expected a {text} of {key}, found {entry[text]!r} in {file}")
    if entry["confidence"] not in CONFIDENCES:
        raise InputError(
            f"expected confidence {', '.join(CONFIDENCES)} of {key}, found "
            f"{entry['confidence']!r} in {file}"
        )
    given = _node(entry["node"], f"{key}.node", file)
    scale = 1.0
    if spec.scale == "energy":
        scale = energy_factor(given, node, supply=supply)
    elif spec.scale == "area":
        scale = area_factor(given, node)
    return Constant(
        name=key,
        value=value,
        unit=spec.unit,
        node=given,
        source=entry["source"],
        place=entry["place"],
        confidence=entry["confidence"],
        factor=spec.factor * scale,
        scaled=bool(spec.scale) and given != node,
        file=name,
    )


def _value(entry: Any, key: str, file: str) -> float | dict[int, float]:
    """Check that a constant is a table of the right keys; returns its number or numbers."""
    if not isinstance(entry, dict) or set(entry) != set(KEYS):
        keys = ", ".join(entry) if isinstance(entry, dict) else repr(entry)
        raise InputError(f"expected {', '.join(KEYS)} of {key}, found {keys or 'none'} in {file}")
    spec, value = SPECS[key], entry["value"]
    if not spec.table:
        return _number(value, key, spec, file)
    if not isinstance(value, dict) or not value:
        raise InputError(f"expected values by bits of {key}, found {value!r} in {file}")
    numbers = {}
    for bits, each in value.items():
        if not bits.isascii() or not bits.isdigit() or not 1 <= int(bits) <= _MOST_BITS:
            raise InputError(
                f"expected bits 1 to {_MOST_BITS} in the table of {key}, found {bits!r} in {file}"
            )
        numbers[int(bits)] = _number(each, f"{key} for {bits} bits", spec, file)
    return dict(sorted(numbers.items()))


def _number(value: Any, key: str, spec: Spec, file: str) -> float:
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    if not fine or not math.isfinite(value) or value < 0 or (value == 0 and not spec.zero):
        least = "of at least 0" if spec.zero else "above 0"
        raise InputError(
            f"expected a number {least} ({spec.unit}) as {key}, found {value!r} in {file}"
        )
    return float(value)


def _node(value: Any, key: str, file: str) -> float:
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    if not fine or not FINEST <= value <= COARSEST:
        raise InputError(
            f"expected a node of {FINEST} to {COARSEST} (nm) as {key}, found {value!r} in {file}"
        )
    return float(value)


def _shown(value: float | Mapping[int, float]) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{bits} bits: {each:g}" for bits, each in value.items())
    return f"{value:g}"
