"""A mapped layer as a list of values and entries."""

import numpy as np
import pytest

from refmodel.compress.reuse import DENSE_LEVELS, SIMILAR_LEVELS, quantise
from refmodel.compress.schemes import SCHEMES, LayerMapping, LayerSetting, PatternGroup, map_layer
from refmodel.compress.schemes.base import eight_bit
from tests.support.onnx_nets import floats

pytest.importorskip("torch", reason="PyTorch is not installed: make test installs it")

from refmodel.train.patterns import PatternTable

SETTINGS = {
    "structured": LayerSetting(scheme="structured", keep=0.6),
    "orc": LayerSetting(scheme="orc", keep=0.3),
    "shape": LayerSetting(scheme="shape", channels=2, positions=4, keep=0.5),
    "identical": LayerSetting(scheme="identical", channels=1, keep=0.5),
    "structured+identical": LayerSetting(
        scheme="structured+identical", keep=0.5, structure_keep=0.6
    ),
    "similar": LayerSetting(scheme="similar", channels=1, keep=0.4),
    "prap": LayerSetting(scheme="prap", channels=2, positions=4, keep=0.4),
    "dictionary": LayerSetting(scheme="dictionary", channels=1, patterns=4, terms=3),
}
SHAPES = [(16, 6, 3, 3, 1), (16, 3, 3, 3, 2), (12, 20, 1, 1, 1)]


def mapped(scheme: str, shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, LayerMapping]:
    """Weights of a shape (out, in, kh, kw, groups), and their mapping."""
    weight = floats(seed, *shape[:4])
    return weight, map_layer(weight, shape[4], scheme, SETTINGS[scheme])


def by_hand() -> LayerMapping:
    """Two outputs on a kernel of one position and two channels.

    Patterns [3, -5] and [7]; the second on channel 1 alone. Output 0 is pattern 0 times 1/2 less
    pattern 1 times 4: [1.5, -2.5 - 28] = [1.5, -30.5]; output 1 is pattern 1: [0, 7].
    """
    group = PatternGroup(
        channel=0,
        channels=2,
        first_output=0,
        outputs=2,
        shapes=(np.array([[0, 0], [0, 1]], np.int32), np.array([[0, 1]], np.int32)),
        shape_of=np.array([0, 1], np.int32),
        values=np.array([[3, -5], [7, 0]], np.int8),
        slot=np.array([[0, 1], [1, -1]], np.int32),
        shift=np.array([[-1, 2], [0, 0]], np.int8),
        sign=np.array([[1, -1], [1, 1]], np.int8),
    )
    return LayerMapping(
        scheme="dictionary",
        terms=2,
        identity=False,
        full_offsets=True,
        groups=(group,),
        weight_q8=np.array([[384, -7808], [0, 1792]]).reshape(2, 2, 1, 1),
        kept=2,
        reused=0,
        dropped=0,
        ous_dense=2,
    )


def test_entries_by_hand():
    table = PatternTable.of(by_hand())
    assert table.values.tolist() == [3, -5, 7]
    entries = sorted(zip(table.element, table.value, table.factor, strict=True))
    assert entries == [(0, 0, 0.5), (1, 1, 0.5), (1, 2, -4), (3, 2, 1)]
    # Squares of the factors of each value: 1/4; 1/4; 16 + 1.
    assert table.users.tolist() == [0.25, 0.25, 17]


def test_other_values_by_hand():
    table = PatternTable.of(by_hand())
    found = table.with_values(np.array([2, 4, -1], np.int8))
    # Output 0: [2/2, 4/2 + 4]; output 1: [0, -1].
    assert (found.weight_q8.ravel() / 256).tolist() == [1, 6, 0, -1]
    assert found.groups[0].values.tolist() == [[2, 4], [-1, 0]]


def test_a_mapping_with_other_weights_than_its_groups_is_refused():
    mapping = by_hand()
    mapping.weight_q8[0, 0] += 1
    with pytest.raises(ValueError, match="must have the weights of its groups"):
        PatternTable.of(mapping)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scheme", SETTINGS)
def test_values_give_the_weights_of_the_mapping(scheme, shape):
    _, mapping = mapped(scheme, shape)
    table = PatternTable.of(mapping)
    assert (table.decode(table.values) == mapping.weight_q8).all()
    again = table.with_values(table.values)
    assert (again.weight_q8 == mapping.weight_q8).all()
    for new, old in zip(again.groups, mapping.groups, strict=True):
        assert (new.values == old.values).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scheme", sorted(set(SETTINGS) - {"dictionary"}))
def test_every_value_comes_from_the_weight_that_is_said(scheme, shape):
    weight, mapping = mapped(scheme, shape)
    table = PatternTable.of(mapping)
    sources = table.sources()
    assert sources is not None
    fine = scheme in ("similar", "prap")
    codes = quantise(weight, SIMILAR_LEVELS if fine else DENSE_LEVELS)
    steps = eight_bit(codes) if fine else codes
    assert (steps.ravel()[sources] == table.values).all()


def test_a_dictionary_has_no_sources():
    assert PatternTable.of(mapped("dictionary", SHAPES[0])[1]).sources() is None


def test_all_schemes_but_dense_are_here():
    assert {*SETTINGS, "dense"} == set(SCHEMES)
