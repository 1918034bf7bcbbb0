"""Residual operands: one rounding for a layer and the addition behind it."""

import dataclasses
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prap_hw.app import workflow
from prap_hw.app.cli.program import run
from prap_hw.deliver.load import layer_image
from refmodel import golden
from refmodel.compression.compile import compile_network
from refmodel.compression.quantize import QuantNetwork, quantize
from refmodel.compression.requantise import residual_fraction
from refmodel.errors import InputError
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.graph import FloatNetwork
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import engine_config_for
from refmodel.program.step import Step
from refmodel.program.tensors import TensorInfo, decode, encode
from tests.support.layers.builders import random_codes, random_layer_program
from tests.support.nets.onnx_nets import floats, network, node, save, small_cnn


def with_residual(layer: LayerProgram, **fields: Any) -> LayerProgram:
    plain = {"residual": True, "residual_zero": 0, "residual_multiplier": 1, "residual_shift": 0}
    return dataclasses.replace(layer, **(plain | fields))


def requantiser(multiplier: int, shift: int, bias: int = 0, zero: int = 0, **residual) -> Any:
    """A layer of one output that requantises so, limited to 5 .. 250."""
    layer = random_layer_program(
        np.random.default_rng(0), in_shape=(1, 1, 1), kernel=(1, 1), outputs=1, groups=1
    )
    plain = {"bias": [bias], "multiplier": [multiplier], "shift": [shift], "zero_out": zero}
    layer = dataclasses.replace(layer, clip_lo=5, clip_hi=250, **plain)  # pyright: ignore
    return with_residual(layer, **residual)


# Golden arithmetic, by hand


@pytest.mark.parametrize(
    ("acc", "residual", "fields", "expected"),
    [
        # 1/2 + 1/2 + 1/2 rounds down to 1; each product rounded up would give 2.
        (1, 1, {"residual_shift": 1}, 11),
        # 1/4 + 1/4 + 1/2 is 1; rounded each, they are 0.
        (1, 1, {"multiplier": 1, "shift": 2, "residual_shift": 2}, 11),
        # -3/2 + 3/2 is 0; rounded each, -1 + 2.
        (-3, 3, {"residual_shift": 1}, 10),
        # Halves go up: -1/2 + 0 is 0, 1/2 + 1 is 2, 1/2 - 1 is 0.
        (-1, 0, {"residual_shift": 1}, 10),
        (1, 2, {"residual_shift": 1}, 12),
        (1, 1, {"residual_zero": 2}, 10),
        # (100 - 128) * 3 / 4 = -21; a negative multiplier turns the sign.
        (0, 100, {"shift": 2, "residual_zero": 128, "residual_multiplier": -3, "residual_shift": 2},
         31),
        # At a shift of 47 the residual alone is 2^71 units and more; the limits hold.
        (0, 255, {"shift": 47, "residual_multiplier": 32767}, 250),
        (0, 0, {"shift": 47, "residual_multiplier": 32767, "residual_zero": 255}, 5),
        (-(1 << 40), 9, {"shift": 47, "multiplier": 16384, "residual_multiplier": 16384}, 250),
    ],
)  # fmt: skip
def test_one_rounding_by_hand(acc, residual, fields, expected):
    layer = requantiser(**({"multiplier": 1, "shift": 1, "zero": 10} | fields))
    codes = golden.output_codes(layer, np.array([acc]), np.array([residual], np.uint8))
    assert codes.tolist() == [expected]


