"""`make mutate`: which mutants there are, what is kept of them, and what is said."""

import ast
from pathlib import Path

import pytest

from tests.mutation import __main__ as mutate
from tests.mutation.judge import Tree, Verdict, stages
from tests.mutation.mutants import LEAST, draw, edits, files

SOURCE = """
class Part:
    def __init__(self):
        self.width = 3 + 1

    def elaborate(self, platform):
        m = Module()
        full = Signal(init=1)
        m.d.comb += [
            self.ready.eq(~full & (a | b)),
            self.left.eq(Mux(c < 2, a - b, b)),
        ]
        with m.If(full != c):
            m.d.sync += full.eq(0)
        return m
"""

EVERY = {
    "full = Signal(init=1, reset_less=True)",
    "self.ready.eq(0)",
    "        m.d.comb += [\n            [],\n",
    "~full | (a | b)",
    "self.ready.eq((~full)),",
    "self.ready.eq((a | b)),",
    "(full) & (a | b)",
    "~full & (a & b)",
    "~full & ((a))",
    "~full & ((b))",
    "self.left.eq(0)",
    "            [],\n        ]\n",
    "Mux(c < 2, b, a - b)",
    "Mux(c <= 2, a - b, b)",
    "Mux(c < 3, a - b, b)",
    "Mux(c < 2, a + b, b)",
    "Mux(c < 2, (b) - (a), b)",
    "m.If((full != c) == 0)",
    "m.If(full == c)",
    "m.d.sync += []",
    "full.eq(1)",
}


def test_edits_are_those_of_the_hardware() -> None:
    found = [edit.apply(SOURCE) for edit in edits("prap_hw/engine/part.py", SOURCE)]
    assert len(found) == len(set(found)) == len(EVERY)
    for part in EVERY:
        (changed,) = [text for text in found if part in text and part not in SOURCE]
        ast.parse(changed)
        assert "self.width = 3 + 1" in changed


def test_an_edit_of_another_text_is_refused() -> None:
    edit = edits("part.py", SOURCE)[0]
    with pytest.raises(AssertionError, match=r"part\.py"):
        edit.apply(SOURCE.replace("class", "  class"))


def test_draws_are_spread_and_repeat(root: Path) -> None:
    texts = files(root)
    assert "prap_hw/shell/host_shell.py" in texts
    assert "prap_hw/board/fit.py" not in texts  # nothing there is hardware
    few, many = draw(texts, 40, seed=3), draw(texts, 400, seed=3)
    assert len(many) >= 400
    assert set(few) < set(many)
    assert few == draw(texts, 40, seed=3) != draw(texts, 40, seed=4)
    for path, text in texts.items():
        count = sum(edit.path == path for edit in many)
        assert min(LEAST, len(edits(path, text))) <= count
        ast.parse(next(edit for edit in many if edit.path == path).apply(text))


def test_nearest_tests_come_first(root: Path) -> None:
    edit = edits("prap_hw/engine/requantise.py", SOURCE)[0]
    near, package, every = stages(edit, root)
    assert "tests/prap_hw/engine/test_requantise.py" in near
    assert package == ("tests/prap_hw/engine",)
    assert "tests/prap_hw/accelerator" in every
    for names in (near, package, every):
        assert all((root / name).exists() for name in names)


def test_verdicts_are_kept_until_the_file_changes(tmp_path: Path, root: Path) -> None:
    edit = edits("prap_hw/engine/requantise.py", SOURCE)[0]
    name = mutate.key(edit, SOURCE, root)
    path = tmp_path / "kept" / "verdicts.jsonl"
    verdict = Verdict("killed", "a test", 1.5)
    mutate.Kept(path).add(name, verdict)
    with path.open("a") as file:
        file.write('{"key": "half a li')
    assert mutate.Kept(path).verdicts == {name: verdict}
    assert path.read_text().endswith("}\n")
    assert mutate.key(edit, SOURCE + "\n", root) != name
    assert mutate.Kept(path, fresh=True).verdicts == {}


def test_the_table_counts_what_nothing_explains() -> None:
    found = edits("prap_hw/engine/part.py", SOURCE)[:5]
    outcomes = ("killed", "killed", "survived", "survived", "no change")
    tried = [(e, Verdict(o, "", 0.0)) for e, o in zip(found, outcomes, strict=True)]
    why = {(e.path, e.kind, " ".join(e.old.split()), e.new): "both are" for e in found[2:3]}
    rows, left = mutate.table(tried, why)
    assert "| `prap_hw/engine/part.py` | 4 | 2 | 1 | 1 | 66.7 |" in rows
    assert rows[-1] == "Not counted: 1 no change."
    assert left == [found[3].name]
    assert any(row == f"{found[2].name}: both are" for row in rows)
    assert any(row == f"{found[3].name}: NOT EXPLAINED" for row in rows)


def test_reasons_are_of_mutants_that_there_are(root: Path) -> None:
    texts = files(root)
    every = {
        (e.path, e.kind, " ".join(e.old.split()), " ".join(e.new.split()))
        for path, text in texts.items()
        for e in edits(path, text)
    }
    given = mutate.reasons()
    assert set(given) <= every
    assert all(len(why) > 20 for why in given.values())


@pytest.mark.long
def test_a_mutant_is_killed_and_one_that_is_equal_is_not(root: Path, tmp_path: Path) -> None:
    path = "prap_hw/common/index_reader.py"
    found = edits(path, (root / path).read_text(encoding="utf-8"))
    tree = Tree(root, tmp_path / "tree")
    bad = next(edit for edit in found if edit.kind == "negated")
    assert tree.judge(bad).outcome == "killed"
    assert (tree.folder / path).read_bytes() == (root / path).read_bytes()
    with tree.planted(bad):
        assert (tree.folder / path).read_bytes() != (root / path).read_bytes()
