"""Files under the names that the pages give, so that their commands can run."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from prap_hw.app import workflow
from refmodel.cost.technology import FOLDER as TECHNOLOGIES
from refmodel.golden.devices.device import FOLDER as DEVICES
from tests.support.nets.onnx_nets import floats, network, node, save

SEED = 7


def make(folder: Path) -> None:
    """Write a small network of three channels, images for it, and what compress makes of them."""
    constants = {
        "w1": floats(SEED, 8, 3, 3, 3) / 5,
        "w2": floats(SEED + 1, 16, 8, 3, 3) / 8,
        "w3": floats(SEED + 2, 16, 16, 3, 3) / 12,
        "w4": floats(SEED + 3, 16, 10) / 4,
    }
    names = ("conv1", "conv2", "conv3", "classifier")
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1 w2", "c2", pads=[1, 1, 1, 1]),
        node("Relu", "c2", "r2"),
        node("Conv", "r2 w3", "c3", pads=[1, 1, 1, 1]),
        node("Add", "c3 r2", "a3"),
        node("Relu", "a3", "r3"),
        node("GlobalAveragePool", "r3", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f w4", "y"),
    ]
    layers = (each for each in nodes if each.op_type in ("Conv", "MatMul"))
    for each, name in zip(layers, names, strict=True):
        each.name = name
    save(network(nodes, constants, ("N", 3, 4, 4)), folder)
    rng = np.random.default_rng(SEED)
    pixels = rng.integers(0, 256, (100, 4, 4, 3), np.uint8)
    np.savez(folder / "images.npz", x=pixels, y=rng.integers(0, 10, 100))
    np.savez(folder / "few.npz", x=pixels[:20], y=np.arange(20) % 10)
    files = (folder / "net.onnx", folder / "images.npz", folder / "done")
    workflow.compress(*files, scheme="prap", limit=16)


def provide(given: Path, parameters: dict[str, Any], verb: str) -> None:
    """Put stand-ins where a command of ``prap`` reads, unless something is there.

    Parameters
    ----------
    given
        The folder that :func:`make` filled.
    parameters
        The options of the command by name, as its parser has read them.
    verb
        The verb: where it wants a new folder or file, what is there goes.
    """
    out = parameters.get("out")
    if verb in ("compress", "finetune") and out is not None:
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
    images = ("images", "calibration", "data", "test")
    sources = {"network": "net.onnx", "folder": "done", "fit": "done"}
    sources |= dict.fromkeys(images, "images.npz" if verb == "cosim" else "few.npz")
    if verb == "cosim":  # as many as it asks for, whatever an earlier command needed
        parameters["images"].unlink(missing_ok=True)
    for name, source in sources.items():
        copy(given / source, parameters.get(name))
    for name, source in (
        ("device", DEVICES / "wan-2022.toml"),
        ("technology", TECHNOLOGIES / "isaac-32nm.toml"),
    ):
        value = parameters.get(name) or ()
        for each in (value,) if isinstance(value, str) else value:
            if each.endswith(".toml"):
                shutil.copyfile(source, each)  # the same name may be the other kind's, too


def network_and_images(given: Path, folder: Path) -> None:
    """Put the network and its images into a folder, under the names that most pages use."""
    copy(given / "net.onnx", folder / "net.onnx")
    for name in ("train.npz", "test.npz"):
        copy(given / "few.npz", folder / name)


def copy(source: Path, target: Path | None) -> None:
    """Copy a file or folder to a place where nothing is yet; None: there is no place."""
    if not isinstance(target, Path) or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
