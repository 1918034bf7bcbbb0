"""``prap verilog`` and ``prap area``: the hardware itself, without a simulation."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from prap_hw.app import console
from prap_hw.app.cli.groups import ENGINE, Engine
from prap_hw.app.cli.options import Debug, Json, verb
from prap_hw.app.cli.outcome import differ, write_json
from refmodel.errors import InputError

Family = Literal["ecp5", "ice40", "xilinx", "gowin"]


@verb(epilog="Example:\n\nprap verilog -o build/verilog --adcs 8 --open-port")
def verilog(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.")],
    engine: Engine = ENGINE,
    open_port: Annotated[
        bool,
        typer.Option(
            "--open-port",
            help="Leave the crossbar port open, for an analog macro (docs/port.md).",
        ),
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Add the trace ports that the benches read.")
    ] = False,
    engine_only: Annotated[
        bool, typer.Option("--engine-only", help="Write the engine's Verilog alone.")
    ] = False,
    engines: Annotated[
        int | None,
        typer.Option(
            "--engines", metavar="N", help="Engines of tile and accelerator, 1 to 64 (1)."
        ),
    ] = None,
    fit: Annotated[
        Path | None,
        typer.Option(
            "--for",
            metavar="DIR",
            help="Size engine and accelerator for what `prap compress` wrote to DIR.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write engine, tile, accelerator and their AXI shell in Verilog, and what belongs to them.

    The accelerator has room for the network that --for names, or without --for for 8 layers as
    large as the largest that the engine holds. README.md in the folder says what each file is.
    """
    from prap_hw.app import workflow

    if engine_only and engines is not None:
        raise InputError("expected --engines without --engine-only, found both")
    chosen = engine.checked()
    with console.progress() as report:
        common = {"program": fit, "open_port": open_port, "trace": trace, "report": report}
        if engine_only:
            written = workflow.write_verilog(out, chosen, **common)
        else:
            many = 1 if engines is None else engines
            written = workflow.deliver(out, chosen, engines=many, **common)
    for path in written:
        print(path)


@verb(epilog="Examples:\n\nprap area --preset paper\n\nprap area --family ice40 --json area.json")
def area(
    family: Annotated[
        Family, typer.Option("--family", help="FPGA family whose cells are counted.")
    ] = "ecp5",
    engine: Engine = ENGINE,
    fit: Annotated[
        Path | None,
        typer.Option("--for", metavar="DIR", help="Size it for what `prap compress` wrote to DIR."),
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Synthesise the Verilog of the engine with Yosys: faults, and cells of each component."""
    from prap_hw.app import workflow

    with console.progress() as report:
        figures = workflow.area(
            engine.checked(),
            family=family,
            program=fit,
            report=report,
        )
    if figures["components"]:
        console.console().print(console.area_table(figures["components"]))
    write_json(json_file, figures)
    differ(figures["faults"])
    print("no latch, no combinational loop, one driver each; memories are memories")
