"""`prap finetune`, and the script that draws curves with it."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from prap_hw.app import finetuning
from prap_hw.app.cli import program
from refmodel.digits import digits_images, network_path
from refmodel.errors import InputError
from refmodel.exchange.onnx.load import load_onnx

pytest.importorskip("torch", reason="PyTorch is not installed: make test installs it")

from refmodel.train import Recipe


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibration and held-out images of the digits as files."""
    folder = tmp_path_factory.mktemp("given")
    images = digits_images()
    np.savez(folder / "train.npz", x=images.calibration_x, y=images.calibration_y)
    np.savez(folder / "test.npz", x=images.x, y=images.y)
    np.savez(folder / "bare.npz", x=images.x)
    return folder


def run(*arguments: object) -> int:
    return program.run([str(each) for each in arguments])


def command(given: Path, out: Path, *more: object) -> list[object]:
    rate = () if "--rate" in more else ("--rate", 0.02)
    return [
        "finetune", network_path("float"), "--data", given / "train.npz", "--scale", 1 / 16,
        "--epochs", 2, "--batch", 50, *rate, "-o", out, *more,
    ]  # fmt: skip


def test_a_network_is_fine_tuned_and_compiled(given, tmp_path, capsys):
    out, figures = tmp_path / "tuned.onnx", tmp_path / "tuned.json"
    options = ("--scheme", "dictionary", "--budget", 3, "--images", given / "test.npz")
    assert run(*command(given, out, *options, "--json", figures)) == 0
    shown = capsys.readouterr().out
    assert "Fine-tuning" in shown
    found = json.loads(figures.read_text())
    for name, setting in found["budget"]["settings"].items():
        words = rf"{name} +dictionary +{setting['patterns']} +{setting['terms']}"
        assert re.search(words, shown), name
    assert f"chosen: {found['budget']['ratio']:.2f} times less than dense (OU activ" in shown
    assert len(found["history"]) == 2
    assert found["budget"]["ratio"] >= 3
    assert found["test_images"] == 500
    assert {each.name for each in tmp_path.iterdir()} == {"tuned.onnx", "tuned.json"}
    network = load_onnx(out)
    assert network.tuned is not None
    assert network.tuned.scheme == "dictionary"
    folder = tmp_path / "compiled"
    data = ("--calibration", given / "train.npz", "--scale", 1 / 16)
    assert run("compress", out, *data, "-o", folder) == 0
    accuracy = tmp_path / "accuracy.json"
    assert run("evaluate", folder, "--images", given / "test.npz", "--json", accuracy) == 0
    measured = json.loads(accuracy.read_text())["accuracy"]
    assert measured["float"] == found["accuracy"]["tuned"]
    assert abs(measured["dictionary"] - measured["float"]) < 0.02


def test_rows_of_the_operation_unit_reach_the_mapping(given, tmp_path, capsys):
    out = tmp_path / "tuned.onnx"
    assert run(*command(given, out, "--scheme", "similar", "--ou-rows", 9)) == 0
    network = load_onnx(out)
    assert network.tuned is not None
    assert network.tuned.ou_rows == 9
    data = ("--calibration", given / "train.npz", "--scale", 1 / 16)
    assert run("compress", out, *data, "-o", tmp_path / "eight") == 2
    assert "which the mappings were made for" in capsys.readouterr().err
    assert run("compress", out, *data, "--ou-rows", 9, "-o", tmp_path / "nine") == 0


def test_a_file_that_is_there_is_kept_unless_told(given, tmp_path, capsys):
    out = tmp_path / "tuned.onnx"
    out.write_bytes(b"mine")
    assert run(*command(given, out)) == 2
    assert "expected a new file to write, found one there already" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"
    assert run(*command(given, out, "--force")) == 0
    assert load_onnx(out).tuned is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--rate", 0),
            "expected a recipe that can be followed, found rate must be above 0 and below",
        ),
        (("--teacher", 2), "found teacher must be 0 to 1, not 2.0"),
        (("--noise", "nowhere.toml"), "expected a device file or one of"),
        (("--method", "published", "--scheme", "dictionary"), "the method shared for the scheme"),
        (("--set", "nothing*=2,4,0.5"), "expected a layer that matches 'nothing*'"),
        (("--ou-rows", 99), "expected sizes that an engine can have, found ou_rows must be"),
        (("--on", "abacus"), "expected auto, cpu or a device of PyTorch, found 'abacus'"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(options, message, given, tmp_path, capsys):
    assert run(*command(given, tmp_path / "tuned.onnx", *options)) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("prap: e")]
    assert message in line
    assert not list(tmp_path.iterdir())


