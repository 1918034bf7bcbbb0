"""Reading images and labels, and turning pixels into network inputs."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from refmodel.errors import InputError
from refmodel.network.images import Preprocess, load_images
from tests.support.nets.onnx_nets import f32

SEED = 5
X = np.random.default_rng(SEED).integers(0, 256, (6, 4, 3), np.uint8)
Y = np.array([3, 0, 1, 9, 2, 2], np.uint8)


def idx(values: np.ndarray, code: int = 0x08) -> bytes:
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    big = values.astype(values.dtype.newbyteorder(">"))
    return bytes([0, 0, code, values.ndim]) + sizes + big.tobytes()


def npz(folder: Path, **arrays) -> Path:
    path = folder / "images.npz"
    np.savez(path, **arrays)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refusal(paths) -> str:
    with pytest.raises(InputError) as caught:
        load_images(paths)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("expected ")
    assert ", found" in message
    return message


# Reading


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("labels", ["given", "beside", "none"])
def test_an_idx_pair_is_read(packed, labels, tmp_path):
    pack = gzip.compress if packed else bytes
    first = written(tmp_path / "t-images-idx3-ubyte.gz", pack(idx(X)))
    if labels != "none":
        second = written(tmp_path / "t-labels-idx1-ubyte.gz", pack(idx(Y)))
        x, y = load_images([str(first), second] if labels == "given" else first)
        np.testing.assert_array_equal(y, Y)
        assert y is not None
        assert y.dtype == np.int64
    else:
        x, y = load_images(str(first))
        assert y is None
    np.testing.assert_array_equal(x, X)
    assert x.dtype == np.uint8


@pytest.mark.parametrize(
    ("dtype", "code"),
    [("u1", 8), ("i1", 9), ("i2", 11), ("i4", 12), ("f4", 13), ("f8", 14)],
    ids=str,
)
def test_every_type_of_idx_is_read(dtype, code, tmp_path):
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    x, _ = load_images(written(tmp_path / "a", idx(values, code)))
    np.testing.assert_array_equal(x, values)
    assert x.dtype == np.dtype(dtype)


@pytest.mark.parametrize("shape", [(6, 12), (6, 4, 3), (6, 4, 3, 2)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "bool"])
def test_an_npz_is_read(shape, dtype, tmp_path):
    images = np.random.default_rng(SEED).integers(0, 2, shape).astype(dtype)
    x, y = load_images(npz(tmp_path, x=images, y=Y))
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, Y)
    assert load_images(npz(tmp_path, x=images))[1] is None


def test_labels_in_a_column_are_labels(tmp_path):
    np.testing.assert_array_equal(load_images(npz(tmp_path, x=X, y=Y[:, None]))[1], Y)


def test_the_content_decides_what_a_file_is_not_its_name(tmp_path):
    npz(tmp_path, x=X).rename(tmp_path / "images-idx3")
    np.testing.assert_array_equal(load_images(tmp_path / "images-idx3")[0], X)


def test_the_given_images_are_read(shared: Path):
    x, y = load_images(shared / "data/images/t10k-images-idx3-ubyte.gz")
    assert y is not None
    assert (x.shape, y.shape, x.dtype) == ((10000, 28, 28), (10000,), np.uint8)
    assert y[:5].tolist() == [7, 2, 1, 0, 4]


# Refusals while reading


def test_a_missing_file_is_named(tmp_path):
    message = refusal(tmp_path / "none.npz")
    assert message.startswith("expected a readable file of images, found: No such file")
    assert message.endswith("none.npz")


def test_neither_no_path_nor_three_will_do(tmp_path):
    assert "found 0 paths" in refusal([])
    assert "found 3 paths" in refusal([tmp_path] * 3)


@pytest.mark.parametrize(
    "content", [b"", b"\0\0", b"hello world", b"\0\0\7\3", b"\0\0\10\11"], ids=repr
)
def test_another_kind_of_file_is_refused(content, tmp_path):
    message = refusal(written(tmp_path / "a.npz", content))
    assert message.startswith(
        f"expected an .npz, .npy or idx file, found {len(content)} bytes that begin"
    )
    assert message.endswith("a.npz")


def test_a_truncated_gzip_is_refused_wherever_it_ends(tmp_path):
    whole = gzip.compress(idx(X), mtime=0)
    for size in range(3, len(whole)):
        message = refusal(written(tmp_path / "a.gz", whole[:size]))
        assert message.startswith("expected a whole gzip file, found: ")


def test_a_damaged_gzip_is_refused(tmp_path):
    whole = bytearray(gzip.compress(idx(X), mtime=0))
    whole[-6] ^= 1
    assert "expected a whole gzip file" in refusal(written(tmp_path / "a.gz", bytes(whole)))


@pytest.mark.parametrize(("change", "found"), [(-1, 71), (1, 73), (-72, 0)], ids=str)
def test_idx_data_of_the_wrong_length_is_refused(change, found, tmp_path):
    content = idx(X)[:change] if change < 0 else idx(X) + b"\0"
    message = refusal(written(tmp_path / "a", content))
    assert f"expected 72 bytes for (6, 4, 3), found {found}, in" in message


def test_an_idx_that_ends_in_its_sizes_is_refused(tmp_path):
    message = refusal(written(tmp_path / "a", idx(X)[:10]))
    assert "expected the 3 sizes of an idx file, found its end" in message


def test_a_truncated_npz_is_refused_wherever_it_ends(tmp_path):
    whole = npz(tmp_path, x=X, y=Y).read_bytes()
    for size in range(4, len(whole), 7):
        refusal(written(tmp_path / "a.npz", whole[:size]))


def test_an_npz_without_x_says_what_it_has(tmp_path):
    assert "expected the array x, found images, y, in" in refusal(npz(tmp_path, images=X, y=Y))


def test_pickled_arrays_are_not_loaded(tmp_path):
    message = refusal(npz(tmp_path, x=np.array([{"a": 1}])))
    assert "expected an .npz of plain arrays, found: Object arrays cannot be loaded" in message


def test_images_of_text_are_refused(tmp_path):
    message = refusal(npz(tmp_path, x=np.array([["a", "b"]])))
    assert "found: an array that is not of plain numbers: {'descr': '<U1'," in message


@pytest.mark.parametrize("shape", [(6,), (0, 4, 3), (1, 2, 2, 2, 2)], ids=str)
def test_images_of_other_than_2_to_4_axes_are_refused(shape, tmp_path):
    message = refusal(npz(tmp_path, x=np.zeros(shape)))
    assert f"found ({', '.join(map(str, shape))}), in" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_pixels_that_are_no_numbers_are_refused(value, tmp_path):
    images = X.astype(np.float32)
    images[2, 1, 1] = value
    assert "found 1 of 72 NaN or infinite" in refusal(npz(tmp_path, x=images, y=Y))


@pytest.mark.parametrize(
    "labels", [np.zeros((6, 2), int), np.zeros(6), -np.ones(6, int)], ids=["2d", "float", "minus"]
)
def test_labels_that_are_no_classes_are_refused(labels, tmp_path):
    assert "expected labels (N,) of integers from 0" in refusal(npz(tmp_path, x=X, y=labels))


def test_images_and_labels_of_different_number_are_refused(tmp_path):
    message = refusal(npz(tmp_path, x=X, y=Y[:5]))
    assert "expected 6 labels, one to an image, found 5" in message


def test_an_idx_pair_in_the_wrong_order_is_refused(tmp_path):
    first = written(tmp_path / "x", idx(X))
    second = written(tmp_path / "y", idx(Y))
    assert refusal([second, first]).startswith("expected images (N, F), (N, H, W)")


def test_a_second_file_beside_an_npz_is_refused(tmp_path):
    message = refusal([npz(tmp_path, x=X), tmp_path / "other"])
    assert message.startswith("expected an .npz alone, found a second file")


# Pixels to inputs


def test_the_default_scale_depends_on_the_type_of_the_first_images():
    assert Preprocess.for_images(X).scale == 1 / 255
    assert Preprocess.for_images(X.astype(np.int64)).scale == 1 / 255
    assert Preprocess.for_images(X.astype(np.float32)).scale == 1.0
    assert Preprocess.for_images(X, scale=1.0).scale == 1.0


def test_a_scale_that_is_left_out_follows_one_rule():
    pixels = np.array([[[51, 204]]], np.uint8)
    pre = Preprocess(mean=(0.5,), std=(0.25,))
    np.testing.assert_array_equal(
        pre.apply(pixels, (1, 1, 2)),
        Preprocess.for_images(pixels, mean=(0.5,), std=(0.25,)).apply(pixels, (1, 1, 2)),
    )
    np.testing.assert_allclose(pre.apply(pixels, (1, 1, 2)), [[[[-1.2, 1.2]]]], rtol=1e-6)
    np.testing.assert_allclose(pre.apply(pixels / 255, (1, 1, 2)), [[[[-1.2, 1.2]]]], rtol=1e-6)
    assert pre.for_input(pixels, (1, 1, 2)).scale == 1 / 255
    assert pre.settled(pixels).settled(pixels / 255).scale == 1 / 255


def test_mean_and_deviation_apply_after_the_scale():
    # (51 / 255 - 0.5) / 0.25 = -1.2 and (204 / 255 - 0.5) / 0.25 = 1.2
    pre = Preprocess(mean=(0.5,), std=(0.25,), scale=1 / 255)
    x = pre.apply(np.array([[[51, 204]]], np.uint8), (1, 1, 2))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, [[[[-1.2, 1.2]]]], rtol=1e-6)


COLOUR = np.random.default_rng(SEED).standard_normal((2, 5, 4, 3)).astype(np.float32)
"""Channels last."""


@pytest.mark.parametrize("layout", ["auto", "given"])
@pytest.mark.parametrize("images", ["nhwc", "nchw"])
@pytest.mark.parametrize("inputs", ["nhwc", "nchw", "nf"])
def test_channels_are_found_in_either_place(layout, images, inputs):
    first = COLOUR.transpose(0, 3, 1, 2)
    expected = first - f32([1, 2, 3]).reshape(3, 1, 1)
    if inputs == "nhwc":
        expected = expected.transpose(0, 2, 3, 1)
    elif inputs == "nf":
        expected = expected.reshape(2, 60)
    pre = Preprocess(mean=(1, 2, 3), layout=images if layout == "given" else "auto")
    x = pre.apply(COLOUR if images == "nhwc" else first, expected.shape[1:])
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("shape", [(1, 4, 3), (4, 3, 1), (4, 3), (12,)], ids=str)
def test_grey_images_fit_every_shape_of_one_channel(shape):
    np.testing.assert_array_equal(Preprocess(scale=1).apply(X, shape), X.reshape(6, *shape))


@pytest.mark.parametrize("shape", [(12,), (1, 4, 3)], ids=str)
def test_flat_images_take_the_shape_of_the_input(shape):
    x = Preprocess(scale=1).apply(X.reshape(6, 12), shape)
    np.testing.assert_array_equal(x, X.reshape(6, *shape))


def test_images_that_do_not_fit_the_network_are_refused():
    message = (
        r"^expected images for a network input of shape \(1, 8, 8\), found \(4, 3\) "
        r"\(layout auto\), in digits.npz$"
    )
    with pytest.raises(InputError, match=message):
        Preprocess().apply(X, (1, 8, 8), source="digits.npz")


def test_a_layout_that_does_not_fit_is_refused_even_where_another_would():
    with pytest.raises(InputError, match=r"found \(5, 4, 3\) \(layout nchw\), in the images"):
        Preprocess(layout="nchw").apply(COLOUR, (3, 5, 4))


def test_means_must_match_the_channels():
    message = "expected mean of 1 or 3 values for images of 3 channels, found 2, in the images"
    with pytest.raises(InputError, match=message):
        Preprocess(mean=(1, 2)).apply(COLOUR, (3, 5, 4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": ()}, "mean must be one or more finite numbers, not ()"),
        ({"std": (np.nan,)}, "std must be one or more finite numbers, not (nan,)"),
        ({"std": (1, 0)}, "std must not be 0, not (1.0, 0.0)"),
        ({"scale": 0}, "scale must be finite and not 0, not 0.0"),
        ({"scale": np.inf}, "scale must be finite and not 0, not inf"),
        ({"layout": "hwc"}, "layout must be one of auto, nf, nhw, nhwc, nchw, not 'hwc'"),
    ],
    ids=str,
)
def test_a_bad_setting_is_refused(values, message):
    with pytest.raises(InputError) as caught:
        Preprocess(**values)
    assert str(caught.value) == message


def test_preprocessing_survives_json():
    pre = Preprocess(mean=(0.1, 0.2, 0.3), std=(0.7,), scale=1 / 255, layout="nhwc")
    assert Preprocess.from_dict(json.loads(json.dumps(pre.to_dict()))) == pre


@pytest.mark.parametrize(
    "values", [{}, 1.5, {"mean": 1, "std": [1], "scale": 1, "layout": "nhw"}], ids=str
)
def test_a_damaged_description_is_refused(values):
    with pytest.raises(InputError, match="expected mean, std, scale and layout of the images"):
        Preprocess.from_dict(values)
