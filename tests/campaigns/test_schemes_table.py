"""The table of all schemes: its figures are the predicted ones, and its stars the RTL's."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refmodel.compression.schemes import SCHEMES
from refmodel.config import EngineConfig
from refmodel.predict.cycles import predict
from refmodel.program.sizes import engine_config_for
from tests.support.nets.onnx_nets import floats, network, node, save


@pytest.fixture
def schemes(root, tmp_path, monkeypatch):
    """The module benchmarks/schemes.py, for layers of 8 channels."""
    spec = importlib.util.spec_from_file_location("schemes", root / "benchmarks" / "schemes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "schemes", module)
    spec.loader.exec_module(module)
    small = module.conv9()
    small = replace(
        small,
        weight=small.weight[:16, :8],
        gain=small.gain[:16],
        bias=small.bias[:16],
        in_shape=(3, 3, 8),
        out_shape=(3, 3, 16),
    )
    monkeypatch.setattr(module, "CHANNELS", (8,))
    monkeypatch.setattr(module, "conv9", lambda: small)
    monkeypatch.setattr(module, "FOLDER", tmp_path / "out")
    monkeypatch.setattr(module, "PARAMETERS", tmp_path / "none.th")
    return module


@pytest.fixture
def net(tmp_path):
    """A network with a convolution of 4 to 8 channels, and one of 8 to 8."""
    nodes = [
        node("Conv", "x w0", "a", pads=[1, 1, 1, 1]),
        node("Conv", "a w1", "b", pads=[1, 1, 1, 1]),
        node("Flatten", "b", "y"),
    ]
    constants = {"w0": floats(1, 8, 4, 3, 3), "w1": floats(2, 8, 8, 3, 3)}
    return save(network(nodes, constants, ("N", 4, 4, 4)), tmp_path)


def test_every_scheme_stands_in_every_table_with_its_figures(schemes, net, capsys, tmp_path):
    file = tmp_path / "f.json"
    command = ["--network", str(net), "--most-cycles", "0", "--json", str(file)]
    assert schemes.main(command) == 0
    text = capsys.readouterr().out
    assert text.count("| `dense` |") == 4
    for scheme in SCHEMES:
        assert text.count(f"| `{scheme}` |") == 4
    assert "*" not in text.replace("**", "")
    assert "8 to 8 channels, 4x4 positions" in text
    assert "8 to 16 channels, 3x3 positions" in text
    found = json.loads(file.read_text())
    layers = [*schemes.square_layers(net), schemes.conv9()]
    for size in (8, 9):
        for row in schemes.rows_of(layers, size, EngineConfig()):
            base = EngineConfig(ou_rows=size, merge_lanes=row.lanes)
            want = predict(row.program, engine_config_for([row.program], base))
            (got,) = [
                each
                for each in found
                if (each["layer"], each["scheme"], each["rows"], each["merge_lanes"])
                == (row.layer, row.scheme, size, row.lanes)
            ]
            assert (got["cycles"], got["bound"]) == (want.cycles, want.bound)
            assert got["simulated"] is None
            assert f"{want.cycles:,} |" in text


def test_what_merging_bounds_is_there_with_more_lanes_too(schemes, net):
    layers = schemes.square_layers(net)
    rows = list(schemes.rows_of(layers, 8, EngineConfig()))
    twice = {row.scheme for row in rows if row.lanes == 4}
    assert twice == {row.scheme for row in rows if schemes.busiest(row.metrics) == "merge"}
    assert "dictionary" in twice
    text = schemes.table(rows)
    assert "| `dictionary`, 4 merge lanes |" in text


def test_a_star_stands_where_the_rtl_took_as_many_cycles_and_nowhere_else(schemes, net, capsys):
    rows = list(schemes.rows_of(schemes.square_layers(net), 8, EngineConfig()))
    one, other, third = rows[:3]
    one.simulated = one.metrics.cycles
    other.simulated = other.metrics.cycles + 1
    assert schemes.cycles(one).endswith(f"{one.metrics.cycles:,} *")
    assert schemes.cycles(other).endswith(f", RTL {other.metrics.cycles + 1:,}")
    assert schemes.cycles(third) == f"{third.metrics.cycles:,}"
    third.differences = ["outputs: wrong"]
    took, found = schemes.wrong(rows)
    cycles = other.metrics.cycles
    assert took == (f"{other.layer}, structured, R = 8: predicted {cycles}, simulated {cycles + 1}")
    assert found == f"{third.layer}, shape, R = 8: outputs: wrong"


def test_without_a_network_it_says_so_in_one_line(schemes, net, capsys, monkeypatch):
    assert schemes.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("schemes: error: expected ResNet-20's parameters or a network")
    assert "found no none.th" in line
    monkeypatch.setattr(schemes, "CHANNELS", (8, 32))
    assert schemes.main(["--network", str(net)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected a convolution of 32 to 32 channels, found none in net.onnx" in line
    assert schemes.main(["--network", str(Path("not/there.onnx"))]) == 2


@pytest.mark.cosim
@pytest.mark.long
def test_small_layers_run_in_the_rtl_and_large_ones_do_not(schemes, net, root, monkeypatch, capsys):
    monkeypatch.setattr(schemes, "CACHE", root / "build" / "cache")
    layers = [*schemes.square_layers(net), schemes.conv9()]
    cycles = [row.metrics.cycles for row in schemes.rows_of(layers, 8, EngineConfig())]
    most = int(np.median(cycles))
    command = ["--network", str(net), "--rows", "8", "--most-cycles", str(most)]
    assert schemes.main(command) == 0
    output = capsys.readouterr()
    lines = [line for line in output.out.splitlines() if line.startswith("| `")]
    assert len(lines) == len(cycles)
    for line, predicted in zip(lines, cycles, strict=True):
        star = predicted <= most and "merge lanes" not in line
        assert (f" {predicted:,} * |" in line) == star
    assert f"{len(cycles)} predicted, " in output.err
