"""Pages of the documentation whose blocks of Python run, and print what the page says."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<said>.*?)```\n)?", re.DOTALL)
"""A block of Python, and what it prints where a block of text follows at once."""


def run(code: str, names: dict[str, Any], page: Path, line: int = 0) -> str:
    """Run a block and return what it prints; a traceback has the lines of the page."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile("\n" * line + code, str(page), "exec"), names)
    return "".join(f"{line.rstrip()}\n" for line in said.getvalue().splitlines())


def check(page: Path) -> int:
    """Run the blocks of a page in order, assert what they print, and return their number."""
    text = page.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": page.stem}
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == text.count("```python")
    for block in blocks:
        line = text[: block.start("code")].count("\n")
        printed = run(block["code"], names, page, line)
        assert printed == (block["said"] or ""), f"{page}, line {line + 1} prints:\n{printed}"
    return len(blocks)


def write(page: Path) -> None:
    """Put what the blocks print into the page."""
    names: dict[str, Any] = {"__name__": page.stem}

    def said(block: re.Match[str]) -> str:
        printed = run(block["code"], names, page)
        shown = f"\n```text\n{printed}```\n" if printed else ""
        return f"```python\n{block['code']}```\n{shown}"

    page.write_text(BLOCK.sub(said, page.read_text(encoding="utf-8")), encoding="utf-8")
