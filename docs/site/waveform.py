"""Draw docs/images/waveform.png: one group converts while the one before it merges.

    python docs/site/waveform.py

The second layer of the demo's network runs through the RTL of the demo's engine; signals come from
the waveform that ``prap cosim --waves`` writes, and nothing is drawn that is not in it. Which group
a request, an answer or a reuse word belongs to is counted off from the program: each group has so
many of them, and the engine keeps the order.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pywellen
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from prap_hw.app import workflow
from prap_hw.app.demo import ENGINE
from refmodel import digits, golden
from refmodel.config import EngineConfig
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.images import Preprocess
from refmodel.program import sizes
from refmodel.program.layer import LayerProgram
from sim.job import Job, Window
from sim.protocol import simulate
from sim.waves import BENCH, CYCLE

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs/images/waveform.png"

LAYER = 1
FIRST, LAST = 0, 960
"""Cycles that are recorded: from the start on, so that events can be counted off."""

SHOWN = 575
"""The first cycle of the picture: the end of a position and the beginning of the next."""

COLOURS = ("#4878a8", "#e0924a", "#6aa56a", "#b56576", "#8172b2", "#7f7f7f")


class Signals:
    """A waveform: values of signals in its cycles, before the edge that ends each."""

    def __init__(self, path: Path):
        self.all = {each.full_name: each for each in pywellen.Waveform(str(path)).all_vars()}

    def events(self, *names: str) -> np.ndarray:
        """Cycles in which all these signals of the engine are high."""
        held = [
            np.array([int(signal.value_at(c * CYCLE + CYCLE - 1)) for c in range(FIRST, LAST + 1)])
            for signal in (self.all[_path(name)].signal for name in names)
        ]
        return FIRST + np.flatnonzero(np.logical_and.reduce(held))


def _path(name: str) -> str:
    """Full name of a block's signal."""
    within = "engine" if name.startswith("requantise.") else "engine.core"
    return f"{BENCH}.dut.{within}.{name}"


def per_group(layer: LayerProgram, config: EngineConfig) -> dict[str, np.ndarray]:
    """How many of each each group of a position has: bytes, requests, slots, reuse words' steps."""
    segments = np.repeat(np.arange(len(layer.gather_segments)), layer.gather_segments)
    run = np.where(layer.full_offsets, layer.segment_length, layer.gather_length[segments])
    read = np.bincount(segments, run, len(layer.gather_segments)).astype(int)
    columns = layer.gather_patterns * (8 // config.cell_bits)
    ous = -(-columns // config.ou_cols)
    owner = np.repeat(np.arange(len(ous)), ous)
    requests = np.bincount(owner[golden.requests(layer, config).ou], minlength=len(ous))
    gathers = np.repeat(np.arange(len(layer.group_gathers)), layer.group_gathers)
    lanes = config.merge_lanes
    last = layer.group_first_output + layer.group_outputs - 1
    blocks = last // lanes - layer.group_first_output // lanes + 1
    return {
        "bytes": np.bincount(gathers, read).astype(int),
        "requests": np.bincount(gathers, requests).astype(int),
        "slots": layer.group_kept,
        "steps": blocks * layer.terms,
    }


def owners(counts: np.ndarray, events: int) -> np.ndarray:
    """Group, counted over positions, of each of the first ``events`` events."""
    rounds = -(-events // int(counts.sum()))
    return np.repeat(np.arange(rounds * len(counts)), np.tile(counts, rounds))[:events]


def draw(
    axes: Axes,
    row: float,
    cycles: np.ndarray,
    owner: np.ndarray,
    names: Sequence[str],
    colours: Sequence[str] = COLOURS,
) -> None:
    """Draw events as blocks of a cycle, in the colour of what they belong to, with its name."""
    for each in np.unique(owner[cycles >= SHOWN]):
        own = cycles[(owner == each) & (cycles >= SHOWN)]
        axes.broken_barh(
            [(cycle, 1) for cycle in own.tolist()],
            (row - 0.36, 0.72),
            color=colours[each % len(colours)],
            linewidth=0,
        )
        # The name stands in the longest run without a gap, if it fits.
        runs = np.split(own, np.flatnonzero(np.diff(own) > 1) + 1)
        longest = max(runs, key=len)
        if len(longest) > 3.5 * len(names[each]):
            middle = longest[0] + len(longest) / 2
            style = {"ha": "center", "va": "center", "fontsize": 9, "color": "white"}
            axes.text(middle, row, names[each], **style)


def main() -> None:
    """Simulate, and draw what the waveform has."""
    images = digits.digits_images()
    preprocess = Preprocess(scale=digits.PIXEL_SCALE, layout="nhw")
    program = workflow.compile_floats(
        load_onnx(digits.network_path("prap")),
        images.calibration_x,
        preprocess,
        scheme="prap",
        settings=digits.SETTINGS,
    )
    layer = program.layers[LAYER]
    config = sizes.engine_config_for(program.layers, ENGINE)
    codes = golden.quantise_input(program, preprocess.apply(images.x[:1], (1, 8, 8)))
    window = Window(first=FIRST, last=LAST, layer=layer.name)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            program=program,
            codes=codes,
            config=config,
            folder=folder,
            window=window,
            cache=ROOT / "build" / "cache",
        )
        result = simulate(job)
        assert result.difference is None, result.difference
        assert result.window is not None
        signals = Signals(result.window)

    counts = per_group(layer, config)
    groups = len(layer.group_kept)
    rows = [
        ("gather.reading", "bytes", signals.events("gather.reading")),
        (
            "ou_engine.o_request",
            "requests",
            signals.events("ou_engine.o_request__valid", "ou_engine.o_request__ready"),
        ),
        (
            "crossbar.response",
            "requests",
            signals.events("shift_add.i_response__valid", "shift_add.i_response__ready"),
        ),
        ("store.trace", "slots", signals.events("store.trace__valid")),
        (
            "merge.i_words",
            "steps",
            signals.events("merge.i_words__valid", "merge.i_words__ready"),
        ),
    ]
    figure, axes = plt.subplots(figsize=(11, 3.4))
    for number, (_, kind, cycles) in enumerate(rows):
        owner = owners(counts[kind], len(cycles))
        names = [f"p{each // groups} g{each % groups}" for each in range(owner.max() + 1)]
        draw(axes, -number, cycles, owner, names)
    outputs = signals.events("requantise.o__valid", "requantise.o__ready")
    owner = np.arange(len(outputs)) // layer.out_shape[2]
    draw(axes, -len(rows), outputs, owner, [f"p{p}" for p in range(owner.max() + 1)], ["#333333"])
    labels = [*(name for name, _, _ in rows), "requantise.o"]
    axes.set_yticks(
        [-number for number in range(len(labels))], labels, family="monospace", fontsize=9
    )
    axes.set_xlim(SHOWN, LAST + 1)
    axes.set_ylim(-len(labels) + 0.4, 0.6)
    axes.set_xlabel("cycle since start")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=150, metadata={"Software": None})
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
