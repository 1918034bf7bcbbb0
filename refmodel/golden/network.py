"""A whole network on codes: its steps in order, logits and accuracy."""

from collections.abc import Callable

import numpy as np

from refmodel.golden.layer import check_codes, run_layer
from refmodel.golden.serial import LayerFunction
from refmodel.program.program import Program
from refmodel.program.step import Step
from refmodel.program.steps import STEPS
from refmodel.program.tensors import TensorInfo, encode


def run_step(
    program: Program, step: Step, inputs: list[np.ndarray], layer_fn: LayerFunction = run_layer
) -> np.ndarray:
    """Compute one step of a program from its input codes."""
    if step.op == "layer":
        return layer_fn(program.layers[step.params["index"]], *inputs)
    if step.op not in STEPS:
        raise ValueError(f"op must be layer or one of {', '.join(STEPS)}, not {step.op!r}")
    return STEPS[step.op].run(inputs, step.params)


def run_program(
    program: Program,
    codes: np.ndarray,
    *,
    layer_fn: LayerFunction = run_layer,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Compute a whole network.

    Parameters
    ----------
    codes
        Input codes, uint8 [N, H, W, C].
    layer_fn
        Computes a layer from its input codes.
    progress
        Called before each step with its output's name, its index and the number of steps.

    Returns
    -------
    Every tensor's codes, by name.
    """
    check_codes(codes, tuple(program.tensors[program.input]["shape"]), program.input)
    tensors = {program.input: codes}
    for i, step in enumerate(program.steps):
        if progress is not None:
            progress(step.output, i, len(program.steps))
        inputs = [tensors[name] for name in step.inputs]
        tensors[step.output] = run_step(program, step, inputs, layer_fn)
    return tensors


def quantise_input(program: Program, images: np.ndarray) -> np.ndarray:
    """Turn network inputs, float [N, C, H, W] or [N, F], into codes uint8 [N, H, W, C].

    ``clip(floor(x / scale + 1/2) + zero, 0, 255)``, as :func:`refmodel.program.tensors.encode` has
    it.
    """
    info = program.tensors[program.input]
    return np.ascontiguousarray(
        encode(
            images,
            TensorInfo(shape=tuple(info["shape"]), scale=info["scale"], zero=info["zero"]),
        )
    )


def logits(
    program: Program,
    codes: np.ndarray,
    *,
    layer_fn: LayerFunction = run_layer,
    progress: Callable[[int, int], None] | None = None,
    batch: int = 100,
) -> np.ndarray:
    """Compute real outputs from input codes: float64 [N, F], an image flattened as ONNX has it.

    Parameters
    ----------
    codes
        Input codes, uint8 [N, H, W, C].
    progress
        Called after each batch with images done and images in all.
    batch
        Images computed at once.
    """
    info = program.tensors[program.output]
    parts = []
    for i in range(0, len(codes), batch):
        result = run_program(program, codes[i : i + batch], layer_fn=layer_fn)[program.output]
        # Codes lie (N, H, W, C); ONNX has the channels first.
        channels_first = result.transpose(0, 3, 1, 2)
        parts.append(channels_first.reshape(len(result), -1).astype(np.float64))
        if progress is not None:
            progress(min(i + batch, len(codes)), len(codes))
    return (np.concatenate(parts) - info["zero"]) * info["scale"]


def accuracy(
    program: Program,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Share of network inputs (float [N, C, H, W]) whose largest output is their label's."""
    values = logits(program, quantise_input(program, images), progress=progress)
    return float(np.mean(values.argmax(1) == np.asarray(labels)))
