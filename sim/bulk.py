"""The bulk tier: the emitted Verilog as a library behind whole arrays, for whole networks.

It does what the tier ``protocol`` does, with the clock in C++ (``bulk.cpp``) instead of
under cocotb: the same engine with its emulated crossbars, loaded through the same streams, compared
with the same golden model. Accumulators and outputs are always compared; requests, ADC codes and
partial sums on demand, since the golden model takes longer for them than the simulation.

Results of the hardware are kept, layer by layer and image by image, as digests under the digest of
the library, the loaded program and the input. A later run takes it from there if the golden model,
which is always asked anew, gives the same; where it does not, the simulation runs again.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prap_hw.deliver.load import layer_image, padded_input
from refmodel import files, golden
from refmodel.program.layer import LayerProgram
from sim import plant, record, simulator
from sim.builds.engine import build_library, payload_fields
from sim.builds.library import Engine
from sim.comparison import compare, counter_differences
from sim.job import Job
from sim.kept import Kept, digest
from sim.prepare import prepared
from sim.results import KINDS, RESULTS, CosimResult, Difference, LayerResult
from sim.words import pack, unpack


def simulate(job: Job) -> CosimResult:
    """Run input codes through the RTL of an engine in the bulk tier, layer after layer.

    A layer's input is what the hardware made of the layer before, taken through the host's steps.
    The digests of what layers gave are kept in ``kept/`` in the job's folder.

    Raises
    ------
    InputError
        A tool is missing, a layer does not fit, there is nothing to plant in, or no layer to show.
    RuntimeError
        The library could not be built, or the simulated engine failed by itself.
    """
    if job.plant == "code":
        raise ValueError(f"plant must be shift or index in the bulk tier, not {job.plant!r}")
    job, predicted = prepared(job)
    files.make_folder(Path(job.folder) / "kept")
    keep = None if job.window is None else record.layer_of(job.program, job.window)
    planted, loaded, _ = plant.choose(job.program, job.codes, job.config, job.plant, job.seed)

    began = time.monotonic()
    library = build_library(job.config, cache=job.cache, progress=job.progress)
    built = time.monotonic()
    with Engine(library, job.config) as engine:
        network = _Network(job, engine, predicted["layers"], loaded, library, keep)
        logits = network.run(job.codes)
        simulated = engine.cycles
    seconds = time.monotonic() - built
    shown = None
    if keep is not None and network.input_kept is not None:
        shown = keep, network.input_kept
    wave, window = record.record_found(
        job,
        simulator.settings_of(job.config, predicted),
        loaded,
        network.failing if job.record_difference else None,
        shown,
    )
    return CosimResult(
        compared={
            kind: network.compared[kind] | {"expected": predicted["expected"][kind]}
            for kind in (KINDS if job.every_value else RESULTS)
        },
        layers=tuple(network.layers),
        logits=logits,
        difference=network.differences[0] if network.differences else None,
        differences=tuple(network.differences),
        waveform=wave,
        window=window,
        planted=planted,
        simulated_cycles=simulated,
        seconds=seconds,
        build_seconds=built - began,
        engine_seconds=engine.seconds,
        kept=network.kept,
    )


class _Network:
    """A network on its way through one engine, and what was found."""

    def __init__(
        self,
        job: Job,
        engine: Engine,
        predicted: Sequence[Mapping[str, Any]],
        loaded: Mapping[int, LayerProgram],
        library: Path,
        keep: int | None = None,
    ):
        self.job = job
        self.program = job.program
        self.config = job.config
        self.engine = engine
        self.predicted = predicted
        self.loaded = loaded
        self.library = library.parent.name
        # Input codes for waveforms: of the first difference, with its layer and image, and of the
        # first image of a layer that was asked for.
        self.failing: tuple[int, int, np.ndarray] | None = None
        self.keep = keep
        self.input_kept: np.ndarray | None = None
        self.fields = payload_fields(job.config)
        self.compared = {kind: {"values": 0, "different": 0} for kind in KINDS}
        self.differences: list[Difference] = []
        self.layers: list[LayerResult] = []
        self.kept = 0
        self.slots_done = 0

    def run(self, codes: np.ndarray) -> np.ndarray | None:
        """Run all steps; returns the network's output codes, None after a hang."""
        tensors = {**self.job.inputs, self.program.input: codes}
        for step in self.program.steps:
            inputs = [tensors[name] for name in step.inputs]
            if step.op == "layer":
                result = self.run_layer(step.params["index"], inputs[0])
                if result is None:
                    return None
            else:
                result = golden.run_step(self.program, step, inputs)
            tensors[step.output] = result
        return tensors[self.program.output]

    def run_layer(self, index: int, codes: np.ndarray) -> np.ndarray | None:
        """Run images through a layer; returns its output codes, None after a hang."""
        layer = self.program.layers[index]
        stage = f"simulate {layer.name}"
        self.job.progress(stage, 0, len(codes))
        image = layer_image(self.loaded.get(index, layer), self.config)
        name = digest(self.library, *(repr(part) for part in (image.words, image.beats)))
        kept = Kept(Path(self.job.folder) / "kept" / f"{name}.jsonl", fresh=self.job.fresh)
        limit = 2 * self.predicted[index]["cycles"] + 2000
        loaded = False
        cycles: list[int] = []
        first: Mapping[str, int] = {}
        result = np.zeros((len(codes), *layer.out_shape), np.uint8)
        outcome: np.ndarray | None = result
        if index == self.keep:
            self.input_kept = codes[:1]
        for number in range(len(codes)):
            acts = padded_input(layer, codes[number])
            wanted = self.wanted(layer, codes[number])
            digests = {kind: digest(wanted[kind]) for kind in RESULTS}
            found = None if self.job.every_value else kept.find(digest(acts), digests)
            if found is not None:
                taken, counters = found
                records = wanted
                self.kept += 1
                hung = False
            else:
                if not loaded:
                    self.engine.load(image)
                    loaded = True
                run = self.engine.run(
                    acts, self.predicted[index]["records"], limit, every_value=self.job.every_value
                )
                taken, counters, records, hung = run.cycles, run.counters, run.records, run.hung
                if not hung:
                    given = {kind: digest(run.records[kind]) for kind in RESULTS}
                    kept.add(digest(acts), given, run.cycles, run.counters)
            self.compare(index, number, codes[number], records, wanted)
            cycles.append(taken)
            first = first or counters
            if hung:
                self.add(index, number, "hang", "an end", self.missing(index, limit, records))
            else:
                different = counter_differences(counters, taken, self.predicted[index])
                for kind, expected, got in different:
                    self.add(index, number, kind, expected, str(got))
            if self.differences and self.failing is None:
                self.failing = index, number, codes[number : number + 1]
            if hung:
                outcome = None
                break
            outputs = (records["outputs"][:, 0] & np.uint64(0xFF)).astype(np.uint8)
            result[number] = np.resize(outputs, result[number].size).reshape(layer.out_shape)
            self.job.progress(stage, number + 1, len(codes))
        self.layers.append(
            LayerResult(
                name=layer.name,
                cycles_predicted=self.predicted[index]["cycles"],
                cycles_simulated=tuple(cycles),
                counters=first,
            )
        )
        return outcome

    def wanted(self, layer: LayerProgram, codes: np.ndarray) -> dict[str, np.ndarray]:
        """Words of accumulators and outputs that the golden model gives, uint64 [n, 1]."""
        if self.config.lossless:
            sums = golden.accumulators(layer, codes[None])
        else:
            # Clipped codes make other sums: each must be computed, which takes longer.
            sums = golden.serial_accumulators(layer, codes[None], self.config)
        sums = sums[0].reshape(layer.positions, -1)
        output = np.arange(layer.out_shape[2])
        words = {
            "accumulators": pack(self.fields["acc"], output=output, acc=sums),
            "outputs": pack(
                self.fields["output"],
                code=golden.output_codes(layer, sums),
                channel=output,
                last=output == len(output) - 1,
            ),
        }
        return {kind: each.reshape(-1, 1) for kind, each in words.items()}

    def compare(
        self,
        index: int,
        image: int,
        codes: np.ndarray,
        records: Mapping[str, np.ndarray],
        wanted: Mapping[str, np.ndarray],
    ) -> None:
        """Compare what an image left behind, and count."""
        layer = self.program.layers[index]
        if self.job.every_value:
            found = compare(
                layer,
                codes,
                self.config,
                self.fields,
                dict(records),
                self.slots_done,
                self.compared,
            )
            self.slots_done += int(layer.group_kept.sum()) * self.config.blocks_of(layer.positions)
            for each in found:
                place = tuple(each["position"])
                self.add(
                    index, image, each["kind"], each["expected"], each["got"], place, each["where"]
                )
            return
        for kind in RESULTS:
            want, got = wanted[kind][:, 0], records[kind][:, 0]
            both = min(len(want), len(got))
            wrong = want[:both] != got[:both]
            different = int(np.count_nonzero(wrong)) + abs(len(want) - len(got))
            self.compared[kind]["values"] += len(got)
            self.compared[kind]["different"] += different
            if different:
                at = int(np.flatnonzero(wrong)[0]) if wrong.any() else both
                self.describe(index, image, kind, want[at : at + 1], got[at : at + 1], at)

    def describe(
        self, index: int, image: int, kind: str, want: np.ndarray, got: np.ndarray, at: int
    ) -> None:
        """Note the first difference of a kind; ``want`` or ``got`` is empty where there is none."""
        layer = self.program.layers[index]
        fields = self.fields["acc" if kind == "accumulators" else "output"]
        parts = [
            unpack(fields, int(word[0]), ("acc",)) if len(word) else {} for word in (want, got)
        ]
        names = [name for name in fields if parts[0].get(name) != parts[1].get(name)]
        texts = [
            ", ".join(f"{name} {part[name]}" for name in names) if part else "nothing"
            for part in parts
        ]
        # What is too much is counted on from the last position.
        position = min(at // layer.out_shape[2], layer.positions - 1)
        place = divmod(position, layer.out_shape[1])
        where = f"output {at - position * layer.out_shape[2]}"
        self.add(index, image, kind, texts[0], texts[1], place, where)

    def add(
        self,
        index: int,
        image: int,
        kind: str,
        expected: str,
        got: str,
        position: tuple[int, int] | None = None,
        where: str = "",
    ) -> None:
        """Note a difference."""
        self.differences.append(
            Difference(
                layer=self.program.layers[index].name,
                image=image,
                kind=kind,
                position=position,
                where=where,
                expected=expected,
                got=got,
            )
        )

    def missing(self, index: int, limit: int, records: Mapping[str, np.ndarray]) -> str:
        """Say in words what a run that did not end lacks."""
        lacking = [
            f"{len(words)} of {self.predicted[index]['records'][kind]} {kind.replace('_', ' ')}"
            for kind, words in records.items()
            if len(words) != self.predicted[index]["records"][kind]
        ]
        return f"still busy after {limit} cycles, with {', '.join(lacking) or 'all values'}"
