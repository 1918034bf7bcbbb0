"""Whether every layer meets its bound in the cycle model: layers by schemes by engines.

    python benchmarks/bounds.py                        # all networks
    python benchmarks/bounds.py vgg16 --json build/bounds.json

The layers of ResNet-20, of the digits network and three of VGG16 for CIFAR-10 (conv9, fc1 and the
last one, with random weights) are mapped with each of the nine schemes, the dictionary with 1 to 4
terms, also the first and the last of a network, which would run dense by default. (Where a scheme's
setting for a layer keeps all of it, that is dense, too.) For each of these programs,
:func:`refmodel.predict.cycles.predict` prices engines with 1, 2, 4 and 8 ADCs, 1, 2 and 4 merge
lanes and crossbars of latency 1, 10 and 40, and, where there is one merge lane, blocks of 1 and 4
output positions. A combination misses where cycles exceed 1.02 * bound +
start (docs/specification/architecture.md, Bounds); its ratio is (cycles - start) / bound. The exit
code is 1 where one does.

Cycles depend on the shapes and counts of patterns, not on their values, so dictionaries are learnt
in one round. Networks and published settings come from the folder of given data (PRAP_SHARED,
../shared by default); without it ResNet-20 has random parameters and VGG16 default settings.
"""

import argparse
import dataclasses
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bench
import mapping
import numpy as np

from refmodel import digits
from refmodel.compression.compile import compile_layer
from refmodel.compression.quantize import MatrixLayer, quantize
from refmodel.compression.schemes import SCHEMES, LayerSetting, default_setting, map_layer
from refmodel.compression.schemes.base import MAX_TERMS
from refmodel.config import EngineConfig
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.images import Preprocess
from refmodel.predict.cycles import predict
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import engine_config_for

ADCS, LATENCIES = (1, 2, 4, 8), (1, 10, 40)

LANES = ((1, 1), (2, 1), (4, 1), (1, 4))
"""Merge lanes, and output positions of a block."""

VGG16 = (
    # Name, place in the published lists, outputs, inputs, kernel, height and width.
    ("conv9", 8, 512, 512, 3, 4),
    ("fc1", 13, 4096, 512, 1, 1),
    ("fc3", 15, 10, 4096, 1, 1),
)

Row = dict[str, Any]
"""One combination: names, engine, and figures of its prediction."""


def resnet20() -> list[MatrixLayer]:
    """Layers of ResNet-20."""
    with tempfile.TemporaryDirectory() as folder:
        path, _ = bench.resnet20(Path(folder))
        network = load_onnx(path)
    pixels = bench.images("cifar10_train_10000.npz", 8)
    chosen = bench.preprocess(pixels)
    return list(
        quantize(network, chosen.apply(pixels, network.input_shape), preprocess=chosen).layers
    )


def digits_network() -> list[MatrixLayer]:
    """Layers of the network of the demo."""
    network = load_onnx(digits.network_path("float"))
    chosen = Preprocess(scale=digits.PIXEL_SCALE, layout="nhw")
    pixels = digits.digits_images().calibration_x[:8]
    return list(
        quantize(network, chosen.apply(pixels, network.input_shape), preprocess=chosen).layers
    )


def vgg16() -> list[MatrixLayer]:
    """Three layers of VGG16 with random weights."""
    layers = []
    for name, _, outputs, inputs, kernel, size in VGG16:
        pad = kernel // 2
        layers.append(
            MatrixLayer(
                name=name, weight=bench.weights(outputs, inputs, kernel),
                gain=np.full(outputs, 0.1), bias=np.zeros(outputs), stride=(1, 1),
                pads=(pad, pad, pad, pad), dilation=(1, 1), groups=1, in_scale=0.02, in_zero=0,
                out_scale=0.05, out_zero=0, clip=(0, 255), in_shape=(size, size, inputs),
                out_shape=(size, size, outputs),
            )
        )  # fmt: skip
    return layers


NETWORKS = {"resnet20": resnet20, "digits": digits_network, "vgg16": vgg16}


