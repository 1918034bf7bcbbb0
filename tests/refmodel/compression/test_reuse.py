"""Quantisation and rules 4 to 7."""

import math

import numpy as np
import pytest

from refmodel.compression import reuse
from refmodel.compression.prune import shape_mask
from refmodel.compression.reuse import (
    DENSE_LEVELS,
    SIMILAR_LEVELS,
    ReuseMap,
    identical_map,
    nearest_exponent,
    prap_map,
    quantise,
    similar_map,
    weight_scale,
)

SEEDS = range(12)


def layer(*patterns: list[int]) -> np.ndarray:
    """Make codes [out, in, 1, 1] from one weight pattern for each output."""
    return np.array(patterns, np.int16)[:, :, None, None]


def ones(codes: np.ndarray) -> np.ndarray:
    """A mask that keeps everything."""
    return np.ones(codes.shape, np.uint8)


def slow_map(codes, mask, channels, keep, *, shaped=True, in_place=False):
    """Rule 7 from its text, one pattern and one candidate at a time, in Python integers.

    With ``in_place`` the walk rounds patterns where they lie, as published rule 6 seems to do. With
    ``shaped`` off the pattern is compared as its own mask leaves it, which is the mistake that the
    text warns of.
    """
    outputs, inputs = codes.shape[:2]
    target, exponent, kept_count, orders = [], [], [], []
    for start in range(0, inputs, channels):
        q = [codes[o, start : start + channels].reshape(-1).tolist() for o in range(outputs)]
        m = [mask[o, start : start + channels].reshape(-1).tolist() for o in range(outputs)]
        own = [[a * b for a, b in zip(q[o], m[o], strict=True)] for o in range(outputs)]
        norm = [sum(map(abs, own[o])) for o in range(outputs)]
        order = sorted(range(outputs), key=lambda o: (-norm[o], o))
        kept = []
        for o in order[: int(outputs * keep)]:
            y = [round(v / 256) * 256 for v in own[o]]
            if not any(y):
                if in_place:
                    norm[o] = 0
                break
            kept.append((o, y))
        to = {o: (o, 0) for o, _ in kept}
        for o in order[len(kept) :]:
            to[o] = (-1, 0)
            if norm[o] == 0:
                continue
            best = None
            for j, y in kept:
                x = [a * b for a, b in zip(q[o], m[j], strict=True)] if shaped else own[o]
                size = sum(map(abs, x))
                ratio = np.float32(size) / np.float32(sum(map(abs, y)))
                k = max(round(math.log2(ratio)), -8) if size else None
                s = 0.0 if k is None else 2.0**k
                d = sum(abs(s * b - a) for a, b in zip(x, y, strict=True))
                if best is None or d < best[0]:
                    best = (d, j, k)
            if best is not None and norm[o] >= best[0] and best[2] is not None:
                to[o] = (best[1], best[2])
        orders.append(order)
        kept_count.append(len(kept))
        target.append([to[o][0] for o in range(outputs)])
        exponent.append([to[o][1] for o in range(outputs)])
    return orders, kept_count, target, exponent


def same(found: ReuseMap, slow) -> bool:
    parts = (found.order, found.kept_count, found.target, found.exponent)
    return all(part.tolist() == expected for part, expected in zip(parts, slow, strict=True))


CASES = [
    ((12, 4, 3, 3), 1, 8, 0.5),
    ((16, 4, 3, 3), 2, 4, 0.25),
    ((20, 8, 3, 3), 4, 2, 0.2),
    ((12, 5, 3, 3), 2, 4, 0.4),
    ((9, 3, 5, 5), 2, 4, 0.3),
    ((14, 20, 1, 1), 8, 1, 0.5),
    ((14, 32, 1, 1), 32, 1, 0.3),
    ((6, 4, 3, 3), 4, 2, 1.0),
    ((6, 4, 3, 3), 4, 2, 0.1),
]


