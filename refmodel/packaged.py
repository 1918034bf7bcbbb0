"""TOML files that are packaged, and those that users bring in their place."""

import tomllib
from pathlib import Path
from typing import Any

from refmodel.errors import InputError


def packaged_names(folder: Path) -> tuple[str, ...]:
    """Names of the packaged files in a folder, sorted, without ``.toml``."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def read_toml(name: str | Path, folder: Path, kind: str) -> tuple[dict[str, Any], Path]:
    """Read a packaged file by its name, or any other by its path.

    Parameters
    ----------
    name
        The name of a file in ``folder``, without ``.toml``, or a path.
    folder
        The folder of the packaged files.
    kind
        The kind of file, for messages: ``device``.

    Returns
    -------
    The content, and the path of the file.

    Raises
    ------
    InputError
        There is no such file, or it is not TOML.
    """
    names = packaged_names(folder)
    file = folder / f"{name}.toml" if str(name) in names else Path(name)
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")), file
    except OSError:
        raise InputError(
            f"expected a {kind} file or one of {', '.join(names)}, found none at {name}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise InputError(f"expected TOML, found {problem} in {file.name}") from None
