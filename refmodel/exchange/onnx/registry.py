"""The operators that can be imported: each is a function that registers itself.

``docs/howto/add-an-operator.md`` shows how one is added.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from onnx import NodeProto

from refmodel.exchange.onnx.builder import Attributes, NetworkBuilder

DROPPED = ("Identity", "Dropout")
"""Operators that pass their first input on during inference."""

LAST = ("Softmax", "LogSoftmax", "ArgMax")
"""Operators that may end the network and are left out."""

Handler = Callable[[NetworkBuilder, NodeProto, Attributes], None]
"""A function that appends to the network what an ONNX node computes."""

_Function = TypeVar("_Function", bound=Handler)


@dataclass(frozen=True)
class Operator:
    """An operator of ONNX that can be imported.

    Attributes
    ----------
    handler
        Imports one node. It raises :class:`refmodel.errors.InputError`, most simply with
        :meth:`NetworkBuilder.fail <refmodel.exchange.onnx.builder.NetworkBuilder.fail>`, where it
        cannot.
    batch_last
        Whether it works on each value alone, so that it may also be applied to a matrix (F, N)
        with its batch last. The handler is then called for the transposed node.
    """

    handler: Handler
    batch_last: bool = False


OPERATORS: dict[str, Operator] = {}
"""The operators of ONNX's own domain by name."""


def operator(*names: str, batch_last: bool = False) -> Callable[[_Function], _Function]:
    """Register a function as the one that imports the operators ``names``.

    Parameters
    ----------
    names
        Types of ONNX nodes, such as ``"Relu"``.
    batch_last
        See :class:`Operator`.

    Raises
    ------
    ValueError
        One of the operators is registered already.
    """

    def register(function: _Function) -> _Function:
        for name in names:
            if name in OPERATORS:
                raise ValueError(f"operator {name!r} is registered already")
            OPERATORS[name] = Operator(function, batch_last)
        return function

    return register


def supported() -> list[str]:
    """Return the names of all operators that a file may have, sorted."""
    return sorted({*OPERATORS, *DROPPED, *LAST, "Shape"})
