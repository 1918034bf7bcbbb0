"""The tutorial runs, block by block, and prints what its page says.

``python -m tests.docs.test_tutorial`` writes what it prints into the page.
"""

import pytest

from tests.support import ROOT, pages

PAGE = ROOT / "docs" / "tutorial.md"


def test_every_block_runs_and_prints_what_the_page_says():
    assert pages.check(PAGE) >= 8


def test_a_block_that_prints_something_else_is_told_apart():
    assert pages.run("print(1)", {}, PAGE) != "2\n"
    with pytest.raises(ZeroDivisionError):
        pages.run("1 / 0", {}, PAGE)


if __name__ == "__main__":
    pages.write(PAGE)
