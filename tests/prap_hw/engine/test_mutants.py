"""Mutants of the RTL that the checks must reject: one wrong bit or one dead cycle each.

A mutant is a module with one line of its source replaced. It stands in for the real module in a
simulation of a small layer; the same layer passes without it. What must notice is part of the
mutant: the values (partial sums, accumulators, outputs), the predicted cycles and nothing else, or
a fault, by which the engine finds the addresses that it makes to be wrong.

Each is a case of ``test_the_mutant_is_caught``, named ``module: what is wrong (what notices)``.
Those that a specification asks for by name:

- a bubble in the controller: pattern_controller: a dead cycle between segments
  and index_reader: a dead cycle from the last word to the first
- in the input gather: input_gather: a dead cycle between gathers
- in the OU engine: ou_engine: a dead cycle between OUs
- in shift-and-add and store: psum_store: slots are complete a cycle late
- in the merge: reuse_merge: a dead cycle between groups
  and reuse_merge: a half is free in the cycle after its last read
- in requantisation: requantise: outputs begin a cycle late
- one slot fewer in the ring: ou_engine: one slot fewer in the ring
- a hazard's forwarding removed: accumulators: no forwarding
- k + 1: reuse_merge: k + 1
- the border not written: load: border not written
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import prap_hw.engine.engine
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict.cycles import predict
from refmodel.program.layer import LayerProgram
from tests.support.layers.builders import random_layer_program
from tests.support.layers.hand import TINY_ENGINE, hand_codes, hand_layer
from tests.support.rtl import hardware, ou_vectors
from tests.support.rtl.mutants import CYCLES, FAULT, VALUES, Mutant, apply


def two_groups() -> tuple[LayerProgram, EngineConfig]:
    """Two groups, the second with two gathers; two reuse words to an output, some none."""
    layer = hand_layer(
        [[(3, 2)], [(2, 1), (1, 2)]], outputs=3, positions=3, terms=2, none_share=0.2, seed=5
    )
    return layer, TINY_ENGINE


def single_words() -> tuple[LayerProgram, EngineConfig]:
    """Groups of one word behind one of 16: output 5 is merged into in consecutive cycles."""
    layer = hand_layer(
        [[(2, 1)], [(1, 1)], [(1, 1)], [(2, 1)]],
        outputs=16,
        spans=[(0, 16), (5, 1), (5, 1), (10, 2)],
        positions=2,
        seed=6,
    )
    return layer, TINY_ENGINE


def series() -> tuple[LayerProgram, EngineConfig]:
    """Patterns of two OUs, whose sums add into one slot."""
    return hand_layer([[(8, 2), (3, 2)]], outputs=2, positions=2, series=True), TINY_ENGINE


def four_adcs() -> tuple[LayerProgram, EngineConfig]:
    """Two requests to a pattern and digit, so that a pattern has a low and a high half."""
    return hand_layer([[(4, 2)]], outputs=2, positions=2), replace(TINY_ENGINE, adcs=4)


def full_ring() -> tuple[LayerProgram, EngineConfig]:
    """Groups that fill the ring of slots, in an engine with no more than they need."""
    layer = hand_layer([[(1, 8)], [(2, 7)]], outputs=3, positions=2, terms=4)
    return layer, replace(TINY_ENGINE, slots=8)


def gathers() -> tuple[LayerProgram, EngineConfig]:
    """OUs of 16 rows, two full gathers with a pattern each: every byte read counts."""
    layer = hand_layer([[(16, 1), (16, 1)]], outputs=1, positions=2, ou_rows=16)
    return layer, replace(TINY_ENGINE, ou_rows=16)


def merges() -> tuple[LayerProgram, EngineConfig]:
    """Two groups with more merge steps than requests: every step counts."""
    return hand_layer([[(1, 1)], [(1, 1)]], outputs=8, positions=2, terms=4), TINY_ENGINE


def outputs() -> tuple[LayerProgram, EngineConfig]:
    """More outputs than requests or merge steps: every output counts."""
    layer = hand_layer([[(1, 1)]], outputs=16, positions=3)
    return layer, replace(TINY_ENGINE, merge_lanes=4)


def single_bytes() -> tuple[LayerProgram, EngineConfig]:
    """A gather of some 13 segments of one byte to 8 requests: every segment counts."""
    layer = random_layer_program(
        np.random.default_rng(5),
        identity=True,
        long_patterns=False,
        groups=1,
        ou_rows=16,
        in_shape=(4, 6, 1),
        outputs=1,
        kernel=(4, 4),
        stride=(1, 1),
        dilation=(1, 1),
        pads=(0, 0, 0, 0),
    )
    return layer, replace(TINY_ENGINE, ou_rows=16, max_positions=16)


def ring() -> tuple[LayerProgram, EngineConfig]:
    """Three patterns in a ring of four slots: the second position begins with the fourth."""
    layer = hand_layer([[(1, 3)]], outputs=4, positions=2, terms=4)
    return layer, replace(TINY_ENGINE, slots=4)


def halves() -> tuple[LayerProgram, EngineConfig]:
    """As many merge steps as outputs: two positions leave a half of accumulators no spare cycle."""
    return hand_layer([[(1, 1)]], outputs=8, positions=4), TINY_ENGINE


def one_step() -> tuple[LayerProgram, EngineConfig]:
    """A merge step and four outputs a position: a half is used up in the cycle it is free."""
    layer = hand_layer([[(1, 1)]], outputs=4, positions=6)
    return layer, replace(TINY_ENGINE, dac_bits=4, merge_lanes=4)


def late_outputs() -> tuple[LayerProgram, EngineConfig]:
    """Outputs that are taken late, while the next position waits for their accumulators."""
    return hand_layer([[(1, 1)]], outputs=9, positions=8), TINY_ENGINE


def border() -> tuple[LayerProgram, EngineConfig]:
    """Kernels of 2x2 that reach over a border of zero points on all sides."""
    layer = random_layer_program(
        np.random.default_rng(4),
        identity=False,
        long_patterns=False,
        groups=1,
        in_shape=(2, 2, 2),
        outputs=3,
        kernel=(2, 2),
        stride=(1, 1),
        dilation=(1, 1),
        pads=(1, 1, 1, 1),
        max_kept=3,
        zero_in=77,
    )
    return layer, replace(TINY_ENGINE, max_positions=4)


def kernel() -> tuple[LayerProgram, EngineConfig]:
    """Kernels of 2x2 over two rows and columns of outputs, with several segments to a gather."""
    layer = random_layer_program(
        np.random.default_rng(3),
        identity=False,
        long_patterns=False,
        groups=1,
        in_shape=(3, 3, 2),
        outputs=3,
        kernel=(2, 2),
        stride=(1, 1),
        dilation=(1, 1),
        pads=(0, 0, 0, 0),
        max_kept=3,
    )
    return layer, replace(TINY_ENGINE, max_positions=4)


def wide_cells() -> tuple[LayerProgram, EngineConfig]:
    """Cells and digits of two bits: offset binary, with two patterns side by side."""
    layer = hand_layer([[(8, 2), (5, 3)]], outputs=3, positions=2, none_share=0.1)
    return layer, replace(TINY_ENGINE, cell_bits=2, dac_bits=2)


def many_ends() -> tuple[LayerProgram, EngineConfig]:
    """Up to eight patterns of 4-bit cells end with one answer; sums of two OUs add up."""
    layer = hand_layer([[(8, 11), (3, 11)]], outputs=4, positions=2, terms=4, series=True)
    return layer, replace(TINY_ENGINE, cell_bits=4, ou_cols=16, adcs=16, slots=32)


def split() -> tuple[LayerProgram, EngineConfig]:
    """OUs of 12 columns: every second pattern goes on in the next OU."""
    layer = hand_layer([[(4, 3)], [(2, 4)]], outputs=3, positions=2)
    return layer, replace(TINY_ENGINE, ou_cols=12)


def split_ring() -> tuple[LayerProgram, EngineConfig]:
    """OUs of 4 columns and a slow merge: the ring is full while a pattern's second OU runs."""
    layer = hand_layer([[(1, 4)]], outputs=16, positions=2, terms=4)
    return layer, replace(TINY_ENGINE, ou_cols=4, adcs=4, slots=8)


