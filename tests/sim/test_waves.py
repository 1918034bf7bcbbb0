"""Waveforms: windows of the run, the place of a difference, and what GTKWave is told to show."""

import ast
import re
from pathlib import Path

import numpy as np
import pylibfst
import pytest
import pywellen
from amaranth.lib.stream import Interface

from prap_hw.engine.engine import Engine
from refmodel.errors import InputError
from refmodel.predict import cycles
from sim import waves
from sim.job import Window
from sim.record import cycle_of
from sim.results import KINDS
from sim.waves import CYCLE
from tests.support import ROOT
from tests.support.nets.cosim_nets import EMULATED, OPEN, bulk, cosim, inputs, reused_network

PAGE = ROOT / "docs" / "engine.md"

HAND = """\
$version by hand $end
$timescale 1ns $end
$scope module $rootio $end
 $var wire 1 ! clk $end
$upscope $end
$scope module prap_bench $end
 $var wire 1 ! clk $end
 $scope module dut $end
  $var wire 1 ! clk $end
  $var wire 1 ~ $12 $end
  $var wire 4 " level [3:0] $end
  $scope module gather $end
   $var wire 4 " o__payload [3:0] $end
   $var wire 2 # o__payload.count [1:0] $end
  $upscope $end
 $upscope $end
$upscope $end
$enddefinitions $end
#40
1!
0~
b11 "
b1 #
#41
0!
#42
1!
1~
b1010 "
#43
0!
#44
1!
b10 #
#46
b1111 "
"""
"""A clock of period 2 that rises at 40, 42 and 44."""


class Shown:
    """A waveform as another reader than the writer's has it."""

    def __init__(self, path: Path):
        self.file = pywellen.Waveform(str(path))  # pyright: ignore[reportAttributeAccessIssue]
        # This reader has a "." before an index that stands before the bits.
        self.signals = {
            variable.full_name.replace(".[", "["): variable for variable in self.file.all_vars()
        }

    def at(self, name: str, cycle: int) -> int:
        """Value at the end of a cycle, before the clock rises."""
        return int(self.signals[name].signal.value_at(cycle * CYCLE + CYCLE - 1))


def names(path: Path) -> set[str]:
    """Signals of a waveform as the library that GTKWave has reads them, with their bits."""
    file = pylibfst.lib.fstReaderOpen(str(path).encode())
    _, signals = pylibfst.get_scopes_signals2(file)
    pylibfst.lib.fstReaderClose(file)
    return {name.replace(" [", "[") for name in signals.by_name}


def saved(path: Path) -> tuple[list[str], list[str]]:
    """Titles of the outer groups of a save file, and the signals that it names."""
    titles: list[str] = []
    signals: list[str] = []
    depth, flags = 0, 0
    for line in path.read_text().splitlines():
        if line.startswith("@"):
            flags = int(line[1:], 16)
        elif line.startswith("-"):
            if flags & 0x800000:
                titles += [line[1:]] if depth == 0 else []
                depth += 1
            elif flags & 0x1000000:
                depth -= 1
        elif line.startswith(waves.BENCH):
            assert depth > 0, f"{line} is in no group"
            signals.append(line)
    assert depth == 0
    return titles, signals


def test_an_fst_file_has_the_vcds_signals_and_values(tmp_path: Path) -> None:
    vcd, fst = tmp_path / "hand.vcd", tmp_path / "hand.fst"
    vcd.write_text(HAND)
    variables = waves.convert(vcd, fst, origin=38, period=2, last=2)
    paths = [variable.path for variable in variables]
    assert paths == [
        "prap_bench.clk",
        "prap_bench.dut.clk",
        "prap_bench.dut.level[3:0]",
        "prap_bench.dut.gather.o__payload[3:0]",
        "prap_bench.dut.gather.o__payload.count[1:0]",
    ]
    shown = Shown(fst)
    assert list(shown.signals) == [re.sub(r"\[\d+:\d+\]$", "", path) for path in paths]
    level = shown.signals["prap_bench.dut.level"]
    assert level.bitwidth == 4
    # Cycle 1 begins at 40 and lasts to 42: 10 to 20 ns; what comes at 44, in cycle 3, is left out.
    assert [level.signal.value_at(time) for time in (10, 19, 20, 29)] == [3, 3, 10, 10]
    assert shown.at("prap_bench.dut.gather.o__payload", 2) == 10
    assert shown.at("prap_bench.dut.gather.o__payload.count", 2) == 1
    assert [shown.signals["prap_bench.clk"].signal.value_at(t) for t in (10, 15, 20)] == [1, 0, 1]


def test_the_cycle_of_a_difference_is_that_of_its_record() -> None:
    # Two requests, a code, a third request; the kind is in the top byte.
    code = KINDS.index("codes") << 56
    stamps = np.array([7, 9, code | 11, 12], np.uint64)
    assert cycle_of({"kind": "requests", "record": 2}, stamps) == 12
    assert cycle_of({"kind": "codes", "record": 0}, stamps) == 11
    # One that did not come, and what is no value: where everything ended.
    assert cycle_of({"kind": "codes", "record": 1}, stamps) == 12
    assert cycle_of({"kind": "counter cycles"}, stamps) == 12
    assert cycle_of({"kind": "outputs", "record": 0}, np.zeros(0, np.uint64)) == 0


