"""The module at the open crossbar port: the black box that a mixed-signal designer fills.

The ports of ``prap_crossbar`` are those of :class:`prap_hw.common.crossbar.EmulatedCrossbar` in
Verilog: one can stand for the other. ``docs/port.md`` has the rules.
"""

import re
from dataclasses import dataclass

from amaranth.lib import data

from prap_hw.common.layouts import Layouts
from prap_hw.deliver.verilog import TOP
from refmodel.config import EngineConfig

NAME = "prap_crossbar"
"""The module to be filled."""

MACRO = "prap_engine_macro"
"""The engine with that module at its port."""

NETWORK = "prap_network_crossbar"
"""The module to be filled for an accelerator, whose crossbars hold all layers."""

FIELDS = {
    "crossbar": "crossbar of the OU",
    "row_block": "its block of wordlines, from wordline row_block * R on",
    "col_block": "its block of bitlines, from bitline col_block * C on",
    "select": "which bitlines of the OU: from select * A on",
    "digits": "a digit to each wordline of the OU, first wordline lowest; 0: not driven",
    "row": "wordline within the OU that is written",
    "cells": "a cell to each bitline of the OU, first bitline lowest",
}
"""Fields of requests and programming beats in words; R, C, A: rows, columns, converters."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port of the black box.

    Attributes
    ----------
    name
        As in Verilog.
    into
        Whether it is an input of the crossbar.
    bits
        Its width.
    notes
        Lines of comment that describe it.
    """

    name: str
    into: bool
    bits: int
    notes: tuple[str, ...]


def ports(config: EngineConfig) -> list[Port]:
    """Ports of the black box for one engine, in order."""
    layouts = Layouts(config)
    width = config.lane_bits
    codes = tuple(
        f"[{(j + 1) * width - 1}:{j * width}] code of bitline select * A + {j}"
        for j in range(config.adcs)
    )
    found = [
        Port(name="clk", into=True, bits=1, notes=("clock, rising edge",)),
        Port(
            name="rst", into=True, bits=1, notes=("synchronous reset; cells keep what they have",)
        ),
    ]
    for stream, into, bits, what, fields in (
        ("request", True, layouts.request.size, "a conversion", _fields(layouts.request)),
        ("response", False, layouts.response.size, "its codes, in order of requests", codes),
        ("program", True, layouts.cells.size, "one row of an OU to write", _fields(layouts.cells)),
    ):
        prefix = f"port__{stream}__"
        found += [
            Port(name=prefix + "valid", into=into, bits=1, notes=(f"{stream}: {what}",)),
            Port(name=prefix + "ready", into=not into, bits=1, notes=()),
            Port(name=prefix + "payload", into=into, bits=bits, notes=fields),
        ]
    return found


def _fields(layout: data.StructLayout) -> tuple[str, ...]:
    """Places and meanings of a payload's fields."""
    return tuple(
        f"[{field.offset + field.width - 1}:{field.offset}] {name}: {FIELDS[str(name)]}"
        for name, field in layout
    )


def black_box(config: EngineConfig, *, name: str = NAME) -> str:
    """Verilog of the empty module, with what each port carries; of a name."""
    size = config.crossbar_size
    lines = [
        "// The crossbars, their drivers and converters: an analog macro to be filled in.",
        f"// Crossbars: {config.crossbars} of {size} x {size} "
        + ("pairs of cells (plus below minus)" if config.pairs else "cells")
        + f" of {config.cell_bits} bits.",
        f"// Operation units: R = {config.ou_rows} wordlines, C = {config.ou_cols} bitlines.",
        f"// Bits of a wordline's digit: {config.dac_bits}.",
        f"// Converters: A = {config.adcs}; bits of a code: {config.code_bits}"
        + (", and a sign: two's complement." if config.pairs else "."),
        "// docs/port.md has the rules. prap verilog without --open-port writes an emulated one.",
        "/* verilator lint_off UNUSEDSIGNAL */",
        "/* verilator lint_off UNDRIVEN */",
        "(* blackbox *)",
        f"module {name} (",
    ]
    box = ports(config)
    for port in box:
        lines += [f"    // {note}" for note in port.notes]
        comma = "" if port is box[-1] else ","
        lines.append(f"    {_declared(port.into, port.bits, port.name)}{comma}")
    lines += [
        ");",
        "endmodule",
        "/* verilator lint_on UNDRIVEN */",
        "/* verilator lint_on UNUSEDSIGNAL */",
    ]
    return "\n".join(lines) + "\n"


