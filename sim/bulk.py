"""The bulk tier: the emitted Verilog as a library behind whole arrays, for whole networks.

:func:`bulk` does what :func:`sim.cosim.cosim` does, with the clock in C++ (``bulk.cpp``) instead of
under cocotb: the same engine with its emulated crossbars, loaded through the same streams, compared
with the same golden model. Accumulators and outputs are always compared; requests, ADC codes and
partial sums on demand, since the golden model takes longer for them than the simulation.

What the hardware gave is kept, layer by layer and image by image, as digests under the digest of
the library, the loaded program and the input. A later run takes it from there if the golden model,
which is always asked anew, gives the same; where it does not, the simulation runs again.
"""

import ctypes
import dataclasses
import functools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prap_hw.common.layouts import COUNTERS
from prap_hw.deliver.load import LayerImage, layer_image, padded_input
from prap_hw.deliver.verilog import TOP, kept_verilog
from refmodel import files, golden
from refmodel.config import EngineConfig
from refmodel.golden.layer import check_codes
from refmodel.program import sizes
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from sim import bench_engine, cosim, verilator, waves
from sim.bench_engine import KINDS, QUIET, counter_differences
from sim.cosim import CosimResult, Difference, LayerResult, Progress
from sim.kept import Kept, digest
from sim.streams import pack, split, unpack

RESULTS = ("accumulators", "outputs")
"""The kinds that are always compared."""

SLICE = 1 << 19
"""Cycles that the library runs in one call, a tenth of a second: between calls Python is heard."""

EXTRA = 64
"""Records for which there is room beyond the expected ones; more are taken, too, but slowly."""

SEED = 2023
"""Of the random contents with which memories begin."""

DONE, MORE, FULL = 0, 1, 2


class Run(NamedTuple):
    """What one image of a layer left behind.

    Attributes
    ----------
    records
        Kind to uint64 [records, words].
    cycles
        From start accepted to the last output accepted.
    counters
        The engine's own.
    hung
        Whether it was still busy at the limit.
    """

    records: dict[str, np.ndarray]
    cycles: int
    counters: dict[str, int]
    hung: bool


class Engine:
    """One simulated engine: the library's functions with arrays.

    Parameters
    ----------
    library
        What :func:`sim.verilator.build_library` made.
    config
        The engine that it is.

    Attributes
    ----------
    seconds
        CPU seconds in the library so far.
    """

    def __init__(self, library: Path, config: EngineConfig):
        self._call = _functions(library)
        self.seconds = 0.0
        self._handle = self._call.prap_new(SEED, QUIET + 2 * config.crossbar_latency)
        if not self._handle:
            raise MemoryError("no memory for a simulated engine")
        sizes = np.zeros(2 + len(KINDS), np.uint64)
        self._call.prap_words(self._handle, sizes)
        self._load, self._cells, *each = (int(size) for size in sizes)
        self._each = dict(zip(KINDS, each, strict=True))

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self._call.prap_free(self._handle)
        self._handle = None

    @property
    def cycles(self) -> int:
        """Clock cycles since the engine was made."""
        return self._figures()["cycle"]

    def load(self, image: LayerImage) -> None:
        """Load a layer's program and cells through their streams."""
        words = split(image.words, self._load)
        beats = split(image.beats, self._cells)
        self._check(self._timed(self._call.prap_load, words, len(words)))
        self._check(self._timed(self._call.prap_cells, beats, len(beats)))

    def run(
        self,
        acts: np.ndarray,
        expected: Mapping[str, int],
        limit: int,
        *,
        every: bool,
        settle: int = 0,
    ) -> Run:
        """Load an input and run it.

        Parameters
        ----------
        acts
            uint8 [bytes], the padded input.
        expected
            Records of each kind that should come.
        limit
            Cycles after which the run is given up.
        every
            Whether all kinds are recorded, or :data:`RESULTS` alone.
        settle
            Cycles to let go by between input and start.
        """
        self._check(self._timed(self._call.prap_acts, np.ascontiguousarray(acts), len(acts)))
        self.idle(settle)
        kinds = KINDS if every else RESULTS
        parts: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
        buffers = {
            kind: np.zeros((expected[kind] + EXTRA, self._each[kind]), np.uint64) for kind in kinds
        }
        self._record(buffers)
        self._check(self._timed(self._call.prap_start))
        status, left = MORE, limit
        while status != DONE and left > 0:
            status = self._check(self._timed(self._call.prap_run, min(SLICE, left), int(every)))
            left -= SLICE
            if status == FULL:
                self._take(buffers, parts)
                self._record(buffers)
        self._take(buffers, parts)
        figures = self._figures()
        return Run(
            records={kind: np.concatenate(parts[kind]) for kind in kinds},
            cycles=figures["output_cycle"] - figures["start_cycle"],
            counters={name: figures[name] for name in COUNTERS},
            hung=bool(figures["busy"]),
        )

    def idle(self, cycles: int) -> None:
        """Let cycles go by."""
        none = np.zeros((0, self._load), np.uint64)
        for _ in range(cycles):
            self._check(self._timed(self._call.prap_load, none, 0))

    def _record(self, buffers: Mapping[str, np.ndarray]) -> None:
        for kind, buffer in buffers.items():
            number = KINDS.index(kind)
            self._call.prap_record(self._handle, number, buffer, *buffer.shape)

    def _take(
        self, buffers: Mapping[str, np.ndarray], parts: Mapping[str, list[np.ndarray]]
    ) -> None:
        for kind, buffer in buffers.items():
            count = self._call.prap_recorded(self._handle, KINDS.index(kind))
            parts[kind].append(buffer[:count].copy())

    def _timed(self, function: Any, *arguments: Any) -> int:
        before = time.thread_time()
        status = function(self._handle, *arguments)
        self.seconds += time.thread_time() - before
        return status

    def _check(self, status: int) -> int:
        if status < 0:
            text = self._call.prap_error(self._handle).decode(errors="replace")
            raise RuntimeError(f"the simulated engine failed: {text}")
        return status

    def _figures(self) -> dict[str, int]:
        names = ("busy", "cycle", "start_cycle", "output_cycle", *COUNTERS)
        figures = np.zeros(len(names), np.uint64)
        self._call.prap_figures(self._handle, figures)
        return dict(zip(names, figures.tolist(), strict=True))


