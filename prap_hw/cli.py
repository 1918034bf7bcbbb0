"""The command line ``prap``: thin verbs over :mod:`prap_hw.workflow` and :mod:`prap_hw.demo`.

Exit codes: 0 done; 1 a comparison found differences; 2 bad input or usage; 3 a fault of ours;
130 interrupted. Errors are one line on stderr; ``--debug`` adds the traceback.
"""

import dataclasses
import os
import sys
import traceback
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.exceptions import Abort, Exit, TyperException

from prap_hw import console
from refmodel.errors import InputError

if TYPE_CHECKING:
    from refmodel.config import EngineConfig

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
SHORT_SETTING = ("channels", "positions", "keep")
BOOLEANS = {"true": True, "false": False}
Layout = Literal["auto", "nf", "nhw", "nhwc", "nchw"]
Activations = Literal["minmax", "percentile", "mse"]
Weights = Literal["layer", "channel"]
Plant = Literal["code", "shift", "index"]
Tier = Literal["protocol", "bulk"]

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
Adcs = Annotated[
    int, typer.Option("--adcs", help="Converters: columns of an OU in a cycle.", min=1)
]
Lanes = Annotated[int, typer.Option("--merge-lanes", help="Reuse words merged in a cycle.", min=1)]
Latency = Annotated[
    int, typer.Option("--latency", help="Cycles of the emulated crossbar, 1 to 40.", min=1)
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
    from prap_hw.demo import run_demo

    with console.progress() as report:
        figures = run_demo(out, count=count, plant=plant, report=report)
    screen = console.console()
    screen.print(console.layer_table(figures["layers"]))
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
    scheme: Annotated[Scheme, typer.Option("--scheme", help="How weights are mapped.")] = "prap",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="LAYER=C,V,KEEP",
            help="For layers whose name matches LAYER (* and ? allowed): channels in a group,"
            " kept positions, share kept (1: dense). Or LAYER=KEY=VALUE,... with any field of"
            " LayerSetting: scheme, channels, positions, keep, structure_keep, ... Can be given"
            " again.",
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option("--mean", help="Subtracted after --scale: one value, or a,b,c by channel."),
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", help="Divided by at the end; as --mean.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", help="What pixels are multiplied by first.")
    ] = None,
    layout: Annotated[
        Layout, typer.Option("--layout", help="Order of the axes of the images.")
    ] = "auto",
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
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget", help="Scheme dictionary: choose settings that cost so many times less."
        ),
    ] = None,
    budget_of: Annotated[
        BudgetOf, typer.Option("--budget-of", help="What --budget and --max-loss count.")
    ] = "ous",
    max_loss: Annotated[
        float | None,
        typer.Option(
            "--max-loss",
            help="Scheme dictionary: choose the cheapest settings that lose so many points of"
            " accuracy at most, on calibration images with labels.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace DIR if `prap compress` wrote it.")
    ] = False,
    adcs: Adcs = 8,
    merge_lanes: Lanes = 1,
    latency: Latency = 1,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Quantise, prune and compile an ONNX network into a program for the engine."""
    from prap_hw import workflow

    with console.progress() as report:
        summary = workflow.compress(
            network,
            calibration,
            out,
            scheme=scheme,
            settings=_settings(settings or [], scheme),
            mean=_numbers("--mean", mean),
            std=_numbers("--std", std),
            scale=scale,
            layout=layout,
            limit=limit,
            activations=activations,
            percentile=percentile,
            weights=weights,
            moments=not no_moments,
            augment=augment,
            budget=_budget(budget, budget_of, max_loss),
            replace=force,
            config=_engine(adcs, merge_lanes, latency),
            report=report,
        )
    screen = console.console()
    screen.print(console.layer_table(summary["layers"]))
    screen.print(f"program: {out / workflow.PROGRAM_FILE}")
    _write_json(json_file, summary)


@app.command(epilog="Example:\n\nprap inspect build/net --json metrics.json")
def inspect(
    folder: Folder,
    adcs: Adcs = 8,
    merge_lanes: Lanes = 1,
    latency: Latency = 1,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Count what a compiled network holds (cells, index bits) and does (events of one image)."""
    from prap_hw import workflow

    with console.progress() as report:
        figures = workflow.inspect(
            folder, config=_engine(adcs, merge_lanes, latency), report=report
        )
    console.console().print(console.metrics_table(figures["layers"], figures["total"]))
    _write_json(json_file, figures)


