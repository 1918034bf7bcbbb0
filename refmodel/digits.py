"""The packaged digits example: two trained networks and the images that they never saw.

``refmodel/assets/README.md`` says where they come from; ``examples/digits/train.py`` makes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.schemes import LayerSetting

PIXEL_SCALE = 1 / 16
"""Factor that turns a pixel (0 to 16) into a network input."""

Kind = Literal["float", "prap"]
"""The packaged networks: as trained, and fine-tuned for prap."""

SETTINGS: Mapping[str, LayerSetting] = MappingProxyType(
    {
        "conv1": LayerSetting(scheme="dense"),
        "conv2": LayerSetting(scheme="prap", channels=2, positions=4, keep=0.375),
        "conv3": LayerSetting(scheme="prap", channels=2, positions=4, keep=0.1875),
        "classifier": LayerSetting(scheme="dense"),
    }
)
"""Settings of the fine-tuned network, by layer: 12 kept patterns in each group of two channels.

Without them the default rule maps the fine-tuned weights just as exactly, on twice as many
operation units: it has no settings this strong for narrow layers.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class DigitsImages:
    """UCI handwritten digits, uint8, values 0 to 16, layout (count, 8, 8).

    Attributes
    ----------
    x, y
        The held-out images and their digits; neither training nor tuning saw them.
    calibration_x, calibration_y
        Images of the training split, for the ranges of the quantisation.
    """

    x: NDArray[np.uint8]
    y: NDArray[np.uint8]
    calibration_x: NDArray[np.uint8]
    calibration_y: NDArray[np.uint8]


def asset_path(name: str) -> Path:
    """Path of a packaged file."""
    return Path(str(files("refmodel") / "assets" / name))


def images_path() -> Path:
    """Path of the images, an ``.npz`` with ``x``, ``y``, ``calibration_x``, ``calibration_y``."""
    return asset_path("digits_images.npz")


def network_path(kind: Kind) -> Path:
    """Path of a network as ONNX: ``float`` as trained, ``prap`` fine-tuned onto its patterns."""
    if kind not in ("float", "prap"):
        raise ValueError(f"kind must be 'float' or 'prap', not {kind!r}")
    return asset_path(f"digits_{kind}.onnx")


def digits_images() -> DigitsImages:
    """Load the packaged images."""
    with np.load(images_path(), allow_pickle=False) as stored:
        return DigitsImages(**{name: stored[name] for name in stored.files})
