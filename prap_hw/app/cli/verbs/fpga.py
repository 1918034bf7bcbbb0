"""``prap fpga`` and ``prap board``: a board's bitstream, and images on the board."""

import statistics
from pathlib import Path
from typing import Annotated, Literal

import typer

from prap_hw.app import console
from prap_hw.app.cli import values
from prap_hw.app.cli.groups import ENGINE, Engine
from prap_hw.app.cli.options import Debug, Images, Json, Labels, verb
from prap_hw.app.cli.outcome import differ, write_json
from refmodel.errors import InputError


@verb(
    epilog="Examples:\n\nprap fpga --board ulx3s --for build/digits -o build/fpga\n\n"
    "prap fpga --preset small --clock 90 --seeds 5 -o build/small"
)
def fpga(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.")],
    board: Annotated[
        Literal["ulx3s", "hx8k", "zynq7"],
        typer.Option(
            "--board",
            help="ulx3s (ECP5 85F), hx8k (iCE40-HX8K breakout), or zynq7: no bitstream, but the"
            " shell as a block for Vivado, with Tcl.",
        ),
    ] = "ulx3s",
    fit: Annotated[
        Path | None,
        typer.Option(
            "--for",
            metavar="DIR",
            help="An accelerator for what `prap compress` wrote to DIR; without it, one engine.",
        ),
    ] = None,
    engine: Engine = ENGINE,
    engines: Annotated[
        int, typer.Option("--engines", metavar="N", help="Engines of the accelerator.", min=1)
    ] = 1,
    clock: Annotated[
        float | None,
        typer.Option(
            "--clock", metavar="MHZ", help="The clock; left out, 75 on ulx3s, 24 on hx8k."
        ),
    ] = None,
    baud: Annotated[
        int | None,
        typer.Option("--baud", help="Rate of the serial line; left out, 3000000.", min=1),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", help="Seeds of the placer, from 1 on.", min=1)
    ] = 1,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Make the bitstream of a board with open tools: accelerator or engine, shell, serial line.

    A network that the block RAM cannot hold is refused before synthesis. A clock that is not
    reached is an error, with the path that limits it; the reports are there, and no bitstream.
    """
    from prap_hw.app import workflow

    with console.progress() as report:
        about = workflow.fpga(
            out,
            board,
            engine.checked(),
            program=fit,
            engines=engines,
            mhz=clock,
            baud=baud,
            seeds=range(1, seeds + 1),
            report=report,
        )
    for name, used, there in workflow.use_rows(about):
        print(f"{name}: {used:,} of {there:,} ({100 * used / there:.0f} %)")
    clocks = sorted(about.get("clocks", {}).values())
    if clocks:
        several = (
            f"; of {len(clocks)} seeds the median is {statistics.median(clocks):.1f}, "
            f"the worst {clocks[0]:.1f}"
            if clocks[1:]
            else ""
        )
        print(f"clock: {clocks[-1]:.1f} MHz{several}; wanted: {about['khz'] / 1000:g}")
    print(f"minutes: {sum(about['minutes'].values()):.1f}")
    if "images_per_second" in about:
        print(
            f"images: {about['images_per_second']:,.0f} a second by {about['baud']:,} baud and "
            f"{about['cycles']:,} cycles of {about['khz'] / 1000:g} MHz, without what the USB chip "
            "waits"
        )
    for name in about["files"]:
        print(out / name)
    write_json(json_file, about)
    differ(about["faults"])


@verb(
    epilog="Examples:\n\nprap board build/fpga --images test.npz --port /dev/ttyUSB0\n\n"
    "prap board build/fpga --images test.npz --count 5 --simulate netlist"
)
def board(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `prap fpga --for` wrote.")
    ],
    images: Images,
    labels: Labels = None,
    count: Annotated[
        int, typer.Option("--count", metavar="N", help="Images to run, from the first.", min=1)
    ] = 5,
    port: Annotated[
        str | None, typer.Option("--port", help="Serial port of the board, /dev/ttyUSB0.")
    ] = None,
    simulate: Annotated[
        Literal["verilog", "netlist"] | None,
        typer.Option(
            "--simulate",
            help="In place of a board, Verilator at the serial pins of its Verilog, or of the"
            " netlist that was placed.",
        ),
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Run images on a board, and compare logits and cycles with golden model and prediction."""
    from prap_hw.app import workflow
    from refmodel.network.images import Preprocess, load_images

    if (port is None) == (simulate is None):
        raise InputError("expected one of --port and --simulate, found both or neither")
    sizes = Preprocess.from_dict(workflow.load_program(folder).preprocess).sizes
    x, y = load_images(values.pair(images, labels), **sizes)
    if len(x) < count:
        raise InputError(f"expected at least {count} images, found {len(x)} in {images.name}")
    x = x[:count]
    with console.progress() as report:
        figures = workflow.board(
            folder, x, source=str(images), port=port, simulate=simulate, report=report
        )
    for number, (row, cycles) in enumerate(zip(figures["outputs"], figures["cycles"], strict=True)):
        label = "" if y is None else f", label {int(y[number])}"
        print(f"image {number}: {cycles:,} cycles, class {figures['predictions'][number]}{label}")
        print(f"  outputs {' '.join(map(str, row))}")
    seconds = figures["seconds"]
    whose = "of the board's time" if simulate else "with counters read after each"
    print(
        f"loaded in {figures['load_seconds']:.3f} s; {len(x) / seconds:.1f} images a second {whose}"
    )
    write_json(json_file, figures)
    differ(figures["faults"])
    count = len(figures["expected"])
    print(f"outputs of {len(x)} images equal the golden model's, {count} counters the predicted")
