"""``prap cosim`` of a sample of a network."""

from pathlib import Path

import pytest

from prap_hw.app import console, workflow
from prap_hw.app.workflow import simulation
from tests.support.command_line import Prap, simulated


def test_the_verb_tells_the_sample(given: Path, prap: Prap, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        simulation,
        "simulate",
        lambda made, predictions: simulated(made.program, made.codes, made.config, predictions),
    )
    layers = workflow.load_program(given / "done").layers
    code, out, err = prap(
        "cosim", given / "done", "--images", given / "images.npz", "--tier", "bulk",
        "--positions", 3, "--seed", 7,
    )  # fmt: skip
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    for layer, short in zip(layers, console.short_names([e.name for e in layers]), strict=True):
        shown = [line for line in lines if line[:1] == [short]]
        assert any(
            line[1:3] == [str(min(3, layer.positions)), str(layer.positions)] for line in shown
        )
    for options, message in (
        (("--seed", 1), "expected --device or --positions with --seed, found none"),
        (("--positions", 2), "expected tier bulk for positions, found protocol"),
        (("--layers", "gone", "--tier", "bulk"), "found 'gone'"),
    ):
        code, _, err = prap("cosim", given / "done", "--images", given / "images.npz", *options)
        assert code == 2
        assert message in err
