"""Whether a program that was read from a file can be run: kinds of values, steps, tensors.

:class:`refmodel.program.layer.LayerProgram` checks its own arrays. What stands around the layers is
checked here, so that a file that is read runs, without surprises in the middle of a network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from math import isfinite, prod
from typing import Any, get_args

import numpy as np

from refmodel.errors import InputError
from refmodel.program.layer import LayerProgram
from refmodel.program.step import Step
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
    params = step.params
    count = {"add": 2, "concat": len(inputs)}.get(step.op, 1)
    if step.op == "layer":
        index = whole(params.get("index"), 0, len(layers) - 1, f"{where}, index")
        count += layers[index].residual
    need(len(inputs) == count and inputs, f"{where}: expected {count} inputs, found {len(inputs)}")
    match step.op:
        case "layer":
            layer = layers[params["index"]]
            found = (layer.in_shape, layer.out_shape)
            need(
                found == (inputs[0], output),
                f"{where}: layer {layer.name} is {found}, the tensors are {(inputs[0], output)}",
            )
            need(
                inputs[-1] == output or not layer.residual,
                f"{where}: expected a residual of shape {output}, found {inputs[-1]}",
            )
        case "max_pool" | "average_pool":
            expected = _window(params, inputs[0], where)
            need(output == expected, f"{where}: expected the shape {expected}, found {output}")
            if step.op == "average_pool":
                _average(params, output, where)
        case "add" | "concat":
            for name, low, high in (("multipliers", -32767, 32767), ("zeros_in", 0, 255)):
                wholes(params.get(name), count, low, high, f"{where}, {name}")
            whole(params.get("shift"), 0, 47, f"{where}, shift")
            whole(params.get("zero_out"), 0, 255, f"{where}, zero_out")
            low, high = wholes(params.get("clip"), 2, 0, 255, f"{where}, clip")
            _limits(low, high, where)
            if step.op == "add":
                need(inputs[0] == inputs[1] == output, f"{where}: tensors of unlike shapes")
            else:
                axis = whole(params.get("axis"), 0, 2, f"{where}, axis")
                joined = list(inputs[0])
                joined[axis] = sum(shape[axis] for shape in inputs)
                rest = {shape[:axis] + shape[axis + 1 :] for shape in inputs}
                need(len(rest) == 1 and tuple(joined) == output, f"{where}: unlike shapes")
        case "clip":
            low, high = (whole(params.get(key), 0, 255, f"{where}, {key}") for key in ("lo", "hi"))
            _limits(low, high, where)
            need(inputs[0] == output, f"{where}: tensors of unlike shapes")
        case "rearrange":
            shape = wholes(params.get("shape"), 3, 1, MOST_CODES, f"{where}, shape")
            need(shape == output, f"{where}: expected the shape {output}, found {shape}")
            index = params.get("index")
            need(
                _integers(index) and index.shape == (prod(output),),  # pyright: ignore
                f"{where}: expected an index of {prod(output)} places",
            )
            index = np.asarray(index)
            least = 0
            if "fill" in params:
                whole(params["fill"], 0, 255, f"{where}, fill")
                least = -1
            need(
                least <= int(index.min()) and int(index.max()) < prod(inputs[0]),
                f"{where}: an index outside the input",
            )
        case _:
            raise InputError(f"{where}: expected a known operation")


def _window(params: Mapping[str, Any], shape: Shape, where: str) -> Shape:
    kernel = wholes(params.get("kernel"), 2, 1, MOST_CODES, f"{where}, kernel")
    stride = wholes(params.get("stride"), 2, 1, MOST_CODES, f"{where}, stride")
    pads = wholes(params.get("pads"), 4, 0, MOST_CODES, f"{where}, pads")
    padded = shape[0] + pads[0] + pads[2], shape[1] + pads[1] + pads[3]
    need(padded[0] * padded[1] * shape[2] <= MOST_CODES, f"{where}: a border of too many codes")
    sizes = [(padded[axis] - kernel[axis]) // stride[axis] + 1 for axis in (0, 1)]
    need(min(sizes) >= 1, f"{where}: a kernel larger than the input")
    return sizes[0], sizes[1], shape[2]


def _average(params: Mapping[str, Any], output: Shape, where: str) -> None:
    multiplier = params.get("multiplier")
    if isinstance(multiplier, np.ndarray):
        fits = _integers(multiplier) and multiplier.shape == output[:2]
        need(
            fits and int(multiplier.min()) >= 0 and int(multiplier.max()) <= 32767,
            f"{where}: expected a multiplier 0 to 32767 for each of {output[:2]}",
        )
    else:
        whole(multiplier, 0, 32767, f"{where}, multiplier")
    whole(params.get("shift"), 0, 47, f"{where}, shift")
    for name in ("zero_in", "zero_out"):
        whole(params.get(name), 0, 255, f"{where}, {name}")


def _limits(low: int, high: int, where: str) -> None:
    need(low <= high, f"{where}: limits {low} to {high}")


def _integers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.int64
