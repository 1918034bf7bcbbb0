"""The whole tile against the golden model and the predicted cycles."""

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest

from prap_hw.common.layouts import CORE_COUNTERS
from prap_hw.deliver.load import padded_input, tile_image
from prap_hw.tile.tile import EmulatedTile, TileLayouts, tile_members
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict.deal import deal
from refmodel.predict.tile import predict_tile, tile_config_for
from refmodel.program.layer import LayerProgram
from tests.support.layers.builders import random_codes, random_layer_program
from tests.support.layers.hand import TINY_ENGINE, hand_codes, hand_layer
from tests.support.layers.tile_parts import part_of
from tests.support.rtl import tiles
from tests.support.rtl.bench import Script, Sink, Source, Watch, simulate
from tests.support.rtl.mutants import Mutant, load
from tests.support.rtl.tiles import TileRun, TileWork, run_tile

VALUES, CYCLES = "values", "cycles"

# Engines, seed, sizes of an engine, layer: what is not said is drawn.
CASES: dict[str, tuple[int, int, dict[str, Any], dict[str, Any]]] = {
    "one engine": (
        1,
        1,
        {"adcs": 4},
        {"identity": False, "terms": 2, "in_shape": (2, 2, 5), "outputs": 3, "groups": 1},
    ),
    "two engines, dense, multi-OU patterns": (
        2,
        6,
        {"crossbar_latency": 5, "merge_lanes": 2},
        {"identity": True, "long_patterns": True, "in_shape": (2, 3, 6), "outputs": 5, "groups": 1},
    ),
    "three engines, 2 lanes, 3 terms": (
        3,
        2,
        {"merge_lanes": 2},
        {"identity": False, "terms": 3, "in_shape": (2, 2, 7), "outputs": 6, "groups": 1},
    ),
    "three engines, depthwise": (
        3,
        3,
        {"merge_lanes": 4},
        {"identity": False, "groups": 4, "in_shape": (2, 3, 4), "outputs": 4, "max_kept": 2},
    ),
    "four engines, strides, pads and dilation": (
        4,
        10,
        {},
        {
            "identity": False,
            "stride": (2, 1),
            "dilation": (2, 1),
            "pads": (2, 1, 0, 1),
            "kernel": (2, 2),
            "in_shape": (3, 3, 8),
            "outputs": 4,
            "groups": 1,
        },
    ),
    "three engines, blocks of 4 positions, 2 terms": (
        3,
        7,
        {"position_lanes": 4, "merge_lanes": 2},
        {
            "identity": False,
            "terms": 2,
            "in_shape": (3, 3, 6),
            "kernel": (2, 2),
            "outputs": 4,
            "groups": 1,
            "stride": (1, 1),
            "dilation": (1, 1),
            "pads": (0, 0, 1, 0),
        },
    ),
    "four engines, cells of 2 bits, one group": (
        4,
        5,
        {"cell_bits": 2, "dac_bits": 2},
        {
            "identity": False,
            "in_shape": (2, 3, 1),
            "kernel": (2, 2),
            "outputs": 3,
            "groups": 1,
            "max_kept": 9,
            "pads": (0, 0, 0, 0),
        },
    ),
}


@cache
def case(name: str) -> tuple[LayerProgram, EngineConfig, np.ndarray]:
    engines, seed, sizes, options = CASES[name]
    rng = np.random.default_rng(seed)
    layer = random_layer_program(rng, **options)
    base: dict[str, Any] = {"crossbar_size": 32} | sizes
    config = tile_config_for([layer], engines, EngineConfig(**base))
    return layer, config, random_codes(rng, layer, 1)


def check_values(run: TileRun, layer, parts, config, images) -> None:
    trace = golden.run_layer_serial(layer, images, config)
    for n, part in enumerate(parts):
        want = []
        if part is not None:
            psums = golden.run_layer_serial(part, images, config).psums.ravel()
            want = psums[golden.psum_order(part, config)].tolist()
        assert run.psums[n] == want, f"engine {n}: partial sums"
    assert run.accumulators == trace.accumulators.ravel().tolist()
    assert run.outputs == trace.outputs.ravel().tolist()
    assert run.counters["outputs"] == len(run.outputs)


