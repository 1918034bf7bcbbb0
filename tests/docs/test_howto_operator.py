"""The page on adding an operator: its blocks run, and what it says of the code is so.

``python -m tests.docs.test_howto_operator`` writes what they print into the page.
"""

import re
from pkgutil import iter_modules

import pytest

from refmodel.exchange.onnx import operators
from refmodel.exchange.onnx.builder import NetworkBuilder
from refmodel.exchange.onnx.registry import OPERATORS, supported
from refmodel.network import graph
from tests.support import ROOT, pages

PAGE = ROOT / "docs" / "howto" / "add-an-operator.md"

EXAMPLE = "SpaceToDepth"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Run in a folder of its own; what the page registers goes again."""
    monkeypatch.chdir(tmp_path)
    assert EXAMPLE not in supported(), "the page needs an operator that is not supported yet"
    yield
    OPERATORS.pop(EXAMPLE, None)


def test_every_block_runs_and_prints_what_the_page_says(example):
    assert pages.check(PAGE) == 3
    assert EXAMPLE in supported()


def test_the_example_with_channels_in_another_order_is_told_apart(example, tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    wrong = text.replace("transpose(2, 4, 0, 1, 3)", "transpose(0, 2, 4, 1, 3)")
    assert wrong != text
    page = tmp_path / "page.md"
    page.write_text(wrong, encoding="utf-8")
    with pytest.raises(AssertionError, match="False"):
        pages.check(page)


def test_the_page_names_every_node_and_only_methods_that_there_are():
    text = PAGE.read_text(encoding="utf-8")
    kinds = {each.__name__ for each in graph.Node.__subclasses__()}
    table = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(table))) == kinds
    methods = set(re.findall(r"`net\.(\w+)", text))
    assert methods
    assert all(hasattr(NetworkBuilder, name) for name in methods)
    for path in re.findall(r"`((?:refmodel|tests)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    names = {f"{operators.__name__}.{each.name}" for each in iter_modules(operators.__path__)}
    assert set(re.findall(r"\]\[(refmodel\.exchange\.onnx\.operators\.\w+)", text)) <= names


if __name__ == "__main__":
    pages.write(PAGE)
