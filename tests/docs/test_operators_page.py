"""The page of operators: each one's row is made from the code and from ONNX's own test cases.

``python -m tests.docs.test_operators_page`` writes the rows into the page.
"""

import re
from dataclasses import dataclass

import pytest

from refmodel.errors import InputError
from refmodel.exchange.onnx.fold import FOLDED
from refmodel.exchange.onnx.registry import DROPPED, LAST, OPERATORS, Operator, supported
from tests.support import ROOT
from tests.support.nets.node_cases import NodeCase, judge_case, node_cases

PAGE = ROOT / "docs" / "operators.md"

HEAD = (
    "| operator | what is taken | becomes | right | of these computed | refused |\n"
    "|---|---|---|---|---|---|\n"
)

SLOW = {"AveragePool", "MaxPool"}
"""Operators whose cases ONNX computes for seconds."""

NAMES = sorted({*supported(), *FOLDED})


@dataclass
class Row:
    """A row of the page, and what is wrong with the operator."""

    text: str
    right: int
    refused: int
    problems: list[str]


def row(name: str) -> Row:
    """Judge the cases of an operator."""
    verdicts = [(case.name, judge_case(case)) for case in node_cases(name)]
    count = dict.fromkeys(("right", "refused", "wrong", "broken"), 0)
    for _, each in verdicts:
        count[each.outcome] += 1
    computed = sum(each.outcome == "right" and each.computed for _, each in verdicts)
    becomes = sorted(set().union(*(each.becomes for _, each in verdicts)))
    problems = [
        f"{case}: {each.said}" for case, each in verdicts if each.outcome in ("wrong", "broken")
    ]
    cells = [f"`{name}`", _taken(name), ", ".join(f"`{kind}`" for kind in becomes) or "–"]
    cells += map(str, (count["right"], computed, count["refused"]))
    return Row(f"| {' | '.join(cells)} |", count["right"], count["refused"], problems)


def _taken(name: str) -> str:
    if name in LAST:
        return "at the end of the network, where it is left out"
    if name in DROPPED:
        return "passed over"
    if name not in OPERATORS:
        return (
            "of constants alone, or of what is known of shapes"
            if name == "Shape"
            else "of constants alone"
        )
    first = str(OPERATORS[name].handler.__doc__).split(".\n")[0].split(". ")[0].splitlines()
    text = re.sub(r"^Import ", "", " ".join(line.strip() for line in first)).rstrip(".")
    return text.replace("|", "\\|")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long if name in SLOW else ()) for name in NAMES],
)
def test_node_cases_are_right_or_refused_as_the_page_says(name):
    found = row(name)
    print(f"{name}: {found.right} right, {found.refused} refused")
    assert not found.problems
    assert found.text in PAGE.read_text("utf-8").splitlines(), (
        "python -m tests.docs.test_operators_page"
    )


def test_the_page_has_a_row_for_each_operator_and_the_sums():
    text = PAGE.read_text("utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| `\w+` \|.*\d \|$", line)]
    assert [re.findall(r"`(\w+)`", line)[0] for line in rows] == NAMES
    sums = [sum(int(line.split(" | ")[at].strip(" |")) for line in rows) for at in (3, 4, 5)]
    assert f"{sums[0]} right ({sums[1]} of them computed), {sums[2]} refused, 0 wrong" in text


def _negation() -> NodeCase:
    (case, *_) = node_cases("Neg")
    return case


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [("wrong values", "wrong"), ("a traceback", "broken"), ("two lines", "broken")],
)
def test_an_operator_that_misbehaves_is_told_apart(problem, outcome, monkeypatch):
    def handler(net, node, attributes):
        if problem == "wrong values":
            net.pass_on(node, net.activation(node.input[0], node)[0])
        elif problem == "a traceback":
            raise RuntimeError(problem)
        else:
            raise InputError("two\nlines")

    monkeypatch.setitem(OPERATORS, "Neg", Operator(handler))
    assert judge_case(_negation()).outcome == outcome


def write() -> None:
    """Write the rows and their sums into the page."""
    rows = [row(name) for name in NAMES]
    for each in rows:
        print(*each.problems, sep="\n", end="\n" * bool(each.problems))
    table = HEAD + "".join(f"{each.text}\n" for each in rows)
    computed = sum(int(each.text.split(" | ")[4]) for each in rows)
    sums = f"{sum(each.right for each in rows)} right ({computed} of them computed), "
    refused, wrong = sum(each.refused for each in rows), sum(len(each.problems) for each in rows)
    sums += f"{refused} refused, {wrong} wrong"
    text = PAGE.read_text("utf-8")
    start = text.index(HEAD)
    end = start + re.match(r"(\|.*\n)*", text[start:]).end()  # pyright: ignore[reportOptionalMemberAccess]
    text = text[:start] + table + text[end:]
    text = re.sub(r"\d+ right \(\d+ of them computed\), \d+ refused, \d+ wrong", sums, text)
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    write()
