"""Lay a network out: regions of the activation memory, and the operations in their order.

The accelerator is an engine or several, an activation memory that holds all tensors which are
alive, a unit that pools and adds, and a sequencer; ``docs/accelerator.md`` has the picture. All
layers are resident: the crossbars and the index memories hold the network, one layer behind the
other.

**Engines.** Several engines are a tile (:mod:`refmodel.predict.deal`): each layer is dealt out to
them, and every engine holds its parts of all layers, one behind the other, so each has places of
its own. Output parameters, and which engines have a share in an output, are the tile's. One engine
holds the layers themselves.

**Memory.** Regions of tensors that are alive at the same time do not overlap; a tensor is alive
from the operation that writes it to the last one that reads it, both included. In a chain of layers
that is two buffers in turn.

**Operations.** ``image`` takes the network's input from the host; ``layer`` runs the engine, with
or without a residual operand; ``pool`` reads one or two operands a byte a cycle and either takes
the largest code of a window, or computes::

    clip(floor((sum over operands k of M_k * sum of (code - z_k)) / 2^s + 1/2) + zero_out, lo, hi)

Every step of a program that is not a layer is one or several of them: its file in
:mod:`refmodel.program.steps` says which.

**Rearrangement.** A step that only moves codes costs nothing where its output is added: it is no
operation, but how the operand is read. ResNet's parameter-free shortcut (every second pixel, more
channels) is one. A rearrangement that three loops cannot read takes several
operations (:mod:`refmodel.predict.accelerator.split`), or is refused.

**Tables.** Outputs of an operation may go through a table on their way to memory, or through one to
a channel. A step that is a table is joined to what computes its input, if nothing else reads that.
All tables are in one memory, equal ones once.
"""

from collections import Counter
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.config import MAX_OUTPUT_SIDE, MOST_TAPS, EngineConfig, check_engines
from refmodel.errors import InputError
from refmodel.predict.accelerator.operations import NetworkImage, Operation, Place
from refmodel.predict.accelerator.regions import Fill, Operand, Region, Shape, Sides, Walk, affine
from refmodel.predict.accelerator.resident import resident_needs
from refmodel.predict.accelerator.rewrite import rewrite
from refmodel.predict.accelerator.split import split
from refmodel.predict.accelerator.tables import TableMemory
from refmodel.predict.deal import deal
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.step import Step
from refmodel.program.steps import STEPS, Moved, Pass, Source, StepKind, UnsupportedError

