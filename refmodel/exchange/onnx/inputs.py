"""Inputs of 8 bits, as networks for small devices have them, written as what they stand for."""

import onnx
from onnx import TensorProto, helper

CODES = (TensorProto.UINT8, TensorProto.INT8)


def real_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give an input of codes the values that they stand for.

    What is read by DequantizeLinear alone becomes an input of real values and a QuantizeLinear with
    the same scale and zero point; what is read by Cast alone, pixels of 0 to 255, an input of
    these.

    Parameters
    ----------
    model
        The content of a file; it is not changed.

    Returns
    -------
    ModelProto
        The model itself, where it has no such input.
    """
    initialised = {tensor.name for tensor in model.graph.initializer}
    found = [
        value
        for value in model.graph.input
        if value.name not in initialised and value.type.tensor_type.elem_type in CODES
    ]
    if len(found) != 1:
        return model
    name = found[0].name
    readers = [node for node in model.graph.node if name in node.input]
    kinds = {node.op_type for node in readers}
    scales = {tuple(node.input[1:]) for node in readers}
    dequantised = kinds == {"DequantizeLinear"} and len(scales) == 1
    if not dequantised and kinds != {"Cast"}:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for value in result.graph.input:
        if value.name == name:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    if not dequantised:
        return result
    codes = f"{name}/codes"
    (scale,) = scales
    for node in result.graph.node:
        node.input[:] = [codes if each == name else each for each in node.input]
    quantise = helper.make_node("QuantizeLinear", [name, *scale], [codes], name=codes)
    nodes = [*result.graph.node]
    # Behind what makes the scale, which is a constant, and before its first reader.
    at = next(at for at, node in enumerate(nodes) if codes in node.input)
    del result.graph.node[:]
    result.graph.node.extend([*nodes[:at], quantise, *nodes[at:]])
    return result
