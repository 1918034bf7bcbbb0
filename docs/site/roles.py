"""Docstrings as Markdown: roles become links, and sections of ports become lists (for griffe)."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:mod|class|func|meth|data|attr|exc):`~?([\w.]+)`")
_MEMBERS = re.compile(r"^Members\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", re.DOTALL | re.MULTILINE)
_MEMBER = re.compile(r"^(\S[^\n]*?) : ([^\n]*)\n?((?:[ ]+[^\n]*\n?|\n)*)", re.MULTILINE)


class Roles(griffe.Extension):
    """Turn ``:func:`refmodel.api.load``` into a link, and a section ``Members`` into a list."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = _linked(_listed(obj.docstring.value), obj)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite the docstring of a package itself, which is no object of another."""
        self.on_object(obj=pkg)


def _linked(text: str, obj: griffe.Object) -> str:
    """Roles as links, where their pages are."""

    def link(found: re.Match[str]) -> str:
        name = found[1]
        for place in (name, f"{obj.path}.{name}", f"{obj.module.path}.{name}"):
            if "." in place and _exists(obj, place):
                name = place
                break
        return f'<autoref identifier="{name}" optional>`{found[1]}`</autoref>'

    return _ROLE.sub(link, text)


def _listed(text: str) -> str:
    """The ports of a component, ``name : type`` and a text below, as a list."""

    def section(found: re.Match[str]) -> str:
        ports = []
        for name, kind, more in _MEMBER.findall(found[1]):
            kind = kind if "`" in kind else f"`{kind}`"
            ports.append(f"- **`{name}`** ({kind}) – {' '.join(more.split())}".rstrip(" –"))
        return "**Members:**\n\n" + "\n".join(ports) + "\n\n"

    return _MEMBERS.sub(section, text)


def _exists(obj: griffe.Object, path: str) -> bool:
    package, _, rest = path.partition(".")
    try:
        return bool(obj.modules_collection[package][rest])
    except (KeyError, AttributeError):
        return False