NO_LOOPS = "codes that three loops cannot read"


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
        N, 1 to 64. With several, :func:`refmodel.predict.deal.deal` deals out each layer.

    Raises
    ------
    InputError
        A step that the accelerator cannot run; the message names it.
    """
    return _Planner(program, config, engines).image()


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
        rewritten = rewrite(program)
        self.steps, self.joined = rewritten.steps, rewritten.tables
        for copy, name in rewritten.copies.items():
            self.shapes[copy], self.zeros[copy] = self.shapes[name], self.zeros[name]
        self.tables = TableMemory()
        self.readers: dict[str, list[tuple[Step, int]]] = {name: [] for name in self.shapes}
        for step in self.steps:
            for number, name in enumerate(step.inputs):
                self.readers[name].append((step, number))
        self.steps_of = {step.output: step for step in self.steps}
        self.regions: dict[str, Region] = {}
        self.views = {
            step.output: moved
            for step in self.steps
            if (moved := self._moved(step)) is not None and self._view(step, moved)
        }
        self.passes = {
            step.output: self._lowered(step)
            for step in self.steps
            if step.op != "layer" and step.output not in self.views
        }

    def _kind(self, step: Step) -> StepKind:
        """Look up the kind of a step that is no layer."""
        if step.op not in STEPS:
            raise self._refused(step, "one that it has not")
        return STEPS[step.op]

    def _lowered(self, step: Step) -> list[Pass]:
        """The passes of a step that is no layer."""
        inputs = [Source(shape=self.shapes[name], zero=self.zeros[name]) for name in step.inputs]
        try:
            passes = self._kind(step).lower(step.params, inputs, self.shapes[step.output])
        except UnsupportedError as found:
            raise self._refused(step, str(found)) from None
        passes = [part for each in passes for part in self._readable(step, each)]
        tables = self.joined.get(step.output)
        return passes if tables is None else [replace(each, tables=tables) for each in passes]

    def _readable(self, step: Step, each: Pass) -> list[Pass]:
        """A pass, or several in its place where three loops cannot read what it moves."""
        (read, *more) = each.reads
        if read.moved is None or more or each.window is not None:
            return [each]
        name = step.inputs[read.source]
        region = Region(base=0, shape=self.shapes[name], border=self._border(name))
        for loops in (each.loops, each.unrolled):
            if loops is not None and _loops(read.moved, region, loops) is not None:
                return [each]
        found = split(each, region)
        if found is None:
            raise self._refused(step, NO_LOOPS)
        return found

    def _moved(self, step: Step) -> Moved | None:
        """Which codes a step moves, if that is all that it does."""
        return None if step.op == "layer" else self._kind(step).moved(step.params)

    def _view(self, step: Step, moved: Moved) -> bool:
        """Whether moved codes are only added to something, and so are read where they lie."""
        shape, zero = self.shapes[step.output], self.zeros[step.output]
        if step.output == self.program.output or shape == (1, 1, 1):
            return False
        if moved.fill not in (None, zero):
            return False
        added = [
            number == 1 if reader.op == "layer" else self._kind(reader).takes_views
            for reader, number in self.readers[step.output]
        ]
        bare = Region(base=0, shape=self.shapes[step.inputs[0]], border=(0, 0, 0, 0))
        return all(added) and _loops(moved, bare, shape) is not None

    # Where tensors lie.

    def _source(self, name: str) -> str:
        """The tensor in memory that a name is read from."""
        while name in self.views:
            name = self.steps_of[name].inputs[0]
        return name

    def _border(self, name: str) -> Sides:
        """Border that the readers of a tensor need, the widest on each side."""
        sides = np.zeros(4, int)
        for step, number in self.readers[name]:
            if step.op != "layer":
                sides = np.maximum(sides, self._kind(step).border(step.params))
            elif number == 0:
                sides = np.maximum(sides, self.program.layers[step.params["index"]].pads)
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

        That of several passes is computed part by part; the input may be the output.
        """
        if self.program.output == self.program.input:
            return True
        return len(self.passes.get(self.program.output, ())) > 1

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
                operations += self._pools(step, self.passes[step.output])
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
            tables=self.tables.contents,
        )

    def _written(self, name: str, at: Shape = (0, 0, 0), stride: tuple[int, int] = (1, 1)) -> Walk:
        """How a tensor's codes are written, from one of them on."""
        region = self.regions[name]
        down, across = stride
        return Walk(
            base=region.address(*at),
            row_step=down * region.pitch,
            column_step=across * region.shape[2],
        )

    def _filled(self, name: str) -> Fill | None:
        """The border: of the least code where it is for a maximum, which it must not be."""
        least = [
            self._kind(step).border_least
            for step, _ in self.readers[name]
            if step.op != "layer" and any(self._kind(step).border(step.params))
        ]
        return self.regions[name].fill(0 if any(least) else self.zeros[name])

    def _looked_up(self, tables: NDArray[np.int64] | None, at: int = 0, count: int = 0) -> dict:
        """Fields of an operation whose outputs, channels from ``at`` on, go through tables."""
        if tables is None:
            return {}
        part = tables if len(tables) == 1 else tables[at : at + count]
        return {"tables": part, "first_table": self.tables.add(part)}

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
            **self._looked_up(self.joined.get(step.output), 0, layer.out_shape[2]),
        )

    def _operand(self, name: str, shape: Shape, multiplier: int = 0) -> Operand:
        """How a tensor, or a view of one, is read in its own loops."""
        zero = self.zeros[name]
        if name in self.views:
            step = self.steps_of[name]
            if step.inputs[0] in self.views:
                raise self._refused(step, "a rearrangement of another")
            found = _loops(self.views[name], self.regions[step.inputs[0]], shape)
            if found is None:
                raise self._refused(step, NO_LOOPS)
            walk, first, last = found
        else:
            walk, first, last = self._written(name), 0, shape[2] - 1
        return Operand(
            walk=walk, first_channel=first, last_channel=last, zero=zero, multiplier=multiplier
        )

    def _refused(self, step: Step, found: str) -> InputError:
        return InputError(
            f"expected steps that the accelerator can run, found {found}, in the step "
            f"{step.op} that computes {step.output!r}; the tiers protocol and bulk run the layers, "
            f"with such steps between them in the golden model"
        )

    def _pools(self, step: Step, passes: list[Pass]) -> list[Operation]:
        """The operations of a step that is no layer: one to a pass."""
        operations = []
        for number, each in enumerate(passes):
            name = step.output
            if len(passes) > 1:
                part = step.inputs[each.reads[0].source]
                if len(passes) > len(step.inputs):
                    part = f"{number + 1} of {len(passes)}"
                name = f"{name} ({part})"
            changed = self._window(step, each) if each.window else self._reads(step, each)
            plain: dict[str, Any] = {
                "name": name,
                "kind": "pool",
                "shape": each.loops,
                "output": self._written(step.output, each.at, each.stride),
                "fill": None if number else self._filled(step.output),
                "maximum": each.maximum,
                "product": each.product,
                **self._looked_up(each.tables, each.at[2], each.loops[2]),
                "shift": each.shift,
                "zero_out": each.zero_out,
                "clip": each.clip,
            }
            operations.append(Operation(**plain | changed))
        return operations

    def _window(self, step: Step, each: Pass) -> dict[str, Any]:
        """How a pass reads its windows."""
        window, (read,) = each.window, each.reads
        assert window is not None
        taps = prod(window.kernel)
        if taps > MOST_TAPS:
            raise self._refused(step, f"windows of {taps} codes, more than {MOST_TAPS}")
        source = step.inputs[read.source]
        region = self.regions[source]
        channels = region.shape[2]
        top, left, *_ = window.pads
        walk = Walk(
            base=region.address(
                each.at[0] * window.stride[0] - top, each.at[1] * window.stride[1] - left
            ),
            row_step=window.stride[0] * region.pitch,
            column_step=window.stride[1] * channels,
        )
        operand = Operand(
            walk=walk,
            first_channel=0,
            last_channel=channels - 1,
            zero=self.zeros[source],
            multiplier=read.multiplier,
        )
        return {
            "operands": (operand,),
            "kernel": window.kernel,
            "tap_row_step": region.pitch,
            "tap_column_step": channels,
        }

    def _reads(self, step: Step, each: Pass) -> dict[str, Any]:
        """How a pass reads single codes; and its loops and how it writes, where it unrolls them."""
        operands = self._operands(step, each, each.loops)
        if operands is not None:
            return {"operands": operands}
        order = each.unrolled
        operands = None if order is None else self._operands(step, each, order)
        if operands is None or order is None:
            raise self._refused(step, NO_LOOPS)
        # One behind the other as they come.
        output = replace(
            self._written(step.output), row_step=order[1] * order[2], column_step=order[2]
        )
        return {"shape": order, "output": output, "operands": operands}

    def _operands(self, step: Step, each: Pass, loops: Shape) -> tuple[Operand, ...] | None:
        """How a pass reads its inputs in some loops; None where it cannot."""
        operands = []
        for read in each.reads:
            source = step.inputs[read.source]
            if read.moved is None:
                operands.append(self._operand(source, loops, read.multiplier))
                continue
            found = _loops(read.moved, self.regions[source], loops)
            if found is None:
                return None
            walk, first, last = found
            operands.append(
                Operand(
                    walk=walk,
                    first_channel=first,
                    last_channel=last,
                    zero=self.zeros[source] if read.moved.fill is None else read.moved.fill,
                    multiplier=read.multiplier,
                )
            )
        return tuple(operands)


def _loops(moved: Moved, source: Region, shape: Shape) -> tuple[Walk, int, int] | None:
    """The three loops of a shape that read moved codes, if there are any."""
    addresses = np.where(moved.index < 0, -1, source.addresses.reshape(-1)[moved.index])
    return affine(addresses.reshape(shape))
