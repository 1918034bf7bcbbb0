"""Technology files of round numbers, as text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refmodel.cost.technology import SPECS, Technology

ROUND: dict[str, Any] = {
    "clock": 0.1,
    "supply": 0.8,
    "adc_energy": {4: 1.0, 5: 1.25},
    "adc_area": {4: 100.0, 5: 150.0},
    "adc_rate": 1.0,
    "adc_time": 10.0,
    "sample_energy": 0.5,
    "sample_area": 1.0,
    "drive_energy": {1: 0.1},
    "drive_area": {1: 2.0},
    "cell_energy": 2.0,
    "cell_area": 0.01,
    "read_time": 10.0,
    "add_energy": 1.0,
    "add_area": 1.0,
    "shift_energy": 2.0,
    "shift_area": 2.0,
    "multiply_energy": 0.5,
    "multiply_area": 0.5,
    "register_energy": 3.0,
    "register_area": 4.0,
    "clock_energy": 0.25,
    "control_share": 0.5,
    "activation_energy": 10.0,
    "activation_capacity": 8.0,
    "activation_area": 0.1,
    "sram_energy": 20.0,
    "sram_capacity": 8.0,
    "sram_area": 0.2,
    "index_energy": 30.0,
    "index_capacity": 8.0,
    "index_area": 0.3,
    "memory_growth": 0.0,
    "logic_leakage": 1.0,
    "memory_leakage": 2.0,
}
"""Values in the units of the file. A memory's energy does not grow with its capacity."""


def technology_text(values: Mapping[str, Any] | None = None) -> str:
    """Write a technology file of 32 nm, with some values other than those of :data:`ROUND`."""
    lines = ['name = "round"', "node = 32"]
    for name, value in (ROUND | dict(values or {})).items():
        shown = value
        if isinstance(value, Mapping):
            shown = "{ " + ", ".join(f"{bits} = {each}" for bits, each in value.items()) + " }"
        lines += [
            f"[{name}]",
            f"value = {shown}",
            f'unit = "{SPECS[name].unit}"',
            "node = 32",
            'source = "chosen"',
            'place = "here"',
            'confidence = "assumption"',
        ]
    return "\n".join(lines) + "\n"


def round_technology(folder: Path, values: Mapping[str, Any] | None = None) -> Technology:
    """Load what :func:`technology_text` writes."""
    path = folder / "round.toml"
    path.write_text(technology_text(values), encoding="utf-8")
    return Technology.load(path)
