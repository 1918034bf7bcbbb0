"""A netlist of ECP5 cells as expressions and registers, which a simulator builds far sooner.

Each LUT, carry, multiplexer, flip-flop and LUT RAM in the Verilog that Yosys writes of a netlist is
replaced by what Yosys' model of the cell says (``share/lattice/common_sim.vh``, ``ccu2c_sim.vh``),
with its own table and its own connections; nothing is simplified. Registers begin as the model has
them, LUT RAM with any contents. Cells that are left are those of ``sim/builds/ecp5_cells.v``.
"""

import re
from collections.abc import Callable, Mapping

from refmodel.errors import InputError

INSTANCE = re.compile(
    r"^  (?P<type>\w+) (?:#\(\n(?P<parameters>.*?)\n  \) )?(?P<name>\\\S+ |\w+) ?\(\n"
    r"(?P<connections>.*?)\n  \);$",
    re.MULTILINE | re.DOTALL,
)
"""An instance as Yosys writes it, with a connection to a line."""

ENTRY = re.compile(r"^    \.(?P<key>\w+)\((?P<value>.*)\),?$", re.MULTILINE)

Entries = Mapping[str, str]


def expressions(netlist: str) -> str:
    """Replace the cells of a netlist.

    Raises
    ------
    InputError
        A parameter of a cell has a value that is not known here: registers that load their pin M,
        LUT RAM with given contents.
    """
    number = 0

    def replaced(found: re.Match[str]) -> str:
        nonlocal number
        make = MAKERS.get(found["type"])
        if make is None:
            return found[0]
        number += 1
        parameters = _entries(found["parameters"] or "")
        return make(f"prap_cell_{number}", parameters, _entries(found["connections"]))

    return INSTANCE.sub(replaced, netlist)


def _entries(text: str) -> dict[str, str]:
    return {entry["key"]: entry["value"].strip() for entry in ENTRY.finditer(text)}


def _pin(pins: Entries, name: str) -> str:
    """What is at an input; 0 where nothing is."""
    found = pins.get(name, "")
    return f"{found} " if found else "1'b0"


def _drive(pins: Entries, name: str, value: str) -> str:
    return f"  assign {pins[name]} = {value};\n" if pins.get(name) else ""


def _known(parameters: Entries, name: str, values: tuple[str, ...]) -> str:
    """A word among the parameters; the first of ``values`` where it is not given."""
    found = parameters.get(name, f'"{values[0]}"').strip('"')
    if found not in values:
        raise InputError(f"expected {name} as one of {', '.join(values)}, found {found!r}")
    return found


def _table(init: str, *pins: str) -> str:
    """A LUT: the bit of its table that the inputs, lowest last, number."""
    return f"1'({init} >> {{{', '.join(pins)}}})"


def _lut4(name: str, parameters: Entries, pins: Entries) -> str:
    inputs = [_pin(pins, port) for port in "DCBA"]
    return _drive(pins, "Z", _table(parameters.get("INIT", "16'h0000"), *inputs))


def _inverter(name: str, parameters: Entries, pins: Entries) -> str:
    return _drive(pins, "Z", f"~{_pin(pins, 'A')}")


def _pfumx(name: str, parameters: Entries, pins: Entries) -> str:
    which, one, other = (_pin(pins, port) for port in ("C0", "ALUT", "BLUT"))
    return _drive(pins, "Z", f"{which}? {one}: {other}")


def _l6mux21(name: str, parameters: Entries, pins: Entries) -> str:
    which, one, other = (_pin(pins, port) for port in ("SD", "D1", "D0"))
    return _drive(pins, "Z", f"{which}? {one}: {other}")