def random_layer(seed: int, case) -> tuple[np.ndarray, np.ndarray]:
    """Draw codes and their mask: by seed modulo 4 plain, coarse, sparse, or halves of a step.

    So there are ties of norms and distances, patterns of norm 0, kept patterns that round to zero,
    patterns that are empty on a kept shape, scales down to 2^-8, and halves to round.
    """
    rng = np.random.default_rng(seed)
    shape, channels, positions, _ = case
    weight = rng.standard_normal(shape) * np.exp(0.7 * rng.standard_normal(shape))
    if seed % 4 == 1:
        weight = rng.integers(-3, 4, shape) * 0.25
    if seed % 4 == 2:
        weight *= rng.random(shape) < 0.25
        weight *= 2.0 ** -rng.integers(0, 12, (shape[0], 1, 1, 1))
    if seed % 4 == 3:
        weight = rng.integers(-6, 7, shape) * 128.0
        weight.flat[0] = SIMILAR_LEVELS
    weight = weight.astype(np.float32)
    return quantise(weight, SIMILAR_LEVELS), shape_mask(weight, channels, positions)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_pattern_is_mapped_as_the_text_says(case, seed):
    codes, mask = random_layer(seed, case)
    found = prap_map(codes, mask, case[1], case[3])
    assert same(found, slow_map(codes, mask, case[1], case[3]))


@pytest.mark.parametrize("seed", SEEDS)
def test_masks_of_any_form_are_taken(seed):
    rng = np.random.default_rng(seed)
    codes, _ = random_layer(seed, CASES[1])
    mask = (rng.random(codes.shape) < 0.4).astype(np.uint8)
    found = prap_map(codes, mask, 2, 0.5)
    assert same(found, slow_map(codes, mask, 2, 0.5))


def test_patterns_beyond_float32_are_exact():
    # 600 rows of 32512 sum to more than 2^24.
    rng = np.random.default_rng(5)
    codes = rng.integers(30000, 32513, (8, 600, 1, 1)).astype(np.int16)
    found = prap_map(codes, ones(codes), 600, 0.5)
    assert same(found, slow_map(codes, ones(codes), 600, 0.5))


def test_blocks_of_outputs_do_not_matter(monkeypatch):
    codes, mask = random_layer(0, ((300, 4, 3, 3), 4, 2, 0.25))
    whole = prap_map(codes, mask, 4, 0.25)
    monkeypatch.setattr(reuse, "_BLOCK", 1)
    parts = prap_map(codes, mask, 4, 0.25)
    assert np.array_equal(whole.target, parts.target)
    assert np.array_equal(whole.exponent, parts.exponent)


def test_a_worked_group():
    codes = layer([1024, -512], [512, -256], [100, 0], [0, 0], [2048, 0])
    found = prap_map(codes, ones(codes), 2, 0.4)
    # Norms 1536, 768, 100, 0, 2048: outputs 4 and 0 are kept. Output 1 is half of output 0.
    # Output 2: 100/2048 -> 2^-4 (log2 = -4.36): 128 against 100, d = 28; of output 0, 100/1536 ->
    # 2^-4 (-3.94): 64, -32 against 100, 0: d = 68. So it is output 4 times 2^-4.
    assert found.order.tolist() == [[4, 0, 1, 2, 3]]
    assert found.target.tolist() == [[0, 0, 4, -1, 4]]
    assert found.exponent.tolist() == [[0, -1, -4, 0, 0]]
    assert (found.kept, found.reused, found.dropped, found.patterns) == (2, 2, 1, 5)
    assert found.reuse_ratio == 0.6
    table = [[1, 0], [2, 4], [3, -1], [-1, 0], [0, 0]]
    assert found.map_table().tolist() == [table, table]
    assert found.map_table().dtype == np.int16
    scales = found.relationship_table()
    assert scales[:, 0, 0, 0].tolist() == scales[:, 1, 0, 0].tolist() == [1, 0.5, 2**-4, 0, 1]
    assert scales.dtype == np.float32


def test_of_equal_norms_the_lower_output_is_kept():
    found = prap_map(layer([256], [512], [512]), ones(layer([0], [0], [0])), 1, 0.34)
    assert found.order.tolist() == [[1, 2, 0]]
    assert found.target.tolist() == [[1, 1, 1]]


def test_of_equal_distances_the_first_kept_is_the_target():
    # Outputs 0 and 1 are the same; output 2 is as near to both.
    codes = layer([512, 256], [512, 256], [256, 128])
    assert prap_map(codes, ones(codes), 2, 0.7).target.tolist() == [[0, 1, 0]]


