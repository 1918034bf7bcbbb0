"""``python -m tests.fault_campaign``: flip bits in an engine's memories, and count what is found.

Two small layers, one with reuse words and one with full offsets and an identity map, run on an
engine that has nothing to spare, and a small network on an accelerator with one engine and on one
with two, as emitted Verilog in Verilator. Every bit of every word of the program that a run reads
is flipped once where it lies, its parity bit too; the run must end in the fault of that memory,
and no wrong output may leave. Then the engine is reset and loaded again, and the next run must be
right. Words that no run of these layers reads cannot be found wrong, and are left alone.

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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from amaranth.lib import data

from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Layouts, Space, TileLayouts
from prap_hw.deliver.load import command_words, layer_image, network_load, padded_input
from prap_hw.deliver.verilog import ACCELERATOR, TOP, accelerator_verilog, engine_verilog
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict.accelerator.operations import NetworkImage
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.prediction import predict_network
from refmodel.predict.accelerator.sizing import accelerator_config_for, network_needs
from refmodel.predict.cycles import predict
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from sim import shell
from sim.builds import verilator
from sim.builds.memories import Memory, guard, program_memories, public
from tests.support.layers.builders import random_codes, random_layer_program
from tests.support.nets import accelerator_nets

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What a core is loaded with, an input, and the right outputs.

    Attributes
    ----------
    name
        For the tables.
    words, rows, acts
        Payloads of the loading streams; of the last one its bytes.
    outputs
        Payloads of ``o`` by the golden model, in order: code, channel of a layer, and ``last``.
    read
        Engines and addresses of the words that a run reads where the host has put them, by space.
    cycles
        That a run is predicted to take.
    """

    name: str
    words: list[int]
    rows: list[int]
    acts: list[int]
    outputs: list[int]
    read: dict[Space, list[tuple[int, int]]]
    cycles: int


def loaded(words: Sequence[int], load: data.StructLayout) -> dict[Space, list[tuple[int, int]]]:
    """Engines and addresses of words for memories, by space."""
    found: dict[Space, list[tuple[int, int]]] = {}
    for word in words:
        item = load.from_bits(word)
        engine = item.engine if "engine" in load.members else 0
        found.setdefault(item.space, []).append((engine, item.addr))
    found.pop(Space.REGISTER, None)  # no memory
    return found


def stream_layouts(config: EngineConfig, engines: int) -> tuple[data.StructLayout, int]:
    """The layout of a program word, and the bits of a row of cells."""
    if engines == 1:
        layouts = Layouts(config)
        return layouts.load, layouts.cells.size
    tile = TileLayouts(config, engines)
    return tile.load, tile.cells.size


def layer_outputs(codes: np.ndarray, layout: data.StructLayout) -> list[int]:
    """Payloads of an engine's outputs; codes uint8 [positions.., channels]."""
    last = codes.shape[-1] - 1
    items: list[dict[Any, Any]] = [
        {"code": int(code), "channel": number % (last + 1), "last": number % (last + 1) == last}
        for number, code in enumerate(codes.ravel())
    ]
    return [layout.const(item).as_bits() for item in items]


def network_outputs(codes: np.ndarray, config: EngineConfig) -> list[int]:
    """Payloads of an accelerator's outputs; codes uint8 of the last tensor."""
    sent = Layouts(config).sent
    items: list[dict[Any, Any]] = [
        {"code": int(code), "last": number == codes.size - 1}
        for number, code in enumerate(codes.ravel())
    ]
    return [sent.const(item).as_bits() for item in items]


def layer_job(name: str, layer: LayerProgram, config: EngineConfig) -> Job:
    """A layer on an engine, with an input drawn by its name."""
    sent = layer_image(layer, config)
    read = loaded(sent.words, Layouts(config).load)
    positions = set(layer.segment_position.tolist())
    read[Space.TABLE] = [place for place in read[Space.TABLE] if place[1] in positions]
    codes = random_codes(np.random.default_rng(len(name)), layer)
    return Job(
        name=name,
        words=sent.words,
        rows=sent.beats,
        acts=padded_input(layer, codes[0]).tolist(),
        outputs=layer_outputs(golden.run_layer(layer, codes)[0], Layouts(config).output),
        read=read,
        cycles=predict(layer, config).cycles,
    )