def setting(network: str, layer: MatrixLayer, scheme: str) -> LayerSetting:
    """The published setting where VGG16 has one that does anything, else the default by width."""
    file = bench.SHARED / "published" / "networks.json"
    if network == "vgg16" and scheme in mapping.MODES and file.is_file():
        main = json.loads(file.read_text())["models"]["Vgg16"]["main"]
        place = next(place for name, place, *_ in VGG16 if name == layer.name)
        published = mapping.settings(main, scheme)[place]
        if published.keep < 1:
            return published
    connected = tuple(layer.in_shape[:2]) == (1, 1)
    return default_setting(
        layer.weight, groups=layer.groups, scheme=scheme, fully_connected=connected
    )


def programs(network: str, layer: MatrixLayer) -> Iterator[tuple[str, LayerProgram]]:
    """The layer under each scheme; ``dictionary 2`` is the one with two terms."""
    for scheme in SCHEMES:
        chosen = setting(network, layer, scheme)
        settings = {scheme: chosen}
        if scheme == "dictionary":
            settings = {
                f"{scheme} {terms}": dataclasses.replace(chosen, terms=terms, rounds=1)
                for terms in range(1, MAX_TERMS + 1)
            }
        for name, each in settings.items():
            mapped = map_layer(layer.weight, layer.groups, scheme, each, gain=layer.gain)
            yield name, compile_layer(layer, mapped, 8)


def price(program: LayerProgram) -> Iterator[Row]:
    """Figures of a program on every engine."""
    for adcs, (lanes, positions), latency in itertools.product(ADCS, LANES, LATENCIES):
        base = EngineConfig(
            adcs=adcs, merge_lanes=lanes, position_lanes=positions, crossbar_latency=latency
        )
        found = predict(program, engine_config_for([program], base))
        yield {
            "adcs": adcs,
            "lanes": lanes,
            "positions": positions,
            "latency": latency,
            "cycles": found.cycles,
            "bound": found.bound,
            "start": found.start,
            "ratio": (found.cycles - found.start) / found.bound,
            "missed": found.cycles > found.limit,
        }


def sweep(network: str) -> list[Row]:
    """Every combination of a network; a line to each layer on stderr."""
    rows: list[Row] = []
    layers = NETWORKS[network]()
    for number, layer in enumerate(layers, 1):
        before = len(rows)
        for scheme, program in programs(network, layer):
            place = {"network": network, "layer": layer.name, "scheme": scheme}
            rows += [place | figures for figures in price(program)]
        new = rows[before:]
        print(
            f"{network} {number}/{len(layers)} {layer.name}: {len(new)} combinations, "
            f"{sum(row['missed'] for row in new)} missed, "
            f"worst ratio {max(row['ratio'] for row in new):.3f}",
            file=sys.stderr,
            flush=True,
        )
    return rows


def report(rows: Sequence[Row], worst: int = 10) -> str:
    """The worst combinations, and how many there are and miss."""
    listed = sorted(rows, key=lambda row: row["ratio"], reverse=True)[:worst]
    heads = (
        f"{'network':<9} {'layer':<24} {'scheme':<21} {'ADCs':>4} {'lanes':>5} {'block':>5} "
        f"{'latency':>7} {'cycles':>11} {'bound':>11} {'start':>7} {'ratio':>6}"
    )
    lines = [f"worst {len(listed)} by (cycles - start) / bound", heads]
    lines += [
        f"{row['network']:<9} {row['layer'][-24:]:<24} {row['scheme']:<21} {row['adcs']:>4} "
        f"{row['lanes']:>5} {row['positions']:>5} {row['latency']:>7} {row['cycles']:>11,} "
        f"{row['bound']:>11,} {row['start']:>7,} {row['ratio']:>6.3f}"
        for row in listed
    ]
    missed = sum(row["missed"] for row in rows)
    lines.append(f"{missed} of {len(rows):,} combinations missed 1.02 * bound + start")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Sweep and print; 1 where a combination misses."""
    parser = argparse.ArgumentParser(description="Whether every layer meets its bound.")
    parser.add_argument(
        "networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all"
    )
    parser.add_argument("--worst", type=int, default=10, help="combinations listed (10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every combination to FILE")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.networks if name not in NETWORKS]
    if unknown:
        parser.error(f"expected networks of {', '.join(NETWORKS)}, found {', '.join(unknown)}")
    rows = [row for name in options.networks or NETWORKS for row in sweep(name)]
    print(report(rows, options.worst))
    if options.json:
        options.json.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    return int(any(row["missed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
