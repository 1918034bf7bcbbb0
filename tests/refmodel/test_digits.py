"""The packaged digits: what the files hold is what log and README say."""

import hashlib
import re
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest

from refmodel.compression.compile import compile_network
from refmodel.compression.patterned import recover_map
from refmodel.compression.quantize import quantize
from refmodel.compression.reuse import SIMILAR_LEVELS, quantise
from refmodel.compression.schemes import default_setting, map_layer
from refmodel.digits import (
    PIXEL_SCALE,
    SETTINGS,
    asset_path,
    digits_images,
    images_path,
    network_path,
)
from refmodel.exchange.onnx.load import load_onnx
from refmodel.golden.network import accuracy
from refmodel.network.graph import FloatNetwork, Matrix
from refmodel.network.images import Preprocess, load_images

Kind = Literal["float", "prap"]

ASSETS = ("digits_float.onnx", "digits_prap.onnx", "digits_images.npz")
HELD_OUT, CALIBRATION = 500, 200
PRAP_LAYERS = ("conv2", "conv3")


@pytest.fixture(scope="module")
def log(root: Path) -> str:
    return (root / "examples/digits/train.log").read_text(encoding="utf-8")


def right(log: str, name: str) -> int:
    """Held-out images right, from the log."""
    found = re.search(rf"^{name}: (\d+) of {HELD_OUT} held-out images right", log, re.MULTILINE)
    assert found, f"{name!r} is not in the log"
    return int(found[1])


def correct(network: FloatNetwork) -> int:
    images = digits_images()
    x = Preprocess(scale=PIXEL_SCALE).apply(images.x, network.input_shape)
    return int((network.forward(x).argmax(axis=1) == images.y).sum())


def test_images_have_the_sizes_and_values_claimed() -> None:
    images = digits_images()
    for x, y, count in (
        (images.x, images.y, HELD_OUT),
        (images.calibration_x, images.calibration_y, CALIBRATION),
    ):
        assert x.shape == (count, 8, 8)
        assert y.shape == (count,)
        assert x.dtype == y.dtype == np.uint8
        assert x.max() == 16
        # Stratified: the 1,797 images have 174 to 183 of each digit.
        assert all(abs(np.count_nonzero(y == digit) - count / 10) <= 2 for digit in range(10))


def test_no_held_out_image_calibrates() -> None:
    images = digits_images()
    held_out = {image.tobytes() for image in images.x}
    assert not any(image.tobytes() in held_out for image in images.calibration_x)


def test_the_image_file_is_one_that_the_command_line_reads() -> None:
    x, y = load_images(images_path())
    images = digits_images()
    assert np.array_equal(x, images.x)
    assert y is not None
    assert np.array_equal(y, images.y)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_network_is_as_accurate_as_the_log_says(kind: Kind, log: str) -> None:
    assert correct(load_onnx(network_path(kind))) == right(log, kind)


def test_fine_tuned_is_within_one_and_a_half_points_of_float(log: str) -> None:
    assert right(log, "prap") >= right(log, "float") - 0.015 * HELD_OUT


@pytest.mark.parametrize("name", ASSETS)
def test_files_are_those_of_the_log_and_of_their_readme(name: str, log: str) -> None:
    digest = hashlib.sha256(asset_path(name).read_bytes()).hexdigest()
    assert f"{digest}  {name}" in log
    assert digest in asset_path("README.md").read_text(encoding="utf-8")


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="kind must be 'float' or 'prap', not 'int8'"):
        network_path("int8")  # pyright: ignore[reportArgumentType]


def layers(kind: Kind) -> dict[str, np.ndarray]:
    """The weights of the convolutions that prap maps."""
    network = load_onnx(network_path(kind))
    found = {node.name: node.weight for node in network.nodes if isinstance(node, Matrix)}
    return {name: found[name] for name in PRAP_LAYERS}


@pytest.mark.parametrize("name", PRAP_LAYERS)
def test_fine_tuned_weights_lie_on_patterns_and_float_ones_do_not(name: str) -> None:
    setting = SETTINGS[name]

    def on_patterns(kind: Kind) -> bool:
        codes = quantise(layers(kind)[name], SIMILAR_LEVELS)
        return recover_map(codes, setting.channels, setting.positions, setting.keep) is not None

    assert on_patterns("prap")
    assert not on_patterns("float")


@pytest.mark.parametrize("name", PRAP_LAYERS)
def test_mapping_the_fine_tuned_weights_changes_none(name: str) -> None:
    weight = layers("prap")[name]
    codes = quantise(weight, SIMILAR_LEVELS)
    for setting in (SETTINGS[name], default_setting(weight)):
        mapping = map_layer(weight, 1, "prap", setting)
        assert np.array_equal(mapping.weight_q8, codes)


@pytest.mark.parametrize("name", PRAP_LAYERS)
def test_mapping_keeps_the_patterns_that_the_log_names(name: str, log: str) -> None:
    mapping = map_layer(layers("prap")[name], 1, "prap", SETTINGS[name])
    counts = f"{mapping.kept} kept, {mapping.reused} reused, {mapping.dropped} dropped"
    assert f"{name}: lies on its patterns, {counts}" in log


def test_the_integer_network_is_within_one_and_a_half_points_of_float(log: str) -> None:
    images = digits_images()
    preprocess = Preprocess(scale=PIXEL_SCALE)
    network = load_onnx(network_path("prap"))
    shape = network.input_shape
    quantised = quantize(network, preprocess.apply(images.calibration_x, shape))
    program = compile_network(quantised, scheme="prap", settings=SETTINGS)
    share = accuracy(program, preprocess.apply(images.x, shape), images.y)
    assert share * HELD_OUT >= right(log, "float") - 0.015 * HELD_OUT
