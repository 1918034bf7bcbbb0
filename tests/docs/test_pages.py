"""Names in the pages exist: files, folders, modules, targets of make, imports of the code."""

import ast
import importlib.util
import re

import pytest

from tests.support import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

PLACE = re.compile(r"`((?:refmodel|prap_hw|sim|tests|docs|examples|benchmarks)/[\w./-]*)`")
DOTTED = re.compile(r"`((?:refmodel|prap_hw|sim)(?:\.\w+)+)(?:\(\))?`")
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(((?!http)[^)#]*)(?:#[^)]*)?\)|(?:srcset|src)=\"([^\"]*)\"")
TARGET = re.compile(r"\bmake ([a-z-]+)")
MADE = re.compile(r"^([a-z-]+):", re.MULTILINE)
RELATIVE = re.compile(r":(?:mod|class|func|meth|data|attr|exc):`~?\.")


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or a name in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.exists():
            rest = parts[end:]
            text = file.read_text(encoding="utf-8")
            return not rest or re.search(rf"(?<![.\w]){rest[0]}\b", text) is not None
    return False


def problems(text: str, folder) -> list[str]:
    """List the names of a page that are not there."""
    # A guide names the file that its reader writes: its folder must be there.
    guide = folder.name == "howto"
    found = [
        f"no {name}"
        for name in PLACE.findall(text)
        if not (ROOT / name).exists() and not (guide and (ROOT / name).parent.exists())
    ]
    found += [f"no {name}" for name in DOTTED.findall(text) if not exists(name)]
    for link, source in LINK.findall(text):
        target = link or source
        if target and not (folder / target).exists():
            found.append(f"link to nothing: {target}")
    made = set(MADE.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    prose = re.sub(r"(?s)```.*?```|apt install[^`]*", "", text)
    commands = re.findall(r"`[^`\n]*`|^    .*$", prose, re.MULTILINE)
    for target in TARGET.findall("\n".join(commands)):
        if target not in made:
            found.append(f"no target of make: {target}")
    for block in CODE.findall(text):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    if node.module.split(".")[0] in ("refmodel", "prap_hw", "sim"):
                        found += [] if exists(name) else [f"no {name}"]
                    elif importlib.util.find_spec(node.module) is None:
                        found.append(f"no {node.module}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page):
    assert problems(page.read_text(encoding="utf-8"), page.parent) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("see `refmodel/schemes/`", "no refmodel/schemes/", id="folder"),
        pytest.param("see `refmodel.schemes`", "no refmodel.schemes", id="module"),
        pytest.param("[x](nowhere.md#a)", "link to nothing: nowhere.md", id="link"),
        pytest.param("    make everything", "no target of make: everything", id="target"),
        pytest.param(
            "```python\nfrom refmodel.predict.deal import predict_all\n```",
            "no refmodel.predict.deal.predict_all",
            id="import",
        ),
    ],
)
def test_what_is_not_there_is_found(text, problem):
    assert problems(text, ROOT / "docs") == [problem]


def test_docstrings_name_places_from_the_package_on():
    # The site's extension looks a name up in its package, and ends the build where it has none.
    found = [
        path
        for package in ("refmodel", "prap_hw", "sim")
        for path in sorted((ROOT / package).rglob("*.py"))
        if RELATIVE.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_a_relative_name_is_found():
    assert RELATIVE.search("see :mod:`.file`")
    assert not RELATIVE.search("see :mod:`refmodel.files`.")
