"""Networks of TensorFlow Lite in its reference interpreter, and in the golden model, by tensor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel import golden
from refmodel.compression import compile as compiler
from refmodel.compression.quantize import quantize
from refmodel.exchange.load import load_network
from refmodel.program.program import Program


@dataclass
class Apart:
    """How a tensor of the golden model differs from the interpreter's, in codes.

    ``layer`` is at most, and ``share`` the share of codes, where its step has the interpreter's
    inputs; ``chained`` is at most where it has the golden model's.
    """

    op: str
    name: str
    layer: int
    share: float
    chained: int


def interpreted(path: Path, codes: NDArray) -> dict[str, NDArray]:
    """Compute every tensor in the interpreter, with its reference kernels, image by image."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    made: Any = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    made.allocate_tensors()
    entrance = made.get_input_details()[0]["index"]
    found: dict[str, list[NDArray]] = {}
    for image in codes:
        made.set_tensor(entrance, image[None])
        made.invoke()
        for each in made.get_tensor_details():
            if each["index"] != entrance and len(each["shape"]) and each["shape"][0] == 1:
                found.setdefault(each["name"], []).append(made.get_tensor(each["index"]).copy())
    return {name: np.concatenate(values) for name, values in found.items()} | {"input": codes}


def program_of(path: Path, x: NDArray) -> Program:
    """Compile a network without pruning."""
    return compiler.compile_network(quantize(load_network(path), x), scheme="dense")


def drawn(path: Path, count: int, seed: int) -> tuple[NDArray, NDArray]:
    """Draw input codes, int8 as the file has them, and what they stand for, channels first."""
    from refmodel.exchange.tflite.file import read

    content = read(path)
    tensor = content.tensors[content.inputs[0]]
    shape = (count, *tensor.shape[1:])
    codes = np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)
    x = (codes.astype(np.float64) - tensor.zero[0]) * tensor.scale[0]
    x = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
    return codes, x.astype(np.float32)


def compare(path: Path, *, count: int = 2, seed: int = 3) -> list[Apart]:
    """Compare every tensor of a network of int8 with the interpreter's."""
    codes, x = drawn(path, count, seed)
    program = program_of(path, x)
    expected = interpreted(path, codes)
    found = golden.run_program(program, golden.quantise_input(program, x))

    def of(name: str) -> NDArray[np.int64]:
        values = expected[name.partition("/")[0]].astype(np.int64) + 128
        return values if values.ndim == 4 else values.reshape(count, 1, 1, -1)

    result = []
    for step in program.steps:
        inputs = [of(name).astype(np.uint8) for name in step.inputs]
        layer = golden.run_step(program, step, inputs).astype(np.int64)
        wanted = of(step.output)
        assert layer.shape == wanted.shape, step.output
        apart = np.abs(layer - wanted)
        chained = np.abs(found[step.output].astype(np.int64) - wanted)
        result.append(
            Apart(step.op, step.output, int(apart.max()), (apart > 0).mean(), int(chained.max()))
        )
    return result