def exact(layer: LayerProgram, sums: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The formula in Python's integers, at 2^100."""
    result = np.zeros(sums.shape, int)
    for place in np.ndindex(*sums.shape):
        output = place[-1]
        total = (int(sums[place]) + int(layer.bias[output])) * int(layer.multiplier[output])
        total <<= 100 - int(layer.shift[output])
        added = (int(codes[place]) - layer.residual_zero) * layer.residual_multiplier
        total += added << 100 - layer.residual_shift
        rounded = (total + (1 << 99)) >> 100
        result[place] = min(max(rounded + layer.zero_out, layer.clip_lo), layer.clip_hi)
    return result


@pytest.mark.parametrize("seed", range(8))
def test_random_layers_match_the_formula(seed):
    rng = np.random.default_rng(seed)
    layer = random_layer_program(rng, outputs=8, groups=1)
    least = int(layer.shift.min())
    s = int(rng.integers(0, min(least, 15) + 1))
    zero, m = int(rng.integers(0, 256)), int(rng.integers(-(1 << s), (1 << s) + 1))
    layer = with_residual(layer, residual_zero=zero, residual_multiplier=m, residual_shift=s)
    codes = random_codes(rng, layer, 2)
    residual = rng.integers(0, 256, (2, *layer.out_shape)).astype(np.uint8)
    sums = golden.accumulators(layer, codes)
    expected = exact(layer, sums, residual)
    assert (golden.run_layer(layer, codes, residual) == expected).all()
    config = engine_config_for([layer])
    assert (golden.serial_layer(config)(layer, codes, residual) == expected).all()
    some = slice(0, 3)
    trace = golden.run_layer_serial(layer, codes, config, positions=some, residual=residual)
    assert (trace.outputs == expected.reshape(2, -1, 8)[:, some]).all()


def test_an_operand_that_is_missing_or_not_asked_for_is_refused():
    layer = requantiser(1, 1)
    codes = np.zeros((1, 1, 1, 1), np.uint8)
    with pytest.raises(ValueError, match=r"^layer layer needs residual operand$"):
        golden.run_layer(layer, codes)
    plain = dataclasses.replace(layer, residual=False, residual_multiplier=0)
    with pytest.raises(ValueError, match=r"^layer layer has no residual operand$"):
        golden.run_layer(plain, codes, codes)
    with pytest.raises(ValueError, match="codes of layer layer, residual must be"):
        golden.run_layer(layer, codes, np.zeros((1, 1, 1, 2), np.uint8))


# Compiling


@pytest.mark.parametrize(
    ("ratio", "shifts", "expected"),
    [
        (1.0, [30, 22], (16384, 14)),
        (0.3, [30, 15], (9830, 15)),  # 0.3 * 2^16 = 19661 is out of reach: the least s is 15
        (0.3, [30, 47], (19661, 16)),
        (3.0, [8], (768, 8)),
        (2.0**-30, [20], (0, 20)),
        (200.0, [47], (25600, 7)),
    ],
)
def test_multiplier_and_shift_of_a_residual(ratio, shifts, expected):
    assert residual_fraction(ratio, np.array(shifts)) == expected


@pytest.mark.parametrize(("ratio", "shift"), [(1 / 3, 6), (40000.0, 47)])
def test_a_residual_that_cannot_be_scaled_is_refused(ratio, shift):
    with pytest.raises(InputError, match=f"^expected a residual that .* {shift} .* in layer a$"):
        residual_fraction(ratio, np.array([shift, 47]), "a")


def block(*, second: bool = False, relu: bool = False, order: str = "conv") -> list:
    """A residual block: its shortcut is the input, or a convolution; written in an order."""
    main = [
        node("Conv", "x w1 b", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2 b", "c2", pads=[1, 1, 1, 1]),
    ]
    name = "c2"
    if relu:
        main.append(node("Relu", "c2", "limited"))
        name = "limited"
    shortcut = [node("Conv", "x w3", "s")] if second else [node("Conv", "x w3", "p")]
    if not second:
        shortcut.append(node("Relu", "p", "s"))
    nodes = main + shortcut if order == "conv" else shortcut + main
    return [*nodes, node("Add", f"{name} s", "a"), node("Relu", "a", "y")]


CONSTANTS = {
    "w1": floats(1, 4, 3, 3, 3) / 4,
    "w2": floats(2, 4, 4, 3, 3) / 6,
    "w3": floats(3, 4, 3, 1, 1) / 2,
    "b": floats(4, 4) / 4,
}
IMAGES = floats(5, 6, 3, 7, 7)


def loaded(nodes: list, folder: Path) -> FloatNetwork:
    return load_onnx(save(network(nodes, CONSTANTS, ("N", 3, 7, 7)), folder))


def names(quant: QuantNetwork) -> list[tuple[str, tuple[str, ...]]]:
    return [(step.op, step.inputs) for step in quant.steps]


@pytest.mark.parametrize("order", ["conv", "shortcut"])
def test_the_convolution_takes_the_addition(order, tmp_path):
    floating = loaded(block(order=order), tmp_path)
    quant = quantize(floating, IMAGES, residual="fused")
    step = quant.steps[-1]
    assert (step.op, step.inputs) == ("layer", ("c1", "p"))
    layer = quant.layers[step.params["index"]]
    assert layer.name == "c2_node"
    assert layer.residual == quant.tensors["p"]
    assert [each.name for each in quant.layers] == [
        each.name for each in quantize(floating, IMAGES).layers
    ]
    # The sum before the addition has no codes any more; what comes out has those of the addition.
    assert "c2" not in quant.tensors
    separate = quantize(floating, IMAGES)
    assert quant.tensors[quant.output] == separate.tensors[separate.output]
    assert (layer.out_scale, layer.out_zero) == (quant.tensors["a"].scale, 0)


def test_of_two_convolutions_the_last_takes_the_addition(tmp_path):
    quant = quantize(loaded(block(second=True), tmp_path), IMAGES, residual="fused")
    assert names(quant)[-2:] == [("layer", ("c1",)), ("layer", ("x", "c2"))]
    assert [layer.residual is not None for layer in quant.layers] == [False, False, True]


def test_what_else_is_read_or_limited_stays_an_addition(tmp_path):
    # A ReLU between: the sum is limited before it is added, on both sides.
    quant = quantize(loaded(block(relu=True), tmp_path), IMAGES, residual="fused")
    assert [op for op, _ in names(quant)] == ["layer", "layer", "layer", "add"]
    # A sum that something else reads; one that is added to itself.
    twice = [node("Conv", "x w1 b", "c", pads=[1, 1, 1, 1]), node("Add", "c c", "y")]
    quant = quantize(loaded(twice, tmp_path), IMAGES, residual="fused")
    assert names(quant) == [("layer", ("x",)), ("add", ("c", "c"))]
    other = [
        *block(),
        node("Add", "y c2", "z"),
    ]
    other[-1].output[0], other[-2].output[0] = "y", "inner"
    other[-1].input[0] = "inner"
    quant = quantize(loaded(other, tmp_path), IMAGES, residual="fused")
    assert [op for op, _ in names(quant)] == ["layer", "layer", "layer", "add", "add"]


def test_separate_is_the_default_and_unknown_choices_are_refused(tmp_path):
    floating = loaded(block(), tmp_path)
    assert [op for op, _ in names(quantize(floating, IMAGES))][-1] == "add"
    with pytest.raises(ValueError, match=r"^residual must be one of separate, fused, not 'both'$"):
        quantize(floating, IMAGES, residual="both")  # pyright: ignore


def outputs(program: Program, floating: FloatNetwork, images: np.ndarray) -> tuple:
    codes = golden.quantise_input(program, images)
    info = program.tensors[program.output]
    kept = TensorInfo(shape=tuple(info["shape"]), scale=info["scale"], zero=info["zero"])
    found = decode(golden.run_program(program, codes)[program.output], kept)
    expected = floating.trace(images)[floating.output].transpose(0, 2, 3, 1)
    return found, expected, kept.scale


@pytest.mark.parametrize("kind", [{}, {"second": True}, {"order": "shortcut"}], ids=str)
def test_a_fused_network_agrees_with_float_at_least_as_well_as_a_separate_one(kind, tmp_path):
    floating = loaded(block(**kind), tmp_path)
    errors = []
    for residual in ("separate", "fused"):
        quant = quantize(floating, IMAGES, residual=residual)
        program = compile_network(quant, scheme="dense")
        found, expected, scale = outputs(program, floating, IMAGES)
        errors.append(float(np.sqrt(np.mean(np.square(found - expected)))) / scale)
    # In codes of the output: weights and inputs of 8 bits leave less than one.
    assert errors[1] < 1
    assert errors[1] < errors[0]


def test_a_fused_layer_computes_what_its_weights_and_scales_say(tmp_path):
    floating = loaded(block(), tmp_path)
    quant = quantize(floating, IMAGES, residual="fused")
    program = compile_network(quant, scheme="dense")
    tensors = golden.run_program(program, encode(IMAGES, quant.tensors["x"]))
    layer, mapped = quant.layers[1], program.layers[1]
    weights = mapped.effective_weights().reshape(4, 9, 4) / 256
    scale = np.abs(layer.weight).max() / 127
    seen = golden.patches(mapped, tensors["c1"]).reshape(6, 49, 9, 4) - float(layer.in_zero)
    real = np.einsum("nqpc,opc->nqo", seen, weights) * scale * layer.in_scale * layer.gain
    real += layer.bias
    info = quant.tensors["p"]
    real += (tensors["p"].reshape(6, 49, 4) - float(info.zero)) * info.scale
    wanted = np.clip(real / layer.out_scale + layer.out_zero, 0, 255)
    found = tensors[quant.output].reshape(6, 49, 4)
    # Half a code of rounding, and 2^-15 of what M and M_r leave.
    assert np.abs(found - wanted).max() < 0.52


# Files


@pytest.fixture
def fused(tmp_path) -> Program:
    quant = quantize(loaded(block(), tmp_path), IMAGES, residual="fused")
    return compile_network(quant, scheme="prap")


def header(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("header.json"))


def test_a_fused_program_is_of_version_2_and_comes_back(fused, tmp_path):
    path = tmp_path / "fused.prap"
    fused.save(path)
    assert header(path)["version"] == 2
    again = Program.load(path)
    assert [layer.residual for layer in again.layers] == [False, True, False]
    for name in ("residual_zero", "residual_multiplier", "residual_shift"):
        assert getattr(again.layers[1], name) == getattr(fused.layers[1], name)
    codes = golden.quantise_input(fused, IMAGES)
    both = [golden.run_program(each, codes)[each.output] for each in (fused, again)]
    assert (both[0] == both[1]).all()


def test_a_program_without_residuals_is_the_file_that_it_was(tmp_path):
    quant = quantize(loaded(block(), tmp_path), IMAGES)
    path = tmp_path / "separate.prap"
    compile_network(quant, scheme="prap").save(path)
    assert header(path)["version"] == 1
    assert not any(name.startswith("residual") for name in header(path)["layers"][1])


def rewritten(program: Program, path: Path, version: int) -> Path:
    """Save with another version, checksum and all."""
    program.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    text = parts["header.json"].decode()
    parts["header.json"] = text.replace('"version": 2', f'"version": {version}').encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def test_a_residual_in_a_file_of_version_1_is_refused(fused, tmp_path):
    path = rewritten(fused, tmp_path / "old.prap", 1)
    with pytest.raises(InputError, match="layer 0: expected no residual in version 1, found one"):
        Program.load(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"residual_zero": 256},
        {"residual_zero": -1},
        {"residual_multiplier": 32768},
        {"residual_shift": 2},
        {"residual_shift": -1},
        {"residual": False, "residual_multiplier": 1},
    ],
    ids=str,
)
def test_a_residual_out_of_range_is_refused(fields):
    layer = requantiser(1, 1)
    with pytest.raises(InputError, match=r"^layer layer: expected a residual zero point, multipl"):
        dataclasses.replace(layer, **fields)


