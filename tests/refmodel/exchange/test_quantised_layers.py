"""A depthwise-separable network that onnxruntime quantised: every step has onnxruntime's codes.

``python -m pytest -s tests/refmodel/exchange/test_quantised_layers.py`` prints how far codes are
apart. onnxruntime computes in float32 between its codes; the golden model has multipliers of 15
bits, and rounds halves up.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime import quantization

import refmodel
from refmodel import golden
from tests.support.nets.onnx_nets import floats, network, node, save

SHAPE = (3, 16, 16)

COUNT = 4


def separable() -> onnx.ModelProto:
    """Depthwise and pointwise convolutions with a residual, an average and a classifier."""
    constants, nodes = {}, []

    def conv(x: str, out: str, inputs: int, outputs: int, size: int, **attributes) -> str:
        wide = inputs // attributes.get("group", 1)
        constants[f"{out}_w"] = floats(len(nodes), outputs, wide, size, size) / (wide**0.5 * size)
        constants[f"{out}_b"] = floats(len(nodes) + 50, outputs) / 5
        names = f"{x} {out}_w {out}_b"
        nodes.append(node("Conv", names, f"{out}_c", pads=[size // 2] * 4, **attributes))
        nodes.append(node("Relu", f"{out}_c", out))
        return out

    x = conv("x", "first", 3, 8, 3, strides=[2, 2])
    for block, (inputs, outputs, stride) in enumerate(((8, 16, 1), (16, 16, 1), (16, 24, 2))):
        deep = conv(x, f"deep{block}", inputs, inputs, 3, group=inputs, strides=[stride] * 2)
        wide = conv(deep, f"wide{block}", inputs, outputs, 1)
        if inputs == outputs:
            nodes.append(node("Add", f"{x} {wide}", f"sum{block}"))
            wide = f"sum{block}"
        x = wide
    nodes += [
        node("GlobalAveragePool", x, "mean"),
        node("Flatten", "mean", "flat"),
        node("Gemm", "flat v e", "y"),
    ]
    constants |= {"v": floats(90, 24, 5) / 5, "e": floats(91, 5)}
    return network(nodes, constants, ("N", *SHAPE))


class Images(quantization.CalibrationDataReader):
    """Images for the ranges."""

    def __init__(self) -> None:
        self.images = iter([{"x": floats(70 + at, 1, *SHAPE)} for at in range(8)])

    def get_next(self) -> dict | None:  # pyright: ignore
        """Return the next image, or None."""
        return next(self.images, None)


def quantised(folder: Path, activations: str, scales: str) -> Path:
    path = folder / "quantised.onnx"
    quantization.quantize_static(
        save(separable(), folder),
        path,
        Images(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType[activations],
        weight_type=quantization.QuantType.QInt8,
        per_channel=scales == "channel",
    )
    return path


def codes_of(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """Codes that onnxruntime gives every tensor, 0 to 255, channels last."""
    model = onnx.load(path)
    made = [each.output[0] for each in model.graph.node if each.op_type == "QuantizeLinear"]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found = [session.run(None, {"x": image[None]}) for image in x]
    result = {}
    for name, values in zip(made, zip(*found, strict=True), strict=True):
        codes = np.concatenate(values).astype(np.int64)
        codes += 128 if values[0].dtype == np.int8 else 0
        codes = codes.transpose(0, 2, 3, 1) if codes.ndim == 4 else codes[:, None, None]
        result[name.removesuffix("_QuantizeLinear_Output")] = codes
    return result


@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("scales", ["layer", "channel"])
def test_every_step_has_the_codes_of_onnxruntime_but_for_one(activations, scales, tmp_path):
    path = quantised(tmp_path, activations, scales)
    loaded = refmodel.load(path)
    x = floats(1, COUNT, *SHAPE)
    program = refmodel.compress(loaded, x, scheme="dense", moments=False)
    expected = codes_of(path, x)
    expected = {name: expected[name] for name in expected if not name.endswith("_c")} | {
        name.removesuffix("_c"): expected[name] for name in expected if name.endswith("_c")
    }
    input_codes = golden.quantise_input(program, x)
    np.testing.assert_array_equal(input_codes, expected["x"])
    found = golden.run_program(program, input_codes)
    for step in program.steps:
        names = [name.removesuffix("_c") for name in (*step.inputs, step.output)]
        names = [name.removesuffix("_QuantizeLinear_Input") for name in names]
        wanted = expected[names[-1]]
        inputs = [expected[name].astype(np.uint8) for name in names[:-1]]
        apart = np.abs(golden.run_step(program, step, inputs).astype(np.int64) - wanted)
        chained = np.abs(found[step.output].astype(np.int64) - wanted)
        print(
            f"{activations} {scales}: {step.op} {names[-1]}: {(apart > 0).mean():.2%} of codes "
            f"differ, by {apart.max()}; {chained.max()} with the golden model's inputs"
        )
        assert apart.max() <= 1
        assert (apart > 0).mean() <= 0.02
    assert len(program.steps) == 10
