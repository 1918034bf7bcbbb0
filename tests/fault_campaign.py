"""``python -m tests.fault_campaign``: flip bits in an engine's memories, and count what is found.

Two small layers, one with reuse words and one with full offsets and an identity map, run on an
engine that has nothing to spare, as emitted Verilog in Verilator. Every bit of every word of the
program that a run reads is flipped once where it lies, its parity bit too; the run must end in the
fault of that memory, and no wrong output may leave. Then the engine is reset and loaded again, and
the next run must be right. Words that no run of these layers reads cannot be found wrong, and are
left alone.

With ``--damages`` words are changed on their way to the memories, too, with the right parity: a
program that makes no sense. What is found then is what the checks of ranges can find; the rest runs
and gives other outputs, or stands, for the shell's watchdog to find. No read may leave a memory.

With ``--control`` the checks of parity are taken out of the Verilog, to see that the campaign finds
flips that are missed.

The tables go to the standard output. The exit code is 1 if a flip is missed, if anything wrong left
the engine, or if a run after it was not right.
"""

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prap_hw.faults import Fault
from prap_hw.layouts import Layouts, Space
from prap_hw.load import layer_image, padded_input
from prap_hw.verilog import TOP, engine_verilog
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.cycles import predict
from refmodel.program import LayerProgram
from sim import cosim, shell, verilator
from sim.memories import Memory, guard, program_memories, public
from tests.builders import random_codes, random_layer_program

CONFIG = EngineConfig(
    crossbar_size=64,
    crossbars=3,
    merge_lanes=2,
    slots=16,
    max_outputs=6,
    max_gathers=20,
    max_segments=40,
    max_groups=9,
    max_words=90,
    max_positions=6,
    activation_bytes=200,
    port_timeout=200,
    trace=False,
)
"""The engine: no depth is a power of two, so that addresses can be out of range."""

BATCH = 250
"""Flips of one simulation."""

PATIENCE = 3000
"""Cycles without any event after which a run is taken for hung: many times ``port_timeout``."""

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "faults"


def layers() -> dict[str, LayerProgram]:
    """The two layers by name; both use all kernel positions and have several groups."""
    sizes: dict[str, Any] = {
        "in_shape": (3, 4, 10),
        "outputs": 6,
        "kernel": (2, 3),
        "stride": (1, 1),
        "dilation": (1, 1),
        "pads": (0, 0, 1, 0),
    }
    rng = np.random.default_rng(3)
    reuse = random_layer_program(
        rng, identity=False, terms=2, groups=1, long_patterns=True, max_kept=4, **sizes
    )
    identity = random_layer_program(rng, identity=True, groups=2, long_patterns=True, **sizes)
    return {"reuse words": reuse, "identity map": identity}


class Flip(NamedTuple):
    """A bit of a word: which memory of the list, which word, which bit."""

    memory: int
    address: int
    bit: int


def words_read(layer: LayerProgram, config: EngineConfig) -> dict[Space, list[int]]:
    """Addresses of the words that a run reads, as the host gives them, by space."""
    layouts = Layouts(config)
    found: dict[Space, list[int]] = {}
    for word in layer_image(layer, config).words:
        item = layouts.load.from_bits(word)
        found.setdefault(item.space, []).append(item.addr)
    del found[Space.REGISTER]  # no memory
    positions = set(layer.segment_position.tolist())
    found[Space.TABLE] = [address for address in found[Space.TABLE] if address in positions]
    return found


