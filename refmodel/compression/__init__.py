"""From a float network to a program: quantisation, the nine schemes, budgets, compilation."""

from pathlib import Path
from pkgutil import iter_modules


def scheme_names() -> tuple[str, ...]:
    """Give the names of the schemes by their files, of which none is imported.

    ``structured_identical.py`` has the scheme ``structured+identical``.
    """
    modules = iter_modules([str(Path(__file__).parent / "schemes")])
    return tuple(each.name.replace("_", "+") for each in modules if not each.ispkg)
