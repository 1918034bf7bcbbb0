"""Operators that others express: what puts them together."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from onnx import NodeProto

from refmodel.exchange.onnx.builder import Attributes, NetworkBuilder
from refmodel.exchange.onnx.operators.functions import apply_term
from refmodel.exchange.onnx.registry import OPERATORS
from refmodel.network.expression import Term


class Parts:
    """Imports the steps of which a node consists, one after the other.

    Parameters
    ----------
    net, node
        The network, and the node; the last step is to have its output.
    """

    def __init__(self, net: NetworkBuilder, node: NodeProto) -> None:
        self.net = net
        self.node = node
        self._count = 0

    def constant(self, values: ArrayLike) -> str:
        """Add a constant; returns its name."""
        self._count += 1
        name = f"{self.node.output[0]}.constant{self._count}"
        self.net.constants[name] = np.asarray(values)
        self.net.origin[name] = name
        return name

    def add(self, op: str, *inputs: str, last: bool = False, **attributes: Any) -> str:
        """Import an operator; returns its output."""
        step = self._step(op, inputs, last=last)
        handed: Attributes = attributes
        OPERATORS[op].handler(self.net, step, handed)
        return step.output[0]

    def function(self, function: Term, x: str, *, last: bool = False) -> str:
        """Append a function of single values; returns its output."""
        step = self._step("Function", (x,), last=last)
        name, _ = self.net.activation(x, self.node)
        apply_term(self.net, step, name, function)
        return step.output[0]

    def _step(self, op: str, inputs: tuple[str, ...], *, last: bool) -> NodeProto:
        step = NodeProto() if last else self.net.inner_node(self.node)
        if last:
            step.CopyFrom(self.node)
        else:
            self._count += 1
            step.name = f"{self.node.name or self.node.output[0]}.{op.lower()}{self._count}"
        step.op_type = op
        step.input[:] = inputs
        del step.attribute[:]
        for name in inputs:  # nothing takes over what may be read again
            self.net.uses[self.net.resolve(name)] += 1
        return step
