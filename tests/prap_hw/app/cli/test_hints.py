"""Images that are taken otherwise than the network was trained with them: a line says so."""

import json
from pathlib import Path

import numpy as np
import pytest

from prap_hw.app.workflow import hints
from refmodel import digits
from refmodel.network.graph import FloatNetwork, Matrix
from refmodel.network.images import Preprocess
from tests.support.command_line import Prap


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits of pixels 0 to 16, and the same as fractions."""
    folder = tmp_path_factory.mktemp("digits")
    images = digits.digits_images()
    np.savez(folder / "x.npz", x=images.x[:80], y=images.y[:80])
    np.savez(folder / "none.npz", x=images.x[:80])
    np.savez(folder / "float.npz", x=(images.x[:80] / 16).astype(np.float32), y=images.y[:80])
    return folder


def test_pixels_that_were_not_scaled_as_in_training(
    prap: Prap, files: Path, tmp_path: Path
) -> None:
    def compress(name: str, out: str, *options: object) -> tuple[str, str]:
        words = (digits.network_path("float"), "--calibration", files / name)
        code, said, err = prap("compress", *words, "-o", tmp_path / out, *options)
        assert code == 0
        return said, err

    said, err = compress("x.npz", "wrong", "--scheme", "dense")
    assert "inputs: (pixel * 0.003922 - 0) / 1, layout nhw of uint8 images" in said
    assert err.startswith("prap: hint: the float network has ")
    assert " % of 64 images right with (pixel * 0.003922 - 0) / 1" in err
    assert err.endswith(" % with --scale 0.0625 of prap compress")
    assert len(err.splitlines()) == 1
    summary = json.loads((tmp_path / "wrong" / "summary.json").read_text())
    assert summary["preprocess"]["images"] == {"type": "uint8", "least": 0, "most": 16}
    assert summary["preprocess"]["mean"] == [0]
    # The calibration images of another file have no labels; those of the test have.
    assert compress("none.npz", "unlabelled", "--scheme", "dense")[1] == ""
    code, said, err = prap("evaluate", tmp_path / "unlabelled", "--images", files / "x.npz")
    assert code == 0
    assert "inputs: (pixel * 0.003922 - 0) / 1" in said
    assert "--scale 0.0625 of prap compress" in err
    # As it was trained there is nothing to say, but of images of another range.
    assert compress("x.npz", "right", "--scheme", "dense", "--scale", 0.0625)[1] == ""
    assert prap("evaluate", tmp_path / "right", "--images", files / "x.npz")[2] == ""
    code, _, err = prap("evaluate", tmp_path / "right", "--images", files / "float.npz")
    assert code == 0
    assert err == (
        "prap: hint: the images are float32 from 0 to 1, and those that calibrated the network "
        "were uint8 from 0 to 16"
    )


def test_ranges_that_are_near_say_nothing() -> None:
    calibrating = hints.described(np.array([0, 200], np.uint8))
    assert hints.pixel_hint(calibrating, np.array([0, 255], np.uint8)) is None
    assert hints.pixel_hint(calibrating, np.array([0.0, 30.0])) is None
    assert hints.pixel_hint(calibrating, np.array([0.0, 1.0])) is not None
    for unknown in (None, {}, {"type": "uint8"}):
        assert hints.pixel_hint(unknown, np.array([0.0, 1.0])) is None


def test_a_network_of_many_products_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((16, 8, 8, 3), np.uint8)
    labels = np.zeros(16, np.int64)
    tried = []
    monkeypatch.setattr(hints, "_share", lambda *given: tried.append(given) or 0.9)
    weight = np.zeros((4, 3, 3, 3), np.float32)
    layer = Matrix(
        name="c", inputs=("x",), output="y", shape=(4, 6, 6), weight=weight,
        gain=np.ones(4), bias=np.zeros(4),
    )  # fmt: skip
    network = FloatNetwork(nodes=(layer,), input="x", output="y", input_shape=(3, 8, 8))
    for most, count in ((16 * 108 * 36, 1), (16 * 108 * 36 - 1, 0)):
        tried.clear()
        monkeypatch.setattr(hints, "MOST_PRODUCTS", most)
        hints.training_hint(network, images, labels, Preprocess())
        assert len(tried) == count
