"""The page on adding a scheme: its blocks run, and its file is all that a scheme needs.

``python -m tests.docs.test_howto_scheme`` writes what they print into the page.
"""

import os
import shutil
import subprocess
import sys

import pytest

from refmodel.compression.schemes import SCHEMES
from refmodel.compression.schemes.base import LayerSetting, registry
from tests.support import ROOT, pages

PAGE = ROOT / "docs" / "howto" / "add-a-scheme.md"

USE = """
import refmodel
from refmodel import digits
network = refmodel.load(digits.network_path("float"))
images = digits.digits_images()
program = refmodel.compress(network, images.calibration_x[:8], scheme="every")
print([layer.scheme for layer in program.layers])
"""


@pytest.fixture
def example(monkeypatch):
    """Take back what the page registers."""
    assert "every" not in SCHEMES, "the page needs a scheme that there is not yet"
    fields = dict(LayerSetting.__dataclass_fields__)
    yield
    registry._schemes.pop("every", None)
    for name in set(LayerSetting.__dataclass_fields__) - set(fields):
        del LayerSetting.__dataclass_fields__[name]


def test_every_block_runs_and_prints_what_the_page_says(example):
    assert pages.check(PAGE) == 3
    assert "every" in SCHEMES


def test_a_field_that_means_something_else_is_refused(example, tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(text.replace("    step: int = integer", "    terms: int = integer"))
    with pytest.raises(ValueError, match="terms of scheme 'every' must be what it is in other"):
        pages.check(page)


def test_the_file_of_the_page_is_all_that_a_scheme_needs(tmp_path):
    for package in ("refmodel", "prap_hw", "sim"):
        shutil.copytree(ROOT / package, tmp_path / package)
    code = pages.BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert code is not None
    (tmp_path / "refmodel/compression/schemes/every.py").write_text(code["code"])

    def said(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    assert said("-c", USE) == "['dense', 'every', 'every', 'dense']\n"
    names = said("-m", "prap_hw", "compress", "net.onnx", "--scheme", "none")
    assert "'none' is not one of 'dense', 'dictionary', 'every', 'identical'" in names


if __name__ == "__main__":
    pages.write(PAGE)
