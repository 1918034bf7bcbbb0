"""``prap compress``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from prap_hw.app import console
from prap_hw.app.cli import values
from prap_hw.app.cli.groups import BUDGET, ENGINE, PIXELS, BudgetOptions, Engine, Pixels
from prap_hw.app.cli.options import (
    Calibration,
    Debug,
    Json,
    Network,
    Scheme,
    Settings,
    Workers,
    verb,
)
from prap_hw.app.cli.outcome import goes_on, write_json

Activations = Literal["minmax", "percentile", "mse"]
Weights = Literal["layer", "channel"]
Residual = Literal["separate", "fused"]


@verb(
    epilog="Examples:\n\n"
    "prap compress net.onnx --calibration train.npz -o build/net\n\n"
    "prap compress net.onnx --calibration train.npz --mean .1307 --std .3081 --scheme dense"
    " -o build/dense\n\n"
    "prap compress net.onnx --calibration train.npz --set 'conv*=2,4,0.375' -o build/net"
)
def compress(
    network: Network,
    calibration: Calibration,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write; must not exist.")
    ],
    scheme: Annotated[
        Scheme | None,
        typer.Option(
            "--scheme",
            help="How weights are mapped. Left out: as the network was fine-tuned, with the"
            " mappings that came with it; prap where it was not.",
        ),
    ] = None,
    settings: Settings = None,
    pixels: Pixels = PIXELS,
    limit: Annotated[
        int, typer.Option("--limit", help="Calibration images used at most.", min=1)
    ] = 256,
    activations: Annotated[
        Activations,
        typer.Option(
            "--activations",
            help="Ranges of activations: from least to greatest value, between percentiles, or of"
            " least mean squared error.",
        ),
    ] = "minmax",
    percentile: Annotated[
        float | None,
        typer.Option(
            "--percentile",
            help="Percentile for --activations percentile; 99.99 where left out.",
            min=50.01,
            max=100,
        ),
    ] = None,
    weights: Annotated[
        Weights, typer.Option("--weights", help="One weight scale to a layer, or to each output.")
    ] = "layer",
    residual: Annotated[
        Residual,
        typer.Option(
            "--residual",
            help="Residual additions: steps of their own, or fused into a layer: one rounding.",
        ),
    ] = "separate",
    no_moments: Annotated[
        bool,
        typer.Option("--no-moments", help="Do not match means and variances after mapping."),
    ] = False,
    augment: Annotated[
        str | None,
        typer.Option(
            "--augment",
            metavar="crop4,flip",
            help="Change calibration images as training did: crops of images padded by 4, flips.",
        ),
    ] = None,
    budget: BudgetOptions = BUDGET,
    force: Annotated[
        bool, typer.Option("--force", help="Replace DIR if `prap compress` wrote it.")
    ] = False,
    workers: Workers = None,
    engine: Engine = ENGINE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Quantise, prune and compile a network into a program for the engine."""
    from prap_hw.app import workflow

    values.need("--activations percentile", activations == "percentile", percentile=percentile)
    chosen: str | None = scheme
    if settings and chosen is None:
        chosen = workflow.default_scheme(network)
    with console.progress() as report, goes_on(workflow.work_folder(out)):
        summary = workflow.compress(
            network,
            calibration,
            out,
            scheme=chosen,
            settings=values.layer_settings(settings or [], chosen or "prap"),
            **pixels.arguments(),
            limit=limit,
            activations=activations,
            percentile=99.99 if percentile is None else percentile,
            weights=weights,
            residual=residual,
            moments=not no_moments,
            augment=augment,
            budget=budget.chosen(),
            replace=force,
            config=engine.checked(),
            workers=workers,
            report=report,
        )
    screen = console.console()
    screen.print(console.layer_table(summary["layers"]))
    if "budget" in summary:
        screen.print(*console.choice_tables(summary["budget"]), sep="\n")
    if summary["carried"]:
        screen.print(console.carried_line(summary))
    used = summary["preprocess"]
    screen.print(f"inputs: {workflow.input_words(used)} of {used['images']['type']} images")
    screen.print(f"program: {out / workflow.PROGRAM_FILE}")
    console.hint(summary)
    write_json(json_file, summary)
