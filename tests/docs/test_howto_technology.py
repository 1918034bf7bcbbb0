"""The page on adding a technology: its blocks run and print what it says.

``python -m tests.docs.test_howto_technology`` writes what they print into the page.
"""

from tests.support import ROOT, pages


def test_every_block_prints_what_the_page_says() -> None:
    assert pages.check(ROOT / "docs" / "howto" / "add-a-technology.md") == 5


if __name__ == "__main__":
    pages.write(ROOT / "docs" / "howto" / "add-a-technology.md")
