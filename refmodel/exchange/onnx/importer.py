"""Walks through the graph of an ONNX file and makes a network of it."""

from collections import Counter
from math import prod

import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from refmodel.errors import InputError
from refmodel.exchange.onnx.advice import advice
from refmodel.exchange.onnx.branches import read_names, taken
from refmodel.exchange.onnx.builder import (
    FLOATING,
    MOST_VALUES,
    Attributes,
    NetworkBuilder,
    one_line,
    type_name,
)
from refmodel.exchange.onnx.fold import FOLDED, QUANTISERS, Folder
from refmodel.exchange.onnx.operators import OPERATORS
from refmodel.exchange.onnx.operators.quantisation import clip_codes
from refmodel.exchange.onnx.operators.statistics import SOFT, import_softmax
from refmodel.exchange.onnx.registry import DROPPED, LAST, supported
from refmodel.network.graph import Choice, FloatNetwork, Shape
from refmodel.network.passes import merge_axes, tidy

ORDERLY = frozenset(
    (
        "Flatten",
        "Gather",
        "MaxPool",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
        *DROPPED,
        *LAST,
    )
)
"""Operators that do to codes what they do to values: they move them, or look for the largest."""

MOST_NODES = 10_000
"""Nodes of a network: the deepest that are published have a few thousand."""


