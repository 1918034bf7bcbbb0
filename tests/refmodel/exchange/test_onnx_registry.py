"""The list of operators: registered once, whole, and told with a suggestion."""

import pkgutil
import re
import subprocess
import sys

import pytest

from refmodel.errors import InputError
from refmodel.exchange.onnx import load, operators
from refmodel.exchange.onnx.advice import ADVICE
from refmodel.exchange.onnx.fold import FOLDED
from refmodel.exchange.onnx.load import load_onnx
from refmodel.exchange.onnx.registry import OPERATORS, operator, supported
from tests.support.nets import function_cases, graph_cases, onnx_cases
from tests.support.nets.onnx_nets import network, node, save

APART = {"ArgMax", "QuantizeLinear", "DequantizeLinear"}
"""Operators that end networks, or are in the tests of quantised networks."""


def test_every_family_is_imported_with_the_loader():
    # In a process of its own: other tests import some of them by name.
    modules = {
        f"{operators.__name__}.{each.name}" for each in pkgutil.iter_modules(operators.__path__)
    }
    code = "import sys, refmodel.exchange.onnx.load; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert modules
    assert modules <= set(found)


def test_every_operator_has_a_case_that_is_compared_with_onnxruntime():
    tables = (onnx_cases.CASES, function_cases.CASES, graph_cases.CASES)
    cases = [case[0] for table in tables for case in table.values()]
    assert set(supported()) - {each.op_type for nodes in cases for each in nodes} == APART


def test_the_loader_says_what_it_reads():
    said = set(re.findall(r"\w+", str(load.__doc__)))
    assert set(supported()) - {"Shape"} <= said


def test_an_operator_is_registered_once():
    with pytest.raises(ValueError, match="operator 'Relu' is registered already"):
        operator("Relu")(OPERATORS["Relu"].handler)


SUGGESTED = {
    "LpNormalization": "train with BatchNormalization in its place",
    "LSTM": "only feed-forward networks can be mapped to crossbars",
    "Loop": "export with fixed sizes and in evaluation mode, so that no control flow is left",
    "Det": "express it by those below, or add it as docs/howto/add-an-operator.md shows",
}


@pytest.mark.parametrize("kind", SUGGESTED)
def test_an_unknown_operator_is_told_with_its_node_a_suggestion_and_the_list(kind, tmp_path):
    nodes, constants, shape, opset = onnx_cases.after(node(kind, "c", "y"))
    path = save(network(nodes, constants, shape, opset=opset), tmp_path)
    with pytest.raises(InputError) as caught:
        load_onnx(path)
    assert str(caught.value) == (
        f"expected an operator that can be imported, found {kind!r}, in node 'y_node' of {path}: "
        f"{SUGGESTED[kind]}; supported are {', '.join(supported())}"
    )


def test_suggestions_are_of_operators_that_cannot_be_imported():
    assert not ADVICE.keys() & {*supported(), *FOLDED}
