"""The tutorial runs, block by block, and prints what its page says.

``python -m tests.docs.test_tutorial`` writes what it prints into the page.
"""

import contextlib
import io
import re
from typing import Any

import pytest

from tests.support import ROOT

PAGE = ROOT / "docs" / "tutorial.md"

BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<said>.*?)```\n)?", re.DOTALL)


def run(code: str, names: dict[str, Any], line: int) -> str:
    """Run a block; a traceback has the lines of the page."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile("\n" * line + code, str(PAGE), "exec"), names)
    return "".join(f"{line.rstrip()}\n" for line in said.getvalue().splitlines())


def test_every_block_runs_and_prints_what_the_page_says():
    text = PAGE.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "tutorial"}
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == text.count("```python") >= 8
    for block in blocks:
        line = text[: block.start("code")].count("\n")
        assert run(block["code"], names, line) == (block["said"] or ""), f"{PAGE}, line {line}"


def test_a_block_that_prints_something_else_is_told_apart():
    assert run("print(1)", {}, 0) != "2\n"
    with pytest.raises(ZeroDivisionError):
        run("1 / 0", {}, 0)


def write() -> None:
    """Put what the blocks print into the page."""
    names: dict[str, Any] = {"__name__": "tutorial"}

    def said(block: re.Match[str]) -> str:
        printed = run(block["code"], names, 0)
        shown = f"\n```text\n{printed}```\n" if printed else ""
        return f"```python\n{block['code']}```\n{shown}"

    text = BLOCK.sub(said, PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
