"""Mutants of the hardware: a module with lines of its source replaced."""

import importlib
import inspect
import pkgutil
import sys
import types
from dataclasses import dataclass
from functools import cache

import pytest

import prap_hw.engine.engine
from tests.support.rtl import hardware

VALUES, CYCLES, FAULT = "values", "cycles", "a fault"


@dataclass(frozen=True)
class Mutant:
    """Replacements in one module of prap_hw, the layer that shows it, and what must notice."""

    module: str
    what: str
    edits: tuple[tuple[str, str], ...]
    layer: str
    caught: str = VALUES

    def __str__(self) -> str:
        return f"{self.module}: {self.what} ({self.caught})"


@cache
def place(module: str) -> str:
    """Full name of a module of the hardware, from its last part."""
    every = pkgutil.walk_packages(prap_hw.__path__, "prap_hw.")
    (found,) = (m.name for m in every if not m.ispkg and m.name.endswith(f".{module}"))
    return found


def load(mutant: Mutant) -> types.ModuleType:
    """Make the mutated module."""
    original = importlib.import_module(place(mutant.module))
    source = inspect.getsource(original)
    for old, new in mutant.edits:
        assert source.count(old) == 1, f"{mutant}: {source.count(old)} times in the source: {old}"
        source = source.replace(old, new)
    module = types.ModuleType(f"{original.__name__}_mutant")
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    return module


def apply(monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    """Let every module of the hardware and the tests use the mutant's classes."""
    original = sys.modules[place(mutant.module)]
    module = load(mutant)
    users = [m for name, m in sys.modules.items() if name.startswith("prap_hw.")] + [hardware]
    for user in users:
        for name, value in list(vars(user).items()):
            if getattr(value, "__module__", None) == original.__name__ and hasattr(module, name):
                monkeypatch.setattr(user, name, getattr(module, name))
