"""Schemes: from the float weights of a layer to weight patterns and reuse words.

Every scheme is a module of this package, found by its being there: a new one is one file, with what
there is to set, a default by the width of a layer, and a function that maps a layer, entered under
its name by :func:`refmodel.compression.schemes.base.register`; docs/howto/add-a-scheme.md shows it.
:func:`map_layer` applies a scheme to a layer; what comes out,
whatever the scheme, is a :class:`LayerMapping` that :mod:`refmodel.compression.compile` turns into
a program.
"""

from importlib import import_module
from pkgutil import iter_modules

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.prune import OU_ROWS, check_weight
from refmodel.compression.schemes.base import (
    SCHEMES,
    InputStatistics,
    LayerMapping,
    LayerSetting,
    LayerSize,
    MappedLayer,
    PatternGroup,
    Scheme,
    Weight,
    default_setting,
    fold_gain,
    network_settings,
    read_settings,
    register,
)

__all__ = [
    "SCHEMES",
    "InputStatistics",
    "LayerMapping",
    "LayerSetting",
    "LayerSize",
    "MappedLayer",
    "PatternGroup",
    "Scheme",
    "Weight",
    "default_setting",
    "map_layer",
    "network_settings",
    "read_settings",
    "register",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def map_layer(
    weight: Weight,
    groups: int,
    scheme: str,
    setting: LayerSetting | None = None,
    ou_rows: int = OU_ROWS,
    gain: NDArray[np.float64] | None = None,
    inputs: InputStatistics | None = None,
) -> LayerMapping:
    """Map one convolution or fully connected layer.

    Parameters
    ----------
    weight
        Finite float32 [out, in / groups, kh, kw]; kh = kw = 1 for a fully connected layer. Or int8:
        weights that are not quantised again.
    groups
        Groups of the convolution.
    scheme
        Scheme of the network. Where this or the setting's is "dense", or the setting keeps all,
        the layer runs dense; otherwise the two are the same.
    setting
        Sizes for this layer; None takes :func:`default_setting`, which cannot know the first and
        the last layer of a network here: use :func:`network_settings` for a whole one.
    ou_rows
        R, rows of an operation unit.
    gain
        [out]: factor of each output; None: 1. Schemes that learn patterns weigh the outputs by it.
    inputs
        Covariances of the layer's inputs, for the same schemes; None: they are not known.
    """
    check_weight(weight, integers=True)
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, not {scheme!r}")
    if groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"groups must divide {weight.shape[0]} outputs, not {groups!r}")
    if ou_rows < 1:
        raise ValueError(f"ou_rows must be at least 1, not {ou_rows!r}")
    if setting is None:
        setting = default_setting(weight, groups=groups, scheme=scheme, ou_rows=ou_rows)
    own = SCHEMES[setting.scheme]
    if "dense" in (scheme, own.name) or not own.applies(own.setting.of(setting)):
        scheme = "dense"
    elif scheme != setting.scheme:
        raise ValueError(f"setting must be for the scheme {scheme!r}, not {setting.scheme!r}")
    chosen = SCHEMES[scheme]
    values = chosen.setting.of(setting)
    if chosen.learner is None:
        return chosen.map(weight, groups, values, ou_rows)
    folded, scale = fold_gain(weight, np.ones(len(weight)) if gain is None else gain)
    return chosen.learner(folded, groups, values, ou_rows, inputs).times(scale)
