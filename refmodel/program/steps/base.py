"""The description of a step between layers, and the table of all kinds of steps.

A kind of step is one file: how its parameters are checked when a program is read, what it computes,
and how the accelerator does it. The last is said in neutral words, without addresses: the
accelerator has a unit that pools and adds, and a step is one :class:`Pass` of it or several.
:mod:`refmodel.predict.accelerator.plan` knows where tensors lie and turns passes into operations.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from refmodel.program.values import Shape

Sides = tuple[int, int, int, int]
"""(top, left, bottom, right), in pixels."""


class UnsupportedError(Exception):
    """The accelerator cannot do a step; the message says what was found."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """An input of a step: the shape and the zero point of a tensor."""

    shape: Shape
    zero: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Moved:
    """Codes that a step only moves.

    Attributes
    ----------
    index
        int64 [codes of the output]: the place of each in the input, both in memory order; -1 where
        it has none.
    fill
        The code where there is none; None where all have a place.
    """

    index: NDArray[np.int64]
    fill: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """Codes of an input that a pass reads for each item of its loops.

    Attributes
    ----------
    source
        Number of the input.
    multiplier
        M of a sum.
    moved
        Rearrangement of the codes that are read; None: they are read as they lie.
    """

    source: int = 0
    multiplier: int = 0
    moved: Moved | None = None


@dataclass(frozen=True, kw_only=True)
class Window:
    """Windows of an input: kernel and stride (vertical, horizontal), and border, in pixels."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: Sides


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """One pass of the unit that pools and adds, over the items of three loops.

    It takes the largest code, or computes ::

        clip(floor((sum over reads k of M_k * sum of (code - z_k)) / 2^s + 1/2) + zero_out, lo, hi)

    or, of two reads, the product of their ``M_k * (code - z_k)`` in place of the sum. What comes
    out may be looked up in a table.

    Attributes
    ----------
    loops
        Rows, columns and channels: one code of the output each.
    reads
        One input, or two that are added.
    at
        (row, column, channel) of the output's code that is computed first.
    stride
        Rows and columns of the output from one that is computed to the next.
    unrolled
        Loops that do as well where ``loops`` cannot be read, and whose codes are written one behind
        the other; or None.
    window
        Windows that are read, in place of single codes, from that of ``at`` on; or None.
    maximum
        Whether it takes the largest code.
    product
        Whether it multiplies its two reads instead of adding them.
    tables
        int64 [1 or channels, 256]: tables that its outputs are looked up in; or None.
    shift, zero_out
        s, and the zero point of the output.
    clip
        (lo, hi), limits of the output's codes.
    """

    loops: Shape
    reads: tuple[Read, ...] = (Read(),)
    at: Shape = (0, 0, 0)
    stride: tuple[int, int] = (1, 1)
    unrolled: Shape | None = None
    window: Window | None = None
    maximum: bool = False
    product: bool = False
    tables: NDArray[np.int64] | None = None
    shift: int = 0
    zero_out: int = 0
    clip: tuple[int, int] = (0, 255)


class StepKind(ABC):
    """A kind of step; :func:`register` enters it in :data:`STEPS`.

    Attributes
    ----------
    op
        Its name in programs.
    words
        Its name in reports.
    inputs
        Number of its inputs; None: one or more.
    takes_views
        Whether it reads codes that another step would only have moved from where they lie.
    border_least
        Whether the border around its inputs has the least code, 0, and not their zero point.
    """

    op: ClassVar[str]
    words: ClassVar[str]
    inputs: ClassVar[int | None] = 1
    takes_views: ClassVar[bool] = False
    border_least: ClassVar[bool] = False

    @abstractmethod
    def check(
        self, params: Mapping[str, Any], inputs: Sequence[Shape], output: Shape, where: str
    ) -> None:
        """Check the parameters of a step that was read from a file.

        Parameters
        ----------
        params
            Parameters as the file has them, not checked yet: values of any type.
        inputs, output
            Shapes of the tensors that it reads and computes.
        where
            Begins every message.

        Raises
        ------
        InputError
            A parameter that is missing or out of its limits, or tensors of the wrong shapes.
        """

    @abstractmethod
    def run(self, inputs: Sequence[np.ndarray], params: Mapping[str, Any]) -> np.ndarray:
        """Compute output codes, uint8 [N, H, W, C], from input codes."""

    @abstractmethod
    def lower(
        self, params: Mapping[str, Any], inputs: Sequence[Source], output: Shape
    ) -> list[Pass]:
        """List the passes of the accelerator's pool unit that compute the step, in order.

        Parameters
        ----------
        params
            Parameters that :meth:`check` has accepted.
        inputs
            Shape and zero point of each input.
        output
            Shape (H, W, C) of the output.

        Raises
        ------
        UnsupportedError
            The pool unit cannot compute the step with these parameters.
        """

    def border(self, params: Mapping[str, Any]) -> Sides:
        """Border that it needs around its inputs."""
        del params
        return 0, 0, 0, 0

    def moved(self, params: Mapping[str, Any]) -> Moved | None:
        """Which codes it moves, if that is all that it does."""
        del params


_steps: dict[str, StepKind] = {}

STEPS: Mapping[str, StepKind] = MappingProxyType(_steps)
"""Kinds of steps between layers, by name."""


def register(kind: type[StepKind]) -> type[StepKind]:
    """Enter a kind of step in :data:`STEPS`; a decorator of its class."""
    _steps[kind.op] = kind()
    return kind
