"""The operators of ONNX that can be imported, a module for each family.

Every family is a module of this package, found by its being there; docs/howto/add-an-operator.md
shows how an operator is added. Some modules hold what families share.
"""

from importlib import import_module
from pkgutil import iter_modules

from refmodel.exchange.onnx.registry import OPERATORS

__all__ = ["OPERATORS"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
