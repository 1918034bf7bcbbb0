"""``prap sweep``: many points, worked out once, priced at will."""

from pathlib import Path
from typing import Annotated

import typer

from prap_hw.app import console
from prap_hw.app.cli.options import Debug, Json, verb
from prap_hw.app.cli.outcome import differ, write_json
from refmodel import files
from refmodel.errors import InputError


@verb(
    epilog="Examples:\n\nprap sweep sweep.toml -o build/sweep\n\n"
    "prap sweep sweep.toml -o build/sweep --workers 8\n\n"
    "prap sweep sweep.toml -o build/sweep --scheduler tcp://node7:8786"
)
def sweep(
    spec: Annotated[
        Path,
        typer.Argument(
            metavar="SPEC.toml", help="The specification: a TOML file (docs/sweeps.md)."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder of the points, sweep.csv, .parquet and .html; one that is there is"
            " continued.",
        ),
    ],
    workers: Annotated[
        int,
        typer.Option(
            "--workers", metavar="N", help="Processes of Dask to run on; 0: this one.", min=0
        ),
    ] = 0,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="Dask scheduler to run on, whose workers see the same files.",
        ),
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Run networks under schemes, budgets, engines, devices and technologies; a row to a point.

    Compiling and counting are kept, each by the content of what it depends on, so a sweep goes on
    where it was stopped, and prices of another technology compile nothing.
    """
    from prap_hw.app.sweep.results import sweep as run
    from prap_hw.app.sweep.results import write_results

    if workers and scheduler is not None:
        raise InputError("expected one of --workers and --scheduler, found both")
    files.check_folder(out)
    with console.progress() as report:
        rows, done = run(spec, out, workers=workers, scheduler=scheduler, report=report)
    written = write_results(rows, out, title=f"Sweep {spec.stem}")
    failed = [row for row in rows if row["failed"] is not None]
    worked = ", ".join(f"{count} {kind}" for kind, count in done["worked_out"].items())
    points = "1 point" if len(rows) == 1 else f"{len(rows)} points"
    print(f"{points}, {len(failed)} of them failed; worked out now: {worked}")
    write_json(json_file, {"rows": rows, **done})
    for path in written:
        print(path)
    # Points that cannot be are rows; these were not worked out, and the next run tries again.
    differ([f"{name}: {reason}" for name, reason in done["problems"].items()])
    if len(failed) == len(rows):
        raise InputError(
            f"expected a point that can be worked out, found none in {spec}: {failed[0]['failed']}"
        )
