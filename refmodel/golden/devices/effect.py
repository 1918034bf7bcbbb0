"""Effects on cells and converters, and where the random numbers of a chip come from.

An effect is a file in :mod:`refmodel.golden.devices.effects`. It says which values of a device file
it has, and does one or several of these things:

- it changes the conductances of cells as they are programmed (:meth:`Effect.change_cells`), and
  what the reference column takes away (:meth:`Effect.reference`);
- it moves what converters see (:meth:`Effect.offsets`), the same at every read;
- it adds noise to every read (:meth:`Effect.noise`).

:class:`refmodel.golden.devices.chip.Chip` puts all effects together, in their order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of a device file.

    Attributes
    ----------
    name, unit
        Name in the file, and the unit that the file must name.
    default
        The value of an ideal device.
    least, most
        Limits; None where :meth:`Effect.check` has them.
    required
        Whether every device file must have it; the default holds in one that does not.
    """

    name: str
    unit: str
    default: float = 0.0
    least: float | None = None
    most: float | None = None
    required: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class CellDraw:
    """Cells of some OUs of a layer, all arrays [n, R, C].

    Attributes
    ----------
    level
        float64, levels that they are programmed to, 0 to ``top``.
    top
        The highest level.
    minus
        Whether they are the minus cells of pairs.
    words
        (stream) -> uint64, 64 random bits for each cell.
    """

    level: NDArray[np.float64]
    top: int
    minus: bool
    words: Callable[[int], NDArray[np.uint64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class ConverterDraw:
    """Columns of some OUs of a layer, all arrays [n, C].

    Attributes
    ----------
    words
        (stream) -> uint64, 64 random bits for each column.
    """

    words: Callable[[int], NDArray[np.uint64]]


class Effect:
    """Base class of an effect that makes cells or converters other than ideal.

    :func:`refmodel.golden.devices.device.register` adds a subclass to the effects of every device.
    The parameter ``device`` of the methods is the :class:`refmodel.golden.devices.device.Device`,
    which has the values of all effects as attributes. The methods of this class change nothing: a
    subclass overrides those for the parts of the hardware that it affects.

    Attributes
    ----------
    order
        Its place among the effects: cells are changed in ascending order.
    values
        Values that the effect reads from a device file.
    streams
        Numbers of the streams of random words that it draws from. No other effect has them; those
        from 6 on are free.
    """

    order: ClassVar[int]
    values: ClassVar[tuple[Value, ...]] = ()
    streams: ClassVar[tuple[int, ...]] = ()

    def check(self, device: Any) -> None:
        """Refuse values that do not go together: ValueError."""

    def varies(self, device: Any) -> bool:
        """Whether two chips of a device can differ by it."""
        del device
        return False

    def change_cells(self, device: Any, cells: CellDraw, conductance: NDArray[np.float64]) -> None:
        """Change conductances [n, R, C], in units of G_on, in place."""

    def reference(self, device: Any) -> float:
        """Give the factor on a reference column of off cells."""
        del device
        return 1.0

    def offsets(self, device: Any, converters: ConverterDraw) -> NDArray[np.float64] | None:
        """Offsets of columns [n, C], in codes; None for none."""
        del device, converters

    def noise(self, device: Any) -> float:
        """Standard deviation of a bitline from read to read, in currents of an on cell."""
        del device
        return 0.0
