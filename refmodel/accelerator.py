"""A whole network on the accelerator: where its tensors lie, and what is done to them, in order.

The accelerator is an engine or several, an activation memory that holds all tensors which are
alive, a unit that pools and adds, and a sequencer; ``docs/accelerator.md`` has the picture. All
layers are resident: the crossbars and the index memories hold the network, one layer behind the
other. From a program this module makes the list of operations that the sequencer runs, and predicts
its cycles.

**Engines.** Several engines are a tile (:mod:`refmodel.tile`): each layer is dealt out to them, and
every engine holds its parts of all layers, one behind the other, so each has places of its own.
Output parameters, and which engines have a share in an output, are the tile's. One engine holds
the layers themselves.

**Memory.** A tensor of shape (H, W, C) lies in a region: row by row, channels fastest, with the
border that the layers and pools which read it need, the widest on each side; a reader that needs
less begins further in. The border holds the tensor's zero point. It is written with the tensor, in
cycles in which no output arrives, and not once for all: regions share memory over time, so a border
does not last. Regions of tensors that are alive at the same time do not overlap; a tensor is alive
from the operation that writes it to the last one that reads it, both included. In a chain of layers
that is two buffers in turn.

**Operations.** ``image`` takes the network's input from the host; ``layer`` runs the engine, with
or without a residual operand; ``pool`` reads one or two operands a byte a cycle and either takes
the largest code of a window, or computes::

    clip(floor((sum over operands k of M_k * sum of (code - z_k)) / 2^s + 1/2) + zero_out, lo, hi)

That is every step of a program that is not a layer: max and average pooling, addition of two
tensors, requantisation (a window of one), limits and rearrangement (the maximum of a window of
one), concatenation (a requantisation of each input into its part of the output).

**Rearrangement.** An operand is read in three loops (row, column, channel) with a step of the
address to each, and only some channels may exist; the others are the zero point. So ResNet's
parameter-free shortcut (every second pixel, more channels) costs nothing where it is added: it is
no operation, but how the residual is read. Flattening an image is a ``pool`` of three loops in the
order of ONNX. What these three loops cannot read is refused.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from refmodel import golden
from refmodel.compile import MAX_OUTPUT_SIDE, engine_config_for, merge_steps, ou_count
from refmodel.config import ACTIVE_BITS, MOST_TAPS, SOURCES, EngineConfig, check_engines
from refmodel.cycles import EVENTS, Prediction, predict
from refmodel.errors import InputError
from refmodel.program import LayerProgram, Program, Step
from refmodel.tile import TilePrediction, deal, predict_tile, tile_config_for

Shape = tuple[int, int, int]
Sides = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Region:
    """Where a tensor lies, with its border.

    Attributes
    ----------
    base
        Address of the first byte of the border.
    shape
        (H, W, C) of the tensor.
    border
        (top, left, bottom, right), in pixels.
    """

    base: int
    shape: Shape
    border: Sides

    @property
    def pitch(self) -> int:
        """Bytes from a row to the next."""
        return (self.shape[1] + self.border[1] + self.border[3]) * self.shape[2]

    @property
    def size(self) -> int:
        """Bytes, with the border."""
        return (self.shape[0] + self.border[0] + self.border[2]) * self.pitch

    def address(self, row: int, column: int, channel: int = 0) -> int:
        """Address of a code; rows and columns count from the tensor's first, without border."""
        top, left, *_ = self.border
        return self.base + (row + top) * self.pitch + (column + left) * self.shape[2] + channel

    @property
    def addresses(self) -> np.ndarray:
        """Address of every code, int64 [H, W, C]."""
        height, width, channels = self.shape
        rows = np.arange(height)[:, None, None] * self.pitch
        return self.address(0, 0) + rows + np.arange(width * channels).reshape(1, width, channels)

    def fill(self, code: int) -> "Fill | None":
        """Give the writing of the border; None where there is none."""
        top, left, bottom, right = self.border
        height, width, channels = self.shape
        if not any(self.border):
            return None
        gap, between = width * channels, (left + right) * channels
        runs = [top * self.pitch + left * channels, *[between] * (height - 1)]
        runs.append(right * channels + bottom * self.pitch)
        if not between:
            # Rows lie one behind the other: there is a run above and one below.
            gap, runs = height * gap, [runs[0], runs[-1]]
        base = self.base
        if not runs[0]:
            base, runs = base + gap, runs[1:]
        if not runs[-1]:
            runs = runs[:-1]
        return Fill(
            base=base,
            first=runs[0],
            between=runs[1] if len(runs) > 2 else 0,
            last=runs[-1],
            gap=gap,
            runs=len(runs),
            code=code,
        )