def check_events(run: TileRun, parts, config, *, stalls: bool) -> None:
    """Counters of each engine; those of stalls where nothing outside stalls."""
    for n, want in enumerate(predict_tile(parts, config).engines):
        names = [name for name in CORE_COUNTERS if stalls or not name.startswith("stall")]
        if want is not None:  # those of an idle engine are an earlier layer's
            expected = {name: getattr(want, name, 0) for name in names}
            assert {name: run.engines[n][name] for name in names} == expected, f"engine {n}"


@pytest.mark.parametrize("name", CASES)
def test_values_cycles_and_events_are_as_predicted(name):
    layer, config, images = case(name)
    parts = deal(layer, CASES[name][0], config)
    ((run,),) = run_tile([TileWork(layer, images)], config, CASES[name][0])
    check_values(run, layer, parts, config, images)
    want = predict_tile(parts, config)
    assert run.cycles == run.counters["cycles"] == want.cycles
    check_events(run, parts, config, stalls=True)


@pytest.mark.parametrize(
    "name",
    [
        "two engines, dense, multi-OU patterns",
        "three engines, depthwise",
        "three engines, blocks of 4 positions, 2 terms",
    ],
)
def test_values_are_the_same_with_stalls(name):
    layer, config, images = case(name)
    parts = deal(layer, CASES[name][0], config)
    ((run,),) = run_tile([TileWork(layer, images, 0.4)], config, CASES[name][0], seed=1)
    check_values(run, layer, parts, config, images)
    assert run.cycles >= predict_tile(parts, config).cycles
    check_events(run, parts, config, stalls=False)


# Layers one after the other


def outputs_bound() -> LayerProgram:
    """More outputs than requests or merge steps: every output counts."""
    return hand_layer([[(2, 1)], [(3, 1)], [(1, 1)]], outputs=16, positions=3)


def single() -> LayerProgram:
    """One group whose merge is its load: one engine runs, the others are idle; 3 positions."""
    return hand_layer([[(2, 1)]], outputs=10, positions=3, terms=2, seed=3)


def unequal() -> LayerProgram:
    """Groups of 1, 2 and 6 patterns, of which only the first touches all outputs."""
    spans = [(0, 6), (0, 3), (3, 3)]
    return hand_layer([[(1, 1)], [(2, 2)], [(1, 6)]], outputs=6, positions=3, spans=spans, seed=4)


SEQUENCE_CONFIG = dataclasses.replace(TINY_ENGINE, merge_lanes=2)


@cache
def sequence() -> list[tuple[TileWork, int, list[int]]]:
    """Each layer's work on three engines, the predicted cycles, the golden outputs.

    The last layer is dealt out by hand, a group to an engine, so that the last engine ends every
    position long after the others.
    """
    layers = outputs_bound(), single(), unequal()
    dealt = [deal(layer, 3, SEQUENCE_CONFIG) for layer in layers[:2]]
    dealt.append([part_of(layers[2], [g]) for g in range(3)])
    result = []
    for layer, parts in zip(layers, dealt, strict=True):
        images = hand_codes(layer)
        outputs = golden.run_layer(layer, images).ravel().tolist()
        cycles = predict_tile(parts, SEQUENCE_CONFIG).cycles
        result.append((TileWork(layer, images, parts=parts), cycles, outputs))
    return result


def differences() -> set[str]:
    """Run the sequence on one tile; which checks fail."""
    found = set()
    results = run_tile([work for work, *_ in sequence()], SEQUENCE_CONFIG, 3)
    for (run,), (_, cycles, outputs) in zip(results, sequence(), strict=True):
        found |= {VALUES} if run.outputs != outputs else set()
        found |= {CYCLES} if run.cycles != cycles else set()
    return found