def _functions(library: Path) -> ctypes.CDLL:
    """Load the library and say what its functions take."""
    call = ctypes.CDLL(str(library))
    handle, count = ctypes.c_void_p, ctypes.c_uint64
    words = np.ctypeslib.ndpointer(np.uint64, flags="C_CONTIGUOUS")
    octets = np.ctypeslib.ndpointer(np.uint8, flags="C_CONTIGUOUS")
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "prap_new": (handle, [ctypes.c_int, count]),
        "prap_free": (None, [handle]),
        "prap_error": (ctypes.c_char_p, [handle]),
        "prap_words": (None, [handle, words]),
        "prap_load": (ctypes.c_int, [handle, words, count]),
        "prap_cells": (ctypes.c_int, [handle, words, count]),
        "prap_acts": (ctypes.c_int, [handle, octets, count]),
        "prap_record": (None, [handle, ctypes.c_int, words, count, count]),
        "prap_recorded": (count, [handle, ctypes.c_int]),
        "prap_start": (ctypes.c_int, [handle]),
        "prap_run": (ctypes.c_int, [handle, count, ctypes.c_int]),
        "prap_figures": (None, [handle, words]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(call, name)
        function.restype, function.argtypes = result, arguments
    return call


def bulk(
    program: Program,
    codes: np.ndarray,
    config: EngineConfig,
    folder: Path | str,
    *,
    every: bool = False,
    fresh: bool = False,
    plant: str | None = None,
    seed: int = 0,
    waveform: bool = False,
    window: waves.Window | None = None,
    cache: Path | str = verilator.CACHE,
    progress: Progress | None = None,
) -> CosimResult:
    """Run input codes through the RTL of an engine in the bulk tier, layer after layer.

    A layer's input is what the hardware made of the layer before, taken through the host's steps.

    Parameters
    ----------
    program
        A compiled network; its layers must fit ``config``.
    codes
        Input codes, uint8 [N, H, W, C].
    config
        The engine, with emulated crossbars; it gets trace ports whether it has them or not.
    folder
        For ``predicted.json`` (written before anything is built or run) and ``kept/``, the digests
        of what layers gave.
    every
        Whether requests, ADC codes and partial sums are compared, too: then nothing is taken from
        earlier runs, and one image of a layer is held in memory, 24 bytes or more to a request.
    fresh
        Whether to simulate everything, whatever is kept.
    plant, seed
        A fault to plant, ``shift`` or ``index``, and how it is drawn; see :func:`sim.cosim.cosim`.
    waveform
        Whether to run the layer and image of the first difference again in the protocol tier, with
        a waveform of the cycles around it.
    window
        Cycles of a layer's first image to record there; see :func:`sim.cosim.cosim`.
    cache
        Where builds are kept.
    progress
        Is told of stages.

    Raises
    ------
    InputError
        A tool is missing, a layer does not fit, there is nothing to plant in, or no layer to show.
    RuntimeError
        The library could not be built, or the simulated engine failed by itself.
    """
    if plant not in (None, "shift", "index"):
        raise ValueError(f"plant must be shift or index in the bulk tier, not {plant!r}")
    check_codes(codes, tuple(program.tensors[program.input]["shape"]), program.input)
    tell = progress if progress is not None else cosim._silent
    config = dataclasses.replace(config, trace=True)
    for layer in program.layers:
        sizes.check_fits(layer, config)
    folder = Path(folder).absolute()
    files.make_folder(folder / "kept")
    for name in (*cosim._wave_files(cosim.WAVEFORM), *cosim._wave_files(cosim.WINDOW)):
        (folder / name).unlink(missing_ok=True)
    keep = None if window is None else cosim.layer_of(program, window)
    predicted = cosim.predict(program, config, len(codes))
    (folder / "predicted.json").write_text(json.dumps(predicted, indent=1) + "\n")
    planted, loaded, _ = cosim._plant(program, codes, config, plant, seed)

    began = time.monotonic()
    library = build(config, cache=cache, progress=tell)
    built = time.monotonic()
    with Engine(library, config) as engine:
        network = _Network(
            program,
            config,
            engine,
            predicted["layers"],
            loaded,
            library,
            folder,
            every,
            fresh,
            keep,
        )
        logits = network.run(codes, tell)
        simulated = engine.cycles
    seconds = time.monotonic() - built
    show = functools.partial(
        cosim.record,
        folder,
        cosim.job_of(config, predicted),
        program=program,
        loaded=loaded,
        config=config,
        cache=cache,
        tell=tell,
    )
    wave = recorded = None
    if waveform and network.failing is not None:
        index, image, acts = network.failing
        only = {"layer": index, "image": image}
        wave = cosim.of_difference(functools.partial(show, cosim.WAVEFORM, only, acts, None), tell)
    if window is not None and keep is not None and network.input_kept is not None:
        only = {"layer": keep, "image": 0}
        recorded = show(cosim.WINDOW, only, network.input_kept, window)
    return CosimResult(
        compared={
            kind: network.compared[kind] | {"expected": predicted["expected"][kind]}
            for kind in (KINDS if every else RESULTS)
        },
        layers=tuple(network.layers),
        logits=logits,
        difference=network.differences[0] if network.differences else None,
        differences=tuple(network.differences),
        waveform=wave,
        window=recorded,
        planted=planted,
        simulated_cycles=simulated,
        seconds=seconds,
        build_seconds=built - began,
        engine_seconds=engine.seconds,
        kept=network.kept,
    )


def build(
    config: EngineConfig,
    *,
    cache: Path | str = verilator.CACHE,
    progress: Progress | None = None,
) -> Path:
    """Build the library of an engine with trace ports, or find it built; returns its path."""
    tell = progress if progress is not None else cosim._silent
    tell("build the library", 0, 1)
    library = verilator.build_library(
        kept_verilog(config, cache=cache),
        TOP[False],
        widths=cosim.payload_widths(config),
        counters=COUNTERS,
        cache=cache,
    )
    tell("build the library", 1, 1)
    return library


class _Network:
    """A network on its way through one engine, and what was found."""

    def __init__(
        self,
        program: Program,
        config: EngineConfig,
        engine: Engine,
        predicted: Sequence[Mapping[str, Any]],
        loaded: Mapping[int, LayerProgram],
        library: Path,
        folder: Path,
        every: bool,
        fresh: bool,
        keep: int | None = None,
    ):
        self.program = program
        self.config = config
        self.engine = engine
        self.predicted = predicted
        self.loaded = loaded
        self.library = library.parent.name
        self.folder = folder
        self.every = every
        self.fresh = fresh
        # Input codes for waveforms: of the first difference, with its layer and image, and of the
        # first image of a layer that was asked for.
        self.failing: tuple[int, int, np.ndarray] | None = None
        self.keep = keep
        self.input_kept: np.ndarray | None = None
        self.fields = cosim.payload_fields(config)
        self.compared = {kind: {"values": 0, "different": 0} for kind in KINDS}
        self.differences: list[Difference] = []
        self.layers: list[LayerResult] = []
        self.kept = 0
        self.slots_done = 0

    def run(self, codes: np.ndarray, tell: Progress) -> np.ndarray | None:
        """Run all steps; returns the network's output codes, None after a hang."""
        tensors = {self.program.input: codes}
        for step in self.program.steps:
            inputs = [tensors[name] for name in step.inputs]
            if step.op == "layer":
                result = self.run_layer(step.params["index"], inputs[0], tell)
                if result is None:
                    return None
            else:
                result = golden.run_step(self.program, step, inputs)
            tensors[step.output] = result
        return tensors[self.program.output]

    def run_layer(self, index: int, codes: np.ndarray, tell: Progress) -> np.ndarray | None:
        """Run images through a layer; returns its output codes, None after a hang."""
        layer = self.program.layers[index]
        stage = f"simulate {layer.name}"
        tell(stage, 0, len(codes))
        image = layer_image(self.loaded.get(index, layer), self.config)
        name = digest(self.library, *(repr(part) for part in (image.words, image.beats)))
        kept = Kept(self.folder / "kept" / f"{name}.jsonl", fresh=self.fresh)
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
            found = None if self.every else kept.find(digest(acts), digests)
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
                    acts, self.predicted[index]["records"], limit, every=self.every
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
            tell(stage, number + 1, len(codes))
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
        if self.every:
            found = bench_engine._compare(
                layer,
                codes,
                self.config,
                self.fields,
                dict(records),
                self.slots_done,
                self.compared,
            )
            self.slots_done += int(layer.group_kept.sum()) * layer.positions
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
