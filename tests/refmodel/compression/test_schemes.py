"""Layers as weight patterns and reuse words, and the settings of a network."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from refmodel.compression.prune import orc_mask, shape_mask, structure_mask
from refmodel.compression.reuse import (
    DENSE_LEVELS,
    SIMILAR_LEVELS,
    identical_map,
    prap_map,
    quantise,
    similar_map,
)
from refmodel.compression.schemes import (
    SCHEMES,
    LayerSetting,
    default_setting,
    map_layer,
    network_settings,
)
from refmodel.compression.schemes.base import build, registry
from refmodel.errors import InputError
from tests.support.layers.scheme_words import decode, random_weight, words_of

NAMES = ", ".join(SCHEMES)
SEEDS = range(4)


def prap(channels: int, positions: int, keep: float, **options) -> LayerSetting:
    return LayerSetting(scheme="prap", channels=channels, positions=positions, keep=keep, **options)


CASES = [
    ((16, 4, 3, 3), 1, prap(1, 8, 0.5)),
    ((16, 4, 3, 3), 1, prap(2, 4, 0.25)),
    ((24, 8, 3, 3), 1, prap(4, 2, 0.125)),
    ((16, 5, 3, 3), 1, prap(2, 4, 0.25)),
    ((24, 3, 3, 3), 3, prap(2, 4, 0.5)),
    ((8, 1, 3, 3), 8, prap(1, 8, 0.5)),
    ((9, 2, 5, 5), 1, prap(1, 8, 0.4)),
    ((9, 4, 3, 3), 1, prap(4, 9, 0.4)),
    ((12, 20, 1, 1), 1, prap(8, 1, 0.3)),
    ((12, 40, 1, 1), 1, prap(32, 1, 0.3)),
    ((16, 4, 3, 3), 1, prap(2, 4, 0.01)),
    ((16, 4, 3, 3), 1, prap(2, 4, 1.0)),
    ((12, 6, 3, 2), 2, LayerSetting()),
    ((5, 11, 1, 1), 1, LayerSetting()),
]


@pytest.mark.parametrize("rows", [8, 9])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2].keep}")
def test_the_patterns_decode_to_the_effective_weights(case, seed, rows):
    shape, groups, setting = case
    mapping = map_layer(random_weight(seed, shape), groups, "prap", setting, rows)
    assert np.array_equal(decode(mapping, shape, groups), mapping.weight_q8)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES[:11], ids=lambda case: f"{case[0]}-{case[1]}-{case[2].keep}")
def test_prap_weights_are_those_of_rules_3_and_7(case, seed):
    shape, groups, setting = case
    setting = prap(setting.channels, setting.positions, setting.keep, recover=False)
    weight = random_weight(seed, shape)
    mapping = map_layer(weight, groups, "prap", setting)
    codes = quantise(weight, SIMILAR_LEVELS)
    expected = np.zeros(shape, np.int64)
    counts = np.zeros(3, int)
    for part in np.split(np.arange(shape[0]), groups):
        mask = shape_mask(weight[part], setting.channels, setting.positions)
        found = prap_map(codes[part], mask, setting.channels, setting.keep)
        counts += found.kept, found.reused, found.dropped
        for output, row in zip(part, found.target.T, strict=True):
            for channel in range(shape[1]):
                group = channel // setting.channels
                if row[group] >= 0:
                    kept = part[row[group]]
                    y = np.rint(codes[kept, channel] / 256) * mask[row[group], channel]
                    k = float(found.exponent[group, output - part[0]])
                    expected[output, channel] = y * 256 * 2.0**k
    assert np.array_equal(mapping.weight_q8, expected)
    assert [mapping.kept, mapping.reused, mapping.dropped] == counts.tolist()
    assert mapping.patterns == -(-shape[1] // setting.channels) * shape[0]
    assert mapping.reuse_ratio == (counts[1] + counts[2]) / mapping.patterns
    assert mapping.scheme == "prap"


# Every scheme on every kind of layer

SIZES = [
    ((16, 5, 3, 3), 1),
    ((24, 3, 3, 3), 3),
    ((8, 1, 3, 3), 8),
    ((9, 2, 5, 5), 1),
    ((10, 3, 4, 4), 2),
    ((6, 2, 7, 7), 1),
    ((8, 3, 1, 3), 1),
    ((12, 21, 1, 1), 1),
]


def settings_of(scheme: str) -> list[LayerSetting]:
    """Settings that apply a scheme: group sizes that do and do not divide the channels."""
    return [
        LayerSetting(
            scheme=scheme,
            channels=channels,
            positions=positions,
            keep=keep,
            structure_keep=0.7,
            recover=False,
        )
        for channels, positions, keep in [(1, 8, 0.6), (2, 4, 0.3), (8, 2, 0.45)]
    ]


@pytest.mark.parametrize("rows", [4, 8, 9])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_patterns_of_every_scheme_decode_to_its_effective_weights(size, scheme, rows):
    shape, groups = size
    for seed in SEEDS:
        weight = random_weight(seed, shape)
        for setting in settings_of(scheme):
            mapping = map_layer(weight, groups, scheme, setting, rows)
            assert mapping.scheme == scheme
            assert np.array_equal(decode(mapping, shape, groups), mapping.weight_q8)
            assert mapping.mask is not None
            assert not mapping.weight_q8[mapping.mask == 0].any()
            assert sum(group.kept for group in mapping.groups) == mapping.kept
            assert mapping.kept + mapping.reused + mapping.dropped == mapping.patterns


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_scheme_that_is_not_applied_is_dense(size, scheme):
    weight = random_weight(0, size[0])
    found = map_layer(weight, size[1], scheme, LayerSetting(scheme=scheme, keep=1.0))
    assert found.scheme == "dense"
    dense = map_layer(weight, size[1], "dense")
    assert np.array_equal(found.weight_q8, dense.weight_q8)
    assert np.array_equal(dense.weight_q8, quantise(weight, DENSE_LEVELS).astype(np.int64) * 256)


def expected_weights(scheme, weight, setting, rows):
    """Effective weights straight from masks and maps, and kept, reused, dropped."""
    codes = quantise(weight, DENSE_LEVELS).astype(np.int64)
    inputs = weight.shape[1]
    of_group = np.arange(inputs) // setting.channels
    fine = np.rint(quantise(weight, SIMILAR_LEVELS) / 256).astype(np.int64)
    chunks = -(-np.count_nonzero(orc_mask(weight, setting.keep)[0]) // rows) * len(weight)
    if scheme == "orc":
        return codes * orc_mask(weight, setting.keep) * 256, (chunks, 0, 0)
    if scheme == "structured":
        mask = structure_mask(weight, setting.keep)
        return codes * mask * 256, (-(-np.count_nonzero(mask[0]) // rows) * len(weight), 0, 0)
    if scheme == "shape":
        mask = shape_mask(weight, setting.channels, setting.positions, rows=rows)
        return codes * mask * 256, ((of_group[-1] + 1) * len(weight), 0, 0)
    if scheme == "similar":
        found = similar_map(quantise(weight, SIMILAR_LEVELS), setting.channels, setting.keep)
        values = fine
    else:
        if scheme == "structured+identical":
            codes *= structure_mask(weight, setting.structure_keep)
        found = identical_map(
            codes.astype(np.int16),
            setting.channels,
            setting.keep,
            skip_zero_groups=scheme != "identical" and setting.channels == 1,
        )
        values = codes
    result = np.zeros(weight.shape, np.int64)
    for channel in range(inputs):
        for output, target in enumerate(found.target[of_group[channel]]):
            if target >= 0:
                k = float(found.exponent[of_group[channel], output])
                result[output, channel] = values[target, channel] * 256 * 2.0**k
    # Groups of zeros that the rule does not skip are dropped, where it would program zeros once.
    zero = [group for group in range(len(found.target)) if not codes[:, of_group == group].any()]
    zeros = sum(found.kept_count[group] > 0 for group in zero)
    size = len(weight)
    return result, (
        found.kept - zeros,
        found.reused - zeros * (size - 1),
        found.dropped + zeros * size,
    )


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "scheme", ["structured", "orc", "shape", "identical", "structured+identical", "similar"]
)
def test_every_scheme_does_what_its_rule_says(scheme, seed):
    for shape in [(20, 5, 3, 3), (20, 21, 1, 1)]:
        weight = random_weight(seed, shape)
        for setting in settings_of(scheme):
            mapping = map_layer(weight, 1, scheme, setting, 8)
            weight_q8, counts = expected_weights(scheme, weight, setting, 8)
            assert np.array_equal(mapping.weight_q8, weight_q8)
            assert (mapping.kept, mapping.reused, mapping.dropped) == counts


def permuted(scheme: str, weight: np.ndarray, setting: LayerSetting, order: np.ndarray) -> bool:
    """Whether permuting the outputs permutes the effective weights."""
    plain = map_layer(weight, 1, scheme, setting).weight_q8
    return np.array_equal(map_layer(weight[order], 1, scheme, setting).weight_q8, plain[order])


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_permuting_outputs_permutes_results(scheme, seed):
    # Codes of different norms in every group: there are no ties that the order would break.
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((10, 4, 3, 3)) * 0.2).astype(np.float32)
    weight *= 1.3 ** np.arange(10, dtype=np.float32)[:, None, None, None]
    order = rng.permutation(10)
    for setting in settings_of(scheme)[:2]:
        assert permuted(scheme, weight, setting, order)


def test_mutant_a_rule_that_depends_on_the_order_is_found(monkeypatch):
    def first_outputs(weight, keep):
        mask = np.zeros(weight.shape, np.uint8)
        mask[: int(len(weight) * keep)] = 1
        return mask

    monkeypatch.setattr("refmodel.compression.schemes.structured.structure_mask", first_outputs)
    weight = random_weight(0, (10, 4, 3, 3))
    setting = LayerSetting(scheme="structured", keep=0.5)
    assert not permuted("structured", weight, setting, np.arange(10)[::-1])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_of_8_bits_are_not_quantised_again(scheme):
    rng = np.random.default_rng(1)
    weight = rng.integers(-128, 60, (12, 6, 3, 3)).astype(np.int8)
    for setting in settings_of(scheme):
        mapping = map_layer(weight, 1, scheme, setting)
        assert np.array_equal(decode(mapping, weight.shape, 1), mapping.weight_q8)
        if scheme in ("dense", "structured", "orc", "shape"):
            assert np.array_equal(mapping.weight_q8, weight.astype(int) * 256 * mapping.mask)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_equal_patterns_and_zeros_survive_every_scheme(scheme):
    for weight in (np.full((9, 4, 3, 3), 0.5, np.float32), np.zeros((9, 4, 3, 3), np.float32)):
        for setting in settings_of(scheme):
            mapping = map_layer(weight, 1, scheme, setting)
            assert np.array_equal(decode(mapping, weight.shape, 1), mapping.weight_q8)
            assert set(np.unique(mapping.weight_q8)) <= {0, 127 * 256}


def test_an_orc_layer_by_hand():
    # Outputs keep int(2 * 2 * 0.75) = 3 weights; rows by position, then channel, in chunks of 2.
    weight = np.array([[[1, 4], [3, 2]], [[-4, -2], [1, 3]]], np.float32)[:, :, None, :]
    mapping = map_layer(weight, 1, "orc", LayerSetting(scheme="orc", keep=0.75), 2)
    assert [[shape.tolist() for shape in group.shapes] for group in mapping.groups] == [
        [[[0, 1], [1, 0]], [[0, 0], [1, 0]]],
        [[[1, 1]], [[1, 1]]],
    ]
    # rint(w * 127 / 4): 3 -> 95, 4 -> 127, 2 -> 64 (63.5 to even).
    assert [group.values.tolist() for group in mapping.groups] == [
        [[95, 127], [-127, -64]],
        [[64], [95]],
    ]
    assert mapping.identity
    assert mapping.groups[0].shape_of.tolist() == [0, 1]
    assert (mapping.kept, mapping.reused, mapping.dropped, mapping.ous_dense) == (4, 0, 0, 4)


def test_a_structured_layer_by_hand():
    # Channel sums 1 + 2, 3 + 4, 2 + 2: channels 1 and 2 stay, and fill one OU of 4 rows.
    weight = np.array([[[1, 2], [3, 4], [2, 2]]], np.float32)[:, :, None, :]
    mapping = map_layer(weight, 1, "structured", LayerSetting(scheme="structured", keep=0.7), 4)
    (group,) = mapping.groups
    assert group.shapes[0].tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert group.values.tolist() == [[95, 64, 127, 64]]
    assert (mapping.kept, mapping.ous_dense) == (1, 2)


def test_an_identical_layer_by_hand():
    weight = np.array([[127, 127], [127, 42], [0, 0]], np.float32)[:, :, None, None]
    setting = LayerSetting(scheme="identical", channels=2, keep=0.34)
    mapping = map_layer(weight, 1, "identical", setting)
    (group,) = mapping.groups
    slot, shift, sign = words_of(group)
    assert group.values.tolist() == [[127, 127]]
    assert slot.tolist() == [[0], [0], [-1]]
    assert not shift.any()
    assert sign.tolist() == [[1]] * 3
    assert mapping.weight_q8[1].reshape(-1).tolist() == [127 * 256] * 2


def test_patterns_without_shapes_have_all_rows_of_their_group():
    weight = random_weight(0, (8, 4, 3, 3))
    for scheme in ("identical", "similar"):
        setting = LayerSetting(scheme=scheme, channels=2, keep=0.5)
        mapping = map_layer(weight, 1, scheme, setting)
        assert {len(shape) for group in mapping.groups for shape in group.shapes} == {18}
        assert not mapping.full_offsets


def test_pruned_channels_are_on_no_shape():
    weight = random_weight(0, (8, 8, 1, 1))
    weight[:, [2, 5, 6]] *= 0.001
    setting = LayerSetting(
        scheme="structured+identical", channels=8, keep=0.5, structure_keep=0.625
    )
    (group,) = map_layer(weight, 1, "structured+identical", setting).groups
    assert group.shapes[0][:, 1].tolist() == [0, 1, 3, 4, 7]


def test_skipped_channels_are_not_counted():
    weight = random_weight(0, (8, 4, 3, 3))
    setting = LayerSetting(scheme="structured+identical", keep=0.5, structure_keep=0.5)
    mapping = map_layer(weight, 1, "structured+identical", setting)
    assert mapping.patterns == 2 * 8
    assert len(mapping.groups) == 2
    # The same without skipping: a group of zeros is dropped, not programmed.
    weight[:, 1] = 0
    mapping = map_layer(weight, 1, "identical", LayerSetting(scheme="identical", keep=0.5))
    assert mapping.patterns == 4 * 8
    assert [group.channel for group in mapping.groups] == [0, 2, 3]
    assert mapping.dropped >= 8


def test_either_part_of_structured_identical_may_be_left_out():
    weight = random_weight(0, (16, 4, 3, 3))
    name = "structured+identical"
    only = map_layer(weight, 1, name, LayerSetting(scheme=name, structure_keep=0.5))
    structured = map_layer(weight, 1, "structured", LayerSetting(scheme="structured", keep=0.5))
    assert only.scheme == "structured"
    assert np.array_equal(only.weight_q8, structured.weight_q8)
    only = map_layer(weight, 1, name, LayerSetting(scheme=name, keep=0.5))
    identical = map_layer(weight, 1, "identical", LayerSetting(scheme="identical", keep=0.5))
    assert np.array_equal(only.weight_q8, identical.weight_q8)


def test_fine_tuned_similar_weights_keep_their_patterns():
    weight = np.array([[127, -64], [127, -64], [3, 100], [1.5, 50]], np.float32)[:, :, None, None]
    setting = LayerSetting(scheme="similar", channels=2, keep=0.5)
    assert np.array_equal(map_layer(weight, 1, "similar", setting).weight_q8, weight * 256)


def test_a_ninth_scheme_is_one_function(monkeypatch):
    monkeypatch.setattr(registry, "_schemes", dict(registry._schemes))
    monkeypatch.setattr(registry, "SCHEMES", registry._schemes)

    @registry.register("ninth", lambda layer: LayerSetting())
    def map_ninth(weight, groups, setting, ou_rows):
        return registry.SCHEMES["dense"].map(weight, groups, setting, ou_rows)

    assert registry.SCHEMES["ninth"].map is map_ninth
    assert set(registry.SCHEMES) == {*SCHEMES, "ninth"}


@pytest.mark.parametrize("case", CASES[:11], ids=lambda case: f"{case[0]}-{case[1]}-{case[2].keep}")
def test_groups_are_in_form(case):
    shape, groups, setting = case
    mapping = map_layer(random_weight(0, shape), groups, "prap", setting)
    assert sum(group.kept for group in mapping.groups) == mapping.kept
    for group in mapping.groups:
        assert 0 <= group.channel < group.channel + group.channels <= shape[1] * groups
        assert group.outputs == shape[0] // groups
        words = words_of(group)
        assert all(part.shape == (group.outputs, 1) for part in words)
        assert tuple(part.dtype for part in words) == ("i4", "i1", "i1")
        assert (group.values.dtype, group.shape_of.dtype) == ("i1", "i4")
        assert group.values.shape[0] == group.kept
        assert (np.diff(group.shape_of) >= 0).all()
        assert set(group.shape_of.tolist()) == set(range(len(group.shapes)))
        assert words[0].max() == group.kept - 1
        for rows in group.shapes:
            assert rows.dtype == np.int32
            assert rows.tolist() == sorted(rows.tolist())
            assert rows[:, 1].max() < group.channels
    first = {group.first_output for group in mapping.groups}
    assert first == set(range(0, shape[0], shape[0] // groups))


def test_a_prap_layer_by_hand():
    # Largest code 32512 = 127 steps. Output 0: [127, -64]; output 1 is half of it, output 2 zero.
    weight = np.array([[127, -64], [63.5, -32], [0, 0]], np.float32)[:, :, None, None]
    mapping = map_layer(weight, 1, "prap", prap(2, 1, 0.34))
    (group,) = mapping.groups
    assert group.values.tolist() == [[127, -64]]
    assert group.shapes[0].tolist() == [[0, 0], [0, 1]]
    slot, shift, sign = words_of(group)
    assert slot.tolist() == [[0], [0], [-1]]
    assert shift.tolist() == [[0], [-1], [0]]
    assert sign.tolist() == [[1], [1], [1]]
    assert mapping.weight_q8[:, :, 0, 0].tolist() == [
        [127 * 256, -64 * 256],
        [127 * 128, -64 * 128],
        [0, 0],
    ]
    assert (mapping.kept, mapping.reused, mapping.dropped, mapping.ous_dense) == (1, 1, 1, 3)


def test_a_dense_layer_by_hand():
    # Rows by position, then channel: (0, 0), (0, 1), (0, 2), (1, 0), ... in chunks of 4.
    weight = np.arange(1, 13, dtype=np.float32).reshape(2, 3, 1, 2)
    mapping = map_layer(weight, 1, "dense", LayerSetting(), 4)
    assert mapping.identity
    assert mapping.full_offsets
    assert [group.kept for group in mapping.groups] == [2, 2]
    assert mapping.groups[0].shapes[0].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0]]
    assert mapping.groups[1].shapes[0].tolist() == [[1, 1], [1, 2]]
    # rint(w * 127 / 12) of weights 1, 3, 5, 2: 10.58, 31.75, 52.92, 21.17.
    assert mapping.groups[0].values[0].tolist() == [11, 32, 53, 21]
    assert np.array_equal(mapping.weight_q8, quantise(weight, DENSE_LEVELS).astype(int) * 256)
    assert (mapping.kept, mapping.patterns, mapping.ous_dense) == (4, 4, 4)


def test_channels_are_absolute_in_grouped_layers():
    mapping = map_layer(random_weight(0, (16, 3, 3, 3)), 2, "prap", prap(2, 4, 0.5))
    places = [(g.channel, g.channels, g.first_output, g.outputs) for g in mapping.groups]
    assert places == [(0, 2, 0, 8), (2, 1, 0, 8), (3, 2, 8, 8), (5, 1, 8, 8)]


def test_where_nothing_is_kept_one_group_stands_for_its_outputs():
    mapping = map_layer(random_weight(0, (8, 4, 3, 3)), 2, "prap", prap(1, 8, 0.1))
    assert [(g.channel, g.first_output, g.kept) for g in mapping.groups] == [(0, 0, 0), (4, 4, 0)]
    assert all((group.slot == -1).all() and not group.shapes for group in mapping.groups)
    assert mapping.dropped == mapping.patterns == 32
    assert not mapping.weight_q8.any()


def test_a_group_with_nothing_kept_is_absent():
    weight = random_weight(0, (8, 4, 3, 3))
    weight[:, 2:] = 0
    mapping = map_layer(weight, 1, "prap", prap(2, 4, 0.5))
    assert [group.channel for group in mapping.groups] == [0]


def test_whole_positions_need_no_full_offsets():
    assert not map_layer(random_weight(0, (8, 4, 3, 3)), 1, "prap", prap(2, 4, 0.5)).full_offsets
    assert not map_layer(random_weight(0, (8, 12, 1, 1)), 1, "prap", prap(8, 1, 0.5)).full_offsets
    assert map_layer(random_weight(0, (8, 12, 1, 1)), 1, "prap", prap(12, 1, 0.5)).full_offsets


def test_weights_that_lie_on_patterns_keep_them():
    # Two patterns and their users. Rule 7 would keep [127, -64] twice and lose [3, 100].
    weight = np.array([[127, -64], [127, -64], [3, 100], [1.5, 50]], np.float32)[:, :, None, None]
    found = map_layer(weight, 1, "prap", prap(2, 1, 0.5))
    assert np.array_equal(found.weight_q8, weight * 256)
    assert words_of(found.groups[0])[0].tolist() == [[0], [0], [1], [1]]
    assert found.groups[0].values.tolist() == [[127, -64], [3, 100]]
    chosen = map_layer(weight, 1, "prap", prap(2, 1, 0.5, recover=False))
    assert chosen.groups[0].values.tolist() == [[127, -64], [127, -64]]


@pytest.mark.parametrize(
    ("scheme", "setting"),
    [
        ("dense", prap(2, 4, 0.5)),
        ("prap", LayerSetting()),
        ("prap", prap(2, 4, 1.0)),
        ("prap", prap(2, 4, 1)),
    ],
    ids=["network", "layer", "keep-all", "keep-all-integer"],
)
def test_dense_wins_over_prap(scheme, setting):
    assert map_layer(random_weight(0, (8, 4, 3, 3)), 1, scheme, setting).scheme == "dense"


def test_without_a_setting_the_default_holds():
    weight = random_weight(0, (16, 4, 3, 3))
    default = map_layer(weight, 1, "prap", default_setting(weight))
    assert np.array_equal(map_layer(weight, 1, "prap").weight_q8, default.weight_q8)
    assert map_layer(weight, 1, "dense").scheme == "dense"


def wrong(**changes):
    """A pattern-group builder that gets one field of the first non-trivial group wrong."""
    original = build.pattern_groups

    def wronged(*args, **kwargs):
        groups = original(*args, **kwargs)
        for name, change in changes.items():
            object.__setattr__(groups[0], name, change(getattr(groups[0], name)))
        return groups

    return wronged


@pytest.mark.parametrize(
    "changes",
    [
        {"shift": lambda shift: shift - 1},
        {"sign": lambda sign: -sign},
        {"slot": lambda slot: np.roll(slot, 1)},
        {"values": lambda values: values[:, ::-1]},
        {"channel": lambda channel: channel + 1},
        {"shapes": lambda shapes: shapes[::-1]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_mutant_words_and_patterns_are_found(monkeypatch, changes):
    weight = random_weight(0, (16, 4, 3, 3))
    monkeypatch.setattr(build, "pattern_groups", wrong(**changes))
    mapping = map_layer(weight, 1, "prap", prap(2, 4, 0.5))
    assert not np.array_equal(decode(mapping, weight.shape, 1), mapping.weight_q8)


# published/networks.json, "shape_and_value_similar" of Vgg16 and Res50: one row for every
# combination of sizes, without the two deviating shortcuts that default_setting names:
# (out, in, kernel, fully connected, C_g, V, keep).
PUBLISHED = [
    (64, 64, 3, False, 1, 8, 0.75),
    (128, 64, 3, False, 1, 8, 0.5),
    (128, 128, 3, False, 2, 4, 0.5),
    (256, 128, 3, False, 2, 4, 0.25),
    (256, 256, 3, False, 2, 4, 0.25),
    (512, 256, 3, False, 2, 4, 0.125),
    (512, 512, 3, False, 4, 2, 0.125),
    (4096, 512, 1, True, 32, 1, 0.03125),
    (4096, 4096, 1, True, 32, 1, 0.03125),
    (64, 64, 1, False, 8, 1, 0.75),
    (256, 64, 1, False, 8, 1, 0.25),
    (64, 256, 1, False, 8, 1, 0.75),
    (128, 256, 1, False, 8, 1, 0.5),
    (512, 128, 1, False, 8, 1, 0.125),
    (128, 512, 1, False, 16, 1, 0.5),
    (256, 512, 1, False, 16, 1, 0.25),
    (1024, 256, 1, False, 8, 1, 0.0625),
    (256, 1024, 1, False, 16, 1, 0.25),
    (512, 1024, 1, False, 16, 1, 0.125),
    (2048, 512, 1, False, 16, 1, 0.03125),
    (512, 2048, 1, False, 16, 1, 0.125),
    (512, 256, 1, False, 8, 1, 0.125),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=str)
def test_default_settings_are_the_published_ones(row):
    outputs, inputs, kernel, connected, channels, positions, keep = row
    found = default_setting((outputs, inputs, kernel, kernel), fully_connected=connected)
    assert found == prap(channels, positions, keep)


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((16, 1, 3, 3), {"first": True}, LayerSetting()),
        ((10, 256, 1, 1), {"last": True}, LayerSetting()),
        ((32, 16, 3, 3), {"scheme": "dense"}, LayerSetting()),
        ((32, 1, 3, 3), {"groups": 32}, LayerSetting()),
        ((7, 16, 3, 3), {}, LayerSetting()),
        ((16, 16, 3, 3), {}, prap(1, 8, 0.75)),
        ((32, 16, 3, 3), {}, prap(1, 8, 0.75)),
        ((64, 8, 3, 3), {"groups": 2}, prap(1, 8, 0.75)),
        ((120, 256, 1, 1), {"fully_connected": True}, prap(8, 1, 64 / 120)),
        ((64, 64, 3, 3), {"ou_rows": 9}, prap(1, 9, 0.75)),
        ((512, 512, 3, 3), {"ou_rows": 4}, prap(4, 1, 0.125)),
        ((64, 64, 1, 1), {"ou_rows": 16}, prap(16, 1, 0.75)),
    ],
    ids=str,
)
def test_default_settings_elsewhere(shape, options, expected):
    assert default_setting(shape, **options) == expected
    assert default_setting(np.zeros(shape, np.float32), **options) == expected


@pytest.mark.parametrize(
    ("scheme", "shape", "connected", "fields"),
    [
        # published/networks.json: (out, in, kernel) of VGG16 and, for 1x1 convolutions, ResNet50.
        ("structured", (64, 64, 3), False, {"keep": 0.65}),
        ("structured", (512, 512, 3), False, {"keep": 0.65}),
        ("structured", (4096, 512, 1), True, {"keep": 0.25}),
        ("structured", (256, 64, 1), False, {"keep": 0.75}),
        ("orc", (64, 64, 3), False, {"keep": 0.2}),
        ("orc", (4096, 4096, 1), True, {"keep": 0.05}),
        ("orc", (256, 64, 1), False, {"keep": 0.2}),
        ("shape", (64, 64, 3), False, {"channels": 1, "positions": 8, "keep": 8 / 9}),
        ("shape", (256, 128, 3), False, {"channels": 2, "positions": 4, "keep": 4 / 9}),
        ("shape", (512, 512, 3), False, {"channels": 4, "positions": 2, "keep": 2 / 9}),
        ("shape", (4096, 4096, 1), True, {"channels": 32, "positions": 1, "keep": 0.25}),
        ("shape", (512, 1024, 1), False, {"channels": 16, "positions": 1, "keep": 0.5}),
        ("shape", (256, 64, 1), False, {"channels": 8, "positions": 1, "keep": 1.0}),
        ("identical", (64, 64, 3), False, {"channels": 1, "keep": 0.75}),
        ("identical", (256, 256, 3), False, {"channels": 1, "keep": 0.75}),
        ("identical", (512, 256, 3), False, {"channels": 1, "keep": 0.5}),
        ("identical", (4096, 512, 1), True, {"channels": 8, "keep": 0.75}),
        ("structured+identical", (128, 64, 3), False,
         {"channels": 1, "keep": 0.75, "structure_keep": 0.65}),
        ("structured+identical", (4096, 512, 1), True,
         {"channels": 8, "keep": 0.75, "structure_keep": 0.25}),
        ("similar", (64, 64, 3), False, {"channels": 1, "keep": 0.75}),
        ("similar", (512, 512, 3), False, {"channels": 1, "keep": 0.125}),
        ("similar", (4096, 4096, 1), True, {"channels": 8, "keep": 0.03125}),
    ],
    ids=str,
)  # fmt: skip
def test_default_settings_of_every_scheme_are_published_ones(scheme, shape, connected, fields):
    found = default_setting((*shape, shape[2]), scheme=scheme, fully_connected=connected)
    assert found == LayerSetting(scheme=scheme, **fields)


@pytest.mark.parametrize(
    ("scheme", "shape", "options", "kept"),
    [
        # int(1 * 0.65) and int(1 * 0.75) channels are none, int(2 * 0.65) is one.
        ("structured", (16, 1, 3, 3), {}, False),
        ("structured", (16, 1, 1, 1), {}, False),
        ("structured", (16, 2, 3, 3), {}, True),
        ("structured+identical", (16, 1, 3, 3), {}, False),
        ("structured+identical", (16, 2, 1, 1), {}, True),
        # int(4 * 0.2) weights of an output are none, int(5 * 0.2) and int(9 * 0.2) one.
        ("orc", (16, 4, 1, 1), {}, False),
        ("orc", (16, 5, 1, 1), {}, True),
        ("orc", (16, 1, 3, 3), {}, True),
    ],
    ids=str,
)
def test_no_default_leaves_a_layer_empty(scheme, shape, options, kept):
    setting = default_setting(shape, scheme=scheme, **options)
    assert setting.scheme == (scheme if kept else "dense")
    assert map_layer(random_weight(0, shape), 1, scheme, setting).weight_q8.any()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ou_rows", [4, 8, 9])
def test_no_default_has_patterns_that_no_engine_adds_up(scheme, ou_rows):
    # 16 OUs to a pattern, so 64 rows at most of R = 4, 128 of 8 and 144 of 9.
    for kernel in (1, 3, 5, 7, 8, 9, 11, 12, 13):
        shape = (16, 2, kernel, kernel)
        setting = default_setting(shape, scheme=scheme, ou_rows=ou_rows)
        mapping = map_layer(random_weight(0, shape), 1, scheme, setting, ou_rows)
        rows = max(len(rows) for group in mapping.groups for rows in group.shapes)
        assert rows <= 16 * ou_rows
        if scheme in ("identical", "similar", "structured+identical"):
            whole = kernel * kernel <= 16 * ou_rows
            assert setting.scheme == (scheme if whole else "dense")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_first_and_last_layers_are_dense_under_every_scheme(scheme):
    found = network_settings(NETWORK, scheme)
    assert [found[name] for name in ("conv1", "fc")] == [LayerSetting(), LayerSetting()]
    assert {found[name].scheme for name in ("block/conv2", "block/conv3", "hidden")} == {scheme}


@dataclass
class Layer:
    """A layer as network_settings sees it."""

    name: str
    weight: np.ndarray
    groups: int = 1
    in_shape: tuple[int, int, int] = (8, 8, 16)


NETWORK = [
    Layer("conv1", np.zeros((16, 1, 3, 3), np.float32)),
    Layer("block/conv2", np.zeros((32, 16, 3, 3), np.float32)),
    Layer("block/conv3", np.zeros((64, 32, 3, 3), np.float32)),
    Layer("hidden", np.zeros((128, 512, 1, 1), np.float32), in_shape=(1, 1, 512)),
    Layer("fc", np.zeros((10, 128, 1, 1), np.float32), in_shape=(1, 1, 128)),
]


def test_every_layer_of_a_network_gets_a_setting():
    assert network_settings(NETWORK, "prap") == {
        "conv1": LayerSetting(),
        "block/conv2": prap(1, 8, 0.75),
        "block/conv3": prap(1, 8, 0.75),
        "hidden": prap(32, 1, 0.5),
        "fc": LayerSetting(),
    }
    assert set(network_settings(NETWORK, "dense").values()) == {LayerSetting()}


def test_the_first_name_pattern_that_matches_holds():
    chosen = {"*conv3": prap(4, 2, 0.25), "block/*": prap(2, 4, 0.5), "fc": prap(8, 1, 0.5)}
    found = network_settings(NETWORK, "prap", chosen)
    assert found["block/conv2"] == prap(2, 4, 0.5)
    assert found["block/conv3"] == prap(4, 2, 0.25)
    assert found["conv1"] == LayerSetting()
    assert found["fc"] == prap(8, 1, 0.5)


def test_a_name_pattern_that_matches_nothing_is_refused():
    message = r"expected a layer that matches 'Conv\*', found only conv1, block/conv2, "
    with pytest.raises(InputError, match=message):
        network_settings(NETWORK, "prap", {"Conv*": prap(1, 8, 0.5)})


@pytest.mark.parametrize(
    ("error", "message", "fields"),
    [
        (ValueError, f"scheme must be one of {NAMES}, not 'org'", {"scheme": "org"}),
        (ValueError, "channels must be 1 to 4096, not 0", {"channels": 0}),
        (TypeError, "channels must be an integer, not 1.0", {"channels": 1.0}),
        (ValueError, "positions must be 1 to 4096, not 5000", {"positions": 5000}),
        (TypeError, "positions must be an integer, not True", {"positions": True}),
        (ValueError, "keep must be 0 to 1, not nan", {"keep": float("nan")}),
        (ValueError, "keep must be 0 to 1, not -0.5", {"keep": -0.5}),
        (TypeError, "keep must be a number, not '1'", {"keep": "1"}),
        (ValueError, "structure_keep must be 0 to 1, not 2", {"structure_keep": 2}),
        (TypeError, "recover must be a bool, not 1", {"recover": 1}),
    ],
    ids=str,
)
def test_bad_settings_are_refused(error, message, fields):
    with pytest.raises(error) as caught:
        LayerSetting(**fields)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (f"scheme must be one of {NAMES}, not 'org'", (1, "org", LayerSetting(), 8)),
        ("groups must divide 8 outputs, not 3", (3, "prap", LayerSetting(), 8)),
        ("groups must divide 8 outputs, not 0", (0, "prap", LayerSetting(), 8)),
        ("ou_rows must be at least 1, not 0", (1, "prap", LayerSetting(), 0)),
    ],
    ids=str,
)
def test_bad_layers_are_refused(message, arguments):
    with pytest.raises(ValueError, match="must") as caught:
        map_layer(np.ones((8, 4, 3, 3), np.float32), *arguments)
    assert str(caught.value) == message


def test_a_setting_of_another_scheme_is_refused(monkeypatch):
    monkeypatch.setitem(registry._schemes, "other", registry.SCHEMES["dense"])
    message = "setting must be for the scheme 'other', not 'prap'"
    with pytest.raises(ValueError, match=message):
        map_layer(np.ones((8, 4, 3, 3), np.float32), 1, "other", prap(1, 8, 0.5))


def test_default_setting_wants_a_scheme_that_there_is():
    with pytest.raises(ValueError, match=r"scheme must be one of dense, .*, not 'org'"):
        default_setting((8, 4, 3, 3), scheme="org")


def test_default_setting_wants_four_dimensions():
    message = r"weight must have the shape \[out, in, kh, kw\], not \(8, 4\)"
    with pytest.raises(ValueError, match=message):
        default_setting((8, 4))


def test_a_shift_that_no_word_holds_is_refused():
    # 360 rows: y = [128 + 2, 128, ...] rounds to one step, x is in one row; 2^7 = 128 steps.
    weight = np.full((2, 400, 1, 1), 128, np.float32)
    weight[0, 0] = 130
    weight[1] = 0
    weight[1, 0] = 32512
    with pytest.raises(InputError, match="expected shifts of at most 6, found 7 in a layer with"):
        map_layer(weight, 1, "prap", prap(400, 1, 0.5), 400)


@pytest.mark.parametrize("scheme", ["similar", "prap"])
@pytest.mark.parametrize("seed", SEEDS)
def test_signed_scales_are_never_worse_and_decode(scheme, seed):
    weight = random_weight(seed, (16, 5, 3, 3))
    setting = LayerSetting(scheme=scheme, keep=0.3, recover=False)
    plain = map_layer(weight, 1, scheme, setting)
    signed = map_layer(weight, 1, scheme, replace(setting, signed=True))
    assert np.array_equal(decode(signed, weight.shape, 1), signed.weight_q8)
    assert any((words_of(group)[2] < 0).any() for group in signed.groups)
    assert not any((words_of(group)[2] < 0).any() for group in plain.groups)
    assert (signed.kept, signed.ous_dense) == (plain.kept, plain.ous_dense)
    assert signed.dropped <= plain.dropped
    if scheme == "similar":
        codes = quantise(weight, SIMILAR_LEVELS)
        wrong = [np.abs(found.weight_q8 - codes).sum() for found in (signed, plain)]
        assert wrong[0] < wrong[1]


def test_a_signed_reuse_by_hand():
    # Output 1 is -1/2 of output 0; unsigned it is nearer to zero than to any multiple of it.
    weight = np.array([[127, 64], [-63.5, -32]], np.float32)[:, :, None, None]
    setting = LayerSetting(scheme="similar", channels=2, keep=0.5, recover=False)
    plain = map_layer(weight, 1, "similar", setting)
    signed = map_layer(weight, 1, "similar", replace(setting, signed=True))
    assert plain.weight_q8[1].reshape(-1).tolist() == [0, 0]
    assert signed.weight_q8[1].reshape(-1).tolist() == [-127 * 128, -64 * 128]
