"""The operations of a network on the accelerator, and where their operands lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from refmodel.predict.accelerator.regions import Fill, Operand, Region, Shape, Walk
from refmodel.program.layer import LayerProgram


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a resident layer, or a part of one, begins: in an engine's memories and its input.

    Attributes
    ----------
    descriptor, segment, header, step, output
        First gather descriptor, segment, group header, step of reuse words; first output
        parameter, the same for all engines.
    crossbar
        First crossbar; a layer begins with one.
    base
        Address of the first code that its first output position may read.
    pitch
        Bytes from a row of its input to the next.
    """

    descriptor: int = 0
    segment: int = 0
    header: int = 0
    step: int = 0
    output: int = 0
    crossbar: int = 0
    base: int = 0
    pitch: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One entry of the sequencer's list.

    Attributes
    ----------
    name
        The tensor that it computes; for messages and reports.
    kind
        ``image``, ``layer`` or ``pool``.
    shape
        Rows, columns and channels of its loops: one output each, channels fastest.
    output
        Where outputs are written.
    fill
        The border that is written beside them, or None.
    layer
        The number of a ``layer`` in the program.
    parts, places
        For a ``layer``: the part of it that each engine runs, and where that is resident; None
        where an engine has nothing to do. One engine runs the layer itself. Engine 0 always has a
        part.
    operands
        A ``pool`` has one or two, a ``layer`` its residual, or none.
    kernel, tap_row_step, tap_column_step
        For a ``pool``: (rows, columns) of the window, and the steps of the address in it.
    maximum
        For a ``pool``: whether it takes the largest code instead of a sum.
    product
        For a ``pool``: whether it multiplies its two operands instead of adding them.
    tables, first_table
        Tables, int64 [1 or channels, 256], that its outputs are looked up in on their way to
        memory, or None; and the number of the first of them in the memory of tables.
    shift, zero_out
        For a sum: s, and the zero point of the output.
    clip
        For a ``pool``: limits of the output code.
    send
        Whether the outputs also go to the host: those of the last operation.
    """

    name: str
    kind: str
    shape: Shape
    output: Walk
    fill: Fill | None = None
    layer: int | None = None
    parts: tuple[LayerProgram | None, ...] = ()
    places: tuple[Place | None, ...] = ()
    operands: tuple[Operand, ...] = ()
    kernel: tuple[int, int] = (1, 1)
    tap_row_step: int = 0
    tap_column_step: int = 0
    maximum: bool = False
    product: bool = False
    tables: NDArray[np.int64] | None = None
    first_table: int = 0
    shift: int = 0
    zero_out: int = 0
    clip: tuple[int, int] = (0, 255)
    send: bool = False

    @property
    def place(self) -> Place | None:
        """Place of a ``layer`` in engine 0; input and output parameters are the same for all."""
        return self.places[0] if self.places else None

    @property
    def outputs(self) -> int:
        """Codes that it computes."""
        return prod(self.shape)

    @property
    def reads(self) -> int:
        """Bytes of its operands, or that it would read of channels that have none."""
        return self.outputs * prod(self.kernel) * len(self.operands)


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkImage:
    """A network on the accelerator.

    Attributes
    ----------
    operations
        Operations of the sequencer, in order: the image first, the one that sends last.
    regions
        Tensor name to region; of those that are in memory.
    activation_bytes
        Bytes of the activation memory that the regions need.
    engines
        Engines that the layers are dealt out to.
    tables
        Tables of all operations, int64 [tables, 256], each once.
    """

    operations: tuple[Operation, ...]
    regions: Mapping[str, Region]
    activation_bytes: int
    engines: int
    tables: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 256), np.int64))
