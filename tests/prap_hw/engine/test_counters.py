"""Counters of events: a layer worked by hand, and mutants that only a counter shows.

A mutant is as in :mod:`tests.prap_hw.engine.test_mutants`. Each of these changes no value and no
cycle, and just the counters that it names.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from prap_hw.common.layouts import COUNTERS
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict.cycles import EVENTS, predict
from refmodel.program.layer import LayerProgram
from tests.support.layers.hand import (
    TINY_ENGINE,
    TWO_GROUP_ENGINE,
    TWO_GROUP_EVENTS,
    hand_codes,
    hand_layer,
    two_group_layer,
)
from tests.support.rtl import hardware
from tests.support.rtl.mutants import Mutant, apply


def two_groups() -> tuple[LayerProgram, EngineConfig]:
    """Two groups, the second with a pattern of two OUs; some reuse words are none."""
    return two_group_layer(), replace(TWO_GROUP_ENGINE, adcs=16)


def odd_adcs() -> tuple[LayerProgram, EngineConfig]:
    """OUs of 12 columns and 5 converters: the last request of an OU has 2 columns, or fewer."""
    layer = hand_layer([[(4, 3)], [(2, 4)]], outputs=3, positions=2)
    return layer, replace(TINY_ENGINE, ou_cols=12, adcs=5)


def lanes() -> tuple[LayerProgram, EngineConfig]:
    """Four lanes, of which a group's last block leaves some empty; same lengths of segments."""
    layer = hand_layer([[(3, 2)], [(2, 1)]], outputs=6, positions=2, terms=2, none_share=0.4)
    return layer, replace(TINY_ENGINE, merge_lanes=4)


def identity() -> tuple[LayerProgram, EngineConfig]:
    """An identity map over six outputs in four lanes."""
    layer = hand_layer([[(3, 6)]], outputs=6, positions=2, identity=True)
    return layer, replace(TINY_ENGINE, merge_lanes=4)


def series() -> tuple[LayerProgram, EngineConfig]:
    """Patterns of three OUs; up to four of them end with an answer."""
    layer = hand_layer([[(8, 5), (8, 5), (3, 5)]], outputs=2, positions=2, series=True)
    return layer, replace(TINY_ENGINE, cell_bits=4, ou_cols=8, adcs=8)


LAYERS: dict[str, Callable[[], tuple[LayerProgram, EngineConfig]]] = {
    function.__name__: function for function in (two_groups, odd_adcs, lanes, identity, series)
}


def differences(name: str) -> set[str]:
    """Run two images; which counters differ, ``values`` where values do."""
    layer, config = LAYERS[name]()
    images = hand_codes(layer, 2)
    trace = golden.run_layer_serial(layer, images, config)
    want = predict(layer, config)
    expected = {name: getattr(want, name, 0) for name in COUNTERS}
    found = set()
    for number, run in enumerate(hardware.run_engine(layer, images, config)):
        values = [trace.psums, trace.accumulators, trace.outputs]
        if [run.psums, run.accumulators, run.outputs] != [
            array[number].ravel().tolist() for array in values
        ]:
            found.add("values")
        found |= {name for name in COUNTERS if run.counters[name] != expected[name]}
    return found


# The line, what becomes of it, the layer that shows it, and the counters that do.
MUTANTS = {
    "the last request of an OU has all converters": (
        "ou_engine", "columns.table(last_columns, phase, in_ou)", "config.adcs",
        "odd_adcs", {"conversions", "cells_read"},
    ),
    "every request has all converters of the last one": (
        "ou_engine", "chunk == last_chunk,", "1,", "odd_adcs", {"conversions", "cells_read"},
    ),
    "rows that no input has are driven": (
        "ou_engine", "self.driven.eq(Mux(issue, vector.count, 0))",
        "self.driven.eq(Mux(issue, config.ou_rows, 0))",
        "odd_adcs", {"wordline_drives", "cells_read"},
    ),
    "only the first request of a digit drives wordlines": (
        "ou_engine", "self.driven.eq(Mux(issue, vector.count, 0))",
        "self.driven.eq(Mux(issue & (chunk == 0), vector.count, 0))",
        "odd_adcs", {"wordline_drives", "cells_read"},
    ),
    "cells of one row are read": (
        "engine", 'product(amounts["wordline_drives"], amounts["conversions"])',
        'amounts["conversions"]', "odd_adcs", {"cells_read"},
    ),
    "the product of rows and columns lacks a bit": (
        "engine", "for bit in range(len(right))]", "for bit in range(len(right) - 1)]",
        "two_groups", {"cells_read"},
    ),
    "a parity bit is not read": (
        "pattern_controller", "protected_bits(layouts.header),", "layouts.header.size,",
        "two_groups", {"index_bits"},
    ),
    "the table of kernel positions is not read": (
        "pattern_controller", "\n            + protected_bits(layouts.address_bits)", "",
        "two_groups", {"index_bits"},
    ),
    "one lane's reuse words are read": (
        "pattern_controller", "config.merge_lanes * protected_bits(layouts.word)",
        "protected_bits(layouts.word)", "lanes", {"index_bits"},
    ),
    "offsets that the layer has not are read": (
        "pattern_controller", "Space.OFFSET: offsets.o.valid & offsets.o.ready",
        "Space.OFFSET: accept", "lanes", {"index_bits", "index_reads"},
    ),
    "sums that begin a slot are added to it": (
        "psum_store", "Mux(accumulate, stored, 0)", "stored", "series", {"psum_updates"},
    ),
    "only sums that complete a slot are added to it": (
        "psum_store", "Mux(accumulate, stored, 0)", "Mux(accumulate, complete, 0)",
        "series", {"psum_updates"},
    ),
    "one of several sums is added": (
        "psum_store", "Mux(accumulate, stored, 0)", "Mux(accumulate, valid[0], 0)",
        "series", {"psum_updates"},
    ),
    "words that are none shift": (
        "reuse_merge", "sum(adding[lane] for", "sum(enable[lane] for", "lanes", {"merge_shifts"},
    ),
    "lanes beyond the group shift": (
        "reuse_merge", "shifted = Value.cast(sum(",
        "shifted = Value.cast(Mux(self.identity, lanes, 0) | sum(",
        "identity", {"merge_shifts"},
    ),
    "first writes are updates": (
        "reuse_merge", "Mux(self.write_first, 0, sum(", "Mux(0, 0, sum(",
        "two_groups", {"accumulator_updates"},
    ),
    "every step of terms is an update": (
        "reuse_merge", "sum(add_en[place] for", "sum(shift_enable[place] & shift_valid for",
        "two_groups", {"accumulator_updates"},
    ),
}  # fmt: skip


def test_counters_of_a_layer_worked_by_hand():
    layer = two_group_layer()
    (run,) = hardware.run_engine(layer, hand_codes(layer), TWO_GROUP_ENGINE)
    assert {name: run.counters[name] for name in EVENTS} == {
        name: 6 * TWO_GROUP_EVENTS[name] for name in EVENTS
    }
    assert (run.counters["activation_writes"], run.counters["operand_reads"]) == (0, 0)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_rtl_as_it_is_passes(layer):
    assert differences(layer) == set()


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_caught_by_its_counters_alone(monkeypatch, name):
    module, old, new, layer, counters = MUTANTS[name]
    apply(monkeypatch, Mutant(module, name, ((old, new),), layer))
    assert differences(layer) == counters
