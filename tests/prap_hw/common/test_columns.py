"""Where bitlines of patterns lie: by hand, and against plain loops over the columns."""

import itertools

import pytest

from prap_hw.common.columns import Columns
from refmodel.config import EngineConfig


def columns(**sizes) -> Columns:
    return Columns(EngineConfig(**sizes))


def test_one_pattern_to_an_ou_and_an_answer():
    found = columns()
    assert (found.phases, found.chunks, found.pieces, found.ends) == ((0,), 1, 1, 1)
    assert found.narrow
    assert (found.lane(0, 0), found.align(0, 0), found.ended(0, 0)) == (0, 0, 1)


def test_a_pattern_that_goes_on_in_the_next_ou():
    # Twelve bitlines, eight to a pattern: OUs hold patterns 0 and half of 1, the rest of 1 and 2.
    # Eight converters: columns 0 to 7 and 8 to 11 of each OU.
    found = columns(ou_cols=12)
    assert (found.phases, found.chunks, found.pieces, found.ends) == ((0, 4), 2, 2, 1)
    assert found.alignments == ((0, 4), (0, 8), (4, 4), (4, 8))
    assert not found.narrow
    assert [found.lane(*p) for p in ((0, 0), (0, 1), (4, 0), (4, 1))] == [0, 1, 0, 1]
    assert [found.align(*p) for p in ((0, 0), (0, 1), (4, 0), (4, 1))] == [0, 0, 4, 4]
    assert [found.ended(*p) for p in ((0, 0), (0, 1), (4, 0), (4, 1))] == [1, 0, 1, 1]
    # One pattern in the OU: one answer; one that began before and one of its own: two.
    assert [found.last_chunk(0, n) for n in (1, 2)] == [0, 1]
    assert [found.last_chunk(4, n) for n in (1, 2)] == [0, 1]


def test_three_converters_over_patterns_of_four_columns():
    # Eight bitlines: columns 0 to 2, 3 to 5 (pattern 0 ends in 3), 6 and 7 (pattern 1 ends).
    found = columns(cell_bits=2, adcs=3)
    assert (found.phases, found.chunks, found.pieces, found.ends) == ((0,), 3, 2, 1)
    assert found.alignments == ((0, 3), (2, 3), (3, 3))
    assert [found.lane(0, c) for c in range(3)] == [0, 0, 1]
    assert [found.ended(0, c) for c in range(3)] == [0, 1, 1]
    assert [found.last_chunk(0, n) for n in (1, 2)] == [1, 2]


def test_many_patterns_end_with_one_answer():
    assert columns(ou_cols=32, cell_bits=4, adcs=32).ends == 16
    assert columns(ou_cols=32, cell_bits=2, adcs=16).ends == 4
    assert columns(ou_cols=32, adcs=8).ends == 1


@pytest.mark.parametrize("cell_bits", [1, 2, 4])
@pytest.mark.parametrize("cols", range(4, 33, 4))
def test_every_answer_is_as_its_columns_are(cell_bits, cols):
    width = 8 // cell_bits
    for adcs in range(1, cols + 1):
        found = columns(ou_cols=cols, cell_bits=cell_bits, adcs=adcs)
        phases = {ou * cols % width for ou in range(width)}
        assert found.phases == tuple(sorted(phases))
        pieces, ends, narrow = 0, 0, width % adcs == 0
        for phase, chunk in itertools.product(phases, range(-(-cols // adcs))):
            # Columns counted from where the OU's first pattern begins.
            mine = [phase + c for c in range(chunk * adcs, min(cols, (chunk + 1) * adcs))]
            touched = sorted({c // width for c in mine})
            ended = [c for c in mine if c % width == width - 1]
            assert found.lane(phase, chunk) == touched[0]
            assert found.align(phase, chunk) == mine[0] % width
            assert found.ended(phase, chunk) == len(ended)
            counting = len(mine) if len(phases) > 1 else adcs
            assert found.alignment(phase, chunk) == (mine[0] % width, counting)
            pieces, ends = max(pieces, len(touched)), max(ends, len(ended))
            narrow &= len(touched) == 1 and mine[0] % adcs == 0
        assert (found.pieces, found.ends) == (pieces, ends)
        assert found.narrow == narrow
