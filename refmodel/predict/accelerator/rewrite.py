"""Steps of a program as the accelerator takes them: tables go with what computes their input.

Nothing here changes a code. A table whose input is computed for it alone is looked up on the way to
memory, so that its step goes and the input is never stored. Max pooling whose border must not win
reads a copy of its input where a layer or an average needs the same border with zero points.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from refmodel.program.program import Program
from refmodel.program.step import Step
from refmodel.program.steps import STEPS


@dataclass(frozen=True, kw_only=True, eq=False)
class Rewritten:
    """Steps for the accelerator.

    Attributes
    ----------
    steps
        Steps that the output depends on, in order.
    tables
        Tables that the outputs of a step are looked up in, by the step's output, int64 [tables,
        256]: those that do not come from a step of their own.
    copies
        Tensors that are copies of others, and those.
    """

    steps: list[Step]
    tables: dict[str, NDArray[np.int64]]
    copies: dict[str, str]


def rewrite(program: Program) -> Rewritten:
    """Leave out what the output does not need, join tables to what they read, and copy."""
    steps, tables = _join_tables(_needed(program))
    steps, copies = _copy_borders(program, steps)
    return Rewritten(steps=steps, tables=tables, copies=copies)


def _needed(program: Program) -> list[Step]:
    """Steps that the output depends on, in order."""
    wanted = {program.output}
    kept = []
    for step in reversed(program.steps):
        if step.output in wanted:
            kept.append(step)
            wanted.update(step.inputs)
    return kept[::-1]


def _join_tables(steps: Sequence[Step]) -> tuple[list[Step], dict[str, NDArray[np.int64]]]:
    readers: dict[str, int] = {}
    for step in steps:
        for name in step.inputs:
            readers[name] = readers.get(name, 0) + 1
    by_output = {step.output: step for step in steps}
    joined: dict[str, Step] = {}
    gone: set[str] = set()
    tables: dict[str, NDArray[np.int64]] = {}
    for step in steps:
        if step.op != "table":
            continue
        before = by_output.get(step.inputs[0])
        if before is None or before.op == "table" or readers[step.inputs[0]] > 1:
            continue
        if before.op == "rearrange" and len(step.params["tables"]) > 1:
            continue  # whose loops may be others than the channels
        joined[before.output] = replace(before, output=step.output)
        gone.add(step.output)
        tables[step.output] = np.asarray(step.params["tables"])
    kept = [joined.get(step.output, step) for step in steps if step.output not in gone]
    return kept, tables


def _copy_borders(program: Program, steps: Sequence[Step]) -> tuple[list[Step], dict[str, str]]:
    """Copy what a maximum and something else read with a border, unless its zero point is 0."""
    least: dict[str, list[Step]] = {}
    other: set[str] = set()
    for step in steps:
        for number, name in enumerate(step.inputs):
            if step.op == "layer":
                pads = program.layers[step.params["index"]].pads
                if number == 0 and any(pads):
                    other.add(name)
            elif step.op in STEPS and any(STEPS[step.op].border(step.params)):
                if STEPS[step.op].border_least:
                    least.setdefault(name, []).append(step)
                else:
                    other.add(name)
    copies = {
        name: f"{name} (for its largest)"
        for name in least
        if name in other and program.tensors[name]["zero"] != 0
    }
    result: list[Step] = []

    def copy(name: str) -> None:
        if name in copies:
            params = {"lo": 0, "hi": 255}
            result.append(Step(op="clip", inputs=(name,), output=copies[name], params=params))

    copy(program.input)
    for step in steps:
        if any(step in readers and name in copies for name, readers in least.items()):
            step = replace(step, inputs=tuple(copies.get(name, name) for name in step.inputs))
        result.append(step)
        copy(step.output)
    return result, {after: name for name, after in copies.items()}