@dataclass(frozen=True, kw_only=True)
class Fill:
    """How a border is written: runs of bytes, between which the tensor's rows lie. None is empty.

    Attributes
    ----------
    base
        Address of the first byte.
    first, between, last
        Bytes of the first run, of those between, and of the last.
    gap
        Bytes from the end of a run to the next.
    runs
        Number of runs, from 1 on.
    code
        What is written.
    """

    base: int
    first: int
    between: int
    last: int
    gap: int
    runs: int
    code: int

    @property
    def lengths(self) -> list[int]:
        """Bytes of each run."""
        return [self.first, *[self.between] * (self.runs - 2), self.last][: self.runs]

    @property
    def bytes(self) -> int:
        """Bytes of the border."""
        return sum(self.lengths)

    @property
    def addresses(self) -> np.ndarray:
        """Address of every byte of the border, int64 [bytes]."""
        starts = np.cumsum([0, *(run + self.gap for run in self.lengths[:-1])])
        runs = zip(starts, self.lengths, strict=True)
        return self.base + np.concatenate([start + np.arange(run) for start, run in runs])


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Addresses in three loops: ``base + row * row_step + column * column_step + channel * ...``.

    Steps are in bytes and may be negative.
    """

    base: int
    row_step: int
    column_step: int
    channel_step: int = 1

    def addresses(self, shape: Shape) -> np.ndarray:
        """Address of every item of loops of a shape, int64 [rows, columns, channels]."""
        rows, columns, channels = (np.arange(size) for size in shape)
        return (
            self.base
            + rows[:, None, None] * self.row_step
            + columns[:, None] * self.column_step
            + channels * self.channel_step
        )


@dataclass(frozen=True, kw_only=True)
class Operand:
    """What is read for each item of an operation's loops, beside what the engine gathers.

    Attributes
    ----------
    walk
        Address of the first code of the window of each item.
    first_channel, last_channel
        Channels of the loops that have a code; of others nothing is read, and the zero point
        stands for it.
    zero, multiplier
        z_k and M_k; the multiplier counts for sums of ``pool`` alone.
    """

    walk: Walk
    first_channel: int
    last_channel: int
    zero: int
    multiplier: int = 0


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


@dataclass(frozen=True, kw_only=True)
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
        Of a ``layer``: its number in the program.
    parts, places
        Of a ``layer``: to each engine what it runs of it, and where that is resident; None where it
        has nothing to do. One engine runs the layer itself. Engine 0 always has a part.
    operands
        Of a ``pool``: one or two; of a ``layer``: its residual, or none.
    kernel, tap_row_step, tap_column_step
        Of a ``pool``: (rows, columns) of the window, and the steps of the address in it.
    maximum
        Of a ``pool``: whether it takes the largest code instead of a sum.
    shift, zero_out
        Of a sum: s, and the zero point of the output.
    clip
        Of a ``pool``: limits of the output code.
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
    shift: int = 0
    zero_out: int = 0
    clip: tuple[int, int] = (0, 255)
    send: bool = False

    @property
    def place(self) -> Place | None:
        """Of a ``layer``: engine 0's place; input and output parameters are the same for all."""
        return self.places[0] if self.places else None

    @property
    def outputs(self) -> int:
        """Codes that it computes."""
        return prod(self.shape)

    @property
    def reads(self) -> int:
        """Bytes that a ``pool`` reads, or would read of channels that have none."""
        return self.outputs * prod(self.kernel) * len(self.operands)


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkImage:
    """A network on the accelerator.

    Attributes
    ----------
    operations
        What the sequencer runs, in order: the image first, the one that sends last.
    regions
        Tensor name to region; of those that are in memory.
    activation_bytes
        Bytes of the activation memory that the regions need.
    engines
        Engines that the layers are dealt out to.
    """

    operations: tuple[Operation, ...]
    regions: Mapping[str, Region]
    activation_bytes: int
    engines: int


def network_image(program: Program, config: EngineConfig, engines: int = 1) -> NetworkImage:
    """Lay out a program for the accelerator.

    Parameters
    ----------
    program
        The network.
    config
        Sizes of each engine, for the places of layers in crossbars and in the memory of reuse
        words, and for what sets its speed; depths of memories are not looked at (see
        :func:`accelerator_config_for`).
    engines
        N, 1 to 64. With several, :func:`refmodel.tile.deal` deals out each layer.

    Raises
    ------
    InputError
        A step that the accelerator cannot run; the message names it.
    """
    return _Planner(program, config, engines).image()


def _affine(addresses: np.ndarray) -> tuple[Walk, int, int] | None:
    """Find the three loops that give addresses [rows, columns, channels], -1 where there is none.

    Returns
    -------
    The walk, the first and last channel that have an address; None where no loops give them.
    """
    present = addresses >= 0
    channels = np.flatnonzero(present.any((0, 1)))
    if not len(channels):
        return None
    first, last = int(channels[0]), int(channels[-1])
    some = addresses[:, :, first : last + 1]
    if present[:, :, :first].any() or present[:, :, last + 1 :].any() or (some < 0).any():
        return None
    start = int(some[0, 0, 0])
    steps = [
        int(some[tuple(int(axis == k) for k in range(3))]) - start if some.shape[axis] > 1 else 0
        for axis in range(3)
    ]
    walk = Walk(base=start, row_step=steps[0], column_step=steps[1], channel_step=steps[2])
    if (walk.addresses(some.shape) != some).any():  # pyright: ignore[reportArgumentType]
        return None
    return replace(walk, base=start - first * steps[2]), first, last


