"""`benchmarks/bounds.py`: every scheme and engine is priced, and what misses its bound is told."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from refmodel.compression.schemes import SCHEMES
from refmodel.predict import cycles
from tests.support.layers.hand import hand_layer


@pytest.fixture
def bounds(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; it imports its neighbours."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    return importlib.import_module("bounds")


@pytest.fixture
def tight(bounds, monkeypatch):
    """A network of one layer: 16 outputs and merge steps a position (test_cycles.py)."""
    layer = hand_layer([[(1, 1)]], outputs=16, positions=400)
    monkeypatch.setitem(bounds.NETWORKS, "tight", lambda: [layer])
    monkeypatch.setattr(bounds, "programs", lambda network, each: [("prap", each)])


def row(found, **engine):
    (one,) = (each for each in found if engine.items() <= each.items())
    return one


def test_all_engines_are_priced_and_the_ratio_is_that_of_the_definition(bounds, tight):
    found = bounds.sweep("tight")
    assert len(found) == 4 * 4 * 3
    # One pattern, 8 requests, 16 steps and outputs: 57 + 16 * 399 cycles; start 8 + 16 + 16 + 1 +
    # 100. With one ADC conversion is the bound, 64 a position.
    one = row(found, adcs=8, lanes=1, positions=1, latency=1)
    assert (one["cycles"], one["bound"], one["start"]) == (6441, 6400, 141)
    assert one["ratio"] == (6441 - 141) / 6400
    assert row(found, adcs=1, lanes=4, latency=40)["bound"] == 64 * 400
    # Of four positions at a time, conversion and outputs: 3 * 8 + 3 * 16 more.
    four = row(found, adcs=8, positions=4, latency=1)
    assert (four["bound"], four["start"]) == (6400, 141 + 72)
    assert not any(each["missed"] for each in found)


def test_a_dead_cycle_between_merge_and_outputs_is_told(bounds, tight, monkeypatch, capsys):
    assert bounds.main(["tight"]) == 0
    assert "0 of 48 combinations missed" in capsys.readouterr().out
    monkeypatch.setattr(cycles, "MERGE_LATENCY", cycles.MERGE_LATENCY + 2)
    assert bounds.main(["tight", "--worst", "3"]) == 1
    out, err = capsys.readouterr()
    # 17 cycles a position where merge and output are 16 each: one lane, 4 or 8 ADCs.
    assert "6 of 48 combinations missed" in out
    lines = [line.split() for line in out.splitlines() if line.startswith("tight")]
    assert [line[:5] for line in lines] == [["tight", "hand", "prap", "4", "1"]] * 3
    assert "tight 1/1 hand: 48 combinations, 6 missed" in err


def test_every_scheme_is_mapped_and_the_last_layer_too(bounds):
    for layer in bounds.digits_network()[-2:]:
        found = dict(bounds.programs("digits", layer))
        terms = {f"dictionary {count}" for count in range(1, 5)}
        assert set(found) == set(SCHEMES) - {"dictionary"} | terms
        assert [found[f"dictionary {count}"].terms for count in range(1, 5)] == [1, 2, 3, 4]
        # Of some layers structured and shape keep all by default, which is dense.
        dense = {name for name, program in found.items() if program.scheme == "dense"}
        assert "dense" in dense
        assert dense <= {"dense", "shape", "structured", "structured+identical"}


def test_unknown_networks_are_refused(bounds, capsys):
    with pytest.raises(SystemExit, match="2"):
        bounds.main(["nothing"])
    assert "expected networks of resnet20, digits, vgg16, found nothing" in capsys.readouterr().err
