"""Functional coverage of the random campaign: what is counted, and which holes are named."""

from collections import Counter
from dataclasses import replace

import pytest

from refmodel.config import EngineConfig
from tests.campaign import coverage
from tests.campaign.draw import draw, draw_device


@pytest.fixture(scope="module")
def drawn():
    return [draw(3, number, 6) for number in range(4)]


def test_every_value_that_is_drawn_is_one_of_the_table(drawn):
    wanted = {**coverage.ENGINE, **coverage.LAYER, **coverage.DEVICE, **coverage.RUN}
    for number, (config, items) in enumerate(drawn):
        found = coverage.count(config, items, draw_device(3, number), ["unit"])
        single = {key: count for key, count in found.items() if " * " not in key}
        for key in single:
            name, _, value = key.partition("=")
            assert value in wanted[name], key
        names = Counter(key.partition("=")[0] for key in single for _ in range(single[key]))
        for name in wanted:
            assert names[name] == (len(items) if name in {**coverage.LAYER, "run": 0} else 1), name


def test_holes_are_named_until_they_are_drawn(drawn):
    counts: Counter[str] = Counter()
    before = coverage.holes(counts)
    for config, items in drawn:
        counts.update(coverage.count(config, items, None, coverage.RUN["run"]))
        assert coverage.holes(counts) < before
        before = coverage.holes(counts)
    (row,) = [row for row in coverage.table(counts) if row.startswith("| variation_on |")]
    assert row == "| variation_on |  | 0, above 0 |"
    lanes = {config.merge_lanes for config, _ in drawn}
    (row,) = [row for row in coverage.table(counts) if row.startswith("| merge lanes |")]
    never = [str(each) for each in (1, 2, 4) if each not in lanes]
    assert row.endswith(f"| {', '.join(never) or '-'} |")
    rows = coverage.table({})
    assert (
        f"| scheme * run | 0 of {4 * len(coverage.LAYER['scheme'])} | any with unit, "
        in "".join(rows)
    )


@pytest.mark.parametrize(
    ("sizes", "value"),
    [
        ({"adcs": 1}, "one"),
        ({"adcs": 4}, "several requests a weight"),
        ({"adcs": 4, "cell_bits": 4}, "several weights a request"),
        ({"adcs": 3}, "uneven"),
    ],
)
def test_converters_are_told_apart(drawn, sizes, value):
    config = replace(EngineConfig(), **sizes)
    found = coverage.engine_values(config, [item.layer for item in drawn[0][1]])
    assert found["converters"] == value
