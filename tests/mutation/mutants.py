"""Mutants of the hardware: edits of its source, drawn over all files by their share of code."""

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("accelerator", "board", "common", "engine", "shell", "tile")
"""Folders of ``prap_hw`` with hardware."""

LEAST = 4
"""Mutants of a file at least, where it has as many."""

OPPOSITE: dict[type, tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
}
"""Operators and what stands in their place."""

DOMAINS = ("comb", "sync")
CONDITIONS = ("If", "Elif")


@dataclass(frozen=True)
class Edit:
    """An edit of a file: what stands from one offset to another, and what takes its place.

    Attributes
    ----------
    path
        The file, from the top of the repository.
    kind
        What sort of mutant it is.
    line
        Line of the edit, from 1.
    start, stop
        Offsets in the text, in characters.
    old, new
        What stands there, and what is put there.
    """

    path: str
    kind: str
    line: int
    start: int
    stop: int
    old: str
    new: str

    @property
    def name(self) -> str:
        """What names the edit in results; another edit of the file before it changes the line."""
        return f"{self.path}:{self.line}: {self.kind}: {_short(self.old)} -> {_short(self.new)}"

    def apply(self, text: str) -> str:
        """Return the text with the edit; an AssertionError where it has another text there."""
        assert text[self.start : self.stop] == self.old, self.name
        return text[: self.start] + self.new + text[self.stop :]


def _short(text: str) -> str:
    return " ".join(text.split())


class _Finder:
    """The edits of one file."""

    def __init__(self, path: str, text: str):
        self.path, self.text = path, text
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Offsets of a node; columns of ``ast`` count bytes, and the sources are ASCII."""
        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self.starts[node.lineno - 1] + node.col_offset
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset

    def source(self, node: ast.AST) -> str:
        start, stop = self.span(node)
        return self.text[start:stop]

    def edit(self, kind: str, node: ast.AST, new: str) -> Edit:
        start, stop = self.span(node)
        line = self.text.count("\n", 0, start) + 1
        return Edit(self.path, kind, line, start, stop, self.text[start:stop], new)

    def find(self) -> Iterator[Edit]:
        for function in _hardware(ast.parse(self.text)):
            for node in ast.walk(function):
                if isinstance(node, ast.AugAssign) and _domain(node.target):
                    yield from self.statements(node)
                elif isinstance(node, ast.Call):
                    yield from self.call(node)

    def statements(self, node: ast.AugAssign) -> Iterator[Edit]:
        """Edits that leave out an assignment."""
        if isinstance(node.value, ast.List):
            for item in node.value.elts:
                if isinstance(item, ast.Call):
                    yield self.edit("assignment left out", item, "[]")
        elif isinstance(node.value, ast.Call):
            yield self.edit("assignment left out", node.value, "[]")

    def call(self, node: ast.Call) -> Iterator[Edit]:
        """Edits of an assignment, a condition, or a register."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else None
        if name == "eq" and len(node.args) == 1:
            if not isinstance(node.args[0], ast.Constant):
                yield self.edit("stuck at 0", node.args[0], "0")
            yield from self.value(node.args[0])
        elif name in CONDITIONS and node.args:
            condition = node.args[0]
            yield self.edit("negated", condition, f"({self.source(condition)}) == 0")
            yield from self.value(condition)
        elif isinstance(node.func, ast.Name) and node.func.id == "Signal":
            yield from self.register(node)

    def register(self, node: ast.Call) -> Iterator[Edit]:
        """Edits that take a register's reset from it."""
        if any(keyword.arg in {"reset_less", None} for keyword in node.keywords):
            return
        text = self.source(node)
        comma = ", " if node.args or node.keywords else ""
        inside = text.rstrip()[:-1].rstrip().rstrip(",")
        yield self.edit("reset lost", node, f"{inside}{comma}reset_less=True)")

    def value(self, top: ast.expr) -> Iterator[Edit]:
        """Edits of what is assigned, or of a condition."""
        for node in ast.walk(top):
            if isinstance(node, ast.BinOp) and type(node.op) in OPPOSITE:
                yield from self.operation(node.left, node.op, node.right)
                if isinstance(node.op, ast.BitAnd | ast.BitOr | ast.Add):
                    for kept in (node.left, node.right):
                        yield self.edit("term left out", node, f"({self.source(kept)})")
                if isinstance(node.op, ast.Sub):
                    swapped = f"({self.source(node.right)}) - ({self.source(node.left)})"
                    yield self.edit("operands swapped", node, swapped)
            elif isinstance(node, ast.Compare) and len(node.ops) == 1:
                yield from self.operation(node.left, node.ops[0], node.comparators[0])
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
                yield self.edit("negation left out", node, f"({self.source(node.operand)})")
            elif isinstance(node, ast.Constant) and type(node.value) is int:
                yield self.edit("off by one", node, str(node.value + 1))
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "Mux"
                and len(node.args) == 3
            ):
                first, second, third = (self.source(each) for each in node.args)
                yield self.edit("branches swapped", node, f"Mux({first}, {third}, {second})")

    def operation(self, left: ast.expr, op: ast.AST, right: ast.expr) -> Iterator[Edit]:
        """The edit that puts another operator in place of one that has an opposite."""
        if type(op) not in OPPOSITE:
            return
        old, new = OPPOSITE[type(op)]
        start, stop = self.span(left)[1], self.span(right)[0]
        at = self.text.index(old, start, stop)
        line = self.text.count("\n", 0, at) + 1
        yield Edit(self.path, "another operator", line, at, at + len(old), old, new)


def _domain(target: ast.expr) -> bool:
    """Whether a target is ``m.d.comb`` or another domain."""
    return isinstance(target, ast.Attribute) and (
        target.attr in DOMAINS
        or (isinstance(target.value, ast.Attribute) and target.value.attr == "d")
    )


def _hardware(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """The outermost functions that make hardware: they assign in a domain, or return a value."""
    for node in tree.body:
        functions = node.body if isinstance(node, ast.ClassDef) else [node]
        for function in functions:
            if isinstance(function, ast.FunctionDef) and any(
                isinstance(each, ast.AugAssign) and _domain(each.target)
                for each in ast.walk(function)
            ):
                yield function


def edits(path: str, text: str) -> tuple[Edit, ...]:
    """Return every edit of a file, in the order of its text, each once."""
    found = {(e.start, e.stop, e.new): e for e in _Finder(path, text).find()}
    return tuple(found[key] for key in sorted(found))


def files(root: Path) -> dict[str, str]:
    """Return the text of every file with hardware, by its path from ``root``."""
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for package in PACKAGES
        for path in sorted((root / "prap_hw" / package).rglob("*.py"))
        if edits(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
    }


def draw(texts: dict[str, str], most: int, seed: int) -> list[Edit]:
    """Draw mutants, to each file by its share of all edits that there are.

    Parameters
    ----------
    texts
        Files by path.
    most
        How many mutants are wanted; small files have ``LEAST``, so that it can be some more.
    seed
        Of the draw. A file's mutants depend on its own text and on this alone, and those of a
        lesser ``most`` are among those of a greater one.

    Returns
    -------
    The mutants, file by file.
    """
    every = {path: edits(path, text) for path, text in texts.items()}
    total = sum(len(found) for found in every.values())
    drawn = []
    for path, found in every.items():
        count = max(LEAST, -(-most * len(found) // total))
        order = list(found)
        random.Random(f"{seed} {path}").shuffle(order)
        drawn += order[:count]
    return drawn