class _Planner:
    """Chooses regions and operations."""

    def __init__(self, program: Program, config: EngineConfig, engines: int):
        check_engines(engines)
        self.program = program
        self.config = config
        self.engines = engines
        self.shapes: dict[str, Shape] = {
            name: tuple(info["shape"]) for name, info in program.tensors.items()
        }
        self.zeros = {name: int(info["zero"]) for name, info in program.tensors.items()}
        self.steps = self._needed()
        self.readers: dict[str, list[tuple[Step, int]]] = {name: [] for name in self.shapes}
        for step in self.steps:
            for number, name in enumerate(step.inputs):
                self.readers[name].append((step, number))
        self.regions: dict[str, Region] = {}
        self.views = {
            step.output: step for step in self.steps if step.op == "rearrange" and self._view(step)
        }

    def _needed(self) -> list[Step]:
        """Steps that the output depends on, in order."""
        wanted = {self.program.output}
        kept = []
        for step in reversed(self.program.steps):
            if step.output in wanted:
                kept.append(step)
                wanted.update(step.inputs)
        return kept[::-1]

    def _view(self, step: Step) -> bool:
        """Whether a rearrangement is only added to something, and so is read where it lies."""
        if step.output == self.program.output or self.shapes[step.output] == (1, 1, 1):
            return False
        if step.params.get("fill", self.zeros[step.output]) != self.zeros[step.output]:
            return False
        added = [
            reader.op == "add" or (reader.op == "layer" and number == 1)
            for reader, number in self.readers[step.output]
        ]
        return all(added) and self._loops(step, Region(
            base=0, shape=self.shapes[step.inputs[0]], border=(0, 0, 0, 0)
        ), self.shapes[step.output]) is not None  # fmt: skip

    def _loops(self, step: Step, source: Region, shape: Shape) -> tuple[Walk, int, int] | None:
        """The three loops of a shape that read what a rearrangement moves, if there are."""
        index = np.asarray(step.params["index"])
        addresses = np.where(index < 0, -1, source.addresses.reshape(-1)[index])
        return _affine(addresses.reshape(shape))

    # Where tensors lie.

    def _source(self, name: str) -> str:
        """The tensor in memory that a name is read from."""
        while name in self.views:
            name = self.views[name].inputs[0]
        return name

    def _border(self, name: str) -> Sides:
        """Border that the readers of a tensor need, the widest on each side."""
        sides = np.zeros(4, int)
        for step, number in self.readers[name]:
            if step.op == "layer" and number == 0:
                sides = np.maximum(sides, self.program.layers[step.params["index"]].pads)
            elif step.op in ("max_pool", "average_pool"):
                sides = np.maximum(sides, step.params["pads"])
        top, left, bottom, right = sides.tolist()
        return top, left, bottom, right

    def _allocate(self) -> int:
        """Place every tensor in memory; returns the bytes needed."""
        stored = [step for step in self.steps if step.output not in self.views]
        begin = {self.program.input: -1} | {step.output: i for i, step in enumerate(stored)}
        end = dict(begin)
        for i, step in enumerate(stored):
            for name in step.inputs:
                end[self._source(name)] = i
        if self._apart():
            end[self.program.output] = len(stored)
        drafts = {
            name: Region(base=0, shape=self.shapes[name], border=self._border(name))
            for name in begin
        }
        # The largest first, each as low as those that are alive with it allow.
        for name in sorted(begin, key=lambda name: (-drafts[name].size, begin[name])):
            taken = sorted(
                (region.base, region.base + region.size)
                for other, region in self.regions.items()
                if begin[other] <= end[name] and begin[name] <= end[other]
            )
            base = 0
            for low, high in taken:
                if base + drafts[name].size <= low:
                    break
                base = max(base, high)
            self.regions[name] = replace(drafts[name], base=base)
        return max(region.base + region.size for region in self.regions.values())

    # What is done.

    def _apart(self) -> bool:
        """Whether the output must be sent by an operation of its own: no one computes it in order.

        That of a concatenation is computed part by part; the input may be the output.
        """
        if self.program.output == self.program.input:
            return True
        (step,) = [step for step in self.steps if step.output == self.program.output]
        return step.op == "concat" and len(step.inputs) > 1

    def image(self) -> NetworkImage:
        size = self._allocate()
        residents = iter(self._residents())
        operations = [self._image()]
        for step in self.steps:
            if step.output in self.views:
                continue
            if step.op == "layer":
                operations.append(self._layer(step, *next(residents)))
            else:
                operations += self._pools(step)
        if self._apart():
            name = self.program.output
            operation = Operation(
                name=f"{name} (sent)",
                kind="pool",
                shape=self.shapes[name],
                output=self._written(name),
                operands=(self._operand(name, self.shapes[name]),),
                maximum=True,
            )
            operations.append(operation)
        operations[-1] = replace(operations[-1], send=True)
        for operation in operations:
            if max(operation.shape[:2]) > MAX_OUTPUT_SIDE:
                raise InputError(
                    f"expected at most {MAX_OUTPUT_SIDE} rows and columns, found "
                    f"{operation.shape[:2]}, in the tensor {operation.name!r}"
                )
        return NetworkImage(
            operations=tuple(operations),
            regions=dict(self.regions),
            activation_bytes=size,
            engines=self.engines,
        )

    def _written(self, name: str, at: Shape = (0, 0, 0)) -> Walk:
        """How a tensor's codes are written, from one of them on."""
        region = self.regions[name]
        return Walk(base=region.address(*at), row_step=region.pitch, column_step=region.shape[2])

    def _filled(self, name: str) -> Fill | None:
        return self.regions[name].fill(self.zeros[name])

    def _image(self) -> Operation:
        name = self.program.input
        return Operation(
            name=name,
            kind="image",
            shape=self.shapes[name],
            output=self._written(name),
            fill=self._filled(name),
        )

    def _residents(
        self,
    ) -> list[tuple[tuple[LayerProgram | None, ...], tuple[Place | None, ...]]]:
        """Each layer step's parts and where they are resident, in each engine one by one."""
        ends = [Counter[str]() for _ in range(self.engines)]
        output = 0
        result = []
        for step in self.steps:
            if step.op != "layer":
                continue
            layer = self.program.layers[step.params["index"]]
            region = self.regions[self._source(step.inputs[0])]
            top, left, *_ = layer.pads
            parts: tuple[LayerProgram | None, ...] = (layer,)
            if self.engines > 1:
                parts = tuple(deal(layer, self.engines, self.config))
            places = []
            for part, end in zip(parts, ends, strict=True):
                place = None
                if part is not None:
                    needs = resident_needs(part, self.config)
                    # One without reuse words begins where there are some, not behind the last.
                    step = end["step"] if needs["step"] else 0
                    place = Place(
                        **{**end, "step": step},
                        output=output,
                        base=region.address(-top, -left),
                        pitch=region.pitch,
                    )
                    end.update(needs)
                places.append(place)
            output += layer.out_shape[2]
            result.append((parts, tuple(places)))
        return result

    def _layer(
        self,
        step: Step,
        parts: tuple[LayerProgram | None, ...],
        places: tuple[Place | None, ...],
    ) -> Operation:
        index = step.params["index"]
        layer = self.program.layers[index]
        zeros = [self.zeros[name] for name in step.inputs]
        if any(layer.pads) and layer.zero_in != zeros[0]:
            raise self._refused(step, f"zero point {layer.zero_in} of a tensor that has {zeros[0]}")
        operands: tuple[Operand, ...] = ()
        if layer.residual:
            if layer.residual_zero != zeros[1]:
                found = f"zero point {layer.residual_zero} of a tensor that has {zeros[1]}"
                raise self._refused(step, found)
            operands = (self._operand(step.inputs[1], layer.out_shape),)
        return Operation(
            name=step.output,
            kind="layer",
            shape=layer.out_shape,
            output=self._written(step.output),
            fill=self._filled(step.output),
            layer=index,
            parts=parts,
            places=places,
            operands=operands,
        )

    def _operand(self, name: str, shape: Shape, multiplier: int = 0) -> Operand:
        """How a tensor, or a view of one, is read in its own loops."""
        zero = self.zeros[name]
        if name in self.views:
            step = self.views[name]
            if step.inputs[0] in self.views:
                raise self._refused(step, "a rearrangement of another")
            found = self._loops(step, self.regions[step.inputs[0]], shape)
            if found is None:
                raise self._refused(step, "codes that three loops cannot read")
            walk, first, last = found
        else:
            walk, first, last = self._written(name), 0, shape[2] - 1
        return Operand(
            walk=walk, first_channel=first, last_channel=last, zero=zero, multiplier=multiplier
        )

    def _refused(self, step: Step, found: str) -> InputError:
        return InputError(
            f"expected steps that the accelerator can run, found {found}, in the step "
            f"{step.op} that computes {step.output!r}"
        )

    def _pools(self, step: Step) -> list[Operation]:
        """The operations of a step that is no layer."""
        params, name = step.params, step.output
        first = self.shapes[step.inputs[0]]
        plain: dict[str, Any] = {
            "name": name,
            "kind": "pool",
            "shape": self.shapes[name],
            "output": self._written(name),
            "fill": self._filled(name),
        }
        match step.op:
            case "max_pool" | "average_pool":
                plain |= self._window(step)
                if step.op == "max_pool":
                    return [Operation(**plain, maximum=True)]
                sums = {"shift": params["shift"], "zero_out": params["zero_out"]}
                return [Operation(**plain, **sums)]
            case "add":
                operands = tuple(
                    self._operand(source, first, multiplier)
                    for source, multiplier in zip(step.inputs, params["multipliers"], strict=True)
                )
                self._same_zeros(step)
                return [Operation(**plain, operands=operands, **_sums(params))]
            case "clip":
                operands = (self._operand(step.inputs[0], first),)
                limits = (params["lo"], params["hi"])
                return [Operation(**plain, operands=operands, maximum=True, clip=limits)]
            case "concat":
                self._same_zeros(step)
                return self._concat(step, plain)
            case "rearrange":
                return [self._copy(step, plain)]
            case _:
                raise self._refused(step, "one that it has not")

    def _same_zeros(self, step: Step) -> None:
        """Refuse zero points of a step that are not those of the tensors."""
        zeros = [self.zeros[name] for name in step.inputs]
        if list(step.params["zeros_in"]) != zeros:
            raise self._refused(
                step, f"zero points {step.params['zeros_in']} of tensors that have {zeros}"
            )

    def _window(self, step: Step) -> dict[str, Any]:
        """How a pool reads its windows."""
        params, source = step.params, step.inputs[0]
        region, zero = self.regions[source], self.zeros[source]
        multiplier: Any = 0
        if step.op == "max_pool":
            if any(params["pads"]) and zero:
                raise self._refused(step, f"a border of zero points {zero}, which could win")
        else:
            multiplier = params["multiplier"]
            if isinstance(multiplier, np.ndarray):
                raise self._refused(step, "windows that count different numbers of codes")
            if params["zero_in"] != zero:
                raise self._refused(
                    step, f"zero point {params['zero_in']} of a tensor that has {zero}"
                )
        taps = prod(params["kernel"])
        if taps > MOST_TAPS:
            raise self._refused(step, f"windows of {taps} codes, more than {MOST_TAPS}")
        channels = region.shape[2]
        top, left, *_ = params["pads"]
        walk = Walk(
            base=region.address(-top, -left),
            row_step=params["stride"][0] * region.pitch,
            column_step=params["stride"][1] * channels,
        )
        operand = Operand(
            walk=walk, first_channel=0, last_channel=channels - 1, zero=zero, multiplier=multiplier
        )
        return {
            "operands": (operand,),
            "kernel": tuple(params["kernel"]),
            "tap_row_step": region.pitch,
            "tap_column_step": channels,
        }

    def _concat(self, step: Step, plain: dict[str, Any]) -> list[Operation]:
        """A requantisation of each input into its part of the output."""
        params = step.params
        at = [0, 0, 0]
        operations = []
        for source, multiplier in zip(step.inputs, params["multipliers"], strict=True):
            shape = self.shapes[source]
            changed = {
                "name": step.output if len(step.inputs) == 1 else f"{step.output} ({source})",
                "shape": shape,
                "output": self._written(step.output, (at[0], at[1], at[2])),
                "fill": None if operations else plain["fill"],
                "operands": (self._operand(source, shape, multiplier),),
            }
            operations.append(Operation(**plain | changed, **_sums(params)))
            at[params["axis"]] += shape[params["axis"]]
        return operations

    def _copy(self, step: Step, plain: dict[str, Any]) -> Operation:
        """Move codes in three loops: those of the output, or of the input in the order of ONNX."""
        source = self.regions[step.inputs[0]]
        height, width, channels = source.shape
        orders = [self.shapes[step.output]]
        if self.shapes[step.output] == (1, 1, prod(source.shape)):
            orders.append((channels, height, width))
        for order in orders:
            found = self._loops(step, source, order)
            if found is None:
                continue
            walk, first, last = found
            output = plain["output"]
            if order != self.shapes[step.output]:
                # The vector's codes in the loops of the image: one behind the other as they come.
                output = replace(output, row_step=order[1] * order[2], column_step=order[2])
            zero = step.params.get("fill", 0)
            operand = Operand(walk=walk, first_channel=first, last_channel=last, zero=zero)
            changed = {"shape": order, "output": output, "operands": (operand,), "maximum": True}
            return Operation(**plain | changed)
        raise self._refused(step, "codes that three loops cannot read")