def test_a_window_is_read_from_its_text() -> None:
    assert Window.parse("1000:1400") == Window(first=1000, last=1400)
    assert Window.parse("conv2:0:5") == Window(first=0, last=5, layer="conv2")
    assert Window.parse("a:b/c:3:5").layer == "a:b/c"


@pytest.mark.parametrize("text", ["", "5", "5:", "a:5", "-1:5", "5:6:", "first"])
def test_a_window_that_is_none_is_refused(text: str) -> None:
    message = r"expected difference, FIRST:LAST or LAYER:FIRST:LAST in cycles, found '"
    with pytest.raises(InputError, match=message + re.escape(text) + "'"):
        Window.parse(text)


@pytest.mark.parametrize("text", ["6:5", "0:100000"])
def test_a_window_without_cycles_or_with_too_many_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"a window of 1 to 100000 cycles.* found {text}"):
        Window.parse(text)


def test_without_what_writes_fst_a_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="expected the package pylibfst for waveforms"):
        waves.require()


def test_a_layer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    program = reused_network(401, EMULATED)
    window = Window(first=0, last=5, layer="conv9")
    message = "expected one of the layers layer0, layer1, layer2 for a waveform, found 'conv9'"
    with pytest.raises(InputError, match=message):
        cosim(program, inputs(program, 1, 402), EMULATED, tmp_path, window=window)
    with pytest.raises(InputError, match=message):
        bulk(program, inputs(program, 1, 402), EMULATED, tmp_path, window=window)


@pytest.mark.cosim
@pytest.mark.parametrize("tier", ["protocol", "bulk"])
@pytest.mark.long
def test_a_window_shows_the_cycles_of_the_run(tier: str, tmp_path: Path, cache: Path) -> None:
    program = reused_network(401, EMULATED)
    codes = inputs(program, 1, 402)
    layer = program.layers[1]
    predicted = cycles.predict(layer, EMULATED)
    window = Window(first=0, last=predicted.cycles + 2, layer=layer.name)
    run = cosim if tier == "protocol" else bulk
    result = run(program, codes, EMULATED, tmp_path, window=window, cache=cache)
    assert result.difference is None
    assert result.window is not None
    shown = Shown(result.window)
    everything = range(window.last + 1)
    top = waves.BENCH
    # Cycle n is at 10n, the start is accepted in cycle 0, the last output in the predicted one.
    assert [shown.at(f"{top}.run_cycle", cycle) for cycle in everything][1:] == [*everything][1:]
    assert [cycle for cycle in everything if shown.at(f"{top}.start", cycle)] == [0]
    outputs = [cycle for cycle in everything if shown.at(f"{top}.o__valid", cycle)]
    assert outputs[-1] == predicted.cycles
    assert shown.at(f"{top}.busy", outputs[-1]) == 1
    assert shown.at(f"{top}.busy", outputs[-1] + 1) == 0
    # Every event of the run is in it, as often as predicted.
    assert len(outputs) == predicted.outputs
    requests = [shown.at(f"{top}.request_taken", cycle) for cycle in everything]
    assert sum(requests) == predicted.requests
    reading = [shown.at(f"{top}.dut.engine.core.gather.reading", cycle) for cycle in everything]
    assert sum(reading) == predicted.gathered

    titles, signals = saved(result.window.with_suffix(".gtkw"))
    assert titles == ["run", "port", *waves.BLOCKS]
    assert set(signals) <= names(result.window)
    assert len(signals) == len(set(signals)) > 500
    short = {re.sub(r"\[\d+:\d+\]$", "", name) for name in signals}
    engine = f"{top}.dut.engine.core"
    for stream in ("controller.o_segments", "gather.o", "ou_engine.o_request", "merge.i_words"):
        for part in ("valid", "ready", "payload"):
            assert f"{engine}.{stream}__{part}" in short
    assert f"{engine}.shift_add.o__payload.slot" in short


def connections() -> list[tuple[str, str]]:
    """Both ends of each connection in the engine's page."""
    return re.findall(r"^\| `(\w+\.\w+)` \| `(\w+\.\w+)` \|", PAGE.read_text(), re.MULTILINE)


def test_the_engines_diagram_has_the_names_of_the_code() -> None:
    """The script that draws it names components in its blocks, and members at its wires."""
    tree = ast.parse((ROOT / "docs/site/block_pictures.py").read_text(encoding="utf-8"))
    (drawing,) = (node for node in tree.body if getattr(node, "name", "") == "engine")
    blocks, wires = set(), set()
    for call in ast.walk(drawing):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            text = call.args[3].value if isinstance(call.args[3], ast.Constant) else ""
            (blocks if call.func.id == "block" else wires).update(re.findall(r"\w+", str(text)))
    components = {component.__name__: component for _, component in waves.BLOCKS.values()}
    members = {name for each in components.values() for name in each.__annotations__}
    members |= {*Engine.__annotations__, *waves.PORT}
    assert blocks - {"crossbar", "port"} == set(components) - {"EmulatedCrossbar"}
    assert len(wires) > 10
    assert wires <= members