class Importer:
    """Turns one ONNX graph into nodes of :mod:`refmodel.network.graph`.

    Parameters
    ----------
    model
        The content of the file.
    source
        The file, for messages.
    deciding
        Whether to go through Ifs, and to note which of their branches is taken.
    """

    def __init__(self, model: onnx.ModelProto, source: str, *, deciding: bool = False) -> None:
        self.graph = model.graph
        self.source = source
        opset = max((o.version for o in model.opset_import if not o.domain), default=1)
        self.net = NetworkBuilder(source, opset)
        self.folder = Folder(self.net)
        self.skipped: set[str] = set()
        """Tensors behind the end of the network."""
        self.coded: set[str] = set()
        """Tensors of the file that are codes, from QuantizeLinear to DequantizeLinear."""
        self.ending = ""
        """The tensor that the network ends with, before a Softmax."""
        self.deciding = deciding
        self.decided: dict[str, bool] = {}
        """Whether the condition of each If holds, by its first output."""
        self.live = self._live_nodes()

    # Before anything is computed

    def _live_nodes(self) -> list[NodeProto]:
        """List the nodes that the outputs depend on, in the order of the file."""
        needed = {output.name for output in self.graph.output}
        live = []
        for node in reversed(self.graph.node):
            if needed.intersection(node.output):
                needed.update(read_names(node))
                live.append(node)
        return live[::-1]

    def has_branches(self) -> bool:
        """Whether the output depends on an If."""
        return any(node.op_type == "If" and not node.domain for node in self.live)

    def refuse_unknown_operators(self) -> None:
        """Name the first operator that cannot be imported, before the checker sees the file."""
        if len(self.graph.node) > MOST_NODES:
            raise InputError(
                f"expected a network of at most {MOST_NODES} nodes, found "
                f"{len(self.graph.node)}, in {self.source}"
            )
        constant = {tensor.name for tensor in self.graph.initializer} | {""}
        for node in self.live:
            standard = node.domain in ("", "ai.onnx")
            folded = standard and node.op_type in FOLDED and constant.issuperset(node.input)
            if folded or (standard and node.op_type == "Shape"):
                constant.update(node.output)
            else:
                self._refuse_unknown(node)

    def _refuse_unknown(self, node: NodeProto) -> None:
        standard = node.domain in ("", "ai.onnx")
        if standard and (node.op_type in supported() or (self.deciding and node.op_type == "If")):
            return
        found = node.op_type if standard else f"{node.domain}.{node.op_type}"
        raise InputError(
            f"expected an operator that can be imported, found {found!r}, "
            f"in {self.net.place(node)}: {advice(found)}; "
            f"supported are {', '.join(supported())}"
        )

    # The walk

    def network(self) -> FloatNetwork:
        """Import all nodes that the output depends on."""
        net = self.net
        for tensor in self.graph.initializer:
            net.constants[tensor.name] = self._array(tensor)
            net.origin[tensor.name] = tensor.name
        input_name, input_shape = self._input()
        output = self._output()
        net.uses = self._count_uses(output)
        net.shapes[input_name] = input_shape
        for node in self.live:
            self._import(node)
        output = net.resolve(output)
        if output in net.transposed:
            raise InputError(
                f"expected an output with the batch first, found it last in {output!r}, "
                f"in {self.source}"
            )
        if output not in net.nodes:
            raise InputError(
                f"expected a network that computes its output from its input, "
                f"found output {output!r} that does not depend on it, in {self.source}"
            )
        network = FloatNetwork(
            nodes=tuple(net.nodes.values()),
            input=input_name,
            output=output,
            input_shape=input_shape,
            source=self.source,
        )
        network = merge_axes(tidy(network))
        for node in network.nodes:
            if isinstance(node, Choice):
                raise InputError(
                    f"expected Where between functions of one tensor, found one of "
                    f"{', '.join(map(repr, node.inputs))}, in node {node.name!r} of {self.source}"
                )
            if len(node.shape) > 3:
                raise InputError(
                    f"expected tensors of at most three axes behind the batch, found "
                    f"{node.shape}, in tensor {node.output!r} of {self.source}"
                )
        return network

    def _array(self, tensor: TensorProto) -> NDArray:
        try:
            return numpy_helper.to_array(tensor)
        except Exception as error:  # sizes that do not fit the data, unknown types
            raise InputError(
                f"expected a well-formed tensor, found: {one_line(error)}, "
                f"in initialiser {tensor.name!r} of {self.source}"
            ) from error

    def _input(self) -> tuple[str, Shape]:
        inputs = [i for i in self.graph.input if i.name not in self.net.constants]
        if len(inputs) != 1:
            raise InputError(
                f"expected a network with one input, found {len(inputs)}, in {self.source}"
            )
        (value,) = inputs
        place = f"in input {value.name!r} of {self.source}"
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            raise InputError(f"expected an input with a shape, found none, {place}")
        if tensor.elem_type not in FLOATING:
            found = type_name(tensor.elem_type)
            raise InputError(f"expected an input of floating point, found {found}, {place}")
        dims = [
            d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
        ]
        text = f"({', '.join(map(str, dims))})"
        if not 2 <= len(dims) <= 4:
            raise InputError(
                f"expected an input of 2 to 4 axes, the batch first, found {text}, {place}"
            )
        if not all(isinstance(d, int) and d >= 1 for d in dims[1:]):
            raise InputError(
                f"expected an input with fixed sizes behind the batch, found {text}, {place}: "
                f"python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name {value.name} "
                f"--input_shape 1,3,224,224 {self.source} fixed.onnx gives it sizes"
            )
        if prod(int(d) for d in dims[1:]) > MOST_VALUES:
            raise InputError(
                f"expected an input of at most {MOST_VALUES} values, found {text}, {place}"
            )
        self.net.batch = dims[0] if isinstance(dims[0], int) else 0
        return value.name, tuple(int(d) for d in dims[1:])

    def _output(self) -> str:
        """Return the network's output, before a Softmax that ends it."""
        if len(self.graph.output) != 1:
            raise InputError(
                f"expected a network with one output, found {len(self.graph.output)}, "
                f"in {self.source}: onnx.utils.extract_model in Python writes a file that ends "
                f"with the one that is wanted, such as {self.graph.output[0].name!r}"
            )
        makers = {node.output[0]: node for node in self.live}
        name = self.graph.output[0].name
        # A Softmax may itself be quantised: what follows it goes with it.
        before = name
        while before in makers and makers[before].op_type in (*DROPPED, *LAST, *QUANTISERS, "Cast"):
            last = makers[before].op_type in LAST
            before = makers[before].input[0]
            name = before if last else name
        while name in makers and makers[name].op_type in DROPPED:
            name = makers[name].input[0]
        self.ending = name
        for node in self.live:  # what is left out behind it
            ends = node.op_type in LAST and node.input[0] == name
            if ends or self.skipped.intersection(node.input):
                self.skipped.update(node.output)
        return name

    def _count_uses(self, output: str) -> Counter[str]:
        """Count how often each tensor is read, seen through the operators that are dropped."""
        net = self.net
        for node in self.live:
            if node.op_type in DROPPED and node.input[0] not in net.constants:
                net.alias[node.output[0]] = node.input[0]
        uses: Counter[str] = Counter([net.resolve(output)])
        for node in self.live:
            if node.op_type not in (*DROPPED, *LAST, "Shape"):
                uses.update(net.resolve(name) for name in read_names(node) if name)
        return uses

    def _import(self, node: NodeProto) -> None:
        net, kind = self.net, node.op_type
        try:
            attributes = {
                a.name: v.decode() if isinstance(v := helper.get_attribute_value(a), bytes) else v
                for a in node.attribute
            }
            inputs = [name for name in node.input if name]
            if kind == "Shape" and net.resolve(node.input[0]) in net.shapes:
                self.folder.fold_shape(node, attributes)
            elif all(name in net.constants for name in inputs) and kind in FOLDED:
                self.folder.fold(node)
            elif self.skipped.intersection(node.input):
                pass
            elif kind == "If" and self.deciding:
                self._decide(node)
            elif self.coded.intersection(inputs) and self._of_codes(node, attributes):
                pass
            elif kind in DROPPED:
                self._check_dropped(node)
            elif kind in SOFT and net.resolve(node.input[0]) != net.resolve(self.ending):
                import_softmax(net, node, attributes)
            elif kind in LAST:
                self._check_last(node, attributes)
            elif OPERATORS[kind].batch_last and any(map(net.untransposed, inputs)):
                OPERATORS[kind].handler(net, net.transposed_node(node, inputs), attributes)
            else:
                OPERATORS[kind].handler(net, node, attributes)
            if kind == "QuantizeLinear" and node.output[0] not in net.constants:
                self.coded.update(node.output)
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            raise InputError(
                f"expected a well-formed {kind}, found: {one_line(error)}, in {net.place(node)}"
            ) from error

    def _of_codes(self, node: NodeProto, attributes: Attributes) -> bool:
        """Import what is done to codes before they are values again, if it is not to values too."""
        kind = node.op_type
        if kind == "Clip":
            clip_codes(self.net, node, attributes)
        elif kind in ORDERLY:
            self.coded.update(node.output)
        elif kind != "DequantizeLinear":
            (name, *_) = self.coded.intersection(node.input)
            self.net.fail("of values, which DequantizeLinear makes", f"codes {name!r}", node)
        if kind == "Clip":
            self.coded.update(node.output)
        return kind == "Clip"

    def _decide(self, node: NodeProto) -> None:
        """Go through the branch of an If that its condition takes."""
        net, condition = self.net, node.input[0]
        if condition in net.from_batch or condition not in net.constants:
            found = f"tensor {condition!r}, computed from the input or the size of the batch"
            net.fail(f"with a condition of constants and sizes ({advice('If')})", found, node)
        holds = bool(net.constants[condition].item())
        self.decided[node.output[0]] = holds
        nodes, tensors = taken(node, holds=holds)
        for tensor in tensors:
            net.constants[tensor.name] = self._array(tensor)
            net.origin[tensor.name] = tensor.name
        for inner in nodes:
            if inner.op_type not in FOLDED:
                self._refuse_unknown(inner)
            if inner.op_type in DROPPED and inner.input[0] not in net.constants:
                net.alias[inner.output[0]] = inner.input[0]
            self._import(inner)

    def _check_dropped(self, node: NodeProto) -> None:
        """Refuse what passes on something else than its first input."""
        net = self.net
        if any(net.uses[mask] for mask in node.output[1:]):
            net.fail("without its mask", f"a mask that is read, {node.output[1]!r}", node)
        training = node.input[2] if len(node.input) > 2 else ""
        if training and training not in net.constants:
            net.fail("with a constant training_mode", f"tensor {training!r}, computed", node)
        if training and net.constants[training].any():
            net.fail("for inference", "training_mode = 1", node)

    def _check_last(self, node: NodeProto, attributes: Attributes) -> None:
        """Refuse a Softmax that cannot be left out."""
        net, name = self.net, self.net.resolve(node.input[0])
        if name != net.resolve(self.ending):
            net.fail("at the end of the network alone", "one before other nodes", node)
        default = 0 if node.op_type == "ArgMax" else -1 if net.opset >= 13 else 1
        axis = int(attributes.get("axis", default))
        rank = len(net.shapes.get(name, ())) + 1
        if axis % rank == 0 and rank > 1:
            net.fail("of each image by itself", f"one along axis {axis}, the batch", node)
