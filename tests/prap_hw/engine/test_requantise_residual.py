"""Requantise with a residual operand: one rounding, and an operand that may come late."""

import numpy as np
import pytest

from refmodel import golden
from tests.support.rtl.residuals import check_codes_match_the_golden_model, drawn, layer_of, run


@pytest.mark.parametrize("seed", range(16))
def test_codes_match_the_golden_model(seed):
    check_codes_match_the_golden_model(seed)


@pytest.mark.parametrize("seed", range(3))
def test_an_operand_that_comes_late_is_waited_for(seed):
    layer, sums, codes = drawn(seed + 2)
    found, *_ = run(layer, sums, codes, late=0.6, stall=0.4, seed=seed, gap=60)
    assert (found == golden.output_codes(layer, sums, codes)).all()


def test_a_layer_without_a_residual_takes_none():
    rng = np.random.default_rng(0)
    layer = layer_of(rng, 6, {})
    sums = rng.integers(-(1 << 20), 1 << 20, (2, 6))
    found, _, operand, _ = run(layer, sums, np.zeros(0, np.uint8))
    assert (found == golden.output_codes(layer, sums)).all()
    assert operand.sent == []
