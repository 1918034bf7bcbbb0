"""The page of the crossbar port: its timing diagrams are what the emulated crossbar does.

And the black box that is written has the ports of the page, of the engine, and of that crossbar.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from amaranth.back import verilog as backend
from amaranth.sim import Simulator

from prap_hw.app import workflow
from prap_hw.common.crossbar import EmulatedCrossbar
from prap_hw.common.layouts import Layouts
from prap_hw.deliver import blackbox
from prap_hw.deliver.blackbox import MACRO, black_box, macro, ports
from prap_hw.deliver.verilog import TOP, engine_verilog
from refmodel.config import EngineConfig
from sim.builds import verilator
from tests.support import ROOT
from tests.support.layers.hand import TINY_ENGINE

PAGE = ROOT / "docs" / "port.md"

BLOCK = re.compile(r"```wavedrom\n(.*?)```", re.DOTALL)

ROWS = {"r0": 0, "r1": 1}
"""Words of the diagrams that name rows of cells."""


class Diagram(NamedTuple):
    """A diagram: value of each signal in each cycle; None where it is any."""

    latency: int
    cycles: int
    signals: dict[str, list[str | None]]


def read(text: str) -> Diagram:
    """Spread the waves of a diagram over its cycles."""
    found = json.loads(text)
    signals = {}

    def collect(entries: list[Any]) -> None:
        for entry in entries:
            if isinstance(entry, list):
                collect(entry[1:])
            else:
                words = iter(entry.get("data", []))
                values: list[str | None] = []
                for letter in entry["wave"]:
                    if letter == ".":
                        values.append(values[-1])
                    elif letter in "01p":
                        values.append(letter)
                    else:
                        values.append(None if letter == "x" else next(words))
                assert next(words, None) is None, f"a word too many in {entry['name']}"
                signals[entry["name"]] = values

    collect(found["signal"])
    cycles = {len(values) for values in signals.values()}
    assert len(cycles) == 1
    return Diagram(found["latency"], cycles.pop(), signals)


def diagrams() -> list[Diagram]:
    return [read(text) for text in BLOCK.findall(PAGE.read_text(encoding="utf-8"))]


def simulate(diagram: Diagram) -> dict[str, list[str | None]]:
    """Drive an emulated crossbar with a diagram's inputs; returns its outputs, cycle by cycle.

    Cells are random. Where a diagram does not write them they are written before its first cycle;
    where it does, the rows that it writes are all that there is.
    """
    config = EngineConfig(crossbar_size=32, adcs=8, crossbar_latency=diagram.latency)
    crossbar = EmulatedCrossbar(config)
    rng = np.random.default_rng(5)
    cells = rng.integers(0, 2, (config.ou_rows, config.ou_cols))
    digits = {name: rng.integers(0, 2, config.ou_rows) for name in "ABC"}
    if "program.valid" in diagram.signals:
        cells[2:] = 0
        for row in digits.values():
            row[:2] = 1
    codes = {
        name.lower(): tuple((row[:, None] * cells).sum(0).tolist()) for name, row in digits.items()
    }
    assert len(set(codes.values())) == len(codes) or "program.valid" in diagram.signals
    outputs: dict[str, list[str | None]] = {
        name: []
        for name in ("request.ready", "response.valid", "response.payload", "program.ready")
    }

    def write(ctx: Any, row: int) -> None:
        ctx.set(crossbar.port.program.payload.row, row)
        packed = sum(int(bit) << column for column, bit in enumerate(cells[row]))
        ctx.set(crossbar.port.program.payload.cells, packed)

    async def bench(ctx: Any) -> None:
        port, signals = crossbar.port, diagram.signals
        ctx.set(port.response.ready, 1)
        if "program.valid" not in signals:
            ctx.set(port.program.valid, 1)
            for row in range(config.ou_rows):
                write(ctx, row)
                await ctx.tick()
            ctx.set(port.program.valid, 0)
        for cycle in range(diagram.cycles):
            for stream, valid in (("program", port.program), ("request", port.request)):
                ctx.set(
                    valid.valid,
                    signals.get(f"{stream}.valid", ["0"] * diagram.cycles)[cycle] == "1",
                )
            ctx.set(port.response.ready, signals["response.ready"][cycle] == "1")
            row = signals.get("program.payload", [None] * diagram.cycles)[cycle]
            if row is not None:
                write(ctx, ROWS[row])
            request = signals["request.payload"][cycle]
            if request is not None:
                for r, digit in enumerate(digits[request]):
                    ctx.set(port.request.payload.digits[r], int(digit))
            # Values before the edge that ends the cycle.
            _, _, taking, answered, answer, programming = await ctx.tick().sample(
                port.request.ready, port.response.valid, port.response.payload, port.program.ready
            )
            outputs["request.ready"].append(str(taking))
            outputs["program.ready"].append(str(programming))
            outputs["response.valid"].append(str(answered))
            got = tuple(answer[j] for j in range(config.adcs))
            known = next((name for name, code in codes.items() if code == got), repr(got))
            outputs["response.payload"].append(known if answered else None)

    simulator = Simulator(crossbar)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return outputs


@pytest.mark.parametrize("number", range(3))
def test_a_diagram_is_what_the_crossbar_does(number: int) -> None:
    diagram = diagrams()[number]
    outputs = simulate(diagram)
    for name, values in outputs.items():
        if name in diagram.signals:
            assert diagram.signals[name] == values, name


def test_the_diagrams_keep_the_rules_of_streams() -> None:
    found = diagrams()
    assert len(found) == 3
    for diagram in found:
        for stream in ("program", "request", "response"):
            if f"{stream}.valid" not in diagram.signals:
                continue
            valid, ready, payload = (
                diagram.signals[f"{stream}.{part}"] for part in ("valid", "ready", "payload")
            )
            for cycle in range(diagram.cycles):
                assert (payload[cycle] is not None) == (valid[cycle] == "1")
                if valid[cycle] == "1" and ready[cycle] == "0":
                    assert valid[cycle + 1] == "1"
                    assert payload[cycle + 1] == payload[cycle]


def test_a_wrong_diagram_is_told_apart() -> None:
    text = BLOCK.findall(PAGE.read_text(encoding="utf-8"))[1]
    early = read(text.replace('"0...1.0.."', '"0..1.0..."').replace("x...55x..", "x..55x..."))
    assert simulate(early)["response.valid"] != early.signals["response.valid"]


WIDE = EngineConfig(
    ou_rows=9, ou_cols=12, crossbar_size=64, crossbars=3, cell_bits=2, dac_bits=4, adcs=5, slots=16
)


def declared(text: str) -> dict[str, tuple[str, int]]:
    """Ports of the one module of a Verilog text: direction and width."""
    found = re.findall(
        r"^\s*(input|output)(?: wire)? (?:\[(\d+):0\] )?(\w+) *[,;]?$", text, re.MULTILINE
    )
    assert found, "no port in the text"
    return {name: (way, int(top or 0) + 1) for way, top, name in found}


@pytest.mark.parametrize("config", [TINY_ENGINE, WIDE], ids=["tiny", "wide"])
def test_the_black_box_has_the_ports_of_the_emulated_crossbar(config: EngineConfig) -> None:
    text = backend.convert(EmulatedCrossbar(config), name=blackbox.NAME, emit_src=False)
    assert declared(black_box(config)) == declared(text)


@pytest.mark.parametrize("config", [TINY_ENGINE, WIDE], ids=["tiny", "wide"])
def test_the_black_box_mirrors_the_engines_port(config: EngineConfig) -> None:
    text = engine_verilog(config, open_port=True)
    top = text[text.index(f"module {TOP[True]}(") :]
    engine = declared(top[: top.index("\nendmodule")])
    box = declared(black_box(config))
    mirrored = {
        name.replace("port__", "crossbar__"): ("output" if way == "input" else "input", bits)
        for name, (way, bits) in box.items()
        if name.startswith("port__")
    }
    assert len(mirrored) == 9
    assert mirrored == {
        name: port for name, port in engine.items() if name.startswith("crossbar__")
    }


def test_every_field_and_its_bits_are_told() -> None:
    layouts = Layouts(WIDE)
    notes = {port.name: port.notes for port in ports(WIDE)}
    # 2 bits of crossbar, 3 and 3 of 64 / 9 and 64 / 12 OUs, 2 of ceil(12 / 5) answers, 9 digits.
    assert [note.split(":", 2)[1].split("] ")[1] for note in notes["port__request__payload"]] == [
        name for name, _ in layouts.request
    ]
    assert notes["port__request__payload"][0].startswith("[1:0] crossbar")
    assert notes["port__request__payload"][3].startswith("[9:8] select")
    assert notes["port__request__payload"][4].startswith("[45:10] digits")
    assert notes["port__program__payload"][4].startswith("[35:12] cells")
    assert len(notes["port__response__payload"]) == WIDE.adcs


@pytest.mark.cosim
def test_engine_and_black_box_fit_together(tmp_path: Path) -> None:
    written = workflow.write_verilog(tmp_path, WIDE, open_port=True)
    assert [path.name for path in written] == [
        "prap_engine_open.v",
        "prap_crossbar.v",
        "prap_engine_macro.v",
    ]
    text = "".join(path.read_text(encoding="utf-8") for path in written)
    assert verilator.lint(text, MACRO) == []
    # A port that is left out is told.
    changed = text.replace("        .crossbar__response__ready(response__ready),\n", "")
    assert changed != text
    assert any("PINMISSING" in line for line in verilator.lint(changed, MACRO))


def test_the_macro_has_the_engines_other_ports() -> None:
    engine = engine_verilog(WIDE, open_port=True)
    outer = declared(macro(WIDE, engine).split(";", 1)[0] + "\n")
    top = engine[engine.index(f"module {TOP[True]}(") :]
    own = declared(top[: top.index("\nendmodule")])
    assert outer == {name: port for name, port in own.items() if "crossbar__" not in name}
