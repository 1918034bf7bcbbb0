"""Maps read off weights that lie on patterns, and why rule 7 is no substitute."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from refmodel.compression.patterned import recover_map
from refmodel.compression.prune import shape_mask
from refmodel.compression.reuse import SIMILAR_LEVELS, ReuseMap, prap_map, quantise

SEED = 20230


def effective(codes: NDArray[np.int16], found: ReuseMap) -> NDArray[np.int64]:
    """Codes that the map gives: the masked target in 8 bits, times 2^exponent."""
    outputs, inputs = codes.shape[:2]
    result = np.zeros(codes.shape, np.int64)
    for channel in range(inputs):
        group = channel // found.channels
        for output in range(outputs):
            source = found.target[group, output]
            if source >= 0:
                pattern = codes[source, channel] * found.mask[source, channel].astype(np.int64)
                rounded = np.rint(pattern / 256).astype(np.int64) * 256
                result[output, channel] = rounded * 2.0 ** found.exponent[group, output]
    return result


def projected_layer(
    shape: tuple[int, ...], channels: int, positions: int, keep: float, seed: int
) -> tuple[NDArray[np.int16], ReuseMap]:
    """Codes of a random layer after projection onto its own map, and that map."""
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=shape) * np.exp(0.7 * generator.normal(size=shape))
    codes = quantise(weight.astype(np.float32), SIMILAR_LEVELS)
    mask = shape_mask(weight.astype(np.float32), channels, positions)
    found = prap_map(codes, mask, channels, keep)
    projected = effective(codes, found)
    # Back through float32 weights, as a file holds them, with the projected layer's own scale.
    for _ in range(3):
        codes = quantise((projected * 0.001).astype(np.float32), SIMILAR_LEVELS)
        projected = effective(codes, found)
    return projected.astype(np.int16), found


LAYERS = [
    pytest.param((32, 16, 3, 3), 2, 4, 0.375, id="conv-2-4"),
    pytest.param((64, 12, 3, 3), 4, 2, 0.125, id="conv-4-2"),
    pytest.param((16, 5, 3, 3), 1, 8, 0.5, id="conv-1-8"),
    pytest.param((24, 7, 3, 3), 2, 4, 0.25, id="conv-odd-channels"),
    pytest.param((12, 4, 5, 5), 1, 8, 0.5, id="conv-5x5"),
    pytest.param((64, 20, 1, 1), 8, 1, 0.25, id="linear-8"),
    pytest.param((64, 32, 1, 1), 16, 1, 0.25, id="linear-16"),
]


@pytest.mark.parametrize(("shape", "channels", "positions", "keep"), LAYERS)
def test_projected_weights_come_back_exactly(
    shape: tuple[int, ...], channels: int, positions: int, keep: float
) -> None:
    codes, made = projected_layer(shape, channels, positions, keep, SEED)
    found = recover_map(codes, channels, positions, keep)
    assert found is not None
    assert np.array_equal(effective(codes, found), codes)
    assert (found.kept_count <= made.kept_count).all()
    assert (codes[found.mask == 0] == 0).all()
    assert found.kept + found.reused + found.dropped == found.patterns


@pytest.mark.parametrize(("shape", "channels", "positions", "keep"), LAYERS[:2])
def test_rule_7_in_its_place_would_lose_kept_patterns(
    shape: tuple[int, ...], channels: int, positions: int, keep: float
) -> None:
    """The mutant of the test above: choosing anew changes the weights."""
    codes, _ = projected_layer(shape, channels, positions, keep, SEED)
    mask = shape_mask(codes.astype(np.float32), channels, positions)
    again = effective(codes, prap_map(codes, mask, channels, keep)).astype(np.float64)
    error = np.linalg.norm(again - codes) / np.linalg.norm(codes.astype(np.float64))
    assert error > 0.05


def layer(*patterns: list[int]) -> NDArray[np.int16]:
    """A 1x1 layer of one group."""
    return np.array(patterns, np.int16)[:, :, None, None]


def test_worked_group() -> None:
    codes = layer([512, 256], [256, 128], [0, 0], [256, 768])
    found = recover_map(codes, 2, 1, 0.5)
    assert found is not None
    assert found.target.tolist() == [[0, 0, -1, 3]]
    assert found.exponent.tolist() == [[0, -1, 0, 0]]
    assert found.order.tolist() == [[3, 0, 1, 2]]
    assert found.kept_count.tolist() == [2]
    assert (found.kept, found.reused, found.dropped) == (2, 1, 1)
    assert found.mask[:, :, 0, 0].tolist() == [[1, 1], [1, 1], [0, 0], [1, 1]]


def test_equal_patterns_keep_the_first() -> None:
    found = recover_map(layer([256, 512], [256, 512], [128, 256], [0, 256]), 2, 1, 0.5)
    assert found is not None
    assert found.target.tolist() == [[0, 0, 0, 3]]
    assert found.order.tolist() == [[0, 3, 1, 2]]  # kept ones first, although 1 is larger than 3


def test_a_position_emptied_by_rounding_takes_a_fuller_shape() -> None:
    codes = np.zeros((4, 1, 3, 3), np.int16)
    codes[0, 0, 0, :2] = [256, 768]
    codes[1, 0, 0, 1] = 1280
    found = recover_map(codes, 1, 2, 0.5)
    assert found is not None
    assert found.mask[1, 0, 0].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("codes", "keep"),
    [
        pytest.param(layer([512, 256], [256, 128], [0, 0], [256, 768]), 0.25, id="too-many-kept"),
        pytest.param(layer([512, 256], [256, 128], [0, 0], [256, 769]), 0.5, id="not-8-bit"),
        pytest.param(layer([512, 256], [-512, -256], [0, 0], [0, 0]), 0.25, id="sign"),
        pytest.param(layer([16384, 0], [32, 0], [0, 0], [0, 0]), 0.5, id="below-2^-8"),
    ],
)
def test_what_is_no_map_gives_none(codes: NDArray[np.int16], keep: float) -> None:
    assert recover_map(codes, 2, 1, keep) is None


def test_more_positions_or_channels_than_a_shape_has_give_none() -> None:
    wide = np.full((4, 1, 3, 3), 256, np.int16)
    assert recover_map(wide, 1, 8, 0.5) is None
    assert recover_map(np.full((4, 9, 1, 1), 256, np.int16), 16, 1, 0.5) is None


@pytest.mark.parametrize(("shape", "channels", "positions", "keep"), LAYERS)
def test_ordinary_weights_give_none(
    shape: tuple[int, ...], channels: int, positions: int, keep: float
) -> None:
    weight = np.random.default_rng(SEED).normal(size=shape).astype(np.float32)
    assert recover_map(quantise(weight, SIMILAR_LEVELS), channels, positions, keep) is None


def test_a_layer_of_zeros_is_all_dropped() -> None:
    found = recover_map(np.zeros((4, 2, 3, 3), np.int16), 2, 4, 0.5)
    assert found is not None
    assert (found.kept, found.reused, found.dropped) == (0, 0, 4)


def perturbed(codes: NDArray[np.int16], change: Callable[[int], int]) -> NDArray[np.int16]:
    """The codes with their first non-zero weight changed."""
    codes = codes.copy()
    place = tuple(np.argwhere(codes)[0])
    codes[place] = change(int(codes[place]))
    return codes


def test_one_code_off_the_pattern_gives_none() -> None:
    codes, _ = projected_layer((32, 16, 3, 3), 2, 4, 0.375, SEED)
    assert recover_map(perturbed(codes, lambda code: code + 1), 2, 4, 0.375) is None
