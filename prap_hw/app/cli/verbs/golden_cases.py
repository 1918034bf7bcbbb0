"""``prap golden``."""

from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import Exit

from prap_hw.app.cli.options import Debug, Json, verb
from prap_hw.app.cli.outcome import DIFFERENT, write_json


@verb(epilog="Example:\n\nprap golden ../shared/golden")
def golden(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder of golden cases with its index.json.")
    ],
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Check the published functions against a folder of golden cases."""
    from prap_hw.app import workflow

    figures = workflow.check_golden(folder)
    write_json(json_file, figures)
    for line in figures["lines"]:
        print(line)
    if figures["failures"]:
        raise Exit(DIFFERENT)