def network_job(name: str, folder: Path, engines: int) -> tuple[Job, EngineConfig, int]:
    """A network of accelerator_nets; the accelerator that it needs, and words of its list.

    Where the network needs a power of two of anything, there is one more: no memory that a program
    leads to is read with addresses that all are in range. The list writes the table of kernel
    positions in a run, so that the host puts none there.
    """
    compiled = accelerator_nets.program(name, folder)
    base = EngineConfig(crossbar_size=32, dac_bits=4, merge_lanes=4, port_timeout=200)
    config = replace(accelerator_config_for(compiled, base, engines), trace=False)
    image = network_image(compiled, config, engines)
    needs = network_needs(image, compiled.layers, config)
    del needs["crossbars"]
    sizes = {name: need + (need & need - 1 == 0) for name, need in needs.items()}
    sizes["activation_bytes"] = max(65, sizes["activation_bytes"])
    config = replace(config, **sizes)
    sent = network_load(compiled, image, config)
    codes = accelerator_nets.codes(compiled, 1)
    tensors = golden.run_program(compiled, codes)
    read = loaded(sent.words, stream_layouts(config, engines)[0])
    if len(image.tables):
        read[Space.LOOKUP] = [(0, at) for at in looked_up(compiled, image, tensors)]
    parts = ["network"] if name == "chain" else ["network", name]
    job = Job(
        name=", ".join(parts if engines == 1 else [*parts, f"{engines} engines"]),
        words=sent.words,
        rows=sent.beats,
        acts=codes[0].ravel().tolist(),
        outputs=network_outputs(tensors[compiled.output][0], config),
        read=read,
        cycles=predict_network(image, compiled.layers, config).cycles,
    )
    return job, config, len(command_words(compiled, image, config))


def looked_up(
    compiled: Program, image: NetworkImage, tensors: Mapping[str, np.ndarray]
) -> list[int]:
    """Addresses of the entries of tables that one image leads to."""
    steps = {step.output: step for step in compiled.steps}
    found: set[int] = set()
    for operation in image.operations:
        if operation.tables is not None:
            before = tensors[steps[operation.name].inputs[0]][0].astype(int)
            numbers = operation.first_table + np.arange(len(operation.tables))
            found.update((numbers * 256 + before).ravel().tolist())
    return sorted(found)


