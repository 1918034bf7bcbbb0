"""ONNX's own test cases of single nodes, and what the importer makes of each.

The ``onnx`` package writes them for whoever implements its operators: a node, its inputs, and the
outputs that it must have. The importer reads networks with one input whose first axis is the
batch, and constants; so each case is tried in several ways (:func:`judge_case`):

- every input is a constant: what the importer works out while it reads;
- one input of floating point is computed, and the others are constants (weights, axes, limits), one
  way for each such input;
- all inputs of floating point are computed.

What is computed is a slice of the network's input, whose first axis is the case's first, or one put
before it where the operator works on each value alone. A case counts as right where each of its
outputs is right in some way, and wrong in none.

For a Softmax or ArgMax at the end, which the importer leaves out, what it gives goes through one
here.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any, Literal, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.backend.test.case import base, node

from refmodel.errors import InputError
from refmodel.exchange.onnx import load
from refmodel.exchange.onnx.builder import FLOATING
from refmodel.exchange.onnx.registry import DROPPED, LAST, OPERATORS

Outcome = Literal["right", "refused", "wrong", "broken"]

IMAGE = "image_"
"""The network's input, where it is none of the node's."""

NODE = "case"
"""The name of the node under test."""

TENSORS = (np.ndarray, np.generic, TensorProto)

RTOL, ATOL = 1e-3, 1e-6
"""As ONNX has it, but for sums of float32 in another order."""


@dataclass(frozen=True)
class NodeCase:
    """A node, its inputs, and the outputs that it must have."""

    name: str
    node: NodeProto
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    opset: int


@dataclass
class Verdict:
    """What the importer made of a case.

    Attributes
    ----------
    outcome
        ``right`` where each output is right in some way and wrong in none, ``wrong`` where it is
        wrong in any, ``broken`` where an exception is no InputError, else ``refused``.
    computed
        Whether some way with a computed input is right.
    said
        What was said or found, of each way.
    """

    outcome: Outcome
    computed: bool = False
    said: list[str] = field(default_factory=list)
    becomes: set[str] = field(default_factory=set)
    """Kinds of the nodes of the network that the node becomes."""


@cache
def node_cases(operator: str) -> tuple[NodeCase, ...]:
    """Return all cases of an operator, in the order of their names.

    The cases that ONNX writes with an operator's definition in its place are left out: they are of
    other operators. So are those of sequences and optional values: a network has tensors.
    """
    found: list[NodeCase] = []

    def expect(node: NodeProto, inputs: Sequence, outputs: Sequence, name: str, **options) -> None:
        if node.domain not in ("", "ai.onnx") or node.op_type != operator:
            return
        opsets = options.get("opset_imports") or []
        opset = max((each.version for each in opsets if not each.domain), default=0)
        opset = opset or onnx.defs.get_schema(node.op_type).since_version
        if not all(isinstance(each, TENSORS) for each in (*inputs, *outputs)):
            return
        copied = NodeProto()
        copied.CopyFrom(node)
        copied.name = NODE
        found.append(NodeCase(name, copied, tuple(inputs), tuple(outputs), opset))

    was = node.expect, base.process_snippet
    node.expect = expect
    # The text of each case is for ONNX's documentation, and takes most of the time.
    base.process_snippet = lambda *_: ("", "")
    try:
        with np.errstate(all="ignore"):
            for module in pkgutil.iter_modules(node.__path__):
                if module.name.replace("_", "").removesuffix("op") == operator.lower():
                    _load(f"{node.__name__}.{module.name}")
    finally:
        node.expect, base.process_snippet = was
    return tuple(sorted(found, key=lambda case: case.name))


def _load(name: str) -> None:
    """Import a module of cases, which calls ``expect`` on each; again, where it was imported."""
    if name in sys.modules:
        importlib.reload(sys.modules[name])
    else:
        importlib.import_module(name)


def judge_case(case: NodeCase) -> Verdict:
    """Try a case in all ways."""
    verdict = Verdict("refused")
    inputs, outputs = {}, {}
    for found, names, values in (
        (inputs, case.node.input, case.inputs),
        (outputs, case.node.output, case.outputs),
    ):
        for name, value in zip(filter(None, names), values, strict=False):
            value = numpy_helper.to_array(value) if isinstance(value, TensorProto) else value
            found[name] = np.asarray(value)
    right: set[str] = set()
    for output, expected in outputs.items():
        for way in _ways(case, inputs, output):
            outcome, said = _try(case, way, output, expected, verdict.becomes)
            verdict.said.append(f"{output}, {way.name}: {outcome} {said}")
            if outcome == "right":
                right.add(output)
                verdict.computed |= way.x is not None
            elif outcome != "refused":
                verdict.outcome = outcome
    if verdict.outcome == "refused" and right >= set(outputs):
        verdict.outcome = "right"
    return verdict


@dataclass(frozen=True)
class _Way:
    """A way to try a case: a model and its input, None where all is constant.

    ``extra`` is whether tensors have an axis more than the case, a batch of 1.
    """

    name: str
    model: onnx.ModelProto
    x: NDArray | None = None
    extra: bool = False


def _ways(case: NodeCase, inputs: dict[str, NDArray], output: str) -> Iterator[_Way]:
    yield _Way("constants", _model(case, np.zeros((1, 1), np.float32), inputs, [], output))
    floating = [
        name
        for name, value in inputs.items()
        if value.size and helper.np_dtype_to_tensor_dtype(value.dtype) in FLOATING
    ]
    kind = case.node.op_type
    by_value = OPERATORS[kind].batch_last if kind in OPERATORS else kind in DROPPED
    for extra in (False, True) if by_value else (False,):
        able = [name for name in floating if extra or inputs[name].ndim > 1]
        sets = [[name] for name in able] + ([able] if len(able) > 1 else [])
        for names in sets:
            values = [inputs[name][None] if extra else inputs[name] for name in names]
            if len({len(value) for value in values}) == 1:
                title = " and ".join(names) + (" with a batch" if extra else "")
                model, x = _computed(case, inputs, dict(zip(names, values, strict=True)), output)
                yield _Way(title, model, x, extra)


def _computed(
    case: NodeCase, inputs: dict[str, NDArray], read: dict[str, NDArray], output: str
) -> tuple[onnx.ModelProto, NDArray]:
    """Make a model in which the inputs ``read`` are slices of what the network reads."""
    kind = next(iter(read.values())).dtype
    x = np.concatenate([value.reshape(len(value), -1).astype(kind) for value in read.values()], 1)
    constants = {name: value for name, value in inputs.items() if name not in read}
    nodes, start = [], 0
    for name, value in read.items():
        end = start + prod(value.shape[1:])
        sizes = {"from": [start], "to": [end], "along": [1], "shape": [0, *value.shape[1:]]}
        constants |= {f"{name}_{key}": np.array(sizes[key]) for key in sizes}
        start = end
        places = [f"{name}_{key}" for key in ("from", "to", "along")]
        nodes += [
            helper.make_node("Slice", [IMAGE, *places], [f"{name}_flat"]),
            helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]),
        ]
    return _model(case, x, constants, nodes, output), x


def _model(
    case: NodeCase,
    x: NDArray,
    constants: dict[str, NDArray],
    before: list[NodeProto],
    output: str,
) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [*before, case.node],
        case.name,
        [helper.make_tensor_value_info(IMAGE, kind, x.shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)])


def _try(
    case: NodeCase, way: _Way, output: str, expected: NDArray, becomes: set[str]
) -> tuple[Outcome, str]:
    importer, x = load.Importer(way.model, case.name), way.x
    try:
        importer.refuse_unknown_operators()
        network = importer.network()
    except InputError as error:
        if x is None and output in importer.net.constants:
            found = importer.net.constants[output]
            return _compare(found, expected)
        lines = str(error).splitlines()
        return ("refused", str(error)) if len(lines) == 1 else ("broken", str(error))
    except Exception as error:
        return "broken", repr(error)
    if x is None:
        return "broken", "a network that computes what is constant"
    with np.errstate(all="ignore"):
        try:
            found = network.forward(x.astype(np.float32))
        except Exception as error:
            return "broken", repr(error)
    if case.node.op_type in LAST:
        found = _softmax(case, found)
    outcome, said = _compare(found, expected[None] if way.extra else expected)
    if outcome == "right":
        becomes |= {type(each).__name__ for each in network.nodes if each.name.startswith(NODE)}
    return outcome, said


def _softmax(case: NodeCase, x: NDArray) -> NDArray:
    attributes = {each.name: helper.get_attribute_value(each) for each in case.node.attribute}
    if case.node.op_type == "ArgMax":
        return _argmax(x, attributes)
    axis = attributes.get("axis", -1 if case.opset >= 13 else 1)
    powers = np.exp(x - x.max(axis, keepdims=True))
    shares = powers / powers.sum(axis, keepdims=True)
    return np.log(shares) if case.node.op_type == "LogSoftmax" else shares


def _argmax(x: NDArray, attributes: dict[str, Any]) -> NDArray:
    axis = attributes.get("axis", 0)
    if not attributes.get("select_last_index", 0):
        found = x.argmax(axis, keepdims=True)
    else:
        found = x.shape[axis] - 1 - np.flip(x, axis).argmax(axis, keepdims=True)
    return found if attributes.get("keepdims", 1) else found.squeeze(axis)


def _compare(found: NDArray, expected: NDArray) -> tuple[Outcome, str]:
    if found.shape != expected.shape:
        return "wrong", f"shape {found.shape}, expected {expected.shape}"
    if expected.dtype.kind in "OUS" or found.dtype.kind in "OUS":
        same = np.array_equal(found, expected)
    else:
        a, b = (np.asarray(each).astype(np.float64) for each in (found, expected))
        # Cast to a narrower type is passed over: values differ by its rounding.
        rtol = 2.0**-8 if expected.dtype.name == "bfloat16" else RTOL
        exact = expected.dtype.kind in "biu"
        same = np.array_equal(a, b) if exact else np.allclose(a, b, rtol, ATOL, equal_nan=True)
    return cast(tuple[Outcome, str], ("right", "") if same else ("wrong", "values"))
