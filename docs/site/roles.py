"""What docstrings say in roles, as links of Markdown: a griffe extension."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:mod|class|func|meth|data|attr|exc):`~?([\w.]+)`")
_VERBATIM = re.compile(r"::\n\n(?=    )")


class Roles(griffe.Extension):
    """Turn ``:func:`refmodel.api.load``` into a link, where that page is."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is None:
            return

        def link(found: re.Match[str]) -> str:
            name = found[1]
            for place in (name, f"{obj.path}.{name}", f"{obj.module.path}.{name}"):
                if "." in place and _exists(obj, place):
                    name = place
                    break
            return f'<autoref identifier="{name}" optional>`{found[1]}`</autoref>'

        obj.docstring.value = _ROLE.sub(link, obj.docstring.value)


def _exists(obj: griffe.Object, path: str) -> bool:
    package, _, rest = path.partition(".")
    try:
        return bool(obj.modules_collection[package][rest])
    except (KeyError, AttributeError):
        return False
