"""The command line in this process, and a compiled network for it."""

from pathlib import Path

import numpy as np
import pytest

from prap_hw.app import workflow
from prap_hw.app.cli import program
from tests.support.command_line import Prap
from tests.support.nets.onnx_nets import save, small_cnn

SEED = 11


@pytest.fixture
def prap(capsys: pytest.CaptureFixture[str]) -> Prap:
    """Run the command line in this process: exit code, stdout, stderr without progress."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = program.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if not line.endswith(" s)")]
        return code, out, "\n".join(lines)

    return call


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network, images for it, and what `prap compress` made of them."""
    folder = tmp_path_factory.mktemp("given")
    save(small_cnn(SEED), folder)
    rng = np.random.default_rng(SEED)
    np.savez(
        folder / "images.npz",
        x=rng.integers(0, 256, (12, 8, 8, 2), np.uint8),
        y=rng.integers(0, 5, 12),
    )
    workflow.compress(folder / "net.onnx", folder / "images.npz", folder / "done", scheme="prap")
    return folder
