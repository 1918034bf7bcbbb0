"""The campaign on a board's netlist: what it runs, and when it fails; without a simulation."""

import numpy as np
import pytest

from prap_hw.app import workflow
from prap_hw.driver import DriverError
from tests import netlist_campaign

NETLIST = """\
module prap_board(a, z);
  LUT4 #(
    .INIT(16'h8000)
  ) \\shell.core.requantise.one (
    .A(a),
    .Z(z)
  );
  LUT4 #(
    .INIT(16'h1234)
  ) other (
    .A(a),
    .Z(z)
  );
endmodule
"""


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "fpga"
    place.mkdir()
    (place / netlist_campaign.NETLIST).write_text(NETLIST)
    (place / "board.json").write_text("{}")
    np.savez(tmp_path / "images.npz", x=np.zeros((7, 1, 2, 2), np.uint8))
    return place


def run(monkeypatch, folder, board, *options: str) -> int:
    monkeypatch.setattr(workflow, "board", board)
    images = str(folder.parent / "images.npz")
    return netlist_campaign.main([str(folder), "--images", images, *options])


def results(*faults: str) -> dict:
    return {
        "cycles": [5],
        "expected": {"cycles": 5},
        "load_seconds": 0.5,
        "seconds": 0.25,
        "faults": [*faults],
    }


def test_the_netlist_runs_all_images_and_each_mutant_one(monkeypatch, folder, capsys):
    seen = []

    def board(place, images, *, simulate):
        text = (place / netlist_campaign.NETLIST).read_text()
        seen.append((text, len(images), simulate, (place / "board.json").exists()))
        if text == NETLIST:
            return results()
        raise DriverError("no answer")

    assert run(monkeypatch, folder, board, "--count", "6") == 0
    inverted = NETLIST.replace("8000", "7fff")
    assert seen == [(NETLIST, 6, "netlist", True), (inverted, 1, "netlist", True)]
    said = capsys.readouterr().out
    assert "6 images, cycles [5], 1 counters" in said
    assert ": right\n" in said
    assert "\\shell.core.requantise.one inverted" in said
    assert ": found, no answer\n" in said


def test_a_netlist_that_is_wrong_is_an_error(monkeypatch, folder, capsys):
    def board(place, images, *, simulate):
        return results("image 0: expected 1, found 2")

    assert run(monkeypatch, folder, board) == 1
    assert "image 0: expected 1, found 2\n" in capsys.readouterr().out


def test_a_mutant_that_is_not_found_is_an_error(monkeypatch, folder, capsys):
    assert run(monkeypatch, folder, lambda *_, **__: results(), "--within", "other") == 1
    assert "other inverted" in (said := capsys.readouterr().out)
    assert ": NOT FOUND\n" in said