def clipping() -> tuple[LayerProgram, EngineConfig]:
    """Codes of two bits for sums of up to eight."""
    return hand_layer([[(8, 3)]], outputs=3, positions=2), replace(TINY_ENGINE, adc_bits=2)


def paired() -> tuple[LayerProgram, EngineConfig]:
    """Signed codes of two bits for sums of up to eight both ways; only -128 has a column 7."""
    layer, config = clipping()
    weights = layer.weights.copy()
    weights[:, 0] = -128
    return replace(layer, weights=weights), replace(config, ou_cols=16, adcs=16, pairs=True)


LAYERS: dict[str, Callable[[], tuple[LayerProgram, EngineConfig]]] = {
    function.__name__: function
    for function in (
        two_groups,
        single_words,
        series,
        four_adcs,
        full_ring,
        gathers,
        merges,
        outputs,
        single_bytes,
        ring,
        halves,
        one_step,
        late_outputs,
        border,
        kernel,
        wide_cells,
        many_ends,
        split,
        split_ring,
        clipping,
        paired,
    )
}


STALLS = {"late_outputs": 0.5}
"""Layers in whose run every stream pauses with this chance; cycles are not compared."""


@cache
def expected(name: str):
    layer, config = LAYERS[name]()
    images = hand_codes(layer)
    trace = golden.run_layer_serial(layer, images, config)
    wanted = [trace.psums, trace.accumulators, trace.outputs]
    return layer, config, images, [array.ravel().tolist() for array in wanted]


