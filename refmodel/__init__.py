"""The golden model: pruning, reuse mapping, compilation, integer inference, predicted cycles.

The names below are those of :mod:`refmodel.api` and of the modules that it takes things from; each
is imported when it is first used, so that ``import refmodel`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refmodel.api import Network, Program, compress, load
    from refmodel.compression.schemes import SCHEMES, LayerSetting
    from refmodel.config import EngineConfig
    from refmodel.errors import InputError
    from refmodel.network.images import Preprocess, load_images
    from refmodel.table import Table

_HOME = {
    "Network": "api",
    "Program": "api",
    "compress": "api",
    "load": "api",
    "EngineConfig": "config",
    "InputError": "errors",
    "Preprocess": "network.images",
    "load_images": "network.images",
    "SCHEMES": "compression.schemes",
    "LayerSetting": "compression.schemes",
    "Table": "table",
}

__all__ = [
    "SCHEMES",
    "EngineConfig",
    "InputError",
    "LayerSetting",
    "Network",
    "Preprocess",
    "Program",
    "Table",
    "compress",
    "load",
    "load_images",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'refmodel' has no attribute {name!r}")
    value = getattr(import_module(f"refmodel.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
