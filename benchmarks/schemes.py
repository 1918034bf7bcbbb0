"""All schemes on the same layers: cycles, conversions, index bits, and how near to the bound.

    make schemes

takes ResNet-20 from its published parameters in the folder of given data (PRAP_SHARED, ../shared by
default), or from the ONNX file that NETWORK=FILE names, and of it the first convolution that has as
many inputs as outputs, for 16, 32 and 64 channels each; and the ninth convolution of VGG16 (512 to
512 channels, 4x4 positions) with weights that are drawn, since no trained ones are given. Every
layer is mapped with the default settings of each scheme, which are those of the published networks
by layer width, for OUs of 8 and of 9 rows, on the default engine otherwise. Layers whose cycles
merging bounds are there a second time, with four merge lanes.

Cycles are predicted, for an engine that is sized to the layer and its scheme. Where they and the
OUs are few enough, the emitted Verilog runs an image, too (bulk tier: every accumulator, output,
cycle and counter compared): one engine for each number of rows, which holds all these layers. A
star says that it took the very same cycles.

Activations do not enter into any of the figures, so scales are taken from drawn images.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from refmodel.compression.compile import compile_layer
from refmodel.compression.quantize import MatrixLayer, quantize
from refmodel.compression.schemes import default_setting, map_layer
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.exchange.onnx.load import load_onnx
from refmodel.exchange.torch_files import state_dict
from refmodel.predict.metrics import Metrics, layer_metrics
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import engine_config_for, ou_count
from refmodel.program.step import Step

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("PRAP_SHARED", ROOT.parent / "shared"))
PARAMETERS = SHARED / "data" / "models" / "resnet20-12fca82f.th"
FOLDER = ROOT / "build" / "schemes"
CACHE = ROOT / "build" / "cache"

SEED = 7
"""Seed of the weights of conv9, and of images."""

CHANNELS = (16, 32, 64)
"""Widths of ResNet-20, a layer of each."""

ORDER = (
    "dense",
    "structured",
    "shape",
    "orc",
    "identical",
    "similar",
    "structured+identical",
    "prap",
    "dictionary",
)
"""Schemes as the published tables have them, and ours."""

LANES = 4
"""Merge lanes with which layers whose cycles merging bounds are predicted again."""

MOST_CYCLES, MOST_OUS = 10_000_000, 70_000
"""Layers of more are not simulated by default: loading and building take the most of it."""


@dataclass(kw_only=True, eq=False)
class Row:
    """One layer under one scheme with OUs of so many rows.

    Attributes
    ----------
    layer, scheme, rows, lanes
        The layer, its scheme, rows of an operation unit, and merge lanes of the engine.
    program
        The compiled layer.
    metrics
        Its figures on an engine of its own size.
    simulated
        Cycles that the RTL took, None where it did not run.
    differences
        Differences from the golden model that the simulation found, a line each.
    """

    layer: str
    scheme: str
    rows: int
    lanes: int
    program: LayerProgram
    metrics: Metrics
    simulated: int | None = None
    differences: list[str] = field(default_factory=list)


def exporter() -> ModuleType:
    """The script examples/resnet/export.py as a module."""
    place = ROOT / "examples" / "resnet" / "export.py"
    spec = importlib.util.spec_from_file_location("export", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resnet20_file() -> Path:
    """Write ResNet-20 from its published parameters as ONNX.

    Raises
    ------
    InputError
        The parameters are not there.
    """
    if not PARAMETERS.is_file():
        raise InputError(
            f"expected ResNet-20's parameters or a network (NETWORK=FILE.onnx), found no "
            f"{PARAMETERS.name} in {SHARED.name}/data/models"
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "resnet20.onnx"
    path.write_bytes(exporter().build(state_dict(PARAMETERS)).SerializeToString())
    return path


def square_layers(network: Path) -> list[MatrixLayer]:
    """The first convolution of each width in :data:`CHANNELS` with as many inputs as outputs.

    Raises
    ------
    InputError
        There is none of a width.
    """
    floats = load_onnx(network)
    images = np.random.default_rng(SEED).normal(size=(2, *floats.input_shape)).astype(np.float32)
    layers = quantize(floats, images).layers
    found = []
    for width in CHANNELS:
        fitting = [
            layer
            for layer in layers
            if layer.weight.shape[:2] == (width, width) and layer.weight.shape[2] > 1
        ]
        if not fitting:
            raise InputError(
                f"expected a convolution of {width} to {width} channels, found none in "
                f"{network.name}"
            )
        found.append(fitting[0])
    return found


def conv9() -> MatrixLayer:
    """The ninth convolution of VGG16 for CIFAR-10, with drawn weights."""
    channels, size = 512, 4
    weight = np.random.default_rng(SEED).standard_normal((channels, channels, 3, 3), np.float32)
    return MatrixLayer(
        name="conv9", weight=weight, gain=np.full(channels, 0.01), bias=np.zeros(channels),
        stride=(1, 1), pads=(1, 1, 1, 1), dilation=(1, 1), groups=1, in_scale=0.02, in_zero=0,
        out_scale=0.05, out_zero=0, clip=(0, 255), in_shape=(size, size, channels),
        out_shape=(size, size, channels),
    )  # fmt: skip


def rows_of(layers: Sequence[MatrixLayer], rows: int, base: EngineConfig) -> Iterator[Row]:
    """Map, compile and predict all layers under all schemes."""
    base = replace(base, ou_rows=rows)
    for layer in layers:
        for scheme in ORDER:
            setting = default_setting(layer.weight, scheme=scheme, ou_rows=rows)
            mapping = map_layer(layer.weight, 1, scheme, setting, rows, layer.gain)
            program = compile_layer(layer, mapping, rows)
            for lanes in (base.merge_lanes, LANES):
                config = engine_config_for([program], replace(base, merge_lanes=lanes))
                row = Row(
                    layer=layer.name,
                    scheme=scheme,
                    rows=rows,
                    lanes=lanes,
                    program=program,
                    metrics=layer_metrics(program, config),
                )
                yield row
                if lanes >= LANES or busiest(row.metrics) != "merge":
                    break


def simulate(rows: Sequence[Row], base: EngineConfig) -> None:
    """Run an image through each layer in the RTL of one engine that holds them all."""
    from sim import bulk
    from sim.job import Job

    config = engine_config_for([row.program for row in rows], replace(base, ou_rows=rows[0].rows))
    for row in rows:
        layer = row.program
        tensors = {
            name: {"shape": list(shape), "scale": 1.0, "zero": zero}
            for name, shape, zero in (
                ("input", layer.in_shape, layer.zero_in),
                ("output", layer.out_shape, layer.zero_out),
            )
        }
        program = Program(
            layers=(layer,),
            steps=(Step(op="layer", inputs=("input",), output="output", params={"index": 0}),),
            tensors=tensors,
            input="input",
            output="output",
            preprocess={},
        )
        codes = np.random.default_rng(SEED).integers(0, 256, (1, *layer.in_shape), np.uint8)
        job = Job(
            program=program, codes=codes, config=config, tier="bulk", folder=FOLDER, cache=CACHE
        )
        result = bulk.simulate(job)
        row.differences = [str(each) for each in result.differences]
        row.simulated = result.layers[0].cycles
        say(f"simulated {row.layer}, {row.scheme}, R = {row.rows}: {row.simulated:,} cycles")


def say(text: str) -> None:
    """Tell of progress, beside the tables."""
    print(f"schemes: {text}", file=sys.stderr, flush=True)


def cycles(row: Row) -> str:
    """Cycles, with a star where the RTL took as many, and what it took where it did not."""
    text = f"{row.metrics.cycles:,}"
    if row.simulated is None:
        return text
    return f"{text} *" if row.simulated == row.metrics.cycles else f"{text}, RTL {row.simulated:,}"


WORK = ("conversion", "gather", "merge", "output")


def busiest(metrics: Metrics) -> str:
    """Name the resource that bounds a layer: the one with the most work."""
    return max(WORK, key=lambda name: getattr(metrics, f"{name}_cycles"))


def table(rows: Sequence[Row]) -> str:
    """Markdown table of one layer with OUs of one size: a line to each scheme."""
    heads = [
        f"R = {rows[0].rows}", "cycles", "dense over it", "over bound", "bound by", "conversions",
        "index bits",
    ]  # fmt: skip
    lines = [heads, ["---", "---:", "---:", "---:", "---", "---:", "---:"]]
    dense = next(row for row in rows if row.scheme == "dense").metrics.cycles
    for row in rows:
        metrics = row.metrics
        lanes = f", {row.lanes} merge lanes" if row.lanes != rows[0].lanes else ""
        lines.append(
            [
                f"`{row.scheme}`{lanes}",
                cycles(row),
                f"{dense / metrics.cycles:.2f}",
                f"{metrics.cycles / metrics.bound:.4f}",
                busiest(metrics),
                f"{metrics.conversions:,}",
                f"{metrics.index_bits:,}",
            ]
        )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def report(rows: Sequence[Row], sizes: Sequence[int]) -> str:
    """All tables: a layer with each number of rows."""
    parts = []
    for name in dict.fromkeys(row.layer for row in rows):
        mine = [row for row in rows if row.layer == name]
        height, width, outputs = mine[0].program.out_shape
        inputs = mine[0].program.in_shape[2]
        parts.append(f"**{name}**: {inputs} to {outputs} channels, {height}x{width} positions")
        parts += [table([row for row in mine if row.rows == size]) for size in sizes]
    return "\n\n".join(parts)


def wrong(rows: Sequence[Row]) -> list[str]:
    """Say in words what the simulations found."""
    found = []
    for row in rows:
        name = f"{row.layer}, {row.scheme}, R = {row.rows}"
        found += [f"{name}: {text}" for text in row.differences]
        if row.simulated not in (None, row.metrics.cycles):
            found.append(f"{name}: predicted {row.metrics.cycles}, simulated {row.simulated}")
    return found


def figures(rows: Sequence[Row]) -> list[Mapping[str, object]]:
    """All figures as JSON values."""
    return [
        {
            **row.metrics.to_dict(),
            "layer": row.layer,
            "scheme": row.scheme,
            "rows": row.rows,
            "merge_lanes": row.lanes,
            "simulated": row.simulated,
        }
        for row in rows
    ]


def main(arguments: list[str] | None = None) -> int:
    """Print the tables: 1 if a layer is not as it should be, 2 if the network is not there."""
    parser = argparse.ArgumentParser(description="All schemes on the same layers.")
    parser.add_argument("--network", type=Path, metavar="FILE", help="ResNet-20 as ONNX")
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 9], help="R (8 9)")
    parser.add_argument("--adcs", type=int, default=8, help="converters (8)")
    parser.add_argument(
        "--most-cycles", type=int, default=MOST_CYCLES, metavar="N",
        help=f"simulate layers of so many predicted cycles ({MOST_CYCLES}); 0: none",
    )  # fmt: skip
    parser.add_argument(
        "--most-ous", type=int, default=MOST_OUS, metavar="N",
        help=f"and of so many OUs ({MOST_OUS})",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        base = replace(EngineConfig(), adcs=options.adcs)
        layers = [*square_layers(options.network or resnet20_file()), conv9()]
        found: list[Row] = []
        for rows in options.rows:
            here = []
            for row in rows_of(layers, rows, base):
                say(f"predicted {row.layer}, {row.scheme}, R = {rows}: {row.metrics.cycles:,}")
                here.append(row)
            small = [
                row
                for row in here
                if row.lanes == base.merge_lanes
                and row.metrics.cycles <= options.most_cycles
                and ou_count(row.program, replace(base, ou_rows=rows)) <= options.most_ous
            ]
            if small:
                simulate(small, base)
            found += here
    except InputError as problem:
        print(f"schemes: error: {problem}", file=sys.stderr)
        return 2
    print(report(found, options.rows))
    if options.json:
        options.json.write_text(json.dumps(figures(found), indent=1) + "\n")
    problems = wrong(found)
    for text in problems:
        print(f"schemes: {text}", file=sys.stderr)
    ran = sum(row.simulated is not None for row in found)
    say(
        f"{len(found)} predicted, {ran} of them simulated, {len(problems)} not as they should be, "
        f"{time.monotonic() - began:.0f} s"
    )
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
