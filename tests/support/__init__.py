"""Helpers that tests share: networks, layers by hand, drivers of the hardware, mutants."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The top of the repository."""
