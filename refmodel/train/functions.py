"""Terms of :mod:`refmodel.network.expression` in PyTorch, with gradients."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from refmodel.network.expression import Term

OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Celu": lambda x, alpha: functional.celu(x, alpha),
    "Clip": lambda x, low, high: torch.minimum(torch.maximum(x, low), high),
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Div": torch.div,
    "Elu": lambda x, alpha: functional.elu(x, alpha),
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": lambda x, y: (x > y).to(x),
    "GreaterOrEqual": lambda x, y: (x >= y).to(x),
    "HardSigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "HardSwish": functional.hardswish,
    "Less": lambda x, y: (x < y).to(x),
    "LessOrEqual": lambda x, y: (x <= y).to(x),
    "LeakyRelu": lambda x, alpha: functional.leaky_relu(x, alpha),
    "Log": torch.log,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": functional.relu,
    "Round": torch.round,
    # Not by torch.where: the gradient of the branch that is not taken is 0 times infinity.
    "Selu": lambda x, alpha, gamma: gamma * functional.elu(x, alpha),
    "Shrink": lambda x, bias, lambd: torch.where(
        x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x))
    ),
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "ThresholdedRelu": lambda x, alpha: torch.where(x > alpha, x, torch.zeros_like(x)),
    "Where": lambda chosen, x, y: torch.where(chosen != 0, x, y),
}
"""Operators of terms, as functions of tensors."""


def evaluate(function: Term, x: Tensor) -> Tensor:
    """Compute the values of a function."""
    known: dict[int, Tensor] = {}

    def value(part: Term) -> Tensor:
        if part.op == "X":
            return x
        if id(part) not in known:
            operands = [
                value(each) if isinstance(each, Term) else torch.from_numpy(each).to(x)
                for each in part.operands
            ]
            known[id(part)] = OPERATORS[part.op](*operands, **part.attributes)
        return known[id(part)]

    return value(function)
