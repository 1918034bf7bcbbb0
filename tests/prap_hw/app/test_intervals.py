"""Confidence intervals against printed tables of Student's distribution."""

import pytest

from prap_hw.app.intervals import half_width, quantile


@pytest.mark.parametrize(
    ("freedom", "confidence", "expected"),
    [(1, 0.95, 12.706), (2, 0.95, 4.303), (4, 0.95, 2.776), (19, 0.95, 2.093), (100, 0.95, 1.984),
     (4, 0.99, 4.604)],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(freedom: int, confidence: float, expected: float):
    assert quantile(freedom, confidence) == pytest.approx(expected, abs=6e-4)


def test_half_of_an_interval_by_hand():
    # Mean 2, standard deviation 1, three values: 4.303 / sqrt(3).
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / 3**0.5, abs=1e-3)
    assert half_width([1.0]) is None
    assert half_width([0.5] * 4) == 0
    with pytest.raises(ValueError, match="freedom must be at least 1, not 0"):
        quantile(0)
