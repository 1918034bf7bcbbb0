"""Folders of pictures and files of preprocessing through the verbs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import refmodel
from tests.support.command_line import Prap, one_line
from tests.support.nets.onnx_nets import floats, network, node

SEED = 31


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for pictures of 6x6, pictures of other sizes, and the same cropped in an npz."""
    folder = tmp_path_factory.mktemp("pictured")
    nodes = [
        node("Conv", "x w", "c"),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f v", "y"),
    ]
    constants = {"w": floats(1, 4, 3, 3, 3), "v": floats(2, 4, 3)}
    model = network(nodes, constants, ("N", 3, 6, 6))
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    rng, x, y = np.random.default_rng(SEED), [], []
    for at, name in enumerate(("ant", "bee", "cat")):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (8 + 2 * number, 10, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
            top = number + 1
            x.append(pixels[top : top + 6, 2:8])
            y.append(at)
    np.savez(folder / "cropped.npz", x=np.array(x), y=np.array(y))
    (folder / "p.toml").write_text("mean = [0.4, 0.5, 0.6]\nstd = 0.25\ncrop = 6\n")
    return folder


def test_pictures_and_a_file_of_preprocessing_give_what_arrays_and_options_do(
    pictured: Path, prap: Prap, tmp_path: Path
) -> None:
    net = pictured / "net.onnx"
    pictures = ("compress", net, "--calibration", pictured / "pictures")
    code, _, err = prap(*pictures, "--preprocess", pictured / "p.toml", "-o", tmp_path / "a")
    assert code == 0, err
    arrays = ("compress", net, "--calibration", pictured / "cropped.npz", "-o", tmp_path / "b")
    code, _, err = prap(*arrays, "--mean", ".4,.5,.6", "--std", ".25")
    assert code == 0, err
    a, b = (refmodel.Program.load(tmp_path / name) for name in "ab")
    x, _ = refmodel.load_images(pictured / "cropped.npz")
    np.testing.assert_array_equal(a.logits(x), b.logits(x))
    assert a.preprocess == {**b.preprocess, "crop": 6}
    found = []
    for name, images in (("a", "pictures"), ("b", "cropped.npz"), ("a", "cropped.npz")):
        figures = tmp_path / "figures.json"
        code, _, err = prap(
            "evaluate", tmp_path / name, "--images", pictured / images, "--json", figures
        )
        assert code == 0, err
        found.append(json.loads(figures.read_text())["accuracy"])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--calibration", "pictures"), "expected pictures of one size, found"),
        (
            ("--calibration", "cropped.npz", "--crop", 6),
            "expected a folder of pictures with --crop, found cropped.npz",
        ),
        (
            ("--calibration", "pictures", "--preprocess", "p.toml", "--mean", ".5"),
            "expected mean once, found it as --mean and in",
        ),
        (("--calibration", "pictures", "--crop", 7), "expected images for a network input"),
        (("--calibration", "pictures", "--preprocess", "none.toml"), "No such file"),
    ],
    ids=["sizes", "crop of arrays", "twice", "crop", "no file"],
)
def test_what_is_refused(
    options: tuple, message: str, pictured: Path, prap: Prap, tmp_path: Path
) -> None:
    placed = [pictured / each if (pictured / str(each)).exists() else each for each in options]
    code, _, err = prap("compress", pictured / "net.onnx", *placed, "-o", tmp_path / "out")
    assert code == 2
    assert message in one_line(err)
    assert not (tmp_path / "out").exists()
