"""Whether a program that was read from a file can be run: kinds of values, steps, tensors.

:class:`refmodel.program.layer.LayerProgram` checks its own arrays. The rest of a program is checked
here, so that a file that is read runs, without surprises in the middle of a network. Parameters of
a step between layers are checked by the file of its kind (:mod:`refmodel.program.steps`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from math import isfinite
from typing import Any, get_args

import numpy as np

from refmodel.program.layer import LayerProgram
from refmodel.program.step import Step
from refmodel.program.steps import STEPS
from refmodel.program.values import MOST_CODES, Shape, need, short, whole, wholes


def layer_fields(kind: type[LayerProgram], entry: Mapping[str, Any], where: str) -> None:
    """Check the fields of a layer that are no arrays: names, and kinds as the class says."""
    plain = [item for item in fields(kind) if item.type is not np.ndarray]
    expected = {item.name: item.type for item in plain}
    owed = {item.name for item in plain if item.default is MISSING}
    need(
        isinstance(entry, Mapping) and owed <= set(entry) <= set(expected),
        f"{where}: expected the fields of a layer, found {short(entry)}",
    )
    for name, wanted in expected.items():
        if name not in entry:
            continue
        value, what = entry[name], f"{where}, {name}"
        if wanted is int:
            whole(value, -(1 << 31), (1 << 31) - 1, what)
        elif wanted in (str, bool):
            need(isinstance(value, wanted), f"{what}: found {short(value)}")  # pyright: ignore
        else:
            wholes(value, len(get_args(wanted)), -(1 << 31), (1 << 31) - 1, what)


def check_program(
    layers: Sequence[LayerProgram], steps: Sequence[Step], tensors: Any, *, source: Any, output: Any
) -> None:
    """Check tensors and steps from ``source`` to ``output``, the names of two tensors.

    Raises
    ------
    InputError
        Says what is wrong, without the file's name.
    """
    shapes = _tensors(tensors)
    for name in (source, output):
        need(isinstance(name, str) and name in shapes, f"expected a tensor, found {short(name)}")
    known = {source}
    for number, step in enumerate(steps):
        where = f"step {number} ({short(step.op)})"
        for name in (*step.inputs, step.output):
            need(isinstance(name, str) and name in shapes, f"{where}: no tensor {short(name)}")
        need(known.issuperset(step.inputs), f"{where} reads what is not computed before it")
        need(step.output not in known, f"{where} computes {step.output!r} again")
        known.add(step.output)
        _step(layers, step, [shapes[name] for name in step.inputs], shapes[step.output], where)
    need(output in known, f"no step computes the output {output!r}")


def _tensors(tensors: Any) -> dict[str, Shape]:
    need(isinstance(tensors, Mapping), f"expected tensors, found {short(tensors)}")
    shapes: dict[str, Shape] = {}
    for name, info in tensors.items():
        where = f"tensor {name!r}"
        need(isinstance(info, Mapping), f"{where}: found {short(info)}")
        height, width, channels = wholes(info.get("shape"), 3, 1, MOST_CODES, f"{where}, shape")
        need(height * width * channels <= MOST_CODES, f"{where} has more than {MOST_CODES} codes")
        shapes[name] = height, width, channels
        scale = info.get("scale")
        plain = isinstance(scale, float | int) and not isinstance(scale, bool)
        need(plain and isfinite(scale) and scale > 0, f"{where}: scale {short(scale)}")
        whole(info.get("zero"), 0, 255, f"{where}, zero")
    return shapes


def _step(
    layers: Sequence[LayerProgram], step: Step, inputs: list[Shape], output: Shape, where: str
) -> None:
    kind = STEPS.get(step.op)
    count = 1
    if kind is not None:
        count = len(inputs) if kind.inputs is None else kind.inputs
    elif step.op == "layer":
        index = whole(step.params.get("index"), 0, len(layers) - 1, f"{where}, index")
        count += layers[index].residual
    need(len(inputs) == count and inputs, f"{where}: expected {count} inputs, found {len(inputs)}")
    if kind is not None:
        kind.check(step.params, inputs, output, where)
        return
    need(step.op == "layer", f"{where}: expected a known operation")
    layer = layers[step.params["index"]]
    found = (layer.in_shape, layer.out_shape)
    need(
        found == (inputs[0], output),
        f"{where}: layer {layer.name} is {found}, the tensors are {(inputs[0], output)}",
    )
    need(
        inputs[-1] == output or not layer.residual,
        f"{where}: expected a residual of shape {output}, found {inputs[-1]}",
    )
