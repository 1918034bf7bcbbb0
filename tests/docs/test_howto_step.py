"""The page on adding a step: its blocks run, and a step that is lowered wrongly shows.

``python -m tests.docs.test_howto_step`` writes what they print into the page.
"""

import pytest

from refmodel.program.steps import STEPS, base
from tests.support import ROOT, pages

PAGE = ROOT / "docs" / "howto" / "add-a-step.md"


@pytest.fixture
def example():
    """Take back what the page registers."""
    assert "negate" not in STEPS, "the page needs a step that there is not yet"
    yield
    base._steps.pop("negate", None)


def test_every_block_runs_and_prints_what_the_page_says(example):
    assert pages.check(PAGE) == 3
    assert "negate" in STEPS


def test_a_step_that_the_accelerator_does_otherwise_is_told_apart(example, tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(text.replace("Read(multiplier=-1)", "Read(multiplier=1)"))
    with pytest.raises(AssertionError, match="False"):
        pages.check(page)


if __name__ == "__main__":
    pages.write(PAGE)
