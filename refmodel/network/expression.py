"""Functions of one real variable, as terms of ONNX's operators.

Activations such as SiLU come as several nodes of a file, ``x * Sigmoid(x)``. Together they are one
function of x, and on 8-bit codes a table of 256 entries. A :class:`Term` holds such a function: it
is evaluated with numpy, put into another, and written as ONNX nodes again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_DEPTH = 64
"""Operators behind one another in a term that is put together of several nodes."""


@dataclass(frozen=True, eq=False)
class Term:
    """An operator on terms and constants, or the variable.

    Attributes
    ----------
    op
        The operator's name in ONNX, one of :data:`OPERATORS`; ``X`` is the variable.
    operands
        Terms, and constants: float64, of no axis, or such that they broadcast against a tensor
        without its batch and differ along its channels alone.
    attributes
        Attributes of the operator; all of its numbers, defaults as well.
    """

    op: str
    operands: tuple["Term | NDArray[np.float64]", ...] = ()
    attributes: Mapping[str, float] = field(default_factory=dict)

    @property
    def terms(self) -> list["Term"]:
        """Operands that are terms."""
        return [each for each in self.operands if isinstance(each, Term)]

    @cached_property
    def per_channel(self) -> bool:
        """Whether a constant in it differs between channels."""
        constants = (each for each in self.operands if not isinstance(each, Term))
        return any(each.size > 1 for each in constants) or any(
            each.per_channel for each in self.terms
        )

    @cached_property
    def depth(self) -> int:
        """Operators behind one another; the variable has none."""
        return 1 + max(each.depth for each in self.terms) if self.terms else 0

    def __call__(self, x: NDArray) -> NDArray:
        """Compute the values of the function, in the type of ``x``."""
        return self._value(x, {})

    def _value(self, x: NDArray, known: dict[int, NDArray]) -> NDArray:
        if self.op == "X":
            return x
        if id(self) not in known:
            values = [
                each._value(x, known) if isinstance(each, Term) else each.astype(x.dtype)
                for each in self.operands
            ]
            known[id(self)] = OPERATORS[self.op](*values, **self.attributes).astype(x.dtype)
        return known[id(self)]

    def of(self, inner: "Term") -> "Term":
        """Put another function in the place of the variable."""
        return self._of(inner, {})

    def _of(self, inner: "Term", known: dict[int, "Term"]) -> "Term":
        if self.op == "X":
            return inner
        if id(self) not in known:
            operands = tuple(
                each._of(inner, known) if isinstance(each, Term) else each for each in self.operands
            )
            known[id(self)] = Term(self.op, operands, self.attributes)
        return known[id(self)]


X = Term("X")
"""The variable."""


def term(op: str, *operands: Term | NDArray | float, **attributes: float) -> Term:
    """Make a term; numbers among its operands are constants."""
    return Term(
        op,
        tuple(
            each if isinstance(each, Term) else np.asarray(each, np.float64) for each in operands
        ),
        attributes,
    )


def erf(x: NDArray) -> NDArray:
    """Compute the error function, off by 1.5e-7 at most (Abramowitz and Stegun, 7.1.26)."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    total = np.zeros_like(x)
    for each in reversed(series):
        total = (total + each) * t
    return np.sign(x) * (1 - total * np.exp(-x * x))


def _sigmoid(x: NDArray) -> NDArray:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def _softplus(x: NDArray) -> NDArray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _grown(x: NDArray) -> NDArray:
    """``exp(x) - 1`` of what is below 0."""
    return np.expm1(np.minimum(x, 0))


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Celu": lambda x, alpha: np.maximum(x, 0) + alpha * _grown(x / alpha),
    "Clip": lambda x, low, high: np.clip(x, low, high),
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Div": np.divide,
    "Elu": lambda x, alpha: np.where(x < 0, alpha * _grown(x), x),
    "Erf": erf,
    "Exp": np.exp,
    "Floor": np.floor,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "HardSigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "LeakyRelu": lambda x, alpha: np.where(x < 0, alpha * x, x),
    "Log": np.log,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "PRelu": lambda x, slope: np.where(x < 0, slope * x, x),
    "Pow": np.power,
    "Reciprocal": np.reciprocal,
    "Relu": lambda x: np.maximum(x, 0),
    "Round": np.rint,
    "Selu": lambda x, alpha, gamma: gamma * np.where(x > 0, x, alpha * _grown(x)),
    "Shrink": lambda x, bias, lambd: np.where(
        x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)
    ),
    "Sigmoid": _sigmoid,
    "Sign": np.sign,
    "Sin": np.sin,
    "Softplus": _softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Tanh": np.tanh,
    "ThresholdedRelu": lambda x, alpha: np.where(x > alpha, x, 0),
    "Where": lambda chosen, x, y: np.where(chosen != 0, x, y),
}
"""What a term may have, as functions of arrays. Comparisons give 1 where they hold, and 0."""

COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
"""Operators whose results are true or false in ONNX."""
