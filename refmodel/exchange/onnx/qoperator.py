"""Quantised networks in QOperator form, written as QuantizeLinear and DequantizeLinear.

onnxruntime writes a quantised network in one of two forms. In QDQ, operators in floating point
stand between DequantizeLinear and QuantizeLinear; in QOperator, one operator takes codes and gives
codes: ONNX's own QLinearConv and QLinearMatMul, and QGemm, QLinearAdd and others of the domain
``com.microsoft``. Each of these is written here as what it means in QDQ, before anything is
imported::

    QLinearConv(x, xs, xz, w, ws, wz, ys, yz, b)
        = QuantizeLinear(Conv(DequantizeLinear(x, xs, xz), DequantizeLinear(w, ws, wz),
                              DequantizeLinear(b, xs * ws)), ys, yz)
"""

from collections.abc import Callable, Sequence

import onnx
from onnx import NodeProto, helper

from refmodel.errors import InputError
from refmodel.exchange.onnx.builder import one_line

MICROSOFT = "com.microsoft"


class _Rewriter:
    """The nodes in whose place one node stands, so far."""

    def __init__(self, node: NodeProto, source: str) -> None:
        self.node = node
        self.source = source
        self.name = node.name or (node.output[0] if node.output else "")
        self.nodes: list[NodeProto] = []

    def inputs(self, least: int) -> list[str]:
        """Return the inputs; refuses fewer than ``least``, or an empty one among these."""
        names = list(self.node.input)
        if len(names) < least or "" in names[:least] or not self.node.output:
            raise InputError(
                f"expected {self.node.op_type} with {least} inputs and an output, found "
                f"{len(names)} and {len(self.node.output)}, in node {self.name!r} of {self.source}"
            )
        return names

    def attributes(self, *names: str) -> dict:
        """Return those of the attributes that have one of ``names``."""
        values = {a.name: helper.get_attribute_value(a) for a in self.node.attribute}
        return {name: values[name] for name in names if name in values}

    def add(self, op: str, inputs: Sequence[str], suffix: str, **attributes) -> str:
        """Append a node; returns its output."""
        output = f"{self.node.output[0]}/{suffix}"
        self.nodes.append(
            helper.make_node(op, inputs, [output], name=f"{self.name}/{suffix}", **attributes)
        )
        return output

    def dequantised(self, codes: Sequence[str], suffix: str, axis: int = 1) -> str:
        """Append what three inputs, codes, scale and zero point, stand for."""
        names = [name for name in codes if name]
        return self.add("DequantizeLinear", names, suffix, axis=axis)

    def compute(self, op: str, inputs: Sequence[str], scale: Sequence[str], **attributes) -> None:
        """Append the operator in floating point and the quantisation of its output.

        ``scale`` is scale and zero point; without a scale the output stays in floating point.
        """
        names = [name for name in scale if name]
        output = self.node.output[0]
        result = f"{output}/real" if names else output
        self.nodes.append(
            helper.make_node(op, inputs, [result], name=self.name, doc_string="", **attributes)
        )
        if names:
            name = f"{self.name}/quantised"
            self.nodes.append(
                helper.make_node("QuantizeLinear", [result, *names], [output], name=name)
            )


def _convolution(on: _Rewriter) -> None:
    x, w, y = (on.inputs(8)[at : at + 3] for at in (0, 3, 6))
    inputs = [on.dequantised(x, "x"), on.dequantised(w, "w", 0)]
    if len(on.node.input) > 8 and on.node.input[8]:
        scale = on.add("Mul", [x[1], w[1]], "bias_scale")
        inputs.append(on.dequantised([on.node.input[8], scale], "bias", 0))
    kept = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    on.compute("Conv", inputs, y[:2], **on.attributes(*kept))


def _matrix_product(on: _Rewriter) -> None:
    a, b, y = (on.inputs(8)[at : at + 3] for at in (0, 3, 6))
    on.compute("MatMul", [on.dequantised(a, "a"), on.dequantised(b, "b", 1)], y[:2])


