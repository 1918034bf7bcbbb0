"""Functions of single values in PyTorch: those of the golden model, with gradients."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: make test installs it")
import torch

from refmodel.network.expression import OPERATORS, X, erf, term
from refmodel.train import functions

ATTRIBUTES = {
    "Celu": {"alpha": 0.7},
    "Elu": {"alpha": 0.7},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.1},
    "Selu": {"alpha": 1.67, "gamma": 1.05},
    "Shrink": {"bias": 0.2, "lambd": 0.6},
    "ThresholdedRelu": {"alpha": 0.6},
}
CONSTANTS = {
    "Add": [0.3], "Clip": [-0.5, 1.5], "Div": [0.7], "Max": [0.1], "Min": [0.1], "Mul": [-2.0],
    "PRelu": [0.2], "Pow": [3.0], "Sub": [0.3], "Greater": [0.25], "GreaterOrEqual": [0.25],
    "Less": [0.25], "LessOrEqual": [0.25], "Where": [1.5, -0.5],
}  # fmt: skip


def test_both_have_the_same_operators():
    assert functions.OPERATORS.keys() == OPERATORS.keys()


@pytest.mark.parametrize("op", OPERATORS)
def test_an_operator_is_the_same_in_both(op):
    x = np.linspace(-3, 3, 25).astype(np.float32)
    if op in ("Log", "Sqrt", "Reciprocal"):
        x = np.abs(x) + np.float32(0.1)
    part = term(op, X, *CONSTANTS.get(op, []), **ATTRIBUTES.get(op, {}))
    function = term("Add", term("Mul", part, 2.0), X)  # a comparison has no gradient of its own
    tensor = torch.from_numpy(x).requires_grad_()
    found = functions.evaluate(function, tensor)
    np.testing.assert_allclose(found.detach().numpy(), function(x), rtol=2e-5, atol=2e-6)
    found.sum().backward()
    assert tensor.grad is not None
    assert np.isfinite(tensor.grad.numpy()).all()


@pytest.mark.parametrize("op", ["Celu", "Elu", "HardSwish", "Selu", "Sigmoid", "Softplus", "Tanh"])
def test_gradients_of_large_values_are_finite(op):
    # exp(200) is infinite in float32: it must not reach a gradient as 0 times infinity.
    tensor = torch.tensor([-200.0, 200.0], requires_grad=True)
    functions.evaluate(term(op, X, **ATTRIBUTES.get(op, {})), tensor).sum().backward()
    assert tensor.grad is not None
    assert np.isfinite(tensor.grad.numpy()).all()


def test_the_error_function_by_hand():
    # 0.8427007929 and 0.5204998778 are erf(1) and erf(1/2).
    found = erf(np.array([0.0, 1.0, -0.5, 9.0]))
    np.testing.assert_allclose(found, [0, 0.8427007929, -0.5204998778, 1], atol=2e-7)


def test_a_term_in_another_is_worked_out_once_and_bounded_in_depth():
    square = term("Mul", X, X)
    assert float(term("Add", square, 1.0).of(square)(np.array(2.0))) == 17
    deep = X
    for _ in range(60):
        deep = term("Mul", deep, deep)  # 2^60 operators, were they worked out one by one
    assert deep.depth == 60
    assert float(deep(np.array(1.0))) == 1
    assert not deep.per_channel
    assert term("PRelu", X, np.array([[[0.1]], [[0.2]]])).per_channel
