"""Memory images, by hand for a tiny layer."""

import dataclasses

import numpy as np
import pytest

from prap_hw.common.layouts import Layouts, Space
from prap_hw.deliver.load import layer_image, padded_input, reuse_steps
from refmodel.config import SHIFT_NONE, EngineConfig
from refmodel.errors import InputError
from refmodel.program.layer import LayerProgram
from tests.support.layers.builders import ProgramLists
from tests.support.layers.hand import TINY_ENGINE, hand_layer

NONE = (0, SHIFT_NONE, 0)


def tiny(*, full: bool = False) -> LayerProgram:
    """A layer of 2x2 kernels, dilated by 2 downwards, over 3x4x2 inputs with a border of one.

    Group 0: outputs 0 to 2, two patterns over positions 0 and 3, both channels. Group 1: output 2,
    one pattern over position 2.
    """
    lists = ProgramLists(4)
    first = np.array([[1, -1, 2, 127], [-128, 0, 0, 3]], np.int8)
    lists.gather(0, 0 if full else 2, [(0, 0, 2), (3, 0, 2)], first)
    lists.group(kept=2, first_output=0, outputs=3, write=True, gathers=1)
    lists.gather(1, 0 if full else 1, [(2, 0, 1)], np.array([[5]], np.int8))
    lists.group(kept=1, first_output=2, outputs=1, write=False, gathers=1)
    for word in [(0, 8, 0), (1, 3, 1), (1, SHIFT_NONE, 1), (0, 14, 0)]:
        lists.word(*word)
    return LayerProgram(
        name="tiny",
        scheme="prap",
        ou_rows=4,
        in_shape=(3, 4, 2),
        out_shape=(3, 2, 3),
        kernel=(2, 2),
        stride=(1, 2),
        dilation=(2, 1),
        pads=(1, 0, 1, 1),
        zero_in=77,
        zero_out=9,
        clip_lo=3,
        clip_hi=200,
        terms=1,
        identity=False,
        full_offsets=full,
        patterns=4,
        kept=3,
        reused=1,
        dropped=0,
        ous_dense=9,
        bias=np.array([-5, 6, 1 << 30]),
        multiplier=np.array([-32767, 1, 32767]),
        shift=np.array([0, 47, 3]),
        **lists.arrays(),
    )


CONFIG = dataclasses.replace(TINY_ENGINE, ou_rows=4)


def words(layer: LayerProgram, config: EngineConfig = CONFIG) -> dict[Space, dict[int, int]]:
    """Data by space and address; every address is loaded once."""
    result: dict[Space, dict[int, int]] = {space: {} for space in Space}
    layout = Layouts(config).load
    for bits in layer_image(layer, config).words:
        word = layout.from_bits(bits)
        assert word["addr"] not in result[Space(word["space"])]
        result[Space(word["space"])][word["addr"]] = word["data"]
    return result


def fields(layout, bits: int) -> dict[str, int]:
    return {name: layout.from_bits(bits)[name] for name, _ in layout}


def test_registers_by_hand():
    # Padded input: 5 rows of 5 pixels of 2 channels. A column of outputs is 2 pixels, 4 bytes, a
    # row of outputs is one row, 10 bytes.
    names = [name for name, _ in Layouts(CONFIG).registers]
    got = {name: words(tiny())[Space.REGISTER][i] for i, name in enumerate(names)}
    assert got == {
        "last_column": 1,
        "last_row": 2,
        "column_step": 4,
        "row_step": 10,
        "last_descriptor": 1,
        "last_segment": 2,
        "last_header": 1,
        "last_step": 3,
        "last_output": 2,
        "last_term": 0,
        "identity": 0,
        "full_offsets": 0,
        "zero_out": 9,
        "clip_lo": 3,
        "clip_hi": 200,
    }


def test_index_memories_by_hand():
    got, layouts = words(tiny()), Layouts(CONFIG)
    assert [fields(layouts.descriptor, bits) for bits in got[Space.DESCRIPTOR].values()] == [
        {"base": 0, "length": 2, "last_segment": 1, "patterns": 2, "final": 1},
        {"base": 1, "length": 1, "last_segment": 0, "patterns": 1, "final": 1},
    ]
    assert got[Space.POSITION] == {0: 0, 1: 3, 2: 2}
    assert got[Space.OFFSET] == {}
    assert [fields(layouts.header, bits) for bits in got[Space.HEADER].values()] == [
        {"kept": 2, "first_output": 0, "last_output": 2, "write": 1},
        {"kept": 1, "first_output": 2, "last_output": 2, "write": 0},
    ]
    # Positions 0 to 3 are (0, 0), (0, 1), (2, 0), (2, 1) in pixels of a row of 5 with 2 channels.
    assert got[Space.TABLE] == {0: 0, 1: 2, 2: 20, 3: 22}
    assert [fields(layouts.params, bits) for bits in got[Space.OUTPUT].values()] == [
        {"bias": -5, "multiplier": -32767, "shift": 0},
        {"bias": 6, "multiplier": 1, "shift": 47},
        {"bias": 1 << 30, "multiplier": 32767, "shift": 3},
    ]
    decoded = [fields(layouts.word, bits) for bits in got[Space.WORD].values()]
    assert [tuple(word.values()) for word in decoded] == [(0, 8, 0), (1, 3, 1), NONE, (0, 14, 0)]


