"""``prap headline``: the published comparison, by the published cost model."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from prap_hw.app import console
from prap_hw.app.cli.options import Debug, Json, verb
from prap_hw.app.cli.outcome import write_json


@verb(epilog="Examples:\n\nprap headline\n\nprap headline --crossbar 128 --json headline.json")
def headline(
    crossbar: Annotated[
        int,
        typer.Option(
            "--crossbar",
            metavar="N",
            help="Rows and columns of a crossbar, a multiple of 8 from 32 to 1024. The paper's"
            " figures come out at 256.",
        ),
    ] = 256,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Reproduce the paper's headline with its own cost model, and say what that leaves out.

    The model is the published one, networks and shares of pruned and reused patterns included: it
    says nothing about this engine. --json has all 32 results, four networks in eight modes.
    """
    from prap_hw.app import workflow

    figures = workflow.headline(crossbar)
    screen = console.console()
    for line in lines(figures):
        screen.print(line, soft_wrap=True)
    screen.print(
        console.table(
            f"Published model, crossbars of {crossbar} by {crossbar}",
            ("network", "speed", "energy", "adders\ncounted", "orc\nms", "prap\nms", "orc\nmJ",
             "prap\nmJ"),
            [tuple(row.values()) for row in figures["rows"]],
        )
    )  # fmt: skip
    for heading in ("includes", "leaves_out"):
        screen.print(
            f"Energy {'is that of' if heading == 'includes' else 'and latency leave out'}:"
        )
        for line in figures[heading]:
            screen.print(f"  {line}", soft_wrap=True)
    write_json(json_file, figures)


def lines(figures: Mapping[str, Any]) -> list[str]:
    """Write both ratios beside those of the paper."""
    paper, counted = figures["paper"], figures["energy_with_adders"]
    speed = f"prap over orc, speed    {figures['speed']:.3f}   the paper {paper['speed']:.2f}"
    energy = f"prap over orc, energy   {figures['energy']:.3f}   the paper {paper['energy']:.2f}"
    return [
        speed,
        f"{energy}   ({counted:.3f} with the adders' energy)",
        "Arithmetic means of the ratios of four networks.",
    ]
