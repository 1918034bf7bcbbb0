"""Settings of a network that nobody tuned, settings by layer name, and settings as text."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol

import numpy as np

from refmodel.compression.prune import OU_ROWS
from refmodel.compression.schemes.base.fields import KIND
from refmodel.compression.schemes.base.mapping import Weight
from refmodel.compression.schemes.base.registry import (
    SCHEMES,
    LayerSetting,
    LayerSize,
    setting_fields,
)
from refmodel.errors import InputError

FEWEST_OUTPUTS = 8
"""Layers with fewer outputs (to a group of a convolution) run dense: there is nobody to share with.
Depthwise convolutions are the case in point."""


def default_setting(
    weight: Weight | Sequence[int],
    *,
    groups: int = 1,
    scheme: str = "prap",
    fully_connected: bool = False,
    first: bool = False,
    last: bool = False,
    ou_rows: int = OU_ROWS,
) -> LayerSetting:
    """Choose a setting by the widths of a layer, as the published networks have it.

    First and last layers are dense, and so are layers with few outputs. Everything else is for the
    scheme to say: the ``default_setting`` of its module tells which numbers come from where.

    Parameters
    ----------
    weight
        Weights [out, in / groups, kh, kw], or their shape alone.
    groups
        Groups of the convolution.
    scheme
        Scheme of the network.
    fully_connected
        Whether the layer is a matrix product, not a 1x1 convolution.
    first, last
        Whether it is the network's first or last layer with weights.
    ou_rows
        R, rows of an operation unit.
    """
    shape = tuple(weight.shape if isinstance(weight, np.ndarray) else weight)
    if len(shape) != 4:
        raise ValueError(f"weight must have the shape [out, in, kh, kw], not {shape!r}")
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, not {scheme!r}")
    outputs = shape[0] // groups
    if first or last or outputs < FEWEST_OUTPUTS:
        return LayerSetting(scheme="dense")
    return SCHEMES[scheme].default(
        LayerSize(
            outputs=outputs,
            inputs=shape[1],
            kernel=shape[2] * shape[3],
            fully_connected=fully_connected,
            ou_rows=ou_rows,
        )
    )


SHORT = ("channels", "positions", "keep")
"""Fields of a setting that is three values without names."""


class MappedLayer(Protocol):
    """A layer as :func:`network_settings` needs it; ``quantize.MatrixLayer`` has it."""

    @property
    def name(self) -> str:
        """Its name in the network."""
        ...

    @property
    def weight(self) -> Weight:
        """Weights [out, in / groups, kh, kw]."""
        ...

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        ...

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the input."""
        ...


def network_settings(
    layers: Sequence[MappedLayer],
    scheme: str,
    overrides: Mapping[str, LayerSetting] | None = None,
    ou_rows: int = OU_ROWS,
) -> dict[str, LayerSetting]:
    """Give every layer of a network its setting.

    Parameters
    ----------
    layers
        Layers with weights, in order.
    scheme
        Scheme of the network.
    overrides
        Settings by name pattern (``*``, ``?`` and ``[...]`` as in file names, case counts). The
        first pattern that matches a layer's name holds; layers that none matches take
        :func:`default_setting`.
    ou_rows
        R, rows of an operation unit.

    Returns
    -------
    dict
        Layer name to setting, in the order of the layers.
    """
    overrides = overrides or {}
    names = [layer.name for layer in layers]
    for pattern in overrides:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"expected a layer that matches {pattern!r}, found only {', '.join(names)}"
            )
    settings = {}
    for index, layer in enumerate(layers):
        chosen = [value for key, value in overrides.items() if fnmatchcase(layer.name, key)]
        settings[layer.name] = (
            chosen[0]
            if chosen
            else default_setting(
                layer.weight,
                groups=layer.groups,
                scheme=scheme,
                fully_connected=tuple(layer.in_shape[:2]) == (1, 1),
                first=index == 0,
                last=index == len(layers) - 1,
                ou_rows=ou_rows,
            )
        )
    return settings


def read_settings(texts: Sequence[str], scheme: str) -> dict[str, LayerSetting]:
    """Read settings by name pattern from the texts of an option.

    Parameters
    ----------
    texts
        ``conv2=2,4,0.375``, three values for :data:`SHORT`, or ``conv2=keep=0.2,scheme=orc``.
    scheme
        The scheme where a text names none.

    Raises
    ------
    InputError
        A text of another form, a field that no scheme declares, or a value out of its limits.
    """
    known = setting_fields()
    result = {}
    for text in texts:
        pattern, _, values = text.partition("=")
        parts = values.split(",")
        if values and "=" not in values and len(parts) == len(SHORT):
            parts = [f"{name}={part}" for name, part in zip(SHORT, parts, strict=True)]
        chosen: dict[str, Any] = {"scheme": scheme}
        try:
            for part in parts:
                name, _, value = part.partition("=")
                if not pattern or not value or name not in ("scheme", *known):
                    raise InputError(
                        f"expected LAYER=C,V,KEEP or LAYER=KEY=VALUE,... with "
                        f"{', '.join(('scheme', *known))}, found {text!r} in --set"
                    )
                read = str if name == "scheme" else known[name].metadata[KIND].read
                chosen[name] = read(value)
            result[pattern] = LayerSetting(**chosen)
        except (TypeError, ValueError) as problem:
            if isinstance(problem, InputError):
                raise
            raise InputError(
                f"expected settings that a layer can have, found {text!r} in --set ({problem})"
            ) from None
    return result