def _sums(params: Mapping[str, Any]) -> dict[str, Any]:
    """Requantisation of an addition or concatenation."""
    low, high = params["clip"]
    return {"shift": params["shift"], "zero_out": params["zero_out"], "clip": (low, high)}


OUTPUT_REGISTERS = (
    *("last_row", "last_column", "last_channel"),
    *("output_base", "output_row_step", "output_column_step"),
    *("source", "send", "fill"),
)
"""Registers that every operation sets: its loops, how outputs are written, where they come from."""

FILL_REGISTERS = (
    *("fill_base", "fill_first", "fill_between", "fill_last", "fill_gap"),
    *("fill_more", "fill_code"),
)
"""Registers that an operation with a border sets."""

OPERAND_REGISTERS = (
    *("base", "row_step", "column_step", "channel_step"),
    *("first_channel", "last_channel", "zero", "multiplier"),
)
"""Registers of each operand, here without the number before them."""

WINDOW_REGISTERS = (
    *("last_operand", "last_tap_row", "last_tap_column", "tap_row_step", "tap_column_step"),
)
"""Registers that an operation with operands sets beside those of the operands."""

POOL_REGISTERS = ("maximum", "shift", "zero_out", "clip_lo", "clip_hi")
"""Registers that a pool sets."""

OWN_REGISTERS = (
    *("last_descriptor", "last_segment", "last_header", "last_step"),
    *("first_descriptor", "first_segment", "first_header", "first_step", "first_crossbar"),
)
"""Layer registers that each of several engines has for itself: how much it has, and where."""