def test_layers_one_after_the_other_with_idle_engines_between():
    idle = [list(work.parts or ()).count(None) for work, *_ in sequence()]
    assert idle == [0, 2, 0]
    assert differences() == set()


def wrong_after_a_pause() -> list[range]:
    """Run a layer with a pause of the output at many times; those that change a value."""
    layer = outputs_bound()
    pauses = [range(at, at + length) for at in range(40, 70, 4) for length in (1, 4)]
    images = hand_codes(layer, len(pauses))
    (runs,) = run_tile([TileWork(layer, images, pauses=pauses)], SEQUENCE_CONFIG, 2)
    wanted = golden.run_layer(layer, images)
    return [
        pause
        for pause, run, want in zip(pauses, runs, wanted, strict=True)
        if run.outputs != want.ravel().tolist()
    ]


def test_a_pause_of_the_output_at_any_time_changes_no_value():
    """Accumulators are not held for the output: a half is merged into while the output stands."""
    assert wrong_after_a_pause() == []


def positions_in_the_buffer() -> list[bool]:
    """Layers of one, two and three outputs, with the output held up for long."""
    result = []
    for outputs in (1, 2, 3):
        layer = hand_layer([[(2, 1)], [(3, 1)]], outputs=outputs, positions=12)
        images = hand_codes(layer)
        work = TileWork(layer, images, pauses=[range(30, 300)])
        ((run,),) = run_tile([work], SEQUENCE_CONFIG, 2)
        result.append(run.outputs == golden.run_layer(layer, images).ravel().tolist())
    return result


def test_whole_positions_of_few_outputs_wait_in_the_buffer():
    """With one output to a position, the buffer holds more positions than an engine's halves."""
    assert positions_in_the_buffer() == [True] * 3


@pytest.mark.long
def test_a_requantiser_that_counts_to_an_engines_two_halves_is_caught(monkeypatch):
    edit = ("Requantise(config, sums_held(engines))", "Requantise(config)")
    mutant = Mutant("tile", "two positions wait at most", (edit,), "", VALUES)
    monkeypatch.setattr(tiles, "EmulatedTile", load(mutant).EmulatedTile)
    with pytest.raises(AssertionError, match=r"^hung after 8 of 12 outputs"):
        positions_in_the_buffer()


@pytest.mark.long
def test_a_buffer_that_runs_over_is_caught(monkeypatch):
    what = "reads do not wait for room"
    mutant = Mutant("tile", what, (("active.any() & (room != 0)", "active.any()"),), "", VALUES)
    monkeypatch.setattr(tiles, "EmulatedTile", load(mutant).EmulatedTile)
    assert len(wrong_after_a_pause()) > 4