def test_zero_wins_only_when_it_is_nearer():
    # x = [256, -256] against y = [512, 512]: ratio 1/2, distance 0 + 512, as far as zero: reused.
    codes = layer([512, 512], [256, -256])
    assert prap_map(codes, ones(codes), 2, 0.5).target.tolist() == [[0, 0]]
    # x = [255, -257]: 1 + 513 = 514 against 512: zero.
    codes = layer([512, 512], [255, -257])
    assert prap_map(codes, ones(codes), 2, 0.5).target.tolist() == [[0, -1]]


def test_patterns_are_compared_unmasked_on_the_shape_of_the_kept_one():
    codes = layer([1024, 0], [10, 512])
    mask = layer([1, 0], [0, 1]).astype(np.uint8)
    # On its own shape output 1 is [0, 512], on that of output 0 [10, 0]: 10/1024 -> 2^-7, |8 - 10|.
    found = prap_map(codes, mask, 2, 0.5)
    assert found.target.tolist() == [[0, 0]]
    assert found.exponent.tolist() == [[0, -7]]
    assert found.mask[:, :, 0, 0].tolist() == [[1, 0], [1, 0]]


def test_a_pattern_that_is_empty_on_a_kept_shape_is_dropped():
    codes = layer([1024, 0, 0], [0, 512, 256], [0, 512, 256])
    mask = layer([1, 0, 0], [0, 1, 1], [0, 1, 1]).astype(np.uint8)
    # Output 2 equals the kept output 1, but output 0 comes first, with a distance of 0 to nothing.
    found = prap_map(codes, mask, 3, 0.7)
    assert found.target.tolist() == [[0, 1, -1]]
    assert found.mask[2].reshape(-1).tolist() == [0, 0, 0]


def test_keeping_stops_at_a_pattern_that_rounds_to_zero():
    # 128 / 256 rounds to 0 (half to even), 129 would round to 1.
    codes = layer([300], [128], [100])
    found = prap_map(codes, ones(codes), 1, 1.0)
    assert found.kept_count.tolist() == [1]
    assert found.target.tolist() == [[0, 0, 0]]
    assert found.exponent.tolist() == [[0, -1, -1]]


@pytest.mark.parametrize("keep", [0.0, 0.3])
def test_nothing_kept_drops_everything(keep):
    codes = layer([300], [200], [0])
    found = prap_map(codes, ones(codes), 1, keep)
    assert (found.kept, found.reused, found.dropped) == (0, 0, 3)
    assert found.map_table().tolist() == [[[0, -1], [1, -1], [2, -1]]]
    assert not found.mask.any()
    assert not found.relationship_table().any()


def test_scales_end_at_two_to_the_minus_8():
    codes = layer([32512], [63])
    # 63 / 32512 = 2^-9.01; 127 against 63 is 64 away, further than zero with 63.
    assert prap_map(codes, ones(codes), 1, 0.5).target.tolist() == [[0, -1]]
    codes = layer([32512], [64])
    found = prap_map(codes, ones(codes), 1, 0.5)
    assert (found.target.tolist(), found.exponent.tolist()) == ([[0, 0]], [[0, -8]])


def test_the_largest_scale_of_eight_rows_is_four():
    # The example of docs/specification/algorithm.md: y = [129, 128 x 7] rounds to [256, 0 x 7],
    # x = [800, 0 x 7].
    codes = np.zeros((2, 1, 3, 3), np.int16)
    codes[0, 0].flat[:8] = [129] + [128] * 7
    codes[1, 0].flat[:8] = [800] + [0] * 7
    mask = np.ones(codes.shape, np.uint8)
    mask[:, :, 2, 2] = 0
    found = prap_map(codes, mask, 1, 0.5)
    assert found.exponent.tolist() == [[0, 2]]


def test_exponents_are_the_rounded_logarithm():
    rng = np.random.default_rng(3)
    near = np.float32(2.0 ** (np.arange(-9, 12) + 0.5))
    ratios = np.concatenate(
        [
            near,
            np.nextafter(near, np.float32(0)),
            np.nextafter(near, np.float32(np.inf)),
            2.0 ** np.arange(-12, 12),
            2.0 ** rng.uniform(-12, 12, 10000),
        ]
    ).astype(np.float32)
    expected = [max(round(math.log2(ratio)), -8) for ratio in ratios.tolist()]
    assert nearest_exponent(ratios).tolist() == expected
    assert nearest_exponent(np.zeros(1, np.float32)).tolist() == [-8]


