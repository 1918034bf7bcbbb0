"""The notebook of costs runs, cell by cell, and what it says of the sweep is so."""

import json
from typing import Any

import pytest

from tests.support import ROOT, pages

NOTEBOOK = ROOT / "examples" / "costs" / "costs.ipynb"


@pytest.mark.slow
def test_every_cell_runs_and_the_second_sweep_works_out_nothing() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {"__name__": "notebook"}
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    printed = [pages.run(source, names, NOTEBOOK) for source in sources]
    assert len(printed) >= 6
    assert " uJ, " in printed[1]
    assert printed[4].startswith("['")
    assert set(names["second"]["worked_out"].values()) == {0}
    assert names["rows"] == names["again"]
    assert len(names["rows"]) == 2 * 2 * 2 * 2
