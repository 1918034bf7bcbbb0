"""A program takes images of every shape that its network took, and gives them the same codes."""

from pathlib import Path

import numpy as np
import pytest

import refmodel
from refmodel import golden
from refmodel.compression.quantize import quantize
from tests.support.nets.onnx_nets import f32, network, node, save

SEED = 5

CASES = {
    "one pixel, channels last": ((3, 1, 1), (1, 1, 3), 3),
    "one pixel, channels first": ((3, 1, 1), (3, 1, 1), 3),
    "one pixel, features": ((3, 1, 1), (3,), 1),
    "one pixel, grey": ((1, 1, 1), (1, 1), 1),
    "one pixel, to channels last": ((1, 1, 3), (1, 1, 3), 3),
    "a row": ((3, 1, 4), (1, 4, 3), 3),
    "a column": ((3, 4, 1), (4, 1, 3), 3),
    "picture, channels last": ((3, 4, 5), (4, 5, 3), 3),
    "picture, channels first": ((3, 4, 5), (3, 4, 5), 3),
    "picture, features": ((3, 4, 5), (60,), 1),
    "grey": ((1, 4, 5), (4, 5), 1),
    "to channels last": ((4, 5, 3), (4, 5, 3), 3),
    "first to channels last": ((4, 5, 3), (3, 4, 5), 3),
    "to features": ((60,), (4, 5, 3), 3),
    "first to features": ((60,), (3, 4, 5), 3),
    "grey to features": ((20,), (4, 5), 1),
    "one pixel to features": ((3,), (1, 1, 3), 3),
    "one pixel, first, to features": ((3,), (3, 1, 1), 3),
    "features": ((6,), (6,), 1),
}
"""Input of the network, an image, and its channels."""


@pytest.mark.parametrize("case", CASES)
def test_codes_are_those_of_the_network_inputs(case: str, tmp_path: Path) -> None:
    shape, image, channels = CASES[case]
    values = np.random.default_rng(SEED)
    weight = values.standard_normal((int(np.prod(shape)), 4))
    nodes = [node("Flatten", "x", "f"), node("MatMul", "f w", "y")]
    floats = refmodel.load(save(network(nodes, {"w": f32(weight)}, ("N", *shape)), tmp_path))
    x = values.integers(0, 256, (7, *image), np.uint8)
    means = (0.2, 0.5, 0.7)[:channels]
    pixels = refmodel.Preprocess.for_images(x, mean=means, std=(0.3,))
    expected = pixels.apply(x, floats.input_shape)
    program = floats.compress(x, preprocess=pixels, scheme="dense")
    program.save(tmp_path / "net.prap")
    again = refmodel.Program.load(tmp_path / "net.prap")
    np.testing.assert_array_equal(again.codes(x), golden.quantise_input(program, expected))
    np.testing.assert_array_equal(again.codes(x[:1]), again.codes(x)[:1])


def test_a_scale_that_is_left_out_is_settled_by_the_calibration_images(tmp_path: Path) -> None:
    values = np.random.default_rng(SEED)
    nodes = [node("Flatten", "x", "f"), node("MatMul", "f w", "y")]
    weight = f32(values.standard_normal((8, 4)))
    floats = refmodel.load(save(network(nodes, {"w": weight}, ("N", 2, 2, 2)), tmp_path))
    x = values.integers(0, 256, (9, 2, 2, 2), np.uint8)
    pixels = refmodel.Preprocess(mean=(0.4,), std=(0.3,))
    settled = refmodel.Preprocess(mean=(0.4,), std=(0.3,), scale=1 / 255)
    np.testing.assert_array_equal(floats.logits(x, pixels), floats.logits(x, settled))
    program = floats.compress(x, preprocess=pixels)
    assert program.preprocess == settled.to_dict()
    np.testing.assert_array_equal(program.codes(x.astype(np.float64)), program.codes(x))
    with pytest.raises(refmodel.InputError, match="expected a settled scale of the images"):
        quantize(floats, pixels.apply(x, floats.input_shape), preprocess=pixels)
