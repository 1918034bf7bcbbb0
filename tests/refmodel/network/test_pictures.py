"""Folders of PNG and JPEG, and files of preprocessing."""

import errno
import json
import os
import tracemalloc
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refmodel.errors import InputError
from refmodel.network import pictures
from refmodel.network.images import Preprocess, load_images
from refmodel.network.preprocess_file import read_preprocess

SEED = 21


def pixels(*shape: int, seed: int = SEED) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def put(folder: Path, name: str, values: np.ndarray, **options) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def test_classes_are_the_folders_in_the_order_of_their_names(tmp_path):
    x = pixels(5, 4, 6, 3)
    for name, values in zip(("dog/b", "cat/z", "dog/a", "ant/q", "cat/y"), x, strict=True):
        put(tmp_path, f"{name}.png", values)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("no picture")
    found, y = load_images(tmp_path)
    np.testing.assert_array_equal(found, x[[3, 4, 1, 2, 0]])
    assert y is not None
    assert y.tolist() == [0, 1, 1, 2, 2]


def test_folders_that_are_numbers_are_these_classes(tmp_path):
    for name in ("10", "9", "2"):
        put(tmp_path, f"{name}/a.png", np.full((3, 3), int(name), np.uint8))
    x, y = load_images(tmp_path)
    assert y is not None
    assert y.tolist() == [2, 9, 10]
    assert x[:, 0, 0].tolist() == [2, 9, 10]


def test_pictures_without_folders_have_no_labels(tmp_path):
    put(tmp_path, "b.PNG", pixels(3, 3))
    put(tmp_path, "a.jpeg", pixels(3, 3), quality=95)
    x, y = load_images(tmp_path)
    assert (x.shape, y) == ((2, 3, 3), None)


@pytest.mark.parametrize(
    ("mode", "shape"),
    {
        "L": (1, 4, 5), "1": (1, 4, 5), "LA": (1, 4, 5), "I;16": (1, 4, 5), "RGB": (1, 4, 5, 3),
        "RGBA": (1, 4, 5, 3), "P": (1, 4, 5, 3),
    }.items(),
)  # fmt: skip
def test_pictures_of_every_kind(mode, shape, tmp_path):
    if mode == "I;16":
        picture = Image.fromarray((pixels(4, 5).astype(np.uint16) << 8) + 7)
    else:
        picture = Image.fromarray(pixels(4, 5, 3)).convert(mode)
    picture.save(tmp_path / "a.png")
    x, _ = load_images(tmp_path)
    assert x.shape == shape
    assert x.dtype == np.uint8
    if mode == "I;16":
        np.testing.assert_array_equal(x[0], pixels(4, 5))


def test_grey_beside_colour_becomes_colour(tmp_path):
    grey = pixels(3, 3)
    put(tmp_path, "a.png", grey)
    put(tmp_path, "b.png", pixels(3, 3, 3))
    x, _ = load_images(tmp_path)
    np.testing.assert_array_equal(x[0], grey[:, :, None].repeat(3, 2))


def test_a_jpeg_is_near_its_pixels(tmp_path):
    smooth = np.add.outer(np.arange(16) * 8, np.arange(16) * 4).astype(np.uint8)
    put(tmp_path, "a.jpg", smooth, quality=95)
    x, _ = load_images(tmp_path)
    assert np.abs(x[0].astype(int) - smooth).max() <= 6


def test_pictures_are_brought_to_one_size(tmp_path):
    put(tmp_path, "a.png", np.full((20, 30, 3), 9, np.uint8))
    put(tmp_path, "b.png", np.full((40, 10, 3), 9, np.uint8))
    with pytest.raises(InputError, match=r"of one size, found 30x20 in a.png and 10x40 in b.png"):
        load_images(tmp_path)
    x, _ = load_images(tmp_path, resize=8, crop=7)
    assert x.shape == (2, 7, 7, 3)
    assert (x == 9).all()
    # The middle, and rows of 2 pixels to one: 0 2 4 6 are averaged to 1 and 5.
    put(tmp_path / "rows", "a.png", np.repeat(np.arange(0, 8, 2, dtype=np.uint8), 8).reshape(4, 8))
    x, _ = load_images(tmp_path / "rows", resize=2, crop=2)
    assert x[0].tolist() == [[1, 1], [5, 5]]


