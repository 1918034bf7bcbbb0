"""The command line ``prap``: thin verbs over :mod:`prap_hw.app.workflow`.

Exit codes: 0 done; 1 a comparison found differences; 2 bad input or usage; 3 a fault of ours;
130 interrupted. Errors are one line on stderr; ``--debug`` adds the traceback.
"""

import os
import sys
import traceback
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.exceptions import Abort, Exit, TyperException

from prap_hw.app import console
from refmodel.config import MOST_ENGINES
from refmodel.errors import InputError

DIFFERENT, BAD_INPUT, OUR_FAULT, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    name="prap",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 differences found, 2 bad input or usage, 3 a fault of prap.",
)

_debug = False


def _set_debug(value: bool) -> bool:
    global _debug
    _debug = _debug or value
    return value


def _show_version(value: bool) -> None:
    if value:
        print(f"prap {metadata.version('prap-pim')}")
        raise Exit(0)


Scheme = Literal[
    "dense",
    "structured",
    "orc",
    "shape",
    "identical",
    "structured+identical",
    "similar",
    "prap",
    "dictionary",
]
BudgetOf = Literal["ous", "cycles", "weighted"]
Layout = Literal["auto", "nf", "nhw", "nhwc", "nchw"]
Activations = Literal["minmax", "percentile", "mse"]
Weights = Literal["layer", "channel"]
Residual = Literal["separate", "fused"]
Plant = Literal["code", "shift", "index"]
Method = Literal["shared", "published"]
Precision = Literal["float32", "bfloat16"]
Cells = Literal["twos-complement", "pairs"]
Tier = Literal["protocol", "bulk", "network"]
Family = Literal["ecp5", "ice40"]

