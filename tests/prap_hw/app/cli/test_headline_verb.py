"""``prap headline``: both ratios beside the paper's, and all results as JSON."""

import json
from pathlib import Path

import pytest

from tests.support.command_line import Prap


def test_headline_prints_both_ratios_beside_the_papers(prap: Prap, tmp_path: Path) -> None:
    code, out, err = prap("headline", "--json", tmp_path / "headline.json")
    assert (code, err) == (0, "")
    assert "speed    1.644   the paper 1.64" in out
    assert "energy   1.506   the paper 1.51   (1.506 with the adders' energy)" in out
    assert all(name in out for name in ("Vgg16", "Res18", "Res50", "WRN"))
    assert "energy of the adders" in out
    assert "their power is 0" in out
    assert all(len(line) <= 100 for line in out.splitlines())
    figures = json.loads((tmp_path / "headline.json").read_text())
    assert figures["speed"] == pytest.approx(1.644094, abs=1e-6)
    assert figures["energy"] == pytest.approx(1.506041, abs=1e-6)
    results = figures["results"]
    assert sum(map(len, results.values())) == 32
    # The mean of the four ratios is the headline.
    assert figures["speed"] == pytest.approx(
        sum(each["ORC"]["latency_ns"] / each["shape+similar"]["latency_ns"]
            for each in results.values()) / 4
    )  # fmt: skip


def test_headline_of_other_crossbars(prap: Prap, tmp_path: Path) -> None:
    code, out, _ = prap("headline", "--crossbar", 128, "--json", tmp_path / "128.json")
    assert code == 0
    assert "crossbars of 128 by 128" in out
    figures = json.loads((tmp_path / "128.json").read_text())
    assert figures["settings"]["crossbar_size"] == 128
    assert figures["speed"] != pytest.approx(1.644, abs=0.05)
