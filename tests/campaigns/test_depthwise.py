"""The report of depthwise layers counts what is compiled, and a packing that is one."""

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest

import refmodel
from refmodel.config import EngineConfig
from refmodel.program import sizes
from tests.support.nets.onnx_nets import floats, network, node, save


@pytest.fixture(scope="module")
def depthwise(root) -> Any:
    """The command, as a module."""
    path = root / "benchmarks" / "depthwise.py"
    spec = importlib.util.spec_from_file_location("depthwise", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["depthwise"] = module
    spec.loader.exec_module(module)
    return module


def layer_network(channels: int, multiplier: int, size: tuple[int, int]):
    weights = floats(1, channels * multiplier, 1, *size)
    nodes = [node("Conv", "x w", "y", group=channels)]
    return network(nodes, {"w": weights}, ("N", channels, 7, 7))


@pytest.mark.parametrize(("columns", "bits"), [(8, 1), (8, 2), (16, 1), (32, 4)])
@pytest.mark.parametrize(("channels", "multiplier"), [(5, 1), (6, 3)])
def test_dense_is_what_is_compiled(columns, bits, channels, multiplier, depthwise, tmp_path):
    loaded = refmodel.load(save(layer_network(channels, multiplier, (3, 3)), tmp_path))
    program = loaded.compress(floats(2, 2, channels, 7, 7), scheme="dense", moments=False)
    config = EngineConfig(ou_cols=columns, cell_bits=bits, adcs=4, crossbar_size=128)
    found = depthwise.now(channels, 9, multiplier, 8, columns, 8 // bits)
    (layer,) = program.layers
    assert found.ous == sizes.ou_count(layer, config)
    assert found.conversions == int(layer.gather_patterns.sum()) * config.columns_per_weight


def test_a_packing_by_hand(depthwise):
    # 9 rows of 8 channels follow each other in 9 OUs of 8 rows; each has rows of two channels, but
    # the first and the last also: 0-8 | 9-17 ... against 0-7 | 8-15 ...: 9 x 2 less 2 places.
    found = depthwise.packed(8, 9, 1, 8, 8, 4)
    assert found == depthwise.Counts(9, 16 * 4)
    assert depthwise.now(8, 9, 1, 8, 8, 4) == depthwise.Counts(16, 16 * 4)
    # With one place to an OU nothing is gained.
    assert depthwise.packed(8, 9, 1, 8, 8, 8) == depthwise.now(8, 9, 1, 8, 8, 8)


@pytest.mark.parametrize("seed", range(8))
def test_no_packing_is_below_the_bound_or_above_dense(seed, depthwise):
    rng = np.random.default_rng(seed)
    sizes_drawn = (int(rng.integers(1, 40)), int(rng.integers(1, 26)), int(rng.integers(1, 4)))
    engine = int(rng.integers(4, 33)), 4 * int(rng.integers(1, 9)), int(rng.choice([2, 4, 8]))
    found = [
        each(*sizes_drawn, *engine) for each in (depthwise.bound, depthwise.packed, depthwise.now)
    ]
    assert found[0].ous <= found[1].ous <= found[2].ous
    assert found[0].conversions <= found[1].conversions


def test_the_command_prints_a_table_or_a_line(depthwise, tmp_path, capsys):
    assert depthwise.main([str(save(layer_network(8, 1, (3, 3)), tmp_path))]) == 0
    assert "1 depthwise layers, OUs of 8 rows" in capsys.readouterr().out
    assert depthwise.main([str(tmp_path / "none.onnx")]) == 2
    assert capsys.readouterr().err.startswith("depthwise: error: expected a readable ONNX file")
    with pytest.raises(SystemExit, match="2"):
        depthwise.main([str(tmp_path / "net.onnx"), "--ou-rows", "0"])
    assert "expected --ou-rows of 1 to 32, found 0" in capsys.readouterr().err
