"""Steps between layers, a file each: how one is checked, what it computes, how it is lowered.

Every kind of step is a module of this package, found by its being there: a new one is one file,
with a class that :func:`refmodel.program.steps.base.register` enters under the name that programs
have for it; docs/howto/add-a-step.md shows it.
"""

from importlib import import_module
from pkgutil import iter_modules

from refmodel.program.steps.base import (
    STEPS,
    Moved,
    Pass,
    Read,
    Sides,
    Source,
    StepKind,
    UnsupportedError,
    Window,
    register,
)

__all__ = [
    "STEPS",
    "Moved",
    "Pass",
    "Read",
    "Sides",
    "Source",
    "StepKind",
    "UnsupportedError",
    "Window",
    "register",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
