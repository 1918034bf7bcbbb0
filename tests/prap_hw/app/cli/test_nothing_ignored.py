"""No option is ignored in silence: it applies by itself, or is refused with a line."""

import json
from pathlib import Path

import numpy as np
import pytest

from prap_hw.app import workflow
from prap_hw.app.workflow import chips
from refmodel import digits
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from tests.support.command_line import Prap, one_line

ALONE = {
    "trials": (["evaluate", "x", "--images", "x", "--trials", "3"], "a device with trials"),
    "seed": (["evaluate", "x", "--images", "x", "--seed", "0"], "a device with seed"),
    "trials, bits": (
        ["evaluate", "x", "--images", "x", "--adc-bits", "2", "--trials", "3"],
        "a device with trials",
    ),
    "cosim seed": (
        ["cosim", "x", "--images", "x", "--seed", "0"],
        "--device or --positions with --seed",
    ),
    "report limit": (["report", "x", "-o", "o", "--limit", "3"], "--images with --limit"),
    "report trials": (
        ["report", "x", "-o", "o", "--images", "x", "--trials", "3"],
        "--device with --trials",
    ),
    "compare labels": (
        ["compare", "x", "--calibration", "x", "-o", "o", "--labels", "y", "--limit", "2"],
        "--images with --labels and --limit",
    ),
    "compare of": (
        ["compare", "x", "--calibration", "x", "-o", "o", "--of", "ous"],
        "--budgets with --of",
    ),
    "percentile": (
        ["compress", "x", "--calibration", "x", "-o", "o", "--percentile", "99.99"],
        "--activations percentile with --percentile",
    ),
    "budget of": (
        ["compress", "x", "--calibration", "x", "-o", "o", "--budget-of", "ous"],
        "--budget or --max-loss with --budget-of",
    ),
}


@pytest.mark.parametrize("case", ALONE)
def test_an_option_that_needs_another_is_refused_alone(
    case: str, prap: Prap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, said = ALONE[case]
    code, out, err = prap(*arguments)
    assert (code, out) == (2, "")
    assert f"expected {said}, found none" in one_line(err)


def test_figures_and_images_for_a_report_are_refused_together(prap: Prap) -> None:
    code, _, err = prap("report", "x", "-o", "o", "--images", "x", "--accuracy", "y")
    assert (code, "one of --images and --accuracy, found both" in one_line(err)) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compress", "x", "--scheme", "prap", "--scheme", "orc"], "--scheme once"),
        (["evaluate", "x", "--images", "x", "--images", "x"], "--images once"),
        (["cosim", "x", "--images", "x", "--adcs", "4", "--adcs=8"], "--adcs once"),
        (["verilog", "-o", "x", "--out", "y"], "--out once"),
        (["headline", "--crossbar", "128", "--crossbar", "256"], "--crossbar once"),
        (["sweep", "x", "-o", "y", "--workers", "2", "--workers", "2"], "--workers once"),
    ],
)
def test_an_option_with_one_value_is_refused_twice(
    arguments: list[str], said: str, prap: Prap
) -> None:
    code, out, err = prap(*arguments)
    assert (code, out) == (2, "")
    assert f"expected {said}, found it 2 times" in one_line(err)


def test_what_may_be_repeated_is_taken_twice(prap: Prap, given: Path) -> None:
    asked = ["evaluate", given / "done", "--images", given / "images.npz", "--trials", "1"]
    code, out, _ = prap(*asked, "--device", "ideal", "--device", "wan-2022", "--debug", "--debug")
    assert (code, "ideal " in out, "wan-2022 " in out) == (0, True, True)


@pytest.fixture(scope="module")
def number(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of digits and the packaged network, compressed."""
    folder = tmp_path_factory.mktemp("digits")
    images = digits.digits_images()
    np.savez(folder / "train.npz", x=images.calibration_x)
    np.savez(folder / "test.npz", x=images.x[:100], y=images.y[:100])
    workflow.compress(
        digits.network_path("prap"),
        folder / "train.npz",
        folder / "net",
        scheme="prap",
        settings=digits.SETTINGS,
        scale=digits.PIXEL_SCALE,
    )
    return folder


@pytest.mark.long
def test_bits_of_a_code_apply_without_a_device(prap: Prap, number: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    asked = ["evaluate", number / "net", "--images", number / "test.npz", "--json", file]
    means, clipped = [], []
    for bits in (1, 2, 3, 4):
        found = []
        for device in ([], ["--device", "ideal"]):
            code, out, err = prap(*asked, "--adc-bits", bits, *device)
            assert (code, err) == (0, "")
            assert f"{bits} bit" in out
            found.append(json.loads(file.read_text()))
        assert found[0] == found[1]
        (device,) = found[0]["devices"]
        means.append(device["mean"])
        clipped.append(device["clipped"][0] / device["conversions"])
        assert len(set(device["clipped"])) == 1  # the chips of the ideal device are the same
    # Codes of 4 bits hold every sum of 8 rows, 0 to 8: the accuracy of the golden model. Those of
    # 3 bits clip the sum 8 alone, once in a million conversions, which changes no answer here.
    assert means[0] + 0.5 < means[1] < means[2] == means[3] == found[0]["accuracy"]["prap"]
    assert clipped[0] > 0.1 > clipped[1] > 1e-3 > 1e-5 > clipped[2] > clipped[3] == 0


def test_cells_apply_without_a_device(given: Path) -> None:
    asked = (given / "done", given / "images.npz")
    found = workflow.evaluate(*asked, cells="pairs")
    assert found == workflow.evaluate(*asked, cells="pairs", device="ideal")
    assert found["devices"][0]["cells"] == "pairs"
    assert "devices" not in workflow.evaluate(*asked)
    with pytest.raises(InputError, match=r"^expected a device with trials and seed, found none$"):
        workflow.evaluate(*asked, trials=3, seed=0)


def test_two_s_complement_of_an_engine_with_pairs_is_refused() -> None:
    config = EngineConfig(pairs=True)
    assert chips.cells_of(config, None) == chips.cells_of(config, "pairs") == "pairs"
    assert chips.cells_of(EngineConfig(), None) == "twos-complement"
    assert chips.cells_of(EngineConfig(), "pairs") == "pairs"
    with pytest.raises(InputError, match="expected pairs as cells of an engine with pairs"):
        chips.cells_of(config, "twos-complement")
