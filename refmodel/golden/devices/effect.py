"""Effects on cells and converters, and where the random numbers of a chip come from.

An effect is a file in :mod:`refmodel.golden.devices.effects`. It says which values of a device file
it has, and does one or several of these things:

- it changes the conductances of cells (:meth:`Effect.change_cells`), as they are written
  (:attr:`Effect.written`) or afterwards, and what the reference column takes away
  (:meth:`Effect.reference`);
- it has cells written again that are off their target (:meth:`Effect.again`);
- it changes what cells of an OU add together to their bitlines (:meth:`Effect.change_array`);
- it changes what converters make of a current, the same at every read (:meth:`Effect.gain`,
  :meth:`Effect.gains`, :meth:`Effect.offsets`, :meth:`Effect.thresholds`);
- it adds noise to every read (:meth:`Effect.noise`, :meth:`Effect.code_noise`).

:class:`refmodel.golden.devices.chip.Chip` puts all effects together, in their order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
    read
        Reads the value from a file that the device file names, whose path is relative to it; the
        value is a tuple of tuples of numbers then. None: the value is a number.
    """

    name: str
    unit: str
    default: Any = 0.0
    least: float | None = None
    most: float | None = None
    required: bool = False
    read: Callable[[Path], tuple[tuple[float, ...], ...]] | None = None


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
        (stream) -> uint64, 64 random bits for each cell; others at each time that cells are
        written.
    """

    level: NDArray[np.float64]
    top: int
    minus: bool
    words: Callable[[int], NDArray[np.uint64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayDraw:
    """Where some OUs of a layer lie in their crossbars.

    Attributes
    ----------
    row, column
        int64 [n], first wordline and first bitline of each.
    size
        Wordlines and bitlines of a crossbar.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ConverterDraw:
    """Columns of some OUs of a layer, all arrays [n, C].

    Attributes
    ----------
    words
        (stream) -> uint64, 64 random bits for each column.
    steps
        float64 [T], the numbers of the codes that a converter's thresholds lie below: threshold k
        of an ideal one is k - 1/2.
    step_words
        (stream) -> uint64 [n, C, T], 64 random bits for each threshold.
    """

    words: Callable[[int], NDArray[np.uint64]]
    steps: NDArray[np.float64]
    step_words: Callable[[int], NDArray[np.uint64]]


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
        Numbers of the streams of random words that it draws from. No other effect has them; 6, 7
        and those from 20 on are free.
    written
        Whether :meth:`change_cells` is what happens at each time that a cell is written: those
        effects come before all others, and cells that are written again are changed anew.
    """

    order: ClassVar[int]
    values: ClassVar[tuple[Value, ...]] = ()
    streams: ClassVar[tuple[int, ...]] = ()
    written: ClassVar[bool] = False

    def check(self, device: Any) -> None:
        """Refuse values that do not go together: ValueError."""

    def acts(self, device: Any) -> bool:
        """Whether a device has the effect: any of its values is not that of an ideal device."""
        return any(getattr(device, each.name) != each.default for each in self.values)

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

    def writes(self, device: Any) -> int:
        """Give how often a cell is written at most."""
        del device
        return 1

    def again(
        self, device: Any, target: NDArray[np.float64], conductance: NDArray[np.float64]
    ) -> NDArray[np.bool_] | None:
        """Which cells [n, R, C] are written again; None for none."""
        del device, target, conductance

    def change_array(
        self, device: Any, array: ArrayDraw, conductance: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Give what each cell [n, R, C] adds to its bitline, for a volt on its wordline alone."""
        del device, array
        return conductance

    def gain(self, device: Any) -> float:
        """Give the factor by which converters amplify currents and their noise."""
        del device
        return 1.0

    def gains(self, device: Any, converters: ConverterDraw) -> NDArray[np.float64] | None:
        """Factors of columns [n, C] on currents without their noise; None for none."""
        del device, converters

    def offsets(self, device: Any, converters: ConverterDraw) -> NDArray[np.float64] | None:
        """Offsets of columns [n, C], in codes; None for none."""
        del device, converters

    def thresholds(self, device: Any, converters: ConverterDraw) -> NDArray[np.float64] | None:
        """By how many codes thresholds [n, C, T] lie too high; None for none."""
        del device, converters

    def noise(self, device: Any) -> float:
        """Standard deviation of a bitline from read to read, in currents of an on cell."""
        del device
        return 0.0

    def code_noise(self, device: Any) -> float:
        """Standard deviation of a converter from read to read, in codes."""
        del device
        return 0.0