def test_the_page_has_every_stream_between_components() -> None:
    ends = {end for pair in connections() for end in pair}
    for scope, component in waves.BLOCKS.values():
        for name, kind in component.__annotations__.items():
            # A second operand comes from the accelerator, which has one.
            host = name in ("i_load", "i_acts", "i_residual")
            host |= (scope, name) == ("requantise", "o")
            if kind is Interface and not host:
                assert f"{scope}.{name}" in ends
    assert len(connections()) == 11


@pytest.mark.cosim
def test_both_ends_of_a_connection_show_the_same(tmp_path: Path, cache: Path) -> None:
    program = reused_network(401, EMULATED)
    layer = program.layers[1]
    window = Window(first=0, last=cycles.predict(layer, EMULATED).cycles, layer=layer.name)
    codes = inputs(program, 1, 402)
    result = cosim(program, codes, EMULATED, tmp_path, window=window, cache=cache)
    assert result.window is not None
    shown = Shown(result.window)
    everything = range(window.last + 1)

    def words(end: str) -> list[int]:
        """Words of a stream that pass, or values of another port, in order."""
        block = end.partition(".")[0]
        within = {"crossbar": "", "requantise": "engine."}.get(block, "engine.core.")
        name = f"{waves.BENCH}.dut.{within}{end}"
        if f"{name}__payload" not in shown.signals:
            # A port without a handshake: of the first lane, where there are several.
            lane = name if name in shown.signals else f"{name}__0"
            return [shown.at(lane, cycle) for cycle in everything]
        ready = f"{name}__ready"
        return [
            shown.at(f"{name}__payload", cycle)
            for cycle in everything
            if shown.at(f"{name}__valid", cycle)
            and (ready not in shown.signals or shown.at(ready, cycle))
        ]

    for one, other in connections():
        passed = words(one)
        assert passed == words(other), (one, other)
        assert len(set(passed)) > 1, one


@pytest.mark.cosim
def test_a_window_has_no_cycle_more(tmp_path: Path, cache: Path) -> None:
    program = reused_network(401, EMULATED)
    codes = inputs(program, 1, 402)
    window = Window(first=20, last=30)
    result = cosim(program, codes, EMULATED, tmp_path, window=window, cache=cache)
    assert result.window is not None
    cycle = Shown(result.window).signals[f"{waves.BENCH}.run_cycle"].signal
    times = range(window.first * CYCLE, (window.last + 1) * CYCLE, CYCLE)
    assert [cycle.value_at(time) for time in times] == list(range(20, 31))
    assert cycle.value_at(times[-1] + 5 * CYCLE) == 30
    assert f"[timestart] {20 * CYCLE}\n" in result.window.with_suffix(".gtkw").read_text()

    late = Window(first=50_000, last=50_001)
    with pytest.raises(InputError, match="begins while layer layer0 runs, found cycle 50000"):
        cosim(program, codes, EMULATED, tmp_path, window=late, cache=cache)
    assert not result.window.exists()


@pytest.mark.cosim
@pytest.mark.parametrize("tier", ["protocol", "bulk"])
def test_the_first_difference_is_at_the_marker(tier: str, tmp_path: Path, cache: Path) -> None:
    program = reused_network(401, EMULATED)
    codes = inputs(program, 2, 402)
    run = cosim if tier == "protocol" else bulk
    result = run(
        program, codes, EMULATED, tmp_path, plant="shift", record_difference=True, cache=cache
    )
    assert result.difference is not None
    assert result.waveform is not None
    assert result.difference.kind == "accumulators"
    text = result.waveform.with_suffix(".gtkw").read_text()
    time = int(re.findall(r"^\*\S+ (\d+)", text, re.MULTILINE)[0])
    shown = Shown(result.waveform)
    trace = f"{waves.BENCH}.dut.trace_acc"
    assert shown.at(f"{trace}__valid", time // CYCLE) == 1
    acc = shown.signals[f"{trace}__payload.acc"]
    value = int(acc.signal.value_at(time + CYCLE - 1))
    value -= (value >> EMULATED.acc_width - 1) << EMULATED.acc_width
    assert result.difference.got == f"acc {value}"
    output = shown.at(f"{trace}__payload.output", time // CYCLE)
    assert result.difference.where == f"output {output}"


@pytest.mark.cosim
@pytest.mark.long
def test_an_open_port_is_shown_without_a_crossbar(tmp_path: Path, cache: Path) -> None:
    program = reused_network(501, OPEN)
    codes = inputs(program, 1, 502)
    result = cosim(program, codes, OPEN, tmp_path, port="open", mutant="slow", cache=cache)
    assert result.difference is not None
    assert result.waveform is not None
    titles, signals = saved(result.waveform.with_suffix(".gtkw"))
    assert titles == ["run", "port", *(title for title in waves.BLOCKS if title != "crossbar")]
    assert set(signals) <= names(result.waveform)
    for stream in ("request", "response", "program"):
        assert f"{waves.BENCH}.dut.crossbar__{stream}__valid" in signals
