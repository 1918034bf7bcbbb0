"""``prap finetune``."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from prap_hw.app import console
from prap_hw.app.cli import values
from prap_hw.app.cli.groups import BUDGET, ENGINE, PIXELS, BudgetOptions, Engine, Pixels
from prap_hw.app.cli.options import Debug, Json, Labels, Network, Scheme, Settings, verb
from prap_hw.app.cli.outcome import write_json
from refmodel.errors import InputError

Method = Literal["shared", "published"]
Precision = Literal["float32", "bfloat16"]


@verb(
    epilog="Examples:\n\n"
    "prap finetune net.onnx --data train.npz --scheme dictionary --budget 7.5"
    " --augment crop4,flip -o build/tuned.onnx\n\n"
    "prap finetune net.onnx --data train.npz --method published --epochs 50 -o build/tuned.onnx\n\n"
    "prap compress build/tuned.onnx --calibration train.npz -o build/tuned"
)
def finetune(
    network: Network,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Training images: .npz with x and y, idx(.gz), or a folder.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT.onnx",
            help="File to write; a run that was interrupted goes on from OUT.onnx.checkpoint.",
        ),
    ],
    labels: Labels = None,
    scheme: Annotated[Scheme, typer.Option("--scheme", help="How weights are mapped.")] = "prap",
    settings: Settings = None,
    budget: BudgetOptions = BUDGET,
    pixels: Pixels = PIXELS,
    augment: Annotated[
        str | None,
        typer.Option(
            "--augment",
            metavar="crop4,flip",
            help="Change images in every epoch: crops of images padded by 4, flips.",
        ),
    ] = None,
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            help="shared: train the kept patterns as the hardware will use them;"
            " published: the paper's penalties and projections.",
        ),
    ] = "shared",
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the images.", min=1)] = 6,
    batch: Annotated[int, typer.Option("--batch", help="Images to a step.", min=2)] = 128,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            help="Rate of the first step; falls to 0 as a half cosine."
            " Left out: 0.03, published 0.1.",
        ),
    ] = None,
    teacher: Annotated[
        float | None,
        typer.Option(
            "--teacher",
            help="Share of the loss that is the dense network's. Left out: 1, published 0.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", help="Temperature of the teacher's answers, if it has a share; 8."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the order and changes of images.")
    ] = 0,
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision", help="Precision of convolutions; bfloat16 is faster on some processors."
        ),
    ] = "float32",
    on: Annotated[
        str, typer.Option("--on", help="auto: a GPU where there is one; cpu, cuda, cuda:1, ...")
    ] = "auto",
    noise: Annotated[
        str | None,
        typer.Option(
            "--noise",
            metavar="FILE",
            help="Train on a new chip in every step: a device file, or the name of a packaged one.",
        ),
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option(
            "--calibration",
            help="Training images used for a budget and by schemes that learn patterns; 1024.",
            min=1,
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="FILE",
            help="Labelled images on which both networks are measured in the end.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew, even where there is a checkpoint.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.onnx.")] = False,
    engine: Engine = ENGINE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Fine-tune an ONNX network onto the patterns that it will run with (needs PyTorch)."""
    from prap_hw.app import finetuning

    finetuning.require_torch()
    from refmodel.compression.schemes import SCHEMES
    from refmodel.train import Recipe

    chosen = budget.chosen()
    sizes = dataclasses.asdict(engine) | {"ou_rows": None}
    values.need("--budget or --max-loss", chosen, **sizes)
    values.need(
        "a budget or a scheme that learns patterns",
        chosen or SCHEMES[scheme].learner,
        calibration=calibration,
    )
    with console.progress() as report:
        try:
            recipe = Recipe(
                method=method,
                epochs=epochs,
                batch=batch,
                rate=rate,
                teacher=teacher,
                temperature=8.0 if temperature is None else temperature,
                augment=augment,
                seed=seed,
                precision=precision,
                device=values.device(noise),
            )
        except (TypeError, ValueError) as problem:
            raise InputError(f"expected a recipe that can be followed, found {problem}") from None
        values.need("--teacher above 0", recipe.teacher_share, temperature=temperature)
        figures = finetuning.finetune(
            network,
            values.pair(data, labels),
            out,
            scheme=scheme,
            settings=values.layer_settings(settings or [], scheme),
            budget=chosen,
            **pixels.arguments(),
            config=engine.checked(),
            calibration=1024 if calibration is None else calibration,
            recipe=recipe,
            test=test,
            on=on,
            fresh=fresh,
            replace=force,
            report=report,
        )
    screen = console.console()
    if "budget" in figures:
        screen.print(*console.choice_tables(figures["budget"]), sep="\n")
    screen.print(console.history_table(figures["history"]))
    if "accuracy" in figures:
        screen.print(console.accuracy_table(figures["accuracy"], figures["test_images"]))
    screen.print(f"network: {out}")
    write_json(json_file, figures)
