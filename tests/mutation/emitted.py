"""``python -m tests.mutation.emitted shell|board``: digest of the Verilog of small hardware."""

import hashlib
import sys
from dataclasses import replace

from prap_hw.deliver.delivery import parts, sizes
from prap_hw.deliver.verilog import engine_verilog
from refmodel.config import PRESETS

SMALL = PRESETS["small"]

ENGINES = (
    replace(SMALL, trace=True, merge_lanes=4, adcs=3, dac_bits=2, ous_per_pattern=4),
    replace(SMALL, trace=False, cell_bits=4, adcs=8, merge_lanes=2, ous_per_pattern=2),
    replace(SMALL, trace=False, cell_bits=2, adcs=2, dac_bits=4, adc_bits=5),
)
"""Engines with what the preset lacks."""


def shell() -> list[str]:
    """Verilog of the preset `small`, shells and accelerator among it, and of other engines."""
    delivered = [part.verilog for part in parts(sizes(replace(SMALL, trace=False)))]
    return delivered + [engine_verilog(config) for config in ENGINES]


def board() -> list[str]:
    """Verilog of a small engine on a board."""
    from tests.support.rtl import boards

    return [boards.verilog()]


if __name__ == "__main__":
    texts = {"shell": shell, "board": board}[sys.argv[1]]()
    print(hashlib.sha256("\0".join(texts).encode()).hexdigest())
