"""A mapped layer as a list of values and entries."""

import numpy as np
import pytest

from refmodel.compression.reuse import DENSE_LEVELS, SIMILAR_LEVELS, quantise
from refmodel.compression.schemes import SCHEMES
from refmodel.compression.schemes.base import eight_bit
from tests.support.nets.train_cases import SETTINGS, SHAPES, by_hand, mapped

pytest.importorskip("torch", reason="PyTorch is not installed: make test installs it")

from refmodel.train.patterns import PatternTable


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
