"""The register map of the host shell, read from its SystemRDL, and what is written from it.

``registers/prap_pim.rdl`` is the one description. ``systemrdl-compiler`` reads it; the hardware
(:mod:`prap_hw.shell.register_file`), the driver's constants (``driver/registers.py``), the C header
and the tables of the documentation are made from the same tree.

The exporters that exist for that compiler do not serve: ``peakrdl-cheader`` 1.1.0 leaves out the
enumerations (the error codes) and names a register type that is used twice by a hash,
``peakrdl-markdown`` 1.0.3 leaves them out too and writes a section to each register, and
``peakrdl-python`` 4.0.0 makes a package that needs another at run time, which a driver on a small
board should not.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

NAME = "prap_pim"
"""Name of the map, and of the files that are written from it."""

SOURCE = f"{NAME}.rdl"
"""Name of the description, in the package's folder ``registers``."""

PYTHON_PLACE = Path(__file__).parents[1] / "driver" / "registers.py"
"""The driver's constants, which `make registers` writes."""

WORD = 4
"""Bytes of a word of the bus."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a register.

    Attributes
    ----------
    name, description
        As the RDL has them.
    low, width
        Its lowest bit and its bits.
    readable, writable
        Whether the host may read the field, and write it.
    pulse
        Whether a 1 that is written is a command of one cycle.
    clears
        Whether a 1 that is written clears; events of the hardware set such a field.
    reset
        Value after reset; None where the hardware drives the field.
    values
        Name of the enumeration of its values, if any.
    """

    name: str
    description: str
    low: int
    width: int
    readable: bool
    writable: bool
    pulse: bool
    clears: bool
    reset: int | None
    values: str | None

    @property
    def mask(self) -> int:
        """The field's bits within the register."""
        return ((1 << self.width) - 1) << self.low

    @property
    def access(self) -> str:
        """Access of the host to the field, in the words of the documentation."""
        if self.pulse:
            return "write 1"
        if self.clears:
            return "read, write 1 to clear"
        return "read, write" if self.writable else "read"


@dataclass(frozen=True, kw_only=True)
class Register:
    """A register.

    Attributes
    ----------
    name, title, description
        Identifier, and words for people.
    address
        Address of its first byte.
    width
        Bits: 32, or 64 for one that is read in two halves, the low one first.
    constant
        Whether the elaborated design gives it a constant.
    locked
        Whether it cannot be written while the core runs.
    fields
        From the lowest bit up.
    """

    name: str
    title: str
    description: str
    address: int
    width: int
    constant: bool
    locked: bool
    fields: tuple[Field, ...]

    @property
    def writable(self) -> bool:
        """Whether the host may write any of it."""
        return any(field.writable for field in self.fields)


@dataclass(frozen=True, kw_only=True)
class Enumeration:
    """Names of the values of a field, with a sentence each."""

    name: str
    members: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True, kw_only=True)