def differences(name: str) -> list[str]:
    """Run a layer; which checks fail."""
    layer, config, images, values = expected(name)
    stall = STALLS.get(name, 0.0)
    try:
        (run,) = hardware.run_engine(layer, images, config, stall=stall)
    except hardware.StoppedError:
        return [FAULT]
    result = []
    if [run.psums, run.accumulators, run.outputs] != values:
        result.append(VALUES)
    if not stall and run.cycles != predict(layer, config).cycles:
        result.append(CYCLES)
    return result


MUTANTS = [
    # Shifts and signs.
    Mutant(
        "shift_add",
        "one column shifted one too far",
        (("code << cell * j for j", "code << (cell * j + (j == 1)) for j"),),
        "two_groups",
    ),
    Mutant(
        "shift_add",
        "digits shifted one too far",
        (("part << part_as.scale", "part << (part_as.scale + 1)"),),
        "two_groups",
    ),
    Mutant(
        "shift_add",
        "top column counts +128",
        (("last if negative is None else Mux(negative, -last, last)", "last"),),
        "two_groups",
    ),
    Mutant(
        "shift_add",
        "sums begin with what was there",
        (("Mux(begins, start, old)", "old"),),
        "two_groups",
    ),
    Mutant(
        "reuse_merge",
        "k + 1",
        (("self.psum[place] << word.shift", "self.psum[place] << (word.shift + 1)"),),
        "two_groups",
    ),
    Mutant(
        "reuse_merge",
        "minus ignored",
        (("Mux(word.minus, ~shifted, shifted)", "shifted"),),
        "two_groups",
    ),
    Mutant(
        "reuse_merge",
        "sum of terms not cleared",
        (("Mux(shift_first_term, 0, self.contribution[place])", "self.contribution[place]"),),
        "two_groups",
    ),
    Mutant(
        "reuse_merge",
        "a word that says none adds",
        (("word.shift == SHIFT_NONE", "0"),),
        "two_groups",
    ),
    Mutant(
        "reuse_merge",
        "first group adds to what was there",
        (("shift_write.eq(header.write)", "shift_write.eq(0)"),),
        "two_groups",
    ),
    # Index widths, one bit too narrow.
    Mutant(
        "layouts",
        "slot number",
        (
            (
                "self.slot_bits = bits_for(config.slots)",
                "self.slot_bits = bits_for(config.slots) - 1",
            ),
        ),
        "full_ring",
    ),
    Mutant(
        "layouts",
        "slot of a reuse word",
        (('"slot": self.slot_bits, "shift": 4', '"slot": self.slot_bits - 1, "shift": 4'),),
        "full_ring",
    ),
    Mutant(
        "layouts",
        "kernel position",
        (("bits_for(config.max_positions)", "bits_for(config.max_positions) - 1"),),
        "kernel",
    ),
    Mutant(
        "layouts",
        "first output of a header",
        (('"first_output": self.output_bits', '"first_output": self.output_bits - 1'),),
        "single_words",
        FAULT,
    ),
    Mutant(
        "layouts",
        "row count",
        (("bits_for(rows + 1)", "bits_for(rows)"),),
        "series",
        FAULT,
    ),
    Mutant("layouts", "scale of an answer", (('"scale": 4', '"scale": 3'),), "four_adcs"),
    Mutant(
        "layouts",
        "requantisation multiplier",
        (('"multiplier": signed(16)', '"multiplier": signed(15)'),),
        "two_groups",
    ),
    # Other wrong values.
    Mutant(
        "ou_engine",
        "high digits first",
        ((".word_select(digit,", ".word_select((config.digits - 1 - digit)[:3],"),),
        "two_groups",
    ),
    Mutant(
        "ou_engine",
        "OU number goes on at the next position",
        (("with m.If(gather == self.last_descriptor)", "with m.If(0)"),),
        "two_groups",
    ),
    Mutant(
        "input_gather",
        "every byte of a segment is its first",
        (("address.eq(address + 1)", "address.eq(address)"),),
        "two_groups",
    ),
    Mutant(
        "pattern_controller",
        "the next row of outputs begins where this one did",
        (("position_base.eq(row_base + registers.row_step)", "position_base.eq(row_base)"),),
        "kernel",
    ),
    Mutant(
        "psum_store",
        "accumulate ignored",
        (("Mux(accumulate, before[bank], 0)", "0"),),
        "series",
    ),
    Mutant(
        "accumulators",
        "no forwarding",
        ((", transparent_for=(write,)", ""),),
        "single_words",
    ),
    Mutant(
        "requantise",
        "rounds down",
        (("HALF = Const(1, 1)", "HALF = Const(0, 1)"),),
        "outputs",
    ),
    Mutant(
        "requantise",
        "zero point lost",
        (("Cat(HALF, offset)", "Cat(HALF, Const(0, 25))"),),
        "two_groups",
    ),
    # Cells and digits of more bits, several patterns at once, patterns in two OUs, clipping.
    Mutant(
        "shift_add",
        "inputs not subtracted",
        (("start.eq(-(part_as.inputs * config.offset))", "start.eq(0)"),),
        "wide_cells",
    ),
    Mutant(
        "input_gather",
        "sum of inputs goes on from the vector before",
        (("Mux(arrived_row == 0, 0, before)", "before"),),
        "wide_cells",
    ),
    Mutant(
        "layouts",
        "sum of inputs",
        (("((1 << INPUT_BITS) - 1)).bit_length()", "((1 << INPUT_BITS) - 1)).bit_length() - 1"),),
        "wide_cells",
    ),
    Mutant(
        "crossbar",
        "every digit counts one",
        (("cell * digits[r]", "Mux(digits[r] != 0, cell, 0)"),),
        "wide_cells",
    ),
    Mutant(
        "ou_engine",
        "digits of one bit's worth",
        (("+ digit * config.dac_bits", "+ digit"),),
        "wide_cells",
    ),
    Mutant(
        "shift_add",
        "no second pattern in an answer",
        (("for piece in range(columns.pieces)", "for piece in range(1)"),),
        "wide_cells",
    ),
    Mutant(
        "ou_engine",
        "patterns beyond the vector's end",
        (("Mux(ends < here, ends, here)", "ends"),),
        "many_ends",
    ),
    Mutant(
        "psum_store",
        "banks of a wrapped sum in the same word",
        (("high + (first[:bank_bits] > bank)", "high"),),
        "many_ends",
    ),
    Mutant(
        "psum_store",
        "sums of an answer in the order of banks",
        (("parts = turned(sums, low)", "parts = turned(sums, Const(0))"),),
        "many_ends",
    ),
    Mutant(
        "shift_add",
        "a pattern begins again in the next OU",
        (("before.eq(sums[-1])", "before.eq(start)"),),
        "split",
    ),
    Mutant(
        "ou_engine",
        "every OU begins with a pattern",
        (("phase.eq(split)", "phase.eq(0)"),),
        "split",
    ),
    Mutant(
        "crossbar",
        "codes wrap instead of clipping",
        (("_clip(level, config.max_code)", "level"),),
        "clipping",
    ),
    Mutant(
        "crossbar",
        "minus cells count as plus",
        (("levels[0] - levels[1]", "levels[0] + levels[1]"),),
        "paired",
    ),
    Mutant(
        "crossbar",
        "negative codes do not clip",
        (("Mux(level < -top, -top, _clip(level, top))", "_clip(level, top)"),),
        "paired",
    ),
    Mutant(
        "shift_add",
        "top column of pairs counts -128",
        (("Const(1) if config.twos_complement else None", "Const(1)"),),
        "paired",
    ),
    Mutant(
        "ou_engine",
        "an OU in which no pattern begins waits for a slot",
        ((" | none_begins", ""),),
        "split_ring",
        CYCLES,
    ),
    # The ring, the halves, and the border.
    Mutant(
        "ou_engine",
        "one slot fewer in the ring",
        (("init=config.slots)", "init=config.slots - 1)"),),
        "ring",
        CYCLES,
    ),
    Mutant(
        "reuse_merge",
        "a half is free in the cycle after its last read",
        (("half_is_free | self.half_read.bit_select(half, 1)", "half_is_free"),),
        "halves",
        CYCLES,
    ),
    Mutant(
        "reuse_merge",
        "a half that is taken in the cycle in which it is free stays free",
        (
            (
                "half_used.bit_select(half, 1).eq(1)]",
                "half_used.bit_select(half, 1).eq(~half_used.bit_select(half, 1))]",
            ),
        ),
        "one_step",
    ),
    Mutant(
        "accumulators",
        "what was read changes with the next merge",
        (("Mux(fresh, Array(old)[chosen], kept)", "Array(old)[chosen]"),),
        "late_outputs",
    ),
    Mutant(
        "load",
        "border not written",
        (("constant_values=layer.zero_in", "constant_values=0"),),
        "border",
    ),
    # Dead cycles: every value is right, and only the prediction notices.
    Mutant(
        "pattern_controller",
        "a dead cycle between segments",
        (("(~segment_valid | self.o_segments.ready)", "~segment_valid"),),
        "single_bytes",
        CYCLES,
    ),
    Mutant(
        "psum_store",
        "slots are complete a cycle late",
        (
            (
                "m.d.sync += self.completed.eq(self.completed + complete - self.taken)",
                (
                    "late = Signal(range(ends + 1)); m.d.sync += late.eq(complete)\n"
                    "        m.d.sync += self.completed.eq(self.completed + late - self.taken)"
                ),
            ),
        ),
        "two_groups",
        CYCLES,
    ),
    Mutant(
        "input_gather",
        "a dead cycle between gathers",
        (("~active | last_byte)", "~active)"),),
        "gathers",
        CYCLES,
    ),
    Mutant(
        "ou_engine",
        "a dead cycle between OUs",
        (
            (
                "slots_ok = Signal()",
                "slots_ok = Signal(); dead = Signal(); m.d.sync += dead.eq(self.ou_done)",
            ),
            ("slots_ok.eq(", "slots_ok.eq(~dead & "),
            (
                "~first_request | held | (free >= per_ou) | none_begins",
                "(~first_request | held | (free >= per_ou))",
            ),
        ),
        "two_groups",
        CYCLES,
    ),
    Mutant(
        "reuse_merge",
        "a dead cycle between groups",
        (
            (
                "issue = Signal()",
                "issue = Signal(); dead = Signal(); m.d.sync += dead.eq(self.i_headers.ready)",
            ),
            ("ready.eq(begun | (", "ready.eq(begun | (~dead & "),
        ),
        "merges",
        CYCLES,
    ),
    Mutant(
        "index_reader",
        "a dead cycle from the last word to the first",
        (
            (
                "running = Signal()",
                (
                    "running = Signal(); dead = Signal(); "
                    "m.d.sync += dead.eq(read.en & (address == self.last))"
                ),
            ),
            ("running & (~there | onward)", "running & ~dead & (~there | onward)"),
        ),
        "merges",
        CYCLES,
    ),
    Mutant(
        "requantise",
        "outputs begin a cycle late",
        (("there = any_waits | self.position_done", "there: Value = any_waits"),),
        "outputs",
        CYCLES,
    ),
]


@pytest.mark.parametrize("layer", LAYERS)
def test_the_rtl_as_it_is_passes(layer):
    assert differences(layer) == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_mutant_is_caught(monkeypatch, mutant):
    apply(monkeypatch, mutant)
    found = differences(mutant.layer)
    if mutant.caught == CYCLES:
        assert found == [CYCLES], f"{mutant}: a dead cycle must change the cycles and no value"
    else:
        assert mutant.caught in found


def test_wordlines_that_no_row_uses_and_that_are_not_masked_are_caught(monkeypatch):
    """Their cells are 0, so no code shows it: the requests do, in test_ou_engine.py."""
    what = "wordlines beyond the count not masked"
    mutant = Mutant("ou_engine", what, (("r < vector.count", "1"),), "two_groups")
    check = ou_vectors.check_requests_follow_the_vectors_one_a_cycle_without_a_dead_cycle
    check(8, 8, 1, 1)
    apply(monkeypatch, mutant)
    assert differences("two_groups") == []
    monkeypatch.setattr(ou_vectors, "OUEngine", prap_hw.engine.engine.OUEngine)
    with pytest.raises(AssertionError):
        check(8, 8, 1, 1)
