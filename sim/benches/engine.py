"""The cocotb bench of the engine: loads layers, runs images, compares all that crosses a port.

``PRAP_JOB`` names the folder of a job that :mod:`sim.simulator` wrote. Layer after layer is loaded,
and every image goes through it; a layer's input is what the hardware made of the layer before,
taken through the host's steps.

The signals that are compared are recorded in Verilog (``sim/benches/engine.sv`` writes every
handshake and trace word to a file), and the record is read once an image is through. No cycle is
missed, since all ports are recorded in one clocked process, and Python drives the streams and
sleeps while the engine runs, unless there are stalls or an open crossbar port. Measured on the
demo, golden model and start included: 143,000 cycles a second, against 42,000 with a single
coroutine that wakes at every edge to serve the crossbar port alone.
"""

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import (
    FallingEdge,
    First,
    RisingEdge,
    SimTimeoutError,
    Timer,
    with_timeout,
)
from cocotb.utils import get_sim_time

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.converters import AdcRange
from refmodel.golden.devices.device import Device
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from sim.benches.crossbar_model import ChipModel, CrossbarModel, Fault, serve
from sim.benches.streams import Driver, pausing_sink
from sim.comparison import (
    compare,
    counter_differences,
    expected_values,
    expected_words,
    record_words,
)
from sim.kept import Kept, digest
from sim.results import KINDS, PERIOD, QUIET
from sim.words import join

AFTER_END = 4
"""Cycles that a waveform shows beyond the end of a run, where that is in its window."""


class HangError(Exception):
    """A run that did not end."""