def test_images_without_labels_are_refused(given, tmp_path):
    with pytest.raises(InputError, match="expected images with labels, found none in bare"):
        finetuning.finetune(network_path("float"), given / "bare.npz", tmp_path / "t.onnx")


def test_without_pytorch_it_says_how_to_get_it(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(*command(given, tmp_path / "tuned.onnx")) == 2
    assert "expected PyTorch for fine-tuning, found none" in capsys.readouterr().err


def test_a_run_that_was_interrupted_is_gone_on_with(given, tmp_path):
    out = tmp_path / "tuned.onnx"

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "epoch 2 of 2":
            raise KeyboardInterrupt

    recipe = Recipe(epochs=2, batch=50)
    call = (network_path("float"), given / "train.npz", out)
    with pytest.raises(KeyboardInterrupt):
        finetuning.finetune(*call, scale=1 / 16, recipe=recipe, report=stop)
    assert [each.name for each in tmp_path.iterdir()] == ["tuned.onnx.checkpoint"]
    stages: list[str] = []
    finetuning.finetune(
        *call, scale=1 / 16, recipe=recipe, report=lambda stage, *_: stages.append(stage)
    )
    assert "epoch 1 of 2" not in stages
    assert [each.name for each in tmp_path.iterdir()] == ["tuned.onnx"]


@pytest.mark.long
def test_fresh_throws_a_checkpoint_away(given, tmp_path):
    out = tmp_path / "tuned.onnx"
    out.with_name("tuned.onnx.checkpoint").write_bytes(b"of something else")
    assert run(*command(given, out)) == 2
    assert run(*command(given, out, "--fresh")) == 0


@pytest.fixture(scope="module")
def curves(root: Path):
    spec = importlib.util.spec_from_file_location("curves", root / "examples/resnet20/curves.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "curves", module)  # where its workers look for it
        spec.loader.exec_module(module)
        yield module


def test_curves_put_seeds_together_by_hand(curves, tmp_path):
    counts = {"conversions": 80, "merges": 10, "cycles": 5, "index_bits": 7, "ratio": 2.0}
    for seed, accuracy in enumerate((0.8, 0.9)):
        figures = {
            "scheme": "orc", "method": "shared", "times": 2, "seed": seed, "accuracy": accuracy,
            "ou_activations": 1e6, **counts,
        }  # fmt: skip
        (tmp_path / f"orc-2-{seed}.json").write_text(json.dumps(figures))
    options = type("Options", (), {"out": tmp_path, "merge_weight": 0.5})
    points = [curves.Point(scheme="orc", times=2, seed=seed) for seed in (0, 1)]
    (row,) = curves.grouped(points, options)
    assert np.isclose(row["accuracy"], 0.85)
    assert np.isclose(row["spread"], 0.0707, atol=1e-4)
    assert row["cost"] == 85
    assert "| orc | 2.00 | 80.00 % (85.00 ± 7.07 %) | 2 |" in curves.table([row])


@pytest.mark.slow
@pytest.mark.long
def test_curves_of_the_digits(curves, given, tmp_path, monkeypatch, capsys):
    arguments = [
        "curves.py", network_path("float"), "--data", given / "train.npz", "--images",
        given / "test.npz", "--scale", 1 / 16, "--epochs", 1, "--schemes", "orc,prap:published",
        "--times", "0,1.5", "--jobs", 1, "-o", tmp_path,
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", [str(each) for each in arguments])
    assert curves.main() == 0
    table = capsys.readouterr().out
    assert table.count("\n| orc | ") == 2
    assert table.count("\n| prap (published) | ") == 2
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert curves.main() == 0
    assert "4 points, 4 there already" in capsys.readouterr().out
    # Another budget is looked for; another number of epochs is another run.
    more = [*arguments[:-1], tmp_path, "--times", "2"]
    monkeypatch.setattr("sys.argv", [str(each) for each in more])
    assert curves.main() == 0
    assert capsys.readouterr().out.count("\n| orc | ") == 3
    monkeypatch.setattr("sys.argv", [str(each) for each in (*arguments, "--epochs", 2)])
    with pytest.raises(SystemExit, match="expected a folder of this run, found another's"):
        curves.main()
