"""Dealing a layer out to the engines of a tile, its passes, and the predicted cycles."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refmodel import golden
from refmodel.compression.compile import compile_layer
from refmodel.compression.schemes import LayerSetting, map_layer
from refmodel.config import SHIFT_NONE, EngineConfig
from refmodel.errors import InputError
from refmodel.predict import cycles, events, tile
from refmodel.predict import deal as dealing
from refmodel.predict.cycles import OUTPUT_LATENCY, predict
from refmodel.predict.deal import LayerPart, check_fits_tile, deal, loads, passes
from refmodel.predict.tile import (
    accumulators,
    predict_tile,
    reduce_latency,
    tile_config_for,
)
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import check_fits, engine_config_for
from tests.support.layers.builders import random_codes, random_layer_program
from tests.support.layers.hand import TINY_ENGINE, hand_layer
from tests.support.layers.matrix_layers import matrix_layer
from tests.support.layers.tile_parts import part_of


def parts_of(layer: LayerProgram, engines: int, config: EngineConfig) -> list[LayerPart]:
    return [part for part in deal(layer, engines, config) if part is not None]


def weights_of(parts: list[LayerPart]) -> np.ndarray:
    return np.sum([part.effective_weights() for part in parts], axis=0)


def largest_group(layer: LayerProgram, config: EngineConfig) -> int:
    """The load of the largest group, from its gathers in plain loops."""
    gather, largest = 0, 0
    steps = cycles.merge_steps(layer, config.merge_lanes)
    requests = events.requests_of_gathers(layer, config)
    for g, count in enumerate(layer.group_gathers.tolist()):
        run = slice(gather, gather + count)
        block = config.position_lanes
        work = [block * requests[run].sum(), block * layer.gather_rows[run].sum(), steps[g]]
        largest = max(largest, *map(int, work))
        gather += count
    return largest


def balanced(layer: LayerProgram, parts, config: EngineConfig) -> bool:
    """Whether the most loaded engine is within one group of the mean of what loads it most."""
    mean = loads([layer], config)[0].max() / len(parts)  # pyright: ignore
    return loads(parts, config).max() <= mean + largest_group(layer, config)


# By hand


def test_a_group_is_split_by_kept_patterns_and_other_words_say_none():
    # Eight patterns of 8 requests each over four rows; four outputs: 64 requests, 4 bytes, 4 steps.
    layer = hand_layer([[(4, 8)]], outputs=4, terms=2)
    one, two = parts_of(layer, 2, TINY_ENGINE)
    assert loads([one, two], TINY_ENGINE).tolist() == [[32, 4, 8], [32, 4, 8]]
    # Of a block of four positions, for which each group is merged once.
    config = dataclasses.replace(TINY_ENGINE, position_lanes=4)
    assert loads([one, two], config).tolist() == [[128, 16, 8], [128, 16, 8]]
    assert (one.weights == layer.weights[:4]).all()
    assert (two.weights == layer.weights[4:]).all()
    words = zip(layer.word_slot.tolist(), layer.word_shift.tolist(), strict=True)
    for i, (slot, shift) in enumerate(words):
        mine, other = (one, two) if slot < 4 else (two, one)
        assert (mine.word_slot[i], mine.word_shift[i]) == (slot % 4, shift)
        assert mine.word_sign[i] == layer.word_sign[i]
        assert other.word_shift[i] == SHIFT_NONE
    # Both write: each is the first of its engine.
    assert one.group_write.tolist() == two.group_write.tolist() == [1]


def test_a_group_whose_merge_is_its_load_is_left_whole():
    # 16 requests, but 8 outputs of 4 terms: 32 steps, which a split would repeat.
    layer = hand_layer([[(4, 2)]], outputs=8, terms=4)
    part, idle = deal(layer, 2, TINY_ENGINE)
    assert idle is None
    assert loads([part], TINY_ENGINE).tolist() == [[16, 4, 32]]


def test_a_group_with_an_identity_map_is_split_by_outputs():
    layer = hand_layer([[(4, 8)]], outputs=8, identity=True)
    parts = parts_of(layer, 2, TINY_ENGINE)
    assert [p.group_first_output.tolist() for p in parts] == [[0], [4]]
    assert [p.group_outputs.tolist() for p in parts] == [[4], [4]]
    assert loads(parts, TINY_ENGINE).tolist() == [[32, 4, 4], [32, 4, 4]]
    assert parts[0].touched.tolist() == [True] * 4 + [False] * 4


def test_whole_groups_go_where_the_load_is_least():
    # Requests 40, 32, 24, 24, 16, 16, 8: 160 over two engines.
    layer = hand_layer([[(1, k)] for k in (5, 4, 3, 3, 2, 2, 1)], outputs=1)
    parts = parts_of(layer, 2, TINY_ENGINE)
    assert loads(parts, TINY_ENGINE)[:, 0].tolist() == [80, 80]
    kept = sorted(k for p in parts for k in p.group_kept.tolist())
    assert kept == [1, 2, 2, 3, 3, 4, 5]


def test_the_first_group_of_an_engine_writes_all_that_its_others_add_to():
    # Only the first group touches all outputs; the second engine's groups overlap in part.
    spans = [(0, 8), (0, 3), (2, 4), (5, 3)]
    layer = hand_layer([[(1, 4)], [(1, 1)], [(1, 1)], [(1, 1)]], outputs=8, spans=spans)
    one, two = parts_of(layer, 2, TINY_ENGINE)
    assert one.group_kept.tolist() == [4]
    assert two.group_write.tolist() == [1, 0, 0]
    # The widest, of outputs 2 to 5, is widened to all eight by words that say none.
    assert two.group_outputs.tolist() == [8, 3, 3]
    assert (two.word_shift[:8] == SHIFT_NONE).tolist() == [True] * 2 + [False] * 4 + [True] * 2


def test_the_most_loaded_engine_hands_over_exchanges_and_splits():
    # Requests 24, 24, 16, 16, 16 over two engines: largest first gives 40 + 56; exchanging a 24
    # for a 16 gives 48 + 48, without a split.
    layer = hand_layer([[(1, k)] for k in (3, 3, 2, 2, 2)], outputs=1)
    parts = parts_of(layer, 2, TINY_ENGINE)
    assert loads(parts, TINY_ENGINE)[:, 0].tolist() == [48, 48]
    assert sum(len(p.group_kept) for p in parts) == 5


def test_reads_begin_when_the_last_engine_has_merged():
    """One group an engine: 1 pattern and 3; 4 positions, one output.

    Engine of 3: byte 4, requests 6 to 29, complete 29 + 7 = 36, merge 36, read 38; every further
    position costs 24 requests: reads 62, 86, 110. The sum of two engines is there 3 cycles after
    its read. Requantisation takes it when it takes a whole half in an engine.
    """
    layer = hand_layer([[(1, 3)], [(1, 1)]], outputs=1, positions=4)
    config = TINY_ENGINE
    parts = [part_of(layer, [0]), part_of(layer, [1])]
    got = predict_tile(parts, config)
    assert got.cycles == 110 + 3 + OUTPUT_LATENCY
    assert got.bound == 4 * 24
    # The same the other way round, and with an idle engine: the tree of three has a level more.
    turned = predict_tile([parts[1], parts[0], None], config)
    assert turned.cycles == got.cycles + 1
    assert turned.engines[2] is None


def test_a_light_engine_runs_ahead_by_two_halves_and_no_more():
    """Outputs are the bound: 16 reads a position, whatever the engines do.

    Each engine: one pattern, 8 requests, 4 lanes, 4 merge steps: complete 20, merge 20 to 23, read
    25 to 40, then 41 to 56 and 57 to 72.
    """
    layer = hand_layer([[(1, 1)], [(1, 1)]], outputs=16, positions=3)
    config = dataclasses.replace(TINY_ENGINE, merge_lanes=4)
    got = predict_tile([part_of(layer, [0]), part_of(layer, [1])], config)
    assert got.cycles == 72 + 3 + OUTPUT_LATENCY


def test_latency_of_the_reduction():
    assert [reduce_latency(n) for n in (1, 2, 3, 4, 5, 8, 9)] == [2, 3, 4, 4, 5, 5, 6]


# Sums


@given(
    seed=st.integers(0, 2**32 - 1),
    engines=st.integers(1, 9),
    lanes=st.sampled_from([1, 2, 4]),
    adcs=st.sampled_from([1, 3, 8]),
    cols=st.sampled_from([8, 12, 32]),
)
def test_parts_add_up_to_the_layer(seed, engines, lanes, adcs, cols):
    rng = np.random.default_rng(seed)
    layer = random_layer_program(rng, outputs=int(rng.integers(1, 12)))
    config = EngineConfig(merge_lanes=lanes, adcs=adcs, ou_cols=cols)
    parts = deal(layer, engines, config)
    assert len(parts) == engines
    assert parts[0] is not None
    used = [part for part in parts if part is not None]
    assert (weights_of(used) == layer.effective_weights()).all()
    codes = random_codes(rng, layer, 2)
    assert (accumulators(parts, codes) == golden.accumulators(layer, codes)).all()
    for part in used:
        untouched = golden.accumulators(part, codes)[..., ~part.touched]
        assert not untouched.any()


SCHEMES = [
    ("dense", {}),
    ("structured", {}),
    ("orc", {}),
    ("shape", {"channels": 2, "positions": 4}),
    ("identical", {}),
    ("structured+identical", {}),
    ("similar", {"channels": 2}),
    ("prap", {"channels": 2, "positions": 4}),
    ("dictionary", {"patterns": 3, "terms": 3}),
]


def scheme_layer(scheme: str, options: dict, groups: int = 1, outputs: int = 16) -> LayerProgram:
    rng = np.random.default_rng(3)
    weight = rng.normal(0, 1, (outputs, 12 // groups, 3, 3)).astype(np.float32)
    values: dict[str, Any] = {"channels": 1, "positions": 1, "keep": 0.4, "structure_keep": 0.7}
    values |= options
    setting = LayerSetting(scheme=scheme, **values)
    layer = matrix_layer(rng, weight=weight, groups=groups)
    return compile_layer(layer, map_layer(weight, groups, scheme, setting, 8), 8)


@pytest.mark.parametrize("groups", [1, 4, 12])
@pytest.mark.parametrize(("scheme", "options"), SCHEMES)
def test_every_scheme_is_dealt_out_evenly_and_adds_up(scheme, options, groups):
    # Groups of one channel leave a group of the published schemes one channel.
    options = options if groups < 12 else options | {"channels": 1}
    layer = scheme_layer(scheme, options, groups, outputs=24 if groups == 12 else 16)
    codes = random_codes(np.random.default_rng(0), layer, 1)
    want = golden.accumulators(layer, codes)
    for engines, (lanes, positions) in itertools.product((2, 3, 4, 7), ((1, 1), (4, 1), (1, 4))):
        config = EngineConfig(merge_lanes=lanes, position_lanes=positions)
        parts = deal(layer, engines, config)
        assert (accumulators(parts, codes) == want).all()
        assert balanced(layer, parts, config)
        sized = tile_config_for([layer], engines, config)
        check_fits_tile(layer, parts, sized)
        got = predict_tile(parts, sized)
        assert got.cycles <= got.limit


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("engines", [2, 3, 4, 8])
def test_n_engines_are_n_times_as_fast_where_there_are_20_n_groups(engines, extra):
    layer = hand_layer([[(4, 2)]] * (20 * engines + extra), outputs=4, positions=40)
    config = tile_config_for([layer], engines)
    one = predict(layer, engine_config_for([layer])).cycles
    got = predict_tile(deal(layer, engines, config), config)
    assert one / got.cycles >= 0.95 * engines
    assert got.cycles <= got.limit


def test_a_deal_that_gives_everything_to_one_engine_is_not_balanced(monkeypatch):
    """A mutant of the balance, and one of the exchanges and splits."""
    layer = scheme_layer("prap", {"channels": 2, "positions": 4})
    config = EngineConfig()
    best = loads(deal(layer, 4, config), config).max()
    monkeypatch.setattr(dealing._Deal, "improve", lambda self: False)
    assert loads(deal(layer, 4, config), config).max() > best
    monkeypatch.setattr(dealing.np, "lexsort", lambda keys: np.zeros(1, int))
    assert not balanced(layer, deal(layer, 4, config), config)


def test_a_word_that_keeps_a_pattern_of_another_engine_is_noticed(monkeypatch):
    layer = hand_layer([[(4, 8)]], outputs=4, terms=2)
    words = dealing._words

    def greedy(groups, piece):
        found = words(groups, piece)
        found[found[:, 1] == SHIFT_NONE, 1] = 3
        return found

    monkeypatch.setattr(dealing, "_words", greedy)
    parts = parts_of(layer, 2, TINY_ENGINE)
    assert (weights_of(parts) != layer.effective_weights()).any()


# Periods


def many_positions(seed: int) -> tuple[list[LayerPart | None], EngineConfig]:
    rng = np.random.default_rng(seed)
    layer = random_layer_program(
        rng, in_shape=(9, 11, int(rng.integers(1, 9))), stride=(1, 1), dilation=(1, 1)
    )
    base = EngineConfig(
        adcs=int(rng.choice([1, 2, 8])),
        merge_lanes=int(rng.choice([1, 2, 4])),
        position_lanes=(1, 2, 4)[seed % 3],
        crossbar_latency=int(rng.choice([1, 5, 40])),
        gather_buffers=int(rng.choice([2, 4])),
    )
    engines = int(rng.integers(1, 5))
    config = tile_config_for([layer], engines, base)
    return deal(layer, engines, config), config


_state = tile._TileWalk.state
_numbers = itertools.count()


@pytest.mark.parametrize("seed", range(25))
def test_detected_periods_change_nothing(monkeypatch, seed):
    parts, config = many_positions(seed)
    short = predict_tile(parts, config)
    monkeypatch.setattr(tile._TileWalk, "state", lambda self: (*_state(self), next(_numbers)))
    assert predict_tile(parts, config) == short


def test_a_state_without_the_engines_is_found_out(monkeypatch):
    """A mutant of the property above: where the merge falls behind until the ring is full."""
    layer = hand_layer([[(1, 1)], [(1, 1)]], outputs=8, positions=40, terms=4)
    parts = [part_of(layer, [0, 1]), None]
    want = predict_tile(parts, TINY_ENGINE).cycles
    monkeypatch.setattr(tile._TileWalk, "state", lambda self: ())
    assert predict_tile(parts, TINY_ENGINE).cycles != want


# Passes


@given(seed=st.integers(0, 2**32 - 1), engines=st.integers(1, 3))
def test_passes_give_the_layers_outputs(seed, engines):
    rng = np.random.default_rng(seed)
    layer = random_layer_program(rng, outputs=int(rng.integers(5, 20)))
    config = engine_config_for([layer], EngineConfig(merge_lanes=int(rng.choice([1, 2]))))
    small = dataclasses.replace(config, max_outputs=int(rng.integers(2, 8)))
    cut = passes(layer, small, engines)
    assert len(cut) >= layer.out_shape[2] / small.max_outputs
    codes = random_codes(rng, layer, 2)
    found = np.concatenate([golden.run_layer(part, codes) for part in cut], axis=-1)
    assert (found == golden.run_layer(layer, codes)).all()
    for part in cut:
        check_fits_tile(part, deal(part, engines, small), small)


def test_a_layer_that_fits_is_one_pass():
    layer = hand_layer([[(4, 8)]], outputs=4)
    assert passes(layer, TINY_ENGINE, 2) == [layer]


def test_a_pass_keeps_only_the_patterns_that_its_outputs_use():
    # Four outputs, each its own pattern; 3 slots beside the one that an OU waits for: a pattern a
    # pass would do, two outputs a pass fit.
    layer = hand_layer([[(4, 4)]], outputs=4, identity=True)
    config = dataclasses.replace(TINY_ENGINE, max_outputs=2)
    one, two = passes(layer, config, 1)
    assert (one.weights == layer.weights[:2]).all()
    assert (two.weights == layer.weights[2:]).all()
    assert (two.bias == layer.bias[2:]).all()
    assert one.out_shape == two.out_shape == (1, 1, 2)


def test_crossbars_decide_the_passes_too():
    # 32 OUs of one pattern; two engines of one 32x32 crossbar hold 16 each.
    layer = hand_layer([[(4, 32)]], outputs=32, identity=True)
    sizes: dict[str, Any] = {"slots": 64, "max_outputs": 32, "crossbar_size": 32}
    config = dataclasses.replace(TINY_ENGINE, **sizes)
    assert len(passes(layer, config, 2)) == 1
    assert len(passes(layer, config, 1)) == 2


def test_a_layer_that_no_number_of_passes_makes_fit_is_refused():
    layer = hand_layer([[(4, 8)]], outputs=4)
    config = dataclasses.replace(TINY_ENGINE, activation_bytes=64, acc_width=24)
    with pytest.raises(InputError, match="layer hand: expected acc_width of at most 24, found"):
        passes(layer, config, 1)


# Refusals


@pytest.mark.parametrize("engines", [0, 65])
def test_number_of_engines_is_checked(engines):
    with pytest.raises(ValueError, match=f"engines must be 1 to 64, not {engines}"):
        deal(hand_layer([[(1, 1)]], outputs=1), engines, TINY_ENGINE)


def test_number_of_engines_is_a_number():
    with pytest.raises(TypeError, match="engines must be an integer, not True"):
        deal(hand_layer([[(1, 1)]], outputs=1), True, TINY_ENGINE)


def test_a_tile_without_work_is_refused():
    with pytest.raises(ValueError, match="parts must have one that is not None"):
        predict_tile([None, None], TINY_ENGINE)


def test_the_sum_of_all_engines_must_fit_as_one_engines_does():
    layer = hand_layer([[(8, 8)]] * 8, outputs=4, terms=4)
    parts = deal(layer, 4, TINY_ENGINE)
    bits = [dealing.accumulator_bits(part, TINY_ENGINE) for part in parts if part is not None]
    need = dealing.accumulator_bits(layer, TINY_ENGINE)
    assert max(bits) < need
    config = dataclasses.replace(TINY_ENGINE, acc_width=need - 1)
    for part in parts:
        assert part is not None
        check_fits(part, config)
    with pytest.raises(InputError, match=f"expected acc_width of at most {need - 1}, found {need}"):
        check_fits_tile(layer, parts, config)


def values_of(part: LayerPart) -> dict[str, Any]:
    return {item.name: getattr(part, item.name) for item in dataclasses.fields(LayerProgram)}


def test_a_part_may_leave_outputs_out_and_a_layer_may_not():
    layer = hand_layer([[(1, 2)], [(1, 2)]], outputs=4, spans=[(0, 4), (0, 2)])
    part = part_of(layer, [1])
    values = values_of(part)
    with pytest.raises(InputError, match="an output is not written exactly once"):
        LayerProgram(**values)
    twice = part_of(layer, [0, 1])
    values = values_of(twice)
    values["group_write"] = np.array([1, 1])
    with pytest.raises(InputError, match="an output is written twice"):
        LayerPart(**values)