class Bench:
    """One simulation: the ports, the job, and what was found."""

    def __init__(self, dut: Any, folder: Path):
        self.dut = dut
        self.folder = folder
        job = json.loads((folder / "job.json").read_text())
        self.job = job
        self.config = EngineConfig(**job["config"])
        self.fields = job["fields"]
        self.program = Program.load(folder / "program.prap")
        self.stall: float = job["stall"]
        self.slots_done = 0
        self.compared = {kind: {"values": 0, "different": 0} for kind in KINDS}
        self.differences: list[dict[str, Any]] = []
        self.layers: list[dict[str, Any]] = []
        self.edge = RisingEdge(dut.clk)
        self.model: CrossbarModel | None = None
        self.chip: Chip | None = None
        if job["device"] is not None:
            device = Device(**job["device"]["values"])
            ranges = {
                int(number): AdcRange(**values)
                for number, values in job["device"]["ranges"].items()
            }
            self.chip = Chip(
                device=device, config=self.config, seed=job["device"]["chip"], ranges=ranges
            )
        self.fault: Fault | None = None
        self.hang: str | None = None
        self.origin: int | None = None
        self.kept = 0
        self.simulated = False

    def wait(self, *what: object) -> random.Random:
        """Chance for one stream of one run: the same in a repetition of that run alone."""
        return random.Random("/".join(map(str, (self.job["seed"], *what))))

    async def start(self) -> None:
        """Start the clock and reset."""
        dut = self.dut
        self.load = Driver(dut, "i_load", stall=self.stall)
        self.cells = Driver(dut, "i_cells", stall=self.stall)
        self.acts = Driver(dut, "i_acts", stall=self.stall)
        dut.start.value = 0
        dut.o__ready.value = 0
        dut.record_new.value = 0
        dut.record_flush.value = 0
        if self.job["window"] is not None:
            dut.wave_begin.value = 0
        dut.rst.value = 1
        if self.job["open"]:
            self.model = self.crossbars()
            plant = self.job["plant_code"]
            if plant is not None:
                self.fault = Fault(ordinal=plant["ordinal"], flip=plant["flip"])
            cocotb.start_soon(
                serve(
                    dut,
                    self.model,
                    latency=self.config.crossbar_latency + (self.job["mutant"] == "slow"),
                    stall=self.stall,
                    wait=self.wait("crossbar"),
                    fault=self.fault,
                )
            )
        Clock(dut.clk, PERIOD, unit="ns", impl="gpi").start()
        for _ in range(3):
            await self.edge
        dut.rst.value = 0
        await self.edge

    def crossbars(self) -> CrossbarModel:
        """Make what stands at an open crossbar port."""
        sizes: dict[str, Any] = {
            "cells_fields": self.fields["cells"],
            "request_fields": self.fields["request"],
            "rows": self.config.ou_rows,
            "cols": self.config.ou_cols,
            "cell_bits": self.config.cell_bits,
            "dac_bits": self.config.dac_bits,
            "adcs": self.config.adcs,
            "code_bits": self.config.code_bits,
            "pairs": self.config.pairs,
        }
        if self.chip is None:
            return CrossbarModel(**sizes)
        # A chip of its own: nothing that it has drawn comes from the comparing side.
        chip = Chip(
            device=self.chip.device,
            config=self.config,
            seed=self.chip.seed,
            ranges=self.chip.ranges,
        )
        return ChipModel(chip=chip, first=int(self.job["mutant"] == "ordinal"), **sizes)

    async def run(self) -> None:
        """Run the whole program, or the one layer and image that the job is restricted to."""
        only = self.job["only"]
        if only is not None:
            codes = np.load(self.folder / "codes.npy")
            await self.run_layer(only["layer"], codes, [only["image"]])
            return
        tensors = {self.program.input: np.load(self.folder / "codes.npy")}
        for step in self.program.steps:
            inputs = [tensors[name] for name in step.inputs]
            if step.op == "layer":
                result = await self.run_layer(
                    step.params["index"], inputs[0], list(range(len(inputs[0])))
                )
            else:
                result = golden.run_step(self.program, step, inputs)
            tensors[step.output] = result
        np.save(self.folder / "logits.npy", tensors[self.program.output])

    async def run_layer(self, index: int, codes: np.ndarray, images: list[int]) -> np.ndarray:
        """Load a layer and run images through it; returns its output codes."""
        layer = self.program.layers[index]
        predicted = self.job["layers"][index]
        stage = f"simulate {layer.name}"
        self.report(stage, 0, len(images))
        with np.load(self.folder / f"layer{index}.npz") as image:
            words, beats = image["words"], image["beats"]
        kept = self.kept_of(index, words, beats)
        loaded = False
        entry: dict[str, Any] = {"name": layer.name, "cycles": [], "counters": []}
        self.layers.append(entry)
        if self.job["input_of"] == index:
            np.save(self.folder / "kept.npy", codes[:1])
        result = np.zeros((len(codes), *layer.out_shape), np.uint8)
        for place, image in enumerate(images):
            before = len(self.differences)
            outputs = None
            if kept is not None:
                outputs = self.take(kept, index, layer, image, codes[place], predicted, entry)
            if outputs is None:
                if not loaded:
                    await self.load.send(join(words), self.wait(index, "load"))
                    await self.cells.send(join(beats), self.wait(index, "cells"))
                    loaded = True
                try:
                    outputs = await self.run_image(
                        index, layer, image, codes[place], predicted, entry, kept
                    )
                finally:  # a hang, too, is run again with a waveform
                    if len(self.differences) > before and before == 0:
                        np.save(self.folder / "failing.npy", codes[place : place + 1])
            result[place] = outputs.reshape(layer.out_shape)
            self.report(stage, place + 1, len(images))
        return result

    def kept_of(self, index: int, words: np.ndarray, beats: np.ndarray) -> Kept | None:
        """Find what earlier runs of the simulation kept of a layer; None where not asked for.

        The chip is part of it, and the number of the layer, by which it is drawn.
        """
        if self.job["keep"] is None:
            return None
        what = json.dumps([self.job["keep"], self.job["device"], index if self.chip else 0])
        folder = self.folder / "kept"
        folder.mkdir(exist_ok=True)
        return Kept(folder / f"{digest(what, words, beats)}.jsonl")

    def take(
        self,
        kept: Kept,
        index: int,
        layer: LayerProgram,
        image: int,
        codes: np.ndarray,
        predicted: dict[str, Any],
        entry: dict[str, Any],
    ) -> np.ndarray | None:
        """Take up the run of an image that was kept.

        Returns
        -------
        The outputs; None where nothing is kept, or the golden model gives something else.
        """
        found = kept.entry(self.run_key(layer, codes, image))
        if found is None:
            return None
        states = {kind: hashlib.sha256() for kind in KINDS}
        outputs = []
        parts = expected_words(
            layer, codes, self.config, self.fields, found["slots"], self.crossbars_of(index, image)
        )
        for _, expected in parts:
            for kind in KINDS:
                states[kind].update(expected[kind].tobytes())
            outputs.append(expected["outputs"][:, 0] & np.uint64(0xFF))
        if any(states[kind].hexdigest() != found[kind] for kind in KINDS):
            return None
        for kind, count in expected_values(layer, self.config).items():
            self.compared[kind]["values"] += count
        entry["cycles"].append(found["cycles"])
        entry["counters"].append(found["counters"])
        self.check_counters(index, layer, image, found["counters"], found["cycles"], predicted)
        self.kept += 1
        return np.concatenate(outputs)

    def run_key(self, layer: LayerProgram, codes: np.ndarray, image: int) -> str:
        """Digest of an input; with a chip the image's number is part of it, by which noise is."""
        return digest(golden.pad(layer, codes[None]), str(image) if self.chip else "")

    def crossbars_of(self, index: int, image: int) -> golden.Crossbars | None:
        """The golden model's crossbars of a layer; ideal ones where None."""
        if self.chip is None:
            return None
        return self.chip.layer(self.program.layers[index], index, first_image=image)

    async def run_image(
        self,
        index: int,
        layer: LayerProgram,
        image: int,
        codes: np.ndarray,
        predicted: dict[str, Any],
        entry: dict[str, Any],
        kept: Kept | None = None,
    ) -> np.ndarray:
        """Run one image through the loaded layer and compare; returns the outputs.

        Where nothing differs, and there is a place for it, the run is kept.
        """
        dut = self.dut
        self.simulated = True
        plant = self.job["plant_code"]
        if self.fault is not None:
            self.fault.armed = (index, image) == (plant["layer"], plant["image"])
        if isinstance(self.model, ChipModel):
            self.model.begin(index, image, layer.positions)
        dut.record_new.value = 1
        await self.edge
        dut.record_new.value = 0
        data = golden.pad(layer, codes[None])[0].reshape(-1).tolist()
        last = 1 << self.fields["acts"]["last"][0]
        payloads = [*data[:-1], data[-1] | last]
        await self.acts.send(payloads, self.wait(index, image, "acts"))

        sink = None
        if self.stall:
            wait = self.wait(index, image, "outputs")
            sink = cocotb.start_soon(pausing_sink(dut.clk, dut.o__ready, self.stall, wait))
        else:
            dut.o__ready.value = 1
        window = self.job["window"]
        if window is not None:
            # Cycle 0, in which the start is accepted, begins with the next edge.
            self.origin = round(get_sim_time("ns")) + PERIOD
            cocotb.start_soon(self.begin_waveform(window[0]))
            await self.edge
        dut.start.value = 1
        await self.edge
        dut.start.value = 0
        if self.job["mutant"] == "deaf":
            # Refuses the last output: a sink that hangs.
            sink = cocotb.start_soon(_deaf_sink(dut, predicted["outputs"] - 1))
        if window is not None:
            await First(FallingEdge(dut.busy), Timer(window[1] * PERIOD, "ns"))
            await Timer(AFTER_END * PERIOD, "ns")
            return np.zeros(layer.out_shape)
        slow = 1 if not self.stall else 40 / (1 - self.stall) ** 2
        limit = int((2 * predicted["cycles"] + 2000) * slow)
        hung = False
        try:
            await with_timeout(FallingEdge(dut.busy), limit * PERIOD, "ns")
        except SimTimeoutError:
            hung = True
        # Anything more would come now.
        await Timer((QUIET + 2 * self.config.crossbar_latency) * PERIOD, "ns")
        await self.edge
        if sink is not None:
            sink.cancel()
        dut.o__ready.value = 0
        dut.record_flush.value = 1
        await self.edge
        dut.record_flush.value = 0
        await self.edge
        start, end = dut.start_cycle.value.to_unsigned(), dut.output_cycle.value.to_unsigned()
        counters = {
            name: getattr(dut, f"counters__{name}").value.to_unsigned()
            for name in self.job["counters"]
        }
        entry["cycles"].append(end - start)
        entry["counters"].append(counters)

        words = record_words(self.config, self.fields)
        records = {
            kind: np.fromfile(self.folder / f"{kind}.bin", "<u8").reshape(-1, words[kind])
            for kind in KINDS
        }
        if self.job["mutant"] == "forget":
            # Loses the last output: a sink that ends a cycle early.
            records["outputs"] = records["outputs"][:-1]
        slots = self.slots_done
        found = compare(
            layer,
            codes,
            self.config,
            self.fields,
            records,
            slots,
            self.compared,
            device=self.crossbars_of(index, image),
        )
        self.slots_done += int(layer.group_kept.sum()) * self.config.blocks_of(layer.positions)
        for difference in found:
            self.differences.append(
                {"layer": index, "name": layer.name, "image": image, **difference}
            )
        if hung:
            missing = [
                f"{len(records[kind])} of {expected} {kind.replace('_', ' ')}"
                for kind, expected in predicted["records"].items()
                if len(records[kind]) != expected
            ]
            self.hang = (
                f"still busy after {limit} cycles, with {', '.join(missing) or 'all values'}"
            )
            raise HangError
        before = len(self.differences)
        self.check_counters(index, layer, image, counters, end - start, predicted)
        if kept is not None and not found and len(self.differences) == before:
            digests = {kind: hashlib.sha256(records[kind].tobytes()).hexdigest() for kind in KINDS}
            kept.add(self.run_key(layer, codes, image), digests, end - start, counters, slots=slots)
        outputs = records["outputs"][:, 0] & np.uint64(0xFF)
        size = layer.positions * layer.out_shape[2]
        return np.resize(outputs, size) if len(outputs) else np.zeros(size)

    async def begin_waveform(self, first: int) -> None:
        """Let a waveform begin with cycle ``first``; to be called two edges before the start's."""
        await Timer(first * PERIOD + PERIOD // 2, "ns")
        self.dut.wave_begin.value = 1
        await self.edge
        self.dut.wave_begin.value = 0

    def check_counters(
        self,
        index: int,
        layer: LayerProgram,
        image: int,
        counters: dict[str, int],
        cycles: int,
        predicted: dict[str, Any],
    ) -> None:
        """Compare cycles and the engine's counters with the prediction."""
        for kind, expected, got in counter_differences(
            counters, cycles, predicted, stalled=bool(self.stall)
        ):
            self.differences.append(
                {
                    "layer": index,
                    "name": layer.name,
                    "image": image,
                    "kind": kind,
                    "expected": expected,
                    "got": str(got),
                }
            )

    def report(self, stage: str, done: int, total: int) -> None:
        """Add a line of progress for the parent."""
        with (self.folder / "progress.jsonl").open("a") as file:
            file.write(json.dumps([stage, done, total]) + "\n")

    def save(self) -> None:
        """Write what was found."""
        result = {
            "compared": self.compared,
            "differences": self.differences,
            "layers": self.layers,
            "hang": self.hang,
            "origin": self.origin,
            "simulated_cycles": self.dut.cycle.value.to_unsigned() if self.simulated else 0,
            "kept": self.kept,
        }
        (self.folder / "result.json").write_text(json.dumps(result))


async def _deaf_sink(dut: Any, last: int) -> None:
    taken = 0
    dut.o__ready.value = 1
    while True:
        await RisingEdge(dut.clk)
        taken += bool(dut.o__valid.value)
        if taken >= last:
            dut.o__ready.value = 0
            return


@cocotb.test()
async def run(dut: Any) -> None:
    """Run the job; what it finds is in ``result.json``, differences are not exceptions."""
    bench = Bench(dut, Path(os.environ["PRAP_JOB"]))
    await bench.start()
    try:
        await bench.run()
    except HangError:
        pass
    finally:
        bench.save()
