"""The engine in Amaranth, the Verilog writer, and the command line."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    # ``from prap_hw import workflow``: loaded when it is asked for, since it needs all of prap.
    if name == "workflow":
        return import_module("prap_hw.app.workflow")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