def _ccu2c(name: str, parameters: Entries, pins: Entries) -> str:
    text, carry = "", _pin(pins, "CIN")
    for half in "01":
        init = parameters.get(f"INIT{half}", "16'h0000")
        inject = _known(parameters, f"INJECT1_{half}", ("YES", "NO")) == "YES"
        inputs = [_pin(pins, f"{port}{half}") for port in "DCBA"]
        four, two = f"{name}_four_{half}", f"{name}_two_{half}"
        text += f"  wire {four} = {_table(init, *inputs)};\n"
        # Of four inputs the lower two, the table's lowest bits.
        text += f"  wire {two} = {_table(init, *inputs[2:])};\n"
        text += _drive(pins, f"S{half}", four if inject else f"{four} ^ {carry}")
        text += f"  wire {name}_carry_{half} = "
        generate = "" if inject else f"(~{four} & {two}) | "
        text += f"{generate}({four} & {carry});\n"
        carry = f"{name}_carry_{half}"
    return text + _drive(pins, "COUT", carry)


def _ff(name: str, parameters: Entries, pins: Entries) -> str:
    if _known(parameters, "LSRMODE", ("LSR", "PRLD")) == "PRLD":
        raise InputError("expected LSRMODE as LSR, found 'PRLD'")
    value = {"RESET": "1'b0", "SET": "1'b1"}[_known(parameters, "REGSET", ("RESET", "SET"))]
    edge = {"CLK": "posedge", "INV": "negedge"}[_known(parameters, "CLKMUX", ("CLK", "INV"))]
    enable = {"1": "1'b1", "0": "1'b0", "INV": f"~{_pin(pins, 'CE')}", "CE": _pin(pins, "CE")}[
        _known(parameters, "CEMUX", ("1", "0", "INV", "CE"))
    ]
    inverted = _known(parameters, "LSRMUX", ("LSR", "INV")) == "INV"
    reset = f"~{_pin(pins, 'LSR')}" if inverted else _pin(pins, "LSR")
    how = _known(parameters, "SRMODE", ("LSR_OVER_CE", "ASYNC"))
    text = f"  reg {name} = {value};\n"
    when = f"{edge} {_pin(pins, 'CLK')}"
    if how == "ASYNC":
        text += f"  wire {name}_reset = {reset};\n"
        when += f" or posedge {name}_reset"
        reset = f"{name}_reset"
    text += f"  always @({when})\n"
    data = _pin(pins, "DI")
    if reset.strip() not in ("1'h0", "1'b0"):
        text += f"    if ({reset}) {name} <= {value};\n    else "
    else:
        text += "    "
    text += f"if ({enable}) {name} <= {data};\n"
    return text + _drive(pins, "Q", name)


def _lut_ram(name: str, parameters: Entries, pins: Entries) -> str:
    contents = parameters.get("INITVAL", "64'hx")
    if contents.split("'h")[-1].strip("x"):
        raise InputError(f"expected INITVAL with no known bit, found {contents}")
    edge = {"WCK": "posedge", "INV": "negedge"}[_known(parameters, "WCKMUX", ("WCK", "INV"))]
    write = {"WRE": _pin(pins, "WRE"), "INV": f"~{_pin(pins, 'WRE')}", "1": "1'b1", "0": "1'b0"}[
        _known(parameters, "WREMUX", ("WRE", "INV", "1", "0"))
    ]
    return (
        f"  reg [3:0] {name} [0:15];\n"
        f"  always @({edge} {_pin(pins, 'WCK')})\n"
        f"    if ({write}) {name}[{_pin(pins, 'WAD')}] <= {_pin(pins, 'DI')};\n"
        + _drive(pins, "DO", f"{name}[{_pin(pins, 'RAD')}]")
    )


MAKERS: Mapping[str, Callable[[str, Entries, Entries], str]] = {
    "LUT4": _lut4,
    "INV": _inverter,
    "PFUMX": _pfumx,
    "L6MUX21": _l6mux21,
    "CCU2C": _ccu2c,
    "TRELLIS_FF": _ff,
    "TRELLIS_DPR16X4": _lut_ram,
}
"""What is made of each type of cell."""
