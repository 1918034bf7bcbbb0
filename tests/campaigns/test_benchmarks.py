"""`make bench`: every job runs in its own process and its line says what it found. No times."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bench(root: Path) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("bench", root / "benchmarks" / "bench.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_job_runs_and_is_printed_beside_its_target(bench, capsys, tmp_path):
    assert bench.main(["map", "--json", str(tmp_path / "figures.json")]) == 0
    printed = capsys.readouterr().out
    assert "0.4 s, 200 MB" in printed
    found = bench.json.loads((tmp_path / "figures.json").read_text())["map"]
    assert set(found) == {"value", "unit", "seconds", "cpu", "note", "gflops", "megabytes"}
    assert 20 < found["megabytes"] < 1000
    assert f"{found['value']:.2f} s" in printed


TARGETS = {
    "map": "0.4 s, 200 MB",
    "vgg16": "6 s, 500 MB",
    "golden": "100 images/s",
    "golden-prap": "100 images/s",
    "serial": "2 images/s",
    "serial-published": "2 images/s",
    "device": "10 images/s",
    "device-noise": "5 images/s",
    "device-dictionary": "10 images/s",
    "device-dictionary-noise": "5 images/s",
    "quantise": "10 s",
    "bulk": "4 M cycles/s",
    "bulk-prap": "5 s",
    "bulk-dictionary": "5 s",
    "bulk-dense": "15 s",
}
"""Job to its target (docs/specification/architecture.md, Speed of the software)."""


def test_every_job_has_the_target_that_the_issue_gives_it(bench):
    assert {name: target for name, (_, target, _) in bench.JOBS.items() if target} == TARGETS


def test_mutant_targets_that_changed_places_are_found(bench, monkeypatch):
    swapped = dict(bench.JOBS)
    for name, other in (("map", "vgg16"), ("vgg16", "map")):
        text, _, job = bench.JOBS[name]
        swapped[name] = (text, bench.JOBS[other][1], job)
    monkeypatch.setattr(bench, "JOBS", swapped)
    with pytest.raises(AssertionError):
        test_every_job_has_the_target_that_the_issue_gives_it(bench)


def test_a_job_that_fails_is_said(bench, monkeypatch, capsys):
    monkeypatch.setattr(bench, "__file__", "/nowhere/bench.py")
    assert bench.main(["map"]) == 1
    assert "failed: " in capsys.readouterr().out


def test_unknown_jobs_are_refused(bench, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main(["nothing"])
    assert "expected jobs of map, " in capsys.readouterr().err


@pytest.mark.long
def test_without_given_data_networks_are_random(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "SHARED", tmp_path / "none")
    path, note = bench.resnet20(tmp_path)
    assert note == "random parameters"
    assert path.stat().st_size > 1_000_000
    assert bench.images("any.npz", 3).shape == (3, 32, 32, 3)
    assert "not run" in bench.map_vgg16()["note"]
    program, note = bench.compiled("dense")
    assert len(program.layers) == 20
