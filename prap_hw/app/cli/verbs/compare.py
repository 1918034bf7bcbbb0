"""``prap compare``: schemes side by side on one network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from prap_hw.app import console
from prap_hw.app.cli import values
from prap_hw.app.cli.groups import ENGINE, PIXELS, Engine, Pixels
from prap_hw.app.cli.options import Calibration, Debug, Json, Labels, Network, verb
from prap_hw.app.cli.outcome import write_json
from refmodel.config import MOST_ENGINES


@verb(
    epilog="Examples:\n\n"
    "prap compare net.onnx --calibration train.npz --images test.npz -o build/compare\n\n"
    "prap compare net.onnx --calibration train.npz --images test.npz --schemes dense,orc,dictionary"
    " --budgets 2,4,8 --at 90 -o build/compare"
)
def compare(
    network: Network,
    calibration: Calibration,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder of compare.json, .csv, .html and pictures."
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="FILE", help="Labelled images, for the accuracy."),
    ] = None,
    labels: Labels = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Labelled images used at most.", min=1)
    ] = None,
    schemes: Annotated[
        str,
        typer.Option("--schemes", metavar="A,B,...", help="Schemes to compare; all: the nine."),
    ] = "all",
    budgets: Annotated[
        str | None,
        typer.Option(
            "--budgets",
            metavar="X,Y,...",
            help="Compare each scheme also where it costs this many times less than dense.",
        ),
    ] = None,
    of: Annotated[
        Literal["ous", "cycles", "weighted"] | None,
        typer.Option("--of", help="The cost that --budgets count; ous where left out."),
    ] = None,
    at: Annotated[
        float | None,
        typer.Option(
            "--at",
            metavar="PERCENT",
            help="Compare costs at this accuracy, interpolated along each scheme's budgets.",
            min=0,
            max=100,
        ),
    ] = None,
    technology: Annotated[
        list[str] | None,
        typer.Option(
            "--technology",
            metavar="FILE",
            help="Technology file, or the name of a packaged one; isaac-32nm where left out. May be"
            " repeated: each has a folder of its name in DIR.",
        ),
    ] = None,
    engines: Annotated[
        int,
        typer.Option(
            "--engines", help="Engines that each layer is dealt out to.", min=1, max=MOST_ENGINES
        ),
    ] = 1,
    pixels: Pixels = PIXELS,
    calibration_limit: Annotated[
        int, typer.Option("--calibration-limit", help="Calibration images used at most.", min=1)
    ] = 256,
    engine: Engine = ENGINE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Compare schemes on one network: accuracy, events, latency, energy by part, area."""
    from prap_hw.app import pricing
    from prap_hw.app.compare.folder import write_folder
    from prap_hw.app.compare.measure import compare_each as run
    from prap_hw.app.compare.terminal import comparison_tables
    from prap_hw.app.stages import Subject
    from refmodel import files
    from refmodel.compression.schemes import SCHEMES

    values.need("--images", images, labels=labels, limit=limit, at=at)
    values.need("--budgets", budgets, of=of)
    files.check_folder(out)
    subject = Subject(
        network=str(network),
        calibration=(str(calibration),),
        images=() if images is None else tuple(map(str, values.pair(images, labels))),
        calibration_limit=calibration_limit,
        limit=limit,
        **pixels.arguments(),
    )
    chosen = tuple(SCHEMES) if schemes == "all" else tuple(schemes.split(","))
    with console.progress() as report:
        found = run(
            subject,
            chosen,
            budgets=values.numbers("--budgets", budgets) or (),
            of=of or "ous",
            technologies=technology or (pricing.DEFAULT_TECHNOLOGY,),
            config=engine.priced(),
            engines=engines,
            report=report,
        )
    screen = console.console()
    each: list[Mapping[str, Any]] = []
    for priced in found:
        place = out if len(found) == 1 else out / priced["technology"]
        each.append(write_folder(place, priced, accuracy=None if at is None else at / 100))
        for table in comparison_tables(each[-1]):
            screen.print(table)
        screen.print(f"page: {place / 'compare.html'}")
    write_json(json_file, each[0] if len(each) == 1 else {"technologies": each})