def test_full_offsets_by_hand():
    got, layouts = words(tiny(full=True)), Layouts(CONFIG)
    assert [fields(layouts.offset, bits) for bits in got[Space.OFFSET].values()] == [
        {"channel": 0, "length": 2},
        {"channel": 0, "length": 2},
        {"channel": 0, "length": 1},
    ]
    assert fields(layouts.descriptor, got[Space.DESCRIPTOR][0])["length"] == 0


def test_cells_by_hand():
    # One OU to a pattern, four rows each, two's complement, low bit on the first bitline; OUs lie
    # side by side.
    layout = Layouts(CONFIG).cells
    beats = [fields(layout, bits) for bits in layer_image(tiny(), CONFIG).beats]
    assert [beat["cells"] for beat in beats] == [1, 255, 2, 127, 128, 0, 0, 3, 5, 0, 0, 0]
    assert [beat["row"] for beat in beats] == [0, 1, 2, 3] * 3
    assert [beat["col_block"] for beat in beats] == [0] * 4 + [1] * 4 + [2] * 4
    assert {(beat["crossbar"], beat["row_block"]) for beat in beats} == {(0, 0)}


def test_ous_go_on_in_the_next_row_block_and_crossbar():
    # 32 x 32 cells hold 4 x 4 OUs of 8 x 8.
    config = dataclasses.replace(TINY_ENGINE, crossbars=2, slots=32)
    beats = layer_image(hand_layer([[(1, 18)]], outputs=1), config).beats[::8]
    layout = Layouts(config).cells
    places = [
        tuple(fields(layout, bits)[name] for name in ("crossbar", "row_block", "col_block"))
        for bits in beats
    ]
    assert places[3:5] == [(0, 0, 3), (0, 1, 0)]
    assert places[15:] == [(0, 3, 3), (1, 0, 0), (1, 0, 1)]


def test_input_has_its_border_of_zero_points():
    codes = np.arange(24, dtype=np.uint8).reshape(3, 4, 2)
    got = padded_input(tiny(), codes).reshape(5, 5, 2)
    assert np.array_equal(got[1:4, :4], codes)
    assert (got[0] == 77).all()
    assert (got[4] == 77).all()
    assert (got[:, 4] == 77).all()
    assert got.dtype == np.uint8


def test_reuse_steps_walk_aligned_blocks_and_their_terms():
    # Two terms; group 0 has outputs 0 to 4, group 1 outputs 3 and 4, in lanes of two: blocks 0 to
    # 2, the last half empty, then blocks 1 and 2, with one output each.
    layer = hand_layer([[(1, 2)], [(1, 3)]], outputs=5, spans=[(0, 5), (3, 2)], terms=2, seed=1)
    word = list(
        zip(
            layer.word_slot.tolist(),
            layer.word_shift.tolist(),
            layer.word_sign.tolist(),
            strict=True,
        )
    )
    assert reuse_steps(layer, 2) == [
        [word[0], word[2]],
        [word[1], word[3]],
        [word[4], word[6]],
        [word[5], word[7]],
        [word[8], NONE],
        [word[9], NONE],
        [NONE, word[10]],
        [NONE, word[11]],
        [word[12], NONE],
        [word[13], NONE],
    ]
    assert reuse_steps(layer, 4) == [
        [word[0], word[2], word[4], word[6]],
        [word[1], word[3], word[5], word[7]],
        [word[8], NONE, NONE, NONE],
        [word[9], NONE, NONE, NONE],
        [NONE, NONE, NONE, word[10]],
        [NONE, NONE, NONE, word[11]],
        [word[12], NONE, NONE, NONE],
        [word[13], NONE, NONE, NONE],
    ]
    assert reuse_steps(layer, 1) == [[item] for item in word]


def test_a_word_that_says_none_is_empty_whatever_its_slot_and_sign():
    assert reuse_steps(tiny(), 1)[2] == [NONE]


def test_an_identity_map_has_no_words():
    layer = hand_layer([[(2, 3)]], outputs=3, identity=True)
    assert reuse_steps(layer, 4) == []
    assert words(layer, TINY_ENGINE)[Space.WORD] == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ou_rows": 8}, "expected a program for OUs of 8 rows"),
        ({"activation_bytes": 64, "max_outputs": 2}, "expected max_outputs of at most 2, found 3"),
        ({"max_gathers": 1}, "expected max_gathers of at most 1, found 2"),
        ({"max_segments": 2}, "expected max_segments of at most 2, found 3"),
        ({"max_groups": 1}, "expected max_groups of at most 1, found 2"),
        ({"max_words": 3}, "expected max_words of at most 3, found 4"),
        ({"max_positions": 3}, "expected max_positions of at most 3, found 4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_layer_that_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=f"layer tiny: {message}"):
        layer_image(tiny(), dataclasses.replace(CONFIG, **options))
