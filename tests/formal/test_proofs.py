"""Every row of `make formal` is proved, and its mutants are rejected."""

import pytest

from tests.formal.__main__ import rejected, verdict
from tests.formal.table import ROWS


@pytest.mark.long
@pytest.mark.parametrize("row", ROWS, ids=[f"{row.module}: {row.what}" for row in ROWS])
def test_the_row_is_proved_and_its_mutants_are_rejected(row):
    done = verdict(row)
    assert done.holds, done.text
    assert done.proved == row.proved, done.text
    assert row.mutants
    assert all(found for _, found in rejected(row)), rejected(row)


def test_a_property_of_a_component_has_one_row():
    rows = [(row.module, row.what) for row in ROWS]
    assert len(rows) == len(set(rows))
