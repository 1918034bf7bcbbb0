"""Frozen records that have a field for everything that somebody declares."""

import dataclasses
from dataclasses import MISSING, dataclass
from typing import Any


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Record:
    """A frozen dataclass to which fields can be added; a subclass is decorated in the same way.

    It takes its fields as keywords and can be copied with changes, compared, printed and pickled as
    a dataclass can. A record that was made before a field was declared has that field's default.
    """

    def __init__(self, **values: Any) -> None:
        for each in dataclasses.fields(self):
            value = values.pop(each.name, MISSING)
            if value is MISSING:
                value = _default(each)
            object.__setattr__(self, each.name, value)
        if values:
            name, kind = next(iter(values)), type(self).__name__
            raise TypeError(f"{kind}.__init__() got an unexpected keyword argument {name!r}")
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check the values; TypeError for the wrong kind, ValueError for the wrong value."""

    @classmethod
    def declare(cls, owner: type) -> None:
        """Add the fields of another dataclass, in their order, except those that are there."""
        for each in dataclasses.fields(owner):
            cls.__dataclass_fields__.setdefault(each.name, each)

    def __getattr__(self, name: str) -> Any:
        for each in dataclasses.fields(self):
            if each.name == name:
                return _default(each)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _items(self) -> tuple[tuple[str, Any], ...]:
        return tuple((each.name, getattr(self, each.name)) for each in dataclasses.fields(self))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._items() == other._items()

    def __hash__(self) -> int:
        return hash(self._items())

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self._items())
        return f"{type(self).__name__}({values})"


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
