"""Chips that are not ideal: variation, stuck cells, drift, offset, noise."""

import refmodel.golden.devices.effects  # noqa: F401 (so that every effect is entered)
from refmodel.config import Cells
from refmodel.golden.devices.chip import Chip, accuracy, logits
from refmodel.golden.devices.device import FOLDER, UNITS, Device, device_names
from refmodel.golden.devices.layer_chip import LayerChip

__all__ = [
    "FOLDER",
    "UNITS",
    "Cells",
    "Chip",
    "Device",
    "LayerChip",
    "accuracy",
    "device_names",
    "logits",
]
