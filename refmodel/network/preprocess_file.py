"""Files that say how pixels become network inputs: TOML or JSON with the fields of Preprocess.

mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
resize = 256
crop = 224
"""

import tomllib
from pathlib import Path
from typing import Any

from refmodel.archive import plain_json
from refmodel.errors import InputError
from refmodel.network.images import Preprocess

KEYS = ("mean", "std", "scale", "layout", "resize", "crop")
"""What a file may say, each as an option of that name does."""

MOST_BYTES = 1 << 16


def read_preprocess(path: str | Path) -> dict[str, Any]:
    """Read a file.

    Parameters
    ----------
    path
        JSON where its name ends with ``.json``, else TOML.

    Returns
    -------
    dict
        Those of :data:`KEYS` that the file has, checked: ``mean`` and ``std`` as tuples.

    Raises
    ------
    InputError
        There is no such file, it is damaged, or says what no Preprocess has.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise InputError(
            f"expected a readable file of preprocessing, found: {found}, in {path}"
        ) from error
    if len(content) > MOST_BYTES:
        raise InputError(
            f"expected a file of preprocessing of at most {MOST_BYTES} bytes, found "
            f"{len(content)}, in {path}"
        )
    kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
    try:
        found = plain_json(content) if kind == "JSON" else _toml(content)
    except (ValueError, RecursionError) as error:
        said = (str(error).splitlines() or ["nothing"])[0][:200]
        raise InputError(f"expected {kind}, found: {said}, in {path}") from error
    if not isinstance(found, dict) or not found:
        raise InputError(f"expected a table of preprocessing, found {_shown(found)}, in {path}")
    unknown = [key for key in found if key not in KEYS]
    if unknown:
        raise InputError(
            f"expected {', '.join(KEYS)} of the preprocessing, found {unknown[0]!r:.80}, in {path}"
        )
    values = {key: _value(key, value, path) for key, value in found.items()}
    try:
        Preprocess(**values)
    except InputError as error:
        raise InputError(f"{error}, in {path}") from error
    return values


def _toml(content: bytes) -> Any:
    text = content.decode("utf-8")
    if text.count("[") + text.count("{") > 100:  # tables within tables
        raise ValueError("more than 100 brackets")
    return tomllib.loads(text)


def _value(key: str, value: Any, path: Path) -> Any:
    if key == "layout" and isinstance(value, str):
        return value
    if key in ("resize", "crop") and _number(value) and isinstance(value, int):
        return value
    if key == "scale" and _number(value):
        return float(value)
    if key in ("mean", "std"):
        several = value if isinstance(value, list) else [value]
        if several and all(map(_number, several)):
            return tuple(map(float, several))
    wanted = {"layout": "text", "resize": "a whole number", "crop": "a whole number"}
    raise InputError(
        f"expected {wanted.get(key, 'numbers')} as {key}, found {_shown(value)}, in {path}"
    )


def _number(value: Any) -> bool:
    """Whether a value is a finite number that float64 has room for."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) < 1e300


def _shown(value: Any) -> str:
    """Show what was found, where that can be: not thousands of tables in tables, or of digits."""
    try:
        return f"{value!r:.80}"
    except (RecursionError, ValueError):
        return f"{type(value).__name__} that is too long to show"