def _cases(folder: Path) -> dict[str, str]:
    """Make folders that are refused, and give their messages."""
    put(folder / "both", "a.png", pixels(3, 3))
    put(folder / "both", "cat/a.png", pixels(3, 3))
    (folder / "none").mkdir()
    (folder / "damaged").mkdir()
    put(folder / "cut", "a.png", pixels(30, 30, 3))
    whole = (folder / "cut" / "a.png").read_bytes()
    (folder / "cut" / "a.png").write_bytes(whole[: len(whole) // 2])
    (folder / "damaged" / "a.jpg").write_bytes(b"no picture")
    put(folder / "twice", "1/a.png", pixels(3, 3))
    put(folder / "twice", "01/a.png", pixels(3, 3))
    return {
        "both": r"found a.png beside the folder 'cat'",
        "none": r"end with .png, .jpg, .jpeg, or folders of classes with such, found none",
        "damaged": r"expected a PNG or JPEG, found: .*a.jpg",
        "cut": r"expected a PNG or JPEG, found: .*a.png",
        "twice": r"expected a folder to each class, found two of one",
    }


def unreadable(path: Path):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def test_what_is_refused(tmp_path, monkeypatch):
    for name, message in _cases(tmp_path).items():
        with pytest.raises(InputError, match=message) as caught:
            load_images(tmp_path / name)
        assert "\n" not in str(caught.value)
    put(tmp_path / "small", "a.png", pixels(5, 6))
    with pytest.raises(InputError, match="at least 7x7 to crop, found 6x5"):
        load_images(tmp_path / "small", crop=7)
    with pytest.raises(InputError, match="a folder of pictures alone"):
        load_images([tmp_path / "small", tmp_path / "x.npy"])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", unreadable)
        with pytest.raises(InputError, match="a readable folder of pictures, found: Permission d"):
            load_images(tmp_path / "small")
    monkeypatch.setattr(pictures, "MOST_VALUES", 80)
    with pytest.raises(InputError, match="at most 80 values together, found more in the first 1"):
        load_images(tmp_path / "small")
    monkeypatch.setattr(pictures, "MOST_PIXELS", 29)
    with pytest.raises(InputError, match="at most 29 pixels, found 6x5"):
        load_images(tmp_path / "small")


@pytest.mark.parametrize("left", [0, 8])
def test_a_part_that_says_to_be_larger_than_the_file_takes_no_memory(left, tmp_path):
    content = BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(content, "PNG")
    data = bytearray(content.getvalue())
    at = data.index(b"IDAT")
    data[at - 4 : at] = ((1 << 31) - 1).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data[: len(data) - left])
    tracemalloc.start()
    try:
        with suppress(InputError):  # Pillow takes what there is
            load_images(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()


def test_a_file_too_large_for_a_picture_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(bytes((1 << 20) + 9))
    monkeypatch.setattr(pictures, "MOST_PIXELS", 1)
    with pytest.raises(InputError, match="expected a picture of at most 1048584 bytes, found"):
        load_images(tmp_path)


def test_npy_files(tmp_path):
    x, y = pixels(4, 3, 3), np.array([3, 0, 1, 1])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    found, labels = load_images([tmp_path / "x.npy", tmp_path / "y.npy"])
    np.testing.assert_array_equal(found, x)
    np.testing.assert_array_equal(labels, y)
    found, labels = load_images(tmp_path / "x.npy")
    assert labels is None
    (tmp_path / "z.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-5])
    with pytest.raises(InputError, match=r"expected an \.npy of plain numbers, found: 31 bytes"):
        load_images(tmp_path / "z.npy")


# Preprocessing


def test_files_of_preprocessing(tmp_path):
    values = {"mean": [0.5, 0.4, 0.3], "std": 2, "scale": 0.5, "layout": "nhwc", "crop": 24}
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "a.toml").write_text(
        'mean = [0.5, 0.4, 0.3]\nstd = 2\nscale = 0.5\nlayout = "nhwc"\ncrop = 24\n'
    )
    for name in ("a.json", "a.toml"):
        found = read_preprocess(tmp_path / name)
        assert found == values | {"mean": (0.5, 0.4, 0.3), "std": (2.0,)}
        kept = Preprocess(**found)
        assert Preprocess.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept
        assert kept.sizes == {"resize": None, "crop": 24}


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "mean = ": "expected TOML, found: ",
        "means = 1": "expected mean, std, scale, layout, resize, crop of the preprocessing, found",
        "mean = ['a']": r"expected numbers as mean, found \['a'\]",
        "mean = []": "expected numbers as mean, found",
        "std = 0": "std must not be 0",
        "scale = true": "expected numbers as scale, found True",
        "scale = nan": "expected numbers as scale, found nan",
        "layout = 'chw'": "layout must be one of auto, nf",
        "layout = 3": "expected text as layout, found 3",
        "crop = 2.5": "expected a whole number as crop, found 2.5",
        "resize = 0": "resize must be 1 to 8192 pixels, not 0",
        f"resize = 0x{'f' * 5000}": "expected a whole number as resize, found int that is too long",
        f"scale = 0x{'f' * 5000}": "expected numbers as scale, found int that is too long to show",
        f"mean{'.a' * 2000} = 1": "expected numbers as mean, found dict that is too long to show",
    }.items(),
)
def test_a_file_of_preprocessing_that_is_refused(text, message, tmp_path):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_preprocess(tmp_path / "p.toml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(f"in {tmp_path / 'p.toml'}")


def test_a_file_of_preprocessing_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="a readable file of preprocessing, found: No such file"):
        read_preprocess(tmp_path / "p.toml")
