"""Activations, all of them limits to a range, and Cast between types of floating point."""

import numpy as np
from onnx import NodeProto, TensorProto

from refmodel.exchange.onnx.builder import FLOATING, Attributes, NetworkBuilder, type_name
from refmodel.exchange.onnx.operators.arithmetic import absorb
from refmodel.exchange.onnx.operators.functions import apply_term
from refmodel.exchange.onnx.registry import operator
from refmodel.network.expression import X, term
from refmodel.network.graph import Clip


@operator("Clip", "Relu", batch_last=True)
def import_clip(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a limit to a range; one that does not hold 0 becomes a table."""
    name, _ = net.activation(node.input[0], node)
    lo, hi = (0.0, np.inf)
    if node.op_type == "Clip":
        lo = _read_limit(net, node, attributes, "min", 1, -np.inf)
        hi = _read_limit(net, node, attributes, "max", 2, np.inf)
    limit(net, node, name, lo, hi)


@operator("HardSigmoid", batch_last=True)
def import_hard_sigmoid(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import ``alpha * x + beta`` limited to 0 and 1: a layer before it takes it over."""
    name, _ = net.activation(node.input[0], node)
    alpha, beta = float(attributes.get("alpha", 0.2)), float(attributes.get("beta", 0.5))
    if not np.isfinite([alpha, beta]).all():
        net.fail("with a finite alpha and beta", f"{alpha:g} and {beta:g}", node)
    inner = net.inner_node(node)
    gain, bias = (np.full(net.shapes[name], value) for value in (alpha, beta))
    if absorb(net, inner, name, gain, bias):
        limit(net, node, net.resolve(inner.output[0]), 0.0, 1.0)
    else:
        apply_term(net, node, name, term("HardSigmoid", X, alpha=alpha, beta=beta))


def limit(net: NetworkBuilder, node: NodeProto, name: str, lo: float, hi: float) -> None:
    """Let the output of ``node`` be ``name`` limited to a range."""
    if not lo < hi:
        net.fail("to limits min < max", f"min {lo:g}, max {hi:g}", node)
    if not lo <= 0 < hi:
        apply_term(net, node, name, term("Clip", X, lo, hi))
        return
    net.append(Clip(**net.fields(node, (name,), net.shapes[name]), lo=lo, hi=hi))


def _read_limit(
    net: NetworkBuilder, node: NodeProto, attributes: Attributes, key: str, at: int, default: float
) -> float:
    """Read a limit: an attribute in older opsets, input ``at`` in newer ones."""
    if key in attributes:
        return float(attributes[key])
    if len(node.input) <= at or not node.input[at]:
        return default
    if node.input[at] not in net.constants:
        net.fail(f"with a constant {key}", f"tensor {node.input[at]!r}", node)
    return float(net.constants[node.input[at]].item())


@operator("Cast")
def import_cast(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a change of the type of floating point, which does nothing, or to true and false."""
    name, _ = net.activation(node.input[0], node)
    if attributes["to"] == TensorProto.BOOL:
        apply_term(net, node, name, term("Sign", term("Abs", X)))
        return
    if attributes["to"] not in FLOATING:
        found = type_name(attributes["to"])
        net.fail("to floating point", found, node)
    net.pass_on(node, name)
