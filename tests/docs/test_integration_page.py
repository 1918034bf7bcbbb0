"""The page for integrators: its timing diagrams against the hardware, its names too."""

import json
import re

import pytest

from prap_hw.driver.packets import MAGIC, Kind
from prap_hw.driver.registers import Control, Status
from prap_hw.shell import register_map
from tests.support import ROOT
from tests.support.rtl.axi_registers import Registers
from tests.support.rtl.bench import Constant, Script, Watch, simulate

PAGE = (ROOT / "docs" / "integration.md").read_text()

DIAGRAMS = [json.loads(text) for text in re.findall(r"```wavedrom\n(.*?)```", PAGE, re.DOTALL)]

INPUTS = ("awvalid", "wvalid", "bready", "arvalid", "rready")


def levels(wave: str) -> list[int]:
    """A level to each cycle of a wave."""
    result: list[int] = []
    for letter in wave:
        result.append(result[-1] if letter == "." else int(letter))
    return result


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=[d["head"]["text"] for d in DIAGRAMS])
def test_the_slave_does_what_the_diagram_shows(diagram):
    dut = Registers()
    axi = dut.slave.axi
    waves = {s["name"]: levels(s["wave"]) for s in diagram["signal"] if s["name"] != "aclk"}
    watches = {name: Watch(getattr(axi, name)) for name in waves if name not in INPUTS}
    scripts = [
        Script(getattr(axi, name), dict(enumerate(wave)))
        for name, wave in waves.items()
        if name in INPUTS
    ]
    length = len(next(iter(waves.values())))
    address = Constant((axi.awaddr, 0x28), (axi.araddr, 0x28), (axi.wstrb, 15))
    simulate(dut, address, *scripts, *watches.values(), cycles=length)
    assert watches
    for name, watch in watches.items():
        assert watch.values == waves[name], name


def test_the_page_has_the_numbers_of_the_code():
    assert len(DIAGRAMS) == 2
    assert f"| 15:0 | 0x{MAGIC:04X}, the letters PR |" in PAGE
    kinds = ", ".join(f"{kind.value} {kind.name.lower()}" for kind in Kind)
    assert f"kind: {kinds}" in PAGE
    for name in ("CONTROL", "STATUS", "ERROR", "ERROR_ITEM", "INPUT_BYTES", "OUTPUT_BYTES"):
        assert re.search(rf"\b{name}\b", PAGE), name
        assert register_map.load()[name]  # KeyError: not in the map
    assert Control.START == 1
    assert Status.DONE == 2
