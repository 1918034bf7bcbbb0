"""``prap demo``."""

from pathlib import Path
from typing import Annotated

import typer

from prap_hw.app import console
from prap_hw.app.cli.options import Debug, Json, Plant, verb
from prap_hw.app.cli.outcome import judge, write_json


@verb(epilog="Examples:\n\nprap demo\n\nprap demo --plant shift -o build/planted")
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the results.")
    ] = Path("build/demo"),
    plant: Annotated[
        Plant | None,
        typer.Option("--plant", help="Plant a fault, to see that the comparison finds it."),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", help="Images that go through the hardware.", min=1)
    ] = 5,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Run the whole path on the packaged network of handwritten digits, and write a report."""
    from prap_hw.app.demo import run_demo

    with console.progress() as report:
        figures = run_demo(out, count=count, plant=plant, report=report)
    screen = console.console()
    screen.print(console.layer_table(figures["layers"], cycles=False))
    screen.print(console.cycle_table(figures["layers"], figures["total"]))
    screen.print(console.accuracy_table(figures["accuracy"], figures["images"]))
    screen.print(console.compared_table(figures["compared"]))
    write_json(json_file, figures)
    screen.print(f"report: {out / 'report.html'}")
    judge(figures)