@dataclass(frozen=True, kw_only=True)
class Registers:
    """What the sequencer loads before an operation, one word a cycle.

    Attributes
    ----------
    engine
        Layer registers that go to every engine, by name; empty where none runs. One engine alone
        has all of its registers here.
    table
        Address offsets of the kernel positions, for every engine.
    post
        Registers of post-processing, by name.
    own
        With several engines: number of each that takes part, to its :data:`OWN_REGISTERS`.
    active
        With several engines: which of them take part, a bit each, :data:`ACTIVE_BITS` to a word.
    """

    engine: Mapping[str, int]
    table: tuple[int, ...]
    post: Mapping[str, int]
    own: Mapping[int, Mapping[str, int]]
    active: tuple[int, ...]

    @property
    def words(self) -> int:
        """Words of all of them."""
        own = sum(len(each) for each in self.own.values())
        return len(self.engine) + len(self.table) + len(self.post) + own + len(self.active)


def registers(
    operation: Operation, layers: Sequence[LayerProgram], config: EngineConfig
) -> Registers:
    """Give what an operation needs in the registers."""
    last = {
        f"last_{name}": size - 1
        for name, size in zip(("row", "column", "channel"), operation.shape, strict=True)
    }
    output = operation.output
    post = last | {
        "output_base": output.base,
        "output_row_step": output.row_step,
        "output_column_step": output.column_step,
        "source": SOURCES.index(operation.kind),
        "send": int(operation.send),
        "fill": int(operation.fill is not None),
    }
    fill = operation.fill
    if fill is not None:
        values = (fill.base, fill.first, fill.between, fill.last, fill.gap)
        values += (fill.runs - 1, fill.code)
        post |= dict(zip(FILL_REGISTERS, values, strict=True))
    for number, operand in enumerate(operation.operands):
        walk = operand.walk
        values = (walk.base, walk.row_step, walk.column_step, walk.channel_step)
        values += (operand.first_channel, operand.last_channel, operand.zero, operand.multiplier)
        names = (f"{name}_{number}" for name in OPERAND_REGISTERS)
        post |= dict(zip(names, values, strict=True))
    if operation.operands:
        down, across = operation.kernel
        values = (len(operation.operands) - 1, down - 1, across - 1)
        values += (operation.tap_row_step, operation.tap_column_step)
        post |= dict(zip(WINDOW_REGISTERS, values, strict=True))
    if operation.kind == "pool":
        values = (int(operation.maximum), operation.shift, operation.zero_out, *operation.clip)
        post |= dict(zip(POOL_REGISTERS, values, strict=True))
    if operation.layer is None:
        return Registers(engine={}, table=(), post=post, own={}, active=())
    layer, place = layers[operation.layer], operation.place
    assert place is not None
    table = kernel_table(layer, place.pitch)
    common = engine_registers(layer, config.merge_lanes, place) | place_registers(layer, place)
    own: dict[int, dict[str, int]] = {}
    active: list[int] = []
    if len(operation.parts) > 1:
        for n, (part, place) in enumerate(zip(operation.parts, operation.places, strict=True)):
            if part is not None and place is not None:
                each = engine_registers(part, config.merge_lanes, place)
                each |= place_registers(part, place)
                own[n] = {name: each[name] for name in OWN_REGISTERS}
        common = {name: common[name] for name in common if name not in OWN_REGISTERS}
        mask = sum(1 << n for n in own)
        for first in range(0, len(operation.parts), ACTIVE_BITS):
            active.append(mask >> first & (1 << ACTIVE_BITS) - 1)
    return Registers(
        engine=common,
        table=table,
        post=post,
        own=own,
        active=tuple(active),
    )


