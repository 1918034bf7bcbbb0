"""Results of simulated runs that later runs take up instead of simulating again.

Only digests are kept: they stand for a simulation, never for a comparison. Whoever takes them up
asks the golden model anew, and simulates where it gives something else.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CACHE = Path("build/cache")
"""Where builds are kept, seen from the folder in which the program runs."""


def digest(*parts: np.ndarray | str) -> str:
    """Digest of arrays and texts."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()[:32]


class Kept:
    """Results of runs of one layer, in a file that later runs read.

    A line to an image: the digest of its input (``acts``), those of what was recorded by kind,
    ``cycles`` and ``counters``, and whatever else is given.

    Parameters
    ----------
    path
        The file; it need not be there.
    fresh
        Whether to take up nothing that is there.
    """

    def __init__(self, path: Path, *, fresh: bool = False):
        self.path = path
        self._runs: dict[str, dict[str, Any]] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text and not text.endswith("\n"):
            # A run was ended while it wrote: what follows gets a line of its own.
            self._append("\n")
        for line in () if fresh else text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            self._runs[entry["acts"]] = entry

    def entry(self, acts: str) -> dict[str, Any] | None:
        """Return the record that is kept of the run of an input, if there is one."""
        return self._runs.get(acts)

    def find(self, acts: str, wanted: Mapping[str, str]) -> tuple[int, dict[str, int]] | None:
        """Cycles and counters of the run of an input, if it gave what is wanted."""
        entry = self.entry(acts)
        if entry is None or any(entry[kind] != digest for kind, digest in wanted.items()):
            return None
        return entry["cycles"], entry["counters"]

    def add(
        self,
        acts: str,
        digests: Mapping[str, str],
        cycles: int,
        counters: Mapping[str, int],
        **more: Any,
    ) -> None:
        """Keep the results of a run: the digests of what it left behind, cycles and counters."""
        entry = {"acts": acts, **digests, "cycles": cycles, "counters": dict(counters), **more}
        self._append(json.dumps(entry) + "\n")

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
