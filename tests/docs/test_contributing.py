"""No source file has more than 600 lines, but those that CONTRIBUTING.md gives a reason for."""

import re

from tests.support import ROOT

MOST = 600
FOLDERS = ("refmodel", "prap_hw", "sim", "tests", "docs", "examples", "benchmarks")
ROW = re.compile(r"^\| `([\w/.-]+)` \| (.+) \|$", re.MULTILINE)


def long_files() -> set[str]:
    """Source files of more lines than are allowed."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sv", ".cpp")
        and len(path.read_text(encoding="utf-8").splitlines()) > MOST
    }


def test_every_long_file_has_its_reason():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index(f"file above {MOST} lines") :]
    reasons = dict(ROW.findall(table))
    assert long_files() <= set(reasons)
    assert [name for name in reasons if not (ROOT / name).exists()] == []