def all_flips(
    layer: LayerProgram, config: EngineConfig, memories: Sequence[Memory]
) -> dict[Space, list[Flip]]:
    """Every bit of every word that a run reads, by kind of word."""
    flips: dict[Space, list[Flip]] = {}
    for space, addresses in words_read(layer, config).items():
        for number, memory in enumerate(memories):
            if memory.space is not space:
                continue
            lanes = config.merge_lanes if space is Space.WORD else 1
            words = [a // lanes for a in addresses if a % lanes == memory.lane]
            flips.setdefault(space, []).extend(
                Flip(number, word, bit) for word in words for bit in range(memory.width)
            )
    return flips


def damages(
    layer: LayerProgram, config: EngineConfig, count: int, seed: int
) -> list[tuple[int, int]]:
    """Words changed on their way: half in one bit, half with other data; (number, payload)."""
    draw = random.Random(seed)
    layouts = Layouts(config)
    words = layer_image(layer, config).words
    at, data = layouts.load["data"].offset, layouts.load["data"].width
    found = []
    for trial in range(count):
        number = draw.randrange(len(words))
        # Bits that are in use somewhere: the low ones of the data are in every memory.
        used = 1 + (words[number] >> at & ((1 << data) - 1)).bit_length()
        if trial % 2:
            changed = words[number] ^ 1 << draw.randrange(at + used)
        else:
            keep = words[number] & ((1 << at) - 1)
            changed = keep | draw.getrandbits(used) << at
        found.append((number, changed))
    return found


def classify_flip(trial: dict[str, Any], space: Space, outputs: int) -> str:
    """What became of a flip in a memory.

    ``detected`` with the right kind and memory, detected ``otherwise``; ``unnoticed``, and the
    outputs right; or ``wrong``: unnoticed, and other outputs, or none.
    """
    run = trial["run"]
    if run["kind"] == Fault.PARITY.value and run["space"] == space.value:
        return "detected"
    if run["kind"]:
        return "otherwise"
    right = run["outputs"] == outputs and not run["wrong"] and not run["hung"]
    return "unnoticed" if right else "wrong"


def classify_damage(trial: dict[str, Any], outputs: int) -> str:
    """What became of a word that was changed on its way.

    A kind of fault; ``length`` for fewer or more outputs than the layer has, ``other outputs`` for
    other ones, ``right`` for the same; ``stands`` where neither a fault nor an output came for
    :data:`PATIENCE` cycles.
    """
    run = trial["run"]
    if run["kind"]:
        return Fault(run["kind"]).name
    if run["hung"]:
        return "stands"
    if run["outputs"] != outputs:
        return "length"
    return "other outputs" if run["wrong"] else "right"


class Campaign:
    """The engine as a simulation, and its layers with inputs and outputs.

    Parameters
    ----------
    verilog
        The engine of :data:`CONFIG`, or a mutant of it.
    """

    def __init__(self, verilog: str):
        self.config = CONFIG
        self.memories = program_memories(verilog)
        verilog, self.flags = guard(verilog)
        widths = cosim.payload_widths(CONFIG)
        self.model = verilator.build(
            verilog,
            TOP[False],
            widths={name: widths[name] for name in ("LOAD", "CELLS", "OUT")},
            bench="bench_faults.sv",
            directives=public([*self.memories, *self.flags]),
            cache=ROOT / "build" / "cache",
        )
        self.layers = layers()
        rng = np.random.default_rng(4)
        self.images = {name: random_codes(rng, layer) for name, layer in self.layers.items()}

    def outputs(self, name: str) -> list[int]:
        """The golden model's codes."""
        return golden.run_layer(self.layers[name], self.images[name])[0].ravel().tolist()

    def trials(
        self,
        name: str,
        folder: Path,
        flips: Sequence[Flip] = (),
        damages: Sequence[tuple[int, int]] = (),
    ) -> list[dict[str, Any]]:
        """Run a layer once to each flip or damage.

        Raises
        ------
        RuntimeError
            The simulation failed, or a run without a fault was not right.
        """
        layer = self.layers[name]
        sent = layer_image(layer, self.config)
        outputs = self.outputs(name)
        contents = {
            "words": sent.words,
            "rows": sent.beats,
            "acts": padded_input(layer, self.images[name][0]).tolist(),
            "expected": outputs,
        }
        counts = {f"count_{key}": len(values) for key, values in contents.items()}
        job = {
            "contents": {key: [f"{v:x}" for v in values] for key, values in contents.items()},
            "counts": {**counts, "patience": PATIENCE},
            "memories": [asdict(memory) for memory in self.memories],
            "flags": [asdict(flag) for flag in self.flags],
            "flips": flips,
            "damages": [(number, f"{value:x}") for number, value in damages],
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.json").write_text(json.dumps(job))
        results = folder / "results.jsonl"
        results.unlink(missing_ok=True)
        wrong = shell.run(self.model, folder, "sim.bench_faults")["campaign"]
        if wrong is not None:
            raise RuntimeError(f"the campaign's bench failed: {wrong}")
        first, *found = [json.loads(line) for line in results.read_text().splitlines()]
        run = first["run"]
        if run["kind"] or run["wrong"] or run["hung"] or run["outputs"] != len(outputs):
            raise RuntimeError(f"expected a run without a fault to be right, found {run}")
        assert len(found) == len(flips) + len(damages)
        return found

    def flip(
        self, sample: int | None, seed: int, folder: Path = FOLDER
    ) -> dict[tuple[str, Space], Counter[str]]:
        """Flip every bit, or as many as ``sample`` of each kind of word; counts by layer and kind.

        Counts are those of :func:`classify_flip`, and ``bits``, ``leaked`` (a wrong output, or one
        after the fault) and ``not again`` (the run after the next load was not right).
        """
        counts: dict[tuple[str, Space], Counter[str]] = {}
        for name, layer in self.layers.items():
            outputs = len(self.outputs(name))
            work: list[tuple[Space, Flip]] = []
            for space, flips in all_flips(layer, self.config, self.memories).items():
                if sample is not None and sample < len(flips):
                    flips = random.Random(f"{seed}/{name}/{space.name}").sample(flips, sample)
                work += [(space, flip) for flip in flips]
                counts[name, space] = Counter(bits=len(flips))
            for begin in range(0, len(work), BATCH):
                batch = work[begin : begin + BATCH]
                found = self.trials(name, folder, flips=[flip for _, flip in batch])
                for (space, _), trial in zip(batch, found, strict=True):
                    count = counts[name, space]
                    count[classify_flip(trial, space, outputs)] += 1
                    count["leaked"] += bool(trial["run"]["wrong"] or trial["run"]["late"])
                    count["not again"] += not _right(trial["after"], outputs)
                tell(f"{name}: {begin + len(batch)} of {len(work)} bits flipped")
        return counts

    def damage(self, number: int, seed: int, folder: Path = FOLDER) -> dict[str, Counter[str]]:
        """Change ``number`` words of each layer on their way; counts by layer.

        Counts are those of :func:`classify_damage`, and ``outside`` (a memory was read beyond its
        end), ``late`` (an output after the fault) and ``not again``.
        """
        counts = {}
        for name, layer in self.layers.items():
            changed = damages(layer, self.config, number, seed)
            outputs = len(self.outputs(name))
            count = counts[name] = Counter(words=number)
            for trial in self.trials(name, folder, damages=changed):
                count[classify_damage(trial, outputs)] += 1
                count["outside"] += bool(trial["run"]["outside"])
                count["late"] += bool(trial["run"]["late"])
                count["not again"] += not _right(trial["after"], outputs)
            tell(f"{name}: {number} words changed")
        return counts


def tell(text: str) -> None:
    """Say how far the campaign is."""
    print(text, file=sys.stderr, flush=True)


def unchecked(verilog: str) -> str:
    """The engine without its checks of parity: the ones of what a memory gives are always odd.

    Raises
    ------
    ValueError
        A memory of the program has no such check.
    """
    check = re.compile(r"= \^ \\?\w*(read__data|stored)[\w.$]* ?;")
    modules = {memory.module for memory in program_memories(verilog)}
    texts = re.split(r"(?=^module )", verilog, flags=re.MULTILINE)
    for number, text in enumerate(texts):
        texts[number], removed = check.subn("= 1'h1;", text)
        modules -= {m for m in modules if removed and re.match(rf"module \\?{re.escape(m)} ", text)}
    if modules:
        raise ValueError(f"expected a check of parity in {sorted(modules)}, found none")
    return "".join(texts)


def _right(run: dict[str, int], outputs: int) -> bool:
    return run["outputs"] == outputs and not (run["kind"] or run["wrong"] or run["hung"])


FLIP_COLUMNS = ("bits", "detected", "otherwise", "unnoticed", "wrong", "leaked", "not again")
ENDS = ("RANGE", "PORT", "PARITY", "length", "other outputs", "right", "stands")
"""What :func:`classify_damage` says."""

DAMAGE_COLUMNS = ("words", *ENDS, "outside", "late", "not again")


def missed(counts: dict[tuple[str, Space], Counter[str]]) -> int:
    """Flips that were not found, or not by their own code, or led to anything wrong."""
    return sum(count[name] for count in counts.values() for name in FLIP_COLUMNS[2:])


def main() -> int:
    """Run the campaign, and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault_campaign", description=__doc__)
    parser.add_argument("--sample", type=int, help="bits of each kind of word; all by default")
    parser.add_argument("--damages", type=int, default=0, help="words of each layer to change")
    parser.add_argument("--control", action="store_true", help="without the checks of parity")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn")
    arguments = parser.parse_args()
    verilog = engine_verilog(CONFIG)
    campaign = Campaign(unchecked(verilog) if arguments.control else verilog)
    if arguments.sample is not None or arguments.damages:
        print(f"seed {arguments.seed}")
    for name, layer in campaign.layers.items():
        print(f"{name}: {predict(layer, CONFIG).cycles} cycles a run")
    counts = campaign.flip(arguments.sample, arguments.seed)
    print(f"\n| layer | words | {' | '.join(FLIP_COLUMNS)} |")
    print("|---|---|" + "---|" * len(FLIP_COLUMNS))
    for (name, space), count in counts.items():
        row = " | ".join(str(count[column]) for column in FLIP_COLUMNS)
        print(f"| {name} | {space.name} | {row} |")
    total: Counter[str] = sum(counts.values(), Counter())
    print(f"| both | all | {' | '.join(str(total[column]) for column in FLIP_COLUMNS)} |")
    bad = missed(counts)
    if arguments.damages:
        damaged = campaign.damage(arguments.damages, arguments.seed)
        print(f"\n| layer | {' | '.join(DAMAGE_COLUMNS)} |")
        print("|---|" + "---|" * len(DAMAGE_COLUMNS))
        for name, count in damaged.items():
            print(f"| {name} | {' | '.join(str(count[column]) for column in DAMAGE_COLUMNS)} |")
            bad += count["outside"] + count["late"] + count["not again"]
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
