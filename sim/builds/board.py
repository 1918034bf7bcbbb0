"""A simulated board as a library: its serial line, called from Python."""

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np

from prap_hw.board.top import TOP
from sim.builds import tools, verilator
from sim.kept import CACHE

HERE = Path(__file__).resolve().parent

CELLS = HERE / "cells.v"
"""Models of the boards' phase-locked loops."""

FLAGS = (
    "-O3",
    "--assert",
    "--x-initial",
    "unique",
    "--output-split",
    "0",
)
"""Verilator's flags."""

NETLIST_FLAGS = (
    "-Wno-lint",
    "-Wno-style",
    "-Wno-UNOPTFLAT",
    "-Wno-SPECIFYIGN",
    "-Wno-INITIALDLY",
    "-Wno-MULTIDRIVEN",
    "-Wno-BLKANDNBLK",
    "-Wno-ASSIGNIN",
    "-Wno-TIMESCALEMOD",
    "--no-timing",
)
"""The same where the Verilog is a netlist: of what Yosys writes and models, no warning is ours."""

SEED = 2023
"""Seed of the random contents with which memories begin."""


def build(
    verilog: str,
    divisor: int,
    *,
    cells: tuple[Path, Path] | None = None,
    top: str = TOP,
    cache: Path | str = CACHE,
) -> Path:
    """Build a board as a library, or find the finished build.

    Parameters
    ----------
    verilog, top
        Text of the board's top, and its name: what Amaranth writes, or a netlist.
    divisor
        Cycles of a bit of the serial line.
    cells
        Where it is a netlist, a Verilog file with the models of its cells, and a folder of files
        that this includes.

    Raises
    ------
    InputError
        A tool is missing.
    RuntimeError
        Verilator or the compiler refuses; the message has the end of the log.
    """
    tools.require()
    found = verilator.find()
    flags = [*FLAGS, *(NETLIST_FLAGS if cells else ("-Wall",))]
    sources = [verilator.WAIVERS, CELLS, HERE / "board.cpp"]
    included = [] if cells is None else [cells[0], *sorted(cells[1].glob("*.v*"))]
    digest = verilator.hash_of(
        [path.read_text(encoding="utf-8") for path in [*sources, *included]],
        [verilog, top, divisor],
        flags,
        [verilator.FAST, verilator.SLOW],
        found.version,
        os.environ.get("CXX", ""),
        verilator.processor(),
    )
    with verilator.draft(cache, digest, verilator.LIBRARY) as (place, work):
        if work is not None:
            (work / f"{top}.v").write_text(verilog, encoding="utf-8")
            verilate = [
                *flags, "--prefix", "Vboard", "--top-module", top,
                verilator.WAIVERS, CELLS, *([] if cells is None else [f"-I{cells[1]}", cells[0]]),
                f"{top}.v",
            ]  # fmt: skip
            defines = {"PRAP_DIVISOR": str(divisor)}
            # Of a netlist the compiler's time counts more than that of a run.
            fastest = verilator.FAST if cells is None else verilator.SLOW
            verilator.compile_library(work, found, verilate, HERE / "board.cpp", defines, fastest)
            verilator.finish(work, place, work / verilator.LIBRARY)
    return place / verilator.LIBRARY


class SimulatedBoard:
    """A board whose clock runs where it is told to.

    It is a line as :class:`prap_hw.driver.serial.SerialTransport` takes one, in which time is that
    of the board's clock: nothing depends on the speed of this machine. A process may have several
    boards, and each begins with other contents of its memories than zero.

    Parameters
    ----------
    library
        What :func:`build` made.
    khz
        The board's clock.
    seed
        Of the contents with which its memories begin.

    Attributes
    ----------
    timeout
        Seconds of the board's time that a read waits.
    """

    def __init__(self, library: Path, khz: int, *, seed: int = SEED):
        self._call = _functions(library)
        self._handle = self._call.board_new(seed)
        self.khz = khz
        self.timeout: float | None = 0.0
        self._kept = bytearray()
        self._buffer = np.zeros(1 << 16, np.uint8)

    def __enter__(self) -> "SimulatedBoard":
        return self

    def __exit__(self, *_: object) -> None:
        self._call.board_free(self._handle)
        self._handle = None

    @property
    def in_waiting(self) -> int:
        """Bytes that the board has sent and that were not read."""
        return len(self._kept)

    def read(self, size: int = 1, /) -> bytes:
        """Take bytes; the board runs until there are so many or the timeout is over."""
        if len(self._kept) < size:
            seconds = 1e9 if self.timeout is None else self.timeout
            self.run(int(seconds * self.khz * 1000) + 1, enough=size - len(self._kept))
        taken = bytes(self._kept[:size])
        del self._kept[:size]
        return taken

    def write(self, data: bytes, /) -> int:
        """Send bytes, in the cycles to come."""
        octets = np.frombuffer(bytes(data), np.uint8)
        self._call.board_send(self._handle, octets, len(octets))
        return len(data)

    def now(self) -> float:
        """Seconds of the board's time."""
        return self.cycles / (self.khz * 1000)

    def run(self, cycles: int, *, enough: int | None = None) -> None:
        """Let the clock run so many cycles, or until so many bytes have come, 65536 at most."""
        most = len(self._buffer) if enough is None else min(enough, len(self._buffer))
        found = self._call.board_run(self._handle, cycles, self._buffer, most)
        if found < 0:
            text = self._call.board_error(self._handle).decode(errors="replace")
            raise RuntimeError(f"the simulated board failed: {text}")
        self._kept += self._buffer[:found].tobytes()

    def press(self, down: bool) -> None:
        """Press the button, or let it go."""
        self._call.board_press(self._handle, int(down))

    @property
    def cycles(self) -> int:
        """Clock cycles so far."""
        return self._figures()[0]

    @property
    def leds(self) -> int:
        """The lamps, a bit each."""
        return self._figures()[1]

    @property
    def line_busy(self) -> bool:
        """Whether a byte is on its way."""
        return bool(self._figures()[2])

    @property
    def broken(self) -> int:
        """Bytes of the board with a wrong stop bit."""
        return self._figures()[3]

    def _figures(self) -> list[int]:
        figures = np.zeros(4, np.uint64)
        self._call.board_figures(self._handle, figures)
        return figures.tolist()


def _functions(library: Path) -> ctypes.CDLL:
    """Load the library and say what its functions take."""
    call = ctypes.CDLL(str(library))
    handle, count = ctypes.c_void_p, ctypes.c_uint64
    octets = np.ctypeslib.ndpointer(np.uint8, flags="C_CONTIGUOUS")
    words = np.ctypeslib.ndpointer(np.uint64, flags="C_CONTIGUOUS")
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "board_new": (handle, [ctypes.c_int]),
        "board_free": (None, [handle]),
        "board_error": (ctypes.c_char_p, [handle]),
        "board_send": (None, [handle, octets, count]),
        "board_press": (None, [handle, ctypes.c_int]),
        "board_run": (ctypes.c_int64, [handle, count, octets, count]),
        "board_figures": (None, [handle, words]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(call, name)
        function.restype, function.argtypes = result, arguments
    return call
