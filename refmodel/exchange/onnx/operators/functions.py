"""Functions of each value alone that no limit expresses: Sigmoid, Gelu, LeakyRelu and others.

They become tables on 8-bit codes. Several nodes that make one function together, such as
``x * Sigmoid(x)``, are put together behind the import (:mod:`refmodel.network.passes`).
"""

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from refmodel.exchange.onnx.builder import Attributes, NetworkBuilder, shape_text, value_numbers
from refmodel.exchange.onnx.registry import operator
from refmodel.network.expression import COMPARISONS, Term, X, term
from refmodel.network.graph import Choice, Function

DEFAULTS: dict[str, dict[str, float]] = {
    "Abs": {},
    "Celu": {"alpha": 1.0},
    "Ceil": {},
    "Cos": {},
    "Elu": {"alpha": 1.0},
    "Erf": {},
    "Exp": {},
    "Floor": {},
    "HardSwish": {},
    "LeakyRelu": {"alpha": 0.01},
    "Log": {},
    "Reciprocal": {},
    "Round": {},
    "Selu": {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    "Shrink": {"bias": 0.0, "lambd": 0.5},
    "Sigmoid": {},
    "Sign": {},
    "Sin": {},
    "Softplus": {},
    "Softsign": {},
    "Sqrt": {},
    "Tanh": {},
    "ThresholdedRelu": {"alpha": 1.0},
}
"""Functions that are one operator of a term, and the attributes that each has by default."""


def apply_term(net: NetworkBuilder, node: NodeProto, name: str, function: Term) -> None:
    """Let the output of ``node`` be a function of the tensor ``name``."""
    net.append(Function(**net.fields(node, (name,), net.shapes[name]), term=function))


@operator(*DEFAULTS, batch_last=True)
def import_function(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a function that is one operator of a term."""
    name, _ = net.activation(node.input[0], node)
    values = {
        key: float(attributes.get(key, default)) for key, default in DEFAULTS[node.op_type].items()
    }
    if not np.isfinite(list(values.values())).all():
        net.fail("with finite attributes", f"{values}", node)
    if node.op_type == "Celu" and not values["alpha"]:
        net.fail("with an alpha other than 0", "0", node)
    apply_term(net, node, name, term(node.op_type, X, **values))


@operator("Gelu", batch_last=True)
def import_gelu(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import Gelu in either form."""
    name, _ = net.activation(node.input[0], node)
    form = attributes.get("approximate", "none")
    if form == "tanh":
        inner = term("Mul", term("Mul", term("Mul", X, X), X), 0.044715)
        curve = term("Tanh", term("Mul", term("Add", X, inner), np.sqrt(2 / np.pi)))
    elif form == "none":
        curve = term("Erf", term("Mul", X, np.sqrt(0.5)))
    else:
        net.fail("with approximate none or tanh", repr(form), node)
    apply_term(net, node, name, term("Mul", term("Mul", X, 0.5), term("Add", curve, 1.0)))


@operator("Swish", batch_last=True)
def import_swish(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import ``x * Sigmoid(alpha * x)``."""
    name, _ = net.activation(node.input[0], node)
    alpha = float(attributes.get("alpha", 1.0))
    if not np.isfinite(alpha):
        net.fail("with a finite alpha", f"{alpha:g}", node)
    apply_term(net, node, name, term("Mul", X, term("Sigmoid", term("Mul", X, alpha))))


@operator("Mish", batch_last=True)
def import_mish(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import ``x * Tanh(Softplus(x))``."""
    name, _ = net.activation(node.input[0], node)
    apply_term(net, node, name, term("Mul", X, term("Tanh", term("Softplus", X))))


@operator("Pow", batch_last=True)
def import_pow(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a power with a constant exponent."""
    name, _ = net.activation(node.input[0], node)
    if node.input[1] not in net.constants:
        net.fail("with a constant exponent", f"tensor {node.input[1]!r}, which is computed", node)
    exponent = net.constants[node.input[1]]
    if exponent.size != 1 or not np.isfinite(float(exponent.item())):
        net.fail("with one finite exponent", f"{exponent.size} values", node)
    apply_term(net, node, name, term("Pow", X, float(exponent.item())))


@operator(*COMPARISONS, batch_last=True)
def import_comparison(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a comparison with one constant, which gives 1 where it holds and 0."""
    constant = [name in net.constants for name in node.input]
    values = [net.constants[each] for each in node.input if each in net.constants]
    if sorted(constant) != [False, True] or values[0].size != 1:
        found = f"{len(values)} constants of shapes {[each.shape for each in values]}"
        net.fail("of a tensor with one constant", found, node)
    name, _ = net.activation(node.input[constant.index(False)], node)
    limit = float(values[0].item())
    operands = (limit, X) if constant[0] else (X, limit)
    apply_term(net, node, name, term(node.op_type, *operands))


@operator("And", "Or", batch_last=True)
def import_logic(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import And and Or of two conditions on one tensor."""
    names = [net.activation(each, node)[0] for each in node.input]
    shapes = [net.shapes[name] for name in names]
    if shapes[0] != shapes[1]:
        net.fail("of tensors of one shape", ", ".join(map(shape_text, shapes)), node)
    always, second = np.ones(()), int(names[0] != names[1])
    operands = (0, always, second) if node.op_type == "Or" else (0, second, np.zeros(()))
    names = names[: 1 + second]
    net.append(Choice(**net.fields(node, tuple(names), shapes[0]), operands=operands))


@operator("Not", batch_last=True)
def import_not(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import the opposite of a condition."""
    name, _ = net.activation(node.input[0], node)
    apply_term(net, node, name, term("Sub", 1.0, X))


@operator("Where", batch_last=True)
def import_where(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a choice between two values by a condition, where one tensor decides and is chosen."""
    names: list[str] = []
    operands: list[int | NDArray[np.float64]] = []
    for each in node.input:
        if each in net.constants:
            values = net.constants[each]
            if values.size != 1:
                net.fail("with constants of one value", f"{values.shape}", node)
            operands.append(np.asarray(float(values.item())))
        else:
            name, _ = net.activation(each, node)
            names += [name] * (name not in names)
            operands.append(names.index(name))
    shapes = [net.shapes[name] for name in names]
    if any(shape != shapes[0] for shape in shapes):
        net.fail("of tensors of one shape", ", ".join(map(shape_text, shapes)), node)
    net.append(Choice(**net.fields(node, tuple(names), shapes[0]), operands=tuple(operands)))


@operator("PRelu")
def import_prelu(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import PRelu with one slope, or one to a channel."""
    name, shape = net.activation(node.input[0], node)
    slope = net.numbers(node.input[1], node, "slopes").astype(np.float64)
    if slope.size == 1:
        apply_term(net, node, name, term("PRelu", X, slope.item()))
        return
    channels = (shape[0],) + (1,) * (len(shape) - 1)
    try:
        full = np.broadcast_to(slope, (1, *shape))[0].reshape(shape[0], -1)
    except ValueError:
        full = None
    if full is None or not (full == full[:, :1]).all():
        found = f"slopes {slope.shape} on {shape_text(shape)}"
        net.fail("with one slope, or one to a channel", found, node)
    values = full[:, :1].reshape(channels)
    if len(shape) != 2:
        apply_term(net, node, name, term("PRelu", X, values))
        return
    # (C, L) is an image of one row: a tensor of two axes has no channels in memory.
    name = net.rearranged(node, name, value_numbers((shape[0], 1, shape[1])))
    fields = net.inner_fields(node, (name,), net.shapes[name])
    net.append(Function(**fields, term=term("PRelu", X, values[:, None])))
    net.rearrange(node, fields["output"], value_numbers(shape))
