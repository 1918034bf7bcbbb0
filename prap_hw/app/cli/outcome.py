"""How a verb ends: its figures in a file, its exit code, and the traceback where one is wanted.

Exit codes: 0 done; 1 a comparison found differences; 2 bad input or usage; 3 a fault of ours;
130 interrupted. Errors are one line on stderr; ``--debug`` adds the traceback.
"""

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.exceptions import Exit

from prap_hw.app import console

DIFFERENT, BAD_INPUT, OUR_FAULT, INTERRUPTED = 1, 2, 3, 130


class Debugging:
    """Whether ``--debug`` was given, before the verb or behind it."""

    on = False

    @classmethod
    def set(cls, value: bool) -> bool:
        """Take the value of an option ``--debug``: one that is given holds."""
        cls.on = cls.on or value
        return value

    @classmethod
    def reset(cls) -> None:
        """Begin a run of the command line."""
        cls.on = False

    @classmethod
    def trace(cls) -> None:
        """Print the traceback of the exception that is being handled, if that is wanted."""
        if cls.on:
            traceback.print_exc()


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write figures to the file of ``--json``, if there is one."""
    if path is None:
        return
    from refmodel import files

    files.write_json(path, figures)


@contextmanager
def goes_on(folder: Path) -> Iterator[None]:
    """Where a verb is interrupted, say that the same command goes on with what is in a folder."""
    try:
        yield
    except KeyboardInterrupt:
        if folder.is_dir():
            print(f"prap: the same command goes on with what is in {folder}", file=sys.stderr)
        raise


def judge(figures: Mapping[str, Any]) -> None:
    """End with exit code 1 unless all was compared, nothing differs and predictions hold."""
    from prap_hw.app.workflow import faults

    differ(faults(figures))


def differ(found: list[str]) -> None:
    """Print what is wrong, a line each, and end with exit code 1; go on where nothing is."""
    for line in found:
        console.error(line)
    if found:
        raise Exit(DIFFERENT)
