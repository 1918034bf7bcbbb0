"""Rules 1 to 3: masks."""

from collections.abc import Sequence

import numpy as np
import pytest

from refmodel.compression import prune
from refmodel.compression.prune import orc_mask, shape_mask, structure_mask

SEEDS = range(12)


def kernels(*rows: Sequence[float]) -> np.ndarray:
    """Make float32 [out, 1, 3, 3] from nine weights for each output."""
    return np.array(rows, np.float32).reshape(len(rows), 1, 3, 3)


def random_weight(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draw weights; the odd seeds on a coarse grid, so that ties are everywhere."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        return rng.integers(-2, 3, shape).astype(np.float32) / 4
    return (rng.standard_normal(shape) * 0.1).astype(np.float32)


def slow_mask(weight, channels, positions, shapes=8, rows=8):
    """Rule 3 from its text, output by output and in float64: exact for the weights used here."""
    outputs, inputs, height, width = weight.shape
    kernel = height * width
    flat = np.abs(weight.astype(np.float64)).reshape(outputs, inputs, kernel)
    mask = np.zeros(flat.shape, np.uint8)
    for start in range(0, inputs, channels):
        members = range(start, min(start + channels, inputs))
        if kernel == 1:
            sums = {c: sum(flat[o, c, 0] for o in range(outputs)) for c in members}
            for c in sorted(members, key=lambda c: (-sums[c], c))[:rows]:
                mask[:, c] = 1
            continue
        count = {}
        score = [
            [sum(flat[o, c, p] for c in members) for p in range(kernel)] for o in range(outputs)
        ]
        for o in range(outputs):
            ranked = sorted(range(kernel), key=lambda p: (-score[o][p], p))
            own = tuple(sorted(ranked[:positions], reverse=True))
            count[own] = count.get(own, 0) + 1

        def rank(shape, count=count):
            if (height, width) == (3, 3) and positions == 8:
                (dropped,) = set(range(9)) - set(shape)
                return -count[shape], (dropped,)
            return -count[shape], shape

        candidates = sorted(count, key=rank)[:shapes]
        for o in range(outputs):
            retained = [sum(score[o][p] for p in shape) for shape in candidates]
            for p in candidates[retained.index(max(retained))]:
                for c in members:
                    mask[o, c, p] = 1
    return mask.reshape(weight.shape)


CASES = [
    ((9, 4, 3, 3), 1, 8),
    ((20, 4, 3, 3), 2, 4),
    ((20, 8, 3, 3), 4, 2),
    ((40, 4, 3, 3), 4, 2),
    ((12, 5, 3, 3), 2, 4),
    ((12, 3, 3, 3), 4, 5),
    ((12, 3, 5, 5), 1, 8),
    ((30, 4, 2, 2), 2, 2),
    ((12, 2, 1, 7), 2, 3),
    ((12, 2, 9, 9), 1, 3),
    ((6, 20, 1, 1), 16, 1),
    ((6, 9, 1, 1), 8, 1),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layer_has_the_mask_of_the_text(case, seed):
    shape, channels, positions = case
    weight = random_weight(seed, shape)
    assert np.array_equal(
        shape_mask(weight, channels, positions), slow_mask(weight, channels, positions)
    )


def test_equal_scores_keep_the_lower_position():
    mask = shape_mask(kernels([0, 2, 3, 2, 2, 0, 0, 0, 0]), 1, 2)
    assert mask.reshape(-1).tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 0]


def test_the_more_frequent_shape_comes_first():
    # One candidate: {8, 7} occurs twice, so the third output must take it.
    weight = kernels([0] * 7 + [1, 1], [0] * 7 + [1, 1], [1, 1] + [0] * 7)
    mask = shape_mask(weight, 1, 2, shapes=1).reshape(3, 9)
    assert mask.tolist() == [[0] * 7 + [1, 1]] * 3


def test_of_equally_frequent_shapes_the_smaller_id_comes_first():
    # Published ids: {position 1, 9} is 9100, {2, 8} is 8200; digits descend, so 8200 is first.
    weight = kernels([1] + [0] * 7 + [1], [0, 1] + [0] * 5 + [1, 0])
    mask = shape_mask(weight, 1, 2, shapes=1).reshape(2, 9)
    assert mask.tolist() == [[0, 1, 0, 0, 0, 0, 0, 1, 0]] * 2


def test_with_eight_of_nine_the_lower_dropped_position_comes_first():
    # Output 0 drops position 9 (id 9000), output 1 drops position 1 (id 1000).
    weight = kernels([1] * 8 + [0], [0] + [1] * 8)
    mask = shape_mask(weight, 1, 8, shapes=1).reshape(2, 9)
    assert mask.tolist() == [[0] + [1] * 8] * 2


def test_of_equal_candidates_the_earlier_one_is_taken():
    # Shapes {0}, {1} and (twice) {2}; the last output has its own shape cut off and all equal.
    weight = kernels(
        [0, 0, 3, 0, 0, 0, 0, 0, 0], [0, 0, 3, 0, 0, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0, 0, 0, 0],
        [2, 1, 1, 0, 0, 0, 0, 0, 0],
    )  # fmt: skip
    # Candidates by frequency, then id: {2}, {0}, {1}; two of them: {2}, {0}.
    mask = shape_mask(weight, 1, 1, shapes=2).reshape(4, 9).argmax(axis=1)
    assert mask.tolist() == [2, 2, 2, 0]


def test_a_layer_of_zeros_has_one_shape():
    mask = shape_mask(kernels([0] * 9, [0] * 9), 1, 2).reshape(2, 9)
    assert mask.tolist() == [[1, 1] + [0] * 7] * 2


def test_scores_are_added_in_float32_channel_after_channel():
    # 2^24 + 1 is 2^24 in float32: position 0 scores no more than position 1 and stays first; in
    # float64 position 1, with 2^24 + 2 against 2^24 + 1, would lead.
    weight = np.zeros((1, 3, 3, 3), np.float32)
    weight[0, :, 0, 0] = [2**24, 1, 0]
    weight[0, :, 0, 1] = [2**24, 1, 1]
    assert shape_mask(weight, 3, 1)[0, 0].reshape(-1).tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0]


