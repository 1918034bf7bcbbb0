"""Networks whose outputs are pictures have no accuracy, but an error against the float network."""

import json
from pathlib import Path

import numpy as np
import pytest

import refmodel
from prap_hw.app import console, workflow
from tests.support.command_line import Prap, one_line
from tests.support.nets.onnx_nets import f32, network, node, save

SEED = 3


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network from pictures to pictures, images without labels, and its program."""
    folder = tmp_path_factory.mktemp("pictures")
    values = np.random.default_rng(SEED)
    weight = f32(0.3 * values.standard_normal((4, 1, 3, 3)))
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("DepthToSpace", "c", "y", blocksize=2),
    ]
    save(network(nodes, {"w": weight}, ("N", 1, 6, 6)), folder)
    x = values.integers(0, 256, (9, 6, 6), np.uint8)
    np.savez(folder / "images.npz", x=x)
    np.savez(folder / "labelled.npz", x=x, y=np.arange(9))
    workflow.compress(folder / "net.onnx", folder / "images.npz", folder / "done", scheme="dense")
    return folder


@pytest.mark.parametrize("name", ["images.npz", "labelled.npz"])
def test_outputs_that_are_pictures_have_an_error_and_no_accuracy(
    name: str, pictures: Path, prap: Prap, tmp_path: Path
) -> None:
    file = tmp_path / "a.json"
    asked = ("evaluate", pictures / "done", "--images", pictures / name, "--limit", "5")
    code, out, err = prap(*asked, "--json", file)
    assert (code, err) == (0, "")
    figures = json.loads(file.read_text())
    assert set(figures) == {"images", "snr", "preprocess", "hints"}
    assert figures["images"] == 5
    x, _ = refmodel.load_images(pictures / "images.npz")
    wanted = refmodel.load(pictures / "net.onnx").logits(x[:5]).astype(float)
    found = refmodel.Program.load(pictures / "done").logits(x[:5])
    power = np.square(wanted).sum() / np.square(wanted - found).sum()
    assert figures["snr"] == {"int8": pytest.approx(10 * np.log10(power))}
    assert 25 < figures["snr"]["int8"] < 70
    assert f"{figures['snr']['int8']:.2f} dB" in out
    assert " %" not in out


def test_a_report_says_the_error(pictures: Path, prap: Prap, tmp_path: Path) -> None:
    page, file = tmp_path / "page.html", tmp_path / "a.json"
    images = ("--images", pictures / "images.npz")
    assert prap("evaluate", pictures / "done", *images, "--json", file)[0] == 0
    for source in (images, ("--accuracy", file)):
        code, _, err = prap("report", pictures / "done", "-o", page, *source)
        assert (code, err) == (0, "")
        assert " dB</b>" in page.read_text(encoding="utf-8")
        assert "images right" not in page.read_text(encoding="utf-8")


def test_what_only_classifiers_have_is_refused(pictures: Path, prap: Prap, tmp_path: Path) -> None:
    labelled = ("--images", pictures / "labelled.npz")
    calibration = ("--calibration", pictures / "images.npz", "-o", tmp_path / "o")
    for arguments in (
        ("evaluate", pictures / "done", *labelled, "--adc-bits", "2"),
        ("compare", pictures / "net.onnx", *labelled, *calibration, "--schemes", "dense"),
    ):
        code, _, err = prap(*arguments)
        assert code == 2
        assert "expected a network with a vector as its output, for" in one_line(err)
        assert "found outputs of 1x12x12 in" in err


def test_no_difference_is_no_number() -> None:
    screen = console.console()
    with screen.capture() as capture:
        screen.print(console.snr_table({"prap": None}, 4))
    assert "8 bits, prap  no difference" in capture.get()