def all_flips(job: Job, lanes: int, memories: Sequence[Memory]) -> dict[Space, list[Flip]]:
    """Every bit of every word that a run reads, by kind of word; ``lanes`` of reuse words."""
    flips: dict[Space, list[Flip]] = {}
    for space, places in job.read.items():
        for number, memory in enumerate(memories):
            if memory.space is not space:
                continue
            step = lanes if space is Space.WORD else 1
            own = [address for engine, address in places if engine == memory.engine]
            words = [address // step for address in own if address % step == memory.lane]
            flips.setdefault(space, []).extend(
                Flip(number, word, bit) for word in words for bit in range(memory.width)
            )
    return flips


def check_flips(
    job: Job, flips: Mapping[Space, Sequence[Flip]], memories: Sequence[Memory]
) -> None:
    """Check that flips are of every bit of every word that a run reads, once.

    Raises
    ------
    RuntimeError
        There are others, or none.
    """
    for space in job.read.keys() | flips.keys():
        widths = {memory.width for memory in memories if memory.space is space}
        there = len(set(job.read.get(space, ()))) * sum(widths)
        found = flips.get(space, ())
        if len(widths) != 1 or not there or not there == len(found) == len(set(found)):
            raise RuntimeError(
                f"expected {there} bits of {space.name} to flip, found {len(found)}, "
                f"{len(set(found))} of them different"
            )
    if not flips:
        raise RuntimeError(f"expected words of {job.name} to flip, found none")


def damages(job: Job, config: EngineConfig, count: int, seed: int) -> list[tuple[int, int]]:
    """Words changed on their way: half in one bit, half with other data; (number, payload).

    Every one differs from the right word, and from the others.
    """
    draw = random.Random(seed)
    layouts = Layouts(config)
    at, width = layouts.load["data"].offset, layouts.load["data"].width
    found: dict[tuple[int, int], None] = {}
    while len(found) < count:
        number = draw.randrange(len(job.words))
        word = job.words[number]
        # Bits that are in use, and one more.
        used = 1 + (word >> at & ((1 << width) - 1)).bit_length()
        if len(found) % 2:
            changed = word ^ 1 << draw.randrange(at + used)
        else:
            changed = word ^ draw.randrange(1, 1 << used) << at
        found[number, changed] = None
    return list(found)


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
    """A core as a simulation, and what it runs.

    Parameters
    ----------
    verilog, top
        An engine or accelerator without trace, or a mutant of it, and the name of its module.
    config, engines
        Sizes of its engines, and their number.
    jobs
        What it runs.
    """

    def __init__(
        self, verilog: str, top: str, config: EngineConfig, jobs: Sequence[Job], engines: int = 1
    ):
        self.config = config
        self.jobs = jobs
        self.memories = program_memories(verilog)
        verilog, self.flags = guard(verilog)
        load, cells = stream_layouts(config, engines)
        layouts = Layouts(config)
        output = layouts.sent if config.network else layouts.output
        self.model = verilator.build(
            verilog,
            top,
            widths={
                "LOAD": load.size,
                "CELLS": cells,
                "OUT": output.size,
            },
            bench="faults.sv",
            directives=public([*self.memories, *self.flags]),
            cache=ROOT / "build" / "cache",
        )

    def trials(
        self,
        job: Job,
        folder: Path,
        flips: Sequence[Flip] = (),
        damages: Sequence[tuple[int, int]] = (),
    ) -> list[dict[str, Any]]:
        """Run a job once to each flip or damage.

        Raises
        ------
        RuntimeError
            The simulation failed, or a run without a fault was not right.
        """
        contents = {
            "words": job.words,
            "rows": job.rows,
            "acts": job.acts,
            "expected": job.outputs,
        }
        counts = {f"count_{key}": len(values) for key, values in contents.items()}
        settings = {
            "contents": {key: [f"{v:x}" for v in values] for key, values in contents.items()},
            "counts": {**counts, "patience": PATIENCE},
            "memories": [asdict(memory) for memory in self.memories],
            "flags": [asdict(flag) for flag in self.flags],
            "flips": flips,
            "damages": [(number, f"{value:x}") for number, value in damages],
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.json").write_text(json.dumps(settings))
        results = folder / "results.jsonl"
        results.unlink(missing_ok=True)
        wrong = shell.run(self.model, folder, "sim.benches.faults")["campaign"]
        if wrong is not None:
            raise RuntimeError(f"the campaign's bench failed: {wrong}")
        first, *found = [json.loads(line) for line in results.read_text().splitlines()]
        if not _right(first["run"], len(job.outputs)):
            raise RuntimeError(f"expected a run without a fault to be right, found {first['run']}")
        assert len(found) == len(flips) + len(damages)
        return found

    def flip(
        self, sample: int | None, seed: int, folder: Path = FOLDER
    ) -> dict[tuple[str, Space], Counter[str]]:
        """Flip every bit, or as many as ``sample`` of each kind of word; counts by job and kind.

        Counts are those of :func:`classify_flip`, and ``bits``, ``leaked`` (a wrong output, or one
        after the fault) and ``not again`` (the run after the next load was not right).
        """
        counts: dict[tuple[str, Space], Counter[str]] = {}
        for job in self.jobs:
            name, outputs = job.name, len(job.outputs)
            work: list[tuple[Space, Flip]] = []
            every = all_flips(job, self.config.merge_lanes, self.memories)
            check_flips(job, every, self.memories)
            for space, flips in every.items():
                if sample is not None and sample < len(flips):
                    flips = random.Random(f"{seed}/{name}/{space.name}").sample(flips, sample)
                work += [(space, flip) for flip in flips]
                counts[name, space] = Counter(bits=len(flips))
            for begin in range(0, len(work), BATCH):
                batch = work[begin : begin + BATCH]
                found = self.trials(job, folder, flips=[flip for _, flip in batch])
                for (space, _), trial in zip(batch, found, strict=True):
                    count = counts[name, space]
                    count[classify_flip(trial, space, outputs)] += 1
                    count["leaked"] += bool(trial["run"]["wrong"] or trial["run"]["late"])
                    count["not again"] += not _right(trial["after"], outputs)
                tell(f"{name}: {begin + len(batch)} of {len(work)} bits flipped")
        return counts

    def damage(self, number: int, seed: int, folder: Path = FOLDER) -> dict[str, Counter[str]]:
        """Change ``number`` words of each job on their way; counts by job.

        Counts are those of :func:`classify_damage`, and ``outside`` (a memory was read beyond its
        end), ``late`` (an output after the fault) and ``not again``.
        """
        counts = {}
        for job in self.jobs:
            changed = damages(job, self.config, number, seed)
            outputs = len(job.outputs)
            count = counts[job.name] = Counter(words=number)
            for trial in self.trials(job, folder, damages=changed):
                count[classify_damage(trial, outputs)] += 1
                count["outside"] += bool(trial["run"]["outside"])
                count["late"] += bool(trial["run"]["late"])
                count["not again"] += not _right(trial["after"], outputs)
            tell(f"{job.name}: {number} words changed")
        return counts


def engine_campaign(*, control: bool = False) -> Campaign:
    """The two layers on the engine of :data:`CONFIG`."""
    verilog = engine_verilog(CONFIG)
    jobs = [layer_job(name, layer, CONFIG) for name, layer in layers().items()]
    return Campaign(unchecked(verilog) if control else verilog, TOP[False], CONFIG, jobs)


def network_campaign(
    folder: Path = FOLDER, *, name: str = "chain", engines: int = 1, control: bool = False
) -> Campaign:
    """A network of three layers on the accelerator that it needs; ``folder`` is for its file."""
    folder.mkdir(parents=True, exist_ok=True)
    job, config, commands = network_job(name, folder, engines)
    verilog = accelerator_verilog(config, commands, engines)
    text = unchecked(verilog) if control else verilog
    return Campaign(text, ACCELERATOR[False], config, [job], engines)


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
    check = re.compile(r"= \^ \\?\w*(read__data|stored)[\w.$]* ?(\[\d+:(?P<low>\d+)\])? ?;")
    modules = {memory.module for memory in program_memories(verilog)}
    texts = re.split(r"(?=^module )", verilog, flags=re.MULTILINE)
    for number, text in enumerate(texts):
        # Of what is checked in parts the first is odd, the others even.
        texts[number], removed = check.subn(
            lambda found: f"= 1'h{int(not int(found['low'] or 0))};", text
        )
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
    parser.add_argument("--damages", type=int, default=0, help="words of each run to change")
    parser.add_argument("--control", action="store_true", help="without the checks of parity")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn")
    arguments = parser.parse_args()
    if arguments.sample is not None or arguments.damages:
        print(f"seed {arguments.seed}")
    counts: dict[tuple[str, Space], Counter[str]] = {}
    damaged: dict[str, Counter[str]] = {}
    makes = (
        engine_campaign,
        network_campaign,
        partial(network_campaign, engines=2),
        partial(network_campaign, name="functions"),
    )
    for make in makes:
        campaign = make(control=arguments.control)
        for job in campaign.jobs:
            print(f"{job.name}: a run is predicted to take {job.cycles} cycles")
        counts |= campaign.flip(arguments.sample, arguments.seed)
        if arguments.damages:
            damaged |= campaign.damage(arguments.damages, arguments.seed)
    print(f"\n| run | words | {' | '.join(FLIP_COLUMNS)} |")
    print("|---|---|" + "---|" * len(FLIP_COLUMNS))
    for (name, space), count in counts.items():
        row = " | ".join(str(count[column]) for column in FLIP_COLUMNS)
        print(f"| {name} | {space.name} | {row} |")
    total: Counter[str] = sum(counts.values(), Counter())
    print(f"| all | all | {' | '.join(str(total[column]) for column in FLIP_COLUMNS)} |")
    bad = missed(counts)
    if damaged:
        print(f"\n| run | {' | '.join(DAMAGE_COLUMNS)} |")
        print("|---|" + "---|" * len(DAMAGE_COLUMNS))
        for name, count in damaged.items():
            print(f"| {name} | {' | '.join(str(count[column]) for column in DAMAGE_COLUMNS)} |")
            bad += count["outside"] + count["late"] + count["not again"]
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
