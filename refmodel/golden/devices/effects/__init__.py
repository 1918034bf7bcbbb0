"""Effects on cells and converters, a file each.

Every effect is a module of this package, found by its being there;
docs/howto/add-a-device-effect.md shows a new one, and :mod:`refmodel.golden.devices.effect` says
what an effect can do.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