def test_retained_sums_are_added_in_float32_by_rows_of_the_kernel():
    # Candidates {0, 1, 2} (twice) and {0, 3, 4}. The last output retains (2^24 + 1) + 1 = 2^24 with
    # the first and 2^24 + (1 + 1) with the second; in float64 they tie and the first would win.
    weight = kernels(
        [3, 3, 3, 0, 0, 0, 0, 0, 0], [3, 0, 0, 3, 3, 0, 0, 0, 0], [2**24, 1, 1, 1, 1, 0, 0, 0, 0]
    )  # fmt: skip
    assert shape_mask(weight, 1, 3)[2].reshape(-1).tolist() == [1, 0, 0, 1, 1, 0, 0, 0, 0]


def test_kernels_with_few_positions_keep_all():
    weight = random_weight(0, (4, 3, 2, 2))
    assert shape_mask(weight, 1, 8).all()


def test_a_group_of_a_1x1_kernel_keeps_the_same_channels_for_every_output():
    weight = np.zeros((2, 4, 1, 1), np.float32)
    weight[:, :, 0, 0] = [[1, 0, 2, 1], [-1, 1, 0, 1]]
    # Sums 2, 1, 2, 2; the two best are 0 and 2.
    mask = shape_mask(weight, 4, 1, rows=2)[:, :, 0, 0]
    assert mask.tolist() == [[1, 0, 1, 0]] * 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", [((10, 5, 3, 3), 2, 4), ((10, 11, 1, 1), 16, 1)], ids=str)
