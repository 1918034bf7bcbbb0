"""The fault campaign, reduced; and that it would find what is missed."""

import re
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from prap_hw.common.faults import Fault
from prap_hw.common.layouts import Space
from prap_hw.deliver.verilog import engine_verilog, shell_verilog
from sim.builds.memories import Memory, guard, memories, program_memories, public
from tests import fault_campaign
from tests.fault_campaign import (
    CONFIG,
    Flip,
    engine_campaign,
    layer_job,
    network_campaign,
)
from tests.support.layers.hand import TINY_ENGINE, hand_layer

EVERY = frozenset(Space(number) for number in range(1, 8))
"""The spaces that are memories of an engine."""

LISTED = EVERY - {Space.WORD, Space.TABLE}
"""Those of the network: it has no reuse words, and its list writes the table of positions."""


@pytest.fixture(scope="module")
def verilog():
    return engine_verilog(CONFIG)


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "spaces"),
    [
        (lambda folder: engine_campaign(), EVERY),
        pytest.param(network_campaign, LISTED | {Space.COMMAND}, marks=pytest.mark.long),
        pytest.param(
            partial(network_campaign, engines=2),
            LISTED | {Space.COMMAND, Space.SHARE},
            marks=pytest.mark.long,
        ),
        pytest.param(
            partial(network_campaign, name="functions"),
            LISTED | {Space.COMMAND, Space.LOOKUP},
            marks=pytest.mark.long,
        ),
    ],
    ids=["engine", "network", "network on two engines", "network with tables"],
)
def test_a_flip_of_any_kind_of_word_is_found_and_none_leaves_a_trace(make, spaces, tmp_path):
    campaign = make(tmp_path)
    counts = campaign.flip(5, 1, tmp_path)
    assert {space for _, space in counts} == spaces
    assert all(count == {"bits": 5, "detected": 5, "leaked": 0, "not again": 0}
               for count in counts.values()), counts  # fmt: skip
    assert fault_campaign.missed(counts) == 0
    # Reads of every memory that the words lead to are watched, but of the table.
    watched = {re.sub(r"(engine_|words_)\d", r"\1N", flag.module) for flag in campaign.flags}
    for place in ("descriptors", "positions", "headers", "gather", "requantise"):
        assert any(place in module for module in watched), (place, watched)
    for count in campaign.damage(20, 1, tmp_path).values():
        assert sum(count[name] for name in fault_campaign.ENDS) == 20
        assert not count["outside"] + count["late"] + count["not again"]
        assert count["right"] < 20


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.long
def test_without_the_checks_the_campaign_finds_flips_that_are_missed(tmp_path):
    counts = engine_campaign(control=True).flip(8, 1, tmp_path)
    assert fault_campaign.missed(counts) > 0
    for kind, count in counts.items():
        assert count["detected"] == 0, kind
        assert count["unnoticed"] + count["wrong"] + count["otherwise"] == 8, kind
        assert count["not again"] == 0, kind
    total = sum(counts.values(), Counter())
    assert total["wrong"]
    assert total["leaked"]


def test_an_engine_whose_memories_have_no_check_is_refused_as_a_control(verilog):
    once = fault_campaign.unchecked(verilog)
    assert once != verilog
    with pytest.raises(ValueError, match=r"expected a check of parity in .*requantise"):
        fault_campaign.unchecked(once)


TEXT = """
module \\top.a.words (clk);
  reg [11:0] words [4:0];
  reg [11:0] other = 12'h0;
endmodule
module top(clk);
  reg flags [7:0];
  reg [3:0] \\table  [8:0];
endmodule
"""


def test_memories_are_found_by_hand():
    found = memories(TEXT)
    assert found == [
        Memory(module="top.a.words", name="words", width=12, depth=5),
        Memory(module="top", name="flags", width=1, depth=8),
        Memory(module="top", name="table", width=4, depth=9),
    ]
    assert [memory.place for memory in found] == ["a.words.words", "flags", "table"]
    assert 'public_flat_rw -module "top" -var "table"' in public(found)
    with pytest.raises(ValueError, match=r"expected a memory that .* knows, found flags"):
        assert found[1].space


READ = """
module \\top.a (clk);
  reg [11:0] words [4:0];
  reg [11:0] even [7:0];
  always @(posedge clk) begin
    if (en) begin
      _0_ <= words[\\a [2:0]];
    end
  end
  assign b = words[c];
  always @(posedge clk) begin
    _1_ <= even[d];
  end
endmodule
"""


