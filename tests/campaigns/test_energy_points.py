"""`examples/resnet20/energy.py`: points that no cheaper one is as good as, and what is between."""

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "resnet20" / "energy.py"


@pytest.fixture(scope="module")
def energy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("energy_points", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(scheme: str, accuracy: float, cost: float, technology: str = "t") -> dict:
    costs = dict.fromkeys(("joules", "seconds", "conversions"), cost)
    return {"scheme": scheme, "method": "shared", "technology": technology} | {
        "accuracy": accuracy,
        **costs,
    }


def test_a_front_leaves_out_what_a_cheaper_point_beats(energy):
    found = [row("a", 0.9, 4.0), row("a", 0.8, 1.0), row("a", 0.79, 2.0), row("a", 0.9, 3.0)]
    assert energy.front(found, "joules") == [(0.8, 1.0), (0.9, 3.0)]


def test_costs_between_points_are_linear_in_the_logarithm(energy):
    line = [(0.8, 1.0), (0.9, 4.0), (0.95, 16.0)]
    assert math.isclose(energy.cost_at(line, 0.85), 2.0)
    assert math.isclose(energy.cost_at(line, 0.9), 4.0)
    # Nothing is extrapolated.
    assert energy.cost_at(line, 0.79) is None
    assert energy.cost_at(line, 0.96) is None


def test_ratios_are_at_equal_accuracy_and_of_one_technology(energy):
    found = [row("orc", 0.8, 2.0), row("orc", 0.9, 8.0), row("dictionary", 0.85, 1.0)]
    found += [row("dictionary", 0.95, 4.0), row("orc", 0.8, 1.0, "u"), row("orc", 0.9, 1.5, "u")]
    (only,) = energy.ratios(found, [0.85, 0.96], "orc", "dictionary")
    assert (only["technology"], only["accuracy"]) == ("t", 0.85)
    # orc 4 at 0.85, the dictionary 1. A mutant that interpolates costs themselves has 5.
    assert math.isclose(only["joules"], 4.0)
    assert not math.isclose((2.0 + 8.0) / 2, only["joules"])


def test_engines_are_all_combinations(energy):
    assert energy.engines_of(["merge_lanes=1,2", "position_lanes=4"]) == [
        {"merge_lanes": 1, "position_lanes": 4},
        {"merge_lanes": 2, "position_lanes": 4},
    ]


def test_a_point_is_taken_on_the_engine_of_least_energy_times_latency(
    energy, tmp_path, monkeypatch
):
    (tmp_path / "orc-2-0").mkdir()
    (tmp_path / "orc-2-0" / "program.prap").write_bytes(b"")
    figures = {"scheme": "orc", "method": "shared", "times": 2.0, "accuracy": 0.9}
    figures |= {"ratio": 2.0, "conversions": 1, "merges": 1}
    (tmp_path / "orc-2-0.json").write_text(json.dumps(figures), encoding="utf-8")
    prices = [
        {"engine": {"merge_lanes": lanes}, "technology": "t", "cycles": 1, "mm2": 1.0, "parts": {}}
        | {"joules": joules, "seconds": seconds}
        for lanes, joules, seconds in ((1, 1.0, 4.0), (2, 1.5, 2.0), (4, 4.0, 1.0))
    ]
    monkeypatch.setattr(energy, "priced", lambda folder, engines: prices)
    (found,) = energy.rows([tmp_path], [])
    assert (found["engine"], found["joules"], found["seconds"]) == ({"merge_lanes": 2}, 1.5, 2.0)
