"""``prap price``: energy, latency and area of a compiled network."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from prap_hw.app import console
from prap_hw.app.cli.groups import ENGINE, Engine
from prap_hw.app.cli.options import Debug, Folder, Json, verb
from prap_hw.app.cli.outcome import write_json
from refmodel.config import MOST_ENGINES


@verb(
    epilog="Examples:\n\nprap price build/net\n\n"
    "prap price build/net --technology isaac-32nm --technology mine.toml --json price.json"
)
def price(
    folder: Folder,
    technology: Annotated[
        list[str] | None,
        typer.Option(
            "--technology",
            metavar="FILE",
            help="A technology file, or the name of a packaged one (docs/costs.md); may be"
            " repeated. All packaged ones where left out.",
        ),
    ] = None,
    engines: Annotated[
        int,
        typer.Option(
            "--engines", help="Engines of the accelerator, 1 to 64.", min=1, max=MOST_ENGINES
        ),
    ] = 1,
    engine: Engine = ENGINE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Price one image of a compiled network: energy by part, latency and area, from RTL events.

    The engine is the one that the network was compressed for, changed by the options.
    """
    from prap_hw.app import workflow

    figures = workflow.price(folder, technology or (), config=engine.priced(), engines=engines)
    found = figures["technologies"]
    screen = console.console()
    screen.print(parts_table(found))
    for each in found:
        screen.print(layer_table(each))
        for line in (*each["notes"], f"{len(each['assumptions'])} assumptions in --json"):
            screen.print(f"{each['technology']}: {line}", soft_wrap=True)
    write_json(json_file, figures)


def parts_table(found: Sequence[Mapping[str, Any]]) -> Any:
    """Energy by part, latency and area of an image, a column to each technology."""
    rows = [
        [f"{name}, nJ", *(each["parts"][name] * 1e9 for each in found)]
        for name in found[0]["parts"]
    ]
    rows += [
        ["energy, nJ", *(each["joules"] * 1e9 for each in found)],
        ["latency, us", *(each["seconds"] * 1e6 for each in found)],
        *(
            [f"{name}, um2", *(each["areas_mm2"][name] * 1e6 for each in found)]
            for name in found[0]["areas_mm2"]
        ),
        ["area, mm2", *(each["mm2"] for each in found)],
    ]
    return console.table("An image", ("", *(each["technology"] for each in found)), rows)


def layer_table(found: Mapping[str, Any]) -> Any:
    """Energy and latency of each layer in one technology."""
    names = console.short_names([layer["name"] for layer in found["layers"]])
    rows = [
        [
            name,
            layer["kind"],
            layer["cycles"],
            layer["seconds"] * 1e6,
            layer["joules"] * 1e9,
            max(layer["parts"], key=layer["parts"].get),
        ]
        for name, layer in zip(names, found["layers"], strict=True)
    ]
    columns = ("layer", "kind", "cycles", "us", "nJ", "most for")
    return console.table(f"Layers, {found['technology']}", columns, rows)