def test_padding_with_zero_channels_changes_nothing(case, seed):
    shape, channels, positions = case
    weight = random_weight(seed, shape)
    missing = -shape[1] % channels
    padded = np.pad(weight, ((0, 0), (0, missing), (0, 0), (0, 0)))
    trimmed = shape_mask(padded, channels, positions)[:, : shape[1]]
    assert np.array_equal(shape_mask(weight, channels, positions), trimmed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mask_does_not_depend_on_the_layout_in_memory(seed):
    weight = random_weight(seed, (10, 16, 1, 1))
    mask = shape_mask(np.asfortranarray(weight), 16, 1)
    assert np.array_equal(mask, shape_mask(weight, 16, 1))


def agrees(weight: np.ndarray, channels: int, positions: int) -> bool:
    """Whether shape_mask, as it is patched, gives the mask of the text."""
    mask = shape_mask(weight, channels, positions)
    return np.array_equal(mask, slow_mask(weight, channels, positions))


def differs_somewhere() -> bool:
    """Whether shape_mask, as it is patched, differs from the text on some layer."""
    return not all(
        agrees(random_weight(seed, shape), channels, positions)
        for shape, channels, positions in CASES
        for seed in SEEDS
    )


class LastSorted:
    """Numpy with a sort that puts the last of equal values first."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def argsort(values, axis=-1, kind=None):
        del kind
        size = values.shape[axis]
        return size - 1 - np.argsort(-np.flip(-values, axis), axis=axis, kind="stable")


class LastLargest:
    """Numpy with an argmax that takes the last of equal values."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def argmax(values, axis=-1):
        return values.shape[axis] - 1 - np.argmax(np.flip(values, axis), axis=axis)


def test_mutant_the_last_of_equal_candidates_is_found(monkeypatch):
    monkeypatch.setattr(prune, "np", LastLargest())
    assert differs_somewhere()


def test_mutant_a_sort_that_is_not_stable_is_found(monkeypatch):
    assert not differs_somewhere()
    monkeypatch.setattr(prune, "np", LastSorted())
    assert differs_somewhere()


def test_mutant_shapes_in_another_order_are_found(monkeypatch):
    names = prune._shape_names
    monkeypatch.setattr(
        prune, "_shape_names", lambda s, *, dropped: names(s[..., ::-1], dropped=dropped)
    )
    assert differs_somewhere()


def test_mutant_eight_of_nine_ordered_like_the_others_is_found(monkeypatch):
    names = prune._shape_names
    monkeypatch.setattr(prune, "_shape_names", lambda s, *, dropped: names(s, dropped=False))
    assert differs_somewhere()


@pytest.mark.parametrize(
    ("error", "message", "weight", "arguments"),
    [
        (TypeError, "weight must be a float32 array, not 'float64'", np.zeros((1, 1, 1, 1)), {}),
        (TypeError, "weight must be a float32 array, not 'list'", [], {}),
        (ValueError, r"weight must have the shape \[out, in, kh, kw\], not \(3,\)",
         np.zeros(3, np.float32), {}),
        (ValueError, "weight must be finite, not np.float32\\(nan\\)",
         np.full((1, 1, 1, 1), np.nan, np.float32), {}),
        (ValueError, "channels must be at least 1, not 0", kernels([0] * 9), {"channels": 0}),
        (ValueError, "positions must be at least 1, not 0", kernels([0] * 9), {"positions": 0}),
        (ValueError, "shapes must be at least 1, not 0", kernels([0] * 9), {"shapes": 0}),
        (ValueError, "rows must be at least 1, not -1", kernels([0] * 9), {"rows": -1}),
        (TypeError, "channels must be an integer, not 1.5", kernels([0] * 9), {"channels": 1.5}),
        (TypeError, "rows must be an integer, not True", kernels([0] * 9), {"rows": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_bad_arguments_are_refused(error, message, weight, arguments):
    with pytest.raises(error, match=message):
        shape_mask(weight, **({"channels": 1, "positions": 8} | arguments))


# Rules 1 and 2


def slow_structure(weight, keep):
    """Rule 1 from its text, in exact fractions of the grid of 2^-60."""
    outputs, inputs, height, width = weight.shape
    places = [(o, h, w) for o in range(outputs) for h in range(height) for w in range(width)]
    importance = [
        sum(abs(int(float(weight[o, i, h, w]) * 2.0**60)) for o, h, w in places)
        for i in range(inputs)
    ]
    ranked = sorted(range(inputs), key=lambda i: (-importance[i], i))
    mask = np.zeros(weight.shape, np.uint8)
    for i in ranked[: int(inputs * keep)]:
        mask[:, i] = 1
    return mask


def slow_orc(weight, keep):
    """Rule 2 from its text."""
    mask = np.zeros(weight.shape, np.uint8)
    for output in range(len(weight)):
        flat = [abs(value) for value in weight[output].reshape(-1).tolist()]
        ranked = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
        mask[output].reshape(-1)[ranked[: int(len(flat) * keep)]] = 1
    return mask


SHAPES = [(9, 7, 3, 3), (5, 20, 1, 1), (4, 3, 5, 5), (3, 2, 2, 7), (6, 1, 3, 3)]
KEEPS = [0.0, 0.05, 0.2, 0.65, 0.75, 1.0]
RULES = [(structure_mask, slow_structure), (orc_mask, slow_orc)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rule", RULES, ids=["structure", "orc"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_channels_and_weights_are_kept_as_the_text_says(rule, shape, seed):
    weight = random_weight(seed, shape)
    for keep in KEEPS:
        found = rule[0](weight, keep)
        assert found.dtype == np.uint8
        assert np.array_equal(found, rule[1](weight, keep))


def test_of_equal_channels_the_lower_is_kept():
    weight = np.array([[3, -5, 3], [0, 0, 0]], np.float32)[:, :, None, None]
    # int(3 * 0.7) = 2 channels: sum 5, and of two sums of 3 the first.
    assert structure_mask(weight, 0.7)[:, :, 0, 0].tolist() == [[1, 1, 0]] * 2


def test_of_equal_weights_the_first_are_kept():
    weight = np.array([[1, -2, 2, 1], [5, 5, 5, 5]], np.float32)[:, :, None, None]
    # int(4 * 0.8) = 3 weights of each output.
    assert orc_mask(weight, 0.8)[:, :, 0, 0].tolist() == [[1, 1, 1, 0], [1, 1, 1, 0]]


def test_every_output_of_a_fully_connected_layer_keeps_its_own_largest():
    # The published program sorts the second row wrongly.
    weight = np.array([[4, 1, 2, 3], [1, 2, 3, 4]], np.float32)[:, :, None, None]
    assert orc_mask(weight, 0.5)[:, :, 0, 0].tolist() == [[1, 0, 0, 1], [0, 0, 1, 1]]


def test_blocks_of_outputs_do_not_matter(monkeypatch):
    weight = random_weight(1, (20, 9, 3, 3))
    whole = orc_mask(weight, 0.3)
    monkeypatch.setattr(prune, "_BLOCK", 1)
    assert np.array_equal(orc_mask(weight, 0.3), whole)


def rule_differs(rule) -> bool:
    return not all(
        np.array_equal(rule[0](random_weight(seed, shape), 0.4),
                       rule[1](random_weight(seed, shape), 0.4))
        for shape in SHAPES
        for seed in SEEDS
    )  # fmt: skip


class LastFilled:
    """Numpy with a running sum that starts from the end: the last of equal weights are kept."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def cumsum(values, axis, dtype):
        return np.flip(np.cumsum(np.flip(values, axis), axis, dtype), axis)


@pytest.mark.parametrize(
    ("rule", "mutant"),
    [(RULES[0], LastSorted), (RULES[1], LastFilled)],
    ids=["structure", "orc"],
)
def test_mutant_ties_taken_from_the_end_are_found(monkeypatch, rule, mutant):
    assert not rule_differs(rule)
    monkeypatch.setattr(prune, "np", mutant())
    assert rule_differs(rule)


@pytest.mark.parametrize("rule", [structure_mask, orc_mask], ids=["structure", "orc"])
def test_bad_shares_are_refused(rule):
    weight = kernels([0] * 9)
    with pytest.raises(ValueError, match=r"keep must be 0 to 1, not 1\.5"):
        rule(weight, 1.5)
    with pytest.raises(TypeError, match="keep must be a number, not '1'"):
        rule(weight, "1")
    with pytest.raises(TypeError, match="weight must be a float32 array, not 'float64'"):
        rule(weight.astype(float), 0.5)