def engine_registers(layer: LayerProgram, lanes: int, place: Place | None = None) -> dict[str, int]:
    """Give the layer registers that every engine has.

    Parameters
    ----------
    lanes
        ``merge_lanes`` of the engine.
    place
        Where the layer is resident; None: at the beginning, its input with its own border.
    """
    channels = layer.in_shape[2]
    if place is None:
        place = Place(pitch=layer.padded_shape[1] * channels)
    needs = _index_needs(layer, lanes)
    return {
        "last_column": layer.out_shape[1] - 1,
        "last_row": layer.out_shape[0] - 1,
        "column_step": layer.stride[1] * channels,
        "row_step": layer.stride[0] * place.pitch,
        "last_descriptor": place.descriptor + needs["descriptor"] - 1,
        "last_segment": place.segment + needs["segment"] - 1,
        "last_header": place.header + needs["header"] - 1,
        "last_step": place.step + max(needs["step"] - 1, 0),
        "last_output": layer.out_shape[2] - 1,
        "last_term": layer.terms - 1,
        "identity": int(layer.identity),
        "full_offsets": int(layer.full_offsets),
        "zero_out": layer.zero_out,
        "clip_lo": layer.clip_lo,
        "clip_hi": layer.clip_hi,
    }


def place_registers(layer: LayerProgram, place: Place) -> dict[str, int]:
    """Give the layer registers that an engine of an accelerator has beside those."""
    return {
        "base": place.base,
        "first_descriptor": place.descriptor,
        "first_segment": place.segment,
        "first_header": place.header,
        "first_step": place.step,
        "first_output": place.output,
        "first_crossbar": place.crossbar,
        "residual": int(layer.residual),
        "residual_zero": layer.residual_zero,
        "residual_multiplier": layer.residual_multiplier,
        "residual_shift": layer.residual_shift,
    }