MUTANTS = [
    Mutant("tile", "shares ignored", (("Mux(shares.word[n], ", "Mux(1, "),), "", VALUES),
    Mutant(
        "tile",
        "halves of idle engines alternate as well",
        (("half.eq(half ^ gone)", "half.eq(half ^ (read & last))"),),
        "",
        VALUES,
    ),
    Mutant("tile", "one engine is waited for", (("whole.all()", "whole[0]"),), "", VALUES),
    Mutant(
        "tile",
        "half of every engine freed with the first read",
        (("self.half_read[n].eq(Mux(gone, ", "self.half_read[n].eq(Mux(read & (channel == 0), "),),
        "",
        VALUES,
    ),
    Mutant(
        "tile",
        "odd engine left out of the sum",
        (("range(0, len(terms), 2)", "range(0, max(1, len(terms) - 1), 2)"),),
        "",
        VALUES,
    ),
    Mutant(
        "tile",
        "a sum too late",
        (("begun.eq(valid & first)", "begun.eq(read & (channel == 0))"),),
        "",
        VALUES,
    ),
    Mutant(
        "tile", "buffer too shallow", (("return 4 + (engines", "return 2 + (engines"),), "", VALUES
    ),
    Mutant(
        "tile",
        "a dead cycle between positions",
        (
            (
                "whole = Signal(engines)",
                "whole = Signal(engines); dead = Signal(); m.d.sync += dead.eq(last & read)",
            ),
            ("whole.all() &", "whole.all() & ~dead &"),
        ),
        "",
        CYCLES,
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
@pytest.mark.long
def test_the_mutant_is_caught(monkeypatch, mutant):
    monkeypatch.setattr(tiles, "EmulatedTile", load(mutant).EmulatedTile)
    found = differences()
    assert found == {CYCLES} if mutant.caught == CYCLES else VALUES in found


# Control


def test_start_loading_and_reset():
    """Start and loading wait while busy; a reset ends a run, and the next one is clean."""
    layer = unequal()
    images = hand_codes(layer)
    parts = deal(layer, 2, TINY_ENGINE)
    image = tile_image(layer, parts, TINY_ENGINE)
    data = padded_input(layer, images[0]).tolist()
    acts = [byte | (i == len(data) - 1) << 8 for i, byte in enumerate(data)]
    tile = EmulatedTile(TINY_ENGINE, 2)
    length = max(len(image.words), len(image.beats), len(acts)) + 1
    cycles = predict_tile(parts, TINY_ENGINE).cycles
    reset = length + 40
    start = reset + 1 + length

    def everything(begin: int) -> list[Source]:
        return [
            Source(tile.i_load, image.words, begin=begin),
            Source(tile.i_cells, image.beats, begin=begin),
            Source(tile.i_acts, acts, begin=begin),
        ]

    sink = Sink(tile.o, hold=False)
    busy = Watch(tile.busy)
    late = Source(tile.i_load, image.words[:1], begin=start + 5)
    cells = Source(tile.i_cells, image.beats[:1], begin=start + 5)
    simulate(
        tile,
        *everything(0),
        *everything(reset + 1),
        Script(tile.start, {length: 1, start: 1, start + 9: 1}),
        late,
        cells,
        sink,
        busy,
        reset={reset},
        cycles=start + cycles + 4,
    )
    layout = tile.layouts.output
    codes = [layout.from_bits(bits)["code"] for cycle, bits in sink.taken if cycle > start]
    assert codes == golden.run_layer(layer, images).ravel().tolist()
    assert sink.cycles[-1] - start == cycles
    assert busy.values[reset : start + 2] == [1] + [0] * (start - reset) + [1]
    assert late.sent == cells.sent == [start + cycles + 1]


def test_engines_of_an_accelerator_are_refused():
    with pytest.raises(ValueError, match="engines of a tile must have network False, not True"):
        tile_members(dataclasses.replace(TINY_ENGINE, network=True), 2)


def test_a_tile_without_trace_has_no_trace_ports():
    traced = set(tile_members(TINY_ENGINE, 2))
    without = set(tile_members(dataclasses.replace(TINY_ENGINE, trace=False), 2))
    assert traced - without == {"trace_psum", "trace_acc"}


@pytest.mark.parametrize(
    ("engines", "kind", "message"),
    [
        (0, ValueError, "engines must be 1 to 64, not 0"),
        (65, ValueError, "engines must be 1 to 64, not 65"),
        (2.0, TypeError, "engines must be an integer, not 2.0"),
    ],
)
def test_number_of_engines_is_checked(engines, kind, message):
    with pytest.raises(kind, match=message):
        TileLayouts(TINY_ENGINE, engines)


def test_the_engine_of_a_word_is_above_the_engines_own_word():
    layouts = TileLayouts(TINY_ENGINE, 3)
    for tile, engine in (
        (layouts.load, layouts.engine.load),
        (layouts.cells, layouts.engine.cells),
    ):
        assert (tile["engine"].offset, tile.size) == (engine.size, engine.size + 2)
        assert {name: tile[name] for name in engine.members} == dict(engine)
