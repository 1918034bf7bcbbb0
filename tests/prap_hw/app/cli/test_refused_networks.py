"""Networks that cannot be mapped, and files that are none: one line, at once, with a way out."""

from pathlib import Path

import numpy as np
import pytest

from prap_hw.app import stages
from refmodel import api
from refmodel.errors import InputError
from tests.support.command_line import Prap, one_line
from tests.support.nets.onnx_nets import f32, network, node, save


@pytest.fixture
def large_kernel(tmp_path: Path) -> Path:
    """A folder with a network whose second layer has a kernel of 11x11, and images for it."""
    weights = {"w": f32(np.ones((2, 1, 3, 3))), "v": f32(np.ones((3, 2, 11, 11)))}
    nodes = [node("Conv", "x w", "c"), node("Conv", "c v", "d"), node("Flatten", "d", "y")]
    save(network(nodes, weights, ("N", 1, 16, 16)), tmp_path)
    np.savez(tmp_path / "images.npz", x=np.ones((2, 16, 16), np.uint8))
    return tmp_path


def test_a_kernel_that_no_engine_has_is_refused_before_compiling(
    large_kernel: Path, prap: Prap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "compress", lambda *_, **__: pytest.fail("ran"))
    files = (large_kernel / "net.onnx", "--calibration", large_kernel / "images.npz")
    code, _, err = prap("compress", *files, "-o", large_kernel / "o")
    said = "expected a kernel of at most 49 positions (max_positions), found 11x11, which has 121"
    assert code == 2
    assert one_line(err) == f"prap: error: layer d_node: {said}"
    assert not (large_kernel / "o").exists()
    subject = stages.Subject(network=str(files[0]), calibration=(str(files[2]),))
    found = stages.compiled(subject, "prap", (None, 2.0))
    assert all(isinstance(each, InputError) and said in str(each) for each in found.values())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net.pt", "PyTorch is exported first: torch.onnx.export(model.eval(), example_images,"),
        ("NET.PTH", "PyTorch is exported first: torch.onnx.export(model.eval(), example_images,"),
        ("net.th", "PyTorch is exported first: torch.onnx.export(model.eval(), example_images,"),
        ("saved_model.pb", "TensorFlow is exported first: python -m tf2onnx.convert --saved-model"),
        ("net.h5", "keras.models.load_model('net.h5').export('net.onnx', format='onnx')"),
        ("net.keras", "keras.models.load_model('net.keras').export('net.onnx', format='onnx')"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and more of it", b"\x89HDF\r\n\x1a\n"])
def test_a_file_of_another_framework_gets_the_line_how_to_export_it(
    name: str, said: str, content: bytes, prap: Prap, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    files = (tmp_path / name, "--calibration", tmp_path / "x.npz", "-o", tmp_path / "o")
    code, _, err = prap("compress", *files)
    assert code == 2
    assert "expected an ONNX file, found" in one_line(err)
    assert said in err


def test_another_file_gets_no_line_how_to_export_it(prap: Prap, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no network")
    code, _, err = prap("compress", tmp_path / "net.onnx", "--calibration", "x", "-o", "o")
    assert code == 2
    assert one_line(err).rstrip().endswith("net.onnx")
