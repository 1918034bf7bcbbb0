"""Small boards in Verilator: an engine of a few words in its shell, behind the serial line."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from prap_hw.board.top import TOP, BoardTop
from prap_hw.deliver.load import padded_input
from prap_hw.deliver.packets import engine_image
from prap_hw.deliver.verilog import written
from prap_hw.driver import Image
from prap_hw.shell.host_shell import engine_shell
from refmodel import golden
from refmodel.predict.cycles import predict
from sim import board
from tests.support.layers.hand import TINY_ENGINE, hand_codes, hand_layer

CONFIG = replace(TINY_ENGINE, trace=False)

DIVISOR = 4
"""Cycles of a bit: as few as there may be, for speed."""

KHZ = 1000
"""A clock that nobody has: seconds of the board are few cycles then."""

PATIENCE = 0.04
"""Seconds without an answer: four frames of the longest kind."""


@dataclass(frozen=True)
class SmallBoard:
    """A board, what is loaded into it, and inputs with the outputs that they have."""

    model: Path
    image: Image
    codes: np.ndarray
    expected: np.ndarray
    cycles: int


@cache
def verilog() -> str:
    """The Verilog of a small board."""
    return written(BoardTop(engine_shell(CONFIG), khz=KHZ, divisor=DIVISOR), TOP)


def small_board(inputs: int = 4) -> SmallBoard:
    """Build the board, or find it built."""
    layer = hand_layer([[(5, 3)], [(3, 2), (2, 1)]], outputs=11, positions=3)
    images = hand_codes(layer, images=inputs)
    expected = np.asarray(golden.run_layer(layer, images), np.uint8).reshape(inputs, -1)
    return SmallBoard(
        model=board.build(verilog(), DIVISOR),
        image=engine_image(layer, CONFIG),
        codes=np.stack([padded_input(layer, codes).reshape(-1) for codes in images]),
        expected=expected,
        cycles=predict(layer, CONFIG).cycles,
    )