def kernel_table(layer: LayerProgram, pitch: int) -> tuple[int, ...]:
    """Address offset of each kernel position, in an input of a pitch."""
    return tuple(
        row * layer.dilation[0] * pitch + column * layer.dilation[1] * layer.in_shape[2]
        for row in range(layer.kernel[0])
        for column in range(layer.kernel[1])
    )


def accelerator_config_for(
    program: Program, base: EngineConfig | None = None, engines: int = 1
) -> EngineConfig:
    """Size the engines of an accelerator on which all layers of a program are resident.

    Sizes are those of :func:`refmodel.compile.engine_config_for`, and with several engines of
    :func:`refmodel.tile.tile_config_for`, but memories and crossbars hold the layers, or the parts
    of the engine that needs most, together, and the activation memory the tensors that are alive.

    Raises
    ------
    InputError
        A layer, or all of them together, need more than any engine has; or a step is not one that
        the accelerator can run.
    """
    check_engines(engines)
    if engines == 1:
        fitted = engine_config_for(program.layers, base)
    else:
        fitted = tile_config_for(program.layers, engines, base)
    image = network_image(program, fitted, engines)
    sizes = {
        name: need if name == "crossbars" else 1 << (need - 1).bit_length()
        for name, need in network_needs(image, program.layers, fitted).items()
    }
    sizes["activation_bytes"] = max(64, sizes["activation_bytes"])
    try:
        return replace(fitted, network=True, **sizes)
    except ValueError as error:
        raise InputError(f"expected a network that one engine holds, found {error}") from None


def network_needs(
    image: NetworkImage, layers: Sequence[LayerProgram], config: EngineConfig
) -> dict[str, int]:
    """What all layers and tensors of a network need together, by the field of EngineConfig.

    Of several engines, what the one needs that needs most.
    """
    engines = [Counter[str]() for _ in range(image.engines)]
    outputs = 0
    for operation in image.operations:
        if operation.layer is None:
            continue
        outputs += layers[operation.layer].out_shape[2]
        for part, engine in zip(operation.parts, engines, strict=True):
            if part is not None:
                engine.update(resident_needs(part, config))
    totals = {name: max(engine[name] for engine in engines) for name in RESIDENT}
    needs = {
        "max_gathers": totals["descriptor"],
        "max_segments": totals["segment"],
        "max_groups": totals["header"],
        "max_words": totals["step"] * config.merge_lanes,
        "max_params": outputs,
        "crossbars": totals["crossbar"],
        "activation_bytes": image.activation_bytes,
    }
    return {name: max(1, need) for name, need in needs.items()}


def check_resident(
    image: NetworkImage, layers: Sequence[LayerProgram], config: EngineConfig
) -> None:
    """Check that each engine can hold all layers, or its parts of them, and tensors of a network.

    Raises
    ------
    InputError
        Names the limit that the network exceeds, what it is, and what the network needs.
    """
    for name, need in network_needs(image, layers, config).items():
        limit = config.params if name == "max_params" else getattr(config, name)
        if need > limit:
            raise InputError(
                f"expected {name} of at most {limit} for all layers together, found {need}"
            )


# Cycles.

NEXT_WORD = 1
"""Cycles from start accepted, or from the end of an operation, to the next word taken."""

FIRST_ITEM = 2
"""Cycles from an operation's start to its first byte read at the pool."""

POOL_LATENCY = 4
"""Cycles from the last byte of a window at the pool to the output: difference and product, sum,
shift, clip."""


@dataclass(frozen=True, kw_only=True)
class NetworkPrediction:
    """What one image costs on the accelerator.

    Attributes
    ----------
    cycles
        From start accepted to the end of the last operation, with everything loaded, the image as
        well, and ``o`` always ready.
    image
        From the first word of the list to the end of the operation that takes the image, its bytes
        being there.
    operations
        Per operation its name, kind, ``words`` loaded before it, ``cycles`` from its start to its
        end, and ``filled``, bytes of border that it writes.
    layers
        To each ``layer`` operation, in order, the prediction of the engine alone, or of the tile.
    """

    cycles: int
    image: int
    operations: tuple[Mapping[str, Any], ...]
    layers: tuple[Prediction | TilePrediction, ...]

    @property
    def events(self) -> dict[str, int]:
        """What the counters have in the end, of all layers and engines together."""
        total: dict[str, int] = dict.fromkeys((*EVENTS, "stall_gather", "stall_slots"), 0)
        for layer in self.layers:
            engines: Sequence[Prediction | None] = [layer] if isinstance(layer, Prediction) else ()
            if isinstance(layer, TilePrediction):
                engines = layer.engines
                total["outputs"] += layer.positions * layer.outputs
            for engine in engines:
                for name in total if engine is not None else ():
                    total[name] += getattr(engine, name)
        return total


