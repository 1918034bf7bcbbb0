"""Synthesis: no latch, no loop, one driver to a signal, block RAM; mutants are rejected."""

import json
import re
from pathlib import Path

import pytest

from prap_hw.app import workflow
from prap_hw.app.cli.outcome import DIFFERENT
from prap_hw.app.cli.program import run
from prap_hw.deliver import synthesis
from prap_hw.deliver.synthesis import Memory, Synthesis, check, synthesise
from prap_hw.deliver.verilog import TOP, engine_verilog
from refmodel.config import PRESETS
from refmodel.errors import InputError
from tests.support.layers.hand import TINY_ENGINE
from tests.support.tools import required

LATCH = "module top(input a, input b, output reg c);\nalways @* if (a) c = b;\nendmodule\n"
LOOP = "module top(input a, output c);\nwire d; assign c = d & a; assign d = c | a;\nendmodule\n"
TWICE = "module top(input a, input b, output c);\nassign c = a; assign c = b;\nendmodule\n"
ACROSS = """\
module part(input a, output b);
assign b = ~a;
endmodule
module top(input a, output c);
wire d; assign d = c & a;
part p(.a(d), .b(c));
endmodule
"""
NEVER = "module top(input a, output c);\nwire d; assign c = d & a;\nendmodule\n"

INVERTER = """\
module part(input clk, input a, output reg b);
always @(posedge clk) b <= ~a;
endmodule
module \\top.store (input clk, input a, output b);
part p(.clk(clk), .a(a), .b(b));
endmodule
module top(input clk, input a, output b);
\\top.store  store(.clk(clk), .a(a), .b(b));
endmodule
"""
"""A flip-flop behind an inverter, one LUT; `part` is in no component."""

RAM = """\
module top(input clk, input we, input [6:0] at, input [7:0] d, output{reg} [7:0] q);
  reg [7:0] m [127:0];
  always @(posedge clk) if (we) m[at] <= d;
  {read}
endmodule
"""
"""128 words of 8 bits, read with or without a clock."""


@pytest.fixture(scope="module", autouse=True)
def yosys() -> None:
    required(synthesis.require)


@pytest.fixture(scope="module")
def engine() -> str:
    return engine_verilog(TINY_ENGINE)


@pytest.mark.parametrize("open_port", [False, True])
def test_the_engine_is_hardware(open_port: bool) -> None:
    text = engine_verilog(TINY_ENGINE, open_port=open_port)
    assert check(text, TOP[open_port]) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (LATCH, r"latch: \\top\.\\c"),
        (LOOP, r"found logic loop in module top: .*wire \\c"),
        (ACROSS, r"found logic loop in module top: .*wire \\c"),
        (TWICE, r"multiple conflicting drivers for top\.\\"),
        (NEVER, r"Wire top\.\\d is used but has no driver\."),
    ],
    ids=["latch", "loop", "loop across modules", "two drivers", "no driver"],
)
def test_a_fault_is_found(text: str, fault: str) -> None:
    (found,) = check(text, "top")
    assert re.match(fault, found)


MOVE = r"^(  assign port__request__ready = )(.*\| port__response__ready);$"
"""Where the emulated crossbar says whether its pipeline moves."""


def mutant(text: str, pattern: str, change: str) -> str:
    """The engine with one place of its Verilog changed."""
    changed, count = re.subn(pattern, change, text, count=1, flags=re.MULTILINE)
    assert count == 1
    return changed


def test_a_mutant_engine_with_a_latch_is_rejected(engine: str) -> None:
    # The first signal that has a default and is then set in a branch loses the default.
    default = r"^(  always @\* begin\n    if \(.*\) begin end\n)    \S+ +=.*;\n(?=    if)"
    faults = check(mutant(engine, default, r"\1"), TOP[False])
    assert faults
    assert all(fault.startswith("latch: ") for fault in faults)


def test_a_mutant_engine_with_a_loop_is_rejected(engine: str) -> None:
    # The emulated crossbar takes a request only where it takes a request.
    text = mutant(engine, MOVE, r"\1(\2) & move;")
    faults = check(text, TOP[False])
    assert faults
    assert all("logic loop" in fault for fault in faults)


def test_a_mutant_engine_with_two_drivers_is_rejected(engine: str) -> None:
    text = mutant(engine, MOVE, r"\1\2;\n  assign port__request__ready = rst;")
    assert any("multiple conflicting drivers" in fault for fault in check(text, TOP[False]))


def test_verilog_that_cannot_be_read_is_no_fault_of_the_design() -> None:
    with pytest.raises(RuntimeError, match=r"Yosys ended with 1\n[\s\S]*syntax error"):
        check("module top(", "top")