Debug = Annotated[
    bool,
    typer.Option("--debug", help="Print the traceback of an error.", callback=_set_debug),
]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the figures to FILE as JSON."),
]
Images = Annotated[
    Path,
    typer.Option(
        "--images",
        metavar="FILE",
        help="Images: .npz with x and y, or idx(.gz).",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Labels of idx images; left out, the file beside them with labels in its name.",
    ),
]
Preset = Literal["default", "paper", "small"]
ENGINE = "Engine"
Presets = Annotated[
    Preset,
    typer.Option(
        "--preset",
        help="Engine whose sizes hold where no option sets them: default (8x8 OUs in 128x128"
        " crossbars, 8 converters), paper (256x256, 1 converter), small (64x64, 4 converters).",
        rich_help_panel=ENGINE,
    ),
]
Adcs = Annotated[
    int | None,
    typer.Option(
        "--adcs",
        help="Converters: columns of an OU in a cycle, 1 to --ou-cols.",
        min=1,
        rich_help_panel=ENGINE,
    ),
]
Lanes = Annotated[
    int | None,
    typer.Option(
        "--merge-lanes",
        help="Reuse words merged in a cycle: 1, 2 or 4.",
        min=1,
        rich_help_panel=ENGINE,
    ),
]
Latency = Annotated[
    int | None,
    typer.Option(
        "--latency",
        help="Cycles of the emulated crossbar, 1 to 40.",
        min=1,
        rich_help_panel=ENGINE,
    ),
]
OuRows = Annotated[
    int | None,
    typer.Option(
        "--ou-rows",
        help="Wordlines of an OU, 4 to 32; after `prap compress`, those that it was given.",
        rich_help_panel=ENGINE,
    ),
]
OuCols = Annotated[
    int | None,
    typer.Option(
        "--ou-cols", help="Bitlines of an OU, a multiple of 4 up to 32.", rich_help_panel=ENGINE
    ),
]
CellBits = Annotated[
    int | None,
    typer.Option("--cell-bits", help="Bits of a cell: 1, 2 or 4.", rich_help_panel=ENGINE),
]
DacBits = Annotated[
    int | None,
    typer.Option("--dac-bits", help="Bits of an input digit: 1, 2 or 4.", rich_help_panel=ENGINE),
]
AdcBits = Annotated[
    int | None,
    typer.Option(
        "--adc-bits",
        help="Bits of an ADC code, up to 13; larger sums clip. 0: enough for every sum.",
        rich_help_panel=ENGINE,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="LAYER=C,V,KEEP",
        help="For layers whose name matches LAYER (* and ? allowed): channels in a group,"
        " kept positions, share kept (1: dense). Or LAYER=KEY=VALUE,... with any field of"
        " LayerSetting: scheme, channels, positions, keep, structure_keep, ... Can be given"
        " again.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", help="Subtracted after --scale: one value, or a,b,c by channel."),
]
Std = Annotated[str | None, typer.Option("--std", help="Divided by at the end; as --mean.")]
Scale = Annotated[
    float | None, typer.Option("--scale", help="What pixels are multiplied by first.")
]
LayoutOption = Annotated[Layout, typer.Option("--layout", help="Order of the axes of the images.")]
BudgetTimes = Annotated[
    float | None,
    typer.Option("--budget", help="Choose settings that cost so many times less than dense."),
]
BudgetKind = Annotated[
    BudgetOf, typer.Option("--budget-of", help="What --budget and --max-loss count.")
]
MaxLoss = Annotated[
    float | None,
    typer.Option(
        "--max-loss",
        help="Choose the cheapest settings that lose so many points of accuracy at most, on"
        " calibration images with labels, before any fine-tuning.",
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `prap compress` wrote.")]


@app.callback()
def _top(
    debug: Debug = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """From a trained network to verified RTL of a ReRAM accelerator with weight pattern reuse."""


@app.command(epilog="Examples:\n\nprap demo\n\nprap demo --plant shift -o build/planted")
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
    _write_json(json_file, figures)
    screen.print(f"report: {out / 'report.html'}")
    _judge(figures)


@app.command(
    epilog="Examples:\n\n"
    "prap compress net.onnx --calibration train.npz -o build/net\n\n"
    "prap compress net.onnx --calibration train.npz --mean .1307 --std .3081 --scheme dense"
    " -o build/dense\n\n"
    "prap compress net.onnx --calibration train.npz --set 'conv*=2,4,0.375' -o build/net"
)
def compress(
    network: Annotated[Path, typer.Argument(metavar="NET.onnx", help="A trained network.")],
    calibration: Annotated[
        Path,
        typer.Option(
            "--calibration",
            metavar="FILE",
            help="Images that set the ranges of activations: .npz with x, or idx(.gz).",
        ),
    ],
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
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    layout: LayoutOption = "auto",
    limit: Annotated[
        int, typer.Option("--limit", help="Calibration images used at most.", min=1)
    ] = 256,
    activations: Annotated[
        Activations,
        typer.Option("--activations", help="Ranges of activations: all, most, or of least error."),
    ] = "minmax",
    percentile: Annotated[
        float,
        typer.Option(
            "--percentile", help="Which, for --activations percentile.", min=50.01, max=100
        ),
    ] = 99.99,
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
    budget: BudgetTimes = None,
    budget_of: BudgetKind = "ous",
    max_loss: MaxLoss = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace DIR if `prap compress` wrote it.")
    ] = False,
    preset: Presets = "default",
    adcs: Adcs = None,
    merge_lanes: Lanes = None,
    latency: Latency = None,
    ou_rows: OuRows = None,
    ou_cols: OuCols = None,
    cell_bits: CellBits = None,
    dac_bits: DacBits = None,
    adc_bits: AdcBits = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Quantise, prune and compile an ONNX network into a program for the engine."""
    from prap_hw.app import workflow

    chosen: str | None = scheme
    if settings and chosen is None:
        chosen = workflow.default_scheme(network)
    with console.progress() as report:
        summary = workflow.compress(
            network,
            calibration,
            out,
            scheme=chosen,
            settings=_settings(settings or [], chosen or "prap"),
            mean=_numbers("--mean", mean),
            std=_numbers("--std", std),
            scale=scale,
            layout=layout,
            limit=limit,
            activations=activations,
            percentile=percentile,
            weights=weights,
            residual=residual,
            moments=not no_moments,
            augment=augment,
            budget=_budget(budget, budget_of, max_loss),
            replace=force,
            config=_engine(
                preset, adcs, merge_lanes, latency, ou_rows, ou_cols, cell_bits, dac_bits, adc_bits
            ),
            report=report,
        )
    screen = console.console()
    screen.print(console.layer_table(summary["layers"]))
    if "budget" in summary:
        screen.print(*console.choice_tables(summary["budget"]), sep="\n")
    if summary["carried"]:
        screen.print(console.carried_line(summary))
    screen.print(f"program: {out / workflow.PROGRAM_FILE}")
    _write_json(json_file, summary)


@app.command(
    epilog="Examples:\n\n"
    "prap finetune net.onnx --data train.npz --scheme dictionary --budget 7.5"
    " --augment crop4,flip -o build/tuned.onnx\n\n"
    "prap finetune net.onnx --data train.npz --method published --epochs 50 -o build/tuned.onnx\n\n"
    "prap compress build/tuned.onnx --calibration train.npz -o build/tuned"
)
def finetune(
    network: Annotated[Path, typer.Argument(metavar="NET.onnx", help="A trained network.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="FILE", help="Training images: .npz with x and y, or idx(.gz)."
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
    budget: BudgetTimes = None,
    budget_of: BudgetKind = "ous",
    max_loss: MaxLoss = None,
    ou_rows: OuRows = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    layout: LayoutOption = "auto",
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
        float, typer.Option("--temperature", help="Of the teacher's answers.")
    ] = 8.0,
    seed: Annotated[int, typer.Option("--seed", help="Of order and changes of images.")] = 0,
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision", help="Of convolutions; bfloat16 where the processor has it is faster."
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
        int,
        typer.Option("--calibration", help="Images for a budget and schemes that learn.", min=1),
    ] = 1024,
    test: Annotated[
        Path | None,
        typer.Option("--images", metavar="FILE", help="Measure both networks on these in the end."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew, even where there is a checkpoint.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.onnx.")] = False,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Fine-tune an ONNX network onto the patterns that it will run with (needs PyTorch)."""
    from prap_hw.app import finetuning

    finetuning.require_torch()
    from refmodel.train import Recipe

    with console.progress() as report:
        try:
            recipe = Recipe(
                method=method,
                epochs=epochs,
                batch=batch,
                rate=rate,
                teacher=teacher,
                temperature=temperature,
                augment=augment,
                seed=seed,
                precision=precision,
                device=_device(noise),
            )
        except (TypeError, ValueError) as problem:
            raise InputError(f"expected a recipe that can be followed, found {problem}") from None
        figures = finetuning.finetune(
            network,
            _pair(data, labels),
            out,
            scheme=scheme,
            settings=_settings(settings or [], scheme),
            budget=_budget(budget, budget_of, max_loss),
            mean=_numbers("--mean", mean),
            std=_numbers("--std", std),
            scale=scale,
            layout=layout,
            ou_rows=8 if ou_rows is None else ou_rows,
            calibration=calibration,
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
    _write_json(json_file, figures)


@app.command(epilog="Example:\n\nprap inspect build/net --json metrics.json")
def inspect(
    folder: Folder,
    preset: Presets = "default",
    adcs: Adcs = None,
    merge_lanes: Lanes = None,
    latency: Latency = None,
    ou_rows: OuRows = None,
    ou_cols: OuCols = None,
    cell_bits: CellBits = None,
    dac_bits: DacBits = None,
    adc_bits: AdcBits = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Count what a compiled network holds (cells, index bits) and does (events of one image)."""
    from prap_hw.app import workflow

    with console.progress() as report:
        figures = workflow.inspect(
            folder,
            config=_engine(
                preset, adcs, merge_lanes, latency, ou_rows, ou_cols, cell_bits, dac_bits, adc_bits
            ),
            report=report,
        )
    console.console().print(console.metrics_table(figures["layers"], figures["total"]))
    _write_json(json_file, figures)


@app.command(
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
        Cells,
        typer.Option(
            "--cells",
            help="How cells hold weights, for --device: as those of the RTL, or as differential"
            " pairs.",
        ),
    ] = "twos-complement",
    trials: Annotated[
        int, typer.Option("--trials", help="Chips drawn of each --device.", min=1)
    ] = 5,
    seed: Annotated[
        int, typer.Option("--seed", help="Of the first chip, for --device.", min=0, max=1 << 62)
    ] = 0,
    adc_bits: Annotated[
        int,
        typer.Option(
            "--adc-bits", help="Bits of an ADC code, for --device; 0: enough for every sum.", min=0
        ),
    ] = 0,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Measure the accuracy of a compiled network, beside the float network it came from."""
    from prap_hw.app import workflow

    with console.progress() as report:
        figures = workflow.evaluate(
            folder,
            _pair(images, labels),
            limit=limit,
            device=device or (),
            cells=cells,
            trials=trials,
            seed=seed,
            config={"adc_bits": adc_bits},
            report=report,
        )
    screen = console.console()
    screen.print(console.accuracy_table(figures["accuracy"], figures["images"]))
    if "devices" in figures:
        screen.print(console.device_table(figures["devices"]))
    _write_json(json_file, figures)


@app.command(
    epilog="Examples:\n\nprap cosim build/net --images test.npz --count 2 --adcs 4\n\n"
    "prap cosim build/net --images test.npz --preset paper --cell-bits 2 --dac-bits 2\n\n"
    "prap cosim build/net --images test.npz --count 100 --tier bulk\n\n"
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
        int,
        typer.Option("--seed", help="Number of the chip, for --device.", min=0, max=1 << 62),
    ] = 0,
    engines: Annotated[
        int,
        typer.Option(
            "--engines",
            help="Tier network: engines that the accelerator deals each layer out to.",
            min=1,
            max=MOST_ENGINES,
        ),
    ] = 1,
    preset: Presets = "default",
    adcs: Adcs = None,
    merge_lanes: Lanes = None,
    latency: Latency = None,
    ou_rows: OuRows = None,
    ou_cols: OuCols = None,
    cell_bits: CellBits = None,
    dac_bits: DacBits = None,
    adc_bits: AdcBits = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Run images through the RTL in Verilator and compare its values with the golden model.

    Of each layer's cycles it prints the bound (what the busiest of conversion, gather, merge and
    output takes at least), the prediction, the simulation, and the ratio (simulated - start) /
    bound, of which 1.02 at most is owed; start is what a layer may take once: the first group's
    conversion, the last group's merge, the outputs, the crossbar's latency and 100 cycles. Then
    the cycles in which no conversion was requested, by cause.
    """
    from prap_hw.app import workflow

    with console.progress() as report:
        figures = workflow.cosim(
            folder,
            _pair(images, labels),
            count=count,
            tier=tier,
            every_value=every_value,
            fresh=fresh,
            waves=waves,
            device=device,
            seed=seed,
            engines=engines,
            config=_engine(
                preset, adcs, merge_lanes, latency, ou_rows, ou_cols, cell_bits, dac_bits, adc_bits
            ),
            report=report,
        )
    screen = console.console()
    if "network" in figures:
        screen.print(console.operation_table(figures["operations"]))
        print(console.network_line(figures["network"]))
    else:
        screen.print(console.layer_table(figures["layers"], cycles=False))
        screen.print(console.cycle_table(figures["layers"], figures["total"]))
    screen.print(console.compared_table(figures["compared"]))
    print(console.simulation_line(figures["simulation"], len(figures["layers"]) * count))
    for path in figures["waveforms"]:
        print(f"waveform: {path}; shown by: gtkwave {Path(path).with_suffix('.gtkw')}")
    if "device" in figures:
        print(console.device_line(figures["device"]))
    _write_json(json_file, figures)
    _judge(figures)


@app.command(epilog="Example:\n\nprap verilog -o build/verilog --adcs 8 --open-port")
def verilog(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.")],
    preset: Presets = "default",
    adcs: Adcs = None,
    merge_lanes: Lanes = None,
    latency: Latency = None,
    ou_rows: OuRows = None,
    ou_cols: OuCols = None,
    cell_bits: CellBits = None,
    dac_bits: DacBits = None,
    adc_bits: AdcBits = None,
    open_port: Annotated[
        bool,
        typer.Option(
            "--open-port",
            help="Leave the crossbar port open, for an analog macro (docs/port.md).",
        ),
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="With the trace ports that the benches read.")
    ] = False,
    engine_only: Annotated[
        bool, typer.Option("--engine-only", help="The engine's Verilog alone.")
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
    chosen = _engine(
        preset, adcs, merge_lanes, latency, ou_rows, ou_cols, cell_bits, dac_bits, adc_bits
    )
    with console.progress() as report:
        common = {"program": fit, "open_port": open_port, "trace": trace, "report": report}
        if engine_only:
            written = workflow.write_verilog(out, chosen, **common)
        else:
            many = 1 if engines is None else engines
            written = workflow.deliver(out, chosen, engines=many, **common)
    for path in written:
        print(path)


@app.command(
    epilog="Examples:\n\nprap area --preset paper\n\nprap area --family ice40 --json area.json"
)
def area(
    family: Annotated[
        Family, typer.Option("--family", help="FPGA family whose cells are counted.")
    ] = "ecp5",
    preset: Presets = "default",
    adcs: Adcs = None,
    merge_lanes: Lanes = None,
    latency: Latency = None,
    ou_rows: OuRows = None,
    ou_cols: OuCols = None,
    cell_bits: CellBits = None,
    dac_bits: DacBits = None,
    adc_bits: AdcBits = None,
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
            _engine(
                preset, adcs, merge_lanes, latency, ou_rows, ou_cols, cell_bits, dac_bits, adc_bits
            ),
            family=family,
            program=fit,
            report=report,
        )
    if figures["components"]:
        console.console().print(console.area_table(figures["components"]))
    _write_json(json_file, figures)
    for fault in figures["faults"]:
        console.error(fault)
    if figures["faults"]:
        raise Exit(DIFFERENT)
    print("no latch, no combinational loop, one driver each; memories in block RAM")


@app.command(epilog="Example:\n\nprap golden ../shared/golden")
def golden(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder of golden cases with its index.json.")
    ],
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Check the published functions against a folder of golden cases."""
    from prap_hw.app import workflow

    figures = workflow.check_golden(folder)
    _write_json(json_file, figures)
    for line in figures["lines"]:
        print(line)
    if figures["failures"]:
        raise Exit(DIFFERENT)


def _engine(
    preset: str,
    adcs: int | None,
    merge_lanes: int | None,
    latency: int | None,
    ou_rows: int | None,
    ou_cols: int | None,
    cell_bits: int | None,
    dac_bits: int | None,
    adc_bits: int | None,
) -> dict[str, Any]:
    """The options of an engine; InputError where the RTL has no such engine."""
    from prap_hw.app import workflow

    options = {
        "preset": preset,
        "adcs": adcs,
        "merge_lanes": merge_lanes,
        "crossbar_latency": latency,
        "ou_rows": ou_rows,
        "ou_cols": ou_cols,
        "cell_bits": cell_bits,
        "dac_bits": dac_bits,
        "adc_bits": adc_bits,
    }
    workflow.rtl_engine(options)
    return options


def _device(name: str | None) -> Any:
    """Read a device file; None where none is named."""
    from refmodel.golden.devices.device import Device

    return None if name is None else Device.load(name)


def _budget(times: float | None, of: BudgetOf, max_loss: float | None) -> Any:
    """Make a budget of its options; None where there is none."""
    from refmodel.compression.budget import Budget

    if times is None and max_loss is None:
        return None
    try:
        return Budget(times=times, of=of, max_loss=max_loss)
    except ValueError as problem:
        raise InputError(f"expected one of --budget and --max-loss, found {problem}") from None


def _pair(images: Path, labels: Path | None) -> list[Path]:
    return [images] if labels is None else [images, labels]


def _settings(texts: list[str], scheme: str) -> dict[str, Any]:
    """Read the settings of ``--set`` by name pattern."""
    from refmodel.compression.schemes import read_settings

    return dict(read_settings(texts, scheme))


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read ``0.5`` or ``0.1,0.2,0.3``."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"expected numbers with commas, found {text!r} in {option}") from None


def _write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    if path is None:
        return
    from refmodel.files import write_json

    write_json(path, figures)


def _judge(figures: Mapping[str, Any]) -> None:
    """End with exit code 1 unless all was compared, nothing differs and predictions hold."""
    from prap_hw.app.workflow import faults

    found = faults(figures)
    for line in found:
        console.error(line)
    if found:
        raise Exit(DIFFERENT)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments
        What follows ``prap``; those of this process by default.

    Returns
    -------
    int
        The exit code.
    """
    global _debug
    _debug = False
    try:
        result = app(args=arguments, prog_name="prap", standalone_mode=False)
        sys.stdout.flush()
    except InputError as problem:
        _trace()
        console.error(str(problem))
        return BAD_INPUT
    except TyperException as problem:
        _trace()
        message = problem.format_message()
        if message:  # prap alone shows the help, which needs no error below it
            console.error(message)
        return BAD_INPUT
    except (KeyboardInterrupt, Abort):
        _trace()
        console.error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (prap ... | head): end quietly, as typer does within a verb.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as problem:
        _trace()
        first = (str(problem).splitlines() or [""])[0]
        hint = "" if _debug else "; --debug shows where"
        console.error(f"a fault of prap, {type(problem).__name__}: {first}{hint}")
        return OUR_FAULT
    if result == INTERRUPTED:
        console.error("interrupted")
    return result if isinstance(result, int) else 0


def _trace() -> None:
    if _debug:
        traceback.print_exc()


def main() -> None:
    """Be the program ``prap``."""
    # The matrix products here are small: two threads gain little, and where another process has the
    # second core they wait for each other, at a fifth of the speed. Numpy is not loaded yet.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(run())


if __name__ == "__main__":
    main()