def test_steps_that_do_not_fit_their_residual_are_refused(fused, tmp_path):
    path = tmp_path / "bad.prap"

    def refused(inputs: tuple[str, ...], message: str) -> None:
        step = fused.steps[-1]
        bad = Step(op="layer", inputs=inputs, output=step.output, params=step.params)
        dataclasses.replace(fused, steps=(*fused.steps[:-1], bad)).save(path)
        with pytest.raises(InputError, match=re.escape(message)):
            Program.load(path)

    refused(("c1",), "expected 2 inputs, found 1")
    refused(("c1", "p", "p"), "expected 2 inputs, found 3")
    refused(("c1", "x"), "expected a residual of shape (7, 7, 4), found (7, 7, 3)")


# From the command line


@pytest.mark.long
def test_compress_fuses_on_request_and_the_lone_engine_says_that_it_cannot(tmp_path, capsys):
    save(small_cnn(3), tmp_path)
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (12, 8, 8, 2), np.uint8)
    np.savez(tmp_path / "images.npz", x=images, y=rng.integers(0, 5, 12))
    out, given = tmp_path / "out", tmp_path / "images.npz"
    command = ["compress", tmp_path / "net.onnx", "--calibration", given, "-o", out]
    assert run([str(part) for part in [*command, "--residual", "fused"]]) == 0
    program = Program.load(out / workflow.PROGRAM_FILE)
    assert [step.op for step in program.steps].count("add") == 0
    summary = json.loads((out / workflow.SUMMARY_FILE).read_text())
    assert summary["calibration"]["residual"] == "fused"
    assert run(["evaluate", str(out), "--images", str(given)]) == 0
    capsys.readouterr()
    assert run(["cosim", str(out), "--images", str(given), "--count", "1"]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "expected no residual operand on an engine by itself, found one" in error


def test_no_images_are_made_of_a_layer_with_a_residual(fused):
    with pytest.raises(InputError, match=r"^layer c2_node: expected no residual operand on an eng"):
        layer_image(fused.layers[1], engine_config_for(fused.layers))
