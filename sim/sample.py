"""A sample of a network for the engine: some layers, and of each some output positions.

A network that is too large to simulate is checked by sample. The layer that is simulated has the
program of the whole layer, and an input that holds what some of its output positions see, side by
side: one row of positions, its stride as wide as the kernel. So values must be those of the golden
model at these positions, and cycles those that the same prediction, which prices the whole layer,
gives for as many. What a sample does not run are the addresses of the whole layer's input (its
stride, dilation and border); a chosen layer without positions runs whole.

Layers are apart: the input of each is what the golden model made of the image, exactly.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from refmodel import golden
from refmodel.errors import InputError
from refmodel.program import sizes
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.step import Step
from sim.job import Job


@dataclass(frozen=True, kw_only=True)
class Part:
    """A layer of a sample.

    Attributes
    ----------
    index
        Its place in the program.
    positions
        Output positions that are simulated, ascending, row by row; None: all.
    """

    index: int
    positions: tuple[int, ...] | None


def chosen_layers(program: Program, names: Sequence[str]) -> list[int]:
    """Places of the layers that are named, by pattern (``*``, ``?``); all where none is.

    Raises
    ------
    InputError
        A name matches no layer.
    """
    every = [layer.name for layer in program.layers]
    for name in names:
        if not any(fnmatchcase(each, name) for each in every):
            raise InputError(f"expected a layer out of {', '.join(every)}, found {name!r}")
    return [
        index
        for index, each in enumerate(every)
        if not names or any(fnmatchcase(each, name) for name in names)
    ]


def draw(layer: LayerProgram, index: int, count: int | None, seed: int) -> Part:
    """Draw the positions of a layer: ``count`` different ones, or all where it has no more."""
    if count is None or count >= layer.positions:
        return Part(index=index, positions=None)
    rng = np.random.default_rng([seed, index])
    found = np.sort(rng.permutation(layer.positions)[:count])
    return Part(index=index, positions=tuple(found.tolist()))


def part_layer(layer: LayerProgram, part: Part) -> LayerProgram:
    """The layer that computes some positions of another one, side by side."""
    if part.positions is None:
        return layer
    count, (height, width) = len(part.positions), layer.kernel
    return dataclasses.replace(
        layer,
        in_shape=(height, count * width, layer.in_shape[2]),
        out_shape=(1, count, layer.out_shape[2]),
        stride=(1, width),
        dilation=(1, 1),
        pads=(0, 0, 0, 0),
    )


def part_input(layer: LayerProgram, codes: np.ndarray, part: Part) -> np.ndarray:
    """The input of :func:`part_layer`: what the positions see of codes [N, H, W, C]."""
    if part.positions is None:
        return codes
    padded = golden.pad(layer, codes)
    (height, width), (dy, dx), (sy, sx) = layer.kernel, layer.dilation, layer.stride
    seen = []
    for position in part.positions:
        row, column = divmod(position, layer.out_shape[1])
        top, left = row * sy, column * sx
        rows = slice(top, top + (height - 1) * dy + 1, dy)
        columns = slice(left, left + (width - 1) * dx + 1, dx)
        seen.append(padded[:, rows, columns])
    return np.ascontiguousarray(np.concatenate(seen, axis=2))


def sampled(job: Job) -> tuple[Job, tuple[Part, ...]]:
    """Make the job of a sample.

    Parameters
    ----------
    job
        A job of the tier ``bulk`` for the whole network, whose engine is sized to it, with
        ``layers`` or ``positions``.

    Returns
    -------
    Job
        Its program has the parts as layers, each with an input of its own; its engine holds them,
        and is otherwise that of the whole network, partial-sum ring included.
    tuple
        The parts.

    Raises
    ------
    InputError
        A name matches no layer, or a fault is to be planted.
    """
    program = job.program
    if job.plant is not None:
        raise InputError(f"expected no planted fault in a sample, found {job.plant}")
    parts = tuple(
        draw(program.layers[index], index, job.positions, job.seed)
        for index in chosen_layers(program, job.layers)
    )
    inputs = _inputs(job, {part.index: part for part in parts})
    layers = tuple(part_layer(program.layers[part.index], part) for part in parts)
    tensors, steps = {}, []
    for number, layer in enumerate(layers):
        into, out = f"input {number}", f"output {number}"
        tensors[into] = {"shape": list(layer.in_shape), "scale": 1.0, "zero": layer.zero_in}
        tensors[out] = {"shape": list(layer.out_shape), "scale": 1.0, "zero": layer.zero_out}
        steps.append(Step(op="layer", inputs=(into,), output=out, params={"index": number}))
    fitted = sizes.engine_config_for(layers, job.config)
    made = dataclasses.replace(
        job,
        program=Program(
            layers=layers,
            steps=tuple(steps),
            tensors=tensors,
            input="input 0",
            output=f"output {len(layers) - 1}",
            preprocess=program.preprocess,
            about=program.about,
        ),
        codes=inputs[0],
        inputs={f"input {number}": codes for number, codes in enumerate(inputs)},
        # The ring decides about cycles: it stays that of the engine for the whole network.
        config=dataclasses.replace(fitted, slots=job.config.slots),
        layers=(),
        positions=None,
    )
    return made, parts


def _inputs(job: Job, parts: dict[int, Part]) -> list[np.ndarray]:
    """Inputs of the parts, by their place, as the golden model makes them."""
    program, found = job.program, {}
    stage = "compute the inputs"
    last = max(
        number
        for number, step in enumerate(program.steps)
        if step.op == "layer" and step.params["index"] in parts
    )
    left = dict.fromkeys(program.tensors, 0)
    for step in program.steps[: last + 1]:
        for name in step.inputs:
            left[name] += 1
    tensors = {program.input: job.codes}
    for number, step in enumerate(program.steps[: last + 1]):
        job.progress(stage, number, last + 1)
        inputs = [tensors[name] for name in step.inputs]
        if step.op == "layer" and step.params["index"] in parts:
            part = parts[step.params["index"]]
            found[part.index] = part_input(program.layers[part.index], inputs[0], part)
        if number == last:
            break
        tensors[step.output] = golden.run_step(program, step, inputs)
        for name in step.inputs:
            left[name] -= 1
            if not left[name]:
                tensors.pop(name, None)
    job.progress(stage, last + 1, last + 1)
    return [found[index] for index in sorted(found)]
