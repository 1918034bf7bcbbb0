"""Long verbs: what an interrupt leaves, and what is said while they run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prap_hw.app import console
from prap_hw.app.cli import program
from refmodel.compression import mapped, processes, store
from tests.support.command_line import Prap


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_compression_goes_on(
    given: Path,
    tmp_path: Path,
    prap: Prap,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: int,
) -> None:
    def run(out: Path, *more: object) -> int:
        options = ("--calibration", given / "images.npz", "-o", out, *more)
        return program.run([str(each) for each in ("compress", given / "net.onnx", *options)])

    assert run(tmp_path / "plain") == 0
    wanted = (tmp_path / "plain" / "program.prap").read_bytes()
    calls = []
    real = mapped.Mappings.put

    def stop(self: mapped.Mappings, index: int, mapping: Any) -> None:
        real(self, index, mapping)
        calls.append(index)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(mapped.Mappings, "put", stop)
    if workers > 1:  # tasks are processes: what they raise is an interrupt there, not here
        monkeypatch.setattr(processes, "can_fork", lambda: False)
    capsys.readouterr()
    assert run(tmp_path / "net", "--workers", workers) == 130
    err = capsys.readouterr().err
    folder = tmp_path / "net.work"
    assert f"prap: the same command goes on with what is in {folder}\n" in err
    assert err.endswith("prap: error: interrupted\n")
    assert not (tmp_path / "net").exists()
    assert len(list(folder.iterdir())) == 2
    assert run(tmp_path / "net", "--workers", workers) == 0
    assert (tmp_path / "net" / "program.prap").read_bytes() == wanted
    assert not folder.exists()
    assert len(calls) == len(set(calls)) >= 3  # no layer is mapped twice


def test_other_labels_and_other_code_begin_anew(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []

    def stop(folder: Path, key: str) -> None:
        keys.append(key)
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "Work", stop)

    def run(images: Path) -> None:
        options = ("--calibration", images, "-o", tmp_path / "net")
        assert (
            program.run([str(each) for each in ("compress", given / "net.onnx", *options)]) == 130
        )

    with np.load(given / "images.npz") as found:
        x, y = found["x"], found["y"]
    np.savez(tmp_path / "other.npz", x=x, y=np.roll(y, 1))
    assert (np.roll(y, 1) != y).any()
    run(given / "images.npz")
    run(given / "images.npz")
    run(tmp_path / "other.npz")
    assert keys[0] == keys[1] != keys[2]
    # All of refmodel counts: a prediction of cycles, say, decides what a budget chooses.
    for name in ("compression/store.py", "predict/cycles.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(store, "__file__", str(tmp_path / "compression" / "store.py"))
    before = store.sources()
    (tmp_path / "predict" / "cycles.py").write_text("changed = True\n")
    assert store.sources() != before


def test_bad_input_leaves_nothing(given: Path, tmp_path: Path, prap: Prap) -> None:
    code, _, err = prap(
        "compress", given / "net.onnx", "--calibration", given / "images.npz",
        "--set", "nowhere=1,1,0.5", "-o", tmp_path / "net",
    )  # fmt: skip
    assert code == 2
    assert "expected a layer that matches 'nowhere'" in err
    assert list(tmp_path.iterdir()) == []


def test_long_stages_are_told_now_and_then_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress() as report:
        for done in range(101):
            report("map", done, 100)
            now += 2.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "prap: map: 4 of 100 (8 s)"
    assert lines[-1] == "prap: map (200.0 s)"
    seconds = [float(line.rsplit("(", 1)[1].split(" ")[0]) for line in lines]
    pauses = [after - before for before, after in zip([0.0, *seconds], seconds, strict=False)]
    assert 7 <= len(lines) <= 12
    assert max(pauses) <= console.LONGEST_PAUSE + 2
    # A mutant that tells nothing before the end would leave one line.
    monkeypatch.setattr(console, "FIRST_PAUSE", 1e9)
    monkeypatch.setattr(console, "LONGEST_PAUSE", 1e9)
    with console.progress() as report:
        for done in range(101):
            report("map", done, 100)
            now += 2.0
    assert len(capsys.readouterr().err.splitlines()) == 1
