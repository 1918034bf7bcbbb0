"""A compressed network is named by its folder or its program file, in Python and to the verbs."""

from pathlib import Path

import pytest

import refmodel
from prap_hw.app import workflow
from prap_hw.app.report.network import report_folder
from prap_hw.app.workflow import simulation
from refmodel.errors import InputError
from tests.support.command_line import Prap, one_line, simulated


@pytest.mark.parametrize("name", ["done", "done/program.prap"])
def test_every_verb_takes_both(
    name: str, prap: Prap, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simulate(job, predictions):
        return simulated(job.program, job.codes, job.config, predictions)

    monkeypatch.setattr(simulation, "simulate", simulate)
    images = ("--images", given / "images.npz")
    for verb in (
        ("inspect", given / name),
        ("evaluate", given / name, *images),
        ("price", given / name),
        ("report", given / name, "-o", tmp_path / "page.html", *images),
        ("cosim", given / name, *images),
        ("verilog", "--engine-only", "-o", tmp_path / "v", "--for", given / name),
    ):
        code, out, err = prap(*verb)
        assert (code, err, bool(out)) == (0, "", True)
    assert workflow.inspect(given / name) == workflow.inspect(given / "done")
    found = report_folder(given / name, tmp_path / "page.html", technology=None)
    assert found["lead"].startswith("net.onnx, scheme prap")


def test_a_program_is_loaded_from_its_folder(given: Path, tmp_path: Path) -> None:
    folder = refmodel.Program.load(given / "done")
    file = refmodel.Program.load(given / "done/program.prap")
    assert repr(folder) == repr(file)
    with pytest.raises(InputError, match=r"^expected a program file or a folder with"):
        refmodel.Program.load(tmp_path)


def test_neither_folder_nor_file_is_one_line_that_names_both(prap: Prap, tmp_path: Path) -> None:
    code, _, err = prap("inspect", tmp_path / "no")
    assert code == 2
    said = "expected a folder that prap compress wrote, or its program.prap, found none at"
    assert said in one_line(err)
    assert "a program file or a folder with program.prap" in prap("inspect", tmp_path)[2]
