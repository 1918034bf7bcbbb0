"""Quantised networks: QuantizeLinear and DequantizeLinear on tensors that are computed."""

import numpy as np
from onnx import NodeProto, TensorProto

from refmodel.exchange.onnx.builder import Attributes, NetworkBuilder, type_name
from refmodel.exchange.onnx.registry import operator
from refmodel.network.graph import Clip, FakeQuant, MaxPool, Rearrange


@operator("QuantizeLinear")
def import_quantize(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a quantisation to 8 bits."""
    name, shape = net.activation(node.input[0], node)
    kinds = (0, TensorProto.UINT8, TensorProto.INT8)
    if attributes.get("output_dtype", 0) not in kinds:
        found = type_name(attributes["output_dtype"])
        net.fail("to 8 bits", found, node)
    scale, zero = _scale_and_zero(net, node)
    absent = len(node.input) < 3 or not node.input[2]
    if absent and attributes.get("output_dtype", 0) == TensorProto.INT8:
        zero = 128
    net.append(FakeQuant(**net.fields(node, (name,), shape), scale=scale, zero=zero))


@operator("DequantizeLinear")
def import_dequantize(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import the end of a quantisation, which must have the scale and zero point of its start."""
    name, _ = net.activation(node.input[0], node)
    source = _quantiser(net, node, name)
    scale, zero = _scale_and_zero(net, node)
    absent = len(node.input) < 3 or not node.input[2]
    zero = source.zero if absent and source.zero == 128 else zero
    if (scale, zero) != (source.scale, source.zero):
        found = f"scale {scale:g}, code of zero {zero}"
        expected = f"scale {source.scale:g}, code of zero {source.zero}"
        net.fail(f"as its tensor was quantised ({expected})", found, node)
    net.pass_on(node, name)


def clip_codes(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a limit to codes, as quantisers to fewer than 8 bits write it."""
    name, shape = net.activation(node.input[0], node)
    source = _quantiser(net, node, name)
    lo, hi = -np.inf, np.inf
    for at, key in ((1, "min"), (2, "max")):
        if len(node.input) <= at or not node.input[at]:
            continue
        codes = net.constants.get(node.input[at])
        if codes is None or codes.size != 1 or codes.dtype not in (np.uint8, np.int8):
            net.fail(f"of codes with {key} a constant of 8 bits", repr(node.input[at]), node)
        code = int(codes.item()) + (128 if codes.dtype == np.int8 else 0)
        if code in (0, 255):
            continue
        value = (code - source.zero) * source.scale
        lo, hi = (value, hi) if key == "min" else (lo, value)
    if not lo <= 0 < hi:
        net.fail("of codes to limits that hold the zero point", f"{lo:g} to {hi:g}", node)
    net.append(Clip(**net.fields(node, (name,), shape), lo=lo, hi=hi))


def _quantiser(net: NetworkBuilder, node: NodeProto, name: str) -> FakeQuant:
    """Return what made the codes that are a tensor, or that it holds in another order."""
    source = net.nodes.get(name)
    while isinstance(source, Rearrange | MaxPool | Clip):
        source = net.nodes.get(source.inputs[0])
    if not isinstance(source, FakeQuant):
        net.fail("of a tensor from QuantizeLinear", f"{name!r}", node)
    return source


def _scale_and_zero(net: NetworkBuilder, node: NodeProto) -> tuple[float, int]:
    """Read the scale, and the zero point as a code of 0 to 255."""
    scale = net.numbers(node.input[1], node, "scale")
    zero = np.zeros((), np.uint8)
    if len(node.input) > 2 and node.input[2]:
        if node.input[2] not in net.constants:
            net.fail("with a constant zero point", f"{node.input[2]!r}, computed", node)
        zero = net.constants[node.input[2]]
    if scale.size != 1 or zero.size != 1 or zero.dtype not in (np.uint8, np.int8):
        found = f"{scale.size} scales and zero points of {zero.dtype}"
        net.fail("of 8 bits with one scale on a computed tensor", found, node)
    if scale.item() <= 0:
        net.fail("with a scale above 0", f"{scale.item():g}", node)
    return float(scale.item()), int(zero.item()) + (128 if zero.dtype == np.int8 else 0)