def predict_network(
    image: NetworkImage, layers: Sequence[LayerProgram], config: EngineConfig
) -> NetworkPrediction:
    """Predict the cycles of one image of a network.

    An operation ends when its last output is accepted and its border is written. One byte a cycle
    is written; outputs go before the border, so an operation takes as long as its outputs do, or as
    many cycles as there are bytes where that is more. Between two operations the registers are
    loaded, a word a cycle, and the operation is started in a cycle of its own.
    """
    total = before = 0
    operations = []
    predictions = []
    for operation in image.operations:
        words = registers(operation, layers, config).words
        if operation.layer is not None:
            if image.engines == 1:
                prediction = predict(layers[operation.layer], config)
            else:
                prediction = predict_tile(operation.parts, config)
            predictions.append(prediction)
            cycles = prediction.cycles
        elif operation.kind == "pool":
            cycles = FIRST_ITEM - 1 + operation.reads + POOL_LATENCY
        else:
            cycles = operation.outputs
        filled = 0 if operation.fill is None else operation.fill.bytes
        cycles = max(cycles, operation.outputs + filled)
        if operation.kind == "image":
            before += words + cycles
        else:
            total += NEXT_WORD + words + cycles
        operations.append(
            {
                "name": operation.name,
                "kind": operation.kind,
                "words": words,
                "cycles": cycles,
                "filled": filled,
            }
        )
    return NetworkPrediction(
        cycles=total, image=before, operations=tuple(operations), layers=tuple(predictions)
    )


RESIDENT = ("descriptor", "segment", "header", "step", "crossbar")
"""Fields of :class:`Place` that count what an engine holds."""


def resident_needs(layer: LayerProgram, config: EngineConfig) -> dict[str, int]:
    """What a layer, or a part of one, takes of an engine's memories and crossbars.

    Returns
    -------
    To each of :data:`RESIDENT` words, or crossbars: a layer begins with one of its own.
    """
    crossbars = -(-ou_count(layer, config) // config.ous_per_crossbar)
    return {**_index_needs(layer, config.merge_lanes), "crossbar": crossbars}


def _index_needs(layer: LayerProgram, lanes: int) -> dict[str, int]:
    """Words that a layer takes of the index memories."""
    return {
        "descriptor": len(layer.gather_base),
        "segment": len(layer.segment_position),
        "header": len(layer.group_kept),
        "step": 0 if layer.identity else int(merge_steps(layer, lanes).sum()),
    }


# What the operations compute, over a flat memory.


def run_image(
    image: NetworkImage, layers: Sequence[LayerProgram], codes: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Run the operations of a network over a flat memory, as the accelerator does.

    Nothing is looked at but addresses: a region that overlaps another, or a border that was not
    written, shows in the result. The memory holds random bytes at first.

    Parameters
    ----------
    codes
        uint8 [N, H, W, C].
    seed
        Draws what the memory holds at first.

    Returns
    -------
    uint8 [N, values]: what is sent to the host.
    """
    count = len(codes)
    rng = np.random.default_rng(seed)
    memory = rng.integers(0, 256, (count, image.activation_bytes)).astype(np.uint8)
    sent = np.zeros((count, 0), np.uint8)
    for operation in image.operations:
        if operation.kind == "image":
            result = codes
        elif operation.kind == "layer":
            result = _run_layer(operation, layers, memory)
        else:
            result = _run_pool(operation, memory)
        memory[:, operation.output.addresses(operation.shape)] = result
        if operation.fill is not None:
            memory[:, operation.fill.addresses] = operation.fill.code
        if operation.send:
            sent = result.reshape(count, -1)
    return sent


def _taps(operation: Operation, operand: Operand, memory: np.ndarray) -> np.ndarray:
    """Codes of an operand, uint8 [N, rows, columns, channels, taps]."""
    present = slice(operand.first_channel, operand.last_channel + 1)
    first = operand.walk.addresses(operation.shape)[:, :, present]
    down, across = (np.arange(size) for size in operation.kernel)
    steps = down[:, None] * operation.tap_row_step + across * operation.tap_column_step
    codes = np.full((len(memory), *operation.shape, steps.size), operand.zero, np.uint8)
    codes[:, :, :, present] = memory[:, first[..., None] + steps.reshape(-1)]
    return codes


def _run_pool(operation: Operation, memory: np.ndarray) -> np.ndarray:
    if operation.maximum:
        result = _taps(operation, operation.operands[0], memory).max(-1).astype(np.int64)
    else:
        total: Any = 0
        for operand in operation.operands:
            taps = _taps(operation, operand, memory).astype(np.int64)
            total = total + (taps - operand.zero).sum(-1) * operand.multiplier
        result = golden.divide(total, operation.shift) + operation.zero_out
    return np.clip(result, *operation.clip).astype(np.uint8)


def _run_layer(
    operation: Operation, layers: Sequence[LayerProgram], memory: np.ndarray
) -> np.ndarray:
    """Run a layer on its input as it lies in memory, border and all."""
    assert operation.layer is not None
    assert operation.place is not None
    layer = layers[operation.layer]
    height, width, channels = layer.padded_shape
    place = operation.place
    walk = Walk(base=place.base, row_step=place.pitch, column_step=channels)
    seen = memory[:, walk.addresses((height, width, channels))]
    residual = None
    if operation.operands:
        residual = _taps(operation, operation.operands[0], memory)[..., 0]
    bare = replace(layer, in_shape=layer.padded_shape, pads=(0, 0, 0, 0))
    return golden.run_layer(bare, seen, residual)
