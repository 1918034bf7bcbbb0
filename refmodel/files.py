"""Files that are whole or not there: written beside their place and then renamed."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refmodel.errors import InputError


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; it is renamed to ``path`` if nothing fails.

    Raises
    ------
    InputError
        The folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise InputError(f"expected a file to write, found a folder at {path}")
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as problem:
        raise _unwritable(path, problem) from None
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o666 & ~_umask())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, *, replace: bool = False, marker: str = "") -> Iterator[Path]:
    """Give an empty folder beside ``path``; it is renamed to ``path`` if nothing fails.

    Parameters
    ----------
    path
        Folder to make. An empty one may be there already.
    replace
        Whether a folder that is there is replaced; only one that holds ``marker`` is.
    marker
        Name of a file that tells a folder of ours.

    Raises
    ------
    InputError
        ``path`` is there and may not be replaced, or cannot be written.
    """
    check_free(path, replace=replace, marker=marker)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as problem:
        raise _unwritable(path, problem) from None
    try:
        yield draft
        draft.chmod(0o777 & ~_umask())
        if path.is_dir():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.replace(old / path.name)
            draft.replace(path)
            shutil.rmtree(old)
        else:
            draft.replace(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_free(path: Path, *, replace: bool = False, marker: str = "") -> None:
    """Raise InputError unless ``path`` may be made: see :func:`new_folder`."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise InputError(f"expected a folder to write, found a file at {path}")
    if not replace:
        raise InputError(f"expected a new folder, found one with files in it: {path}")
    if not (path / marker).is_file():
        raise InputError(f"expected a folder with {marker} to replace, found another: {path}")


def check_folder(path: Path) -> None:
    """Check, before long work, that no file stands where a folder is to be made.

    Raises
    ------
    InputError
        A file stands at ``path`` or at a folder above it.
    """
    for place in (path, *path.parents):
        if place.exists():
            if not place.is_dir():
                raise InputError(f"expected a folder to write, found a file at {place}")
            return


def make_folder(path: Path) -> None:
    """Make a folder unless it is there; InputError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise _unwritable(path, problem) from None


def write_json(path: Path | str, figures: Mapping[str, Any]) -> None:
    """Write figures as JSON, whole or not at all."""
    with new_file(Path(path)) as draft:
        draft.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unwritable(path: Path, problem: OSError) -> InputError:
    return InputError(f"expected a place to write, found {problem.strerror or problem} at {path}")
