"""Chips that are not ideal: variation, stuck cells, drift, offset, noise."""

from refmodel.golden.devices.chip import Chip, LayerChip, accuracy, logits
from refmodel.golden.devices.device import FOLDER, UNITS, Cells, Device, device_names

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