def _gemm(on: _Rewriter) -> None:
    names = on.inputs(6)
    a, b, rest = names[:3], names[3:6], [*names[6:], "", "", ""]
    attributes = on.attributes("alpha", "transA", "transB")
    across = 0 if attributes.get("transB", 0) else 1
    inputs = [on.dequantised(a, "a"), on.dequantised(b, "b", across)]
    if rest[0]:  # the bias has the scale of the product, alpha included
        scale = on.add("Mul", [a[1], b[1]], "product_scale")
        alpha = float(attributes.get("alpha", 1.0))
        if alpha != 1.0:
            factor = on.add("Constant", [], "alpha", value_float=alpha)
            scale = on.add("Mul", [scale, factor], "bias_scale")
        inputs.append(on.dequantised([rest[0], scale], "bias", 0))
    on.compute("Gemm", inputs, rest[1:3], **attributes)


def _two(op: str) -> Callable[[_Rewriter], None]:
    def rewrite(on: _Rewriter) -> None:
        names = on.inputs(7)
        a, b = on.dequantised(names[:3], "a"), on.dequantised(names[3:6], "b")
        on.compute(op, [a, b], names[6:8])

    return rewrite


def _one(op: str, *kept: str) -> Callable[[_Rewriter], None]:
    def rewrite(on: _Rewriter) -> None:
        names = on.inputs(4)
        if on.attributes("channels_last").get("channels_last", 0):
            raise InputError(
                f"expected {on.node.op_type} with channels first, found channels_last = 1, "
                f"in node {on.name!r} of {on.source}"
            )
        x = on.dequantised(names[:3], "x")
        on.compute(op, [x], names[3:5], **on.attributes(*kept))

    return rewrite


def _concatenation(on: _Rewriter) -> None:
    names = on.inputs(5)
    parts = [names[at : at + 3] for at in range(2, len(names), 3)]
    values = [on.dequantised(part, f"x{at}") for at, part in enumerate(parts)]
    on.compute("Concat", values, names[:2], **on.attributes("axis"))


_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")

REWRITES: dict[tuple[str, str], Callable[[_Rewriter], None]] = {
    ("", "QLinearConv"): _convolution,
    ("", "QLinearMatMul"): _matrix_product,
    (MICROSOFT, "QGemm"): _gemm,
    (MICROSOFT, "QLinearAdd"): _two("Add"),
    (MICROSOFT, "QLinearMul"): _two("Mul"),
    (MICROSOFT, "QLinearAveragePool"): _one("AveragePool", *_POOL),
    (MICROSOFT, "QLinearGlobalAveragePool"): _one("GlobalAveragePool"),
    (MICROSOFT, "QLinearLeakyRelu"): _one("LeakyRelu", "alpha"),
    (MICROSOFT, "QLinearSigmoid"): _one("Sigmoid"),
    (MICROSOFT, "QLinearSoftmax"): _one("Softmax", "axis"),
    (MICROSOFT, "QLinearConcat"): _concatenation,
}
"""The operators that are written in QDQ form, by domain and name."""


def as_qdq(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """Write the operators on codes as operators between DequantizeLinear and QuantizeLinear.

    Parameters
    ----------
    model
        The content of a file; it is not changed.
    source
        The file, for messages.

    Returns
    -------
    ModelProto
        The model itself, where it has no such operator.

    Raises
    ------
    InputError
        A node has too few inputs, an attribute of another type, or channels last.
    """
    nodes = list(model.graph.node)
    found = [REWRITES.get((each.domain.replace("ai.onnx", ""), each.op_type)) for each in nodes]
    if not any(found):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for node, rewrite in zip(nodes, found, strict=True):
        if rewrite is None:
            result.graph.node.append(node)
            continue
        on = _Rewriter(node, source)
        try:
            rewrite(on)
        except (LookupError, TypeError, ValueError) as error:  # attributes of another type
            raise InputError(
                f"expected a well-formed {node.op_type}, found: {one_line(error)}, in node "
                f"{on.name!r} of {source}"
            ) from error
        result.graph.node.extend(on.nodes)
    return result
