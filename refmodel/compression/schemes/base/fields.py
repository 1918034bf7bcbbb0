"""Settings that a scheme declares: their kinds, their limits, and how their text is read.

A scheme with something to set has a dataclass, derived from :class:`SchemeSetting`, in its file::

    @dataclass(frozen=True, kw_only=True)
    class OrcSetting(SchemeSetting):
        keep: float = share(1.0)

A field of the same name means the same in every scheme: the same kind, limits and default.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, Self

from refmodel.compression.prune import check_share

KIND = "kind"
"""Key of a field's metadata."""


class Kind(Protocol):
    """A kind of value."""

    def check(self, name: str, value: Any) -> None:
        """Refuse what is no such value: TypeError, ValueError."""
        ...

    def read(self, text: str) -> Any:
        """Read a value from the text of an option; ValueError where it is none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Integer:
    """An integer from ``least`` to ``most``."""

    least: int
    most: int

    def check(self, name: str, value: Any) -> None:
        """Refuse everything else."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, not {value!r}")
        if not self.least <= value <= self.most:
            raise ValueError(f"{name} must be {self.least} to {self.most}, not {value!r}")

    def read(self, text: str) -> int:
        """Read digits."""
        return int(text)


@dataclass(frozen=True)
class Share:
    """A number from 0 to 1."""

    def check(self, name: str, value: Any) -> None:
        """Refuse everything else."""
        check_share(name, value)

    def read(self, text: str) -> float:
        """Read a decimal number."""
        return float(text)


@dataclass(frozen=True)
class Switch:
    """True or false."""

    def check(self, name: str, value: Any) -> None:
        """Refuse everything else."""
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be a bool, not {value!r}")

    def read(self, text: str) -> bool:
        """Read ``true`` or ``false``."""
        if text not in ("true", "false"):
            raise ValueError(f"expected true or false, not {text!r}")
        return text == "true"


def setting_field(default: Any, kind: Kind) -> Any:
    """Declare a field of a kind: what :func:`integer`, :func:`share` and :func:`switch` do."""
    return dataclasses.field(default=default, metadata={KIND: kind})


def integer(default: int, least: int, most: int) -> Any:
    """Declare a field that holds an integer."""
    return setting_field(default, Integer(least=least, most=most))


def share(default: float = 1.0) -> Any:
    """Declare a field that holds a share, 0 to 1."""
    return setting_field(default, Share())


def switch(default: bool) -> Any:
    """Declare a field that is on or off."""
    return setting_field(default, Switch())


def channels_field() -> Any:
    """Declare ``channels``, C_g: input channels in a group."""
    return integer(1, 1, 4096)


def positions_field() -> Any:
    """Declare ``positions``, V: kept positions of the kernel."""
    return integer(8, 1, 4096)


@dataclass(frozen=True, kw_only=True)
class SchemeSetting:
    """The settings of a scheme for a layer; this base class has none."""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            each.metadata[KIND].check(each.name, getattr(self, each.name))

    @classmethod
    def of(cls, setting: Any) -> Self:
        """Take the fields of this scheme from something that has them as attributes."""
        return cls(**{each.name: getattr(setting, each.name) for each in dataclasses.fields(cls)})