@app.command(
    epilog="Examples:\n\nprap evaluate build/net --images test.npz --json accuracy.json\n\n"
    "prap evaluate build/net --images test.npz --device wan-2022 --trials 5 --limit 100"
)
def evaluate(
    folder: Folder,
    images: Images,
    labels: Labels = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Images evaluated at most.", min=1)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="FILE",
            help="Cells and converters that are not ideal: a device file, or the name of a packaged"
            " one (docs/devices.md).",
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", help="Chips drawn, for --device.", min=1)] = 5,
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
    from prap_hw import workflow

    with console.progress() as report:
        figures = workflow.evaluate(
            folder,
            _pair(images, labels),
            limit=limit,
            device=device,
            trials=trials,
            seed=seed,
            config={"adc_bits": adc_bits},
            report=report,
        )
    screen = console.console()
    screen.print(console.accuracy_table(figures["accuracy"], figures["images"]))
    if "chips" in figures:
        screen.print(console.chip_table(figures))
    _write_json(json_file, figures)


@app.command(
    epilog="Examples:\n\nprap cosim build/net --images test.npz --count 2 --adcs 4\n\n"
    "prap cosim build/net --images test.npz --count 100 --tier bulk"
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
            " fast; accumulators, outputs, cycles and counters; goes on where it was interrupted.",
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
        typer.Option("--fresh", help="Tier bulk: simulate again what earlier runs have finished."),
    ] = False,
    adcs: Adcs = 8,
    merge_lanes: Lanes = 1,
    latency: Latency = 1,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Run images through the RTL in Verilator and compare its values with the golden model."""
    from prap_hw import workflow

    with console.progress() as report:
        figures = workflow.cosim(
            folder,
            _pair(images, labels),
            count=count,
            tier=tier,
            every_value=every_value,
            fresh=fresh,
            config=_engine(adcs, merge_lanes, latency),
            report=report,
        )
    screen = console.console()
    screen.print(console.layer_table(figures["layers"]))
    screen.print(console.compared_table(figures["compared"]))
    print(console.simulation_line(figures["simulation"], len(figures["layers"]) * count))
    _write_json(json_file, figures)
    _judge(figures)


@app.command(epilog="Example:\n\nprap verilog -o build/verilog --adcs 8 --open-port")
def verilog(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.")],
    adcs: Adcs = 8,
    merge_lanes: Lanes = 1,
    latency: Latency = 1,
    open_port: Annotated[
        bool,
        typer.Option(
            "--open-port",
            help="Leave the crossbar port open, for an analog macro.",
        ),
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="With the trace ports that the benches read.")
    ] = False,
    fit: Annotated[
        Path | None,
        typer.Option("--for", metavar="DIR", help="Size it for what `prap compress` wrote to DIR."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write the Verilog of the engine."""
    from prap_hw import workflow

    with console.progress() as report:
        written = workflow.write_verilog(
            out,
            _engine(adcs, merge_lanes, latency),
            program=fit,
            open_port=open_port,
            trace=trace,
            report=report,
        )
    for path in written:
        print(path)


@app.command(epilog="Example:\n\nprap golden ../shared/golden")
def golden(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder of golden cases with its index.json.")
    ],
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Check the published functions against a folder of golden cases."""
    from prap_hw import workflow

    figures = workflow.check_golden(folder)
    _write_json(json_file, figures)
    for line in figures["lines"]:
        print(line)
    if figures["failures"]:
        raise Exit(DIFFERENT)


def _engine(adcs: int, merge_lanes: int, latency: int) -> "EngineConfig":
    """The engine of the options; InputError where the RTL has no such engine."""
    from prap_hw import workflow

    return workflow.rtl_engine(
        {"adcs": adcs, "merge_lanes": merge_lanes, "crossbar_latency": latency}
    )


def _budget(times: float | None, of: BudgetOf, max_loss: float | None) -> Any:
    """Make a budget of its options; None where there is none."""
    from refmodel.budget import Budget

    if times is None and max_loss is None:
        return None
    try:
        return Budget(times=times, of=of, max_loss=max_loss)
    except ValueError as problem:
        raise InputError(f"expected one of --budget and --max-loss, found {problem}") from None


def _pair(images: Path, labels: Path | None) -> list[Path]:
    return [images] if labels is None else [images, labels]


def _settings(texts: list[str], scheme: str) -> dict[str, Any]:
    """Read ``conv2=2,4,0.375`` or ``conv2=keep=0.2,scheme=orc`` into settings by name pattern."""
    from refmodel.schemes import LayerSetting

    kinds = {field.name: type(field.default) for field in dataclasses.fields(LayerSetting)}
    result = {}
    for text in texts:
        name, _, values = text.partition("=")
        parts = values.split(",")
        if values and "=" not in values and len(parts) == 3:
            parts = [f"{key}={part}" for key, part in zip(SHORT_SETTING, parts, strict=True)]
        chosen: dict[str, Any] = {"scheme": scheme}
        try:
            for part in parts:
                key, _, value = part.partition("=")
                if not name or not value or key not in kinds:
                    raise InputError(
                        f"expected LAYER=C,V,KEEP or LAYER=KEY=VALUE,... with {', '.join(kinds)}, "
                        f"found {text!r} in --set"
                    )
                chosen[key] = BOOLEANS[value] if kinds[key] is bool else kinds[key](value)
            result[name] = LayerSetting(**chosen)
        except (KeyError, ValueError) as problem:
            raise InputError(
                f"expected settings that a layer can have, found {text!r} in --set ({problem})"
            ) from None
    return result


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
    from prap_hw.files import write_json

    write_json(path, figures)


def _judge(figures: Mapping[str, Any]) -> None:
    """End with exit code 1 unless all was compared, nothing differs and predictions hold."""
    from prap_hw.workflow import faults

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
