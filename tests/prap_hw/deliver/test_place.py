"""Place and route: reports read, paths in words, and, in the long tests, clocks that hold."""

import statistics
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from prap_hw.deliver import place
from prap_hw.deliver.harness import TOP, in_harness
from prap_hw.deliver.place import CriticalPath, Placement, Step
from prap_hw.deliver.verilog import SHELL, engine_verilog, shell_verilog
from refmodel.config import PRESETS
from refmodel.errors import InputError, MissingExtraError
from tests.support.layers.hand import TINY_ENGINE
from tests.support.tools import required

PAIR = """\
module part(
  clk,
  a,
  b
);
  input clk;
  input [15:0] a;
  output [15:0] b;
  reg [15:0] b;
  always @(posedge clk) b <= b + a;
endmodule
module \\top.two (
  clk,
  a,
  b
);
  input clk;
  input [15:0] a;
  output [15:0] b;
  part inner (.clk(clk), .a(a), .b(b));
endmodule
module top(clk, a, c);
  input clk;
  input [15:0] a;
  output [15:0] c;
  wire [15:0] b;
  part one (.clk(clk), .a(a), .b(b));
  \\top.two  two (.clk(clk), .a(b), .b(c));
endmodule
"""
"""Two accumulators in a row, the second one in a module of its own."""

REPORT = {
    "utilization": {
        "TRELLIS_FF": {"used": 3, "available": 10},
        "DCCA": {"used": 0, "available": 2},
    },
    "fmax": {"$glbnet$clk$TRELLIS_IO_IN": {"achieved": 81.5, "constraint": 100.0}},
    "critical_paths": [
        {
            "from": "posedge $glbnet$clk$TRELLIS_IO_IN",
            "to": "posedge $glbnet$clk$TRELLIS_IO_IN",
            "path": [
                {"delay": 0.5, "type": "clk-to-q", "to": {"cell": "one.b_TRELLIS_FF_Q"}},
                {"delay": 1.25, "type": "routing", "to": {"cell": "two.inner.b_CCU2C_S0"}},
                {"delay": 0.25, "type": "logic", "to": {"cell": "two.inner.b_CCU2C_S0"}},
                {"delay": 0.0, "type": "setup", "to": {"cell": "c_TRELLIS_FF_Q"}},
            ],
        }
    ],
}
"""What nextpnr reports, where it is read."""


def placement(clocks: dict[str, float]) -> Placement:
    return Placement(
        device=place.ULX3S,
        seed=1,
        used={},
        available={},
        clocks=clocks,
        paths=(),
        configuration=None,
    )


def step(component: str, kind: str, delay: float) -> Step:
    return Step(component=component, cell=f"{component}.x", kind=kind, delay=delay)


def test_instances_are_found_in_the_text() -> None:
    assert place.instances_of(PAIR, "top") == {"one", "two", "two.inner"}
    paths = place.instances_of(engine_verilog(TINY_ENGINE), "prap_engine")
    assert {"engine.core.controller.words_0", "crossbar"} <= paths


def test_a_report_is_summed_up_in_names_of_components() -> None:
    summary = place._summary(REPORT, place.instances_of(PAIR, "top"))
    assert summary["used"] == {"TRELLIS_FF": 3}
    assert summary["available"] == {"TRELLIS_FF": 10, "DCCA": 2}
    assert summary["clocks"] == {"clk": 81.5}
    (path,) = summary["paths"]
    assert (path["launched"], path["captured"]) == ("posedge clk", "posedge clk")
    assert [each["component"] for each in path["steps"]] == ["one", "two.inner", "two.inner", ""]


def test_a_path_is_told_in_words() -> None:
    steps = (
        step("a", "clk-to-q", 0.5),
        step("b", "routing", 1.0),
        step("b", "logic", 0.25),
        step("b", "logic", 0.07),
        step("c", "routing", 0.18),
    )
    path = CriticalPath(launched="posedge clk", captured="posedge clk", steps=steps)
    # A carry along a chain is no level.
    assert path.words() == "from a over b to c: 2.0 ns through 1 cell, 59% wires"
    alone = replace(path, steps=steps[:1])
    assert alone.words() == "within a: 0.5 ns through 0 cells, 0% wires"


def test_the_slowest_clock_and_the_median_of_seeds() -> None:
    placed = [placement({"clk": mhz, "fast": 300.0}) for mhz in (80.0, 70.0, 75.0)]
    assert [each.slowest for each in placed] == [80.0, 70.0, 75.0]
    assert place.median(placed) == 75.0
    with pytest.raises(InputError, match="expected a design with a clock, found none"):
        _ = placement({}).slowest


def test_a_package_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(place.metadata, "version", version)
    with pytest.raises(MissingExtraError, match=r"found none: pip install 'prap-pim\[synth\]'"):
        place.require("ecp5")
    with pytest.raises(InputError, match="expected a family of ecp5, ice40, found 'xilinx'"):
        place.require("xilinx")


def test_a_harness_has_every_port_but_the_clock() -> None:
    text = in_harness(PAIR, "top")
    assert text.startswith(PAIR)
    assert ".clk(clk)" in text
    assert ".a(ins[15:0])" in text
    assert ".c(found[15:0])" in text
    with pytest.raises(InputError, match="expected a module with one clock"):
        in_harness(PAIR.replace("clk", "tick"), "top")


@pytest.fixture
def tools() -> None:
    for family in place.TOOLS:
        required(lambda family=family: place.require(family))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("device", [place.ULX3S, place.ICE40_PINS], ids=lambda d: d.family)
def test_a_design_is_placed_and_kept(
    device: place.Device, tools: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = place.place(in_harness(PAIR, "top"), TOP, device, cache=tmp_path)
    assert set(placed.clocks) == {"clk"}
    assert placed.slowest > 100
    assert placed.path("clk").delay == pytest.approx(1000 / placed.slowest, abs=0.1)
    assert placed.configuration is not None
    assert placed.configuration.stat().st_size > 1000
    monkeypatch.setattr(place, "run_wasm", lambda *_: 1 / 0)
    again = place.place(in_harness(PAIR, "top"), TOP, device, cache=tmp_path)
    assert again == placed
    with pytest.raises(ZeroDivisionError):
        place.place(in_harness(PAIR, "top"), TOP, device, seed=2, cache=tmp_path)


@pytest.mark.slow
@pytest.mark.long
def test_a_design_that_does_not_fit_is_refused_with_nextpnrs_words(
    tools: None, tmp_path: Path
) -> None:
    small = place.Device(family="ice40", chip="lp384", package="qn32")
    wide = PAIR.replace("[15:0]", "[299:0]")
    with pytest.raises(InputError, match="expected a design that fits, found in nextpnr-ice40"):
        place.place(in_harness(wide, "top"), TOP, small, cache=tmp_path)


@pytest.mark.slow
@pytest.mark.long
def test_the_small_engine_in_its_shell_reaches_its_clock(tools: None, root: Path) -> None:
    config = replace(PRESETS["small"], trace=False)
    text = in_harness(shell_verilog(config), SHELL[False])
    cache = root / "build" / "cache"
    placed = [place.place(text, TOP, place.ULX3S, seed=seed, cache=cache) for seed in (1, 2, 3)]
    mhz = [each.slowest for each in placed]
    assert statistics.median(mhz) >= 75, [each.path("clk").words() for each in placed]
