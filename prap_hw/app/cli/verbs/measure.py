"""``prap inspect`` and ``prap evaluate``: figures of a compiled network from the model alone."""

from typing import Annotated

import typer

from prap_hw.app import console
from prap_hw.app.cli import values
from prap_hw.app.cli.groups import ENGINE, Engine
from prap_hw.app.cli.options import AdcRanges, Debug, Folder, Images, Json, Labels, Trials, verb
from prap_hw.app.cli.outcome import write_json
from refmodel.config import Cells


@verb(epilog="Example:\n\nprap inspect build/net --json metrics.json")
def inspect(
    folder: Folder,
    engine: Engine = ENGINE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Count what a compiled network holds (cells, index bits) and does (events of one image)."""
    from prap_hw.app import workflow

    with console.progress() as report:
        figures = workflow.inspect(
            folder,
            config=engine.checked(),
            report=report,
        )
    console.console().print(console.metrics_table(figures["layers"], figures["total"]))
    write_json(json_file, figures)


@verb(
    epilog="Examples:\n\nprap evaluate build/net --images test.npz --json accuracy.json\n\n"
    "prap evaluate build/net --images test.npz --device wan-2022 --device mine.toml --limit 100"
)
def evaluate(
    folder: Folder,
    images: Images,
    labels: Labels = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Images evaluated at most.", min=1)
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="FILE",
            help="Cells and converters that are not ideal: a device file, or the name of a packaged"
            " one (docs/devices.md); may be repeated.",
        ),
    ] = None,
    cells: Annotated[
        Cells | None,
        typer.Option(
            "--cells",
            help="How cells hold weights: twos-complement or differential pairs; left out, as those"
            " of the engine. Without --device, the device is ideal.",
        ),
    ] = None,
    trials: Trials = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            help="Seed of the first chip of each --device; 0 where left out.",
            min=0,
            max=1 << 62,
        ),
    ] = None,
    adc_bits: Annotated[
        int | None,
        typer.Option(
            "--adc-bits",
            help="Bits of an ADC code; 0: enough for every sum. Without --device, the device is"
            " ideal.",
            min=0,
        ),
    ] = None,
    adc_ranges: AdcRanges = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Measure the accuracy of a compiled network, beside the float network it came from.

    For a network that is no classifier, whose output for an image is no vector, it measures the
    signal-to-noise ratio of the outputs against those of the float network; labels are not needed.
    """
    from prap_hw.app import workflow

    with console.progress() as report:
        figures = workflow.evaluate(
            folder,
            values.pair(images, labels),
            limit=limit,
            device=device or (),
            cells=cells,
            trials=trials,
            seed=seed,
            adc_ranges=adc_ranges,
            config={"adc_bits": adc_bits},
            report=report,
        )
    screen = console.console()
    if "snr" in figures:
        screen.print(console.snr_table(figures["snr"], figures["images"]))
    else:
        screen.print(console.accuracy_table(figures["accuracy"], figures["images"]))
    if "devices" in figures:
        screen.print(console.device_table(figures["devices"]))
        found = figures["devices"]
        for line in (*console.interval_lines(found), *console.programming_lines(found)):
            print(line)
    print(f"inputs: {workflow.input_words(figures['preprocess'])}")
    console.hint(figures)
    write_json(json_file, figures)
