"""Whole networks on the simulated accelerator: its Verilog as a library, behind whole arrays.

The bulk tier (:mod:`sim.bulk`) drives an engine layer after layer and computes what lies between
with the golden model. Here the accelerator runs the network by itself: program, list and cells are
loaded once; then an image goes in, there is one start, and the codes of the last tensor come out.
Compared are these, the accumulators of every layer, the cycles and the counters; with several
engines, the sums of their accumulators and of their counters.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prap_hw.common.layouts import COUNTERS, Layouts, TileLayouts
from prap_hw.deliver.load import command_words, network_load
from prap_hw.deliver.verilog import ACCELERATOR, accelerator_verilog
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.golden.layer import check_codes
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.prediction import NetworkPrediction, predict_network
from refmodel.predict.accelerator.sizing import accelerator_config_for
from refmodel.program.program import Program
from sim.builds import verilator
from sim.builds.engine import fields_of, payload_widths
from sim.builds.library import Engine, Run
from sim.job import Job
from sim.results import RESULTS
from sim.words import pack


@dataclass(frozen=True, kw_only=True)
class NetworkResult:
    """Results of the accelerator for some images.

    Attributes
    ----------
    outputs
        The last tensor of each image, uint8 [values]; None where some did not come.
    cycles
        Cycles of each image, from start accepted to the last output accepted.
    predicted
        Cycles that one image should take.
    alone
        With several engines, what one image should cost on one; None where no single engine holds
        the network, and with one engine.
    expected, compared
        Kind to the values that there should be, and that were compared; ``accumulators`` and
        ``outputs``.
    differences
        Kind to the values that differ, are missing or are too many; ``cycles`` and ``counters``
        count images.
    first
        The first difference in words, empty where there is none.
    activation_bytes
        Bytes of the activation memory that the tensors need.
    seconds, build_seconds
        Simulating with everything around it; making the library.
    """

    outputs: tuple[np.ndarray | None, ...]
    cycles: tuple[int, ...]
    predicted: NetworkPrediction
    alone: NetworkPrediction | None
    expected: Mapping[str, int]
    compared: Mapping[str, int]
    differences: Mapping[str, int]
    first: str
    activation_bytes: int
    seconds: float
    build_seconds: float


def simulate(job: Job) -> NetworkResult:
    """Run input codes through a network on the accelerator, with emulated crossbars.

    Its program may have separate or fused residuals.

    Raises
    ------
    InputError
        A step that the accelerator cannot run, a layer that no engine holds, a missing tool.
    RuntimeError
        The library could not be built, or the simulated accelerator failed by itself.
    """
    program, codes, engines, tell = job.program, job.codes, job.engines, job.progress
    check_codes(codes, tuple(program.tensors[program.input]["shape"]), program.input)
    config = replace(accelerator_config_for(program, job.config, engines), trace=True)
    image = network_image(program, config, engines)
    predicted = predict_network(image, program.layers, config)
    loaded = network_load(program, image, config)
    commands = len(command_words(program, image, config))

    began = time.monotonic()
    tell("build the library", 0, 1)
    layouts = Layouts(config)
    widths = {"OUT": layouts.sent.size}
    if engines > 1:
        tile = TileLayouts(config, engines)
        widths |= {"LOAD": tile.load.size, "CELLS": tile.cells.size}
    library = verilator.build_library(
        accelerator_verilog(config, commands, engines),
        ACCELERATOR[False],
        widths=payload_widths(config) | widths,
        counters=COUNTERS,
        done=True,
        results=engines > 1,
        cache=job.cache,
    )
    tell("build the library", 1, 1)
    built = time.monotonic()

    check = _Check(program, config)
    order = [each.layer for each in image.operations if each.layer is not None]
    outputs = []
    cycles = []
    with Engine(library, config) as engine:
        engine.load(loaded)
        for number in range(len(codes)):
            tell("simulate", number, len(codes))
            wanted = check.wanted(codes[number], order)
            run = engine.run(
                codes[number].reshape(-1),
                {kind: len(words) for kind, words in wanted.items()},
                2 * (predicted.cycles + predicted.image) + 2000,
                every_value=False,
                settle=predicted.image,
            )
            check.compare(number, wanted, run, predicted)
            sent = (run.records["outputs"][:, 0] & np.uint64(0xFF)).astype(np.uint8)
            outputs.append(sent if len(sent) == len(wanted["outputs"]) else None)
            cycles.append(run.cycles)
        tell("simulate", len(codes), len(codes))
    return NetworkResult(
        outputs=tuple(outputs),
        cycles=tuple(cycles),
        predicted=predicted,
        alone=_alone(program, job.config) if engines > 1 else None,
        expected=check.expected,
        compared=check.compared,
        differences=check.differences,
        first=check.first,
        activation_bytes=image.activation_bytes,
        seconds=time.monotonic() - built,
        build_seconds=built - began,
    )


def _alone(program: Program, base: EngineConfig) -> NetworkPrediction | None:
    """Predict an image on one engine, if there is one that holds the network."""
    try:
        config = accelerator_config_for(program, base)
    except InputError:
        return None
    return predict_network(network_image(program, config), program.layers, config)


class _Check:
    """Compares what the accelerator gave with the golden model."""

    def __init__(self, program: Program, config: EngineConfig):
        self.program = program
        self.config = config
        layouts = Layouts(config)
        self.fields = {
            "accumulators": fields_of(layouts.trace_acc),
            "outputs": fields_of(layouts.sent),
        }
        self.expected: dict[str, int] = dict.fromkeys(RESULTS, 0)
        self.compared: dict[str, int] = dict.fromkeys(RESULTS, 0)
        self.differences: dict[str, int] = dict.fromkeys((*RESULTS, "cycles", "counters"), 0)
        self.first = ""

    def wanted(self, codes: np.ndarray, order: list[int]) -> dict[str, np.ndarray]:
        """Words of the accumulators of all layers, in order, and of the outputs: uint64 [n]."""
        tensors = golden.run_program(self.program, codes[None], layer_fn=self._layer)
        steps = {
            step.params["index"]: step.inputs[0]
            for step in self.program.steps
            if step.op == "layer"
        }
        parts = []
        for index in order:
            layer = self.program.layers[index]
            sums = self._sums(layer, tensors[steps[index]])
            sums = sums.reshape(-1, layer.out_shape[2])
            output = np.arange(layer.out_shape[2])
            words = pack(self.fields["accumulators"], output=output, acc=sums)
            parts.append(words.reshape(-1))
        result = tensors[self.program.output].reshape(-1)
        last = np.arange(len(result)) == len(result) - 1
        return {
            "accumulators": np.concatenate(parts),
            "outputs": pack(self.fields["outputs"], code=result, last=last).reshape(-1),
        }

    def _sums(self, layer: Any, codes: np.ndarray) -> np.ndarray:
        if self.config.lossless:
            return golden.accumulators(layer, codes)
        return golden.serial_accumulators(layer, codes, self.config)

    def _layer(
        self, layer: Any, codes: np.ndarray, residual: np.ndarray | None = None
    ) -> np.ndarray:
        return golden.output_codes(layer, self._sums(layer, codes), residual)

    def compare(
        self,
        image: int,
        wanted: Mapping[str, np.ndarray],
        run: Run,
        predicted: NetworkPrediction,
    ) -> None:
        """Compare one image's run, and count."""
        for kind in RESULTS:
            want, got = wanted[kind], run.records[kind][:, 0]
            both = min(len(want), len(got))
            self.expected[kind] += len(want)
            wrong = want[:both] != got[:both]
            self.compared[kind] += both
            self._note(
                kind,
                int(np.count_nonzero(wrong)) + abs(len(want) - len(got)),
                f"image {image}, {kind} {int(np.argmax(wrong)) if wrong.any() else both}",
            )
        counted = run.counters
        sums = {"cycles": predicted.cycles, "stall_port": 0, **predicted.events}
        found = f"image {image}: {run.cycles} cycles, predicted {predicted.cycles}"
        self._note("cycles", int(run.cycles != predicted.cycles or run.hung), found)
        self._note("counters", int(counted != sums), f"image {image}: {counted} not {sums}")

    def _note(self, kind: str, count: int, text: str) -> None:
        self.differences[kind] += count
        if count and not self.first:
            self.first = text