def test_cells_are_counted_to_components(tmp_path: Path) -> None:
    found = synthesise(INVERTER, "top", "ice40", cache=tmp_path)
    assert found.faults == ()
    one = {"LUT4": 1, "carry": 0, "flip-flops": 1, "block RAM": 0, "memory bits": 0}
    # `part` is a module by itself, whose name says nothing of a component.
    assert found.components() == {"engine": one, "total": one}
    text = INVERTER.replace("module part", "module \\top.store.part ")
    found = synthesise(
        text.replace("\npart p", "\n\\top.store.part  p"), "top", "ice40", cache=tmp_path
    )
    assert found.components() == {"store": one, "total": one}


def test_a_memory_of_many_words_must_be_block_ram(tmp_path: Path) -> None:
    clocked = RAM.format(reg=" reg", read="always @(posedge clk) q <= m[at];")
    found = synthesise(clocked, "top", cache=tmp_path)
    assert [(each.name, each.words, each.width) for each in found.memories] == [("m", 128, 8)]
    # Yosys finds LUTs cheaper for 128 bytes, but not for 512.
    assert found.faults == (
        "no block RAM: memory m of top, 128 words of 8 bits, has become TRELLIS_DPR16X4",
    )
    wide = clocked.replace("[6:0] at", "[8:0] at").replace("[127:0]", "[511:0]")
    found = synthesise(wide, "top", cache=tmp_path)
    assert found.faults == ()
    assert found.memories[0].cell in synthesis.BLOCK_RAM["ecp5"]
    assert found.components()["total"]["block RAM"] == 1
    assert found.components()["total"]["memory bits"] == 512 * 8
    # Without a clock between address and data no block RAM can be.
    loose = wide.replace(" reg [7:0] q", " [7:0] q").replace(
        "always @(posedge clk) q <=", "assign q ="
    )
    (fault,) = synthesise(loose, "top", cache=tmp_path).faults
    assert fault.startswith("no block RAM: memory m of top, 512 words of 8 bits, has become ")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("family", ["ecp5", "ice40"])
def test_a_preset_has_no_fault_and_its_memories_are_counted(
    family: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    config = PRESETS["small"]
    command = ["area", "--preset", "small", "--family", family, "--json", str(tmp_path / "a.json")]
    assert run(command) == 0
    figures = json.loads((tmp_path / "a.json").read_text())
    components = figures["components"]
    assert set(components) == {*synthesis.COMPONENTS, "engine", "total"}
    for kind in ("LUT4", "flip-flops"):
        assert all(counts[kind] > 0 for counts in components.values())
    bits = {name: counts["memory bits"] for name, counts in components.items()}
    # The cells of the crossbar; activations, and the bytes and tasks of two vectors; partial sums
    # and their copy for adding, as many as lanes; two halves of accumulators.
    assert bits["crossbar"] == config.crossbar_size**2
    assert bits["gather"] >= 8 * config.activation_bytes + 2 * 8 * config.ou_rows
    assert bits["store"] == 2 * config.slots * config.psum_width
    assert bits["accumulators"] == 2 * config.max_outputs * config.acc_width
    assert bits["ou_engine"] == bits["shift_add"] == bits["merge"] == 0
    assert bits["total"] == sum(bits.values()) - bits["total"]
    large = [memory for memory in figures["memories"] if memory["words"] > 64]
    assert {memory["name"] for memory in large} >= {"bytes", "words"}


def test_a_fault_is_an_error_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"family": "ecp5", "components": {}, "memories": [], "faults": ["latch: a"]}
    monkeypatch.setattr(workflow, "area", lambda *_, **__: figures)
    assert run(["area"]) == DIFFERENT
    assert "latch: a" in capsys.readouterr().err


def test_results_are_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = synthesise(INVERTER, "top", "ice40", cache=tmp_path)
    monkeypatch.setattr(synthesis, "_yosys", lambda *_: 1 / 0)
    assert synthesise(INVERTER, "top", "ice40", cache=tmp_path) == first
    with pytest.raises(ZeroDivisionError):
        synthesise(INVERTER, "top", "ecp5", cache=tmp_path)
    with pytest.raises(ZeroDivisionError):
        synthesise(INVERTER + "\n", "top", "ice40", cache=tmp_path)


def test_a_family_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected a family of ecp5, .* found 'nexus'"):
        synthesise(INVERTER, "top", "nexus")


def test_the_table_has_a_column_to_each_engine() -> None:
    memory = Memory(module="t.gather", name="m", words=4, width=8, cell="")
    few = Synthesis(family="ecp5", cells={"t.gather": {"LUT4": 3}}, memories=(), faults=())
    more = Synthesis(family="ecp5", cells={"t": {"LUT4": 1000}}, memories=(memory,), faults=())
    text = synthesis.markdown({"a": few, "b": more}, ["LUT4", "memory bits"])
    assert text.splitlines() == [
        "| component | LUT4, a | LUT4, b | memory bits, a | memory bits, b |",
        "|---|--:|--:|--:|--:|",
        "| gather | 3 | 0 | 0 | 32 |",
        "| engine | 0 | 1,000 | 0 | 0 |",
        "| total | 3 | 1,000 | 0 | 32 |",
    ]
