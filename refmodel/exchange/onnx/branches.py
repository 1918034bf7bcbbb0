"""Control flow that constants decide: the branch that is taken, in the place of each If.

PyTorch's TorchScript exporter writes an If where a size of 1 would change what an operator does.
Sizes are known while a file is read, so one of the branches is all that is ever computed.
"""

from collections.abc import Iterator

import onnx
from onnx import NodeProto, TensorProto, helper

BRANCHES = ("then_branch", "else_branch")


def read_names(node: NodeProto) -> Iterator[str]:
    """Names of tensors that a node reads, those that its branches take from around it included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from read_names(inner)
            yield from (output.name for output in attribute.g.output)


def taken(node: NodeProto, *, holds: bool) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes and initialisers of the branch of an If, its outputs those of the If.

    Names that the branch defines get the If's before them, since both branches may have the same.
    """
    wanted = BRANCHES[0 if holds else 1]
    (branch,) = (each.g for each in node.attribute if each.name == wanted)
    if len(branch.output) != len(node.output):
        raise ValueError(f"{len(branch.output)} outputs of {wanted} for {len(node.output)}")
    made = {name for inner in branch.node for name in inner.output if name}
    made |= {tensor.name for tensor in branch.initializer}
    names = {name: f"{node.output[0]}/{name}" for name in made}
    nodes = [_renamed(inner, names) for inner in branch.node]
    for inner, outer in zip(branch.output, node.output, strict=True):
        source = names.get(inner.name, inner.name)
        nodes.append(helper.make_node("Identity", [source], [outer], name=f"{node.name}/{outer}"))
    tensors = []
    for tensor in branch.initializer:
        copied = TensorProto()
        copied.CopyFrom(tensor)
        copied.name = names[tensor.name]
        tensors.append(copied)
    return nodes, tensors


def _renamed(node: NodeProto, names: dict[str, str]) -> NodeProto:
    """Copy a node with other names of tensors, in its branches as well."""
    copied = NodeProto()
    copied.CopyFrom(node)
    copied.input[:] = [names.get(name, name) for name in node.input]
    copied.output[:] = [names.get(name, name) for name in node.output]
    for attribute in copied.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            graph = attribute.g
            own = {name for inner in graph.node for name in inner.output}
            own |= {tensor.name for tensor in graph.initializer}
            outer = {name: to for name, to in names.items() if name not in own}
            inners = [_renamed(inner, outer) for inner in graph.node]
            del graph.node[:]
            graph.node.extend(inners)
            for output in graph.output:
                output.name = outer.get(output.name, output.name)
    return copied


def with_branches(model: onnx.ModelProto, decided: dict[str, bool]) -> onnx.ModelProto:
    """Put branches in the place of Ifs.

    Parameters
    ----------
    model
        The content of a file; it is not changed.
    decided
        Whether its condition holds, by the first output of each If.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for node in model.graph.node:
        _put(result.graph, node, decided)
    return result


def _put(graph: onnx.GraphProto, node: NodeProto, decided: dict[str, bool]) -> None:
    if node.op_type != "If" or not node.output or node.output[0] not in decided:
        graph.node.append(node)
        return
    nodes, tensors = taken(node, holds=decided[node.output[0]])
    graph.initializer.extend(tensors)
    for inner in nodes:
        _put(graph, inner, decided)
