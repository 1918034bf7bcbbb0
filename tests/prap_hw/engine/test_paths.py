"""Paths between the registers of an engine: what cuts them must stay, without place and route."""

import pytest
from amaranth.back import verilog

from prap_hw.deliver import synthesis
from prap_hw.deliver.verilog import TOP
from prap_hw.engine import engine as hardware
from tests.support.layers.hand import TINY_ENGINE
from tests.support.rtl.cones import Cones
from tests.support.rtl.mutants import Mutant, apply
from tests.support.tools import required

COUNTER = 2
"""Cells in front of the adder of a counter in the core: whether a pause counts, and how long."""

READER = 3
"""Cells behind an index memory: its parity, inverted, of a word that is there."""


@pytest.fixture(scope="module", autouse=True)
def yosys() -> None:
    required(synthesis.require)


def cones() -> Cones:
    component = hardware.EmulatedEngine(TINY_ENGINE)
    return Cones(verilog.convert(component, name=TOP[False], emit_src=False), TOP[False])


def faults(found: Cones) -> list[str]:
    """Return the rules that a design breaks."""
    broken = []
    own = {"cycles", "outputs"}
    counters = {name: depth for name, depth in found.counters().items() if name not in own}
    assert len(counters) >= 14
    if max(counters.values()) > COUNTER:
        broken.append("counter")
    readers = {
        name: depth
        for name, depth in found.from_memories().items()
        if ".controller." in name and name.endswith(".words")
    }
    assert len(readers) == 5
    if max(readers.values()) > READER:
        broken.append("reader")
    reached = found.reached_from("o__ready")
    assert "o__payload" in reached
    if any(".core." in name for name in reached):
        broken.append("ready")
    return broken


def test_counters_memories_and_the_output_are_cut_off_by_registers():
    assert faults(cones()) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "old", "new", "rule"),
    [
        ("engine", "m.d.sync += amount.eq(Mux", "m.d.comb += amount.eq(Mux", "counter"),
        (
            "index_reader",
            "running & (~there | onward)",
            "running & (~there | (onward & ~words.wrong))",
            "reader",
        ),
        ("requantise", "move.eq(~spared)", "move.eq(~self.o.valid | self.o.ready)", "ready"),
    ],
    ids=["counter", "reader", "ready"],
)
def test_a_cut_that_is_gone_is_found(monkeypatch, module, old, new, rule):
    apply(monkeypatch, Mutant(module, rule, ((old, new),), ""))
    assert rule in faults(cones())
