"""Functions, products, resizes and what else became importable, against onnxruntime."""

import numpy as np
import pytest

from refmodel import golden
from refmodel.compression import compile as compiler
from refmodel.compression.quantize import quantize
from refmodel.exchange.onnx.load import load_onnx
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.run import run_image
from refmodel.predict.accelerator.sizing import accelerator_config_for
from tests.support.nets.function_cases import CASES
from tests.support.nets.onnx_cases import SEED, error_in_integers, relative, runtime
from tests.support.nets.onnx_nets import floats, network, reference, save

NOISY = {
    "lrn-of-parts": 0.05,
    **dict.fromkeys(("ceil", "floor", "round"), 0.25),
    "thresholdedrelu": 0.3,
    "shrink": 0.1,
    "shrink-of-parts": 0.15,
    "where": 0.1,
    **dict.fromkeys(("layer-norm-of-rows", "rms-norm", "limit-above-0"), 0.1),
}
"""Largest error of the integers, in shares of the largest value, where it may be above 0.04.

The parts of the LRN round one after the other; a step may be missed by a code, and is as large as
the step; what divides by a small variance, or a steep logarithm, makes more of a rounding.
"""


def model_of(case: str):
    nodes, constants, shape, opset = CASES[case]
    return network(nodes, constants, shape, opset=opset), floats(SEED, 8, *shape[1:])


@pytest.mark.parametrize("case", CASES)
def test_float_is_that_of_onnxruntime(case, tmp_path):
    model, x = model_of(case)
    loaded = load_onnx(save(model, tmp_path))
    evaluate = reference if case == "swish" else runtime  # which has no Swish yet
    expected = np.concatenate([evaluate(model, image[None]) for image in x])
    found = loaded.forward(x)
    assert found.shape == expected.shape
    assert relative(found, expected) <= 1e-5


@pytest.mark.parametrize("case", CASES)
def test_integers_are_near_float(case, tmp_path):
    model, x = model_of(case)
    loaded = load_onnx(save(model, tmp_path))
    assert error_in_integers(loaded, x, tmp_path) <= NOISY.get(case, 0.04)


@pytest.mark.parametrize("case", CASES)
def test_the_accelerators_operations_give_the_codes_of_the_golden_model(case, tmp_path):
    model, x = model_of(case)
    program = compiler.compile_network(
        quantize(load_onnx(save(model, tmp_path)), x), scheme="dense"
    )
    codes = golden.quantise_input(program, x)
    expected = golden.run_program(program, codes)[program.output].reshape(len(x), -1)
    image = network_image(program, accelerator_config_for(program))
    np.testing.assert_array_equal(run_image(image, program.layers, codes), expected)
