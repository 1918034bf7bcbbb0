"""``prap cosim``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from prap_hw.app import console
from prap_hw.app.cli import values
from prap_hw.app.cli.groups import ENGINE, Engine
from prap_hw.app.cli.options import AdcRanges, Debug, Folder, Images, Json, Labels, verb
from prap_hw.app.cli.outcome import judge, write_json
from refmodel.config import MAX_OUTPUT_SIDE, MOST_ENGINES

Tier = Literal["protocol", "bulk", "network"]


@verb(
    epilog="Examples:\n\nprap cosim build/net --images test.npz --count 2 --adcs 4\n\n"
    "prap cosim build/net --images test.npz --preset paper --cell-bits 2 --dac-bits 2\n\n"
    "prap cosim build/net --images test.npz --count 100 --tier bulk\n\n"
    "prap cosim build/net --images test.npz --tier bulk --layers 'layer4*' --positions 20\n\n"
    "prap cosim build/net --images test.npz --tier network --engines 4\n\n"
    "prap cosim build/net --images test.npz --waves conv2:1000:1400\n\n"
    "prap cosim build/net --images test.npz --device wan-2022 --adc-bits 3"
)
def cosim(
    folder: Folder,
    images: Images,
    labels: Labels = None,
    count: Annotated[
        int, typer.Option("--count", help="Images that go through the hardware.", min=1)
    ] = 1,
    tier: Annotated[
        Tier,
        typer.Option(
            "--tier",
            help="protocol: benches at the ports, every value. bulk: a library, some 40 times as"
            " fast; accumulators, outputs, cycles and counters. Both go on where they were"
            " interrupted. network: the accelerator, which runs the whole network by itself.",
        ),
    ] = "protocol",
    every_value: Annotated[
        bool,
        typer.Option(
            "--every-value",
            help="Tier bulk: compare requests, ADC codes and partial sums, too.",
        ),
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Simulate again what earlier runs have finished."),
    ] = False,
    waves: Annotated[
        str | None,
        typer.Option(
            "--waves",
            metavar="[LAYER:]FIRST:LAST",
            help="Record these cycles of the first image of LAYER (left out: the first) as FST,"
            " with a save file for GTKWave. Or 'difference': those around the first difference,"
            " which tier protocol records unasked.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="FILE",
            help="Tier protocol: open the crossbar port and put cells and converters there that are"
            " not ideal, of a device file or a packaged one's name (docs/devices.md).",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            help="Number of the chip, for --device; or draws --positions; 0 where left out.",
            min=0,
            max=1 << 62,
        ),
    ] = None,
    adc_ranges: AdcRanges = None,
    engines: Annotated[
        int,
        typer.Option(
            "--engines",
            help="Tier network: engines that the accelerator deals each layer out to.",
            min=1,
            max=MOST_ENGINES,
        ),
    ] = 1,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            metavar="NAME,...",
            help="Tier bulk: run these layers alone (* and ? allowed), each on the input that the"
            " golden model gives it.",
        ),
    ] = None,
    positions: Annotated[
        int | None,
        typer.Option(
            "--positions",
            metavar="N",
            help="Tier bulk: of each layer, simulate N output positions drawn by --seed, and"
            " predict the whole layer by the same model.",
            min=1,
            max=MAX_OUTPUT_SIDE,
        ),
    ] = None,
    engine: Engine = ENGINE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Run images through the RTL in Verilator and compare its values with the golden model.

    For each layer it prints the bound of the cycles (what the busiest of conversion, gather, merge
    and output takes at least), the prediction, the simulation, and the ratio (simulated - start) /
    bound, of which 1.02 at most is owed; start is what a layer may take once: the first group's
    conversion, the last group's merge, the outputs, the crossbar's latency and 100 cycles; with
    --position-lanes conversion and outputs of as many positions. Then
    the cycles in which no conversion was requested, by cause.
    """
    from prap_hw.app import workflow

    values.need("--device or --positions", device or positions, seed=seed)
    with console.progress() as report:
        figures = workflow.cosim(
            folder,
            values.pair(images, labels),
            count=count,
            tier=tier,
            every_value=every_value,
            fresh=fresh,
            waves=waves,
            device=device,
            adc_ranges=adc_ranges,
            seed=seed or 0,
            engines=engines,
            layers=[] if layers is None else [name for name in layers.split(",") if name],
            positions=positions,
            config=engine.checked(),
            report=report,
        )
    screen = console.console()
    if "network" in figures:
        screen.print(console.operation_table(figures["operations"]))
        print(console.operations_line(figures["operations"], figures["network"]))
        print(console.network_line(figures["network"]))
    else:
        screen.print(console.layer_table(figures["layers"], cycles=False))
        screen.print(console.cycle_table(figures["layers"], figures["total"]))
    if "sample" in figures:
        screen.print(console.sample_table(figures["sample"]["layers"], figures["layers"]))
    screen.print(console.compared_table(figures["compared"]))
    if figures["answers"] is not None:
        print(console.answers_line(figures["answers"], figures["labels"]))
    print(console.simulation_line(figures["simulation"], len(figures["layers"]) * count))
    for path in figures["waveforms"]:
        print(f"waveform: {path}; shown by: gtkwave {Path(path).with_suffix('.gtkw')}")
    if "device" in figures:
        print(console.device_line(figures["device"]))
    write_json(json_file, figures)
    judge(figures)
