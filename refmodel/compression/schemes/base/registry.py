"""The table of schemes, and the setting of a layer, whatever its scheme.

A scheme is a function (weight, groups, setting, ou_rows) -> :class:`LayerMapping`, entered in
:data:`SCHEMES` with :func:`register`, which also says what it has to set. Whatever the scheme,
a mapping is a list of :class:`PatternGroup` that one controller can run: kept patterns on shapes,
and for each output of the group ``terms`` reuse words. Summed over the groups, they are the
effective weights ``weight_q8``, exactly.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.schemes.base.fields import KIND, SchemeSetting
from refmodel.compression.schemes.base.mapping import LayerMapping, Weight
from refmodel.config import MOST_OUS_PER_PATTERN
from refmodel.record import Record

WIDE_CONNECTED = 512
"""Inputs from which a fully connected layer is pruned as VGG16's hidden ones are."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class LayerSetting(Record):
    """How one layer is pruned: a scheme, and values for what schemes have to set.

    It has a field for everything that some scheme declares, and takes them as keywords:
    ``LayerSetting(scheme="prap", channels=2, positions=4, keep=0.375)``. The meaning and the limits
    of a field stand with the scheme that uses it, in the setting class of its module
    (:class:`refmodel.compression.schemes.prap.PrapSetting`); a scheme does not look at the others.

    Attributes
    ----------
    scheme
        A name in :data:`SCHEMES`.
    """

    scheme: str = "dense"

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, not {self.scheme!r}")
        for name, field in setting_fields().items():
            field.metadata[KIND].check(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True, eq=False)
class InputStatistics:
    """Covariances of what a layer multiplies its weights with, over images and positions.

    Attributes
    ----------
    channels
        Input channels in a block; the last block of each group of the convolution has what is left.
    blocks
        One float64 [rows, rows] to a block: rows by channel, then position of the kernel.
    """

    channels: int
    blocks: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """Sizes of a layer that a scheme's default setting depends on.

    Attributes
    ----------
    outputs, inputs
        Channels of one group of the convolution.
    kernel
        Positions of the kernel.
    fully_connected
        Whether the layer is a matrix product, not a 1x1 convolution.
    ou_rows
        R, rows of an operation unit.
    """

    outputs: int
    inputs: int
    kernel: int
    fully_connected: bool
    ou_rows: int

    def holds_whole(self, channels: int) -> bool:
        """Whether an engine adds up patterns of all rows of a group of so many channels."""
        return channels * self.kernel <= MOST_OUS_PER_PATTERN * self.ou_rows


SchemeFunction = Callable[[Weight, int, Any, int], LayerMapping]
LearnFunction = Callable[[Weight, int, Any, int, InputStatistics | None], LayerMapping]


def keeps_less(setting: Any) -> bool:
    """Whether a setting keeps less than everything, or has no share to say so."""
    return getattr(setting, "keep", 0) < 1


KEEPS = (0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.36, 0.44, 0.54, 0.64, 0.75, 0.87)
"""Shares that are tried with a budget, for schemes that keep one."""


def share_distance(setting: LayerSetting, default: LayerSetting) -> tuple[float, ...]:
    """How far two settings are apart in the share that they keep."""
    return (abs(setting.keep - default.keep),)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The choices for a layer whose setting is chosen by a budget.

    Attributes
    ----------
    variants
        (default, outputs, weigh_terms) -> the settings to try for a layer: ``default`` is what it
        would have, ``outputs`` those of a group of the convolution, and ``weigh_terms`` says
        whether merges have a price.
    keeps
        (setting, shape of the weights, groups) -> whether the setting keeps anything of a layer.
    distance
        How far a setting is from the default one, as numbers that are compared one by one: the
        sensitivity of a layer is measured with the nearest.
    quick
        Makes a setting that is mapped faster and tells candidates apart as well.
    learnt
        For schemes that learn from covariances, which takes long: the settings among some whose
        error is measured with them. Those of the others are measured without, and multiplied by
        what the covariances did to the error of the nearest. None: all are measured with.
    """

    variants: Callable[[LayerSetting, int, bool], list[LayerSetting]]
    keeps: Callable[[LayerSetting, tuple[int, ...], int], bool] = lambda *_: True
    distance: Callable[[LayerSetting, LayerSetting], tuple[float, ...]] = share_distance
    quick: Callable[[LayerSetting], LayerSetting] = lambda setting: setting
    learnt: Callable[[list[LayerSetting]], list[LayerSetting]] | None = None


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A scheme.

    Attributes
    ----------
    name
        Its name.
    map
        Maps a layer: (weight, groups, setting, ou_rows) -> mapping. The setting is one of the
        class ``setting``.
    default
        Setting of a layer that nobody tuned.
    applies
        Whether a setting, one of the class ``setting``, applies the scheme at all; otherwise the
        layer runs dense.
    setting
        Dataclass of the scheme's settings.
    learner
        For schemes that learn patterns: as ``map``, but to be given each output's weights times its
        gain, and the covariances of the layer's inputs, in blocks of ``channels`` channels.
    choices
        Settings from which a budget chooses; None where there is nothing to choose.
    """

    name: str
    map: SchemeFunction
    default: Callable[[LayerSize], LayerSetting]
    applies: Callable[[Any], bool]
    setting: type[SchemeSetting] = SchemeSetting
    learner: LearnFunction | None = None
    choices: Choices | None = None


_schemes: dict[str, Scheme] = {}

SCHEMES: Mapping[str, Scheme] = MappingProxyType(_schemes)
"""Schemes by name."""


def setting_fields() -> dict[str, dataclasses.Field[Any]]:
    """Give the fields that schemes declare, by name: those of :class:`LayerSetting` but scheme."""
    return {each.name: each for each in dataclasses.fields(LayerSetting) if each.name != "scheme"}


def register(
    name: str,
    default: Callable[[LayerSize], LayerSetting],
    applies: Callable[[Any], bool] = keeps_less,
    *,
    setting: type[SchemeSetting] = SchemeSetting,
    learner: LearnFunction | None = None,
    choices: Choices | None = None,
) -> Callable[[SchemeFunction], SchemeFunction]:
    """Enter the function that follows in :data:`SCHEMES`; the arguments are those of a `Scheme`.

    Raises
    ------
    ValueError
        A field of the setting has the name of another scheme's, and another kind or default.
    """
    known = setting_fields()
    for each in dataclasses.fields(setting):
        other = known.get(each.name, each)
        if (other.default, other.metadata) != (each.default, each.metadata):
            raise ValueError(
                f"{each.name} of scheme {name!r} must be what it is in other schemes: default "
                f"{other.default!r}, {other.metadata[KIND]!r}"
            )
    LayerSetting.declare(setting)

    def enter(function: SchemeFunction) -> SchemeFunction:
        _schemes[name] = Scheme(
            name=name,
            map=function,
            default=default,
            applies=applies,
            setting=setting,
            learner=learner,
            choices=choices,
        )
        return function

    return enter
