"""What workers share is made once, and again only where it could not be made."""

from pathlib import Path

import pytest

from tests.support.once import once


def test_the_first_makes_it_and_a_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(tmp_path_factory, "getbasetemp", lambda: tmp_path / "worker")
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    made: list[Path] = []

    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no space left")

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "whole").touch()

    with pytest.raises(OSError, match="no space left"):
        once(tmp_path_factory, "thing", fails)
    found = [once(tmp_path_factory, "thing", make) for _ in range(2)]
    assert found == [made[0]] * 2
    assert len(made) == 1
    assert found[0].parent == tmp_path
    assert [path.name for path in found[0].iterdir()] == ["whole"]
