"""Icarus Verilog, which no Python package has."""

import shutil

import pytest

needs_icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None,
    reason="iverilog is not installed, and no Python package has it (Debian: apt install iverilog)",
)
"""Tests with it are ``long``, too, since machines need not have it."""
