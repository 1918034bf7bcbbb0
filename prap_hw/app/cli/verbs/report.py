"""``prap report``: one HTML page of a compressed network."""

from pathlib import Path
from typing import Annotated

import typer

from prap_hw.app import console
from prap_hw.app.cli import values
from prap_hw.app.cli.groups import ENGINE, Engine
from prap_hw.app.cli.options import Debug, Folder, Json, Labels, Trials, verb
from prap_hw.app.cli.outcome import write_json
from refmodel.errors import InputError


@verb(
    epilog="Examples:\n\nprap report build/net -o build/net.html --images test.npz\n\n"
    "prap cosim build/net --images test.npz --json build/net/cosim.json;"
    " prap report build/net -o build/net.html\n\n"
    "prap report build/net -o build/net.html --technology mine.toml --images test.npz"
    " --device wan-2022 --limit 200"
)
def report(
    folder: Folder,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE.html", help="The page to write.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="FILE",
            help="Labelled images, a file or folder: the accuracy is measured.",
        ),
    ] = None,
    labels: Labels = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Images evaluated at most.", min=1)
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="FILE",
            help="A device file, or the name of a packaged one, on which the accuracy is measured,"
            " too; may be repeated.",
        ),
    ] = None,
    trials: Trials = None,
    accuracy: Annotated[
        Path | None,
        typer.Option(
            "--accuracy",
            metavar="FILE",
            help="Figures of `prap evaluate --json`, instead of --images; left out,"
            " DIR/accuracy.json if it is there.",
        ),
    ] = None,
    cosim: Annotated[
        Path | None,
        typer.Option(
            "--cosim",
            metavar="FILE",
            help="Figures of `prap cosim --json`; left out, DIR/cosim.json if it is there.",
        ),
    ] = None,
    technology: Annotated[
        str,
        typer.Option(
            "--technology",
            metavar="FILE",
            help="Technology file, or the name of a packaged one, by which costs are worked out;"
            " none: no costs.",
        ),
    ] = "isaac-32nm",
    engine: Engine = ENGINE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Write a page of a compressed network: what is kept, cycles, costs, accuracy, co-simulation.

    The page is one HTML file that loads nothing, for light and dark screens and for paper. It is of
    the engine that the network was compressed for, changed by the options.
    """
    from prap_hw.app.report.network import report_folder

    values.need("--images", images, labels=labels, limit=limit, device=device or None)
    values.need("--device", device, trials=trials)
    if images is not None and accuracy is not None:
        raise InputError("expected one of --images and --accuracy, found both")
    with console.progress() as progress:
        figures = report_folder(
            folder,
            out,
            images=None if images is None else values.pair(images, labels),
            limit=limit,
            device=device or (),
            trials=trials,
            accuracy=accuracy,
            cosim=cosim,
            technology=None if technology == "none" else technology,
            config=engine.checked(),
            report=progress,
        )
    console.hint(figures)
    write_json(json_file, figures)
    print(f"report: {out}")