class RegisterMap:
    """The whole map.

    Attributes
    ----------
    size
        Bytes from address 0 to the end of the last register.
    """

    name: str
    registers: tuple[Register, ...]
    enumerations: tuple[Enumeration, ...]

    @property
    def size(self) -> int:
        """Bytes from address 0 to the end of the last register."""
        return max(register.address + register.width // 8 for register in self.registers)

    def __getitem__(self, name: str) -> Register:
        for register in self.registers:
            if register.name == name:
                return register
        raise KeyError(name)


def source_text() -> str:
    """The SystemRDL."""
    place = resources.files("prap_hw") / "shell" / "registers" / SOURCE
    return place.read_text(encoding="utf-8")


@cache
def load() -> RegisterMap:
    """Compile the description; once in a process."""
    from systemrdl.compiler import RDLCompiler
    from systemrdl.node import FieldNode, RegNode

    compiler = RDLCompiler()
    with resources.as_file(resources.files("prap_hw") / "shell" / "registers" / SOURCE) as path:
        compiler.compile_file(str(path))
    top = compiler.elaborate().top
    enumerations: dict[str, Enumeration] = {}

    def field(node: FieldNode) -> Field:
        encode: Any = node.get_property("encode")
        if encode is not None:
            name = encode.type_name.removesuffix("_e")
            members = tuple(
                (str(item.name), int(item.value), str(item.rdl_desc or "")) for item in encode
            )
            enumerations[name] = Enumeration(name=name, members=members)
        reset: Any = node.get_property("reset")
        onwrite: Any = node.get_property("onwrite")
        return Field(
            name=node.inst_name,
            description=str(node.get_property("desc") or ""),
            low=node.low,
            width=node.width,
            readable=node.is_sw_readable,
            writable=node.is_sw_writable,
            pulse=bool(node.get_property("singlepulse")),
            clears=onwrite is not None and onwrite.name == "woclr",
            reset=None if reset is None else int(reset),
            values=None if encode is None else encode.type_name.removesuffix("_e"),
        )

    def register(node: RegNode) -> Register:
        return Register(
            name=node.inst_name,
            title=str(node.get_property("name")),
            description=str(node.get_property("desc") or ""),
            address=node.absolute_address,
            width=int(node.get_property("regwidth")),
            constant=bool(node.get_property("constant", default=False)),
            locked=bool(node.get_property("locked", default=False)),
            fields=tuple(field(child) for child in node.fields()),
        )

    registers = tuple(register(node) for node in top.registers(unroll=True))
    return RegisterMap(
        name=top.inst_name, registers=registers, enumerations=tuple(enumerations.values())
    )


def _rows(registers: RegisterMap) -> Iterator[tuple[Register, Field]]:
    for register in registers.registers:
        for field in register.fields:
            yield register, field


def _bits(field: Field) -> str:
    high = field.low + field.width - 1
    return f"{high}:{field.low}" if field.width > 1 else str(field.low)


def _value(number: int) -> str:
    return str(number) if number < 10 else f"0x{number:X}"


def markdown_text(registers: RegisterMap) -> str:
    """Tables of registers, fields and values, for the documentation."""
    lines = ["| address | register | what it is |", "|---|---|---|"]
    for register in registers.registers:
        end = f" to 0x{register.address + 4:03X}" if register.width > 32 else ""
        named = f"`{register.name}`"
        locked = " (not written while the core runs)" if register.locked else ""
        lines.append(
            f"| 0x{register.address:03X}{end} | {named} | {register.description}{locked} |"
        )
    lines += ["", "| register | bits | field | host | after reset | what it is |"]
    lines += ["|---|---|---|---|---|---|"]
    for register, field in _rows(registers):
        if len(register.fields) == 1 and not (field.description or field.values or field.writable):
            continue
        reset = "" if field.reset is None else _value(field.reset)
        lines.append(
            f"| `{register.name}` | {_bits(field)} | `{field.name}` | {field.access} | {reset} "
            f"| {field.description} |"
        )
    for enumeration in registers.enumerations:
        lines += ["", f"| `{enumeration.name}` | value | meaning |", "|---|---|---|"]
        lines += [f"| `{name}` | {value} | {text} |" for name, value, text in enumeration.members]
    return "\n".join(lines) + "\n"


def c_text(registers: RegisterMap) -> str:
    """The C header: an address to each register, mask and shift to each field, the values."""
    prefix = registers.name.upper()
    guard = f"{prefix}_REGISTERS_H"
    lines = [
        f"/* Registers of {registers.name}, written from {SOURCE}. Addresses are of bytes. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
    ]
    for register in registers.registers:
        name = f"{prefix}_{register.name}"
        lines.append(f"/* {register.description} */")
        lines.append(f"#define {name} 0x{register.address:03X}u")
        if register.width > 32:
            lines.append(f"#define {name}_HIGH 0x{register.address + 4:03X}u")
            continue
        for field in register.fields:
            lines.append(f"#define {name}_{field.name.upper()}_MASK 0x{field.mask:08X}u")
            lines.append(f"#define {name}_{field.name.upper()}_SHIFT {field.low}u")
    for enumeration in registers.enumerations:
        lines += ["", f"/* Values of {enumeration.name}. */"]
        for name, value, text in enumeration.members:
            lines.append(
                f"#define {prefix}_{enumeration.name.upper()}_{name} {value}u /* {text} */"
            )
    return "\n".join([*lines, "", f"#endif /* {guard} */", ""])


def python_text(registers: RegisterMap) -> str:
    """The driver's module of constants: classes of addresses, masks and values."""
    lines = [
        f'"""Registers of {registers.name}: written from {SOURCE} by `make registers`."""',
        "",
        "from enum import IntEnum, IntFlag",
        "",
        "",
        "class Register(IntEnum):",
        '    """Addresses, in bytes; of a counter the address of its low half."""',
        "",
    ]
    lines += [f"    {register.name} = 0x{register.address:03X}" for register in registers.registers]
    for register in registers.registers:
        flags = [field for field in register.fields if field.width == 1]
        if not flags:
            continue
        title = register.name.title().replace("_", "")
        lines += ["", "", f"class {title}(IntFlag):", f'    """Bits of {register.name}."""', ""]
        lines += [f"    {field.name.upper()} = 0x{field.mask:X}" for field in flags]
    for enumeration in registers.enumerations:
        lines += ["", "", f"class {enumeration.name.title().replace('_', '')}(IntEnum):"]
        lines += [f'    """Values of {enumeration.name}."""', ""]
        lines += [f"    {name} = {value}" for name, value, _ in enumeration.members]
        lines += ["", "    @property", "    def meaning(self) -> str:"]
        lines += ['        """What it means."""', "        return {"]
        for _, value, text in enumeration.members:
            lines.append(f"            {value}: {json.dumps(text)},")
        lines += ["        }[self.value]"]
    configuration = [r for r in registers.registers if r.name.startswith("CONFIG_") and r.title]
    lines += ["", "", "CONFIGURATION = {"]
    lines += [
        f"    {json.dumps(register.title)}: Register.{register.name},"
        for register in configuration
        if register.name == f"CONFIG_{register.title.upper()}"
    ]
    lines += ["}", '"""Registers of the sizes, by the names that `EngineConfig` gives them."""']
    lines += ["", "COUNTERS = {"]
    lines += [
        f'    "{register.name.removeprefix("COUNT_").lower()}": Register.{register.name},'
        for register in registers.registers
        if register.width > 32
    ]
    lines += ["}", '"""Registers of the counters, by name."""', ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PYTHON_PLACE.write_text(python_text(load()), encoding="utf-8")