def test_reads_that_can_leave_a_memory_are_guarded_by_hand():
    text, flags = guard(READ)
    assert flags == [Memory(module="top.a", name="prap_outside_0", width=1, depth=1)]
    before, between = "reg [11:0] words [4:0];\n", "_0_ <= words[\\a [2:0]];\n"
    expected = READ.replace(before, before + "  reg prap_outside_0 = 1'h0;\n")
    expected = expected.replace(
        between, between + "      if ((\\a [2:0]) >= 5) prap_outside_0 <= 1'h1;\n"
    )
    assert text == expected


def test_every_memory_of_an_engine_and_its_shell_is_known(verilog):
    for text in (verilog, shell_verilog(replace(TINY_ENGINE, trace=False))):
        assert {memory.space for memory in memories(text)} == {*EVERY, None}
    lanes = [m.lane for m in program_memories(verilog) if m.space is Space.WORD]
    assert lanes == [0, 1]


def test_the_bits_that_are_flipped_by_hand():
    # One group of one gather, two outputs: of a table only position 0, no offsets.
    layer = hand_layer([[(5, 3)]], outputs=2)
    found = memories(TEXT.replace("a.words", "controller.words_0"))[:1]
    job = layer_job("hand", layer, TINY_ENGINE)
    flips = fault_campaign.all_flips(job, TINY_ENGINE.merge_lanes, found)
    assert flips == {Space.WORD: [Flip(0, word, bit) for word in (0, 1) for bit in range(12)]}
    # The same with two lanes: a word of each.
    found += [replace(found[0], module="top.controller.words_1")]
    flips = fault_campaign.all_flips(job, 2, found)
    assert flips == {Space.WORD: [Flip(lane, 0, bit) for lane in (0, 1) for bit in range(12)]}
    only = replace(job, read={Space.WORD: job.read[Space.WORD]})
    fault_campaign.check_flips(only, flips, found)
    some = flips[Space.WORD]
    for wrong in (
        {},
        {Space.WORD: []},
        {Space.WORD: some[12:]},
        {Space.WORD: [*some[1:], some[1]]},
    ):
        with pytest.raises(RuntimeError, match=r"^expected 24 bits of WORD to flip, found \d+, "):
            fault_campaign.check_flips(only, wrong, found)
    with pytest.raises(RuntimeError, match=r"^expected words of hand to flip, found none"):
        fault_campaign.check_flips(replace(job, read={}), {}, found)
    assert job.read[Space.TABLE] == [(0, 0)]
    assert Space.OFFSET not in job.read
    assert Space.REGISTER not in job.read
    assert len(job.read[Space.DESCRIPTOR]) == len(job.read[Space.HEADER]) == 1


def test_words_that_are_changed_differ_from_the_right_ones_and_from_each_other():
    job = layer_job("hand", hand_layer([[(5, 3)]], outputs=2), TINY_ENGINE)
    found = fault_campaign.damages(job, TINY_ENGINE, 100, 1)
    assert len(set(found)) == 100
    assert all(job.words[number] != changed for number, changed in found)
    bits = [(job.words[number] ^ changed).bit_count() for number, changed in found]
    assert set(bits[1::2]) == {1}
    assert max(bits[::2]) > 1


def test_what_is_said_of_a_trial_by_hand():
    clean = {"kind": 0, "space": 0, "outputs": 9, "wrong": 0, "late": 0, "hung": 0}

    def flip(**run):
        return fault_campaign.classify_flip({"run": clean | run}, Space.HEADER, 9)

    assert flip(kind=Fault.PARITY.value, space=Space.HEADER.value) == "detected"
    assert flip(kind=Fault.PARITY.value, space=Space.WORD.value) == "otherwise"
    assert flip(kind=Fault.RANGE.value, space=Space.HEADER.value) == "otherwise"
    assert flip() == "unnoticed"
    for run in ({"wrong": 1}, {"outputs": 8}, {"hung": 1}):
        assert flip(**run) == "wrong"

    def damage(**run):
        return fault_campaign.classify_damage({"run": clean | run}, 9)

    assert damage(kind=Fault.PORT.value) == "PORT"
    assert [damage(hung=1), damage(outputs=8), damage(wrong=1), damage()] == [
        "stands",
        "length",
        "other outputs",
        "right",
    ]
