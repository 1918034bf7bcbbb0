"""Passes over a network that was read: functions of one tensor in one node, fewer rearrangements.

Files have an activation as one node or as ten. :func:`tidy` puts together whatever is a function of
one tensor value by value, so that it becomes one table; and it moves rearrangements behind
functions, additions and limits where another rearrangement follows, so that the two become one.
"""

from collections import Counter
from dataclasses import replace
from math import prod

import numpy as np

from refmodel.network.expression import MOST_DEPTH, Term, X, term
from refmodel.network.graph import (
    Add,
    Choice,
    Clip,
    FakeQuant,
    FloatNetwork,
    Function,
    Matrix,
    Node,
    Product,
    Rearrange,
    simplify,
)


def tidy(network: FloatNetwork) -> FloatNetwork:
    """Merge functions and rearrangements, and leave out nodes that nothing reads."""
    network = merge_functions(simplify(network))
    while True:
        swapped = _swap_rearrangements(network)
        if swapped is network:
            return network
        network = merge_functions(simplify(swapped))


MOST_AXES = 3
"""Axes of a tensor behind the batch."""


def merge_axes(network: FloatNetwork) -> FloatNetwork:
    """Let tensors of more than three axes have the first of them as one.

    Values keep their order. Nodes that work on each value alone do not notice; others, and products
    in which this would put other values together, stay as they are.
    """
    shapes = network.shapes

    def merged(name: str) -> tuple[int, ...]:
        shape = shapes[name]
        if len(shape) <= MOST_AXES or name in (network.input, network.output):
            return shape
        return prod(shape[: 1 - MOST_AXES]), *shape[1 - MOST_AXES :]

    nodes: list[Node] = []
    for node in network.nodes:
        able = isinstance(node, Rearrange | Add | Clip | FakeQuant | Product) or (
            isinstance(node, Function) and not node.term.per_channel
        )
        shape = merged(node.output)
        inputs = [merged(name) for name in node.inputs]
        if isinstance(node, Product):
            able = inputs[0] == shape and all(b in (1, a) for a, b in zip(*inputs, strict=True))
        elif not isinstance(node, Rearrange):
            able = able and all(each == shape for each in inputs)
        nodes.append(replace(node, shape=shape) if able else node)
    return replace(network, nodes=tuple(nodes))


def merge_functions(network: FloatNetwork) -> FloatNetwork:
    """Put nodes together that compute a function of one tensor value by value.

    Sums, limits and scalings alone stay as they are: layers take them over. A limit right behind a
    tensor that nothing else reads stays as well, and becomes that of the tensor's layer.
    """
    readers = network.consumers()
    shapes = network.shapes
    known: dict[str, tuple[str, Term]] = {}
    """Tensors that are a function of another; and that tensor."""
    made: set[str] = set()
    """Those with an operator in them that only a table computes, or a product."""
    for node in network.nodes:
        found = [known.get(name, (name, X)) for name in node.inputs]
        roots = {root for root, _ in found}
        alone = isinstance(node, Clip) and found[0][1] is X and readers[node.inputs[0]] == 1
        if len(roots) != 1 or alone:
            continue
        whole = _term(node, [each for _, each in found], [shapes[name] for name in node.inputs])
        if whole is None or whole.depth > MOST_DEPTH:
            continue
        (root,) = roots
        known[node.output] = root, whole
        if isinstance(node, Choice | Function | Product) or made.intersection(node.inputs):
            made.add(node.output)
    nodes: list[Node] = []
    for node in network.nodes:
        if node.output in made:
            root, whole = known[node.output]
            fields = {"name": node.name, "inputs": (root,), "output": node.output}
            nodes.append(Function(**fields, shape=node.shape, term=whole))
        else:
            nodes.append(node)
    return simplify(replace(network, nodes=tuple(nodes)))


def _term(node: Node, inputs: list[Term], shapes: list[tuple[int, ...]]) -> Term | None:
    """What a node computes of terms value by value, if that is what it does."""
    if any(shape != node.shape for shape in shapes):
        return None
    match node:
        case Function():
            return node.term.of(inputs[0])
        case Product():
            return term("Mul", *inputs)
        case Add():
            return term("Add", *inputs)
        case Choice():
            operands = (inputs[at] if isinstance(at, int) else at for at in node.operands)
            return term("Where", *operands)
        case Clip():
            return term("Clip", inputs[0], node.lo, node.hi)
        case Matrix() if _scaling(node):
            return term("Add", term("Mul", inputs[0], node.gain[0]), node.bias[0])
        case _:
            return None


def _scaling(node: Matrix) -> bool:
    """Whether a layer multiplies every value by one constant and adds another."""
    outputs = len(node.weight)
    return (
        node.weight.shape == (outputs, 1, 1, 1)
        and node.groups == outputs
        and not any(node.pads)
        and bool((node.weight == 1).all())
        and bool((node.gain == node.gain[0]).all() and (node.bias == node.bias[0]).all())
    )


def _swap_rearrangements(network: FloatNetwork) -> FloatNetwork:
    """Move rearrangements behind what computes value by value, where others come next.

    Returns
    -------
    The same network where there is none to move.
    """
    readers = Counter(network.consumers())
    producers = {node.output: node for node in network.nodes}
    shapes = network.shapes
    followed = {node.inputs[0] for node in network.nodes if isinstance(node, Rearrange)}
    changed: dict[str, list[Node]] = {}
    for node in network.nodes:
        moved = [producers.get(name) for name in dict.fromkeys(node.inputs)]
        able = isinstance(node, Clip | FakeQuant | Function | Add | Product)
        if not able or node.output not in followed or readers[node.output] != 1:
            continue
        if not all(_movable(each, shapes, readers, node) for each in moved):
            continue
        first = moved[0]
        assert isinstance(first, Rearrange)
        sources = {each.output: each.inputs[0] for each in moved if each is not None}
        same = all(
            isinstance(each, Rearrange)
            and np.array_equal(each.index, first.index)
            and shapes[each.inputs[0]] == shapes[first.inputs[0]]
            and each.output not in changed
            for each in moved
        )
        if not same or (isinstance(node, Function) and node.term.per_channel):
            continue
        inner = f"{node.output}'"
        while inner in shapes:
            inner += "'"
        inputs = tuple(sources[name] for name in node.inputs)
        early = replace(node, inputs=inputs, output=inner, shape=shapes[first.inputs[0]])
        late = replace(first, inputs=(inner,), output=node.output, shape=node.shape)
        changed |= {each.output: [] for each in moved if each is not None}
        changed[node.output] = [early, late]
    if not changed:
        return network
    nodes = [new for node in network.nodes for new in changed.get(node.output, [node])]
    return replace(network, nodes=tuple(nodes))


def _movable(
    node: Node | None, shapes: dict[str, tuple[int, ...]], readers: Counter[str], reader: Node
) -> bool:
    """Whether a node is a rearrangement for one reader that keeps every value once."""
    if not isinstance(node, Rearrange) or readers[node.output] != reader.inputs.count(node.output):
        return False
    size = prod(shapes[node.inputs[0]])
    kept = len(node.index) == size and node.index.min() >= 0
    return bool(kept) and len(np.unique(node.index)) == size
