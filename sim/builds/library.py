"""The engine's Verilog as a library behind whole arrays: its functions, called from Python."""

import ctypes
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prap_hw.common.layouts import COUNTERS
from prap_hw.deliver.load import LayerImage
from refmodel.config import EngineConfig
from sim.results import KINDS, QUIET, RESULTS
from sim.words import split

SLICE = 1 << 19
"""Cycles that the library runs in one call, a tenth of a second: between calls Python is heard."""

EXTRA = 64
"""Records for which there is room beyond the expected ones; more are taken, too, but slowly."""

SEED = 2023
"""Seed of the random contents with which memories begin."""

DONE, MORE, FULL = 0, 1, 2


class Run(NamedTuple):
    """The results of one image of a layer.

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
        A library that :func:`sim.builds.verilator.build_library` made.
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
        every_value: bool,
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
        every_value
            Whether all kinds are recorded, or :data:`sim.results.RESULTS` alone.
        settle
            Cycles to let go by between input and start.
        """
        self._check(self._timed(self._call.prap_acts, np.ascontiguousarray(acts), len(acts)))
        self.idle(settle)
        kinds = KINDS if every_value else RESULTS
        parts: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
        buffers = {
            kind: np.zeros((expected[kind] + EXTRA, self._each[kind]), np.uint64) for kind in kinds
        }
        self._record(buffers)
        self._check(self._timed(self._call.prap_start))
        status, left = MORE, limit
        while status != DONE and left > 0:
            status = self._check(
                self._timed(self._call.prap_run, min(SLICE, left), int(every_value))
            )
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