# Rule 6


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_similar_patterns_are_those_of_rule_7_with_nothing_masked(case, seed):
    codes, _ = random_layer(seed, case)
    found = similar_map(codes, case[1], case[3])
    assert same(found, slow_map(codes, ones(codes), case[1], case[3], in_place=True))


def test_similar_drops_the_pattern_that_ends_the_walk():
    # 128 / 256 rounds to 0 and ends the walk; [100] is reused, times 2^-1, as rule 7 does [128].
    codes = layer([300], [128], [100])
    found = similar_map(codes, 1, 1.0)
    assert found.target.tolist() == [[0, -1, 0]]
    assert prap_map(codes, ones(codes), 1, 1.0).target.tolist() == [[0, 0, 0]]


def test_mutant_similar_that_keeps_comparing_it_is_found():
    layers = [(random_layer(seed, case)[0], case) for case in CASES for seed in SEEDS]
    assert not all(
        same(prap_map(codes, ones(codes), case[1], case[3]),
             slow_map(codes, ones(codes), case[1], case[3], in_place=True))
        for codes, case in layers
    )  # fmt: skip


# Rules 4 and 5


def slow_identical(codes, channels, threshold, *, skip=False):
    """Rule 4 from its text, one pattern and one candidate at a time, in Python integers."""
    outputs, inputs = codes.shape[:2]
    target, kept_count, orders = [], [], []
    for start in range(0, inputs, channels):
        q = [codes[o, start : start + channels].reshape(-1).tolist() for o in range(outputs)]
        norm = [sum(map(abs, q[o])) for o in range(outputs)]
        order = sorted(range(outputs), key=lambda o: (-norm[o], o))
        if skip and not any(norm):
            orders.append(order)
            kept_count.append(0)
            target.append([-1] * outputs)
            continue
        limit = norm[order[int(outputs * threshold)]]
        kept, to = [order[0]], {order[0]: order[0]}
        for o in order[1:]:
            distance = [sum(abs(a - b) for a, b in zip(q[o], q[j], strict=True)) for j in kept]
            distance.append(norm[o])
            nearest = distance.index(min(distance))
            if distance[nearest] > limit:
                kept.append(o)
                to[o] = o
            else:
                to[o] = kept[nearest] if nearest < len(kept) else -1
        orders.append(kept + [o for o in order if o not in kept])
        kept_count.append(len(kept))
        target.append([to[o] for o in range(outputs)])
    return orders, kept_count, target, np.zeros((len(target), outputs)).tolist()


IDENTICAL_CASES = [
    ((12, 4, 3, 3), 1, 0.75),
    ((40, 3, 3, 3), 1, 0.5),
    ((16, 5, 3, 3), 2, 0.25),
    ((9, 2, 5, 5), 1, 0.6),
    ((30, 20, 1, 1), 8, 0.75),
    ((30, 3, 1, 1), 1, 0.5),
    ((6, 4, 3, 3), 4, 0.0),
    ((1, 4, 3, 3), 1, 0.9),
]