def module_ports(verilog: str, module: str) -> list[tuple[bool, int, str]]:
    """Ports of a module that Amaranth wrote: whether each is an input, its bits, its name."""
    declared = re.compile(r"^  (input|output)(?: \[(\d+):0\])? (\w+) *;$", re.MULTILINE)
    body = verilog[verilog.index(f"module {module}(") :]
    body = body[: body.index("\nendmodule")]
    return [(way == "input", int(top or 0) + 1, name) for way, top, name in declared.findall(body)]


def macro(
    config: EngineConfig,
    engine: str,
    *,
    module: str = TOP[True],
    name: str = MACRO,
    box: str = NAME,
    clock: str = "clk",
    reset: str = "rst",
) -> str:
    """Verilog of the engine and the black box, connected; of several engines each has a box.

    Parameters
    ----------
    config
        Sizes of each engine.
    engine
        Verilog of what has the open ports, of the same sizes: an engine, a tile, an accelerator, or
        a shell around one. A port's name begins with ``crossbar__``, and one of an array of ports
        with ``crossbar__N__``, from 0 on.
    module, name
        Its module, and the one to write.
    box
        The black box.
    clock, reset
        Ports of ``module`` that clock and reset the crossbars.
    """
    found = module_ports(engine, module)
    outer = [port for port in found if not port[2].startswith("crossbar__")]
    wires = [port for port in ports(config) if port.name.startswith("port__")]
    numbers = sorted(
        {int(match[1]) for _, _, port in found if (match := re.match(r"crossbar__(\d+)__", port))}
    )
    # What stands before the names of a port of each box, and of its wires; its instance.
    boxes = [(f"crossbar__{n}__", f"crossbar_{n}__", f"crossbar_{n}") for n in numbers]
    boxes = boxes or [("crossbar__", "", "crossbar")]
    head = ",\n".join(f"    {_declared(*port)}" for port in outer)
    inner = "".join(
        f"    wire {_range(port.bits)}{prefix}{port.name.removeprefix('port__')};\n"
        for _, prefix, _ in boxes
        for port in wires
    )

    def instance(module: str, name: str, names: list[tuple[str, str]]) -> str:
        connected = ",\n".join(f"        .{port}({wire})" for port, wire in names)
        return f"    {module} {name} (\n{connected}\n    );\n"

    engine_names = [(name, name) for _, _, name in outer]
    instances = ""
    for port_prefix, prefix, instance_name in boxes:
        box_names = [("clk", clock), ("rst", reset)]
        for port in wires:
            wire = port.name.removeprefix("port__")
            engine_names.append((f"{port_prefix}{wire}", f"{prefix}{wire}"))
            box_names.append((port.name, f"{prefix}{wire}"))
        instances += instance(box, instance_name, box_names)
    at = "port" if len(boxes) == 1 else "ports"
    return (
        f"// {module} with the crossbar macro at its {at}.\n"
        f"module {name} (\n{head}\n);\n{inner}"
        f"{instance(module, 'engine', engine_names)}{instances}"
        "endmodule\n"
    )


def _declared(into: bool, bits: int, name: str) -> str:
    return f"{'input' if into else 'output'} wire {_range(bits)}{name}"


def _range(bits: int) -> str:
    return f"[{bits - 1}:0] " if bits > 1 else ""
