"""``prap effects`` and ``prap ranges``: which effect decides, and converters with few bits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from prap_hw.app import console
from prap_hw.app.cli import values
from prap_hw.app.cli.options import Debug, Folder, Images, Json, Labels, verb
from prap_hw.app.cli.outcome import write_json
from refmodel.config import Cells

Coding = Annotated[
    Cells | None,
    typer.Option(
        "--cells",
        help="How cells hold weights: twos-complement, or differential pairs; left out, as those of"
        " the engine do.",
    ),
]


@verb(
    epilog="Example:\n\nprap effects build/net --images test.npz --device wan-2022 --trials 20"
    " --limit 200 --figure build/effects.png"
)
def effects(
    folder: Folder,
    images: Images,
    device: Annotated[
        str,
        typer.Option(
            "--device", metavar="FILE", help="A device file, or the name of a packaged one."
        ),
    ],
    labels: Labels = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Images evaluated at most.", min=1)
    ] = None,
    cells: Coding = None,
    trials: Annotated[
        int, typer.Option("--trials", help="Chips, the same with every effect.", min=2)
    ] = 5,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the first chip.", min=0, max=1 << 62)
    ] = 0,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="Draw it: a .png, .svg or .pdf file."),
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Measure a network on the same chips with each effect of a device alone, and without it.

    Losses and gains are differences chip by chip, with their 95 % confidence intervals. An effect
    decides where accuracy without it is higher than with all, and than without any other, by more
    than the intervals.
    """
    from prap_hw.app import workflow

    with console.progress() as report:
        figures = workflow.by_effect(
            folder,
            values.pair(images, labels),
            device,
            limit=limit,
            cells=cells,
            trials=trials,
            seed=seed,
            report=report,
        )
    if figure is not None:
        from prap_hw.app.report.effects import draw

        draw(figures, figure)
    console.console().print(effects_table(figures))
    print(decision(figures))
    write_json(json_file, figures)


def effects_table(figures: Mapping[str, Any]) -> Any:
    """Accuracy by effect: alone, and what is gained without it."""
    rows = [
        ["none (ideal)", accuracy(figures["ideal"]), None, None, None],
        *(
            [
                each["name"],
                accuracy(each["alone"]),
                points(each["loss"]),
                accuracy(each["without"]),
                points(each["gain"]),
            ]
            for each in figures["effects"]
        ),
        ["all", accuracy(figures["all"]), None, None, None],
    ]
    columns = ["effect", "alone", "loss,\npoints", "all but it", "gain without it,\npoints"]
    chips = figures["all"]["seeds"]
    title = (
        f"{figures['device']}: chips {chips[0]} to {chips[-1]}, {figures['images']} images,"
        " means with 95 % intervals"
    )
    return console.table(title, columns, rows)


def accuracy(found: Mapping[str, Any]) -> str:
    """Mean of the chips and its interval, in percent."""
    half = found["interval"]
    return f"{100 * found['mean']:.2f} %" + ("" if half is None else f" ± {100 * half:.2f}")


def points(found: Mapping[str, Any]) -> str:
    """A mean difference and its interval, in percentage points."""
    half = found["interval"]
    return f"{100 * found['mean']:+.2f}" + ("" if half is None else f" ± {100 * half:.2f}")


def decision(figures: Mapping[str, Any]) -> str:
    """Say which effect decides, if any."""
    if figures["decides"] is None:
        return "which effect decides, these chips do not show"
    return f"{figures['decides']} decides"


@verb(
    epilog="Example:\n\nprap ranges build/net --images train.npz --bits 2 -o build/ranges.json\n\n"
    "prap evaluate build/net --images test.npz --adc-ranges build/ranges.json",
)
def ranges(
    folder: Folder,
    images: Images,
    bits: Annotated[int, typer.Option("--bits", help="Bits of the converters.", min=1, max=13)],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="File that is written, JSON.")
    ],
    count: Annotated[
        int, typer.Option("--count", help="Images on which sums are counted: the first.", min=1)
    ] = 32,
    cells: Coding = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Choose the range of each layer's converters: low end and step, in conducting cells.

    Sums on bitlines are counted on images, and the range is that which changes a layer's sums
    least. ``prap evaluate --adc-ranges`` and ``prap cosim --adc-ranges`` use the file.
    """
    from prap_hw.app import workflow

    with console.progress() as report:
        figures = workflow.adc_ranges(
            folder,
            values.pair(images, None),
            out,
            bits=bits,
            count=count,
            cells=cells,
            report=report,
        )
    console.console().print(ranges_table(figures))
    print(f"ranges: {out}")
    write_json(json_file, figures)


def ranges_table(figures: Mapping[str, Any]) -> Any:
    """Ranges by layer."""
    rows = []
    for name, each in figures["layers"].items():
        top = each["low"] + each["step"] * ((1 << each["bits"]) - 1)
        rows.append([name, f"{each['low']:g}", f"{each['step']:g}", f"{top:g}"])
    title = f"Ranges of {figures['bits']}-bit converters, on {figures['images']} images"
    return console.table(title, ["layer", "from, cells", "step", "to"], rows)