def random_codes(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draw 8-bit codes: by seed modulo 3 plain, coarse, or with channels of zeros and copies."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, shape)
    if seed % 3 == 1:
        codes = rng.integers(-2, 3, shape)
    if seed % 3 == 2:
        codes = codes[rng.integers(0, shape[0], shape[0])]
        codes[:, rng.random(shape[1]) < 0.5] = 0
    return codes.astype(np.int16)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("skip", [False, True], ids=["all", "skip"])
@pytest.mark.parametrize("case", IDENTICAL_CASES, ids=str)
def test_every_pattern_is_matched_as_the_text_says(case, skip, seed):
    shape, channels, threshold = case
    codes = random_codes(seed, shape)
    found = identical_map(codes, channels, threshold, skip_zero_groups=skip)
    assert same(found, slow_identical(codes, channels, threshold, skip=skip))
    assert found.kept + found.reused + found.dropped == found.patterns


@pytest.mark.parametrize("head", [1, 2, 7])
@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_of_patterns_do_not_matter(monkeypatch, head, seed):
    codes = random_codes(seed, (60, 3, 1, 1))
    monkeypatch.setattr(reuse, "_HEAD", head)
    monkeypatch.setattr(reuse, "_BLOCK", 1)
    assert same(identical_map(codes, 3, 0.75), slow_identical(codes, 3, 0.75))


def test_long_patterns_are_compared_exactly():
    # 300 rows of 254 are beyond 16 bits.
    rng = np.random.default_rng(2)
    codes = rng.choice([-127, 127], (12, 300, 1, 1)).astype(np.int16)
    codes[rng.random(codes.shape) < 0.5] = 0
    assert same(identical_map(codes, 300, 0.6), slow_identical(codes, 300, 0.6))


def test_a_worked_identical_group():
    # The example of the docstring, in another order: T = 5.
    found = identical_map(layer([1], [8], [9], [5]), 1, 0.5)
    assert found.order.tolist() == [[2, 1, 3, 0]]
    assert found.target.tolist() == [[-1, 2, 2, 2]]
    assert (found.kept, found.reused, found.dropped) == (1, 2, 1)
    assert found.map_table().tolist() == [[[1, 2], [3, 2], [0, -1], [-1, 0]]]


def test_ties_of_rule_4():
    # As far from the kept [4, 4] as from zero: the kept one comes first, and 4 is at most T = 4.
    assert identical_map(layer([4, 4], [4, 0]), 2, 0.5).target.tolist() == [[0, 0]]
    # T = 6: [0, 6] is 12 from [6, 0] and 6 from zero; [3, 3] is 6 from either.
    codes = layer([6, 0], [0, 6], [3, 3], [6, 0])
    assert identical_map(codes, 2, 0.5).target.tolist() == [[0, -1, 0, 0]]
    # T = 5: [6, 1] and [1, 6] are 10 apart and both kept; [3, 3] is 5 from either.
    codes = layer([6, 1], [1, 6], [3, 3], [5, 0])
    assert identical_map(codes, 2, 0.75).target.tolist() == [[0, 1, 0, 0]]


def test_a_group_of_zeros_keeps_its_first_or_is_skipped():
    codes = layer([0, 3], [0, 3], [0, 0])
    found = identical_map(codes, 1, 0.5)
    assert found.target.tolist() == [[0, 0, 0], [0, 0, -1]]
    assert found.reuse_ratio == 4 / 6
    skipped = identical_map(codes, 1, 0.5, skip_zero_groups=True)
    assert skipped.target.tolist() == [[-1, -1, -1], [0, 0, -1]]
    assert (skipped.patterns, skipped.kept, skipped.reused, skipped.dropped) == (3, 1, 1, 1)
    assert skipped.reuse_ratio == 2 / 3
    assert skipped.map_table()[0].tolist() == [[-1, 0], [0, 0], [0, 0]]
    assert not skipped.mask[:, 0].any()


def identical_differs() -> bool:
    return not all(
        same(identical_map(codes, case[1], case[2]), slow_identical(codes, case[1], case[2]))
        for case in IDENTICAL_CASES
        for codes in (random_codes(seed, case[0]) for seed in SEEDS)
    )


def test_identical_refuses_bad_arguments():
    codes = layer([1], [2])
    with pytest.raises(ValueError, match="threshold must be below 1, not 1"):
        identical_map(codes, 1, 1.0)
    with pytest.raises(ValueError, match=r"threshold must be 0 to 1, not -0\.5"):
        identical_map(codes, 1, -0.5)
    with pytest.raises(ValueError, match="channels must be at least 1, not 0"):
        identical_map(codes, 0, 0.5)


def differs_somewhere(**options) -> bool:
    """Whether the map, as it is patched, differs from the (changed) text on some layer."""
    return not all(
        same(
            prap_map(codes, mask, case[1], case[3]),
            slow_map(codes, mask, case[1], case[3], **options),
        )
        for case in CASES
        for codes, mask in (random_layer(seed, case) for seed in SEEDS)
    )


def test_mutant_masked_patterns_are_found():
    assert not differs_somewhere()
    assert differs_somewhere(shaped=False)


class Numpy:
    """Numpy with the functions given replaced."""

    def __init__(self, **functions):
        self.functions = functions

    def __getattr__(self, name):
        return self.functions.get(name, getattr(np, name))


def last_sorted(values, axis=-1, kind=None):
    """Sort so that the last of equal values comes first."""
    del kind
    return values.shape[axis] - 1 - np.argsort(np.flip(values, axis), axis=axis, kind="stable")


def last_least(values, axis=-1):
    return values.shape[axis] - 1 - np.argmin(np.flip(values, axis), axis=axis)


def half_up(values, out=None):
    return np.floor(values + 0.5, out=out)


@pytest.mark.parametrize(
    "functions",
    [{"argsort": last_sorted}, {"argmin": last_least}, {"rint": half_up}],
    ids=["unstable-sort", "last-of-equal-distances", "halves-up"],
)
def test_mutant_ties_taken_otherwise_are_found(monkeypatch, functions):
    monkeypatch.setattr(reuse, "np", Numpy(**functions))
    assert differs_somewhere()


def test_mutant_a_scale_without_its_floor_is_found(monkeypatch):
    monkeypatch.setattr(reuse, "LEAST_EXPONENT", -9)
    assert differs_somewhere()


def test_codes_by_hand():
    weight = np.array([-2, 1, 0, 0.5], np.float32).reshape(1, 4, 1, 1)
    assert weight_scale(weight, DENSE_LEVELS) == 2 / 127
    # 63.5 goes to the even 64; 31.75 to 32.
    assert quantise(weight, DENSE_LEVELS).reshape(-1).tolist() == [-127, 64, 0, 32]
    assert quantise(weight, SIMILAR_LEVELS).reshape(-1).tolist() == [-32512, 16256, 0, 8128]


def test_halves_go_to_even():
    weight = np.array([127, 2.5, 1.5, -0.5, -1.5], np.float32).reshape(5, 1, 1, 1)
    assert quantise(weight, DENSE_LEVELS).reshape(-1).tolist() == [127, 2, 2, 0, -2]


def test_codes_are_divided_in_float32():
    # Some of 100,000 quotients lie on other sides of a half in float32 and float64.
    rng = np.random.default_rng(11)
    weight = rng.standard_normal((4000, 25, 1, 1)).astype(np.float32)
    scale = np.float32(weight_scale(weight, SIMILAR_LEVELS))
    codes = quantise(weight, SIMILAR_LEVELS)
    expected = [round(float(np.float32(w) / scale)) for w in weight.reshape(-1)]
    assert codes.reshape(-1).tolist() == expected
    in_double = np.rint(weight.astype(np.float64) / weight_scale(weight, SIMILAR_LEVELS))
    assert (codes != in_double).any()


def test_zeros_have_zero_codes():
    assert not quantise(np.zeros((2, 2, 3, 3), np.float32), DENSE_LEVELS).any()


@pytest.mark.parametrize("levels", [DENSE_LEVELS, SIMILAR_LEVELS])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_largest_weight_has_the_largest_code(seed, levels):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    assert np.abs(quantise(weight, levels)).max() == levels


def test_bad_arguments_are_refused():
    weight = np.ones((1, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match="levels must be 1 to 32512, not 0"):
        quantise(weight, 0)
    with pytest.raises(ValueError, match="weight must be zero or reach 1e-33 in magnitude, not"):
        quantise(weight * np.float32(1e-40), DENSE_LEVELS)
    codes = quantise(weight, SIMILAR_LEVELS)
    with pytest.raises(ValueError, match=r"codes must be int16 \[out, in, kh, kw\], not int32"):
        prap_map(codes.astype(np.int32), ones(codes), 1, 0.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"mask must have the shape \(1, 1, 1, 1\), not \(1, 1\)"):
        prap_map(codes, np.ones((1, 1), np.uint8), 1, 0.5)
    with pytest.raises(ValueError, match="channels must be at least 1, not 0"):
        prap_map(codes, ones(codes), 0, 0.5)
    with pytest.raises(ValueError, match=r"keep must be 0 to 1, not 1\.5"):
        prap_map(codes, ones(codes), 1, 1.5)


@pytest.mark.parametrize(
    "functions",
    [{"argsort": last_sorted}, {"argmin": last_least}, {"tril": lambda a, k: np.triu(a, -k)}],
    ids=["unstable-sort", "last-of-equal-distances", "kept-from-the-end"],
)
def test_mutant_identical_ties_taken_otherwise_are_found(monkeypatch, functions):
    assert not identical_differs()
    monkeypatch.setattr(reuse, "np", Numpy(**functions))
    assert identical_differs()
