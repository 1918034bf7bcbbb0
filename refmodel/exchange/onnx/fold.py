"""Constant folding: nodes of constants alone are worked out while a file is read.

Exporters write chains of such nodes, for example around Reshape. Most are left to onnx's own
evaluator.
"""

from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from refmodel.exchange.onnx.builder import Attributes, NetworkBuilder, one_line

QUANTISERS = ("QuantizeLinear", "DequantizeLinear")

FOLDED = frozenset(
    (
        "Abs",
        "Add",
        "And",
        "BatchNormalization",
        "Cast",
        "Ceil",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Cos",
        "CumSum",
        "DequantizeLinear",
        "Div",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "InstanceNormalization",
        "Less",
        "LessOrEqual",
        "Log",
        "MatMul",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pad",
        "Pow",
        "QuantizeLinear",
        "Range",
        "Reciprocal",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Relu",
        "Reshape",
        "Round",
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Slice",
        "Softmax",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Sum",
        "Tanh",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
    )
)
"""Operators that are worked out where all their inputs are constants."""

PARTS = ("Cast", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze")
"""Operators that may leave the batch out of what Shape gives."""

BATCH = 0
"""The batch in the result of Shape: in Reshape, 0 copies the size of the input."""

MOST_MADE = 160_000_000
"""Values of all constants larger than what they are made from: VGG19 has 144 million weights."""


class Folder:
    """Works out constants of a network.

    Parameters
    ----------
    net
        The network, whose ``constants`` grow.
    """

    def __init__(self, net: NetworkBuilder) -> None:
        self.net = net
        self.made = 0
        """Values of the constants made so far that are larger than what they are made from."""

    def fold(self, node: NodeProto) -> None:
        """Work out a node whose inputs are all constants."""
        net, output = self.net, node.output[0]
        names = [name for name in node.input if name]
        if net.from_shape.intersection(names):
            net.from_shape.add(output)
        batched = net.from_batch.intersection(names)
        if batched and node.op_type not in PARTS:
            net.from_batch.add(output)
        if node.op_type in QUANTISERS and self._fold_quantiser(node):
            net.origin[output] = net.origin[names[0]]
            return
        values = {name: net.constants[name] for name in names}
        size = folded_size(node, [net.constants[name] for name in names])
        if size > sum(value.size for value in values.values()):
            self.made += size
        if self.made > MOST_MADE:
            net.fail(f"to constants of at most {MOST_MADE} values together", f"{size}", node)
        infos = [
            helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in values
        ]
        outs = [helper.make_tensor_value_info(output, TensorProto.UNDEFINED, None)]
        graph = helper.make_graph([node], "constants", infos, outs)
        opsets = [helper.make_opsetid("", net.opset)]
        model = helper.make_model(graph, opset_imports=opsets)
        try:
            with np.errstate(all="ignore"):  # what is no number is refused where it is read
                (result,) = ReferenceEvaluator(model).run(None, values)
        except Exception as error:  # the evaluator raises whatever numpy does
            raise ValueError(one_line(error)) from error
        net.constants[output] = np.asarray(result)
        if batched and node.op_type in PARTS and not np.asarray(result).all():
            net.from_batch.add(output)
        net.origin[output] = net.origin[names[0]] if names else output
        if node.op_type in ("Identity", "Transpose") and node.input[0] in net.codes:
            codes, scale = net.codes[node.input[0]]
            if node.op_type == "Transpose":
                (order,) = [list(a.ints) for a in node.attribute] or [None]
                codes, scale = codes.transpose(order), scale.transpose(order)
            net.codes[output] = codes, scale

    def fold_shape(self, node: NodeProto, attributes: Attributes) -> None:
        """Work out Shape of a tensor that depends on the input; its batch is 0."""
        net, output = self.net, node.output[0]
        shape = (BATCH, *net.shapes[net.resolve(node.input[0])])
        part = shape[attributes.get("start", 0) : attributes.get("end")]
        net.constants[output] = np.array(part, np.int64)
        net.origin[output] = output
        net.from_shape.add(output)
        if BATCH in part:
            net.from_batch.add(output)

    def _fold_quantiser(self, node: NodeProto) -> bool:
        """Quantise or dequantise a constant, which onnx's evaluator does from opset 19 on alone.

        Remembers which integers a constant in floating point stands for. False where the scale is
        given in blocks or the codes are no integers.
        """
        net, output = self.net, node.output[0]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        values, scale, *zeros = (net.constants[name] for name in node.input if name)
        zero = zeros[0] if zeros else np.zeros((), np.uint8)
        stored = values if node.op_type == "DequantizeLinear" else zero
        if attributes.get("block_size", 0) or attributes.get("output_dtype", 0):
            return False
        if stored.dtype not in (np.int8, np.uint8, np.int16, np.uint16, np.int32):
            return False
        shape = [1] * values.ndim
        if scale.size > 1:
            shape[int(attributes.get("axis", 1))] = scale.size
        scale = scale.astype(np.float64).reshape(shape)
        zero = zero.astype(np.int64).reshape(shape if zero.size > 1 else [1] * values.ndim)
        if node.op_type == "DequantizeLinear":
            codes = values.astype(np.int64) - zero
            net.codes[output] = codes, np.broadcast_to(scale, codes.shape)
            net.constants[output] = (codes * scale).astype(np.float32)
        else:
            codes = np.rint(values / scale.astype(np.float32)).astype(np.int64) + zero
            limits = np.iinfo(stored.dtype)
            net.constants[output] = codes.clip(limits.min, limits.max).astype(stored.dtype)
        return True


BROADCAST = frozenset(
    (
        "Add",
        "And",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "Pow",
        "Sub",
        "Sum",
        "Where",
    )
)
"""Operators whose result has the shape that their inputs broadcast to."""


def _padded_size(node: NodeProto, values: list[NDArray]) -> int:
    given = [a.ints for a in node.attribute if a.name in ("pads", "paddings")]
    pads = [int(each) for each in (given or [values[1].reshape(-1)])[0]]
    if len(values) > 3:  # of some axes alone
        return values[0].size * prod(1 + max(0, pad) for pad in pads)
    half = len(pads) // 2
    sizes = zip(values[0].shape, pads[:half], pads[half:], strict=True)
    return prod(max(0, size + max(0, before) + max(0, after)) for size, before, after in sizes)


def folded_size(node: NodeProto, values: list[NDArray]) -> int:
    """Estimate how many values a node makes of constants, never too few, where it can be many."""
    first: NDArray = values[0] if values else np.zeros(())
    match node.op_type:
        case "ConstantOfShape":
            return prod(max(0, int(size)) for size in first.reshape(-1))
        case "Expand" if len(values) > 1:
            return max(first.size, 1) * prod(max(1, int(size)) for size in values[1].reshape(-1))
        case "Range" if len(values) == 3:
            start, limit, delta = (float(value.item()) for value in values)
            return 0 if delta == 0 else max(0, int(min((limit - start) / delta, 1e18)))
        case "Gather" if len(values) > 1:
            return values[1].size * first.size
        case "MatMul" if len(values) > 1 and first.ndim and values[1].ndim:
            rows = first.size // max(1, first.shape[-1])
            return rows * (values[1].size // max(1, values[1].shape[-2:][0]))
        case name if name in BROADCAST and len(values) > 1:
            return prod(np.broadcast_shapes(*(value.shape for value in values)))
        case "Tile" if len(values) > 1:
            return first.size * prod(max(1, int(count)) for count in values[1].reshape(-1))
        case "Pad":
            return _padded_size(node, values)
        case "Concat":
            return sum(value.size for value in values)
        case _:
            return 0
