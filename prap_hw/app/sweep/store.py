"""Results of a sweep on disk, each under a key of the content of what it depends on.

A key is a hash of a kind, of settings, of the files that are read, and of the package's version and
sources that matter: whoever changes one of them gets another key, and whoever asks again for the
same finds it done. Records are written beside their place and renamed, so that a process that is
killed leaves a whole record or none.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from refmodel import files

SOURCES = (
    "compression", "exchange", "golden", "network", "predict", "program", "api.py", "archive.py",
    "config.py",
)  # fmt: skip
"""Sources of the golden model that decide a compiled program, its events and its accuracy."""

PRICE_SOURCES = ("cost",)
"""Sources of the golden model that decide the price of given events."""


@cache
def file_hash(path: str) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@cache
def source_hash(names: tuple[str, ...] = SOURCES) -> str:
    """SHA-256 of the golden model's sources of these names, and of the package's version."""
    import refmodel

    root = Path(next(iter(refmodel.__path__)))
    total = hashlib.sha256(metadata.version("prap-pim").encode())
    for name in names:
        path = root / name
        for each in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            total.update(each.relative_to(root).as_posix().encode())
            total.update(each.read_bytes())
    return total.hexdigest()


def key_of(kind: str, content: Mapping[str, Any]) -> str:
    """Key of a record: 32 hexadecimal digits."""
    text = json.dumps({"kind": kind, **content}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Store:
    """Records of a sweep in a folder, by kind and key.

    A record is ``{"key", "content", "result"}``, or has ``failed``, a reason, instead of a result.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def path(self, kind: str, key: str, suffix: str = ".json") -> Path:
        """Where a record lies, or a file that belongs to it."""
        return self.folder / kind / f"{key}{suffix}"

    def read(self, kind: str, key: str) -> dict[str, Any] | None:
        """A record; None where there is none, or one that cannot be read."""
        try:
            found = json.loads(self.path(kind, key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("key") == key else None

    def write(self, kind: str, key: str, content: Mapping[str, Any], **values: Any) -> None:
        """Write a record, whole or not at all."""
        with files.new_file(self.path(kind, key)) as draft:
            text = json.dumps({"key": key, "content": content, **values})
            draft.write_text(text + "\n", encoding="utf-8")
